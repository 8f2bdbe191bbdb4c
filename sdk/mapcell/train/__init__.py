"""Checkpoints: loading, saving, and what belongs to them."""

from __future__ import annotations

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".": "serialization",
        ".converting": "ckpt_to_safetensors load_segmented_checkpoints safetensors_to_ckpt",
        ".loading": "load_checkpoint load_checkpoint_async",
        ".matching": "load_param_into_net",
        ".saving": "save_checkpoint",
    },
)
