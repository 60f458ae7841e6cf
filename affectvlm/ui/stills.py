"""Still pictures of the mesh: a viewer by themselves, and what takes the interactive one's place without WebGL.

The pictures are put into the interactive page itself, hidden, with a few lines of script that show them where the
browser gives no WebGL context. So nobody has to choose, and nothing is asked from anywhere. No streamlit in here.
"""

from __future__ import annotations

import base64
import io

import numpy as np

from affectvlm.scan import Scan
from affectvlm.ui.display import DisplayMesh

SIZE = 448
QUALITY = 88  # of the JPEGs in the page; 15 to 25 kB a view

_SHOWN_WITHOUT_WEBGL = """
<div id="stills" style="position:fixed;inset:0;z-index:9;background:%s;color:#e8e9ec;overflow:auto;
 font:15px system-ui,sans-serif;display:none;flex-direction:column;justify-content:center;align-items:center;gap:14px">
<div style="display:flex;flex-wrap:wrap;gap:8px;justify-content:center">%s</div>
<div>This browser cannot draw in three dimensions, so these are still pictures.</div></div>
<script>(function () {
  var canvas = document.createElement("canvas"), context = null;
  try { context = canvas.getContext("webgl2") || canvas.getContext("webgl"); } catch (error) {}
  var stills = document.getElementById("stills");
  if (context) { stills.remove(); return; }
  stills.style.display = "flex";
  window.stop();  // what follows is the viewer, which would fail and empty the page
})();</script>
"""


def views(mesh: DisplayMesh, appearance: bool) -> np.ndarray:
    """(3, SIZE, SIZE, 3) uint8: front, left, right; with the mesh's colours, or as plain relief."""
    from affectvlm.rendering import render_views

    scan = Scan(mesh.vertices, mesh.faces, colors=mesh.colors)
    return render_views(scan, "textured" if appearance else "shaded", size=SIZE)


def with_stills(page: str, mesh: DisplayMesh, appearance: bool, background: str) -> str:
    """The interactive page, which shows still pictures where there is no WebGL; the same every time."""
    pictures = "".join(
        f'<img alt="{name} view" style="width:min(31vw,420px);min-width:150px;border-radius:10px" src="{_data(view)}">'
        for name, view in zip(("front", "left", "right"), views(mesh, appearance), strict=True)
    )
    head, start, viewer = page.partition("<body>")
    return head + start + _SHOWN_WITHOUT_WEBGL % (background, pictures) + viewer


def _data(view: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(view).save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
