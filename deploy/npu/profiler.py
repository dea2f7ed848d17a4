"""An OM under the profiler: one run of ais_bench under msprof, and the tables that it leaves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.errors import HostUnfit, KitError
from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.hosts.job import Job
from deploy.npu import ais_bench, op_summary, transcript
from deploy.npu.device import Idle, IdleWatch, prefix_errors, was_busy
from deploy.npu.worker import RunAlone, Worker
from stgcn.files import write_whole

LOOP = 6  # inferences: the first warms up
LOG = "profile.log"
TABLE, FUSIONS = "op_summary.csv", "fusion_op.csv"  # as they come back
_PROF = re.compile(r"(?:^|/)(PROF_[^/]+)/")
# `op_summary_0_1.csv` to CANN 6 (device, model), `op_summary_<time>.csv` since. Of a large one, the parts behind the
# first are `op_summary_slice_1_<time>.csv`, each with the time at which it was written. ais_bench of 2024 puts the
# model's name behind.
_SUMMARY = re.compile(
    r"op_summary(?P<place>(?:_[0-9]{1,7})*)(?:_slice_(?P<slice>[0-9]+))?(?:_(?P<time>[0-9]{8,}))?(?P<model>_[^/]*)?\.csv"
)
_FUSIONS = re.compile(r"(?:^|/)fusion_op(?:_[^/]*)?\.csv$")


@dataclass(frozen=True)
class Profiled:
    idle: Idle
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Profiling(RunAlone):
    """One OM on one device, under the profiler. Leaves TABLE, and FUSIONS where the release writes it."""

    idle_timeout_s: float

    def __str__(self) -> str:
        return f"profile/{self.build.name}"

    def command(self, worker: Worker) -> list[str]:
        python, output = worker.npu.section.tools.python, str(self.output(worker))
        om = str(self.om.on(worker.npu.host))
        return ais_bench.profile_argv(python, om, worker.number, self.build.batch_size, LOOP, output, worker.npu.era)

    def __call__(self, worker: Worker, folder: Path) -> Profiled:
        npu, device = worker.npu, worker.device
        assert device is not None
        watch = IdleWatch(npu.smi, device, 0 if self.force else self.idle_timeout_s, self.idle)
        check = watch.before()
        if check.busy and not self.force:
            raise HostUnfit(was_busy(watch, check.busy, watch.patience_s, "npu-profile"))
        job = Job(npu.host, self.job)
        with prefix_errors(str(worker)), job.attached(self.fresh) as resumed:
            if not resumed:
                npu.host.call("link", {"folder": str(self.output(worker)), "files": {}})
            done = worker.runtime.run(
                self.command(worker), folder=job.folder, log=folder / LOG, timeout_s=self.timeout_s, job=job.name
            )
            if done.status != 0:
                raise ais_bench.failure(done.output, done.status)
            self._collect(worker, folder, done.output)
        return Profiled(watch.known, {**npu.facts.record, **npu.runtime.facts(), "idle": check.busy is None})

    def _collect(self, worker: Worker, folder: Path, output: str) -> None:
        """Bring the tables; where msprof left raw data alone, have it make them first."""
        host, top = worker.npu.host, self.output(worker)
        tables = choose(_listing(host, top))
        if not tables:
            raw = sorted({found[1] for name in _listing(host, top) if (found := _PROF.search(name))})
            if not raw:
                raise KitError(_no_table(output))
            export = ["msprof", "--export=on", f"--output={top / 'profiler' / raw[-1]}"]
            done = worker.runtime.run(export, folder=top.parent, log=folder / f"export-{LOG}", timeout_s=self.timeout_s)
            tables = choose(_listing(host, top))
            if done.status != 0 or not tables:
                raise KitError(
                    f"msprof --export made no op_summary ({transcript.last(done.output)}); see export-{LOG}, and the "
                    "profiler's requirements of this CANN"
                )
        text = _joined([_fetch(host, top / name, folder / TABLE) for name in tables])
        write_whole(folder / TABLE, text.encode())
        fusions = _fusions(_listing(host, top))
        (folder / FUSIONS).unlink(missing_ok=True)
        if fusions:
            transfer.get(host, top / fusions[-1], folder / FUSIONS)


def _listing(host: Host, top: PurePosixPath) -> list[str]:
    found: dict[str, int] = host.call("listing", {"folder": str(top)})
    return sorted(name for name, size in found.items() if size)


def choose(names: Iterable[str]) -> list[str]:
    """Of the files below a run's output those of one op_summary: the newest export's, its slices in their order.

    A second export leaves a second table of the same operators, and a PROF_ folder of its own is another run's.
    """
    found: dict[tuple[str, ...], list[tuple[str, int, str]]] = {}
    for name in names:
        path = PurePosixPath(name)
        if summary := _SUMMARY.fullmatch(path.name):
            key = (str(path.parent), summary["place"], summary["model"] or "")
            found.setdefault(key, []).append((summary["time"] or "", int(summary["slice"] or 0), name))
    if not found:
        return []
    newest = max(found, key=lambda key: ("mindstudio_profiler_output" in key[0], key[0], max(found[key])))
    files = sorted(found[newest])
    begin = max((i for i, (_, part, _) in enumerate(files) if part == 0), default=0)
    return [name for _, _, name in sorted(files[begin:], key=lambda file: file[1])]


def read_tables(path: Path) -> tuple[str, str | None]:
    """The text of an op_summary that was made elsewhere, and of its fusion_op where there is one; `path` is the table,
    or a folder of the profiler's.

    Raises:
        KitError: there is no such file, or no table below the folder.
    """
    if path.is_file():
        return op_summary.decode(path.read_bytes()), None
    below = [found.relative_to(path).as_posix() for found in path.rglob("*.csv")] if path.is_dir() else []
    if not (tables := choose(below)):
        raise KitError(f"{path}: there is no op_summary_*.csv; name the table, or the profiler's folder (PROF_...)")
    fusions = [op_summary.decode((path / name).read_bytes()) for name in _fusions(below)[-1:]]
    return _joined([op_summary.decode((path / name).read_bytes()) for name in tables]), next(iter(fusions), None)


def _fusions(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if _FUSIONS.search(name))


def _fetch(host: Host, there: PurePosixPath, near: Path) -> str:
    part = near.with_suffix(".part")
    transfer.get(host, there, part)
    text = op_summary.decode(part.read_bytes())
    part.unlink()
    return text


def _joined(texts: Sequence[str]) -> str:
    """Slices have the same first line; that of the others is left out."""
    head, *others = (text.lstrip("\ufeff").rstrip("\r\n") + "\n" for text in texts)
    if len({text.partition("\n")[0].strip() for text in (head, *others)}) > 1:
        raise KitError("the slices of op_summary have other columns than each other: profile again")
    return head + "".join(text.partition("\n")[2] for text in others)


def _no_table(output: str) -> str:
    if "find no msprof" in output:
        return (
            "ais_bench found no msprof, so there is no table: put CANN's profiler on the PATH "
            "(<toolkit>/tools/profiler/bin) by a script in `tools.env_scripts`, and profile again"
        )
    return f"the profiler left nothing (its run last said {transcript.last(output)}): see {LOG}"
