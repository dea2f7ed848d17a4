"""The operations of remote/, as a host of this machine runs them: whole files or none, damage told."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.hosts.remote import compression, files, folders, jobs, launch, processes, shards, workspace
from deploy.hosts.remote.folders import KIT, MARKER, MARKER_TEXT
from deploy.hosts.remote.launch import ARGUMENTS, payload
from deploy.hosts.remote.operations import OPERATIONS
from deploy.hosts.remote.protocol import MAGIC

SIZE = 1000
RAW = bytes(range(250)) * 4 * 6


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    host = LocalHost("here", tmp_path)
    yield host
    host.close()


def shard(folder: Path, **changes: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(RAW).hexdigest()
    return {"folder": str(folder), "first": 3, "count": 6, "clip_bytes": SIZE, "sha256": sha256, "landed": 0, **changes}


def landed(host: LocalHost, folder: Path) -> int:
    shards = [shard(folder) | {"first": int(folder.name)}]
    found = host.call("landed", {"folder": str(folder.parent), "clip_bytes": SIZE, "shards": shards})
    assert found["codecs"] == list(compression.codecs())
    return int(found["clips"][0])


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("codec", ["zstd", "deflate"])
def test_clips_travel_in_any_compression(codec: str, version: tuple[int, int], host: LocalHost, tmp_path: Path) -> None:
    source = tmp_path / "clips.npy"
    with source.open("wb") as stream:  # more clips follow those that are wanted
        array = np.frombuffer(b"\0" * 3 * SIZE + RAW + b"\1" * SIZE, np.uint8)
        np.lib.format.write_array(stream, array, version)
    request = {"path": str(source), "clip_bytes": SIZE, "first": 3, "count": 6}
    sent = io.BytesIO()
    host.call("clips", {**request, "codecs": [codec]}, sink=sent)
    assert compression.TAGS[sent.getvalue()[:1]] == codec
    folder = tmp_path / KIT / "3"
    host.call("unpack", shard(folder), [sent.getvalue()])
    assert b"".join((folder / f"{i}.bin").read_bytes() for i in range(3, 9)) == RAW
    assert landed(host, folder) == 6


@pytest.fixture(params=["zstandard", "libzstd"])
def zstd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to zstd that a host may have."""
    if request.param == "libzstd":
        monkeypatch.setattr(compression, "_package", lambda: None)
    assert compression.codecs()["zstd"] == request.param
    return str(request.param)


