"""What npu-smi says of a host, and how long an idle device is waited for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from deploy.errors import KitError
from deploy.hosts.host import Completed
from deploy.hosts.local import LocalHost
from deploy.inventory import Npu
from deploy.npu import device
from deploy.npu.device import IdleWatch, Smi

ROW = """| 6       310P3     | OK              | 15.8         42                0    / 0              |
| 0       {device} | 0000:82:00.0    | {aicore}     {used} / 21534                            |
"""
HEAD = "| NPU     Name      | Health | Power(W) |\n| Chip    Device    | Bus-Id | AICore(%)    Memory-Usage(MB) |\n"
PROCESS = "Process id:{} Process name:{} Process memory(MB):{}"


class Playing:
    """A runtime whose npu-smi answers one reading (AICore %, MB used, proc-mem text) a check; the last one stays."""

    def __init__(self, *readings: tuple[int, int, str]) -> None:
        self.readings, self.host, self.asked = list(readings), LocalHost("here", Path("/")), 0
        self.own: Playing = self

    def run(self, command: Sequence[str], **_: Any) -> Completed:
        aicore, used, processes = self.readings[0]
        if "-m" in command:
            return Completed(1, "")
        if "proc-mem" in command:
            self.asked += 1
            if len(self.readings) > 1:
                self.readings.pop(0)
            return Completed(0, processes)
        return Completed(0, HEAD + ROW.format(device=1, aicore=aicore, used=used))

    def of_host(self) -> Playing:
        return self.own

    def on_device(self, number: int) -> tuple[Playing, int]:
        return self, number

    def facts(self) -> dict[str, Any]:
        return {}

    def argv(self, command: Sequence[str], folder: PurePosixPath | None = None) -> list[str]:
        return list(command)


def watch(*readings: tuple[int, int, str], patience_s: float = 0) -> IdleWatch:
    return IdleWatch(Smi("npu-a", "npu-smi", Playing(*readings)), 1, patience_s)


FREE, MINE = "No process in device.", PROCESS.format(7, "train.py", 900)


@pytest.mark.parametrize(
    ("readings", "busy"),
    [
        ([(0, 1074, FREE)], None),
        ([(0, 1974, MINE)], "train.py (pid 7, 900 MB)"),
        ([(30, 1074, FREE)], "AICore at 30 %"),
        ([(0, 1074, "this release does not tell")], None),
        ([(0, 9000, "this release does not tell")], "9000 of 21534 MB of memory held"),
    ],
)
def test_a_process_use_or_memory_makes_a_device_busy(readings: list[Any], busy: str | None) -> None:
    assert watch(*readings).check().busy == busy


@pytest.mark.parametrize("status", [-9, 137])
@pytest.mark.parametrize("asked", ["info", "-m", "proc-mem"])
def test_what_a_killed_npu_smi_had_printed_is_no_reading(
    asked: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    playing = Playing((0, 1074, FREE))
    answer = playing.run

    def killed(command: Sequence[str], **_: Any) -> Completed:
        done = answer(command)
        return Completed(status, done.output[:-9]) if command[-1] == asked or asked in command[1:-1] else done

    monkeypatch.setattr(playing, "run", killed)
    with pytest.raises(KitError, match=rf"npu-a: npu-smi .*exit status {status}\)"):
        IdleWatch(Smi("npu-a", "npu-smi", playing), 1, 0).check()


def test_memory_above_the_least_that_was_held_when_idle_is_someones() -> None:
    idle = watch((0, 1500, "?"), (0, 1074, "?"), (0, 1200, "?"), (0, 1500, "?"))
    found = [idle.check().busy for _ in range(4)]
    assert found == [None, None, None, "1500 of 21534 MB of memory held, 1074 MB when idle"]


def test_memory_of_a_busy_device_is_not_taken_for_its_own() -> None:
    idle = watch((0, 9000, "?"), (0, 9000, "?"))
    assert [idle.check().busy for _ in range(2)] == ["9000 of 21534 MB of memory held"] * 2


def test_a_busy_device_is_waited_for_until_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "POLL_S", 0.01)
    assert watch((0, 1974, MINE), (0, 1974, MINE), (0, 1074, FREE), patience_s=60).before().busy is None


def test_patience_is_spent_once_but_not_by_a_device_that_frees_up(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(IdleWatch, "wait", lambda self, seconds: waits.append(seconds) or self.check())
    idle = watch((0, 1974, MINE), (0, 1074, FREE), (0, 1074, FREE), patience_s=9)
    assert [bool(idle.before().busy) for _ in range(3)] == [True, False, False]
    assert waits == [9, 0, 9]


@pytest.mark.parametrize(("failures", "told"), [(1, True), (2, False)])
def test_one_failure_of_npu_smi_costs_no_figure(failures: int, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "POLL_S", 0.01)
    playing = Playing((0, 1074, FREE))
    answers = [Completed(1, "dcmi module initialize failed. ret is -8005")] * failures
    run = playing.run
    monkeypatch.setattr(playing, "run", lambda c, **_: answers.pop() if answers and c[-1] == "info" else run(c))
    idle = IdleWatch(Smi("npu-a", "npu-smi", playing), 1, 0)
    if told:
        assert idle.after().busy is None
    else:
        with pytest.raises(KitError, match="-8005"):
            idle.after()


def test_a_device_that_is_gone_is_named() -> None:
    with pytest.raises(KitError, match="npu-a: device 4 .*npu-smi"):
        Smi("npu-a", "npu-smi", Playing((0, 1074, FREE))).chip(4)


@pytest.mark.parametrize("has_own", [True, False])
def test_in_an_image_it_is_the_hosts_own_npu_smi_that_is_asked(has_own: bool, capsys: Any) -> None:
    image, host = Playing((0, 2, FREE)), Playing((0, 1, FREE))
    image.own = host if has_own else image
    smi = Smi.of(Npu(name="npu-a", runtime="docker"), image)
    assert smi.in_container is not has_own
    assert smi.chips()[0].memory_used_mb == (1 if has_own else 2)
    assert ("no npu-smi on the host" in capsys.readouterr().out) is not has_own


class Telling:
    """A runtime on which every command prints the same."""

    def __init__(self, said: str) -> None:
        self.said = said

    def run(self, *_: Any, **__: Any) -> Completed:
        return Completed(0, self.said)


@pytest.mark.parametrize(
    "told",
    [
        {"cann": 7, "driver": None, "ais_bench": None, "aclruntime": None},
        {"cann": None, "driver": None, "ais_bench": "\ud800", "aclruntime": None},
        {"cann": None, "driver": None, "ais_bench": None, "aclruntime": "0" * 63 + "\x1b"},
        {"cann": None, "driver": None},
        [],
    ],
)
def test_a_probe_that_tells_something_else_is_refused(told: Any) -> None:
    with pytest.raises(KitError, match="npu-a: python3 "):
        device._probe(Npu(name="npu-a"), Telling(json.dumps(told)))  # type: ignore[arg-type]
