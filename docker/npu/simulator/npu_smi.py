"""npu-smi of a simulated host: `info`, `info -l`, `info -m` and `info -t KIND -i NPU [-c CHIP]`.

The tables are those of the driver's release: 22.0 has no process table, later ones have; a 910 shows HBM and no Device.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import scenario
from host import Host, Process
from scenario import Chip

USAGE = "Usage: npu-smi info [-l | -m | -t {usages,board,proc-mem,health,temp,power} -i NPU [-c CHIP]]"
DRIVER = "/usr/local/Ascend/driver"  # where a real host keeps it


class SmiError(Exception):
    """What npu-smi prints before it ends with a status that is not 0."""


@dataclass(frozen=True)
class Reading:
    """One chip's figures at this moment; memory in MB, (used, total)."""

    chip: Chip
    health: str
    power_w: float | None
    temperature_c: int
    aicore_percent: int
    memory: tuple[int, int]
    hbm: tuple[int, int] | None
    processes: tuple[Process, ...]

    @property
    def bus_id(self) -> str:
        return "NA" if self.chip.is_board else f"0000:{0x82 + 7 * self.chip.device:02X}:00.0"

    @property
    def power(self) -> str:
        if self.chip.is_a3 and self.chip.chip_id:
            return "-"  # the first die tells both dies'
        if alone_tells_card(self.chip):
            return "NA"
        return "NA" if self.power_w is None else f"{self.power_w:.1f}"


# Power at rest in W, and memory at rest in MB: (used, total) of DDR, and of HBM.
AT_REST: dict[str, tuple[float, tuple[int, int], tuple[int, int] | None]] = {
    "950": (187.4, (0, 0), (6600, 131072)),
    "A3": (162.9, (0, 0), (3412, 65536)),
    "910": (68.1, (1860, 15039), (3, 32768)),
    "board": (0.3, (3621, 15609), None),
    "310P": (15.8, (1074, 21534), None),
}


def alone_tells_card(chip: Chip) -> bool:
    """Whether only the card's microcontroller tells power: of a 310P, from driver 23 on."""
    return chip.name.startswith("310P") and int(driver_version().split(".")[0]) >= 23


def kind(chip: Chip) -> str:
    if chip.is_950:
        return "950"
    return "A3" if chip.is_a3 else "910" if chip.has_hbm else "board" if chip.is_board else "310P"


def reading(host: Host, chip: Chip) -> Reading:
    """What the sensors say: a chip at rest, or one at work where a process holds it."""
    processes = tuple(host.processes(chip.device))
    taken = sum(process.memory_mb for process in processes)
    rest_w, (used, total), hbm = AT_REST[kind(chip)]
    if hbm is None:
        used += taken - (0 if chip.is_board else 4 * chip.device)
    return Reading(
        chip=chip,
        # A developer board has no sensor for its current: its health is always Alarm.
        health=host.scenario.health.get(chip.device, "Alarm" if chip.is_board else "OK"),
        power_w=(rest_w * 2.4 if processes else rest_w) if host.scenario.power_shown else None,
        temperature_c=58 if processes else 42 + chip.device % 4,
        aicore_percent=87 if processes else 0,
        memory=(used, total),
        hbm=(hbm[0] + taken, hbm[1]) if hbm else None,
        processes=processes,
    )


def driver_version() -> str:
    """The `Version=` of the driver's version.info."""
    text = Path(os.environ.get("ASCEND_DRIVER_PATH", DRIVER), "version.info").read_text()
    return next(line.partition("=")[2] for line in text.splitlines() if line.startswith("Version="))


