"""Clips to the NPU host over a link that is slow, cut, or corrupt; bytes compared at both ends."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from deploy.errors import KitError, LinkLost
from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.remote.launch import payload
from deploy.inventory import Npu
from deploy.pipeline.index import Array, Shard
from stgcn.dataset import CLIP_BYTES, CLIP_SHAPE
from tests.system.conftest import clips_of
from tests.system.network import Network

CLIPS, SHARD = 96, 24  # 12.4 MB that do not compress
SLOW = "24mbit"  # of which a push takes four seconds
Connect = Callable[[Npu], SSHHost]


class Dataset:
    """A .npy on the control side, its index, and where it goes."""

    def __init__(self, folder: Path, host: SSHHost) -> None:
        self.path = folder / "val_data.npy"
        bits = np.random.default_rng(0).integers(0, 256, (CLIPS, CLIP_BYTES), np.uint8)
        self.raw = bits
        np.save(self.path, bits.view(np.float32).reshape(CLIPS, *CLIP_SHAPE))
        shards = [
            Shard(first, SHARD, hashlib.sha256(bits[first : first + SHARD]).hexdigest())
            for first in range(0, CLIPS, SHARD)
        ]
        self.index = Array("input1", None, "float32", CLIP_SHAPE, tuple(shards))
        self.there = host.kit / "clips" / "set"

    def push(self, source: Host, host: Host) -> transfer.Pushed:
        return transfer.push_rows(source, PurePosixPath(self.path), self.index, host, self.there)

    def landed(self) -> int:
        """Clips that are on the NPU host, whole shards or not."""
        return len(list(Path(self.there).glob("*/*.bin")))

    def whole(self) -> dict[str, int]:
        """The shards under their final names, and what tells one folder from another that takes its name."""
        return {path.name: path.stat().st_ino for path in Path(self.there).glob("*") if path.suffix != ".part"}

    def arrived(self) -> bool:
        return bool(np.array_equal(clips_of(Path(self.there)), self.raw))


@pytest.fixture
def host(connect: Connect, npu_section: Npu) -> SSHHost:
    return connect(npu_section)


@pytest.fixture
def dataset(tmp_path: Path, host: SSHHost) -> Dataset:
    return Dataset(tmp_path, host)


@contextmanager
def when(condition: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Do `act` in the background as soon as `condition` holds; the condition must come to hold."""
    acted = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if condition():
                acted.set()
                act()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()
    assert acted.is_set()


def at_a_fifth(dataset: Dataset) -> Callable[[], bool]:
    return lambda: dataset.landed() >= CLIPS // 5


def test_a_second_push_sends_only_what_is_missing_or_differs(
    dataset: Dataset, control: LocalHost, host: SSHHost
) -> None:
    assert dataset.push(control, host).raw_bytes == CLIPS * CLIP_BYTES
    assert dataset.arrived()
    assert dataset.push(control, host).raw_bytes == 0
    changed = Path(dataset.there) / "24" / "30.bin"
    changed.write_bytes(b"\0" * CLIP_BYTES)
    (Path(dataset.there) / "48" / "50.bin").unlink()
    assert dataset.push(control, host).kept == 2
    assert dataset.arrived()


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_zeros_are_not_sent_whatever_the_host_unpacks_with(
    python: str, tmp_path: Path, control: LocalHost, host: SSHHost
) -> None:
    dataset = Dataset(tmp_path, host)
    np.save(dataset.path, np.zeros((CLIPS, *CLIP_SHAPE), np.float32))
    dataset.raw = np.zeros((CLIPS, CLIP_BYTES), np.uint8)
    zeros = hashlib.sha256(bytes(SHARD * CLIP_BYTES)).hexdigest()
    shards = [Shard(s.first, SHARD, zeros) for s in dataset.index.shards]
    dataset.index = Array("input1", None, "float32", CLIP_SHAPE, tuple(shards))
    host.operations = [python, *host.operations[1:]]
    assert dataset.push(control, host).wire_bytes < CLIPS * CLIP_BYTES / 50
    assert dataset.arrived()


def test_a_link_that_comes_back_costs_nothing(
    network: Network, dataset: Dataset, control: LocalHost, connect: Connect, npu_section: Npu
) -> None:
    host = SSHHost(npu_section, network.known_hosts, link_timeout_s=30)

    def blink() -> None:
        network.down()
        time.sleep(5)
        network.up()

    try:
        with network.limited(SLOW), when(at_a_fifth(dataset), blink):
            dataset.push(control, host)
    finally:
        host.close()
    assert dataset.arrived()


