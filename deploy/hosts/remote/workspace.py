"""The workspace: one operator at a time, and nothing half done left behind."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import signal
import time
from typing import Any, Dict

from . import files, jobs, machine, protocol, shards
from .protocol import LEASE_S, Body, Request


def contact(request: Request, _body: Body) -> Dict[str, str]:
    """Where `workspace`, as the inventory has it, lies here, and the home that it is relative to."""
    home = os.path.expanduser("~")
    workspace = os.path.normpath(os.path.join(home, os.path.expanduser(request["workspace"])))
    os.makedirs(os.path.join(workspace, ".kit"), exist_ok=True)
    return {"home": home, "workspace": workspace}


def hold(request: Request, _body: Body) -> Any:
    """Hold `workspace` for `owner` until the operator is gone: a frame once it is held, or its holder as the reply.

    `stale` is a holder that the operator knows to be dead: its process here, which waits on a dead link, is ended.
    """
    kit = os.path.join(request["workspace"], ".kit")
    os.makedirs(kit, exist_ok=True)
    path = os.path.join(kit, "lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        if not files.lock(descriptor):
            os.close(descriptor)
            held = files.read_mapping(path)
            if request.get("stale") is None or held.get("owner") != request["stale"]:
                return held.get("owner") or {}
            if machine.is_pid(held.get("pid")):
                with contextlib.suppress(OSError):
                    os.kill(held["pid"], signal.SIGKILL)
            time.sleep(0.05)
            continue
        if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            break
        os.close(descriptor)  # its last holder removed it in between
    record = json.dumps({"owner": request["owner"], "pid": os.getpid()}).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, record, 0)
    sweep(request["workspace"])
    protocol.frame(b"\n")
    try:
        while True:
            protocol.listen(LEASE_S)
    finally:
        with contextlib.suppress(FileNotFoundError):  # `fab clean` removes all
            os.remove(path)


def sweep(workspace: str) -> None:
    """Remove what a killed operator left aside, and the jobs that nobody will collect: nobody else writes here now."""
    here = glob.escape(workspace)
    for part in glob.glob(os.path.join(here, "files", "*", "*.part")) + glob.glob(os.path.join(here, ".kit", "*.part")):
        with contextlib.suppress(OSError):
            os.remove(part)
    wanted = set()
    for folder in glob.glob(os.path.join(here, ".kit", "jobs", "*")):
        name = os.path.basename(folder)
        state = jobs.state(folder)
        if state == "running" or (state == "ended" and not name.startswith("once-")):
            wanted.add(name)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in glob.glob(os.path.join(here, ".kit", "runs", "*")):
        if os.path.basename(folder) not in wanted:
            shutil.rmtree(folder, ignore_errors=True)


def abandon(request: Request, body: Body) -> bool:
    """After an interrupt: end every job in `workspace`, every receiver of a shard, and remove all that is half done."""
    workspace = glob.escape(request["workspace"])
    jobs.stop({"folders": glob.glob(os.path.join(workspace, ".kit", "jobs", "*"))}, body)
    shutil.rmtree(os.path.join(request["workspace"], ".kit", "runs"), ignore_errors=True)
    for part in glob.glob(os.path.join(workspace, "data", "*", "*.part")):
        shards.end_writer(part)
        shutil.rmtree(part, ignore_errors=True)
    sweep(request["workspace"])
    return True
