import dataclasses

import numpy as np
import pytest

from affectvlm.scan import Scan, vertex_normals
from affectvlm.synthesis.procedural import ProceduralFace
from affectvlm.synthesis.procedural.parts import eye_tilt_and_turn


@pytest.fixture(scope="module")
def model():
    return ProceduralFace()


@pytest.fixture(scope="module")
def person(model):
    return model.sample_identity(np.random.default_rng(4))


@pytest.fixture(scope="module")
def even(model, person):
    """The same person with both sides alike."""
    return dataclasses.replace(person, asymmetry=0.0, size=1.0)


def twin(model):
    return model._static.layout.twin


def moved(model, identity, units, landmark):
    """(3,) mm by which a landmark leaves its neutral place."""
    return model.generate(identity, units).landmarks[landmark] - model.generate(identity, {}).landmarks[landmark]


def shift(model, identity, units):
    return model.generate(identity, units).vertices - model.generate(identity, {}).vertices


def test_a_face_is_a_coloured_scan_of_human_size(model):
    for seed in range(8):
        scan = model.generate(model.sample_identity(np.random.default_rng(seed)), {})
        assert isinstance(scan, Scan) and scan.colors is not None
        assert 10_000 < len(scan.vertices) < 25_000
        marks = scan.landmarks
        assert np.allclose(marks["nose_tip"], 0, atol=1e-4)
        assert 100 < np.linalg.norm(marks["nasion"] - marks["menton"]) < 140
        assert 40 < marks["mouth_left"][0] - marks["mouth_right"][0] < 62
        pupils = [(marks[f"eye_inner_{s}"] + marks[f"eye_outer_{s}"]) / 2 for s in ("left", "right")]
        assert 57 < pupils[0][0] - pupils[1][0] < 70
        cheeks = scan.vertices[model._static.layout["skin"]]
        cheeks = cheeks[(np.abs(cheeks[:, 1] - 5) < 4) & (cheeks[:, 2] > -100)]
        assert 120 < np.ptp(cheeks[:, 0]) < 165


def test_skin_points_outward(model, even):
    scan = model.generate(even, {})
    layout = model._static.layout
    skin = scan.vertices[layout["skin"]]
    normals = vertex_normals(skin, model._static.skin.faces)
    centre = np.array([0, 20, -110])
    high = skin[:, 1] > -60
    outward = ((skin - centre) * normals).sum(1)[high] > 0
    assert outward.mean() > 0.97  # all but nostrils, and the folds of lips and lids


def test_neutral_is_a_mirror_image_without_asymmetry(model, even):
    points = model.generate(even, {}).vertices
    assert np.abs(points[twin(model)] * [-1, 1, 1] - points).max() < 1e-3


def test_asymmetry_makes_the_sides_differ_but_not_the_colours(model, person):
    crooked = model.generate(dataclasses.replace(person, asymmetry=1.0), {})
    gap = np.linalg.norm(crooked.vertices[twin(model)] * [-1, 1, 1] - crooked.vertices, axis=1)
    assert 0.3 < np.median(gap) < 5


def test_equal_seeds_give_equal_people_and_faces(model):
    first, second = (model.sample_identity(np.random.default_rng(9)) for _ in range(2))
    assert first == second
    scan, again = (model.generate(person, {"AU12": 0.5}) for person in (first, second))
    assert np.array_equal(scan.vertices, again.vertices) and np.array_equal(scan.colors, again.colors)


@pytest.mark.slow
def test_a_second_model_makes_the_same_face(model, person):
    scan, again = (maker.generate(person, {"AU6": 0.5}) for maker in (model, ProceduralFace()))
    assert np.array_equal(scan.vertices, again.vertices) and np.array_equal(scan.faces, again.faces)


def test_people_differ(model):
    rng = np.random.default_rng(0)
    people = [model.sample_identity(rng) for _ in range(40)]
    assert {p.sex for p in people} == {"female", "male"}
    assert min(p.age for p in people) < 28 and max(p.age for p in people) > 55
    skins = np.stack([model.generate(p, {}).vertices for p in people[:12]])
    assert np.median(skins.std(0)) > 1.0


