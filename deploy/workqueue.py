"""One queue of work for many devices: a device that fails retires, what it had goes to another."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from deploy.console import say
from stgcn.errors import InputError

Item = TypeVar("Item")
Worker = TypeVar("Worker")


class NotBegunError(Exception):
    """A worker failed at another item before this one had its turn."""


class Turn:
    """What a worker does one at a time, however many hands it has; nothing more once it has failed."""

    def __init__(self) -> None:
        self._lock, self._failed = threading.Lock(), False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._failed:
            self._lock.release()
            raise NotBegunError

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._failed = kind is not None
        self._lock.release()


def drain(
    items: Sequence[Item], workers: Sequence[Worker], do: Callable[[Worker, Item], None], at_once: int = 1
) -> dict[str, int]:
    """Do every item on some worker, so many a worker `at_once`; how many each worker did.

    Raises:
        InputError: every worker has failed (the last one's sentence); what was done stays done.
    """
    queue = _Queue(items)
    done: Counter[str] = Counter({str(worker): 0 for worker in workers})
    retired = set[str]()

    def work(worker: Worker) -> None:
        while (item := queue.take()) is not None:
            if str(worker) in retired:  # while this waited for an item
                queue.give_back(item)
                return
            try:
                do(worker, item)
            except NotBegunError:
                queue.give_back(item)
                return
            except BaseException as error:  # handed to the caller's thread
                is_first = str(worker) not in retired
                retired.add(str(worker))
                queue.give_back(item, error)
                if isinstance(error, InputError) and is_first and len(retired) < len(workers) and not queue.ended:
                    say(f"  {worker} retires, its work goes to another: {error}", "yellow")
                return
            done[str(worker)] += 1
            queue.finish()

    hands = [worker for _ in range(at_once) for worker in workers][: max(len(items), len(workers))]
    if len(hands) == 1:
        work(hands[0])  # in the caller's thread, where an interrupt arrives
    else:
        _work_side_by_side(hands, work, queue)
    if queue.errors and (queue.waiting or not all(isinstance(error, InputError) for error in queue.errors)):
        raise next((error for error in queue.errors if not isinstance(error, InputError)), queue.errors[-1])
    return dict(done)


def _work_side_by_side(workers: Sequence[Worker], work: Callable[[Worker], None], queue: _Queue[Item]) -> None:
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    try:
        _run(threads)
    except BaseException:  # an interrupt
        queue.end()
        raise


def _run(threads: Sequence[threading.Thread]) -> None:
    """To their ends, in short waits: a signal that comes just before one is only seen when it is over."""
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)


class _Queue(Generic[Item]):
    """Items that workers take, finish or give back."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.waiting, self.errors = deque(items), list[BaseException]()
        self.ended = False
        self._busy, self._changed = 0, threading.Condition()

    def take(self) -> Item | None:
        """The next item, None at the end: an item in a busy worker's hands may still come back, so wait for it."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or not self._busy)
            if not self.waiting:
                return None
            self._busy += 1
            return self.waiting.popleft()

    def finish(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """Nobody takes another item, not even one that is given back."""
        with self._changed:
            self.ended = True
            self.waiting.clear()

    def give_back(self, item: Item, error: BaseException | None = None) -> None:
        with self._changed:
            if not self.ended:
                self.waiting.appendleft(item)
            if error:
                self.errors.append(error)
            self._busy -= 1
            self._changed.notify_all()


def in_parallel(items: Sequence[Item], threads: int, do: Callable[[Item], None]) -> None:
    """Do every item, `threads` at a time; the first error ends it, what is under way is finished."""
    waiting, errors = deque(items), list[BaseException]()

    def work() -> None:
        while waiting and not errors:
            try:
                do(waiting.popleft())
            except BaseException as error:  # handed to the caller's thread
                errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(min(threads, len(items)))]
    try:
        _run(workers)
    except BaseException as interrupt:
        errors.append(interrupt)
        raise
    if errors:
        raise errors[0]
