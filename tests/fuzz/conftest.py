"""How long the attacks last, and a watch over them."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator

import pytest

from tests.conftest import QUICK_EXAMPLES
from tests.fuzz.targets import CASES

HANG_S = 300  # of one test: a reader that hangs in C hears no signal, so the watch ends the whole run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was attacked how often; in a run that does nothing else."""
    if CASES and terminalreporter.config.getoption("--fuzz-examples") > QUICK_EXAMPLES:
        for name, count in sorted(CASES.items()):
            terminalreporter.write_line(f"{count:8} cases  {name}")


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
