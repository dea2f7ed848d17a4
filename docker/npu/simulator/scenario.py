"""What the simulated host plays: the NPU_SIM_* environment variables, checked and frozen (README.md describes each)."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

ERAS = ("2022-06", "2022-12", "2023-06", "2024", "2025")  # of ais_bench; as strings they compare in order
FAULTS = ("crash", "hang", "lost", "nan", "short")
KNOBS = (
    "ATC_ERROR", "BAD_BLOCK", "BUSY", "CANN", "CHIPS", "COMPUTE", "COPIES", "CUBE", "DRIFT", "DRIVER", "ERA", "FAULT",
    "HEALTH", "KEEP_DTYPE", "LANES", "LOST", "POWER", "SHORTCUT", "SLOW_BLOCK", "SMI_ERROR", "STATE", "THREADS",
)  # fmt: skip

T = TypeVar("T")


class ScenarioError(Exception):
    """A variable that says nothing the simulator can play; str() is the sentence."""


@dataclass(frozen=True)
class Chip:
    """One chip: what npu-smi calls it, and the logical device that programs open."""

    npu_id: int
    chip_id: int
    device: int
    name: str  # 310P3, 910B3, ...; with the SoC where npu-smi shows a family: Ascend910_9392, Ascend950PR_9579

    @property
    def soc_version(self) -> str:
        """What atc calls it."""
        return self.name if self.name.startswith("Ascend") else f"Ascend{self.name}"

    @property
    def shown(self) -> str:
        """The name in the table of npu-smi."""
        return self.name.partition("_")[0]

    @property
    def variant(self) -> str:
        """The `NPU Name` of its board, where the table shows the family alone."""
        return self.name.partition("_")[2]

    @property
    def is_950(self) -> bool:
        """An NPU is one chip, and npu-smi takes no chip id."""
        return self.name.startswith("Ascend950")

    @property
    def is_a3(self) -> bool:
        return self.name.startswith("Ascend910_")

    @property
    def has_hbm(self) -> bool:
        return self.is_950 or self.is_a3 or self.name.startswith("910")

    @property
    def is_board(self) -> bool:
        """A developer board: the chip is its processor, and its memory the host's."""
        return self.name.startswith("310B")


@dataclass(frozen=True)
class Busy:
    """Someone else's process on a device: for ever, for so many seconds or for so many calls of npu-smi."""

    device: int
    process: str
    seconds: float | None = None
    queries: int | None = None


@dataclass(frozen=True)
class Fault:
    """What goes wrong at the `run`-th inference (from 1, warm-up counted) of a process, on one device or on any."""

    kind: str
    run: int
    device: int | None = None


@dataclass(frozen=True)
class AtcError:
    """A code that atc ends with, at one batch size or at every."""

    code: str
    batch_size: int | None = None


@dataclass(frozen=True)
class Scenario:
    """The whole host."""

    chips: tuple[Chip, ...]
    era: str
    busy: tuple[Busy, ...]
    faults: tuple[Fault, ...]
    health: Mapping[int, str]
    lost: frozenset[int]
    power_shown: bool
    smi_error: int | None
    atc_error: AtcError | None
    bad_block: int | None
    slow_block: int | None
    shortcut_ms: float | None
    compute_ms: float | None  # a clip that an inference is reported to take
    copies_ms: tuple[float, float] | None  # to the device and back, a clip
    narrow_cube: bool  # the chip's matrix unit takes float16 alone
    keep_dtype: str  # of atc: "" as it should, `none` there is no such flag, `ignored` it changes nothing
    drift: float  # by which each inference of a process is slower than the one before, as a share of the first
    threads: int
    lanes: int  # inferences that a device does side by side, each as fast as alone; of planted times
    state: Path | None


