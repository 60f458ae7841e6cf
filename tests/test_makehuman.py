"""The MakeHuman adapter on a checkout of the same layout, small and made here: no file of the real one is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from affectvlm.config import DataConfig
from affectvlm.data import FaceSet, build
from affectvlm.preflight import STOP, check_data
from affectvlm.scan import ScanError
from affectvlm.synthesis.expressions import sample_expression
from affectvlm.synthesis.makehuman import SHAPES, TOGETHER, MakeHumanFace, pack_checkout

TOTAL = 19158
SKIN = 4000
FOLDERS = {"l-cheek": "cheek", "r-cheek": "cheek", "mouth": "mouth", "eyebrows": "eyebrows"}
MODIFIERS = (
    "l-cheek-trans-up", "r-cheek-trans-up", "l-cheek-volume-incr", "r-cheek-volume-incr", "l-cheek-inner-incr",
    "r-cheek-inner-incr", "mouth-upperlip-volume-decr", "mouth-upperlip-volume-incr", "mouth-lowerlip-volume-decr",
    "mouth-lowerlip-volume-incr", "mouth-upperlip-height-decr", "eyebrows-trans-forward", "mouth-angles-up",
    "mouth-angles-down", "mouth-trans-up", "mouth-trans-down", "eyebrows-trans-up",
)  # fmt: skip


def unit_names():
    names = {n for parts in SHAPES.values() for n in parts} | {n for _, n in TOGETHER}
    names -= set(MODIFIERS)
    return sorted({n.replace("*", side) for n in names for side in ("left", "right")})


def write_target(root, name, rows):
    file = root / f"{name}.target"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# basemesh hm08\n" + "".join(f"{i} {x:.4f} {y:.4f} {z:.4f}\n" for i, (x, y, z) in rows.items()))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout whose head is half an ellipsoid with a nose; every target moves a few vertices of its own."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("makehuman")
    data = folder / "makehuman" / "data"
    (data / "3dobjs").mkdir(parents=True)
    columns, rows = 80, 50
    u, v = np.meshgrid(np.linspace(-1.5, 1.5, columns), np.linspace(-1.3, 1.3, rows))
    head = np.stack([0.8 * np.sin(u) * np.cos(v), 7 + 1.15 * np.sin(v), np.cos(u) * np.cos(v)], axis=-1)
    head[..., 2] += 0.25 * np.exp(-((head[..., 0] / 0.15) ** 2) - ((head[..., 1] - 6.9) / 0.2) ** 2)
    points = np.zeros((TOTAL, 3))
    points[:SKIN] = head.reshape(-1, 3)
    for first, last, side in ((14598, 14670, 1), (14670, 14742, -1)):
        direction = rng.normal(size=(last - first, 3))
        points[first:last] = 0.1 * direction / np.linalg.norm(direction, axis=1, keepdims=True) + [0.3 * side, 7.3, 0.8]
    points[14992:15128] = rng.normal([0, 6.6, 0.8], 0.05, (136, 3))
    points[13380:13606] = rng.normal([0, 6.6, 0.7], 0.05, (226, 3))
    number = np.arange(SKIN).reshape(rows, columns)
    quads = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]], axis=-1).reshape(-1, 4)
    with (data / "3dobjs" / "base.obj").open("w") as file:
        file.write("# header\n" + "".join(f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points) + "g body\n")
        file.writelines("f " + " ".join(f"{i + 1}/{i + 1}" for i in quad) + "\n" for quad in quads)
        file.write("f 14601/1 14602/2 14603/3 14604/4\nf 15001/1 15002/2 15003/3\nf 5001/1 5002/1 5003/1\n")
    targets = data / "targets"
    for group in ("african", "asian", "caucasian"):
        for sex in ("female", "male"):
            for age in ("young", "old"):
                rows_ = {int(i): rng.normal(0, 0.02, 3) for i in rng.choice(SKIN, 5, replace=False)}
                write_target(targets, f"macrodetails/{group}-{sex}-{age}", rows_ | {100: (0.5, 0.0, 0.0)})
    for sex in ("female", "male"):
        for age in ("young", "old"):
            for weight in ("minweight", "averageweight", "maxweight"):
                write_target(
                    targets, f"macrodetails/universal-{sex}-{age}-averagemuscle-{weight}", {100: (0.0, 0.25, 0.0)}
                )
    for number_, name in enumerate(unit_names()):
        write_target(
            targets,
            f"expression/units/caucasian/{name}",
            {10 + number_: (0.0, 0.1, 0.0), 3930: (0, 0.1, 0), 3990: (0, 0.1, 0)},
        )
    for number_, name in enumerate(MODIFIERS):
        folder_ = next(place for start, place in FOLDERS.items() if name.startswith(start))
        write_target(targets, f"{folder_}/{name}", {200 + number_: (0.0, 0.05, 0.0), 300 + number_: (0.0, 0.01, 0.0)})
    return folder


@pytest.fixture(scope="module")
def pack(checkout, tmp_path_factory):
    return pack_checkout(checkout, tmp_path_factory.mktemp("packed") / "makehuman_face.npz")


@pytest.fixture(scope="module")
def model(pack):
    return MakeHumanFace.load(pack)


@contextmanager
def kept(file: Path) -> Iterator[Path]:
    """A file of the module's checkout, as it was again afterwards."""
    content = file.read_bytes()
    try:
        yield file
    finally:
        file.write_bytes(content)


