"""npu-smi: which chips a host has, how they are, and whether one is idle.

Facts [npu-smi 1.x to 26.x]: a chip takes two rows of the `info` table, whose headings say what stands where; ais_bench
wants the *logical device*, which is the second row's `Device`, else `Chip Logic ID` of `info -m`, else the chip's place
in the table. It is not the NPU id, but for a 950, whose NPUs are one chip each and have no other number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.errors import KitError
from deploy.npu import causes, transcript

# Without a baseline of the chip's own, more of the whole than an idle one holds: of HBM that is 4 to 9 %, of a 310P's
# memory 4 to 9, of a 310's up to a third.
_HELD_OF_HBM, _HELD, _HELD_OF_310 = 0.15, 0.2, 0.4
# With one, this much of the whole above it is more than the jitter of an idle chip and less than one loaded model.
_MARGIN_FRACTION = 0.01
_NOT_TOLD = frozenset({"", "-", "--", "NA", "N/A", "NOT SUPPORT"})


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
    chip_id: int | None  # None: an NPU of this kind is one chip, and npu-smi takes no chip id
    device: int  # logical: what ais_bench's --device and the inventory's `devices` mean
    name: str
    health: str
    bus_id: str
    power_w: float | None
    temperature_c: int | None
    aicore_percent: int | None
    memory_used_mb: int | None
    memory_total_mb: int | None
    hbm_used_mb: int | None = None
    hbm_total_mb: int | None = None
    processes: tuple[Process, ...] | None = None

    @property
    def model_memory_mb(self) -> tuple[int | None, int | None]:
        """(used, total) of the memory that models live in: HBM where the chip has it, else DDR."""
        if self.hbm_total_mb:
            return self.hbm_used_mb, self.hbm_total_mb
        return self.memory_used_mb, self.memory_total_mb

    @property
    def shares_host_memory(self) -> bool:
        """Whether the memory shown is the host's own RAM: a chip that is on no bus is the board's processor."""
        return not self.hbm_total_mb and self.bus_id.upper() in _NOT_TOLD

    @property
    def ailment(self) -> str | None:
        """What health says where it is not OK."""
        return None if self.health.upper() == "OK" else self.health

    def __str__(self) -> str:
        return f"{self.device} ({self.name}, NPU {self.npu_id})"


def of_chip(kind: str, chip: Chip) -> list[str]:
    """The words behind `npu-smi` that ask for one kind of information about a chip."""
    of_npu = ["info", "-t", kind, "-i", str(chip.npu_id)]
    return of_npu if chip.chip_id is None else [*of_npu, "-c", str(chip.chip_id)]


def parse_info(text: str, logical: Mapping[tuple[int, int], int] | None = None) -> list[Chip]:
    """The chips of `npu-smi info`, in the table's order.

    `logical` is `parse_mapping`'s answer, used where the table has no Device column. Raises KitError where npu-smi
    failed, shows no chip, or prints a row that cannot be understood: a chip is never silently lost.
    """
    rows, processes = _read_table(text)
    chips = [_chip(index, *row, processes, logical or {}) for index, row in enumerate(rows)]
    if not chips:
        raise _failure(text)
    if len({chip.device for chip in chips}) != len(chips):
        raise KitError(f"npu-smi info shows a logical device twice: {_listed(chips)}; check the driver on this host")
    return chips


def parse_mapping(text: str) -> dict[tuple[int, int], int]:
    """(NPU id, chip id) -> logical device, from `npu-smi info -m`; Mcu rows, whose logic id is `-`, are no devices.

    Empty where the release prints no `Chip Logic ID`, or fails: the table of `npu-smi info` then fails alike.
    """
    mapping: dict[tuple[int, int], int] = {}
    columns: list[str] = []
    for line in transcript.lines(text):
        if re.match(r"NPU ID\b", line):
            columns = re.findall(r"NPU ID|Slot ID|Chip ID|Chip Logic ID|Chip Phy-ID|Chip Name|\S+", line)
            continue
        row = dict(zip(columns, map(_integer, line.split()), strict=False))
        npu_id, chip_id, device = (row.get(name) for name in ("NPU ID", "Chip ID", "Chip Logic ID"))
        if npu_id is not None and chip_id is not None and device is not None:
            mapping[npu_id, chip_id] = device
    return mapping


def parse_proc_mem(text: str) -> tuple[Process, ...] | None:
    """The processes of `npu-smi info -t proc-mem -i I [-c C]`, or None where the release does not tell."""
    found = re.findall(
        r"Process id\s*:\s*([0-9]{1,9})\s+Process name\s*:[ \t]*([^\n]*?)\s+Process memory\(MB\)\s*:\s*([0-9]{1,9})",
        "\n".join(transcript.lines(text)),
    )
    if not found and not re.search(r"No (?:running )?process(?:es)? in device", text):
        return None
    return tuple(Process(int(pid), name.strip(), int(memory)) for pid, name, memory in found)


def parse_board(text: str) -> dict[str, str]:
    """The fields of `npu-smi info -t board`, of several blocks the first's; values not told are left out."""
    fields: dict[str, str] = {}
    for line in transcript.lines(text):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if colon and value.upper() not in _NOT_TOLD:
            fields.setdefault(name, value)
    return fields


