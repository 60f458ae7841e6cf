"""The ICT-FaceKit adapter on a model of the same layout, small and made here: no file of the real one is needed."""

import json

import numpy as np
import pytest

from affectvlm.scan import ScanError
from affectvlm.synthesis import ict
from affectvlm.synthesis.ict import ICTFace, pack_checkout

NAMES = ("browDown_L", "browDown_R", "mouthSmile_L", "mouthSmile_R", "jawOpen")
TOTAL = 26719


def write_obj(path, vertices, faces=()):
    lines = ["# header"] * 30 + ["mtllib x.mtl"] + [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices]
    lines += ["usemtl m"] + ["f " + " ".join(f"{i + 1}/{i + 1}" for i in face) for face in faces]
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with two identity modes and five shapes; eyeballs are round, everything else is noise."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("ICT-FaceKit") / "FaceXModel"
    root.mkdir()
    neutral = rng.normal(0, 5, (TOTAL, 3))
    write_obj(root / "generic_neutral_mesh.obj", neutral, [(0, 1, 2, 3), (4, 5, 6), (TOTAL - 1, TOTAL - 2, TOTAL - 3)])
    for name, vertex, offset in [("identity000", 10, 1.0), ("identity001", 11, 2.0)]:
        moved = neutral.copy()
        moved[vertex, 1] += offset
        write_obj(root / f"{name}.obj", moved)
    for number, name in enumerate(NAMES):
        moved = neutral.copy()
        moved[20 + number, 0] += 0.5
        write_obj(root / f"{name}.obj", moved)
    indices = {"expressions": list(NAMES), "idx_to_landmark_verts": list(range(100, 168))}
    (root / "vertex_indices.json").write_text(json.dumps(indices))
    return root.parent, neutral


def test_a_checkout_packs_into_differences_to_the_neutral(checkout, tmp_path):
    folder, neutral = checkout
    with np.load(pack_checkout(folder, tmp_path / "pack.npz")) as pack:
        np.testing.assert_allclose(pack["vertices"], neutral[:24591], atol=1e-4)
        assert pack["identity"].shape == (2, 24591, 3)
        assert pack["identity"][1, 11, 1] == pytest.approx(2.0, abs=1e-3)
        assert pack["expression"][2, 22, 0] == pytest.approx(0.5, abs=1e-3)
        assert [str(n) for n in pack["expression_names"]] == list(NAMES)
        np.testing.assert_array_equal(pack["triangles"], [[0, 1, 2], [0, 2, 3], [4, 5, 6]])


def test_a_checkout_is_packed_once_and_the_pack_read_after_that(checkout, tmp_path):
    folder, _ = checkout
    first = ICTFace.load(folder, cache=tmp_path / "cache.npz")
    stamp = (tmp_path / "cache.npz").stat().st_mtime_ns
    second = ICTFace.load(folder, cache=tmp_path / "cache.npz")
    assert (tmp_path / "cache.npz").stat().st_mtime_ns == stamp
    a, b = (m.generate(m.sample_identity(np.random.default_rng(3)), {"AU12": 1.0}) for m in (first, second))
    np.testing.assert_array_equal(a.vertices, b.vertices)
    np.testing.assert_array_equal(a.colors, b.colors)


def test_action_units_move_their_shapes_on_their_side_only(checkout, tmp_path):
    model = ICTFace.load(checkout[0], cache=tmp_path / "cache.npz")
    both = model.shape_weights({"AU12": 0.8})
    left = model.shape_weights({"AU12L": 0.8})
    np.testing.assert_allclose(both, [0, 0, 0.8, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(left, [0, 0, 0.8, 0, 0], atol=1e-6)
    jaw = model.shape_weights({"AU26": 1.0, "AU27": 1.0})
    assert jaw[4] == pytest.approx(0.9), "the stronger request wins a shared shape"


def test_the_face_is_in_millimetres_with_the_neutral_nose_tip_at_the_origin(checkout, tmp_path):
    model = ICTFace.load(checkout[0], cache=tmp_path / "cache.npz")
    scan = model.generate(model.sample_identity(np.random.default_rng(0)), {})
    np.testing.assert_allclose(scan.landmarks["68-30"], 0, atol=1e-3)
    expected = (checkout[1][101] - checkout[1][130]) * 10
    np.testing.assert_allclose(scan.landmarks["68-1"], expected, atol=0.05)


@pytest.mark.parametrize("missing", ["vertex_indices.json", "generic_neutral_mesh.obj", "jawOpen.obj"])
def test_an_incomplete_checkout_names_what_is_missing(checkout, tmp_path, missing):
    import shutil

    root = shutil.copytree(checkout[0], tmp_path / "copy") / "FaceXModel"
    (root / missing).unlink()
    with pytest.raises(ScanError, match=missing):
        pack_checkout(root.parent, tmp_path / "pack.npz")


def test_a_shape_of_another_model_is_refused(checkout, tmp_path):
    import shutil

    root = shutil.copytree(checkout[0], tmp_path / "copy") / "FaceXModel"
    write_obj(root / "jawOpen.obj", np.zeros((5, 3)))
    with pytest.raises(ScanError, match="5 vertices"):
        pack_checkout(root, tmp_path / "pack.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 broken"])
def test_something_else_is_not_a_pack(tmp_path, content):
    file = tmp_path / "pack.npz"
    file.write_bytes(content)
    with pytest.raises(ScanError, match="not a packed ICT-FaceKit"):
        ICTFace.load(file)


def test_every_action_unit_names_known_shapes():
    known = {"browInnerUp", "browOuterUp", "browDown", "eyeWide", "cheekSquint", "cheekRaiser", "eyeSquint",
             "noseSneer", "mouthUpperUp", "mouthShrugUpper", "mouthSmile", "mouthDimple", "mouthFrown",
             "mouthLowerDown", "mouthShrugLower", "mouthPucker", "mouthStretch", "mouthFunnel", "mouthPress",
             "mouthRollUpper", "mouthRollLower", "jawOpen",
             "jawForward", "cheekPuff", "eyeBlink"}  # fmt: skip
    assert {stem for shapes in ict.SHAPES.values() for stem in shapes} == known
