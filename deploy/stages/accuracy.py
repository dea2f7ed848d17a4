"""Every sample through one OM: shared out over the devices, matched to its result by name, packed as (n, 400)."""

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

from deploy.console import progress, say
from deploy.context import Context, Job, job_name
from deploy.errors import KitError
from deploy.evidence.logits import DIGESTS, LOGITS, RESULT_BYTES, DeviceLogits, write_logits
from deploy.execution.engine import workers
from deploy.execution.worker import Clips, Copy, Place, Worker
from deploy.hosts import transfer
from deploy.hosts.host import Completed, Host
from deploy.npu import ais_bench, results
from deploy.npu.device import naming
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import Step, key_of
from stgcn import npy, plain_json
from stgcn.dataset import CLASSES
from stgcn.files import atomic_write
from stgcn.index import Index

UNIT_CLIPS = 4096  # of one ais_bench process at most: what a cut costs, against what a model's load costs
UNITS_A_DEVICE = 4  # with several devices: small enough that the last one to finish is not waited for long
SUMMARY_BYTES = 256 << 20  # of ais_bench's, which names every clip of a unit
RESULTS = "results"  # the folder that ais_bench is told to write


@dataclass(frozen=True)
class Unit:
    """Samples first..first+count-1, a whole number of batches but for the dataset's last."""

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
    clips: float  # as many as the samples that it ran make


