"""Where the device's time goes: a profile's operators, put to the nodes and blocks of the ONNX that they come from.

Times are microseconds of one inference, the mean over the profile's iterations without the first, which is warm-up.
What no node explains is told with its share, never spread over the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import groupby
from typing import Any

from deploy.evidence.costs import Cost, Limits, Node
from deploy.npu.op_summary import PUT_IN, UNIT_RATIOS, Members, Operator, put_in_as

FORMAT = 1
BOUND = 0.5  # of a limit: what takes less than twice the time that the limit allows is bound by it
COMPUTE, BANDWIDTH, NEITHER = "compute", "bandwidth", "neither"
GRAPH = "graph"  # the one block of a model that tells none
LISTED = 20  # operators that no node explains

# Operators that a converter puts in between two of the graph's, by the profiler's type -> ONNX's for the same.
_PUT_IN: Mapping[str, frozenset[str]] = {
    "transdata": frozenset(),
    "transdatarnn": frozenset(),
    "cast": frozenset({"Cast"}),
    "transpose": frozenset({"Transpose"}),
    "transposed": frozenset({"Transpose"}),
    "memset": frozenset(),
    "atomicaddrclean": frozenset(),
    "memcpyasync": frozenset(),
}
_COMMUNICATION = ("COMMUNICATION", "HCCL")  # `HCCL_AI_CPU` too

Json = dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """One operator of the device in one inference."""

    name: str
    kind: str
    core: str
    us: float
    calls: float  # an inference
    ratios: Mapping[str, float]  # of its units, weighted by time; those that were collected
    originals: tuple[str, ...] = ()


def profile(
    operators: Sequence[Operator],
    nodes: Sequence[Node],
    batch_size: int,
    limits: Limits | None,
    fusions: Mapping[str, Sequence[str]] | None = None,
) -> Json:
    """The contents of profile.json, but for what the run itself adds.

    `operators` are one table's rows, `nodes` the graph's, `fusions` the original nodes of fused operators where the
    profiler wrote them; `limits` are the chip's, None where its maker publishes none that the kit knows.
    """
    places, alias = {node.name: i for i, node in enumerate(nodes)}, _aliases(nodes)
    names = Members(alias)

    @cache
    def members(name: str, originals: tuple[str, ...]) -> Sequence[str]:
        """The nodes of an operator: by the profiler's own word, else by its name."""
        told = [node for original in originals or (fusions or {}).get(name, ()) for node in names.of(original)]
        return list(dict.fromkeys(alias[node] for node in told or names.of(name)))

    kept, others = _of_one_model(operators, lambda each: bool(members(each.name, each.originals)))
    iterations, timed = per_inference(kept)
    device_us = sum(each.us for each in timed)
    rows, of_compiler, communication, unknown = list[Json](), list[Timed](), list[Timed](), list[Timed]()
    for each in timed:
        found = [nodes[places[name]] for name in members(each.name, each.originals)]
        if each.core.upper().startswith(_COMMUNICATION) or (not found and each.name.lower().startswith("hcom")):
            communication.append(each)
        elif _put_in(each, found):
            of_compiler.append(each)
        elif found:
            rows.append(_operator(each, found, device_us))
        else:
            unknown.append(each)
    rows.sort(key=lambda row: min(places[name] for name in row["nodes"]))
    told = sum(row["us"] for row in rows)
    return {
        "format": FORMAT,
        "batch_size": batch_size,
        "iterations": iterations,
        "device_us": device_us,
        **others,
        "elapsed_us": elapsed_us(kept),
        "attributed": _share(told + _us(of_compiler), device_us),
        "nodes_share": _share(told, device_us),
        "limits": None if limits is None else {"flops": limits.flops, "bandwidth": limits.bandwidth},
        "blocks": _blocks(rows, nodes, batch_size, limits, device_us),
        "compiler": {**_put_together(of_compiler, device_us), "kinds": _by_kind(of_compiler)},
        "communication": _put_together(communication, device_us),
        "unattributed": {**_put_together(unknown, device_us), "operators": _listed(unknown, device_us)},
        "operators": rows,
    }


def _of_one_model(
    operators: Sequence[Operator], is_of_graph: Callable[[Operator], bool]
) -> tuple[list[Operator], dict[str, list[int]]]:
    """The operators of one model on one device, the one that worked longest on the graph's nodes, with those that no
    model has; and the devices and models left out."""
    us = defaultdict[tuple[Any, Any], tuple[Decimal, Decimal]](lambda: (Decimal(), Decimal()))
    for each in operators:
        of_graph, total = us[each.device, each.model]
        us[each.device, each.model] = (of_graph + is_of_graph(each) * each.duration_us, total + each.duration_us)
    device, model = max(us, key=lambda place: us[place], default=(None, None))
    kept = [each for each in operators if each.device == device and each.model in (model, None)]
    others = {
        "other_devices": {found for found, _ in us if found is not None} - {device},
        "other_models": {found for where, found in us if where == device and found is not None} - {model},
    }
    return kept, {name: sorted(left) for name, left in others.items()}


