"""VRML 1 and 2 (`.wrl`): every IndexedFaceSet (or PointSet) of the scene, moved by the transforms above it.

The long number lists are cut out first and parsed by NumPy; what is left, the skeleton, is a few hundred words that a
small parser turns into a tree. So quirks of line breaks, commas and blanks do not matter, and names are told apart as
whole words. Pictures the file names are looked for beside it; a picture with the file's own stem wins. `Inline` and
scripts are not run.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.images import IMAGE_EXTENSIONS, decode_image, keep_image
from affectvlm.scan_io.limits import MAX_IMAGE_BYTES, MAX_SCENE_DEPTH, MAX_SCENE_NODES, MAX_TEXTURES
from affectvlm.scan_io.raw import RawScan, check_counts, check_indices, fan, to_bytes, whole
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import numbers, plain_text

MAX_STRINGS = 1_000_000
"""Most strings and comments."""
MAX_BRACKETS = 200_000
MAX_SKELETON_BYTES = 2_000_000
STRING_OR_COMMENT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|#[^\r\n]*+', re.DOTALL)
"""A string that does not end matches to the end of the file, so that nothing is looked at twice."""
TOKEN = re.compile(rb"[{}\[\]]|\x01\d+\x01|\x02\d+\x02|[^\s{}\[\],\x01\x02]+")
NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")
IGNORED = {"Inline", "WWWInline", "Script", "AsciiText", "Text", "IndexedLineSet", "Box", "Cube", "Sphere", "Cone",
           "Cylinder", "ElevationGrid", "Extrusion"}  # fmt: skip


@dataclass
class Node:
    """A node of the scene: its fields' values (numbers, texts, arrays of text) and the nodes in it, in order of
    writing."""

    type: str
    field_name: str = ""
    values: dict[str, list] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def child(self, field_name: str) -> Node | None:
        return next((node for node in self.nodes if node.field_name == field_name), None)

    def numbers(self, name: str, count: int, default: list[float]) -> np.ndarray:
        values = self.values.get(name, default)
        if len(values) != count or not all(isinstance(v, float) for v in values):
            raise ScanError(f"VRML {self.type}: {name!r} is not {count} numbers")
        return np.array(values)

    def array(self, name: str, dtype: type = np.float64) -> np.ndarray | None:
        """The numbers of a list field, (n,), or None where the node has no such field."""
        values = self.values.get(name)
        if values is None:
            return None
        if len(values) == 1 and isinstance(values[0], bytes):
            return numbers(values[0].replace(b",", b" "), f"the list {name!r}", dtype)
        if all(isinstance(v, float) for v in values):
            return np.array(values, np.float64)
        raise ScanError(f"VRML {self.type}: {name!r} is not a list of numbers")

    def indices(self, name: str) -> np.ndarray | None:
        """The whole numbers of a list field, (n,) int64; some writers put them as 3.0, which takes longer to read."""
        try:
            values = self.array(name, np.int64)
        except ScanError:
            values = self.array(name)
        return None if values is None else whole(values, f"{name} entries")

    def texts(self, *names: str) -> list[str]:
        return [v for name in names for v in self.values.get(name, []) if isinstance(v, str)]


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


def parse(text: bytes) -> Node:
    """The scene as a tree under a node of type "scene"; ScanError where brackets or strings do not close."""
    skeleton, strings, lists = _skeleton(text)
    root = Node("scene")
    stack: list[tuple[Node, str]] = [(root, "}")]  # node that is open, and what closes it
    open_list_field = [""]
    named: dict[str, Node] = {}
    last, before, define = "", "", ""
    tokens = iter(TOKEN.findall(skeleton))
    for token in tokens:
        node, closing = stack[-1]
        if token == b"{":
            child = Node(last, before if before else open_list_field[-1])
            if define:
                named[define] = child
            node.nodes.append(child)
            stack.append((child, "}"))
            open_list_field.append("")
            last = before = define = ""
        elif token == b"[":
            stack.append((node, "]"))
            open_list_field.append(last)
            before = ""
        elif token in (b"}", b"]"):
            if len(stack) == 1 or token.decode() != closing:
                raise ScanError(f"a VRML file with a {token.decode()!r} too many; it is damaged")
            stack.pop()
            open_list_field.pop()
            last = before = ""
        elif token[0] == 1:
            node.values.setdefault(last, []).append(strings[int(token[1:-1])])
        elif token[0] == 2:
            node.values[last] = [lists[int(token[1:-1])]]
        elif token in (b"DEF", b"USE"):
            name = next(tokens, b"").decode("latin-1")
            if token == b"DEF":
                define = name
            elif name in named:
                node.nodes.append(replace(named[name], field_name=last or open_list_field[-1]))
        elif token in (b"PROTO", b"EXTERNPROTO"):
            raise ScanError("a VRML file with prototypes (PROTO); plain nodes are accepted")
        elif token == b"ROUTE":
            for _ in range(3):
                next(tokens, None)
        elif NUMBER.match(token):
            node.values.setdefault(last, []).append(min(max(float(token), -1e300), 1e300))
        elif token in (b"TRUE", b"FALSE"):
            node.values.setdefault(last, []).append(token == b"TRUE")
        else:
            before, last = last, token.decode("latin-1")
            if before and before in node.values:
                before = ""  # that field has its value already: this word starts anew
        if len(stack) > MAX_SCENE_DEPTH:
            raise ScanError(f"a VRML file nested deeper than {MAX_SCENE_DEPTH} levels")
    if len(stack) > 1:
        raise ScanError(f"a VRML file that ends before its last {len(stack) - 1} brackets close; it is cut off")
    return root


def _skeleton(text: bytes) -> tuple[bytes, list[str], list[bytes]]:
    """(text with strings as \\x01n\\x01 and number lists as \\x02n\\x02 and without comments, strings, lists)."""
    if text.count(b'"') + text.count(b"#") > MAX_STRINGS:
        raise ScanError(f"a VRML file of more than {MAX_STRINGS:,} strings and comments")
    text = text.translate(bytes.maketrans(b"\x01\x02", b"  "))
    strings: list[str] = []

    def take(match: re.Match[bytes]) -> bytes:
        if match[0][:1] == b"#":
            return b""
        if len(match[0]) < 2 or match[0][-1:] != b'"':
            raise ScanError("a VRML file with a text that does not end; it is cut off")
        strings.append(match[0][1:-1].decode("latin-1"))
        return b" \x01%d\x01 " % (len(strings) - 1)

    text = STRING_OR_COMMENT.sub(take, text)
    codes = np.frombuffer(text, np.uint8)
    brackets = np.flatnonzero((codes == ord("[")) | (codes == ord("]")))
    if len(brackets) > MAX_BRACKETS:
        raise ScanError(f"a VRML file of {len(brackets):,} brackets; at most {MAX_BRACKETS:,} are accepted")
    pieces, lists, at = [], [], 0
    opens = codes[brackets] == ord("[")
    for i in np.flatnonzero(opens[:-1] & ~opens[1:]):
        start, stop = int(brackets[i]), int(brackets[i + 1])
        body = text[start + 1 : stop]
        if b"{" in body or b"\x01" in body or (len(body) < 4096 and b"USE" in body):
            continue  # a list of nodes or texts: part of the skeleton
        pieces += [text[at:start], b" \x02%d\x02 " % len(lists)]
        lists.append(body)
        at = stop + 1
    skeleton = b"".join([*pieces, text[at:]])
    if len(skeleton) > MAX_SKELETON_BYTES:
        raise ScanError(
            "a VRML file with megabytes outside of closed lists; it is cut off inside a list, damaged or no mesh"
        )
    return skeleton, strings, lists


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
