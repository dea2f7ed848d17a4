"""Clips to the files that ais_bench reads: against the guide's script, and against a mere `cp` of the array.

Whole commands, from their start to their end. Nobody waits for a disk: neither `cp` nor the guide does.
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.data import Dataset
from benchmarks.harness import Scratch, Spread, Way, module, module_peak_mb, run
from deploy.errors import KitError

CLIPS = 3000
REPEATS = 5
LINE = (1000, CLIPS, 8000, data.WHOLE)


def compare(place: Scratch) -> dict[str, Spread]:
    few, _ = data.sample(place)
    with place.fresh() as folder:
        figures = _against_guide_and_cp(place, data.repeated(few, CLIPS, folder))
    with place.fresh() as folder:
        return figures | _line(place, few, folder)


def _against_guide_and_cp(place: Scratch, dataset: Dataset) -> dict[str, Spread]:
    def guide() -> float:
        with place.fresh() as folder:
            return module("benchmarks.guide.preprocess", *dataset.flags, "--output_dir", folder)

    check_same_files(place, dataset)
    kit = partial(_kit, place, dataset, module)
    ways: dict[str, Way] = {"guide": guide, "cp": partial(_cp, place, dataset), "kit": kit}
    took = place.in_turns(ways, REPEATS)
    return {
        "preprocess_vs_guide": Spread.of_ratios(took["guide"], took["kit"]),
        "preprocess_vs_cp_3000": Spread.of_ratios(took["kit"], took["cp"]),
    }


def _cp(place: Scratch, dataset: Dataset) -> float:
    with place.fresh() as folder:
        return run("cp", dataset.clips, folder)


def _kit(place: Scratch, dataset: Dataset, measured: Callable[..., float]) -> float:
    with place.fresh() as folder:
        return measured("stgcn.preprocess", *dataset.flags, "--output_dir", folder)


def check_same_files(place: Scratch, dataset: Dataset) -> None:
    """Both ways write the same bytes.

    Raises:
        KitError: they do not.
    """
    with place.fresh() as folder:
        for name in ("stgcn.preprocess", "benchmarks.guide.preprocess"):
            module(name, *dataset.flags, "--output_dir", folder / name)
        for kind in ("val_data", "val_label"):
            ours, theirs = folder / "stgcn.preprocess" / kind, folder / "benchmarks.guide.preprocess" / kind
            names = [path.name for path in theirs.iterdir()]
            if len(filecmp.cmpfiles(ours, theirs, names, shallow=False)[0]) != len(names):
                raise KitError(f"the guide's way and the kit's write different files into {kind}; one of them is wrong")


def _line(place: Scratch, few: Dataset, folder: Path) -> dict[str, Spread]:
    """Memory at two sizes, how far time is from a straight line in the number of clips, and from that of `cp`."""
    datasets = {count: data.repeated(few, count, folder / str(count)) for count in LINE}
    ways = {str(count): partial(_kit, place, datasets[count], module) for count in LINE}
    took = place.in_turns({**ways, "cp": partial(_cp, place, datasets[data.WHOLE])}, 3)
    quickest = [min(took[str(count)]) for count in LINE]
    figures = {
        "preprocess_vs_cp": Spread.of_ratios(took[str(data.WHOLE)], took["cp"]),
        "preprocess_line": Spread.of([straightness(LINE, quickest)]),
    }
    for count in (CLIPS, data.WHOLE):
        peaks = [_kit(place, datasets[count], module_peak_mb) for _ in range(3)]
        figures[f"preprocess_memory_{count}"] = Spread.of(peaks)
    return figures


def straightness(counts: tuple[int, ...], seconds: list[float]) -> float:
    """R squared of the line through `seconds` over `counts`: 1 for a straight one."""
    slope, start = np.polyfit(counts, seconds, 1)
    left = np.square(np.array(seconds) - slope * np.array(counts) - start).sum()
    return float(1 - left / np.square(np.array(seconds) - np.mean(seconds)).sum())
