"""Checkpoints that tests write, through the libraries that people write them with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray[Any, Any]], metadata: dict[str, str] | None = None
) -> Path:
    """Writes `tensors` with the safetensors library. `path`."""
    from safetensors.numpy import save_file

    save_file(dict(tensors), path, metadata=metadata)
    return path
