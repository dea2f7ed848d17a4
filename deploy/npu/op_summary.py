"""The profiler's table of operators, `op_summary_*.csv`, in every form that its releases write.

Columns are matched by name, letter case and unit aside: `Op Name`, `OP Name` and `Name` are one; a column that is not
there was not collected (which there are depends on the run's metric group). Kernel tables that frameworks write
(`kernel_details.csv`) have other names for the same. [CANN 5 to 9, msprof]
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from deploy.errors import KitError

_NONE = frozenset({"", "N/A", "NA", "NULL", "-"})
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "name": ("op name", "name", "kernel name", "operator name"),
    "originals": ("original op names", "original op name", "original ops", "original nodes", "original node"),
    "kind": ("op type", "type", "operator type"),
    "core": ("task type", "accelerator core", "core type"),
    "start": ("task start time", "start time"),
    "duration": ("task duration", "duration"),
    "step": ("step id", "iteration id", "infer id"),
    "device": ("device id",),
    "stream": ("stream id",),
}
_TO_US = {"ns": Decimal("0.001"), "us": Decimal(1), "ms": Decimal(1000), "s": Decimal(1_000_000)}
_UNTOLD = {"start": "ns"}  # the unit where the heading has none: to CANN 6, whole numbers
_METRIC = re.compile(
    r"(?:(?:aic|aiv)_)?[a-z0-9]\w*_(?:ratio|time|bw|rate|cycles|utilization)|cube_utilization|total_cycles"
)


@dataclass(frozen=True)
class Operator:
    """One row: one operator's task on a device. Times in microseconds; None stands for what was not collected."""

    name: str
    kind: str  # `Conv2D`, or "" where the profile's level tells none
    core: str  # `AI_CORE`, `AI_VECTOR_CORE`, `MIX_AIC`, `AI_CPU`, ...
    duration_us: Decimal
    start_us: Decimal | None = None
    step: int | None = None
    device: int | None = None
    stream: int | None = None
    originals: tuple[str, ...] = ()  # the graph's nodes that it is made of, where the table tells them
    # The unit's counters by column name without unit: `aic_mac_ratio`, `mac_ratio`, `aiv_time`, `total_cycles`.
    metrics: Mapping[str, float] | None = None


def decode(raw: bytes) -> str:
    """The text of a table as tools and spreadsheets save it: UTF-16 with a mark, UTF-8, else GBK."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("gb18030", "replace")


def parse(text: str) -> list[Operator]:
    """The rows of one op_summary CSV that tell a duration, in its order.

    Raises KitError where it is no such table, a row has more cells than there are headings, or a duration is none.
    """
    rows = _csv(text)
    try:
        columns = _Columns(next((row for row in rows if any(cell.strip() for cell in row)), []), rows.dialect.delimiter)
        found = (columns.operator(row, rows.line_num) for row in rows if any(cell.strip() for cell in row))
        return [operator for operator in found if operator is not None]
    except csv.Error as error:
        raise KitError(f"op_summary: line {rows.line_num} is no CSV ({error}); profile again") from None


def _csv(text: str) -> Any:
    """A reader of the rows; spreadsheets of some countries save `;` between cells."""
    headings = next((line for line in text.lstrip("\ufeff").splitlines() if line.strip()), "")
    return csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=max(",;\t", key=headings.count))


def parse_fusions(text: str) -> dict[str, tuple[str, ...]]:
    """The original nodes of each fused operator, from the profiler's `fusion_op_*.csv`; empty for any other table."""
    found: dict[str, tuple[str, ...]] = {}
    rows = _csv(text)
    try:
        headings = [_bare(heading) for heading in next(rows, [])]
        for row in rows:
            told = dict(zip(headings, row, strict=False))
            fused, originals = told.get("fusion op", "").strip(), _names(told.get("original ops", ""))
            if fused and originals:
                found[fused] = originals
    except csv.Error:
        return {}
    return found


def _names(cell: str) -> tuple[str, ...]:
    return tuple(name for part in cell.split(";") if (name := part.strip().strip('"').strip()))


MADE_BY_COMPILER = re.compile(r"trans_?(?:TransData|Cast|Transpose)|atomic_?(?:memset|addr_?clean)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s_+,;|&:./]+")


class Members:
    """The names of a graph's nodes, found in those of operators.

    Greedy from the left, the longest node first; of a fusion, its nodes' names are joined with or without a separator.
    `PartitionedCall_<node>_<Type>_<n>` and `<node>/Muls` are of the node; `trans_TransData_<n>` and `trans_Cast_<n>`
    are the compiler's, of none.
    """

    def __init__(self, nodes: Iterable[str]) -> None:
        known = sorted(filter(None, dict.fromkeys(nodes)), key=len, reverse=True)
        self._plain = {name: name for name in known}
        self._folded = {folded: name for name in reversed(known) if len(folded := _folded(name)) > 1}

    def of(self, name: str) -> list[str]:
        """Of the name as it stands, or with each character that is no letter and no digit as `_`."""
        if MADE_BY_COMPILER.match(name):
            return []
        whole, *split = name.split("PartitionedCall_")
        pieces = [(whole, True), *((piece, False) for piece in split)]
        exact = [node for piece, joined in pieces for node in _parts(piece, self._plain, joined=joined)]
        folded = ((_folded(piece), joined) for piece, joined in pieces)
        return exact or [node for piece, joined in folded for node in _parts(piece, self._folded, joined=joined)]