_NO_POWER_W = 3000.0  # a sensor that has none says 0x7ffd tenths of a watt, or near it


def measured_power(chip: Chip) -> float | None:
    """W that the table of `npu-smi info` shows of a chip, where that is a sensor's; of a 310 it is its rated power."""
    return None if chip.name.endswith("310") else _measured(chip.power_w)


def parse_power(text: str) -> float | None:
    """W of `npu-smi info -t power -i I`, or None: `Power Dissipation(W)` of the card, or `NPU Real-time Power(W)`; a
    310's chips have their `Rated Power Dissipation(W)`. From driver 23 on a 310P's power is told here alone."""
    fields = parse_board(text)
    told = (value for name, value in fields.items() if re.match(r"(?!Rated).*power.*\(W\)", name, re.IGNORECASE))
    return next(filter(None, (_measured(_decimal(value)) for value in told)), None)


def _measured(watts: float | None) -> float | None:
    return watts if watts is not None and 0 < watts < _NO_POWER_W else None


def is_family(name: str) -> bool:
    """Whether a name in the table is a family's (Ascend910 of an A3, Ascend950PR), so that the board names the SoC."""
    return name.lower().startswith("ascend")


def soc_version(name: str) -> str:
    """ATC's --soc_version for a chip's name: `310P3`, `Ascend310P3` and `Ascend 310P3` are all `Ascend310P3`.

    (The guide's `Ascend310${chip_name}` would give Ascend310310P3.) Raises KitError on an empty name.
    """
    bare = re.sub(r"\s+", "", name)
    bare = bare[len("ascend") :] if bare.lower().startswith("ascend") else bare
    if not bare:
        raise KitError(f"{name!r} is no chip name: `npu-smi info` shows it in its Name column, such as 310P3")
    return f"Ascend{bare}"


def board_soc_version(chip: Chip, board: Mapping[str, str]) -> str:
    """--soc_version of a chip whose table shows a family: `<Chip Name>_<NPU Name>` of its board, `Ascend910_9392`.

    Raises KitError where the board does not tell it.
    """
    name, variant = board.get("Chip Name", chip.name), board.get("NPU Name", "")
    if re.fullmatch(r"[A-Za-z0-9]{1,32}", variant):
        return f"{soc_version(name)}_{variant}"
    if soc_version(name) != soc_version(chip.name):
        return soc_version(name)
    command = " ".join(["npu-smi", *of_chip("board", chip)])
    raise KitError(
        f"device {chip} is of a family of several SoCs, and `{command}` names none (no `NPU Name`; run it as root to "
        "see all of it): write what ATC calls it as `chip` in the inventory, such as Ascend910_9392"
    )


