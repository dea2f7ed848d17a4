"""Which units float16 spoils, from one pass of the fp32 graph over some rows with every value read.

Each unit is given exact inputs and run twice, in float32 and as a device in float16 would: what differs is its own
doing. The worst channel counts, for a channel that vanishes may be the one that a later unit scales up. Then the graph
is run in float16 as a whole, with the suspects kept, to see which of them the outputs miss.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploy.precision.arithmetic import (
    FIRST,
    HALF,
    LARGEST,
    MAGNITUDES,
    MATRIX,
    NARROW,
    NORMAL,
    SMALLEST,
    Network,
    Tensors,
)
from deploy.precision.search import smallest
from deploy.precision.units import Unit

SUSPECT = 0.01  # relative error of a unit's worst channel; sound float16 leaves some 0.001
OUTPUT_TOLERANCE = 0.02  # relative error of the outputs; sound float16 leaves 0.006 behind ten blocks
FEW = 16  # values of a channel
NOTABLE_BITS = 4  # lost in a sum, of float16's 11
SUMS = frozenset([
    "Add", "AveragePool", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul", "Mean", "ReduceMean",
    "ReduceSum", "Sub", "Sum",
])  # fmt: skip


@dataclass
class Finding:
    """What float16 does to one unit. Shares are of the float values that are not zero."""

    name: str
    kind: str
    beyond: float = 0.0  # share of what it writes that is beyond 65504
    vanished: float = 0.0  # that rounds to zero
    subnormal: float = 0.0  # that has lost bits, being below 2^-14
    largest: float = 0.0  # magnitude of what it writes
    weights_beyond: float = 0.0
    weights_vanished: float = 0.0
    given_beyond: float = 0.0  # of what it is given
    given_vanished: float = 0.0
    bits_lost: float = 0.0  # in its sums: log2 of sum |x| over |sum x|
    error: float = 0.0  # relative, of its worst channel; infinite where a result is

    @property
    def reasons(self) -> list[dict[str, Any]]:
        """Why it is a suspect: causes of deploy/precision/reasons.py, each with its figure."""
        found = {
            "weights_beyond": self.weights_beyond,
            "given_beyond": self.given_beyond,
            "beyond": self.beyond,
            "largest": self.largest if self.beyond else 0.0,
            "weights_vanished": self.weights_vanished,
            "given_vanished": self.given_vanished,
            "vanished": self.vanished,
            "bits_lost": self.bits_lost if self.bits_lost >= NOTABLE_BITS else 0.0,
        }
        reasons = [{"cause": cause, "figure": figure} for cause, figure in found.items() if figure > 0]
        return reasons or [{"cause": "error", "figure": self.error if math.isfinite(self.error) else LARGEST}]

    def record(self) -> dict[str, Any]:
        """As JSON, which has no infinity."""
        return {**asdict(self), "error": self.error if math.isfinite(self.error) else None, "reasons": self.reasons}


@dataclass(frozen=True)
class Ranking:
    """Every unit whose precision is a choice, the likeliest culprit first."""

    findings: Sequence[Finding]
    suspects: Sequence[str]  # the first of them, that alone should do

    @property
    def names(self) -> list[str]:
        return [finding.name for finding in self.findings]


def rank(network: Network, rows: Sequence[Sequence[np.ndarray]]) -> Ranking:
    """Rank the units of a graph by what float16 does to them on `rows`, each the arrays of the inputs, of batch 1."""
    found = {unit.name: Finding(unit.name, unit.kind) for unit in network.choices}
    for number, row in enumerate(rows):
        for unit, given, tensors in network.steps(row):
            if unit.name in found:
                _measure(network, unit, given, tensors, found[unit.name])
                if not number and unit.nodes[0].op_type in SUMS:
                    found[unit.name].bits_lost = _bits_lost(network, unit, given)
    order = {name: i for i, name in enumerate(found)}
    by_error = sorted(found.values(), key=lambda finding: (-finding.error, order[finding.name]))
    suspects = [finding.name for finding in by_error if not finding.error <= SUSPECT]
    exact = [network.run(row) for row in rows]

    def enough(kept: Collection[str]) -> bool:
        apart = (_apart(network.run(row, kept), outputs) for row, outputs in zip(rows, exact, strict=True))
        return all(error <= OUTPUT_TOLERANCE for error in apart)

    needed: list[str] = []
    if not enough(()):
        needed = smallest(suspects if enough(suspects) else [finding.name for finding in by_error], enough)
    first = sorted(needed, key=order.__getitem__)
    rest = [finding.name for finding in by_error if finding.name not in needed]
    return Ranking([found[name] for name in (*first, *rest)], first or suspects)


def farthest(network: Network, rows: Sequence[Sequence[np.ndarray]], count: int) -> list[Sequence[np.ndarray]]:
    """Of `rows`, those `count` that float16 throughout is farthest off on."""
    if len(rows) <= count:
        return list(rows)
    errors = [_apart(network.run(row, ()), network.run(row)) for row in rows]
    return [rows[i] for i in sorted(range(len(rows)), key=lambda i: -errors[i])[:count]]


def of_matrix_unit(network: Network, rows: Sequence[Sequence[np.ndarray]]) -> list[str]:
    """The matrix operators that alone would spoil the outputs on a chip whose matrix unit takes float16 alone."""
    others = [unit.name for unit in network.choices if unit.nodes[0].op_type not in MATRIX]
    matrix = [unit.name for unit in network.choices if unit.nodes[0].op_type in MATRIX]
    exact = [network.run(row) for row in rows]

    def enough(spared: Collection[str]) -> bool:
        found = (network.run(row, {*others, *spared}, NARROW) for row in rows)
        return all(_apart(outputs, all_) <= OUTPUT_TOLERANCE for outputs, all_ in zip(found, exact, strict=True))

    return [] if enough(()) else smallest(matrix, enough)


def _measure(network: Network, unit: Unit, given: Tensors, tensors: Mapping[str, np.ndarray], finding: Finding) -> None:
    lowered = network.of_unit(unit, given, HALF)
    for name in unit.outputs:
        exact = tensors.get(name)
        if exact is None or exact.dtype != np.float32 or not exact.size:
            continue
        beyond, vanished, subnormal = _shares(exact)
        finding.beyond = max(finding.beyond, beyond)
        finding.vanished = max(finding.vanished, vanished)
        finding.subnormal = max(finding.subnormal, subnormal)
        finding.largest = max(finding.largest, float(np.abs(exact).max()))
        finding.error = max(finding.error, _worst_channel(lowered[name], exact))
    for place, arrays in (("weights", network.weights_of(unit)), ("given", given)):
        for array in arrays.values():
            if array.dtype == np.float32 and array.size:
                beyond, vanished, _ = _shares(array)
                setattr(finding, f"{place}_beyond", max(getattr(finding, f"{place}_beyond"), beyond))
                setattr(finding, f"{place}_vanished", max(getattr(finding, f"{place}_vanished"), vanished))


def _shares(values: np.ndarray) -> tuple[float, float, float]:
    """The shares of the values that are not zero which pass float16's range, vanish below it, and lose bits there."""
    size = np.abs(values[values != 0])
    if not size.size:
        return 0.0, 0.0, 0.0
    return float((size > LARGEST).mean()), float((size <= SMALLEST).mean()), float((size < NORMAL).mean())


