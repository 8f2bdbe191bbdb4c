"""torch files that attackers or broken disks send."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

from .building import Case, deflated
from .torch_building import (
    ORDERED_DICT,
    V3,
    dict_of,
    number,
    numbers,
    pickled,
    state,
    storage,
    tensor,
    text,
    torch_file,
    tuple_of,
)
from .zip_building import Part, zip_file

SMALL = state(x=tensor())
INT64_MAX = (1 << 63) - 1


def cases() -> Iterator[Case]:
    """Every broken file, with what its error has to say."""
    yield from _executing()
    yield from _opcodes()
    yield from _values()
    yield from _trees()
    yield from _tensors()
    yield from _archives()


def truncations() -> Iterator[Case]:
    """A sound file with its pickle cut at every byte, and the file itself cut at every byte."""
    sound = pickled(dict_of({"x": tensor()}))
    for size in range(len(sound)):
        yield Case(f"pickle cut at {size}", torch_file(sound[:size]), "")
    for size in range(4, len(SMALL)):
        yield Case(f"cut at {size}", SMALL[:size], "")


class _Reduced:
    """Pickles as a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def _executing() -> Iterator[Case]:
    names = (
        "os system", "posix system", "nt system", "subprocess Popen", "builtins eval", "__builtin__ eval",
        "builtins exec", "builtins getattr", "builtins __import__", "importlib import_module", "pickle loads",
        "torch load", "torch._utils _rebuild_qtensor", "torch._utils _rebuild_sparse_tensor", "torch.jit load",
        "torch.hub load", "torch.storage _load_from_bytes", "torch.nn.modules.linear Linear", "numpy ndarray",
        "numpy.core.multiarray scalar", "numpy._core.multiarray _reconstruct", "_codecs encode", "functools partial",
        "operator attrgetter", "collections defaultdict", "collections Counter", "argparse Namespace",
        "torch FloatStorage.x",
        "torch.FloatStorage ", " torch.FloatStorage", "torch._utils _rebuild_tensor_v2.__globals__", "",
        "torch __init__", "torch.serialization _get_layout", "x" * 200 + " y",
    )  # fmt: skip
    for name in names:
        module, _, attribute = name.partition(" ")
        path = f"c{module}\n{attribute}\n".encode()
        yield Case(f"GLOBAL {name[:40]}", torch_file(pickled(path + b")R")), "the pickle names")
        stacked = text(module) + text(attribute) + b"\x93)R"
        yield Case(f"STACK_GLOBAL {name[:40]}", torch_file(pickled(stacked, 4)), "the pickle names")
    real = {
        "system": _Reduced(os.system, ("true",)),
        "eval": _Reduced(eval, ("1",)),
        "open": _Reduced(open, ("/etc/passwd",)),
        "inside": {"x": [{"y": _Reduced(os.getpid, ())}]},
        "class": Case("a", b"", ""),
        "exception": ValueError("x"),
    }
    for label, value in real.items():
        for protocol in (2, 4, 5):
            data = pickle.dumps(value, protocol)
            yield Case(f"pickle of {label}, protocol {protocol}", torch_file(data), "is not executed")
    yield Case("INST", torch_file(pickled(b"(S'true'\nios\nsystem\n")), "")
    yield Case("OBJ", torch_file(pickled(b"(cos\nsystem\nX\x04\0\0\0trueo")), "the pickle names 'os.system'")
    yield Case("NEWOBJ", torch_file(pickled(ORDERED_DICT + b")\x81")), "the opcode NEWOBJ")
    yield Case("NEWOBJ_EX", torch_file(pickled(ORDERED_DICT + b")}\x92", 4)), "the opcode NEWOBJ_EX")
    yield Case("EXT1", torch_file(pickled(b"\x82\x01")), "the opcode EXT1")
    yield Case("PERSID", torch_file(pickled(b"Px\n")), "the opcode PERSID")
    for label, call in {
        "calls text": text("os.system") + tuple_of(text("true")),
        "calls a dtype": b"ctorch\nfloat32\n" + b")",
        "calls a storage class": b"ctorch\nFloatStorage\n" + tuple_of(number(2)),
        "calls OrderedDict with items": ORDERED_DICT + tuple_of(tuple_of()),
        "calls a device without a name": b"ctorch\ndevice\n)",
        "calls with a list": b"ctorch\nSize\n]",
        "calls a tensor": tensor() + b")",
    }.items():
        yield Case(label, torch_file(pickled(call + b"R")), "")
    yield Case("BUILD of a tensor", torch_file(pickled(tensor() + b"}b")), "sets the state")
    yield Case("BUILD with a tuple", torch_file(pickled(b"}" + tuple_of() + b"b")), "sets the state")
    yield Case("BUILD of a function", torch_file(pickled(ORDERED_DICT + b"}b")), "sets the state")