def select(chips: Sequence[Chip], wanted: Iterable[int] | Literal["all"]) -> list[Chip]:
    """The chips of the wanted logical devices, in the wanted order.

    Raises KitError where the host lacks one, where they differ among themselves (an OM is made for one SoC), or where
    one is in a critical state or does not answer.
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
    if len({soc_version(chip.name) for chip in chosen}) > 1:
        raise KitError(f"devices {_listed(chosen)} are of different kinds: list devices of one kind in `devices`")
    unfit = [chip for chip in chosen if chip.health.upper() in {"CRITICAL", "UNKNOWN", *_NOT_TOLD}]
    if unfit:
        raise KitError(
            f"device {unfit[0]} reports health {unfit[0].health!r}: see `{_health_command(unfit[0])}`, "
            "or leave it out of `devices` in the inventory"
        )
    return chosen


def ailment_warning(chip: Chip) -> str | None:
    """What to tell of a chip that works, and whose health is not OK."""
    if chip.ailment is None:
        return None
    return (
        f"device {chip} reports health {chip.ailment!r}: its figures are marked; "
        f"`{_health_command(chip)}` says what it is"
    )


def _health_command(chip: Chip) -> str:
    return " ".join(["npu-smi", *of_chip("health", chip)])


def busy_reason(chip: Chip, idle_memory_mb: int | None = None) -> str | None:
    """Why a figure must not be taken on this chip now, or None where it is idle.

    Any process and any AICore use count. Memory is what betrays a process that npu-smi does not show (22.0.x has no
    process table, a container sees only its own): it counts when it exceeds the chip's own idle use, `idle_memory_mb`,
    by 1 % of the whole, or, where that is not known, when more of the whole is held than by any idle chip of its kind.
    Memory that is the host's says nothing.
    """
    reasons = [str(process) for process in chip.processes or ()]
    if chip.aicore_percent:
        reasons.append(f"AICore at {chip.aicore_percent} %")
    used, total = chip.model_memory_mb
    tells = used is not None and total and not chip.shares_host_memory
    if tells and used and total and not chip.processes:
        held = _HELD_OF_HBM if chip.hbm_total_mb else _HELD_OF_310 if chip.name.endswith("310") else _HELD
        most = held * total  # a device that held more was never found idle
        limit = most if idle_memory_mb is None else min(idle_memory_mb, most) + _MARGIN_FRACTION * total
        if used > limit:
            idle = "" if idle_memory_mb is None else f", {idle_memory_mb} MB when idle"
            reasons.append(f"{used} of {total} MB of memory held{idle}")
    if chip.aicore_percent is None and chip.processes is None and not tells:
        reasons.append("npu-smi tells neither its processes nor its AICore use nor its memory")
    return ", ".join(reasons) or None


# A heading -> what its column holds. A heading that is none of these is a column of its own, which is passed over.
_COLUMNS = {
    "util": r"NPU ?Util|AI ?Core",
    "npu": r"NPU(?: ?ID)?\b",
    "chip": r"Chip(?: ?ID)?\b",
    "device": r"Device\b",
    "place": r"Phy-?ID\b",
    "name": r"Name\b",
    "health": r"Health\b",
    "bus": r"Bus-?Id\b",
    "power": r"Power",
    "temperature": r"Temp",
    "hugepages": r"Huge",
    "memory": r"Mem",
    "hbm": r"HBM",
    "container_pid": r"Process id in container",
    "pid": r"Process id\b",
    "process": r"Process name\b",
    "process_memory": r"Process mem",
}
_HEADING = re.compile(
    "|".join(rf"(?P<{name}>{pattern})\S*" for name, pattern in _COLUMNS.items()) + r"|\S+", re.IGNORECASE
)
_PAIRS = frozenset({"hugepages", "memory", "hbm"})  # used / total
_PAIR = re.compile(r"(-?[0-9]{1,9}|NA|N/A|-)\s*/\s*([0-9]{1,9}|NA|N/A|-)")
_VALUE = re.compile(rf"{_PAIR.pattern}|\S+")
_HEALTH = re.compile(r"OK|Warning|Alarm|Critical|Unknown", re.IGNORECASE)
_Headings = list[list[str]]  # by cell
_FIRST: _Headings = [["npu", "name"], ["health"], ["power", "temperature", "hugepages"]]
_FIRST_SPLIT: _Headings = [["npu"], ["name"], *_FIRST[1:]]


_Row = tuple[Mapping[str, str], list[str]]  # a chip's two rows: what stands in them by column, the cells as printed


def _read_table(text: str) -> tuple[list[_Row], _Processes]:
    """The `|`-framed rows of `npu-smi info`, read by their headings: the chips' and the processes'."""
    chips, processes = list[_Row](), _Processes()
    headings: dict[str, _Headings] = {}
    first_row: list[str] | None = None  # of a chip
    in_process_table = False
    for line in transcript.lines(text):
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line[1:].removesuffix("|").split("|")]
        kind = _heading_kind(cells)
        if kind is not None:
            in_process_table = kind == "pid"
            headings[kind] = [[str(m.lastgroup) for m in _HEADING.finditer(cell)] for cell in cells]
        elif in_process_table:
            processes.add(headings["pid"], cells)
        elif len(cells) == 1:
            continue  # the banner, or a remark
        elif first_row is None:
            first_row = cells
        elif _HEALTH.fullmatch(cells[-2]):
            raise _unknown_row(first_row)  # another chip begins, and this one has no second row
        else:
            chips.append(_row(headings, first_row, cells))
            first_row = None
    if first_row is not None:
        raise _unknown_row(first_row)
    return chips, processes


def _row(headings: Mapping[str, _Headings], first: list[str], second: list[str]) -> _Row:
    above = headings.get("health") or (_FIRST if len(first) == 3 else _FIRST_SPLIT)
    below = headings.get("bus") or _second_headings(second)
    found = _fields(above, first), _fields(below, second)
    if None in found or not {"npu", "name", "health"} <= (found[0] or {}).keys():
        raise _unknown_row(first + second)
    known = {column: "" for cell in below for column in cell}  # a column that is there, whatever stands in it
    return {**known, **(found[0] or {}), **(found[1] or {})}, first + second


def _heading_kind(cells: list[str]) -> str | None:
    """Whether a row is a heading, and of what: of a chip's first row, of its second, or of the processes."""
    for cell in cells:
        for kind in ("health", "bus", "pid"):
            if re.match(_COLUMNS[kind], cell, re.IGNORECASE):
                return kind
    return None


