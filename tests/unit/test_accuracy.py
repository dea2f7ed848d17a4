"""How samples are shared out and put together again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import KitError
from deploy.execution.rows import Span, aggregate, join, plan
from deploy.npu.infer import Unit

SIZES = st.integers(1, 20_000), st.integers(1, 512), st.integers(1, 64)


@given(*SIZES)
def test_a_plan_holds_every_sample_once_in_whole_batches(samples: int, batch_size: int, devices: int) -> None:
    units = plan(samples, batch_size, devices)
    assert [i for unit in units for i in range(unit.first, unit.first + unit.count)] == list(range(samples))
    assert all(unit.first % batch_size == 0 for unit in units)
    assert all(unit.count % batch_size == 0 for unit in units[:-1])


@given(*SIZES)
def test_several_devices_have_work_for_each_where_there_is_enough(samples: int, batch_size: int, devices: int) -> None:
    batches = -(-samples // batch_size)
    assert len(plan(samples, batch_size, devices)) >= min(batches, devices) // 2


def part(unit: Unit) -> list[np.ndarray]:
    rows = np.arange(unit.first, unit.end, dtype=np.float32)
    return [np.repeat(rows[:, None], 400, axis=1), rows.astype(np.int64)]


def test_parts_are_joined_by_sample_whatever_their_order() -> None:
    units = [Unit(8, 5), Unit(0, 8)]
    logits, second = join({unit: part(unit) for unit in units}, 13)
    assert logits[:, 0].tolist() == second.tolist() == list(range(13))


@pytest.mark.parametrize(
    ("units", "sentence"),
    [
        ([Unit(0, 8)], r"sample 8 was run 0 times, not once \(5 of 13 were not\)"),
        ([Unit(0, 8), Unit(6, 7)], r"sample 6 was run 2 times, not once \(2 of 13 were not\)"),
        ([], r"sample 0 was run 0 times, not once \(13 of 13 were not\)"),
    ],
)
def test_a_sample_that_is_missing_or_double_is_named(units: list[Unit], sentence: str) -> None:
    with pytest.raises(KitError, match=sentence):
        join({unit: part(unit) for unit in units}, 13)


def test_the_rate_of_devices_together_is_over_the_window_that_they_share() -> None:
    spans = [Span(10.0, 14.0, 40), Span(11.0, 13.0, 40), Span(13.0, 15.0, 20)]
    assert aggregate(spans) == {"samples": 100, "seconds": 5.0, "samples_per_s": 20.0}
    assert aggregate([]) is None
