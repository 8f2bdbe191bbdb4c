"""Loaded by every Python that ``mapcell run`` starts, its children included: has it load from the shared copy.

`mapcell run` puts this folder first on PYTHONPATH. Python imports this at its start, so it does next to nothing: it
waits for safetensors and torch to be imported, and gives way to the sitecustomize that it stands before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType

_AWAITED = frozenset({"safetensors", "torch.serialization"})


class _Adopting(Loader):
    """The loader of a module, which is told to mapcell once it is loaded."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        try:
            from mapcell.running import adopt
        except ImportError:
            # Another environment's Python, without mapcell: it loads as it always does.
            return
        adopt(module)


class _Waiting(MetaPathFinder):
    """Finds the awaited modules as the others do, and has them adopted."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _AWAITED:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(fullname, path, target) if not isinstance(finder, _Waiting) else None
            if spec is not None and spec.loader is not None:
                spec.loader = _Adopting(spec.loader)
                return spec
        return None


def _give_way() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    behind = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", behind)
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


sys.meta_path.insert(0, _Waiting())
_give_way()
