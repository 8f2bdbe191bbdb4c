"""The index of a checkpoint in several files: JSON that says which tensor lies in which of them.

    Hugging Face  model.safetensors.index.json, pytorch_model.bin.index.json:
                  {"metadata": {"total_size": 123, ...}, "weight_map": {NAME: FILE, ...}}
    MindSpore     param_name_map.json: {NAME: FILE, ...}, with or without "weight_map" around it

FILE lies in the index's own folder. An index promises nothing about its tensors but their place, so its "metadata" is
skipped. What it says is compared with what the files hold: neither may list a tensor that the other does not.

Source: huggingface_hub, serialization/_base.py; transformers, `save_pretrained`; mindspore.unified_safetensors. They
join the names of files unchecked to the folder; here a name that could lead elsewhere is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from .checkpoint import Checkpoint
from .checks import brief, name_fault
from .errors import FormatError, UnsupportedFormat
from .json_text import JsonText
from .limits import MAX_TENSORS
from .messages import MAX_DESCRIPTORS
from .source import ByteSource, opens_with_brace, read

# 300,000 tensors with long names. The largest published models have under 100,000.
MAX_INDEX_BYTES = 32_000_000
# The index and its files travel to the daemon in one message.
MAX_FILES = MAX_DESCRIPTORS
# Linux's own limit.
MAX_FILE_NAME_BYTES = 255
# What stands beside the map of tensors: sizes and settings.
MAX_ASIDE_CHARS = 65_536

_WEIGHT_MAP = "weight_map"
# In a map without "weight_map" around it this tells a file from a setting, such as those of a config.json.
_MINDSPORE_SUFFIX = ".safetensors"
# An entry as every known writer puts it down, with a name that needs no check. What does not match is read slowly.
_USUAL = re.compile(r'[ \t\r\n]*"([^"\\\x00-\x1f]{0,1024})"[ \t\r\n]*:[ \t\r\n]*"([^"\\\x00-\x1f]+)"[ \t\r\n]*([,}])')
_EXPECTED = 'an index ({"weight_map": {tensor: file}})'


@dataclass(frozen=True, slots=True)
class Index:
    """A checkpoint's files in the order of their names, and in which of them each tensor lies."""

    path: str
    files: tuple[str, ...]
    file_of: Mapping[str, int]

    def check(self, parts: Sequence[Checkpoint]) -> None:
        """FormatError, with tensor and file, unless `parts`, read from `files`, hold what the index says."""
        for number, part in enumerate(parts):
            held = {tensor.name for tensor in part.tensors}
            for name in held:
                if self.file_of.get(name) != number:
                    self._misplaced(name, part.sources[0].path)
        if sum(len(part.tensors) for part in parts) != len(self.file_of):
            found = set(chain.from_iterable((tensor.name for tensor in part.tensors) for part in parts))
            name = min(self.file_of.keys() - found)
            path = parts[self.file_of[name]].sources[0].path
            raise FormatError("is not in this file", path=path, tensor=name, expected=f"it there, as {self.path} says")

    def _misplaced(self, name: str, path: str) -> None:
        listed = self.file_of.get(name)
        says = "does not list it" if listed is None else f"lists it in {self.files[listed]}"
        raise FormatError(
            f"is in this file, but {self.path} {says}", path=path, tensor=name, expected="an index that fits"
        )


def is_index(head: bytes) -> bool:
    """Whether a file that begins with `head` may be an index: text that opens with a brace."""
    return opens_with_brace(head)


def parse_index(source: ByteSource) -> Index:
    """The index in `source`. UnsupportedFormat when it is JSON of another kind, FormatError when it is broken."""
    if source.size > MAX_INDEX_BYTES:
        message = f"looks like text of {source.size} bytes"
        raise UnsupportedFormat(message, path=source.path, offset=0, expected=f"an index of up to {MAX_INDEX_BYTES}")
    try:
        text = read(source, 0, source.size).decode()
    except UnicodeDecodeError as exc:
        raise FormatError("is no UTF-8", path=source.path, offset=exc.start, expected="JSON in UTF-8") from exc
    walk = _Walk(text, source.path)
    return walk.run()


