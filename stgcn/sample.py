"""A seeded sample of the dataset and a checkpoint that knows it, in the guide's formats:

    python -m stgcn.sample --output_dir DIR [--samples 48] [--classes 40] [--seed 0]

writes `val_data.npy`, `val_label.pkl` and `st_gcn.sample.pth`. Neither the real dataset nor the published weights can
be shipped; these stand in for both. Every class is a motion of its own. The backbone's weights are random, its
batch-norm statistics are measured and its classifier is fitted to the clips, so accuracy means something: a wrong
order, a wrong layout or a lost clip shows as a drop. Some clips are ambiguous or mislabelled, as in the real set, so
accuracy is below 100 %.
"""

from __future__ import annotations

import argparse
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import numpy as np
import torch
from torch import nn

from stgcn.checkpoint import save_state_dict
from stgcn.dataset import CLASSES, CLIP_DTYPE, CLIP_SHAPE, FRAMES, JOINTS, PERSONS, open_clips, read_clips
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike, atomic_write, remove, sweep
from stgcn.model import ST_GCN_18

DATA_NAME, LABEL_NAME, CHECKPOINT_NAME = "val_data.npy", "val_label.pkl", "st_gcn.sample.pth"

# A person who stands, x to the right and y downwards, in OpenPose's order of joints
STANDING = np.array([
    (0.00, -0.30), (0.00, -0.20), (-0.07, -0.20), (-0.09, -0.08), (-0.10, 0.04), (0.07, -0.20), (0.09, -0.08),
    (0.10, 0.04), (-0.04, 0.05), (-0.05, 0.20), (-0.05, 0.36), (0.04, 0.05), (0.05, 0.20), (0.05, 0.36),
    (-0.02, -0.32), (0.02, -0.32), (-0.04, -0.31), (0.04, -0.31),
])  # fmt: skip
LEGS = [9, 10, 12, 13]
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

    pose: np.ndarray  # (18, 2)
    swing: np.ndarray  # (harmonics, 18, 2)
    cycles: np.ndarray  # (harmonics,) a clip of 300 frames
    phase: np.ndarray  # (harmonics, 18, 2), radians


class Plan(NamedTuple):
    """What a clip shows: its label, and the class whose motion it takes for the rest of `own_share`."""

    label: int
    other: int
    own_share: float


def make_sample(output_dir: PathLike, samples: int, classes: int, seed: int) -> None:
    """Write the three files; the same arguments give the same bytes. Raises InputError for numbers out of range."""
    if samples < 1:
        raise InputError(f"--samples {samples} makes no dataset: give 1 or more")
    if not 2 <= classes <= CLASSES:
        raise InputError(f"--classes {classes} is outside 2..{CLASSES}: choose a number of them")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed} is outside 0..{2**32 - 1}: choose one of them")
    folder = Path(output_dir)
    sweep(folder)
    plans = _plans(samples, classes, seed)
    motions = {label: _motion(seed, label) for plan in plans for label in (plan.label, plan.other)}
    with atomic_write(folder / DATA_NAME) as file:
        remove(folder / CHECKPOINT_NAME)  # an earlier one: it is written last, so it stands for all three
        header = {"descr": CLIP_DTYPE.str, "fortran_order": False, "shape": (samples, *CLIP_SHAPE)}
        np.lib.format.write_array_header_1_0(file, header)
        for index, plan in enumerate(plans):
            file.write(_clip(index, plan, motions, seed).tobytes())
    with atomic_write(folder / LABEL_NAME) as file:
        names = [f"sample{index:05d}" for index in range(samples)]
        pickle.dump((names, [plan.label for plan in plans]), file, protocol=2)
    save_state_dict(_fitted_state(open_clips(folder / DATA_NAME), plans, seed), folder / CHECKPOINT_NAME)


def _random(seed: int, *use: int) -> np.random.RandomState:
    """A generator for one use; numpy keeps RandomState's numbers the same for good."""
    return np.random.RandomState((seed, *use))


def _plans(samples: int, classes: int, seed: int) -> List[Plan]:
    random = _random(seed, 0)
    labels = random.permutation(CLASSES)[:classes]
    plans = []
    for index in range(samples):
        label, other = random.permutation(classes)[:2] if index >= classes else (index, (index + 1) % classes)
        place = index % 24
        own_share = OWN_SHARE if place < AMBIGUOUS_OF_24 else 0.0 if place >= 24 - MISLABELLED_OF_24 else 1.0
        plans.append(Plan(int(labels[label]), int(labels[other]), own_share))
    return [plans[index] for index in random.permutation(samples)]


def _motion(seed: int, label: int) -> Motion:
    random = _random(seed, 1, label)
    joint_swings = random.uniform(size=(HARMONICS, JOINTS, 1)) < 0.4
    return Motion(
        pose=STANDING + random.normal(scale=0.12, size=(JOINTS, 2)),
        swing=joint_swings * random.normal(scale=0.1, size=(HARMONICS, JOINTS, 2)),
        cycles=random.uniform(2, 40, size=HARMONICS),
        phase=random.uniform(0, 2 * np.pi, size=(HARMONICS, JOINTS, 2)),
    )


