"""Reads the configuration: TOML, then environment, then arguments. A mistake is named with its line and a remedy."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mapcell_formats.dtypes import FLOATING, parse_dtype
from mapcelld import memory
from mapcelld.config import (
    DEFAULT_PATH,
    LOG_LEVELS,
    ON_CHANGE,
    RESIDENCES,
    Config,
    ConfigError,
    Metrics,
    ModelConfig,
    Principals,
    Quota,
    default_budget,
)
from mapcelld.runtime import CONTROL, HANDLES, LOCK

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_UNITS |= {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_DIGEST = re.compile(r"(blake3|sha256):[0-9a-f]{64}")


class _Fault(ConfigError):
    """A mistake at `key`, which the reader of the whole file finds the line for."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key.rpartition(".")[2]


def parse_size(text: str) -> int:
    """Bytes of "48GiB", "500MB" or "1073741824". ConfigError for anything else."""
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text!r} is no size; say 48GiB, 500MB or a number of bytes")
    whole, _, part = match[1].partition(".")
    return int(whole) * unit + int(float(f"0.{part or 0}") * unit)


def load(
    path: Path | None,
    environment: Mapping[str, str],
    *,
    runtime: str | None = None,
    budget: str | None = None,
    log_level: str | None = None,
) -> Config:
    """The configuration from the file, the environment and the arguments, later ones winning.

    ConfigError names the file, the line, the key, and the nearest valid key or value. Without `path`, MAPCELL_CONFIG or
    the default path is read if it exists.
    """
    named = path or (Path(environment["MAPCELL_CONFIG"]) if environment.get("MAPCELL_CONFIG") else None)
    config = Config(budget=default_budget(memory.total()))
    if named or DEFAULT_PATH.exists():
        config = read(named or DEFAULT_PATH, config)
    if budget is not None:
        config = replace(config, budget=parse_size(budget))
    level = (log_level or environment.get("MAPCELL_LOG") or config.log_level).upper()
    if level not in LOG_LEVELS:
        raise ConfigError(f"log level {level!r}: say {', '.join(LOG_LEVELS).lower()}")
    return replace(config, runtime=runtime, log_level=level)


