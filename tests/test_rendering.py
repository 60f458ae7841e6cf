"""The rasteriser against shapes whose pictures are known in closed form."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from affectvlm.rendering import (
    DEFAULT_YAWS,
    HALF_WIDTH_MM,
    KINDS,
    PIVOT_MM,
    picture,
    render_buffers,
    render_views,
    rotation_y,
)
from affectvlm.scan import Scan


def sphere(radius: float = 50.0, centre=PIVOT_MM, rows: int = 80, columns: int = 160) -> Scan:
    polar, around = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns, False), indexing="ij")
    points = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1)
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b, d, e = (
        r * columns + c,
        r * columns + (c + 1) % columns,
        (r + 1) * columns + c,
        (r + 1) * columns + (c + 1) % columns,
    )
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, d, b), (b, d, e))])
    return Scan(points.reshape(-1, 3) * radius + centre, faces)


def test_a_sphere_covers_a_disc_of_its_radius():
    size = 200
    cover = render_buffers(sphere(), yaws=(0,), size=size).coverage[0]
    expected = np.pi * (50 * size / 2 / HALF_WIDTH_MM) ** 2
    assert cover.sum() == pytest.approx(expected, rel=0.005)


def test_normals_and_depth_of_a_sphere_are_those_of_the_sphere():
    size = 200
    buffers = render_buffers(sphere(), yaws=(0,), size=size)
    rows, columns = np.mgrid[:size, :size] + 0.5
    x, y = (columns - size / 2) * 2 * HALF_WIDTH_MM / size, -(rows - size / 2) * 2 * HALF_WIDTH_MM / size
    inside = np.hypot(x, y) < 42
    z = np.sqrt(2500 - x[inside] ** 2 - y[inside] ** 2)
    truth = np.stack([x[inside], y[inside], z], -1) / 50
    angle = np.degrees(np.arccos(np.clip((buffers.normals[0][inside] * truth).sum(-1), -1, 1)))
    assert angle.max() < 2.5
    assert np.abs(buffers.depth[0][inside] - (z + PIVOT_MM[2])).max() < 0.5


def test_a_positive_yaw_moves_the_nose_to_image_right_and_left_shows_the_left_cheek():
    nose = Scan(np.array([[-3, -3, 0], [3, -3, 0], [0, 3, 0]], np.float32), [[0, 1, 2]])
    columns = [np.argwhere(view > 0)[:, 1].mean() for view in render_buffers(nose, (0, -40, 40), 128).coverage]
    assert columns[1] < columns[0] < columns[2]
    left_cheek = Scan(np.array([[45, 0, -50], [50, 12, -55], [55, 0, -62]], np.float32), [[0, 1, 2]])
    front, left, right = render_buffers(left_cheek, DEFAULT_YAWS, 128).coverage.sum(axis=(1, 2))
    assert left > front > right


def test_turning_the_scan_equals_turning_the_camera():
    rng = np.random.default_rng(0)
    scan = sphere(40)
    bumpy = Scan(scan.vertices + rng.normal(0, 0.4, scan.vertices.shape).astype(np.float32), scan.faces)
    turn = rotation_y(25)
    turned = bumpy.transformed(turn, np.array(PIVOT_MM) - turn @ PIVOT_MM)
    a, b = render_views(bumpy, yaws=(25,)), render_views(turned, yaws=(0,))
    assert np.abs(a.astype(int) - b).mean() < 0.1


def test_the_nearer_surface_hides_the_farther_in_any_order():
    square = np.array([[-20, -30, 0], [20, -30, 0], [20, 10, 0], [-20, 10, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    both = np.concatenate([square, square - [0, 0, 30]])
    colors = np.repeat(np.array([[255, 0, 0], [0, 255, 0]], np.uint8), 4, axis=0)
    for order in ([faces, faces + 4], [faces + 4, faces]):
        scan = Scan(both, np.concatenate(order), colors=colors)
        middle = render_buffers(scan, (0,), 64).albedo[0, 32, 32]
        np.testing.assert_allclose(middle, [1, 0, 0])


def test_texture_is_sampled_with_v_from_the_bottom_and_u_from_the_left():
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4, :, 0] = 255  # upper half red
    texture[:, 4:, 2] = 255  # right half blue
    corners = np.array([[-40, -52, 0], [40, -52, 0], [40, 28, 0], [-40, 28, 0]], np.float32)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    scan = Scan(corners, [[0, 1, 2], [0, 2, 3]], uv=uv, texture=texture)
    albedo = render_buffers(scan, (0,), 160).albedo[0]
    np.testing.assert_allclose(albedo[60, 60], [1, 0, 0])
    np.testing.assert_allclose(albedo[60, 100], [1, 0, 1])
    np.testing.assert_allclose(albedo[100, 60], [0, 0, 0])


def test_winding_does_not_matter():
    scan = sphere(rows=20, columns=40)
    flipped = Scan(scan.vertices, scan.faces[:, ::-1])
    np.testing.assert_array_equal(render_views(scan), render_views(flipped))


def test_texture_seams_do_not_show_in_the_relief():
    scan = sphere(rows=20, columns=40)
    corners = scan.faces.ravel()
    split = Scan(
        scan.vertices[corners], np.arange(len(corners)).reshape(-1, 3), uv=np.zeros((len(corners), 2), np.float32)
    )
    whole = Scan(scan.vertices, scan.faces, uv=np.zeros((len(scan.vertices), 2), np.float32))
    assert np.abs(render_views(whole).astype(int) - render_views(split)).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_eight_threads_draw_the_same_pixels_as_one(kind):
    scan = sphere(rows=30, columns=60)
    expected = render_views(scan, kind)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: render_views(scan, kind), range(16)):
            np.testing.assert_array_equal(result, expected)


def test_views_have_the_promised_shape_type_and_order():
    views = render_views(sphere(), size=96)
    assert views.shape == (3, 96, 96, 3)
    assert views.dtype == np.uint8


def test_degenerate_and_distant_triangles_are_harmless():
    points = np.array([[0, 0, 0], [0, 0, 0], [1, 1, 0], [1e6, 1e6, 0], [-1e6, 1e6, -5], [0, -1e6, 5]], np.float32)
    views = render_views(Scan(points, [[0, 1, 2], [3, 4, 5], [0, 2, 2]]), size=64)
    assert np.isfinite(views).all()


def test_pictures_of_nothing_are_background():
    buffers = render_buffers(Scan(np.full((3, 3), 1e4, np.float32), [[0, 1, 2]]), (0,), 32)
    assert (picture(buffers, "shaded") == 128).all()
    assert (picture(buffers, "normals") == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"kind": "xray"}, "xray"), ({"size": 4}, "16 to 2048"), ({"yaws": ()}, "one yaw")],
)
def test_wrong_settings_are_refused_in_words(arguments, message):
    with pytest.raises(ValueError, match=message):
        render_views(sphere(rows=5, columns=8), **arguments)


def test_a_point_cloud_is_refused():
    with pytest.raises(ValueError, match="mesh it first"):
        render_views(Scan(np.zeros((4, 3)), np.zeros((0, 3))))
