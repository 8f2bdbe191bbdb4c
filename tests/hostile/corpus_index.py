"""Indices of checkpoints in several files that attackers or broken disks send."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mapcell_formats.index import MAX_INDEX_BYTES

from .building import Case

SMALL = json.dumps({"metadata": {"total_size": 8}, "weight_map": {"x": "a", "y": "b"}}).encode()


def cases() -> Iterator[Case]:
    """Every broken index, with what its error has to say."""
    yield from _json()
    yield from _maps()
    yield from _files()


def truncations() -> Iterator[Case]:
    """A sound index, cut at every byte."""
    for size in range(1, len(SMALL)):
        yield Case(f"cut at {size}", SMALL[:size], "")


def _json() -> Iterator[Case]:
    texts = {
        "two objects": SMALL + SMALL,
        "NUL after": SMALL + b"\0",
        "no UTF-8": b'{"weight_map":{"\xff":"a"}}',
        "UTF-16": SMALL.decode().encode("utf-16-le"),
        "half a surrogate in a name": b'{"weight_map":{"\\ud800":"a"}}',
        "half a surrogate in a file": b'{"weight_map":{"x":"\\ud800"}}',
        "NaN beside": b'{"n":NaN,"weight_map":{"x":"a"}}',
        "arrays nested deeply": b'{"n":' + b"[" * 30_000 + b"]" * 30_000 + b',"weight_map":{"x":"a"}}',
        "arrays nested without end": b'{"n":' + b"[" * 100_000,
        "objects nested without end": b'{"weight_map":' * 50_000,
        "much beside": b'{"n":[' + b"{}," * 1_000_000 + b'{}],"weight_map":{"x":"a"}}',
        "long string": b'{"' + b"a" * 1_000_000,
        "digits": b'{"n":' + b"9" * 5000 + b',"weight_map":{"x":"a"}}',
    }
    for label, text in texts.items():
        yield Case(label, text, "")
    yield Case("too large", b'{"weight_map":{', "an index of up to", size=MAX_INDEX_BYTES + 1)


def _maps() -> Iterator[Case]:
    yield Case("map an array", b'{"weight_map":["x"]}', "an object")
    yield Case("map null", b'{"weight_map":null}', "an object")
    yield Case("map twice", b'{"weight_map":{"x":"a"},"weight_map":{"y":"a"}}', "comes twice")
    yield Case("tensor twice", b'{"weight_map":{"x":"a","\\u0078":"b"}}', "is listed twice")
    yield Case("name of 4097 bytes", _index("n" * 4097, "a"), "4097 bytes")
    yield Case("name with a NUL", _index("a\0b", "a"), "NUL")
    for value in (b"1", b"null", b'["a"]', b'{"file":"a"}', b"true"):
        yield Case(f"file {value.decode()}", b'{"weight_map":{"x":' + value + b"}}", "a string")


def _files() -> Iterator[Case]:
    for name in ("", ".", "..", "/", "../a", "/etc/passwd", "a/b", "./a", "a/", "a\0", "\0"):
        yield Case(f"file {name!r}", _index("x", name), "is none in this folder")
    yield Case("file of 256 bytes", _index("x", "é" * 128), "a file name of 256 bytes")
    yield Case("bare file ../a", b'{"x":"../a.safetensors"}', "is none in this folder")
    many = json.dumps({"weight_map": {str(i): f"{i}.bin" for i in range(1000)}}).encode()
    yield Case("1000 files", many, "files and more")


def _index(tensor: str, file: str) -> bytes:
    return json.dumps({"weight_map": {tensor: file}}).encode()
