"""Checkpoints: loading, saving, and what belongs to them."""

from . import serialization as serialization
from .converting import ckpt_to_safetensors as ckpt_to_safetensors
from .converting import load_segmented_checkpoints as load_segmented_checkpoints
from .converting import safetensors_to_ckpt as safetensors_to_ckpt
from .loading import load_checkpoint as load_checkpoint
from .loading import load_checkpoint_async as load_checkpoint_async
from .matching import load_param_into_net as load_param_into_net
from .saving import save_checkpoint as save_checkpoint