def per_inference(operators: Sequence[Operator]) -> tuple[int, list[Timed]]:
    """How many inferences of one model the table holds without the warm-up, and each operator's time in one.

    Iterations are the table's own where it numbers them; else an operator of the graph runs once each, so that most
    names' count is theirs.
    """
    iterations, kept = _steady(operators)
    grouped = defaultdict[tuple[str, str, str], list[Operator]](list)
    for operator in kept:
        grouped[operator.name, operator.kind, operator.core].append(operator)
    return iterations, [_timed(rows, iterations) for rows in grouped.values()]


def _steady(operators: Sequence[Operator]) -> tuple[int, list[Operator]]:
    """The iterations that count, and their rows: all but the first, where there are more."""
    steps = sorted({operator.step for operator in operators if operator.step is not None})
    if len(steps) > 1:
        return len(steps) - 1, [each for each in operators if each.step in steps[1:]]
    counts = Counter((each.name, each.kind) for each in operators)
    often = Counter[int]()
    for each in operators:
        often[counts[each.name, each.kind]] += 1
    # Of counts that are as frequent the smaller: a name may well run twice in one inference.
    iterations = max(often, key=lambda count: (often[count] / count, -count), default=1)
    if iterations < 2:
        return 1, list(operators)
    starts = [each.start_us for each in operators]
    ordered = list(operators) if None in starts else sorted(operators, key=lambda each: each.start_us or 0)
    head = next(each for each in ordered if counts[each.name, each.kind] == iterations)
    again = [i for i, each in enumerate(ordered) if (each.name, each.kind) == (head.name, head.kind)][1]
    return iterations - 1, ordered[again:]


def _timed(rows: Sequence[Operator], iterations: int) -> Timed:
    us = float(sum(row.duration_us for row in rows))
    found = {name: _ratio(rows, name) for name in UNIT_RATIOS}
    return Timed(
        name=rows[0].name,
        kind=rows[0].kind,
        core=rows[0].core,
        us=us / iterations,
        calls=len(rows) / iterations,
        ratios={name: value for name, value in found.items() if value is not None},
        originals=rows[0].originals,
    )


def _ratio(rows: Sequence[Operator], name: str) -> float | None:
    told = [(float(row.duration_us), row.ratios[name]) for row in rows if name in row.ratios]
    return _weighted(told) if sum(us for us, _ in told) else None


def elapsed_us(operators: Sequence[Operator]) -> float | None:
    """From the first start to the last end, gaps between operators and streams that overlap included; None where a row
    does not tell its start, or a spreadsheet has rounded them so that one stream was busy for longer."""
    if not operators or any(each.start_us is None for each in operators):
        return None
    busy = defaultdict[Any, Decimal](Decimal)
    for each in operators:
        busy[each.device, each.stream] += each.duration_us
    starts = [(each.start_us or 0, (each.start_us or 0) + each.duration_us) for each in operators]
    elapsed = max(end for _, end in starts) - min(start for start, _ in starts)
    return float(elapsed) if elapsed >= max(busy.values()) * Decimal("0.99") else None


def _aliases(nodes: Sequence[Node]) -> dict[str, str]:
    """What an operator may call a node -> its name: that, or the tensor that it makes, unless that is a mere number."""
    found = {
        output: node.name for node in nodes for output in node.outputs if any(letter.isalpha() for letter in output)
    }
    return found | {node.name: node.name for node in nodes}


def _put_in(each: Timed, members: Sequence[Node]) -> bool:
    """Whether the converter put it in: it changes a layout or a type, and no node of the graph does that there.

    What was put in and fused with a node (`trans_Cast_3Transpose_5`) is the node's.
    """
    same = _PUT_IN.get(each.kind.lower())
    fused = bool(members) and PUT_IN.search(each.name)
    other = same is not None and not fused and not any(node.kind in same for node in members)
    return other or put_in_as(each.name) is not None


def _operator(each: Timed, members: Sequence[Node], device_us: float) -> Json:
    heaviest = max(members, key=lambda node: node.cost.flops)
    return {
        "name": each.name,
        "kind": each.kind,
        "core": each.core,
        "nodes": [node.name for node in members],
        "block": heaviest.block or GRAPH,
        "us": each.us,
        "share": _share(each.us, device_us),
        "calls": each.calls,
        "ratios": dict(each.ratios),
    }


