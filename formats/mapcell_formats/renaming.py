"""Rules that rename tensors, where a network and a checkpoint call the same thing differently. Names only, no bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Rename = Callable[[str], str | None] | Mapping[str, str | None] | Sequence[tuple[str, str]]


def renamer(rename: Rename | None, prefix: str = "") -> Callable[[str], str | None]:
    """What a tensor is called afterwards: None for one that is left out.

    Only names that start with `prefix` stay, and it is cut off first. `rename` is a function, a dict (a name that is
    not in it stays), or (regular expression, replacement) pairs that are applied in order wherever they match, as
    `re.sub` does; None leaves a tensor out. TypeError for `rename` of another kind, re.error for a broken expression.
    """
    rule = _rule(rename)
    if not prefix:
        return rule
    return lambda name: rule(name[len(prefix) :]) if name.startswith(prefix) else None


def _rule(rename: Rename | None) -> Callable[[str], str | None]:
    if rename is None:
        return lambda name: name
    if callable(rename):
        return rename
    if isinstance(rename, Mapping):
        return lambda name: rename.get(name, name)
    if isinstance(rename, Sequence) and not isinstance(rename, str):
        rules = [(re.compile(pattern), replacement) for pattern, replacement in rename]
        return lambda name: _substituted(name, rules)
    raise TypeError(f"'rename' is a function, a dict or a list of pairs, not {type(rename).__name__}")


def _substituted(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name
