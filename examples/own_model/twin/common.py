"""What the commands share: reading what they are given, and how a command ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

INPUTS = {"signal": ("float32", (4, 6)), "length": ("int32", (1,))}


def options(*names: str) -> argparse.Namespace:
    """The command line: every option takes one value; `--outputs` may come again."""
    parser = argparse.ArgumentParser()
    for name in ("model", *names):
        parser.add_argument(f"--{name}", action="append" if name == "outputs" else "store")
    return parser.parse_args()


def run(command: Callable[[], None]) -> None:
    """Call a command; a user's mistake is one sentence and a status that is not 0."""
    try:
        command()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}; correct the file or its path in the inventory")


def save(path: Path, array: np.ndarray) -> None:
    """Write a .npy, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.save(file, array)
    part.replace(path)


def inputs(data: str) -> dict[str, np.ndarray]:
    """Both inputs, each (samples, ...)."""
    with np.load(data) as arrays:
        return {name: arrays[name].astype(dtype) for name, (dtype, _) in INPUTS.items()}


def outputs(weights: dict[str, np.ndarray], signal: np.ndarray, length: np.ndarray) -> Sequence[np.ndarray]:
    """position (n, 2) and spread (n, 3, 2), as the graph computes them."""
    scaled = signal.reshape(len(signal), -1) / length.astype(np.float32)
    return [scaled @ weights["position"], (scaled @ weights["spread"]).reshape(-1, 3, 2)]
