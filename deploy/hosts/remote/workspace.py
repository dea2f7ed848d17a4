"""The workspace: where it may be, one operator at a time, and nothing half done left behind."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import signal
import time
from typing import Any, Dict, List

from . import files, folders, jobs, old_layout, processes, shards
from .places import refuse_place
from .protocol import LEASE_S, Request

LOCK = "lock"


def contact(request: Request, _operator: Any) -> Dict[str, str]:
    """Where `workspace`, as the inventory has it, lies here, and the home that it is relative to.

    Raises:
        ValueError: it is no place for a workspace (see `refuse_place`), or other logins may write there.
    """
    home = os.path.expanduser("~")
    workspace = resolved(home, request["workspace"])
    inputs = {key: resolved(home, path) for key, path in request["inputs"].items()}
    refuse_place(workspace, inputs)
    folders.refuse_shared(workspace)
    return {"home": home, "workspace": workspace}


def resolved(home: str, path: str) -> str:
    return os.path.normpath(os.path.join(home, os.path.expanduser(path)))


def hold(request: Request, operator: Any) -> Any:
    """Hold `workspace` for `owner` until the operator is gone: a frame once it is held, or its holder as the reply;
    then a byte for each of the operator's signs of life, while it is still held.

    `stale` is a holder that the operator knows to be dead: its process here, which waits on a dead link, is ended.
    """
    with folders.opened(folders.kit_of(request["workspace"]), make=True) as kit:
        while True:
            descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=kit)
            if not files.lock(descriptor):
                held = _record(descriptor)
                os.close(descriptor)
                if request.get("stale") is None or held.get("owner") != request["stale"]:
                    return held.get("owner") or {}
                if processes.is_pid(held.get("pid")) and held["pid"] != os.getpid():
                    with contextlib.suppress(OSError):
                        os.kill(held["pid"], signal.SIGKILL)
                time.sleep(0.05)
                continue
            if _is_lock(descriptor, kit):
                break
            os.close(descriptor)  # its last holder removed it in between
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"owner": request["owner"], "pid": os.getpid()}).encode(), 0)
            sweep(request["workspace"])
            yield b"\n"
            while True:
                heard = operator.wait(LEASE_S)
                if not _is_lock(descriptor, kit):
                    raise ValueError("its lock is gone")
                yield b"\n" * heard
        finally:
            if _is_lock(descriptor, kit):
                os.unlink(LOCK, dir_fd=kit)
            os.close(descriptor)


def _record(descriptor: int) -> Dict[str, Any]:
    """What a lock says of its holder; {} where it is torn."""
    try:
        found = json.loads(os.pread(descriptor, files.RECORD_BYTES, 0))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_lock(descriptor: int, kit: int) -> bool:
    """Whether an open file is the lock of the open folder `kit`, and not one that was removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(LOCK, dir_fd=kit, follow_symlinks=False))
    except OSError:
        return False


def sweep(workspace: str) -> None:
    """Remove what a killed operator left aside, and the jobs that nobody will collect: nobody else writes here now."""
    kit = folders.kit_of(workspace)
    for part in _found(kit, "files", "*", "*.part") + _found(kit, "*.part"):
        folders.remove(part)
    wanted = set()
    for folder in _found(kit, "jobs", "*"):
        name = os.path.basename(folder)
        if jobs.state(folder) is None:
            folders.remove(folder)
        else:
            wanted.add(name)
    for folder in _found(kit, "runs", "*"):
        if os.path.basename(folder) not in wanted:
            folders.remove(folder)


def abandon(request: Request, operator: Any) -> bool:
    """After an interrupt: end every job in `workspace`, every receiver of a shard, and remove all that is half done."""
    kit = folders.kit_of(request["workspace"])
    jobs.stop({"folders": _found(kit, "jobs", "*"), "paths": []}, operator)
    folders.remove(os.path.join(kit, "runs"))
    for part in _found(kit, "clips", "*", "*.part"):
        shards.end_writer(part)
        folders.remove(part)
    sweep(request["workspace"])
    return True


def _found(kit: str, *pattern: str) -> List[str]:
    return sorted(glob.glob(os.path.join(glob.escape(kit), *pattern)))


def clean(request: Request, operator: Any) -> Dict[str, List[str]]:
    """Remove the kit's folder of `workspace`, and of what older layouts put beside it what their own names and contents
    tell; the reply says what was `removed`, and what was `left` because it may be somebody's."""
    workspace = request["workspace"]
    kit = folders.kit_of(workspace)
    removed = []
    with contextlib.suppress(FileNotFoundError), folders.opened(kit):
        jobs.stop({"folders": _found(kit, "jobs", "*"), "paths": []}, operator)
        removed.append(kit)
    if removed:
        _remove_kit(workspace)
    old_removed, left = old_layout.clean(workspace)
    return {"removed": removed + old_removed, "left": left}


def _remove_kit(workspace: str) -> None:
    """The marker last: a removal that is cut short leaves a folder that is still known for the kit's."""
    kit = folders.kit_of(workspace)
    with folders.opened(kit) as descriptor:
        for name in sorted(os.listdir(descriptor), key=lambda name: name == folders.MARKER):
            folders.remove_in(descriptor, name)
    os.rmdir(kit)
