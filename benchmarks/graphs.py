"""Graphs on ONNX Runtime's CPU: the kit's forms against the guide's rewrite, and one person against both.

The share of sgemm's rate is that of `fused`, whose products are those of the network; `winograd` needs fewer.

A clip's two persons are two samples of a graph of `persons: nonempty`; an empty one is none.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks import data, paper
from benchmarks.harness import Scratch, Spread, Way, module
from stgcn.cards import INPUT
from stgcn.dataset import CLIP_SHAPE, PERSONS

REPEATS = {1: 15, 8: 11}  # a turn may be half or twice as fast as its neighbour
SGEMM = 2048  # a side of the matrices
CLIPS = 8  # of the half-and-half set


def compare(place: Scratch) -> dict[str, Spread]:
    _, checkpoint = data.sample(place)
    guide, fused, winograd, single = (
        place.folder / f"{name}.onnx" for name in ("guide", "fused", "winograd", "single")
    )
    module("benchmarks.guide.network", "--ckpt", checkpoint, "--onnx", guide)
    for path, variant, persons in (
        (fused, "fused", "both"),
        (winograd, "winograd", "both"),
        (single, "winograd", "nonempty"),
    ):
        flags = ("--variant", variant, "--persons", persons)
        module("stgcn.export", "--ckpt", checkpoint, "--onnx", path, *flags)
    return _against_guide(place, guide, fused, winograd) | _persons(place, winograd, single)


def _against_guide(place: Scratch, guide: Path, fused: Path, winograd: Path) -> dict[str, Spread]:
    sessions = {"guide": _session(guide), "fused": _session(fused), "winograd": _session(winograd)}
    figures = {}
    for batch_size, repeats in REPEATS.items():
        clips = _random(batch_size, *CLIP_SHAPE)
        ways: dict[str, Way] = {name: partial(_infer, session, clips) for name, session in sessions.items()}
        took = place.in_turns(ways | {"sgemm": _sgemm}, repeats)
        figures[f"onnx_vs_guide_b{batch_size}"] = Spread.of_ratios(took["guide"], took["winograd"])
        figures[f"fused_vs_guide_b{batch_size}"] = Spread.of_ratios(took["guide"], took["fused"])
    flops = batch_size * sum(cost.flops for cost in paper.layers(fused).values())
    least = [flops / (2 * SGEMM**3) * seconds for seconds in took["sgemm"]]  # what as many FLOPs take in an sgemm
    return figures | {"onnx_vs_sgemm": Spread.of_ratios(least, took["fused"])}


def _persons(place: Scratch, both: Path, single: Path) -> dict[str, Spread]:
    """Clips as they are, and the persons that are seen in them, in batches of one clip's size or the set's."""
    of_clips, of_persons, figures = _session(both), _session(single), {}
    for name, clips, persons, repeats in (
        ("one_person_clip", 1, 1, REPEATS[1]),
        ("half_and_half", CLIPS, CLIPS // 2 + CLIPS // 2 * PERSONS, REPEATS[8]),
    ):
        took = place.in_turns(
            {
                "both": partial(_infer, of_clips, _random(clips, *CLIP_SHAPE)),
                "seen": partial(_infer, of_persons, _random(persons, *CLIP_SHAPE[:-1], 1)),
            },
            repeats,
        )
        figures[name] = Spread.of_ratios(took["both"], took["seen"])
    return figures


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every weight that the guide's export lists as an input
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def _infer(session: onnxruntime.InferenceSession, clips: np.ndarray) -> float:
    """Seconds of the second of two runs: the first one finds its memory."""
    for _ in range(2):
        start = time.perf_counter()
        session.run(None, {INPUT: clips})
    return time.perf_counter() - start


def _sgemm() -> float:
    a, b = _random(SGEMM, SGEMM), _random(SGEMM, SGEMM)
    a @ b
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start
