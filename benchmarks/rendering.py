"""Milliseconds for the three views (224 px) of a face: our rasteriser against pyvista, in one run on one machine.

    python -m benchmarks.rendering [--triangles 50000] [--repeats 10]

The face is the procedural head, subdivided to about the wanted number of triangles. Compare ratios, not milliseconds.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, PIVOT_MM, render_views
from affectvlm.scan import Scan
from affectvlm.synthesis.procedural import ProceduralFace


def face_of(triangles: int) -> Scan:
    """A procedural face with about `triangles` triangles."""
    import trimesh

    model = ProceduralFace()
    scan = model.generate(model.sample_identity(np.random.default_rng(0)), {"AU12": 0.8, "AU6": 0.6})
    vertices, faces = scan.vertices, scan.faces
    missing = max(0, (triangles - len(faces)) // 3)
    if missing:
        vertices, faces = trimesh.remesh.subdivide(vertices, faces, face_index=np.arange(min(missing, len(faces))))
    return Scan(vertices, faces)


def pyvista_views(scan: Scan, plotter=None) -> None:
    """The same three views with pyvista off-screen; a fresh plotter for each view unless one is given."""
    import pyvista

    mesh = pyvista.PolyData(scan.vertices, np.column_stack([np.full(len(scan.faces), 3), scan.faces]).ravel())
    for yaw in DEFAULT_YAWS:
        own = plotter or pyvista.Plotter(off_screen=True, window_size=(224, 224))
        own.clear()
        own.add_mesh(mesh.rotate_y(yaw, point=PIVOT_MM), smooth_shading=True)
        own.enable_parallel_projection()
        own.camera.focal_point, own.camera.position = PIVOT_MM, (PIVOT_MM[0], PIVOT_MM[1], 500)
        own.camera.parallel_scale = HALF_WIDTH_MM
        own.screenshot(return_img=True)
        if plotter is None:
            own.close()


def median_ms(call, repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--triangles", type=int, default=50000)
    arguments.add_argument("--repeats", type=int, default=10)
    given = arguments.parse_args()
    import pyvista

    scan = face_of(given.triangles)
    print(f"{len(scan.vertices)} vertices, {len(scan.faces)} triangles, median of {given.repeats}")
    ours = median_ms(lambda: render_views(scan), given.repeats)
    print(f"rasteriser, three views           {ours:7.1f} ms")

    def eight_at_once() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: render_views(scan), range(8)))

    print(f"rasteriser, eight threads at once {median_ms(eight_at_once, given.repeats) / 8:7.1f} ms a face")
    plotter = pyvista.Plotter(off_screen=True, window_size=(224, 224))
    reused = median_ms(lambda: pyvista_views(scan, plotter), given.repeats)
    plotter.close()
    print(f"pyvista, one plotter reused       {reused:7.1f} ms ({reused / ours:.1f} x)")
    fresh = median_ms(lambda: pyvista_views(scan), given.repeats)
    print(f"pyvista, a fresh plotter a view   {fresh:7.1f} ms ({fresh / ours:.1f} x)")


if __name__ == "__main__":
    main()