def info(readings: Sequence[Reading], version: str) -> str:
    """The table of `npu-smi info`, in the form of the first chip's kind."""
    release = int(version.split(".")[0])
    first, last = readings[0].chip, 70 if release >= 26 else 0
    processes = "" if release < 23 or first.is_board else "in container" if release >= 26 else "alone"
    if first.is_950:
        table = Table((8, 18, 15, max(last, 53)), processes, "NPU ID")
        table.header("NPU ID", "Name", "Health", "Power(W)    Temp(C)           Hugepages-Usage(page)")
        table.header("", "", "Bus-Id", "NPU Util(%) Memory-Usage(MB)  HBM-Usage(MB)")
        rows = [_rows_950(item) for item in readings]
    elif first.has_hbm:
        table = Table((27, 15, max(last, 52)), processes)
        table.header("NPU   Name", "Health", "Power(W)    Temp(C)           Hugepages-Usage(page)")
        table.header("Chip  Phy-ID" if first.is_a3 else "Chip", "Bus-Id", "AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)")
        rows = [_rows_910(item) for item in readings]
    else:
        table = Table((31 if release >= 23 else 19, 17, max(last, 54)), processes)
        table.header("NPU     Name", "Health", "Power(W)     Temp(C)           Hugepages-Usage(page)")
        table.header("Chip    Device", "Bus-Id", "AICore(%)    Memory-Usage(MB)")
        rows = [_rows_310(item) for item in readings]
    return table.text(f"npu-smi {version:<42} Version: {version}", rows, readings)


Rows = list[tuple[str, ...]]


def _rows_310(item: Reading) -> Rows:
    chip = item.chip
    used, total = item.memory
    return [
        (f"{chip.npu_id:<8}{chip.shown}", item.health, f"{item.power:<13}{item.temperature_c:<18}0    / 0"),
        (f"{chip.chip_id:<8}{chip.device}", item.bus_id, f"{item.aicore_percent:<13}{used:<4} / {total}"),
    ]


def _rows_910(item: Reading) -> Rows:
    chip = item.chip
    memory, hbm = (f"{used:<4} / {total}" for used, total in (item.memory, item.hbm or (0, 0)))
    place = f"{chip.chip_id:<6}{chip.device}" if chip.is_a3 else f"{chip.chip_id}"
    return [
        (f"{chip.npu_id:<6}{chip.shown}", item.health, f"{item.power:<12}{item.temperature_c:<18}0    / 0"),
        (place, item.bus_id, f"{item.aicore_percent:<12}{memory:<18}{hbm}"),
    ]


def _rows_950(item: Reading) -> Rows:
    chip = item.chip
    memory, hbm = (f"{used:<4} / {total}" for used, total in (item.memory, item.hbm or (0, 0)))
    return [
        (f"{chip.npu_id}", chip.shown, item.health, f"{item.power:<12}{item.temperature_c:<18}0     / 0"),
        ("", "", item.bus_id, f"{item.aicore_percent:<12}{memory:<18}{hbm}"),
    ]


