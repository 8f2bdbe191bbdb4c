"""Networks that tests build."""

from __future__ import annotations

from pathlib import Path

import mapcell as ms
from mapcell import nn

MINDSPORE = Path(__file__).parents[1] / "data/mindspore"


class Mixed(nn.Cell):
    """The network of mixed.ckpt: what a picture shows and what a text says, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.SequentialCell(nn.Conv2d(3, 8, 3, has_bias=True), nn.BatchNorm2d(8), nn.ReLU())
        self.embed = nn.Embedding(11, 4)
        self.head = nn.SequentialCell(nn.Dense(8, 4), nn.LayerNorm((4,)))

    def construct(self, picture: ms.Tensor, ids: ms.Tensor) -> ms.Tensor:
        """Float32 (n, 3, height, width) and integers (n, words) to (n, 4)."""
        seen: ms.Tensor = self.head(self.block(picture).mean((2, 3)))
        return seen + self.embed(ids).mean(1)
