"""Stopping a command: SIGTERM ends it as Ctrl-C does, so that it can say what is kept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM."""


@dataclass
class Interrupts:
    """Whether a signal has come.

    The exception of a signal can be lost: when it is raised inside a library written in C, that may raise an error of
    its own in its place ("could not determine the shape of ...").
    """

    came: bool = False


@contextmanager
def signals_as_interrupts() -> Iterator[Interrupts]:
    """Inside, SIGTERM raises Terminated, and what comes is noted.

    Outside the main thread, where Python allows no handlers, nothing is noted.  So it is with a handler of Ctrl-C that
    is not Python's own.
    """
    interrupts = Interrupts()

    def stop(number: int, frame: FrameType | None) -> None:
        interrupts.came = True
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
