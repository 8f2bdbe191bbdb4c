"""The local Hugging Face cache, as huggingface_hub lays it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapcell.cli import hub
from mapcell_formats.errors import NotFound

REVISION = "8b3219a92973c328a8e22fadcfa821b5dc75636a"


def cached(
    cache: Path, name: str, files: dict[str, str], revision: str = REVISION, main: str | None = REVISION
) -> Path:
    """One repository in `cache`: files as links from the snapshot to blobs. The snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (file, text) in enumerate(files.items()):
        (repository / "blobs" / str(number)).write_text(text)
        (snapshot / file).symlink_to(f"../../blobs/{number}")
    if main is not None:
        (repository / "refs" / "main").write_text(main)
    return snapshot


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, str(Path("~/.cache/huggingface/hub").expanduser())),
    ],
)
def test_cache_folder(environment: dict[str, str], folder: str) -> None:
    """The cache is where huggingface_hub's variables say, in their order."""
    assert hub.cache_folder(environment) == Path(folder)


@pytest.mark.parametrize("name", ["org/model", "gpt2", "Org-1/model_x.v2"])
def test_finds_main(name: str, tmp_path: Path) -> None:
    """The weights of the revision that refs/main names are found, among others."""
    snapshot = cached(tmp_path, name, {"model.safetensors": "x"})
    cached(tmp_path, name, {}, revision="0" * 40)
    assert hub.find(name, tmp_path) == snapshot / "model.safetensors"


def test_finds_an_index(tmp_path: Path) -> None:
    """Weights in several files are found by their index, and one file comes before it."""
    index = cached(tmp_path, "org/m", {"model.safetensors.index.json": "{}"}) / "model.safetensors.index.json"
    assert hub.find("org/m", tmp_path) == index
    (index.parent / "model.safetensors").write_text("x")
    assert hub.find("org/m", tmp_path) == index.parent / "model.safetensors"


def test_only_revision(tmp_path: Path) -> None:
    """Without refs/main the one revision that is there will do."""
    snapshot = cached(tmp_path, "org/m", {"model.safetensors": "x"}, main=None)
    assert hub.find("org/m", tmp_path) == snapshot / "model.safetensors"


@pytest.mark.parametrize("name", ["org/other", "../org", "org/..", "..", "a/b/c", "org\n", "", "org/mod el", "/etc"])
def test_finds_nothing(name: str, tmp_path: Path) -> None:
    """Other names find nothing, and none leads out of the cache."""
    cached(tmp_path / "cache", "org/model", {"model.safetensors": "x"})
    assert hub.find(name, tmp_path / "cache") is None


@pytest.mark.parametrize(
    ("files", "main", "word"),
    [
        ({"config.json": "{}"}, REVISION, "without model.safetensors"),
        ({}, "../../../etc", "2 revisions"),
        ({}, None, "2 revisions"),
    ],
)
def test_refusals(files: dict[str, str], main: str | None, word: str, tmp_path: Path) -> None:
    """A cached repository that cannot be loaded is refused with what to do instead."""
    cached(tmp_path, "org/m", files, main=main)
    if main != REVISION:
        cached(tmp_path, "org/m", {}, revision="1" * 40, main=main)
    with pytest.raises(NotFound, match=word):
        hub.find("org/m", tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/c/models--org--my--model/snapshots/{REVISION}/model.safetensors", "org/my--model"),
        (f"/c/models--gpt2/snapshots/{REVISION}/model.safetensors", "gpt2"),
        ("/models/minilm/model.safetensors", None),
        ("/model.safetensors", None),
    ],
)
def test_repository_of(path: str, name: str | None) -> None:
    """A path into the cache tells its repository; another tells none."""
    assert hub.repository_of(Path(path)) == name
