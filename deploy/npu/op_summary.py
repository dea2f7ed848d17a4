"""The profiler's table of operators, `op_summary_*.csv`, in every form that its releases write.

Columns are matched by name, letter case and unit aside: `Op Name`, `OP Name` and `Name` are one; a column that is not
there was not collected (which there are depends on the run's metric group). Kernel tables that frameworks write
(`kernel_details.csv`) have other names for the same. [CANN 5 to 9, msprof]
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, NamedTuple

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
    "model": ("model id",),
}
_TO_US = {"ns": Decimal("0.001"), "us": Decimal(1), "ms": Decimal(1000), "s": Decimal(1_000_000)}
_UNTOLD = {"start": "ns"}  # the unit where the heading has none: to CANN 6, whole numbers
UNIT_RATIOS = ("mac_ratio", "vec_ratio", "mte2_ratio")
_NO_MODEL = 2**32 - 1  # an operator that no model has; spreadsheets make 4.29E+09 of it
_NO_RATIOS: Mapping[str, float] = {}
_CELLS = 1 << 16  # of a table, most are the same few


class Operator(NamedTuple):
    """One row: one operator's task on a device. Times in microseconds; None stands for what was not collected."""

    name: str
    kind: str  # `Conv2D`, or "" where the profile's level tells none
    core: str  # `AI_CORE`, `AI_VECTOR_CORE`, `MIX_AIC`, `AI_CPU`, ...
    duration_us: Decimal
    start_us: Decimal | None = None
    step: int | None = None
    device: int | None = None
    stream: int | None = None
    model: int | None = None
    originals: tuple[str, ...] = ()  # the graph's nodes that it is made of, where the table tells them
    # UNIT_RATIOS by name: unified cores tell `mac_ratio`, split ones `aic_mac_ratio` and `aiv_vec_ratio`.
    ratios: Mapping[str, float] = _NO_RATIOS


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
    if not text.strip():
        raise KitError("op_summary is empty; profile again")
    rows = _csv(text, "duration")
    try:
        columns = _Columns(next(rows, []), rows.dialect.delimiter)
        found = (columns.operator(row, rows.line_num) for row in rows if any(cell.strip() for cell in row))
        return [operator for operator in found if operator is not None]
    except csv.Error as error:
        raise KitError(f"op_summary: line {rows.line_num} is no CSV ({error}); profile again") from None


def _csv(text: str, heading: str) -> Any:
    """A reader of the rows from the headings on, of which one has `heading` in it; spreadsheets of some countries save
    `;` between cells."""
    found = re.search(rf"^.*{heading}.*$", text, re.IGNORECASE | re.MULTILINE) or re.search(
        r"^.*\S.*$", text, re.MULTILINE
    )
    begin = found.start() if found else 0
    headings = found[0] if found else ""
    return csv.reader(_lines(text, begin), delimiter=max(",;\t", key=headings.count))


def _lines(text: str, begin: int) -> Iterator[str]:
    """One after the other: a list of them, or a file in memory, would take several times the text."""
    while begin < len(text):
        end = text.find("\n", begin) + 1 or len(text)
        yield text[begin:end]
        begin = end


def parse_fusions(text: str) -> dict[str, tuple[str, ...]]:
    """The original nodes of each fused operator, from the profiler's `fusion_op_*.csv`; empty for any other table."""
    found: dict[str, tuple[str, ...]] = {}
    rows = _csv(text, "fusion op")
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


_BY_COMPILER = (
    r"(?<![A-Za-z])(?:trans_?(TransData|Cast|Transpose)(?:_?\d+)?|cast_as_NetOutput$|atomic_?(memset|addr_?clean).*)"
)
PUT_IN = re.compile(_BY_COMPILER, re.IGNORECASE | re.DOTALL)  # by the compiler, in an operator's name
_ALONE = re.compile(rf"(?:.*/)?(?:{_BY_COMPILER})+", re.IGNORECASE | re.DOTALL)
_SEPARATORS = re.compile(r"[\s_+,;|&:./]+")
_TYPE = re.compile(r"(?:_[A-Za-z][A-Za-z0-9]*)+_\d+")
_LONGEST = 2000  # characters of a name that are looked at


