"""The shared queue: every item done once, whatever fails."""

from __future__ import annotations

import threading

import pytest

from deploy.errors import KitError
from deploy.workqueue import drain


def test_every_item_is_done_once_over_the_workers() -> None:
    seen: list[int] = []
    done = drain(range(50), ["a", "b", "c"], lambda _, item: seen.append(item))
    assert sorted(seen) == list(range(50))
    assert sum(done.values()) == 50


def test_what_a_failing_worker_had_goes_to_another() -> None:
    seen: list[int] = []

    def do(worker: str, item: int) -> None:
        if worker == "bad":
            raise KitError("device lost")
        seen.append(item)

    assert drain(range(10), ["bad", "good"], do)["bad"] == 0
    assert sorted(seen) == list(range(10))


def test_an_idle_worker_waits_for_what_a_busy_one_may_give_back() -> None:
    taken, idle = threading.Event(), threading.Event()
    seen: list[str] = []

    def do(worker: str, item: str) -> None:
        if item == "slow" and not idle.is_set():
            taken.set()
            idle.wait(5)
            raise KitError("lost in mid-run")
        if item == "fast":
            taken.wait(5)
            idle.set()
        seen.append(item)

    drain(["slow", "fast"], ["a", "b"], do)
    assert sorted(seen) == ["fast", "slow"]


def test_when_every_worker_has_failed_the_last_sentence_is_raised() -> None:
    def do(worker: str, item: int) -> None:
        raise KitError(f"{worker} broke")

    with pytest.raises(KitError, match="broke"):
        drain([1], ["a", "b"], do)


def test_a_defect_is_not_taken_for_a_failed_device() -> None:
    def do(worker: str, item: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drain([1], ["a"], do)
