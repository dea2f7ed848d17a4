"""Whatever is read, it is taken or refused in one sentence: no other error, no hang, nothing written elsewhere."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import damaged
from tests.fuzz.targets import CASES, TARGETS

CALM = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fuzz-examples"))


def survive(name: str, content: bytes) -> bool:
    CASES[name] += 1
    top = Path(tempfile.mkdtemp(prefix="stgcn-fuzz-"))
    try:
        (top / "own").mkdir()
        return TARGETS[name].survive(content, top / "own")
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_whole_is_taken(name: str) -> None:
    taken = [survive(name, content) for content in TARGETS[name].seeds()]
    assert any(taken)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_damaged_is_survived(name: str, examples: int) -> None:
    target = TARGETS[name]
    count = max(3, examples // 10) if target.slow else examples

    @settings(CALM, max_examples=count)
    @given(damaged(target.seeds()))
    def attack(content: bytes) -> None:
        survive(name, content)

    attack()


@pytest.mark.parametrize("name", TARGETS)
def test_so_is_any_noise(name: str, examples: int) -> None:
    @settings(CALM, max_examples=max(3, examples // 10))
    @given(st.binary(max_size=300))
    def attack(content: bytes) -> None:
        survive(name, content)

    attack()
