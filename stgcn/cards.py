"""What distinguishes one model from another, written down once: names, shapes, classes, skeletons, published figures.

Figures are those of mmskeleton's and mmaction2's own model zoos. The eight hex digits are the head of the sha256 of the
published checkpoint, in whose file name they stand.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from stgcn.errors import InputError, shown
from stgcn.skeletons import COCO, KINECT, KINECT_MMACTION, OPENPOSE, Skeleton

FORMAT = 1
INPUT, OUTPUT = "input1", "output1"
DEFAULT = "st_gcn.kinetics"


@dataclass(frozen=True)
class Published:
    """Accuracy of the published checkpoint, as fractions, over the samples of its validation set."""

    samples: int
    sha256: str
    metrics: Mapping[str, float]
    data_url: str  # of the page or file where the validation set is published
    checkpoint_url: str


@dataclass(frozen=True)
class Card:
    """One model. A row is what the network takes; the score of a sample is made of those of its `rows_per_sample`."""

    name: str
    title: str
    network: str  # a key of stgcn.networks.NETWORKS
    skeleton: Skeleton
    class_file: str
    row_shape: Tuple[int, ...]
    published: Published
    rows_per_sample: int = 1
    variants: Tuple[str, ...] = ("reference",)
    persons: Tuple[str, ...] = ("both",)
    sources: Tuple[str, ...] = ("stgcn",)
    capabilities: Tuple[str, ...] = ("fold", "labels", "draw")
    files: Optional[Mapping[str, str]] = None
    guide: Optional[Mapping[str, Any]] = None

    @property
    def class_names(self) -> List[str]:
        """In the order of the labels."""
        return Path(__file__).with_name(self.class_file).read_text(encoding="utf-8").splitlines()

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def joints(self) -> int:
        return len(self.skeleton.joints)

    @property
    def is_annotated(self) -> bool:
        """Whether its dataset is mmaction2's annotation pickle, of which the index makes the rows."""
        return self.rows_per_sample > 1

    def shape(self, persons: str = "both") -> Tuple[int, ...]:
        """Of a row; with `nonempty` it is one person, who is the last axis."""
        return self.row_shape if persons == "both" else (*self.row_shape[:-1], 1)

    def as_json(self, persons: str = "both") -> Dict[str, Any]:
        """What model.json holds (docs/own-model.md)."""
        return {
            "format": FORMAT,
            "name": self.name,
            "title": self.title,
            "package": __name__.partition(".")[0],
            "inputs": [{"name": INPUT, "dtype": "float32", "shape": list(self.shape(persons))}],
            "outputs": [{"name": OUTPUT, "dtype": "float32", "shape": [self.classes]}],
            "rows_per_sample": self.rows_per_sample,
            "classes": self.class_names,
            "skeleton": {
                "joints": list(self.skeleton.joints),
                "limbs": [list(edge) for edge in self.skeleton.edges],
                "left": list(self.skeleton.left),
                "right": list(self.skeleton.right),
                "dimensions": self.skeleton.dimensions,
            },
            "published": {
                "samples": self.published.samples,
                "sha256": self.published.sha256,
                "metrics": dict(self.published.metrics),
                "data_url": self.published.data_url,
                "checkpoint_url": self.published.checkpoint_url,
            },
            "metrics": [
                {"key": "top1", "title": "Top-1", "better": "higher"},
                {"key": "top5", "title": "Top-5", "better": "higher"},
            ],
            "variants": list(self.variants),
            "persons": list(self.persons),
            "sources": list(self.sources),
            "capabilities": list(self.capabilities),
            "files": self.files and dict(self.files),
            "guide": self.guide and dict(self.guide),
        }


# The reference guide's figures: ais_bench, one 310P3, CANN 6.0.RC1, samples/s by batch size.
GUIDE = {
    "chip": "310P3",
    "metrics": {"top1": 0.3159, "top5": 0.5374},
    "throughput": {"1": 381.10, "4": 237.11, "8": 222.46, "16": 217.65, "32": 223.21, "64": 219.39},
}


MMSKELETON_DATA = "https://github.com/open-mmlab/mmskeleton/blob/master/doc/SKELETON_DATA.md"
MMSKELETON_MODELS = "https://open-mmlab.s3.ap-northeast-2.amazonaws.com/mmskeleton/models/st-gcn"
MMACTION = "https://download.openmmlab.com/mmaction/v1.0/skeleton"