class Table:
    """Columns between bars, as npu-smi draws them, and below them the processes: `alone`, or with their ids
    `in container`."""

    def __init__(self, widths: tuple[int, ...], processes: str, npu: str = "NPU     Chip") -> None:
        self.widths, self.processes, self.npu = widths, processes, npu
        self.headers: list[tuple[str, ...]] = []

    def header(self, *cells: str) -> None:
        self.headers.append(cells)

    @property
    def process_widths(self) -> tuple[int, ...]:
        """Three columns, the last of names and memory; the first of a 950 has no chip's place to join."""
        return self.widths if len(self.widths) == 3 else (self.widths[0] + 1 + self.widths[1], *self.widths[2:])

    def rule(self, mark: str, widths: Sequence[int] = ()) -> str:
        return "+" + "+".join(mark * width for width in widths or self.widths) + "+"

    def row(self, cells: Iterable[str], widths: Sequence[int] = ()) -> str:
        pairs = zip(cells, widths or self.widths, strict=True)
        return "|" + "|".join(f" {cell:<{width - 1}}" for cell, width in pairs) + "|"

    def line(self, text: str) -> str:
        return f"| {text:<{sum(self.widths) + len(self.widths) - 2}}|"

    def text(self, title: str, rows: Sequence[Rows], readings: Sequence[Reading]) -> str:
        lines = ["+" + "-" * (sum(self.widths) + len(self.widths) - 1) + "+", self.line(title), self.rule("-")]
        lines += [*map(self.row, self.headers), self.rule("=")]
        for pair in rows:
            lines += [*map(self.row, pair), self.rule("=")]
        if self.processes:
            lines += [self.rule("-", self.process_widths), self.process_row(self.npu, "Process id", "Process name")]
            lines.append(self.rule("=", self.process_widths))
            for npu_id in dict.fromkeys(item.chip.npu_id for item in readings):
                mine = [item for item in readings if item.chip.npu_id == npu_id]
                lines += [*self.process_rows(mine), self.rule("=", self.process_widths)]
        return "\n".join(lines)

    def process_row(self, chip: str, pid: object, name: str, memory: object = "Process memory(MB)") -> str:
        cells = [f"{name:<25}", str(memory)]
        if self.processes == "in container":
            own = "NA" if isinstance(pid, int) else "Process id in container"
            cells = [f"{name:<19}", f"{memory:<21}", own]
        return self.row((chip, str(pid), "| ".join(cells)), self.process_widths)

    def process_rows(self, readings: Sequence[Reading]) -> list[str]:
        rows = [
            self.process_row(
                f"{item.chip.npu_id}" if item.chip.is_950 else f"{item.chip.npu_id:<8}{item.chip.chip_id}",
                process.pid,
                process.name,
                process.memory_mb,
            )
            for item in readings
            for process in item.processes
        ]
        return rows or [self.line(f"No running processes found in NPU {readings[0].chip.npu_id}")]


def mapping(chips: Sequence[Chip]) -> str:
    """`npu-smi info -m`: each NPU's chips, then its microcontroller, which is no device."""
    rows: list[tuple[object, ...]]
    if chips[0].is_950:
        rows = [("NPU ID", "Slot ID", "Chip ID", "Chip Phy-ID", "Chip Name")]
        rows += [(chip.npu_id, chip.device + 1, 0, chip.device, chip.shown) for chip in chips]
    elif chips[0].is_a3:
        rows = [("NPU ID", "Chip ID", "Chip Logic ID", "Chip Phy-ID", "Chip Name")]
        rows += [(chip.npu_id, chip.chip_id, chip.device, chip.device, chip.shown) for chip in chips]
    else:
        rows = [("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")]
        for npu_id in dict.fromkeys(chip.npu_id for chip in chips):
            mine = [chip for chip in chips if chip.npu_id == npu_id]
            rows += [(npu_id, chip.chip_id, chip.device, f"Ascend {chip.name}") for chip in mine]
            rows += [] if chips[0].is_board else [(npu_id, len(mine), "-", "Mcu")]
    return "\n".join("\t" + "".join(f"{cell!s:<31}" for cell in row) for row in rows)


def counts(chips: Sequence[Chip]) -> str:
    """`npu-smi info -l`."""
    npu_ids = list(dict.fromkeys(chip.npu_id for chip in chips))
    pairs: list[tuple[str, object]] = [("Total Count", len(npu_ids))]
    for npu_id in npu_ids:
        pairs += [("NPU ID", npu_id), ("Chip Count", sum(chip.npu_id == npu_id for chip in chips))]
    return _pairs(pairs)


