"""The shared queue: every item done once, whatever fails."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from deploy.errors import KitError
from deploy.workqueue import Turn, drain, in_parallel


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


def test_a_worker_with_two_hands_does_two_at_once_and_retires_whole() -> None:
    together, tried = threading.Barrier(2, timeout=5), list[str]()

    def do(worker: str, item: int) -> None:
        tried.append(worker)
        together.wait()  # broken where another does not come at the same time
        if worker == "bad":
            raise KitError("device lost")

    assert drain(range(8), ["good"], do, at_once=2) == {"good": 8}
    tried.clear()
    with pytest.raises(KitError, match="lost"):
        drain(range(8), ["bad"], do, at_once=2)
    assert tried == ["bad", "bad"]


def test_few_items_have_a_worker_each_before_any_has_two() -> None:
    together, used = threading.Barrier(2, timeout=5), set[str]()

    def do(worker: str, _: int) -> None:
        used.add(worker)
        together.wait()

    drain(range(2), ["a", "b"], do, at_once=2)
    assert used == {"a", "b"}


def test_after_a_failure_a_worker_has_no_other_turn() -> None:
    turn, laid_out, ran = Turn(), threading.Barrier(2, timeout=5), list[int]()

    def do(_: str, item: int) -> None:
        laid_out.wait()
        with turn:
            ran.append(item)
            raise KitError(f"{item} broke")

    with pytest.raises(KitError) as failure:
        drain(range(8), ["a"], do, at_once=2)
    assert [f"{item} broke" for item in ran] == [str(failure.value)]


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


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize(
    "share", [lambda do: drain([1, 2, 3, 4], ["a", "b"], lambda _, item: do()), lambda do: in_parallel(range(4), 2, do)]
)
def test_after_an_interrupt_nothing_more_is_begun_and_what_it_ended_is_no_failure(
    share: Callable[[Callable[..., None]], None], fails: bool, capsys: Any
) -> None:
    begun, both, raised = list[int](), threading.Barrier(2), threading.Event()

    def do(*_: object) -> None:
        begun.append(1)
        if both.wait(5) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        raised.wait(5)
        if fails:
            raise KitError("its job was ended")

    with pytest.raises(KeyboardInterrupt):
        share(do)
    raised.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    assert len(begun) == 2
    assert capsys.readouterr().out == ""
