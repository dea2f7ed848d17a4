"""remote.py's operations, as a host of this machine runs them: whole files or none, damage told."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.errors import KitError
from deploy.hosts import remote
from deploy.hosts.host import LocalHost

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
    request = shard(folder)
    found: list[int] = host.call(
        "landed", {"folder": str(folder.parent), "clip_bytes": SIZE, "shards": [request | {"first": int(folder.name)}]}
    )
    return found[0]


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("codec", ["zstd", "deflate", "raw"])
def test_clips_travel_in_any_compression(codec: str, version: tuple[int, int], host: LocalHost, tmp_path: Path) -> None:
    source = tmp_path / "clips.npy"
    with source.open("wb") as stream:  # more clips follow those that are wanted
        array = np.frombuffer(b"\0" * 3 * SIZE + RAW + b"\1" * SIZE, np.uint8)
        np.lib.format.write_array(stream, array, version)
    request = {"path": str(source), "clip_bytes": SIZE, "first": 3, "count": 6}
    sent = io.BytesIO()
    assert host.call("clips", {**request, "codecs": [codec]}, sink=sent) == {"codec": codec}
    folder = tmp_path / "3"
    host.call("unpack", shard(folder), [sent.getvalue()])
    assert b"".join((folder / f"{i}.bin").read_bytes() for i in range(3, 9)) == RAW
    assert landed(host, folder) == 6


def test_a_cut_leaves_what_had_landed(host: LocalHost, tmp_path: Path) -> None:
    folder = tmp_path / "3"
    with pytest.raises(KitError, match="broke off at clip 2"):
        host.call("unpack", shard(folder), [b"r" + RAW[: 2 * SIZE + 500]])
    assert not folder.exists()
    assert landed(host, folder) == 2
    host.call("unpack", shard(folder, landed=2), [b"r" + RAW[2 * SIZE :]])
    assert landed(host, folder) == 6
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"r" + RAW[:-1] + b"!", "arrived damaged"),
        (b"r" + RAW + b"more", "more than it announced"),
        (b"x" + RAW, "unknown compression"),
        (b"d" + RAW, "incorrect header"),
        (b"", "broke off at clip 0"),
    ],
)
def test_a_shard_that_is_not_what_was_announced(body: bytes, sentence: str, host: LocalHost, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=sentence):
        host.call("unpack", shard(tmp_path / "3"), [body])
    assert not (tmp_path / "3").exists()


def test_a_file_is_whole_or_not_there(host: LocalHost, tmp_path: Path) -> None:
    there = tmp_path / "folder" / "model.onnx"
    request = {"path": str(there), "bytes": 6, "sha256": hashlib.sha256(b"abcdef").hexdigest()}
    for wrong in (b"abcde", b"abcdeX"):
        with pytest.raises(KitError, match="arrived damaged"):
            host.call("receive", request, [wrong])
    assert not list(there.parent.iterdir())
    host.call("receive", request, [b"abc", b"def"])
    assert there.read_bytes() == b"abcdef"


def test_digests_are_remembered_while_a_file_stays(host: LocalHost, tmp_path: Path) -> None:
    path, memo = tmp_path / "data", tmp_path / "memo.json"
    request = {"paths": [str(path), str(tmp_path / "none")], "memo": str(memo)}
    path.write_bytes(b"one")
    first = host.call("digest", request)
    assert first == {
        str(path): {"bytes": 3, "sha256": hashlib.sha256(b"one").hexdigest()},
        str(tmp_path / "none"): None,
    }
    memo.write_text(memo.read_text().replace(first[str(path)]["sha256"], "remembered"))
    assert host.call("digest", request)[str(path)]["sha256"] == "remembered"
    path.write_bytes(b"two!")
    assert host.call("digest", request)[str(path)]["sha256"] == hashlib.sha256(b"two!").hexdigest()


@pytest.mark.parametrize("request_line", [b"", b"not json\n", b"[]\n", b"{}\n", b'{"path": null}\n'])
@pytest.mark.parametrize("operation", sorted(set(remote.OPERATIONS) - {"hold", "job"}))
def test_a_bad_request_gets_a_sentence(operation: str, request_line: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-I", remote.__file__, operation], input=request_line, capture_output=True, timeout=60
    )
    magic, reply = done.stdout.splitlines(keepends=True)
    assert magic == remote.MAGIC
    assert "error" in json.loads(reply) or done.returncode == 0
    assert not done.stderr
