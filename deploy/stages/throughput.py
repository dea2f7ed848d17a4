"""One OM's throughput: pure inference on one idle device, repeated until the figure is steady."""

from __future__ import annotations

from typing import Any

from deploy.connections import Connections
from deploy.errors import HostUnfit
from deploy.hosts.job import job_name
from deploy.npu.measure import Measurement
from deploy.npu.worker import CachedFile, Worker
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import Step, write_json


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
    persons_per_clip = index.rows_per_sample if index.rows is not None else None
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
    path = build.folder / "benchmark.json"

    def action() -> dict[str, Any]:
        place = connections.scheduler.alone()
        place.send(build.om)
        measured = place.do(measurement, build.folder)
        connections.idle = measured.idle
        if measured.refusal:
            raise HostUnfit(measured.refusal)
        write_json(path, measured.figure)
        return {**measured.facts, "idle": measured.figure["throughput"]["idle"]}

    return Step(step, str(worker), inputs, [path], action, [measurement.argv(worker)], measurement.prepare(worker))
