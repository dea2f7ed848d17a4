"""How long the attacks last, and a watch over them."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from typing import IO

import pytest

from tests.conftest import QUICK_EXAMPLES
from tests.fuzz.targets import CASES

HANG_S = 300  # of one test: a reader that hangs in C hears no signal, so the watch ends the whole run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was attacked how often; in a run that does nothing else."""
    if CASES and terminalreporter.config.getoption("--fuzz-examples") > QUICK_EXAMPLES:
        for name, count in sorted(CASES.items()):
            terminalreporter.write_line(f"{count:8} cases  {name}")


@pytest.fixture(scope="session")
def console(pytestconfig: pytest.Config) -> Iterator[IO[str]]:
    """Standard error as it was before pytest took it, so that what the watch says is seen."""
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        stream = os.fdopen(os.dup(2), "w")
    with stream:
        yield stream


@pytest.fixture(autouse=True)
def watched(console: IO[str]) -> Iterator[None]:
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=console)
    yield
    faulthandler.cancel_dump_traceback_later()
