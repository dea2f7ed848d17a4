"""A small dataset and a random checkpoint, made of numpy and torch alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import numpy as np
import pytest
import torch

from stgcn.checkpoint import save_state_dict
from stgcn.dataset import CLIP_SHAPE
from stgcn.model import ST_GCN_18

SAMPLES = 5


class Dataset(NamedTuple):
    data: Path
    labels: Path


def write_labels(path: Path, labels: List[Any], protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(([f"clip-{i}" for i in range(len(labels))], labels), protocol=protocol))
    return path


def random_clips(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).uniform(-0.5, 0.5, size=(samples, *CLIP_SHAPE)).astype(np.float32)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    np.save(tmp_path / "val_data.npy", random_clips(SAMPLES))
    return Dataset(tmp_path / "val_data.npy", write_labels(tmp_path / "val_label.pkl", [7, 0, 399, 12, 7]))


@pytest.fixture(scope="session")
def model() -> ST_GCN_18:
    """Random weights and batch-norm statistics that are far from the identity, in evaluation mode."""
    torch.manual_seed(0)
    model = ST_GCN_18().eval()
    for name, values in model.state_dict().items():
        if name.endswith("running_mean"):
            values.normal_(0, 0.2)
        elif name.endswith("running_var"):
            values.uniform_(0.5, 2)
        elif name.startswith("edge_importance"):
            values.uniform_(0.5, 1.5)
        elif values.dim() == 1 and name.endswith(("weight", "bias")):
            values.add_(torch.randn(values.shape) * 0.2)
    return model


@pytest.fixture(scope="session")
def state(model: ST_GCN_18) -> Dict[str, torch.Tensor]:
    return dict(model.state_dict())


@pytest.fixture(scope="session")
def checkpoint(state: Dict[str, torch.Tensor], tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("checkpoint") / "st_gcn.random.pth"
    save_state_dict(state, path)
    return path
