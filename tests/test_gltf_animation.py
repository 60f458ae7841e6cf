"""Animated glTF: positions that follow from the format's own formulas, and damaged animations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from affectvlm.scan import ScanError
from affectvlm.scan_io import holds_animation, open_animation, read_scan, scan_at
from tests.scan_files import glb, glb_of, gltf_json, mask, samples, triangles

VERTICES, QUADS, UV = mask()
FACES = triangles(QUADS)
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Builder:
    """A glTF of the mask to which animations are added."""

    def __init__(self, **node) -> None:
        self.document, self.buffer = gltf_json(VERTICES, FACES, UV, node=node)
        self.document["animations"] = [{"channels": [], "samplers": []}]
        self.primitive = self.document["meshes"][0]["primitives"][0]

    def array(self, values, component: int = 5126) -> int:
        dtype = {5126: "<f4", 5121: "<u1", 5123: "<u2"}[component]
        values = np.asarray(values).astype(dtype)
        width = 1 if values.ndim == 1 else values.shape[1]
        self.document["bufferViews"].append({"buffer": 0, "byteOffset": len(self.buffer), "byteLength": values.nbytes})
        view = len(self.document["bufferViews"]) - 1
        accessor = {"bufferView": view, "componentType": component, "count": len(values), "type": TYPES[width]}
        self.document["accessors"].append(accessor)
        self.buffer += values.tobytes() + b"\0" * (-values.nbytes % 4)
        self.document["buffers"][0]["byteLength"] = len(self.buffer)
        return len(self.document["accessors"]) - 1

    def animate(self, path: str, times, values, interpolation: str = "LINEAR", node: int = 0) -> Builder:
        animation = self.document["animations"][0]
        sampler = {"input": self.array(times), "output": self.array(values), "interpolation": interpolation}
        animation["samplers"].append(sampler)
        target = {"node": node, "path": path}
        animation["channels"].append({"sampler": len(animation["samplers"]) - 1, "target": target})
        return self

    def targets(self, *deltas) -> Builder:
        self.primitive["targets"] = [{"POSITION": self.array(delta)} for delta in deltas]
        return self

    def bytes(self) -> bytes:
        return glb_of(self.document, self.buffer)

    def at(self, time: float) -> np.ndarray:
        return scan_at(open_animation(self.bytes(), "face.glb"), time, "mm").vertices


def close(a, b) -> bool:
    return np.allclose(a, b, rtol=0, atol=2e-4)


def test_morph_targets_add_up():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, *VERTICES.shape)) * 5
    builder = Builder().targets(first, second).animate("weights", [0, 1, 2], [0, 0, 1, 0, 1, 0.5])
    for time, (a, b) in {0: (0, 0), 0.25: (0.25, 0), 1: (1, 0), 1.5: (1, 0.25), 2: (1, 0.5), 9: (1, 0.5)}.items():
        assert close(builder.at(time), VERTICES + a * first + b * second)


def test_weights_at_rest_hold_where_nothing_moves_them():
    delta = np.full(VERTICES.shape, 3.0)
    builder = Builder(weights=[0.5]).targets(delta).animate("translation", [0, 1], [[0, 0, 0], [10, 0, 0]])
    assert close(builder.at(0.5), VERTICES + 1.5 + [5, 0, 0])
    builder = Builder().targets(delta)
    builder.document["meshes"][0]["weights"] = [1.0]
    assert close(builder.animate("scale", [0, 1], [[1, 1, 1], [1, 1, 1]]).at(1), VERTICES + 3)


def test_rotation_takes_the_short_way_round():
    turns = Rotation.from_rotvec([[0, 0, 0], [0.3, 0.9, 0.1]])
    keys = turns.as_quat()
    keys[1] *= -1  # the same turn
    builder = Builder().animate("rotation", [0.0, 2.0], keys)
    for time in (0.0, 0.5, 1.3, 2.0):
        assert close(builder.at(time), VERTICES @ Slerp([0, 2], turns)(time).as_matrix().T)


def test_steps_hold_and_splines_bend():
    moves = [[0, 0, 0], [8, 0, 0]]
    step = Builder().animate("translation", [0, 1], moves, "STEP")
    assert close(step.at(0.99), VERTICES) and close(step.at(1.0), VERTICES + [8, 0, 0])
    # x(t) = t³: values 0 and 1, slopes 0 and 3; a cubic spline is exact
    keys = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [3, 0, 0], [1, 0, 0], [0, 0, 0]]
    spline = Builder().animate("translation", [0, 1], keys, "CUBICSPLINE")
    for time in (0.0, 0.3, 0.8, 1.0):
        assert close(spline.at(time), VERTICES + [time**3, 0, 0])
    # over 2 s the tangents are per second: x(t) = t²
    keys = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [4, 0, 0], [4, 0, 0], [0, 0, 0]]
    assert close(Builder().animate("translation", [0, 2], keys, "CUBICSPLINE").at(1.5), VERTICES + [2.25, 0, 0])


def test_parents_carry_their_children_and_a_matrix_gives_way():
    builder = Builder(translation=[1, 2, 3])
    builder.document["nodes"].append({"children": [0], "matrix": np.eye(4).ravel().tolist()})
    builder.document["scenes"][0]["nodes"] = [1]
    builder.animate("scale", [0, 1], [[1, 1, 1], [2, 2, 2]], node=1)
    assert close(builder.at(1), 2 * (VERTICES + [1, 2, 3]))


def test_a_skin_moves_vertices_by_their_joints():
    builder = Builder(skin=0, translation=[999, 0, 0])  # where the node of a skinned mesh is does not count
    builder.document["nodes"] += [{"children": [2]}, {"translation": [0, 50, 0]}]
    builder.document["scenes"][0]["nodes"] = [0, 1]
    binds = np.stack([np.eye(4), np.eye(4)])
    binds[1, 1, 3] = -50.0
    inverse = builder.array(binds.transpose(0, 2, 1).reshape(2, 16))
    builder.document["skins"] = [{"joints": [1, 2], "inverseBindMatrices": inverse}]
    upper = np.clip((VERTICES[:, 1] + 90) / 180, 0, 1)
    joints = np.tile([0, 1, 0, 0], (len(VERTICES), 1))
    weights = np.stack([1 - upper, upper, 0 * upper, 0 * upper], axis=1)
    builder.primitive["attributes"] |= {"JOINTS_0": builder.array(joints, 5121), "WEIGHTS_0": builder.array(weights)}
    turn = Rotation.from_euler("z", 40, degrees=True)
    builder.animate("rotation", [0, 1], [[0, 0, 0, 1], turn.as_quat()], node=2)
    assert close(builder.at(0), VERTICES)
    turned = turn.apply(VERTICES - [0, 50, 0]) + [0, 50, 0]
    assert close(builder.at(1), (1 - upper)[:, None] * VERTICES + upper[:, None] * turned)


def test_colours_and_texture_stay():
    data = samples()["binary.glb"]
    still = read_scan(data, "face.glb")
    document, buffer = gltf_json(VERTICES, FACES, UV, np.full((len(VERTICES), 3), 90))
    builder = Builder()
    builder.document, builder.buffer = {**document, "animations": builder.document["animations"]}, buffer
    moved = scan_at(open_animation(builder.animate("translation", [0, 1], [[0, 0, 0], [5, 0, 0]]).bytes()), 1.0, "mm")
    assert (moved.colors == 90).all() and np.allclose(moved.uv, UV, atol=1e-6) and len(moved.faces) == len(still.faces)
    assert not any("at rest" in warning for warning in moved.warnings)


def test_what_holds_an_animation_is_told():
    animated = Builder().animate("translation", [0, 1], [[0, 0, 0], [5, 0, 0]]).bytes()
    assert holds_animation(animated, "face.glb") and not holds_animation(glb(VERTICES, FACES), "face.glb")
    assert not holds_animation(samples()["ascii.stl"], "face.stl")
    animation = open_animation(animated, "face.glb")
    assert (animation.start, animation.end) == (0, 1)


def _nothing(b):
    b.document["animations"] = []


def _target(b):
    b.document["animations"][0]["channels"][0]["target"]["node"] = 7


def _sampler(b):
    b.document["animations"][0]["channels"][0]["sampler"] = "x"


def _backwards(b):
    b.document["animations"][0]["samplers"][0]["input"] = b.array([1.0, 0.0])


def _too_few(b):
    b.document["animations"][0]["samplers"][0]["output"] = b.array([[0, 0, 0]])


def _not_finite(b):
    b.document["animations"][0]["samplers"][0]["output"] = b.array([[0, 0, 0], [np.nan, 0, 0]])


def _magic(b):
    b.document["animations"][0]["samplers"][0]["interpolation"] = "MAGIC"


def _twice(b):
    b.animate("translation", [0, 1], [[0, 0, 0], [5, 0, 0]])


def _only_a_pointer(b):
    b.document["animations"][0]["channels"][0]["target"]["path"] = "pointer"


def _circle(b):
    b.document["nodes"] += [{"children": [2]}, {"children": [1]}]


def _short_target(b):
    b.targets(np.zeros((3, 3)))


def _no_weights(b):
    b.document["nodes"][0]["skin"] = 0
    b.document["skins"] = [{"joints": [0]}]


def _joint_outside(b):
    _no_weights(b)
    rows = len(VERTICES)
    b.primitive["attributes"] |= {
        "JOINTS_0": b.array(np.full((rows, 4), 9), 5121),
        "WEIGHTS_0": b.array(np.full((rows, 4), 0.25)),
    }


@pytest.mark.parametrize(
    "damage",
    [
        _nothing, _target, _sampler, _backwards, _too_few, _not_finite, _magic, _twice, _only_a_pointer, _circle,
        _short_target, _no_weights, _joint_outside,
    ],
)  # fmt: skip
def test_damaged_animations_end_in_a_scan_error(damage):
    builder = Builder().animate("translation", [0, 1], [[0, 0, 0], [5, 0, 0]])
    damage(builder)
    with pytest.raises(ScanError, match=r"^face\.glb: (?!damaged in a way)"):
        open_animation(builder.bytes(), "face.glb")


def test_other_files_hold_none():
    with pytest.raises(ScanError, match="only glTF"):
        open_animation(b"ply\nformat ascii 1.0\n", "face.ply")
