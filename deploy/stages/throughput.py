"""One OM's throughput: pure inference on one idle device, repeated until the figure is steady."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.connections import Connections
from deploy.console import say
from deploy.errors import KitError
from deploy.execution.worker import Copy, Rows, Worker
from deploy.hosts.job import Job, job_name
from deploy.inventory import Benchmark
from deploy.npu import ais_bench
from deploy.npu.device import Idle, IdleWatch, naming
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import Step, write_json
from stgcn.files import sha256_file

SETTLE_S = 30.0  # a device's utilisation takes a moment to fall after our own run


def run(connections: Connections, build: Build) -> None:
    """Make <folder>/benchmark.json, one steady figure of an idle device, or of a busy one, marked, with `--force`.

    A figure is one device's, the first that the inventory lists.

    Raises:
        KitError: the device stays busy, becomes so, or fails; or ais_bench's figures contradict each other.
    """
    step = _step(connections, build)
    entry = connections.workspace.manifest.steps.get(step.name, {})
    marked = entry.get("facts", {}).get("idle") is False
    connections.run_step(
        step, fresh=marked and not connections.options.force
    )  # a marked figure serves nobody who did not ask for one


def _step(connections: Connections, build: Build) -> Step:
    workspace = connections.workspace
    npu = connections.npus[0]
    worker, settings = Worker(npu, npu.devices[0].chip.device), connections.inventory.benchmark
    workspace.om(build)
    step = f"throughput/{build.name}"
    inputs: dict[str, Any] = {
        **graph.inputs(workspace.manifest.steps, step, connections.inventory, build),
        "host": npu.section.name,
        "device": worker.device,
        **npu.facts.tools,
    }
    index = workspace.samples(build.persons)
    persons_a_clip = index.rows_per_sample if index.rows is not None else None
    if persons_a_clip:
        inputs["persons_a_clip"] = persons_a_clip
    job = job_name(inputs, f"throughput-bs{build.batch_size}")
    limits = (connections.inventory.timeout_s, connections.options.fresh, connections.options.force)
    om = Copy(build.om.name, inputs["om"])
    measurement = Measurement(job, om, build, persons_a_clip, settings, *limits, connections.idle)
    path = build.folder / "benchmark.json"

    def action() -> dict[str, Any]:
        place = connections.engine.alone()
        place.send(build.om)
        measured = place.do(measurement, build.folder)
        connections.idle = measured.idle
        if measured.refusal:
            raise KitError(measured.refusal)
        write_json(path, measured.figure)
        return {**measured.facts, "idle": measured.figure["throughput"]["idle"]}

    argv = worker.runtime.argv(measurement.command(worker))
    return Step(step, str(worker), inputs, [path], action, [argv])


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
    model: Copy  # the OM
    build: Build
    persons_a_clip: float | None  # on average, where the OM takes single persons
    settings: Benchmark
    timeout_s: float
    fresh: bool
    force: bool
    idle: Idle
    inputs: Sequence[Rows] = ()

    def __str__(self) -> str:
        return f"throughput/{self.build.name}"

    def command(self, worker: Worker) -> list[str]:
        return ais_bench.benchmark_argv(
            worker.npu.section.tools.python,
            str(self.model.on(worker.npu.host)),
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
        with naming(str(worker)):
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
        figure["throughput"]["noisy"] = _spread(runs) > self.settings.spread
        return Measured(watch.known, figure, {**npu.facts.record, **npu.runtime.facts()})

    def _repeat(self, worker: Worker, folder: Path) -> list[ais_bench.Performance]:
        """Runs until their throughputs lie within the spread, or the cap is reached."""
        settings, job = self.settings, Job(worker.npu.host, self.job)
        runs: list[ais_bench.Performance] = []
        while len(runs) < settings.max_repeats and (len(runs) < 2 or _spread(runs) > settings.spread):
            log, command = folder / log_name(len(runs) + 1), self.command(worker)
            with job.begun(self.fresh):
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


def _spread(runs: Sequence[ais_bench.Performance]) -> float:
    """(max - min) / median of the throughputs."""
    rates = [run.throughput for run in runs]
    return (max(rates) - min(rates)) / statistics.median(rates)


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
            "spread": _spread(runs) if len(runs) > 1 else None,
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
