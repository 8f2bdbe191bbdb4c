"""The configuration: what a file may say, what wins, and how a mistake is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcelld import config_file, memory
from mapcelld.config import Config, ConfigError, Metrics, ModelConfig, Principals, Quota, default_budget
from mapcelld.config_file import load, parse_size

FULL = """
budget = "2GiB"
residence = "sealed"
huge_pages = "try"
drop_cache = true
guard_deadline = "1500ms"
roots = ["/models/", "/var/../srv"]
[allow]
users = ["root", "4242"]
groups = ["0"]
operators = { users = ["7"], groups = ["8"] }
[quota]
leases = 3
staged = "1MiB"
[metrics]
textfile = "/var/lib/../lib/m.prom"
socket = "metrics.sock"
listen = "[::1]:9464"
[[model]]
name = "org/minilm"
source = "/models/minilm"
dtype = "bfloat16"
pin = true
preload = true
follow = true
on_change = "refuse"
allow = { groups = ["9"] }
digest = "sha256:%s"
[[model]]
name = "other"
source = "/models/other"
residence = "mapped"
""" % ("0" * 64)


def written(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "c.toml"
    path.write_text(text)
    return path


def test_everything(tmp_path: Path) -> None:
    """Every key arrives, paths normalised, names looked up, sizes in bytes."""
    config = load(written(tmp_path, FULL), {})
    assert config == Config(
        budget=2 << 30,
        residence="sealed",
        huge_pages="try",
        drop_cache=True,
        guard_deadline=1.5,
        roots=("/models", "/srv"),
        allow=Principals(frozenset({0, 4242}), frozenset({0})),
        operators=Principals(frozenset({7, os.geteuid()}), frozenset({8})),
        quota=Quota(leases=3, staged=1 << 20),
        metrics=Metrics("/var/lib/m.prom", "metrics.sock", ("::1", 9464)),
        models=(
            ModelConfig(
                "org/minilm",
                "/models/minilm",
                residence="sealed",
                dtype="BF16",
                pin=True,
                preload=True,
                follow=True,
                on_change="refuse",
                allow=Principals(groups=frozenset({9})),
                digest="sha256:" + "0" * 64,
            ),
            ModelConfig("other", "/models/other", residence="mapped"),
        ),
    )
    assert config.model("other") is config.models[1]
    assert config.model("minilm") is None
    assert config.mentions_groups()


def test_nothing(tmp_path: Path) -> None:
    """An empty file is a configuration: most of the memory, nobody kept out, this user the operator."""
    config = load(written(tmp_path, ""), {})
    assert config.budget == default_budget(memory.total()) > 0
    assert (config.allow, config.models, config.residence) == (None, (), "auto")
    assert config.operators == Principals(frozenset({0, os.geteuid()}))
    assert not config.mentions_groups()


def test_order(tmp_path: Path) -> None:
    """Arguments win over the environment, which wins over the file."""
    path = written(tmp_path, 'budget = "5"')
    named = {"MAPCELL_CONFIG": str(path), "MAPCELL_LOG": "warning"}
    assert (load(None, named).budget, load(None, named).log_level) == (5, "WARNING")
    assert load(None, named, budget="1KiB", log_level="debug") == load(path, {}, budget="1024", log_level="DEBUG")
    other = tmp_path / "other.toml"
    other.write_text('budget = "6"')
    assert load(other, named, runtime="/run/x") == load(other, {"MAPCELL_LOG": "WARNING"}, runtime="/run/x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("budgte = 1", "c.toml, line 1: unknown key budgte; did you mean budget?"),
        ("\nzzz = 1", "c.toml, line 2: unknown key zzz; known are budget"),
        ("budget = true", "c.toml, line 1: budget = True is no size"),
        ("budget = -1", "'-1' is no size"),
        ("budget = 1.5", "budget = 1.5 is no size"),
        ('budget = "5 apples"', "'5 apples' is no size; say 48GiB"),
        ('budget = "%s"' % ("9" * 400), "is no size"),
        ('residence = "seald"', "line 1: residence = 'seald': say sealed"),
        ("residence = []", "residence = []: say"),
        ("drop_cache = 1", "drop_cache has to be true or false"),
        ('roots = "/a"', "roots has to be a list of strings"),
        ('roots = ["a"]', "'a' is no absolute path"),
        ("roots = [1]", "roots has to be a list of strings"),
        ("allow = 1", "allow has to be a table"),
        ("[allow]\nuser = []", "line 2: unknown key allow.user; did you mean allow.users?"),
        ('[allow]\nusers = ["no-such-user-here"]', "line 2: allow.users: this host has no user 'no-such-user-here'"),
        ('[allow]\ngroups = ["²"]', "this host has no group '²'"),
        ("[allow]\noperators = 3", "allow.operators has to be a table"),
        ("[quota]\nleases = 0", "line 2: quota.leases = 0 has to be a whole number from 1"),
        ("[quota]\nleases = true", "whole number"),
        (
            "[[model]]\nname = 'a'\nsource = '/a'\nfolow = true",
            "line 4: unknown key model.folow; did you mean model.follow?",
        ),
        ("[[model]]\nname = 'a'\nsource = '/a'\nfollow = 1", "line 4: model.follow has to be true or false"),
        ("metrics = 1", "metrics has to be a table"),
        ("[metrics]\nlisten = 9464", "line 2: metrics.listen = 9464: say an address and a port"),
        ("[metrics]\nlisten = '127.0.0.1'", 'say an address and a port, "127.0.0.1:9464"'),
        ("[metrics]\nlisten = '127.0.0.1:70000'", "say an address and a port"),
        ("[metrics]\nlisten = '127.0.0.1:0'", "say an address and a port"),
        ("[metrics]\nlisten = '0.0.0.0:9464'", "0.0.0.0 is no loopback address"),
        ("[metrics]\nlisten = '[::]:9464'", "is no loopback address"),
        ("[metrics]\nlisten = 'example.org:9464'", "'example.org' is no address"),
        ("[metrics]\nlisten = ':9464'", "'' is no address"),
        ("[metrics]\nsocket = '../x'", "line 2: metrics.socket = '../x': say a name in the runtime folder"),
        ("[metrics]\nsocket = ''", "metrics.socket = ''"),
        ("[metrics]\nsocket = 'lock'", "metrics.socket = 'lock'"),
        ("[metrics]\nsocket = 'control.sock'", "metrics.socket = 'control.sock'"),
        ("[metrics]\ntextfile = 'm.prom'", "'m.prom' is no absolute path"),
        ("[metrics]\nfile = '/m.prom'", "unknown key metrics.file; did you mean metrics.textfile?"),
        ("model = 3", "line 1: model has to be an array of tables: write [[model]]"),
        ("[model]\nname = 'x'", "write [[model]]"),
        ("model = [1]", "model has to be a table"),
        ("[[model]]\nname = 'x'", "a [[model]] needs source"),
        ("[[model]]\nname = ''\nsource = '/x'", "a [[model]] needs name"),
        ("[[model]]\nname = 'x:y'\nsource = '/x'", "no blanks, @ or :"),
        ("[[model]]\nname = 'x'\nsource = 'x'", "line 3: model.source: 'x' is no absolute path"),
        ("[[model]]\nname = 'x'\nsource = '/x'\ndtype = 'int8'", "line 4: model.dtype = 'int8' is no floating dtype"),
        ("[[model]]\nname = 'x'\nsource = '/x'\ndtype = []", "is no floating dtype"),
        ("[[model]]\nname = 'x'\nsource = '/x'\ndigest = 'md5:1'", "say blake3: or sha256:"),
        ("[[model]]\nname = 'x'\nsource = '/x'\n[[model]]\nname = 'x'\nsource = '/y'", "model name 'x' stands twice"),
        ("guard_deadline = 5", "line 1: guard_deadline = 5 is no time; say"),
        ("guard_deadline = '0s'", "is no time"),
        ("guard_deadline = '5 h'", "is no time"),
        ("[[model]]\nname = 'x'\nsource = '/x'\non_change = 'copies'", "line 4: model.on_change = 'copies': say copy"),
        ("budget =", "c.toml: "),
        ("budget = 1\nbudget = 2", "c.toml: "),
    ],
)
def test_mistakes(tmp_path: Path, text: str, says: str) -> None:
    """A mistake is named with file, line, key and what would do."""
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), {})
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff")])
def test_unreadable(tmp_path: Path, make: Any) -> None:
    """A file that was named and cannot be read is a mistake too."""
    make(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match=r"c\.toml: "):
        load(tmp_path / "c.toml", {})


def test_log_level(tmp_path: Path) -> None:
    """An unknown level is named with those that there are."""
    with pytest.raises(ConfigError, match="'LOUD': say debug, info"):
        load(written(tmp_path, ""), {"MAPCELL_LOG": "loud"})


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("0", 0),
        ("1073741824", 1 << 30),
        ("48GiB", 48 << 30),
        ("48 gib", 48 << 30),
        (" 1.5GiB ", 3 << 29),
        ("500MB", 500_000_000),
        ("2k", 2048),
        ("1T", 1 << 40),
        ("123456789012345678B", 123456789012345678),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    """Binary and decimal units, exactly."""
    assert parse_size(text) == nbytes


@given(text=st.text(max_size=30) | st.from_regex(r"[0-9.eE+-]{1,25} ?[kKmMgGtTiIbB]{0,4}", fullmatch=True))
def test_any_size(text: str) -> None:
    """Whatever is written for a size is one, or a ConfigError."""
    try:
        nbytes = parse_size(text)
    except ConfigError:
        return
    assert nbytes >= 0


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    ["budget", "residence", "huge_pages", "drop_cache", "roots", "allow", "quota", "model", "users", "name", "source"]
)


@given(raw=st.dictionaries(_KEYS, _VALUES | st.lists(st.dictionaries(_KEYS, _VALUES, max_size=4), max_size=2)))
def test_any_content(raw: dict[str, Any]) -> None:
    """Whatever a file holds under known keys is a configuration or a ConfigError."""
    try:
        config = config_file._whole(raw, Config(budget=1))
    except ConfigError:
        return
    assert isinstance(config, Config)
