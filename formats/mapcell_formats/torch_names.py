"""The names of the tensors in what torch.save was given: a state dict, or dicts and lists around several.

A name is the keys on the way to a tensor, joined by "."; a position in a list counts as a key. When the outermost dict
holds tensors under one key only, and that is one of WRAPPERS, the key is left out: {"state_dict": {"w": ...}, "epoch":
3} has a tensor "w", {"model": {"w": ...}, "ema": {"w": ...}} has "model.w" and "ema.w". A bare tensor is "tensor".

A pickle of a few bytes can hold a tensor in a million places, by dicts that refer to one another. The tensors and their
names are therefore counted, and may be no more than a pickle of its size would have that spells them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .checks import brief
from .errors import FormatError
from .limits import MAX_NAME_BYTES, MAX_TENSORS
from .torch_pickle import Tensor

# Keys under which training loops keep a model's tensors beside other things.
WRAPPERS = frozenset({"state_dict", "model_state_dict", "model", "module", "params"})
ALONE = "tensor"
# Names of this many parts are longer than any that a tree of modules has.
MAX_DEPTH = 64
# A tensor takes 10 bytes of a pickle even when it was named before, its name seldom more than twice these.
_FEW_TENSORS, _BYTES_OF_TENSOR = 1000, 8
_FEW_NAME_BYTES, _NAME_BYTES_OF_BYTE = 256 * 1024, 4


@dataclass(frozen=True, slots=True)
class Pickle:
    """Where a pickle lies, for errors, and how long it is."""

    path: str
    start: int
    nbytes: int


def named_tensors(value: object, pickle: Pickle) -> Mapping[str, Tensor]:
    """Every tensor in `value`, what the pickle holds, by its name, in order.

    FormatError when there is none, when two have one name, when a container holds itself, and as the module says.
    """
    if isinstance(value, Tensor):
        return {ALONE: value}
    tree = _Tree(pickle)
    total = tree.measure(value, 0).tensors
    most = min(MAX_TENSORS, _FEW_TENSORS + pickle.nbytes // _BYTES_OF_TENSOR)
    if not 0 < total <= most:
        raise tree.error(f"holds {total if total < 1 << 64 else 'countless'} tensors", f"1 to {most} in a state dict")
    found: dict[str, Tensor] = {}
    left = _FEW_NAME_BYTES + _NAME_BYTES_OF_BYTE * pickle.nbytes
    for name, tensor in tree.tensors(_unwrapped(value, tree), ""):
        left -= len(name)
        if name in found or left < 0:
            fault = f"two tensors come to be called {brief(name)}" if name in found else "names longer than the pickle"
            raise tree.error(fault, "a state dict")
        found[name] = tensor
    return found


def _unwrapped(value: object, tree: _Tree) -> object:
    while isinstance(value, dict):
        holders = tree.holders(value)
        if len(holders) > 1 or holders[0][0] not in WRAPPERS or isinstance(holders[0][1], Tensor):
            break
        value = holders[0][1]
    return value


@dataclass(frozen=True, slots=True)
class _Measure:
    """Tensors beneath a container, each as often as it is reached, and levels of containers."""

    tensors: int
    height: int


_NOTHING, _ONE = _Measure(0, 0), _Measure(1, 0)


class _Tree:
    """Containers that may refer to one another in any way."""

    def __init__(self, pickle: Pickle) -> None:
        self._pickle = pickle
        # By identity: the containers live as long as the value that holds them. None while one is being measured.
        self._measures: dict[int, _Measure | None] = {}
        self._holders: dict[int, list[tuple[object, object]]] = {}

    def measure(self, value: object, depth: int) -> _Measure:
        """What is beneath `value`. FormatError when a container holds itself or MAX_DEPTH levels and more."""
        if isinstance(value, Tensor):
            return _ONE
        if not isinstance(value, dict | list | tuple):
            return _NOTHING
        known = self._measures.get(id(value), _NOTHING)
        if known is None or depth + max(1, known.height) > MAX_DEPTH:
            raise self.error("holds a container within itself, or nested too deeply", f"up to {MAX_DEPTH} levels")
        if id(value) not in self._measures:
            self._measures[id(value)] = None
            self._measures[id(value)] = known = self._sum(value, depth)
        return known

    def _sum(self, value: dict[str, object] | list[object] | tuple[object, ...], depth: int) -> _Measure:
        tensors, height = 0, 0
        holders: list[tuple[object, object]] = []
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, Tensor):
                tensors += 1
                holders.append((key, item))
                continue
            inner = self.measure(item, depth + 1)
            tensors, height = tensors + inner.tensors, max(height, inner.height)
            if inner.tensors:
                holders.append((key, item))
        if holders:
            self._holders[id(value)] = holders
        return _Measure(tensors, height + 1)

    def holders(self, value: object) -> list[tuple[object, object]]:
        """The keys and items of a container beneath which there are tensors."""
        return self._holders.get(id(value), [])

    def tensors(self, value: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
        """Each tensor and its name beneath `prefix`, in order."""
        for key, item in self.holders(value):
            name = f"{prefix}{key}"
            if len(name) > MAX_NAME_BYTES:
                raise self.error(f"a name of {len(name)} characters", f"at most {MAX_NAME_BYTES} bytes")
            if isinstance(item, Tensor):
                yield name, item
            else:
                yield from self.tensors(item, f"{name}.")

    def error(self, message: str, expected: str) -> FormatError:
        """The error about the pickle as a whole."""
        return FormatError(message, path=self._pickle.path, offset=self._pickle.start, expected=expected)