def other_zstd(zstd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo() if zstd == "libzstd" else monkeypatch.setattr(compression, "_package", lambda: None)


def test_zstd_of_one_host_is_read_on_another(zstd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = compression.packer("zstd")
    blocks = [np.random.default_rng(seed).integers(0, 3, 1_000_001, np.uint8).tobytes() for seed in range(3)]
    packed = [pack(block) for block in blocks]
    assert max(map(len, packed)) < 1_000_001 / 3
    for _ in ("by itself", "by the other"):
        unpack = compression.unpacker(b"z")
        assert [bytes(unpack(block, 1_000_001)) for block in packed] == blocks
        other_zstd(zstd, monkeypatch)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("tag", [b"z", b"d"])
def test_a_block_that_is_damaged_cut_or_of_another_size(tag: bytes, stored: bool, zstd: str) -> None:
    raw = np.random.default_rng(0).integers(0, 256 if stored else 3, 10_000, np.uint8).tobytes()
    packed, unpack = compression.packer(compression.TAGS[tag], not stored)(raw), compression.unpacker(tag)
    assert unpack(packed, len(raw)) == raw
    at = len(packed) // 2
    wrong = [packed[:at] + bytes([packed[at] ^ 4]) + packed[at + 1 :], packed[:-1], packed[:at], raw, b""]
    for block, size in [*((block, len(raw)) for block in wrong), (packed, len(raw) - 1), (packed, len(raw) + 1)]:
        with pytest.raises(Exception, match="(?i)zstd|deflate|decompress|content size"):
            unpack(block, size)


def test_a_block_that_claims_more_than_was_announced_takes_no_memory(zstd: str) -> None:
    """RFC 8878: a frame of 4 GiB, one segment: 16 KiB of zeros and blocks that repeat them follow."""
    claim = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + (1 << 32).to_bytes(8, "little")
    bomb = claim + ((((1 << 17) << 3) | 2).to_bytes(3, "little") + b"\0") * 1000
    tracemalloc.start()
    with pytest.raises(Exception, match="(?i)zstd"):
        compression.unpacker(b"z")(bomb, SIZE)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def stream(raw: bytes, codec: str = "deflate", clips_per_block: int = 1 << 20) -> bytes:
    """A shard's stream from whole blocks."""
    pack = compression.packer(codec)
    tag = next(tag for tag, name in compression.TAGS.items() if name == codec)
    blocks = [pack(raw[i : i + SIZE * clips_per_block]) for i in range(0, len(raw), SIZE * clips_per_block)]
    return tag + b"".join(shards.LENGTH.pack(len(block)) + block for block in blocks)


def test_a_cut_leaves_what_had_landed(host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BLOCK", 2 * SIZE)
    folder = tmp_path / KIT / "3"
    with pytest.raises(KitError, match="clip 4"):
        host.call("unpack", shard(folder), [stream(RAW, clips_per_block=2)[:-80]])
    assert not folder.exists()
    assert landed(host, folder) == 4
    host.call("unpack", shard(folder, landed=4), [stream(RAW[4 * SIZE :], clips_per_block=2)])
    assert landed(host, folder) == 6
    assert not list(tmp_path.glob("*.part"))


def test_a_shard_that_goes_on_where_another_was_is_refused(host: LocalHost, tmp_path: Path) -> None:
    folder = tmp_path / KIT / "3"
    with pytest.raises(KitError, match="sample 3 .*clip 0"):
        host.call("unpack", shard(folder, count=4), [stream(RAW[::-1])[:-1]])
    (tmp_path / KIT / "3.part" / "3.bin").write_bytes(b"!" * SIZE)
    with pytest.raises(KitError, match="damaged"):
        host.call("unpack", shard(folder, landed=1), [stream(RAW[SIZE:])])
    assert not list((tmp_path / KIT).glob("3*"))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (stream(RAW)[:-1] + b"!", "damaged"),
        (stream(RAW) + b"more", "more than it announced"),
        (b"x" + RAW, "compression"),
        (stream(RAW + RAW), "damaged"),
        (b"d" + shards.LENGTH.pack(1 << 31), "2147483648 bytes"),
        (b"d" + shards.LENGTH.pack(500) + RAW, "damaged"),
        (stream(RAW)[:-1], "clip 0"),
        (b"", "clip 0"),
    ],
)
def test_a_shard_that_is_not_what_was_announced(body: bytes, sentence: str, host: LocalHost, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=sentence):
        host.call("unpack", shard(tmp_path / KIT / "3"), [body])
    assert not (tmp_path / KIT / "3").exists()


def test_a_dataset_that_changes_while_it_is_read_is_refused(host: LocalHost, tmp_path: Path) -> None:
    source = tmp_path / "clips.npy"
    np.save(source, np.frombuffer(RAW, np.uint8))
    request = {"path": str(source), "clip_bytes": SIZE, "first": 0, "count": 6, "codecs": ["deflate"]}
    blocks = host.stream("clips", request)
    next(blocks)
    with source.open("r+b") as file:
        file.truncate(500)
    with pytest.raises(KitError, match=r"clips\.npy"):
        list(blocks)


def test_a_file_is_whole_or_not_there(host: LocalHost, tmp_path: Path) -> None:
    there = tmp_path / KIT / "folder" / "model.onnx"
    request = {"path": str(there), "bytes": 6, "sha256": hashlib.sha256(b"abcdef").hexdigest()}
    for wrong in (b"abcde", b"abcdeX"):
        with pytest.raises(KitError, match="damaged"):
            host.call("receive", request, [wrong])
    assert not list(there.parent.iterdir())
    host.call("receive", request, [b"abc", b"def"])
    assert there.read_bytes() == b"abcdef"


def test_digests_are_remembered_while_a_file_stays(host: LocalHost, tmp_path: Path) -> None:
    path, memo = tmp_path / "data", tmp_path / KIT / "memo.json"
    request = {"paths": [str(path), str(tmp_path / "none")], "memo": str(memo)}
    path.write_bytes(b"one")
    first = host.call("digest", request)
    assert first == {
        str(path): {"bytes": 3, "sha256": hashlib.sha256(b"one").hexdigest()},
        str(tmp_path / "none"): None,
    }
    memo.write_text(memo.read_text().replace(first[str(path)]["sha256"], "0" * 64))
    assert host.call("digest", request)[str(path)]["sha256"] == "0" * 64
    path.write_bytes(b"two!")
    assert host.call("digest", request)[str(path)]["sha256"] == hashlib.sha256(b"two!").hexdigest()


@pytest.mark.parametrize(
    "entry",
    [
        *(None, 7, [], [[]], "x", {}, ["identity"], ["identity", None], ["identity", {}], ["identity", {"bytes": 3}]),
        *(["identity", {"bytes": 4, "sha256": "0" * 64}], ["identity", {"bytes": 3, "sha256": 7}]),
    ],
)
def test_a_memo_that_others_wrote_is_not_believed(entry: Any, host: LocalHost, tmp_path: Path) -> None:
    path, memo = tmp_path / "data", tmp_path / KIT / "memo.json"
    path.write_bytes(b"one")
    found = path.stat()
    identity = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
    entry = [identity, *entry[1:]] if isinstance(entry, list) and entry[:1] == ["identity"] else entry
    memo.parent.mkdir(mode=0o700)
    (memo.parent / MARKER).write_bytes(MARKER_TEXT)
    memo.write_text(json.dumps({str(path): entry}))
    reply = host.call("digest", {"paths": [str(path)], "memo": str(memo)})
    assert reply[str(path)]["sha256"] == hashlib.sha256(b"one").hexdigest()


def test_a_pipe_in_place_of_a_record_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record")
    assert files.read_json(str(tmp_path / "record")) == {}


@pytest.mark.parametrize("pid", [-1, 0, 1, 1 << 22, 10**30, True, 1.5, "2", None, {}, []])
def test_nothing_is_ended_that_is_no_process(pid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("kill", "killpg"):
        monkeypatch.setattr(os, end, lambda *_: pytest.fail("it would end others"))
    jobs._signal_group(pid, 9)
    with folders.opened(str(tmp_path / KIT / "3.part"), make=True) as part:
        files.lock(part)
        (tmp_path / KIT / "3.part" / shards.PID).write_text(json.dumps(pid))
        shards.end_writer(str(tmp_path / KIT / "3.part"))
    assert not processes.is_pid(pid)


def test_an_interrupt_ends_no_process_that_has_a_dead_writers_number(tmp_path: Path) -> None:
    part = tmp_path / KIT / "clips/sha/3.part"
    with folders.opened(str(part), make=True), subprocess.Popen(["sleep", "60"]) as somebody:
        (part / shards.PID).write_text(json.dumps(somebody.pid))
        workspace.abandon({"workspace": str(tmp_path)}, io.BytesIO())
        assert somebody.poll() is None
        somebody.kill()
    assert not part.exists()


def test_a_program_that_cannot_be_recorded_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_json", full)
    alive = os.open(tmp_path / "alive", os.O_RDWR | os.O_CREAT)
    assert files.lock(alive)
    with pytest.raises(OSError, match="space"):
        jobs.supervise(str(tmp_path), alive, {"argv": ["sleep", "60"]})
    os.close(alive)
    assert not jobs.is_alive(str(tmp_path))


@pytest.mark.parametrize(("free", "told"), [(0, "make room there"), (1, "left no status")])
def test_a_job_of_which_nothing_could_be_recorded(
    free: int, told: str, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free))
    with pytest.raises(KitError, match=told):
        host.run(["sh", "-c", "kill -9 $PPID"], job="job")


def test_a_job_that_cannot_be_started_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / KIT / "jobs/job")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "removed/python3"))
    with pytest.raises(FileNotFoundError):
        jobs._start(folder, {"argv": ["true"]})
    assert not jobs.is_alive(folder)


