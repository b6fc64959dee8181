"""Ctrl-C and SIGTERM while steps are trained: a step is finished first, so that its checkpoint is exact."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """A context manager between whose `hold` and `release` SIGINT and SIGTERM wait.

    A second signal does not wait.  Does nothing outside the main thread, where Python allows no handlers.
    """

    def __init__(self) -> None:
        self.holding = False
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "HeldSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on, the first signal waits."""
        self.holding = True

    def release(self) -> None:
        """A signal that has waited does now what it would have done before; the next ones do not wait."""
        self.holding = False
        if self._pending is not None:
            number, self._pending = self._pending, None
            self._do(number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.holding and self._pending is None:
            self._pending = number
        else:
            self._do(number, frame)

    def _do(self, number: int, frame: FrameType | None) -> None:
        """What the handler before this one does; a process that would simply end is interrupted too."""
        handler = self._before.get(number)
        if callable(handler):
            handler(number, frame)
        elif handler != signal.SIG_IGN:
            raise KeyboardInterrupt
