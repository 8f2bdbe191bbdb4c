"""What this process and its host have to give: limits, memory, and the software that is installed.

Source: getrlimit(2), proc_sys_vm(5), proc_meminfo(5), cgroups(7), zmq_msg_gets(3) for "Peer-Address".
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import output
from .findings import Finding

# A lease is one descriptor in the daemon and, once mapped, in the worker; 1,024 is what shells give.
_DESCRIPTORS = 4096
# The kernel's default. A worker needs one map for each segment of each model.
_MAPS = 65_530
_CGROUP = Path("/sys/fs/cgroup")
# Version 1 of cgroups says "no limit" with a number near 2^63.
_NO_LIMIT = 1 << 62
# With less than this to give, hardly any model can be sealed.
_LITTLE = 1 << 30
_PACKAGES = ("numpy", "msgpack", "pyzmq", "psutil", "safetensors", "ml_dtypes", "blake3", "click", "rich", "scipy")
_EXTRAS = (
    ("crypto", "cryptography", "encrypted MindSpore checkpoints"),
    ("demo", "tokenizers", "`mapcell demo` on sentences of your own"),
    ("gguf", "gguf", "comparing GGUF with its own library in the tests"),
)
_IMPORT_NAMES = {"pyzmq": "zmq"}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_THREAD_PROBE = (
    "import os, numpy; a = numpy.ones((256, 256), numpy.float32); a @ a; print(len(os.listdir('/proc/self/task')))"
)
_PROBE_SECONDS = 30


def limit_findings() -> list[Finding]:
    """The limits on descriptors, locked memory and maps."""
    return [_descriptors(), _locked_memory(), _maps()]


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = hard == resource.RLIM_INFINITY or hard >= _DESCRIPTORS
    advice = "" if ok else f"raise the hard limit (LimitNOFILE= or ulimit -Hn) to {_DESCRIPTORS} or more"
    return Finding(
        "RLIMIT_NOFILE", ok, f"{_amount(soft)}, which a daemon raises to {_amount(hard)}; a lease is one", advice
    )


def _amount(limit: int) -> str:
    return "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}"


def _locked_memory() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    privileged = _may_lock_anything()
    ok = privileged or hard == resource.RLIM_INFINITY
    detail = "no limit" if ok else f"{output.size(soft)}, at most {output.size(hard)}"
    advice = "" if ok else "LimitMEMLOCK=infinity for the daemon, if a model has lock = true; nothing else needs it"
    return Finding("RLIMIT_MEMLOCK", ok, detail + (" (CAP_IPC_LOCK)" if privileged else ""), advice)


def _may_lock_anything() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 14 & 1)
    return False


def _maps() -> Finding:
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError) as exc:
        return Finding("vm.max_map_count", False, f"unknown: {exc}", "mount /proc, so that it can be read")
    ok = limit >= _MAPS
    advice = "" if ok else f"sysctl vm.max_map_count={_MAPS}"
    return Finding("vm.max_map_count", ok, f"{limit:,} maps in a process; a model takes one for each segment", advice)


def memory_findings(pid: int | None) -> list[Finding]:
    """What the host can give, and the tightest memory cgroup above process `pid`, or above this one."""
    import psutil

    available = int(psutil.virtual_memory().available)
    ok = available >= _LITTLE
    advice = "" if ok else "stop something else, or map files in place (residence mapped)"
    found = [Finding("MemAvailable", ok, f"{output.size(available)} can be had without swapping", advice)]
    return [*found, _cgroup(pid)]


def _cgroup(pid: int | None) -> Finding:
    whose = "this process" if pid is None else f"the daemon (pid {pid})"
    try:
        membership = Path(f"/proc/{pid or 'self'}/cgroup").read_text()
    except OSError as exc:
        advice = "ask as the daemon's user, or as root"
        return Finding("memory cgroup", False, f"unknown for {whose}: {exc.strerror}", advice)
    groups = list(cgroup_limits(membership, _CGROUP))
    if not groups:
        return Finding("memory cgroup", True, f"no limit above {whose}")
    room, limit, folder = min(groups)
    ok = room >= _LITTLE
    detail = f"{output.size(max(room, 0))} left of {output.size(limit)} for {whose}, in {folder}"
    return Finding(
        "memory cgroup", ok, detail, "" if ok else "raise its limit (MemoryMax= of a unit, or the container's)"
    )


def cgroup_limits(membership: str, root: Path) -> Iterator[tuple[int, int, Path]]:
    """(bytes left, bytes allowed, folder) of each memory cgroup beneath `root` with a limit above a process.

    `membership` is the process's /proc/PID/cgroup, of version 1 or 2. Page cache counts as room, since the kernel gives
    it up.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        keys = ("total_inactive_file", "total_active_file") if controllers else ("inactive_file", "active_file")
        folder = base / path.lstrip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(base) and 0 < (limit := _number(place / names[0])) < _NO_LIMIT:
                yield limit - _number(place / names[1]) + _cache(place, keys), limit, place