def test_a_checkout_packs_into_the_head_alone(pack):
    with np.load(pack) as packed:
        head = SKIN + 2 * 72 + 2 * 68 + 226  # the skin above the neck, eyes, teeth and tongue
        low = packed["vertices"][:, 1].min()
        assert low > 56  # cm: what lies below the neck is left out
        assert len(packed["vertices"]) <= head
        assert packed["identity"].shape == (36, len(packed["vertices"]), 3)
        assert packed["triangles"].max() < len(packed["vertices"])
        assert list(packed["unit_names"]) == unit_names()
        moved = packed["identity"][list(packed["identity_names"]).index("asian-male-old-maxweight")]
        row = int(np.argmax(np.abs(moved[:, 1])))
        np.testing.assert_allclose(moved[row], [5.0, 2.5, 0.0], atol=0.01)  # both targets, cm


def test_a_checkout_is_packed_once_and_the_pack_read_after_that(checkout, tmp_path):
    first = MakeHumanFace.load(checkout, cache=tmp_path / "cache.npz")
    stamp = (tmp_path / "cache.npz").stat().st_mtime_ns
    second = MakeHumanFace.load(checkout / "makehuman", cache=tmp_path / "cache.npz")
    assert (tmp_path / "cache.npz").stat().st_mtime_ns == stamp
    faces = [m.generate(m.sample_identity(np.random.default_rng(3)), {"AU12": 1.0}) for m in (first, second)]
    np.testing.assert_array_equal(faces[0].vertices, faces[1].vertices)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("3dobjs/base.obj", "no base.obj"),
        ("targets/macrodetails/asian-male-old.target", r"no macrodetails/asian-male-old\.target"),
    ],
)
def test_a_checkout_with_a_gap_is_refused_by_name(checkout, tmp_path, gone, said):
    with kept(checkout / "makehuman" / "data" / gone) as file:
        file.unlink()
        with pytest.raises(ScanError, match=said):
            pack_checkout(checkout, tmp_path / "pack.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("v 1.0 two 3.0\n", "a line that is not of numbers"),
        ("v 1.0 2.0\n", "a line that is not of numbers"),
        ("f 1/1 x/2 3/3\n", "a line that is not of numbers"),
        ("v nan 0 0\n", "vertices without a place"),
        ("f 1 2 999999\n", "polygons of vertices that are not there"),
        ("f -1 -2 -3\n", "polygons of vertices that are not there"),
    ],
)
def test_a_damaged_base_mesh_is_refused_in_words(checkout, tmp_path, added, said):
    with kept(checkout / "makehuman" / "data" / "3dobjs" / "base.obj") as file:
        file.write_bytes(file.read_bytes() + added.encode())
        with pytest.raises(ScanError, match=said):
            pack_checkout(checkout, tmp_path / "pack.npz")
    assert not list(tmp_path.iterdir())


def test_a_damaged_target_is_refused_by_name(checkout, tmp_path):
    with kept(checkout / "makehuman" / "data" / "targets" / "mouth" / "mouth-trans-up.target") as file:
        file.write_text("12 0.1 zero 0.3\n")
        with pytest.raises(ScanError, match=r"mouth-trans-up\.target: lines of a vertex number"):
            pack_checkout(checkout, tmp_path / "pack.npz")


