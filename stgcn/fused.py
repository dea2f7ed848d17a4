"""ST_GCN_18 rewritten for inference: the same logits from fewer, larger operations.

Batch norms and `A * edge_importance` are folded into constants. Time is the last axis, so that a convolution runs over
hundreds of adjacent values and not over 18. The graph is applied before the channels are mixed: the matmul of
A (w * k, v) and x (n, c, v, t) leaves a joint's partitions side by side, and one convolution of kernel and stride
(k, 1) mixes channels and partitions at once. The first block has 3 channels for 64: there one convolution over all
joints and channels is the least work. No block transposes or copies anything. Exported, it has one Transpose and only
fixed shapes.
"""

from __future__ import annotations

from typing import Any, List, Tuple, cast

import torch
from torch import nn
from torch.nn import functional

from stgcn.graph import PARTITIONS
from stgcn.model import BLOCKS, ST_GCN_18, TEMPORAL_KERNEL, Block
from stgcn.winograd import scheme

PADDING = (TEMPORAL_KERNEL - 1) // 2


class FirstGraphConvolution(nn.Module):
    """The first block's, with data_bn: (n, 3 * V, t) to (n, out, V, t)."""

    def __init__(self, model: ST_GCN_18, block: Block, A: torch.Tensor) -> None:  # noqa: N803
        super().__init__()
        channels, joints = model.channels, model.joints
        # data_bn runs over joint * channels + channel
        scale, shift = (values.view(joints, channels).t() for values in _affine(model.data_bn))
        kernel, bias = _graph_mix(block, A)
        every = torch.einsum("koc,cv,kvw->owcv", kernel, scale, A)
        self.mix = _constant(every.reshape(-1, channels * joints, 1))
        self.bias = _constant((bias + torch.einsum("koc,cv,kvw->ow", kernel, shift, A)).flatten())
        self.shape = (-1, kernel.size(1), joints, model.frames)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(functional.conv1d(x, self.mix, self.bias)).view(*self.shape)


