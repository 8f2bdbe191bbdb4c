"""The command `top`: models, memory, leases and rates, as they change."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import click

from mapcell_formats.errors import MapcellError

from . import output
from .asking import ask, models
from .keyboard import CTRL_C, CTRL_L, CTRL_Z, Keyboard
from .rates import Meter, Sample
from .top_lines import Line, View, describe, lines

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from mapcell.watching import Watcher
    from mapcell_formats.messages import Event

_FOOTER = "q quits"
_EVENTS = 100
# How long a key may go unnoticed.
_TICK = 0.1
_ANSWER_SECONDS = 1.0
# What is being staged moves fast.
_STAGING_SECONDS = 0.25
_WATCH_AGAIN_SECONDS = 1.0


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Look that often.",
)
@click.option("--once", is_flag=True, help="Print one picture and end; rates take two, so there are none.")
def top(interval: float, once: bool) -> None:
    """Watches the daemon: models with their bytes and leases, what is staged and how fast, and what happens.

    On a terminal the picture stays in place until q or Ctrl-C; elsewhere one is printed every interval.
    """
    with Feed() as feed:
        if once:
            _put(feed.look())
        elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            _live(feed, interval)
        else:
            _print(feed, interval)


class Feed:
    """What there is to show. Owns the subscription to events. DaemonUnavailable when no daemon answers at first."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._watcher: Watcher | None = None
        self._watch_at = 0.0
        self._view: View | None = None

    def look(self) -> View:
        """The picture now; with what is known and the trouble, when the daemon that was there does not answer."""
        from mapcell_formats.messages import GetStatus

        try:
            status = ask(GetStatus(), _ANSWER_SECONDS)
            sample, trouble = Sample(time.monotonic(), status, models(_ANSWER_SECONDS)), ""
        except MapcellError as exc:
            if self._view is None:
                raise
            sample, trouble = self._view.sample, exc.message.partition(";")[0]
        self._note_change(sample, trouble)
        rates = self._view.rates if trouble and self._view else self._meter.take(sample)
        self._view = View(sample, rates, tuple(self._events), trouble)
        return self._view

    def listen(self, seconds: float) -> bool:
        """Waits up to `seconds` for something to happen. Whether something did."""
        until = time.monotonic() + seconds
        try:
            heard = self._heard(seconds)
        except MapcellError:
            self._stop_watching()
            self._watch_at = time.monotonic() + _WATCH_AGAIN_SECONDS
            heard = []
        if not heard and self._watcher is None:
            time.sleep(max(until - time.monotonic(), 0))
        told = [text for event in heard if event.number and (text := describe(event))]
        for text in told:
            self._note(text)
        return bool(told)

    def look_first(self) -> View:
        """As `look`, once it is certain that whatever happens from here on will be told."""
        self.look()
        until = time.monotonic() + _ANSWER_SECONDS
        while not (self._watcher and self._watcher.subscribed) and time.monotonic() < until:
            self.listen(_TICK)
        return self.look()

    def forget_events(self) -> None:
        """Shows what happened so far no more."""
        self._events.clear()

    def _heard(self, seconds: float) -> list[Event]:
        from mapcell.watching import Watcher

        if self._watcher is None:
            if time.monotonic() < self._watch_at:
                return []
            self._watcher = Watcher()
        return self._watcher.poll(seconds)

    def _note_change(self, sample: Sample, trouble: str) -> None:
        if self._view is None:
            return
        if trouble and not self._view.trouble:
            self._note(trouble)
        elif sample.status.pid != self._view.sample.status.pid:
            self._note(f"a daemon with pid {sample.status.pid} answers")
        elif self._view.trouble and not trouble:
            self._note("the daemon answers again")

    def _note(self, text: str) -> None:
        self._events.append(f"{time.strftime('%H:%M:%S')}  {text}")

    def _stop_watching(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_watching()


def _put(view: View) -> None:
    for line in lines(view, output.available()):
        click.echo(line.text)


def _print(feed: Feed, interval: float) -> None:
    view = feed.look_first()
    while True:
        _put(view)
        click.echo()
        sys.stdout.flush()
        feed.forget_events()
        until = time.monotonic() + interval
        while (left := until - time.monotonic()) > 0:
            feed.listen(left)
        view = feed.look()


def _live(feed: Feed, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    first = feed.look_first()
    with _ended_by_signal(), Keyboard() as keyboard:
        live = Live(_picture(first), console=Console(highlight=False), screen=True, auto_refresh=False)
        with live:
            try:
                _show(feed, interval, live, keyboard)
            except KeyboardInterrupt:
                return


def _show(feed: Feed, interval: float, live: Live, keyboard: Keyboard) -> None:
    look_at, size, view = 0.0, None, None
    while True:
        happened = feed.listen(_TICK)
        typed = keyboard.typed()
        if set(typed) & {"q", "Q", CTRL_C}:
            return
        if CTRL_Z in typed:
            _suspend(live, keyboard)
        now, terminal = time.monotonic(), shutil.get_terminal_size()
        if view is None or happened or typed == CTRL_L or now >= look_at:
            view = feed.look()
            look_at = now + (min(interval, _STAGING_SECONDS) if view.sample.status.staging else interval)
        elif terminal == size:
            continue
        size = terminal
        live.update(_picture(view), refresh=True)


def _picture(view: View) -> Text:
    from rich.text import Text

    columns, rows = shutil.get_terminal_size()
    return Text("\n", no_wrap=True, overflow="crop").join(_text(line) for line in lines(view, columns, rows, _FOOTER))


def _text(line: Line) -> Text:
    from rich.text import Text

    return Text(line.text, style=line.style, no_wrap=True, overflow="crop")


def _suspend(live: Live, keyboard: Keyboard) -> None:
    """Leaves the terminal to the shell until the job is continued."""
    live.stop()
    keyboard.give_back()
    os.kill(0, signal.SIGTSTP)
    keyboard.take()
    live.start()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Has SIGTERM unwind the stack, so that the terminal is given back."""

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
