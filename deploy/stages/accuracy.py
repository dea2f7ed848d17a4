"""Every sample through one OM: shared out over the devices, matched to its result by name, packed as (n, 400)."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deploy import transfer
from deploy.console import Advance, progress
from deploy.context import Context, NpuHost, remote_copy, run_folder
from deploy.errors import KitError
from deploy.hosts import Host
from deploy.logits import DIGESTS, LOGITS, RESULT_BYTES, DeviceLogits, write_logits
from deploy.manifest import Step, key_of
from deploy.npu import ais_bench, results
from deploy.workqueue import drain
from stgcn.dataset import CLASSES
from stgcn.files import atomic_write
from stgcn.index import Index

UNIT_CLIPS = 4096  # of one ais_bench process at most: what a cut costs, against what a model's load costs
RESULTS = "results"  # the folder that ais_bench is told to write
UNITS_A_DEVICE = 4  # with several devices: small enough that the last one to finish is not waited for long


@dataclass(frozen=True)
class Unit:
    """Samples first..first+count-1, a whole number of batches but for the dataset's last."""

    first: int
    count: int


@dataclass(frozen=True)
class Worker:
    """One logical device of one host."""

    npu: NpuHost
    device: int

    def __str__(self) -> str:
        return f"{self.npu.section.name}:{self.device}"


