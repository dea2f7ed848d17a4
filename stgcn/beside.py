"""A second process beside this one, for work of many system calls: threads of one Python hold each other up at each."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import Callable, Iterator

ANSWER_BYTES = 20


@contextmanager
def beside(work: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """Let a second process do `work`; what is yielded waits for its answer, at most ANSWER_BYTES.

    The answer is empty if the work failed: do it here then, which finds again what was wrong, and says it. The process
    is ended on leaving. It shares what was mapped as shared, and open files with their places in them.
    """
    told, tell = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.write(tell, work())
        finally:
            os._exit(0)
    os.close(tell)
    try:
        yield lambda: os.read(told, ANSWER_BYTES)
    finally:
        os.close(told)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