class GraphConvolution(nn.Module):
    """A block's, its batch norm and ReLU: (n, in, V, t) to (n, out, V, t).

    `shift` (in,) is what its input lacks.
    """

    def __init__(self, block: Block, A: torch.Tensor, shift: torch.Tensor) -> None:  # noqa: N803
        super().__init__()
        kernel, bias = _graph_mix(block, A)
        self.gather = _constant(A.permute(2, 0, 1).reshape(-1, A.size(1)))
        self.mix = _constant(kernel.permute(1, 2, 0)[..., None])
        self.bias = _constant((bias + torch.einsum("koc,c,kvw->ow", kernel, shift, A))[..., None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = functional.conv2d(torch.matmul(self.gather, x), self.mix, stride=(PARTITIONS, 1))
        return torch.relu(mixed + self.bias)


class TemporalConvolution(nn.Module):
    """A block's, its batch norm, residual and ReLU.

    (n, out, V, t) and the block's input, (n, in, V, t), to (n, out, V, t / stride).
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        weight, bias = _temporal(block)
        self.weight, self.bias = _constant(weight[:, :, None]), _constant(bias)
        self.stride = (1, cast(Any, block.tcn[2]).stride[0])
        self.residual = nn.ParameterList()
        if len(block.residual):
            self.residual.extend(_constant(values) for values in _folded(*block.residual))
        self.has_residual = block.has_residual

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y = functional.conv2d(y, self.weight, self.bias, stride=self.stride, padding=(0, PADDING))
        if len(self.residual):
            weight, bias = self.residual
            y = y + functional.conv2d(x, weight, bias, stride=self.stride)
        elif self.has_residual:
            y = y + x
        return torch.relu(y)


class WinogradConvolution(nn.Module):
    """The same in fewer products (see stgcn.winograd), each of which is one matmul over all tiles and joints.

    What it gives lacks `shift` (out,), for who comes next: nothing here would take a bias in. So does the block's input
    lack `shift` as given, which matters where it is the residual.
    """

    def __init__(self, block: Block, joints: int, frames: int, shift: torch.Tensor) -> None:
        super().__init__()
        weight, bias = _temporal(block)
        stride, channels = cast(Any, block.tcn[2]).stride[0], weight.size(0)
        gather, kernels, spread = (torch.from_numpy(values) for values in scheme(stride))
        self.mix = _constant(torch.einsum("pk,ock->poc", kernels, weight))
        self.spread, self.gather = _constant(spread[:, None, None]), _constant(gather.t()[:, None, None])
        outputs, self.step = len(gather), stride * len(gather)
        self.flat, self.shape = (-1, 1, channels * joints, frames), (-1, channels, joints, frames // stride)
        self.tiles = (-1, len(kernels), channels, joints * frames // self.step)
        self.stride, self.outputs = (1, stride), (1, outputs)
        self.residual = nn.ParameterList()
        if len(block.residual):
            residual, residual_bias = _folded(*block.residual)
            bias = bias + residual_bias + torch.matmul(residual[..., 0, 0], shift)
            self.residual.append(_constant(residual))
            shift = torch.zeros(channels).double()
        self.shift = shift + bias
        self.floor = _constant(-self.shift[:, None, None])

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y = functional.conv2d(y.view(*self.flat), self.spread, stride=(1, self.step), padding=(0, PADDING))
        y = torch.matmul(self.mix, y.view(*self.tiles))
        y = functional.conv_transpose2d(y, self.gather, stride=self.outputs).view(*self.shape)
        if len(self.residual):
            x = functional.conv2d(x, self.residual[0], stride=self.stride)
        return torch.max(y + x, self.floor)  # relu(z + shift) - shift


class FusedSTGCN(nn.Module):
    """An ST_GCN_18 in evaluation mode: (n, 3, 300, V, persons) to logits (n, classes), float32.

    The last `winograd` blocks have a WinogradConvolution.
    """

    def __init__(self, model: ST_GCN_18, winograd: int = 0) -> None:
        super().__init__()
        self.spatial, self.temporal = nn.ModuleList(), nn.ModuleList()
        with torch.no_grad():
            frames, shift = model.frames, torch.zeros(BLOCKS[0][1]).double()
            for index, (block, (_, out_channels, stride)) in enumerate(
                zip(cast(List[Block], model.st_gcn_networks), BLOCKS)
            ):
                A = (model.A * model.edge_importance[index]).double()  # noqa: N806
                self.spatial.append(
                    GraphConvolution(block, A, shift) if index else FirstGraphConvolution(model, block, A)
                )
                if index >= len(BLOCKS) - winograd:
                    self.temporal.append(WinogradConvolution(block, model.joints, frames, shift))
                    shift = cast(torch.Tensor, self.temporal[-1].shift)
                else:
                    self.temporal.append(TemporalConvolution(block))
                    shift = torch.zeros(out_channels).double()
                frames //= stride
            # The mean over persons is in the classifier: its weight shared out over them
            weight, bias = model.fcn.weight.flatten(1).double(), cast(torch.Tensor, model.fcn.bias).double()
            self.flat = (-1, model.channels * model.joints, model.frames)
            self.features = model.persons * BLOCKS[-1][1]
            self.classifier = _constant(torch.cat([weight / model.persons] * model.persons, dim=1))
            self.bias = _constant(bias + torch.matmul(weight, shift))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x = clips.permute(0, 4, 1, 3, 2).reshape(*self.flat)
        for spatial, temporal in zip(self.spatial, self.temporal):
            x = temporal(spatial(x), x)
        return functional.linear(x.mean(dim=(2, 3)).view(-1, self.features), self.classifier, self.bias)


def _graph_mix(block: Block, A: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:  # noqa: N803
    """Weight (k, out, in) and bias (out, V) of a block's graph convolution and the batch norm behind it."""
    mix: Any = block.gcn.conv
    scale, shift = _affine(cast(Any, block.tcn)[0])
    kernel = mix.weight.double().view(PARTITIONS, -1, mix.in_channels) * scale[:, None]
    bias = torch.einsum("ko,kvw->ow", mix.bias.double().view(PARTITIONS, -1) * scale, A)
    return kernel, bias + shift[:, None]


def _temporal(block: Block) -> Tuple[torch.Tensor, torch.Tensor]:
    """Weight (out, out, 9) and bias (out,) of a block's temporal convolution and the batch norm behind it."""
    _, _, conv, norm, _ = cast(Any, block.tcn)
    weight, bias = _folded(conv, norm)
    return weight[..., 0], bias


def _folded(conv: Any, norm: Any) -> Tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution and the batch norm behind it, float64."""
    scale, shift = _affine(norm)
    return conv.weight.double() * scale[:, None, None, None], conv.bias.double() * scale + shift


def _affine(norm: Any) -> Tuple[torch.Tensor, torch.Tensor]:
    """A batch norm in evaluation mode as float64 scale and shift of each channel."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _constant(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.float().contiguous(), requires_grad=False)
