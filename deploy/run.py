"""`fab run`: what is missing anywhere, all of it at once; then every stage up to the verdict."""

from __future__ import annotations

from collections.abc import Callable

from deploy import doctor
from deploy.connections import Connections
from deploy.console import say
from deploy.errors import HostUnfit
from deploy.options import Options
from deploy.outcome import Outcome
from deploy.pipeline import graph
from deploy.pipeline.manifest import OK
from deploy.stages import bench, convert, gpu, score

STAGES: tuple[tuple[str, Callable[[Connections], None]], ...] = (
    (gpu.STAGE, gpu.run),
    (convert.STAGE, convert.run),
    (bench.STAGE, bench.run),
)


def run(connections: Connections) -> Outcome:
    """Do the whole job; what is done already is CACHED, so an interrupted run resumes.

    Raises:
        HostUnfit: something is missing on a host; nothing has begun.
        KitError: a stage failed, as the stage says.
        GateFailed: a batch size missed the gate.
    """
    _preflight(connections)
    for name, stage in STAGES:
        if connections.options.dry and (after := _unfinished_before(connections, name)):
            _say_steps(connections, name, after)
        else:
            stage(connections)
    if connections.options.dry and (after := _unfinished_before(connections, score.STAGE)):
        _say_steps(connections, score.STAGE, after)
        return Outcome()
    return score.run(connections.workspace, connections.options, connections.read_row)


def _preflight(connections: Connections) -> None:
    """Raises HostUnfit where anything is missing on any host, after a table of all that is."""
    say("preflight", "bold")
    with Connections(connections.workspace, Options(dry=True)) as asking:
        checks = doctor.examine(asking)
    failed = [check for check in checks if not check.passed]
    if failed:
        doctor.show(failed)
        found = Outcome({"passed": False}, checks)
        raise HostUnfit(f"{len(failed)} of {len(checks)} checks failed, so nothing has begun; fix them first", found)
    say(f"  all {len(checks)} checks of {len({check.subject for check in checks})} hosts passed")


def _unfinished_before(connections: Connections, stage: str) -> str | None:
    """The first step of an earlier stage that has not run: without it the command lines of `stage` are not known."""
    entries = connections.workspace.manifest.steps
    for step in graph.line(connections.inventory.batch_sizes):
        if graph.stage_of(step) == stage:
            return None
        if entries.get(step, {}).get("state") != OK:
            return step
    return None


def _say_steps(connections: Connections, stage: str, after: str) -> None:
    say(stage, "bold")
    hosts = ", ".join(npu.name for npu in connections.inventory.npu) if stage != score.STAGE else "control"
    for step in graph.line(connections.inventory.batch_sizes):
        if graph.stage_of(step) == stage:
            say(f"  {step} would run on {hosts}, its command lines are known once {after} has run")
