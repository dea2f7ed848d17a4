"""What JSON files of anywhere may hold, and what is refused in one sentence."""

from __future__ import annotations

import pytest

from stgcn import plain_json


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"[1e400]", "larger than a number can be"),
        (b'{"a": -1e999}', "larger than a number can be"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b'"\\ud800"', "surrogate"),
        (b'{"a": ["\\uDFFF x"]}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'"\xed\xa0\x80"', "utf-8"),  # the same half, as bytes
        ('"\ud800"', "surrogate"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        (b'[{"b": {"\\u0061": 1, "a": 1}}]', "'a' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe[\x00]\x00", "utf-8"),
    ],
)
def test_what_is_no_plain_json_is_a_sentence(text: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plain_json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'\xef\xbb\xbf{"a": 1e308}', {"a": 1e308}),
        (b'["d800 \\\\ud800"]', ["d800 \\ud800"]),
    ],
)
def test_what_is_one_is_read(text: bytes, value: object) -> None:
    assert plain_json.loads(text) == value