def read(path: Path, config: Config) -> Config:
    """`config` changed by what the file at `path` says. ConfigError names file, line, key and what would be right."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: {exc.strerror if isinstance(exc, OSError) else exc}") from None
    try:
        return _whole(tomllib.loads(text), config)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: {exc}") from None
    except _Fault as exc:
        raise ConfigError(f"{path}{_line_of(exc.key, text)}: {exc.message}") from None


def _line_of(key: str, text: str) -> str:
    pattern = re.compile(rf"(^|[\s{{,\[.])\"?{re.escape(key)}\"?\s*(=|\]|\.)")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.search(line.partition("#")[0]):
            return f", line {number}"
    return ""


def _whole(raw: Mapping[str, Any], config: Config) -> Config:
    parsers: dict[str, Callable[[Any], Any]] = {
        "budget": lambda v: _size(v, "budget"),
        "residence": lambda v: _one_of(v, RESIDENCES, "residence"),
        "huge_pages": lambda v: _one_of(v, ("off", "try", "on"), "huge_pages"),
        "drop_cache": lambda v: _boolean(v, "drop_cache"),
        "guard_deadline": _seconds,
        "roots": lambda v: tuple(_absolute(r, "roots") for r in _strings(v, "roots")),
        "quota": lambda v: _quota(v, config.quota),
        "metrics": _metrics,
    }
    _check_keys(raw, (*parsers, "allow", "model"), "")
    changes = {key: parse(raw[key]) for key, parse in parsers.items() if key in raw}
    if "allow" in raw:
        changes |= _allow(raw["allow"])
    changes["models"] = _models(raw.get("model", []), changes.get("residence", config.residence))
    return replace(config, **changes)


def _allow(raw: Any) -> dict[str, Any]:
    _check_keys(raw, ("users", "groups", "operators"), "allow.")
    changes: dict[str, Any] = {}
    if "users" in raw or "groups" in raw:
        changes["allow"] = _principals(raw, "allow")
    if "operators" in raw:
        _check_keys(raw["operators"], ("users", "groups"), "allow.operators.")
        named = _principals(raw["operators"], "allow.operators")
        # The daemon's own user can do all this anyway, by signals and by reading its memory.
        changes["operators"] = Principals(named.users | {os.geteuid()}, named.groups)
    return changes


def _quota(raw: Any, quota: Quota) -> Quota:
    _check_keys(raw, tuple(f.name for f in fields(Quota)), "quota.")
    return replace(quota, **{k: (_size if k == "staged" else _count)(v, f"quota.{k}") for k, v in raw.items()})


def _metrics(raw: Any) -> Metrics:
    parsers: dict[str, Callable[[Any], Any]] = {
        "textfile": lambda v: _absolute(v, "metrics.textfile"),
        "socket": _metrics_socket,
        "listen": _loopback,
    }
    _check_keys(raw, tuple(parsers), "metrics.")
    return Metrics(**{key: parsers[key](value) for key, value in raw.items()})


def _metrics_socket(value: Any) -> str:
    if isinstance(value, str) and value and "/" not in value and value not in (".", "..", LOCK, CONTROL, HANDLES):
        return value
    if isinstance(value, str) and value.startswith("/"):
        return os.path.normpath(value)
    raise _Fault("socket", f'metrics.socket = {value!r}: say a name in the runtime folder ("metrics.sock") or a path')


def _loopback(value: Any) -> tuple[str, int]:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 1 << 16:
        raise _Fault("listen", f'metrics.listen = {value!r}: say an address and a port, "127.0.0.1:9464"')
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        raise _Fault("listen", f"metrics.listen: {host!r} is no address; say 127.0.0.1 or [::1]") from None
    if not address.is_loopback:
        raise _Fault(
            "listen",
            f"metrics.listen: {host} is no loopback address, and nothing listens for other hosts; let a "
            "scraper on this one collect the figures from 127.0.0.1 or [::1]",
        )
    return str(address), int(port)


def _models(raw: Any, residence: str) -> tuple[ModelConfig, ...]:
    if not isinstance(raw, list):
        raise _Fault("model", "model has to be an array of tables: write [[model]]")
    models = tuple(_model(m, residence) for m in raw)
    names = [m.name for m in models]
    if doubled := {n for n in names if names.count(n) > 1}:
        raise _Fault("name", f"model name {min(doubled)!r} stands twice")
    return models


def _model(raw: Any, residence: str) -> ModelConfig:
    _check_keys(raw, tuple(f.name for f in fields(ModelConfig)), "model.")
    for key in ("name", "source"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise _Fault("model", f'a [[model]] needs {key} = "..."')
    if raw["name"].startswith(("/", ".", "~")) or set(raw["name"]) & set("@: \t\n"):
        raise _Fault("name", f"model.name = {raw['name']!r}: no blanks, @ or :, and nothing like a path")
    parsers: dict[str, Callable[[Any], Any]] = {
        "source": lambda v: _absolute(v, "model.source"),
        "residence": lambda v: _one_of(v, RESIDENCES, "model.residence"),
        "dtype": _floating,
        "digest": _digest,
        "allow": _model_allow,
        "on_change": lambda v: _one_of(v, ON_CHANGE, "model.on_change"),
        **{k: lambda v, k=k: _boolean(v, f"model.{k}") for k in ("pin", "lock", "warm", "preload", "follow")},  # type: ignore[misc]
    }
    values = {key: parsers[key](value) for key, value in raw.items() if key in parsers}
    return ModelConfig(**{"name": raw["name"], "residence": residence, **values})


def _model_allow(raw: Any) -> Principals:
    _check_keys(raw, ("users", "groups"), "model.allow.")
    return _principals(raw, "model.allow")


def _floating(text: Any) -> str:
    try:
        code = parse_dtype(str(text))
    except KeyError:
        code = ""
    if code not in FLOATING:
        raise _Fault("dtype", f"model.dtype = {text!r} is no floating dtype; say float32, bfloat16 ...")
    return code


def _digest(text: Any) -> str:
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise _Fault("digest", f"model.digest = {text!r}: say blake3: or sha256: and 64 hexadecimal digits")
    return text


def _principals(raw: Any, where: str) -> Principals:
    users = frozenset(_uid(u, where) for u in _strings(raw.get("users", []), f"{where}.users"))
    groups = frozenset(_gid(g, where) for g in _strings(raw.get("groups", []), f"{where}.groups"))
    return Principals(users, groups)


def _uid(name: str, where: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise _Fault("users", f"{where}.users: this host has no user {name!r}") from None


def _gid(name: str, where: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise _Fault("groups", f"{where}.groups: this host has no group {name!r}") from None


def _check_keys(raw: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(raw, dict):
        raise _Fault(where.rstrip("."), f"{where.rstrip('.')} has to be a table")
    for key in raw:
        if key not in known:
            close = get_close_matches(key, known, 1)
            hint = f"; did you mean {where}{close[0]}?" if close else f"; known are {', '.join(known)}"
            raise _Fault(key, f"unknown key {where}{key}{hint}")


def _one_of(value: Any, known: tuple[str, ...], key: str) -> str:
    if value not in known:
        close = get_close_matches(str(value), known, 1)
        raise _Fault(key, f"{key} = {value!r}: say {' or '.join(close or known)}")
    return str(value)


def _size(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _Fault(key, f'{key} = {value!r} is no size; say "48GiB" or a number of bytes')
    try:
        return parse_size(str(value))
    except ConfigError as exc:
        raise _Fault(key, f"{key}: {exc.message}") from None


def _seconds(value: Any) -> float:
    text = value if isinstance(value, str) else ""
    match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(ms|s|min)\s*", text)
    seconds = float(match[1]) * {"ms": 0.001, "s": 1, "min": 60}[match[2]] if match else 0.0
    if not seconds:
        raise _Fault("guard_deadline", f'guard_deadline = {value!r} is no time; say "5s", "500ms" or "1min"')
    return seconds


def _count(value: Any, key: str) -> int:
    if type(value) is not int or value < 1:
        raise _Fault(key, f"{key} = {value!r} has to be a whole number from 1")
    return value


def _strings(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise _Fault(key, f"{key} has to be a list of strings")
    return value


def _boolean(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise _Fault(key, f"{key} has to be true or false")
    return value


def _absolute(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise _Fault(key, f"{key}: {value!r} is no absolute path")
    return os.path.normpath(value)
