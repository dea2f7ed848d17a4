"""A push against `scp -r` of the same clips as files: over 1 Gbit/s with a round trip of 1 ms, both in one run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.transfer import push_clips
from deploy.inventory import ROOT, Npu
from stgcn.dataset import CLIP_BYTES, CLIP_SHAPE, open_clips
from stgcn.index import SHARD_CLIPS, Index, Shard
from tests.system.conftest import clips_of
from tests.system.network import Network

CLIPS = 3000


def like_the_samples(folder: Path) -> Path:
    """Clips of the sample, over and over: what a compressor makes of one it cannot know from the last."""
    command = [sys.executable, "-m", "stgcn.sample", "--output_dir", str(folder), "--samples", str(CLIPS)]
    subprocess.run(command, check=True, cwd=ROOT)
    return folder / "val_data.npy"


def incompressible(folder: Path) -> Path:
    path = folder / "val_data.npy"
    noise = np.random.default_rng(0).integers(0, 256, (CLIPS, CLIP_BYTES), np.uint8)
    np.save(path, noise.view(np.float32).reshape(CLIPS, *CLIP_SHAPE))
    return path


def index_of(data: Path) -> Index:
    clips = open_clips(data)
    shards = []
    for first in range(0, CLIPS, SHARD_CLIPS):
        part = np.ascontiguousarray(clips[first : first + SHARD_CLIPS])
        shards.append(Shard(first, len(part), hashlib.sha256(part.view(np.uint8)).hexdigest()))
    return Index(CLIPS, list(map(str, range(CLIPS))), shards)


# Below what is measured, 7 and 5.5 times where both hosts share two cores: a guard against a push that waits for each
# file, not the figure.
@pytest.mark.parametrize(("make", "times"), [(like_the_samples, 4), (incompressible, 3)])
def test_a_push_beats_scp(
    make: Callable[[Path], Path],
    times: float,
    network: Network,
    npu_section: Npu,
    control: LocalHost,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make(tmp_path)
    index = index_of(data)
    files = tmp_path / "files"
    files.mkdir()
    for i, clip in enumerate(open_clips(data)):
        clip.tofile(files / f"{i}.bin")
    with network.gigabit() as port:
        network.known_hosts.write_text(network.npu.host_key(port))
        options = ["-o", f"UserKnownHostsFile={network.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
        target = f"root@{network.npu.address}:{tmp_path / 'copied'}"
        start = time.perf_counter()
        subprocess.run(
            ["scp", "-q", "-r", "-P", str(port), "-i", str(network.key), *options, str(files), target], check=True
        )
        scp_s = time.perf_counter() - start
        host = SSHHost(npu_section.model_copy(update={"port": port}), network.known_hosts, 30)
        try:
            pushed = push_clips(control, PurePosixPath(data), index, host, host.workspace / "data" / "set")
        finally:
            host.close()
    network.pin_keys()
    with capsys.disabled():
        print(
            f"\n{make.__name__}: scp -r {scp_s:.1f} s, push {pushed.seconds:.1f} s: {scp_s / pushed.seconds:.1f} times"
        )
    raw = np.load(data, mmap_mode="r").reshape(CLIPS, -1).view(np.uint8)
    assert np.array_equal(clips_of(Path(host.workspace / "data" / "set")), raw)
    assert scp_s / pushed.seconds >= times
