"""Read by the kit and run by a host's own Python (`python -c`): where the NPU's tools may be, for `fab init`.

Arguments: the folders below which a CANN may be. Prints one line of JSON: the environment scripts that are there, and
what calls npu-smi, atc and a Python that has ais_bench. Python >= 3.7, no packages.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys

SCRIPTS = ("cann/set_env.sh", "ascend-toolkit/set_env.sh", "nnrt/set_env.sh", "nnae/set_env.sh")
PYTHONS = (
    "/usr/bin",
    "/usr/local/bin",
    "/usr/local/python3*/bin",
    "/opt/conda/bin",
    "~/*conda*/bin",
    "~/*conda*/envs/*/bin",
)
SMI = ("/usr/local/bin/npu-smi", "/usr/local/sbin/npu-smi")
MOST = 20  # Pythons that are tried
TIMEOUT_S = 20
MODULES = (
    "import importlib.util as u; print([u.find_spec(m) is not None for m in ('ais_bench', 'aclruntime')] == [True] * 2)"
)


def env_scripts(roots: list[str]) -> list[str]:
    found = [os.path.join(os.path.expanduser(root), name) for root in roots for name in SCRIPTS]
    return [path for path in found if os.path.isfile(path)]


def python() -> str | None:
    """A Python that has ais_bench: the PATH's own first, and each once, whatever links lead to it."""
    found = [shutil.which("python3") or ""]
    for folder in PYTHONS:
        found += sorted(glob.glob(os.path.join(os.path.expanduser(folder), "python3*")))
    distinct: dict[str, str] = {}
    for path in found:
        if re.match(r"python3(\.[0-9]+)?$", os.path.basename(path)) and os.access(path, os.X_OK):
            distinct.setdefault(path if "/envs/" in path else os.path.realpath(path), path)
    having = [path for path in list(distinct.values())[:MOST] if has_ais_bench(path)]
    return word("python3", having[0]) if having else None


def has_ais_bench(path: str) -> bool:
    try:
        done = subprocess.run(
            [path, "-c", MODULES], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == b"True"


def word(name: str, path: str) -> str:
    """How a program is called: by its name where the PATH finds it so."""
    return name if path == shutil.which(name) else path


def main() -> None:
    smi = [shutil.which("npu-smi") or "", *SMI]
    atc = shutil.which("atc")
    found = {
        "env_scripts": env_scripts(sys.argv[1:]),
        "python": python(),
        "npu_smi": next((word("npu-smi", path) for path in smi if path and os.access(path, os.X_OK)), None),
        "atc": atc and "atc",
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
