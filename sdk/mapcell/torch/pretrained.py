"""``from_pretrained``: transformers' models, loaded by transformers from the shared copy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from ..running import SHARING, TIMEOUT_SECONDS, sharing


def from_pretrained(
    folder: str | os.PathLike[str],
    model_class: Any = None,
    *,
    dtype: Any = "auto",
    daemon: str | None = None,
    timeout: float = TIMEOUT_SECONDS,
    **options: Any,
) -> Any:
    """A ready model from a local folder, its weights the ones that every process here shares.

    transformers builds and loads it, so that names, ties, buffers and conversions are its own, and so are the results;
    the bytes come from the daemon, out of safetensors (one file or shards) or pytorch_model.bin. What transformers
    converts on the way, fused experts for instance, becomes this process's own memory: a folder written by
    ``save_pretrained(..., save_original_format=False)`` needs no conversion.

    Args:
        folder: the model's folder. Nothing is fetched from anywhere.
        model_class: transformers' class or Auto class, AutoModel if None.
        dtype: as transformers has it. From 16 to 32 bits safetensors are cast in the daemon, once for all processes;
            other casts make copies in this one.
        daemon, timeout: as ``sharing`` has them. Without a daemon transformers loads by itself.
        options: any other argument of transformers' ``from_pretrained``.

    Raises:
        What transformers raises; with daemon="require" also what ``attach`` raises.
    """
    if model_class is None:
        from transformers import AutoModel

        model_class = AutoModel
    widened = "F32" if _widens(Path(folder), dtype, options) else None
    with sharing(daemon, timeout):
        token = SHARING.cast.set(widened)
        try:
            return model_class.from_pretrained(os.fspath(folder), dtype=dtype, local_files_only=True, **options)
        finally:
            SHARING.cast.reset(token)


def _widens(folder: Path, dtype: Any, options: dict[str, Any]) -> bool:
    """Whether any cast on the way can only be to more bits, so that it is exact whatever transformers does next.

    What is quantised has floats that are not to be cast.
    """
    if dtype not in (torch.float32, "float32") or "quantization_config" in options:
        return False
    try:
        return "quantization_config" not in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        # Whatever is wrong with it, transformers says so.
        return False
