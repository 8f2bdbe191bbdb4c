"""Encrypted checkpoints: their keys come out of files, and the daemon gets none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from formats.mindspore_data import key_of
from mapcell.cli.secrets import Key
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


@pytest.mark.parametrize("mode", [None, "AES-GCM", "AES-CBC", "SM4-CBC"])
def test_convert_encrypts(mode: str | None, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What convert encrypts is no plain checkpoint, says its mode, and is the same again with the key."""
    secret, target = b"k" * 16, str(tmp_path / "secret.ckpt")
    options = [] if mode is None else ["--enc-mode", mode]
    monkeypatch.setenv("KEY", secret.hex())
    document = cli.json("convert", PLAIN, target, "--enc-key-file", key_file(tmp_path, secret), *options)
    assert document["encrypted"] == (mode or "AES-GCM")
    assert "is encrypted with " + (mode or "AES-GCM") in cli("inspect", target).err
    assert b"conv1.weight" not in Path(target).read_bytes()
    digests = {cli.json("verify", PLAIN)["digest"], cli.json("verify", target, "--dec-key-env", "KEY")["digest"]}
    assert len(digests) == 1


def test_convert_changes_the_key(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was encrypted with one key can be written with another in one go."""
    monkeypatch.setenv("OLD", key_of(GCM).hex())
    monkeypatch.setenv("NEW", "ab" * 32)
    target = str(tmp_path / "new.ckpt")
    ran = cli("convert", str(DATA / GCM), target, "--dec-key-env", "OLD", "--enc-key-env", "NEW")
    assert "encrypted with AES-GCM" in ran.out
    assert cli("inspect", target, "--dec-key-env", "NEW").status == 0
    assert "does not decrypt with this key" in cli("inspect", target, "--dec-key-env", "OLD").err


CANNOT_ENCRYPT: dict[str, tuple[str, list[str], int, str]] = {
    "another format": ("x.safetensors", ["--enc-key-env", "KEY"], 1, "no .safetensors can be encrypted"),
    "two keys": ("x.ckpt", ["--enc-key-env", "KEY", "--enc-key-file", "-"], 2, "not both"),
    "a mode alone": ("x.ckpt", ["--enc-mode", "AES-CBC"], 2, "--enc-mode goes with --enc-key-file"),
    "no variable": ("x.ckpt", ["--enc-key-env", "NONE"], 1, "variable NONE is not set"),
    "no hexadecimal": ("x.ckpt", ["--enc-key-env", "TEXT"], 1, "variable TEXT holds no key"),
    "too long for the mode": ("x.ckpt", ["--enc-key-env", "LONG", "--enc-mode", "SM4-CBC"], 1, "24 bytes for SM4-CBC"),
}


@pytest.mark.parametrize("case", CANNOT_ENCRYPT)
def test_cannot_encrypt(case: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key that fits nothing is written, and no key is ever printed."""
    name, options, status, says = CANNOT_ENCRYPT[case]
    for variable, text in {"KEY": "cd" * 16, "TEXT": "secret words", "LONG": "cd" * 24}.items():
        monkeypatch.setenv(variable, text)
    ran = cli("convert", PLAIN, str(tmp_path / name), *options)
    assert (ran.status, ran.out) == (status, "")
    assert says in " ".join(ran.err.split())
    assert "cdcd" not in ran.err
    assert "secret words" not in ran.err
    assert list(tmp_path.iterdir()) == []


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
            return repr(Key(path).read())
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
