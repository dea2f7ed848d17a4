"""mmaction2's annotations as rows. The digests are of what its own pipeline (v1.2.0) makes of the same samples."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from stgcn import annotations, fold, index
from stgcn.cards import card_of
from stgcn.errors import InputError
from stgcn.sources import open_source

FLAT, SOLID = card_of("mmaction.stgcn-2d"), card_of("mmaction.stgcn-3d")


def flat(name: str = "a", persons: int = 2, frames: int = 30, **more: Any) -> Dict[str, Any]:
    random = np.random.RandomState(frames)
    keypoint = random.uniform(1, 1000, size=(persons, frames, 17, 2)).astype(np.float16)
    score = random.uniform(size=(persons, frames, 17)).astype(np.float16)
    shown = {"keypoint": keypoint, "keypoint_score": score, "img_shape": (1080, 1920)}
    return {"frame_dir": name, "label": 7, "total_frames": frames, **shown, **more}


def solid(name: str = "a", persons: int = 2, frames: int = 30, **more: Any) -> Dict[str, Any]:
    keypoint = np.random.RandomState(frames).normal(size=(persons, frames, 25, 3)).astype(np.float16)
    return {"frame_dir": name, "label": 7, "total_frames": frames, "keypoint": keypoint, **more}


def write(path: Path, samples: List[Any], protocol: int = 4) -> Path:
    split = {"xsub_train": ["z"], "xsub_val": [sample["frame_dir"] for sample in samples]}
    content = {"split": split, "annotations": [*samples, flat("z")]}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


class TestSampling:
    @pytest.mark.parametrize(
        ("total", "clip", "first"),
        [(7, 3, [3, 4, 5, 6, 0]), (30, 9, [27, 28, 29, 0, 1]), (99, 1, [9, 10, 11, 12, 13])],
    )
    def test_short_samples_are_repeated(self, total: int, clip: int, first: List[int]) -> None:
        frames = annotations.sampled_frames(total).reshape(10, 100)
        assert frames[clip, :5].tolist() == first

    @pytest.mark.parametrize("total", [100, 150, 199])
    def test_of_medium_ones_some_frames_are_left_out(self, total: int) -> None:
        frames = annotations.sampled_frames(total).reshape(10, 100)
        assert (np.diff(frames, axis=1) >= 1).all()
        assert 0 <= frames.min() <= frames.max() < total
        assert (len(set(map(tuple, frames))) == 1) == (total == 100)

    def test_of_long_ones_each_segment_gives_one(self) -> None:
        frames = annotations.sampled_frames(250).reshape(10, 100)
        assert (frames >= np.arange(100) * 250 // 100).all()
        assert (frames < (np.arange(100) + 1) * 250 // 100).all()

    def test_the_frames_are_mmactions(self) -> None:
        taken = [annotations.sampled_frames(total) for total in (1, 9, 10, 60, 99, 100, 130, 199, 200, 201, 555)]
        digest = hashlib.sha256(np.concatenate(taken).astype("<i8").tobytes()).hexdigest()
        assert digest[:16] == "c18ce1609a3dcce9"


class TestRows:
    def test_2d_rows_are_mmactions(self) -> None:
        digest = hashlib.sha256()
        for frames in (5, 30, 120, 300):
            for persons in (1, 2, 3):
                digest.update(annotations.rows(flat(persons=persons, frames=frames), FLAT).tobytes())
        assert digest.hexdigest()[:16] == "efe96bc1ebc54f9c"

    def test_absent_joints_are_in_a_corner_and_absent_persons_are_zero(self) -> None:
        sample = flat(persons=1)
        sample["keypoint"][0, :, 3] = 0
        rows = annotations.rows(sample, FLAT)
        assert (rows.shape, rows.dtype) == ((10, 2, 100, 17, 3), np.float32)
        assert (rows[:, 0, :, 3, :2] == -1).all()
        assert (rows[:, 0, :, :, 2] > 0).any()
        assert (rows[:, 1] == 0).all()

    def test_the_size_of_the_picture_has_a_default(self) -> None:
        sample = flat()
        wanted = annotations.rows(sample, FLAT)
        del sample["img_shape"]
        assert np.array_equal(annotations.rows(sample, FLAT), wanted)
        assert not np.array_equal(annotations.rows({**sample, "img_shape": (480, 640)}, FLAT), wanted)

    def test_3d_bodies_are_centred_and_turned(self) -> None:
        sample = solid(frames=100)
        sample["keypoint"][:, 0] = 0  # so this frame falls away
        bodies = annotations._turned(sample["keypoint"])
        assert bodies.shape == (2, 99, 25, 3)
        middle, left, right = bodies[0, 0, [1, 4, 8]]
        np.testing.assert_allclose(middle, 0, atol=1e-6)
        np.testing.assert_allclose((right - left)[1:], 0, atol=1e-6)
        assert right[0] > left[0]
        lengths, given = (
            np.linalg.norm(joints[..., 3, :] - joints[..., 2, :], axis=-1)
            for joints in (bodies, sample["keypoint"][:, 1:].astype(float))
        )
        np.testing.assert_allclose(lengths, given, atol=1e-2)

    def test_of_two_3d_bodies_the_one_in_more_frames_is_first(self) -> None:
        sample = solid()
        sample["keypoint"][0, 10:] = 0
        bodies = annotations._turned(sample["keypoint"])
        assert bodies.shape[1] == 30
        assert (bodies[1, 10:] == 0).all()
        assert (bodies[0, 10:] != 0).any()

    def test_a_3d_sample_without_any_body_is_zero(self) -> None:
        sample = solid()
        sample["keypoint"][:] = 0
        assert not annotations.rows(sample, SOLID).any()
        assert not annotations.rows(solid(persons=0), SOLID).any()


class TestFiles:
    @pytest.mark.parametrize("protocol", range(2, min(5, pickle.HIGHEST_PROTOCOL) + 1))
    def test_the_validation_samples_are_written_in_their_order(self, tmp_path: Path, protocol: int) -> None:
        samples = [flat("a", label=np.int64(3)), flat("b", frames=120), flat("c", persons=1)]
        path = write(tmp_path / "ntu60_2d.pkl", samples, protocol)
        source, (names, labels) = open_source(path, path, FLAT)
        assert (names, labels.tolist(), source.samples) == (["a", "b", "c"], [3, 7, 7], 30)
        wanted = np.concatenate([annotations.rows(sample, FLAT) for sample in samples])
        assert np.array_equal(source.read(0, 99), wanted)
        assert np.array_equal(source.read(7, 5), wanted[7:12])

    def test_a_list_alone_is_taken_whole(self, tmp_path: Path) -> None:
        (tmp_path / "x.pkl").write_bytes(pickle.dumps([flat("a"), flat("b")]))
        assert annotations.Annotations(tmp_path / "x.pkl", FLAT).labels.names == ["a", "b"]

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
    def test_types_and_orders(self, tmp_path: Path, order: Any, dtype: str) -> None:
        sample = flat()
        for key in ("keypoint", "keypoint_score"):
            sample[key] = sample[key].astype(dtype, order=order)
        rows = annotations.Annotations(write(tmp_path / "x.pkl", [sample]), FLAT).read(0)
        native = {**sample, "keypoint": sample["keypoint"].astype(dtype[1:])}
        assert np.array_equal(rows, annotations.rows(native, FLAT))

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (lambda a: {**a, "keypoint": a["keypoint"][:, :, :16]}, "sample a .*shape"),
            (lambda a: {**a, "keypoint": a["keypoint"].astype(int)}, "sample a .*int64"),
            (lambda a: {**a, "total_frames": 31}, "sample a .*total_frames is 31"),
            (lambda a: {**a, "keypoint": a["keypoint"] * np.float16(np.nan)}, "sample a .*NaN"),
            (lambda a: {**a, "img_shape": (0, 1920)}, "sample a .*img_shape"),
            (lambda a: {**a, "keypoint_score": a["keypoint_score"][:1]}, "sample a .*keypoint_score"),
            (lambda a: {key: a[key] for key in a if key != "keypoint_score"}, "sample a .*keypoint_score"),
            (lambda a: {**a, "keypoint": [[0.0]]}, "sample a .*keypoint isn't an array"),
            (lambda a: {**a, "label": 60}, "label 60 of sample a .*0..59"),
            (lambda a: {**a, "label": os.system}, "system.*may run code"),
        ],
    )
    def test_what_the_pipeline_cannot_take_is_named(
        self, tmp_path: Path, change: Callable[[Any], Any], fault: str
    ) -> None:
        path = write(tmp_path / "x.pkl", [change(flat())])
        with pytest.raises(InputError, match=fault):
            annotations.Annotations(path, FLAT).read(0)

    def test_three_bodies_in_3d_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="sample a .*3 persons"):
            annotations.Annotations(write(tmp_path / "x.pkl", [solid(persons=3)]), SOLID).read(0)

    @pytest.mark.parametrize(
        "content", [{}, [], {"split": {"xsub_val": ["b"]}, "annotations": [flat()]}, [1], {"annotations": [flat()]}]
    )
    def test_another_pickle_is_refused(self, tmp_path: Path, content: Any) -> None:
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=r"x\.pkl"):
            annotations.Annotations(tmp_path / "x.pkl", FLAT)

    @pytest.mark.parametrize("share", [0.3, 0.9])
    def test_a_cut_file_is_refused(self, tmp_path: Path, share: float) -> None:
        content = write(tmp_path / "x.pkl", [flat()]).read_bytes()
        (tmp_path / "x.pkl").write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=r"x\.pkl"):
            annotations.Annotations(tmp_path / "x.pkl", FLAT)


def test_the_index_has_the_rows_of_each_sample_and_the_fold_their_score(tmp_path: Path) -> None:
    path, model = write(tmp_path / "ntu60_2d.pkl", [flat("a", label=3), flat("b", frames=120)]), "mmaction.stgcn-2d"
    index.main(
        ["--model", model, "--data_path", str(path), "--label_path", str(path), "--output_dir", str(tmp_path / "gpu")]
    )
    content = json.loads((tmp_path / "gpu" / "dataset.json").read_text())
    assert (content["samples"], content["names"]) == (2, ["a", "b"])
    assert content["rows"] == [list(range(10)), list(range(10, 20))]
    (array,) = content["inputs"]
    assert (array["file"], array["shape"]) == ("rows.npy", list(FLAT.row_shape))
    rows = np.load(str(tmp_path / "gpu" / "rows.npy"))
    assert array["shards"] == [{"first": 0, "count": 20, "sha256": hashlib.sha256(rows.tobytes()).hexdigest()}]
    assert np.load(str(tmp_path / "gpu" / "labels.npy")).tolist() == [3, 7]
    assert not (tmp_path / "gpu" / "persons.json").exists()

    logits = np.random.RandomState(0).normal(size=(20, 60)).astype(np.float32)
    np.save(str(tmp_path / "rows_logits.npy"), logits)
    argv = ["--index", str(tmp_path / "gpu" / "dataset.json"), "--rows", str(tmp_path / "rows_logits.npy")]
    fold.main(["--model", model, *argv, "--outputs", str(tmp_path / "logits.npy")])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = [shares[:10].mean(axis=0), shares[10:].mean(axis=0)]
    np.testing.assert_allclose(np.load(str(tmp_path / "logits.npy")), wanted, rtol=1e-5)
