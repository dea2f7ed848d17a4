"""An OM's throughput, on one idle device: pure inference, repeated until the figure is steady."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.console import say
from deploy.errors import KitError
from deploy.hosts.job import Job
from deploy.inventory import Benchmark
from deploy.npu import ais_bench, drift, results, transcript
from deploy.npu.device import Idle, IdleWatch, Reading, became_busy, prefix_errors, was_busy
from deploy.npu.sensors import Sensors, sensed
from deploy.npu.worker import RunAlone, Worker
from deploy.pipeline.manifest import write_json
from stgcn.files import sha256_file

RESULTS = "measured"  # the folder that ais_bench is told to write
# Makes a folder with a file of so many bytes and so many names for it, which nobody else may write.
_ZEROS = """umask 077; mkdir -p "$1" && truncate -s "$2" "$1/0.bin" &&
for ((i = 1; i < $3; i++)); do ln -f "$1/0.bin" "$1/$i.bin" || exit; done"""
SETTLE_S = 30.0  # a device's utilisation takes a moment to fall after our own run


@dataclass(frozen=True)
class Measured:
    idle: Idle  # what is known of the device now
    figure: Mapping[str, Any] = field(default_factory=dict)  # benchmark.json
    facts: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None  # why there is no figure: the device was not idle


@dataclass(frozen=True, kw_only=True)
class Measurement(RunAlone):
    """The figure of one OM on one device."""

    persons_per_clip: float | None  # on average, where the OM takes single persons
    settings: Benchmark

    def __str__(self) -> str:
        return f"throughput/{self.build.name}"

    def command(self, worker: Worker) -> list[str]:
        threads = self.settings.threads, [str(folder) for folder, _ in self._zeros(worker)]
        return ais_bench.benchmark_argv(
            worker.npu.section.tools.python,
            str(self.om.on(worker.npu.host)),
            worker.number,
            self.build.batch_size,
            self.settings.loop,
            self.settings.warmup,
            worker.npu.era,
            (str(self.output(worker)), RESULTS),
            threads if self.settings.threads > 1 else None,
        )

    def _zeros(self, worker: Worker) -> list[tuple[PurePosixPath, int]]:
        """For several threads, of each input the folder of its batches, and a batch's bytes."""
        top, size = self.output(worker).parent, self.build.batch_size
        return [(top / f"zeros-{tensor.name}", size * tensor.row_bytes) for tensor in self.build.card.inputs]

    def _lay_out_zeros(self, worker: Worker) -> list[list[str]]:
        """The commands that make those folders: `loop` batches a thread, all of them one file."""
        count = str(self.settings.loop * self.settings.threads)
        every = self._zeros(worker) if self.settings.threads > 1 else []
        return [["bash", "-c", _ZEROS, "bash", str(folder), str(size), count] for folder, size in every]

    def argv(self, worker: Worker) -> list[str]:
        """The whole argument list of a repeat."""
        return worker.runtime.argv(self.command(worker), self.output(worker).parent)

    def prepare(self, worker: Worker) -> list[list[str]]:
        """What makes the host ready for it."""
        return [["mkdir", "-p", str(self.output(worker))], *self._lay_out_zeros(worker)]

    def __call__(self, worker: Worker, folder: Path) -> Measured:
        npu, device = worker.npu, worker.device
        assert device is not None
        watch = IdleWatch(npu.smi, device, 0 if self.force else self.settings.idle_timeout_s, self.idle)
        before = watch.before()
        if before.busy and not self.force:
            return Measured(watch.known, refusal=was_busy(watch, before.busy, watch.patience_s, "npu-bench"))
        with prefix_errors(str(worker)):
            runs, readings = self._repeat(worker, folder)
        warm = watch.after()
        # What is busy after our own run has left the device was so during it, for all that can be known.
        after = watch.wait(0 if before.busy else SETTLE_S) if warm.busy else warm
        if after.busy and not self.force:
            return Measured(watch.known, refusal=became_busy(watch, after.busy, "npu-bench"))
        repeats = range(1, len(runs) + 1)
        figure: dict[str, Any] = {
            **figures(self.build.batch_size, runs, self.persons_per_clip),
            "logs": {name: sha256_file(folder / name) for name in map(log_name, repeats)},
            "times": {n: sha256_file(folder / n) for n in map(times_name, repeats) if (folder / n).is_file()},
            "idle_checks": {"before": before.record(), "after": after.record()},
            "host": npu.section.name,
            "device": device,
            "temperature_c": warm.chip.temperature_c,
            "power_w": warm.chip.power_w,
            "simulated": npu.facts.simulated,
        }
        figure["sensors"] = sensed(readings, figure["throughput"]["median"])
        figure["throughput"]["health"] = next(filter(None, (c.chip.ailment for c in (before, warm, after))), None)
        figure["throughput"]["idle"] = before.busy is None and after.busy is None
        if self.settings.threads > 1:
            figure["throughput"]["threads"] = self.settings.threads
        figure["throughput"]["noisy"] = spread([run.throughput for run in runs]) > self.settings.spread
        return Measured(watch.known, figure, {**npu.facts.record, **npu.runtime.facts()})

    def _repeat(self, worker: Worker, folder: Path) -> tuple[list[ais_bench.Performance], list[Reading]]:
        """Runs, at least `min_repeats`, until their throughputs lie within the spread or the cap is reached; and what
        npu-smi read meanwhile."""
        settings, host, job = self.settings, worker.npu.host, Job(worker.npu.host, self.job)
        runs: list[ais_bench.Performance] = []
        readings: list[Reading] = []
        limits = settings.min_repeats, settings.max_repeats, settings.spread
        assert worker.device is not None
        while not is_complete([run.throughput for run in runs], *limits):
            log, command = folder / log_name(len(runs) + 1), self.command(worker)
            times = folder / times_name(len(runs) + 1)
            times.unlink(missing_ok=True)
            with job.attached(self.fresh) as resumed, Sensors(worker.npu.smi, worker.device) as sensors:
                if not resumed:
                    host.call("link", {"folder": str(self.output(worker)), "files": {}})
                    for argv in self._lay_out_zeros(worker):
                        if (made := host.run(argv, timeout_s=self.timeout_s)).status != 0:
                            raise KitError(f"{host.name}: no batches of zeros ({transcript.last(made.output)})")
                done = worker.runtime.run(command, folder=job.folder, log=log, timeout_s=self.timeout_s, job=job.name)
                if done.status != 0:
                    raise ais_bench.failure(done.output, done.status)
                if of_batches := ais_bench.times_of(results.fetch_summary(host, self.output(worker), RESULTS)):
                    write_json(times, of_batches)
            readings += sensors.readings
            runs.append(ais_bench.performance(done.output, self.build.batch_size, of_batches, settings.threads))
            unit = "persons/s" if self.build.persons == "nonempty" else "samples/s"
            rate = f"{runs[-1].throughput:.2f} {unit}{worker.npu.facts.mark}"
            say(f"    {self.build.name} repeat {len(runs)}: {rate}", "dim")
        # An earlier run may have had more repeats.
        transcript.forget_others(folder, (log_name, times_name), range(1, len(runs) + 1))
        return runs, readings


