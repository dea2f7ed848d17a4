"""What a host is and has."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import time
from typing import Any, Dict, Optional

from .compression import codecs
from .protocol import Request


def facts(request: Request, _operator: Any) -> Dict[str, Any]:
    """What `fab doctor` asks of a host, and what a push needs to know."""
    workspace = request["workspace"]
    there = workspace
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    disk = os.statvfs(there)
    devices = sorted(glob.glob("/dev/davinci*") + glob.glob("/dev/devmm_svm") + glob.glob("/dev/hisi_hdc"))
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "codecs": codecs(),
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "writable": os.access(there, os.W_OK | os.X_OK),
        "uid": os.getuid(),
        "time": time.time(),
        "programs": {name: shutil.which(name) for name in request.get("programs", [])},
        "sizes": {path: _size(path) for path in request.get("files", [])},
        "devices": {path: [os.stat(path).st_uid, os.stat(path).st_gid, os.stat(path).st_mode] for path in devices},
    }


def _size(path: str) -> Optional[int]:
    """Bytes of a file, or of the files in a folder; None where nothing is."""
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return os.path.getsize(path) if os.path.isfile(path) else None
