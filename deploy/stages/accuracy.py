"""Every sample through one OM: shared out over the devices, matched to its result by name, packed sample by sample."""

from __future__ import annotations

import io
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deploy.connections import Connections
from deploy.console import progress, say
from deploy.errors import KitError
from deploy.evidence.logits import DIGESTS, DeviceLogits, output_names, write_logits
from deploy.execution.engine import workers
from deploy.execution.worker import Copy, Place, Rows, Worker, rows_of
from deploy.hosts import transfer
from deploy.hosts.host import Completed, Host
from deploy.hosts.job import Job, job_name
from deploy.npu import ais_bench, results
from deploy.npu.device import naming
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import Step, key_of
from deploy.pipeline.model import Model, run_command
from stgcn import npy, plain_json
from stgcn.files import atomic_write

UNIT_ROWS = 4096  # of one ais_bench process at most: what a cut costs, against what a model's load costs
UNITS_A_DEVICE = 4  # with several devices: small enough that the last one to finish is not waited for long
SUMMARY_BYTES = 256 << 20  # of ais_bench's, which names every row of a unit
Outputs = Sequence[np.ndarray]  # one array per output of the model
RESULTS = "results"  # the folder that ais_bench is told to write


@dataclass(frozen=True)
class Unit:
    """Rows first..first+count-1, a whole number of batches but for the dataset's last."""

    first: int
    count: int

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True)
class Span:
    """When one ais_bench ran, in seconds of one clock."""

    start: float
    end: float
    samples: float  # as many as the rows that it ran make


