"""Arrays of .npy files, and headers that claim what isn't there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stgcn import npy


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 400), np.float32), np.arange(6, dtype=np.int64), np.ones((2, 3), np.float16), np.array(1.5)],
)
def test_an_array_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    np.save(str(tmp_path / "x.npy"), array)
    found = npy.load(tmp_path / "x.npy")
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ({"descr": "<f4", "fortran_order": False, "shape": (1 << 60,)}, "header promises"),
        ({"descr": "<f4", "fortran_order": False, "shape": (1 << 28,)}, "header promises"),
        ({"descr": "<f4", "fortran_order": False, "shape": (0, 1 << 70)}, "shape is damaged"),
        ({"descr": "<f4", "fortran_order": False, "shape": (-1,)}, "shape is damaged"),
        ({"descr": "<f4", "fortran_order": False, "shape": [1]}, "shape is damaged"),
        ({"descr": "<f4", "fortran_order": False, "shape": (True,)}, "shape is damaged"),
        ({"descr": "<f4", "fortran_order": True, "shape": (1,)}, "no numbers in C order"),
        ({"descr": "|O", "fortran_order": False, "shape": (1,)}, "no numbers in C order"),
        ({"descr": [("a", "<f4")], "fortran_order": False, "shape": (1,)}, "no numbers in C order"),
        ({"descr": "<f4", "fortran_order": False}, "header is damaged"),
        ("9" * 5000, "header is damaged"),
        ("(" * 9000, "nested too deeply"),
        ("-" * 9000 + "1", "nested too deeply"),
        ("lambda:" * 1400, "nested too deeply"),
    ],
)
def test_a_claim_is_not_believed(tmp_path: Path, header: Any, fault: str) -> None:
    text = (header if isinstance(header, str) else repr(header)).encode()
    content = npy.MAGIC + b"\1\0" + len(text).to_bytes(2, "little") + text + b"1234"
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=fault):
        npy.load(tmp_path / "x.npy")
