"""An NPU host's facts: which devices, SoC, CANN, driver and ais_bench it has, and whether a device is idle."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from deploy.console import mark, say
from deploy.containers.native import Runtime
from deploy.errors import HostUnfit, KitError, host_is_unfit
from deploy.inventory import Npu
from deploy.npu import ais_bench, probe, smi, transcript, versions
from stgcn import plain_json

PROBE_TIMEOUT_S = 60.0  # npu-smi can hang on a lost device
SENSORS_TIMEOUT_S = 10.0  # beside a run, whose end waits for it
POLL_S = 2.0
REMIND_S = 20.0  # how often an unchanged wait is told again
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Reading:
    """A device at one moment while it works."""

    chip: smi.Chip
    power_w: float | None  # None: not told
    chips: int = 1  # that the power is of


class Smi:
    """A host's npu-smi. Where the tools are in an image it is still the host's own that is asked, if there is one: a
    container sees no processes but its own."""

    def __init__(self, name: str, tool: str, runtime: Runtime, in_container: bool = False) -> None:
        self.name, self.in_container = name, in_container
        self._tool, self._runtime = tool, runtime

    @classmethod
    def of(cls, section: Npu, runtime: Runtime) -> Smi:
        asked = runtime.of_host()
        in_container = section.runtime == "docker" and asked is runtime
        if in_container:
            say(
                f"  {section.name}: no npu-smi on the host, so the image's is asked, which sees its own processes",
                "yellow",
            )
        return cls(section.name, section.tools.npu_smi, asked, in_container)

    @host_is_unfit()
    def chips(self, timeout_s: float = PROBE_TIMEOUT_S) -> list[smi.Chip]:
        """Every chip that the host shows, with its logical device. Raises KitError where npu-smi fails."""
        with prefix_errors(self.name):
            return smi.parse_info(self._ask(["info"], timeout_s), self._logical)

    @host_is_unfit()
    def chip(self, device: int) -> smi.Chip:
        """One device now, its processes too where this npu-smi has any way to tell them.

        Raises:
            KitError: the device is gone, or npu-smi fails.
        """
        chip = next((chip for chip in self.chips() if chip.device == device), None)
        if chip is None:
            raise KitError(
                f"{self.name}: device {device} is lost, npu-smi no longer shows it; see `npu-smi info` and dmesg there,"
                " or leave it out of `devices` in the inventory"
            )
        if chip.processes is not None:
            return chip
        listed = self._ask(smi.of_chip("proc-mem", chip))
        return dataclasses.replace(chip, processes=smi.parse_proc_mem(listed))

    def sensors(self, device: int) -> Reading | None:
        """One device's figures now. Where the table tells no power of each chip of its card, it is the card's: another
        chip's there, or what npu-smi says of the whole."""
        every = self.chips(SENSORS_TIMEOUT_S)
        chip = next((chip for chip in every if chip.device == device), None)
        if chip is None:
            return None
        card = [each for each in every if each.npu_id == chip.npu_id]
        watts = {each.device: smi.measured_power(each) for each in card}
        if None not in watts.values():
            return Reading(chip, watts[device])
        of_card = next(filter(None, watts.values()), None)
        if of_card is None:
            of_card = smi.parse_power(self._ask(["info", "-t", "power", "-i", str(chip.npu_id)], SENSORS_TIMEOUT_S))
        return Reading(chip, of_card, len(card))

    @cached_property
    def _logical(self) -> Mapping[tuple[int, int], int]:
        """(NPU id, chip id) -> logical device; empty where the release does not tell, as its table then does."""
        return smi.parse_mapping(self._ask(["info", "-m"]))

    def soc_version(self, chips: Sequence[smi.Chip]) -> str:
        """What ATC calls these chips, which are of one name; where that is a family's, their boards say which it is.

        Raises:
            KitError: a board does not tell, or they differ.
        """
        if not smi.is_family(chips[0].name):
            return smi.soc_version(chips[0].name)
        found = {}
        with prefix_errors(self.name):
            for chip in {chip.npu_id: chip for chip in chips}.values():
                listed = self._ask(smi.of_chip("board", chip))
                found[smi.board_soc_version(chip, smi.parse_board(listed))] = chip
            if len(found) > 1:
                kinds = ", ".join(f"{chip} is an {soc}" for soc, chip in found.items())
                raise KitError(f"{kinds}: list devices of one kind in `devices`")
        return next(iter(found))

    def _ask(self, words: Sequence[str], timeout_s: float = PROBE_TIMEOUT_S) -> str:
        done = self._runtime.run([self._tool, *words], timeout_s=timeout_s)
        # What it had printed by then may lack the process that it would have named next.
        if transcript.is_signal(done.status):
            raise KitError(
                f"{self.name}: npu-smi was ended by a signal (exit status {done.status}); run the command again"
            )
        return done.output


