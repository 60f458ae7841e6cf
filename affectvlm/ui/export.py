"""The app's side of the exporting process: started when first needed, timed, restarted when it dies."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from affectvlm.ui.display import DisplayMesh
from affectvlm.ui.export_worker import write_request

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
EXPORTS = 1000
"""After so many pages a fresh process takes over: VTK and its exporter keep about 0.15 MB of each mesh."""


class ExportError(RuntimeError):
    """The mesh could not be made into an interactive page; the message says why."""


class _Died(ExportError):
    """The process was gone, without a time-out."""


class ExportWorker:
    """One exporting process for all sessions, used by one at a time.

    A request that takes longer than its time-out, or a crash of the process, ends in an `ExportError`; the next request
    starts a fresh process.
    """

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "affectvlm.ui.export_worker")) -> None:
        self._command = command
        self._process: subprocess.Popen | None = None
        self._exported = 0
        self._lock = threading.Lock()

    def export(self, mesh: DisplayMesh, appearance: bool, background: str, skin: str, timeout: float = 30.0) -> str:
        """The mesh as a self-contained HTML page that can be turned with the mouse.

        Args:
            mesh: what to show.
            appearance: with the scan's own colours, where it has any; else plain in the colour `skin`.
            background: colour behind it, such as "#2b2f36".
            skin: colour of a plain surface.
            timeout: seconds, waiting for other sessions' exports included.

        Raises:
            ExportError: it took too long, or the process failed.
        """
        settings = {"background": background, "skin": skin, "size": [900, 640]}
        if not self._lock.acquire(timeout=timeout):
            raise ExportError(f"the viewer was busy for {timeout:.0f} seconds")
        try:
            arrays = mesh.arrays(appearance)
            try:
                return self._exchange(arrays, settings, timeout)
            except _Died:  # perhaps between two requests, so that this one never reached it
                return self._exchange(arrays, settings, timeout)
        finally:
            self._lock.release()

    def start(self) -> None:
        """Starts the process ahead of its first request."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """Ends the process; a later export starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def _exchange(self, arrays: dict[str, Any], settings: dict[str, Any], timeout: float) -> str:
        process = self._running()
        killed = threading.Event()

        def give_up() -> None:
            killed.set()
            process.kill()  # closes the pipes, so that the waiting read or write below ends

        timer = threading.Timer(timeout, give_up)
        timer.start()
        try:
            write_request(process.stdin, arrays, settings)
            answer = json.loads(process.stdout.readline())
            body = process.stdout.read(answer["bytes"]) if answer["ok"] else b""
        except (OSError, ValueError) as error:  # ValueError: an answer cut short
            logger.warning("mesh export failed: %s", error)
            self._drop(process)
            if killed.is_set():
                raise ExportError(f"the viewer took longer than {timeout:.0f} seconds") from error
            raise _Died("the viewer's helper process stopped unexpectedly") from error
        finally:
            timer.cancel()
        self._exported += 1
        if self._exported >= EXPORTS:
            self.close()
            self._running()  # gets ready before it is asked
        if not answer["ok"]:
            raise ExportError(answer["error"])
        return body.decode()

    def _drop(self, process: subprocess.Popen) -> None:
        if self._process is process:
            try:
                self.close()
            except OSError:  # what was still buffered for a dead process cannot be flushed
                logger.debug("pipe to the exporting process was already broken")

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._exported = 0
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process
