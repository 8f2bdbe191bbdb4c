"""MindSpore's encrypted .ckpt: the plain file in blocks of at most 64 MiB, each encrypted on its own.

    block  = magic, [tag], L, iv_len, iv, cipher_len, cipher text          blocks follow one another to the file's end
    magic       u32    0x7F3A5ED8 AES-GCM | 0x7F3A5ED9 AES-CBC | 0x7F3A5EDA SM4-CBC
    tag         16 bytes, AES-GCM only
    L           i32    4 + iv_len + 4 + cipher_len
    iv_len      i32    16
    iv          16 bytes; AES-GCM uses the first 12 as its nonce; some older MindSpores all 16
    cipher_len  i32    AES-GCM: as many as the plain text; CBC: with PKCS#7 padding to 16

All integers little-endian. The key is used as it is: 16, 24 or 32 bytes for AES, 16 for SM4. There is no further
authenticated data, so AES-GCM proves each block but not their order or number, and CBC proves nothing: use AES-GCM.

Source: mindspore/ccsrc/utils/crypto.cc, and files that MindSpore 2.10 wrote.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import FormatError, UnsupportedFormat
from .source import ByteSource, read

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext

BLOCK_BYTES = 64 * 1024 * 1024
MAGICS: Mapping[int, str] = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
MAGIC_OF: Mapping[str, int] = {mode: magic for magic, mode in MAGICS.items()}
KEY_BYTES: Mapping[str, tuple[int, ...]] = {"AES-GCM": (16, 24, 32), "AES-CBC": (16, 24, 32), "SM4-CBC": (16,)}
IV_BYTES = 16
TAG_BYTES = 16
NONCE_BYTES = 12
CIPHER_BLOCK = 16
# 4 TiB of full blocks. Less than full ones occur only at a file's end.
MAX_BLOCKS = 65_536

# A reader walks from one block into the next, and looks at the file's end first.
_CACHED_BLOCKS = 2
_CHUNK = 1 << 20


def mode_of(head: bytes) -> str | None:
    """The mode in which a file that begins with `head` is encrypted; None when it is not."""
    return MAGICS.get(int.from_bytes(head[:4], "little")) if len(head) >= 4 else None


def check_key(key: bytes, mode: str, path: str | None = None) -> None:
    """FormatError unless `mode` is known and `key` has a length that it takes."""
    if mode not in KEY_BYTES:
        raise FormatError(f"there is no encryption mode {mode!r}", path=path, expected=", ".join(KEY_BYTES))
    if len(key) not in KEY_BYTES[mode]:
        lengths = " or ".join(map(str, KEY_BYTES[mode]))
        raise FormatError(f"a key of {len(key)} bytes for {mode}", path=path, expected=f"{lengths} bytes")


def cipher(mode: str, key: bytes, iv: bytes, tag: bytes | None = None) -> Cipher[Any]:
    """The cipher of `mode`; UnsupportedFormat when the package for it is not installed."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as exc:
        advice = "pip install 'mapcell[crypto]'"
        raise UnsupportedFormat(f"{mode} needs the package cryptography: {advice}") from exc
    algorithm = algorithms.SM4(key) if mode == "SM4-CBC" else algorithms.AES(key)
    return Cipher(algorithm, modes.GCM(iv, tag) if mode == "AES-GCM" else modes.CBC(iv))


@dataclass(frozen=True, slots=True)
class _Block:
    """Where one block's cipher text lies, and what it takes to decrypt it."""

    at: int
    tag: bytes | None
    iv: bytes
    start: int
    nbytes: int


