"""What a pickle may name: the table that whoever reads one gives to the walk."""

from __future__ import annotations

from typing import Protocol


class Vocabulary(Protocol):
    """What a pickle may name. Every method raises KeyError for what it does not know."""

    def find(self, name: str) -> object:
        """The object called `name`, "module.attribute"."""
        ...

    def call(self, function: object, arguments: tuple[object, ...], at: int) -> object:
        """What `function`, which `find` gave, makes of the arguments."""
        ...

    def persistent(self, identity: object, at: int) -> object:
        """The object outside the pickle that `identity` names."""
        ...
