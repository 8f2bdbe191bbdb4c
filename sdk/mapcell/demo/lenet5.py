"""LeNet-5, as MindSpore's own tutorials build it: what runs there runs here after changing the import.

Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998, with ReLU and max pooling.
"""

from __future__ import annotations

from typing import cast

import mapcell as ms
from mapcell import nn


class LeNet5(nn.Cell):
    """Images, float32 (images, channels, 32, 32), to scores (images, classes)."""

    def __init__(self, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5, pad_mode="valid")
        self.conv2 = nn.Conv2d(6, 16, 5, pad_mode="valid")
        self.fc1 = nn.Dense(16 * 5 * 5, 120)
        self.fc2 = nn.Dense(120, 84)
        self.fc3 = nn.Dense(84, classes)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.flatten = nn.Flatten()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """Two convolutions, each with ReLU and pooling, then three dense layers."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(self.flatten(x)))
        x = self.relu(self.fc2(x))
        return cast(ms.Tensor, self.fc3(x))
