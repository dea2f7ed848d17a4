"""Rows through an OM, on one device: ais_bench over their files, each result matched to its row by name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.hosts.host import Completed, Host
from deploy.hosts.job import Job
from deploy.npu import ais_bench, results
from deploy.npu.device import prefix_errors
from deploy.npu.worker import CachedFile, Rows, Worker
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import write_json

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


def log_name(first: int | str) -> str:
    """The file that keeps what ais_bench printed of the unit that begins with this row."""
    return f"ais_bench-{first}.log"


def times_name(first: int | str) -> str:
    """The file that keeps the times of that unit's batches and copies, as the tool's summary tells them."""
    return f"ais_bench-{first}.times.json"


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
    om: CachedFile
    inputs: Sequence[Rows]  # of each input, those that hold the unit's rows
    build: Build
    unit: Unit
    names: list[str]  # of the samples that the unit's rows belong to
    timeout_s: float
    fresh: bool
    finite: bool = True  # NaN and infinity are refused, not given back

    @property
    def files(self) -> Sequence[CachedFile]:
        return [self.om]

    def __str__(self) -> str:
        return f"accuracy/{self.build.name}, samples {self.unit.first} to {self.unit.end - 1}"

    def __call__(self, worker: Worker, folder: Path) -> Inferred:
        job = Job(worker.npu.host, self.job)
        log, times = (folder / name(self.unit.first) for name in (log_name, times_name))
        times.unlink(missing_ok=True)
        with job.attached(self.fresh) as resumed:
            if not resumed:
                self._prepare(worker)
            with worker.turn:
                start = time.monotonic()
                done = worker.runtime.run(
                    self.command(worker), folder=job.folder, log=log, timeout_s=self.timeout_s, job=job.name
                )
                seconds = time.monotonic() - start
                with prefix_errors(str(worker)):
                    self._check_ending(done)
            with prefix_errors(str(worker)):
                outputs, of_batches = self._collect(worker.npu.host)
        if of_batches:
            write_json(times, of_batches)
        return Inferred(outputs, str(worker), seconds)

    def command(self, worker: Worker) -> list[str]:
        folder = self._folder(worker)
        return ais_bench.infer_argv(
            worker.npu.section.tools.python,
            str(self.om.on(worker.npu.host)),
            [str(folder / name) for name in self._input_folders()],
            str(folder / "output"),
            RESULTS,
            worker.number,
            self.build.batch_size,
            worker.npu.era,
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
        """Make the folders again that ais_bench reads and writes, so that nothing stale is in them.

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
        batches = ais_bench.parse_batches(done.output)
        if batches is not None and batches[0] != self.build.batch_size:
            raise KitError(
                f"{self.build.om.name} takes batches of {batches[0]}, not of {self.build.batch_size}; "
                "run `fab npu-convert --fresh`"
            )

    def _collect(self, host: Host) -> tuple[Outputs, Mapping[str, Any]]:
        """The unit's outputs, each row from the result file that the tool names for it; the times of its batches."""
        top = Job(host, self.job).folder / "output"
        found: dict[str, int] = host.call("listing", {"folder": str(top)})
        summary = results.fetch_summary(host, top, RESULTS, found)
        listing = {name[len(RESULTS) + 1 :]: size for name, size in found.items() if name.startswith(RESULTS + "/")}
        outputs = [self._output(host, i, listing, summary) for i in range(len(self.build.card.outputs))]
        return outputs, ais_bench.times_of(summary)

    def _output(self, host: Host, output: int, listing: Mapping[str, int], summary: Any) -> np.ndarray:
        """The unit's values (count, ...) of one output."""
        there, tensor = Job(host, self.job).folder / "output" / RESULTS, self.build.card.outputs[output]
        if len(self.build.card.outputs) > 1:
            listing, summary = results.only_output(listing, summary, output)
        stems, fillers = self._stems()
        names = results.match_results(listing, summary, stems, set(fillers), str(there), tensor.row_bytes)
        raw = transfer.gather(host, there, names, self.unit.count * tensor.row_bytes)
        values = np.frombuffer(raw, tensor.dtype).reshape(self.unit.count, *tensor.shape)
        if self.finite and values.dtype.kind == "f":
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
