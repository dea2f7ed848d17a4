"""`fab npu-bench`: every sample through each OM, then each OM's throughput on an idle device."""

from __future__ import annotations

from collections.abc import Callable

from deploy.console import say
from deploy.context import Context
from deploy.errors import KitError, LinkLost
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import FAILED, announce
from deploy.stages import accuracy, throughput
from stgcn.errors import InputError

STAGE = "npu-bench"


def run(context: Context) -> None:
    """Make npu/bs<N>/logits.npy, results.tsv and benchmark.json for every batch size.

    The accuracy runs come first: they do not need an idle device, so a busy one costs no more than its figure.

    Raises:
        KitError: naming every step that failed, after the others are done.
    """
    devices = ", ".join(str(device) for npu in context.npus for device in npu.devices)
    eras = ", ".join(sorted({npu.era for npu in context.npus}))
    say(f"{STAGE} on {devices} ({context.npus[0].facts.target}, ais_bench of {eras} or later)", "bold")
    index = context.index()
    builds = [context.build(batch_size) for batch_size in context.inventory.batch_sizes]
    failures: list[str] = []

    def attempt(name: str, perform: Callable[[], None]) -> None:
        try:
            perform()
        except LinkLost:
            raise
        except InputError as error:
            announce(name, FAILED, str(error))
            failures.append(f"{name}: {error}")

    def infer(build: Build) -> None:
        attempt(f"accuracy/{build.name}", lambda: accuracy.perform(context, build, index))

    context.engine.side_by_side(builds, infer)
    for build in builds:
        attempt(f"throughput/{build.name}", lambda: throughput.perform(context, build))  # noqa: B023 (called at once)
    if failures:
        raise KitError(failures[0] + (f" (and {len(failures) - 1} more, above)" if failures[1:] else ""))