def _second_headings(cells: list[str]) -> _Headings:
    """Of a table whose headings are not there: a chip with HBM has no Device column."""
    hbm = len(_PAIR.findall(cells[-1])) > 1
    numbers = ["util", "memory", *(["hbm"] if hbm else [])]
    return [["chip", "place" if hbm else "device"], ["bus"], numbers] if len(cells) == 3 else [[], [], ["bus"], numbers]


def _fields(headings: _Headings, cells: list[str]) -> dict[str, str] | None:
    """What stands in each column; None where the cells do not fit the headings."""
    if len(headings) != len(cells):
        return None
    fields: dict[str, str] = {}
    for columns, cell in zip(headings, cells, strict=True):
        if not columns:
            continue
        if columns[-1] in ("name", "process", "health"):  # words, of which there may be several
            values = cell.split(None, len(columns) - 1) or [""]
            if len(values) != len(columns):
                return None
        else:
            values = [found[0] for found in _VALUE.finditer(cell)]
        if len(values) == len(columns):
            fields.update(zip(columns, values, strict=True))
            continue
        pairs = [value for value in values if _PAIR.fullmatch(value)]
        of_pairs = [column for column in columns if column in _PAIRS]
        others = [column for column in columns if column not in _PAIRS]
        rest = [value for value in values if not _PAIR.fullmatch(value)]
        if pairs and of_pairs and len(pairs) != len(of_pairs):
            return None  # which of the two is it?
        fields.update(zip(others, rest, strict=False))
        fields.update(zip(of_pairs, pairs, strict=False))
    return fields


