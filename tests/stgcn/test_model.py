"""ST_GCN_18 against the paper's formulas, written out one by one."""

from __future__ import annotations

from typing import Dict

import numpy as np
import torch
from torch.nn import functional

from stgcn.fused import FusedSTGCN
from stgcn.graph import adjacency
from stgcn.model import BLOCKS, ST_GCN_18
from tests.stgcn.conftest import random_clips


def test_the_state_dict_is_the_published_one() -> None:
    state = ST_GCN_18().state_dict()
    assert len(state) == 172
    assert sum(parameter.numel() for parameter in ST_GCN_18().parameters()) == 3177140
    assert np.array_equal(state["A"].numpy(), adjacency())
    shapes = {
        "data_bn.running_mean": (54,),
        "edge_importance.9": (3, 18, 18),
        "st_gcn_networks.0.gcn.conv.weight": (192, 3, 1, 1),
        "st_gcn_networks.4.residual.0.weight": (128, 64, 1, 1),
        "st_gcn_networks.4.residual.1.num_batches_tracked": (),
        "st_gcn_networks.7.tcn.0.bias": (256,),
        "st_gcn_networks.7.tcn.2.weight": (256, 256, 9, 1),
        "st_gcn_networks.9.tcn.3.running_var": (256,),
        "fcn.weight": (400, 256, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def formulas(state: Dict[str, torch.Tensor], clips: torch.Tensor) -> torch.Tensor:
    """The logits in float64, by the definitions: no layer of torch's but the convolution."""
    state = {name: values.double() for name, values in state.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:  # over axis 1
        mean, var, weight, bias = (
            state[f"{name}.{part}"].reshape(1, -1, *[1] * (x.dim() - 2))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def conv(x: torch.Tensor, name: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        return functional.conv2d(
            x, state[f"{name}.weight"], state[f"{name}.bias"], stride=(stride, 1), padding=(padding, 0)
        )

    persons = []
    for person in range(2):
        x = clips[..., person].double()
        n, c, t, v = x.shape
        x = norm(x.permute(0, 3, 1, 2).reshape(n, v * c, t), "data_bn")
        x = x.reshape(n, v, c, t).permute(0, 2, 3, 1)
        for index, (_, out, stride) in enumerate(BLOCKS):
            name = f"st_gcn_networks.{index}"
            shares = state["A"] * state[f"edge_importance.{index}"]
            y = conv(x, f"{name}.gcn.conv")
            y = torch.einsum("nkctv,kvw->nctw", [y.reshape(n, 3, out, *y.shape[2:]), shares])
            y = conv(torch.relu(norm(y, f"{name}.tcn.0")), f"{name}.tcn.2", stride, padding=4)
            y = norm(y, f"{name}.tcn.3")
            if f"{name}.residual.0.weight" in state:
                y = y + norm(conv(x, f"{name}.residual.0", stride), f"{name}.residual.1")
            elif index > 0:
                y = y + x
            x = torch.relu(y)
        persons.append(x.mean(dim=3).mean(dim=2))
    feature = (persons[0] + persons[1]) / 2
    return feature @ state["fcn.weight"][:, :, 0, 0].t() + state["fcn.bias"]


def test_both_forms_follow_the_formulas(model: ST_GCN_18, state: Dict[str, torch.Tensor]) -> None:
    clips = torch.from_numpy(random_clips(2))
    clips[1, ..., 1] = 0  # one person
    with torch.no_grad():
        wanted = formulas(state, clips)
        assert float(wanted.std()) > 0.01
        for form in (model, FusedSTGCN(model)):
            logits = form(clips)
            assert (tuple(logits.shape), logits.dtype) == ((2, 400), torch.float32)
            assert float((logits.double() - wanted).abs().max()) < 1e-5


def test_a_clip_has_the_same_logits_in_any_batch(model: ST_GCN_18) -> None:
    clips = torch.from_numpy(random_clips(2))
    with torch.no_grad():
        assert float((model(clips)[1:] - model(clips[1:])).abs().max()) < 1e-5
