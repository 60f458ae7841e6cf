"""VRML 1 and 2 (`.wrl`): every IndexedFaceSet (or PointSet) of the scene, moved by the transforms above it.

A picture with the file's own stem is taken for the texture, else the one the file names, if it lies beside the file.
`Inline` and scripts are not run. The syntax is read by `vrml_tree`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.images import IMAGE_EXTENSIONS, decode_image, keep_image
from affectvlm.scan_io.limits import MAX_IMAGE_BYTES, MAX_SCENE_DEPTH, MAX_SCENE_NODES, MAX_TEXTURES
from affectvlm.scan_io.raw import RawScan, check_counts, check_indices, fan, to_bytes
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import plain_text
from affectvlm.scan_io.vrml_tree import Node, parse

IGNORED = {"Inline", "WWWInline", "Script", "AsciiText", "Text", "IndexedLineSet", "Box", "Cube", "Sphere", "Cone",
           "Cylinder", "ElevationGrid", "Extrusion"}  # fmt: skip


@dataclass
class State:
    """What holds for the nodes below: the transform and, in VRML 1, the coordinates and texture set before."""

    matrix: np.ndarray
    coordinates: Node | None = None
    texture_coordinates: Node | None = None
    colors: Node | None = None
    texture: Node | None = None


def read(file: ScanFile) -> RawScan:
    text = plain_text(file.data, "the VRML file")
    if not text.startswith(b"#VRML") and b"IndexedFaceSet" not in text and b"PointSet" not in text:
        raise ScanError("no VRML: the first line is not '#VRML ...' and there is no IndexedFaceSet")
    scene = parse(text)
    builder = _Builder(file)
    builder.visit(scene, State(np.eye(4)), 0)
    return builder.result()


class _Builder:
    """Walks the scene and gathers the meshes."""

    def __init__(self, file: ScanFile) -> None:
        self.file = file
        self.visited = 0
        self.meshes: list[RawScan] = []
        self.vertices = self.faces = 0
        self.images: list[np.ndarray] = []
        self.image_index: dict[tuple[str, ...], int] = {}
        self.warnings: list[str] = []

    def visit(self, node: Node, state: State, depth: int) -> None:
        """Meshes at and below `node`. `state` is changed by nodes that set something for their followers (VRML 1)."""
        self.visited += 1
        if self.visited > MAX_SCENE_NODES or depth > MAX_SCENE_DEPTH:
            raise ScanError(
                f"a VRML scene of too many nodes; {MAX_SCENE_NODES:,} in {MAX_SCENE_DEPTH} levels are accepted"
            )
        if node.type in IGNORED:
            self.warnings.append(f"A {node.type} node was passed over.")
        elif node.type in ("Coordinate3", "Coordinate"):
            state.coordinates = node
        elif node.type in ("TextureCoordinate2", "TextureCoordinate"):
            state.texture_coordinates = node
        elif node.type in ("Texture2", "ImageTexture"):
            state.texture = node
        elif node.type == "IndexedFaceSet":
            self.add(node, state, self.mesh)
        elif node.type == "PointSet":
            self.add(node, state, self.points)
        elif node.type in ("Translation", "Rotation", "Scale", "MatrixTransform") or (
            node.type == "Transform" and not node.nodes
        ):
            state.matrix = state.matrix @ local_matrix(node)
        else:
            self.visit_inside(node, state, depth)

    def visit_inside(self, node: Node, state: State, depth: int) -> None:
        inner = state if node.type in ("Group", "Appearance", "scene") else replace(state)
        if node.type == "Transform":
            inner.matrix = state.matrix @ local_matrix(node)
        children = node.nodes
        if node.type == "LOD":
            children = children[:1]
        elif node.type == "Switch":
            chosen = int(node.values.get("whichChoice", node.values.get("whichChild", [-1.0]))[0])
            children = children if chosen == -3 else children[max(chosen, 0) : chosen + 1]
        elif node.type == "Shape":  # the appearance first, wherever it is written
            children = sorted(children, key=lambda child: child.field_name == "geometry")
        for child in children:
            self.visit(child, inner, depth + 1)

    def add(self, node: Node, state: State, make) -> None:  # noqa: ANN001
        mesh = make(node, state)
        if mesh is None:
            return
        self.vertices, self.faces = self.vertices + len(mesh.vertices), self.faces + len(mesh.faces)
        check_counts(self.vertices, self.faces)
        mesh.vertices = mesh.vertices @ state.matrix[:3, :3].T + state.matrix[:3, 3]
        if np.linalg.det(state.matrix[:3, :3]) < 0:
            mesh.faces = mesh.faces[:, ::-1]
            mesh.uv_faces = None if mesh.uv_faces is None else mesh.uv_faces[:, ::-1]
        self.meshes.append(mesh)

    def points(self, node: Node, state: State) -> RawScan | None:
        vertices = _rows(node.child("coord") or state.coordinates, "point", 3)
        colors = _rows(node.child("color"), "color", 3)
        if vertices is None:
            return None
        fits = colors is not None and len(colors) == len(vertices)
        return RawScan(vertices, colors=to_bytes(colors) if fits else None)

    def mesh(self, node: Node, state: State) -> RawScan | None:
        vertices = _rows(node.child("coord") or state.coordinates, "point", 3)
        index = node.indices("coordIndex")
        if vertices is None or index is None or not len(index):
            self.warnings.append("An IndexedFaceSet without points or without faces (coordIndex) was passed over.")
            return None
        check_counts(len(vertices))
        flat, count = _polygons(index, "coordIndex")
        check_indices(flat, len(vertices), "vertices")
        triangles = fan(count)
        raw = RawScan(vertices, flat[triangles])
        self._texture(node, state, flat, count, triangles, raw)
        color = _rows(node.child("color"), "color", 3)
        if color is not None:
            raw.colors = self._colors(node, color, flat, count, len(vertices))
        return raw

    def _texture(
        self, node: Node, state: State, flat: np.ndarray, count: np.ndarray, triangles: np.ndarray, raw: RawScan
    ) -> None:
        uv = _rows(node.child("texCoord") or state.texture_coordinates, "point", 2)
        index = node.indices("texCoordIndex")
        if index is None:
            index = node.indices("textureCoordIndex")
        if uv is None:
            if index is not None and len(index):
                self.warnings.append(
                    "The faces name texture coordinates, but there are none; the texture was left out."
                )
            return
        if index is None or not len(index):
            index = None if len(uv) < len(raw.vertices) else flat
            if index is None:
                raise ScanError(
                    f"{len(uv)} VRML texture coordinates for {len(raw.vertices)} vertices, and no texCoordIndex"
                )
        else:
            index, uv_count = _polygons(index, "texCoordIndex")
            if not np.array_equal(uv_count, count):
                raise ScanError(
                    f"VRML faces ({len(count)}) and texture faces ({len(uv_count)}) differ in number or corners; "
                    "the file is cut off or damaged"
                )
        check_indices(index, len(uv), "texture coordinates")
        raw.uv, raw.uv_faces = uv, index[triangles]
        image = self._image(state.texture)
        raw.face_image = np.full(len(raw.faces), image)

    def _colors(
        self, node: Node, color: np.ndarray, flat: np.ndarray, count: np.ndarray, vertices: int
    ) -> np.ndarray | None:
        """A colour a vertex, whether the file gives it by vertex, by corner or by face."""
        per_vertex = node.values.get("colorPerVertex", [True])[0] is not False
        index = node.indices("colorIndex")
        if per_vertex:
            index = flat if index is None or not len(index) else index[index >= 0]
        else:
            index = np.arange(len(count)) if index is None or not len(index) else index[index >= 0]
            index = np.repeat(index, count) if len(index) == len(count) else index[:0]
        if len(index) != len(flat) or index.max(initial=0) >= len(color):
            self.warnings.append("The colours do not fit the faces and were left out.")
            return None
        colors = np.full((vertices, 3), 255, np.uint8)
        colors[flat] = to_bytes(color)[index]
        return colors

    def _image(self, texture: Node | None) -> int:
        """Index of the picture for a texture node, -1 for none; a picture of the file's own stem wins."""
        references = tuple(texture.texts("url", "filename")[:4]) if texture is not None else ()
        if references not in self.image_index:
            if len(self.image_index) >= MAX_TEXTURES:
                raise ScanError(f"more than {MAX_TEXTURES} textures; at most so many are accepted")
            self.image_index[references] = keep_image(self.images, self._find_image(references))
        return self.image_index[references]

    def _find_image(self, references: tuple[str, ...]) -> np.ndarray | None:
        siblings = self.file.siblings
        beside = siblings.with_stem(self.file.stem, IMAGE_EXTENSIONS, MAX_IMAGE_BYTES) if not self.image_index else None
        if beside is None:
            for reference in references:
                data = siblings.find(reference, MAX_IMAGE_BYTES)
                if data is not None:
                    beside = reference[:80], data
                    break
        if beside is None and self.file.lone_image is not None and not self.image_index:
            data = siblings.load(self.file.lone_image, MAX_IMAGE_BYTES)
            beside = None if data is None else (self.file.lone_image, data)
        if beside is not None:
            return decode_image(beside[1], beside[0], self.warnings)
        if references:
            self.warnings.append(f"The texture {references[0][:80]!r} did not come with the scan.")
        return None

    def result(self) -> RawScan:
        meshes = [m for m in self.meshes if len(m.faces)] or self.meshes
        if not meshes:
            raise ScanError("a VRML file without an IndexedFaceSet of points and faces, or a PointSet")
        raw = merge(meshes)
        raw.images = self.images
        raw.warnings = list(dict.fromkeys(self.warnings))
        return raw