def file_name_fault(name: str) -> str | None:
    """Why `name` cannot name a file in the index's own folder, or None."""
    if len(name.encode()) > MAX_FILE_NAME_BYTES:
        return f"a file name of {len(name.encode())} bytes"
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return f"the file name {brief(name)} is none in this folder"
    return None


class _Walk(JsonText):
    """One pass over the text."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text, path, 0)
        self._file_of: dict[str, str] = {}
        self._files: dict[str, str] = {}

    def run(self) -> Index:
        pos = self._outer()
        if self.blanks(pos) != len(self.text):
            self.fail("text after the index's object", self.blanks(pos), "blanks only")
        if not self._file_of:
            raise UnsupportedFormat(
                "looks like text: JSON that names no tensors", path=self.path, offset=0, expected=_EXPECTED
            )
        files = sorted(self._files)
        number = {name: i for i, name in enumerate(files)}
        places = map(number.__getitem__, self._file_of.values())
        return Index(self.path, tuple(files), dict(zip(self._file_of, places, strict=True)))

    def _outer(self) -> int:
        pos = self.expect("{", 0, "a JSON object")
        more = self.peek(pos) != "}"
        if not more:
            return self.expect("}", pos, "'}'")
        had_map = False
        while more:
            at = self.blanks(pos)
            key, pos = self.string(at)
            pos = self.expect(":", pos, "':' after a key")
            if key == _WEIGHT_MAP:
                if had_map or self._file_of:
                    self.fail(f"{_WEIGHT_MAP} comes twice", at, "one map of tensors")
                had_map, pos = True, self._map(pos)
            else:
                pos = self._either(key, at, pos, had_map)
            pos, more = self.separator(pos)
        return pos

    def _either(self, key: str, at: int, pos: int, had_map: bool) -> int:
        """Reads what stands beside a map, or a tensor of MindSpore's map without one."""
        start = self.blanks(pos)
        value, end = self.value(start, start + MAX_ASIDE_CHARS, f"a value of at most {MAX_ASIDE_CHARS} characters")
        is_file = not had_map and isinstance(value, str) and value.endswith(_MINDSPORE_SUFFIX)
        return self._place(key, at, pos) if is_file else end

    def _map(self, pos: int) -> int:
        pos = self.expect("{", pos, f"an object for {_WEIGHT_MAP}")
        more = self.peek(pos) != "}"
        if not more:
            return self.expect("}", pos, "'}'")
        while more:
            pos, more = self._usual(pos)
            if more:
                at = self.blanks(pos)
                name, pos = self.string(at)
                pos = self._place(name, at, self.expect(":", pos, "':' after a name"))
                pos, more = self.separator(pos)
        return pos

    def _usual(self, pos: int) -> tuple[int, bool]:
        """Reads entries while they look as usual -> (where it stopped, whether the map goes on there)."""
        match, text, files, file_of = _USUAL.match, self.text, self._files, self._file_of
        while found := match(text, pos):
            name, file, after = found.groups()
            # A file's name is checked where it comes first; so is a name that comes twice, or too many of them.
            if name in file_of or file not in files or len(file_of) >= MAX_TENSORS:
                break
            file_of[name] = files[file]
            pos = found.end()
            if after == "}":
                return pos, False
        return pos, True

    def _place(self, name: str, at: int, pos: int) -> int:
        if fault := name_fault(name):
            self.fail(fault.message, at, fault.expected, name[:80])
        if name in self._file_of:
            self.fail("is listed twice", at, "each name once", name)
        if len(self._file_of) == MAX_TENSORS:
            self.fail("too many tensors", at, f"at most {MAX_TENSORS}")
        start = self.blanks(pos)
        file, pos = self.string(start)
        # One string for each file, not one for each tensor.
        self._file_of[name] = self._files.get(file) or self._new_file(file, name, start)
        return pos

    def _new_file(self, file: str, name: str, start: int) -> str:
        if fault := file_name_fault(file):
            self.fail(fault, start, "the name of a file beside the index", name)
        if len(self._files) + 1 == MAX_FILES:
            message, advice = f"{MAX_FILES} files and more", "merge some, or convert the checkpoint to fewer"
            expected = f"up to {MAX_FILES - 1} files beside their index: {advice}"
            raise UnsupportedFormat(message, path=self.path, offset=self.byte(start), expected=expected)
        self._files[file] = file
        return file
