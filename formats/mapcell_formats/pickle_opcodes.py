"""The opcodes of pickles that plain data never needs, by name, so that an error can say which one it met.

Source: CPython's Lib/pickletools.py.
"""

from __future__ import annotations

from collections.abc import Mapping

REFUSED: Mapping[int, str] = {
    0x80: "PROTO",
    0x81: "NEWOBJ",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x8B: "LONG4",
    0x8D: "BINUNICODE8",
    0x8E: "BINBYTES8",
    0x8F: "EMPTY_SET",
    0x90: "ADDITEMS",
    0x91: "FROZENSET",
    0x92: "NEWOBJ_EX",
    0x96: "BYTEARRAY8",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
    **{
        ord(letter): name
        for letter, name in {
            "0": "POP",
            "1": "POP_MARK",
            "2": "DUP",
            "B": "BINBYTES",
            "C": "SHORT_BINBYTES",
            "F": "FLOAT",
            "I": "INT",
            "L": "LONG",
            "P": "PERSID",
            "S": "STRING",
            "T": "BINSTRING",
            "U": "SHORT_BINSTRING",
            "V": "UNICODE",
            "d": "DICT",
            "g": "GET",
            "i": "INST",
            "l": "LIST",
            "o": "OBJ",
            "p": "PUT",
        }.items()
    },
}
