"""Checkpoints: loading, saving, and what belongs to them."""

from . import serialization as serialization
from .serialization import ckpt_to_safetensors as ckpt_to_safetensors
from .serialization import load_checkpoint as load_checkpoint
from .serialization import load_checkpoint_async as load_checkpoint_async
from .serialization import load_param_into_net as load_param_into_net
from .serialization import load_segmented_checkpoints as load_segmented_checkpoints
from .serialization import safetensors_to_ckpt as safetensors_to_ckpt
from .serialization import save_checkpoint as save_checkpoint
