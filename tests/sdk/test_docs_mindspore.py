"""docs/mindspore.md says of every documented name what becomes of it, and each is there."""

import importlib
import re
from pathlib import Path

import pytest

import mapcell
from mapcell import Parameter, Tensor, nn

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "mindspore.md").read_text()
NAMES = (ROOT / "tests" / "data" / "mindspore" / "names.txt").read_text()


def documented():
    """(owner, name) of every public name, from the list of facts."""
    lines = [line.split(": ") for line in NAMES.splitlines() if not line.startswith("#")]
    return [(owner, name) for owner, names in lines for name in names.split()]


def section(title):
    """The rows of the tables under a heading: their first cell's text, and what the second says."""
    text = DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`|]+)` \| ([^|]+?) \|", text, flags=re.M)


SECTIONS = {"Cell": "nn.Cell", "Parameter": "Parameter"}
REST = "Everything else the documentation uses"


def rows(owner):
    """What the document says of the names of one owner."""
    if owner in SECTIONS:
        return section(SECTIONS[owner])
    start = f"{owner}."
    return [(name[len(start) :], said) for name, said in section(REST) if name.rpartition(".")[0] == owner]


@pytest.mark.parametrize("owner", sorted({owner for owner, _ in documented()}))
def test_every_name_has_one_row(owner):
    """No name is missing from the tables, none is there twice, and none was invented."""
    expected = sorted(name for of, name in documented() if of == owner)
    assert sorted(name for name, _ in rows(owner)) == expected


@pytest.mark.parametrize(("owner", "name"), documented())
def test_what_is_said_is_understood(owner, name):
    """Each row says works, flag kept or raises."""
    assert dict(rows(owner))[name] in ("works", "flag kept", "raises")


CELL, PARAMETER = nn.Dense(2, 2), Parameter(Tensor([1.0]))


@pytest.mark.parametrize(("owner", "name"), documented())
def test_every_name_is_there(owner, name):
    """What is said to work or to be kept can be had: from the class, its constructor or its module."""
    match owner:
        case "Cell":
            assert hasattr(CELL, name) or name in nn.Cell.__init__.__annotations__
        case "Parameter":
            assert hasattr(PARAMETER, name) or name in Parameter.__init__.__annotations__
        case _:
            assert getattr(importlib.import_module(owner), name) is not None


def test_links_lead_somewhere():
    """Every link within the document has its heading, and every name left out raises what is promised."""
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.+)$", DOCUMENT, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT)) <= headings
    with pytest.raises(mapcell.NotOffered):
        _ = mapcell.Model


def test_what_is_left_out_is_left_out():
    """The names of the last section are not there, the others of the document are."""
    last = DOCUMENT.split("## What is left out")[1]
    for name in re.findall(r"`(\w+)`", last):
        homes = [home for home in (mapcell, nn, mapcell.ops) if hasattr(home, name)]
        assert not homes or name in ("NotOffered",), name