def _clip(index: int, plan: Plan, motions: Dict[int, Motion], seed: int) -> np.ndarray:
    """A clip, float32 (3, 300, 18, 2), that is mostly zeros, as a real one: see the shares above."""
    random = _random(seed, 2, index)
    clip = np.zeros(CLIP_SHAPE)
    frames = int(random.randint(60, FRAMES)) if random.uniform() < SHORT_SHARE else FRAMES
    persons = 1 if random.uniform() < ONE_PERSON_SHARE else PERSONS
    out_of_picture = LEGS if random.uniform() < UPPER_BODY_SHARE else []
    start, speed = random.uniform(0, FRAMES), random.uniform(0.95, 1.05)
    time = 2 * np.pi * (start + speed * np.arange(frames)) / FRAMES
    for person in range(persons):
        size, place = random.uniform(0.9, 1.1), random.uniform(-0.05, 0.05, size=2)
        own, other = (_positions(motions[label], time) for label in (plan.label, plan.other))
        positions = size * (plan.own_share * own + (1 - plan.own_share) * other) + place
        positions += random.normal(scale=0.002, size=positions.shape)
        score = random.uniform(0.5, 0.9, size=JOINTS) + random.normal(scale=0.01, size=(frames, JOINTS))
        seen = random.uniform(size=(frames, JOINTS)) < 0.98
        seen[:, out_of_picture] = False
        if person > 0:  # the second passes through the picture
            enters, stays = random.uniform(0, 0.5), random.uniform(0.2, 0.5)
            seen[: int(enters * frames)] = seen[int((enters + stays) * frames) :] = False
        clip[:, :frames, :, person] = seen * np.concatenate([positions.transpose(2, 0, 1), score[None]])
    # Three decimals, as the pose estimator writes them, and 0 for what isn't seen, never -0
    return (np.round(np.clip(clip, -0.5, 1.0), 3) + 0.0).astype(CLIP_DTYPE)


def _positions(motion: Motion, time: np.ndarray) -> np.ndarray:
    """Joint positions (frames, 18, 2) at times in radians of one cycle a clip."""
    angles = motion.cycles[:, None, None, None] * time[None, :, None, None] + motion.phase[:, None]
    positions: np.ndarray = motion.pose + (motion.swing[:, None] * np.sin(angles)).sum(axis=0)
    return positions


def _fitted_state(clips: np.memmap, plans: List[Plan], seed: int) -> Dict[str, torch.Tensor]:
    """A state dict whose backbone is random and whose classifier is fitted to the first clips.

    One thread an operation, so that the numbers don't depend on how many cores there are; the cores share the clips.
    All of it in the pool: torch 1.2 crashes where the main thread's number of threads changes between convolutions.
    """
    model, count = _random_model(seed), min(len(clips), FITTED_CLIPS)
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            pool.submit(_measure_batch_norms, model, read_clips(clips, 0, CALIBRATED_CLIPS)).result()
            features = np.stack(list(pool.map(lambda index: _features(model, clips, index), range(count))))
    finally:
        torch.set_num_threads(threads)
    weight, bias = _classifier(features, plans)
    state = model.state_dict()
    state["fcn.weight"] = torch.from_numpy(weight.astype(np.float32)).reshape(state["fcn.weight"].shape)
    state["fcn.bias"] = torch.from_numpy(bias.astype(np.float32))
    return state


def _random_model(seed: int) -> ST_GCN_18:
    random = _random(seed, 3)
    model = ST_GCN_18()
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if name.startswith("edge_importance"):
            values = random.uniform(0.7, 1.3, size=shape)
        elif name.endswith("bias"):
            values = random.normal(scale=0.1, size=shape)
        elif len(shape) == 4:  # a convolution, scaled to keep the variance (He et al., arXiv 1502.01852)
            values = random.normal(scale=(2 / parameter[0].numel()) ** 0.5, size=shape)
        else:  # a batch norm
            values = random.uniform(0.8, 1.2, size=shape)
        parameter.data.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def _measure_batch_norms(model: ST_GCN_18, clips: np.ndarray) -> None:
    """Set every batch norm's running statistics to those of one batch."""
    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.from_numpy(clips))
    model.eval()


def _features(model: ST_GCN_18, clips: np.memmap, index: int) -> np.ndarray:
    """The classifier's inputs for a clip, float64 (256,)."""
    with torch.no_grad():
        features: np.ndarray = model.features(torch.from_numpy(read_clips(clips, index, 1))).numpy()[0]
    return features.astype(np.float64)


def _classifier(features: np.ndarray, plans: List[Plan]) -> "tuple[np.ndarray, np.ndarray]":
    """Weight (400, 256) and bias (400,) of the ridge regression from features to the logits that each plan asks for."""
    targets = np.zeros((len(features), CLASSES))
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
    unused = np.setdiff1d(np.arange(CLASSES), used)
    weight, bias = LOGIT_SCALE * weight, LOGIT_SCALE * bias
    bias[unused] = UNUSED_LOGIT
    # Coarser than a solver's last digits, which vary with its threads
    return np.round(weight * 2**14) / 2**14, np.round(bias * 2**14) / 2**14


def main(argv: Optional[List[str]] = None) -> None:
    """Make the sample dataset and its checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m stgcn.sample", description=main.__doc__)
    parser.add_argument("--output_dir", required=True, help="folder for val_data.npy, val_label.pkl and the checkpoint")
    parser.add_argument("--samples", type=int, default=48, help="clips (default 48)")
    parser.add_argument("--classes", type=int, default=40, help="of the 400 classes (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes another sample (default 0)")
    options = parser.parse_args(argv)
    make_sample(options.output_dir, options.samples, options.classes, options.seed)


if __name__ == "__main__":
    run_main(main)
