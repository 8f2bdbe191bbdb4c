"""The command `doctor`: what this host can do for mapcell, each thing tried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from . import output
from .asking import as_json
from .findings import Finding

_FOUND, _MISSING = 0, 1


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Checks what this host can do: kernel features, limits, memory, packages, and the daemon with who may use it.

    Everything is tried out, and no daemon is needed. Fails when something is wrong that mapcell cannot work without.
    """
    found = findings()
    if as_json:
        output.emit([asdict(finding) for finding in found])
    else:
        _print(found)
    if any(finding.required and not finding.ok for finding in found):
        raise click.exceptions.Exit(_MISSING)


def findings() -> list[Finding]:
    """Every check, in the order of the report."""
    from .daemon_probes import daemon_findings, runtime_findings
    from .host_probes import limit_findings, memory_findings, software_findings
    from .kernel_probes import kernel_findings

    daemon, pid = daemon_findings()
    return [
        *kernel_findings(),
        *limit_findings(),
        *memory_findings(pid),
        *runtime_findings(),
        *daemon,
        *software_findings(),
    ]


def _print(found: Sequence[Finding]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        mark, colour = _mark(finding)
        click.echo(f"{click.style(mark.ljust(4), fg=colour, bold=True)}  ", nl=False)
        output.put(f"{finding.check.ljust(width)}  {finding.detail}")
        if finding.advice:
            output.put(f"{' ' * (width + 8)}{finding.advice}")
    broken = [finding.check for finding in found if finding.required and not finding.ok]
    missing = sum(not finding.ok for finding in found) - len(broken)
    click.echo()
    if broken:
        output.fail(f"{', '.join(broken)}: mapcell cannot work so; the lines marked FAIL say what to do")
    else:
        output.put(
            f"mapcell works here; {output.count(missing, 'thing')} could be better" if missing else "all is well"
        )


def _mark(finding: Finding) -> tuple[str, str]:
    if finding.ok:
        return "ok", "green"
    return ("FAIL", "red") if finding.required else ("-", "yellow")
