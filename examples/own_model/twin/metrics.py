"""The mean distance of the positions from the labels: lower is better."""

import json
from pathlib import Path

import numpy as np

from twin.common import options, run


def main() -> None:
    given = options("labels", "samples", "result", "outputs")
    count = int(given.samples)
    labels = np.load(given.labels)[:count]
    scores = []
    for files in given.outputs:
        position = np.load(files.split(",")[0])[:count].astype(np.float64)
        error = float(np.linalg.norm(position - labels, axis=1).mean())
        scores.append({"metrics": {"mean_error": error}})
    Path(given.result).write_text(json.dumps({"format": 1, "scores": scores}))


run(main)
