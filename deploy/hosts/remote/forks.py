"""The far end of deploy/hosts/forks.py: a process that forks one for each operation."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, Dict, List, Set

REQUEST_BYTES = 1 << 20  # an environment is most of it
_running: Set[int] = set()


def serve(descriptor: int) -> None:
    """Fork an operation, or kill one, at each request, until whoever asks is gone."""
    with socket.socket(fileno=descriptor) as asked:
        while True:
            line, ends, _, _ = socket.recv_fds(asked, REQUEST_BYTES, 4)
            _reap()
            if not line:
                return
            request = json.loads(line)
            if "fork" in request:
                pid = os.fork()
                if not pid:
                    asked.close()
                    _become(request, ends)
                _running.add(pid)
                for end in ends:
                    os.close(end)
                asked.send(b"%d" % pid)
            else:
                if request["kill"] in _running:
                    os.kill(request["kill"], signal.SIGKILL)
                asked.send(b"0")


def _reap() -> None:
    for pid in list(_running):
        if os.waitpid(pid, os.WNOHANG)[0]:
            _running.discard(pid)


def _become(request: Dict[str, Any], ends: List[int]) -> None:
    """Be as a Python that was started for the operation alone: it goes on as launch.ARGUMENTS say."""
    status = 1
    try:
        os.setsid()
        os.fchdir(ends[3])
        for number, end in enumerate(ends[:3]):
            os.dup2(end, number)
        for end in ends:
            os.close(end)
        os.environ.clear()
        os.environ.update(request["environment"])
        with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
            name.write(request["fork"])  # as lists of processes show it
        sys.argv = ["-c", request["fork"]]
        exec(sys.stdin.buffer.readline(), {"sys": sys})  # noqa: S102 (the control process's own words)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)
