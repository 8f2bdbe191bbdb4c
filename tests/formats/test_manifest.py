"""The manifest: what goes in comes out, is found by name, and broken bytes are refused by name."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, product
from math import prod

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcell_formats.dtypes import CODES, ITEMSIZE
from mapcell_formats.errors import FormatError, NotFound
from mapcell_formats.limits import MAX_TENSORS
from mapcell_formats.manifest import (
    MAGIC,
    NO_DIGEST,
    Description,
    Manifest,
    Readable,
    TensorEntry,
    encode_manifest,
    near,
)

ABOUT = Description("blake3:00", "sealed", "safetensors", True, {"format": "pt", "ключ": "значение"})


def entry(name: str, dtype: str = "F32", shape: tuple[int, ...] = (2, 3), offset: int = 0) -> TensorEntry:
    """An entry whose size is what its shape and dtype say."""
    return TensorEntry(name, dtype, shape, 0, offset, prod(shape) * ITEMSIZE[dtype])


def manifest(entries: Sequence[TensorEntry], about: Description = ABOUT) -> Manifest:
    """`entries` written and opened again."""
    return Manifest(encode_manifest(about, [1 << 20], entries))


def colliding(count: int) -> list[str]:
    """`count` names of one CRC-32.

    CRC-32 is linear: flipping one letter changes it by the same bits whatever the others are, so sets of flips that
    cancel out are found by elimination, and so are all their combinations.
    """
    base = bytearray(b"b" * 52)
    basis: dict[int, tuple[int, int]] = {}
    cancelling = []
    for position in range(len(base)):
        flipped = base.copy()
        flipped[position] ^= 1
        change, flips = zlib.crc32(base) ^ zlib.crc32(flipped), 1 << position
        while change and (held := basis.get(change.bit_length())):
            change, flips = change ^ held[0], flips ^ held[1]
        if change:
            basis[change.bit_length()] = change, flips
        else:
            cancelling.append(flips)
    chosen = islice(product((0, 1), repeat=len(cancelling)), count)
    return [_flipped(base, [f for f, use in zip(cancelling, uses, strict=True) if use]) for uses in chosen]


def _flipped(base: bytes | bytearray, flips: Iterable[int]) -> str:
    mask = 0
    for flip in flips:
        mask ^= flip
    return bytes(byte ^ (mask >> position & 1) for position, byte in enumerate(base)).decode()


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_ENTRIES = st.lists(
    st.builds(
        lambda name, dtype, shape, segment, offset: entry(name, dtype, shape, offset)._replace(segment=segment),
        _TEXT,
        st.sampled_from(CODES),
        st.lists(st.integers(0, 1 << 20), max_size=4).map(tuple),
        st.integers(0, 249),
        st.integers(0, 1 << 62),
    ).filter(lambda e: e.nbytes < 1 << 64),
    max_size=12,
    unique_by=lambda e: e.name,
)
_ABOUT = st.builds(Description, _TEXT, _TEXT, _TEXT, st.booleans(), st.dictionaries(_TEXT, _TEXT, max_size=4))


@given(about=_ABOUT, entries=_ENTRIES, segments=st.lists(st.integers(0, (1 << 64) - 1), max_size=4), data=st.data())
def test_round_trip(about: Description, entries: list[TensorEntry], segments: list[int], data: st.DataObject) -> None:
    """Whatever is written is read back, in order and by name."""
    digests = data.draw(st.none() | st.just([bytes([i]) * 32 for i in range(len(entries))]))
    got = Manifest(encode_manifest(about, segments, entries, digests))
    assert (len(got), got.segments, got.description()) == (len(entries), tuple(segments), about)
    assert list(got.entries()) == entries
    assert list(got.names()) == [e.name for e in entries]
    assert [got[e.name] for e in entries] == entries == [got.get(e.name) for e in entries]
    assert [got.find(e.name) for e in entries] == list(range(len(entries)))
    assert [got.digest(i) for i in range(len(got))] == (digests or [NO_DIGEST] * len(entries))


@pytest.mark.parametrize(
    "name", ["", "a", "a.b/c", "Ångström", "Å", "权重", "\N{PILE OF POO}", "\ud800", "a\0b", "x" * 4096], ids=repr
)
def test_absent_names(name: str) -> None:
    """A name that is not there is no entry, whatever it is made of."""
    assert manifest([]).find(name) == -1
    held = manifest([entry("other"), entry("another")])
    assert (held.find(name), held.get(name)) == (-1, None)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1,) * 32], ids=repr)
@pytest.mark.parametrize("dtype", CODES)
def test_shapes(dtype: str, shape: tuple[int, ...]) -> None:
    """Scalars, tensors without elements and the highest rank keep their shape, for every dtype."""
    wanted = entry("x", dtype, shape)
    assert manifest([wanted])["x"] == wanted


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_colliding_names(count: int) -> None:
    """Names of equal checksum are told apart, and none of them is found that is not there."""
    names = colliding(count + 1)
    assert len({zlib.crc32(n.encode()) for n in names}) == 1
    held = manifest([entry(n, shape=(i,)) for i, n in enumerate(names[:count])])
    assert [held.find(n) for n in names] == [*range(count), -1]


@pytest.mark.parametrize("hostile", [False, True], ids=["ordinary", "colliding"])
def test_many(hostile: bool) -> None:
    """Of 100,000 names each is found with two looks into the manifest, or by halving it when an attacker chose them."""
    count = 100_000
    names = colliding(count) if hostile else [f"model.layers.{i}.mlp.down_proj.weight" for i in range(count)]
    counted = Counted(encode_manifest(ABOUT, [1 << 20], [entry(n, shape=(i,)) for i, n in enumerate(names)]))
    held = Manifest(counted)
    asked = range(0, count, 997)
    # The head alone: what it costs to open does not depend on how many there are.
    assert counted.reads == [1088]
    counted.reads.clear()
    for number in asked:
        assert held[names[number]].shape == (number,)
    if hostile:
        # A binary search over 100,000 names looks at 17 places of the index and 17 names.
        assert len(counted.reads) / len(asked) <= 2 * 17 + 4
        assert max(counted.reads) <= 1 << 20
    else:
        # Now and then a checksum lies further off than the three standard deviations that are looked through.
        assert len(counted.reads) / len(asked) <= 2.5
        assert sum(counted.reads) / len(asked) <= 1024


def test_small_is_read_at_once() -> None:
    """What is small is read once, whatever is asked of it then."""
    counted = Counted(BYTES)
    everything(counted, NAMES)
    assert counted.reads == [len(BYTES)]


class Counted:
    """Bytes that lie elsewhere; `reads` are the sizes of the pieces that were asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.reads: list[int] = []

    def read(self, offset: int, nbytes: int) -> bytes:
        """As Readable has it."""
        self.reads.append(nbytes)
        return self._data[offset : offset + nbytes]


