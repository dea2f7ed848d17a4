"""What is needed of a CANN, whatever its layout, where it is looked for.

`python3 cann_view.py view PATH HOME...`: links at PATH to the headers and libraries of the toolkits at HOME..., in all
the layouts that the releases of ais_bench's backend know; stubs before real libraries, for they ask for no driver.
`python3 cann_view.py devlib PATH HOME...`: a link at PATH to the folder of the toolkit's own libascend_hal.so, if any.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

MACHINE = platform.machine()
# A toolkit holds stubs for other machines too.
_OTHERS = re.compile(r"(aarch64|arm64)\b" if MACHINE == "x86_64" else r"(x86_64|x86|amd64)\b")
# Up to 8.3, from 8.5 on, and their forms without the machine's name: places of the headers, and of the libraries.
_HEADERS = ("include", "runtime/include", f"{MACHINE}-linux/include")
_LIBRARIES = ("lib64", f"{MACHINE}-linux/lib64", "runtime/lib64/stub")


def folders_of(homes: list[Path], name: str) -> Iterator[Path]:
    """The folders below `homes` that hold a file `name` for this machine, links followed, each once."""
    seen = set()
    for home in homes:
        for at, folders, _ in os.walk(home, followlinks=True):
            real = os.path.realpath(at)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(folder for folder in folders if not _OTHERS.match(folder))
            if Path(at, name).is_file():
                yield Path(at)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)


def view(path: Path, homes: list[Path]) -> None:
    headers = next(folders_of(homes, "acl/acl.h"), None)
    libraries = sorted(folders_of(homes, "libascendcl.so"), key=lambda folder: "stub" not in folder.parts)
    if headers is None or not libraries:
        looked = ", ".join(dict.fromkeys(map(str, homes)))
        sys.exit(
            f"error: the base's CANN ({looked}) has no acl/acl.h or no libascendcl.so "
            f"for {MACHINE}; give one with a whole toolkit with BASE_IMAGE=..., or wheels with AIS_BENCH_SRC=..."
        )
    for folder in libraries:
        for library in folder.glob("lib*.so"):
            link(path / "libraries" / library.name, library)
    link(path / "libraries" / MACHINE, Path())  # stub/<machine>/ is looked into before stub/
    for place in _LIBRARIES:
        link(path / place, path / "libraries")
    for place in _HEADERS:
        link(path / place, headers)


def devlib(path: Path, homes: list[Path]) -> None:
    for folder in folders_of(homes, "libascend_hal.so"):
        if "devlib" in folder.parts:
            link(path, folder)
            return


if __name__ == "__main__":
    {"view": view, "devlib": devlib}[sys.argv[1]](Path(sys.argv[2]), [Path(home) for home in sys.argv[3:]])
