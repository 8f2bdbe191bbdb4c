"""Encrypted checkpoints: their keys come out of files, and the daemon gets none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from formats.mindspore_data import key_of
from mapcell.cli.secrets import Decryption
from mapcell_formats.errors import AccessDenied
from support.daemon import DaemonProcess
from support.users import OTHER_UID, as_user, needs_root

from .conftest import Cli
from .test_files import DATA
from .test_main import MAIN

FILES = ["lenet5_aes_gcm.ckpt", "lenet5_aes_cbc.ckpt", "lenet5_sm4_cbc.ckpt"]
GCM = FILES[0]
PLAIN = str(DATA / "lenet5.ckpt")


def key_file(folder: Path, key: bytes) -> str:
    """A file that holds `key`, and that only its owner reads."""
    path = folder / "key"
    path.write_bytes(key)
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=["bytes", "line", "DOS line"])
@pytest.mark.parametrize("file", FILES)
def test_inspect(file: str, end: bytes, cli: Cli, tmp_path: Path) -> None:
    """With its key an encrypted checkpoint shows what the plain one holds, in the mode that it says itself."""
    plain = cli.json("inspect", PLAIN)
    document = cli.json("inspect", str(DATA / file), "--dec-key-file", key_file(tmp_path, key_of(file) + end))
    assert [(t["name"], t["dtype"], t["shape"]) for t in document["tensors"]] == (
        [(t["name"], t["dtype"], t["shape"]) for t in plain["tensors"]]
    )
    assert not document["mappable"]


@pytest.mark.parametrize("file", FILES)
def test_verify_and_convert(file: str, cli: Cli, tmp_path: Path) -> None:
    """Its digest is that of the plain checkpoint, and so is what convert writes in the clear."""
    key = ["--dec-key-file", key_file(tmp_path, key_of(file))]
    digest = cli.json("verify", PLAIN)["digest"]
    assert cli.json("verify", str(DATA / file), *key)["digest"] == digest
    assert cli.json("convert", str(DATA / file), str(tmp_path / "clear.ckpt"), *key)["tensors"] == 8
    assert cli.json("verify", str(tmp_path / "clear.ckpt"))["digest"] == digest


def test_key_from_stdin(tmp_path: Path) -> None:
    """A key may come through a pipe, as password stores give them."""
    command = [sys.executable, "-c", MAIN, "inspect", str(DATA / GCM), "--dec-key-file", "-"]
    ran = subprocess.run(command, input=key_of(GCM), capture_output=True, timeout=60, check=True)
    assert b"conv1.weight" in ran.stdout


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(
    ("key", "options", "says"),
    [
        (None, [], "is encrypted with AES-GCM; expected --dec-key-file FILE"),
        (b"x" * 24, [], "does not decrypt with this key as AES-GCM"),
        (b"x" * 16, ["--dec-mode", "AES-CBC"], "is encrypted with AES-GCM, not AES-CBC"),
        (b"x" * 17, [], "holds no key; expected 16, 24 or 32 bytes"),
        (b"", [], "holds no key"),
        (b"x" * 1000, [], "holds no key"),
    ],
    ids=["no key", "wrong key", "wrong mode", "17 bytes", "empty", "long"],
)
def test_refused(key: bytes | None, options: list[str], says: str, command: str, cli: Cli, tmp_path: Path) -> None:
    """Without the right key the refusal says what is wrong, and no key is ever printed."""
    given = [] if key is None else ["--dec-key-file", key_file(tmp_path, key)]
    ran = cli(command, str(DATA / GCM), *given, *options)
    assert (ran.status, ran.out) == (1, "")
    assert says in ran.err
    assert not key or key.decode() not in ran.err


def test_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    """A mode needs a key, a plain file takes none, and a key file has to be there."""
    assert cli("inspect", str(DATA / GCM), "--dec-mode", "AES-GCM").status == 2
    key = ["--dec-key-file", key_file(tmp_path, b"x" * 16)]
    assert "is not encrypted" in cli("inspect", PLAIN, *key).err
    assert "No such file" in cli("inspect", str(DATA / GCM), "--dec-key-file", str(tmp_path / "none")).err


def test_open_key_file(cli: Cli, tmp_path: Path) -> None:
    """A key that others can read works, with a word about it."""
    path = key_file(tmp_path, key_of(GCM))
    Path(path).chmod(0o644)
    ran = cli("inspect", str(DATA / GCM), "--dec-key-file", path)
    assert ran.status == 0
    assert f"chmod 600 {path}" in ran.err


@needs_root
def test_key_of_somebody_else(tmp_path: Path) -> None:
    """A key that this user may not read is said to be just that."""
    path = key_file(tmp_path, b"x" * 16)

    def look() -> str:
        try:
            return repr(Decryption(path).key())
        except AccessDenied as exc:
            return exc.message

    assert as_user(OTHER_UID, look) == f"{path}: this process may not read the key"


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--no-wait"]])
def test_load_takes_no_key(options: list[str], cli: Cli, daemon: DaemonProcess) -> None:
    """The daemon is asked for nothing: keys stay in the workers, and the refusal says what to do instead."""
    ran = cli("load", str(DATA / GCM), *options)
    assert (ran.status, ran.out) == (1, "")
    assert "is encrypted with AES-GCM, and the daemon takes no keys" in ran.err
    assert "dec_key=" in ran.err
    assert "mapcell convert --dec-key-file" in ran.err
    assert cli.json("ls") == []


def test_verify_of_a_model_takes_no_key(cli: Cli, daemon: DaemonProcess, checkpoint: Path, tmp_path: Path) -> None:
    """What the daemon lends is in the clear."""
    assert cli("load", str(checkpoint)).status == 0
    assert cli("verify", "small", "--dec-key-file", key_file(tmp_path, b"x" * 16)).status == 2
