"""The operations by name, and the process that does one.

An operation is a function of a request and of the operator, whose `read` gives the body and whose `wait` says that the
operator is still there. It returns its reply; one that sends frames yields them first. Nothing in it knows whether it
runs in a process of its own or in the operator's.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from typing import Any, Callable, Dict, List

from . import files, jobs, machine, protocol, shards, workspace
from .protocol import Operator, Output, Request

OPERATIONS: Dict[str, Callable[[Request, Any], Any]] = {
    "exec": jobs.execute,
    **{
        operation.__name__: operation
        for operation in (
            *(files.digest, files.receive, files.send, files.put_folder, files.link, files.listing, files.gather),
            *(files.remove, shards.clips, shards.landed, shards.unpack, jobs.job, jobs.job_state, jobs.stop),
            *(workspace.contact, workspace.hold, workspace.abandon, workspace.clean, machine.facts),
        )
    },
}


def main(arguments: List[str]) -> int:
    # Nothing here is another login's to read or write. Newer ais_bench refuses inputs that others can write, and output
    # folders wider than 0750.
    os.umask(0o077)
    if arguments[0] == "supervise":
        jobs.supervise(arguments[1], int(arguments[2]), json.loads(sys.stdin.buffer.readline()))
        return 0
    protocol.end_when_late()
    try:
        output, operator = Output(), Operator()
        reply, status = {"ok": _done(arguments[0], operator, output)}, 0
    except BrokenPipeError:
        return 1  # nobody is there to be told
    except Exception as error:  # a compression package has some of its own
        reply, status = {"error": sentence(error)}, 1
    with contextlib.suppress(OSError):
        output.end(json.dumps(reply).encode() + b"\n")
    sys.stdout = None  # what a gone operator did not read is not flushed again
    return status


def _done(name: str, operator: Operator, output: Output) -> Any:
    """Do an operation to its reply."""
    reply: Any = OPERATIONS[name](json.loads(operator.request_line()), operator)
    if not inspect.isgenerator(reply):
        return reply
    frames: Any = reply
    try:
        while True:
            output.frame(next(frames))
    except StopIteration as end:
        return end.value
    finally:
        frames.close()


def sentence(error: Exception) -> str:
    """What an operation failed by, in words."""
    if isinstance(error, OSError) and error.strerror:
        return "%s: %s" % (error.filename, error.strerror) if error.filename else error.strerror
    if isinstance(error, (ValueError, EOFError, OSError)):
        return str(error) or type(error).__name__
    return "%s: %s" % (type(error).__name__, error)
