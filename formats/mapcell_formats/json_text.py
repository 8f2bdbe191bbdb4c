"""JSON read piece by piece, so that a broken text is refused where it breaks and costs what was read before it.

`json.loads` would build objects worth 20 times the text first. Each method takes a position in the text and answers
with what it read and the position after it. Source: RFC 8259.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from .errors import FormatError

BLANKS = " \t\r\n"
_skip_blanks = re.compile(r"[ \t\r\n]*").match


class JsonText:
    """The text of one JSON document, which begins at byte `start` of the file `path`."""

    def __init__(self, text: str, path: str, start: int) -> None:
        self.text = text
        self.path = path
        self._start = start

    def string(self, pos: int) -> tuple[str, int]:
        """The string at `pos`, which UTF-8 can hold."""
        pos = self.expect('"', pos, "a string") - 1
        try:
            text, end = _DECODER.raw_decode(self.text, pos)
            text.encode()
        except ValueError as exc:
            self.fail(f"a string is broken ({_reason(exc)})", pos, "JSON text")
        return text, end

    def value(self, start: int, stop: int, expected: str, tensor: str | None = None) -> tuple[Any, int]:
        """The value at `start`, which has to end by `stop`; objects come as tuples of pairs."""
        try:
            value, end = _DECODER.raw_decode(self.text[start:stop])
        except RecursionError:
            self.fail("an entry is nested too deeply", start, expected, tensor)
        except ValueError as exc:
            self.fail(f"an entry is no JSON ({_reason(exc)})", start + getattr(exc, "pos", 0), expected, tensor)
        return value, start + end

    def separator(self, pos: int) -> tuple[int, bool]:
        """The position after the comma or brace at `pos`, and whether it was a comma."""
        more = self.peek(pos) == ","
        return self.expect("," if more else "}", pos, "',' or '}'"), more

    def peek(self, pos: int) -> str:
        """The first character at or after `pos` that is no blank; "" at the end."""
        pos = self.blanks(pos)
        return self.text[pos : pos + 1]

    def expect(self, char: str, pos: int, what: str) -> int:
        """The position after `char`, which has to be the next that is no blank."""
        pos = self.blanks(pos)
        if not self.text.startswith(char, pos):
            self.fail(f"found {self.text[pos : pos + 1]!r}" if pos < len(self.text) else "the text ends", pos, what)
        return pos + 1

    def blanks(self, pos: int) -> int:
        """The position after the blanks at `pos`."""
        found = _skip_blanks(self.text, pos)
        return found.end() if found else pos

    def byte(self, pos: int) -> int:
        """The offset in the file of the first character at or after `pos` that is no blank."""
        return self._start + len(self.text[: self.blanks(pos)].encode())

    def fail(self, message: str, pos: int, expected: str, tensor: str | None = None) -> NoReturn:
        """Raises FormatError about the character at `pos`."""
        raise FormatError(message, path=self.path, tensor=tensor, offset=self.byte(pos), expected=expected)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


# Objects become tuples of pairs: nothing else tells them from arrays while keeping what was listed twice.
_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=_refuse_constant)


def _reason(exc: ValueError) -> str:
    return exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)[:80]
