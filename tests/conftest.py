"""Shared by every suite: the tiers, and the rule that a test of the quick one is quick."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

OF_MAKE = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
QUICK_EXAMPLES = 20  # attacks on each reader by tests/fuzz; `make fuzz` makes more
FULL = {Path(__file__).with_name(name) for name in ("fleet", "system")}  # whose tests are all of the full tier
SYSTEM = "tests/system/"
QUICK_CPU_S = 10.0  # what a test without the marker may take


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="a skipped test fails the run (CI)")
    parser.addoption("--fuzz-examples", type=int, default=QUICK_EXAMPLES, help="attacks on each reader")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Quickness())
    for name in OF_MAKE:  # what `make test` was told is not for the makes that tests run
        os.environ.pop(name, None)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads would wait for work busily


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where the full tier is left out, its folders are not even imported: Ray alone takes seconds."""
    return True if config.option.markexpr == "not full" and collection_path in FULL else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FULL & set(item.path.parents):
            item.add_marker("full")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For --dist loadfile: a worker takes a file of tests at a time, and one takes all of tests/system/, which has this
    machine's network namespaces, logins and Docker engine to itself."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneSystem(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return SYSTEM if nodeid.startswith(SYSTEM) else str(super()._split_scope(nodeid))

    return OneSystem(config, log)


def pytest_runtest_setup() -> None:
    """As in a process of its own: a shell has what it runs in the background ignore SIGINT, and a test that imports the
    fabfile takes over its first seconds' handlers, which end the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--strict-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Quickness:
    """Fails a test without the marker `full` that takes long, its fixtures included, but for those of the session:
    what is made once for all is not the cost of the test that happens to come first."""

    def __init__(self) -> None:
        self._began, self._once = 0.0, 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        began = cpu_seconds()
        try:
            return (yield)
        finally:
            if fixturedef.scope == "session":
                self._once += cpu_seconds() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None]:
        self._began, self._once = cpu_seconds(), 0.0
        yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        yield
        spent = cpu_seconds() - self._began - self._once
        if spent > QUICK_CPU_S and not item.get_closest_marker("full"):
            pytest.fail(f"it took {spent:.1f} s of CPU: mark it `full`, or have it do less", pytrace=False)


def cpu_seconds() -> float:
    """Of this process, and of those that it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