def served(*lines: bytes) -> list[bytes]:
    """What a process of operations prints that is sent `lines`."""
    argv = [sys.executable, *ARGUMENTS, "serve"]
    done = subprocess.run(argv, input=payload() + b"".join(lines), capture_output=True, timeout=60)
    assert not done.stderr
    return done.stdout.splitlines(keepends=True)


def asked(operation: str, request: Any, body: bool = False) -> bytes:
    return json.dumps({"operation": operation, "request": request, "body": body}).encode() + b"\n"


def test_bad_requests_get_a_sentence_each_from_one_process() -> None:
    operations = sorted(set(OPERATIONS) - {"hold", "job", "facts"})  # facts ask for nothing
    requests = [asked(name, request) for name in operations for request in (None, [], {}, {"path": None})]
    printed = served(*requests)
    assert printed[::2] == [MAGIC] * len(requests)
    replies = dict(zip(requests, map(json.loads, printed[1::2]), strict=True))
    assert [request for request, reply in replies.items() if "error" not in reply] == []


@pytest.mark.parametrize("line", [b"not json\n", b"[]\n", b"{}\n", b"null\n", b"[" * 100000 + b"\n", b"\xff\n"])
def test_after_what_is_no_request_nothing_more_is_read(line: bytes, tmp_path: Path) -> None:
    magic, reply = served(line, asked("listing", {"folder": str(tmp_path)}))
    assert (magic, list(json.loads(reply))) == (MAGIC, ["error"])


