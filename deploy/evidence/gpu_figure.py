"""Whether the GPU host's figure (gpu/benchmark.json) follows from the latency of every batch that it keeps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import KitError
from deploy.evidence.differences import refuse_difference
from deploy.npu import measure
from stgcn import plain_json

NOT_TOLD = "no GPU of nvidia-smi's"  # a host's own torch may know another, or have the processor alone


def check(path: Path, entry: Mapping[str, Any], rows_per_sample: int) -> None:
    """Whether the figure is of the entry's batch sizes, host and device, and follows from its `raw_ms`, which a package
    of one's own may leave out.

    Raises:
        KitError: naming what does not follow.
    """
    figure, inputs = plain_json.load(path), entry["inputs"]
    sizes = [batch["batch_size"] for batch in figure["batches"]]
    told = {"idle": entry["facts"]["idle"], "host": entry["host"]}
    refuse_difference(path, told, figure, "the record of its step")
    if sizes != inputs["batch_sizes"]:
        raise KitError(f"{path}: of batch sizes {sizes}, and the record of its step says {inputs['batch_sizes']}")
    device = figure["device"]
    # The processor may be measured on a host with a GPU, where torch there cannot use it; a partition's name is longer.
    named = inputs["device"].rpartition(", driver ")[0]
    if device["kind"] != "cpu" and inputs["device"] != NOT_TOLD and not (named and device["name"].startswith(named)):
        raise KitError(f"{path}: of {device['name']}, and the record of its step says {inputs['device']}")
    for i, batch in enumerate(figure["batches"]):
        if "raw_ms" in batch:
            again = _figures(batch["batch_size"] / rows_per_sample, batch["raw_ms"], inputs["spread"])
            refuse_difference(path, again, batch, "its raw_ms", f"batches[{i}]")
            limits = inputs["min_repeats"], inputs["max_repeats"], inputs["spread"]
            if not measure.ends(again["throughput"]["values"], *limits):
                raise KitError(f"{path}: batches[{i}] has {len(batch['raw_ms'])} repeats, which is not when they end")


def _figures(samples: float, repeats: Sequence[Sequence[float]], bound: float) -> dict[str, Any]:
    """What stgcn/bench.py makes of the milliseconds of each batch of so many samples."""
    rates = [1000 * samples / statistics.mean(repeat) for repeat in repeats]
    every = np.concatenate([np.asarray(repeat, np.float64) for repeat in repeats])
    spread = measure.spread(rates)
    throughput = {"median": statistics.median(rates), "min": min(rates), "max": max(rates), "values": rates}
    return {
        "throughput": {**throughput, "repeats": len(rates), "spread": spread, "noisy": spread > bound},
        "latency_ms": {
            "mean": float(every.mean()),
            "median": float(np.median(every)),
            "p90": float(np.percentile(every, 90)),
            "p99": float(np.percentile(every, 99)),
            "batches": len(every),
        },
    }
