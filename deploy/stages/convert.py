"""`fab npu-convert`: the ONNX to the NPU hosts, through ATC once a batch size, each OM and its log back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deploy.build import Build
from deploy.console import say
from deploy.context import Context, Job, NpuHost, remote_copy
from deploy.errors import KitError, LinkLost
from deploy.hosts import transfer
from deploy.manifest import FAILED, Step, announce
from deploy.npu import atc
from deploy.npu.device import naming
from deploy.workqueue import drain
from stgcn.errors import InputError

STAGE = "npu-convert"


def run(context: Context) -> None:
    """Make npu/bs<N>/st_gcn_bs<N>.om for every batch size; one that fails does not stop the others.

    Raises:
        KitError: naming every batch size that failed, after the others are done.
    """
    facts = context.npus[0].facts
    say(f"{STAGE} on {', '.join(npu.section.name for npu in context.npus)} for {facts.target}", "bold")
    builds = [context.build(batch_size) for batch_size in context.inventory.batch_sizes]
    failures = convert(context, builds)
    if failures:
        failed = [build for build in builds if build.name in failures]
        sizes = ", ".join(str(build.batch_size) for build in failed)
        raise KitError(f"batch size {sizes} not converted: {failures[failed[0].name]}")


def convert(context: Context, builds: Sequence[Build]) -> dict[str, InputError]:
    """Make the OM of every build, one at a time on each host; name -> error of those that failed, each announced."""
    failures: dict[str, InputError] = {}

    def one(npu: NpuHost, build: Build) -> None:
        try:
            context.perform(_step(context, npu, build))
        except LinkLost:
            raise
        except InputError as error:
            announce(f"convert/{build.name}", FAILED, str(error))
            failures[build.name] = error

    drain(builds, context.npus, one)
    return failures


def _step(context: Context, npu: NpuHost, build: Build) -> Step:
    facts, host = npu.facts, npu.host
    onnx = build.onnx.relative_to(context.workspace).as_posix()
    inputs: dict[str, Any] = {
        "onnx": context.manifest.steps[build.onnx_step]["outputs"][onnx]["sha256"],
        "soc_version": facts.soc_version,
        "cann": facts.cann,
        "flags": dict(build.flags),
        "batch_size": build.batch_size,
        "persons": build.persons,
    }
    if build.aoe_job_type:
        inputs["aoe_job_type"] = build.aoe_job_type
    job = Job.of(host, inputs, f"convert-bs{build.batch_size}")
    folder = job.folder
    there = remote_copy(host, build.onnx)
    command = _command(npu, build, str(there), str(folder / build.stem))
    log = build.folder / ("aoe.log" if build.aoe_job_type else "atc.log")

    def action() -> dict[str, Any]:
        with job.begun(context.fresh) as begun:
            if not begun:
                transfer.put(host, build.onnx, there)
                host.call("link", {"folder": str(folder), "files": {}})
            timeout_s = context.inventory.timeout_s
            done = npu.runtime.run(command, folder=folder, log=log, timeout_s=timeout_s, job=job.name)
            with naming(host.name):
                (atc.parse_aoe if build.aoe_job_type else atc.parse)(done.output, done.status)
            transfer.get(host, folder / f"{build.stem}.om", build.om)
            build.om.chmod(0o600)  # its owner's alone, as ATC makes it
        return {"simulated": facts.simulated, **npu.runtime.facts()}

    outputs, argv = [build.om, log], npu.runtime.argv(command, folder)
    prepare = [["mkdir", "-p", str(folder)]]
    return Step(f"convert/{build.name}", host.name, inputs, outputs, action, [argv], prepare)


def _command(npu: NpuHost, build: Build, onnx: str, output: str) -> list[str]:
    tools, size = npu.section.tools, build.batch_size
    if build.aoe_job_type:
        return atc.aoe_argv(
            tools.aoe, onnx, output, size, build.aoe_job_type, build.flags, sample_shape=build.sample_shape
        )
    soc_version = npu.facts.soc_version
    return atc.argv(tools.atc, onnx, output, size, soc_version, build.flags, sample_shape=build.sample_shape)