def _opcodes() -> Iterator[Case]:
    bodies = {
        "nothing": b"",
        "two values": b"NN",
        "an open mark": b"(N",
        "pop of nothing": b"\x85",
        "tuple without mark": b"t",
        "items without mark": b"}u",
        "items of nothing": b"(u",
        "item of nothing": text("a") + b"Ns",
        "item of a list": b"]" + text("a") + b"Ns",
        "a key without value": b"}(" + text("a") + b"u",
        "append to a dict": b"}Na",
        "appends to nothing": b"(Ne",
        "memo of nothing": b"q\0",
        "memo 1 before 0": b"Nq\x01",
        "memo 2^32 - 1": b"Nr\xff\xff\xff\xff",
        "memo read before": b"h\0",
        "memo read at 2^32 - 1": b"j\xff\xff\xff\xff",
        "MEMOIZE of nothing": b"\x94",
        "REDUCE of nothing": b"R",
        "BUILD of nothing": b"b",
        "BINPERSID of nothing": b"Q",
        "STACK_GLOBAL of numbers": b"K\x01K\x02\x93",
        "GLOBAL without line": b"c" + b"x" * 1000,
        "GLOBAL with one line": b"ctorch\n",
        "text of 2^31": b"X\0\0\0\x80abc",
        "text of 2^32 - 1": b"X\xff\xff\xff\xffabc",
        "text no UTF-8": text(b"\xff\xfe"),
        "text with half a surrogate": text(b"\xed\xa0\x80"),
        "short text cut": b"\x8c\xffabc",
        "float cut": b"G\0\0",
        "long cut": b"\x8a\xff\x01",
        "frame of 2^63": b"\x95" + (1 << 63).to_bytes(8, "little") + b"N",
        "a second PROTO": b"\x80\x02N",
        "opcode 0": b"\0",
        "opcode 255": b"\xff",
        **{f"opcode {code}": b"NN" + code.encode() for code in "012BCFILPSTUVdgilop"},
        **{f"opcode {code:#x}": b"NN" + bytes([code]) for code in (*range(0x81, 0x85), *range(0x8B, 0x93))},
        **{f"opcode {code:#x}": b"NN" + bytes([code]) for code in range(0x96, 0x99)},
    }  # fmt: skip
    for label, body in bodies.items():
        yield Case(f"opcodes: {label}", torch_file(pickled(body, 4)), "")
    for protocol in (0, 1, 6, 255):
        yield Case(f"protocol {protocol}", torch_file(pickled(dict_of({"x": tensor()}), protocol)), "PROTO")
    yield Case("no PROTO", torch_file(b"}."), "PROTO")
    yield Case("text protocol", torch_file(pickle.dumps({"x": 1}, 0)), "PROTO")
    yield Case("bytes after STOP", torch_file(pickled(dict_of({"x": tensor()})) + b"N"), "follow STOP")
    floods = {
        "None": b"N",
        "marks": b"(",
        "dicts": b"}",
        "lists": b"]",
        "tuples": b"N\x85",
        "tuples in tuples": b"\x85",
        "memo": b"\x94",
        "short text": b"\x8c\x02ab",
        "ordered dicts": b"h\0)R",
    }
    for label, opcode in floods.items():
        body = ORDERED_DICT + b"q\0" + opcode * 20_000
        yield Case(f"flood of {label}", torch_file(pickled(body, 4)), "")


def _values() -> Iterator[Case]:
    for label, body in {
        "None": b"N",
        "text": text("x"),
        "a number": number(5),
        "an empty dict": b"}",
        "a dict without tensors": dict_of({"a": number(1), "b": tuple_of(b"N")}),
        "a storage": storage(),
        "a function": ORDERED_DICT,
        "a dtype": b"ctorch\nfloat32\n",
    }.items():
        yield Case(f"holds {label}", torch_file(pickled(body)), "0 tensors")
    for label, key in {
        "None": b"N",
        "a float": b"G" + bytes(8),
        "True": b"\x88",
        "a tuple": tuple_of(number(1)),
        "-1": b"J\xff\xff\xff\xff",
        "2^70": number(1 << 70),
        "a tensor": tensor(),
    }.items():
        yield Case(f"key {label}", torch_file(pickled(b"}" + key + tensor() + b"s")), "for a key")
    twice = b"}(" + text("x") + tensor() + text("x") + tensor() + b"u"
    yield Case("a key twice", torch_file(pickled(twice)), "comes twice")
    both = b"}(" + text("1") + tensor() + number(1) + tensor() + b"u"
    yield Case("a key as text and number", torch_file(pickled(both)), "comes twice")
    dots = dict_of({"a.b": tensor(), "a": dict_of({"b": tensor()})})
    yield Case("one name on two ways", torch_file(pickled(dots)), "come to be called 'a.b'")


