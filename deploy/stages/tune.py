"""`fab npu-tune`: convert and measure every variant of the graph, precision mode and batch size; which one wins."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from deploy.connections import Connections
from deploy.console import console, say, table
from deploy.errors import KitError
from deploy.evidence.logits import output_names
from deploy.evidence.scores import Score, scores
from deploy.evidence.sweep import FORMAT, Candidate, Outcome, copies_of, judge, lines, rank, verdict
from deploy.pipeline.build import MIXED, MIXLIST, Build, files_of, with_mode
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import FAILED, Step, announce, write_json
from deploy.pipeline.model import read_card
from deploy.progress import progress
from deploy.report.table import shown
from deploy.stages import accuracy, convert, gpu, throughput
from stgcn.errors import InputError
from stgcn.files import write_whole

STAGE = "npu-tune"
STEPS = 3  # of a candidate: converted, inferred, measured


def run(connections: Connections) -> None:
    """Make tune/tune.json and tune/inventory.yaml, the winner's lines for the inventory; print the table.

    A candidate that fails is a row that says why; it does not stop the others.

    Raises:
        KitError: no candidate gave a figure and passed the gate.
    """
    workspace = connections.workspace
    tune, card = connections.inventory.tune, connections.workspace.model.card
    throughput.check_threads(connections.npus[0], max((*tune.threads, connections.inventory.benchmark.threads)))
    index = workspace.samples().head(tune.samples)
    say(f"{STAGE} on {connections.devices[0]}, accuracy over {index.samples} samples", "bold")
    sizes = tune.batch_sizes or connections.inventory.batch_sizes
    variants, persons = tune.variants or card.variants, tune.persons or card.persons
    threads = connections.inventory.benchmark.threads
    each = itertools.product(variants, tune.precision_modes, [None], sizes, persons, [threads])
    ranked = rank(_try(connections, [Candidate(*one) for one in each], index))
    if connections.options.dry:
        return
    if ranked[0].passed and (tuned := _tuned(connections, ranked[0].candidate)):
        ranked = rank([*ranked, *_try(connections, tuned, index)])
    ranked = rank([*ranked, *_with_threads(connections, ranked)])
    _keep(connections, ranked)
    console.print(_table(connections, ranked))
    for error in dict.fromkeys(outcome.error for outcome in ranked if outcome.error):
        say(f"failed: {error}", "red")
    if not ranked[0].passed:
        nearest = min(
            (each for each in ranked if each.accurate), key=lambda each: each.latency_ms or 0, default=ranked[0]
        )
        raise KitError(
            f"none of {len(ranked)} candidates gave a figure and stayed within the gate and tune.latency_ms; "
            f"{nearest.candidate}: {nearest.error or _off(nearest)}"
        )
    say(f"{verdict(ranked)}{connections.npus[0].facts.mark}", "bold green")
    say(f"for the inventory: {workspace.artefact('tune/inventory.yaml')}", "bold green")


def _tuned(connections: Connections, best: Candidate) -> list[Candidate]:
    """AOE's turn: it tunes for hours, so it is given the best that ATC made alone, where the hosts have it."""
    jobs = connections.inventory.tune.aoe
    lacking = [str(npu) for npu in connections.npus if jobs and not npu.has(npu.section.tools.aoe)]
    if lacking:
        say(f"  {', '.join(lacking)}: no AOE there (tools.aoe in the inventory), so it is not tried", "yellow")
    return [] if lacking else [replace(best, aoe=job) for job in jobs]


def _with_threads(connections: Connections, ranked: Sequence[Outcome]) -> list[Outcome]:
    """The best setting at each batch size with each number of threads: the OMs and their accuracy are there. Where none
    keeps the bound on latency, the fastest of those within the gate: fewer threads wait less."""
    wanted = sorted({*connections.inventory.tune.threads} - {connections.inventory.benchmark.threads})
    best = next((each for each in ranked if each.accurate), None)
    alone = [each for each in ranked if best and each.candidate.setting == best.candidate.setting and each.accurate]
    found = []
    with progress("threads, measurements", len(alone) * len(wanted)) as advance:
        for outcome, threads in itertools.product(alone, wanted):
            candidate = replace(outcome.candidate, threads=threads)
            fresh = Outcome(candidate, score=outcome.score, judged=outcome.judged)
            found.append(_measure(connections, fresh, _build(connections, candidate), outcome.copies_ms))
            advance()
    return found


def _try(connections: Connections, wanted: Sequence[Candidate], index: Index) -> list[Outcome]:
    """Convert them all, run the samples through all, then measure one by one: each on a device left alone."""
    builds: dict[Candidate, Build] = {}
    outcomes: dict[Candidate, Outcome] = {}
    for candidate in wanted:
        try:
            builds[candidate] = _build(connections, candidate)
        except InputError as error:
            outcomes[candidate] = Outcome(candidate, error=str(error))
    with progress("sweep, steps", STEPS * len(builds)) as advance:
        failures = convert.convert(connections, list(builds.values()), advance)
        for candidate, build in builds.items():
            if build.name in failures:
                outcomes[candidate] = Outcome(candidate, error=str(failures[build.name]))
        left = [candidate for candidate in builds if candidate not in outcomes]
        if connections.options.dry:
            return list(outcomes.values())
        advance((STEPS - 1) * (len(builds) - len(left)))

        def infer(candidate: Candidate) -> None:
            outcomes[candidate] = _infer(connections, candidate, builds[candidate], index)
            advance()

        connections.scheduler.side_by_side(left, infer)
        for candidate in left:
            outcomes[candidate] = _measure(connections, outcomes[candidate], builds[candidate])
            advance()
    return [outcomes[candidate] for candidate in wanted]