class _Processes:
    """The process table."""

    def __init__(self) -> None:
        self._by_chip: dict[tuple[int, int], list[Process]] = {}
        self._mentioned: set[int] = set()

    def add(self, headings: _Headings, cells: list[str]) -> None:
        if free := re.match(r"No running process(?:es)? found in NPU\s+([0-9]{1,9})", cells[0]):
            self._mentioned.add(int(free[1]))
            return
        if len(cells) == 1:
            return
        names = [columns[-1] if columns else "" for columns in headings]
        if (extra := len(cells) - len(headings)) > 0 and "process" in names:  # a name that holds a bar
            at = names.index("process")
            cells = [*cells[:at], "|".join(cells[at : at + extra + 1]), *cells[at + extra + 1 :]]
        fields = _fields(headings, cells) or {}
        npu_id, chip_id = _integer(fields.get("npu", "")), _integer(fields.get("chip", "0"))
        pid = _integer(fields.get("pid", ""))
        memory = _integer(fields.get("process_memory", ""))
        if npu_id is None or chip_id is None or pid is None or memory is None:
            raise _unknown_row(cells)
        self._mentioned.add(npu_id)
        self._by_chip.setdefault((npu_id, chip_id), []).append(Process(pid, fields.get("process", ""), memory))

    def of(self, npu_id: int, chip_id: int) -> tuple[Process, ...] | None:
        """None where there is no process table, or it does not mention the NPU at all."""
        return tuple(self._by_chip.get((npu_id, chip_id), ())) if npu_id in self._mentioned else None


def _chip(
    index: int,
    fields: Mapping[str, str],
    cells: list[str],
    processes: _Processes,
    logical: Mapping[tuple[int, int], int],
) -> Chip:
    npu_id = _integer(fields["npu"])
    chip_id = _integer(fields["chip"]) if "chip" in fields else None
    util, memory, hbm = (fields.get(name, "") for name in ("util", "memory", "hbm"))
    used_total = [_used_total(value) for value in (memory, hbm)]
    if (
        npu_id is None
        or ("chip" in fields and chip_id is None)
        or None in used_total
        or (_integer(util) is None and util.upper() not in _NOT_TOLD)
        or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}", fields["name"])
    ):
        raise _unknown_row(cells)
    # A `Phy-ID` column is not the logical device: a container that sees only the last chip calls it 0.
    device: int | None
    if "device" in fields:
        device = _integer(fields["device"])
    elif chip_id is None:
        device = logical.get((npu_id, 0), npu_id)
    else:
        device = logical.get((npu_id, chip_id)) if logical else index
    if device is None:
        raise KitError(
            f"`npu-smi info` and `npu-smi info -m` do not tell the logical device of NPU {npu_id} chip {chip_id}: "
            "check the Ascend driver on this host"
        )
    ddr, hbm_pair = (pair or (None, None) for pair in used_total)
    return Chip(
        npu_id=npu_id,
        chip_id=chip_id,
        device=device,
        name=fields["name"],
        health=fields["health"],
        bus_id=fields.get("bus", ""),
        power_w=_decimal(fields.get("power", "")),
        temperature_c=_integer(fields.get("temperature", "")),
        aicore_percent=_integer(util),
        memory_used_mb=ddr[0],
        memory_total_mb=ddr[1],
        hbm_used_mb=hbm_pair[0],
        hbm_total_mb=hbm_pair[1],
        processes=processes.of(npu_id, chip_id or 0),
    )


def _used_total(value: str) -> tuple[int | None, int | None] | None:
    """`1074 / 21534`, either of which may be NA; None where the value is neither that nor NA."""
    if value.upper() in _NOT_TOLD:
        return None, None
    pair = _PAIR.fullmatch(value)
    return (_integer(pair[1]), _integer(pair[2])) if pair else None


def _failure(text: str) -> KitError:
    lines = [line for line in transcript.lines(text) if not line.startswith(("+", "|"))]
    if "Bus-Id" in text and "ret is" not in text:
        return KitError(
            "npu-smi info shows a table without a chip: check that the card is in the machine (lspci) and its driver "
            "loaded (dmesg), and in a container that the device nodes are passed"
        )
    if known := causes.find("npu-smi", lines):
        return KitError(known[1])
    return KitError(
        f"npu-smi info shows no chip (its first line: {transcript.first(text)}): check `tools.npu_smi` in the "
        "inventory, and that the Ascend driver is installed and, in a container, mounted"
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
