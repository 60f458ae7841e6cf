"""The mesh made ready for the screen, and the process that makes it a page."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from affectvlm.scan import Scan
from affectvlm.ui.display import display_mesh, vertex_colors
from affectvlm.ui.export import ExportError, ExportWorker

BACKGROUND, SKIN = "#202020", "#d0d0d0"


def sphere(rows: int, columns: int) -> Scan:
    """Radius 80 mm, its seam doubled as textures do; colour red where x > 0, blue elsewhere."""
    v, u = np.meshgrid(np.linspace(0.02, 0.98, rows), np.linspace(0, 1, columns), indexing="ij")
    polar, turn = np.pi * v, 2 * np.pi * (u % 1.0)
    points = 80 * np.stack([np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], axis=-1)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    points = points.reshape(-1, 3)
    colors = np.where(points[:, :1] > 0, [[255, 0, 0]], [[0, 0, 255]]).astype(np.uint8)
    return Scan(points, faces, uv=np.stack([u, 1 - v], -1).reshape(-1, 2), colors=colors)


def test_a_small_mesh_stays_as_it_is_and_is_smooth_across_the_seam():
    scan = sphere(40, 60)
    mesh = display_mesh(scan)
    assert mesh.vertices is scan.vertices and mesh.faces is scan.faces
    outward = (mesh.normals * scan.vertices / 80).sum(axis=1)
    inner = np.abs(scan.vertices[:, 1]) < 70
    assert outward[inner].min() > 0.99  # the seam included


def test_a_large_mesh_is_thinned_and_keeps_shape_and_colours():
    scan = sphere(300, 400)
    mesh = display_mesh(scan, max_triangles=20_000)
    assert 15_000 < len(mesh.faces) <= 20_000 and mesh.total == len(scan.faces)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 80).max() < 0.5
    clear = np.abs(mesh.vertices[:, 0]) > 2
    assert ((mesh.colors[:, 0] == 255) == (mesh.vertices[:, 0] > 0))[clear].all()


def test_a_texture_is_read_where_each_vertex_is():
    texture = np.zeros((10, 20, 3), np.uint8)
    texture[:5, :10], texture[5:, 10:] = (255, 0, 0), (0, 255, 0)
    corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    scan = Scan(corners, [[0, 1, 2]], uv=[[0.1, 0.9], [0.9, 0.1], [0.9, 0.9]], texture=texture)
    assert vertex_colors(scan).tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 0]]


def test_a_large_texture_is_averaged_down():
    texture = np.full((3000, 1500, 3), 90, np.uint8)
    scan = Scan([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], uv=np.zeros((3, 2)), texture=texture)
    small = display_mesh(scan).texture
    assert max(small.shape[:2]) <= 1024 and (small == 90).all()


def test_a_cloud_of_points_has_nothing_to_show():
    with pytest.raises(ValueError, match="cloud of points"):
        display_mesh(Scan(np.zeros((5, 3)), np.zeros((0, 3))))


@pytest.fixture(scope="module")
def worker():
    worker = ExportWorker()
    yield worker
    worker.close()


@pytest.mark.slow
def test_the_page_is_whole_and_survives_a_crash(worker):
    mesh = display_mesh(sphere(40, 60))
    page = worker.export(mesh, True, BACKGROUND, SKIN)
    assert page.lstrip().startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "kitware.github.io/vtk-js/icon" not in page and "default-src 'none'" in page
    os.kill(worker._process.pid, signal.SIGKILL)
    assert len(worker.export(mesh, True, BACKGROUND, SKIN)) == pytest.approx(len(page), rel=0.01)


@pytest.mark.slow
def test_the_exporting_process_asks_nobody_on_the_web(tmp_path, monkeypatch):
    said = tmp_path / "said"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "browser" / "watch"))
    monkeypatch.setenv("AFFECTVLM_TEST_WATCH", str(said))
    watched = ExportWorker()
    try:
        for _ in range(2):  # what the first one starts in the background, the second one waits for
            page = watched.export(display_mesh(sphere(20, 30)), False, BACKGROUND, SKIN)
    finally:
        watched.close()
    assert page.rstrip().endswith("</html>")
    assert not said.exists(), said.read_text()


@pytest.mark.slow
def test_many_sessions_share_one_process(worker):
    meshes = [display_mesh(sphere(20 + 4 * i, 30)) for i in range(4)]
    alone = [len(worker.export(mesh, False, BACKGROUND, SKIN)) for mesh in meshes]
    together: dict[int, int] = {}

    def ask(i: int) -> None:
        together[i] = len(worker.export(meshes[i], False, BACKGROUND, SKIN))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(4)] == pytest.approx(alone, rel=0.001)


@pytest.mark.slow
def test_a_refused_scene_leaves_the_process_alive(worker):
    mesh = display_mesh(sphere(20, 30))
    worker.export(mesh, False, BACKGROUND, SKIN)
    process = worker._process.pid
    with pytest.raises(ExportError, match="color"):
        worker.export(mesh, False, "no such colour", SKIN)
    worker.export(mesh, False, BACKGROUND, SKIN)
    assert worker._process.pid == process


@pytest.mark.slow
def test_a_fresh_process_takes_over_before_memory_grows(worker, monkeypatch):
    monkeypatch.setattr("affectvlm.ui.export.EXPORTS", 2)
    worker.close()
    mesh, processes, pages = display_mesh(sphere(20, 30)), [], []
    for _ in range(4):
        pages.append(worker.export(mesh, False, BACKGROUND, SKIN))
        processes.append(worker._process)
    first, second, third, fourth = (process.pid for process in processes)
    assert first != second == third != fourth  # the one after the second page is the new one already
    assert processes[0].poll() is not None and processes[1].poll() is not None and processes[3].poll() is None
    assert [len(page) for page in pages] == pytest.approx([len(pages[0])] * 4, rel=0.01)


def test_a_process_that_hangs_is_ended_in_time():
    hanging = ExportWorker((sys.executable, "-c", "import time; time.sleep(60)"))
    started = time.perf_counter()
    with pytest.raises(ExportError, match="longer than 1 seconds"):
        hanging.export(display_mesh(sphere(20, 30)), False, BACKGROUND, SKIN, timeout=1.0)
    assert time.perf_counter() - started < 5
    assert hanging._process is None


def test_a_process_that_dies_is_an_error_in_words():
    dying = ExportWorker((sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(ExportError, match="stopped unexpectedly"):
        dying.export(display_mesh(sphere(20, 30)), False, BACKGROUND, SKIN)
