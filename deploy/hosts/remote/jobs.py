"""Programs that run on without their operator.

A job is a folder: request.json, alive (locked while its supervisor or its program lives), pid, log, status.json.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Dict

from . import files, launch, machine, protocol
from .protocol import BLOCK, Body, Request

STOP_S = 5.0  # what a program gets between SIGTERM and SIGKILL


def job(request: Request, _body: Body) -> Dict[str, Any]:
    """Start `argv` detached in job folder `folder`, or attach to it; its output as frames, its end as the reply.

    The reply is {"status": exit status, negative for a signal}, or {"timed_out": true} after `timeout_s`, or
    {"refused": why it could not be started}, or {"lost": true} when nothing is left to tell.
    """
    folder = request["folder"]
    if state(folder) is None:
        _start(folder, request)
    _follow(folder)
    return _outcome(folder) or {"lost": True}


def job_state(request: Request, _body: Body) -> str | None:
    """The state of the job in `folder`."""
    return state(request["folder"])


def state(folder: str) -> str | None:
    """`running`, `ended` (with status 0) or null: no such job, or one that failed and is not worth collecting."""
    if not os.path.isdir(folder):
        return None
    outcome = _outcome(folder)
    if outcome is None and is_alive(folder):
        return "running"
    return "ended" if outcome == {"status": 0} else None


def _outcome(folder: str) -> Dict[str, Any] | None:
    return files.read_json(os.path.join(folder, "status.json")) or None


def _start(folder: str, request: Request) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    alive = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CREAT, 0o640)
    fcntl.flock(alive, fcntl.LOCK_EX)
    open(os.path.join(folder, "log"), "wb").close()
    files.write_json(os.path.join(folder, "request.json"), request)
    supervisor = subprocess.Popen(
        [sys.executable, *launch.ARGUMENTS, "supervise", folder, str(alive)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[alive],
    )
    os.close(alive)
    assert supervisor.stdin
    with supervisor.stdin as source:
        source.write(launch.payload())


def supervise(folder: str, alive: int) -> None:
    """Run a job's program to its end or its deadline. The program inherits `alive`, so that the lock tells of it even
    when this supervisor is killed."""
    request = files.read_json(os.path.join(folder, "request.json"))
    with open(os.path.join(folder, "log"), "ab") as log:
        try:
            process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[alive],
            )
        except OSError as error:
            files.write_json(os.path.join(folder, "status.json"), {"refused": os.strerror(error.errno or 0)})
            return
    files.write_json(os.path.join(folder, "pid"), process.pid)
    try:
        outcome: Dict[str, Any] = {"status": process.wait(request.get("timeout_s"))}
    except subprocess.TimeoutExpired:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        outcome = {"timed_out": True}
    _signal_group(process.pid, signal.SIGKILL)  # what it left behind
    files.write_json(os.path.join(folder, "status.json"), outcome)


def _follow(folder: str) -> None:
    pause = 0.01
    with open(os.path.join(folder, "log"), "rb") as log:
        while True:
            ended = _outcome(folder) is not None or not is_alive(folder)
            block = log.read(BLOCK)
            if block:
                protocol.frame(block)
                pause = 0.01
            elif ended:
                return
            else:
                protocol.listen(pause)
                pause = min(pause * 1.5, 0.2)


def stop(request: Request, _body: Body) -> bool:
    """End the jobs of `folders`, programs and all that they started, and remove the folders."""
    for folder in request["folders"]:
        pid = os.path.join(folder, "pid")
        for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            deadline = time.monotonic() + patience
            while os.path.isdir(folder) and is_alive(folder) and time.monotonic() < deadline:
                if os.path.exists(pid):  # else it is just being started
                    _signal_group(files.read_json(pid), number)
                time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):  # first, or a removal cut short would leave a job that ended well
            os.remove(os.path.join(folder, "status.json"))
        shutil.rmtree(folder, ignore_errors=True)
    return True


def is_alive(folder: str) -> bool:
    try:
        descriptor = os.open(os.path.join(folder, "alive"), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not files.lock(descriptor)
    finally:
        os.close(descriptor)


def _signal_group(group: Any, number: int) -> None:
    if machine.is_pid(group):
        with contextlib.suppress(OSError):
            os.killpg(group, number)
