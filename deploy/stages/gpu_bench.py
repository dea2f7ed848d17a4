"""`fab gpu-bench`: the model in float32 by torch on the GPU host, at the batch sizes of the NPU's figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy import nvidia
from deploy.connections import Connections
from deploy.console import say
from deploy.errors import HostUnfit, KitError
from deploy.evidence.gpu_figure import NOT_TOLD
from deploy.npu.device import became_busy, wait_until_idle, was_busy
from deploy.npu.measure import SETTLE_S
from deploy.pipeline import graph
from deploy.pipeline.manifest import write_json
from deploy.stages import gpu
from stgcn import plain_json

STAGE, STEP, FILE = "gpu-bench", "gpu-throughput", "benchmark.json"


def run(connections: Connections) -> None:
    """Make gpu/benchmark.json, of an idle GPU, or of a busy one, marked, with `--force`; of the CPU where torch there
    has no CUDA, or a container gets no GPU. Without nvidia-smi (ROCm, Jetson) nobody knows whether a GPU is idle.

    Raises:
        KitError: the model's package has no `bench`, or the GPU stays busy or becomes so.
    """
    workspace, settings = connections.workspace, connections.inventory.benchmark
    say(f"{STAGE} on {connections.inventory.gpu.name}", "bold")
    if "bench" not in workspace.model.card.capabilities:
        raise KitError(f"{workspace.model.card.name}: its package has no `bench`, so it cannot be measured by itself")
    first = _first(connections)
    runtime = connections.gpu.with_gpu(first.index) if first else None
    if first and runtime is None:
        say(
            f"  {connections.gpu.host.name}: Docker hands no GPU in without NVIDIA's Container Toolkit, so the CPU is "
            "measured; install it there, or set `gpu: {runtime: native}`",
            "yellow",
        )
    without = NOT_TOLD if _is_native(connections) else "cpu"
    inputs = {
        **graph.inputs(workspace.manifest.steps, STEP, connections.inventory),
        "checkpoint": gpu.checkpoint_of(connections),
        "tools": {**gpu.versions(connections), **connections.gpu.facts()},
        "device": f"{first.name}, driver {first.driver}" if first and runtime else without,
    }
    names = ("loop", "warmup", "min_repeats", "max_repeats", "spread")
    options = gpu.options_of(
        ckpt=connections.file("checkpoint"),
        output=f"{gpu.FOLDER}/{FILE}",
        batch_sizes=",".join(map(str, connections.inventory.batch_sizes)),
        **{name: getattr(settings, name) for name in names},
    )
    marked = workspace.manifest.steps.get(STEP, {}).get("facts", {}).get("idle") is False
    fresh, guard = marked and not connections.options.force, _idle(connections, runtime is not None)
    gpu.run_command(connections, STEP, inputs, "bench", options, [FILE], fresh=fresh, guard=guard, runtime=runtime)
    if not connections.options.dry:
        say("  `make score` sets it beside the NPU's figures", "dim")


@contextmanager
def _idle(connections: Connections, has_gpu: bool) -> Iterator[dict[str, Any]]:
    """See that the first GPU is idle before a measurement and after it, and write that into its file."""
    force, name = connections.options.force, connections.gpu.host.name
    patience = 0.0 if force else connections.inventory.benchmark.idle_timeout_s
    before, facts = _wait(connections, patience) if has_gpu else None, dict[str, Any]()
    if before and not force:
        raise HostUnfit(was_busy(f"{name}'s GPU", before, patience, STAGE))
    yield facts
    path = connections.workspace.artefact(f"gpu/{FILE}")
    figure = plain_json.load(path)
    facts["idle"] = None
    if figure["device"]["kind"] != "cpu" and not has_gpu:
        say(f"  {name}: nvidia-smi does not tell of this GPU, so whether it was idle is not known", "yellow")
    elif figure["device"]["kind"] != "cpu":
        after = _wait(connections, 0.0 if before else SETTLE_S)
        if after and not force:
            path.unlink()
            raise HostUnfit(became_busy(f"{name}'s GPU", after, STAGE))
        facts["idle"] = not (before or after)
    write_json(path, {**figure, "idle": facts["idle"], "host": name})


def _first(connections: Connections) -> nvidia.Gpu | None:
    """The GPU that torch there takes."""
    asked = connections.gpu.run(["printenv", "CUDA_VISIBLE_DEVICES"]) if _is_native(connections) else None
    visible = asked.output.strip() if asked and asked.status == 0 else None
    return nvidia.first(nvidia.gpus(connections.gpu.host), visible)


def _is_native(connections: Connections) -> bool:
    return connections.inventory.gpu.runtime == "native"


def _wait(connections: Connections, patience_s: float) -> str | None:
    """Why the first GPU is busy after so long; None where it is idle."""
    host = connections.gpu.host

    def look() -> nvidia.Gpu:
        if found := _first(connections):
            return found
        raise HostUnfit(f"{host.name}: nvidia-smi shows no GPU any more; see it and dmesg there")

    return wait_until_idle(f"{host.name}'s GPU", look, patience_s).busy
