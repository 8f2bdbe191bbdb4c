"""``no_init_parameters``: modules that are built without their parameters, and bound to weights afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import UninitializedParameter
from torch.utils.weak import WeakIdKeyDictionary


@contextmanager
def no_init_parameters() -> Iterator[None]:
    """Modules that are built inside have their parameters on the meta device, and their buffers for real.

    A parameter loses its memory the moment a module gets it, before anything is written there: what initialises it
    afterwards finds nothing to do. Buffers keep what the constructor computed, also those that no checkpoint holds
    (tables of positions, frequencies), so ``bind_module`` gives a whole module. Parameters that are shared between
    modules stay shared. Concerns the thread that enters it; nests.
    """
    thread, metas = threading.get_ident(), WeakIdKeyDictionary()

    def without_memory(
        module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None
    ) -> torch.nn.Parameter | None:
        if parameter is None or threading.get_ident() != thread or parameter.is_meta:
            return None
        if isinstance(parameter, UninitializedParameter):
            return None
        if parameter not in metas:
            metas[parameter] = _meta(parameter)
        meta: torch.nn.Parameter = metas[parameter]
        return meta

    # torch's annotation says that a hook gives nothing; its documentation and code, that it may give another one.
    handle = register_module_parameter_registration_hook(without_memory)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def _meta(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    kind = type(parameter)
    meta = kind(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    # What frameworks note on a parameter: transformers, whether it was initialised.
    vars(meta).update(vars(parameter))
    return meta
