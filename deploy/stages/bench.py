"""`fab npu-bench`: every sample through each OM, then each OM's throughput on an idle device."""

from __future__ import annotations

from deploy.console import say
from deploy.context import Context
from deploy.errors import KitError
from deploy.manifest import FAILED, announce
from deploy.stages import accuracy, throughput
from stgcn.errors import InputError

STAGE = "npu-bench"


def run(context: Context) -> None:
    """Make npu/bs<N>/logits.npy, results.tsv and benchmark.json for every batch size.

    The accuracy runs come first: they do not need an idle device, so a busy one costs no more than its figure.

    Raises:
        KitError: naming every step that failed, after the others are done.
    """
    devices = [device for npu in context.npus for device in npu.devices]
    say(f"{STAGE} on {', '.join(map(str, devices))}", "bold")
    failures: list[str] = []
    for make_step in (accuracy.step, throughput.step):
        for batch_size in context.inventory.batch_sizes:
            try:
                step = make_step(context, batch_size)
                context.perform(step)
            except InputError as error:
                name = f"{make_step.__module__.rpartition('.')[2]}/bs{batch_size}"
                announce(name, FAILED, str(error))
                failures.append(f"{name}: {error}")
    if failures:
        raise KitError(failures[0] + (f" (and {len(failures) - 1} more, above)" if failures[1:] else ""))
