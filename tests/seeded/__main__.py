"""Makes faults in a copy of the last commit, one at a time, and says which tier of tests catches each:

    python -m tests.seeded [--quick] [WORDS...]

Each fault meets the tests that are most likely to tell first, then all of its tier, up to the first that fails. WORDS
choose among the faults; with --quick a fault that the quick tier lets through is not tried on the full one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.inventory import ROOT
from tests.seeded.faults import FAULTS, Fault

TIERS = {"make test": "not full", "make test-full": "full"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.seeded", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the quick tier alone")
    parser.add_argument("words", nargs="*", help="of the faults to make, all by default")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if all(word in f"{fault.what} {fault.file}" for word in options.words)]
    tiers = list(TIERS)[:1] if options.quick else list(TIERS)
    caught = dict.fromkeys(tiers, 0)
    with tempfile.TemporaryDirectory(prefix="seeded-") as folder:
        kit = Path(folder) / "kit"
        subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(kit)], check=True)
        (kit / ".venv").symlink_to(Path(sys.prefix))
        for fault in chosen:
            fault.make(kit)
            tier, test = catch(kit, fault, tiers)
            subprocess.run(["git", "checkout", "--quiet", "."], cwd=kit, check=True)
            if tier and test:
                if failing(kit, TIERS[tier], [test]):
                    sys.exit(f"error: {test} fails without a fault too; mend it first")
                caught[tier] += 1
            print(f"{tier or 'NOT CAUGHT':15} {fault.what} ({fault.file}){f': {test}' if test else ''}", flush=True)
    print(", ".join(f"{count} of {len(chosen)} caught by {tier}" for tier, count in caught.items()))
    sys.exit(sum(caught.values()) < len(chosen))


def catch(kit: Path, fault: Fault, tiers: Sequence[str]) -> tuple[str | None, str | None]:
    """The first of `tiers` that catches a fault that was made, and the test that fails."""
    for tier in tiers:
        for tests in (fault.first.split(), ["tests", "--ignore=tests/seeded"]):
            if test := failing(kit, TIERS[tier], tests):
                return tier, test
    return None, None


def failing(kit: Path, marked: str, tests: Sequence[str]) -> str | None:
    """The first of `tests` to fail, None where they pass."""
    argv = [str(Path(sys.executable)), "-B", "-m", "pytest", "-x", "-m", marked, "-p", "no:cacheprovider", *tests]
    done = subprocess.run(argv, cwd=kit, capture_output=True, text=True)
    if done.returncode in (0, 5):  # 5: none is of that tier
        return None
    lines = done.stdout.splitlines()
    told = next((line for line in lines if line.startswith(("FAILED ", "ERROR "))), lines[-1] if lines else "")
    return told.partition(" ")[2].partition(" - ")[0] or told


if __name__ == "__main__":
    main()
