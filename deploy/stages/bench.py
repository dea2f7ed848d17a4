"""`fab npu-bench`: every sample through each OM, then each OM's throughput on an idle device."""

from __future__ import annotations

from collections.abc import Callable

from deploy.connections import Connections
from deploy.console import say
from deploy.errors import LinkLost, of_all
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import FAILED, announce
from deploy.stages import accuracy, throughput
from stgcn.errors import InputError

STAGE = "npu-bench"


def run(connections: Connections) -> None:
    """Make npu/bs<N>/logits.npy, results.tsv and benchmark.json for every batch size.

    The accuracy runs come first: they do not need an idle device, so a busy one costs no more than its figure.

    Raises:
        KitError: naming every step that failed, after the others are done.
    """
    workspace = connections.workspace
    devices = ", ".join(map(str, connections.devices))
    eras = ", ".join(sorted({npu.era for npu in connections.npus}))
    say(f"{STAGE} on {devices} ({connections.npus[0].facts.target}, ais_bench of {eras} or later)", "bold")
    index = workspace.samples()
    builds = [workspace.build(batch_size) for batch_size in connections.inventory.batch_sizes]
    failures: dict[str, InputError] = {}

    def attempt(name: str, perform: Callable[[], object]) -> None:
        try:
            perform()
        except LinkLost:
            raise
        except InputError as error:
            announce(name, FAILED, str(error))
            failures[name] = error

    def infer(build: Build) -> None:
        attempt(f"accuracy/{build.name}", lambda: accuracy.run(connections, build, index))

    connections.scheduler.side_by_side(builds, infer)
    for build in builds:
        attempt(f"throughput/{build.name}", lambda: throughput.run(connections, build))  # noqa: B023 (called at once)
    if failures:
        name, error = next(iter(failures.items()))
        others = f" (and {len(failures) - 1} more, above)" if len(failures) > 1 else ""
        raise of_all(f"{name}: {error}{others}", failures.values())
