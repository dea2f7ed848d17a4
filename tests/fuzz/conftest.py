"""How long the attacks last, and a watch over them."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator

import pytest

HANG_S = 300  # of one test: a reader that hangs in C hears no signal, so the watch ends the whole run


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