def _number(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _cache(folder: Path, keys: tuple[str, ...]) -> int:
    try:
        pairs = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(value) for key, value in pairs if key in keys)


def software_findings() -> list[Finding]:
    """Python, the packages that mapcell is made with, those of its extras, and what BLAS does with threads."""
    found = [Finding("python", True, f"{sys.version.split()[0]} at {sys.executable}", required=True)]
    found += [_package(name) for name in _PACKAGES]
    found.append(_libzmq())
    found += [_extra(*extra) for extra in _EXTRAS]
    return [*found, _blas_threads()]


def _package(name: str) -> Finding:
    try:
        import_module(_IMPORT_NAMES.get(name, name))
        return Finding(name, True, version(name), required=True)
    # A broken extension module may raise anything while it is imported.
    except Exception as exc:
        return Finding(name, False, f"{type(exc).__name__}: {exc}", f"pip install --force-reinstall {name}", True)


def _extra(extra: str, package: str, purpose: str) -> Finding:
    try:
        return Finding(f"extra {extra}", True, f"{package} {version(package)}: {purpose}")
    except PackageNotFoundError:
        return Finding(f"extra {extra}", False, f"no {package}: {purpose}", f"pip install 'mapcell[{extra}]' for it")


def _libzmq() -> Finding:
    import zmq

    with tempfile.TemporaryDirectory(prefix="mc") as folder:
        try:
            shown = _shown_credentials(f"ipc://{folder}/probe")
        except zmq.ZMQError as exc:
            shown = str(exc)
    ok = shown.rsplit(":", 3)[1:] == [str(os.getuid()), str(os.getgid()), str(os.getpid())]
    detail = f"{zmq.zmq_version()}, " + ("shows who a peer is" if ok else f"shows {shown!r} for a peer")
    return Finding(
        "libzmq", ok, detail, "" if ok else "pip install --force-reinstall pyzmq (a wheel, not a distribution's)", True
    )


def _shown_credentials(address: str) -> str:
    import zmq

    with zmq.Context(io_threads=1) as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as peer:
        for sock in (router, peer):
            sock.setsockopt(zmq.LINGER, 0)
        router.bind(address)
        peer.connect(address)
        peer.send(b"x")
        if not router.poll(1000 * _PROBE_SECONDS):
            return "nothing"
        return str(router.recv_multipart(copy=False)[-1].get("Peer-Address"))


def _blas_threads() -> Finding:
    cores = len(os.sched_getaffinity(0))
    told = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _THREAD_PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
        threads = int(ran.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        return Finding("BLAS threads", False, f"numpy did not multiply: {exc}", "pip install --force-reinstall numpy")
    detail = f"a worker multiplies in {output.count(threads, 'thread')} on {output.count(cores, 'core')}"
    ok = threads == 1 or cores == 1 or bool(told)
    advice = (
        "" if ok else "set OPENBLAS_NUM_THREADS (or what your BLAS obeys) to cores / workers when several workers run"
    )
    return Finding("BLAS threads", ok, detail + "".join(f", {k}={v}" for k, v in told.items()), advice)
