"""The float32 logits, whole or continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
import torch

from stgcn import reference
from stgcn.errors import InputError
from stgcn.model import ST_GCN_18
from stgcn.progress import Progress
from tests.stgcn.conftest import SAMPLES, Dataset, random_clips


def test_the_logits_are_the_models(dataset: Dataset, checkpoint: Path, model: ST_GCN_18, tmp_path: Path) -> None:
    output = tmp_path / "new" / "reference.npy"
    reference.main(["--ckpt", str(checkpoint), "--data_path", str(dataset.data), "--output", str(output)])
    logits = np.load(str(output))
    assert (logits.shape, logits.dtype) == ((SAMPLES, 400), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(random_clips(SAMPLES))).numpy()
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    assert list(output.parent.iterdir()) == [output]


class TestCutShort:
    @pytest.fixture(autouse=True)
    def cut(self, dataset: Dataset, checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
        """A run that ended after two of five clips, and half a row more."""
        self.output = tmp_path / "out" / "reference.npy"
        self.inputs = (checkpoint, dataset.data, self.output, 1)
        advance = Progress.advance

        def cut_short(progress: Progress, count: int) -> None:
            advance(progress, count)
            if progress.done == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(Progress, "advance", cut_short)
        with pytest.raises(KeyboardInterrupt):
            reference.write_reference(*self.inputs)
        monkeypatch.setattr(Progress, "advance", advance)
        assert not self.output.exists()
        part = next(self.output.parent.iterdir())
        part.write_bytes(part.read_bytes() + bytes(800))
        self.computed: List[int] = []
        forward = ST_GCN_18.forward

        def counted(model: ST_GCN_18, clips: torch.Tensor) -> torch.Tensor:
            self.computed.append(len(clips))
            return forward(model, clips)

        monkeypatch.setattr(ST_GCN_18, "forward", counted)

    @pytest.mark.full
    def test_the_same_inputs_go_on(self, model: ST_GCN_18) -> None:
        reference.write_reference(*self.inputs)
        assert sum(self.computed) == SAMPLES - 2
        with torch.no_grad():
            wanted = model(torch.from_numpy(random_clips(SAMPLES))).numpy()
        np.testing.assert_allclose(np.load(str(self.output)), wanted, atol=1e-5)
        assert list(self.output.parent.iterdir()) == [self.output]

    def test_other_inputs_start_again(self, dataset: Dataset) -> None:
        np.save(str(dataset.data), random_clips(2, seed=1))
        reference.write_reference(*self.inputs)
        assert sum(self.computed) == 2
        assert np.load(str(self.output)).shape == (2, 400)
        assert list(self.output.parent.iterdir()) == [self.output]


class TestBadInput:
    def test_a_clip_that_is_not_finite_is_named(self, dataset: Dataset, checkpoint: Path, tmp_path: Path) -> None:
        clips = random_clips(2)
        clips[1, 0, 0, 0, 0] = np.nan
        np.save(str(dataset.data), clips)
        with pytest.raises(InputError, match=r"sample 1 of .*val_data.npy"):
            reference.write_reference(checkpoint, dataset.data, tmp_path / "r.npy", batch_size=2)
        assert not (tmp_path / "r.npy").exists()

    def test_logits_that_are_not_finite_are_named(self, dataset: Dataset, checkpoint: Path, tmp_path: Path) -> None:
        clips = random_clips(2)
        clips[1] = 1e38
        np.save(str(dataset.data), clips)
        with pytest.raises(InputError, match="sample 1.*NaN"):
            reference.write_reference(checkpoint, dataset.data, tmp_path / "r.npy")
        assert not (tmp_path / "r.npy").exists()

    @pytest.mark.parametrize(
        ("option", "fault"),
        [
            (["--batch_size", "0"], "--batch_size 0"),
            (["--device", "abacus"], "--device abacus"),
            (["--output", "/dev/null/r.npy"], "can't write /dev/null/"),
            (["--ckpt", "/missing.pth"], "can't read /missing.pth"),
            (["--data_path", "/missing.npy"], "can't read /missing.npy"),
        ],
    )
    def test_a_bad_option_is_told(
        self, dataset: Dataset, checkpoint: Path, tmp_path: Path, option: Any, fault: str
    ) -> None:
        good = ["--ckpt", str(checkpoint), "--data_path", str(dataset.data), "--output", str(tmp_path / "r.npy")]
        with pytest.raises(InputError, match=fault):
            reference.main(good + option)
