"""A figure made of several runs."""

from __future__ import annotations

from deploy.npu.ais_bench import Latency, Performance
from deploy.npu.measure import figures


def test_rates_and_latencies_are_each_of_their_own_kind() -> None:
    slow = Performance(8, 100.0, Latency(min=70.0, max=95.0, mean=80.0, median=79.0, p99=94.0))
    fast = Performance(8, 200.0, Latency(min=30.0, max=55.0, mean=40.0, median=41.0, p99=54.0))
    figure = figures(8, [slow, fast])
    assert figure["latency_ms"] == {"min": 30.0, "median": 60.0, "mean": 60.0, "p99": 94.0, "max": 95.0}
    rates = {name: figure["throughput"][name] for name in ("min", "median", "max", "repeats", "spread")}
    assert rates == {"min": 100.0, "median": 150.0, "max": 200.0, "repeats": 2, "spread": 100 / 150}


def test_of_single_persons_the_rate_is_of_clips() -> None:
    run = Performance(8, 300.0, Latency(min=20.0, max=30.0, mean=26.0, median=26.0, p99=30.0))
    figure = figures(8, [run], persons_per_clip=1.5)
    assert figure["throughput"]["median"] == 200.0
    assert figure["persons"] == {"a_clip": 1.5, "throughput": {"median": 300.0, "min": 300.0, "max": 300.0}}
