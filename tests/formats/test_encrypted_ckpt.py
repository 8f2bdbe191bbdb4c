"""Encrypted checkpoints: MindSpore's own, blocks cut at will, wrong keys and broken containers."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hostile.building import MemorySource
from mapcell_formats import encrypted_ckpt
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.encrypted_ckpt import KEY_BYTES, MAGIC_OF, DecryptedSource
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.source import FileSource, read

from .mindspore_data import ENCRYPTED, FOLDER, contents, expected, key_of, mode_of

PLAIN = bytes(range(256)) * 4
MODES = tuple(KEY_BYTES)
KEY = b"0123456789abcdef"
IV = b"an IV of 16 byte"


def block(plain: bytes, mode: str, key: bytes = KEY, nonce_bytes: int = 12) -> bytes:
    """One block of the container, made from its description."""
    algorithm = algorithms.SM4(key) if mode == "SM4-CBC" else algorithms.AES(key)
    gcm = mode == "AES-GCM"
    context = Cipher(algorithm, modes.GCM(IV[:nonce_bytes]) if gcm else modes.CBC(IV)).encryptor()
    padding = 0 if gcm else 16 - len(plain) % 16
    body = context.update(plain + bytes([padding]) * padding) + context.finalize()
    tag = context.tag if gcm else b""
    numbers = [n.to_bytes(4, "little") for n in (MAGIC_OF[mode], 24 + len(body), 16, len(body))]
    return numbers[0] + tag + numbers[1] + numbers[2] + IV + numbers[3] + body


def blocks(mode: str, sizes: tuple[int, ...]) -> bytes:
    """PLAIN in blocks of `sizes`."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return b"".join(block(PLAIN[start : start + size], mode) for start, size in zip(starts, sizes, strict=True))


@pytest.mark.parametrize("file", ENCRYPTED)
def test_decrypts_what_mindspore_encrypted(file: str) -> None:
    """MindSpore's encrypted files hold exactly the bytes of its plain one, and the same tensors."""
    plain = (FOLDER / "lenet5.ckpt").read_bytes()
    with FileSource.open(FOLDER / file) as source:
        decrypted = DecryptedSource(source, key_of(file), mode_of(file))
        assert decrypted.size == len(plain)
        assert read(decrypted, 0, decrypted.size) == plain
        checkpoint = read_checkpoint([source], key=key_of(file), mode=mode_of(file))
        assert contents(checkpoint) == expected(file)
        assert not checkpoint.mappable()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", [(1024,), (1, 1023), (16, 15, 17, 976), (512, 512), (1000, 24)], ids=str)
def test_blocks_of_any_size(mode: str, sizes: tuple[int, ...]) -> None:
    """Every byte is found whatever the blocks, read at once or across their borders."""
    source = DecryptedSource(MemorySource(blocks(mode, sizes)), KEY, mode)
    assert source.size == len(PLAIN)
    assert read(source, 0, len(PLAIN)) == PLAIN
    for start in (0, 1, 15, 16, 31, 511, 999, 1023):
        for nbytes in (0, 1, 2, 30, 600):
            end = min(start + nbytes, len(PLAIN))
            assert read(source, start, end - start) == PLAIN[start:end]


@pytest.mark.parametrize("mode", MODES)
def test_key_lengths(mode: str) -> None:
    """Every length of key that the mode takes works, and every other is named."""
    for length in range(65):
        key = bytes(range(length))
        if length in KEY_BYTES[mode]:
            source = DecryptedSource(MemorySource(block(PLAIN, mode, key)), key, mode)
            assert read(source, 0, source.size) == PLAIN
        else:
            with pytest.raises(FormatError, match=f"a key of {length} bytes for {mode}"):
                DecryptedSource(MemorySource(block(PLAIN, mode)), key, mode)


def test_nonce_of_16_bytes() -> None:
    """AES-GCM files of older MindSpores, whose nonce is the whole IV, are read too."""
    source = DecryptedSource(MemorySource(block(PLAIN, "AES-GCM", nonce_bytes=16)), KEY, "AES-GCM")
    assert read(source, 0, source.size) == PLAIN


@pytest.mark.parametrize("mode", MODES)
def test_two_blocks_are_kept(mode: str) -> None:
    """Going back and forth between two blocks decrypts each once; a third one replaces the older."""
    inner = MemorySource(blocks(mode, (400, 400, 224)))
    source = DecryptedSource(inner, KEY, mode)
    read(source, 390, 20)
    after = inner.bytes_read
    read(source, 390, 20)
    assert inner.bytes_read == after
    read(source, 800, 1)
    third = inner.bytes_read
    assert third > after
    read(source, 400, 1)
    assert inner.bytes_read == third
    read(source, 0, 1)
    assert inner.bytes_read > third


def test_threads_read_the_same_bytes() -> None:
    """Threads that read different blocks at once do not disturb one another."""
    source = DecryptedSource(MemorySource(blocks("AES-GCM", (200, 300, 400, 124))), KEY, "AES-GCM")
    starts = [i * 37 % 1000 for i in range(200)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda start: bytes(read(source, start, 24)), starts))
    assert found == [PLAIN[start : start + 24] for start in starts]


