"""`fab gpu-bench`: the model in float32 by torch on the GPU host, at the batch sizes of the NPU's figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy import nvidia
from deploy.connections import Connections
from deploy.console import say
from deploy.errors import KitError
from deploy.pipeline import graph
from deploy.pipeline.manifest import write_json
from deploy.stages import gpu
from stgcn import plain_json

STAGE, STEP, FILE = "gpu-bench", "gpu-throughput", "benchmark.json"
POLL_S, SETTLE_S = 2.0, 30.0


def run(connections: Connections) -> None:
    """Make gpu/benchmark.json, of an idle GPU, or of a busy one, marked, with `--force`; of the CPU where torch there
    has no CUDA.

    Raises:
        KitError: the model's package has no `bench`, or the GPU stays busy or becomes so.
    """
    workspace, settings = connections.workspace, connections.inventory.benchmark
    say(f"{STAGE} on {connections.inventory.gpu.name}", "bold")
    if "bench" not in workspace.model.card.capabilities:
        raise KitError(f"{workspace.model.card.name}: its package has no `bench`, so it cannot be measured by itself")
    every = nvidia.gpus(connections.gpu.host)
    device = f"{every[0].name}, driver {every[0].driver}" if every else "cpu"
    inputs = {
        **graph.inputs(workspace.manifest.steps, STEP, connections.inventory),
        "checkpoint": gpu.checkpoint_of(connections),
        "tools": {**gpu.versions(connections), **connections.gpu.facts()},
        "device": device,
    }
    options = ["--ckpt", str(connections.checkpoint), "--output", f"{gpu.FOLDER}/{FILE}"]
    options += ["--batch_sizes", ",".join(map(str, connections.inventory.batch_sizes))]
    for name in ("loop", "warmup", "max_repeats", "spread"):
        options += [f"--{name}", str(getattr(settings, name))]
    marked = workspace.manifest.steps.get(STEP, {}).get("facts", {}).get("idle") is False
    fresh = marked and not connections.options.force
    gpu.run_command(connections, STEP, inputs, "bench", options, [FILE], fresh=fresh, guard=_idle(connections))
    if not connections.options.dry:
        say("  `make score` sets it beside the NPU's figures", "dim")


@contextmanager
def _idle(connections: Connections) -> Iterator[dict[str, Any]]:
    """See that the first GPU is idle before a measurement and after it, and write that into its file."""
    patience = 0.0 if connections.options.force else connections.inventory.benchmark.idle_timeout_s
    before, facts = _wait(connections, patience), dict[str, Any]()
    if before and not connections.options.force:
        raise KitError(
            f"{connections.gpu.host.name}: the GPU was not idle within {patience:g} s ({before}); free it, raise "
            "benchmark.idle_timeout_s, or take a marked figure with `fab gpu-bench --force`"
        )
    yield facts
    path = connections.workspace.artefact(f"gpu/{FILE}")
    figure = plain_json.load(path)
    facts["idle"] = None
    if figure["device"]["kind"] == "cuda":
        after = _wait(connections, 0.0 if before else SETTLE_S)
        if after and not connections.options.force:
            path.unlink()
            raise KitError(
                f"{connections.gpu.host.name}: the GPU was put to other use while it was measured ({after}), so the "
                "figure is thrown away; free it and run again, or take a marked figure with `fab gpu-bench --force`"
            )
        facts["idle"] = not (before or after)
    write_json(path, {**figure, "idle": facts["idle"], "host": connections.gpu.host.name})


def _wait(connections: Connections, patience_s: float) -> str | None:
    """Why the first GPU is busy after so long; None where it is idle, or there is none."""
    deadline, told = time.monotonic() + patience_s, False
    while True:
        every = nvidia.gpus(connections.gpu.host)
        busy = every[0].busy if every else None
        left = deadline - time.monotonic()
        if busy is None or left <= 0:
            return busy
        if not told:
            say(f"  waiting for the GPU: {busy} ({left:.0f} s left)")
            told = True
        time.sleep(min(POLL_S, left))
