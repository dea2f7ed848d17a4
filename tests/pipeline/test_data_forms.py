"""The whole job on data and a checkpoint as users have them: converted once, and keyed by what the user gave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.containers.native import ARRAYS
from deploy.hosts.remote.folders import KIT
from stgcn.dataset import load_labels
from stgcn.sources import ROWS
from tests.pipeline.conftest import Job

pytestmark = pytest.mark.full


def rows_of(job: Job) -> Path:
    return job.workspace / KIT / ARRAYS / ROWS


def write_folder(sample: Path, folder: Path) -> dict[str, str]:
    """The sample as Kinetics-skeleton is distributed; what the inventory says of it."""
    clips = folder / "kinetics_val"
    clips.mkdir(parents=True)
    names, labels = load_labels(sample / "val_label.pkl")
    described = {}
    for name, label, clip in zip(names, labels.tolist(), np.load(sample / "val_data.npy"), strict=True):
        frames = []
        for number, frame in enumerate(clip.transpose(1, 3, 2, 0).astype(float)):  # persons, joints, channels
            skeletons = []
            for person in frame[frame.any(axis=(1, 2))]:
                pose = (person[:, :2] + 0.5).reshape(-1).tolist()
                skeletons.append({"pose": pose, "score": person[:, 2].tolist()})
            frames.append({"frame_index": number, "skeleton": skeletons})
        content = {"data": frames, "label": "", "label_index": label}
        (clips / f"{name}.json").write_text(json.dumps(content))
        described[name] = {"has_skeleton": True, "label": "", "label_index": label}
    (folder / "kinetics_val_label.json").write_text(json.dumps(described))
    return {"data": str(clips), "labels": str(folder / "kinetics_val_label.json")}


def test_a_folder_and_a_training_tools_checkpoint_run_to_a_verdict(
    sample: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    state = torch.load(sample / "st_gcn.sample.pth", weights_only=True)
    wrapped = {"epoch": np.int64(3), "where": tmp_path, "net": {f"module.{k}": v for k, v in state.items()}}
    torch.save(wrapped, tmp_path / "trained.pth")
    dataset = write_folder(sample, tmp_path / "kinetics-skeleton")
    job = make_job(dataset=dataset, checkpoint=str(tmp_path / "trained.pth"), batch_sizes=[4])
    output = job.fab("gpu-stage", "npu-convert", "npu-bench", "score")
    assert "converted to" in output
    summary = json.loads((job.workspace / "report" / "summary.json").read_text())
    assert summary["verdict"]["passed"] is True
    reference = np.load(job.workspace / "gpu" / "reference.npy")
    rows = np.load(rows_of(job), mmap_mode="r")
    assert rows.shape == (len(reference), 3, 300, 18, 2)
    assert "holds" in job.fab("audit")

    (rows_of(job)).unlink()
    job.fab("gpu-stage")
    assert np.array_equal(np.load(rows_of(job), mmap_mode="r"), rows)

    one = next((tmp_path / "kinetics-skeleton" / "kinetics_val").iterdir())
    one.write_text(one.read_text() + "\n")
    job.fab("audit", status=1)


def test_a_warning_of_the_dataset_is_said_each_time(sample: Path, tmp_path: Path, make_job: Callable[..., Job]) -> None:
    clips = np.load(sample / "val_data.npy")
    clips[:, :2] += 0.5 * clips[:, 2:].astype(bool)
    np.save(tmp_path / "d.npy", np.asfortranarray(clips.astype(">f8")))
    job = make_job(dataset={"data": str(tmp_path / "d.npy"), "labels": str(sample / "val_label.pkl")})
    for _ in range(2):
        assert "subtract 0.5" in " ".join(job.fab("gpu-stage").split())
    assert np.array_equal(np.load(rows_of(job)), clips)