class DecryptedSource:
    """The plain bytes of an encrypted `inner`, decrypted block by block when they are read.

    Holds at most two plain blocks, 128 MiB. Thread-safe. FormatError for a broken container or a wrong key: at once
    with CBC, when the first block is read with AES-GCM.
    """

    def __init__(self, inner: ByteSource, key: bytes, mode: str) -> None:
        check_key(key, mode, inner.path)
        self.path = inner.path
        self._inner, self._key, self._mode = inner, key, mode
        self._blocks = _blocks(inner, mode)
        self._starts = [0]
        for block in self._blocks:
            self._starts.append(self._starts[-1] + self._plain_bytes(block))
        self.size = self._starts.pop()
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, memoryview] = OrderedDict()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` from `offset` of the plain bytes. FormatError when a block does not decrypt."""
        done = 0
        while done < len(buffer):
            number = bisect_right(self._starts, offset + done) - 1
            # One at a time: decrypting two blocks side by side would hold four.
            with self._lock:
                plain = self._plain(number)
                skip = offset + done - self._starts[number]
                piece = plain[skip : skip + len(buffer) - done]
                buffer[done : done + len(piece)] = piece
            if not piece:
                raise FormatError("ends early", path=self.path, offset=offset + done, expected="more plain bytes")
            done += len(piece)

    def _plain(self, number: int) -> memoryview:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        while len(self._cache) >= _CACHED_BLOCKS:
            self._cache.popitem(last=False)
        plain = self._decrypt(self._blocks[number])
        self._cache[number] = plain
        return plain

    def _plain_bytes(self, block: _Block) -> int:
        """Bytes of the block's plain text; CBC's padding is in the last 16, which need only the 16 before them."""
        if self._mode == "AES-GCM":
            return block.nbytes
        tail = bytes(read(self._inner, block.start + block.nbytes - CIPHER_BLOCK, CIPHER_BLOCK))
        before = block.start + block.nbytes - 2 * CIPHER_BLOCK
        iv = block.iv if before < block.start else bytes(read(self._inner, before, CIPHER_BLOCK))
        plain = cipher(self._mode, self._key, iv).decryptor().update(tail)
        padding = plain[-1]
        if not 1 <= padding <= CIPHER_BLOCK or plain[-padding:] != bytes([padding]) * padding:
            raise self._wrong_key(block)
        if padding == block.nbytes:
            raise FormatError("an empty block", path=self.path, offset=block.at, expected="at least 1 byte")
        return block.nbytes - padding

    def _decrypt(self, block: _Block) -> memoryview:
        if self._mode != "AES-GCM":
            context = cipher(self._mode, self._key, block.iv).decryptor()
            return self._run(context, block)[: self._plain_bytes(block)]
        from cryptography.exceptions import InvalidTag

        for nonce in (block.iv[:NONCE_BYTES], block.iv):
            context = cipher(self._mode, self._key, nonce, block.tag).decryptor()
            plain = self._run(context, block)
            try:
                context.finalize()
            except InvalidTag:
                continue
            return plain
        raise self._wrong_key(block)

    def _run(self, context: CipherContext, block: _Block) -> memoryview:
        # update_into wants room for one cipher block more than it writes.
        plain = memoryview(bytearray(block.nbytes + CIPHER_BLOCK))
        chunk = memoryview(bytearray(min(_CHUNK, block.nbytes)))
        done = 0
        while done < block.nbytes:
            piece = chunk[: block.nbytes - done]
            self._inner.read_into(block.start + done, piece)
            done += context.update_into(piece, plain[done:])
        return plain[: block.nbytes]

    def _wrong_key(self, block: _Block) -> FormatError:
        return FormatError(
            f"does not decrypt with this key as {self._mode}", path=self.path, offset=block.at, expected="another key"
        )


def _blocks(source: ByteSource, mode: str) -> list[_Block]:
    blocks: list[_Block] = []
    at = 0
    while at < source.size:
        if len(blocks) == MAX_BLOCKS:
            raise FormatError("too many blocks", path=source.path, offset=at, expected=f"at most {MAX_BLOCKS}")
        blocks.append(_block(source, at, mode))
        at = blocks[-1].start + blocks[-1].nbytes
    if not blocks:
        raise FormatError("is empty", path=source.path, offset=0, expected="an encrypted block")
    return blocks


def _block(source: ByteSource, at: int, mode: str) -> _Block:
    tagged = TAG_BYTES if mode == "AES-GCM" else 0
    nbytes = 4 + tagged + 4 + 4 + IV_BYTES + 4
    if nbytes >= source.size - at:
        expected = f"{nbytes} bytes and a cipher text"
        raise FormatError("ends within a block's header", path=source.path, offset=at, expected=expected)
    head = bytes(read(source, at, nbytes))
    if int.from_bytes(head[:4], "little") != MAGIC_OF[mode]:
        expected = f"{MAGIC_OF[mode]:#x} ({mode})"
        raise FormatError("a block without its magic number", path=source.path, offset=at, expected=expected)
    body = head[4 + tagged :]
    length, iv_len, cipher_len = (int.from_bytes(body[i : i + 4], "little", signed=True) for i in (0, 4, 8 + IV_BYTES))
    if iv_len != IV_BYTES or length != 4 + iv_len + 4 + cipher_len:
        message = f"a block of {length} bytes with an IV of {iv_len} and a cipher text of {cipher_len}"
        raise FormatError(message, path=source.path, offset=at, expected=f"{IV_BYTES} for the IV, and a sum that fits")
    _check_cipher_bytes(source, at, at + nbytes, cipher_len, mode)
    return _Block(at, head[4 : 4 + tagged] or None, body[8 : 8 + IV_BYTES], at + nbytes, cipher_len)


def _check_cipher_bytes(source: ByteSource, at: int, start: int, nbytes: int, mode: str) -> None:
    padded = mode != "AES-GCM"
    limit = BLOCK_BYTES + CIPHER_BLOCK * padded
    if not 0 < nbytes <= limit or (padded and nbytes % CIPHER_BLOCK):
        expected = f"1 to {limit}" + ", in whole cipher blocks of 16" * padded
        raise FormatError(f"a cipher text of {nbytes} bytes", path=source.path, offset=at, expected=expected)
    if nbytes > source.size - start:
        expected = f"at most {source.size - start}, as the file ends there"
        raise FormatError(f"a cipher text of {nbytes} bytes", path=source.path, offset=at, expected=expected)