def _blocks(
    rows: Sequence[Json], nodes: Sequence[Node], batch_size: int, limits: Limits | None, device_us: float
) -> list[Json]:
    """Each block's time beside what computing and moving take at the least; the graph's order."""
    found = []
    for block in dict.fromkeys(node.block or GRAPH for node in nodes):
        mine = [row for row in rows if row["block"] == block]
        cost = sum((node.cost for node in nodes if (node.block or GRAPH) == block), Cost()).of_batch(batch_size)
        us = sum(row["us"] for row in mine)
        if mine or cost.flops:
            found.append(
                {
                    "block": block,
                    "us": us,
                    "share": _share(us, device_us),
                    "operators": len(mine),
                    "flops": cost.flops,
                    "bytes": cost.moved,
                    **bound(us, cost, limits),
                    "ratios": {
                        name: _weighted([(row["us"], row["ratios"][name]) for row in mine if name in row["ratios"]])
                        for name in UNIT_RATIOS
                        if any(name in row["ratios"] for row in mine)
                    },
                }
            )
    return found


def bound(us: float, cost: Cost, limits: Limits | None) -> Json:
    """What computing and moving take at the least, and which of the two bounds it: where the time is less than twice
    the larger. None where the chip's limits are not known, or no time was told."""
    if limits is None or us <= 0:
        return {"compute_us": None, "bandwidth_us": None, "bound": None}
    computing, moving = (1e6 * seconds for seconds in cost.at_least_s(limits))
    which = COMPUTE if computing > moving else BANDWIDTH
    near = max(computing, moving) >= BOUND * us
    return {"compute_us": computing, "bandwidth_us": moving, "bound": which if near else NEITHER}


def _weighted(pairs: Sequence[tuple[float, float]]) -> float:
    weight = sum(us for us, _ in pairs)
    return sum(us * value for us, value in pairs) / weight if weight else 0.0


def _put_together(those: Sequence[Timed], device_us: float) -> Json:
    return {"us": _us(those), "share": _share(_us(those), device_us), "count": len(those)}


def _by_kind(those: Sequence[Timed]) -> dict[str, float]:
    def kind(each: Timed) -> str:
        return each.kind or put_in_as(each.name) or "?"

    return {name: _us(list(group)) for name, group in groupby(sorted(those, key=kind), kind)}


def _listed(those: Sequence[Timed], device_us: float) -> list[Json]:
    longest = sorted(those, key=lambda each: -each.us)[:LISTED]
    return [{"name": e.name, "kind": e.kind, "us": e.us, "share": _share(e.us, device_us)} for e in longest]


def _us(those: Iterable[Timed]) -> float:
    return sum(each.us for each in those)


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole else 0.0  # sums in another order may differ in the last place


@dataclass(frozen=True)
class Change:
    """A node's or a block's time in two profiles, us; None where one has none of its own."""

    name: str
    before: float | None
    after: float | None

    @property
    def difference(self) -> float:
        return (self.after or 0.0) - (self.before or 0.0)


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[Change], list[Change]]:
    """(by block, by node) of two profile.json: what changed most first.

    An operator of one profile may be fused otherwise in the other: operators are joined until both sides have the same
    nodes, so that a row compares the same work.
    """
    blocks = _paired({x["block"]: x["us"] for x in a["blocks"]}, {x["block"]: x["us"] for x in b["blocks"]})
    apart = [(f"({name})", a[name]["us"], b[name]["us"]) for name in ("compiler", "communication", "unattributed")]
    blocks += [Change(*row) for row in apart if row[1] or row[2]]
    group = _joined([row["nodes"] for side in (a, b) for row in side["operators"]])
    sides = [defaultdict[str, float](float), defaultdict[str, float](float)]
    for told, side in zip(sides, (a, b), strict=True):
        for row in side["operators"]:
            told[" + ".join(group[row["nodes"][0]])] += row["us"]
    rows = _paired(*sides)
    return sorted(blocks, key=_size), sorted(rows, key=_size)


def _size(change: Change) -> float:
    return -abs(change.difference)


def _paired(a: Mapping[str, float], b: Mapping[str, float]) -> list[Change]:
    return [Change(name, a.get(name), b.get(name)) for name in dict.fromkeys((*a, *b))]


def _joined(sets: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Each node's group, of the least groups that hold every one of `sets` whole."""
    group: dict[str, list[str]] = {}
    for names in sets:
        merged = list(dict.fromkeys(other for name in names for other in group.get(name, [name])))
        group |= dict.fromkeys(merged, merged)
    return group
