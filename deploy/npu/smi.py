"""npu-smi: which chips a host has, how they are, and whether one is idle.

Facts [npu-smi 1.x to 25.x]: a chip takes two rows of the `info` table; ais_bench wants the *logical device*, which is
the second row's `Device`, else `Chip Logic ID` of `info -m`, else the chip's place in the table; it is not the NPU id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.errors import KitError
from deploy.npu import transcript

# Without a baseline of the chip's own, memory tells little: idle chips hold from 5 % (310P3, 910B) to a third (310).
_HELD_FRACTION = 0.4
# With one, this much of the whole above it is more than the jitter of an idle chip and less than one loaded model.
_MARGIN_FRACTION = 0.01


@dataclass(frozen=True)
class Process:
    """A process that holds a chip; the name is "" where npu-smi shows none."""

    pid: int
    name: str
    memory_mb: int

    def __str__(self) -> str:
        return f"{self.name or 'a process'} (pid {self.pid}, {self.memory_mb} MB)"


@dataclass(frozen=True)
class Chip:
    """One chip as `npu-smi info` shows it; None stands for what the release or the board does not tell."""

    npu_id: int
    chip_id: int
    device: int  # logical: what ais_bench's --device and the inventory's `devices` mean
    name: str
    health: str
    bus_id: str
    power_w: float | None
    temperature_c: int | None
    aicore_percent: int | None
    memory_used_mb: int
    memory_total_mb: int
    hbm_used_mb: int | None = None
    hbm_total_mb: int | None = None
    processes: tuple[Process, ...] | None = None

    @property
    def model_memory_mb(self) -> tuple[int, int]:
        """(used, total) of the memory that models live in: HBM where the chip has it, else DDR."""
        if self.hbm_total_mb:
            return self.hbm_used_mb or 0, self.hbm_total_mb
        return self.memory_used_mb, self.memory_total_mb

    def __str__(self) -> str:
        return f"{self.device} ({self.name}, NPU {self.npu_id})"


def info_argv(smi: str) -> list[str]:
    return [smi, "info"]


def mapping_argv(smi: str) -> list[str]:
    return [smi, "info", "-m"]


def proc_mem_argv(smi: str, npu_id: int, chip_id: int) -> list[str]:
    return [smi, "info", "-t", "proc-mem", "-i", str(npu_id), "-c", str(chip_id)]


def parse_info(text: str, logical: Mapping[tuple[int, int], int] | None = None) -> list[Chip]:
    """The chips of `npu-smi info`, in the table's order.

    `logical` is `parse_mapping`'s answer, used where the table has no Device column. Raises KitError where npu-smi
    failed, shows no chip, or prints a row that cannot be understood: a chip is never silently lost.
    """
    _refuse_failure(text)
    rows = _Rows(text)
    chips = [_chip(index, first, second, rows, logical or {}) for index, (first, second) in enumerate(rows.pairs())]
    if not chips:
        raise KitError(
            f"npu-smi info shows no chip (its first line: {transcript.first(text)}): check `tools.npu_smi` in the "
            "inventory, and that the Ascend driver is installed and, in a container, mounted"
        )
    if len({chip.device for chip in chips}) != len(chips):
        raise KitError(f"npu-smi info shows a logical device twice: {_listed(chips)}; check the driver on this host")
    return chips


def parse_mapping(text: str) -> dict[tuple[int, int], int]:
    """(NPU id, chip id) -> logical device, from `npu-smi info -m`; Mcu rows, whose logic id is `-`, are no devices.

    Empty where the release prints no `Chip Logic ID`. Raises KitError where npu-smi failed.
    """
    _refuse_failure(text)
    mapping: dict[tuple[int, int], int] = {}
    columns: list[str] = []
    for line in transcript.lines(text):
        if line.startswith("NPU ID"):
            columns = re.findall(r"NPU ID|Slot ID|Chip ID|Chip Logic ID|Chip Phy-ID", line)
            continue
        row = dict(zip(columns, map(_integer, line.split()), strict=False))
        npu_id, chip_id, device = (row.get(name) for name in ("NPU ID", "Chip ID", "Chip Logic ID"))
        if npu_id is not None and chip_id is not None and device is not None:
            mapping[npu_id, chip_id] = device
    return mapping


def parse_proc_mem(text: str) -> tuple[Process, ...] | None:
    """The processes of `npu-smi info -t proc-mem -i I -c C`, or None where the release does not tell."""
    found = re.findall(
        r"Process id\s*:\s*([0-9]{1,9})\s+Process name\s*:[ \t]*([^\n]*?)\s+Process memory\(MB\)\s*:\s*([0-9]{1,9})",
        "\n".join(transcript.lines(text)),
    )
    if not found and "No process in device" not in text:
        return None
    return tuple(Process(int(pid), name.strip(), int(memory)) for pid, name, memory in found)


def soc_version(name: str) -> str:
    """ATC's --soc_version for a chip's name: `310P3`, `Ascend310P3` and `Ascend 310P3` are all `Ascend310P3`.

    (The guide's `Ascend310${chip_name}` would give Ascend310310P3.) Raises KitError on an empty name.
    """
    bare = re.sub(r"\s+", "", name)
    bare = bare[len("ascend") :] if bare.lower().startswith("ascend") else bare
    if not bare:
        raise KitError(f"{name!r} is no chip name: `npu-smi info` shows it in its Name column, such as 310P3")
    return f"Ascend{bare}"


def select(chips: Sequence[Chip], wanted: Iterable[int] | Literal["all"], name: str | None = None) -> list[Chip]:
    """The chips of the wanted logical devices, in the wanted order.

    Raises KitError where the host lacks one, where one is not the chip named by the inventory, where they differ among
    themselves (an OM is made for one SoC), or where one is not healthy.
    """
    by_device = {chip.device: chip for chip in chips}
    devices = list(by_device) if wanted == "all" else list(wanted)
    lacking = [device for device in devices if device not in by_device]
    if lacking:
        raise KitError(
            f"the host has no device {', '.join(map(str, lacking))}: it has {_listed(chips)}; "
            "set `devices` in the inventory to some of these"
        )
    chosen = [by_device[device] for device in devices]
    socs = {soc_version(chip.name) for chip in chosen}
    if name is not None and socs - {soc_version(name)}:
        raise KitError(
            f"the inventory names the chip {name}, but the host has {_listed(chosen)}: correct `chip` or `devices`"
        )
    if len(socs) > 1:
        raise KitError(f"devices {_listed(chosen)} are of different kinds: list devices of one kind in `devices`")
    unhealthy = [chip for chip in chosen if chip.health.upper() != "OK"]
    if unhealthy:
        raise KitError(
            f"device {unhealthy[0]} reports health {unhealthy[0].health!r}: see `npu-smi info -t health -i "
            f"{unhealthy[0].npu_id}`, or leave it out of `devices` in the inventory"
        )
    return chosen


def busy_reason(chip: Chip, idle_memory_mb: int | None = None) -> str | None:
    """Why a figure must not be taken on this chip now, or None where it is idle.

    Any process and any AICore use count. Memory is what betrays a process that npu-smi does not show (22.0.x has no
    process table, a container sees only its own): it counts when it exceeds the chip's own idle use, `idle_memory_mb`,
    by 1 % of the whole, or, where that is not known, when 40 % of the whole is held.
    """
    reasons = [str(process) for process in chip.processes or ()]
    if chip.aicore_percent:
        reasons.append(f"AICore at {chip.aicore_percent} %")
    used, total = chip.model_memory_mb
    limit = _HELD_FRACTION * total if idle_memory_mb is None else idle_memory_mb + _MARGIN_FRACTION * total
    if not chip.processes and used > limit:
        idle = "" if idle_memory_mb is None else f", {idle_memory_mb} MB when idle"
        reasons.append(f"{used} of {total} MB of memory held{idle}")
    return ", ".join(reasons) or None


class _Rows:
    """The `|`-framed rows of `npu-smi info`, sorted into the chips' and the processes'."""

    def __init__(self, text: str) -> None:
        self.chips: list[list[str]] = []
        self.has_device_column = False
        self.processes: dict[tuple[int, int], list[Process]] = {}
        self.idle_npus: set[int] = set()
        in_process_table = False
        for line in transcript.lines(text):
            if not line.startswith("|"):
                continue
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if re.match(r"(NPU|Chip)\b", cells[0]):
                in_process_table |= any("Process id" in cell for cell in cells)
                self.has_device_column |= bool(re.fullmatch(r"Chip\s+Device", cells[0]))
            elif in_process_table:
                self._add_process(cells)
            elif len(cells) == 3:
                self.chips.append(cells)
            elif len(cells) > 1:  # a single cell is the banner with npu-smi's version
                raise _unknown_row(cells)

    def _add_process(self, cells: list[str]) -> None:
        if free := re.match(r"No running processes found in NPU\s+([0-9]{1,9})", cells[0]):
            self.idle_npus.add(int(free[1]))
            return
        # Since 25.x a fifth column: the process's id in its container.
        ids = [_integer(token) for token in cells[0].split()]
        pid, memory = (_integer(cells[1]), _integer(cells[3])) if len(cells) in (4, 5) else (None, None)
        if len(ids) != 2 or ids[0] is None or ids[1] is None or pid is None or memory is None:
            raise _unknown_row(cells)
        self.processes.setdefault((ids[0], ids[1]), []).append(Process(pid, cells[2], memory))

    def pairs(self) -> list[tuple[list[str], list[str]]]:
        if len(self.chips) % 2:
            raise _unknown_row(self.chips[-1])
        return list(zip(self.chips[::2], self.chips[1::2], strict=True))

    def processes_of(self, npu_id: int, chip_id: int) -> tuple[Process, ...] | None:
        """None where there is no process table, or it does not mention the NPU at all."""
        if npu_id not in self.idle_npus and npu_id not in {npu for npu, _ in self.processes}:
            return None
        return tuple(self.processes.get((npu_id, chip_id), ()))


def _chip(index: int, first: list[str], second: list[str], rows: _Rows, logical: Mapping[tuple[int, int], int]) -> Chip:
    """`| 0  310P3 | OK | 15.8  42  0 / 0 |` and `| 0  0 | 0000:82:00.0 | 0  1074 / 21534 [3401 / 65536] |`."""
    who = re.fullmatch(r"([0-9]{1,9})\s+([A-Za-z0-9][A-Za-z0-9 ._+-]{0,63})", first[0])
    where = re.fullmatch(r"([0-9]{1,9})(?:\s+(\S+))?", second[0])
    vitals = first[2].split()
    memories = re.findall(r"([0-9]{1,9})\s*/\s*([0-9]{1,9})", second[2])
    if who is None or where is None or len(vitals) < 2 or not memories:
        raise _unknown_row(first + second)
    npu_id, chip_id, place = int(who[1]), int(where[1]), _integer(where[2] or "")
    # A `Phy-ID` column is not the logical device: a container that sees only the last chip calls it 0.
    device = place if rows.has_device_column else logical.get((npu_id, chip_id)) if logical else index
    if device is None:
        raise KitError(
            f"`npu-smi info` and `npu-smi info -m` do not tell the logical device of NPU {npu_id} chip {chip_id}: "
            "check the Ascend driver on this host"
        )
    ddr, hbm = memories[0], memories[1] if len(memories) > 1 else None
    return Chip(
        npu_id=npu_id,
        chip_id=chip_id,
        device=device,
        name=who[2],
        health=first[1],
        bus_id=second[1],
        power_w=_decimal(vitals[0]),
        temperature_c=_integer(vitals[1]),
        aicore_percent=_integer(second[2].split()[0]),
        memory_used_mb=int(ddr[0]),
        memory_total_mb=int(ddr[1]),
        hbm_used_mb=int(hbm[0]) if hbm else None,
        hbm_total_mb=int(hbm[1]) if hbm else None,
        processes=rows.processes_of(npu_id, chip_id),
    )


def _refuse_failure(text: str) -> None:
    failed = re.search(r"dcmi .*ret is (-[0-9]+)", "\n".join(transcript.lines(text)))
    if failed is None:
        return
    if failed[1] == "-8020":
        raise KitError(
            "npu-smi failed with -8020, the device is in use: stop the other container or process that holds it, "
            "or choose another device in the inventory's `devices`"
        )
    if failed[1] == "-8005":
        raise KitError(
            "npu-smi failed with -8005, no access to the device: source CANN's and the driver's set_env.sh "
            "(`tools.env_scripts`), join the group HwHiAiUser, and in a container pass the device nodes and the "
            "driver's mounts and hold no device that another container holds"
        )
    raise KitError(
        f"npu-smi failed ({transcript.quote(failed[0])}): check the Ascend driver with `npu-smi info` on the host"
    )


def _unknown_row(cells: list[str]) -> KitError:
    return KitError(
        f"npu-smi info prints a row this kit cannot read ('{transcript.quote(' | '.join(cells))}'): "
        "report it with the output of `npu-smi info`"
    )


def _listed(chips: Iterable[Chip]) -> str:
    return ", ".join(map(str, chips)) or "none"


def _integer(token: str) -> int | None:
    return int(token) if re.fullmatch(r"[0-9]{1,9}", token) else None


def _decimal(token: str) -> float | None:
    return float(token) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", token) else None
