"""Finds a model in the local Hugging Face cache. Nothing is downloaded.

The cache holds hub/models--ORG--NAME/snapshots/REVISION/FILE, and refs/main with the revision that "main" is.
Source: https://huggingface.co/docs/huggingface_hub, "Understand caching" and "Environment variables".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from mapcell_formats.errors import NotFound

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# What the hub allows for a name, with or without its organisation in front; "." and ".." would leave the cache.
_PART = r"(?!\.+(?:/|$))[A-Za-z0-9._-]{1,96}"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})?")


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the cache lies: HF_HUB_CACHE, else hub in HF_HOME, else in the user's cache folder."""
    if named := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(named).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def find(name: str, cache: Path) -> Path | None:
    """The weights of the repository `name` at the revision "main", None when the cache holds no such repository.

    One file, or the index of several. NotFound when the cache holds no revision or no weights of it.
    """
    if not _REPOSITORY.fullmatch(name):
        return None
    repository = cache / f"models--{name.replace('/', '--')}"
    if not repository.is_dir():
        return None
    snapshot = _snapshot(repository, name)
    for weights in (WEIGHTS, _INDEX):
        if (snapshot / weights).exists():
            return snapshot / weights
    raise NotFound(
        f"{name} is in the Hugging Face cache without {WEIGHTS} ({snapshot}); give the path of the file that you want",
        path=str(snapshot),
    )


def repository_of(path: Path) -> str | None:
    """The repository that the cached file `path` is of, None when it does not lie in a cache."""
    parts = path.parts
    if len(parts) < 4 or parts[-3] != "snapshots" or not parts[-4].startswith("models--"):
        return None
    return parts[-4].removeprefix("models--").replace("--", "/", 1)


def _snapshot(repository: Path, name: str) -> Path:
    reference = repository / "refs" / "main"
    if reference.exists():
        revision = reference.read_text().strip()
        if re.fullmatch(r"[0-9A-Za-z]+", revision) and (repository / "snapshots" / revision).is_dir():
            return repository / "snapshots" / revision
    snapshots = list((repository / "snapshots").glob("*"))
    if len(snapshots) == 1:
        return snapshots[0]
    raise NotFound(
        f"{name} has {len(snapshots)} revisions in the Hugging Face cache and none of them is main; give the path of "
        f"one below {repository / 'snapshots'}",
        path=str(repository),
    )
