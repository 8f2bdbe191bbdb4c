"""The kernel's probes against what this kernel says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapcell.cli.kernel_probes import kernel_findings
from support.users import OTHER_UID, as_user, needs_root

FOUND = {finding.check: finding for finding in kernel_findings()}


@pytest.mark.parametrize("check", ["kernel", "memfd sealing", "descriptor passing"])
def test_what_the_tests_need_is_there(check: str) -> None:
    """What every other test of the daemon relies on is found to be there, and is required."""
    assert FOUND[check].ok
    assert FOUND[check].required
    assert FOUND[check].advice == ""


@pytest.mark.parametrize(
    ("check", "path", "detail"),
    [
        ("fs.lease-break-time", "/proc/sys/fs/lease-break-time", "{} s to copy"),
        ("huge pages", "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "{} of "),
    ],
)
def test_figures_are_the_kernels(check: str, path: str, detail: str) -> None:
    """Figures are those that the kernel publishes."""
    if not Path(path).exists():
        pytest.skip(f"this kernel has no {path}")
    # Asked now: what is free changes while the tests run.
    found = {finding.check: finding for finding in kernel_findings()}
    assert found[check].detail.startswith(detail.format(Path(path).read_text().strip()))


def test_probes_leave_nothing() -> None:
    """Probing twice gives the same, and no descriptor or file is left (every test's fixture looks)."""
    once, again = ({finding.check: finding.ok for finding in kernel_findings()} for _ in range(2))
    assert once == again


@needs_root
def test_as_another_user() -> None:
    """Another user's kernel is the same one, groups included."""
    theirs = as_user(OTHER_UID, lambda: {f.check: f.ok for f in kernel_findings() if f.required}, (41_300, 41_301))
    assert all(theirs.values())
