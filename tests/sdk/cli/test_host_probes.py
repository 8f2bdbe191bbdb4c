"""Memory cgroups of both versions, and what is installed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from mapcell.cli.host_probes import cgroup_limits, limit_findings, memory_findings, software_findings

V1 = "4:memory:/a/b\n1:cpu:/a/b\n"
V2 = "0::/a/b\n"
NO_LIMIT = "9223372036854771712"


def cgroup(folder: Path, **files: str) -> None:
    """A control group with these files; "_" in a name stands for the dot behind "memory"."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("memory_", "memory.", 1)).write_text(text + "\n")


def v1(folder: Path, limit: str, usage: int, cache: int) -> None:
    """A group of version 1."""
    cgroup(
        folder,
        memory_limit_in_bytes=limit,
        memory_usage_in_bytes=str(usage),
        memory_stat=f"cache 1\ntotal_inactive_file {cache}\ntotal_active_file 1",
    )


def v2(folder: Path, limit: str, usage: int, cache: int) -> None:
    """A group of version 2."""
    stat = f"anon 5\ninactive_file {cache}\nactive_file 1"
    cgroup(folder, memory_max=limit, memory_current=str(usage), memory_stat=stat)


@pytest.mark.parametrize(("membership", "make", "under"), [(V1, v1, "memory"), (V2, v2, "")])
def test_every_group_above_counts(membership: str, make: object, under: str, tmp_path: Path) -> None:
    """Each limit above the process is found with what is left of it, page cache counted as room."""
    root = tmp_path / under
    make(root / "a", "1000", 900, 99)  # type: ignore[operator]
    make(root / "a" / "b", "5000", 100, 0)  # type: ignore[operator]
    found = {folder.name: (room, limit) for room, limit, folder in cgroup_limits(membership, tmp_path)}
    assert found == {"a": (200, 1000), "b": (4901, 5000)}


@pytest.mark.parametrize(("membership", "limit"), [(V1, NO_LIMIT), (V2, "max"), ("", "1"), ("1:cpu:/\n", "1")])
def test_no_limit(membership: str, limit: str, tmp_path: Path) -> None:
    """A group without a limit, or a process in no memory group, has none."""
    v1(tmp_path / "memory" / "a" / "b", limit, 1, 0)
    v2(tmp_path / "a" / "b", limit, 1, 0)
    assert list(cgroup_limits(membership, tmp_path)) == []


def test_memory_of_a_process_that_is_gone() -> None:
    """A daemon whose cgroup cannot be read is said to be unknown, with advice."""
    cgroup_finding = memory_findings(2**22 + 1)[1]
    assert not cgroup_finding.ok
    assert "unknown for the daemon" in cgroup_finding.detail
    assert cgroup_finding.advice


def test_versions_are_the_installed_ones() -> None:
    """Packages are shown in the version that is installed, and libzmq shows who a peer is."""
    found = {finding.check: finding for finding in software_findings()}
    for name in ("numpy", "pyzmq", "blake3"):
        assert (found[name].ok, found[name].detail, found[name].required) == (True, version(name), True)
    assert found["libzmq"].ok
    assert found["libzmq"].detail.endswith("shows who a peer is")


def test_limits_never_end_the_report() -> None:
    """No limit of this process is required: a daemon has limits of its own."""
    assert [f.required for f in limit_findings()] == [False] * 3
