"""Installing and removing the service's files, into a folder; tests/e2e/test_systemd.py does both for real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {
    "etc/mapcell/mapcelld.toml",
    "etc/sysusers.d/mapcell.conf",
    "etc/systemd/system/mapcell-preload@.service",
    "etc/systemd/system/mapcelld-control.socket",
    "etc/systemd/system/mapcelld-handles.socket",
    "etc/systemd/system/mapcelld.service",
    "etc/tmpfiles.d/mapcell.conf",
}


def script(name: str, root: Path) -> str:
    """What the script says that works beneath `root`."""
    env = os.environ | {"DESTDIR": str(root), "BIN": "/usr/lib/mapcell/bin"}
    return subprocess.run([ROOT / "systemd" / name], env=env, check=True, capture_output=True, text=True).stdout


def files(root: Path) -> set[str]:
    """Every file beneath `root`."""
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


def test_install_and_uninstall(tmp_path: Path) -> None:
    """The files lie where systemd looks for them, name the programs, and go again."""
    assert script("install", tmp_path) == ""
    assert files(tmp_path) == FILES
    assert "ExecStart=/usr/lib/mapcell/bin/mapcelld\n" in (tmp_path / "etc/systemd/system/mapcelld.service").read_text()
    assert not [f for f in FILES if "@BIN@" in (tmp_path / f).read_text()]
    assert all((tmp_path / f).stat().st_mode & 0o777 == 0o644 for f in FILES)
    assert script("uninstall", tmp_path) == ""
    assert files(tmp_path) == set()
    assert not (tmp_path / "etc/mapcell").exists()


def test_what_was_changed_is_kept(tmp_path: Path) -> None:
    """An operator's configuration and drop-ins survive another install and an uninstall, and both say so."""
    script("install", tmp_path)
    config = tmp_path / "etc/mapcell/mapcelld.toml"
    config.write_text('budget = "1GiB"\n')
    drop_in = tmp_path / "etc/systemd/system/mapcelld.service.d/override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nMemoryMax=2G\n")
    assert str(config) in script("install", tmp_path)
    assert config.read_text() == 'budget = "1GiB"\n'
    said = script("uninstall", tmp_path)
    assert str(config.parent) in said
    assert str(drop_in.parent) in said
    assert files(tmp_path) == {str(p.relative_to(tmp_path)) for p in (config, drop_in)}


def test_default_configuration_is_valid(tmp_path: Path) -> None:
    """The configuration that is installed is read without complaint; so is each example in it, uncommented."""
    from mapcelld.config_file import load

    text = (ROOT / "systemd/mapcelld.toml").read_text()
    lines = [line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in text.splitlines()]
    for number, content in enumerate((text, "\n".join(lines))):
        content = content.replace('"inference"', '"root"').replace('"models"', '"root"').replace('"search"', '"root"')
        content = content.replace('"mapcell-admin"', '"root"').replace('"blake3:..."', f'"blake3:{"0" * 64}"')
        path = tmp_path / f"{number}.toml"
        path.write_text(content)
        config = load(path, {})
        assert (config.metrics.listen is not None) == (len(config.models) == 1) == bool(number)
