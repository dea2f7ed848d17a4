"""Files that claim or unfold to far more than they are, and how much memory reading each takes:

python -m tests.fuzz.bombs FOLDER

prints `name<TAB>bytes of the file<TAB>MiB that memory grew by` for each, in a process of its own: a reader that
hangs in C hears no signal, but its process can be ended.
"""

from __future__ import annotations

import importlib
import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import zstandard

from stgcn import npy
from stgcn.dataset import CLIP_SHAPE
from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

GIB = 1 << 30
NESTED = b")" + b"2\x86" * 60  # tuples of tuples: 2^60 steps to hash or to copy


def _npy(shape: object) -> bytes:
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    return npy.MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text


def _zip(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def _index(**changes: object) -> bytes:
    shards = [{"first": 0, "count": 1 << 60, "sha256": "0" * 64}]
    return json.dumps({"format": 1, "samples": 1 << 60, "names": [], "shards": shards, **changes}).encode()


def _window(log: int) -> bytes:
    """A zstd stream whose frame asks for a window of 2^log bytes (RFC 8878, 3.1.1.1.2)."""
    return b"z" + struct.pack("<I", 0xFD2FB528) + b"\0" + bytes([(log - 10) << 3]) + b"\x02" + b"\0" * 8 + b"x" * 64


# (target, bomb) -> what makes its bytes: some take seconds
BOMBS: dict[tuple[str, str], Callable[[], bytes]] = {
    ("clips", "2^60 clips"): lambda: _npy((1 << 60, *CLIP_SHAPE)),
    ("clips", "a GiB of clips"): lambda: _npy((GIB // 129600, *CLIP_SHAPE)),
    ("clips", "a number of 4290 digits"): lambda: _npy((1,)).replace(b"(1,)", b"(" + b"9" * 4290 + b", 3, 300, 18, 2)"),
    ("clips", "a header of 2^32 bytes"): lambda: npy.MAGIC + b"\2\0\xff\xff\xff\xff{",
    ("npy", "2^60 elements"): lambda: _npy((1 << 60,)),
    ("npy", "a GiB of elements"): lambda: _npy((GIB // 4,)),
    ("npy", "none of 2^63 rows"): lambda: _npy((0, 1 << 63)),
    ("labels", "BYTEARRAY8 of a GiB"): lambda: b"\x80\x05\x96" + struct.pack("<Q", GIB) + b"x.",
    ("labels", "BINUNICODE8 of 2^60"): lambda: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
    ("labels", "LONG4 of 2 GiB"): lambda: b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    ("labels", "LONG_BINPUT at 2^31"): lambda: b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b".",
    ("labels", "a frame of 2^60"): lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    ("labels", "tuples as a key"): lambda: b"\x80\x02}" + NESTED + b"Ns.",
    ("labels", "tuples for labels"): lambda: b"\x80\x02]" + NESTED + b"\x86.",
    ("labels", "a million lists deep"): lambda: b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    ("labels", "a name of a MiB, 19796 times"): lambda: (
        b"\x80\x02]q\0X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\1a"
        b"(" + b"h\1" * 19795 + b"e](K\0" + b"K\0" * 19795 + b"e\x86."
    ),
    ("checkpoint", "a deflated GiB"): lambda: _zip(**{"data.pkl": bytes(GIB)}),
    ("checkpoint", "tuples as a key of OrderedDict"): lambda: seeds.legacy(
        b"\x80\x02ccollections\nOrderedDict\n]" + NESTED + b"N\x86a\x85R."
    ),
    ("checkpoint", "a storage of 2^60"): lambda: seeds.legacy(
        b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu\x8a\x08" + struct.pack("<q", 1 << 60) + b"NtQ."
    ),
    ("json", "a million lists deep"): lambda: b"[" * 10**6,
    ("json", "a million objects deep"): lambda: b'{"a":' * 10**6,
    ("json", "a number of a million digits"): lambda: b"9" * 10**6,
    ("index", "2^60 samples"): lambda: _index(),
    ("index", "a million lists deep"): lambda: b'{"format": 1, "names": ' + b"[" * 10**6,
    ("inventory", "a billion laughs"): lambda: (
        b"a: &a [x,x]\n"
        + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c]\n" % (c + 1, c + 1, c, c, c, c) for c in range(ord("a"), ord("z")))
    ),
    ("inventory", "100000 lists deep"): lambda: b"npu: " + b"[" * 100000,
    ("inventory", "a hexadecimal number of 100000 digits"): lambda: b"gate: 0x" + b"f" * 100000,
    ("inventory", "a list of 60000"): lambda: b"batch_sizes: [" + b"1," * 60000 + b"]",
    ("inventory", "100 MiB"): lambda: b"#" * (100 << 20),
    ("manifest", "a million lists deep"): lambda: b'{"format": 1, "steps": ' + b"[" * 10**6,
    ("manifest", "a number of a million digits"): lambda: b'{"format": 1, "steps": ' + b"9" * 10**6 + b"}",
    ("onnx", "a tensor of 2^60"): lambda: seeds.claiming_model(1 << 60),
    ("shard", "a deflated GiB"): lambda: b"d" + zlib.compress(bytes(GIB), 9),
    ("shard", "a GiB of zstd"): lambda: b"z" + zstandard.ZstdCompressor(level=19).compress(bytes(GIB)),
    ("shard", "a zstd window of 2 GiB"): lambda: _window(31),
    ("probe", "a million lists deep"): lambda: b"[" * 10**6,
    ("npu-smi proc-mem", "a MiB of ids"): lambda: b"Process id : 1 " * (1 << 16),
    ("npu-smi info", "a MiB of dcmi"): lambda: b"dcmi " * (1 << 18),
    ("CANN version", "64 KiB of line ends"): lambda: b"\n" * (1 << 16),
    ("ais_bench", "a MiB of a path"): lambda: b"path:" * (1 << 18),
    ("atc", "a MiB of errors"): lambda: b"E10001: \n" * (1 << 17),
    ("reply to digest", "a frame of 10^18"): lambda: b'stgcn-kit\n{"bytes": 1000000000000000000}\n' + b"x" * 1000,
    ("reply to digest", "4 MiB of noise"): lambda: b"y\n" * (1 << 21),
    ("reply to digest", "a line of 80 MiB"): lambda: b"stgcn-kit\n" + b"y" * (80 << 20),
    ("reply to listing", "a million lists deep"): lambda: b'stgcn-kit\n{"ok": ' + b"[" * 10**6 + b"\n",
}


def _resident(peak: bool = False) -> int:
    """Bytes now, or at the most since `_forget_peak` (proc(5))."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0]) << 10


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main(top: Path) -> None:
    importlib.import_module("stgcn.checkpoint")  # torch's own hundreds of MiB, and what the seeds take, don't count
    with redirect_stdout(sys.stderr):
        seeds.workspace(top / "whole")
    for number, ((target, name), make) in enumerate(BOMBS.items()):
        content = make()
        folder = top / str(number) / "own"
        folder.mkdir(parents=True)
        with np.errstate(all="ignore"):
            _forget_peak()
            before = _resident()
            print(f"{target}: {name}", len(content), sep="\t", end="\t", flush=True)
            taken = TARGETS[target].survive(content, folder)
        print(max(0, _resident(peak=True) - before) >> 20, "taken" if taken else "refused", sep="\t", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