def _st_gcn(
    dataset: str,
    title: str,
    skeleton: Skeleton,
    class_file: str,
    samples: int,
    sha256: str,
    metrics: Mapping[str, float],
    **more: Any,
) -> Card:
    checkpoint = f"{MMSKELETON_MODELS}/st_gcn.{dataset}-{sha256}.pth"
    return Card(
        name=f"st_gcn.{dataset}",
        title=f"ST-GCN ({title})",
        network="st_gcn",
        skeleton=skeleton,
        class_file=class_file,
        row_shape=(3, 300, len(skeleton.joints), 2),  # x, y and score or z; frames; joints; persons
        published=Published(samples, sha256, metrics, MMSKELETON_DATA, checkpoint),
        variants=("reference", "fused", "winograd"),
        persons=("both", "nonempty"),
        sources=("stgcn", "mmskeleton"),
        capabilities=("bench", "fold", "labels", "blocks", "draw", "sample"),
        **more,
    )


def _mmaction(network: str, title: str, skeleton: Skeleton, day: str, sha256: str, top1: float) -> Card:
    form = f"{skeleton.dimensions}d"
    config = f"{network}_8xb16-joint-u100-80e_ntu60-xsub-keypoint-{form}"
    checkpoint = f"{MMACTION}/{network}/{config}/{config}_{day}-{sha256}.pth"
    return Card(
        name=f"mmaction.{network}-{form}",
        title=f"{title} (NTU RGB+D 60, {skeleton.dimensions}D keypoints, mmaction2)",
        network=f"mmaction.{network}",
        skeleton=skeleton,
        class_file=NTU60_CLASSES,
        row_shape=(2, 100, len(skeleton.joints), 3),  # persons; frames; joints; x, y and score or z
        published=Published(16487, sha256, {"top1": top1}, f"{MMACTION}/data/ntu60_{form}.pkl", checkpoint),
        rows_per_sample=10,  # clips that the test pipeline takes of a sample
        capabilities=("bench", "fold", "labels", "blocks", "sample"),
    )


NTU60_CLASSES = "ntu60_class_names.txt"
KINETICS = _st_gcn(
    "kinetics",
    "Kinetics-skeleton",
    OPENPOSE,
    "kinetics400_class_names.txt",
    19796,
    "6fa43f73",
    {"top1": 0.3160, "top5": 0.5368},
    files={
        "data": "data/Kinetics/kinetics-skeleton/val_data.npy",
        "labels": "data/Kinetics/kinetics-skeleton/val_label.pkl",
        "checkpoint": "checkpoints/st_gcn.kinetics-6fa43f73.pth",
    },
    guide=GUIDE,
)
CARDS: Dict[str, Card] = {
    card.name: card
    for card in (
        KINETICS,
        _st_gcn(
            "ntu-xsub",
            "NTU RGB+D 60, cross-subject",
            KINECT,
            NTU60_CLASSES,
            16487,
            "300b57d4",
            {"top1": 0.8157, "top5": 0.9685},
        ),
        _st_gcn(
            "ntu-xview",
            "NTU RGB+D 60, cross-view",
            KINECT,
            NTU60_CLASSES,
            18932,
            "9ba67746",
            {"top1": 0.8876, "top5": 0.9883},
        ),
        _mmaction("stgcn", "ST-GCN", COCO, "20221129", "484a394a", 0.8895),
        _mmaction("stgcn", "ST-GCN", KINECT_MMACTION, "20221129", "850308e1", 0.8811),
        _mmaction("stgcnpp", "ST-GCN++", COCO, "20221228", "86e1e77a", 0.8929),
        _mmaction("stgcnpp", "ST-GCN++", KINECT_MMACTION, "20221230", "4e455ce3", 0.8914),
    )
}
ALIASES = {"mmaction.stgcn": "mmaction.stgcn-2d", "mmaction.stgcnpp": "mmaction.stgcnpp-2d"}


def card_of(name: str) -> Card:
    """The card of a model. Raises InputError for a name that none has."""
    try:
        return CARDS[ALIASES.get(name, name)]
    except KeyError:
        raise InputError(f"--model {shown(name)} is unknown: give one of {', '.join(CARDS)}") from None


def program(name: str, description: Optional[str]) -> argparse.ArgumentParser:
    """The parser of a program of the package, with the option `--model`, of which `card_of` makes a card."""
    parser = argparse.ArgumentParser(prog=f"python -m stgcn.{name}", description=description)
    parser.add_argument("--model", default=DEFAULT, metavar="NAME", help=f"{', '.join(CARDS)} (default {DEFAULT})")
    return parser