def test_a_link_that_stays_down_is_told_in_time_and_the_push_goes_on_inside_the_shard(
    network: Network, dataset: Dataset, control: LocalHost, host: SSHHost, connect: Connect, npu_section: Npu
) -> None:
    with network.limited(SLOW):
        try:
            with when(at_a_fifth(dataset), network.down), pytest.raises(LinkLost, match="npu-a: the connection to"):
                dataset.push(control, host)
        finally:
            network.up()
    landed, whole = dataset.landed(), dataset.whole()
    assert landed >= CLIPS // 5
    pushed = dataset.push(control, connect(npu_section))
    assert pushed.raw_bytes <= (CLIPS - landed) * CLIP_BYTES + transfer.STREAMS * CLIP_BYTES
    assert whole.items() <= dataset.whole().items()
    assert dataset.arrived()


def test_a_killed_sshd(
    network: Network, dataset: Dataset, control: LocalHost, host: SSHHost, connect: Connect, npu_section: Npu
) -> None:
    try:
        with network.limited(SLOW), when(at_a_fifth(dataset), network.npu.kill_sshd), pytest.raises(LinkLost):
            dataset.push(control, host)
    finally:
        network.npu.start_sshd()
    landed, whole = dataset.landed(), dataset.whole()
    pushed = dataset.push(control, connect(npu_section))
    assert pushed.raw_bytes < (CLIPS - landed + 2 * transfer.STREAMS) * CLIP_BYTES
    assert whole.items() <= dataset.whole().items()
    assert dataset.arrived()


def test_a_full_disk(network: Network, control: LocalHost, connect: Connect, npu_section: Npu, tmp_path: Path) -> None:
    disk = Path(npu_section.workspace)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(disk)], check=True)
    try:
        network.npu.restart_sshd()  # it sees the mounts of its start
        host = connect(npu_section)
        dataset = Dataset(tmp_path, host)
        with pytest.raises(KitError, match="No space left on device"):
            dataset.push(control, host)
        whole, landed = dataset.whole(), dataset.landed()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        pushed = dataset.push(control, host)
        assert pushed.raw_bytes < (CLIPS - landed + 2 * transfer.STREAMS) * CLIP_BYTES
        assert whole.items() <= dataset.whole().items()
        assert dataset.arrived()
        host.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        network.npu.restart_sshd()


class FlippingHost(LocalHost):
    """A host whose clips are changed on their way."""

    def stream(self, operation: str, request: Mapping[str, Any], *rest: Any) -> Generator[bytes, None, Any]:
        for block in super().stream(operation, request, *rest):
            if operation == "clips" and request["first"] == SHARD and len(block) > 1000:
                yield block[:999] + bytes([block[999] ^ 1]) + block[1000:]
            else:
                yield block


def test_a_block_that_arrives_damaged_is_refused(
    dataset: Dataset, control: LocalHost, host: SSHHost, tmp_path: Path
) -> None:
    with pytest.raises(KitError, match=r"sample 24 arrived damaged"):
        dataset.push(FlippingHost("control", tmp_path / "control"), host)
    whole = dataset.whole()
    assert str(SHARD) not in whole
    dataset.push(control, host)
    assert whole.items() <= dataset.whole().items()
    assert dataset.arrived()


def test_a_receiver_that_waits_on_a_dead_link_is_ended_by_the_next(
    dataset: Dataset, control: LocalHost, host: SSHHost
) -> None:
    shard = dataset.index.shards[0]
    request = {
        "folder": str(dataset.there / "0"),
        "clip_bytes": CLIP_BYTES,
        "first": 0,
        "count": SHARD,
        "sha256": shard.sha256,
        "landed": 0,
    }
    stream = transfer.pack_shard(control, PurePosixPath(dataset.path), dataset.index, shard)
    stuck = host.start([*host.operations, "serve"])
    try:
        asked = json.dumps({"operation": "unpack", "request": request, "body": True})
        stuck.write(payload() + asked.encode() + b"\n" + stream[: len(stream) * 3 // 4])
        while not (Path(dataset.there) / "0.part" / "0.bin").exists():
            time.sleep(0.01)
        dataset.push(control, host)
        assert dataset.arrived()
    finally:
        stuck.close()


@pytest.mark.parametrize("name", ["a b", "it's", 'say "hi"', "a; touch harmed", "two\nlines", "$(touch harmed)", "-rf"])
def test_a_workspace_by_any_name_harms_nothing(
    name: str, tmp_path: Path, network: Network, connect: Connect, npu_section: Npu, control: LocalHost
) -> None:
    host = connect(npu_section.model_copy(update={"workspace": str(tmp_path / name)}))
    assert host.workspace == PurePosixPath(tmp_path / name)
    before = set(network.npu.home.iterdir())
    source = tmp_path / "model.onnx"
    source.write_bytes(b"weights" * 1000)
    transfer.put(host, source, host.kit / "files" / name)
    transfer.get(host, host.kit / "files" / name, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert host.run(["cat", str(host.kit / "files" / name)]).output == "weights" * 1000
    assert set(network.npu.home.iterdir()) == before
    assert not list(tmp_path.rglob("harmed"))
