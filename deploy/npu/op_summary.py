"""The profiler's table of operators, `op_summary_*.csv`, in every form that its releases write.

Columns are matched by name, letter case and unit aside: `Op Name`, `OP Name` and `Name` are one; a column that is not
there was not collected (which there are depends on the run's metric group). Kernel tables that frameworks write
(`kernel_details.csv`) have other names for the same. [CANN 5 to 9, msprof]
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from deploy.errors import KitError

_NONE = frozenset({"", "N/A", "NA", "NULL", "-"})
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "name": ("op name", "name", "kernel name"),
    "kind": ("op type", "type"),
    "core": ("task type", "accelerator core"),
    "start": ("task start time", "start time"),
    "duration": ("task duration", "duration"),
    "wait": ("task wait time", "wait time"),
    "blocks": ("block dim", "block num"),
    "mix_blocks": ("mix block dim", "mix block num"),
    "step": ("step id", "iteration id", "infer id"),
    "device": ("device_id", "device id"),
    "task": ("task id",),
    "stream": ("stream id",),
    "state": ("op state",),
    "input_shapes": ("input shapes",),
    "input_types": ("input data types",),
    "input_formats": ("input formats",),
    "output_shapes": ("output shapes",),
    "output_types": ("output data types",),
    "output_formats": ("output formats",),
}
_TO_US = {"ns": Decimal("0.001"), "us": Decimal(1), "ms": Decimal(1000), "s": Decimal(1_000_000)}
_METRIC = re.compile(
    r"(?:(?:aic|aiv)_)?[a-z0-9]\w*_(?:ratio|time|bw|rate|cycles|utilization)|cube_utilization|total_cycles"
)


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...] | None  # None: an input that is left out, or whose shape is not told
    data_type: str
    format: str


@dataclass(frozen=True)
class Operator:
    """One row: one operator's task on a device. Times in microseconds; None stands for what was not collected."""

    name: str
    kind: str  # `Conv2D`, or "" where the profile's level tells none
    core: str  # `AI_CORE`, `AI_VECTOR_CORE`, `MIX_AIC`, `AI_CPU`, ...
    duration_us: Decimal
    start_us: Decimal | None = None
    wait_us: Decimal | None = None
    blocks: int | None = None
    mix_blocks: int | None = None
    step: int | None = None
    device: int | None = None
    task: int | None = None
    stream: int | None = None
    state: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    # The unit's counters by column name without unit: `aic_mac_ratio`, `mac_ratio`, `aiv_time`, `total_cycles`.
    metrics: Mapping[str, float] | None = None


