"""`fab audit`: what a verdict rests on, computed again link by link, up to the first that does not hold.

docs/evidence.md says what that shows, and what only a signature can.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.console import say
from deploy.errors import KitError, reject_malformed
from deploy.evidence import chain, recompute, records, runs, seal, signature
from deploy.evidence.differences import refuse_any_difference
from deploy.evidence.elsewhere import require_run
from deploy.evidence.recompute import Dataset
from deploy.evidence.runs import Run
from deploy.inventory import Inventory, local_path
from deploy.outcome import Check, Outcome
from deploy.pipeline import artefacts, graph, reproduce
from deploy.pipeline.manifest import Manifest, digest_of
from deploy.pipeline.model import Model, published
from deploy.report import page
from deploy.report.drawings import Drawings
from deploy.report.summary import summary
from deploy.report.table import to_csv
from deploy.stages import report, score
from deploy.workspace import Workspace
from stgcn import plain_json
from stgcn.files import read_record, sha256_file, sha256_input

Json = Any


def print_audit(workspace: Workspace, name: str, samples: int = recompute.SAMPLES) -> Outcome:
    """Audit the workspace, or the kept run of that name; the outputs of so many samples are computed again.

    Raises:
        KitError: naming the first thing that does not hold.
    """
    if samples < 1:
        raise KitError(f"--samples {samples} computes nothing again; give 1 or more")
    if not name:
        require_run(workspace, "audit")
    run = runs.find(workspace.folder, name) if name else Run(workspace.folder)
    say(f"audit of {run.folder}", "bold")
    held: list[Check] = []
    with TemporaryDirectory() as scratch:
        audit = Audit(run, workspace.inventory, workspace.model, workspace.local_files(), samples, Path(scratch))
        try:
            with reject_malformed(run.folder):
                for link, check in audit.links():
                    check()
                    say(f"  ✓ {link}", "green")
                    held.append(Check(run.folder.name, link, True))
        except KitError as error:
            failed = Check(run.folder.name, "the first failed check", False, str(error))
            error.outcome = Outcome({"passed": False, "run": {"folder": str(run.folder)}}, [*held, failed])
            raise
    for note in audit.notes:
        say(f"  not recomputed: {note}", "yellow")
        held.append(Check(run.folder.name, "not recomputed", None, note))
    kept = audit.sealed
    say(f"{kept.id} holds: {run.summary['samples']} samples, {audit.vouched}", "bold green")
    facts = {"id": kept.id, "folder": str(run.folder), "signature": audit.vouched}
    return Outcome({"passed": True, "run": facts}, held)


def digest_once() -> Callable[[Path], str]:
    """`sha256_file`, of a file that stays the same (by its inode, size and times) once: checks come to one by several
    ways, and a kept run's may be a link to the workspace's."""
    known: dict[tuple[int, ...], str] = {}

    def digest(path: Path) -> str:
        status = path.stat()
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in known:
            known[key] = sha256_file(path)
        return known[key]

    return digest


@dataclass
class Audit:
    """A run and what it is checked against."""

    run: Run
    inventory: Inventory
    model: Model
    files: Mapping[str, Path]  # data, labels and checkpoint, where they lie on this machine
    samples: int
    scratch: Path
    notes: list[str] = field(default_factory=list)  # what could not be computed again here, and why
    vouched: str = "unsigned"

    def __post_init__(self) -> None:
        self._manifest.digest = digest_once()

    def links(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """(link, what raises KitError where it does not hold), from the dataset on."""
        verdict = self._verdict
        yield "the record of the verdict", self._check_record
        yield "the inventory's gate and batch sizes", self._check_inventory
        for name in graph.steps(verdict["inputs"]["batch_sizes"]):
            if not graph.kind_of(name).apart or name in verdict["inputs"]["entries"]:
                yield name, partial(self._check_step, name)
        yield "the index and the labels, of the dataset", self._check_index
        yield f"the reference of {self.samples} samples, of the ONNX", self._check_reference
        yield "score", self._check_score
        yield "report", self._check_page
        yield f"{reproduce.NAME} of every stage", self._check_scripts
        if not self.run.is_kept:
            others = partial(chain.check_others, self._manifest, self.model, verdict["inputs"]["entries"])
            yield "other steps' files", others
        yield "the seal", self._check_seal
        yield "the signature", self._check_signature

    @property
    def _manifest(self) -> Manifest:
        return self.run.manifest

    @cached_property
    def _verdict(self) -> dict[str, Json]:
        manifest = self._manifest
        if not manifest.steps:
            raise KitError(f"{manifest.path}: there is no manifest; run `make gpu-stage` first")
        graph.check(manifest.steps, "score")
        return manifest.steps["score"]

    @cached_property
    def sealed(self) -> Run:
        """The kept run: this one, or that which the workspace's verdict was kept as.

        Raises:
            KitError: it was not.
        """
        if self.run.is_kept:
            return self.run
        kept = runs.kept_as(self._manifest)
        if kept is None:
            raise KitError(f"{self.run.folder}: no kept run is sealed with these entries; run `make score`")
        return kept

    @cached_property
    def _dataset(self) -> Dataset | None:
        """The dataset, where it is at hand."""
        missing = [name for name in ("data", "labels") if name not in self._at_hand]
        if missing:
            self.notes.append(f"the index and the reference, for {' and '.join(missing)} of the dataset are not here")
            return None
        try:
            return Dataset(self.model, self._at_hand["data"], self._at_hand["labels"], self.scratch)
        except KitError as error:
            self.notes.append(f"the index and the reference, for the model's `index` does not run here ({error})")
            return None

    @cached_property
    def _at_hand(self) -> Mapping[str, Path]:
        """The files from outside the workspace that are here. What made a workspace must still be; a kept run may be
        audited elsewhere.

        Raises:
            KitError: naming the one that is gone.
        """
        if self.inventory.gpu.connection != "local":
            self.notes.append("the sha256 of the dataset and the checkpoint, which lie on the GPU host")
        found = {}
        for path, step, _ in score.source_files(self._manifest.steps, self.files):
            name = next(name for name, file in self.files.items() if file == path)
            if path.exists():
                found[name] = path
            elif self.run.is_kept:
                self.notes.append(f"the sha256 of {name}, for {path} is not here")
            else:
                raise KitError(f"{path}: missing, although {step} read it; bring it back or correct the inventory")
        return found

    def _check_record(self) -> None:
        """The page's entry is of this verdict, on whose entries all the rest hangs."""
        records.check(self._manifest.path, _read_json(self._manifest.path), records.ManifestFile)
        graph.refuse_future(self._manifest.steps)
        if "export" in self._manifest.steps:
            artefacts.exported_card(self._manifest)  # an earlier version's run has none
        entry = self._manifest.steps.get("report")
        if entry and entry["inputs"]["verdict"] != digest_of(self._verdict):
            raise KitError(f"{self._manifest.path}: report is of another verdict than score's entry; run `make report`")

    def _check_inventory(self) -> None:
        """Whether the verdict was reached by the inventory's gate, batch sizes and published accuracy."""
        inputs, path = self._verdict["inputs"], self._manifest.path
        left_out = sorted(set(self.inventory.batch_sizes) - set(inputs["batch_sizes"]))
        if left_out:
            what = f"batch size {', '.join(map(str, left_out))}: in the inventory and not in the verdict"
            if not self.run.is_kept:
                raise KitError(f"{what}, so the run is partial")
            self.notes.append(what)
        gate, wanted = inputs["gate"], self.inventory.gate
        if gate > wanted or (gate != wanted and not self.run.is_kept):
            raise KitError(
                f"{path}: the verdict's gate was {gate:g}, and the inventory's is {wanted:g}; run `make score`"
            )
        accuracy = published(self.inventory, self.model.card)
        refuse_any_difference(path, {"reference": accuracy}, {"reference": inputs["reference"]}, "inventory and model")

    def _check_step(self, name: str) -> None:
        """One step: it is the one that the verdict rests on, and its files are those that it made."""
        entries = self._manifest.steps
        graph.check(entries, name)
        for path, step, recorded in score.source_files(entries, self._at_hand):
            if step == name and sha256_input(path) != recorded:
                raise KitError(f"{path}: changed since {name} read it (sha256 {recorded[:12]} then)")
        try:
            chain.check_step(self._manifest, name, self.model)
        except KitError:
            if name == "preprocess":
                self._check_index()  # it names the label
            raise
        expected = self._verdict["inputs"]["entries"].get(name)
        if expected is None:
            raise KitError(f"{name}: the verdict was reached without it, so the run is partial; run `make score`")
        if digest_of(entries[name]) != expected:
            raise KitError(f"{name}: its manifest entry is not the one that the verdict rests on; run `make score`")

    def _check_index(self) -> None:
        if self._dataset:
            recompute.check_index(self._manifest, self._dataset)
        elif "labels" in self._at_hand and "labels" in self.model.card.capabilities:
            recompute.check_labels(self._manifest, self.model, self._at_hand["labels"], self.scratch)

    def _check_reference(self) -> None:
        if self._dataset:
            samples = recompute.choose(self._seed, self.samples, artefacts.dataset_index(self._manifest).samples)
            recompute.check_reference(self._manifest, self.model, self._dataset.read_row, samples, self.scratch)

    @property
    def _seed(self) -> str:
        """What chooses the samples: the run's digest, so that whoever made the run could not choose them first."""
        with suppress(KitError):
            return seal.digest(self.sealed.folder)
        return digest_of(self._verdict)  # it is not sealed, which is found further on

    def _check_score(self) -> None:
        """summary.json and summary.csv follow from the logits, labels and figures."""
        manifest, verdict = self._manifest, self._verdict
        self._refuse_other_kit(verdict, score.sources())
        graph.check_time(manifest.steps, "score")
        folder = manifest.workspace / "report"
        path, rows = folder / "summary.json", folder / "summary.csv"
        found, expected = _read_json(path), summary(score.evidence(manifest, self.model, verdict["inputs"]))
        refuse_any_difference(path, expected, found, "logits, labels and figures")
        _check_rows(rows, to_csv(found))
        records.check(path, found, records.Summary)
        facts = {"simulated": found["device"]["simulated"], "passed": found["verdict"]["passed"]}
        refuse_any_difference(manifest.path, {"facts": facts}, {"facts": verdict["facts"]}, "the summary")
        for relative, output in verdict["outputs"].items():
            chain.check_output(manifest, "score", relative, output["sha256"])

    def _check_page(self) -> None:
        """The page is what is made again of the summary, the manifest and the clips, byte for byte."""
        manifest = self._manifest
        graph.check(manifest.steps, "report")
        graph.check_time(manifest.steps, "report")
        entry, path = manifest.steps["report"], manifest.workspace / "report" / report.PAGE
        try:
            text = read_record(path).decode("utf-8")
            shown = page.embedded_summary(text)
        except (OSError, ValueError) as error:
            raise KitError(f"{path}: missing or damaged ({error}); run `make report`") from None
        stored = _read_json(path.with_name("summary.json"))
        refuse_any_difference(path, stored, shown, "summary.json")
        name = f"report/{report.PAGE}"
        chain.check_output(manifest, "report", name, entry["outputs"][name]["sha256"])
        self._refuse_other_kit(entry, report.sources())
        again = report.render(manifest, stored, self._drawings(text), self._previous())
        for number, (line, expected) in enumerate(zip(text.split("\n"), again.split("\n"), strict=False), start=1):
            if line != expected:
                raise KitError(f"{path}: line {number} is not what summary, manifest and clips give; run `make report`")
        if text != again:
            raise KitError(f"{path}: not as long as what summary, manifest and clips give; run `make report`")

    def _drawings(self, text: str) -> Drawings:
        """Those of the page's samples, drawn again; without the dataset, the page's own."""
        drawn = self._manifest.steps["report"]["facts"]["drawn"]
        dataset = self._dataset
        if dataset is None:
            self.notes.append("the page's drawings of samples")
            return page.embedded_drawings(text)
        return report.draw_samples(self.model, artefacts.dataset_index(self._manifest), drawn, dataset.read_row)

    def _previous(self) -> page.Previous | None:
        """The earlier run that the page compares with, whose figures are those of that run where it is still here."""
        previous = report.previous_of(self._manifest.steps["report"]["inputs"])
        if previous is None:
            return None
        folder = self.run.folder.parent if self.run.is_kept else self.run.folder / runs.FOLDER
        earlier = Run(folder / previous.run)
        if not earlier.is_kept:
            self.notes.append(f"the figures of the earlier run {previous.run} on the page, for it is not here")
        elif report.medians(earlier.summary) != previous.throughput:
            raise KitError(f"{self._manifest.path}: the report's figures of {previous.run} are not that run's")
        return previous

    def _check_scripts(self) -> None:
        steps = self._manifest.steps
        for folder, names in graph.folders(steps).items():
            path, text = self._manifest.workspace / folder / reproduce.NAME, reproduce.script(steps, names)
            if text is not None and not reproduce.holds(path, text):
                raise KitError(f"{path}: missing, or not the commands that the manifest records; run `make score`")

    def _check_seal(self) -> None:
        kept = self.sealed
        seal.check(kept.folder, self._manifest.digest)
        if foreign := runs.foreign(kept):
            raise KitError(f"{kept.folder / foreign}: foreign, it is none of what the verdict rests on")
        named = kept.folder.resolve().name
        if (kept.folder.resolve().parent.name == runs.FOLDER or runs.is_id(named)) and named != kept.id:
            raise KitError(f"{kept.folder}: its name is not the id of what it holds ({kept.id})")
        if kept is not self.run:
            sealed = {name: digest for name, digest in seal.read(kept.folder).items() if name != "manifest.json"}
            seal.check_files(self.run.folder, sealed, self._manifest.digest)

    def _check_signature(self) -> None:
        named = (self.inventory.sign, self.inventory.allowed_signers)
        key, allowed = (local_path(path) if path else None for path in named)
        announced = self._verdict["inputs"].get("signer")
        self.vouched = signature.check(self.sealed.folder, announced, key, allowed)

    def _refuse_other_kit(self, entry: Mapping[str, Json], sources: str) -> None:
        """What another version of the kit made cannot be made again by this one."""
        if entry["inputs"]["sources"] != sources:
            raise KitError(
                f"{self.run.folder}: made by another version of the kit (revision {entry['revision']}); audit it with "
                "that one, or run `make score` again"
            )


def _check_rows(path: Path, expected: str) -> None:
    """The CSV's rows, the first that differs named by its batch size."""
    try:
        text = read_record(path).decode("utf-8")
        there = _csv(text)
    except (OSError, UnicodeDecodeError, csv.Error):
        raise KitError(f"{path}: missing or damaged, although score made it; run `make score`") from None
    wanted = _csv(expected)
    found = {row[0]: row for row in there if row}
    for row in wanted:
        if row[0] not in found:
            raise KitError(f"{path}: the row of batch size {row[0]} is missing")
        if found[row[0]] != row:
            column = next((c for c, a, b in zip(wanted[0], row, found[row[0]], strict=False) if a != b), "its length")
            raise KitError(f"{path}: {column} of batch size {row[0]} does not follow from summary.json")
    if text != expected:
        raise KitError(f"{path}: not the rows that follow from summary.json")


def _csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def _read_json(path: Path) -> Json:
    try:
        return plain_json.load(path)
    except (OSError, ValueError):
        raise KitError(f"{path}: missing or damaged; run `make score`") from None
