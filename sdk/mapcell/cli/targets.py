"""What the SOURCE of `load` means: a model that the daemon knows, a file, or a repository in the Hugging Face cache."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import click

from mapcell_formats.errors import NotFound

from . import hub
from .asking import ask

# Files that everybody calls the same: their folder says which model they are.
_ANONYMOUS = frozenset(
    {"model", "pytorch_model", "diffusion_pytorch_model", "adapter_model", "weights", "checkpoint", "consolidated"}
)
# Only these: a folder's name may hold dots as well.
_SUFFIX = re.compile(r"\.(safetensors|bin|ckpt|pt|pth|gguf|npz|npy|h5)(\.index\.json)?$|\.json$")


@dataclass(frozen=True, slots=True)
class Wish:
    """What `load` was asked for besides the source. `dtype` is a code of dtypes.CODES or ""."""

    name: str
    tag: str
    residence: str
    dtype: str
    pin: bool
    wait: bool

    def of_files_only(self) -> list[str]:
        """The options in use that only go with a file, not with a model that the daemon is configured with."""
        given = {
            "--name": self.name,
            "--tag": self.tag,
            "--residence": self.residence != "auto",
            "--pin": self.pin,
        }
        return [option for option, value in given.items() if value]


@dataclass(frozen=True, slots=True)
class Known:
    """A model that the daemon holds or is configured with."""

    name: str


@dataclass(frozen=True, slots=True)
class File:
    """A checkpoint on disk, and what the model is to be called."""

    path: str
    name: str


def locate(source: str, wish: Wish) -> Known | File:
    """What SOURCE means. The daemon's NotFound, with where else was looked, when it is nothing."""
    from mapcell.attaching import is_path

    if is_path(source) or not _is_utf8(source):
        return _file(source, wish)
    unknown = _unknown(source, wish)
    if unknown is None:
        return _known(source, wish)
    if os.path.exists(source):
        return _file(source, wish)
    cache = hub.cache_folder()
    found = hub.find(source, cache)
    if found is not None:
        return File(str(found), wish.name or source)
    raise NotFound(f"{unknown.message}; nor is there a file of that name, nor is it in {cache}", model=source)


def _unknown(name: str, wish: Wish) -> NotFound | None:
    """The daemon's refusal to know `name`, None when it knows it. The ticket for it is left to expire."""
    from mapcell_formats.messages import Attach, Selection

    try:
        ask(Attach(name, Selection(wish.dtype)))
    except NotFound as exc:
        return exc
    return None


def _known(name: str, wish: Wish) -> Known:
    if options := wish.of_files_only():
        raise click.UsageError(
            f"{name!r} is a model that the daemon knows, and {', '.join(options)} only goes with a file; "
            f"say ./{name} for a file of that name"
        )
    return Known(name)


def _file(source: str, wish: Wish) -> File:
    path = os.path.abspath(os.path.expanduser(source))
    return File(path, wish.name or default_name(Path(path)))


def default_name(path: Path) -> str:
    """What the model at `path` is called: its repository in a Hugging Face cache, its folder, or its file's stem.

    Characters that a name may not hold become "-".
    """
    if repository := hub.repository_of(path):
        return repository
    stem = _SUFFIX.sub("", path.name)
    if stem in _ANONYMOUS and path.parent.name:
        stem = path.parent.name
    clean = "".join(c if _may_name(c) else "-" for c in stem)
    return re.sub(r"-+", "-", clean).strip("-").lstrip(".~-") or "model"


def _may_name(char: str) -> bool:
    return char.isprintable() and char not in "@: "


def _is_utf8(text: str) -> bool:
    """Whether `text` can be a model's name at all: an argument of odd bytes is at best a file's."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