def plan(samples: int, batch_size: int, devices: int) -> list[Unit]:
    """Cut a dataset into units. Batches hold the same samples however many devices share them."""
    clips = UNIT_CLIPS if devices == 1 else min(UNIT_CLIPS, -(-samples // (UNITS_A_DEVICE * devices)))
    clips = -(-clips // batch_size) * batch_size
    return [Unit(first, min(clips, samples - first)) for first in range(0, samples, clips)]


def join(parts: Mapping[Unit, np.ndarray], samples: int) -> np.ndarray:
    """The (samples, 400) logits of units that hold every sample exactly once.

    Raises:
        KitError: naming the first sample that no unit or more than one holds.
    """
    held = np.zeros(samples, np.int64)
    logits = np.empty((samples, CLASSES), np.float32)
    for unit, part in parts.items():
        held[unit.first : unit.first + unit.count] += 1
        logits[unit.first : unit.first + unit.count] = part
    if wrong := np.flatnonzero(held != 1).tolist():
        raise KitError(
            f"sample {wrong[0]} was run {held[wrong[0]]} times, not once ({len(wrong)} of {samples} were not); "
            "run `fab npu-bench --fresh`"
        )
    return logits


def aggregate(spans: Sequence[Span]) -> dict[str, Any] | None:
    """What the devices did together: all clips over the wall time from the first start to the last end.

    Rates of devices that overlap are never summed: each is taken over a window of its own.
    """
    if not spans:
        return None
    clips = sum(span.clips for span in spans)
    seconds = max(span.end for span in spans) - min(span.start for span in spans)
    return {"samples": round(clips), "seconds": round(seconds, 3), "samples_per_s": round(clips / seconds, 3)}


def perform(context: Context, build: Build, index: Index) -> None:
    """Make <folder>/logits.npy and results.tsv: every clip of `index` through the build's OM, on all devices.

    Raises:
        KitError: no device is left that can do it, or the OM is not made yet; what was done is kept for the next run.
    """
    context.perform(_step(context, build, index))
    if not context.dry:
        for kept in build.folder.glob(".units-*"):  # this run's, or an earlier one's that was cut and never went on
            shutil.rmtree(kept)


def _step(context: Context, build: Build, index: Index) -> Step:
    samples = context.samples(build.persons)
    inputs = {
        **context.model_sha256(build),
        "dataset": context.index_sha256(samples),
        "batch_size": build.batch_size,
        "persons": build.persons,
        **context.npus[0].facts.tools,
        **context.inventory.environment,
    }
    if index.clips != samples.clips:
        inputs["samples"] = index.clips
        samples = samples.head(index.clips)
    devices = workers(context.npus)
    units = plan(samples.samples, build.batch_size, len(devices))
    run = _Run(context, build, samples, index.names, inputs, units, devices)
    outputs = [build.folder / LOGITS, build.folder / DIGESTS]
    inferences = [run.inference(unit) for unit in units]
    commands = [devices[0].runtime.argv(inference.command(devices[0])) for inference in inferences]
    prepare = [inference.link_argv(devices[0]) for inference in inferences]
    where = ", ".join(map(str, devices))
    return Step(f"accuracy/{build.name}", where, inputs, outputs, run.all, commands, prepare)


@dataclass(frozen=True)
class _Run:
    """Every sample through one OM: its units, kept as they end, joined at the last."""

    context: Context
    build: Build
    index: Index  # of what the device is given
    names: Sequence[str]  # of the clips
    inputs: dict[str, Any]
    units: Sequence[Unit]
    devices: Sequence[Worker]

    def all(self) -> dict[str, Any]:
        """Run every unit somewhere, keep each one's logits as it ends, join them at the last."""
        # Asked first: a host that is lost meanwhile cannot tell.
        eras = {str(npu): npu.era for npu in self.context.npus}
        facts = {**self.context.npus[0].facts.record, **self.context.npus[0].runtime.facts()}
        if self.context.fresh:
            shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir(parents=True, exist_ok=True)
        todo = [unit for unit in self.units if self._read_kept(unit) is None]
        self.context.engine.send(self.build.om, self.index)
        spans: list[Span] = []
        ran = Counter(dict.fromkeys(map(str, self.devices), 0))
        with progress(f"{self.build.name} accuracy", self.index.samples) as advance:
            advance(sum(unit.count for unit in self.units if unit not in todo))

            def one(place: Place, unit: Unit) -> None:
                inferred = place.do(self.inference(unit), self.build.folder)
                with atomic_write(self._path(unit)) as stream:
                    np.save(stream, inferred.logits)
                end = time.monotonic()
                spans.append(Span(end - inferred.seconds, end, unit.count / self.index.samples_a_clip))
                ran[inferred.where] += 1
                advance(unit.count)

            self.context.engine.on_devices(todo, one)
        parts = {unit: part for unit in self.units if (part := self._read_kept(unit)) is not None}
        logits = join(parts, self.index.samples)
        write_logits(DeviceLogits(self.names, self.index.of_clips(logits)), self.build.folder)
        together = aggregate(spans)
        marked = self.context.npus[0].facts.mark
        rate = f", {together['samples_per_s']:.2f} samples/s together{marked}" if together else ""
        where = f"{len(self.devices)} devices" if len(self.devices) > 1 else str(self.devices[0])
        alone = f", as {self.index.samples} single persons" if self.build.persons == "nonempty" else ""
        say(f"    {self.build.name}: {self.index.clips} samples{alone}, each once, over {where}{rate}", "dim")
        return {**facts, "eras": eras, "units": dict(ran), "aggregate": together}

    def inference(self, unit: Unit) -> Inference:
        clips = self.context.clips(self.index)
        needed = [s for s in clips.shards if s.first < unit.end and unit.first < s.first + s.count]
        return Inference(
            job=job_name(self.inputs, f"accuracy-bs{self.build.batch_size}-{unit.first}"),
            model=Copy(self.build.om.name, self.inputs["om"]),
            clips=replace(clips, shards=needed),
            build=self.build,
            unit=unit,
            names=self.index.names[unit.first : unit.end],
            timeout_s=self.context.inventory.timeout_s,
            fresh=self.context.fresh,
        )

    @property
    def _kept(self) -> Path:
        """Where units that are done wait for the others, kept through a cut."""
        return self.build.folder / f".units-{key_of(self.inputs)[:12]}"

    def _path(self, unit: Unit) -> Path:
        return self._kept / f"{unit.first}+{unit.count}.npy"

    def _read_kept(self, unit: Unit) -> np.ndarray | None:
        """A unit's logits (count, 400) as an earlier run left them, None where it left none that are whole."""
        try:
            logits = npy.load(self._path(unit))
        except (OSError, ValueError):
            return None
        return logits if logits.dtype == np.float32 and logits.shape == (unit.count, CLASSES) else None


# Lays out `input` as `Inference._prepare` does: samples first..last, then copies of the last batch's first clip.
_LINK = """mkdir -p "$1/input" "$1/output"
for ((i = $2; i <= $3; i++)); do ln -f "$6"/*/"$i.bin" "$1/input/$i.bin"; done
for ((i = $3 + 1; i <= $3 + $5; i++)); do ln -f "$6"/*/"$4.bin" "$1/input/$i.bin"; done"""


@dataclass(frozen=True)
class Inferred:
    logits: np.ndarray  # (count, 400), float32
    where: str
    seconds: float  # that ais_bench took


@dataclass(frozen=True)
class Inference:
    """One unit through an OM on one device."""

    job: str
    model: Copy  # the OM
    clips: Clips  # that hold the unit's samples
    build: Build
    unit: Unit
    names: list[str]  # of the unit's samples
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
                logits = self._collect(worker.npu.host, folder)
        return Inferred(logits, str(worker), seconds)

    def command(self, worker: Worker) -> list[str]:
        folder = self._folder(worker)
        return ais_bench.infer_argv(
            worker.npu.section.tools.python,
            str(self.model.on(worker.npu.host)),
            str(folder / "input"),
            str(folder / "output"),
            RESULTS,
            worker.number,
            self.build.batch_size,
        )

    def link_argv(self, worker: Worker) -> list[str]:
        """What lays out the input folder on the host by hand, for reproduce.sh."""
        samples, fillers = self._stems()
        span = [samples[0], samples[-1], str(self._last_batch), str(len(fillers))]
        clips = str(self.clips.folder(worker.npu.host))
        return ["bash", "-c", _LINK, "bash", str(self._folder(worker)), *span, clips]

    def _folder(self, worker: Worker) -> PurePosixPath:
        return Job(worker.npu.host, self.job).folder

    def _prepare(self, worker: Worker) -> None:
        """Make the folders that ais_bench reads and writes anew, so that nothing stale is in them.

        Eras differ in what they do with a partial batch, so the kit fills it itself, as newer tools do, with copies of
        the batch's first clip.
        """
        host, folder = worker.npu.host, self._folder(worker)
        samples, fillers = self._stems()
        files = {f"{stem}.bin": str(self.clips.path(host, int(stem))) for stem in samples}
        last_batch = str(self.clips.path(host, self._last_batch))
        files |= {f"{stem}.bin": last_batch for stem in fillers}
        host.call("link", {"folder": str(folder / "input"), "files": files})
        host.call("link", {"folder": str(folder / "output"), "files": {}})

    def _stems(self) -> tuple[list[str], list[str]]:
        """The names, without suffix, of the samples' files and of those that fill the last batch, which follow them."""
        fillers = -self.unit.count % self.build.batch_size
        end = self.unit.end
        return [str(i) for i in range(self.unit.first, end)], [str(i) for i in range(end, end + fillers)]

    @property
    def _last_batch(self) -> int:
        """The first sample of the last batch."""
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

    def _collect(self, host: Host, into: Path) -> np.ndarray:
        """The unit's logits (count, 400), each row from the result file that the tool names for its sample."""
        folder = Job(host, self.job).folder
        top = folder / "output"
        stems, fillers = self._stems()
        found: dict[str, int] = host.call("listing", {"folder": str(top)})
        place = next((p for p in results.summary_places(RESULTS) if p in found), None)
        summary = _summary(host, top / place) if place else None
        listing = {name[len(RESULTS) + 1 :]: size for name, size in found.items() if name.startswith(RESULTS + "/")}
        names = results.match_results(listing, summary, stems, set(fillers), str(top / RESULTS), RESULT_BYTES)
        packed = folder / "packed"
        host.call("pack", {"folder": str(top / RESULTS), "names": names, "path": str(packed)})
        local = into / f".{self.unit.first}.raw"
        transfer.get(host, packed, local)
        values = np.fromfile(local, np.float32)
        local.unlink()
        if values.size != self.unit.count * CLASSES:
            raise KitError(
                f"{values.nbytes} bytes came back of {self.unit.count} results of {RESULT_BYTES}; run it again"
            )
        logits = values.reshape(-1, CLASSES)
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            row = int(bad[0])
            raise KitError(
                f"the result of sample {self.unit.first + row} ({self.names[row]}) has NaN or infinite logits"
                f" ({bad.size} of {self.unit.count} results do); convert with another precision_mode"
            )
        return logits


def _summary(host: Host, path: PurePosixPath) -> Any:
    stream = io.BytesIO()
    host.call("send", {"path": str(path)}, sink=transfer.Limited(stream, SUMMARY_BYTES, f"{host.name}: {path}"))
    try:
        return plain_json.loads(stream.getvalue())
    except ValueError:
        return None  # a torn summary names nothing: the files' own names do
