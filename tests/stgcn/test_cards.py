"""Each model's card against its network."""

from __future__ import annotations

import json
from typing import Tuple

import pytest
import torch

from stgcn.cards import CARDS, KINETICS, card_of
from stgcn.errors import InputError
from stgcn.networks import network


@pytest.mark.parametrize(
    ("name", "row", "classes", "entries", "parameters"),
    [
        ("st_gcn.kinetics", (3, 300, 18, 2), 400, 172, 3177140),
        ("st_gcn.ntu-xsub", (3, 300, 25, 2), 60, 172, 3098832),
        ("st_gcn.ntu-xview", (3, 300, 25, 2), 60, 172, 3098832),
        ("mmaction.stgcn-2d", (2, 100, 17, 3), 60, 181, 3088704),
        ("mmaction.stgcn-3d", (2, 100, 25, 3), 60, 181, 3098832),
        ("mmaction.stgcnpp-2d", (2, 100, 17, 3), 60, 692, 1393016),
        ("mmaction.stgcnpp-3d", (2, 100, 25, 3), 60, 692, 1403144),
    ],
)
def test_the_network_is_the_published_one(
    name: str, row: Tuple[int, ...], classes: int, entries: int, parameters: int
) -> None:
    card = card_of(name)
    model = network(card).eval()
    assert (card.row_shape, card.classes, len(card.skeleton.joints)) == (row, classes, card.joints)
    assert len(model.state_dict()) == entries
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with torch.no_grad():
        logits = model(torch.zeros(1, *row))
    assert (tuple(logits.shape), logits.dtype) == ((1, classes), torch.float32)


def test_published_names_and_shapes_of_mmactions() -> None:
    for name, shapes in {
        "mmaction.stgcn-3d": {
            "backbone.data_bn.weight": (75,),
            "backbone.gcn.0.gcn.A": (3, 25, 25),
            "backbone.gcn.9.gcn.PA": (3, 25, 25),
            "backbone.gcn.4.gcn.conv.weight": (384, 64, 1, 1),
            "backbone.gcn.4.residual.conv.weight": (128, 64, 1, 1),
            "backbone.gcn.7.tcn.conv.weight": (256, 256, 9, 1),
            "backbone.gcn.7.tcn.bn.num_batches_tracked": (),
        },
        "mmaction.stgcnpp-2d": {
            "backbone.data_bn.weight": (51,),
            "backbone.gcn.0.gcn.down.0.weight": (64, 3, 1, 1),
            "backbone.gcn.0.tcn.branches.0.0.weight": (14, 64, 1, 1),
            "backbone.gcn.0.tcn.branches.3.3.conv.weight": (10, 10, 3, 1),
            "backbone.gcn.7.tcn.branches.4.1.running_var": (42,),
            "backbone.gcn.7.tcn.branches.5.weight": (42, 256, 1, 1),
            "backbone.gcn.9.tcn.transform.2.weight": (256, 256, 1, 1),
            "cls_head.fc.weight": (60, 256),
        },
    }.items():
        state = network(card_of(name)).state_dict()
        assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_plain_json(name: str) -> None:
    card = CARDS[name]
    content = json.loads(json.dumps(card.as_json()))
    assert content["name"] == name
    assert content["inputs"][0]["shape"] == list(card.row_shape)
    assert len(set(content["classes"])) == card.classes
    assert content["outputs"][0]["shape"] == [card.classes]


def test_a_single_person_is_a_row_where_the_card_says_so() -> None:
    assert KINETICS.shape("nonempty") == (3, 300, 18, 1)
    assert KINETICS.as_json("nonempty")["inputs"][0]["shape"] == [3, 300, 18, 1]


def test_names() -> None:
    assert card_of("mmaction.stgcnpp") is CARDS["mmaction.stgcnpp-2d"]
    with pytest.raises(InputError, match=r"--model 'st_gcn'.*st_gcn\.kinetics"):
        card_of("st_gcn")
