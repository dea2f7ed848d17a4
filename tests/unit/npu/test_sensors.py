"""Power and temperature beside a run: whose power npu-smi tells, and which readings are of the device's work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deploy.errors import OverrunError
from deploy.hosts.host import Completed
from deploy.npu import sensors
from deploy.npu.device import Reading, Smi
from deploy.npu.sensors import Sensors, sensed

TABLE = """\
| NPU     Name      | Health | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device    | Bus-Id | AICore(%)    Memory-Usage(MB)                        |
"""
A3 = """\
| NPU   Name      | Health | Power(W)     Temp(C)       Hugepages-Usage(page) |
| Chip  Phy-ID    | Bus-Id | AICore(%)    Memory-Usage(MB)    HBM-Usage(MB)    |
| 0     Ascend910 | OK     | 162.9        37            0    / 0              |
| 0     0         | 0:1    | 80           0    / 0            3412 / 65536     |
| 0     Ascend910 | OK     | -            38            0    / 0              |
| 1     1         | 0:2    | 70           0    / 0            2877 / 65536     |
"""
MCU = "NPU ID : 4\nChip Count : {}\n\nPower Dissipation(W) : 27.5\nChip Name : MCU\n"
RATED = "NPU ID : 0\nChip Count : 2\n\nChip ID : 0\nRated Power Dissipation(W) : 12.8\n\n"


def chip(npu: int, place: int, device: int, name: str, power: str, aicore: str = "85") -> str:
    first = f"| {npu} {name} | OK | {power}  51  0 / 0 |\n"
    return first + f"| {place} {device} | 0000:8{device}:00.0 | {aicore}  1448 / 21527 |\n"


class Answers:
    """A runtime whose npu-smi says what is written here for its words."""

    def __init__(self, said: Mapping[str, str]) -> None:
        self.said = said

    def run(self, command: Sequence[str], **_: Any) -> Completed:
        return Completed(0, self.said.get(" ".join(command[1:]), "This device does not support querying power."))


def read(device: int = 0, **said: str) -> Reading | None:
    return Smi("npu-a", "npu-smi", Answers({k.replace("_", " "): v for k, v in said.items()})).sensors(device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "device", "of_card", "power", "chips"),
    [
        (TABLE + chip(4, 0, 0, "310P3", "15.8"), 0, "", 15.8, 1),
        (TABLE + chip(4, 0, 0, "310P3", "NA"), 0, MCU.format(1), 27.5, 1),
        (TABLE + chip(4, 0, 0, "310P3", "NA"), 0, "NPU ID : 4\nNPU Real-time Power(W) : 21.0\n", 21.0, 1),
        (TABLE + chip(4, 0, 0, "310P3", "NA"), 0, "", None, 1),
        (TABLE + chip(4, 0, 0, "310P3", "NA"), 0, "Power Dissipation(mW) : 27500\n", None, 1),
        (TABLE + chip(4, 0, 0, "310P3", "NA"), 0, "Power Dissipation(W) : 3276.5\n", None, 1),
        (TABLE + chip(4, 0, 0, "310P3", "NA") + chip(4, 1, 1, "310P3", "NA"), 1, MCU.format(2), 27.5, 2),
        (TABLE + chip(4, 0, 0, "310P3", "15.8") + chip(4, 1, 1, "310P3", "19"), 1, "", 19.0, 1),
        (TABLE + chip(0, 0, 0, "310", "12.8") + chip(0, 1, 1, "310", "12.8"), 0, RATED + MCU.format(2), 27.5, 2),
        (TABLE + chip(0, 0, 0, "310B4", "0.0"), 0, "", None, 1),
        (A3, 0, "", 162.9, 2),
        (A3, 1, "", 162.9, 2),
    ],
)
def test_whose_power_it_is(table: str, device: int, of_card: str, power: float | None, chips: int) -> None:
    npu = table.splitlines()[2].split()[1]
    found = read(device, **{"info": table, f"info_-t_power_-i_{npu}": of_card})
    assert found is not None
    assert (found.power_w, found.chips, found.chip.device) == (power, chips, device)


def test_a_device_that_is_gone_has_no_reading() -> None:
    assert read(3, info=A3) is None


def readings(*of_each: tuple[float | None, str], chips: int = 1) -> list[Reading]:
    found = [read(info=TABLE + chip(4, 0, 0, "310P3", "15.8", aicore)) for _, aicore in of_each]
    return [Reading(one.chip, power, chips) for one, (power, _) in zip(found, of_each, strict=True) if one]


def test_power_at_rest_is_none_of_the_works() -> None:
    found = sensed(readings((16, "0"), (40, "80"), (44, "85"), (16, "0")), 21.0)
    assert (found["readings"], found["power_w"]["mean"], found["joules_per_sample"]) == (2, 42, 2)
    assert found["temperature_c"] == {"min": 51, "max": 51}
    idle = sensed(readings((16, "0"), (16, "0")), 21.0)
    assert (idle["readings"], idle["at_work"], idle["power_w"]["mean"], idle["joules_per_sample"]) == (
        2,
        False,
        16,
        None,
    )
    none = sensed([], 21.0)
    assert (none["readings"], none["power_w"], none["joules_per_sample"]) == (0, None, None)
    assert sensed(readings((42, "NA")), 21.0)["joules_per_sample"] == 2  # it may have worked
    assert sensed(readings((None, "80")), 21.0)["power_w"] is None


def test_a_cards_power_makes_no_joules_of_one_chip() -> None:
    found = sensed(readings((40, "80"), (44, "85"), chips=2), 21.0)
    assert (found["power_w"]["mean"], found["power_w"]["chips"], found["joules_per_sample"]) == (42, 2, None)


def test_readings_that_fail_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "FIRST_S", 0.005)
    monkeypatch.setattr(sensors, "EVERY_S", 0.005)
    table, asked = TABLE + chip(4, 0, 0, "310P3", "15.8"), []

    class Failing(Answers):
        def run(self, command: Sequence[str], **options: Any) -> Completed:
            if "-m" not in command:
                asked.append(options["timeout_s"])
                if len(asked) % 3 == 1:
                    raise OverrunError("npu-smi did not end")
            return Completed(0, "dcmi module initialize failed. ret is -8005" if len(asked) % 3 == 2 else table)

    with Sensors(Smi("npu-a", "npu-smi", Failing({})), 0) as beside:  # type: ignore[arg-type]
        deadline = time.monotonic() + 10
        while len(asked) < 9 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert 2 <= len(beside.readings) <= len(asked) / 3 + 1
    assert max(asked) <= 10  # what a hanging npu-smi costs the run at its end
