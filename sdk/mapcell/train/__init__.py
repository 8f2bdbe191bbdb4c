"""Checkpoints: loading, saving, and what belongs to them."""

from __future__ import annotations

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".": "serialization",
        ".serialization": (
            "ckpt_to_safetensors load_checkpoint load_checkpoint_async load_param_into_net load_segmented_checkpoints "
            "safetensors_to_ckpt save_checkpoint"
        ),
    },
)
