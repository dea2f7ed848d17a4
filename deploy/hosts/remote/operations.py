"""The operations by name, and the process that does them.

An operation is a function of a request and of the operator, whose `read` gives the body and whose `wait` says that the
operator is still there. It returns its reply; one that sends frames yields them first. Nothing in it knows whether it
runs in a process of its own or in the operator's.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
import types
from typing import Any, Callable, List

from . import protocol
from .protocol import Operator, Output, Request

_OF_MODULE = {
    "files": ("digest", "receive", "send", "put_folder", "link", "listing", "gather", "remove"),
    "jobs": ("exec", "job", "job_state", "stop"),
    "machine": ("facts",),
    "shards": ("clips", "landed", "unpack"),
    "workspace": ("contact", "hold", "abandon", "clean"),
}
OPERATIONS = {name: module for module, names in _OF_MODULE.items() for name in names}  # to the module that has it


FULL = (errno.ENOSPC, errno.EDQUOT)


def operation(name: str) -> Callable[[Request, Any], Any]:
    """The function of this name. A process needs one module of them, and most of its time goes into reading modules."""
    module = importlib.import_module("." + OPERATIONS[name], __package__)
    function: Callable[[Request, Any], Any] = getattr(module, {"exec": "execute"}.get(name, name))
    return function


def main(arguments: List[str]) -> int:
    # Nothing here is another login's to read or write. Newer ais_bench refuses inputs that others can write, and output
    # folders wider than 0750.
    os.umask(0o077)
    if arguments[0] == "supervise":
        from . import jobs

        jobs.supervise(arguments[1], int(arguments[2]), json.loads(sys.stdin.buffer.readline()))
        return 0
    protocol.end_when_late()
    protocol.end_whole()
    sys.stdout = None  # replies go past it; what a gone operator did not read is not flushed again
    operator, output = Operator(), Output()
    with contextlib.suppress(OSError):  # nobody is there to be told
        for line in operator.requests():
            output.begin()
            asked: Any = {}
            try:
                asked = json.loads(line)
                reply = {"ok": _done(asked["operation"], asked["request"], operator, output)}
            except BrokenPipeError:
                break
            except TimeoutError:
                output.end(json.dumps({"silent": True}).encode() + b"\n")
                break
            except Exception as error:  # a compression package has some of its own
                reply = {"error": sentence(error)}
            output.end(json.dumps(reply).encode() + b"\n")
            if not isinstance(asked, dict) or asked.get("body", True):
                break
    return 0


def _done(name: str, request: Request, operator: Operator, output: Output) -> Any:
    """Do an operation to its reply."""
    reply: Any = operation(name)(request, operator)
    if not isinstance(reply, types.GeneratorType):
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
        way_out = "; make room there and run the command again" if error.errno in FULL else ""
        return ("%s: " % error.filename if error.filename else "") + error.strerror + way_out
    if isinstance(error, (ValueError, EOFError, OSError)):
        return str(error) or type(error).__name__
    return "%s: %s" % (type(error).__name__, error)