def plan(samples: int, batch_size: int, devices: int) -> list[Unit]:
    """Cut a dataset into units. Batches hold the same samples however many devices share them."""
    clips = UNIT_CLIPS if devices == 1 else min(UNIT_CLIPS, -(-samples // (UNITS_A_DEVICE * devices)))
    clips = -(-clips // batch_size) * batch_size
    return [Unit(first, min(clips, samples - first)) for first in range(0, samples, clips)]


def step(context: Context, batch_size: int) -> Step:
    index, om = context.index(), context.om(batch_size)
    manifest = context.manifest.steps
    inputs = {
        "om": manifest[f"convert/bs{batch_size}"]["outputs"][om.relative_to(context.workspace).as_posix()]["sha256"],
        "dataset": manifest["preprocess"]["outputs"]["gpu/dataset.json"]["sha256"],
        "batch_size": batch_size,
        **context.npus[0].facts.tools,
    }
    workers = [Worker(npu, device.chip.device) for npu in context.npus for device in npu.devices]
    run = _Run(context, index, om, batch_size, inputs)
    units = plan(index.samples, batch_size, len(workers))
    folder = context.batch_folder(batch_size)
    outputs = [folder / LOGITS, folder / DIGESTS]
    commands = [workers[0].npu.runtime.argv(run.command(workers[0], unit)) for unit in units]
    return Step(
        f"accuracy/bs{batch_size}",
        ", ".join(map(str, workers)),
        inputs,
        outputs,
        lambda: run.all(workers, units),
        commands,
    )


@dataclass(frozen=True)
class _Run:
    context: Context
    index: Index
    om: Path
    batch_size: int
    inputs: dict[str, Any]

    def all(self, workers: Sequence[Worker], units: Sequence[Unit]) -> dict[str, Any]:
        """Run every unit somewhere, keep each one's logits as it ends, join them at the last."""
        for npu in {worker.npu.section.name: worker.npu for worker in workers}.values():
            transfer.push_clips(npu.host, self.context.data, self.index, self._clips(npu))
            transfer.put(npu.host, self.om, remote_copy(npu.host, self.om))
        self._kept.mkdir(parents=True, exist_ok=True)
        todo = [unit for unit in units if not self._path(unit).exists()]
        with progress(f"bs{self.batch_size} accuracy", self.index.samples) as advance:
            advance(sum(unit.count for unit in units if unit not in todo))
            ran = drain(todo, workers, lambda worker, unit: self._one(worker, unit, advance))
        logits = np.concatenate([np.load(self._path(unit), allow_pickle=False) for unit in units])
        write_logits(DeviceLogits(self.index.names, logits), self.context.batch_folder(self.batch_size))
        shutil.rmtree(self._kept)
        return {"simulated": workers[0].npu.facts.simulated, "units": ran}

    def _one(self, worker: Worker, unit: Unit, advance: Advance) -> None:
        host = worker.npu.host
        folder = self._folder(worker, unit)
        fillers = -unit.count % self.batch_size
        samples = list(range(unit.first, unit.first + unit.count))
        # The kit fills the last batch itself, as newer tools do, with the batch's first clip: eras differ in what
        # they do with a partial one. The fillers' names follow the last sample's.
        last_batch = unit.first + (unit.count - 1) // self.batch_size * self.batch_size
        clips = self._clips(worker.npu)
        files = {f"{i}.bin": str(transfer.clip_path(self.index, clips, i)) for i in samples}
        filler_stems = [str(samples[-1] + 1 + i) for i in range(fillers)]
        files |= {f"{stem}.bin": str(transfer.clip_path(self.index, clips, last_batch)) for stem in filler_stems}
        host.call("link", {"folder": str(folder / "input"), "files": files})
        host.call("link", {"folder": str(folder / "output"), "files": {}})
        log = self.context.batch_folder(self.batch_size) / f"ais_bench-{unit.first}.log"
        try:
            done = worker.npu.runtime.run(
                self.command(worker, unit), folder=folder, log=log, timeout_s=self.context.inventory.timeout_s
            )
            if done.status != 0:
                raise ais_bench.failure(done.output, done.status)
            logits = self._collect(worker, unit, folder, [str(i) for i in samples], set(filler_stems))
        finally:
            host.call("remove", {"paths": [str(folder)]})
        with atomic_write(self._path(unit)) as stream:
            np.save(stream, logits)
        advance(unit.count)

    def command(self, worker: Worker, unit: Unit) -> list[str]:
        folder, npu = self._folder(worker, unit), worker.npu
        return ais_bench.infer_argv(
            npu.section.tools.python,
            str(remote_copy(npu.host, self.om)),
            str(folder / "input"),
            str(folder / "output"),
            RESULTS,
            worker.device,
            self.batch_size,
        )

    def _collect(
        self, worker: Worker, unit: Unit, folder: PurePosixPath, stems: list[str], fillers: set[str]
    ) -> np.ndarray:
        """The unit's logits (count, 400), each row from the result file that the tool names for its sample."""
        host, top = worker.npu.host, folder / "output"
        found: dict[str, int] = host.call("listing", {"folder": str(top)})
        place = next((p for p in results.summary_places(RESULTS) if p in found), None)
        summary = self._summary(host, top / place) if place else None
        listing = {name[len(RESULTS) + 1 :]: size for name, size in found.items() if name.startswith(RESULTS + "/")}
        names = results.match_results(listing, summary, stems, fillers, str(top / RESULTS), RESULT_BYTES)
        packed = folder / "packed"
        host.call("pack", {"folder": str(top / RESULTS), "names": names, "path": str(packed)})
        local = self._kept / f"{unit.first}.raw"
        transfer.get(host, packed, local)
        logits = np.fromfile(local, np.float32).reshape(-1, CLASSES)
        local.unlink()
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            sample = unit.first + int(bad[0])
            raise KitError(
                f"{worker}: the result of sample {sample} ({self.index.names[sample]}) has NaN or infinite logits"
                f" ({bad.size} of {unit.count} results do); convert with another precision_mode"
            )
        return logits

    @staticmethod
    def _summary(host: Host, path: PurePosixPath) -> Any:
        stream = io.BytesIO()
        host.call("send", {"path": str(path)}, sink=stream)
        try:
            return json.loads(stream.getvalue())
        except ValueError:
            return None  # a torn summary names nothing: the files' own names do

    def _clips(self, npu: NpuHost) -> PurePosixPath:
        return npu.host.workspace / "data" / str(self.inputs["dataset"])[:16]

    def _folder(self, worker: Worker, unit: Unit) -> PurePosixPath:
        return run_folder(worker.npu.host, self.inputs, f"accuracy-bs{self.batch_size}-{unit.first}")

    @property
    def _kept(self) -> Path:
        """Where units that are done wait for the others, kept through a cut."""
        return self.context.batch_folder(self.batch_size) / f".units-{key_of(self.inputs)[:12]}"

    def _path(self, unit: Unit) -> Path:
        return self._kept / f"{unit.first}+{unit.count}.npy"