def test_cut_off_while_it_is_read() -> None:
    """What is shorter than it said is refused wherever the bytes are missing."""
    data = encode_manifest(ABOUT, [1 << 20], [entry(f"{i}.weight") for i in range(5000)])
    for nbytes in range(1088, len(data), 4093):
        short = Counted(data)
        held = Manifest(short)
        short._data = data[:nbytes]
        everything_of(held, ["0.weight", "2500.weight", "4999.weight", "absent"])


def everything(data: bytes | Readable, names: Iterable[str]) -> None:
    """Asks for all that a manifest can answer."""
    everything_of(Manifest(data), names)


def everything_of(held: Manifest, names: Iterable[str]) -> None:
    """The same of one that is open."""
    for ask in (held.description, lambda: held.segments, lambda: list(held.names()), lambda: list(held.entries())):
        _tolerate(ask)
    for number in range(min(len(held), 16)):
        held.digest(number)
    for name in names:
        _tolerate(lambda name=name: held[name])
        _tolerate(lambda name=name: held.find(name))


def _tolerate(ask: Callable[[], object]) -> None:
    """Runs `ask`; its result may be nonsense and it may refuse, but nothing else."""
    try:
        ask()
    except (FormatError, NotFound):
        return


SAMPLE = [
    entry("a", "U8", (3,)),
    entry("b.weight", "BF16", (2, 2), 256),
    entry("é", "F64", (), 512),
    entry("z", shape=(0,)),
]
NAMES = [*(e.name for e in SAMPLE), "absent"]
BYTES = encode_manifest(ABOUT, [4096], SAMPLE)


def test_truncated() -> None:
    """Cut off at any byte it is refused at once."""
    for nbytes in range(len(BYTES)):
        with pytest.raises(FormatError, match="manifest of"):
            Manifest(BYTES[:nbytes])


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_flipped_bytes(change: int) -> None:
    """With any byte changed it is refused, or answers, and never fails in another way."""
    for position in range(len(BYTES)):
        data = bytearray(BYTES)
        data[position] ^= change
        _tolerate(lambda data=data: everything(bytes(data), NAMES))


