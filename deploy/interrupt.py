"""What Ctrl-C must end: work that goes on elsewhere while this process waits, in whichever thread it waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_lock = threading.RLock()  # the handler may run in the midst of `ended_by_interrupt`, on the same thread
_ends: dict[object, Callable[[], None]] = {}
_interrupted = threading.Event()


def install() -> None:
    """From now on SIGINT and SIGTERM end all that is registered, then raise KeyboardInterrupt in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


@contextmanager
def ended_by_interrupt(end: Callable[[], None]) -> Iterator[None]:
    """While inside, an interrupt calls `end`, which must not raise; nothing new starts after one.

    Raises:
        KeyboardInterrupt: there was one already.
    """
    ticket = object()
    with _lock:
        if _interrupted.is_set():
            raise KeyboardInterrupt
        _ends[ticket] = end
    try:
        yield
    finally:
        with _lock:
            del _ends[ticket]
    if _interrupted.is_set():
        raise KeyboardInterrupt  # what it waited for was ended, not done


def _handle(_number: int, _frame: FrameType | None) -> None:
    with _lock:
        _interrupted.set()
        for end in list(_ends.values()):
            end()
    raise KeyboardInterrupt
