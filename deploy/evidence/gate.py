"""`fab gate --baseline RUN`: is this run worse than that one, beyond noise?"""

from __future__ import annotations

from pathlib import Path

from deploy.console import check_mark, console, mark, say, table
from deploy.errors import GateFailed, KitError, reject_malformed
from deploy.evidence import regression, runs
from deploy.evidence.regression import Comparison
from deploy.evidence.runs import Run
from deploy.outcome import Check, Outcome


def run(workspace: Path, baseline: str, name: str = "") -> Outcome:
    """Compare the workspace's verdict, or the kept run of that name, with the baseline's; print the table.

    Raises:
        KitError: a run is not there, was changed, or is not comparable.
        GateFailed: accuracy or throughput is worse beyond noise, or the run missed its own gate.
    """
    now = runs.find(workspace, name) if name else Run(workspace)
    with reject_malformed(now.folder):
        now_id = now.id
    before = _baseline(workspace, baseline, now_id)
    with reject_malformed(f"{before.folder} or {now.folder}"):
        regression.refuse_others(before, now)
        _refuse_fewer(before, now)
        found = regression.comparisons(before, now)
        device, passed = now.summary["device"], bool(now.summary["verdict"]["passed"])
        ids = {"baseline": _named(before), "run": _named(now)}
    own = Check("run", "verdict", passed, f"{now_id}: {'within' if passed else 'missed'} its own gate")
    checks = [own, *(_check(comparison) for comparison in found)]
    title = f"{now_id} against {before.id}{mark(device['simulated'], device.get('health'))}"
    rows = ((c.subject, "?" if c.passed is None else check_mark(c.passed), c.name, c.detail) for c in checks)
    console.print(table(("of", "", "figure", "found"), rows, title))
    failed = [check for check in checks if check.passed is False]
    facts = {"passed": not failed, **ids, "comparisons": [comparison.as_json() for comparison in found]}
    outcome = Outcome(facts, checks)
    if failed:
        what = ", ".join(f"{check.subject} {check.name}" for check in failed)
        raise GateFailed(f"worse than {before.id}: {what}; `fab compare` shows what changed", outcome)
    say(f"nothing is worse than {before.id}", "bold green")
    return outcome


def _baseline(workspace: Path, name: str, now_id: str) -> Run:
    """The run to compare with; `latest` is the newest kept one besides the run itself."""
    if name == "latest":
        others = [kept for kept in runs.all_runs(workspace) if kept.folder.name != now_id]
        if not others:
            raise KitError(
                f"{workspace / runs.FOLDER}: no run but {now_id} is kept; name a --baseline, or make one first"
            )
        return others[-1]
    return runs.find(workspace, name)


def _refuse_fewer(before: Run, now: Run) -> None:
    """Raises KitError where the baseline says something that this run does not."""
    ours, theirs = ({b["batch_size"]: bool(b["throughput"]) for b in each.summary["batches"]} for each in (before, now))
    lacking = [f"batch size {size}" for size in ours if size not in theirs]
    lacking += [
        f"the throughput of batch size {size}" for size, told in ours.items() if told and theirs.get(size) is False
    ]
    if lacking:
        raise KitError(
            f"{', '.join(lacking)}: in {before.id} and not in {now.id}; run `fab npu-bench score`, or name another"
            " baseline"
        )


def _named(each: Run) -> dict[str, str]:
    return {"id": each.id, "folder": str(each.folder)}


def _check(comparison: Comparison) -> Check:
    passed = None if comparison.verdict is None else comparison.verdict != "worse"
    return Check(f"bs{comparison.batch_size}", comparison.figure, passed, comparison.detail)
