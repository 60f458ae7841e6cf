"""Animated glTF: the scene at any time of its first animation, by node transforms, morph target weights and skins.

The scene is read once, as at rest (`gltf`); a moment only moves its vertices. Interpolation is glTF's: STEP, LINEAR
(spherical for rotations) and CUBICSPLINE; before the first key and after the last a value stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io import gltf
from affectvlm.scan_io.gltf_document import Document, floats, items, open_document
from affectvlm.scan_io.limits import MAX_NUMBERS, MAX_SCENE_NODES
from affectvlm.scan_io.raw import RawScan, check_counts, check_indices
from affectvlm.scan_io.source import ScanFile

MOVES = {"translation": 3, "rotation": 4, "scale": 3}
"""Path of a channel → numbers in its value."""
MAX_INFLUENCES = 4
"""Most groups of four joints that move one vertex."""
AT_REST = "The scan has morph targets; its shape at rest was read."


@dataclass(frozen=True)
class Channel:
    """One moving value: of which node, which (a key of MOVES, or "weights"), and its keys in time.

    times: (n,) seconds, rising; values: (n, w), or (n, 3, w) with tangents for CUBICSPLINE.
    """

    node: int
    path: str
    times: np.ndarray
    values: np.ndarray
    interpolation: str

    def at(self, time: float) -> np.ndarray:
        """The value (w,) at a time in seconds."""
        keys = self.values[:, 1] if self.interpolation == "CUBICSPLINE" else self.values
        i = int(np.searchsorted(self.times, time, side="right")) - 1
        if i < 0 or i >= len(self.times) - 1:
            return keys[max(i, 0)]
        if self.interpolation == "STEP":
            return keys[i]
        span = self.times[i + 1] - self.times[i]
        share = (time - self.times[i]) / span
        if self.interpolation == "LINEAR":
            between = _slerp if self.path == "rotation" else _lerp
            return between(keys[i], keys[i + 1], share)
        s2, s3 = share**2, share**3
        leave, arrive = span * self.values[i, 2], span * self.values[i + 1, 0]
        start, end = (2 * s3 - 3 * s2 + 1) * keys[i], (3 * s2 - 2 * s3) * keys[i + 1]
        return start + (s3 - 2 * s2 + share) * leave + end + (s3 - s2) * arrive


@dataclass(frozen=True)
class MovingPart:
    """A primitive in its mesh's frame; deltas: one (V, 3) a morph target; joints, weights: (V, n) of the skin."""

    part: gltf.Part
    node: int
    deltas: tuple[np.ndarray, ...]
    rest_weights: np.ndarray
    skin: tuple[list[int], np.ndarray] | None
    joints: np.ndarray
    weights: np.ndarray


