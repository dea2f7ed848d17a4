"""An OM's throughput, on one idle device: pure inference, repeated until the figure is steady."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.console import say
from deploy.hosts.job import Job
from deploy.inventory import Benchmark
from deploy.npu import ais_bench
from deploy.npu.device import Idle, IdleWatch, prefix_errors
from deploy.npu.worker import CachedFile, Rows, Worker
from deploy.pipeline.build import Build
from stgcn.files import sha256_file

SETTLE_S = 30.0  # a device's utilisation takes a moment to fall after our own run


@dataclass(frozen=True)
class Measured:
    idle: Idle  # what is known of the device now
    figure: Mapping[str, Any] = field(default_factory=dict)  # benchmark.json
    facts: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None  # why there is no figure: the device was not idle


@dataclass(frozen=True)
class Measurement:
    """The figure of one OM on one device."""

    job: str
    om: CachedFile
    build: Build
    persons_a_clip: float | None  # on average, where the OM takes single persons
    settings: Benchmark
    timeout_s: float
    fresh: bool
    force: bool
    idle: Idle
    inputs: Sequence[Rows] = ()

    @property
    def files(self) -> Sequence[CachedFile]:
        return [self.om]

    def __str__(self) -> str:
        return f"throughput/{self.build.name}"

    def command(self, worker: Worker) -> list[str]:
        return ais_bench.benchmark_argv(
            worker.npu.section.tools.python,
            str(self.om.on(worker.npu.host)),
            worker.number,
            self.build.batch_size,
            self.settings.loop,
            self.settings.warmup,
        )

    def __call__(self, worker: Worker, folder: Path) -> Measured:
        npu, device = worker.npu, worker.device
        assert device is not None
        watch = IdleWatch(npu.smi, device, 0 if self.force else self.settings.idle_timeout_s, self.idle)
        before = watch.before()
        if before.busy and not self.force:
            return Measured(watch.known, refusal=_was_busy(watch, before.busy))
        with prefix_errors(str(worker)):
            runs = self._repeat(worker, folder)
        warm = watch.check()
        # What is busy after our own run has left the device was so during it, for all that can be known.
        after = watch.wait(0 if before.busy else SETTLE_S)
        if after.busy and not self.force:
            return Measured(watch.known, refusal=_became_busy(watch, after.busy))
        figure: dict[str, Any] = {
            **figures(self.build.batch_size, runs, self.persons_a_clip),
            "logs": {name: sha256_file(folder / name) for name in map(log_name, range(1, len(runs) + 1))},
            "idle_checks": {"before": before.record(), "after": after.record()},
            "host": npu.section.name,
            "device": device,
            "temperature_c": warm.chip.temperature_c,
            "power_w": warm.chip.power_w,
            "simulated": npu.facts.simulated,
        }
        figure["throughput"]["health"] = next(filter(None, (c.chip.ailment for c in (before, warm, after))), None)
        figure["throughput"]["idle"] = before.busy is None and after.busy is None
        figure["throughput"]["noisy"] = spread([run.throughput for run in runs]) > self.settings.spread
        return Measured(watch.known, figure, {**npu.facts.record, **npu.runtime.facts()})

    def _repeat(self, worker: Worker, folder: Path) -> list[ais_bench.Performance]:
        """Runs, at least `min_repeats`, until their throughputs lie within the spread or the cap is reached."""
        settings, job = self.settings, Job(worker.npu.host, self.job)
        runs: list[ais_bench.Performance] = []
        limits = settings.min_repeats, settings.max_repeats, settings.spread
        while not is_complete([run.throughput for run in runs], *limits):
            log, command = folder / log_name(len(runs) + 1), self.command(worker)
            with job.attached(self.fresh):
                done = worker.runtime.run(command, log=log, timeout_s=self.timeout_s, job=job.name)
                if done.status != 0:
                    raise ais_bench.failure(done.output, done.status)
            runs.append(ais_bench.parse_stdout(done.output, self.build.batch_size))
            unit = "persons/s" if self.build.persons == "nonempty" else "samples/s"
            rate = f"{runs[-1].throughput:.2f} {unit}{worker.npu.facts.mark}"
            say(f"    {self.build.name} repeat {len(runs)}: {rate}", "dim")
        return runs


def _was_busy(watch: IdleWatch, busy: str) -> str:
    return (
        f"{watch}: the device was not idle within {watch.patience_s:g} s ({busy}); free it, "
        "raise benchmark.idle_timeout_s, or take a marked figure with `fab npu-bench --force`"
    )


def _became_busy(watch: IdleWatch, busy: str) -> str:
    return (
        f"{watch}: the device was put to other use while it was measured ({busy}), so the figure is thrown "
        "away; free it and run again, or take a marked figure with `fab npu-bench --force`"
    )


def spread(rates: Sequence[float]) -> float:
    """(max - min) / median of throughputs."""
    return (max(rates) - min(rates)) / statistics.median(rates)


def is_complete(rates: Sequence[float], min_repeats: int, max_repeats: int, bound: float) -> bool:
    """Whether no further repeat is due: their throughputs lie within the bound, or the cap is reached."""
    return len(rates) >= max_repeats or (len(rates) >= max(min_repeats, 2) and spread(rates) <= bound)


def log_name(repeat: int) -> str:
    """The file that keeps what ais_bench printed in a repeat (from 1)."""
    return f"benchmark-{repeat}.log"


def figures(
    batch_size: int, runs: Sequence[ais_bench.Performance], persons_a_clip: float | None = None
) -> dict[str, Any]:
    """What is reported of the runs: samples/s, and the compute latency of a batch in ms.

    Of an OM that takes single persons, `persons_a_clip` of which make a clip of the dataset on average, samples/s are
    clips/s too; the persons' own rate is beside it, and a batch is of persons.
    """
    rates = [run.throughput for run in runs]
    latencies = [run.compute for run in runs]
    middle, low, high = statistics.median(rates), min(rates), max(rates)
    a_sample = persons_a_clip or 1
    persons = {"a_clip": persons_a_clip, "throughput": {"median": middle, "min": low, "max": high}}
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
        "persons": persons if persons_a_clip else None,
        "latency_ms": {
            "min": min(latency.min for latency in latencies),
            "median": statistics.median(latency.median for latency in latencies),
            "mean": statistics.mean(latency.mean for latency in latencies),
            "p99": max(latency.p99 for latency in latencies),
            "max": max(latency.max for latency in latencies),
        },
        "runs": rates,
    }
