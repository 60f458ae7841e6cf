"""The process that turns a mesh into a self-contained, interactive HTML page with pyvista's offline viewer.

It is a process of its own because the exporter needs a main thread with its own event loop, starts a local server for a
moment, and drags in OpenGL, any crash of which must not take the app along.

Protocol on the pipes, one request at a time: a JSON line of array shapes and settings followed by the arrays' bytes;
answered by a JSON line {"ok", "bytes" | "error", "ms"} followed by that many bytes of UTF-8 HTML. The process ends with
its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, BinaryIO

import numpy as np

from affectvlm.ui.memory import share_heaps

FIELDS = {
    "vertices": np.float32,
    "faces": np.int32,
    "normals": np.float32,
    "colors": np.uint8,
    "uv": np.float32,
    "texture": np.uint8,
}

LIGHTS = (((0.0, 0.6, 1.0), 0.75), ((-1.0, 0.1, 0.5), 0.3), ((1.0, 0.1, 0.5), 0.3))
"""Direction toward the light in the camera's frame, and strength: from above, and a little from both sides."""
VIEW_ANGLE = 25.0  # degrees from top to bottom

ICONS = b"https://kitware.github.io/vtk-js/icon/"  # the exported page asks for tab icons there; ours asks for nothing
POLICY = (
    b"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    b"'unsafe-eval' blob:; style-src 'unsafe-inline'; img-src data: blob:; connect-src data: blob:; worker-src blob:\">"
)


def write_request(pipe: BinaryIO, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
    """Sends one request; `arrays` holds those of FIELDS that the scene has."""
    given = {name: np.ascontiguousarray(array, FIELDS[name]) for name, array in arrays.items()}
    header = {"shapes": {name: array.shape for name, array in given.items()}, "settings": settings}
    pipe.write(json.dumps(header).encode() + b"\n")
    for array in given.values():
        pipe.write(array.tobytes())
    pipe.flush()


def read_request(pipe: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The next request, or None at the end of the input."""
    line = pipe.readline()
    if not line:
        return None
    header = json.loads(line)
    arrays = {}
    for name, shape in header["shapes"].items():
        dtype = np.dtype(FIELDS[name])
        data = pipe.read(int(np.prod(shape)) * dtype.itemsize)
        arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return arrays, header["settings"]


def build_plotter(arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> Any:
    """A pyvista plotter with the mesh lit from the front, seen from the front; the caller closes it.

    Settings: `background` and `skin` colour names or hex, `size` (width, height) in pixels.
    """
    import pyvista as pv

    faces = np.insert(arrays["faces"], 0, 3, axis=1)
    mesh = pv.PolyData(arrays["vertices"], faces.ravel())
    mesh.point_data.active_normals = arrays["normals"]
    look: dict[str, Any] = {"color": settings["skin"]}
    if "texture" in arrays:
        mesh.active_texture_coordinates = arrays["uv"]
        look = {"texture": pv.Texture(arrays["texture"])}
    elif "colors" in arrays:
        mesh.point_data["colour"] = arrays["colors"]
        look = {"scalars": "colour", "rgb": True}
    plotter = pv.Plotter(off_screen=True, window_size=settings["size"], lighting="none")
    plotter.set_background(settings["background"])
    plotter.add_mesh(mesh, interpolation="Phong", ambient=0.15, diffuse=0.85, specular=0.05, **look)
    for position, intensity in LIGHTS:
        plotter.add_light(pv.Light(position=position, intensity=intensity, light_type="camera light"))
    low, high = mesh.points.min(axis=0), mesh.points.max(axis=0)
    center, half = (low + high) / 2, (high - low) / 2
    distance = half[2] + 1.1 * max(half[0], half[1]) / np.tan(np.deg2rad(VIEW_ANGLE / 2))
    plotter.camera.view_angle = VIEW_ANGLE
    plotter.camera_position = [center + [0, 0, distance], center, (0, 1, 0)]
    plotter.reset_camera_clipping_range()
    return plotter


def export_html(arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> bytes:
    """The scene as one HTML page that needs nothing from anywhere else."""
    plotter = build_plotter(arrays, settings)
    try:
        page = plotter.trame.export_html(filename=None).read().encode()
    finally:
        plotter.close()
    return page.replace(ICONS, b"data:,").replace(b"<head>", b"<head>" + POLICY, 1)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    while (request := read_request(requests)) is not None:
        started = time.perf_counter()
        body = b""
        try:
            body = export_html(*request)
            answer: dict[str, Any] = {"ok": True, "bytes": len(body)}
        except Exception as error:  # whatever the exporter raises is the asking page's to show
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        answer["ms"] = round(1000 * (time.perf_counter() - started), 1)
        answers.write(json.dumps(answer).encode() + b"\n" + body)
        answers.flush()


def stay_offline() -> None:
    """Hides trame's WebAssembly viewer, which we do not use: the exporter would load it from the web when it starts."""
    sys.modules["trame.widgets.vtklocal"] = None  # an import of it fails now, as where it is not installed


def main() -> None:
    share_heaps()  # else, after some hundred scenes, 8 MB of each stay
    stay_offline()
    import pyvista.plotting  # noqa: F401  (takes a second; better now than in the first request)

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # anything a library prints goes to the log, not between our answers
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