def _parts(text: str, known: Mapping[str, str], *, joined: bool) -> list[str]:
    """The known names in `text`, from the first that stands there as a word on, one after the other.

    Where not `joined`, what follows the first behind a separator is no node but the type of the operator.
    """
    ordered = sorted(known, key=len, reverse=True)
    starts = range(len(text)) if len(text) <= _LONGEST else range(1)
    begin = next((at for at in starts if _is_boundary(text, at) and _first(text[at:], ordered)), None)
    found, rest = list[str](), text[begin or 0 :]
    while part := _first(rest, ordered):
        found.append(known[part])
        rest = rest[len(part) :]
        separator = _SEPARATORS.match(rest)
        if joined and separator and not _first(rest, ordered):
            rest = rest[separator.end() :]
    return found


_LONGEST = 2000  # of a name in which a node is looked for anywhere


def _first(rest: str, ordered: Sequence[str]) -> str | None:
    return next((node for node in ordered if _begins(rest, node, ordered)), None)


def _is_boundary(text: str, at: int) -> bool:
    """Whether a node's name may begin here: at the start, behind what is no letter and no digit, at the first `/`."""
    return at == 0 or not (text[at - 1].isalnum() or text[at - 1] == ".") or (text[at] == "/" and "/" not in text[:at])


def _begins(rest: str, node: str, others: Sequence[str]) -> bool:
    """Whether `rest` begins with a node: `Conv_1` is not the beginning of `Conv_12`, nor `conv` that of `convert`."""
    if not rest.startswith(node):
        return False
    following = rest[len(node) :]
    in_word = following[:1].islower() and node[-1].isalpha()
    return not following[:1].isdigit() and (not in_word or following.startswith(tuple(others)))


def _folded(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").lower()


class _Columns:
    """Where each thing stands in the rows of one table."""

    def __init__(self, headings: Sequence[str], delimiter: str) -> None:
        self.count, self.comma_is_point = len(headings), delimiter == ";"
        bare = [_bare(heading) for heading in headings]
        spaced = [name.replace("_", " ") for name in bare]
        self.places: dict[str, int] = {}
        self.scales: dict[str, Decimal] = {}
        for name, aliases in _ALIASES.items():
            at = next((spaced.index(alias) for alias in aliases if alias in spaced), None)
            if at is not None:
                self.places[name] = at
                self.scales[name] = _TO_US.get(_unit(headings[at]) or _UNTOLD.get(name, ""), Decimal(1))
        if lacking := [name for name in ("name", "duration") if name not in self.places]:
            raise KitError(
                f"op_summary: no column for an operator's {' and '.join(lacking)} (its first line: "
                f"{', '.join(headings)[:200]!r}); this is another of the profiler's tables"
            )
        taken = set(self.places.values())
        self.metrics = {name: at for at, name in enumerate(bare) if at not in taken and _METRIC.fullmatch(name)}

    def operator(self, row: Sequence[str], line: int) -> Operator | None:
        """None for a row that tells no duration."""
        if len(row) > self.count and any(cell.strip() for cell in row[self.count :]):
            raise KitError(f"op_summary: line {line} has {len(row)} cells under {self.count} headings; profile again")
        duration = self._time(row, "duration")
        if duration is None and len(row) > self.places["duration"] and not self._text(row, "duration"):
            return None
        if duration is None or duration < 0:
            raise KitError(f"op_summary: line {line} has no duration ({self._text(row, 'duration')!r}); profile again")
        told = {name: self._number(row[at]) for name, at in self.metrics.items() if at < len(row)}
        return Operator(
            name=self._text(row, "name"),
            kind=self._text(row, "kind"),
            core=self._text(row, "core"),
            duration_us=duration,
            start_us=self._time(row, "start"),
            originals=_names(self._text(row, "originals")),
            metrics={name: float(value) for name, value in told.items() if value is not None},
            **{name: self._integer(row, name) for name in ("step", "device", "stream")},
        )

    def _text(self, row: Sequence[str], name: str) -> str:
        """A cell without the tab and the quotes that keep a spreadsheet from reading it; "" where there is nothing."""
        at = self.places.get(name, self.count)
        cell = row[at].strip().strip('"').strip() if at < len(row) else ""
        return "" if cell.upper() in _NONE else cell

    def _number(self, cell: str) -> Decimal | None:
        """Of a cell as it stands, or as spreadsheets write it: `1,234.5`, and `1234,5` where `;` parts the cells."""
        return _number(cell.replace(",", ".") if self.comma_is_point else cell.replace(",", ""))

    def _time(self, row: Sequence[str], name: str) -> Decimal | None:
        cell = self._text(row, name)
        value = self._number(cell)
        # A start with a fraction is of microseconds, whether the heading says so or not.
        fraction = name == "start" and value is not None and value != value.to_integral_value()
        return None if value is None else value * (1 if fraction else self.scales[name])

    def _integer(self, row: Sequence[str], name: str) -> int | None:
        value = self._number(self._text(row, name))
        return int(value) if value is not None and value == int(value) else None


def _bare(heading: str) -> str:
    """`Task Duration(us)` is `task duration`."""
    name = re.sub(r"[(\[][^)\]]*[)\]]\s*$", "", heading.strip().strip('\ufeff"').strip())
    return re.sub(r"\s+", " ", name).strip().lower()


def _unit(heading: str) -> str:
    found = re.search(r"[(\[]\s*(\w+)\s*[)\]]\s*\"?\s*$", heading)
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