def parse(text: str) -> list[Operator]:
    """The rows of one op_summary CSV, in its order.

    Raises KitError where it is no such table, a row has more cells than there are headings, or a duration is none.
    """
    rows = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""))
    try:
        headings = next((row for row in rows if any(cell.strip() for cell in row)), [])
        columns = _Columns(headings)
        return [columns.operator(row, rows.line_num) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise KitError(f"op_summary: line {rows.line_num} is no CSV ({error}); profile again") from None


def by_step(operators: Sequence[Operator]) -> dict[int | None, list[Operator]]:
    """The operators of each iteration; the first ones are warm-up."""
    steps: dict[int | None, list[Operator]] = {}
    for operator in operators:
        steps.setdefault(operator.step, []).append(operator)
    return steps


def members(name: str, nodes: Sequence[str]) -> list[str]:
    """The ONNX nodes that an operator's name is made of: of a fusion, their names joined without a separator.

    `nodes` are the graph's names. Greedy from the left, the longest node first. `PartitionedCall_<node>_<Type>_<n>` and
    `<node>/Muls` are of the node; `trans_TransData_<n>` and `trans_Cast_<n>` are the compiler's, of none.
    """
    if re.match(r"trans_(TransData|Cast|Transpose)", name):
        return []
    known = sorted(filter(None, nodes), key=len, reverse=True)
    rest, found = re.sub(r"^PartitionedCall_", "", name), list[str]()
    while node := next((node for node in known if _begins(rest, node)), None):
        found.append(node)
        rest = rest[len(node) :]
    return found


def _begins(rest: str, node: str) -> bool:
    """Whether `rest` begins with a node: `Conv_1` is not the beginning of `Conv_12`."""
    return rest.startswith(node) and not (node[-1].isdigit() and rest[len(node) : len(node) + 1].isdigit())


class _Columns:
    """Where each thing stands in the rows of one table."""

    def __init__(self, headings: Sequence[str]) -> None:
        self.count = len(headings)
        bare = [_bare(heading) for heading in headings]
        self.places: dict[str, int] = {}
        self.scales: dict[str, Decimal] = {}
        for name, aliases in _ALIASES.items():
            at = next((bare.index(alias) for alias in aliases if alias in bare), None)
            if at is not None:
                self.places[name] = at
                self.scales[name] = _TO_US.get(_unit(headings[at]), Decimal(1))
        if lacking := [name for name in ("name", "duration") if name not in self.places]:
            raise KitError(
                f"op_summary: no column for an operator's {' and '.join(lacking)} (its first line: "
                f"{', '.join(headings)[:200]!r}); this is another of the profiler's tables"
            )
        taken = set(self.places.values())
        self.metrics = {name: at for at, name in enumerate(bare) if at not in taken and _METRIC.fullmatch(name)}

    def operator(self, row: Sequence[str], line: int) -> Operator:
        if len(row) > self.count and any(cell.strip() for cell in row[self.count :]):
            raise KitError(f"op_summary: line {line} has {len(row)} cells under {self.count} headings; profile again")
        duration = self._time(row, "duration")
        if duration is None or duration < 0:
            raise KitError(f"op_summary: line {line} has no duration ({self._text(row, 'duration')!r}); profile again")
        told = {name: _number(row[at]) for name, at in self.metrics.items() if at < len(row)}
        return Operator(
            name=self._text(row, "name"),
            kind=self._text(row, "kind"),
            core=self._text(row, "core"),
            duration_us=duration,
            start_us=self._time(row, "start"),
            wait_us=self._time(row, "wait"),
            state=self._text(row, "state"),
            inputs=self._tensors(row, "input"),
            outputs=self._tensors(row, "output"),
            metrics={name: float(value) for name, value in told.items() if value is not None},
            **{name: self._integer(row, name) for name in ("blocks", "mix_blocks", "step", "device", "task", "stream")},
        )

    def _text(self, row: Sequence[str], name: str) -> str:
        """A cell without the tab and the quotes that keep a spreadsheet from reading it; "" where there is nothing."""
        at = self.places.get(name, self.count)
        cell = row[at].strip().strip('"').strip() if at < len(row) else ""
        return "" if cell.upper() in _NONE else cell

    def _time(self, row: Sequence[str], name: str) -> Decimal | None:
        value = _number(self._text(row, name))
        return None if value is None else value * self.scales[name]

    def _integer(self, row: Sequence[str], name: str) -> int | None:
        value = _number(self._text(row, name))
        return int(value) if value is not None and value == int(value) else None

    def _tensors(self, row: Sequence[str], side: str) -> tuple[Tensor, ...]:
        """`;` between tensors, `,` between dimensions; a tensor that is left out has no shape."""
        shapes, types, formats = (
            self._text(row, f"{side}_{what}").split(";") for what in ("shapes", "types", "formats")
        )
        if shapes == types == formats == [""]:
            return ()
        count = max(map(len, (shapes, types, formats)))
        padded = ([*cells, *[""] * (count - len(cells))] for cells in (shapes, types, formats))
        return tuple(Tensor(_shape(shape), data_type, form) for shape, data_type, form in zip(*padded, strict=True))


def _bare(heading: str) -> str:
    """`Task Duration(us)` is `task duration`."""
    return re.sub(r"\s+", " ", re.sub(r"\([^)]*\)\s*$", "", heading.strip().strip('"').strip())).strip().lower()


def _unit(heading: str) -> str:
    found = re.search(r"\((\w+)\)\s*\"?\s*$", heading)
    return found[1].lower() if found else ""


def _number(cell: str) -> Decimal | None:
    """Exactly: a start time has nineteen digits, which a float has not."""
    cell = cell.strip().strip('"').strip()
    if cell.upper() in _NONE:
        return None
    try:
        value = Decimal(cell)
    except InvalidOperation:
        return None
    return value if value.is_finite() and abs(value) < Decimal(10) ** 30 else None


def _shape(text: str) -> tuple[int, ...] | None:
    cell = text.strip().strip('"').strip()
    return tuple(map(int, cell.split(","))) if re.fullmatch(r"-?[0-9]{1,12}(,-?[0-9]{1,12})*", cell) else None