@pytest.mark.parametrize("change", [0x01, 0xFF])
def test_all_at_once_or_one_by_one(change: int) -> None:
    """What decoding all entries together gives, asking for each by its name gives too, whatever byte is changed."""
    # Behind header, fan-out, one segment and the index.
    for position in range(1088 + 8 + 8 * len(SAMPLE), len(BYTES)):
        data = bytearray(BYTES)
        data[position] ^= change
        held = Manifest(bytes(data))
        try:
            entries = list(held.entries())
        except FormatError:
            continue
        for one in entries:
            # A name that was changed is not found where its checksum was; one that is found is the same.
            assert held.get(one.name) in (one, None)


def test_wrong_fan_out() -> None:
    """A fan-out that leads elsewhere makes a search longer, and hides nothing."""
    data = bytearray(BYTES)
    for wrong in (bytes(1024), b"\xff" * 1024):
        data[64:1088] = wrong
        held = Manifest(bytes(data))
        assert [held.find(e.name) for e in SAMPLE] == [0, 1, 2, 3]
        assert held.find("absent") == -1


@given(data=st.binary(max_size=400), start=st.integers(0, len(BYTES)))
def test_overwritten(data: bytes, start: int) -> None:
    """With any part overwritten it is refused, or answers, and never fails in another way."""
    _tolerate(lambda: everything(BYTES[:start] + data + BYTES[start + len(data) :], NAMES))


@given(data=st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    """Bytes that are no manifest are refused."""
    with pytest.raises(FormatError):
        Manifest(data)
    _tolerate(lambda: everything(MAGIC + b"\2\0\0\0" + data, NAMES))


@pytest.mark.parametrize(
    ("offset", "field"),
    [(8, b"\1\0\0\0"), (12, b"\xff" * 4), (16, b"\xff" * 4), (24, b"\xff" * 8), (32, b"\xff" * 8)],
    ids=["schema", "tensors", "segments", "records", "description"],
)
def test_announced_sizes(offset: int, field: bytes) -> None:
    """A header that announces more than there is, or another schema, is refused before anything is allocated."""
    data = BYTES[:offset] + field + BYTES[offset + len(field) :]
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            Manifest(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xc1",
        msgpack.packb(1),
        msgpack.packb([]),
        msgpack.packb({}),
        msgpack.packb({"version": "v"}),
        msgpack.packb({"version": "v", "residence": "", "format": "", "verified": True, "metadata": 3}),
        msgpack.packb({"version": "v", "residence": "", "format": "", "verified": True, "metadata": [1]}),
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb({1: 2}),
        # A thousand lists, each announcing as many items as there are bytes: 8 MB each if believed.
        b"\xdd\x00\x0f\x42\x40" * 1000 + bytes(1_000_000),
    ],
    ids=["empty", "reserved", "number", "list", "no keys", "one key", "number", "list", "extension", "keys", "nested"],
)
def test_broken_description(text: bytes) -> None:
    """A description of another shape is refused, and costs no more memory than its own size."""
    header = bytearray(encode_manifest(ABOUT, [], []))
    plain = len(header) - int.from_bytes(header[32:40], "little")
    header[32:40] = len(text).to_bytes(8, "little")
    held = Manifest(bytes(header[:plain]) + text)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="description"):
            held.description()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_too_many_tensors() -> None:
    """More tensors than any checkpoint has are refused before they are looked at."""
    with pytest.raises(FormatError, match="tensors"):
        encode_manifest(ABOUT, [], [entry("x")] * (MAX_TENSORS + 1))


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("encoder.wieght", ["encoder.weight", "pooler"], "; did you mean 'encoder.weight'?"),
        ("bias.1", ["bias.0", "bias.2"], "; did you mean 'bias.2' or 'bias.0'?"),
        ("nothing", ["a", "b"], ""),
        ("x", [], ""),
    ],
)
def test_near(name: str, known: list[str], hint: str) -> None:
    """A hint names what resembles the name, and is empty when nothing does."""
    assert near(name, known) == hint


def test_not_found_offers_near_names() -> None:
    """An unknown tensor brings NotFound with names that resemble it."""
    with pytest.raises(NotFound, match=r"no tensor 'b\.wieght'; did you mean 'b\.weight'\?") as caught:
        Manifest(BYTES)["b.wieght"]
    assert caught.value.details == {"tensor": "b.wieght"}
