"""Read by the kit and run by a host's own Python (`python -c`), inside the environment of its NPU tools.

Prints one line of JSON: the texts of CANN's and the driver's version files, and the sha256 over the files of the
ais_bench and aclruntime that this Python would import. Python >= 3.7, no packages.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import stat
from typing import BinaryIO

BLOCK = 1 << 20


def opened(path: str) -> BinaryIO:
    """A file for reading; OSError for a pipe or a device, which may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(path)


def text_of(*candidates: str) -> str | None:
    for path in candidates:
        try:
            with opened(path) as stream:
                return stream.read(65536).decode("utf-8", "replace")
        except OSError:
            pass
    return None


def digest_of(module: str) -> str | None:
    """sha256 over a module's files, their names sorted; None where it cannot be imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin:
        return None
    paths = [spec.origin]
    if spec.submodule_search_locations:
        top = os.path.dirname(spec.origin)
        found = [os.path.join(f, n) for f, _, names in os.walk(top) for n in names if not n.endswith(".pyc")]
        paths = sorted(found)
    sha = hashlib.sha256()
    for path in paths:
        with opened(path) as stream:
            sha.update(os.path.basename(path).encode() + b"\0")
            for block in iter(lambda: stream.read(BLOCK), b""):
                sha.update(block)
    return sha.hexdigest()


def main() -> None:
    home = os.environ.get("ASCEND_HOME_PATH", "/usr/local/Ascend/ascend-toolkit/latest")
    toolkit = os.environ.get("ASCEND_TOOLKIT_HOME", home)
    driver = os.environ.get("ASCEND_DRIVER_PATH", "/usr/local/Ascend/driver")
    system = platform.machine() + "-linux"
    print(
        json.dumps(
            {
                "cann": text_of(
                    os.path.join(toolkit, system, "ascend_toolkit_install.info"),
                    os.path.join(toolkit, "ascend_toolkit_install.info"),
                    os.path.join(toolkit, "version.cfg"),
                ),
                "driver": text_of(os.path.join(driver, "version.info")),
                "ais_bench": digest_of("ais_bench"),
                "aclruntime": digest_of("aclruntime"),
                "python": platform.python_version(),
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