def usages(item: Reading) -> list[tuple[str, object]]:
    kind, (used, total) = ("HBM", item.hbm) if item.hbm else ("Memory", item.memory)
    return [
        (f"{kind} Capacity(MB)", total),
        (f"{kind} Usage Rate(%)", round(100 * used / total)),
        ("Hugepages Total(page)", 0),
        ("Hugepages Usage Rate(%)", 0),
        ("Aicore Usage Rate(%)", item.aicore_percent),
        ("Aicpu Usage Rate(%)", 0),
        ("Ctrlcpu Usage Rate(%)", 2),
        (f"{kind} Bandwidth Usage Rate(%)", item.aicore_percent // 3),
    ]


def board(item: Reading) -> list[tuple[str, object]]:
    chip = item.chip
    if not chip.variant:
        return [("Chip Name", chip.name), ("Chip Type", "Ascend"), ("PCIe Bus Info", item.bus_id)]
    ids = [] if chip.is_950 else [("Chip ID", chip.chip_id)]
    return [("NPU ID", chip.npu_id), ("NPU Name", chip.variant), *ids, ("Chip Name", chip.shown)]


KINDS: dict[str, Callable[[Reading], list[tuple[str, object]]]] = {
    "usages": usages,
    "board": board,
    "health": lambda item: [("Health", item.health)],
    "temp": lambda item: [("Temperature(C)", item.temperature_c)],
    "power": lambda item: [("Power Dissipation(W)", item.power)],
}


def one_kind(kind: str, readings: Sequence[Reading], chip_given: bool) -> str:
    """`npu-smi info -t KIND`: of one chip, or of all chips of an NPU with their ids after each block."""
    if chip_given and kind == "power" and alone_tells_card(readings[0].chip):
        return "This device does not support querying power."
    if chip_given or readings[0].chip.is_950:
        return _block(kind, readings[0])
    head = _pairs([("NPU ID", readings[0].chip.npu_id), ("Chip Count", len(readings))])
    if kind == "power" and alone_tells_card(readings[0].chip):
        watts = [item.power_w for item in readings]
        of_card = "NA" if None in watts else f"{sum(filter(None, watts)):.1f}"
        return "\n\n".join([head, _pairs([("Power Dissipation(W)", of_card), ("Chip Name", "MCU")])])
    return "\n\n".join(
        [head, *(f"{_block(kind, item)}\n{_pairs([('Chip ID', item.chip.chip_id)])}" for item in readings)]
    )


def _block(kind: str, item: Reading) -> str:
    if kind != "proc-mem":
        return _pairs(KINDS[kind](item))
    rows = [f"\tProcess id:{p.pid} Process name:{p.name} Process memory(MB):{p.memory_mb}" for p in item.processes]
    return "\n".join(rows or ["\tNo process in device."])


def _pairs(pairs: Iterable[tuple[str, object]]) -> str:
    return "\n".join(f"\t{name:<30} : {value}" for name, value in pairs)


def answer(arguments: Sequence[str], host: Host) -> str:
    """What `npu-smi ARGUMENTS` prints; SmiError for arguments it refuses and for chips that are not there."""
    if arguments in (["-v"], ["-h"], ["--help"]):
        return f"npu-smi version: {driver_version()}" if arguments == ["-v"] else USAGE
    if arguments[:1] != ["info"]:
        raise SmiError(USAGE)
    host.query()
    chips = host.chips()
    if host.scenario.smi_error or not chips:
        raise SmiError(f"dcmi module initialize failed. ret is {host.scenario.smi_error or -8005}")
    match list(arguments[1:]):
        case []:
            return info([reading(host, chip) for chip in chips], driver_version())
        case ["-m"]:
            return mapping(chips)
        case ["-l"]:
            return counts(chips)
        case ["-t", kind, "-i", npu_id, *chosen] if kind in {*KINDS, "proc-mem"} and chosen[:1] in ([], ["-c"]):
            return one_kind(
                kind, [reading(host, chip) for chip in chosen_chips(chips, npu_id, chosen[1:])], bool(chosen)
            )
    raise SmiError(USAGE)


def chosen_chips(chips: Sequence[Chip], npu_id: str, chip_id: Sequence[str]) -> list[Chip]:
    """The chips of `-i NPU` or the one of `-i NPU -c CHIP`; SmiError if there is none."""
    of_npu = [chip for chip in chips if str(chip.npu_id) == npu_id]
    if chip_id and any(chip.is_950 for chip in of_npu):
        raise SmiError("Error parameter of -c")
    chosen = [chip for chip in of_npu if not chip_id or [str(chip.chip_id)] == chip_id]
    if not chosen:
        raise SmiError(f"Error parameter of {'-c' if of_npu else '-i'}")
    return chosen


def main() -> int:
    try:
        print(answer(sys.argv[1:], Host(scenario.load())))
    except (SmiError, scenario.ScenarioError) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
