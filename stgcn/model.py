"""ST_GCN_18: the reference network (Yan et al., AAAI 2018, arXiv 1801.07455) in its Kinetics configuration.

The 172 entries of its state dict have the names and shapes of the published checkpoint.
"""

from __future__ import annotations

from typing import Tuple

import torch
from torch import nn

from stgcn.dataset import CHANNELS, CLASSES, FRAMES, JOINTS, PERSONS
from stgcn.graph import PARTITIONS, adjacency

TEMPORAL_KERNEL = 9
# (in channels, out channels, temporal stride) of the ten blocks
BLOCKS: Tuple[Tuple[int, int, int], ...] = (
    (CHANNELS, 64, 1), (64, 64, 1), (64, 64, 1), (64, 64, 1), (64, 128, 2),
    (128, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 256, 1),
)  # fmt: skip


class GraphConvolution(nn.Module):
    """Mix channels once a partition, then gather each partition's joints along the graph.

    (n, in, t, 18) and A of (3, 18, 18) to (n, out, t, 18): out = sum over k of conv_k(x) A_k, equation 10 of the paper.
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
    """One spatial-temporal block: (n, in, t, 18) to (n, out, t / stride, 18)."""

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
            nn.Dropout(0),  # the Kinetics configuration drops nothing; its place keeps the published names
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
    """Clips (n, 3, 300, 18, 2) to logits (n, 400), float32.

    With its `persons` set to 1 it takes single persons, (n, 3, 300, 18, 1). The classifier is linear and persons meet
    nowhere before it, so a clip's logits are the mean of its persons' own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.persons = PERSONS
        self.register_buffer("A", torch.from_numpy(adjacency()))
        self.data_bn = nn.BatchNorm1d(JOINTS * CHANNELS)  # over index joint * CHANNELS + channel
        self.st_gcn_networks = nn.ModuleList(Block(*shape, residual=index > 0) for index, shape in enumerate(BLOCKS))
        self.edge_importance = nn.ParameterList(nn.Parameter(torch.ones(PARTITIONS, JOINTS, JOINTS)) for _ in BLOCKS)
        self.fcn = nn.Conv2d(BLOCKS[-1][1], CLASSES, kernel_size=1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fcn(self.features(clips).unsqueeze(2).unsqueeze(3)).flatten(1)
        return logits

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """What the classifier sees, (n, 256): the last block's mean over frames and joints, then over persons."""
        x: torch.Tensor = clips.permute(0, 4, 3, 1, 2).contiguous()
        x = self.data_bn(x.view(-1, JOINTS * CHANNELS, FRAMES))
        x = x.view(-1, JOINTS, CHANNELS, FRAMES).permute(0, 2, 3, 1).contiguous()
        for block, importance in zip(self.st_gcn_networks, self.edge_importance):
            x = block(x, self.A * importance)
        return x.mean(dim=(2, 3)).view(-1, self.persons, BLOCKS[-1][1]).mean(dim=1)
