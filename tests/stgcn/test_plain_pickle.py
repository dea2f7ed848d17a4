"""Unpickling that runs no code and takes no more memory than the pickle is worth."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from stgcn import checkpoint, numpy_pickle
from stgcn.plain_pickle import Skipped, UnexpectedNameError, load


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def test_plain_data_comes_back_from_every_protocol() -> None:
    content = (["a", "ü"], [1, 2**70], {"k": (None, True, 1.5)})
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert load(io.BytesIO(pickle.dumps(content, protocol)), {}) == content


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (pickle.dumps(Evil(), 0), f"{os.system.__module__}.system"),
        (pickle.dumps(Evil(), 4), f"{os.system.__module__}.system"),
        (b"(S'exit 1'\nios\nsystem\n.", "os.system"),  # instruction INST
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"\x80\x02ccollections\nOrderedDict\n.", "collections.OrderedDict"),
    ],
)
def test_a_name_is_refused_and_told(content: bytes, name: str) -> None:
    with pytest.raises(UnexpectedNameError, match=f"^{name}$"):
        load(io.BytesIO(content), {})


def test_an_allowed_name_gives_what_stands_in_for_it() -> None:
    assert load(io.BytesIO(b"cany\nthing\n."), {("any", "thing"): "stand-in"}) == "stand-in"


def test_data_outside_is_asked_for_where_allowed() -> None:
    content = b"\x80\x02X\x03\x00\x00\x00keyQ."
    assert load(io.BytesIO(content), {}, str.upper) == "KEY"
    with pytest.raises(ValueError, match="whole pickle"):
        load(io.BytesIO(content), {})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b".",  # a memo of 16 GiB for the C unpickler
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
        b"\x80\x02" + b"(" * 100000,
    ],
)
def test_a_short_pickle_takes_little_memory(content: bytes) -> None:
    tracemalloc.start()
    with suppress(ValueError):
        load(io.BytesIO(content), {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


NESTED = b")" + b"2\x86" * 60  # a tuple of tuples that takes 2^60 steps to hash


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + NESTED + b"Ns.",
        b"\x80\x02}(NN" + NESTED + b"Nu.",
        b"(" + NESTED + b"Nd.",
        b"\x80\x02}" + b"(" + b"N" * 17 + b"tNs.",
        b"\x80\x02}\x8a\x09" + b"\x01" * 9 + b"Ns.",
        b"\x80\x02}G\x7f\xf8" + bytes(6) + b"Ns.",
        b"\x80\x02cany\nthing\n]" + NESTED + b"N\x86a\x85R.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 30) + b"x.",
        b"I" + b"9" * 10**7 + b"\n.",
        b"L" + b"9" * 10**7 + b"L\n.",
    ],
)
def test_instructions_that_hash_or_allocate_without_end_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="whole pickle"):
        load(io.BytesIO(content), {("any", "thing"): checkpoint._State})


@pytest.mark.parametrize("content", [b"\x80\x04\x8f(" + NESTED + b"\x90.", b"\x80\x04(" + NESTED + b"\x91."])
def test_a_set_is_passed_over_without_hashing_it(content: bytes) -> None:
    assert isinstance(load(io.BytesIO(content), {}), Skipped)


def test_protocol_5_has_its_bytes_in_every_python() -> None:
    assert load(io.BytesIO(b"\x80\x05\x96" + struct.pack("<Q", 3) + b"abc."), {}) == b"abc"
    with pytest.raises(ValueError, match="whole pickle"):
        load(io.BytesIO(b"\x80\x06N."), {})


def test_a_key_may_be_what_hashes_in_no_time() -> None:
    content = {"a": 1, b"b": 2, 3: 4, None: 5, 0.5: 6, (1, "x"): 7, True: 8}
    assert load(io.BytesIO(pickle.dumps(content, 2)), numpy_pickle.ALLOWED) == content


def test_what_a_skipped_object_is_made_of_is_dropped() -> None:
    allowed = {("any", "thing"): Skipped}
    for made in (b")R", b")\x81", b"N\x85R", b")R}U\x01aNsb", b")R(U\x01aNu", b")R(NNe", b")RNa"):
        assert isinstance(load(io.BytesIO(b"\x80\x02cany\nthing\n" + made + b"."), allowed), Skipped)


def test_no_state_is_set_of_anything_but_what_a_stand_in_made() -> None:
    with pytest.raises(ValueError, match="whole pickle"):
        load(io.BytesIO(b"\x80\x02cany\nthing\nN}U\x05__doc__NsN\x86b."), {("any", "thing"): load})


def test_random_bytes_end_in_a_value_error_or_data() -> None:
    whole = bytearray(pickle.dumps((["a", "b"], [1, 2]), 2))
    source = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        with suppress(ValueError):
            load(io.BytesIO(damaged), {})