@dataclass(frozen=True)
class Facts:
    chips: tuple[smi.Chip, ...]  # those that the inventory lists, in its order
    soc_version: str
    cann: str  # or `unknown`
    driver: str  # or `unknown`
    ais_bench: str | None  # sha256 of the package: its version string never moved; converting needs none
    aclruntime: str | None
    simulated: bool

    @property
    def health(self) -> str | None:
        """What ails the devices, None where all are OK."""
        return ", ".join(sorted({chip.ailment for chip in self.chips if chip.ailment})) or None

    @property
    def mark(self) -> str:
        """What follows each figure of these devices."""
        return mark(self.simulated, self.health)

    @property
    def record(self) -> dict[str, Any]:
        """What the record of each result says of the devices besides its inputs."""
        return {"simulated": self.simulated, "health": self.health}

    @property
    def target(self) -> str:
        return f"{self.soc_version} with CANN {self.cann}"

    @property
    def tools(self) -> dict[str, str | None]:
        """What a result depends on besides the model and the data."""
        return {
            "soc_version": self.soc_version,
            "cann": self.cann,
            "driver": self.driver,
            "ais_bench": self.ais_bench,
            "aclruntime": self.aclruntime,
        }

    @classmethod
    @host_is_unfit()
    def read(cls, section: Npu, runtime: Runtime, asked: Smi) -> Facts:
        """Ask a host's npu-smi and version files. A version that is not told is `unknown`, with a warning: it makes no
        result wrong, the steps merely do not run again when it changes.

        Raises:
            KitError: no such device or chip, an unhealthy one, chips of two kinds, or a Python that does not run.
        """
        with prefix_errors(section.name):
            chips = smi.select(asked.chips(), section.devices)
        for ailment in filter(None, map(smi.ailment_warning, chips)):
            say(f"  {section.name}: {ailment}", "yellow")
        found = _probe(section, runtime)
        cann = _version(section, "CANN", found["cann"], versions.parse_cann)
        driver = _version(section, "driver", found["driver"], versions.parse_driver)
        if warning := versions.mismatch(cann, driver):
            say(f"  {section.name}: {warning}", "yellow")
        return cls(
            chips=tuple(chips),
            soc_version=smi.soc_version(section.chip) if section.chip else asked.soc_version(chips),
            cann=cann,
            driver=driver,
            ais_bench=found["ais_bench"],
            aclruntime=found["aclruntime"],
            simulated=versions.simulated(cann) or versions.simulated(driver),
        )


def read_cann(section: Npu, runtime: Runtime) -> str:
    """CANN's version in an environment, or UNKNOWN with a warning. Raises KitError where its Python does not run."""
    return _version(section, "CANN", _probe(section, runtime)["cann"], versions.parse_cann)


@host_is_unfit()
def read_era(section: Npu, runtime: Runtime, facts: Facts) -> ais_bench.Era:
    """Which generation of ais_bench a host has, told by its `--help`.

    Raises:
        KitError: there is none, another package of that name, or one that lacks its aclruntime.
    """
    python = section.tools.python
    if facts.ais_bench is None:
        raise KitError(
            f"{section.name}: {python} has no ais_bench; install the wheels aclruntime and ais_bench there, "
            "or name the Python that has them under tools.python in the inventory"
        )
    done = runtime.run(ais_bench.help_argv(python), timeout_s=PROBE_TIMEOUT_S)
    with prefix_errors(section.name):
        return ais_bench.parse_help(done.output, done.status)


@dataclass(frozen=True)
class IdleCheck:
    """What the host's npu-smi said of a device at one moment."""

    at: str  # UTC, ISO 8601
    chip: smi.Chip
    idle_memory_mb: int | None = None  # that it holds when it is idle, as far as was known
    in_container: bool = False  # told by a container's npu-smi, which sees its own processes alone

    @property
    def busy(self) -> str | None:
        """What keeps it busy, None when it is idle."""
        return smi.busy_reason(self.chip, self.idle_memory_mb)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> IdleCheck:
        """The check that `record` tells, by its readings. Raises TypeError for another form."""
        read = dict(record["chip"])
        if read["processes"] is not None:
            read["processes"] = tuple(smi.Process(**process) for process in read["processes"])
        return cls(record["at"], smi.Chip(**read), record["idle_memory_mb"], record["asked"] == "container")

    def record(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "busy": self.busy,
            "aicore_percent": self.chip.aicore_percent,
            "memory_used_mb": self.chip.model_memory_mb[0],
            "memory_total_mb": self.chip.model_memory_mb[1],
            "processes": None if self.chip.processes is None else [str(process) for process in self.chip.processes],
            "health": self.chip.health,
            "temperature_c": self.chip.temperature_c,
            "power_w": self.chip.power_w,
            "asked": "container" if self.in_container else "host",
            "idle_memory_mb": self.idle_memory_mb,
            "chip": _as_json(self.chip),
        }


