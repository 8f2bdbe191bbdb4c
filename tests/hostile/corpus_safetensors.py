"""safetensors files that attackers or broken disks send."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .building import Case, entry, safetensors_file

SMALL = safetensors_file({"__metadata__": {"a": "b"}, "x": entry(0, 8, [2]), "y": entry(8, 12, [1])}, bytes(12))


def cases() -> Iterator[Case]:
    """Every broken file, with what its error has to say."""
    yield from _lengths()
    yield from _json()
    yield from _entries()
    yield from _places()
    yield from _names()
    yield from _metadata()


def truncations() -> Iterator[Case]:
    """A sound file, cut at every byte."""
    for size in range(len(SMALL)):
        yield Case(f"cut at {size}", SMALL[:size], "")


def _lengths() -> Iterator[Case]:
    for name, length in {"2^31": 1 << 31, "2^63": 1 << 63, "-1": (1 << 64) - 1, "one more": 17}.items():
        yield Case(f"length {name}", safetensors_file(b'{"a":1}' + b" " * 9, length=length), "header claims")
    yield Case("length over the cap in a huge file", safetensors_file(b"{", length=10**8 + 1), "at most", size=1 << 40)
    yield Case("length one short", safetensors_file(b"{} ", length=1), "")
    yield Case("no header", safetensors_file(b""), "")


def _json() -> Iterator[Case]:
    texts = {
        "array": b"[]",
        "string": b'"a"',
        "unclosed": b"{",
        "unclosed entry": b'{"x":{"dtype":"F32","shape":[1]',
        "no value": b'{"x"}',
        "no colon": b'{"x" 1}',
        "trailing comma": b'{"__metadata__":{},}',
        "two objects": b"{}{}",
        "NUL padding": b"{}\0\0\0",
        "text after": b"{} x",
        "NaN": b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}',
        "Infinity": b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,Infinity]}}',
        "bare control character": b'{"a\nb":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        "bad escape": b'{"\\x":{}}',
        "cut escape": b'{"\\u12":{}}',
        "byte order mark": b"\xef\xbb\xbf{}",
        "no UTF-8": b'{"\xff":{}}',
        "overlong UTF-8": b'{"\xc0\x80":{}}',
        "half a surrogate": b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        "UTF-16": '{"x":{}}'.encode("utf-16-le"),
        "arrays nested deeply": b'{"x":{"dtype":' + b"[" * 8000 + b"]" * 8000 + b"}}",
        "arrays nested deeply, unclosed": b'{"x":{"dtype":' + b"[" * 100_000,
        "objects nested deeply": b'{"x":' * 100_000,
        "many arrays": b'{"x":{"dtype":[' + b"[]," * 1_000_000,
        "many blanks": b"{" + b" " * 1_000_000,
        "long string": b'{"' + b"a" * 1_000_000,
        "many quotes": b'{"x":{' + b'"' * 100_000,
    }
    for label, text in texts.items():
        yield Case(label, safetensors_file(text, bytes(4)), "")


def _entries() -> Iterator[Case]:
    wrong: dict[str, tuple[object, str]] = {
        "no object": (1, "JSON object"),
        "array": (["F32", [1], [0, 4]], "JSON object"),
        "null": (None, "JSON object"),
        "nothing": ({}, "without dtype"),
        "no dtype": ({"shape": [1], "data_offsets": [0, 4]}, "without dtype"),
        "no shape": ({"dtype": "F32", "data_offsets": [0, 4]}, "without dtype"),
        "no offsets": ({"dtype": "F32", "shape": [1]}, "without dtype"),
        "dtype a number": (entry(dtype=1), "without dtype"),
        "dtype unknown": (entry(dtype="Q4_0"), "dtype 'Q4_0'"),
        "dtype in small letters": (entry(dtype="f32"), "dtype 'f32'"),
        "dtype below a byte": (entry(dtype="F4", shape=[8]), "dtype 'F4'"),
        "dtype long": (entry(dtype="F" * 10_000), "dtype 'FFF"),
        "shape a number": (entry(shape=1), "without dtype"),
        "shape negative": (entry(shape=[-1]), "no dimension"),
        "shape of floats": (entry(shape=[1.0]), "no dimension"),
        "shape of truth values": (entry(shape=[True]), "no dimension"),
        "shape of strings": (entry(shape=["1"]), "no dimension"),
        "shape nested": (entry(shape=[[1]]), "no dimension"),
        "shape of 2^63": (entry(shape=[1 << 63]), "no dimension"),
        "shape product over 2^64": (entry(shape=[1 << 50, 1 << 50]), "shape"),
        "shape product wraps to 4": (entry(shape=[1 << 58, 16]), "shape"),
        "no elements, strides over 2^64": (entry(0, 0, [0, 1 << 58, 1 << 58]), "shape"),
        "rank 33": (entry(shape=[1] * 33), "33 dimensions"),
        "rank 5000": (entry(shape=[1] * 5000), "5000 dimensions"),
        "one offset": ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "data_offsets"),
        "three offsets": ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}, "data_offsets"),
        "offsets negative": (entry(-4, 0), "data_offsets"),
        "offsets floats": (entry(0.0, 4.0), "data_offsets"),
        "offsets strings": (entry("0", "4"), "data_offsets"),
        "offsets 2^64": (entry(0, 1 << 64), "data_offsets"),
        "a nested object": (entry() | {"more": {"a": 1}}, ""),
    }
    for label, (value, says) in wrong.items():
        yield Case(f"entry: {label}", safetensors_file({"x": value}, bytes(4)), says)
    digits = b'{"x":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}'
    yield Case("entry: 5000 digits", safetensors_file(digits, bytes(4)), "")
    twice = b'{"x":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}'
    yield Case("entry: a field twice", safetensors_file(twice, bytes(4)), "twice")


def _places() -> Iterator[Case]:
    def file(body: int, **entries: object) -> bytes:
        return safetensors_file(dict(entries), bytes(body))

    yield Case("begin after end", file(4, x=entry(4, 0)), "before they begin")
    yield Case("bytes and shape disagree", file(8, x=entry(0, 8)), "8 bytes listed")
    yield Case("starts late", file(8, x=entry(4, 8)), "belong to no tensor")
    yield Case("gap", file(12, x=entry(0, 4), y=entry(8, 12)), "belong to no tensor")
    yield Case("overlap", file(12, x=entry(0, 8, [2]), y=entry(4, 12, [2])), "overlaps")
    yield Case("the same bytes twice", file(4, x=entry(0, 4), y=entry(0, 4)), "overlaps")
    yield Case("empty tensor inside another", file(8, x=entry(0, 8, [2]), y=entry(4, 4, [0])), "")
    yield Case("bytes after the last", file(5, x=entry(0, 4)), "bytes follow")
    yield Case("bytes without a tensor", file(5), "bytes follow")
    yield Case("bytes missing", file(3, x=entry(0, 4)), "ends before")
    yield Case("2^59 bytes", file(4, x=entry(0, 1 << 59, [1 << 59], "U8")), "ends before")


def _names() -> Iterator[Case]:
    def file(name: str) -> bytes:
        return safetensors_file({name: entry()}, bytes(4))

    yield Case("name of 4097 bytes", file("n" * 4097), "4097 bytes")
    yield Case("name of 4098 bytes in other letters", file("é" * 2049), "4098 bytes")
    yield Case("name with a NUL", file("a\0b"), "NUL")
    same = json.dumps(entry()).encode()
    yield Case("name twice", safetensors_file(b'{"x":' + same + b',"x":' + same + b"}", bytes(4)), "twice")
    many = json.dumps({str(n): entry(0, 0, [0], "U8") for n in range(20_000)}, separators=(",", ":")).encode()
    yield Case("name twice, after many", safetensors_file(many[:-1] + b"," + many[1:]), "twice")
    yield Case("name cut short, after many", safetensors_file(many[:-1] + b',"'), "")
    empty = json.dumps(entry(0, 0, [0])).encode()
    yield Case("name twice, empty", safetensors_file(b'{"x":' + empty + b',"\\u0078":' + empty + b"}"), "twice")


def _metadata() -> Iterator[Case]:
    texts = {
        "number": b'{"__metadata__":1}',
        "array": b'{"__metadata__":[]}',
        "number inside": b'{"__metadata__":{"a":1}}',
        "object inside": b'{"__metadata__":{"a":{}}}',
        "null inside": b'{"__metadata__":{"a":null}}',
        "key twice": b'{"__metadata__":{"a":"1","a":"2"}}',
        "twice": b'{"__metadata__":{},"__metadata__":{}}',
        "a tensor": b'{"__metadata__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        "a tensor behind another": b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
        b'"__metadata__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        "nested deeply": b'{"__metadata__":' + b'{"a":' * 100_000,
        "unclosed": b'{"__metadata__":{"a":"b"',
    }
    for label, text in texts.items():
        yield Case(f"metadata: {label}", safetensors_file(text), "")
