"""Every row of an index through one OM: cut into units, shared out over devices, joined when the last has ended."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import KitError
from deploy.execution.scheduler import Scheduler
from deploy.hosts.job import job_name
from deploy.npu import ais_bench
from deploy.npu.infer import Inference, Outputs, Unit, log_name, times_name
from deploy.npu.transcript import forget_others
from deploy.npu.worker import CachedFile, Place, Rows, Source, Worker
from deploy.pipeline.build import Build
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import digest_of
from deploy.progress import progress
from stgcn import npy, plain_json
from stgcn.files import read_record

UNIT_ROWS = 4096  # of one ais_bench process at most: what a cut costs, against what a model's load costs
UNITS_A_DEVICE = 4  # with several devices: small enough that the last one to finish is not waited for long


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


def end_to_end(folder: Path, units: Sequence[Unit], batch_size: int, rows_per_sample: float) -> dict[str, float] | None:
    """Milliseconds a sample from its file to its result, of a device's own tool; None where it does not tell of a unit.

    The units' logs in `folder` tell how long the whole loop took, their times what computing and copying took of it.
    What is left of the loop is the host's: reading and joining files before a batch, splitting and writing results
    behind it.
    """
    rows, loop_s, device_s = 0, 0.0, 0.0
    for unit in units:
        loop, device = _told(folder, unit)
        if loop is None or device is None:
            return None
        rows += -(-unit.count // batch_size) * batch_size
        loop_s, device_s = loop_s + loop, device_s + device
    to_ms = 1000 * rows_per_sample / rows
    return {"ms": loop_s * to_ms, "device_ms": device_s * to_ms, "host_ms": max(loop_s - device_s, 0.0) * to_ms}


def _told(folder: Path, unit: Unit) -> tuple[float | None, float | None]:
    """Seconds of a unit's whole loop, and of computing and copying."""
    try:
        log = read_record(folder / log_name(unit.first)).decode("utf-8", "replace")
        return ais_bench.loop_seconds(log), ais_bench.device_seconds(plain_json.load(folder / times_name(unit.first)))
    except (OSError, ValueError):
        return None, None


@dataclass(frozen=True)
class Done:
    """What came of an index's rows."""

    outputs: Outputs  # each (rows, ...)
    ran: Mapping[str, int]  # the units that each device ran
    together: Mapping[str, Any] | None  # the rate of all devices, see `aggregate`; None where nothing was left to run
    end_to_end: Mapping[str, float] | None = None  # see `end_to_end`


@dataclass(frozen=True)
class RowsThroughOm:
    """The rows of an index through a build's OM; units that are done are kept through a cut."""

    build: Build
    om: CachedFile
    index: Index  # of what the device is given
    rows: Sequence[Rows]  # of each input, as hosts keep them
    inputs: Mapping[str, Any]  # all that the outputs depend on
    devices: Sequence[Worker]
    timeout_s: float
    fresh: bool
    finite: bool = True  # NaN and infinity are refused, not given back

    def run(self, scheduler: Scheduler, sources: Sequence[Source]) -> Done:
        """Run every unit somewhere, keep each one's outputs as it ends, join them at the last.

        Raises:
            KitError: no device is left that can do it; what was done is kept for the next run.
        """
        if self.fresh:
            shutil.rmtree(self.kept, ignore_errors=True)
        self.kept.mkdir(parents=True, exist_ok=True)
        todo = [unit for unit in self.units if self._read_kept(unit) is None]
        scheduler.send(self.build.om, sources)
        spans: list[Span] = []
        ran = Counter(dict.fromkeys(map(str, self.devices), 0))
        with progress(f"{self.build.name} accuracy", self.index.row_count) as advance:
            advance(sum(unit.count for unit in self.units if unit not in todo))

            def one(place: Place, unit: Unit) -> None:
                inferred = place.do(self._inference(unit), self.build.folder)
                for output, values in enumerate(inferred.outputs):
                    npy.save(self._path(unit, output), values)
                end = time.monotonic()
                spans.append(Span(end - inferred.seconds, end, unit.count / self.index.rows_per_sample))
                ran[inferred.where] += 1
                advance(unit.count)

            scheduler.on_devices(todo, one)
        parts = {unit: part for unit in self.units if (part := self._read_kept(unit)) is not None}
        # An earlier run may have been cut into other units.
        forget_others(self.build.folder, (log_name, times_name), [unit.first for unit in self.units])
        told = end_to_end(self.build.folder, self.units, self.build.batch_size, self.index.rows_per_sample)
        return Done(join(parts, self.index.row_count), ran, aggregate(spans), told)

    @cached_property
    def units(self) -> Sequence[Unit]:
        return plan(self.index.row_count, self.build.batch_size, len(self.devices))

    def argvs(self) -> tuple[list[list[str]], list[list[str]]]:
        """What runs, were the first device to do it all, and what makes its host ready for that."""
        worker, inferences = self.devices[0], [self._inference(unit) for unit in self.units]
        commands = [worker.runtime.argv(inference.command(worker)) for inference in inferences]
        return commands, [argv for inference in inferences for argv in inference.link_argvs(worker)]

    def _inference(self, unit: Unit) -> Inference:
        needed = [tuple(s for s in each.shards if s.first < unit.end and unit.first < s.end) for each in self.rows]
        return Inference(
            job=job_name(self.inputs, f"accuracy-bs{self.build.batch_size}-{unit.first}"),
            om=self.om,
            inputs=[replace(each, shards=shards) for each, shards in zip(self.rows, needed, strict=True)],
            build=self.build,
            unit=unit,
            names=[self.index.row_name(row) for row in range(unit.first, unit.end)],
            timeout_s=self.timeout_s,
            fresh=self.fresh,
            finite=self.finite,
        )

    @property
    def kept(self) -> Path:
        """Where units that are done wait for the others, kept through a cut."""
        return self.build.folder / f".units-{digest_of(self.inputs)[:12]}"

    def forget(self) -> None:
        """Remove what was kept: this run's, or an earlier one's that was cut and never went on."""
        for kept in self.build.folder.glob(".units-*"):
            shutil.rmtree(kept)

    def _path(self, unit: Unit, output: int) -> Path:
        return self.kept / f"{unit.first}+{unit.count}.{output}.npy"

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