def put_in_as(name: str) -> str | None:
    """What the compiler put in by such a name, `TransData` of `trans_TransData_0`; None where a node is in it too."""
    found = _ALONE.fullmatch(name[:_LONGEST])
    return (found[1] or found[2] or "Cast") if found else None


class Members:
    """The names of a graph's nodes, found in those of operators.

    Greedy from the left, the longest node first; of a fusion, its nodes' names are joined with or without a separator.
    `PartitionedCall_<node>_<Type>_<n>` and `<node>/Muls` are of the node, and so is `trans_Cast_<n><node>`, a fusion
    with what the compiler put in; `trans_TransData_<n>` and `trans_Cast_<n>` alone are of none. [CANN's OMs]
    """

    def __init__(self, nodes: Iterable[str]) -> None:
        known = sorted(filter(None, dict.fromkeys(nodes)), key=len, reverse=True)
        self._plain = _Joined({name: name for name in known})
        self._folded = _Joined({folded: name for name in reversed(known) if len(folded := _folded(name)) > 1})

    def of(self, name: str) -> list[str]:
        """Of the name as it stands, or with each character that is no letter and no digit as `_`."""
        pieces = re.split(r"(?=PartitionedCall_)", PUT_IN.sub(";", name[:_LONGEST]))
        exact = [node for piece in pieces for node in self._plain.of(piece)]
        return exact or [node for piece in pieces for node in self._folded.of(_folded(piece))]


class _Joined:
    """Known names in a text, from the first that stands there as a word on, one after the other."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known
        either = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        # `Conv_1` is not the beginning of `Conv_12`, nor `Conv` of `Conv_1`, nor `conv` of `convert`, unless a name is.
        end = rf"(?!\d)(?!(?<=[A-Za-z])_\d)(?!(?<=[A-Za-z])(?!{either})[a-z])"
        self._name = re.compile(f"(?:{either}){end}") if known else re.compile(r"(?!)")

    def of(self, text: str) -> list[str]:
        """What follows the first behind `PartitionedCall_` is no node but the type of the operator."""
        split = text.lower().startswith("partitionedcall_")
        text = text[len("partitionedcall_") :] if split else text
        node = self._name.search(text)
        while node and not _may_begin(text, node.start(), split=split):
            node = self._name.search(text, node.start() + 1)
        found = list[str]()
        while node:
            found.append(self._known[node[0]])
            kind = _TYPE.match(text, node.end()) if split else node
            at = (kind or node).end()
            separator = _SEPARATORS.match(text, at) if kind else None
            places = range(at, separator.end() + 1 if separator else at + 1)
            node = next(filter(None, (self._name.match(text, place) for place in places)), None)
            split = False
        return found


def _may_begin(text: str, at: int, *, split: bool) -> bool:
    """Whether the first node's name may begin here: at the start, behind what is no letter and no digit, at the first
    `/`; of a `split` one at the start or behind a graph's (`0/`)."""
    if split and at and "/" not in (text[at - 1], text[at]):
        return False
    return at == 0 or not (text[at - 1].isalnum() or text[at - 1] == ".") or (text[at] == "/" and "/" not in text[:at])


