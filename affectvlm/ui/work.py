"""Something that takes long, done beside the pages: it tells how far it is, can be stopped, and dies with its session.

A page that works inside its own script is interrupted by every click. So a `Work` runs in a thread of its own, which
knows nothing of streamlit; pages only look at it. When nobody holds the `Work` any more (another took its place,
"Forget everything", the session ended), its thread stops at the next step and what it held is gone.

All sessions share as many turns as there are cores for; who has none waits, and is told so. What a page works out
itself in a second or two waits in a line of its own (`in_turn`), so that twenty pages opened at once come one after the
other and early, not all together and late.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = max(1, (os.cpu_count() or 2) // 2)
_turns = threading.BoundedSemaphore(AT_ONCE)
_short_turns = threading.BoundedSemaphore(os.cpu_count() or 2)


@contextmanager
def in_turn() -> Iterator[None]:
    """For work of a second or two: as many at once as there are cores, the others wait here.

    Take no turn inside another one.
    """
    with _short_turns:
        yield


class Stopped(BaseException):
    """Ends the thread; not an `Exception`, so that nothing on the way takes it for a bad file."""


class Desk:
    """What the thread and the pages share: all that the thread itself holds of its `Work`."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.done = threading.Event()
        self.share, self.words = 0.0, ""
        self.error: Exception | None = None

    def tell(self, share: float, words: str) -> None:
        """How far it is, 0 to 1, and with what. Call it at every step: it is where a stop is heeded.

        Raises:
            Stopped: somebody asked for it.
        """
        if self.stop.is_set():
            raise Stopped
        self.share, self.words = min(max(share, 0.0), 1.0), words


class Work(Generic[T]):
    """A function at work in a thread; it is given a `Desk` to tell its steps to, and what it returns is the `result`.

    Attributes:
        key: what the work is about, for whoever wants to know whether it is still what is wanted.
    """

    def __init__(self, key: str, do: Callable[[Desk], T]) -> None:
        self.key = key
        self._desk = Desk()
        self._results: list[T] = []
        weakref.finalize(self, self._desk.stop.set)
        arguments = (do, self._desk, self._results)
        self._thread = threading.Thread(target=_work, args=arguments, name="work", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return not self._desk.done.is_set()

    @property
    def share(self) -> float:
        return self._desk.share

    @property
    def words(self) -> str:
        return self._desk.words

    @property
    def result(self) -> T | None:
        """None while it runs, and where it was stopped or failed."""
        return self._results[0] if self._results and not self.running else None

    @property
    def problem(self) -> str | None:
        """Why it failed, made to be read; None while it did not.

        Raises:
            Exception: what nobody foresaw, as it came.
        """
        error = self._desk.error
        if error is not None and not isinstance(error, ValueError):
            raise error
        return None if error is None else str(error)

    @property
    def stopped(self) -> bool:
        """Whether it ended before its end because it was asked to."""
        return not self.running and not self._results and self._desk.error is None

    def stop(self) -> None:
        """Asks it to stop; it does at its next step."""
        self._desk.stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Until it has ended; False where the time was up first."""
        return self._desk.done.wait(seconds)


def _work(do: Callable[[Desk], T], desk: Desk, results: list[T]) -> None:
    try:
        _wait_for_a_turn(desk)
        try:
            results.append(do(desk))
        finally:
            _turns.release()
    except Stopped:
        logger.debug("stopped on demand")
    except Exception as error:  # noqa: BLE001  shown on the page, or raised there
        if not isinstance(error, ValueError):
            logger.exception("work failed")
        desk.error = error
    finally:
        desk.done.set()


def _wait_for_a_turn(desk: Desk) -> None:
    while not _turns.acquire(timeout=0.2):
        desk.tell(0.0, "Waiting for other visitors …")