def test_reading_past_the_end() -> None:
    """More bytes than there are is an error, not zeros."""
    source = DecryptedSource(MemorySource(blocks("AES-CBC", (1024,))), KEY, "AES-CBC")
    with pytest.raises(FormatError, match="ends early"):
        read(source, 1020, 8)


@pytest.mark.parametrize("file", ENCRYPTED)
def test_without_a_key(file: str) -> None:
    """A file without its key is refused with the mode that it takes."""
    with FileSource.open(FOLDER / file) as source, pytest.raises(FormatError) as caught:
        read_checkpoint([source])
    assert f"is encrypted with {mode_of(file)}" in str(caught.value)
    assert "dec_key" in str(caught.value)


@pytest.mark.parametrize("file", ENCRYPTED)
def test_with_a_wrong_key(file: str) -> None:
    """No wrong key yields a checkpoint, not even one whose padding happens to be right."""
    with FileSource.open(FOLDER / file) as source:
        for i in range(300 if "cbc" in file else 3):
            with pytest.raises(FormatError, match="decrypt") as caught:
                read_checkpoint([source], key=i.to_bytes(16, "big"), mode=mode_of(file))
            assert caught.value.path == source.path


@pytest.mark.parametrize("file", ENCRYPTED)
@pytest.mark.parametrize("mode", [*MODES, "aes-gcm", ""])
def test_with_a_wrong_mode(file: str, mode: str) -> None:
    """Another mode than the file's is refused, and so is one that does not exist."""
    if mode == mode_of(file):
        return
    with FileSource.open(FOLDER / file) as source, pytest.raises(FormatError, match="encrypt"):
        read_checkpoint([source], key=KEY, mode=mode)


@pytest.mark.parametrize("file", ["lenet5.ckpt", "lenet5.safetensors"])
def test_a_key_for_a_plain_file(file: str) -> None:
    """A key for a file that is not encrypted is a mistake worth naming."""
    with FileSource.open(FOLDER / file) as source, pytest.raises(FormatError, match="is not encrypted"):
        read_checkpoint([source], key=KEY)


def test_one_flipped_bit_is_found() -> None:
    """AES-GCM notices a changed bit anywhere in what it proves."""
    sound = block(PLAIN, "AES-GCM")
    for position in (4, 19, 28, 39, 48, len(sound) - 1):
        damaged = bytearray(sound)
        damaged[position] ^= 1
        source = DecryptedSource(MemorySource(bytes(damaged)), KEY, "AES-GCM")
        with pytest.raises(FormatError, match="does not decrypt"):
            read(source, 0, 1)


def _changed(at: int, value: int) -> bytes:
    damaged = bytearray(block(PLAIN, "AES-CBC"))
    damaged[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(damaged)


BROKEN = {
    "nothing": b"",
    "other magic in the second block": block(PLAIN, "AES-CBC") + block(PLAIN, "SM4-CBC"),
    "length 0": _changed(4, 0),
    "length -1": _changed(4, -1),
    "length 2^31 - 1": _changed(4, (1 << 31) - 1),
    "IV of 12": _changed(8, 12),
    "IV of -1": _changed(8, -1),
    "cipher text of 0": _changed(28, 0),
    "cipher text of -1": _changed(28, -1),
    "cipher text of 2^31 - 1": _changed(28, (1 << 31) - 1),
    "cipher text over the limit": _changed(28, (64 << 20) + 32)[:4]
    + ((64 << 20) + 56).to_bytes(4, "little")
    + _changed(28, (64 << 20) + 32)[8:],
    "cipher text of 17": block(PLAIN[:1], "AES-CBC")[:4]
    + (41).to_bytes(4, "little")
    + (16).to_bytes(4, "little")
    + IV
    + (17).to_bytes(4, "little")
    + bytes(17),
    "empty block": block(b"", "AES-CBC"),
    "text after": block(PLAIN, "AES-CBC") + b"hello",
    "zeros after": block(PLAIN, "AES-CBC") + bytes(100),
} | {f"cut at {i}": block(PLAIN, "AES-CBC")[:i] for i in (*range(1, 50), 1070)}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_containers(case: str) -> None:
    """Every broken container is refused with path and offset."""
    with pytest.raises(FormatError) as caught:
        DecryptedSource(MemorySource(BROKEN[case]), KEY, "AES-CBC")
    assert caught.value.path == "/models/case"
    assert caught.value.offset is not None
    assert caught.value.expected


def test_too_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of blocks is bounded."""
    monkeypatch.setattr(encrypted_ckpt, "MAX_BLOCKS", 2)
    with pytest.raises(FormatError, match="too many blocks"):
        DecryptedSource(MemorySource(block(PLAIN, "AES-GCM") * 3), KEY, "AES-GCM")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cryptography is not installed the error says what to install."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    source = DecryptedSource(MemorySource(block(PLAIN, "AES-GCM")), KEY, "AES-GCM")
    with pytest.raises(UnsupportedFormat, match=r"mapcell\[crypto\]"):
        read(source, 0, 1)
