"""What `load --dry-run` says: what a checkpoint is, what it would cost, and whether that fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mapcell_formats.errors import BudgetExceeded, UnsupportedFormat

from . import output
from .asking import models
from .files import opened
from .targets import File, Known, Wish

if TYPE_CHECKING:
    from mapcell_formats.checkpoint import Checkpoint
    from mapcell_formats.messages import ModelRow, Status


@dataclass(frozen=True, slots=True)
class Forecast:
    """What loading a file would do. Sizes in bytes.

    `sealed_nbytes` is what it takes when sealed, alignment included; `mapped_obstacle` says why it cannot be mapped as
    it lies, None when it can. `residence` is "mapped", "sealed", or "auto" when the daemon decides by whether it
    can guard the file. `fits` compares `sealed_nbytes` with what is free in the budget once `evictable` is evicted, and
    with what the host has `available`.
    """

    name: str
    source: str
    format: str
    tensors: int
    nbytes: int
    sealed_nbytes: int
    residence: str
    mapped_obstacle: str | None
    budget: int
    in_use: int
    evictable: int
    available: int
    fits: bool


def foresee(target: Known | File, wish: Wish, figures: Status, as_json: bool) -> None:
    """Says what `load` would do. BudgetExceeded or UnsupportedFormat when the daemon would refuse it."""
    if isinstance(target, Known):
        _foresee_known(target, wish, as_json)
        return
    with opened(target.path) as (_, checkpoint):
        forecast = predict(target, wish, checkpoint, figures, models(), available_memory())
    if as_json:
        output.emit(asdict(forecast))
    else:
        _print(forecast)
    _refuse(forecast)


def predict(
    target: File, wish: Wish, checkpoint: Checkpoint, figures: Status, rows: Iterable[ModelRow], available: int
) -> Forecast:
    """What loading `checkpoint` would do beside the models in `rows`, on a host with `available` bytes to give."""
    from mapcell_formats.gguf_dequantise import dequantised
    from mapcell_formats.layout import plan

    staged = dequantised(checkpoint) if wish.dtype else checkpoint
    obstacle = checkpoint.obstacle() if not wish.dtype else f"its floating tensors are to be cast to {wish.dtype}"
    needed = plan(staged.tensors, wish.dtype or None).nbytes
    held = {r.version: r.nbytes for r in rows if r.residence == "sealed" and r.state == "READY"}
    kept = {r.version for r in rows if r.leases or r.pinned}
    evictable = sum(nbytes for version, nbytes in held.items() if version not in kept)
    return Forecast(
        name=target.name,
        source=target.path,
        format=checkpoint.format,
        tensors=len(checkpoint.tensors),
        nbytes=checkpoint.nbytes,
        sealed_nbytes=needed,
        residence="sealed" if obstacle and wish.residence == "auto" else wish.residence,
        mapped_obstacle=obstacle,
        budget=figures.budget,
        in_use=figures.sealed,
        evictable=evictable,
        available=available,
        fits=needed <= figures.budget - figures.sealed + evictable and needed <= available,
    )


def available_memory() -> int:
    """Bytes that the host can give without swapping, by the kernel's own estimate (MemAvailable)."""
    import psutil

    return int(psutil.virtual_memory().available)


def _foresee_known(target: Known, wish: Wish, as_json: bool) -> None:
    held = [asdict(row) for row in models() if row.name == target.name and row.state == "READY"]
    if as_json:
        output.emit({"name": target.name, "loaded": bool(held), "versions": held})
    elif held:
        cast = f"; its cast to {wish.dtype} would be made unless it is there too" if wish.dtype else ""
        output.put(f"{target.name} is loaded already{cast}; `mapcell show {target.name}` shows it")
    else:
        output.put(f"{target.name} stands in the daemon's configuration; it would stage the file named there")


def _print(forecast: Forecast) -> None:
    output.put_fields(
        [
            ("model", forecast.name),
            ("source", f"{forecast.source} ({forecast.format})"),
            ("tensors", f"{forecast.tensors:,}, {output.size(forecast.nbytes)}"),
            ("mapped", _mapped(forecast)),
            ("sealed", f"takes {output.size(forecast.sealed_nbytes)} ({forecast.sealed_nbytes} bytes with alignment)"),
            (
                "budget",
                f"{output.size(forecast.in_use)} of {output.size(forecast.budget)} in use" + _evicting(forecast),
            ),
            ("host", f"{output.size(forecast.available)} to give"),
            ("would be", _outcome(forecast)),
        ]
    )


def _mapped(forecast: Forecast) -> str:
    return f"not possible: {forecast.mapped_obstacle}" if forecast.mapped_obstacle else "possible, at no cost in memory"


def _evicting(forecast: Forecast) -> str:
    return f", {output.size(forecast.evictable)} of it evictable" if forecast.evictable else ""


def _outcome(forecast: Forecast) -> str:
    match forecast.residence:
        case "mapped":
            return "refused" if forecast.mapped_obstacle else "mapped"
        case "sealed":
            return "sealed" if forecast.fits else "refused"
        case _:
            sealed = "sealed" if forecast.fits else "refused"
            return f"mapped if the daemon can guard the file, else {sealed}"


def _refuse(forecast: Forecast) -> None:
    if forecast.residence == "mapped":
        if forecast.mapped_obstacle:
            raise UnsupportedFormat(
                f"cannot be mapped: {forecast.mapped_obstacle}",
                path=forecast.source,
                expected="--residence auto or sealed",
            )
        return
    if forecast.residence == "sealed" and not forecast.fits:
        free = min(forecast.budget - forecast.in_use + forecast.evictable, forecast.available)
        raise BudgetExceeded(
            f"does not fit: it needs {forecast.sealed_nbytes} bytes and {max(free, 0)} can be had; unload a "
            "model, or raise the daemon's --budget",
            needed=forecast.sealed_nbytes,
            budget=forecast.budget,
            in_use=forecast.in_use,
        )
