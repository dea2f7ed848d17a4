"""Damaged copies of what tools really print: the texts that a parser must survive."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, originals: Sequence[str]) -> str:
    """An original with a slice replaced by noise, or noise alone."""
    original = draw(st.sampled_from(["", *originals]))
    start = draw(st.integers(0, len(original)))
    stop = draw(st.integers(start, min(len(original), start + 40)))
    noise = draw(st.one_of(st.text(max_size=40), st.text("0123456789-./ |:()[],\n", max_size=40)))
    return original[:start] + noise + original[stop:]
