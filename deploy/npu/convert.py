"""An ONNX to an OM, on one host: a run of ATC, or of AOE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.containers.native import LOGS
from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.hosts.job import Job
from deploy.npu import atc
from deploy.npu.device import prefix_errors
from deploy.npu.worker import CachedFile, NpuHost, Rows, Worker
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import StepResult


@dataclass(frozen=True)
class Conversion:
    """One run of ATC, or of AOE, on one host."""

    job: str
    build: Build
    files: Sequence[CachedFile]  # the ONNX, then those of the build's `files`, in their order
    timeout_s: float
    fresh: bool
    inputs: Sequence[Rows] = ()

    def __str__(self) -> str:
        return f"convert/{self.build.name}"

    @property
    def log(self) -> str:
        return "aoe.log" if self.build.aoe_job_type else "atc.log"

    def __call__(self, worker: Worker, folder: Path) -> StepResult:
        npu, build, job = worker.npu, self.build, Job(worker.npu.host, self.job)
        om = job.folder / build.om.name
        with job.attached(self.fresh) as resumed:
            if not resumed:
                npu.host.call("link", {"folder": str(job.folder), "files": {}})
            log = folder / self.log
            done = npu.runtime.run(
                self._command(npu), folder=job.folder, log=log, timeout_s=self.timeout_s, job=job.name
            )
            with prefix_errors(npu.host.name), _detail(npu.host, job, log.with_suffix(".detail.log")):
                atc.parse(log.stem, done.output, done.status)
                if npu.host.call("digest", {"paths": [str(om)]}).get(str(om)) is None:
                    raise KitError(f"{log.stem} says that it succeeded and left no {om.name}: see its log")
            transfer.get(npu.host, om, folder / om.name)
        facts = {**npu.facts.record, **npu.runtime.facts()}
        return StepResult(facts, npu.host.name, *self.argv(npu))

    def argv(self, npu: NpuHost) -> tuple[list[list[str]], list[list[str]]]:
        """What runs on a host, and what makes it ready for that."""
        folder = Job(npu.host, self.job).folder
        return [npu.runtime.argv(self._command(npu), folder)], [["mkdir", "-p", str(folder)]]

    def _command(self, npu: NpuHost) -> list[str]:
        tools, build = npu.section.tools, self.build
        onnx, *others = (str(file.on(npu.host)) for file in self.files)
        output = str(Job(npu.host, self.job).folder / build.stem)
        flags = {**build.flags, **dict(zip(build.files, others, strict=True))}
        size, shapes = build.batch_size, {tensor.name: tensor.shape for tensor in build.card.inputs}
        if build.aoe_job_type:
            return atc.argv(tools.aoe, onnx, output, size, flags, shapes, job_type=build.aoe_job_type)
        return atc.argv(tools.atc, onnx, output, size, flags, shapes, soc_version=npu.facts.soc_version)


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
