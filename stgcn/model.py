"""ST_GCN_18: the reference network (Yan et al., AAAI 2018, arXiv 1801.07455) in mmskeleton's configurations.

The 172 entries of its state dict have the names and shapes of the published checkpoints.
"""

from __future__ import annotations

from typing import Tuple

import torch
from torch import nn

from stgcn.cards import KINETICS, Card
from stgcn.graph import PARTITIONS, adjacency

TEMPORAL_KERNEL = 9
# (in channels, out channels, temporal stride) of the ten blocks
BLOCKS: Tuple[Tuple[int, int, int], ...] = (
    (3, 64, 1), (64, 64, 1), (64, 64, 1), (64, 64, 1), (64, 128, 2),
    (128, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 256, 1),
)  # fmt: skip


class GraphConvolution(nn.Module):
    """Mix channels once a partition, then gather each partition's joints along the graph.

    (n, in, t, V) and A of (3, V, V) to (n, out, t, V): out = sum over k of conv_k(x) A_k, equation 10 of the paper.
    Split and matmul instead of the reference's einsum, which torch 1.2 can't export and CANN doesn't list.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, PARTITIONS * out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor, A: torch.Tensor) -> torch.Tensor:  # noqa: N803
        parts = self.conv(x).split(self.out_channels, dim=1)
        y: torch.Tensor = parts[0] @ A[0] + parts[1] @ A[1] + parts[2] @ A[2]
        return y


class Block(nn.Module):
    """One spatial-temporal block: (n, in, t, V) to (n, out, t / stride, V)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, residual: bool = True) -> None:
        super().__init__()
        self.gcn = GraphConvolution(in_channels, out_channels)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(
                out_channels, out_channels, (TEMPORAL_KERNEL, 1), (stride, 1), padding=((TEMPORAL_KERNEL - 1) // 2, 0)
            ),
            nn.BatchNorm2d(out_channels),
            nn.Dropout(0),  # nothing is dropped in inference; its place keeps the published names
        )
        self.has_residual = residual
        self.residual = nn.Sequential()
        if residual and (in_channels, stride) != (out_channels, 1):
            self.residual = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=(stride, 1)), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: torch.Tensor, A: torch.Tensor) -> torch.Tensor:  # noqa: N803
        y = self.tcn(self.gcn(x, A))
        if self.has_residual:
            y = y + self.residual(x)
        return torch.relu(y)


class ST_GCN_18(nn.Module):  # noqa: N801 - the reference's name
    """Clips (n, 3, 300, V, 2) to logits (n, classes), float32.

    With its `persons` set to 1 it takes single persons, (n, 3, 300, V, 1). The classifier is linear and persons meet
    nowhere before it, so a clip's logits are the mean of its persons' own.
    """

    def __init__(self, card: Card = KINETICS) -> None:
        super().__init__()
        self.channels, self.frames, self.joints, self.persons = card.row_shape
        self.register_buffer("A", torch.from_numpy(adjacency(card.skeleton)))
        self.data_bn = nn.BatchNorm1d(self.joints * self.channels)  # over index joint * channels + channel
        self.st_gcn_networks = nn.ModuleList(Block(*shape, residual=index > 0) for index, shape in enumerate(BLOCKS))
        edges = (PARTITIONS, self.joints, self.joints)
        self.edge_importance = nn.ParameterList(nn.Parameter(torch.ones(edges)) for _ in BLOCKS)
        self.fcn = nn.Conv2d(BLOCKS[-1][1], card.classes, kernel_size=1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fcn(self.features(clips).unsqueeze(2).unsqueeze(3)).flatten(1)
        return logits

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """What the classifier sees, (n, 256): the last block's mean over frames and joints, then over persons."""
        x: torch.Tensor = clips.permute(0, 4, 3, 1, 2).contiguous()
        x = self.data_bn(x.view(-1, self.joints * self.channels, self.frames))
        x = x.view(-1, self.joints, self.channels, self.frames).permute(0, 2, 3, 1).contiguous()
        for block, importance in zip(self.st_gcn_networks, self.edge_importance):
            x = block(x, self.A * importance)
        return x.mean(dim=(2, 3)).view(-1, self.persons, BLOCKS[-1][1]).mean(dim=1)