def _as_json(chip: smi.Chip) -> dict[str, Any]:
    processes = None if chip.processes is None else [dataclasses.asdict(process) for process in chip.processes]
    return {**dataclasses.asdict(chip), "processes": processes}


@dataclass(frozen=True)
class Idle:
    """What the figures of one command learn of their device, each from those before it.

    The least memory that the device was seen to hold when idle is its own: more than that is someone's. Once the
    patience is spent the next figures do not wait again: six of them would cost six deadlines.
    """

    memory_mb: int | None = None
    spent: bool = False


class IdleWatch:
    """Waits for one device to be idle; `known` goes on from an earlier watch's."""

    def __init__(self, asked: Smi, device: int, patience_s: float, known: Idle = Idle()) -> None:
        self.patience_s, self.known = patience_s, known
        self._smi, self._device = asked, device

    def __str__(self) -> str:
        return f"{self._smi.name}:{self._device}"

    def check(self) -> IdleCheck:
        """The device as it is now."""
        chip, known = self._smi.chip(self._device), self.known.memory_mb
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        check, used = IdleCheck(now, chip, known, self._smi.in_container), chip.model_memory_mb[0]
        if check.busy is None and used is not None:
            self.known = dataclasses.replace(self.known, memory_mb=min(used, known or used))
        return check

    def after(self) -> IdleCheck:
        """The device after minutes of work, which one failure of npu-smi should not cost."""
        try:
            return self.check()
        except KitError:
            time.sleep(POLL_S)
            return self.check()

    def before(self) -> IdleCheck:
        """The check that found the device idle, else the one at the deadline."""
        check = self.wait(0 if self.known.spent else self.patience_s)
        self.known = dataclasses.replace(self.known, spent=check.busy is not None)
        return check

    def wait(self, timeout_s: float) -> IdleCheck:
        return wait_until_idle(str(self), self.check, timeout_s)


def was_busy(who: object, busy: str, patience_s: float, task: str) -> str:
    """Why `task` takes no figure: the device was not idle in time."""
    return (
        f"{who}: the device was not idle within {patience_s:g} s ({busy}); free it, raise benchmark.idle_timeout_s, or "
        f"take a marked figure with `fab {task} --force`"
    )


def became_busy(who: object, busy: str, task: str) -> str:
    """Why `task` keeps no figure."""
    return (
        f"{who}: the device was put to other use while it was measured ({busy}), so the figure is thrown away; free it "
        f"and run again, or take a marked figure with `fab {task} --force`"
    )


class Looked(Protocol):
    """A device at one moment."""

    @property
    def busy(self) -> str | None: ...


LookedT = TypeVar("LookedT", bound=Looked)


def wait_until_idle(name: str, look: Callable[[], LookedT], timeout_s: float) -> LookedT:
    """The look that found the device idle, else the one at the deadline."""
    found, told, told_at = look(), "", 0.0
    deadline = time.monotonic() + timeout_s  # from the first look on: the tool itself may take a second
    while found.busy is not None and (now := time.monotonic()) < deadline:
        if found.busy != told or now - told_at > REMIND_S:
            say(f"  waiting for {name}: {found.busy} ({deadline - now:.0f} s left)")
            told, told_at = found.busy, now
        time.sleep(min(POLL_S, deadline - now))
        found = look()
    return found


@contextmanager
def prefix_errors(who: str) -> Iterator[None]:
    """Errors of the pure parsers do not know the host, or its device `host:device`: name it."""
    try:
        yield
    except KitError as error:
        named = (f"{who}: ", f"{who.partition(':')[0]}: ")
        if type(error) not in (KitError, HostUnfit) or str(error).startswith(named):
            raise
        raise type(error)(f"{who}: {error}") from None


def _version(section: Npu, of: str, text: str | None, parse: Callable[[str], str]) -> str:
    try:
        return parse(text or "")
    except KitError as error:
        reason = "no version file where the environment says" if text is None else str(error)
        say(f"  {section.name}: {of} version unknown ({reason}); nothing runs again when it changes", "yellow")
        return UNKNOWN


def _probe(section: Npu, runtime: Runtime) -> Mapping[str, Any]:
    done = runtime.run([section.tools.python, "-c", Path(probe.__file__).read_text()], timeout_s=PROBE_TIMEOUT_S)
    line = done.output.strip().splitlines()[-1:] or [""]
    try:
        found = plain_json.loads(line[0])
        told = {name: found[name] for name in ("cann", "driver", "ais_bench", "aclruntime")}
        if not all(value is None or isinstance(value, str) for value in told.values()):
            raise ValueError
        if not all(re.fullmatch("[0-9a-f]{64}", told[name] or "0" * 64) for name in ("ais_bench", "aclruntime")):
            raise ValueError
        return told
    except (ValueError, KeyError, TypeError):
        raise KitError(
            f"{section.name}: {section.tools.python} could not be asked for its versions ({line[0][:120]!r}); "
            "correct tools.python in the inventory"
        ) from None
