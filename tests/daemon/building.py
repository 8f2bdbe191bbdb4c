"""Small versions, over real memory, for tests of what the daemon decides."""

from __future__ import annotations

from mapcell_formats.messages import Selection
from mapcelld import memfd
from mapcelld.channel import Credentials
from mapcelld.registry import Recipe, Version
from mapcelld.segment import Segment


def sealed_segment(data: bytes = b"x") -> Segment:
    """A segment over sealed memory that holds `data`, read-only as the daemon holds it. The caller closes it."""
    made = Segment(memfd.sealed_copy("test", data), len(data))
    try:
        return Segment(made.reopen(), len(data))
    finally:
        made.close()


def version(number: str, *, nbytes: int = 100, used: float = 0.0, **fields: object) -> Version:
    """A version without segments, for what is decided without looking at bytes."""
    sound: dict[str, object] = {
        "id": number,
        "residence": "sealed",
        "format": "safetensors",
        "dtype": "F32",
        "verified": True,
        "tensors": 1,
        "nbytes": nbytes,
        "manifest": Segment(-1, 0),
        "segments": (),
        "used": used,
    }
    return Version(**(sound | fields))  # type: ignore[arg-type]


def recipe(*identities: str, dtype: str = "") -> Recipe:
    """What a version was made from."""
    return Recipe(identities, "auto", Selection(dtype=dtype))


def user(uid: int, *groups: int) -> Credentials:
    """A process of `uid` that is in `groups`."""
    return Credentials(4000 + uid, uid, uid, frozenset({uid, *groups}))
