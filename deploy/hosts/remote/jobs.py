"""Programs that run on without their operator.

A job is a folder: alive (locked while its supervisor or its program lives), pid, log, status.json. What it runs, and in
which environment, is written nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, Optional

from . import files, folders, launch, processes, protocol
from .protocol import BLOCK, Request

POLL_S = 0.2
FOLLOW_S = 0.03  # between looks at a job, each a hundredth of that: a device waits as long for its next work
STOP_S = 5.0  # what a program gets between SIGTERM and SIGKILL


def execute(request: Request, operator: Any) -> Any:
    """Run `argv` to its end, its output as frames; it ends with its operator. The reply is as a job's."""
    limit, start = request.get("timeout_s"), time.monotonic()
    try:
        process = subprocess.Popen(
            request["argv"],
            env=_environment(request),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return {"refused": os.strerror(error.errno or 0)}
    assert process.stdout
    try:
        with process.stdout as output:
            for block in _until_end(process, output.fileno()):
                yield block
                operator.wait(0)
                if limit is not None and time.monotonic() - start > limit:
                    return {"timed_out": True}
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    return {"status": process.returncode}


def _until_end(process: Any, output: int) -> Iterator[bytes]:
    """What a program prints until it ends, in turns of at most POLL_S; what it left may hold its output open."""
    is_open = True
    while True:
        has_ended = process.poll() is not None
        if has_ended:
            _signal_group(process.pid, signal.SIGKILL)  # what it left behind may print for ever
        block = b""
        if is_open and select.select([output], [], [], 0 if has_ended else POLL_S)[0]:
            block = os.read(output, BLOCK)
            is_open = bool(block)
        elif has_ended:
            return
        elif not is_open:
            time.sleep(0.01)
        yield block


def job(request: Request, operator: Any) -> Any:
    """Start `argv` detached in job folder `folder`, or attach to it; its output as frames, its end as the reply.

    The reply is {"status": exit status, negative for a signal}, or {"timed_out": true} after `timeout_s`, or
    {"refused": why it could not be started}, or {"lost": true} when nothing is left to tell.
    """
    folder = request["folder"]
    if state(folder) is None:
        _start(folder, request)
    yield from _follow(folder, operator)
    outcome = _outcome(folder)
    if not outcome and not os.statvfs(folder).f_bavail:  # so it could not be written
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
    return outcome or {"lost": True}


def job_state(request: Request, _operator: Any) -> str | None:
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
    folders.remove(folder)
    with folders.opened(folder, make=True) as made:
        alive = folders.create(made, "alive")
        try:
            fcntl.flock(alive, fcntl.LOCK_EX)
            os.close(folders.create(made, "log"))
            supervisor = subprocess.Popen(
                [sys.executable, *launch.ARGUMENTS, "supervise", folder, str(alive)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[alive],
            )
        finally:
            os.close(alive)
    assert supervisor.stdin
    with supervisor.stdin as source:
        source.write(launch.payload() + json.dumps(request).encode() + b"\n")


def _environment(request: Request) -> Dict[str, str]:
    return {**os.environ, **request.get("env", {})}


def supervise(folder: str, alive: int, request: Request) -> None:
    """Run a job's program to its end or its deadline. The program inherits `alive`, so that the lock tells of it even
    when this supervisor is killed."""
    with open(os.path.join(folder, "log"), "ab") as log:
        try:
            process = subprocess.Popen(
                request["argv"],
                env=_environment(request),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[alive],
            )
        except OSError as error:
            files.write_json(os.path.join(folder, "status.json"), {"refused": os.strerror(error.errno or 0)})
            return
    outcome: Dict[str, Any] = {"timed_out": True}
    try:
        files.write_json(os.path.join(folder, "pid"), process.pid)
        with contextlib.suppress(TimeoutError), _limited(request.get("timeout_s")):
            outcome = {"status": process.wait()}  # with a limit of its own it would look only every 50 ms
    finally:  # also where the disk is full, and nobody could end it any more
        _signal_group(process.pid, signal.SIGKILL)  # it, and what it left behind
        process.wait()
    files.write_json(os.path.join(folder, "status.json"), outcome)


@contextlib.contextmanager
def _limited(seconds: Optional[float]) -> Iterator[None]:
    """Raises TimeoutError in what lasts longer."""
    protocol.end_when_late()
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _follow(folder: str, operator: Any) -> Iterator[bytes]:
    pause = 0.01
    with open(os.path.join(folder, "log"), "rb") as log:
        while True:
            ended = _outcome(folder) is not None or not is_alive(folder)
            block = log.read(BLOCK)
            if block:
                yield block
                pause = 0.01
            elif ended:
                return
            else:
                operator.wait(pause)
                pause = min(pause * 1.5, FOLLOW_S)


def stop(request: Request, operator: Any) -> bool:
    """End the jobs of `folders`, programs and all that they started, and remove the folders, then `paths`."""
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
        folders.remove(folder)
    return files.remove(request, operator)


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
    if processes.is_pid(group):
        with contextlib.suppress(OSError):
            os.killpg(group, number)
