"""The scheduler: which hosts and devices do the units of work of a stage, and how many at a time.

`Queue` does them one host or device each, from one queue. A fleet (deploy/execution/fleet) has Ray place them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from deploy.npu.worker import NpuHost, Place, Rows, Source, Worker, devices_of
from deploy.workqueue import drain

AT_ONCE = 2  # units of a device: while one runs, the last one's results are fetched and the next one is laid out

Item = TypeVar("Item")


class Scheduler(Protocol):
    def on_hosts(self, items: Sequence[Item], one: Callable[[Place, Item], None]) -> None:
        """Call `one` for every item, with a host for it."""

    def on_devices(self, items: Sequence[Item], one: Callable[[Place, Item], None]) -> None:
        """Call `one` for every item, with an idle device for it.

        Raises:
            KitError: none is left that can do it.
        """

    def alone(self) -> Place:
        """The device that figures are taken on, with nothing else of ours on its host meanwhile."""

    def side_by_side(self, items: Sequence[Item], one: Callable[[Item], None]) -> None:
        """Call `one`, which shares an item out itself, for every item: at once where that is quicker."""

    def send(self, model: Path, sources: Sequence[Source]) -> None:
        """Have a copy of `model` and the rows of `sources` on every host that may need them."""


class Queue:
    """The inventory's hosts, each reached from here."""

    def __init__(self, npus: Sequence[NpuHost]) -> None:
        self._npus = npus
        self._sent: set[tuple[str, Rows]] = set()  # to check rows on a host is to read them all: once a command

    def on_hosts(self, items: Sequence[Item], one: Callable[[Place, Item], None]) -> None:
        drain(items, [Worker(npu) for npu in self._npus], one)

    def on_devices(self, items: Sequence[Item], one: Callable[[Place, Item], None]) -> None:
        drain(items, devices_of(self._npus), one, AT_ONCE)

    def alone(self) -> Place:
        return self._npus[0].devices[0]

    def side_by_side(self, items: Sequence[Item], one: Callable[[Item], None]) -> None:
        for item in items:
            one(item)

    def send(self, model: Path, sources: Sequence[Source]) -> None:
        for npu in self._npus:
            for source in sources:
                if (str(npu), source.rows) not in self._sent:
                    source.push(npu.host)
                    self._sent.add((str(npu), source.rows))
            Worker(npu).send(model)
