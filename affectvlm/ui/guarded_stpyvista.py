"""stpyvista, kept from hanging the session.

Its exporter forks the server and waits without a limit for an answer that never comes when the fork fails: when a
package it needs is missing, or the fork of a process with many threads locks up. So all it needs is checked first, the
call runs in a thread of its own against a clock, its fork is ended when time is up, and after one such failure it is
not called again until the app is restarted: the abandoned thread cannot be ended, so there is never more than one.
"""

from __future__ import annotations

import contextvars
import importlib.util
import multiprocessing
import threading

from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from affectvlm.ui.display import DisplayMesh
from affectvlm.ui.export import ExportError
from affectvlm.ui.export_worker import build_plotter, stay_offline

NEEDED = ("stpyvista", "trame", "trame_vtk", "trame_vuetify", "trame_pyvista", "nest_asyncio2")
INSTALL = "pip install -r requirements-stpyvista.txt"

_lock = threading.Lock()
_gave_up = threading.Event()


def missing() -> tuple[str, ...]:
    """The packages it needs that are not installed."""
    return tuple(name for name in NEEDED if importlib.util.find_spec(name) is None)


def show(mesh: DisplayMesh, appearance: bool, background: str, skin: str, height: int, timeout: float = 20.0) -> None:
    """Draws the mesh with stpyvista where the script is now.

    Raises:
        ExportError: something it needs is not installed, it hung once before, or it took longer than `timeout` seconds.
    """
    if absent := missing():
        raise ExportError(f"{', '.join(absent)} not installed; {INSTALL}")
    if _gave_up.is_set():
        raise ExportError("stpyvista did not answer earlier; it is tried again when the app is restarted")
    if not _lock.acquire(timeout=timeout):
        raise ExportError(f"stpyvista was busy for {timeout:.0f} seconds")
    try:
        _watched(lambda: _draw(mesh, appearance, background, skin, height), timeout)
    finally:
        _lock.release()


def _draw(mesh: DisplayMesh, appearance: bool, background: str, skin: str, height: int) -> None:
    from stpyvista import stpyvista  # only inside a running app: it registers a component

    stay_offline()  # the fork that it exports in takes this over

    plotter = build_plotter(mesh.arrays(appearance), {"background": background, "skin": skin, "size": [900, height]})
    try:
        stpyvista(plotter, key="stpyvista")
    finally:
        plotter.close()


def _watched(call, timeout: float) -> None:
    failure: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # streamlit's own control flow included: it belongs to the script's thread
            failure.append(error)

    before = set(multiprocessing.active_children())
    place = contextvars.copy_context()  # which part of the page is being written
    thread = threading.Thread(target=place.run, args=(run,), name="stpyvista", daemon=True)
    add_script_run_ctx(thread, get_script_run_ctx())
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        _gave_up.set()
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
            child.join(1)
        raise ExportError(f"stpyvista did not answer within {timeout:.0f} seconds")
    if failure:
        if isinstance(failure[0], Exception):
            raise ExportError(f"{type(failure[0]).__name__}: {failure[0]}") from failure[0]
        raise failure[0]
