"""Kept runs: every verdict's artefacts under `runs/<id>/`, sealed, for as long as nobody prunes them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.table import Table

from deploy.console import console, mark, say
from deploy.errors import KitError, reject_malformed
from deploy.evidence import seal, signature
from deploy.outcome import Outcome
from deploy.pipeline import graph, reproduce
from deploy.pipeline.manifest import FORMAT, OK, Manifest, digest_of, json_text
from deploy.report.table import shown
from stgcn import plain_json
from stgcn.files import aside_of, sha256_file, sync_folder, write_whole

FOLDER = "runs"
_ID = re.compile(r"\d{8}T\d{6}-([0-9a-f]{8}|[0-9a-f]{32})")  # earlier versions had the shorter ones
COPIED_BYTES = 1 << 20  # smaller files are copied, larger ones hard-linked: the kit only ever replaces those whole


@dataclass(frozen=True)
class Run:
    """A folder with a manifest and the artefacts it names: a kept run, or a workspace with a verdict."""

    folder: Path

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest(self.folder)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Raises KitError where there is no verdict."""
        path = self.folder / "report" / "summary.json"
        try:
            return dict(plain_json.load(path))
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise KitError(f"{path}: no verdict can be read from it ({reason}); run `make score`") from None

    @property
    def is_kept(self) -> bool:
        """Whether it is sealed, and so no workspace."""
        return (self.folder / seal.SEAL).is_file()

    @property
    def id(self) -> str:
        """When the verdict was reached, and half of the seal's sha256; of a verdict that is not kept, its name."""
        if not self.is_kept:
            kept = kept_as(self.manifest)
            return kept.id if kept else verdict_name(self.manifest)
        return f"{_when(self.manifest)}-{seal.digest(self.folder)[: seal.DIGITS]}"


def verdict_name(manifest: Manifest) -> str:
    """When the verdict was reached, and half of a digest over its chain: the score's entry names the sha256 of each
    entry that it rests on. The page, which is sealed with the rest, shows this; it cannot show the run's id.

    Raises:
        KitError: there is no verdict yet.
    """
    when = _when(manifest)
    return f"{when}-{digest_of(manifest.steps['score'])[: seal.DIGITS]}"


def _when(manifest: Manifest) -> str:
    entry = manifest.steps.get("score")
    if entry is None or entry["state"] != OK:
        raise KitError(f"{manifest.workspace}: there is no verdict yet; run `make score`")
    return str(entry["started"])[:19].replace("-", "").replace(":", "")


