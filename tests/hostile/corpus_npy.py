"""Single NumPy arrays that attackers or broken disks send."""

from __future__ import annotations

from collections.abc import Iterator

from .building import Case, npy_file

SOUND = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
SMALL = npy_file(SOUND + "      \n", bytes(8))


def cases() -> Iterator[Case]:
    """Every broken array, with what its error has to say."""
    yield from _headers()
    yield from _types()
    yield from _shapes()


def truncations() -> Iterator[Case]:
    """A sound array, cut at every byte."""
    for size in range(len(SMALL)):
        yield Case(f"cut at {size}", SMALL[:size], "")


def _headers() -> Iterator[Case]:
    for version in (b"\x00\x00", b"\x01\x01", b"\x02\x01", b"\x04\x00", b"\xff\xff"):
        yield Case(f"version {version.hex()}", npy_file(SOUND, bytes(8), version), "of version")
    for label, length in {"2^31": 1 << 31, "-1": 0xFFFFFFFF, "10,001": 10_001, "one more": len(SOUND) + 9}.items():
        yield Case(f"header of {label}", npy_file(SOUND, bytes(8), b"\x02\x00", length), "the header claims")
    yield Case("header of 65,535", npy_file(SOUND, bytes(8), length=0xFFFF), "the header claims")
    texts = {
        "nothing": "",
        "blanks": " " * 50,
        "no dictionary": "['descr', '<f4']",
        "an empty dictionary": "{}",
        "unclosed": SOUND[:-1],
        "text after": SOUND + "x",
        "two": SOUND + SOUND,
        "no descr": "{'fortran_order': False, 'shape': (2,), }",
        "no order": "{'descr': '<f4', 'shape': (2,), }",
        "no shape": "{'descr': '<f4', 'fortran_order': False, }",
        "a key twice": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'descr': '<f4'}",
        "another key": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}",
        "a call": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': __import__('os').system('id')}",
        "a call for a shape": "{'descr': '<f4', 'fortran_order': False, 'shape': exit(), }",
        "order as a number": "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }",
        "order as text": "{'descr': '<f4', 'fortran_order': 'False', 'shape': (2,), }",
        "double quotes": SOUND.replace("'", '"'),
        "nested deeply": "(" * 9000,
        "many blanks": "{" + " " * 9000,
        "many blanks in the shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (2" + " " * 9000 + "x), }",
        "many entries": "{" + "'shape': ()," * 800,
        "a NUL": SOUND.replace(" ", "\0"),
    }
    for label, text in texts.items():
        yield Case(f"header: {label}", npy_file(text, bytes(8)), "the header says")
    yield Case("header no UTF-8", npy_file(b"\xff" * 40, bytes(8), b"\x03\x00"), "the header says")


def _types() -> Iterator[Case]:
    for kind in ("", "f4", "<f3", "<f16", ">f4", "|O", "<U3", "|S4", "|V2", "<m8", "<c16", "<f4,<f4", "x" * 5000):
        text = SOUND.replace("<f4", kind)
        yield Case(f"type {kind[:20]}", npy_file(text, bytes(8)), "")
    for kind in ("[('a', '<f4')]", "('<f4', (2,))", "[" * 3000):
        yield Case(f"type {kind[:20]}", npy_file(SOUND.replace("'<f4'", kind), bytes(8)), "records")


def _shapes() -> Iterator[Case]:
    for shape in (
        "2",
        "[2]",
        "(-1,)",
        "(1.0,)",
        "(2",
        "(,)",
        "(2,,)",
        "(2 2)",
        "(L,)",
        "(99999999999999999999,)",
        "(0x2,)",
    ):
        text = SOUND.replace("(2,)", shape)
        yield Case(f"shape {shape}", npy_file(text, bytes(8)), "the header says")
    wrong = {
        "2^63": ("(9223372036854775808,)", "no dimension"),
        "2^60": ("(1152921504606846976,)", ""),
        "over 2^64": ("(4294967296, 4294967296)", "shape"),
        "wraps to 2": ("(288230376151711744, 64)", "shape"),
        "nothing, strides over 2^64": ("(0, 4294967296, 4294967296)", "shape"),
        "rank 33": ("(" + "1," * 32 + "2)", "33 dimensions"),
        "rank 3000": ("(" + "1," * 3000 + ")", "3000 dimensions"),
        "short": ("(3,)", "8 bytes follow"),
        "long": ("(1,)", "8 bytes follow"),
        "empty with bytes": ("(0,)", "8 bytes follow"),
    }
    for label, (shape, says) in wrong.items():
        yield Case(f"shape: {label}", npy_file(SOUND.replace("(2,)", shape), bytes(8)), says)