@pytest.mark.parametrize(
    ("unit", "landmark", "axis", "low", "high"),
    [
        ("AU1", "brow_inner_left", 1, 3, 9),
        ("AU4", "brow_inner_left", 1, -9, -2),
        ("AU4", "brow_inner_left", 0, -6, -1),
        ("AU12", "mouth_left", 1, 3, 15),
        ("AU12", "mouth_left", 0, 3, 15),
        ("AU14", "mouth_left", 2, -8, -1.5),
        ("AU15", "mouth_left", 1, -11, -3),
        ("AU17", "chin", 1, 1.5, 9),
        ("AU18", "mouth_left", 0, -14, -4),
        ("AU20", "mouth_left", 0, 4, 12),
        ("AU22", "upper_lip", 2, 2, 9),
        ("AU25", "lower_lip", 1, -6, -1.5),
        ("AU25", "upper_lip", 1, 0.8, 4),
        ("AU10", "upper_lip", 1, 2.5, 8),
        ("AU16", "lower_lip", 1, -9, -3),
        ("AU9", "upper_lip", 1, 1.5, 7),
        ("AU26", "chin", 1, -26, -10),
        ("AU27", "chin", 1, -45, -24),
        ("AU26", "lower_lip", 1, -30, -10),
        ("AU26", "upper_lip", 1, -2, 2),
    ],
)
def test_a_unit_moves_its_landmark_its_way(model, even, unit, landmark, axis, low, high):
    assert low < moved(model, even, {unit: 1.0}, landmark)[axis] < high


@pytest.mark.parametrize(
    ("unit", "near", "radius"),
    [
        ("AU1", (13, 55), 30), ("AU2", (44, 57), 30), ("AU6", (45, 8), 22), ("AU9", (17, 5), 34),
        ("AU17", (0, -62), 30), ("AU23", (0, -40), 30), ("AU24", (0, -40), 30), ("AU34", (38, -32), 25),
    ],
)  # fmt: skip
def test_the_strongest_move_lies_where_the_muscle_is(model, even, unit, near, radius):
    change = np.linalg.norm(shift(model, even, {unit: 1.0}), axis=1)
    place = model.generate(even, {}).vertices[change.argmax()]
    assert np.hypot(abs(place[0]) - near[0], place[1] - near[1]) < radius


def test_thinner_lips_when_tightened_or_pressed(model, even):
    red = model._static.complexion.masks["lips"] > 0.9

    def height(units):
        y = model.generate(even, units).vertices[model._static.layout["skin"]][red, 1]
        return y.max() - y.min()

    assert height({"AU23": 1.0}) < 0.8 * height({})
    assert height({"AU24": 1.0}) < 0.8 * height({})
    assert height({"AU28": 1.0}) < 0.6 * height({})


@pytest.mark.parametrize("unit", ProceduralFace.action_units)
def test_a_unit_leaves_the_far_side_of_the_head_still(model, even, unit):
    change = np.abs(shift(model, even, {unit: 1.0})).max(1)
    rest = model.generate(even, {}).vertices
    assert change.max() > 0.8
    assert change[rest[:, 2] < -125].max() < 0.05
    lower = unit in {f"AU{n}" for n in (12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28, 34)}
    upper = unit in {"AU1", "AU2", "AU4", "AU5", "AU7", "AU43"}
    if lower:
        assert change[rest[:, 1] > 42].max() < 0.3
    if upper:
        assert change[rest[:, 1] < -20].max() < 0.05


@pytest.mark.parametrize("unit", ProceduralFace.action_units)
def test_left_and_right_are_mirrors(model, even, unit):
    left = model.generate(even, {f"{unit}L": 0.8}).vertices
    right = model.generate(even, {f"{unit}R": 0.8}).vertices
    assert np.abs(right[twin(model)] * [-1, 1, 1] - left).max() < 2e-3


def test_one_side_moves_the_subjects_left_alone(model, even):
    change = shift(model, even, {"AU12L": 1.0})
    rest = model.generate(even, {}).vertices
    assert np.abs(change[rest[:, 0] < -12]).max() < 0.3
    assert moved(model, even, {"AU12L": 1.0}, "mouth_left")[1] > 3


@pytest.mark.parametrize("unit", ProceduralFace.action_units)
def test_growth_with_intensity_is_steady(model, even, unit):
    size = [np.abs(shift(model, even, {unit: value})).sum() for value in (0.25, 0.5, 0.75, 1.0)]
    steps = np.diff([0.0, *size]) / size[-1]
    assert (steps > 0.08).all() and (steps < 0.45).all()


def lid_gap(model, scan, eye="left"):
    ring = getattr(model._static.skin, f"eye_{eye}")
    half = len(ring) // 2
    return scan.vertices[ring[1:half], 1] - scan.vertices[ring[:half:-1], 1]


def test_blinking_closes_the_eyes_of_everybody(model):
    for seed in range(6):
        identity = model.sample_identity(np.random.default_rng(seed))
        open_, closed = (lid_gap(model, model.generate(identity, units)) for units in ({}, {"AU43": 1.0}))
        assert open_.max() > 5
        assert np.abs(closed).max() < 0.35


def test_eyes_widen_and_tighten(model, even):
    neutral, wide, tight = (lid_gap(model, model.generate(even, u)).max() for u in ({}, {"AU5": 1.0}, {"AU7": 1.0}))
    assert wide > neutral + 1.5 and tight < neutral - 2


