"""One OM's throughput: pure inference on one idle device, repeated until the figure is steady."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from deploy.build import Build
from deploy.console import say
from deploy.containers.runtime import Runtime
from deploy.context import Context, Job, remote_copy
from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.manifest import Step, write_json
from deploy.npu import ais_bench
from deploy.npu.device import IdleCheck, IdleWatch, naming
from stgcn.files import sha256_file

SETTLE_S = 30.0  # a device's utilisation takes a moment to fall after our own run


def watch(context: Context) -> IdleWatch:
    """Of the device that figures are taken on: a figure is one device's, the first that the inventory lists."""
    npu = context.npus[0]
    patience_s = 0 if context.force else context.inventory.benchmark.idle_timeout_s
    return IdleWatch(npu.smi, npu.devices[0].chip.device, patience_s)


def perform(context: Context, build: Build, idle: IdleWatch) -> None:
    """Make <folder>/benchmark.json, one steady figure of an idle device, or of a busy one, marked, with `--force`.

    Raises:
        KitError: the device stays busy, becomes so, or fails; or ais_bench's figures contradict each other.
    """
    step = _step(context, build, idle)
    entry = context.manifest.steps.get(step.name, {})
    marked = entry.get("facts", {}).get("idle") is False
    context.perform(step, fresh=marked and not context.force)  # a marked figure serves nobody who did not ask for one


def _step(context: Context, build: Build, idle: IdleWatch) -> Step:
    npu = context.npus[0]
    device, settings = npu.devices[0], context.inventory.benchmark
    there = remote_copy(npu.host, build.om)
    runtime, number = npu.runtime.on_device(device.chip.device)
    command = ais_bench.benchmark_argv(
        npu.section.tools.python,
        str(there),
        number,
        build.batch_size,
        settings.loop,
        settings.warmup,
    )
    inputs = {
        **context.model_sha256(build),
        "batch_size": build.batch_size,
        "persons": build.persons,
        "loop": settings.loop,
        "warmup": settings.warmup,
        "max_repeats": settings.max_repeats,
        "spread": settings.spread,
        "host": device.host,
        "device": device.chip.device,
        **npu.facts.tools,
    }
    persons_a_clip = context.samples(build.persons).samples_a_clip if build.persons == "nonempty" else None
    if persons_a_clip:
        inputs["persons_a_clip"] = persons_a_clip
    path = build.folder / "benchmark.json"
    job = Job.of(npu.host, inputs, f"throughput-bs{build.batch_size}")

    def action() -> dict[str, Any]:
        transfer.put(npu.host, build.om, there)
        before = _idle_before(context, idle)
        with naming(str(device)):
            runs = _repeat(context, runtime, command, build, job)
        warm = idle.check()
        after = _idle_after(context, idle, before)
        figure = {
            **figures(build.batch_size, runs, persons_a_clip),
            "logs": {name: sha256_file(path.with_name(name)) for name in map(log_name, range(1, len(runs) + 1))},
            "idle_checks": {"before": before.record(), "after": after.record()},
            "host": device.host,
            "device": device.chip.device,
            "temperature_c": warm.chip.temperature_c,
            "power_w": warm.chip.power_w,
            "simulated": npu.facts.simulated,
        }
        figure["throughput"]["idle"] = before.busy is None and after.busy is None
        write_json(path, figure)
        return {"simulated": npu.facts.simulated, "idle": figure["throughput"]["idle"], **npu.runtime.facts()}

    return Step(f"throughput/{build.name}", str(device), inputs, [path], action, [runtime.argv(command)])


def _idle_before(context: Context, idle: IdleWatch) -> IdleCheck:
    check = idle.before()
    if check.busy and not context.force:
        raise KitError(
            f"{idle}: the device was not idle within {idle.patience_s:g} s ({check.busy}); free it, "
            "raise benchmark.idle_timeout_s, or take a marked figure with `fab npu-bench --force`"
        )
    return check


def _idle_after(context: Context, idle: IdleWatch, before: IdleCheck) -> IdleCheck:
    """What is busy after our own run has left the device was so during it, for all that can be known."""
    check = idle.wait(0 if before.busy else SETTLE_S)
    if check.busy and not context.force:
        raise KitError(
            f"{idle}: the device was put to other use while it was measured ({check.busy}), so the figure is thrown "
            "away; free it and run again, or take a marked figure with `fab npu-bench --force`"
        )
    return check


def _repeat(
    context: Context, runtime: Runtime, command: list[str], build: Build, job: Job
) -> list[ais_bench.Performance]:
    """Runs of `command` until their throughputs lie within the spread, or the cap is reached."""
    settings = context.inventory.benchmark
    runs: list[ais_bench.Performance] = []
    while len(runs) < settings.max_repeats and (len(runs) < 2 or _spread(runs) > settings.spread):
        log = build.folder / log_name(len(runs) + 1)
        with job.begun(context.fresh):
            done = runtime.run(command, log=log, timeout_s=context.inventory.timeout_s, job=job.name)
            if done.status != 0:
                raise ais_bench.failure(done.output, done.status)
        runs.append(ais_bench.parse_stdout(done.output, build.batch_size))
        unit = "persons/s" if build.persons == "nonempty" else "samples/s"
        say(f"    {build.name} repeat {len(runs)}: {runs[-1].throughput:.2f} {unit}", "dim")
    return runs


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
