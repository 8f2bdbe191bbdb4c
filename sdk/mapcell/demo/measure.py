"""What processes hold in memory, as the kernel counts it.

Rss counts every resident page, Pss divides each by the number of processes that map it, so that Pss can be added up;
private pages (USS) are those that would be free if the process ended. Pages of huge-page segments are in none of the
three: the kernel counts them apart (``*_Hugetlb``).

Source: https://docs.kernel.org/filesystems/proc.html, smaps, smaps_rollup, meminfo and stat.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ \S+ \d+\s*(.*)$")
_FIELD = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
# Fields of /proc/PID/stat behind the command's closing bracket; the start time is field 22 of the whole line.
_STARTTIME = 22 - 3


@dataclass(frozen=True, slots=True)
class Memory:
    """One process's memory in bytes."""

    rss: int
    pss: int
    private: int
    hugetlb: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of a process's memory map, with the bytes of it that are resident."""

    start: int
    end: int
    access: str
    name: str
    rss: int


def parse_memory(text: str) -> Memory:
    """The sums of smaps or smaps_rollup. Private huge pages count as private."""
    sums: dict[str, int] = {}
    for field, kib in _FIELD.findall(text):
        sums[field] = sums.get(field, 0) + int(kib) * 1024
    own_huge = sums.get("Private_Hugetlb", 0)
    return Memory(
        rss=sums.get("Rss", 0),
        pss=sums.get("Pss", 0),
        private=sums.get("Private_Clean", 0) + sums.get("Private_Dirty", 0) + own_huge,
        hugetlb=sums.get("Shared_Hugetlb", 0) + own_huge,
    )


def parse_mappings(text: str) -> Iterator[Mapping]:
    """The mappings of an smaps text, in the order of their addresses."""
    header: re.Match[str] | None = None
    for line in text.splitlines():
        if found := _HEADER.match(line):
            header = found
        elif header is not None and line.startswith("Rss:"):
            start, end, access, name = header.groups()
            yield Mapping(int(start, 16), int(end, 16), access, name, int(line.split()[1]) * 1024)


def memory_of(pid: int) -> Memory:
    """The memory of one process. OSError when it is gone or another user's."""
    folder = _PROC / str(pid)
    try:
        text = (folder / "smaps_rollup").read_text()
    except FileNotFoundError:
        text = (folder / "smaps").read_text()
    return parse_memory(text)


def mapping_at(address: int, pid: int | str = "self") -> Mapping:
    """The mapping that holds `address`. LookupError when nothing is mapped there."""
    for mapping in parse_mappings((_PROC / str(pid) / "smaps").read_text()):
        if mapping.start <= address < mapping.end:
            return mapping
    raise LookupError(f"nothing is mapped at {address:#x}")


def memory_available() -> int:
    """Bytes that the host can still give without swapping, by the kernel's own estimate (MemAvailable)."""
    fields = dict(_FIELD.findall((_PROC / "meminfo").read_text()))
    return int(fields["MemAvailable"]) * 1024


def family(pid: int) -> list[int]:
    """`pid` and every process below it, as far as they still run."""
    import psutil

    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def since_boot() -> float:
    """Seconds since boot: the clock in which the kernel notes when a process started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def started_at() -> float:
    """When this process was started, in seconds since boot. The kernel notes it in steps of 10 ms."""
    fields = (_PROC / "self/stat").read_text().rpartition(")")[2].split()
    return int(fields[_STARTTIME]) / os.sysconf("SC_CLK_TCK")