def _off(outcome: Outcome) -> str:
    assert outcome.judged is not None
    if outcome.judged.passed and not outcome.in_time:
        return f"{outcome.latency_ms:.2f} ms a batch, over tune.latency_ms {outcome.bound_ms:g}"
    return f"{outcome.judged.relative_error:.2%} off"


def _build(connections: Connections, candidate: Candidate) -> Build:
    workspace = connections.workspace
    onnx, step, card = gpu.export_variant(connections, candidate.variant, candidate.persons)
    flags = with_mode(connections.inventory.atc, candidate.precision_mode)
    return Build(
        name=f"tune/{candidate.slug}",
        folder=workspace.artefact("tune") / candidate.slug,
        onnx=onnx,
        onnx_step=step,
        batch_size=candidate.batch_size,
        flags=flags,
        card=read_card(card) if card.is_file() or not connections.options.dry else workspace.model.card,
        persons=candidate.persons,
        aoe_job_type=candidate.aoe,
        files=files_of(flags),
    )


def _infer(connections: Connections, candidate: Candidate, build: Build, index: Index) -> Outcome:
    try:
        accuracy.run(connections, build, index)
        expected, found = _scores(connections, build, index.samples)
    except InputError as error:
        announce(build.name, FAILED, str(error))
        return Outcome(candidate, error=str(error))
    return Outcome(candidate, score=found, judged=judge(found, expected, build.card.gates(connections.inventory.gate)))


def _measure(connections: Connections, outcome: Outcome, build: Build, copies_ms: float | None = None) -> Outcome:
    """`copies_ms` are those of one thread, for the tool tells no median of several threads' copies."""
    if outcome.error:
        return outcome
    try:
        path = throughput.run(connections, build, outcome.candidate.threads)
    except InputError as error:
        announce(build.name, FAILED, str(error))
        return replace(outcome, error=str(error))
    figure, bound = json.loads(path.read_bytes()), connections.inventory.tune.latency_ms
    copies = copies_of(figure) or copies_ms or 0.0
    whole = float(figure["latency_ms"]["p99"]) + copies
    return replace(outcome, throughput=figure["throughput"], latency_ms=whole, copies_ms=copies, bound_ms=bound)


def _scores(connections: Connections, build: Build, samples: int) -> list[Score]:
    """The scores of the fp32 reference and of the device on the same samples."""
    workspace, device = connections.workspace, [build.folder / name for name in output_names(build.card)]
    return scores(workspace.model, workspace.labels(), [workspace.reference(build.card), device], samples)


def _keep(connections: Connections, ranked: Sequence[Outcome]) -> None:
    """tune.json holds every outcome; inventory.yaml the winner's keys, to be copied into the inventory."""
    folder = connections.workspace.artefact("tune")
    rows = [outcome.record() for outcome in ranked]
    inputs, facts = {"outcomes": rows, **_where(connections)}, connections.npus[0].facts.record
    outputs = [folder / "tune.json", folder / "inventory.yaml"]

    def action() -> dict[str, Any]:
        write_json(outputs[0], {"format": FORMAT, **inputs})
        write_whole(outputs[1], lines(ranked, connections.inventory.atc, inputs, facts).encode())
        return facts

    connections.run_step(Step("tune", "control", inputs, outputs, action))


def _where(connections: Connections) -> dict[str, Any]:
    tools = {**connections.npus[0].facts.tools, **connections.inventory.environment}
    tune = connections.inventory.tune
    bound = {"latency_ms": tune.latency_ms} if tune.latency_ms is not None else {}
    measured = {"benchmark": connections.inventory.benchmark.model_dump()}
    return {**tools, **measured, "samples": tune.samples, "gate": connections.inventory.gate, **bound}


def _mode(candidate: Candidate, atc: Mapping[str, str]) -> str:
    left_out = f" without {MIXLIST}, which a mixed mode alone heeds" if MIXLIST in atc else ""
    return candidate.precision_mode + ("" if candidate.precision_mode in MIXED else left_out)


def _table(connections: Connections, ranked: Sequence[Outcome]) -> Table:
    facts, metric = connections.npus[0].facts, connections.workspace.model.card.metrics[0]
    numbers = ("batch size", "threads", "samples/s", "ms p99", metric.title)
    headings = ("variant", "persons", "precision", "tuner", *numbers, "gate")
    grid = table(headings, (), f"{facts.target}{facts.mark}", numbers)
    for outcome in ranked:
        candidate, figure = outcome.candidate, outcome.throughput
        busy = "" if figure is None or figure["idle"] else " (busy device)"
        off = "failed" if outcome.error else f"✗ {_off(outcome)}"
        grid.add_row(
            *(candidate.variant, candidate.persons, _mode(candidate, connections.inventory.atc)),
            *(f"AOE {candidate.aoe}" if candidate.aoe else "", str(candidate.batch_size), str(candidate.threads)),
            f"{outcome.median:.2f}{busy}" if figure else "",
            "" if outcome.latency_ms is None else f"{outcome.latency_ms:.2f}",
            "" if outcome.score is None else shown(outcome.score.metrics[metric.key], metric.unit),
            "✓" if outcome.passed else off,
            style="bold green" if outcome is ranked[0] and outcome.passed else None,
        )
    return grid
