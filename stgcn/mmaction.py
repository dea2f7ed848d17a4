"""mmaction2's ST-GCN and ST-GCN++ (v1.2.0): joint stream, NTU RGB+D 60.

The entries of their state dicts have the names and shapes of the published checkpoints: 181 of ST-GCN (arXiv
1801.07455), 692 of ST-GCN++ (arXiv 2205.09443). Both take clips (n, 2 persons, 100 frames, V joints, 3 channels).
"""

from __future__ import annotations

from typing import Callable, List, Tuple

import numpy as np
import torch
from torch import nn

from stgcn.cards import Card
from stgcn.graph import PARTITIONS, adjacency, directed_adjacency
from stgcn.model import BLOCKS, TEMPORAL_KERNEL

DILATIONS = (1, 2, 3, 4)  # of the branches with a 3x1 convolution; behind them max-pooling, and 1x1 alone


class PartitionConvolution(nn.Module):
    """Mix channels once a partition, then gather each partition's joints: (n, in, t, V) to (n, out, t, V).

    Its subclasses add the norm, for which the published names have one place with `conv` and `A`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, PARTITIONS * out_channels, kernel_size=1)
        self.bn = nn.BatchNorm2d(out_channels)

    def gathered(self, x: torch.Tensor, A: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """The norm of the sum over k of conv_k(x) A_k. Split and matmul: see stgcn.model."""
        parts = self.conv(x).split(self.out_channels, dim=1)
        y: torch.Tensor = self.bn(parts[0] @ A[0] + parts[1] @ A[1] + parts[2] @ A[2])
        return y


class WeightedGraph(PartitionConvolution):
    """ST-GCN's: a fixed graph A, each edge of it with a weight PA."""

    A: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, shares: np.ndarray) -> None:
        super().__init__(in_channels, out_channels)
        self.register_buffer("A", torch.from_numpy(shares))
        self.PA = nn.Parameter(torch.ones(shares.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.gathered(x, self.A * self.PA))


class LearnedGraph(PartitionConvolution):
    """ST-GCN++'s: a graph A that is learned, and a residual of its own, `down` where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, shares: np.ndarray) -> None:
        super().__init__(in_channels, out_channels)
        self.A = nn.Parameter(torch.from_numpy(shares))
        self.down = nn.Sequential()
        if in_channels != out_channels:
            self.down = nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size=1), nn.BatchNorm2d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.gathered(x, self.A) + self.down(x))


class TemporalConvolution(nn.Module):
    """(n, in, t, V) to (n, out, t / stride, V): a convolution along time, and its norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel: int = TEMPORAL_KERNEL) -> None:
        super().__init__()
        self.conv = _along_time(in_channels, out_channels, kernel, stride)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn(self.conv(x))
        return y


class Dilated(nn.Module):
    """A convolution of three frames, without a norm; a module for the sake of the published names."""

    def __init__(self, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv = _along_time(channels, channels, 3, stride, dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y


class BranchedConvolution(nn.Module):
    """ST-GCN++'s: (n, c, t, V) to (n, c, t / stride, V) by six branches of about c / 6 channels each.

    The first branch takes what the division leaves over too.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        count = len(DILATIONS) + 2
        width = channels // count
        branches: List[nn.Module] = []
        for index, dilation in enumerate(DILATIONS):
            own = channels - width * (count - 1) if index == 0 else width
            branches.append(nn.Sequential(*_narrowed(channels, own), Dilated(own, stride, dilation)))
        pool = nn.MaxPool2d(kernel_size=(3, 1), stride=(stride, 1), padding=(1, 0))
        branches.append(nn.Sequential(*_narrowed(channels, width), pool))
        branches.append(nn.Conv2d(channels, width, kernel_size=1, stride=(stride, 1)))
        self.branches = nn.ModuleList(branches)
        self.transform = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn(self.transform(torch.cat([branch(x) for branch in self.branches], dim=1)))
        return y


class Block(nn.Module):
    """One spatial-temporal block: (n, in, t, V) to (n, out, t / stride, V)."""

    def __init__(self, gcn: nn.Module, tcn: nn.Module, shape: Tuple[int, int, int], has_residual: bool) -> None:
        super().__init__()
        self.gcn, self.tcn, self.has_residual = gcn, tcn, has_residual
        in_channels, out_channels, stride = shape
        self.residual: nn.Module = nn.Sequential()
        if has_residual and (in_channels, stride) != (out_channels, 1):
            self.residual = TemporalConvolution(in_channels, out_channels, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.tcn(self.gcn(x))
        if self.has_residual:
            y = y + self.residual(x)
        return torch.relu(y)


class Backbone(nn.Module):
    """Clips (n, persons, frames, V, channels) to (n * persons, 256, frames / 4, V)."""

    def __init__(
        self,
        card: Card,
        shares: np.ndarray,
        gcn: Callable[[int, int, np.ndarray], nn.Module],
        tcn: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        _, self.frames, self.joints, self.channels = card.row_shape
        self.data_bn = nn.BatchNorm1d(self.joints * self.channels)  # over index joint * channels + channel
        self.gcn = nn.ModuleList(
            Block(gcn(shape[0], shape[1], shares.copy()), tcn(shape[1], shape[2]), shape, index > 0)
            for index, shape in enumerate(BLOCKS)
        )

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = clips.permute(0, 1, 3, 4, 2).contiguous()
        x = self.data_bn(x.view(-1, self.joints * self.channels, self.frames))
        x = x.view(-1, self.joints, self.channels, self.frames).permute(0, 2, 3, 1).contiguous()
        for block in self.gcn:
            x = block(x)
        return x


class Head(nn.Module):
    """Features of clips, (n, 256), to logits (n, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(BLOCKS[-1][1], classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(features)
        return logits


class Recognizer(nn.Module):
    """Clips (n, 2, 100, V, 3) to logits (n, classes), float32."""

    def __init__(self, card: Card, backbone: Backbone) -> None:
        super().__init__()
        self.persons = card.row_shape[0]
        self.backbone = backbone
        self.cls_head = Head(card.classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.cls_head(self.features(clips))
        return logits

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """What the classifier sees, (n, 256): the last block's mean over frames and joints, then over persons."""
        x: torch.Tensor = self.backbone(clips)
        return x.mean(dim=(2, 3)).view(-1, self.persons, BLOCKS[-1][1]).mean(dim=1)


def stgcn(card: Card) -> Recognizer:
    """mmaction2's ST-GCN."""

    def tcn(channels: int, stride: int) -> nn.Module:
        return TemporalConvolution(channels, channels, stride)

    return Recognizer(card, Backbone(card, adjacency(card.skeleton), WeightedGraph, tcn))


def stgcnpp(card: Card) -> Recognizer:
    """mmaction2's ST-GCN++."""
    return Recognizer(card, Backbone(card, directed_adjacency(card.skeleton), LearnedGraph, BranchedConvolution))


def _along_time(in_channels: int, out_channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution along time that keeps the number of frames, or divides it by `stride`."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(in_channels, out_channels, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))


def _narrowed(channels: int, width: int) -> Tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, kernel_size=1), nn.BatchNorm2d(width), nn.ReLU()
