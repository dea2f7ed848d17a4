"""A seeded sample of the dataset and a checkpoint that knows it, in the guide's formats:

    python -m stgcn.sample --output_dir DIR [--model NAME] [--samples 48] [--classes 40] [--seed 0]

writes `val_data.npy`, `val_label.pkl` and `st_gcn.sample.pth`; of mmaction2's models an annotation file, `ntu60_2d.pkl`
or `ntu60_3d.pkl`, and `mmaction.sample.pth`. `sample.json` names the three. Neither the real dataset nor the published
weights can be shipped; these stand in for both. Every class is a motion of its own. The backbone's weights are random,
its batch-norm statistics are measured and its classifier is fitted to the clips, so accuracy means something: a wrong
order, a wrong layout or a lost clip shows as a drop. Some clips are ambiguous or mislabelled, as in the real set, so
accuracy is below 100 %.
"""

from __future__ import annotations

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
import torch
from torch import nn

from stgcn.annotations import IMAGE_SHAPE, SPLIT
from stgcn.cards import KINETICS, Card, card_of, program
from stgcn.checkpoint import save_state_dict
from stgcn.dataset import CLIP_DTYPE
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike, atomic_write, remove, sweep, write_whole
from stgcn.networks import network
from stgcn.skeletons import COCO, KINECT, KINECT_MMACTION, OPENPOSE
from stgcn.sources import Source, open_source

DATA_NAME, LABEL_NAME, CHECKPOINT_NAME = "val_data.npy", "val_label.pkl", "st_gcn.sample.pth"
FILES_NAME = "sample.json"

# A person who stands, x to the right and y downwards; z, where there is one, away from the camera
_OPENPOSE_STANDING = np.array([
    (0.00, -0.30), (0.00, -0.20), (-0.07, -0.20), (-0.09, -0.08), (-0.10, 0.04), (0.07, -0.20), (0.09, -0.08),
    (0.10, 0.04), (-0.04, 0.05), (-0.05, 0.20), (-0.05, 0.36), (0.04, 0.05), (0.05, 0.20), (0.05, 0.36),
    (-0.02, -0.32), (0.02, -0.32), (-0.04, -0.31), (0.04, -0.31),
])  # fmt: skip
_KINECT_STANDING = np.array([
    (0.00, 0.04, 0.00), (0.00, -0.09, 0.00), (0.00, -0.22, 0.00), (0.00, -0.31, 0.00),
    (0.07, -0.20, 0.00), (0.09, -0.08, 0.01), (0.10, 0.03, 0.00), (0.10, 0.05, 0.00),
    (-0.07, -0.20, 0.00), (-0.09, -0.08, 0.01), (-0.10, 0.03, 0.00), (-0.10, 0.05, 0.00),
    (0.04, 0.05, 0.00), (0.05, 0.20, 0.00), (0.05, 0.36, 0.01), (0.05, 0.38, -0.04),
    (-0.04, 0.05, 0.00), (-0.05, 0.20, 0.00), (-0.05, 0.36, 0.01), (-0.05, 0.38, -0.04),
    (0.00, -0.19, 0.00), (0.10, 0.08, 0.00), (0.09, 0.06, -0.01), (-0.10, 0.08, 0.00), (-0.09, 0.06, -0.01),
])  # fmt: skip
STANDING = {
    OPENPOSE: _OPENPOSE_STANDING,
    COCO: _OPENPOSE_STANDING[[OPENPOSE.joints.index(joint) for joint in COCO.joints]],
    KINECT: _KINECT_STANDING,
    KINECT_MMACTION: _KINECT_STANDING,
}
FRAMES, PERSONS = 300, 2  # of a clip, at most
LEG_JOINTS = ("right knee", "right ankle", "left knee", "left ankle")
HARMONICS = 3
ONE_PERSON_SHARE, SHORT_SHARE, UPPER_BODY_SHARE = 1 / 3, 1 / 2, 1 / 3  # of all clips
CALIBRATED_CLIPS = 4  # a batch that measures the batch-norm statistics
FITTED_CLIPS = 96  # the classifier is fitted to no more, so any number of samples takes bounded time and memory
AMBIGUOUS_OF_24, MISLABELLED_OF_24 = 3, 1
OWN_SHARE = 0.35  # of its own class in an ambiguous clip's motion
OWN_TARGET = 0.6  # and in its logits, as a share of the other class's
RIDGE = 0.01  # of the mean squared feature; the less, the less of it holds for clips beyond the fitted ones
LOGIT_SCALE = 0.2  # small, so that float32 rounding stays under 1e-5 even for inputs that are no clips
UNUSED_LOGIT = -0.05


