"""Top-1 and Top-5 of a folder with a result a sample: against the guide's script, whole commands."""

from __future__ import annotations

from functools import partial

from benchmarks import data
from benchmarks.harness import Scratch, Spread, Way, module

REPEATS = 5


def compare(place: Scratch) -> dict[str, Spread]:
    labels = data.write_labels(place.folder / "labels.pkl", [index * 7 % 400 for index in range(data.WHOLE)])
    with place.fresh() as folder:
        results = data.results(folder / "results", labels)

        flags = ("--result_dir", results, "--label_path", labels)
        ways: dict[str, Way] = {
            "guide": partial(module, "benchmarks.guide.score", *flags),
            "kit": partial(module, "stgcn.score", *flags),
        }
        took = place.in_turns(ways, REPEATS)
    return {"score_vs_guide": Spread.of_ratios(took["guide"], took["kit"]), "score": Spread.of(took["kit"])}
