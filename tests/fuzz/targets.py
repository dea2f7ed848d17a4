"""Everything that reads what others wrote: bytes in; parsed, or refused in one sentence."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy import audit, inventory
from deploy.errors import KitError
from deploy.evidence import compare, gate, runs, status
from deploy.evidence.logits import DIGESTS, LOGITS, read_logits
from deploy.hosts import trust
from deploy.hosts.exchange import Exchange
from deploy.hosts.owner import Owner
from deploy.hosts.remote import shards
from deploy.hosts.remote.files import read_json
from deploy.hosts.replies import REPLIES
from deploy.npu import ais_bench, atc, device, results, smi, versions
from deploy.pipeline.index import read_index
from deploy.report import page
from deploy.workspace import Workspace
from stgcn import npy, onnx_model, plain_json
from stgcn.dataset import load_labels, open_clips
from stgcn.errors import InputError, sentence
from tests.fuzz import seeds
from tests.unit import made_up
from tests.unit.test_device import Telling

Parse = Callable[[bytes, Path], object]


CASES: Counter[str] = Counter()  # that each target has met


@dataclass(frozen=True)
class Target:
    """`parse` is given bytes and an empty folder of its own; it promises `refusals` for whatever it doesn't take."""

    parse: Parse
    seeds: Callable[[], Sequence[bytes]]  # each of which it takes, or refuses in one sentence
    refusals: tuple[type[Exception], ...] = (InputError,)
    slow: bool = False  # a tenth of the cases are enough for a run of a few seconds

    def survive(self, content: bytes, folder: Path) -> bool:
        """Whether `content` was taken. Any other end than one of the refusals is raised."""
        there, refusal = set(folder.parent.iterdir()), None
        try:
            self.parse(content, folder)
        except self.refusals as error:
            refusal = error
        assert set(folder.parent.iterdir()) == there, "it wrote beside its folder"
        said = str(refusal)
        assert not isinstance(refusal, InputError) or (len(said) > 10 and said == sentence(said)), said
        return refusal is None


