"""`fab status`: the whole line of steps with their states, what is stale and why, what comes next. No host is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from deploy.console import say
from deploy.errors import KitError, reject_malformed
from deploy.evidence import elsewhere
from deploy.inventory import with_inventory
from deploy.outcome import Outcome
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import FAILED, OK
from deploy.pipeline.model import published
from deploy.workspace import Workspace
from stgcn import plain_json

STALE, MISSING = "stale", "not run"
_OPTIONAL = ("aoe_job_type", "env")  # inputs that are left out where there are none
_STYLE = {OK: "green", FAILED: "red", STALE: "yellow", MISSING: "dim"}


@dataclass(frozen=True)
class State:
    """A step as it stands."""

    step: str
    command: str  # that runs it
    state: str  # OK, FAILED, STALE or MISSING
    reason: str = ""  # why it failed or is stale
    host: str = ""
    started: str = ""  # ISO 8601
    key: str = ""


def print_status(workspace: Workspace) -> Outcome:
    """Show it; for programs the same."""
    workspace.manifest.digest = workspace.manifest.remembered  # it is the audit that reads every file
    with reject_malformed(workspace.manifest.path):
        states = list(states_of(workspace))
        line = [state for state in states if state.step in graph.line(workspace.inventory.batch_sizes)]
        overall, left = _overall(workspace, line), list(dict.fromkeys(s.command for s in line if s.state != OK))
    if not workspace.manifest.steps:
        say(elsewhere.nothing_ran(workspace, "status"))
    else:
        _print_table(states)
        say(f"{workspace.folder}: {overall}", "green" if not left else "yellow")
        if left:
            rest = f"; `{with_inventory('fab run')}` does all that is left" if len(left) > 1 else ""
            say(f"next:    `{with_inventory(left[0])}`{rest}")
        else:
            say(f"page:    {workspace.artefact('report/report.html')}; `{with_inventory('fab audit')}` checks it again")
    return Outcome(
        {
            "workspace": str(workspace.folder),
            "state": overall,
            "finished": not left,
            "next": with_inventory(left[0]) if left else None,
            "steps": [asdict(state) for state in states],
        }
    )


def states_of(workspace: Workspace) -> Iterator[State]:
    """Of every step that a verdict rests on, in the order of the stages, then of whatever else ran."""
    stale: dict[str, str] = {}
    builds: dict[str, Build | None] = {}
    line, entries = graph.line(workspace.inventory.batch_sizes), workspace.manifest.steps
    for name in [*line, *sorted(set(entries) - set(line), key=lambda name: entries[name]["started"])]:
        command, entry = graph.command_of(name), entries.get(name)
        if entry is None:
            yield State(name, command, MISSING)
            continue
        state, reason = entry["state"], entry.get("error", "")
        if not reason and (why := why_stale(workspace, name, entry, stale, builds)):
            stale[name] = reason = why
            state = STALE
        yield State(name, command, state, reason, entry["host"], entry["started"], entry["key"])


def _overall(workspace: Workspace, line: Sequence[State]) -> str:
    """One sentence's worth."""
    counted = {state: [s.step for s in line if s.state == state] for state in (FAILED, STALE, MISSING)}
    if not any(counted.values()):
        passed = plain_json.load(workspace.artefact("report/summary.json"))["verdict"]["passed"]
        return f"finished, the verdict is {'PASSED' if passed else 'FAILED'}"
    if len(counted[MISSING]) == len(line):
        return "nothing has run yet"
    parts = [f"{len(found)} {state.lower()}, first {found[0]}" for state, found in counted.items() if found]
    return f"unfinished: {sum(s.state == OK for s in line)} of {len(line)} steps are OK; {'; '.join(parts)}"


def _print_table(states: Sequence[State]) -> None:
    """A line for each; what may be long is last."""
    rows, previous = [("stage", "step", "host", "age", "key", "state")], ""
    for state in states:
        stage, age = graph.stage_of(state.step), _age(state.started) if state.started else ""
        shown = f"{state.state}: {state.reason}" if state.reason else state.state
        rows.append((stage if stage != previous else "", state.step, state.host, age, state.key[:12], shown))
        previous = stage
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row, style in zip(rows, ["bold", *(_STYLE.get(state.state) for state in states)], strict=True):
        say("  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]), style)


def why_stale(
    workspace: Workspace,
    name: str,
    entry: Mapping[str, Any],
    stale: Mapping[str, str],
    builds: dict[str, Build | None] | None = None,
) -> str | None:
    """Why a step would run again, as far as it can be told from here; `stale` holds the steps that are known to be.
    `builds` are those of this command so far: for each the ONNX is read.

    What only the hosts know (versions of CANN, the driver, the packages) is not asked for.
    """
    if entry["state"] != OK:
        return None
    if not workspace.manifest.whole(entry):
        return "its outputs changed"
    _, _, batch = name.partition("/")
    if batch and not re.fullmatch(r"bs\d+", batch):
        return None  # a variant that `npu-tune` tried: its own record says of what
    if batch and int(batch[2:]) not in workspace.inventory.batch_sizes:
        return f"{batch} is not in the inventory"
    for maker in _makers(workspace, name):
        if maker in stale:
            return f"{maker} is"
    recorded = entry["inputs"]
    known = _known_inputs(workspace, name, {} if builds is None else builds)
    for key in {*known, *_OPTIONAL} if batch else known:
        now = known.get(key)
        if (key in recorded or key in _OPTIONAL) and recorded.get(key) != now:
            return f"{key} changed"
    return None


def _makers(workspace: Workspace, step: str) -> list[str]:
    """The steps that a step rests on."""
    if step == "score":
        apart = workspace.manifest.steps["score"]["inputs"]["entries"]
        every = graph.steps(workspace.inventory.batch_sizes)
        return [name for name in every if not graph.kind_of(name).apart or name in apart]
    return [read.step for read in graph.reads_of(step)]


def _known_inputs(workspace: Workspace, step: str, builds: dict[str, Build | None]) -> dict[str, Any]:
    """What a step would be given now, of the inputs that are known on this side."""
    kind, model, batch = graph.kind_of(step), workspace.model, step.partition("/")[2]
    if batch and batch not in builds:
        try:
            builds[batch] = workspace.build(int(batch[2:]))
        except KitError:
            builds[batch] = None
    build = builds[batch] if batch else None
    if batch and build is None:
        return {"onnx": None}  # its ONNX is not there any more
    known = graph.inputs(workspace.manifest.steps, step, workspace.inventory, build)
    if kind.name == "score":
        known["reference"] = published(workspace.inventory, model.card)
    if kind.package:
        known |= {"model": model.card.name, model.card.package: model.sha256}
    return {**known, **_files(workspace, kind.files)}


def _files(workspace: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """The sha256 of the dataset and the checkpoint, where they lie on this machine."""
    found: dict[str, Any] = {}
    for name, path in workspace.local_files().items():
        if name in names:
            try:
                sha256 = workspace.manifest.input_sha256(path)
            except KitError:
                found[name] = "missing"
                continue
            found[name] = {"name": path.name, "sha256": sha256} if name == "checkpoint" else sha256
    return found


def _age(started: str) -> str:
    minutes = int((datetime.now(timezone.utc) - datetime.fromisoformat(started)).total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