def spread(rates: Sequence[float]) -> float:
    """(max - min) / median of throughputs."""
    return (max(rates) - min(rates)) / statistics.median(rates)


def is_complete(rates: Sequence[float], min_repeats: int, max_repeats: int, bound: float) -> bool:
    """Whether no further repeat is due: their throughputs lie within the bound, or the cap is reached."""
    return len(rates) >= max_repeats or (len(rates) >= max(min_repeats, 2) and spread(rates) <= bound)


def ends(rates: Sequence[float], min_repeats: int, max_repeats: int, bound: float) -> bool:
    """Whether repeating ended with the last of these, and not before."""
    complete = [is_complete(rates[:count], min_repeats, max_repeats, bound) for count in range(1, len(rates) + 1)]
    return complete.count(True) == 1 and complete[-1]


def log_name(repeat: int | str) -> str:
    """The file that keeps what ais_bench printed in a repeat (from 1)."""
    return f"benchmark-{repeat}.log"


def times_name(repeat: int | str) -> str:
    """The file that keeps the times of a repeat's batches and copies, as the tool's summary tells them."""
    return f"benchmark-{repeat}.times.json"


def figures(
    batch_size: int, runs: Sequence[ais_bench.Performance], persons_per_clip: float | None = None
) -> dict[str, Any]:
    """What is reported of the runs: samples/s, and the compute latency of a batch in ms.

    Of an OM that takes single persons, `persons_per_clip` of which make a clip of the dataset on average, samples/s are
    clips/s too; the persons' own rate is beside it, and a batch is of persons.
    """
    rates = [run.throughput for run in runs]
    latencies = [run.compute for run in runs]
    middle, low, high = statistics.median(rates), min(rates), max(rates)
    a_sample = persons_per_clip or 1
    persons = {"a_clip": persons_per_clip, "throughput": {"median": middle, "min": low, "max": high}}
    return {
        "batch_size": batch_size,
        "throughput": {
            "median": middle / a_sample,
            "min": low / a_sample,
            "max": high / a_sample,
            "repeats": len(rates),
            "values": [rate / a_sample for rate in rates],
            "spread": spread(rates) if len(runs) > 1 else None,
        },
        "persons": persons if persons_per_clip else None,
        "latency_ms": {
            "min": min(latency.min for latency in latencies),
            "median": statistics.median(latency.median for latency in latencies),
            "mean": statistics.mean(latency.mean for latency in latencies),
            **({} if (p90 := _p90(runs)) is None else {"p90": p90}),
            "p99": max(latency.p99 for latency in latencies),
            "max": max(latency.max for latency in latencies),
            **_copies(runs),
        },
        "drift": _drift(runs),
        "runs": rates,
        "repeats": [asdict(run) for run in runs],
    }


def _p90(runs: Sequence[ais_bench.Performance]) -> float | None:
    """Of the repeat with the largest, as p99 is; None where a repeat's batches are not told one by one."""
    if not all(run.compute_list for run in runs):
        return None
    return max(drift.percentile(run.compute_list, 90) for run in runs)


def _copies(runs: Sequence[ais_bench.Performance]) -> dict[str, Any]:
    """The copies to the device and back: median ms a batch, its share of copies and computing, how many were timed."""
    medians = {
        name: statistics.median(run.median for run in told)
        for name in ("h2d", "d2h")
        if (told := [each for run in runs if (each := getattr(run, name)) is not None])
    }
    whole = sum(medians.values()) + statistics.median(run.compute.median for run in runs)
    counted = {name: [each.count for run in runs if (each := getattr(run, name))] for name in medians}
    return {
        name: {
            "median": median,
            "share": median / whole,
            "count": sum(filter(None, counted[name])) if all(counted[name]) else None,
        }
        for name, median in medians.items()
    }


def _drift(runs: Sequence[ais_bench.Performance]) -> dict[str, Any]:
    """Of computing, within the repeat that changed most and from the first repeat to the last; None: not to be told."""
    most = drift.most([run.compute_list for run in runs])
    other = drift.between(runs[0].compute_list, runs[-1].compute_list) if len(runs) > 1 else None
    return {"within": most and most.as_json(), "between": other and other.as_json()}