def merge(meshes: list[RawScan]) -> RawScan:
    """Several meshes as one, indices shifted; corners without texture coordinates get -1, vertices without colour
    white."""
    if len(meshes) == 1:
        return meshes[0]
    counts = [len(m.vertices) for m in meshes]
    uv_counts = [0 if m.uv is None else len(m.uv) for m in meshes]
    start, uv_start = np.cumsum(counts) - counts, np.cumsum(uv_counts) - uv_counts
    raw = RawScan(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + s for m, s in zip(meshes, start, strict=True)]),
    )
    if any(uv_counts):
        raw.uv = np.concatenate([m.uv for m in meshes if m.uv is not None])
        raw.uv_faces = np.concatenate(
            [
                np.full_like(m.faces, -1) if m.uv_faces is None else m.uv_faces + s
                for m, s in zip(meshes, uv_start, strict=True)
            ]
        )
        raw.face_image = np.concatenate(
            [np.full(len(m.faces), -1) if m.face_image is None else m.face_image for m in meshes]
        )
    if any(m.colors is not None for m in meshes):
        raw.colors = np.concatenate(
            [
                np.full((n, 3), 255, np.uint8) if m.colors is None else m.colors
                for m, n in zip(meshes, counts, strict=True)
            ]
        )
    return raw


