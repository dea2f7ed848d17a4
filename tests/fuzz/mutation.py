"""Damaged copies of what readers meet: the bytes that they must survive."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

# What has hurt readers before: claims, depth, long numbers, control sequences, bytes that are no text.
HURTFUL = (
    *(b"\x00", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"-1", b"1e999", b"NaN", b"0" * 20, b"9" * 5000),
    *(
        b"[" * 3000,
        b'{"a":' * 3000,
        b"(" * 3000,
        b"\x1b[2J",
        b"\x1b]0;title\x07",
        b"\xc2\x9b31m",
        b"\r\n",
        b"\t",
        b" " * 9999,
    ),
    *(
        b"../../../etc/passwd",
        b"/etc/passwd",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\xe2\x80\xae",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'""',
    ),
    *(b"!!python/object/apply:os.system [id]", b"&a [*a]", b"~nobody-here/x", b"cos\nsystem\n(S'id'\ntR.", b"<script>"),
    *(b"!!timestamp x", b"!!bool x", b'"\\UFFFFFFFF"', b"1:" * 200 + b"1.5", b"0x" + b"f" * 5000, b"3.0", b"3+0j"),
)
EDITS = 3


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed, as it is or with some of its slices removed, doubled or replaced."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, EDITS))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 40)))
        tail = content[stop:] if draw(st.booleans()) or draw(st.booleans()) else b""
        noise = draw(st.one_of(st.binary(max_size=40), st.sampled_from(HURTFUL), st.just(2 * content[start:stop])))
        content = content[:start] + noise + tail
    return content
