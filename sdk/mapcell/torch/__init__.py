"""Shared weights for torch: tensors over the daemon's pages, modules made of them, and programs that know of neither.

``load_file``, ``bind_module``, ``no_init_parameters``, ``from_pretrained``, ``from_device``, ``sharing``. Imports
torch, so it is never imported by ``import mapcell``; `docs/torch.md` shows the use.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(f"{exc}; mapcell.torch needs it: pip install 'mapcell[torch]'", name=exc.name) from None

from ..running import sharing as sharing
from .binding import bind_module as bind_module
from .building import no_init_parameters as no_init_parameters
from .devices import from_device as from_device
from .loading import load_file as load_file
from .pretrained import from_pretrained as from_pretrained

__all__ = ["bind_module", "from_device", "from_pretrained", "load_file", "no_init_parameters", "sharing"]
