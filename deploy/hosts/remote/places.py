"""Where a workspace may be."""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import Dict, List

_CHECKOUT = ("fabfile.py", "deploy/hosts/remote")  # what the kit's own folder has


def refuse_place(workspace: str, inputs: Dict[str, str]) -> None:
    """Raises ValueError where `workspace` is the root, somebody's home or above one, the kit's own folder, or holds one
    of `inputs` {key of the inventory: path}."""
    real = os.path.realpath(workspace)
    what = None
    if real == "/":
        what = "it is the root of the file system"
    elif any(_holds(real, home) for home in _homes()):
        what = "it is a home folder, or holds one"
    elif all(os.path.exists(os.path.join(real, name)) for name in _CHECKOUT):
        what = "it is the kit's own folder"
    for key, path in inputs.items():
        if _holds(real, os.path.realpath(path)):
            what = "it holds %s (%s)" % (key, path)
    if what:
        raise ValueError("%s is no workspace: %s; name a folder that is the kit's alone" % (workspace, what))


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _homes() -> List[str]:
    """Of everybody who logs in here; programs' own logins have a home such as /, /bin or /nonexistent."""
    named = [os.path.expanduser("~")]
    with contextlib.suppress(OSError):
        named += [entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid == 0 or entry.pw_uid >= 1000]
    return [real for real in map(os.path.realpath, named) if real not in ("/", "/nonexistent")]
