"""An NPU host's facts: which devices, SoC, CANN, driver and ais_bench it has, and whether a device is idle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy import probe
from deploy.console import say
from deploy.errors import KitError
from deploy.inventory import Npu
from deploy.npu import smi, versions
from deploy.runtime import Runtime

PROBE_TIMEOUT_S = 60.0  # npu-smi can hang on a lost device
POLL_S = 2.0


@dataclass(frozen=True)
class Device:
    """One logical device of one host: a worker of the accuracy run."""

    host: str
    chip: smi.Chip

    def __str__(self) -> str:
        return f"{self.host}:{self.chip.device}"


@dataclass(frozen=True)
class Facts:
    chips: tuple[smi.Chip, ...]  # those that the inventory lists, in its order
    soc_version: str
    cann: str
    driver: str
    ais_bench: str  # sha256 of the package: its version string never moved
    aclruntime: str
    simulated: bool

    @property
    def target(self) -> str:
        return f"{self.soc_version} with CANN {self.cann}"

    @property
    def tools(self) -> dict[str, str]:
        """What a result depends on besides the model and the data."""
        return {"soc_version": self.soc_version, "cann": self.cann, "ais_bench": self.ais_bench, "driver": self.driver}

    @classmethod
    def read(cls, section: Npu, runtime: Runtime) -> Facts:
        """Ask a host's npu-smi and version files.

        Raises:
            KitError: no such device or chip, an unhealthy one, chips of two kinds, or tools that are not there.
        """
        with _naming(section):
            chips = smi.select(read_chips(section, runtime), section.devices, section.chip)
            found = _probe(section, runtime)
            cann, driver = versions.parse_cann(found["cann"] or ""), versions.parse_driver(found["driver"] or "")
        if warning := versions.mismatch(cann, driver):
            say(f"  {section.name}: {warning}", "yellow")
        if found["ais_bench"] is None:
            raise KitError(
                f"{section.name}: {section.tools.python} has no ais_bench; install it there, "
                "or name the Python that has it under tools.python in the inventory"
            )
        return cls(
            chips=tuple(chips),
            soc_version=smi.soc_version(chips[0].name),
            cann=cann,
            driver=driver,
            ais_bench=found["ais_bench"],
            aclruntime=found["aclruntime"] or "unknown",
            simulated=versions.simulated(cann) or versions.simulated(driver),
        )


def read_chips(section: Npu, runtime: Runtime) -> list[smi.Chip]:
    """The host's own chip table, with the logical device of each."""
    table = runtime.run(smi.info_argv(section.tools.npu_smi), timeout_s=PROBE_TIMEOUT_S)
    mapping = runtime.run(smi.mapping_argv(section.tools.npu_smi), timeout_s=PROBE_TIMEOUT_S)
    return smi.parse_info(table.output, smi.parse_mapping(mapping.output) if mapping.status == 0 else {})


@dataclass(frozen=True)
class IdleCheck:
    """What the host's npu-smi said of a device at one moment; `busy` says what keeps it so, None when it is idle."""

    at: str  # UTC, ISO 8601
    busy: str | None
    chip: smi.Chip

    def record(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "busy": self.busy,
            "aicore_percent": self.chip.aicore_percent,
            "memory_used_mb": self.chip.model_memory_mb[0],
            "memory_total_mb": self.chip.model_memory_mb[1],
            "processes": None if self.chip.processes is None else [str(process) for process in self.chip.processes],
            "temperature_c": self.chip.temperature_c,
            "power_w": self.chip.power_w,
        }


def wait_until_idle(section: Npu, runtime: Runtime, device: int, timeout_s: float) -> IdleCheck:
    """Wait for a device to be idle, until the deadline; the last check."""
    deadline = time.monotonic() + timeout_s
    while True:
        chip = next(chip for chip in read_chips(section, runtime) if chip.device == device)
        reason = smi.busy_reason(chip)
        left = deadline - time.monotonic()
        if reason is None or left <= 0:
            return IdleCheck(datetime.now(timezone.utc).isoformat(timespec="seconds"), reason, chip)
        say(f"  waiting for {section.name}:{device}: {reason} ({left:.0f} s left)")
        time.sleep(min(POLL_S, left))


@contextmanager
def _naming(section: Npu) -> Iterator[None]:
    """Errors of the pure parsers do not know the host: name it."""
    try:
        yield
    except KitError as error:
        raise error if str(error).startswith(f"{section.name}: ") else KitError(f"{section.name}: {error}") from None


def _probe(section: Npu, runtime: Runtime) -> Mapping[str, Any]:
    done = runtime.run([section.tools.python, "-c", Path(probe.__file__).read_text()], timeout_s=PROBE_TIMEOUT_S)
    line = done.output.strip().splitlines()[-1:] or [""]
    try:
        found = json.loads(line[0])
        return {name: found[name] for name in ("cann", "driver", "ais_bench", "aclruntime")}
    except (ValueError, KeyError, TypeError):
        raise KitError(
            f"{section.name}: {section.tools.python} could not be asked for its versions ({line[0][:120]!r}); "
            "correct tools.python in the inventory"
        ) from None
