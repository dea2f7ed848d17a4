"""The operations by name, and the process that does one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from typing import Any, Callable, Dict, List

from . import files, forks, jobs, machine, protocol, shards, workspace
from .protocol import Body, Request

OPERATIONS: Dict[str, Callable[[Request, Body], Any]] = {
    operation.__name__: operation
    for operation in (
        *(files.digest, files.receive, files.send, files.plant, files.link, files.listing, files.pack, files.remove),
        *(shards.clips, shards.landed, shards.unpack),
        *(jobs.job, jobs.job_state, jobs.stop),
        *(workspace.contact, workspace.hold, workspace.abandon, machine.facts),
    )
}


def main(arguments: List[str]) -> int:
    # Newer ais_bench refuses inputs that others can write, and output folders wider than 0750.
    os.umask(0o027)
    if arguments[0] == "serve":
        forks.serve(int(arguments[1]))
        return 0
    if arguments[0] == "supervise":
        jobs.supervise(arguments[1], int(arguments[2]))
        return 0
    protocol.begin()
    try:
        protocol.put(protocol.MAGIC)
        request = json.loads(protocol.request_line())
        reply, status = {"ok": OPERATIONS[arguments[0]](request, Body())}, 0
    except BrokenPipeError:
        return 1  # nobody is there to be told
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reply, status = {"error": _sentence(error)}, 1
    except Exception as error:  # a compression package's own
        reply, status = {"error": "%s: %s" % (type(error).__name__, error)}, 1
    with contextlib.suppress(OSError):
        protocol.put(json.dumps(reply).encode() + b"\n")
    sys.stdout = None  # what a gone operator did not read is not flushed again
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return "%s: %s" % (error.filename, error.strerror) if error.filename else error.strerror
    return str(error) or type(error).__name__
