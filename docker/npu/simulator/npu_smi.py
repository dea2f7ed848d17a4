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
        return f"0000:{0x82 + 7 * self.chip.device:02X}:00.0"

    @property
    def power(self) -> str:
        return "NA" if self.power_w is None else f"{self.power_w:.1f}"


def reading(host: Host, chip: Chip) -> Reading:
    """What the sensors say: a chip at rest, or one at work where a process holds it."""
    processes = tuple(host.processes(chip.device))
    taken = sum(process.memory_mb for process in processes)
    ascend910 = chip.name.startswith("910")
    rest_w = 68.1 if ascend910 else 15.8
    return Reading(
        chip=chip,
        health=host.scenario.health.get(chip.device, "OK"),
        power_w=(rest_w * 2.4 if processes else rest_w) if host.scenario.power_shown else None,
        temperature_c=58 if processes else 42 + chip.device % 4,
        aicore_percent=87 if processes else 0,
        memory=(1860, 15039) if ascend910 else (1074 - 4 * chip.device + taken, 21534),
        hbm=(3 + taken, 32768) if ascend910 else None,
        processes=processes,
    )


def driver_version() -> str:
    """The `Version=` of the driver's version.info."""
    text = Path(os.environ.get("ASCEND_DRIVER_PATH", DRIVER), "version.info").read_text()
    return next(line.partition("=")[2] for line in text.splitlines() if line.startswith("Version="))


def info(readings: Sequence[Reading], version: str) -> str:
    """The table of `npu-smi info`."""
    has_processes = int(version.split(".")[0]) >= 23
    if any(item.hbm for item in readings):
        table = Table((27, 15, 52), has_processes)
        table.header("NPU   Name", "Health", "Power(W)    Temp(C)           Hugepages-Usage(page)")
        table.header("Chip", "Bus-Id", "AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)")
        rows = [_rows_910(item) for item in readings]
    else:
        table = Table((31 if has_processes else 19, 17, 54), has_processes)
        table.header("NPU     Name", "Health", "Power(W)     Temp(C)           Hugepages-Usage(page)")
        table.header("Chip    Device", "Bus-Id", "AICore(%)    Memory-Usage(MB)")
        rows = [_rows_310(item) for item in readings]
    return table.text(f"npu-smi {version:<42} Version: {version}", rows, readings)


def _rows_310(item: Reading) -> list[tuple[str, str, str]]:
    chip = item.chip
    used, total = item.memory
    return [
        (f"{chip.npu_id:<8}{chip.name}", item.health, f"{item.power:<13}{item.temperature_c:<18}0    / 0"),
        (f"{chip.chip_id:<8}{chip.device}", item.bus_id, f"{item.aicore_percent:<13}{used:<4} / {total}"),
    ]


def _rows_910(item: Reading) -> list[tuple[str, str, str]]:
    chip = item.chip
    memory, hbm = (f"{used:<4} / {total}" for used, total in (item.memory, item.hbm or (0, 0)))
    return [
        (f"{chip.npu_id:<6}{chip.name}", item.health, f"{item.power:<12}{item.temperature_c:<18}0    / 0"),
        (f"{chip.chip_id}", item.bus_id, f"{item.aicore_percent:<12}{memory:<18}{hbm}"),
    ]


class Table:
    """Three columns between bars, as npu-smi draws them."""

    def __init__(self, widths: tuple[int, int, int], has_processes: bool) -> None:
        self.widths, self.has_processes = widths, has_processes
        self.headers: list[tuple[str, str, str]] = []

    def header(self, *cells: str) -> None:
        self.headers.append((cells[0], cells[1], cells[2]))

    def rule(self, mark: str) -> str:
        return "+" + "+".join(mark * width for width in self.widths) + "+"

    def row(self, cells: Iterable[str]) -> str:
        return "|" + "|".join(f" {cell:<{width - 1}}" for cell, width in zip(cells, self.widths, strict=True)) + "|"

    def line(self, text: str) -> str:
        return f"| {text:<{sum(self.widths) + 1}}|"

    def text(self, title: str, rows: Sequence[Iterable[tuple[str, str, str]]], readings: Sequence[Reading]) -> str:
        lines = ["+" + "-" * (sum(self.widths) + 2) + "+", self.line(title), self.rule("-")]
        lines += [*map(self.row, self.headers), self.rule("=")]
        for pair in rows:
            lines += [*map(self.row, pair), self.rule("=")]
        if self.has_processes:
            names = f"{'Process name':<25}| Process memory(MB)"
            lines += [self.rule("-"), self.row(("NPU     Chip", "Process id", names)), self.rule("=")]
            for npu_id in dict.fromkeys(item.chip.npu_id for item in readings):
                lines += [*self.process_rows([item for item in readings if item.chip.npu_id == npu_id]), self.rule("=")]
        return "\n".join(lines)

    def process_rows(self, readings: Sequence[Reading]) -> list[str]:
        rows = [
            self.row(
                (
                    f"{item.chip.npu_id:<8}{item.chip.chip_id}",
                    f"{process.pid}",
                    f"{process.name:<25}| {process.memory_mb}",
                )
            )
            for item in readings
            for process in item.processes
        ]
        return rows or [self.line(f"No running processes found in NPU {readings[0].chip.npu_id}")]


def mapping(chips: Sequence[Chip]) -> str:
    """`npu-smi info -m`: each NPU's chips, then its microcontroller, which is no device."""
    rows: list[tuple[object, ...]] = [("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")]
    for npu_id in dict.fromkeys(chip.npu_id for chip in chips):
        mine = [chip for chip in chips if chip.npu_id == npu_id]
        rows += [(npu_id, chip.chip_id, chip.device, f"Ascend {chip.name}") for chip in mine]
        rows.append((npu_id, len(mine), "-", "Mcu"))
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
    return [("Chip Name", item.chip.name), ("Chip Type", "Ascend"), ("PCIe Bus Info", item.bus_id)]


KINDS: dict[str, Callable[[Reading], list[tuple[str, object]]]] = {
    "usages": usages,
    "board": board,
    "health": lambda item: [("Health", item.health)],
    "temp": lambda item: [("Temperature(C)", item.temperature_c)],
    "power": lambda item: [("Power Dissipation(W)", item.power)],
}


def one_kind(kind: str, readings: Sequence[Reading], chip_given: bool) -> str:
    """`npu-smi info -t KIND`: of one chip, or of all chips of an NPU with their ids after each block."""
    if chip_given:
        return _block(kind, readings[0])
    head = _pairs([("NPU ID", readings[0].chip.npu_id), ("Chip Count", len(readings))])
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
