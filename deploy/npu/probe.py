"""Read by the kit and run by a host's own Python (`python -c`), inside the environment of its NPU tools.

Prints one line of JSON: the texts of CANN's and the driver's version files, and the sha256 over the files of the
ais_bench and aclruntime that this Python would import. Python >= 3.7, no packages.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import os
import platform
import stat
from typing import BinaryIO

BLOCK = 1 << 20
ROOTS = ("/usr/local/Ascend", "~/Ascend", "/opt/conda/Ascend", "/opt/Ascend")  # installed by root, a user, conda


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


def homes() -> list[str]:
    """Where a CANN may be, the likeliest first: what is sourced, what is above the modules, what is installed."""
    names = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH", "ASCEND_NNRT_HOME", "ASCEND_NNAE_HOME", "ASCEND_AICPU_PATH")
    found = [os.environ[name] for name in names if os.environ.get(name)]
    if os.environ.get("ASCEND_OPP_PATH"):
        found.append(os.path.dirname(os.environ["ASCEND_OPP_PATH"].rstrip("/")))
    for root in ROOTS:
        top = os.path.expanduser(root)
        found += [os.path.join(top, name) for name in ("cann", "ascend-toolkit/latest", "nnrt/latest", "nnae/latest")]
        found += sorted(glob.glob(os.path.join(glob.escape(top), "cann-*")), reverse=True)
        found.append(top)
    return list(dict.fromkeys(os.path.normpath(home) for home in found))


def cann_files() -> list[str]:
    """The files that may tell CANN's version, the likeliest first."""
    system = platform.machine() + "-linux"
    folders = (system, "arm64-linux", "") if platform.machine() == "aarch64" else (system, "")
    names = [
        "ascend_toolkit_install.info",
        "ascend_nnrt_install.info",
        "ascend_nnae_install.info",
        "ascend_install.info",
    ]
    found = []
    for home in homes():
        found += [os.path.join(home, folder, name) for name in names for folder in folders]
        found += [os.path.join(home, name) for name in ("version.cfg", "version.info", "compiler/version.info")]
        found += [os.path.join(home, "runtime/version.info"), os.path.join(home, system, "version.info")]
    return found


def main() -> None:
    driver = os.environ.get("ASCEND_DRIVER_PATH", "/usr/local/Ascend/driver")
    print(
        json.dumps(
            {
                "cann": text_of(*cann_files()),
                "driver": text_of(
                    os.path.join(driver, "version.info"),
                    "/usr/local/Ascend/driver/version.info",
                    os.path.expanduser("~/Ascend/driver/version.info"),
                    "/usr/lib64/davinci/version.info",
                    "/var/davinci/driver/version.info",
                ),
                "ais_bench": digest_of("ais_bench"),
                "aclruntime": digest_of("aclruntime"),
                "python": platform.python_version(),
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
