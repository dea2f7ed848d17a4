"""`fab npu-convert`: the ONNX to the NPU hosts, through ATC once a batch size, each OM and its log back."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from deploy import transfer
from deploy.console import say
from deploy.context import Context, NpuHost, remote_copy, run_folder
from deploy.errors import KitError
from deploy.manifest import FAILED, Step, announce
from deploy.npu import atc
from stgcn.errors import InputError

STAGE = "npu-convert"


def run(context: Context) -> None:
    """Make npu/bs<N>/st_gcn_bs<N>.om for every batch size; one that fails does not stop the others.

    Raises:
        KitError: naming every batch size that failed, after the others are done.
    """
    say(f"{STAGE} on {', '.join(npu.section.name for npu in context.npus)}", "bold")
    onnx = context.onnx()
    idle: SimpleQueue[NpuHost] = SimpleQueue()
    for npu in context.npus:
        idle.put(npu)
    failures: dict[int, InputError] = {}

    def convert(batch_size: int) -> None:
        npu = idle.get()
        try:
            context.perform(_step(context, npu, onnx, batch_size))
        except InputError as error:
            announce(f"convert/bs{batch_size}", FAILED, str(error))
            failures[batch_size] = error
        finally:
            idle.put(npu)

    with ThreadPoolExecutor(len(context.npus)) as pool:
        list(pool.map(convert, context.inventory.batch_sizes))
    if failures:
        sizes = sorted(failures)
        raise KitError(f"batch size {', '.join(map(str, sizes))} not converted: {failures[sizes[0]]}")


def _step(context: Context, npu: NpuHost, onnx: Path, batch_size: int) -> Step:
    facts, host = npu.facts, npu.host
    name = f"st_gcn_bs{batch_size}"
    inputs: Mapping[str, Any] = {
        "onnx": context.manifest.steps["export"]["outputs"]["gpu/st_gcn.onnx"]["sha256"],
        "soc_version": facts.soc_version,
        "cann": facts.cann,
        "flags": dict(context.inventory.atc),
        "batch_size": batch_size,
    }
    folder = run_folder(host, inputs, f"convert-bs{batch_size}")
    there = remote_copy(host, onnx)
    command = atc.argv(
        npu.section.tools.atc, str(there), str(folder / name), batch_size, facts.soc_version, context.inventory.atc
    )
    om = context.batch_folder(batch_size) / f"{name}.om"
    log = om.with_name("atc.log")

    def action() -> dict[str, Any]:
        transfer.put(host, onnx, there)
        host.call("link", {"folder": str(folder), "files": {}})
        try:
            done = npu.runtime.run(command, folder=folder, log=log, timeout_s=context.inventory.timeout_s)
            atc.parse(done.output, done.status)
            transfer.get(host, folder / f"{name}.om", om)
        finally:
            host.call("remove", {"paths": [str(folder)]})
        return {"simulated": facts.simulated}

    return Step(f"convert/bs{batch_size}", host.name, inputs, [om, log], action, [npu.runtime.argv(command, folder)])
