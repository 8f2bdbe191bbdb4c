"""The hook that `mapcell run` puts before a Python's own: quiet, quick, and giving way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mapcell.running_site

SITE = next(iter(mapcell.running_site.__path__))


def python(code: str, *path: str | Path, arguments: tuple[str, ...] = ()) -> str:
    """What Python prints under the hook, with `path` behind it on PYTHONPATH."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (SITE, *path)))}
    command = [sys.executable, "-W", "error", *arguments, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


def test_it_costs_next_to_nothing() -> None:
    """A Python that loads no weights imports neither mapcell nor anything large."""
    assert python("import sys; print({'mapcell', 'numpy', 'torch', 'safetensors'} & set(sys.modules))") == "set()\n"


def test_another_sitecustomize_is_loaded(tmp_path: Path) -> None:
    """The one that it hides is run, once, and is what the name means."""
    (tmp_path / "sitecustomize.py").write_text("print('theirs')\nHERE = 1\n")
    assert python("import sitecustomize; print(sitecustomize.HERE)", tmp_path) == "theirs\n1\n"


def test_safetensors_is_adopted() -> None:
    """Whoever imports it, and by whatever name, gets the replacement; nothing changes about how it was found."""
    code = (
        "import safetensors.numpy as n, safetensors as s, sys\n"
        "print(s.safe_open.__module__, n.safe_open is s.safe_open, s.__spec__.origin == s.__file__)"
    )
    assert python(code) == "mapcell.running_safetensors True True\n"


def test_a_python_without_mapcell(tmp_path: Path) -> None:
    """Where mapcell is not installed everything is loaded as ever."""
    (tmp_path / "safetensors.py").write_text("safe_open = 'theirs'\n")
    assert python("import safetensors; print(safetensors.safe_open)", tmp_path, arguments=("-S",)) == "theirs\n"
    code = f"import sys; sys.path.insert(0, {SITE!r}); import sitecustomize, safetensors; print(safetensors.safe_open)"
    assert python(code, tmp_path, arguments=("-S",)) == "theirs\n"
