"""ST_GCN_18 rewritten for inference: the same logits from fewer, larger operations.

Batch norms and `A * edge_importance` are folded into constants. The graph is applied before the channels are mixed:
the matmul x (n, c, t, v) @ A (v, k * w) leaves a frame's partitions side by side, so the result, seen without moving
data as (n, c, t * k, w), is mixed by one convolution of kernel and stride (k, 1). No block transposes anything, and a
graph convolution's bias becomes a constant of channel and joint. Exported, it has one Transpose and only fixed shapes.
"""

from __future__ import annotations

from typing import Any, Tuple, cast

import torch
from torch import nn
from torch.nn import functional

from stgcn.dataset import CHANNELS, FRAMES, JOINTS
from stgcn.graph import PARTITIONS
from stgcn.model import BLOCKS, ST_GCN_18, TEMPORAL_KERNEL, Block


class FusedBlock(nn.Module):
    """A Block in evaluation mode: (n, in, t, 18) to (n, out, t / stride, 18).

    `scale` and `shift`, of shape (18,) or (in, 18), are what is to happen to the block's input first: folded as well.
    """

    def __init__(
        self,
        block: Block,
        A: torch.Tensor,  # noqa: N803
        frames: int,
        scale: torch.Tensor,
        shift: torch.Tensor,
    ) -> None:
        super().__init__()
        mix: Any = block.gcn.conv
        norm, _, temporal, last_norm, _ = cast(Any, block.tcn)
        self.rows = (-1, mix.in_channels, frames * PARTITIONS, JOINTS)
        self.stride = temporal.stride

        gather = A.permute(1, 0, 2).reshape(JOINTS, PARTITIONS * JOINTS)
        kernel = mix.weight.double().view(PARTITIONS, -1, mix.in_channels)
        norm_scale, norm_shift = _affine(norm)
        mixed_bias = torch.einsum("ko,kvw->ow", mix.bias.double().view(PARTITIONS, -1), A)
        mixed_shift = torch.einsum("koc,cv,kvw->ow", kernel, shift.expand(mix.in_channels, JOINTS), A)
        self.gather = _constant(scale[..., None] * gather)
        self.mix = _constant(norm_scale[:, None, None, None] * kernel.permute(1, 2, 0)[..., None])
        self.bias = _constant((norm_scale[:, None] * (mixed_bias + mixed_shift) + norm_shift[:, None])[:, None])
        self.temporal, self.temporal_bias = _folded(temporal, last_norm)
        self.residual = nn.ParameterList(_folded(*block.residual)) if len(block.residual) else None
        self.has_residual = block.has_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.conv2d((x @ self.gather).view(*self.rows), self.mix, stride=(PARTITIONS, 1))
        y = torch.relu(y + self.bias)
        padding = ((TEMPORAL_KERNEL - 1) // 2, 0)
        y = functional.conv2d(y, self.temporal, self.temporal_bias, stride=self.stride, padding=padding)
        if self.residual is not None:
            weight, bias = self.residual
            y = y + functional.conv2d(x, weight, bias, stride=self.stride)
        elif self.has_residual:
            y = y + x
        return torch.relu(y)


class FusedSTGCN(nn.Module):
    """An ST_GCN_18 in evaluation mode: (n, 3, 300, 18, persons) to logits (n, 400), float32."""

    def __init__(self, model: ST_GCN_18) -> None:
        super().__init__()
        with torch.no_grad():
            # data_bn runs over joint * CHANNELS + channel
            scale, shift = (values.view(JOINTS, CHANNELS).t() for values in _affine(model.data_bn))
            frames, blocks = FRAMES, []
            for block, importance, (_, _, stride) in zip(model.st_gcn_networks, model.edge_importance, BLOCKS):
                blocks.append(FusedBlock(cast(Block, block), (model.A * importance).double(), frames, scale, shift))
                scale, shift = torch.ones(JOINTS).double(), torch.zeros(JOINTS).double()
                frames //= stride
            self.blocks = nn.Sequential(*blocks)
            # The mean over persons is in the classifier: its weight shared out over them
            weight, bias = model.fcn.weight.flatten(1), cast(torch.Tensor, model.fcn.bias)
            self.features = model.persons * BLOCKS[-1][1]
            self.classifier = _constant(torch.cat([weight / model.persons] * model.persons, dim=1))
            self.bias = _constant(bias)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x = clips.permute(0, 4, 1, 2, 3).reshape(-1, CHANNELS, FRAMES, JOINTS)
        features = self.blocks(x).mean(dim=(2, 3)).view(-1, self.features)
        return functional.linear(features, self.classifier, self.bias)


def _affine(norm: Any) -> Tuple[torch.Tensor, torch.Tensor]:
    """A batch norm in evaluation mode as float64 scale and shift of each channel."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _folded(conv: Any, norm: Any) -> Tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of a convolution and the batch norm behind it."""
    scale, shift = _affine(norm)
    weight = conv.weight.double() * scale[:, None, None, None]
    return _constant(weight), _constant(conv.bias.double() * scale + shift)


def _constant(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.float().contiguous(), requires_grad=False)
