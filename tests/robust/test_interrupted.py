"""The kit cut short at points of every stage, chosen anew each time: `make kill-test` tries hundreds of them."""

from __future__ import annotations

import os
import random
import re

import pytest

from tests.robust.interrupted import FAULTS, ON_THE_HOST, STAGES, Cut, Story, chosen

pytestmark = pytest.mark.full

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
CUTS, RUNS = len(STAGES), 2  # each stage once, cut in two runs of it


@pytest.mark.parametrize("number", range(CUTS))
def test_a_cut_leaves_whole_files_and_the_next_run_ends_in_the_same_bytes(story: Story, number: int) -> None:
    cut = chosen(story, CUTS, SEED, runs=RUNS)[number]
    outcome = story.cut(cut)
    told = f"SEED={SEED}, {cut}"
    assert not outcome.torn, told
    assert not outcome.wrong, told
    assert outcome.reads, told


@pytest.mark.parametrize("stage", ["npu-convert", "npu-bench"])
def test_the_hosts_sshd_or_the_hold_may_be_killed_anywhere(story: Story, stage: str) -> None:
    chance = random.Random(SEED)
    faults = [(fault, chance.choice(story.points[stage, False]).number) for fault in ON_THE_HOST]
    outcome = story.cut(Cut(stage, False, faults))
    assert not [*outcome.torn, *outcome.wrong], f"SEED={SEED}, {outcome.cut}"


def test_a_choice_holds_every_stage_and_fault_and_is_the_same_for_the_same_seed(story: Story) -> None:
    cuts = chosen(story, 100, 7)
    assert {cut.stage for cut in cuts} == set(STAGES)
    assert {fault for cut in cuts for fault, _ in cut.faults} == set(FAULTS)
    assert cuts == chosen(story, 100, 7)
    assert cuts != chosen(story, 100, 8)


def test_the_points_are_of_every_program_that_writes(story: Story) -> None:
    """The control process, the helper on a host (`python -I`), stgcn's programs, atc and ais_bench."""
    names = {point.path.removeprefix(f"{story.folder}/") for points in story.points.values() for point in points}
    for wanted in (
        r"work/\.manifest\.json\..*",
        r"npu-host/\.stgcn-kit/clips/.*/0\.part/0\.bin",
        r"work/gpu/\..*\.npy\..*\.tmp",
        r"npu-host/\.stgcn-kit/runs/convert-.*/.*\.om",
        r"npu-host/\.stgcn-kit/runs/accuracy-.*/output/results/.*",
    ):
        assert any(re.fullmatch(wanted, name) for name in names), wanted
