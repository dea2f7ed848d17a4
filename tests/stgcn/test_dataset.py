"""The dataset's two files, good and bad."""

from __future__ import annotations

import json
import os
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
    read_clips,
)
from stgcn.errors import InputError
from tests.stgcn.conftest import Dataset, random_clips, write_labels


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
            with pytest.raises(InputError, match=f"{path} "):
                open_clips(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_the_first_clip_that_is_not_finite_is_named(self, value: float) -> None:
        clips = random_clips(4)
        clips[2, 2, 299, 17, 1] = clips[3, 0, 0, 0, 0] = value
        with pytest.raises(InputError, match="sample 12 of data.*NaN"):
            check_finite(clips, 10, "data")

    def test_large_values_are_finite(self) -> None:
        check_finite(np.full((2, *CLIP_SHAPE), 3e38, np.float32), 0, "data")


# What Python 2 wrote: pickle.dumps((['a', u'b\xfc'], [1, 2L]), protocol) for protocol 0 and 2
PYTHON2 = [
    b"((lp0\nS'a'\np1\naVb\xfc\np2\na(lp3\nI1\naL2L\natp4\n.",
    b"\x80\x02]q\x00(U\x01aq\x01X\x03\x00\x00\x00b\xc3\xbcq\x02e]q\x03(K\x01\x8a\x01\x02e\x86q\x04.",
]


# pickle.dumps((["a", "b"], [np.int64(1), np.array(300)]), protocol), as each generation of numpy and Python wrote it
NUMPY = {
    "numpy 1.16, Python 2, protocol 0": (
        b"((lp0\nS'a'\np1\naS'b'\np2\na(lp3\ncnumpy.core.multiarray\nscalar\np4\n(cnumpy\ndtype\np5\n(S'i8'\np6\nI0\nI1"
        b"\ntp7\nRp8\n(I3\nS'<'\np9\nNNNI-1\nI-1\nI0\ntp10\nbS'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\np11\ntp12\nRp13"
        b"\nacnumpy.core.multiarray\n_reconstruct\np14\n(cnumpy\nndarray\np15\n(I0\ntp16\ng2\ntp17\nRp18\n(I1\n(tg8\nI00"
        b"\nS',\\x01\\x00\\x00\\x00\\x00\\x00\\x00'\np19\ntp20\nbatp21\n."
    ),
    "numpy 1.16, Python 2, protocol 2": (
        b"\x80\x02]q\x00(U\x01aq\x01U\x01bq\x02e]q\x03(cnumpy.core.multiarray\nscalar\nq\x04cnumpy\ndtype\nq\x05U\x02i8"
        b"q\x06K\x00K\x01\x87q\x07Rq\x08(K\x03U\x01<q\tNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\nbU\x08\x01\x00\x00"
        b"\x00\x00\x00\x00\x00q\x0b\x86q\x0cRq\rcnumpy.core.multiarray\n_reconstruct\nq\x0ecnumpy\nndarray\nq\x0fK\x00"
        b"\x85q\x10h\x02\x87q\x11Rq\x12(K\x01)h\x08\x89U\x08,\x01\x00\x00\x00\x00\x00\x00q\x13tq\x14be\x86q\x15."
    ),
    "numpy 1.13, Python 3.6, protocol 4": (
        b"\x80\x04\x95\xbf\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x01a\x94\x8c\x01b\x94e]\x94(\x8c\x15numpy.core.multi"
        b"array\x94\x8c\x06scalar\x94\x93\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02i8\x94K\x00K\x01\x87\x94R\x94"
        b"(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bC\x08\x01\x00\x00\x00\x00\x00\x00\x00\x94\x86"
        b"\x94R\x94h\x04\x8c\x0c_reconstruct\x94\x93\x94h\x07\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R"
        b"\x94(K\x01)h\x0c\x89C\x08,\x01\x00\x00\x00\x00\x00\x00\x94t\x94be\x86\x94."
    ),
    "numpy 2.4, Python 3.11, protocol 5": (
        b"\x80\x05\x95\xc0\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x01a\x94\x8c\x01b\x94e]\x94(\x8c\x16numpy._core.mult"
        b"iarray\x94\x8c\x06scalar\x94\x93\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K"
        b"\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bC\x08\x01\x00\x00\x00\x00\x00\x00\x00\x94\x86\x94R"
        b"\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x08\x00\x00\x00\x00\x00\x00\x00,\x01\x00"
        b"\x00\x00\x00\x00\x00\x94h\x0c)\x8c\x01C\x94t\x94R\x94e\x86\x94."
    ),
}


def pickled(*instructions: bytes) -> bytes:
    return b"\x80\x02" + b"".join(instructions) + b"."


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

    @pytest.mark.parametrize("content", list(NUMPY.values()), ids=list(NUMPY))
    def test_every_numpy_is_read(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "l.pkl").write_bytes(content)
        names, labels = load_labels(tmp_path / "l.pkl")
        assert (names, labels.tolist(), labels.dtype) == (["a", "b"], [1, 300], np.int64)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize(
        "labels",
        [
            np.array([1, 300]),
            np.array([1, 300], ">i2"),
            np.array([1, 0, 300, 0], np.uint16)[::2],
            np.array([[1], [300]]),
            np.asfortranarray([[1], [300]]),
            np.array([1, 300], object),
            [np.int32(1), np.uint16(300)],
            [np.array([1]), np.array([300])],
        ],
    )
    def test_arrays_and_their_numbers_are_labels(self, tmp_path: Path, labels: Any, protocol: int) -> None:
        for names in (["a", "bü"], np.array(["a", "bü"]), list(np.array(["a", "bü"])), np.array(["a", "bü"], object)):
            (tmp_path / "l.pkl").write_bytes(pickle.dumps((names, labels), protocol))
            found = load_labels(tmp_path / "l.pkl")
            assert (found.names, found.labels.tolist()) == (["a", "bü"], [1, 300])
            assert {type(name) for name in found.names} == {str}

    @pytest.mark.parametrize(
        "content",
        [
            [["a", "b"], [1, 300]],
            {"labels": [1, 300], "names": ["a", "b"]},
            {"a": 1, "b": 300},
            {
                "a": {"has_skeleton": True, "label": "x", "label_index": 1},
                "c": {"has_skeleton": False, "label": "y", "label_index": 2},
                "b": {"has_skeleton": True, "label": "z", "label_index": 300},
            },
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_json_is_read(self, tmp_path: Path, content: Any, encoding: str) -> None:
        (tmp_path / "l.json").write_text(json.dumps(content, indent=1), encoding=encoding)
        names, labels = load_labels(tmp_path / "l.json")
        assert (names, labels.tolist()) == (["a", "b"], [1, 300])

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (b'{"a": 1, "b": NaN}', "NaN"),
            (b'{"a": 1, "b": 1e9}', "sample 1 isn't an integer"),
            (b'{"a": 1, "b": true}', "sample 1 isn't an integer"),
            (b'{"a": 1, "b": {"label": "x"}}', "sample 1 isn't an integer"),
            (b'{"a": 1, "b": ' + b"9" * 5000 + b"}", "too long"),
            (b'{"a": 1, "b\\u0007": 2}', "name of sample 1"),
            (b'{"names": "ab", "labels": [1, 2]}', "aren't lists"),
            (b"[" * 100000, "nested"),
            (b'{"a": 1', "isn't a label file"),
            (b'{"a": 400}', r"label 400 of sample 0"),
            (b'"a"', "whole pickle"),
        ],
    )
    def test_other_json_is_refused(self, tmp_path: Path, content: bytes, fault: str) -> None:
        (tmp_path / "l.json").write_bytes(content)
        with pytest.raises(InputError, match=f"l.json.*{fault}|{fault}.*l.json"):
            load_labels(tmp_path / "l.json")

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
            ((["a"], np.array([1.0])), "isn't an integer"),
            ((["a"], np.array([True])), "isn't an integer"),
            ((["a"], np.array([[1, 2]])), "aren't lists"),
            ((["a"], [np.array([1, 2])]), "isn't an integer"),
            ((["a"], np.array([400])), "label 400 of sample 0"),
            ((["a"], np.zeros(1, "M8[s]")), "whole pickle"),
            ((["a"], np.zeros(1, [("x", "<i4")])), "whole pickle"),
            ((["a"], np.array(os.system, object)), r"names (posix|os)\.system, .*don't trust it"),
            ((["a"], np.random.RandomState(0)), r"names numpy\.random\S*, .*don't trust it"),
            ((["a"], np.float64), r"names numpy\.float64, .*don't trust it"),
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
            (pickled(b"cnumpy.core.multiarray\n_frombuffer\n"), r"names numpy\.core\.multiarray\._frombuffer"),
            (pickle.dumps((np.array(["abc"]), [1]), 2).replace(b"b\x00\x00\x00", b"b\x00\x7f\x7f"), "whole pickle"),
            (pickled(b"cnumpy\nload\nU\x01x\x85R"), r"names numpy\.load,"),
            (pickled(b"cnumpy\nndarray\nJ", struct.pack("<i", 2**30), b"\x85R"), "whole pickle"),
            (pickled(b"cnumpy\nndarray\nJ", struct.pack("<i", 2**30), b"\x85\x81"), "whole pickle"),
            (pickled(b"cbuiltins\nbytearray\nJ", struct.pack("<i", 2**30), b"\x85R"), "whole pickle"),
            (pickled(b"cnumpy.core.multiarray\n_reconstruct\ncposix\nsystem\n)U\x01b\x87R"), r"names posix\.system,"),
            (NUMPY["numpy 1.16, Python 2, protocol 2"].replace(b"K\x01)h", b"K\x01K\x63\x85h"), "whole pickle"),
            (NUMPY["numpy 1.16, Python 2, protocol 2"].replace(b"U\x02i8", b"U\x02V8"), "whole pickle"),
            (NUMPY["numpy 2.4, Python 3.11, protocol 5"].replace(b"\x96\x08", b"\x96\x88"), "whole pickle"),
        ],
    )
    def test_another_file_is_refused(self, tmp_path: Path, content: bytes, fault: str) -> None:
        (tmp_path / "l.pkl").write_bytes(content)
        with pytest.raises(InputError, match=f"l.pkl .*{fault}"):
            load_labels(tmp_path / "l.pkl")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"missing\.pkl"):
            load_labels(tmp_path / "missing.pkl")


def test_the_classes_have_their_names() -> None:
    names = class_names()
    assert (len(set(names)), names[0], names[399]) == (400, "abseiling", "zumba")
