"""Weights that tests lend without a daemon or a file."""


class Lent(dict):
    """Arrays by name, as `SharedView` asks for them."""

    def at(self, entry):
        return self[entry.name]
