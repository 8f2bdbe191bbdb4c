"""Names of a package that are imported when they are first asked for (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of `package`.

    `names` says for each module, named as in an import statement, which names come from it, separated by blanks; those
    of "." are modules themselves. The stub beside the package says the same to type checkers.
    """
    where = {name: module for module, listed in names.items() for name in listed.split()}
    every = sorted(where)

    def get(name: str) -> Any:
        module = where.get(name)
        if module is None:
            from ._not_offered import error_for

            raise error_for(package, name)
        found = import_module(f".{name}" if module == "." else module, package)
        value = found if module == "." else getattr(found, name)
        # Found without asking from now on.
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: every, every