def test_other_things_are_refused_in_words(tmp_path):
    with pytest.raises(ScanError, match="no such file"):
        MakeHumanFace.load(tmp_path / "nothing.npz")
    with pytest.raises(ScanError, match="no 3dobjs/"):
        MakeHumanFace.load(tmp_path, cache=tmp_path / "cache.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ScanError, match="not a packed MakeHuman head"):
        MakeHumanFace.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", vertices=np.zeros((3, 3)))
    with pytest.raises(ScanError, match="not a packed MakeHuman head"):
        MakeHumanFace.load(tmp_path / "other.npz")


def test_people_are_drawn_by_seed_and_differ(model):
    a, again, b = (model.sample_identity(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.offset, again.offset)
    assert not np.array_equal(a.offset, b.offset)
    assert {model.sample_identity(np.random.default_rng(seed)).sex for seed in range(12)} == {"female", "male"}
    assert all(18 <= model.sample_identity(np.random.default_rng(seed)).age <= 90 for seed in range(12))


def test_action_units_move_what_they_should(model):
    person = model.sample_identity(np.random.default_rng(0))
    rest = model.generate(person, {})
    assert rest.colors is not None and rest.vertices.dtype == np.float32
    np.testing.assert_array_equal(model.generate(person, {"AU39": 1.0}).vertices, rest.vertices)  # not known here
    moved = np.linalg.norm(model.generate(person, {"AU12": 1.0}).vertices - rest.vertices, axis=1)
    half = np.linalg.norm(model.generate(person, {"AU12": 0.5}).vertices - rest.vertices, axis=1)
    assert moved.max() > 5  # a decimetre tenth, in mm
    np.testing.assert_allclose(half, moved / 2, atol=1e-3)
    with pytest.raises(ValueError, match="0 to 1"):
        model.generate(person, {"AU12": 2.0})


def test_one_side_moves_alone(model):
    person = model.sample_identity(np.random.default_rng(0))
    rest = model.generate(person, {}).vertices
    for side, sign in (("L", 1), ("R", -1)):
        moved = np.linalg.norm(model.generate(person, {f"AU12{side}": 1.0}).vertices - rest, axis=1)
        far = np.abs(rest[:, 0]) > 15
        assert moved[far & (np.sign(rest[:, 0]) != sign)].max(initial=0) < 0.5
        weights = model.shape_weights({f"AU1{side}": 1.0})
        names = [name for name, weight in zip(model._shapes, weights, strict=True) if weight]
        assert names == [f"eyebrows-*-inner-up:{side}"]


def test_units_that_come_together_share_a_shape(model):
    names = list(model._shapes)
    alone = model.shape_weights({"AU12": 1.0, "AU25": 1.0}, np.zeros(2))
    joint = model.shape_weights({"AU12": 1.0, "AU25": 1.0}, np.array([0.6, 0.0]))
    laugh, smile = names.index("mouth-upward-retraction:L"), names.index("mouth-corner-puller:L")
    assert alone[laugh] == 0 and alone[smile] == pytest.approx(1)
    assert joint[laugh] == pytest.approx(0.6) and joint[smile] == pytest.approx(0.4)


def test_parts_can_be_left_out(model):
    person = model.sample_identity(np.random.default_rng(0))
    whole, without = model.generate(person, {}), model.generate(person, {}, without=["eye_L", "tongue"])
    assert len(without.vertices) == len(whole.vertices) - 72 - 226
    assert len(without.faces) == len(whole.faces) - 2  # the left eye's quad


def test_every_recipe_can_be_shown(model):
    rng = np.random.default_rng(5)
    for emotion in ("happy", "angry", "disgust", "fear", "sad", "surprise", "neutral"):
        for _ in range(20):
            face = model.generate(model.sample_identity(rng, 1.3), sample_expression(emotion, 1.0, rng))
            assert np.isfinite(face.vertices).all()


def test_it_is_a_source_of_training(pack, tmp_path):
    faces = FaceSet("makehuman", "train", count=6, size=48, model_path=str(pack))
    folder = build(faces, tmp_path, workers=1)
    views = np.load(folder / "shard_0000.npy")
    assert views.shape[0] == 6 and views.any(axis=(1, 2, 3, 4)).all()


def test_settings_name_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"names makehuman but data\.makehuman_path is empty"):
        DataConfig(sources=("makehuman",))
    with pytest.raises(ValueError, match="the path of MakeHuman"):
        build(FaceSet("makehuman", "train", count=1), tmp_path, workers=1)


def test_the_check_before_a_training_looks_at_it(pack, tmp_path):
    from affectvlm.config import TrainConfig

    def levels(path):
        data = DataConfig(sources=("makehuman",), makehuman_path=str(path), cache=str(tmp_path / "cache"))
        return {f.level: f.text for f in check_data(TrainConfig(data=data), tmp_path).findings}

    assert STOP not in levels(pack)
    assert "the MakeHuman head cannot be used" in levels(tmp_path / "gone.npz")[STOP]
