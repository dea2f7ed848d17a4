"""`python -m stgcn.score` at the size of the real dataset, against a ranking of each sample by itself."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np

from deploy.inventory import ROOT

SAMPLES = 19796


def test_it_agrees_to_the_last_hit_with_a_plain_ranking(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((SAMPLES, 400)).astype(np.float32).round(2)  # with ties
    labels = np.where(random.random(SAMPLES) < 0.3, logits.argmax(1), random.integers(0, 400, SAMPLES))
    results = tmp_path / "results"
    results.mkdir()
    for i, row in enumerate(logits):
        row.tofile(results / f"{i}_0.bin")
    names = [f"clip-{i}" for i in range(SAMPLES)]
    (tmp_path / "val_label.pkl").write_bytes(pickle.dumps((names, labels.tolist()), protocol=2))
    ranked = [np.lexsort((np.arange(400), -row)) for row in logits]  # of equal logits the lower class first
    hits = [sum(label in row[:k] for row, label in zip(ranked, labels, strict=True)) for k in (1, 5)]
    argv = ["-m", "stgcn.score", "--result_dir", str(results), "--label_path", str(tmp_path / "val_label.pkl")]
    done = subprocess.run([sys.executable, *argv], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == [f"Top {k}: {h / SAMPLES:.2%}" for k, h in zip((1, 5), hits, strict=True)]
