"""One OM's throughput: pure inference on one idle device, repeated until the figure is steady."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.connections import Connections
from deploy.errors import HostUnfit, KitError
from deploy.hosts.job import job_name
from deploy.npu import ais_bench
from deploy.npu.measure import Measurement
from deploy.npu.worker import CachedFile, NpuHost
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import Step, write_json


def run(connections: Connections, build: Build, threads: int | None = None) -> Path:
    """Make benchmark.json, one steady figure of an idle device, or of a busy one, marked, with `--force`; its path.

    A figure is one device's, the first that the inventory lists. `threads` other than the inventory's have their own
    folder in the build's.

    Raises:
        KitError: the device stays busy, becomes so, or fails; or ais_bench's figures contradict each other.
    """
    step = _step(connections, build, threads)
    entry = connections.workspace.manifest.steps.get(step.name, {})
    marked = entry.get("facts", {}).get("idle") is False
    connections.run_step(
        step, fresh=marked and not connections.options.force
    )  # a marked figure serves nobody who did not ask for one
    return step.outputs[0]


def check_threads(npu: NpuHost, threads: int) -> None:
    """Raises KitError where the host's ais_bench cannot measure several threads."""
    if threads > 1 and npu.era < ais_bench.THREADS_SINCE:
        raise KitError(
            f"{npu}: its ais_bench, of {npu.era}, does not tell what {threads} threads give together; install one of "
            f"{ais_bench.THREADS_SINCE} or later, or leave `threads` out of the inventory"
        )


def _step(connections: Connections, build: Build, threads: int | None) -> Step:
    workspace = connections.workspace
    npu = connections.npus[0]
    worker, settings = npu.devices[0], connections.inventory.benchmark
    workspace.om(build)
    step, folder = f"throughput/{build.name}", build.folder
    if threads is not None and threads != settings.threads:
        settings = settings.model_copy(update={"threads": threads})
        step, folder = f"{step}/threads-{threads}", folder / f"threads-{threads}"
    check_threads(npu, settings.threads)
    read = graph.inputs(workspace.manifest.steps, step, connections.inventory, build)
    read.pop("threads", None)
    inputs: dict[str, Any] = {
        **read,
        **settings.decisive,
        "host": npu.section.name,
        "device": worker.device,
        **npu.facts.tools,
    }
    persons_per_clip = workspace.samples(build.persons).persons_per_clip
    if persons_per_clip:
        inputs["persons_a_clip"] = persons_per_clip
    measurement = Measurement(
        job=job_name(inputs, f"throughput-bs{build.batch_size}"),
        om=CachedFile(build.om.name, inputs["om"]),
        build=build,
        persons_per_clip=persons_per_clip,
        settings=settings,
        timeout_s=connections.inventory.timeout_s,
        fresh=connections.options.fresh,
        force=connections.options.force,
        idle=connections.idle,
    )
    path = folder / "benchmark.json"

    def action() -> dict[str, Any]:
        place = connections.scheduler.alone()
        place.send(build.om)
        measured = place.do(measurement, folder)
        connections.idle = measured.idle
        if measured.refusal:
            raise HostUnfit(measured.refusal)
        write_json(path, measured.figure)
        return {**measured.facts, "idle": measured.figure["throughput"]["idle"]}

    return Step(step, str(worker), inputs, [path], action, [measurement.argv(worker)], measurement.prepare(worker))