def _worst_channel(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest relative error of all values, or of a channel: a slice along the second or the last axis.

    Infinite for NaN. A slice of few values says nothing: one of them may be near zero by chance.
    """
    if not np.isfinite(found).all():
        return math.inf
    off = (found.astype(np.float64) - exact) ** 2
    size = exact.astype(np.float64) ** 2
    axes = {axis for axis in (1, exact.ndim - 1) if 0 < axis < exact.ndim and exact.size >= FEW * exact.shape[axis]}
    worst = 0.0
    for kept in (None, *axes):
        others = tuple(i for i in range(exact.ndim) if i != kept)
        errors, sizes = off.sum(axis=others), size.sum(axis=others)
        worst = max(worst, float(np.sqrt(np.divide(errors, sizes, out=np.zeros_like(errors), where=sizes > 0)).max()))
    return worst


def _bits_lost(network: Network, unit: Unit, given: Tensors) -> float:
    """log2 of the root mean square of sum |x| over that of |sum x|."""
    node = unit.nodes[0]
    exact = network.of_unit(unit, given, FIRST)[node.output[0]]
    sizes = {name: np.abs(array) if array.dtype == np.float32 else array for name, array in given.items()}
    magnitudes = network.of_unit(unit, sizes, MAGNITUDES)[node.output[0]]
    total, largest = (float(np.sqrt(np.mean(values.astype(np.float64) ** 2))) for values in (exact, magnitudes))
    return math.log2(largest / total) if total > 0 and largest > total else 0.0


def _apart(found: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    """The largest relative error of an output; infinite for NaN."""
    errors = [0.0]
    for a, b in zip(found, exact, strict=True):
        if b.dtype.kind != "f":
            continue
        if not np.isfinite(a).all():
            return math.inf
        size = float(np.linalg.norm(b.astype(np.float64)))
        errors.append(float(np.linalg.norm(a.astype(np.float64) - b)) / size if size else 0.0)
    return max(errors)