def _trees() -> Iterator[Case]:
    loop = b"}q\0" + text("x") + tensor() + b"s" + text("self") + b"h\0s"
    yield Case("a dict within itself", torch_file(pickled(loop)), "within itself")
    yield Case("a list within itself", torch_file(pickled(b"]q\0h\0a" + tensor() + b"a")), "within itself")
    two = b"}q\0" + text("b") + b"}q\x01" + text("a") + b"h\0s" + text("x") + tensor() + b"ss"
    yield Case("two dicts within one another", torch_file(pickled(two)), "within itself")
    yield Case("lists nested deeply", torch_file(pickled(b"]" * 5000 + tensor() + b"a" * 5000)), "nested too deeply")
    yield Case("tuples nested deeply", torch_file(pickled(tensor() + b"\x85" * 5000)), "nested too deeply")
    yield Case("empty lists nested deeply", torch_file(pickled(b"]" * 5000 + b"a" * 4999)), "")
    laughs = tensor() + b"\x85\x94" + b"".join(b"h" + bytes([i]) * 1 + b"\x86\x94" for i in range(60))
    yield Case("tensors without end", torch_file(pickled(laughs, 4)), "tensors")
    hollow = b")\x85\x94" + b"".join(b"h" + bytes([i]) + b"\x86\x94" for i in range(60))
    yield Case("nothing without end", torch_file(pickled(hollow, 4)), "0 tensors")
    chains = b"".join(_chain(i) for i in range(40))
    yield Case(
        "a deep way found late", torch_file(pickled(b"(" + tensor() + b"\x94" + chains + b"t", 4)), "nested too deeply"
    )
    key = text("k" * 3000) + b"\x94"
    long = tensor() + b"\x94" + key + b"".join(_doubled(i) for i in range(1, 9))
    yield Case("long names many times", torch_file(pickled(b"(" + long + b"t", 4)), "")


def _chain(number: int) -> bytes:
    """40 tuples around what the last one memoized, and memoizes itself."""
    return b"h" + bytes([number]) + b"\x85" * 40 + b"\x94"


def _doubled(number: int) -> bytes:
    """A dict that holds the last memo but one under a long key, and under one more."""
    below = b"h" + bytes([number + 1 if number > 1 else 0])
    return b"}(h\x01" + below + text("x") + below + b"u\x94"


