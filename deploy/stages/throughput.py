"""One OM's throughput: pure inference on one idle device, repeated until the figure is steady."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from deploy import transfer
from deploy.console import say
from deploy.context import Context, NpuHost, remote_copy
from deploy.device import IdleCheck, wait_until_idle
from deploy.errors import KitError
from deploy.manifest import Step, write_json
from deploy.npu import ais_bench
from stgcn.files import sha256_file

SETTLE_S = 30.0  # a device's utilisation takes a moment to fall after our own run


def step(context: Context, batch_size: int) -> Step:
    npu = context.npus[0]  # a figure is one device's: the first listed
    section, settings = npu.section, context.inventory.benchmark
    device = npu.devices[0].chip.device
    om = context.om(batch_size)
    there = remote_copy(npu.host, om)
    command = ais_bench.benchmark_argv(
        section.tools.python, str(there), device, batch_size, settings.loop, settings.warmup
    )
    inputs = {
        "om": context.manifest.steps[f"convert/bs{batch_size}"]["outputs"][_relative(context, om)]["sha256"],
        "batch_size": batch_size,
        "loop": settings.loop,
        "warmup": settings.warmup,
        "max_repeats": settings.max_repeats,
        "spread": settings.spread,
        "host": section.name,
        "device": device,
        "forced": context.force,
        **npu.facts.tools,
    }
    path = context.batch_folder(batch_size) / "benchmark.json"

    def action() -> dict[str, Any]:
        transfer.put(npu.host, om, there)
        before = _idle(context, npu, device, settings.idle_timeout_s)
        runs = _repeat(context, npu, command, batch_size)
        after = _idle(context, npu, device, SETTLE_S)
        figure = {
            **figures(batch_size, runs),
            "logs": {name: sha256_file(path.with_name(name)) for name in map(log_name, range(1, len(runs) + 1))},
            "idle_checks": {"before": before.record(), "after": after.record()},
            "host": section.name,
            "device": device,
            "simulated": npu.facts.simulated,
        }
        figure["throughput"]["idle"] = before.busy is None and after.busy is None
        write_json(path, figure)
        return {"simulated": npu.facts.simulated, "idle": figure["throughput"]["idle"]}

    return Step(f"throughput/bs{batch_size}", str(npu.devices[0]), inputs, [path], action, [npu.runtime.argv(command)])


def _relative(context: Context, path: Any) -> str:
    return str(path.relative_to(context.workspace).as_posix())


def _idle(context: Context, npu: NpuHost, device: int, timeout_s: float) -> IdleCheck:
    """The check that found the device idle; with `--force`, what it found in any case.

    Raises:
        KitError: still busy at the deadline.
    """
    check = wait_until_idle(npu.section, npu.runtime, device, 0 if context.force else timeout_s)
    if check.busy and not context.force:
        raise KitError(
            f"{npu.section.name}: device {device} was not idle within {timeout_s:g} s ({check.busy}); free it, "
            "raise benchmark.idle_timeout_s, or take a marked figure with `fab npu-bench --force`"
        )
    return check


def _repeat(context: Context, npu: NpuHost, command: list[str], batch_size: int) -> list[ais_bench.Performance]:
    """Runs of `command` until their throughputs lie within the spread, or the cap is reached."""
    settings = context.inventory.benchmark
    runs: list[ais_bench.Performance] = []
    while len(runs) < settings.max_repeats and (len(runs) < 2 or _spread(runs) > settings.spread):
        log = context.batch_folder(batch_size) / log_name(len(runs) + 1)
        done = npu.runtime.run(command, log=log, timeout_s=context.inventory.timeout_s)
        if done.status != 0:
            raise ais_bench.failure(done.output, done.status)
        runs.append(ais_bench.parse_stdout(done.output, batch_size))
        say(f"    bs{batch_size} repeat {len(runs)}: {runs[-1].throughput:.2f} samples/s", "dim")
    return runs


def _spread(runs: Sequence[ais_bench.Performance]) -> float:
    """(max - min) / median of the throughputs."""
    rates = [run.throughput for run in runs]
    return (max(rates) - min(rates)) / statistics.median(rates)


def log_name(repeat: int) -> str:
    """The file that keeps what ais_bench printed in a repeat (from 1)."""
    return f"benchmark-{repeat}.log"


def figures(batch_size: int, runs: Sequence[ais_bench.Performance]) -> dict[str, Any]:
    """What is reported of the runs: samples/s, and the compute latency of a batch in ms."""
    rates = [run.throughput for run in runs]
    latencies = [run.compute for run in runs]
    return {
        "batch_size": batch_size,
        "throughput": {
            "median": statistics.median(rates),
            "min": min(rates),
            "max": max(rates),
            "repeats": len(rates),
            "spread": _spread(runs) if len(runs) > 1 else None,
        },
        "latency_ms": {
            "min": min(latency.min for latency in latencies),
            "median": statistics.median(latency.median for latency in latencies),
            "mean": statistics.mean(latency.mean for latency in latencies),
            "p99": max(latency.p99 for latency in latencies),
            "max": max(latency.max for latency in latencies),
        },
        "runs": rates,
    }