def _rows(node: Node | None, name: str, width: int) -> np.ndarray | None:
    values = None if node is None else node.array(name)
    if values is None or not len(values):
        return None
    if len(values) % width:
        raise ScanError(
            f"a VRML {node.type} of {len(values)} numbers, which is no multiple of {width}; cut off or damaged"
        )
    return values.reshape(-1, width)


def _polygons(index: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """(corners of all faces one after the other, (n,) corners of each); -1 ends a face, at the very end it may be
    missing."""
    ends = index < 0
    if (index[ends] != -1).any():
        raise ScanError(f"VRML {what} holds {index.min()}; indices are 0 or more, and -1 ends a face")
    if not ends[-1]:
        index, ends = np.append(index, -1), np.append(ends, True)
    count = np.diff(np.flatnonzero(ends), prepend=-1) - 1
    return index[~ends], count


def local_matrix(node: Node) -> np.ndarray:
    """(4, 4) of a Transform, Translation, Rotation, Scale or MatrixTransform node."""
    if node.type == "MatrixTransform":
        return node.numbers("matrix", 16, list(np.eye(4).ravel())).reshape(4, 4).T
    if node.type == "Scale":
        return _scaling(node.numbers("scaleFactor", 3, [1.0, 1.0, 1.0]))
    scale = node.numbers("scaleFactor" if "scaleFactor" in node.values else "scale", 3, [1.0, 1.0, 1.0])
    turn = _rotation(node.numbers("scaleOrientation", 4, [0.0, 0.0, 1.0, 0.0]))
    center = node.numbers("center", 3, [0.0, 0.0, 0.0])
    matrix = _shift(node.numbers("translation", 3, [0.0, 0.0, 0.0])) @ _shift(center)
    matrix = matrix @ _rotation(node.numbers("rotation", 4, [0.0, 0.0, 1.0, 0.0]))
    return matrix @ turn @ _scaling(scale) @ turn.T @ _shift(-center)


def _shift(by: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def _scaling(by: np.ndarray) -> np.ndarray:
    return np.diag([*by, 1.0])


def _rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues' formula; a zero axis turns nothing."""
    axis, angle = axis_angle[:3], float(axis_angle[3])
    length = float(np.linalg.norm(axis))
    matrix = np.eye(4)
    if not 0 < length < 1e100 or abs(angle) > 1e9:
        return matrix
    x, y, z = axis / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix[:3, :3] += math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return matrix


READERS = {".wrl": read, ".vrml": read}