def _tensors() -> Iterator[Case]:
    big = {"0": bytes(800)}
    wrong: dict[str, tuple[bytes, str]] = {
        "more elements than its storage": (tensor((3,)), "reaches from element 0 to byte 12"),
        "beyond its storage": (tensor((2,), offset=1), "reaches"),
        "offset -1": (tensor((1,), offset=-1), "reaches"),
        "offset 2^63": (tensor((1,), offset=1 << 63), "reaches"),
        "offset 2^62": (tensor((1,), offset=1 << 62), "reaches"),
        "strides over the end": (tensor((2,), (2,)), "reaches"),
        "strides 2^61": (tensor((2,), (1 << 61,)), "strides"),
        "strides negative": (tensor((2,), (-1,)), "strides"),
        "strides missing": (tensor((2,), ()), "strides"),
        "strides too many": (tensor((2,), (1, 1)), "strides"),
        "shape negative": (tensor((-1,)), "no dimension"),
        "shape 2^63": (tensor((1 << 63,)), "no dimension"),
        "shape over 2^64": (tensor((1 << 40, 1 << 40), (0, 0)), "shape"),
        "shape of rank 33": (tensor((1,) * 33, (1,) * 33), "33 dimensions"),
        "no elements, strides over 2^64": (tensor((0, 1 << 40, 1 << 40), (1, 1, 1)), "shape"),
        "expanded": (tensor((2, 3), (1, 0)), "was expanded"),
        "expanded to 2^50": (tensor((1 << 50,), (0,)), "was expanded"),
        "sliding windows": (tensor((2, 1, 2), (0, 1, 1)), "was expanded"),
        "storage not there": (tensor(inner=storage("7")), "is not there"),
        "storage with a path": (tensor(inner=storage("../data.pkl")), "is not there"),
        "storage of other size": (tensor(inner=storage(elements=3)), "has 8 bytes"),
        "storage of 2^59": (tensor(inner=storage(elements=1 << 59)), "has 8 bytes"),
        "storage of 2^60": (tensor(inner=storage(elements=1 << 60)), "refers to"),
        "storage of -1": (tensor(inner=storage(elements=-1)), "refers to"),
        "storage of text": (tensor(inner=storage(kind=text("FloatStorage"))), "refers to"),
        "storage of a dtype": (tensor(inner=storage(kind=b"ctorch\nfloat32\n")), "refers to"),
        "complex128": (tensor((1,), inner=storage(elements=1, kind=b"ctorch\nComplexDoubleStorage\n")), "complex128"),
        "quantised": (tensor(inner=storage(elements=8, kind=b"ctorch\nQInt8Storage\n")), "qint8"),
        "bytes without a type": (tensor(inner=storage(elements=8, kind=b"ctorch.storage\nUntypedStorage\n")), "calls"),
        "v3 without a dtype": (tensor(function=V3), "calls"),
        "v3 of no dtype": (tensor(function=V3, more=(text("float32"),)), "calls"),
        "v3 of a type too large": (tensor(function=V3, more=(b"ctorch\nfloat64\n",)), "reaches"),
        "conjugate": (tensor(more=(dict_of({"conj": b"\x88"}),)), "calls"),
        "a persistent id of text": (text("storage") + b"Q", "refers to"),
        "another persistent id": (tuple_of(text("module"), text("x")) + b"Q", "refers to"),
    }  # fmt: skip
    for label, (body, says) in wrong.items():
        yield Case(f"tensor: {label}", state(x=body), says)
    yield Case("tensor: name of 5000 bytes", torch_file(pickled(dict_of({"n" * 5000: tensor()}))), "5000 ")
    yield Case("tensor: name with a NUL", torch_file(pickled(dict_of({"a\0b": tensor()}))), "NUL")
    for label, arguments in {
        "shape a list": (storage(), number(0), b"]", numbers((1,)), b"\x89", b"}"),
        "shape of text": (storage(), number(0), tuple_of(text("2")), numbers((1,)), b"\x89", b"}"),
        "shape of truth values": (storage(), number(0), tuple_of(b"\x88"), numbers((1,)), b"\x89", b"}"),
        "shape of tuples": (storage(), number(0), tuple_of(tuple_of()), numbers((1,)), b"\x89", b"}"),
        "offset True": (storage(), b"\x88", numbers((1,)), numbers((1,)), b"\x89", b"}"),
        "gradient a number": (storage(), number(0), numbers((1,)), numbers((1,)), number(1), b"}"),
        "hooks None": (storage(), number(0), numbers((1,)), numbers((1,)), b"\x89", b"N"),
        "too few": (storage(), number(0)),
        "none": (),
        "a tensor for a storage": (tensor(), number(0), numbers((1,)), numbers((1,)), b"\x89", b"}"),
    }.items():
        body = b"ctorch._utils\n_rebuild_tensor_v2\n" + tuple_of(*arguments) + b"R"
        yield Case(f"arguments: {label}", torch_file(pickled(body), big), "calls _rebuild_tensor_v2")
    parameter = b"ctorch._utils\n_rebuild_parameter\n" + tuple_of(text("x"), b"\x89", b"}") + b"R"
    yield Case("arguments: a parameter of text", torch_file(pickled(parameter)), "calls _rebuild_parameter")


def _archives() -> Iterator[Case]:
    sound = pickled(dict_of({"x": tensor()}))
    yield Case("big-endian", torch_file(sound, others={"byteorder": b"big"}), "is big-endian")
    yield Case("byteorder nonsense", torch_file(sound, others={"byteorder": b"littleish"}), "byteorder says")
    yield Case(
        "TorchScript", torch_file(sound, others={"constants.pkl": b"\x80\x02}.", "code/x.py": b""}), "TorchScript"
    )
    yield Case("no storage", torch_file(sound, {}), "is not there")
    yield Case("empty pickle", torch_file(b""), "PROTO")
    yield Case("pickle in a folder too deep", zip_file([Part("a/b/data.pkl", sound)]), "without a pickle")
    yield Case(
        "pickle of 65 MiB", zip_file([Part("m/data.pkl", deflated(bytes(65 << 20)), 65 << 20, method=8)]), "at most"
    )
    bomb = deflated(b"\x80\x02" + b"(" * 100_000)
    yield Case("pickle that inflates", zip_file([Part("m/data.pkl", bomb, 100_002, method=8)]), "CRC-32")
    transposed = pickled(dict_of({"x": tensor((2, 2), (1, 2), inner=storage(elements=4))}))
    packed = zip_file(
        [Part("m/data.pkl", transposed), Part("m/data/0", deflated(bytes(16)), 16, crc=0xECBB4B55, method=8)]
    )
    yield Case("a transposed tensor in a compressed storage", packed, "compressed storage")
