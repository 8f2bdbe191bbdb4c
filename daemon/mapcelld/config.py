"""Configuration: TOML, then environment, then arguments; validated once, then frozen."""

from __future__ import annotations

import grp
import os
import pwd
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mapcell_formats.dtypes import FLOATING, parse_dtype
from mapcell_formats.errors import MapcellError

DEFAULT_PATH = Path("/etc/mapcell/mapcelld.toml")
RESIDENCES = ("auto", "mapped", "sealed")
# The rest is for the workers' own memory and the page cache of what is mapped.
_BUDGET_SHARE = 0.8
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_UNITS |= {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class ConfigError(MapcellError, ValueError):
    """A configuration that cannot be used: which key, what is wrong, what would do."""


@dataclass(frozen=True, slots=True)
class Principals:
    """Users and groups, as uids and gids."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()

    def include(self, uid: int, groups: frozenset[int]) -> bool:
        """Whether a process of `uid` in `groups` is one of them."""
        return uid in self.users or bool(groups & self.groups)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model that the operator named: staged when first asked for, or at start when `preload` is set."""

    name: str
    source: str
    residence: str = "auto"
    dtype: str = ""
    pin: bool = False
    preload: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured. `budget` in bytes of sealed memory."""

    budget: int
    runtime: str | None = None
    residence: str = "auto"
    roots: tuple[str, ...] = ()
    models: tuple[ModelConfig, ...] = ()
    allow: Principals | None = None
    operators: Principals = field(default_factory=lambda: Principals(frozenset({0, os.geteuid()})))
    log_level: str = "INFO"


def parse_size(text: str) -> int:
    """Bytes of "48GiB", "500MB" or "1073741824". ConfigError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text!r} is no size; say 48GiB, 500MB or a number of bytes")
    return int(float(match[1]) * unit)


def default_budget(memory: int) -> int:
    """The budget on a host or in a cgroup that has `memory` bytes."""
    return int(memory * _BUDGET_SHARE)


def available_memory() -> int:
    """Bytes of memory that this process may use: the host's, or its cgroup's limit when that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_cgroup_limits(Path("/proc/self/cgroup").read_text())])


def _cgroup_limits(membership: str) -> list[int]:
    limits = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        folder = base / path.lstrip("/")
        for place in [folder, *folder.parents]:
            if place.is_relative_to(base):
                limits += _limit(place / name)
    return limits


def _limit(path: Path) -> list[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() else []


def load(
    path: Path | None,
    environment: Mapping[str, str],
    *,
    runtime: str | None = None,
    budget: str | None = None,
    log_level: str | None = None,
) -> Config:
    """The configuration from the file, the environment and the arguments, later ones winning.

    ConfigError names the file, the key, and the nearest valid key or value. Without `path`, MAPCELL_CONFIG or the
    default path is read if it exists.
    """
    named = path or (Path(environment["MAPCELL_CONFIG"]) if environment.get("MAPCELL_CONFIG") else None)
    config = Config(budget=default_budget(available_memory()))
    if named or DEFAULT_PATH.exists():
        config = _from_file(named or DEFAULT_PATH, config)
    if budget is not None:
        config = replace(config, budget=parse_size(budget))
    level = (log_level or environment.get("MAPCELL_LOG") or config.log_level).upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f"log level {level!r}: say debug, info, warning or error")
    return replace(config, runtime=runtime, log_level=level)


def _from_file(path: Path, config: Config) -> Config:
    try:
        raw = tomllib.loads(path.read_text())
        return _apply(raw, config)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: {exc}") from None
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc.message}") from None


def _apply(raw: Mapping[str, Any], config: Config) -> Config:
    _check_keys(raw, ("budget", "residence", "roots", "allow", "model"), "")
    changes: dict[str, Any] = {}
    if "budget" in raw:
        changes["budget"] = parse_size(str(raw["budget"]))
    if "residence" in raw:
        changes["residence"] = _one_of(raw["residence"], RESIDENCES, "residence")
    if "roots" in raw:
        changes["roots"] = tuple(_absolute(r, "roots") for r in _strings(raw["roots"], "roots"))
    if "allow" in raw:
        changes |= _allow(raw["allow"], config)
    changes["models"] = tuple(_model(m, changes.get("residence", config.residence)) for m in raw.get("model", ()))
    names = [m.name for m in changes["models"]]
    if doubled := {n for n in names if names.count(n) > 1}:
        raise ConfigError(f"model name {min(doubled)!r} stands twice")
    return replace(config, **changes)


def _allow(raw: Any, config: Config) -> dict[str, Any]:
    _check_keys(raw, ("users", "groups", "operators"), "allow.")
    changes: dict[str, Any] = {}
    if "users" in raw or "groups" in raw:
        changes["allow"] = _principals(raw, "allow")
    if "operators" in raw:
        _check_keys(raw["operators"], ("users", "groups"), "allow.operators.")
        named = _principals(raw["operators"], "allow.operators")
        changes["operators"] = Principals(named.users | {os.geteuid()}, named.groups)
    return changes


def _model(raw: Any, residence: str) -> ModelConfig:
    _check_keys(raw, ("name", "source", "residence", "dtype", "pin", "preload"), "model.")
    for key in ("name", "source"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise ConfigError(f'a [[model]] needs {key} = "..."')
    dtype = raw.get("dtype", "")
    if dtype:
        dtype = _floating(dtype)
    return ModelConfig(
        name=raw["name"],
        source=_absolute(raw["source"], "model.source"),
        residence=_one_of(raw.get("residence", residence), RESIDENCES, "model.residence"),
        dtype=dtype,
        pin=_boolean(raw.get("pin", False), "model.pin"),
        preload=_boolean(raw.get("preload", False), "model.preload"),
    )


def _floating(text: Any) -> str:
    try:
        code = parse_dtype(str(text))
    except KeyError:
        code = ""
    if code not in FLOATING:
        raise ConfigError(f"model.dtype = {text!r} is no floating dtype; say float32, bfloat16 ...")
    return code


def _principals(raw: Any, where: str) -> Principals:
    users = frozenset(_uid(u, where) for u in _strings(raw.get("users", []), f"{where}.users"))
    groups = frozenset(_gid(g, where) for g in _strings(raw.get("groups", []), f"{where}.groups"))
    return Principals(users, groups)


def _uid(name: str, where: str) -> int:
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigError(f"{where}.users: this host has no user {name!r}") from None


def _gid(name: str, where: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"{where}.groups: this host has no group {name!r}") from None


def _check_keys(raw: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(raw, dict):
        raise ConfigError(f"{where.rstrip('.')} has to be a table")
    for key in raw:
        if key not in known:
            close = get_close_matches(key, known, 1)
            hint = f"; did you mean {where}{close[0]}?" if close else f"; known are {', '.join(known)}"
            raise ConfigError(f"unknown key {where}{key}{hint}")


def _one_of(value: Any, known: tuple[str, ...], key: str) -> str:
    if value not in known:
        raise ConfigError(f"{key} = {value!r}: say {' or '.join(known)}")
    return str(value)


def _strings(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{key} has to be a list of strings")
    return value


def _boolean(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} has to be true or false")
    return value


def _absolute(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigError(f"{key}: {value!r} is no absolute path")
    return os.path.normpath(value)
