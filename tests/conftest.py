"""Shared by every suite."""

from __future__ import annotations

import os

import pytest

OF_MAKE = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
QUICK_EXAMPLES = 30  # attacks on each reader by tests/fuzz; `make fuzz` makes more


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="a skipped test fails the run (CI)")
    parser.addoption("--fuzz-examples", type=int, default=QUICK_EXAMPLES, help="attacks on each reader")


def pytest_configure() -> None:
    for name in OF_MAKE:  # what `make test` was told is not for the makes that tests run
        os.environ.pop(name, None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--strict-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