def plan(rows: int, batch_size: int, devices: int) -> list[Unit]:
    """Cut a dataset into units. Batches hold the same rows however many devices share them."""
    count = UNIT_ROWS if devices == 1 else min(UNIT_ROWS, -(-rows // (UNITS_A_DEVICE * devices)))
    count = -(-count // batch_size) * batch_size
    return [Unit(first, min(count, rows - first)) for first in range(0, rows, count)]


def join(parts: Mapping[Unit, Outputs], rows: int) -> Outputs:
    """Of each output the (rows, ...) values of units that hold every row exactly once.

    Raises:
        KitError: naming the first row that no unit or more than one holds.
    """
    held = np.zeros(rows, np.int64)
    for unit in parts:
        held[unit.first : unit.end] += 1
    if wrong := np.flatnonzero(held != 1).tolist():
        raise KitError(
            f"sample {wrong[0]} was run {held[wrong[0]]} times, not once ({len(wrong)} of {rows} were not); "
            "run `fab npu-bench --fresh`"
        )
    ordered = [parts[unit] for unit in sorted(parts, key=lambda unit: unit.first)]
    return [np.concatenate(values) for values in zip(*ordered, strict=True)]


def aggregate(spans: Sequence[Span]) -> dict[str, Any] | None:
    """What the devices did together: all samples over the wall time from the first start to the last end.

    Rates of devices that overlap are never summed: each is taken over a window of its own.
    """
    if not spans:
        return None
    samples = sum(span.samples for span in spans)
    seconds = max(span.end for span in spans) - min(span.start for span in spans)
    return {"samples": round(samples), "seconds": round(seconds, 3), "samples_per_s": round(samples / seconds, 3)}


def run(connections: Connections, build: Build, index: Index) -> None:
    """Make <folder>/logits.npy and results.tsv: every sample of `index` through the build's OM, on all devices.

    Raises:
        KitError: no device is left that can do it, or the OM is not made yet; what was done is kept for the next run.
    """
    connections.run_step(_step(connections, build, index))
    if not connections.options.dry:
        for kept in build.folder.glob(".units-*"):  # this run's, or an earlier one's that was cut and never went on
            shutil.rmtree(kept)


def _step(connections: Connections, build: Build, index: Index) -> Step:
    workspace = connections.workspace
    samples = workspace.samples(build.persons)
    workspace.om(build)
    step = f"accuracy/{build.name}"
    inputs = {
        **graph.inputs(workspace.manifest.steps, step, connections.inventory, build),
        **connections.npus[0].facts.tools,
    }
    if index.samples != samples.samples:
        inputs["samples"] = index.samples
        samples = samples.head(index.samples)
    devices = workers(connections.npus)
    units = plan(samples.row_count, build.batch_size, len(devices))
    run = _Run(connections, build, samples, inputs, units, devices)
    outputs = [build.folder / name for name in (*output_names(build.card), DIGESTS)]
    inferences = [run.inference(unit) for unit in units]
    commands = [devices[0].runtime.argv(inference.command(devices[0])) for inference in inferences]
    prepare = [argv for inference in inferences for argv in inference.link_argvs(devices[0])]
    where = ", ".join(map(str, devices))
    return Step(step, where, inputs, outputs, run.all, commands, prepare)


@dataclass(frozen=True)
class _Run:
    """Every sample through one OM: its units, kept as they end, joined at the last."""

    connections: Connections
    build: Build
    index: Index  # of what the device is given
    inputs: dict[str, Any]
    units: Sequence[Unit]
    devices: Sequence[Worker]

    def all(self) -> dict[str, Any]:
        """Run every unit somewhere, keep each one's logits as it ends, join them at the last."""
        # Asked first: a host that is lost meanwhile cannot tell.
        eras = {str(npu): npu.era for npu in self.connections.npus}
        facts = {**self.connections.npus[0].facts.record, **self.connections.npus[0].runtime.facts()}
        if self.connections.options.fresh:
            shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir(parents=True, exist_ok=True)
        todo = [unit for unit in self.units if self._read_kept(unit) is None]
        self.connections.engine.send(self.build.om, self.index)
        spans: list[Span] = []
        ran = Counter(dict.fromkeys(map(str, self.devices), 0))
        with progress(f"{self.build.name} accuracy", self.index.row_count) as advance:
            advance(sum(unit.count for unit in self.units if unit not in todo))

            def one(place: Place, unit: Unit) -> None:
                inferred = place.do(self.inference(unit), self.build.folder)
                for output, values in enumerate(inferred.outputs):
                    with atomic_write(self._path(unit, output)) as stream:
                        np.save(stream, values)
                end = time.monotonic()
                spans.append(Span(end - inferred.seconds, end, unit.count / self.index.rows_per_sample))
                ran[inferred.where] += 1
                advance(unit.count)

            self.connections.engine.on_devices(todo, one)
        parts = {unit: part for unit in self.units if (part := self._read_kept(unit)) is not None}
        outputs = self._of_samples(join(parts, self.index.row_count))
        write_logits(DeviceLogits(self.index.names, outputs), self.build.folder, self.build.card)
        together = aggregate(spans)
        marked = self.connections.npus[0].facts.mark
        rate = f", {together['samples_per_s']:.2f} samples/s together{marked}" if together else ""
        where = f"{len(self.devices)} devices" if len(self.devices) > 1 else str(self.devices[0])
        alone = f", as {self.index.row_count} single persons" if self.build.persons == "nonempty" else ""
        say(f"    {self.build.name}: {self.index.samples} samples{alone}, each once, over {where}{rate}", "dim")
        return {**facts, "eras": eras, "units": dict(ran), "aggregate": together}

    def _of_samples(self, rows: Outputs) -> Outputs:
        """The samples' outputs, which the model's package folds from those of their rows."""
        if self.index.rows is None:
            return rows
        return fold(
            self.connections.workspace.model,
            self.connections.workspace.artefact(f"gpu/{self.index.file}"),
            self.index,
            rows,
            self._kept,
        )

    def inference(self, unit: Unit) -> Inference:
        every = rows_of(self.index, self.connections.workspace.index_sha256(self.index))
        needed = [[s for s in each.shards if s.first < unit.end and unit.first < s.end] for each in every]
        return Inference(
            job=job_name(self.inputs, f"accuracy-bs{self.build.batch_size}-{unit.first}"),
            model=Copy(self.build.om.name, self.inputs["om"]),
            inputs=[replace(each, shards=shards) for each, shards in zip(every, needed, strict=True)],
            build=self.build,
            unit=unit,
            names=[self.index.row_name(row) for row in range(unit.first, unit.end)],
            timeout_s=self.connections.inventory.timeout_s,
            fresh=self.connections.options.fresh,
        )

    @property
    def _kept(self) -> Path:
        """Where units that are done wait for the others, kept through a cut."""
        return self.build.folder / f".units-{key_of(self.inputs)[:12]}"

    def _path(self, unit: Unit, output: int) -> Path:
        return self._kept / f"{unit.first}+{unit.count}.{output}.npy"

    def _read_kept(self, unit: Unit) -> Outputs | None:
        """A unit's outputs as an earlier run left them, None where it left none that are whole."""
        tensors = self.build.card.outputs
        try:
            outputs = [npy.load(self._path(unit, i)) for i in range(len(tensors))]
        except (OSError, ValueError):
            return None
        whole = all(
            (values.dtype, values.shape) == (np.dtype(tensor.dtype), (unit.count, *tensor.shape))
            for values, tensor in zip(outputs, tensors, strict=True)
        )
        return outputs if whole else None


def fold(model: Model, path: Path, index: Index, rows: Outputs, scratch: Path) -> Outputs:
    """The samples' outputs from those of their rows, by the package's command; `path` is the index's file.

    Raises:
        KitError: the command's own sentence, or it made something else than an array per output.
    """
    before, after = ([scratch / f"{name}-{i}.npy" for i in range(len(rows))] for name in ("rows", "samples"))
    for place, values in zip(before, rows, strict=True):
        np.save(place, values)
    options = ["--index", str(path), "--samples", str(index.samples), "--rows", ",".join(map(str, before))]
    run_command(model, "fold", *options, "--outputs", ",".join(map(str, after)))
    try:
        folded = [npy.load(place) for place in after]
    except (OSError, ValueError) as error:
        raise KitError(f"{model.card.package}.fold left no arrays ({error}); correct the model's package") from None
    if any(len(values) != index.samples for values in folded):
        raise KitError(f"{model.card.package}.fold did not give {index.samples} samples; correct the model's package")
    return folded


# Lays out an input's folder as `Inference._prepare` does: rows first..last, then copies of the last batch's first row.
_LINK = """mkdir -p "$1"
for ((i = $2; i <= $3; i++)); do ln -f "$6"/*/"$i.bin" "$1/$i.bin"; done
for ((i = $3 + 1; i <= $3 + $5; i++)); do ln -f "$6"/*/"$4.bin" "$1/$i.bin"; done"""


@dataclass(frozen=True)
class Inferred:
    outputs: Outputs  # each (count, ...)
    where: str
    seconds: float  # that ais_bench took


@dataclass(frozen=True)
class Inference:
    """One unit through an OM on one device."""

    job: str
    model: Copy  # the OM
    inputs: Sequence[Rows]  # of each input, those that hold the unit's rows
    build: Build
    unit: Unit
    names: list[str]  # of the samples that the unit's rows belong to
    timeout_s: float
    fresh: bool

    def __str__(self) -> str:
        return f"accuracy/{self.build.name}, samples {self.unit.first} to {self.unit.end - 1}"

    def __call__(self, worker: Worker, folder: Path) -> Inferred:
        job = Job(worker.npu.host, self.job)
        log = folder / f"ais_bench-{self.unit.first}.log"
        with job.begun(self.fresh) as begun:
            if not begun:
                self._prepare(worker)
            start = time.monotonic()
            done = worker.runtime.run(
                self.command(worker), folder=job.folder, log=log, timeout_s=self.timeout_s, job=job.name
            )
            seconds = time.monotonic() - start
            with naming(str(worker)):
                self._check_ending(done)
                outputs = self._collect(worker.npu.host, folder)
        return Inferred(outputs, str(worker), seconds)

    def command(self, worker: Worker) -> list[str]:
        folder = self._folder(worker)
        return ais_bench.infer_argv(
            worker.npu.section.tools.python,
            str(self.model.on(worker.npu.host)),
            [str(folder / name) for name in self._input_folders()],
            str(folder / "output"),
            RESULTS,
            worker.number,
            self.build.batch_size,
        )

    def link_argvs(self, worker: Worker) -> list[list[str]]:
        """What lays out the folders on the host by hand, for reproduce.sh."""
        stems, fillers = self._stems()
        span = [stems[0], stems[-1], str(self._last_batch), str(len(fillers))]
        folder, host = self._folder(worker), worker.npu.host
        pairs = zip(self._input_folders(), self.inputs, strict=True)
        laid = [
            ["bash", "-c", _LINK, "bash", str(folder / name), *span, str(rows.folder(host))] for name, rows in pairs
        ]
        return [*laid, ["mkdir", "-p", str(folder / "output")]]

    def _input_folders(self) -> list[str]:
        """The folder of each input: ais_bench takes one for each, in the model's order."""
        return ["input", *(f"input-{tensor.name}" for tensor in self.build.card.inputs[1:])]

    def _folder(self, worker: Worker) -> PurePosixPath:
        return Job(worker.npu.host, self.job).folder

    def _prepare(self, worker: Worker) -> None:
        """Make the folders that ais_bench reads and writes anew, so that nothing stale is in them.

        Eras differ in what they do with a partial batch, so the kit fills it itself, as newer tools do, with copies of
        the batch's first row.
        """
        host, folder = worker.npu.host, self._folder(worker)
        stems, fillers = self._stems()
        for name, rows in zip(self._input_folders(), self.inputs, strict=True):
            files = {f"{stem}.bin": str(rows.path(host, int(stem))) for stem in stems}
            last_batch = str(rows.path(host, self._last_batch))
            files |= {f"{stem}.bin": last_batch for stem in fillers}
            host.call("link", {"folder": str(folder / name), "files": files})
        host.call("link", {"folder": str(folder / "output"), "files": {}})

    def _stems(self) -> tuple[list[str], list[str]]:
        """The names, without suffix, of the rows' files and of those that fill the last batch, which follow them."""
        fillers = -self.unit.count % self.build.batch_size
        end = self.unit.end
        return [str(i) for i in range(self.unit.first, end)], [str(i) for i in range(end, end + fillers)]

    @property
    def _last_batch(self) -> int:
        """The first row of the last batch."""
        return self.unit.first + (self.unit.count - 1) // self.build.batch_size * self.build.batch_size

    def _check_ending(self, done: Completed) -> None:
        if done.status != 0:
            raise ais_bench.failure(done.output, done.status)
        size = ais_bench.files_per_batch(done.output)
        if size is not None and size != self.build.batch_size:
            raise KitError(
                f"{self.build.om.name} takes batches of {size}, not of {self.build.batch_size}; "
                "run `fab npu-convert --fresh`"
            )

    def _collect(self, host: Host, into: Path) -> Outputs:
        """The unit's outputs, each row from the result file that the tool names for its row."""
        top = Job(host, self.job).folder / "output"
        found: dict[str, int] = host.call("listing", {"folder": str(top)})
        place = next((p for p in results.summary_places(RESULTS) if p in found), None)
        summary = _summary(host, top / place) if place else None
        listing = {name[len(RESULTS) + 1 :]: size for name, size in found.items() if name.startswith(RESULTS + "/")}
        return [self._output(host, i, listing, summary, into) for i in range(len(self.build.card.outputs))]

    def _output(self, host: Host, output: int, listing: Mapping[str, int], summary: Any, into: Path) -> np.ndarray:
        """The unit's values (count, ...) of one output."""
        folder, tensor = Job(host, self.job).folder, self.build.card.outputs[output]
        if len(self.build.card.outputs) > 1:
            listing, summary = results.only_output(listing, summary, output)
        stems, fillers = self._stems()
        there = str(folder / "output" / RESULTS)
        names = results.match_results(listing, summary, stems, set(fillers), there, tensor.row_bytes)
        packed = folder / "packed"
        host.call("pack", {"folder": there, "names": names, "path": str(packed)})
        local = into / f".{self.unit.first}.raw"
        transfer.get(host, packed, local)
        raw = local.read_bytes()
        local.unlink()
        if len(raw) != self.unit.count * tensor.row_bytes:
            raise KitError(
                f"{len(raw)} bytes came back of {self.unit.count} results of {tensor.row_bytes}; run it again"
            )
        values = np.frombuffer(raw, tensor.dtype).reshape(self.unit.count, *tensor.shape)
        if values.dtype.kind == "f":
            self._refuse_infinite(values)
        return values

    def _refuse_infinite(self, values: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if bad.size:
            row = int(bad[0])
            raise KitError(
                f"the result of sample {self.unit.first + row} ({self.names[row]}) has NaN or infinite logits"
                f" ({bad.size} of {self.unit.count} results do); convert with another precision_mode"
            )


def _summary(host: Host, path: PurePosixPath) -> Any:
    stream = io.BytesIO()
    host.call("send", {"path": str(path)}, sink=transfer.Limited(stream, SUMMARY_BYTES, f"{host.name}: {path}"))
    try:
        return plain_json.loads(stream.getvalue())
    except ValueError:
        return None  # a torn summary names nothing: the files' own names do
