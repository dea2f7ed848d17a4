"""What a run leaves: a file per sample and output, the summary on stdout and as JSON."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import PADDING, Batch, under

logger = logging.getLogger(__name__)


class Results:
    """The results folder of a run, and which file of it came from which input."""

    def __init__(self, folder: str | None, form: str, axis: int, era: str) -> None:
        self.folder, self.form, self.axis, self.era = folder, form.lower(), axis, era
        self.files: dict[int, dict[str, list[str]]] = {}

    def save(self, run: int, batch: Batch, outputs: Sequence[NDArray[Any]]) -> None:
        """Split each output along the batch axis, one part a file of the batch; padding's parts are dropped."""
        count = len(batch[0])
        for index, output in enumerate(outputs):
            if self.axis >= output.ndim or (count > 1 and output.shape[self.axis] % count):
                logger.error(
                    f"save out files error array shape:{output.shape} filesinfo:{batch} files_count_perbatch:{count} "
                    f"ndata.shape{self.axis}:{output.shape[min(self.axis, output.ndim - 1)]}"
                )
                raise RuntimeError
            for position, part in enumerate(np.array_split(output, count, self.axis)):
                names = [files[position] for files in batch]
                if names[0] == PADDING:
                    continue
                sample = run * count + position
                path = under(self.folder or "", self._name(names[0], sample, index))
                self.files.setdefault(sample, {"infiles": names, "outfiles": []})["outfiles"].append(path)
                self._write(path, part)

    def _name(self, infile: str, sample: int, output: int) -> str:
        stem = f"sample_id_{sample}_output" if self.era < "2022-07" else Path(infile).name.split(".")[0]
        return f"{stem}_{output}.{self.form}"

    def _write(self, path: str, part: NDArray[Any]) -> None:
        if self.form == "npy":
            np.save(path, part)
        elif self.form == "txt":
            with Path(path).open("ab" if self.era < "2023" else "wb") as file:
                for row in part.reshape(-1, part.shape[-1]):
                    np.savetxt(file, row[None], fmt="%f" if part.dtype.kind == "f" else "%d", newline=" \n")
        else:
            np.ascontiguousarray(part).tofile(path)


class Summary:
    """Times of a run in ms, by kind, and the throughput from the mean of the computing.

    Of threads that compute `together`, `compute` are starts and ends: the mean is of the time in which any of them
    computes, and means are all that is told.
    """

    def __init__(
        self, compute: Sequence[Any], h2d: Sequence[float], d2h: Sequence[float], batch_size: int, together: bool
    ) -> None:
        self.times = {"H2D_latency": list(h2d), "NPU_compute_time": list(compute), "D2H_latency": list(d2h)}
        self.batch_size, self.together = batch_size, together
        mean = _covered(compute) / len(compute) if together else np.mean(compute) if compute else 0.0
        self.mean = float(mean)
        self.throughput = 1000 * batch_size / self.mean if self.mean else 0

    def log(self, era: str, everything: bool) -> None:
        logger.info("-----------------Performance Summary------------------")
        for kind, times in self.times.items():
            if everything or era < "2022-07" or kind == "NPU_compute_time":
                logger.info(f"{kind} (ms): " + ", ".join(f"{k} = {v}" for k, v in self._told(kind, times).items()))
        if era < "2022-08":
            logger.info(f"throughput (1000*batchsize/NPU_compute_time): {self.throughput}")
        else:
            batch = f"batchsize{'.mean' if era >= '2023-01' else ''}({self.batch_size})"
            logger.info(f"throughput 1000*{batch}/NPU_compute_time.mean({self.mean}): {self.throughput}")
        logger.info("------------------------------------------------------")

    def write(self, results: Results) -> None:
        """Beside the results folder as `<folder>_summary.json`; before 2022-11-08 inside it as `sumary.json`."""
        kinds = ("NPU_compute_time", "H2D_latency", "D2H_latency")
        counted = {kind: {**self._told(kind, self.times[kind]), "count": len(self.times[kind])} for kind in kinds}
        document = {
            "filesinfo": results.files,
            "args": sys.argv,
            **counted,
            "throughput": self.throughput,
            "npu_compute_time_list": self.times["NPU_compute_time"],
            "pid": os.getpid(),
        }
        inside = results.era < "2022-11"
        Path(f"{results.folder}{'/sumary.json' if inside else '_summary.json'}").write_text(json.dumps(document))

    def _told(self, kind: str, times: Sequence[Any]) -> dict[str, float]:
        if not self.together:
            return _spread(times)
        return {"mean": self.mean if kind == "NPU_compute_time" else _spread(times)["mean"]}


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """In how much of the time at least one of them is under way."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _spread(times: Sequence[float]) -> dict[str, float]:
    if not times:
        return dict.fromkeys(("min", "max", "mean", "median", "percentile(99%)"), 0.0)
    figures = (np.min(times), np.max(times), np.mean(times), np.median(times), np.percentile(times, 99))
    return dict(zip(("min", "max", "mean", "median", "percentile(99%)"), map(float, figures), strict=True))
