"""What one daemon leaves to the next: records that come back as they were, and bytes that are refused."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mapcell_formats.messages import Selection
from mapcelld import state
from mapcelld.registry import Recipe, Registry
from mapcelld.registry import State as Life
from mapcelld.state import ModelRecord, State, StateError, VersionRecord

from .building import version

texts = st.text(max_size=12)
sizes = st.integers(0, 2**63 - 1)
selections = st.builds(Selection, texts, st.none() | st.lists(texts, max_size=3).map(tuple), texts)
recipes = st.builds(Recipe, st.lists(texts, max_size=3).map(tuple), texts, selections, texts)
versions = st.builds(
    VersionRecord,
    id=texts,
    residence=st.sampled_from(["sealed", "mapped"]),
    format=texts,
    dtype=texts,
    verified=st.booleans(),
    tensors=sizes,
    nbytes=sizes,
    uid=st.integers(0, 2**32 - 1),
    retired=st.booleans(),
    pinned=st.booleans(),
    manifest=sizes,
    manifest_digest=st.binary(min_size=32, max_size=32),
    segments=st.lists(sizes, max_size=4).map(tuple),
    recipes=st.lists(recipes, max_size=2).map(tuple),
    identities=st.lists(texts, max_size=2).map(tuple),
    digest=texts,
)
names = st.lists(texts, max_size=3).map(tuple)
pairs = st.dictionaries(texts, texts, max_size=3)
models = st.builds(ModelRecord, texts, st.none() | st.integers(0, 2**32 - 1), texts, names, names, pairs, pairs)
states = st.builds(State, st.lists(versions, max_size=3).map(tuple), st.lists(models, max_size=3).map(tuple), sizes)
junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def packed(body: object, schema: object = state.SCHEMA) -> bytes:
    """`body` in the envelope of a state, with the right digest."""
    raw = msgpack.packb(body)
    return bytes(msgpack.packb([schema, blake3(raw).digest(), raw]))


@given(states)
def test_round_trip(given: State) -> None:
    """What was encoded is what is decoded, field by field."""
    assert state.decode(state.encode(given)) == given


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    """Bytes that are no state bring a StateError and nothing else."""
    with pytest.raises(StateError):
        state.decode(data)


@given(junk)
def test_random_values(body: Any) -> None:
    """Well packed and well digested nonsense brings a StateError and nothing else."""
    with pytest.raises(StateError):
        state.decode(packed(body))


@given(states, st.data())
def test_one_field_of_another_type(given: State, data: st.DataObject) -> None:
    """A record of which one field was replaced is refused, or is a record of sound types all the same."""
    raw = asdict(given)
    rows = [*raw["versions"], *raw["models"]]
    if not rows:
        return
    row = data.draw(st.sampled_from(rows))
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(junk)
    try:
        found = state.decode(packed(raw))
    except StateError:
        return
    assert state.decode(state.encode(found)) == found


@given(states, st.data())
def test_truncated_and_flipped(given: State, data: st.DataObject) -> None:
    """A state that is cut off, or of which one byte changed, is refused."""
    whole = state.encode(given)
    with pytest.raises(StateError):
        state.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(StateError):
        assert state.decode(bytes(changed)) == given


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (packed({"versions": [], "models": []}, state.SCHEMA + 1), f"schema {state.SCHEMA + 1}"),
        (packed({"versions": [], "models": []}, "1"), "schema '1'"),
        (bytes(msgpack.packb([state.SCHEMA, bytes(32), b""])), "digest"),
        (packed({"versions": []}), "malformed"),
        (packed({"versions": [], "models": [], "restarts": -1}), "restarted -1 times"),
        (packed({"versions": [], "models": [], "restarts": True}), "restarted True times"),
        (packed({"versions": [{}], "models": []}), "malformed"),
        (packed([1, 2]), "malformed"),
        (b"\x93\x01\xc4\x01\x00\xc6\xff\xff\xff\xff", "malformed"),
    ],
)
def test_refusals_say_why(data: bytes, said: str) -> None:
    """Each way to be wrong is named."""
    with pytest.raises(StateError, match=said):
        state.decode(data)


def test_state_of_a_registry() -> None:
    """What the registry holds is what is recorded: recipes, pins, retired versions, tags, owners and casts."""
    registry = Registry()
    recipe = Recipe(("1",), "auto", Selection(keys=("a",)))
    base = registry.add(version("blake3:1", pinned=True, uid=7), recipe)
    cast = registry.add(version("blake3:2"), Recipe(("1",), "sealed", Selection("F16")))
    cast.state = Life.RETIRED
    model = registry.name("m", 7, "/m", base)
    registry.derive(model, cast, base.id)
    model.tags["stable"] = base.id
    left = state.of(registry, lambda v: v.id.encode().ljust(32))
    assert left.models == (ModelRecord("m", 7, "/m", (base.id,), (cast.id,), {cast.id: base.id}, {"stable": base.id}),)
    first, second = left.versions
    assert (first.id, first.pinned, first.retired, first.uid, first.recipes) == (base.id, True, False, 7, (recipe,))
    assert (second.id, second.pinned, second.retired) == (cast.id, False, True)
    assert first.manifest_digest == base.id.encode().ljust(32)
    assert state.decode(state.encode(left)) == left