def test_a_body_that_is_refused_is_not_read_as_requests(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    request = {"path": str(tmp_path / "elsewhere"), "bytes": 9, "sha256": "0" * 64}
    remove = asked("remove", {"paths": [str(tmp_path / KIT / "kept")]})
    printed = served(b"\n\n", asked("receive", request, body=True), remove)
    assert "error" in json.loads(printed[1])
    assert len(printed) == 2


def test_a_process_that_nobody_asks_anything_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = launch._source
    monkeypatch.setattr(launch, "_source", lambda name: source(name).replace("LEASE_S = 60", "LEASE_S = 1"))
    process = subprocess.Popen([sys.executable, *ARGUMENTS, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    with process:
        process.stdin.write(launch.payload.__wrapped__() + asked("listing", {"folder": str(tmp_path)}))
        process.stdin.flush()
        assert process.stdout.read().endswith(b'{"ok": {}}\n')
        assert process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_told_to_end_ends_its_program(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, *ARGUMENTS, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    with process:
        held = ["sh", "-c", 'exec 9>"$0"; flock 9; echo; exec sleep 60', str(tmp_path / "held")]
        process.stdin.write(payload() + asked("exec", {"argv": held}))
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(3)][2] == b"\n"  # of the magic, of a frame, of the program
        process.send_signal(number)
        process.wait(10)
        with (tmp_path / "held").open() as stream:
            assert files.lock(stream.fileno())


def test_who_holds_a_workspace_first_removes_what_was_left_aside_but_no_job_to_collect(tmp_path: Path) -> None:
    earlier, kit = LocalHost("here", tmp_path), tmp_path / KIT
    earlier.run(["true"], job="ended")
    earlier.run(["false"], job="failed")
    for job in ("ended", "failed", "never-begun"):
        (kit / "runs" / job).mkdir(parents=True)
    for part in ("files/sha/model.om.12.part", "stgcn-1.12.part"):
        (kit / part).parent.mkdir(parents=True, exist_ok=True)
        (kit / part).touch()
    host = LocalHost("here", tmp_path)
    host.hold()
    host.close()
    assert [path.name for path in (kit / "jobs").iterdir()] == ["ended"]
    assert [path.name for path in (kit / "runs").iterdir()] == ["ended"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_job_whose_removal_was_cut_short_has_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = LocalHost("here", tmp_path)
    host.run(["true"], job="ended")
    folder = tmp_path / f"{KIT}/jobs/ended"
    assert jobs.state(str(folder)) == "ended"

    def cut(_folder: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.folders, "remove", cut)
    with pytest.raises(KeyboardInterrupt):
        jobs.stop({"folders": [str(folder)], "paths": []}, io.BytesIO())
    assert jobs.state(str(folder)) is None


def test_an_interrupt_ends_also_a_job_that_was_about_to_begin(tmp_path: Path) -> None:
    abandoned, starting = threading.Event(), threading.Event()

    class Late(LocalHost):
        """Its job starts once the others were stopped."""

        def _do(self, operation: str, *arguments: Any) -> Any:
            if operation == "job":
                starting.set()
                abandoned.wait(5)
                time.sleep(0.3)
                self._ended.clear()  # it had looked before the command began to end
            return super()._do(operation, *arguments)

        def call(self, operation: str, *arguments: Any, **options: Any) -> Any:
            try:
                return super().call(operation, *arguments, **options)
            finally:
                if operation == "abandon":
                    abandoned.set()

    host = Late("here", tmp_path)
    host.hold()
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(host.run, ["sleep", "5"], job="late")
        starting.wait(5)
        host.close(interrupted=True)
        with suppress(KitError):  # its folder may be gone before anybody has read how it ended
            assert running.result().status == -signal.SIGTERM
    assert not list((tmp_path / f"{KIT}/jobs").glob("*"))