class Animation:
    """The first animation of a glTF.

    Attributes:
        start, end: seconds between its first and its last key.
        remarks: what of it was left out.

    Raises:
        ScanError: a file that `gltf.read` refuses, one without animation, or a damaged animation.
    """

    def __init__(self, file: ScanFile) -> None:
        self.name = file.name
        self._document = document = open_document(file)
        self.remarks: list[str] = []
        self._nodes = items(document.json, "nodes")
        self._order, self._parent = _tree(document)
        self._channels = self._read_channels()
        self.start = min(float(channel.times[0]) for channel in self._channels)
        self.end = max(float(channel.times[-1]) for channel in self._channels)
        self._parts = self._read_parts()
        document.warnings = [warning for warning in document.warnings if warning != AT_REST]
        self._rest = gltf.merged(document, [moving.part for moving in self._parts])

    def raw(self, time: float) -> RawScan:
        """The scene at a time in seconds. Triangles, colours and textures are those at rest."""
        values: dict[tuple[int, str], np.ndarray] = {(c.node, c.path): c.at(time) for c in self._channels}
        matrices = self._matrices(values)
        vertices = np.concatenate([self._moved(moving, values, matrices) for moving in self._parts])
        return replace(self._rest, vertices=vertices, warnings=list(self._rest.warnings))

    def _matrices(self, values: dict[tuple[int, str], np.ndarray]) -> dict[int, np.ndarray]:
        """Node → (4, 4) matrix to the scene."""
        moved = {node for node, path in values if path in MOVES}
        matrices: dict[int, np.ndarray] = {}
        for node in self._order:
            entry = self._document.item("nodes", node)
            if node in moved:
                entry = {key: value for key, value in entry.items() if key != "matrix"}
                entry |= {path: values[node, path].tolist() for path in MOVES if (node, path) in values}
            matrix = gltf.local_matrix(entry)
            parent = self._parent.get(node)
            matrices[node] = matrix if parent is None else matrices[parent] @ matrix
        return matrices

    def _moved(self, moving: MovingPart, values: dict, matrices: dict[int, np.ndarray]) -> np.ndarray:
        """Vertices (V, 3) of a part in the scene: morphed, then skinned or placed by its node."""
        vertices = moving.part.vertices
        weights = values.get((moving.node, "weights"), moving.rest_weights)
        if any(weights):
            vertices = vertices.copy()
            for weight, delta in zip(weights, moving.deltas, strict=True):
                if weight:
                    vertices += weight * delta
        if moving.skin is None:
            matrix = matrices[moving.node]
            return vertices @ matrix[:3, :3].T + matrix[:3, 3]
        nodes, inverse_binds = moving.skin
        bones = np.stack([matrices[node] for node in nodes]) @ inverse_binds
        result = np.zeros_like(vertices)
        for joint, weight in zip(moving.joints.T, moving.weights.T, strict=True):
            turned = np.einsum("vij,vj->vi", bones[joint, :3, :3], vertices) + bones[joint, :3, 3]
            result += weight[:, None] * turned
        return result

    def _read_channels(self) -> list[Channel]:
        animations = items(self._document.json, "animations")
        if not animations:
            raise ScanError("a glTF without animation; one with an animation, or several scans, make a sequence")
        if len(animations) > 1:
            self.remarks.append(f"The glTF has {len(animations)} animations; the first was read.")
        animation = self._document.item("animations", 0)
        samplers = items(animation, "samplers")
        channels, left_out = [], 0
        for entry in items(animation, "channels"):
            target = entry.get("target") if isinstance(entry, dict) else None
            if not isinstance(target, dict):
                raise ScanError("an animation channel of the glTF without a target")
            if target.get("path") in (*MOVES, "weights") and "node" in target:
                channels.append(self._channel(target, samplers, entry.get("sampler")))
            else:
                left_out += 1
        if left_out:
            self.remarks.append(f"{left_out} animation channels move something else than the shape and were left out.")
        if not channels:
            raise ScanError("the glTF's animation moves nothing of the shape")
        if len({(channel.node, channel.path) for channel in channels}) < len(channels):
            raise ScanError("two animation channels of the glTF move one value")
        return channels

    def _channel(self, target: dict[str, Any], samplers: list[Any], index: Any) -> Channel:
        if not isinstance(index, int) or not 0 <= index < len(samplers) or not isinstance(samplers[index], dict):
            raise ScanError("an animation channel of the glTF without its sampler")
        sampler, path, node = samplers[index], target["path"], target["node"]
        interpolation = sampler.get("interpolation", "LINEAR")
        if interpolation not in ("STEP", "LINEAR", "CUBICSPLINE"):
            raise ScanError(f"glTF interpolation {str(interpolation)[:30]!r}; STEP, LINEAR or CUBICSPLINE is needed")
        times = self._document.accessor(sampler.get("input"), (1,))[:, 0].astype(np.float64)
        if not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ScanError("the key times of a glTF animation do not rise")
        if path == "weights":
            width = _target_count(self._document, self._document.item("nodes", node).get("mesh"))
        else:
            self._document.item("nodes", node)
            width = MOVES[path]
        values = self._document.accessor(sampler.get("output"), (1,) if path == "weights" else (width,))
        shape = (len(times), 3, width) if interpolation == "CUBICSPLINE" else (len(times), width)
        if not width or values.size != np.prod(shape):
            raise ScanError(f"{values.size} animated numbers for {len(times)} keys of {width} in the glTF")
        values = values.astype(np.float64).reshape(shape)
        if not np.isfinite(values).all():
            raise ScanError("an animation of the glTF holds NaN or infinity")
        return Channel(node, path, times, values, interpolation)

    def _read_parts(self) -> list[MovingPart]:
        drawn, numbers, vertices, faces = _drawn_nodes(self._document, self._order, self._parent), 0, 0, 0
        parts = []
        for node, primitive in drawn:
            part = gltf.read_primitive(self._document, primitive, np.eye(4)) if isinstance(primitive, dict) else None
            if part is None:
                continue
            vertices, faces = vertices + len(part.vertices), faces + len(part.faces)
            check_counts(vertices, faces)
            moving = self._moving(part, node, primitive)
            numbers += (len(moving.deltas) + 1) * part.vertices.size + moving.joints.size
            if numbers > MAX_NUMBERS:
                raise ScanError(f"a glTF that moves by more than {MAX_NUMBERS:,} numbers; at most so many are accepted")
            parts.append(moving)
        if any(len(moving.part.faces) for moving in parts):
            parts = [moving for moving in parts if len(moving.part.faces)]
        if not parts:
            raise ScanError("a glTF scene without triangles or points")
        return parts

    def _moving(self, part: gltf.Part, node: int, primitive: dict[str, Any]) -> MovingPart:
        """A part with what moves it; the deltas stay views of the file's buffer where they can."""
        document, entry, count = self._document, self._document.item("nodes", node), len(part.vertices)
        targets = items(primitive, "targets")
        extensions = primitive.get("extensions")
        if isinstance(extensions, dict) and "KHR_draco_mesh_compression" in extensions and (targets or "skin" in entry):
            raise ScanError("a glTF with a Draco mesh that is morphed or skinned; one that is not compressed is needed")
        deltas = []
        if len(targets) * part.vertices.size > MAX_NUMBERS:
            raise ScanError(f"a glTF of {len(targets)} morph targets of {count:,} vertices; fewer are needed")
        for target in targets:
            if isinstance(target, dict) and "POSITION" in target:
                deltas.append(document.accessor(target["POSITION"], (3,)))
                if len(deltas[-1]) != count:
                    raise ScanError(f"a glTF morph target of {len(deltas[-1])} for {count} vertices")
            else:
                deltas.append(np.zeros((count, 3)))
        rest = np.zeros(len(deltas))
        for holder in (entry, document.item("meshes", entry["mesh"])):
            if deltas and items(holder, "weights"):
                rest = floats(holder, "weights", len(deltas), [])
                break
        skin, joints, weights = None, np.zeros((count, 0), np.int64), np.zeros((count, 0))
        if "skin" in entry:
            skin = self._skin(entry["skin"])
            joints, weights = self._influences(primitive["attributes"], count, len(skin[0]))
        return MovingPart(part, node, tuple(deltas), rest, skin, joints, weights)

    def _skin(self, index: Any) -> tuple[list[int], np.ndarray]:
        """(nodes of the joints, their inverse bind matrices (J, 4, 4))."""
        entry = self._document.item("skins", index)
        nodes = items(entry, "joints")
        for node in nodes:
            self._document.item("nodes", node)
        if not nodes:
            raise ScanError("a glTF skin without joints")
        if "inverseBindMatrices" not in entry:
            return nodes, np.tile(np.eye(4), (len(nodes), 1, 1))
        matrices = self._document.accessor(entry["inverseBindMatrices"], (16,))
        if len(matrices) < len(nodes):
            raise ScanError(f"{len(matrices)} bind matrices for {len(nodes)} joints in the glTF")
        return nodes, matrices[: len(nodes)].astype(np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)

    def _influences(self, attributes: dict[str, Any], count: int, bones: int) -> tuple[np.ndarray, np.ndarray]:
        """Joints (V, n) and weights (V, n), each vertex's summing to 1."""
        joints, weights = [], []
        for number in range(MAX_INFLUENCES):
            if f"JOINTS_{number}" not in attributes or f"WEIGHTS_{number}" not in attributes:
                break
            joints.append(self._document.accessor(attributes[f"JOINTS_{number}"], (4,)))
            weights.append(self._document.accessor(attributes[f"WEIGHTS_{number}"], (4,)).astype(np.float64))
        if not joints or any(len(rows) != count for rows in (*joints, *weights)):
            raise ScanError("a skinned glTF mesh without a joint and a weight for each vertex")
        joint, weight = np.concatenate(joints, axis=1), np.concatenate(weights, axis=1)
        if joint.dtype.kind not in "ui":
            raise ScanError("glTF joints that are not whole numbers")
        joint = np.where(weight != 0, joint.astype(np.int64), 0)
        check_indices(joint, bones, "joints")
        total = weight.sum(axis=1, keepdims=True)
        if not np.isfinite(weight).all() or (total <= 0).any():
            raise ScanError("vertices of a skinned glTF mesh that no joint moves")
        return joint, weight / total