def file(read: Callable[[Path], object], name: str = "file") -> Parse:
    def parse(content: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return parse


def text(read: Callable[[str], object]) -> Parse:
    return lambda content, _folder: read(content.decode("utf-8", "replace"))


class _Pipe:
    """What a host said, all of it at once."""

    def __init__(self, content: bytes) -> None:
        self._blocks = [content, b""]

    def read(self, _timeout_s: float) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""

    def write(self, block: bytes) -> None: ...

    def complaint(self) -> str:
        return ""


def _broken(operation: str, complaint: str) -> KitError:
    return KitError(f"npu-a: {operation} broke off without an answer ({complaint}); run the command again")


def _reply(operation: str, content: bytes, _folder: Path) -> object:
    exchange = Exchange("npu-a", _Pipe(content), _broken)  # type: ignore[arg-type]
    exchange.ask(operation, {})
    frames = exchange.frames()
    with suppress(StopIteration):
        while True:
            next(frames)
    return None


def _inflate(content: bytes, _folder: Path) -> None:
    for _ in shards._unpacked({"first": 0, "landed": 0, "count": 4, "clip_bytes": 1 << 16}, io.BytesIO(content)):
        pass


def _in_workspace(relative: str, read: Callable[[Workspace], object]) -> Parse:
    """`read`, in a workspace whose file `relative` is the given bytes."""

    def parse(content: bytes, folder: Path) -> object:
        workspace = seeds.workspace(folder)
        (workspace.folder / relative).write_bytes(content)
        return read(Workspace(made_up.inventory(folder)))

    return parse


def _evidence(workspace: Workspace) -> None:
    run = runs.Run(workspace.folder)
    refusals = []
    for look in (
        lambda: status.print_status(workspace),
        lambda: compare.print_comparison(run, run),
        lambda: gate.run(workspace.folder, str(run.folder)),
        lambda: audit.print_audit(workspace, ""),
        lambda: made_up.score(workspace),
    ):
        try:
            look()
        except InputError as refusal:
            refusals.append(refusal)
    if refusals:
        raise refusals[0]


def _known_hosts(path: Path) -> None:
    trust.pin(path, "npu-a.example", seeds.known_hosts()[0].decode().splitlines()[0])


def _load_logits(path: Path) -> None:
    seeds.place_kept(path.parent, *({LOGITS, DIGESTS} - {path.name}))
    read_logits(path.parent, [f"clip-{i:03}" for i in range(made_up.SAMPLES)], made_up.CARD)


def _checkpoint(path: Path) -> object:
    from stgcn.checkpoint import load_state_dict  # torch takes seconds

    return load_state_dict(path)


TARGETS: dict[str, Target] = {
    "clips": Target(file(open_clips), seeds.clips),
    "npy": Target(file(npy.load), seeds.arrays, (ValueError,)),
    "labels": Target(file(load_labels), seeds.labels),
    "checkpoint": Target(file(_checkpoint), seeds.checkpoints, slow=True),
    "json": Target(file(plain_json.load), seeds.documents, (ValueError,)),
    "index": Target(file(read_index), seeds.indices),
    "onnx": Target(file(onnx_model.load), seeds.models),
    "blocks": Target(file(seeds.instrument), seeds.graphs),
    "inventory": Target(file(inventory.load), seeds.inventories),
    "manifest": Target(_in_workspace("manifest.json", _evidence), partial(seeds.kept, "manifest.json"), slow=True),
    "summary": Target(
        _in_workspace("report/summary.json", _evidence), partial(seeds.kept, "report/summary.json"), slow=True
    ),
    "page": Target(text(page.embedded_summary), partial(seeds.kept, "report/report.html"), (ValueError,)),
    "logits": Target(file(_load_logits, LOGITS), partial(seeds.kept, f"npu/bs4/{LOGITS}")),
    "digests": Target(file(_load_logits, DIGESTS), partial(seeds.kept, f"npu/bs4/{DIGESTS}")),
    "known hosts": Target(file(_known_hosts), seeds.known_hosts),
    "owner": Target(file(lambda path: str(Owner.read(read_json(str(path))).is_dead())), seeds.owners),
    "shard": Target(_inflate, seeds.streams, (ValueError,)),
    "probe": Target(text(lambda said: device._probe(seeds.NPU, Telling(said))), seeds.probes),  # type: ignore[arg-type]
    "CANN version": Target(text(versions.parse_cann), seeds.version_files),
    "driver version": Target(text(versions.parse_driver), seeds.version_files),
    "npu-smi info": Target(text(smi.parse_info), seeds.npu_smi),
    "npu-smi info -m": Target(text(smi.parse_mapping), seeds.npu_smi),
    "npu-smi proc-mem": Target(text(smi.parse_proc_mem), seeds.npu_smi),
    "atc": Target(text(lambda said: atc.parse("atc", said, 0)), seeds.tool_logs),
    "aoe": Target(text(lambda said: atc.parse("aoe", said, 0)), seeds.tool_logs),
    "ais_bench": Target(text(lambda said: ais_bench.parse_stdout(said, 64)), seeds.tool_logs),
    "ais_bench --help": Target(text(lambda said: ais_bench.parse_help(said, 0)), seeds.tool_logs),
    "ais_bench batches": Target(text(ais_bench.parse_batches), seeds.tool_logs),
    "ais_bench summary": Target(
        lambda content, _: results.match_results(
            {"0_0.bin": 1600, "1_0.bin": 1600}, plain_json.loads(content), ["0", "1"], set(), "/out/results", 1600
        ),
        seeds.summaries,
        (InputError, ValueError),
    ),
    **{f"reply to {operation}": Target(partial(_reply, operation), seeds.replies) for operation in REPLIES},
}
