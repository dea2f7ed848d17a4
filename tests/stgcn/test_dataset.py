"""The dataset's two files, good and bad."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any, Callable, Tuple

import numpy as np
import pytest

from stgcn.dataset import (
    CLIP_SHAPE,
    check_finite,
    class_names,
    load_labels,
    open_clips,
    open_dataset,
    read_clips,
)
from stgcn.errors import InputError
from tests.stgcn.conftest import SAMPLES, Dataset, random_clips, write_labels


def with_header(content: bytes, old: bytes, new: bytes) -> bytes:
    """A .npy file whose header, of version 1, has `new` for `old`."""
    header = content[10:128].replace(old, new)
    return content[:8] + struct.pack("<H", len(header)) + header + content[128:]


class TestClips:
    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_every_version_of_the_format_opens(self, tmp_path: Path, version: Tuple[int, int]) -> None:
        with (tmp_path / "clips.npy").open("wb") as file:
            np.lib.format.write_array(file, random_clips(3), version=version)
        clips = open_clips(tmp_path / "clips.npy")
        assert isinstance(clips, np.memmap)
        assert (clips.shape, clips.dtype) == ((3, *CLIP_SHAPE), np.float32)
        assert np.array_equal(clips, random_clips(3))
        with pytest.raises(ValueError, match="read-only"):
            clips[0] = 0

    def test_reading_gives_the_slice_and_stops_at_the_end(self, dataset: Dataset) -> None:
        clips = open_clips(dataset.data)
        assert np.array_equal(read_clips(clips, 1, 2), clips[1:3])
        assert np.array_equal(read_clips(clips, 4, 8), clips[4:])

    @pytest.mark.parametrize(
        ("array", "fault"),
        [
            (np.zeros((2, 3, 300, 18), np.float32), r"shape \(2, 3, 300, 18\)"),
            (np.zeros((2, 3, 18, 300, 2), np.float32), r"shape \(2, 3, 18, 300, 2\)"),
            (np.zeros((0, *CLIP_SHAPE), np.float32), r"shape \(0, 3"),
            (np.zeros((), np.float32), r"shape \(\)"),
            (np.zeros((1, *CLIP_SHAPE), np.float64), "dtype '<f8'"),
            (np.zeros((1, *CLIP_SHAPE), ">f4"), "dtype '>f4'"),
            (np.array([None]), r"dtype '\|O'"),
            (np.zeros(1, [("x", "<f4")]), "dtype"),
            (np.zeros((1, *CLIP_SHAPE), np.float32, order="F"), "Fortran"),
        ],
    )
    def test_another_array_is_refused(self, tmp_path: Path, array: np.ndarray, fault: str) -> None:
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(InputError, match=f"x.npy .*{fault}"):
            open_clips(tmp_path / "x.npy")

    @pytest.mark.parametrize(
        ("damage", "fault"),
        [
            (lambda content: content[:-1], "cut short"),
            (lambda content: content + b"x", "header promises"),
            (lambda content: content[:50], "header is cut short"),
            (lambda content: content[:9], "header is cut short"),
            (lambda content: content[:3], "no .npy header"),
            (lambda content: b"", "no .npy header"),
            (lambda content: b"PK" + content, "no .npy header"),
            (lambda content: content[:6] + b"\x04" + content[7:], "version 4"),
            (lambda content: content[:8] + b"\xff\xff" + content[10:], "claims 65535 bytes"),
            (lambda content: content.replace(b"'shape'", b"'shope'"), "header is damaged"),
            (lambda content: content.replace(b"False", b"[" * 5), "header is damaged"),
            (lambda content: content.replace(b"{", b"("), "header is damaged"),
            (lambda content: content.replace(b"(5, 3", b"(-5,3"), r"shape \(-5"),
            (lambda content: content.replace(b"(5, 3", b"('',3"), r"shape \(''"),
            (lambda content: content.replace(b"(5, ", b"(2**61, "), "header is damaged"),
            (lambda content: with_header(content, b"300,", b"300.0,"), r"shape \(5, 3, 300.0"),
            (lambda content: with_header(content, b"300,", b"300+0j,"), r"shape \(5, 3, "),
            (lambda content: with_header(content, b"'<f4'", b"0x" + 8000 * b"f"), "dtype a number of hundreds of"),
            (lambda content: with_header(content, b"(5,", b"(0x" + 8000 * b"f" + b","), "shape .a number of"),
            (lambda content: with_header(content, b"'<f4'", b"-" * 8000 + b"1"), "nested too deeply"),
            (lambda content: content.replace(b"(5, 3", b"(10000000000000000000, 3"), "header promises"),
        ],
    )
    def test_a_damaged_file_is_refused(self, dataset: Dataset, damage: Callable[[bytes], bytes], fault: str) -> None:
        dataset.data.write_bytes(damage(dataset.data.read_bytes()))
        with pytest.raises(InputError, match=f"val_data.npy .*{fault}"):
            open_clips(dataset.data)

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path: Path) -> None:
        for path in (tmp_path / "missing.npy", tmp_path):
            with pytest.raises(InputError, match=f"can't read {path} "):
                open_clips(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_the_first_clip_that_is_not_finite_is_named(self, value: float) -> None:
        clips = random_clips(4)
        clips[2, 2, 299, 17, 1] = clips[3, 0, 0, 0, 0] = value
        with pytest.raises(InputError, match="sample 12 of data holds NaN or infinity"):
            check_finite(clips, 10, "data")

    def test_large_values_are_finite(self) -> None:
        check_finite(np.full((2, *CLIP_SHAPE), 3e38, np.float32), 0, "data")


# What Python 2 wrote: pickle.dumps((['a', u'b\xfc'], [1, 2L]), protocol) for protocol 0 and 2
PYTHON2 = [
    b"((lp0\nS'a'\np1\naVb\xfc\np2\na(lp3\nI1\naL2L\natp4\n.",
    b"\x80\x02]q\x00(U\x01aq\x01X\x03\x00\x00\x00b\xc3\xbcq\x02e]q\x03(K\x01\x8a\x01\x02e\x86q\x04.",
]


class TestLabels:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_every_protocol_is_read(self, tmp_path: Path, protocol: int) -> None:
        names, labels = load_labels(write_labels(tmp_path / "l.pkl", [0, 399, 300], protocol))
        assert names == ["clip-0", "clip-1", "clip-2"]
        assert (labels.tolist(), labels.dtype) == ([0, 399, 300], np.int64)

    @pytest.mark.parametrize("content", PYTHON2)
    def test_python_2_is_read(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "l.pkl").write_bytes(content)
        names, labels = load_labels(tmp_path / "l.pkl")
        assert (names, labels.tolist()) == (["a", "bü"], [1, 2])

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ((["a"], [400]), r"label 400 of sample 0 .* outside 0\.\.399"),
            ((["a", "b"], [0, -1]), r"label -1 of sample 1 .* outside 0\.\.399"),
            ((["a"], [10**100]), r"of sample 0 .* outside 0\.\.399"),
            ((["a"], [1 << 80000]), "label a number of hundreds of digits of sample 0"),
            ((["a"], [True]), "isn't an integer"),
            ((["a"], [1.0]), "isn't an integer"),
            (([0], [1]), "name of sample 0 isn't printable text"),
            ((["a", "b\tc"], [1, 1]), "name of sample 1 isn't printable text"),
            ((["\ud800"], [1]), "name of sample 0 isn't printable text"),
            ((["a" * 256], [1]), "at most 255 characters"),
            ((["a"], [1, 2]), "1 names and 2 labels"),
            ((["a"], "1"), "aren't lists"),
            ({"names": []}, "pair"),
            (([], [], []), "pair"),
            ((["a"], np.array([1])), r"names numpy\.\S+\._reconstruct, .*don't trust it"),
            ((["a"], [np.int64(1)]), r"names numpy\.\S+\.scalar, .*don't trust it"),
        ],
    )
    def test_other_content_is_refused(self, tmp_path: Path, content: Any, fault: str) -> None:
        (tmp_path / "l.pkl").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(InputError, match=fault):
            load_labels(tmp_path / "l.pkl")

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (b"", "is empty"),
            (b"\x93NUMPY", "isn't a label file"),
            (pickle.dumps((["a"], [1]), 2)[:-1], "whole pickle"),
            (b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b".", "isn't a label file"),
        ],
    )
    def test_another_file_is_refused(self, tmp_path: Path, content: bytes, fault: str) -> None:
        (tmp_path / "l.pkl").write_bytes(content)
        with pytest.raises(InputError, match=f"l.pkl .*{fault}"):
            load_labels(tmp_path / "l.pkl")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"can't read .*missing.pkl"):
            load_labels(tmp_path / "missing.pkl")


def test_clips_and_labels_must_agree(dataset: Dataset) -> None:
    clips, labels = open_dataset(*dataset)
    assert len(clips) == len(labels.names) == SAMPLES
    write_labels(dataset.labels, [1, 2])
    with pytest.raises(InputError, match=r"holds 5 clips and .* holds 2 labels"):
        open_dataset(*dataset)


def test_the_classes_have_their_names() -> None:
    names = class_names()
    assert (len(set(names)), names[0], names[399]) == (400, "abseiling", "zumba")
