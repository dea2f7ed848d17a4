"""`fab npu-convert`: the ONNX to the NPU hosts, through ATC once a batch size, each OM and its log back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.connections import Connections
from deploy.console import say
from deploy.containers.runtime import LOGS
from deploy.errors import KitError, LinkLost
from deploy.execution.worker import Copy, NpuHost, Place, Rows, Worker
from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.hosts.job import Job, job_name
from deploy.npu import atc
from deploy.npu.device import naming
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import FAILED, Ran, Step, announce
from stgcn.errors import InputError

STAGE = "npu-convert"


def run(connections: Connections) -> None:
    """Make npu/bs<N>/<model>_bs<N>.om for every batch size; one that fails does not stop the others.

    Raises:
        KitError: naming every batch size that failed, after the others are done.
    """
    facts = connections.npus[0].facts
    say(f"{STAGE} on {', '.join(npu.section.name for npu in connections.npus)} for {facts.target}", "bold")
    builds = [connections.workspace.build(batch_size) for batch_size in connections.inventory.batch_sizes]
    failures = convert(connections, builds)
    if failures:
        failed = [build for build in builds if build.name in failures]
        sizes = ", ".join(str(build.batch_size) for build in failed)
        raise KitError(f"batch size {sizes} not converted: {failures[failed[0].name]}")


def convert(
    connections: Connections, builds: Sequence[Build], ended: Callable[[], None] = lambda: None
) -> dict[str, InputError]:
    """Make the OM of every build; name -> error of those that failed, each announced. `ended` is called after each."""
    failures: dict[str, InputError] = {}

    def one(place: Place, build: Build) -> None:
        if connections.options.dry and not build.onnx.is_file():
            say(f"  convert/{build.name} would run after {build.onnx_step}")
            return
        try:
            connections.run_step(_step(connections, place, build))
        except LinkLost:
            raise
        except InputError as error:
            announce(f"convert/{build.name}", FAILED, str(error))
            failures[build.name] = error
        ended()

    connections.engine.on_hosts(builds, one)
    return failures


def _step(connections: Connections, place: Place, build: Build) -> Step:
    npu = place.npu
    step, entries = f"convert/{build.name}", connections.workspace.manifest.steps
    inputs: dict[str, Any] = {
        **graph.inputs(entries, step, connections.inventory, build),
        "onnx": graph.made(entries, graph.Read("onnx", build.onnx_step, build.onnx.name)),
        "soc_version": npu.facts.soc_version,
        "cann": npu.facts.cann,
    }
    job = job_name(inputs, f"convert-bs{build.batch_size}")
    conversion = Conversion(
        job, Copy(build.onnx.name, inputs["onnx"]), build, connections.inventory.timeout_s, connections.options.fresh
    )

    def action() -> Ran:
        place.send(build.onnx)
        ran = place.do(conversion, build.folder)
        build.om.chmod(0o600)  # its owner's alone, as ATC makes it
        return ran

    outputs = [build.om, build.folder / conversion.log]
    return Step(step, str(place), inputs, outputs, action, *conversion.argv(npu))


@dataclass(frozen=True)
class Conversion:
    """One run of ATC, or of AOE, on one host."""

    job: str
    model: Copy  # the ONNX
    build: Build
    timeout_s: float
    fresh: bool
    inputs: Sequence[Rows] = ()

    def __str__(self) -> str:
        return f"convert/{self.build.name}"

    @property
    def log(self) -> str:
        return "aoe.log" if self.build.aoe_job_type else "atc.log"

    def __call__(self, worker: Worker, folder: Path) -> Ran:
        npu, build, job = worker.npu, self.build, Job(worker.npu.host, self.job)
        om = job.folder / build.om.name
        with job.begun(self.fresh) as begun:
            if not begun:
                npu.host.call("link", {"folder": str(job.folder), "files": {}})
            log = folder / self.log
            done = npu.runtime.run(
                self._command(npu), folder=job.folder, log=log, timeout_s=self.timeout_s, job=job.name
            )
            with naming(npu.host.name), _detail(npu.host, job, log.with_suffix(".detail.log")):
                (atc.parse_aoe if build.aoe_job_type else atc.parse)(done.output, done.status)
                if npu.host.call("digest", {"paths": [str(om)]}).get(str(om)) is None:
                    raise KitError(f"{log.stem} says that it succeeded and left no {om.name}: see its log")
            transfer.get(npu.host, om, folder / om.name)
        facts = {**npu.facts.record, **npu.runtime.facts()}
        return Ran(facts, npu.host.name, *self.argv(npu))

    def argv(self, npu: NpuHost) -> tuple[list[list[str]], list[list[str]]]:
        """What runs on a host, and what makes it ready for that."""
        folder = Job(npu.host, self.job).folder
        return [npu.runtime.argv(self._command(npu), folder)], [["mkdir", "-p", str(folder)]]

    def _command(self, npu: NpuHost) -> list[str]:
        tools, build = npu.section.tools, self.build
        onnx, output = str(self.model.on(npu.host)), str(Job(npu.host, self.job).folder / build.stem)
        size, shapes = build.batch_size, {tensor.name: tensor.shape for tensor in build.card.inputs}
        if build.aoe_job_type:
            return atc.aoe_argv(tools.aoe, onnx, output, size, build.aoe_job_type, build.flags, shapes)
        return atc.argv(tools.atc, onnx, output, size, npu.facts.soc_version, build.flags, shapes)


@contextmanager
def _detail(host: Host, job: Job, path: Path) -> Iterator[None]:
    """After a failure, what CANN wrote of it in detail is at `path`, and the error names it."""
    path.unlink(missing_ok=True)
    try:
        yield
    except KitError as error:
        script = '[ ! -d "$1" ] || find "$1" -type f -exec tail -c 1000000 {} +'
        host.run(["sh", "-c", script, "sh", str(job.folder / LOGS)], log=path)
        if not path.stat().st_size:
            path.unlink()
            raise
        raise KitError(f"{error}; its detailed log is {path.name} in {path.parent}") from None