class Knobs:
    """The NPU_SIM_* variables; `get` parses one and names it when it makes no sense."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.values = {name[8:]: value for name, value in environment.items() if name.startswith("NPU_SIM_") and value}
        if surplus := sorted(self.values.keys() - set(KNOBS)):
            known = ", ".join(KNOBS)
            raise ScenarioError(f"NPU_SIM_{surplus[0]} is no variable of the simulator; after NPU_SIM_ it has {known}")

    def get(self, name: str, parse: Callable[[str], T], default: T) -> T:
        if name not in self.values:
            return default
        try:
            return parse(self.values[name])
        except ValueError:
            raise ScenarioError(
                f"NPU_SIM_{name}={self.values[name]!r} makes no sense; the simulator's README.md gives its form"
            ) from None


def load(environment: Mapping[str, str] = os.environ) -> Scenario:
    """The scenario of the environment; raises ScenarioError naming the variable that is unknown or makes no sense."""
    knobs = Knobs(environment)
    scenario = Scenario(
        chips=knobs.get("CHIPS", _chips, (Chip(0, 0, 0, "310P3"),)),
        era=knobs.get("ERA", _one_of(*ERAS), "2022-12"),
        busy=knobs.get("BUSY", _each(_busy), ()),
        faults=knobs.get("FAULT", _each(_fault), ()),
        health=knobs.get("HEALTH", lambda text: dict(_each(_health)(text)), {}),
        lost=knobs.get("LOST", lambda text: frozenset(_each(int)(text)), frozenset()),
        power_shown=knobs.get("POWER", _one_of("NA"), "") != "NA",
        smi_error=knobs.get("SMI_ERROR", int, None),
        atc_error=knobs.get("ATC_ERROR", _atc_error, None),
        bad_block=knobs.get("BAD_BLOCK", int, None),
        slow_block=knobs.get("SLOW_BLOCK", int, None),
        shortcut_ms=knobs.get("SHORTCUT", float, None),
        compute_ms=knobs.get("COMPUTE", float, None),
        copies_ms=knobs.get("COPIES", _copies, None),
        narrow_cube=knobs.get("CUBE", _one_of("float16"), "") == "float16",
        keep_dtype=knobs.get("KEEP_DTYPE", _one_of("none", "ignored"), ""),
        drift=knobs.get("DRIFT", float, 0.0),
        threads=knobs.get("THREADS", int, len(os.sched_getaffinity(0))),
        lanes=knobs.get("LANES", int, 1),
        state=knobs.get("STATE", Path, None),
    )
    if scenario.state is None and any(busy.seconds or busy.queries for busy in scenario.busy):
        raise ScenarioError(
            "NPU_SIM_BUSY names an end, so NPU_SIM_STATE must name a folder that remembers the beginning"
        )
    return scenario


def _groups(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text.strip())
    if found is None:
        raise ValueError(text)
    return found.groups()


def _one_of(*words: str) -> Callable[[str], str]:
    return lambda text: words[words.index(text)]


def _each(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    return lambda text: tuple(parse(item) for item in text.split(","))


def _copies(text: str) -> tuple[float, float]:
    there, back = map(float, _groups(r"([\d.]+),([\d.]+)", text))
    return there, back


def _chips(text: str) -> tuple[Chip, ...]:
    chips: list[Chip] = []
    for device, item in enumerate(text.split(",")):
        npu_id, name = _groups(r"(\d+):(\w+)", item)
        chip_id = sum(chip.npu_id == int(npu_id) for chip in chips)
        chip = Chip(int(npu_id), chip_id, device, name)
        chips.append(replace(chip, device=chip.npu_id) if chip.is_950 else chip)
    return tuple(chips)


def _busy(item: str) -> Busy:
    device, process, length = _groups(r"(\d+):([^:]+):(forever|\d+s|\d+q)", item)
    amount = int(length[:-1]) if length != "forever" else None
    return Busy(int(device), process, amount if length[-1] == "s" else None, amount if length[-1] == "q" else None)


def _fault(item: str) -> Fault:
    kind, run, device = _groups(rf"({'|'.join(FAULTS)})@(\d+)(?::(\d+))?", item)
    return Fault(kind, int(run), int(device) if device else None)


def _health(item: str) -> tuple[int, str]:
    device, health = _groups(r"(\d+):(\w+)", item)
    return int(device), health


def _atc_error(text: str) -> AtcError:
    code, batch_size = _groups(r"(E\w\d{4})(?:@(\d+))?", text)
    return AtcError(code, int(batch_size) if batch_size else None)
