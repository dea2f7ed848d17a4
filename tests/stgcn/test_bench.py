"""The model's own throughput by torch: repeats until they agree, resumed where it was cut, told truly."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from stgcn import bench
from stgcn.errors import InputError

SETTINGS = {"loop": 5, "warmup": 1, "min_repeats": 3, "max_repeats": 4, "spread": 0.5, "repeat_s": 60.0}
CPU = torch.device("cpu")


def sleeping(milliseconds: list[float]) -> Any:
    """A network that takes so long for its first batches, then as the last."""

    def network(batch: torch.Tensor) -> torch.Tensor:
        time.sleep((milliseconds.pop(0) if len(milliseconds) > 1 else milliseconds[0]) / 1000)
        return batch

    return network


def test_the_rate_is_of_the_computation_alone() -> None:
    figure = bench.measure(sleeping([20.0]), (8, 3), CPU, SETTINGS)
    assert figure["throughput"]["median"] == pytest.approx(8 / 0.020, rel=0.2)
    assert figure["latency_ms"]["median"] == pytest.approx(20, rel=0.2)
    assert figure["throughput"]["repeats"] == len(figure["raw_ms"]) == 3
    assert not figure["throughput"]["noisy"]


def test_repeats_that_disagree_go_on_to_the_most_and_are_marked() -> None:
    one = [5.0] * 5
    figure = bench.measure(sleeping([5.0, *one, *[40.0] * 5, *one, 40.0]), (1, 3), CPU, SETTINGS)
    assert figure["throughput"]["repeats"] == 4
    assert figure["throughput"]["noisy"]
    assert figure["latency_ms"]["p90"] > 30


def test_a_repeat_ends_in_time_with_what_it_has() -> None:
    figure = bench.measure(sleeping([30.0]), (1, 3), CPU, {**SETTINGS, "loop": 100, "repeat_s": 0.1})
    assert 2 <= len(figure["raw_ms"][0]) <= 4


def test_rows_of_one_sample_count_as_one() -> None:
    figure = bench.measure(sleeping([20.0]), (10, 3), CPU, SETTINGS, rows_per_sample=10)
    assert figure["throughput"]["median"] == pytest.approx(50, rel=0.2)


def test_a_cut_run_goes_on_with_the_next_batch_size(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "benchmark.json"
    measured: list[int] = []

    def measure(_network: Any, shape: tuple[int, ...], *_: Any) -> dict[str, Any]:
        measured.append(shape[0])
        if len(measured) == 2:
            raise KeyboardInterrupt
        return {"batch_size": shape[0], "throughput": {"median": 1.0}}

    monkeypatch.setattr(bench, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        bench.write_benchmark(checkpoint, output, [1, 4], SETTINGS, "cpu", "st_gcn.kinetics")
    assert not output.exists()
    bench.write_benchmark(checkpoint, output, [1, 4], SETTINGS, "cpu", "st_gcn.kinetics")
    assert measured == [1, 4, 4]
    found = json.loads(output.read_text())
    assert [each["batch_size"] for each in found["batches"]] == [1, 4]
    assert found["device"]["kind"] == "cpu"
    assert found["device"]["torch"] == torch.__version__
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("text", ["", "1,,4", "0", "a", "-1"])
def test_batch_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="batch_sizes"):
        bench.main(["--ckpt", "x", "--output", "y", "--batch_sizes", text])
