"""The guide's graph: ST_GCN_18 as its patch leaves it, exported by tracing, its weights as they are.

    python -m benchmarks.guide.network --ckpt st_gcn.sample.pth --onnx guide.onnx

The patch replaces the einsum of the graph convolution: permute the partitions beside the joints, copy, and multiply
by A once. Sizes are taken of the tensors on the way, so the trace computes them anew in every run. torch 1.2, the
guide's, folds no constants and lists the weights among the graph's inputs; today's is told to do the same.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from stgcn.cards import INPUT, OUTPUT
from stgcn.checkpoint import load_model
from stgcn.dataset import CLIP_SHAPE, JOINTS
from stgcn.model import ST_GCN_18, Block

LAST_FRAMES = 75


class GuideNetwork(nn.Module):
    """Clips (n, 3, 300, 18, 2) to logits (n, 400)."""

    def __init__(self, model: ST_GCN_18) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        model = self.model
        n, c, t, v, m = clips.size()
        x = clips.permute(0, 4, 3, 1, 2).contiguous().view(n * m, v * c, t)
        x = model.data_bn(x).view(n, m, v, c, t)
        x = x.permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        for block, importance in zip(model.st_gcn_networks, model.edge_importance, strict=True):
            x = _block(cast(Block, block), x, model.A * importance)
        x = functional.avg_pool2d(x, (LAST_FRAMES, JOINTS))
        logits: torch.Tensor = model.fcn(x.view(n, m, -1, 1, 1).mean(dim=1))
        return logits.view(logits.size(0), -1)


def _block(block: Block, x: torch.Tensor, A: torch.Tensor) -> torch.Tensor:  # noqa: N803
    y = block.tcn(_graph_convolution(cast(Any, block.gcn).conv, x, A))
    if block.has_residual:
        y = y + block.residual(x)
    return torch.relu(y)


def _graph_convolution(conv: nn.Conv2d, x: torch.Tensor, A: torch.Tensor) -> torch.Tensor:  # noqa: N803
    x = conv(x)
    n, kc, t, v = x.size()
    x = x.view(n, A.size(0), kc // A.size(0), t, v).permute(0, 2, 3, 1, 4).contiguous()
    n, c, t, k, v = x.size()
    k, v, w = A.size()
    return torch.matmul(x.view(n * c * t, k * v), A.view(k * v, w)).view(n, c, t, w).contiguous()


def export(checkpoint: Path, onnx: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            GuideNetwork(load_model(checkpoint)).eval(),
            (torch.zeros(1, *CLIP_SHAPE),),
            str(onnx),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            opset_version=9,
            dynamo=False,
            do_constant_folding=False,
            keep_initializers_as_inputs=True,
            training=torch.onnx.TrainingMode.PRESERVE,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide.network")
    for flag in ("--ckpt", "--onnx"):
        parser.add_argument(flag, type=Path, required=True)
    options = parser.parse_args()
    export(options.ckpt, options.onnx)


if __name__ == "__main__":
    main()