def is_animated(file: ScanFile) -> bool:
    """Whether a glTF or GLB holds an animation that has channels; ScanError where the file is damaged."""
    animations = items(open_document(file).json, "animations")
    return any(isinstance(animation, dict) and items(animation, "channels") for animation in animations)


def _tree(document: Document) -> tuple[list[int], dict[int, int]]:
    """(all nodes, parents before children; child → parent)."""
    nodes = items(document.json, "nodes")
    if len(nodes) > MAX_SCENE_NODES:
        raise ScanError(f"a glTF of {len(nodes):,} nodes; at most {MAX_SCENE_NODES:,} are accepted")
    parent: dict[int, int] = {}
    for index in range(len(nodes)):
        for child in items(document.item("nodes", index), "children"):
            document.item("nodes", child)
            if child in parent:
                raise ScanError("a glTF node with two parents; a tree is needed")
            parent[child] = index
    order = [index for index in range(len(nodes)) if index not in parent]
    for index in order:  # grows while it is walked
        order += items(document.item("nodes", index), "children")
    if len(order) != len(nodes):
        raise ScanError("glTF nodes that are their own ancestors; a tree is needed")
    return order, parent


def _drawn_nodes(document: Document, order: list[int], parent: dict[int, int]) -> list[tuple[int, Any]]:
    """(node, primitive) of all that the default scene shows."""
    shown = set(gltf.scene_roots(document)) if order else set()
    drawn = []
    for node in order:
        if parent.get(node) in shown:
            shown.add(node)
        entry = document.item("nodes", node)
        if node in shown and "mesh" in entry:
            drawn += [(node, primitive) for primitive in items(document.item("meshes", entry["mesh"]), "primitives")]
            if len(drawn) > MAX_SCENE_NODES:
                raise ScanError(f"more than {MAX_SCENE_NODES:,} parts; at most so many are accepted")
    return drawn


def _target_count(document: Document, mesh: Any) -> int:
    """Morph targets of a mesh: the same number for all its primitives."""
    primitives = items(document.item("meshes", mesh), "primitives")
    counts = {len(items(primitive, "targets")) for primitive in primitives if isinstance(primitive, dict)}
    if len(counts) != 1:
        raise ScanError("parts of one glTF mesh that differ in the number of morph targets")
    return counts.pop()


def _lerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * a + share * b


def _slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Between two quaternions, the shorter way."""
    a, b = (q / max(float(np.linalg.norm(q)), 1e-300) for q in (a, b))
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    if cosine > 0.9999:
        return _lerp(a, b, share)
    angle = np.arccos(cosine)
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
