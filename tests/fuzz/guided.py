"""Attacks that follow the code's branches, by atheris, on the readers that are quick enough for them:

    python -m tests.fuzz.guided SECONDS [READER ...]

gives each reader so many seconds in a process of its own and prints how many cases it met; the first that ends in
anything but a refusal, hangs or takes too much memory ends the run, its bytes shown in base64.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HANG_S, MEMORY_MIB = 20, 2048
READERS = (
    *("npy", "labels", "json", "index", "inventory", "page", "shard", "probe", "CANN version", "driver version"),
    *("npu-smi info", "npu-smi info -m", "npu-smi proc-mem", "atc", "aoe", "ais_bench"),
    *("ais_bench --help", "ais_bench summary", "known hosts", "reply to digest", "reply to facts", "reply to job"),
)


def attack(name: str, seconds: int) -> None:
    """Attack one reader in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["deploy", "stgcn"]):
        from tests.fuzz.targets import TARGETS

    target, top = TARGETS[name], Path(tempfile.mkdtemp())
    own, corpus = top / "work" / "own", top / "corpus"
    for folder in (own, corpus):
        folder.mkdir(parents=True)
    for number, content in enumerate(target.seeds()):
        if len(content) < 1 << 16:
            (corpus / str(number)).write_bytes(content)
    limits = [f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MIB}", "-print_final_stats=1"]
    atheris.Setup(
        [sys.argv[0], *limits, f"-artifact_prefix={top}/", str(corpus)], lambda content: target.survive(content, own)
    )
    atheris.Fuzz()


def main(seconds: int, names: list[str]) -> None:
    for name in names or READERS:
        argv = [sys.executable, "-m", "tests.fuzz.guided", "--attack", name, str(seconds)]
        with tempfile.TemporaryDirectory(prefix="stgcn-fuzz-") as scratch:
            done = subprocess.run(argv, env={**os.environ, "TMPDIR": scratch}, capture_output=True, text=True)
        runs = re.search(r"number_of_executed_units: *([0-9]+)", done.stderr)
        if done.returncode or runs is None:
            sys.exit(f"error: {name}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
        print(f"{int(runs[1]):8} guided cases  {name}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--attack":
        attack(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]), sys.argv[2:])
