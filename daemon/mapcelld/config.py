"""What can be configured: values only, validated once and frozen. config_file.py reads them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mapcell_formats.errors import MapcellError

DEFAULT_PATH = Path("/etc/mapcell/mapcelld.toml")
RESIDENCES = ("auto", "mapped", "sealed")
ON_CHANGE = ("copy", "refuse")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# The rest is for the workers' own memory and the page cache of what is mapped.
_BUDGET_SHARE = 0.8

HugePages = Literal["off", "try", "on"]


class ConfigError(MapcellError, ValueError):
    """A configuration that cannot be used: where it stands, what is wrong, what would do."""


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
    """A model that the operator named: staged when first asked for, or at start when `preload` is set.

    `allow` narrows who sees it, `digest` ("blake3:..." or "sha256:...") refuses any other content, `lock` keeps its
    pages in memory, `warm` brings them there beforehand, `follow` stages a new version when the source changes.
    `on_change` says what comes first when somebody writes to the mapped file and its copy does not fit the budget: the
    workers ("copy") or the budget ("refuse").
    """

    name: str
    source: str
    residence: str = "auto"
    dtype: str = ""
    pin: bool = False
    lock: bool = False
    warm: bool = False
    preload: bool = False
    follow: bool = False
    allow: Principals | None = None
    digest: str = ""
    on_change: str = "copy"


@dataclass(frozen=True, slots=True)
class Quota:
    """What one uid that is no operator may have at once. `staged` in bytes; `requests` that wait for staging."""

    leases: int = 256
    staged: int = 16 << 30
    connections: int = 512
    requests: int = 64


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where figures go: a file, a socket (its name in the runtime folder, or its path), a loopback address and port."""

    textfile: str = ""
    socket: str = ""
    listen: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured. `budget` in bytes of sealed memory, `guard_deadline` in seconds."""

    budget: int
    runtime: str | None = None
    residence: str = "auto"
    huge_pages: HugePages = "off"
    drop_cache: bool = False
    guard_deadline: float = 5.0
    roots: tuple[str, ...] = ()
    models: tuple[ModelConfig, ...] = ()
    allow: Principals | None = None
    operators: Principals = field(default_factory=lambda: Principals(frozenset({0, os.geteuid()})))
    quota: Quota = field(default_factory=Quota)
    metrics: Metrics = field(default_factory=Metrics)
    log_level: str = "INFO"

    def model(self, name: str) -> ModelConfig | None:
        """The configured model called `name`."""
        return next((m for m in self.models if m.name == name), None)

    def mentions_groups(self) -> bool:
        """Whether any rule depends on the groups that a user is in."""
        rules = [self.allow, self.operators, *(m.allow for m in self.models)]
        return any(rule is not None and rule.groups for rule in rules)


def default_budget(memory: int) -> int:
    """The budget on a host or in a cgroup that has `memory` bytes."""
    return int(memory * _BUDGET_SHARE)