def _folded(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").lower()


class _Columns:
    """Where each thing stands in the rows of one table."""

    def __init__(self, headings: Sequence[str], delimiter: str) -> None:
        self.headings, self.comma_is_point = list(headings), delimiter == ";"
        bare = [_bare(heading) for heading in headings]
        spaced = [name.replace("_", " ") for name in bare]
        self.places: dict[str, int] = {}
        self.scales: dict[str, Decimal] = {}
        for name, aliases in _ALIASES.items():
            at = next((spaced.index(alias) for alias in aliases if alias in spaced), None)
            if at is not None:
                self.places[name] = at
                self.scales[name] = _TO_US.get(_unit(headings[at]) or _UNTOLD.get(name, ""), Decimal(1))
        self.untold = {name for name in _UNTOLD if name in self.places and not _unit(headings[self.places[name]])}
        if lacking := [name for name in ("name", "duration") if name not in self.places]:
            raise KitError(
                f"op_summary: no column for an operator's {' and '.join(lacking)} (its first line: "
                f"{', '.join(headings)[:200]!r}); this is another of the profiler's tables"
            )
        # `ai*_` stands for both in the manuals' headings
        found = {
            name: [i for i, each in enumerate(bare) if re.fullmatch(rf"(?:ai[cv*]_)?{name}", each)]
            for name in UNIT_RATIOS
        }
        self.ratios = {name: places for name, places in found.items() if places}

    def operator(self, row: Sequence[str], line: int) -> Operator | None:
        """None for a row that tells no duration, and for the headings again, of a table that was appended."""
        count = len(self.headings)
        if len(row) > count and any(cell.strip() for cell in row[count:]):
            raise KitError(f"op_summary: line {line} has {len(row)} cells under {count} headings; profile again")
        duration = self._time(row, "duration")
        if duration is None and (
            (len(row) > self.places["duration"] and not self._text(row, "duration")) or row == self.headings
        ):
            return None
        if duration is None or duration < 0:
            raise KitError(f"op_summary: line {line} has no duration ({self._text(row, 'duration')!r}); profile again")
        model = self._integer(row, "model")
        return Operator(
            name=self._text(row, "name"),
            kind=self._text(row, "kind"),
            core=self._text(row, "core"),
            duration_us=duration,
            start_us=self._time(row, "start"),
            step=self._integer(row, "step"),
            device=self._integer(row, "device"),
            stream=self._integer(row, "stream"),
            model=None if model is None or abs(model - _NO_MODEL) < 10_000_000 else model,
            originals=_names(self._text(row, "originals")),
            ratios=self._ratios(row) or _NO_RATIOS,
        )

    def _ratios(self, row: Sequence[str]) -> dict[str, float]:
        """Where both cores tell one, the larger."""
        told = {
            name: [value for at in places if at < len(row) and (value := self._number(row[at])) is not None]
            for name, places in self.ratios.items()
        }
        return {name: float(max(values)) for name, values in told.items() if values}

    def _text(self, row: Sequence[str], name: str) -> str:
        """A cell without the tab and the quotes that keep a spreadsheet from reading it; "" where there is nothing."""
        at = self.places.get(name)
        return _told(row[at]) if at is not None and at < len(row) else ""

    def _number(self, cell: str) -> Decimal | None:
        """Of a cell as it stands, or as spreadsheets write it: `1,234.5`, and `1234,5` where `;` parts the cells."""
        return _number(cell.replace(",", ".") if self.comma_is_point else cell.replace(",", ""))

    def _time(self, row: Sequence[str], name: str) -> Decimal | None:
        value = self._number(self._text(row, name))
        # A start with a fraction is of microseconds where the heading has no unit.
        us = value is not None and name in self.untold and value != value.to_integral_value()
        return None if value is None else value * (1 if us else self.scales[name])

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


@lru_cache(_CELLS)
def _told(cell: str) -> str:
    cell = cell.strip().strip('"').strip()
    return "" if cell.upper() in _NONE else cell


@lru_cache(_CELLS)
def _number(cell: str) -> Decimal | None:
    """Exactly: a start time has nineteen digits, which a float has not."""
    try:
        value = Decimal(cell.strip().strip('"'))
    except InvalidOperation:
        return None
    return value if value.is_finite() and abs(value) < Decimal(10) ** 30 else None