@pytest.mark.parametrize(
    "units", [{}, {"AU43": 1.0}, {"AU43": 0.5}, {"AU5": 1.0}, {"AU6": 1.0, "AU7": 1.0}, {"AU4": 1.0}]
)
def test_lids_stay_outside_the_eyeball(model, units):
    tilt = np.unique(eye_tilt_and_turn()[0])
    for seed in range(4):
        scan = model.generate(dataclasses.replace(model.sample_identity(np.random.default_rng(seed)), size=1.0), units)
        layout = model._static.layout
        for side in ("left", "right"):
            ball = scan.vertices[layout[f"eye_{side}"]]
            centre = ball[0] - [0, 0, 13.1]
            ring = getattr(model._static.skin, f"eye_{side}")
            ray = scan.vertices[ring] - centre
            radii = np.linalg.norm(ball - centre, axis=1)[:: len(ball) // len(tilt)]
            distance = np.linalg.norm(ray, axis=1)
            radius = np.interp(np.arccos(ray[:, 2] / distance), tilt, radii)
            assert (distance - radius).min() > 0.1


LIPS = [
    {"AU17": 1.0}, {"AU24": 1.0, "AU17": 1.0}, {"AU15": 1.0, "AU17": 1.0}, {"AU28": 1.0}, {"AU10": 1.0, "AU17": 1.0},
    {"AU12": 1.0, "AU17": 1.0, "AU26": 1.0}, {"AU18": 1.0, "AU23": 1.0}, {"AU17L": 1.0, "AU16R": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("units", LIPS)
def test_lips_do_not_cross(model, even, units):
    ring = model._static.skin.mouth
    half = len(ring) // 2
    points = model.generate(even, units).vertices
    assert (points[ring[1:half], 1] - points[ring[:half:-1], 1]).min() > -0.35


def test_the_jaw_takes_the_lower_teeth_and_leaves_the_upper(model, even):
    layout = model._static.layout
    change = shift(model, even, {"AU26": 1.0})
    assert np.abs(change[layout["upper_teeth"]]).max() == 0
    assert change[layout["lower_teeth"], 1].max() < -3
    rest, moved_ = (model.generate(even, u).vertices[layout["lower_teeth"]] for u in ({}, {"AU27": 1.0}))
    edges = np.linalg.norm(np.diff(rest, axis=0), axis=1), np.linalg.norm(np.diff(moved_, axis=0), axis=1)
    assert np.allclose(*edges, atol=1e-3)  # teeth are rigid


def test_raised_brows_hold_against_the_frown(model, even):
    both = moved(model, even, {"AU1": 1.0, "AU4": 1.0}, "brow_inner_left")
    assert both[1] > 2 and both[0] < -1  # up and together: the brow of sadness and fear


def test_any_mixture_is_finite_and_bounded(model):
    rng = np.random.default_rng(3)
    for _ in range(25):
        chosen = rng.choice(model.action_units, size=6, replace=False)
        sides = rng.choice(["", "L", "R"], size=6)
        units = {name + side: float(value) for name, side, value in zip(chosen, sides, rng.random(6), strict=True)}
        identity = model.sample_identity(rng)
        scan = model.generate(identity, units)  # a Scan refuses NaN
        assert np.abs(scan.vertices - model.generate(identity, {}).vertices).max() < 70


def test_older_people_fold_deeper(model, even):
    young, old = (dataclasses.replace(even, furrows=value) for value in (0.5, 1.6))
    assert np.abs(shift(model, young, {"AU1": 1.0}) - shift(model, old, {"AU1": 1.0})).max() > 0.3


def test_unknown_units_are_ignored_and_nonsense_refused(model, even):
    assert np.array_equal(model.generate(even, {"AU99": 1.0}).vertices, model.generate(even, {}).vertices)
    with pytest.raises(ValueError, match="smile"):
        model.generate(even, {"smile": 1.0})
    with pytest.raises(ValueError, match="0 to 1"):
        model.generate(even, {"AU12": 1.5})


def test_eyes_teeth_lips_and_skin_have_their_colours(model):
    scan = model.generate(model.sample_identity(np.random.default_rng(1)), {})
    layout, masks = model._static.layout, model._static.complexion.masks
    colors = scan.colors.astype(float)
    skin = colors[layout["skin"]]
    lips, cheek = skin[masks["lips"] > 0.9].mean(0), skin[masks["blush"] > 0.8].mean(0)
    assert lips[0] - lips[1] > cheek[0] - cheek[1]  # redder
    assert skin[masks["brows"] > 0.6].mean() < skin[masks["lips"] > -1].mean()
    eye = colors[layout["eye_left"]]
    assert eye.max() > 200 and eye.min() < 20
    assert np.median(colors[layout["upper_teeth"]].mean(1)) > 140
