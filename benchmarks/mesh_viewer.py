"""Which viewer shows a mesh sooner and costs less: stpyvista, or pyvista's offline page from a process of our own?

    python -m benchmarks.mesh_viewer            # a table; needs a browser and requirements-stpyvista.txt

Both draw the same sample face in a real streamlit page. Measured for each: the time the script spends at first and at
a rerun that changes nothing, what goes over the websocket for them, and how long a visitor waits for a picture (page
loading included), all in a session of its own on a server that has drawn before.
The same file is the streamlit page, which it serves to itself.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # streamlit runs this file by its path

VIEWERS = {"PyVista, own process": "iframe", "stpyvista": "#stpyvistaframe", "Plotly": ".js-plotly-plot"}
PORT = 8599
DARK, LIGHT = "#2b2f36", "#d8d4cf"


def page() -> None:
    """What streamlit runs: one viewer, a button that changes nothing, and the milliseconds the viewer took."""
    import streamlit as st

    from affectvlm.ui import viewers

    mesh = _mesh()
    viewer = st.query_params["viewer"]
    st.button("again")
    started = time.perf_counter()
    if viewer == "stpyvista":
        from affectvlm.ui import guarded_stpyvista

        guarded_stpyvista.show(mesh, True, DARK, LIGHT, height=600)
    elif viewer == "Plotly":
        st.plotly_chart(viewers.mesh_figure(mesh, True), theme=None, key="mesh")
    else:
        st.iframe(_exported(), height=600)
    st.text(f"took {1000 * (time.perf_counter() - started):.1f} ms, run {_count()}")


def _count() -> int:
    import streamlit as st

    st.session_state["runs"] = st.session_state.get("runs", 0) + 1
    return st.session_state["runs"]


def _mesh():
    from affectvlm.ui import engine

    return engine.mesh_for_display("sample", engine.sample_scan("happy"))


def _exported() -> str:
    from affectvlm.ui import engine

    return engine.exported_page("sample", _mesh(), True, DARK, LIGHT)


def measure(browser, viewer: str, reruns: int) -> dict[str, float]:
    """Milliseconds and kilobytes of one viewer in a session of its own."""
    received = [0]
    tab = browser.new_page(viewport={"width": 1000, "height": 900})
    tab.set_default_timeout(180_000)

    def count(payload) -> None:
        received[0] += len(payload if isinstance(payload, bytes) else payload.encode())

    tab.on("websocket", lambda socket: socket.on("framereceived", count))
    started = time.perf_counter()
    tab.goto(f"http://localhost:{PORT}/?viewer={viewer}")
    tab.get_by_text("run 1").wait_for()
    first = _took(tab)
    surface = tab.locator(VIEWERS[viewer]).first
    surface.wait_for()
    _wait_until_drawn(surface)
    shown = time.perf_counter() - started
    first_kb, times, sizes = received[0] / 1000, [], []
    for i in range(reruns):
        received[0] = 0
        tab.get_by_role("button", name="again").click()
        tab.get_by_text(f"run {i + 2}").wait_for()
        time.sleep(0.5)
        times.append(_took(tab))
        sizes.append(received[0] / 1000)
    tab.close()
    return {
        "first ms": first,
        "rerun ms": statistics.median(times),
        "first kB": first_kb,
        "rerun kB": statistics.median(sizes),
        "on screen s": shown,
    }


def _took(tab) -> float:
    return float(tab.get_by_text("took").inner_text().split()[1])


def _wait_until_drawn(surface) -> None:
    import io

    import numpy as np
    from PIL import Image

    while True:
        image = np.asarray(Image.open(io.BytesIO(surface.screenshot())).convert("RGB"))
        height, width = image.shape[:2]
        middle = image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3].reshape(-1, 3)
        if len(np.unique(middle, axis=0)) > 500:
            return
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the mesh viewers of the app")
    parser.add_argument("--reruns", type=int, default=5)
    settings = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from tests.browser.find_browser import FLAGS, MISSING, find_browser

    path = find_browser()
    if path is None:
        sys.exit(MISSING)
    command = [sys.executable, "-m", "streamlit", "run", __file__, "--server.port", str(PORT)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(5)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
            for viewer in VIEWERS:  # imports, the sample and the start of our process, which the app has behind it too
                measure(browser, viewer, 1)
            rows = {viewer: measure(browser, viewer, settings.reruns) for viewer in VIEWERS}
    finally:
        server.terminate()
        server.wait(20)
    print(f"{'':22}" + "".join(f"{name:>13}" for name in next(iter(rows.values()))))
    for viewer, row in rows.items():
        print(f"{viewer:22}" + "".join(f"{value:13.1f}" for value in row.values()))


def _in_streamlit() -> bool:
    from streamlit.runtime import exists

    return exists()


if __name__ == "__main__":
    page() if _in_streamlit() else main()