def keep(manifest: Manifest, key: Path | None = None) -> Run:
    """Keep the workspace's verdict as a run, sealed, and signed with `key`; what is kept already stays as it is.

    Raises:
        KitError: the key cannot sign, and nothing is kept; or what was kept is not as it was sealed.
    """
    record, workspace = _record(manifest), manifest.workspace
    digests = {path: sha256_file(workspace / path) for path in _files(workspace, manifest_steps(manifest))}
    sealed = seal.content({**digests, "manifest.json": sha256(record).hexdigest()})
    target = workspace / FOLDER / f"{_when(manifest)}-{sha256(sealed).hexdigest()[: seal.DIGITS]}"
    if not target.is_dir():
        aside = aside_of(target)
        try:
            for relative in digests:
                _place(workspace / relative, aside / relative)
            for name, content in (("manifest.json", record), (seal.SEAL, sealed)):
                write_whole(aside / name, content)
            if key:
                signature.sign(aside, key)
            aside.replace(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(target.parent)
    else:
        seal.check(target)
        if key and not (target / seal.SIGNATURE).exists():
            signature.sign(target, key)
    return Run(target)


def kept_as(manifest: Manifest) -> Run | None:
    """The kept run whose entries are the workspace's now, None where there is none.

    Raises:
        KitError: there is no verdict yet.
    """
    _when(manifest)
    wanted = sha256(_record(manifest)).hexdigest()
    for run in reversed(all_runs(manifest.workspace)):
        with suppress(KitError):
            if seal.read(run.folder).get("manifest.json") == wanted:
                return run
    return None


def manifest_steps(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The entries of a workspace that a kept run has: those that the verdict rests on, and what follows from it."""
    names = [*graph.of_verdict(manifest.steps), *graph.VERDICT]
    return {name: manifest.steps[name] for name in sorted(names) if name in manifest.steps}


def foreign(run: Run) -> str | None:
    """The first file or entry of a kept run that is none of its verdict's; None where there is none."""
    manifest = run.manifest
    own = {"manifest.json", *_files(run.folder, manifest_steps(manifest))}
    others = sorted({*seal.read(run.folder)} - own) + sorted(manifest.steps.keys() - manifest_steps(manifest).keys())
    return others[0] if others else None


def _record(manifest: Manifest) -> bytes:
    """The manifest.json of the kept run."""
    return json_text({"format": FORMAT, "steps": manifest_steps(manifest)})


def _files(workspace: Path, entries: dict[str, Any]) -> Iterator[str]:
    """The outputs of the entries, and their logs and what else they brought back, and the scripts."""
    for step, entry in entries.items():
        yield from entry["outputs"]
        for pattern in (*graph.kind_of(step).beside, reproduce.NAME):
            found = (workspace / graph.folder_of(step)).glob(pattern)
            yield from (path.relative_to(workspace).as_posix() for path in found)


def _place(source: Path, target: Path) -> None:
    """A copy that later runs cannot reach; logs are written in place, so they are copied whatever their size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != ".log" and source.stat().st_size > COPIED_BYTES:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # a file system without links
    shutil.copy2(source, target)


def all_runs(workspace: Path) -> list[Run]:
    """The kept runs, oldest first; a folder of another name or without a manifest is somebody else's, and not to be
    pruned."""
    found = (path.parent for path in sorted((workspace / FOLDER).glob("*/manifest.json")))
    return [Run(folder) for folder in found if is_id(folder.name)]


def is_id(name: str) -> bool:
    """Whether a name has the form of a run's id."""
    return _ID.fullmatch(name) is not None


def find(workspace: Path, name: str) -> Run:
    """The run of an id or its beginning, `latest`, or a folder that holds one (kept elsewhere, or a workspace).

    Raises:
        KitError: there is none, or more than one.
    """
    kept = all_runs(workspace)
    matching = kept[-1:] if name == "latest" else [run for run in kept if run.folder.name.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if not matching and (Path(name) / "manifest.json").is_file():
        return Run(Path(name))
    ids = ", ".join(run.folder.name for run in matching or kept) or "none is kept yet"
    raise KitError(f"{name!r} names {'no' if not matching else 'more than one'} run; those there: {ids}")


def prune(workspace: Path, keep_newest: int, dry: bool) -> None:
    """Remove all but the newest runs.

    Raises:
        KitError: none would be left.
    """
    if keep_newest < 1:
        raise KitError(f"--keep {keep_newest} would leave no run; keep at least 1")
    kept = all_runs(workspace)
    if len(kept) <= keep_newest:
        say(f"{workspace / FOLDER}: {len(kept)} runs are kept, so there is none to remove")
    for run in kept[:-keep_newest]:
        say(f"  {'would remove' if dry else 'removed'} {run.folder}")
        if not dry:
            shutil.rmtree(run.folder)


def print_runs(workspace: Path) -> Outcome:
    """List them; for programs the verdict's figures of each."""
    kept = all_runs(workspace)
    if not kept:
        say(f"{workspace / FOLDER}: no run is kept yet; `make score` keeps one for every verdict")
        return Outcome({"runs": []})
    grid = Table()
    for heading in ("run", "device", "accuracy", "samples/s", "verdict"):
        grid.add_column(heading, no_wrap=heading == "run", overflow="fold")
    listed = []
    for run in kept:
        with reject_malformed(run.folder):
            grid.add_row(run.folder.name, *_row(run.summary))
            listed.append({"id": run.folder.name, "folder": str(run.folder), **brief(run.summary)})
    console.print(grid)
    return Outcome({"runs": listed})


def by_size(summary: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """The rows of a verdict's batch sizes."""
    return {batch["batch_size"]: batch for batch in summary["batches"]}


def brief(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a verdict says in few words, for programs."""
    keys = [metric["key"] for metric in summary.get("metrics", [])]
    batches = [
        {
            "batch_size": batch["batch_size"],
            "metrics": {key: batch[key] for key in keys},
            "throughput": batch["throughput"]["median"] if batch["throughput"] else None,
            "passed": batch["passed"],
        }
        for batch in summary["batches"]
    ]
    return {
        "model": summary.get("model", {}).get("name"),
        "device": summary["device"],
        "samples": summary["samples"],
        "batches": batches,
        "passed": summary["verdict"]["passed"],
    }


def _row(summary: dict[str, Any]) -> list[str]:
    device, batches = summary["device"], summary["batches"]
    rates = [batch["throughput"]["median"] for batch in batches if batch["throughput"]]
    return [
        device["soc_version"] + mark(device["simulated"], device.get("health")),
        _accuracy(summary),
        f"{max(rates):.2f}" if rates else "not measured",
        "PASSED" if summary["verdict"]["passed"] else "FAILED",
    ]


def _accuracy(summary: dict[str, Any]) -> str:
    """The first metric, over the batch sizes; runs of earlier versions do not name theirs."""
    if "metrics" not in summary:
        return ""
    metric = summary["metrics"][0]
    values = [batch[metric["key"]] for batch in summary["batches"]]
    texts = dict.fromkeys(shown(value, metric["unit"]) for value in (min(values), max(values)))
    return f"{metric['title']} {' to '.join(texts)}"
