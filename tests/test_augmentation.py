"""Damage keeps a usable scan; mixed views keep roles, light and directions right."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from affectvlm.augmentation import scans
from affectvlm.augmentation.views import (
    CHANNELS,
    DIRECTIONS,
    NORMALS,
    PICTURE,
    SHADED,
    TEXTURED,
    MixedViews,
    augment,
    draw,
    picture_side,
    plain,
    show,
    store,
    stored_side,
)
from affectvlm.rendering import picture, render_buffers
from tests.test_rendering import sphere

STILL = MixedViews(size=96, rotation=0, zoom=0, shift=0, flip=0, blur=0, noise=0, occlusion=0, bend=0, tilt=0)


@pytest.fixture(scope="module")
def head():
    """A sphere with a nose, so that left differs from right in the side views."""
    ball = sphere(70, (0, -8, -75), 60, 120)
    vertices = ball.vertices.copy()
    near = np.exp(-((vertices[:, :2] - [12, 0]) ** 2).sum(axis=1) / 200) * (vertices[:, 2] > -75)
    vertices[:, 2] += 15 * near
    colors = np.full((len(vertices), 3), (200, 120, 90), np.uint8)
    return type(ball)(vertices, ball.faces, colors=colors)


@pytest.fixture(scope="module")
def stored(head):
    side = stored_side(96)
    return store(render_buffers(head, size=side, half_width=80 * side / 96))[None]


@pytest.mark.parametrize(("kind", "name"), [(NORMALS, "normals"), (SHADED, "shaded"), (TEXTURED, "textured")])
def test_plain_views_are_what_the_renderer_draws(head, stored, kind, name):
    drawn = picture(render_buffers(head, size=96, half_width=80), name)
    ours = plain(stored, kind, 96)[0].transpose(0, 2, 3, 1)
    assert np.abs(ours.astype(int) - drawn).mean() < 1.5


@pytest.mark.parametrize("size", [32, 96, 112, 128, 144, 224, 336])
def test_the_side_of_a_stored_view_says_that_of_its_picture(size):
    assert picture_side(stored_side(size)) == size and stored_side(size) > 1.1 * size


@pytest.mark.parametrize("size", [48, 144, 224])
@pytest.mark.parametrize(("kind", "name"), [(NORMALS, "normals"), (TEXTURED, "textured")])
def test_a_model_with_another_side_sees_the_same_window(head, stored, kind, name, size):
    """What 224 px towers see of views that were stored for 96 px is the face, scaled; not a corner of it."""
    drawn = picture(render_buffers(head, size=size, half_width=80), name).astype(int)
    taken = plain(stored, kind, size)[0].transpose(0, 2, 3, 1)
    still = augment(stored, np.zeros(1, bool), replace(STILL, size=size), np.random.default_rng(0), kind=NORMALS)
    assert taken.shape == drawn.shape and np.abs(taken - drawn).mean() < 4
    if kind == NORMALS:
        assert np.abs(still[0].transpose(0, 2, 3, 1) - drawn).mean() < 4


def test_without_any_change_the_normals_are_the_plain_ones(stored):
    out = augment(stored, np.zeros(1, bool), STILL, np.random.default_rng(0), kind=NORMALS)
    assert np.abs(out.astype(int) - plain(stored, NORMALS, 96)).mean() < 1.5


def test_a_flip_mirrors_the_picture_the_directions_and_the_roles(stored):
    flipped = augment(
        stored, np.zeros(1, bool), MixedViews(**{**vars(STILL), "flip": 1.0}), np.random.default_rng(0), NORMALS
    )
    original = plain(stored, NORMALS, 96)
    mirrored = original[:, [0, 2, 1], :, :, ::-1].astype(int).copy()
    face = mirrored.max(axis=2, keepdims=True) > 0
    mirrored[:, :, 0] = np.where(face[:, :, 0], 255 - mirrored[:, :, 0], 0)
    inside = (mirrored > 20).all(axis=2, keepdims=True) & np.ones_like(mirrored, bool)
    assert np.abs(flipped.astype(int) - mirrored)[inside].mean() < 2.5


def test_an_in_plane_turn_turns_the_directions_too(stored):
    settings = MixedViews(**{**vars(STILL), "rotation": 20.0})
    out = augment(stored, np.zeros(1, bool), settings, np.random.default_rng(3), kind=NORMALS)[0, 0].astype(float)
    # On a sphere the direction map looks the same however the camera is rolled, away from the nose.
    still = plain(stored, NORMALS, 96)[0, 0].astype(float)
    rows, columns = np.mgrid[:96, :96] - 47.5
    ring = (np.hypot(rows, columns) > 24) & (np.hypot(rows, columns) < 34) & (columns < -10)
    assert np.abs(out - still)[:, ring].mean() < 8


def test_each_view_draws_its_own_change_unless_told_otherwise(stored):
    twins = np.repeat(stored[:, :1], 3, axis=1)
    moving = {**vars(STILL), "shift": 0.1}
    mixed = augment(twins, np.zeros(1, bool), MixedViews(**moving), np.random.default_rng(1), NORMALS)[0]
    same = augment(
        twins, np.zeros(1, bool), MixedViews(**{**moving, "mixed": False}), np.random.default_rng(1), NORMALS
    )[0]
    assert not np.array_equal(mixed[0], mixed[1])
    np.testing.assert_array_equal(same[0], same[1])


def test_calm_samples_change_a_quarter_as_much_and_as_often():
    views, photo = np.zeros((4000, 2, 1, 1, CHANNELS), np.uint8), np.zeros(4000, bool)
    settings = {"size": 32, "occlusion": 0.4, "noise": 0.8, "blur": 0.8}
    wild, calm = (
        draw(views, photo, MixedViews(calm=share, **settings), np.random.default_rng(0)) for share in (0.0, 1.0)
    )
    for measure in (
        lambda d: d.angle.std(), lambda d: np.log(d.zoom).std(), lambda d: d.shift.std(),
        lambda d: d.bends[..., 0].std(),
        lambda d: d.bends[..., 2].std(), lambda d: (d.noise > 0).mean(), lambda d: (d.blur > 0).mean(),
        lambda d: (d.patch > 0).any(axis=1).mean(),
    ):  # fmt: skip
        assert measure(calm) == pytest.approx(measure(wild) / 4, rel=0.1)
    half = draw(views, photo, MixedViews(calm=0.5, **settings), np.random.default_rng(0))
    moved = np.abs(half.bends).max(axis=(1, 2, 3)) / np.abs(wild.bends).max()
    assert (moved.reshape(-1, 2) < 0.28).all(axis=1).mean() == pytest.approx(0.5, abs=0.03)  # whole samples, not views


def test_photo_like_samples_are_never_shown_as_normals(stored):
    out = augment(np.repeat(stored, 6, 0), np.ones(6, bool), STILL, np.random.default_rng(0), kind=NORMALS)
    corners = out[:, :, :, 0, 0].astype(int)
    assert (corners != 0).any(), "a photo has a background"


def test_augmentation_depends_on_its_generator_alone(stored):
    a, b = (augment(stored, np.zeros(1, bool), MixedViews(size=96), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_damaged_scans_stay_usable_and_differ(head):
    rng = np.random.default_rng(0)
    results = [scans.damage(head, rng) for _ in range(25)]
    assert all(len(scan.faces) >= 100 and np.isfinite(scan.vertices).all() for scan in results)
    assert len({len(scan.faces) for scan in results}) > 10


def test_a_range_scan_sees_only_the_near_side(head):
    seen = scans.range_scan(head, 0, 0, spacing=1.5)
    assert seen.vertices[:, 2].min() > -80
    assert head.vertices[:, 2].min() < -140
    distance = np.linalg.norm(seen.vertices - [0, -8, -75], axis=1)
    assert np.median(distance) == pytest.approx(70, abs=1)


def test_smoothing_flattens_noise(head):
    rng = np.random.default_rng(0)
    noisy = scans.add_noise(head, 1.0, rng)
    smooth = scans.smooth(noisy, 8)
    radius = lambda scan: np.linalg.norm(scan.vertices[:2000] - [0, -8, -75], axis=1).std()  # noqa: E731
    assert radius(smooth) < 0.7 * radius(noisy)


def test_decimation_keeps_colours_and_the_triangle_budget(head):
    small = scans.decimate(head, 3000, np.random.default_rng(1))
    assert len(small.faces) <= 3300
    assert len(small.colors) == len(small.vertices)


def test_bending_moves_pixels_smoothly_and_tilting_changes_directions_alone(stored):
    calm = augment(stored, np.zeros(1, bool), STILL, np.random.default_rng(3), kind=NORMALS)[0, 0].astype(int)
    bent, tilted = (
        augment(stored, np.zeros(1, bool), MixedViews(**{**vars(STILL), **change}), np.random.default_rng(3), NORMALS)
        for change in ({"bend": 0.03}, {"tilt": 0.15})
    )
    bent, tilted = bent[0, 0].astype(int), tilted[0, 0].astype(int)
    covered = lambda image: image.sum(axis=0) > 60  # noqa: E731
    assert 0.01 < (covered(bent) != covered(calm)).mean() < 0.15
    assert (covered(tilted) != covered(calm)).mean() < 0.005
    change = (tilted - calm)[:2, 30:66, 30:66]
    assert 3 < np.abs(change).mean() < 40
    assert np.abs(np.diff(change, axis=2)).mean() < 0.1 * np.abs(change).mean() + 1


def test_another_bone_structure_is_smooth_and_stays_in_place(head):
    moved = scans.reshape(head, np.random.default_rng(0))
    offset = moved.vertices - head.vertices
    assert 0.5 < np.linalg.norm(offset, axis=1).mean() < 12
    edges = head.faces[:, :2]
    stretch = np.linalg.norm(offset[edges[:, 0]] - offset[edges[:, 1]], axis=1)
    assert np.median(stretch) < 0.6
    assert (moved.faces == head.faces).all() and (moved.colors == head.colors).all()


def test_pictures_keep_their_own_light(stored):
    pictures = stored.copy()
    pictures[..., :3], pictures[..., 6] = (128, 128, 255), 255
    out = augment(pictures, np.ones(1, bool), STILL, np.random.default_rng(0), picture=np.array([PICTURE]))
    own = plain(pictures, PICTURE, 96)
    middle = own[0].transpose(0, 2, 3, 1)[:, 20:70, 20:70].astype(int)
    assert np.abs(middle - pictures[0, :, 28:78, 28:78, 3:6]).max() <= 1
    # contrast may change, colours are not lit anew: what was equal stays equal
    flat = np.full_like(pictures, 128)
    flat[..., 6] = 255
    shown = augment(flat, np.ones(1, bool), STILL, np.random.default_rng(1), picture=np.array([PICTURE]))
    assert shown.std(axis=(2, 3, 4)).max() < 2 and out.shape == own.shape


def stored_views(rng, batch=6, views=3, size=64):
    """Faces that are half a sphere: directions, colours, and a soft edge."""
    y, x = np.mgrid[-1.2 : 1.2 : size * 1j, -1.2 : 1.2 : size * 1j]
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    normal = np.stack([x, -y, z], axis=-1) * 0.5 + 0.5
    stored = np.zeros((batch, views, size, size, 7))
    stored[..., :3] = normal
    stored[..., 3:6] = cv2.resize(rng.random((8, 8, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    stored[..., 6] = np.clip(8 * z, 0, 1)
    return (np.clip(stored, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("views", [2, 3])
def test_a_device_makes_the_pixels_of_the_loader(views):
    from affectvlm.augmentation import on_device

    rng = np.random.default_rng(3)
    stored = stored_views(rng, batch=16, views=views)
    settings = MixedViews(size=56, noise=0.0, occlusion=0.5, blur=0.5)
    photo = np.arange(16) % 8 == 1
    picture = np.select([np.arange(16) % 8 == 2, np.arange(16) % 8 == 3], [PICTURE, DIRECTIONS], 0)
    draws = draw(stored, photo, settings, rng, picture=picture)
    assert (
        set(draws.modes) == {NORMALS, SHADED, TEXTURED, PICTURE, DIRECTIONS} and draws.grey.any() and draws.patch.any()
    )
    here = show(stored, draws).astype(int)
    there = on_device.unpack(on_device.pack(stored, draws)).numpy().astype(int)
    assert there.shape == here.shape == (16, views, 3, 56, 56)
    off = np.abs(here - there)
    assert off.mean() < 0.3 and np.quantile(off, 0.999) <= 3


def test_noise_on_a_device_is_as_strong_as_drawn():
    import torch

    from affectvlm.augmentation import on_device

    rng = np.random.default_rng(0)
    stored = stored_views(rng)
    loud = draw(stored, np.zeros(6, bool), MixedViews(size=56, noise=1.0, occlusion=0.0, blur=0.0), rng, kind=SHADED)
    quiet = replace(loud, noise=np.zeros_like(loud.noise))
    torch.manual_seed(0)
    pair = [on_device.unpack(on_device.pack(stored, draws)).float() for draws in (loud, quiet)]
    middle = (pair[1] > 60) & (pair[1] < 195)  # clipping would weaken it
    for view, wanted in enumerate(loud.noise):
        place = (view // 3, view % 3)
        found = (pair[0][place] - pair[1][place])[middle[place]]
        assert len(found) > 500 and float(found.std()) == pytest.approx(wanted, rel=0.1, abs=0.4)


def test_directions_in_a_picture_turn_with_the_view():
    """A mirrored view shows the mirrored picture with x the other way; a quarter turn makes x of y."""
    stored = stored_views(np.random.default_rng(0), batch=1)
    stored[..., 6] = 255
    still = {
        "rotation": 0,
        "zoom": 0,
        "shift": 0,
        "blur": 0,
        "noise": 0,
        "occlusion": 0,
        "bend": 0,
        "tilt": 0,
        "flip": 0,
    }
    draws = draw(
        stored,
        np.zeros(1, bool),
        MixedViews(size=56, **still),
        np.random.default_rng(1),
        picture=np.array([DIRECTIONS]),
    )
    assert (draws.gamma == 1).all() and not draws.grey.any()
    plain_ = show(stored, draws)[0].astype(int)
    mirrored = show(stored, replace(draws, flips=np.ones(3, bool)))[0].astype(int)
    wanted = plain_[:, :, :, ::-1].copy()
    wanted[:, 0] = np.clip(256 - wanted[:, 0], 0, 255)
    np.testing.assert_allclose(mirrored, wanted, atol=1)
    turned = show(stored, replace(draws, angle=np.full(3, np.pi / 2)))[0].astype(int)
    wanted = np.rot90(plain_, axes=(2, 3), k=1)
    wanted = np.stack([256 - wanted[:, 1], wanted[:, 0], wanted[:, 2]], axis=1)
    np.testing.assert_allclose(turned, np.clip(wanted, 0, 255), atol=1)


def test_another_way_of_moving_keeps_what_rests_and_moves_what_moved():
    from affectvlm.synthesis.procedural import ProceduralFace

    model = ProceduralFace()
    identity = model.sample_identity(np.random.default_rng(0))
    resting, smiling = model.generate(identity, {}), model.generate(identity, {"AU12": 1.0})
    before = smiling.vertices - resting.vertices
    lengths = np.linalg.norm(before, axis=1)
    assert np.allclose(scans.restyle(resting, resting, np.random.default_rng(0)).vertices, resting.vertices, atol=1e-4)
    factors = []
    for seed in range(6):
        after = scans.restyle(smiling, resting, np.random.default_rng(seed)).vertices - resting.vertices
        assert np.abs(after[lengths < 1e-6]).max() < 1e-4
        far = lengths > 0.5 * lengths.max()
        assert ((before * after).sum(axis=1)[far] > 0.5 * lengths[far] ** 2 * 0.5).all()  # it still goes up
        factors.append(np.linalg.norm(after[far], axis=1).mean() / lengths[far].mean())
    assert 0.5 < min(factors) < max(factors) < 1.7 and np.std(factors) > 0.03
    with pytest.raises(ValueError, match="vertices"):
        scans.restyle(smiling, scans.crop(resting, np.random.default_rng(0)), np.random.default_rng(0))
