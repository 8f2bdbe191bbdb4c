"""Which file system a descriptor lies on, and what is known of each. Source: fstatfs(2), linux/magic.h."""

from __future__ import annotations

import ctypes
import os
import struct

from mapcell_formats.errors import StagingFailed

# Local and cluster file systems whose reads end. FUSE is not one: its server decides when they end.
ANSWERING = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x73717368: "squashfs",
    0xE0F5E1E2: "erofs",
    0x9660: "iso9660",
    0x6969: "nfs",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
}
# Others write to a cluster's files without this kernel's knowledge, and a lower folder's to an overlay's.
_WRITTEN_ELSEWHERE = {"overlay", "nfs", "ceph", "lustre", "gpfs"}


def kind_of(fd: int) -> int:
    """The magic number of the file system of `fd`. StagingFailed when the kernel does not say."""
    # struct statfs begins with the type as a long on every architecture that Linux supports in 64 bits.
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fstatfs(fd, buffer) != 0:
        raise StagingFailed(f"fstatfs failed: {os.strerror(ctypes.get_errno())}")
    return int(struct.unpack_from("@l", buffer)[0]) & 0xFFFFFFFF


def guarding_obstacle(kind: int) -> str:
    """Why files of the file system `kind` cannot be guarded, "" when this kernel sees every write to them."""
    name = ANSWERING.get(kind, f"type {kind:#x}")
    if kind not in ANSWERING or name in _WRITTEN_ELSEWHERE:
        return f"it lies on a file system ({name}) that can be written to behind the kernel's back"
    return ""
