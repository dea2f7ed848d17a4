"""Work by a second process: its answer, its failure, its end."""

from __future__ import annotations

import mmap
import os
import time
from typing import Callable

import pytest

from stgcn.beside import beside


def fail() -> bytes:
    raise ValueError


def die() -> bytes:
    os.kill(os.getpid(), 9)
    return b"alive"


@pytest.mark.parametrize(("work", "said"), [(lambda: b"done", b"done"), (fail, b""), (die, b"")])
def test_its_answer_is_empty_where_it_failed(work: Callable[[], bytes], said: bytes) -> None:
    with beside(work) as answer:
        assert answer() == said


def test_it_ends_when_nobody_wants_its_answer() -> None:
    shared = mmap.mmap(-1, 8)

    def work() -> bytes:
        shared[:] = os.getpid().to_bytes(8, "little")
        time.sleep(600)
        return b"slept"

    with beside(work):
        while not any(shared[:]):
            time.sleep(0.001)
    with pytest.raises(ProcessLookupError):
        os.kill(int.from_bytes(shared[:], "little"), 0)