class Motion(NamedTuple):
    """A class's motion: a pose, and joints that swing about it."""

    pose: np.ndarray  # (V, 2 or 3)
    swing: np.ndarray  # (harmonics, V, 2 or 3)
    cycles: np.ndarray  # (harmonics,) a clip of 300 frames
    phase: np.ndarray  # (harmonics, V, 2 or 3), radians


class Plan(NamedTuple):
    """What a clip shows: its label, and the class whose motion it takes for the rest of `own_share`."""

    label: int
    other: int
    own_share: float


class Clip(NamedTuple):
    """Positions (persons, frames, V, 2 or 3) of up to two persons, scores and which are seen (persons, frames, V)."""

    positions: np.ndarray
    scores: np.ndarray
    seen: np.ndarray


def make_sample(output_dir: PathLike, samples: int, classes: int, seed: int, card: Card = KINETICS) -> None:
    """Write the files; the same arguments give the same bytes. Raises InputError for numbers out of range."""
    if samples < 1:
        raise InputError(f"--samples {samples} makes no dataset: give 1 or more")
    if not 2 <= classes <= card.classes:
        raise InputError(f"--classes {classes} is outside 2..{card.classes}: choose a number of them")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed} is outside 0..{2**32 - 1}: choose one of them")
    folder = Path(output_dir)
    files = file_names(card)
    sweep(folder)
    plans = _plans(samples, classes, seed, card)
    motions = {label: _motion(seed, label, card) for plan in plans for label in (plan.label, plan.other)}
    names = [f"sample{index:05d}" for index in range(samples)]
    if card.is_annotated:
        with atomic_write(folder / files["data"]) as file:
            remove(folder / files["checkpoint"])  # an earlier one: it is written last, so it stands for all
            annotations = [_annotation(index, plan, motions, seed, card) for index, plan in enumerate(plans)]
            named = [{"frame_dir": name, **each} for name, each in zip(names, annotations)]
            pickle.dump({"split": {SPLIT: names}, "annotations": named}, file, protocol=2)
    else:
        with atomic_write(folder / files["data"]) as file:
            remove(folder / files["checkpoint"])
            header = {"descr": CLIP_DTYPE.str, "fortran_order": False, "shape": (samples, *card.row_shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for index, plan in enumerate(plans):
                file.write(_row(_clip(index, plan, motions, seed, card), card).tobytes())
        with atomic_write(folder / files["labels"]) as file:
            pickle.dump((names, [plan.label for plan in plans]), file, protocol=2)
    source = open_source(folder / files["data"], folder / files["labels"], card)[0]
    state = _fitted_state(source, plans, seed, card)
    write_whole(folder / FILES_NAME, (json.dumps(files, indent=1) + "\n").encode())
    save_state_dict(state, folder / files["checkpoint"])


def file_names(card: Card) -> Dict[str, str]:
    """What `sample.json` holds: the names of the dataset's files and of the checkpoint."""
    if card.is_annotated:
        annotations = f"ntu60_{card.skeleton.dimensions}d.pkl"
        return {"data": annotations, "labels": annotations, "checkpoint": "mmaction.sample.pth"}
    return {"data": DATA_NAME, "labels": LABEL_NAME, "checkpoint": CHECKPOINT_NAME}


def _random(seed: int, *use: int) -> np.random.RandomState:
    """A generator for one use; numpy keeps RandomState's numbers the same for good."""
    return np.random.RandomState((seed, *use))


def _plans(samples: int, classes: int, seed: int, card: Card) -> List[Plan]:
    random = _random(seed, 0)
    labels = random.permutation(card.classes)[:classes]
    plans = []
    for index in range(samples):
        label, other = random.permutation(classes)[:2] if index >= classes else (index, (index + 1) % classes)
        place = index % 24
        own_share = OWN_SHARE if place < AMBIGUOUS_OF_24 else 0.0 if place >= 24 - MISLABELLED_OF_24 else 1.0
        plans.append(Plan(int(labels[label]), int(labels[other]), own_share))
    return [plans[index] for index in random.permutation(samples)]


def _motion(seed: int, label: int, card: Card) -> Motion:
    random = _random(seed, 1, label)
    standing = STANDING[card.skeleton]
    joint_swings = random.uniform(size=(HARMONICS, card.joints, 1)) < 0.4
    return Motion(
        pose=standing + random.normal(scale=0.12, size=standing.shape),
        swing=joint_swings * random.normal(scale=0.1, size=(HARMONICS, *standing.shape)),
        cycles=random.uniform(2, 40, size=HARMONICS),
        phase=random.uniform(0, 2 * np.pi, size=(HARMONICS, *standing.shape)),
    )


def _clip(index: int, plan: Plan, motions: Dict[int, Motion], seed: int, card: Card) -> Clip:
    """What a camera sees of a clip: see the shares above. Sensors in 3D, as Kinect, see all of a person or nothing."""
    random = _random(seed, 2, index)
    joints, dimensions = STANDING[card.skeleton].shape
    frames = int(random.randint(60, FRAMES)) if random.uniform() < SHORT_SHARE else FRAMES
    persons = 1 if random.uniform() < ONE_PERSON_SHARE else PERSONS
    legs = [card.skeleton.joints.index(joint) for joint in LEG_JOINTS]
    out_of_picture = legs if random.uniform() < UPPER_BODY_SHARE else []
    start, speed = random.uniform(0, FRAMES), random.uniform(0.95, 1.05)
    time = 2 * np.pi * (start + speed * np.arange(frames)) / FRAMES
    clip = Clip(
        np.zeros((persons, frames, joints, dimensions)),
        np.zeros((persons, frames, joints)),
        np.zeros((persons, frames, joints), bool),
    )
    for person in range(persons):
        size, place = random.uniform(0.9, 1.1), random.uniform(-0.05, 0.05, size=dimensions)
        own, other = (_positions(motions[label], time) for label in (plan.label, plan.other))
        positions = size * (plan.own_share * own + (1 - plan.own_share) * other) + place
        clip.positions[person] = positions + random.normal(scale=0.002, size=positions.shape)
        score = random.uniform(0.5, 0.9, size=joints) + random.normal(scale=0.01, size=(frames, joints))
        clip.scores[person] = score
        seen = random.uniform(size=(frames, joints)) < 0.98
        seen[:, out_of_picture] = False
        seen |= dimensions == 3
        if person > 0:  # the second passes through the picture
            enters, stays = random.uniform(0, 0.5), random.uniform(0.2, 0.5)
            seen[: int(enters * frames)] = seen[int((enters + stays) * frames) :] = False
        clip.seen[person] = seen
    return clip


def _row(clip: Clip, card: Card) -> np.ndarray:
    """A clip as ST-GCN takes it, float32 (3, 300, V, 2), mostly zeros."""
    row = np.zeros(card.row_shape)
    if card.skeleton.dimensions == 3:
        values = _metres(clip)
    else:
        values = np.clip(np.concatenate([clip.positions, clip.scores[..., None]], axis=-1), -0.5, 1.0)
    persons, frames = clip.seen.shape[:2]
    row[:, :frames, :, :persons] = (clip.seen[..., None] * values).transpose(3, 1, 2, 0)
    # Three decimals, as the pose estimator writes them, and 0 for what isn't seen, never -0
    return (np.round(row, 3) + 0.0).astype(CLIP_DTYPE)


def _annotation(index: int, plan: Plan, motions: Dict[int, Motion], seed: int, card: Card) -> Dict[str, Any]:
    """A clip as mmaction2's annotation of it, float16 as its converters write it."""
    clip = _clip(index, plan, motions, seed, card)
    flat = card.skeleton.dimensions == 2
    height, width = IMAGE_SHAPE
    values = height * clip.positions + (width / 2, height / 2) if flat else _metres(clip)
    annotation = {
        "label": plan.label,
        "total_frames": clip.seen.shape[1],
        "keypoint": (clip.seen[..., None] * np.round(values, 3) + 0.0).astype(np.float16),
    }
    if flat:
        scores = (clip.seen * np.round(clip.scores, 3)).astype(np.float16)
        annotation.update(keypoint_score=scores, img_shape=IMAGE_SHAPE, original_shape=IMAGE_SHAPE)
    return annotation


def _metres(clip: Clip) -> np.ndarray:
    """Positions as Kinect has them: of a person of 1.7 m, y upwards, 3 m off."""
    metres: np.ndarray = 2.4 * clip.positions * (1, -1, 1) + (0, 0, 3)
    return metres


def _positions(motion: Motion, time: np.ndarray) -> np.ndarray:
    """Joint positions (frames, V, 2 or 3) at times in radians of one cycle a clip."""
    angles = motion.cycles[:, None, None, None] * time[None, :, None, None] + motion.phase[:, None]
    positions: np.ndarray = motion.pose + (motion.swing[:, None] * np.sin(angles)).sum(axis=0)
    return positions


def _fitted_state(rows: Source, plans: List[Plan], seed: int, card: Card) -> Dict[str, torch.Tensor]:
    """A state dict whose backbone is random and whose classifier is fitted to the first samples, each of its first row.

    One thread an operation, so that the numbers don't depend on how many cores there are; the cores share the clips.
    All of it in the pool: torch 1.2 crashes where the main thread's number of threads changes between convolutions.
    """
    model, count = _random_model(seed, card), min(len(plans), FITTED_CLIPS)
    step = card.rows_per_sample
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            firsts = np.concatenate([rows.read(step * i, 1) for i in range(min(CALIBRATED_CLIPS, len(plans)))])
            pool.submit(_measure_batch_norms, model, firsts).result()
            features = np.stack(list(pool.map(lambda index: _features(model, rows, step * index), range(count))))
    finally:
        torch.set_num_threads(threads)
    weight, bias = _classifier(features, plans, card)
    state: Dict[str, torch.Tensor] = model.state_dict()
    last = "cls_head.fc" if card.is_annotated else "fcn"
    state[f"{last}.weight"] = torch.from_numpy(weight.astype(np.float32)).reshape(state[f"{last}.weight"].shape)
    state[f"{last}.bias"] = torch.from_numpy(bias.astype(np.float32))
    return state


def _random_model(seed: int, card: Card) -> Any:
    random = _random(seed, 3)
    model = network(card)
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if name.startswith("edge_importance") or name.endswith(".PA"):
            values = random.uniform(0.7, 1.3, size=shape)
        elif name.endswith(".A"):  # of ST-GCN++, which begins with the graph's own
            values = parameter.detach().numpy() * random.uniform(0.7, 1.3, size=shape)
        elif name.endswith("bias"):
            values = random.normal(scale=0.1, size=shape)
        elif len(shape) == 4:  # a convolution, scaled to keep the variance (He et al., arXiv 1502.01852)
            values = random.normal(scale=(2 / parameter[0].numel()) ** 0.5, size=shape)
        else:  # a batch norm
            values = random.uniform(0.8, 1.2, size=shape)
        parameter.data.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def _measure_batch_norms(model: Any, clips: np.ndarray) -> None:
    """Set every batch norm's running statistics to those of one batch."""
    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.from_numpy(clips))
    model.eval()


def _features(model: Any, rows: Source, index: int) -> np.ndarray:
    """The classifier's inputs for a clip, float64 (256,)."""
    with torch.no_grad():
        features: np.ndarray = model.features(torch.from_numpy(rows.read(index, 1))).numpy()[0]
    return features.astype(np.float64)


def _classifier(features: np.ndarray, plans: List[Plan], card: Card) -> "tuple[np.ndarray, np.ndarray]":
    """Weight (classes, 256) and bias (classes,) of the ridge regression from features to each plan's logits."""
    targets = np.zeros((len(features), card.classes))
    for target, plan in zip(targets, plans):
        target[plan.label] = {1.0: 1.0, 0.0: 0.0}.get(plan.own_share, OWN_TARGET)
        if plan.own_share < 1.0:
            target[plan.other] = 1.0
    mean = features.mean(axis=0)
    centred = features - mean
    gram = centred @ centred.T
    ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    target_mean = targets.mean(axis=0)
    weight = (centred.T @ np.linalg.solve(gram + ridge, targets - target_mean)).T
    bias = target_mean - weight @ mean
    used = sorted({label for plan in plans for label in (plan.label, plan.other)})
    unused = np.setdiff1d(np.arange(card.classes), used)
    weight, bias = LOGIT_SCALE * weight, LOGIT_SCALE * bias
    bias[unused] = UNUSED_LOGIT
    # Coarser than a solver's last digits, which vary with its threads
    return np.round(weight * 2**14) / 2**14, np.round(bias * 2**14) / 2**14


def main(argv: Optional[List[str]] = None) -> None:
    """Make the sample dataset and its checkpoint."""
    parser = program("sample", main.__doc__)
    parser.add_argument("--output_dir", required=True, help="folder for the dataset's files and the checkpoint")
    parser.add_argument("--samples", type=int, default=48, help="clips (default 48)")
    parser.add_argument("--classes", type=int, default=40, help="of the model's classes (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes another sample (default 0)")
    options = parser.parse_args(argv)
    card = card_of(options.model)
    make_sample(options.output_dir, options.samples, options.classes, options.seed, card)


if __name__ == "__main__":
    run_main(main)
