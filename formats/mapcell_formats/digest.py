"""What names a version: a digest over the tensors' names, dtypes, shapes and bytes and the checkpoint's metadata.

The canonical form lists the tensors by name, each with the blake3 of its own bytes, so the digest does not depend on
how a checkpoint is cut into files, on the order within them, or on where the bytes lie in memory; tensors can be
hashed in parallel and verified one by one. Source: BLAKE3, https://github.com/BLAKE3-team/BLAKE3-specs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping

from .manifest import TensorEntry

PREFIX = "blake3:"
PROVISIONAL = "file-"
_DOMAIN = b"mapcell content 1\0"


def content_digest(tensors: Iterable[tuple[TensorEntry, bytes]], metadata: Mapping[str, str]) -> str:
    """ "blake3:" and 64 hex digits over (entry, digest of its bytes) pairs in any order, and the metadata."""
    from blake3 import blake3

    hasher = blake3(_DOMAIN)
    for entry, digest in sorted(tensors, key=lambda pair: pair[0].name.encode()):
        name, dtype = entry.name.encode(), entry.dtype.encode()
        hasher.update(struct.pack("<IBB", len(name), len(dtype), len(entry.shape)))
        hasher.update(name + dtype + struct.pack(f"<{len(entry.shape)}Q", *entry.shape) + digest)
    hasher.update(b"metadata\0")
    for key, value in sorted(metadata.items()):
        pair = key.encode(), value.encode()
        hasher.update(struct.pack("<II", len(pair[0]), len(pair[1])) + pair[0] + pair[1])
    return PREFIX + hasher.hexdigest()


def file_identity(info: os.stat_result) -> str:
    """The state of one file as its descriptor tells it: device, inode, size, mtime and ctime in ns."""
    return f"{info.st_dev:x}.{info.st_ino:x}.{info.st_size:x}.{info.st_mtime_ns:x}.{info.st_ctime_ns:x}"


def without_ctime(identity: str) -> str:
    """`identity` less its ctime, which chmod, rename and link change as well: what tells that the bytes may be others.

    It is no proof that they are not: whoever may write the file may set its mtime back.
    """
    return identity.rpartition(".")[0]


def provisional_id(identities: Iterable[str]) -> str:
    """The id of a mapped version whose bytes were not hashed: "file-" and what its files look like from outside."""
    from blake3 import blake3

    return PROVISIONAL + blake3("\n".join(identities).encode()).hexdigest(length=16)
