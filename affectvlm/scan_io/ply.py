"""Stanford PLY: ASCII and binary of both byte orders; colours and texture coordinates of a vertex or of a corner.

Elements before and between `vertex` and `face` are stepped over. What the header declares is held against the bytes
that follow before anything is allocated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.images import IMAGE_EXTENSIONS, decode_image, keep_image
from affectvlm.scan_io.limits import MAX_HEADER_BYTES, MAX_IMAGE_BYTES, MAX_TEXTURES
from affectvlm.scan_io.raw import RawScan, check_counts, fan, to_bytes, whole
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import numbers, plain_text

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
FACES = ("vertex_indices", "vertex_index")
END = re.compile(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)")
MAX_PROPERTIES = 200
MAX_ELEMENTS = 50


@dataclass
class Property:
    name: str
    type: str
    count_type: str | None = None  # of a list


@dataclass
class Element:
    name: str
    count: int
    properties: list[Property] = field(default_factory=list)

    @property
    def lists(self) -> list[Property]:
        return [p for p in self.properties if p.count_type is not None]


@dataclass
class Columns:
    """Values of one element: `scalars` name → (n,); `lists` name → (flat values, (n,) how many of them each row
    has)."""

    scalars: dict[str, np.ndarray] = field(default_factory=dict)
    lists: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def read(file: ScanFile) -> RawScan:
    order, elements, textures, body = _header(file.data)
    for element in elements:
        if element.name == "vertex":
            check_counts(element.count)
        elif element.name == "face":
            check_counts(0, element.count)
    columns = _ascii(elements, body) if order == "" else _binary(elements, body, order)
    if "vertex" not in columns:
        raise ScanError("a PLY file without a 'vertex' element")
    scalars = columns["vertex"].scalars
    missing = [axis for axis in "xyz" if axis not in scalars]
    if missing:
        raise ScanError(f"PLY vertices without {', '.join(missing)}; x, y and z are needed")
    raw = RawScan(np.stack([scalars[axis] for axis in "xyz"], axis=1).astype(np.float64))
    raw.colors = _colors(scalars)
    if "face" in columns:
        _faces(columns["face"], raw)
    if "tristrips" in columns and not len(raw.faces):
        raise ScanError("a PLY file of triangle strips; faces of vertex_indices are accepted")
    if len(raw.faces):
        _texture(file, scalars, textures, raw)
    return raw


def _header(data: bytes) -> tuple[str, list[Element], list[str], bytes]:
    """(byte order, elements, texture names in comments, what follows the header)."""
    end = END.search(data, 0, MAX_HEADER_BYTES)
    if end is None:
        raise ScanError("a PLY header without 'end_header'; it is cut off or damaged")
    order, elements, textures = None, [], []
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if not words:
            continue
        if words[0] == "format":
            order = ORDERS.get(words[1] if len(words) > 1 else "")
            if order is None:
                raise ScanError(f"PLY format {' '.join(words[1:])[:40]!r}; {', '.join(ORDERS)} are accepted")
        elif words[0] == "comment" and len(words) > 2 and words[1].lower() == "texturefile":
            textures.append(line.split(None, 2)[2].strip())
        elif words[0] == "element":
            elements.append(_element(words))
        elif words[0] == "property":
            _add_property(elements, words)
        elif words[0] not in ("comment", "obj_info"):
            raise ScanError(f"the PLY header holds {line[:40]!r}, which is no PLY")
    if order is None:
        raise ScanError("a PLY header without a 'format' line")
    if len(elements) > MAX_ELEMENTS:
        raise ScanError(f"{len(elements)} PLY elements; at most {MAX_ELEMENTS} are accepted")
    return order, elements, textures, data[end.end() :]


def _element(words: list[str]) -> Element:
    if len(words) != 3 or not re.fullmatch(r"\d{1,15}", words[2]):
        raise ScanError(f"PLY element {' '.join(words[1:])[:40]!r}; a name and a count are needed")
    return Element(words[1], int(words[2]))


def _add_property(elements: list[Element], words: list[str]) -> None:
    if not elements:
        raise ScanError("a PLY property before any element")
    properties = elements[-1].properties
    if len(words) == 5 and words[1] == "list" and TYPES.get(words[2], "f")[0] != "f" and words[3] in TYPES:
        properties.append(Property(words[4], TYPES[words[3]], TYPES[words[2]]))
    elif len(words) == 3 and words[1] in TYPES:
        properties.append(Property(words[2], TYPES[words[1]]))
    else:
        raise ScanError(f"PLY property {' '.join(words[1:])[:40]!r} is of no known type")
    if len(properties) > MAX_PROPERTIES or len({p.name for p in properties}) != len(properties):
        raise ScanError(f"PLY element {elements[-1].name[:40]!r} has too many properties, or two of one name")


def _short(element: Element, have: int, need: int, what: str) -> ScanError:
    return ScanError(
        f"the PLY file declares {element.count:,} rows of {element.name[:40]!r}, at least {need:,} {what}, "
        f"but {have:,} are left; it is cut off or damaged"
    )


def _ascii(elements: list[Element], body: bytes) -> dict[str, Columns]:
    least = sum(e.count * len(e.properties) for e in elements)
    if 2 * least - 1 > len(body):
        raise ScanError(f"the PLY file declares at least {least:,} numbers, but only {len(body):,} bytes follow")
    values = numbers(plain_text(body, "the PLY body"), "the PLY body")
    result, position = {}, 0
    for element in elements:
        width = len(element.properties)
        if len(values) - position < element.count * width:
            raise _short(element, len(values) - position, element.count * width, "numbers")
        if element.lists:
            result[element.name], position = _ascii_lists(element, values, position)
        else:
            block = values[position : position + element.count * width].reshape(element.count, width)
            result[element.name] = Columns({p.name: block[:, i] for i, p in enumerate(element.properties)})
            position += element.count * width
    return result


def _ascii_lists(element: Element, values: np.ndarray, position: int) -> tuple[Columns, int]:
    """Rows with lists: all of one shape at once where they are, else row by row to find where each starts."""
    rows = element.count
    uniform = _uniform_counts(element, values[position:])
    width = len(element.properties) + sum(uniform)
    if rows and position + rows * width <= len(values):
        block = values[position : position + rows * width].reshape(rows, width)
        at, columns, counts, regular = 0, Columns(), iter(uniform), True
        for p in element.properties:
            if p.count_type is None:
                columns.scalars[p.name], at = block[:, at], at + 1
                continue
            count = next(counts)
            regular &= bool((block[:, at] == count).all())
            columns.lists[p.name] = block[:, at + 1 : at + 1 + count].ravel(), np.full(rows, count)
            at += 1 + count
        if regular:
            return columns, position + rows * width
    return _walk_ascii(element, values, position)


def _uniform_counts(element: Element, values: np.ndarray) -> list[int]:
    """Lengths of the lists in the first row."""
    counts, at = [], 0
    for p in element.properties:
        count = 0
        if p.count_type is not None and at < len(values):
            count = _list_length(values[at], len(values))
            counts.append(count)
        at += 1 + count
    return counts


def _list_length(value: float, most: int) -> int:
    if not 0 <= value <= most or value != int(value):
        raise ScanError(f"a PLY list of length {value}; 0 to {most} is possible here")
    return int(value)


def _walk_ascii(element: Element, values: np.ndarray, position: int) -> tuple[Columns, int]:
    starts = {p.name: np.zeros(element.count, np.int64) for p in element.properties}
    heads = values.tolist()
    for row in range(element.count):
        for p in element.properties:
            starts[p.name][row] = position
            if position >= len(heads):
                raise _short(element, 0, element.count - row, "numbers")
            position += 1 + (_list_length(heads[position], len(heads)) if p.count_type else 0)
    if position > len(heads):
        raise _short(element, 0, 1, "numbers")
    columns = Columns()
    for p in element.properties:
        at = starts[p.name]
        if p.count_type is None:
            columns.scalars[p.name] = values[at]
        else:
            count = values[at].astype(np.int64)
            columns.lists[p.name] = values[_ranges(at + 1, count)], count
    return columns, position


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ... (count[0] of them), start[1], ..."""
    before = np.cumsum(count) - count
    return np.arange(int(count.sum())) + np.repeat(start - before, count)


def _binary(elements: list[Element], body: bytes, order: str) -> dict[str, Columns]:
    result, position = {}, 0
    for element in elements:
        least = element.count * sum(np.dtype(p.count_type or p.type).itemsize for p in element.properties)
        if len(body) - position < least:
            raise _short(element, len(body) - position, least, "bytes")
        result[element.name], position = _binary_element(element, body, position, order)
    return result


def _binary_element(element: Element, body: bytes, position: int, order: str) -> tuple[Columns, int]:
    """One element: all rows at once where the lists of every row are as long as the first row's, else row by row."""
    dtype = _row_type(element, _first_counts(element, body, position, order) if element.count else [], order)
    end = position + element.count * dtype.itemsize
    if end <= len(body):
        rows = np.frombuffer(body, dtype, element.count, position)
        lengths = {i: rows[f"length {i}"] for i, p in enumerate(element.properties) if p.count_type}
        if all((length == length[:1]).all() for length in lengths.values()):
            columns = Columns()
            for i, p in enumerate(element.properties):
                if p.count_type is None:
                    columns.scalars[p.name] = rows[f"{i}"]
                else:
                    columns.lists[p.name] = rows[f"{i}"].ravel(), lengths[i].astype(np.int64)
            return columns, end
    return _walk_binary(element, body, position, order)


def _row_type(element: Element, counts: list[int], order: str) -> np.dtype:
    fields, lengths = [], iter(counts)
    for i, p in enumerate(element.properties):
        if p.count_type is None:
            fields.append((f"{i}", order + p.type))
        else:
            fields += [(f"length {i}", order + p.count_type), (f"{i}", order + p.type, (next(lengths, 0),))]
    return np.dtype(fields)


def _first_counts(element: Element, body: bytes, position: int, order: str) -> list[int]:
    counts = []
    for p in element.properties:
        if p.count_type is None:
            position += np.dtype(p.type).itemsize
            continue
        head = np.dtype(order + p.count_type)
        if position + head.itemsize > len(body):
            raise _short(element, 0, head.itemsize, "bytes")
        position += head.itemsize
        size = np.dtype(p.type).itemsize
        count = _list_length(np.frombuffer(body, head, 1, position - head.itemsize)[0], (len(body) - position) // size)
        counts.append(count)
        position += count * size
    return counts


def _walk_binary(element: Element, body: bytes, position: int, order: str) -> tuple[Columns, int]:
    """Rows of differing length (triangles among quads): one cheap Python step a list finds where each starts."""
    plan, starts = [], {}
    for p in element.properties:
        size = np.dtype(p.type).itemsize
        head = np.dtype(p.count_type).itemsize if p.count_type else 0
        starts[p.name] = [0] * element.count
        plan.append((starts[p.name], size, head))
    byte_order = "big" if order == ">" else "little"
    read_int, size_of_body = int.from_bytes, len(body)
    for row in range(element.count):
        for start, size, head in plan:
            start[row] = position
            if head:
                if position + head > size_of_body:
                    raise _short(element, 0, head, "bytes")
                position += head + size * read_int(body[position : position + head], byte_order)
            else:
                position += size
        if position > size_of_body:
            raise _short(element, 0, 1, "bytes")
    columns = Columns()
    for p in element.properties:
        at = np.array(starts[p.name], np.int64)
        if p.count_type is None:
            columns.scalars[p.name] = _gather(body, at, order + p.type)
            continue
        count = _gather(body, at, order + p.count_type).astype(np.int64)
        if count.min(initial=0) < 0:
            raise ScanError(f"a PLY list of length {count.min()}")
        size = np.dtype(p.type).itemsize
        first = at + np.dtype(p.count_type).itemsize
        before = np.cumsum(count) - count
        where = np.repeat(first - before * size, count) + np.arange(int(count.sum())) * size
        columns.lists[p.name] = _gather(body, where, order + p.type), count
    return columns, position


def _gather(body: bytes, at: np.ndarray, dtype: str) -> np.ndarray:
    """Values of `dtype` at the byte offsets `at`."""
    size = np.dtype(dtype).itemsize
    codes = np.frombuffer(body, np.uint8)
    return np.ascontiguousarray(codes[at[:, None] + np.arange(size)]).view(dtype).ravel()


def _colors(scalars: dict[str, np.ndarray]) -> np.ndarray | None:
    for names in (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")):
        if all(name in scalars for name in names):
            colors = np.stack([scalars[name] for name in names], axis=1)
            if colors.dtype.kind in "iu":
                bits = 8 if colors.dtype.itemsize == 1 else 16 if colors.max(initial=0) > 255 else 8
                return (np.clip(colors, 0, 2**bits - 1).astype(np.int64) >> (bits - 8)).astype(np.uint8)
            return to_bytes(colors)
    return None


def _faces(face: Columns, raw: RawScan) -> None:
    name = next((name for name in FACES if name in face.lists), None)
    if name is None:
        raise ScanError(f"PLY faces without one of {', '.join(FACES)}")
    values, count = face.lists[name]
    triangles = fan(count)
    raw.faces = whole(values, "the corners of PLY faces")[triangles]
    if (count < 3).any():
        raw.warnings.append(
            f"{int((count < 3).sum())} of {len(count)} faces had fewer than 3 corners and were left out."
        )
    corner_uv, length = face.lists.get("texcoord", (None, None))
    if corner_uv is not None and np.array_equal(length, 2 * count):
        raw.uv = np.asarray(corner_uv, np.float64).reshape(-1, 2)
        raw.uv, index = np.unique(raw.uv, axis=0, return_inverse=True)
        raw.uv_faces = index.ravel()[triangles]
        if "texnumber" in face.scalars:
            raw.face_image = np.repeat(whole(face.scalars["texnumber"], "PLY textures"), np.maximum(count - 2, 0))


def _texture(file: ScanFile, scalars: dict[str, np.ndarray], names: list[str], raw: RawScan) -> None:
    for pair in (("texture_u", "texture_v"), ("s", "t"), ("u", "v")):
        if raw.uv is None and all(name in scalars for name in pair):
            raw.uv = np.stack([scalars[name] for name in pair], axis=1).astype(np.float64)
            raw.uv_faces = raw.faces
    numbered, raw.face_image = raw.face_image, None
    if raw.uv is None:
        return
    index = np.full(len(names) + 1, -1)
    for position, name in enumerate(names[:MAX_TEXTURES]):
        data = file.siblings.find(name, MAX_IMAGE_BYTES)
        image = None if data is None else decode_image(data, name[:80], raw.warnings)
        if data is None:
            raw.warnings.append(f"The texture {name[:80]!r} did not come with the scan.")
        index[position] = keep_image(raw.images, image)
    if not names:
        beside = file.siblings.with_stem(file.stem, IMAGE_EXTENSIONS, MAX_IMAGE_BYTES)
        image = None if beside is None else decode_image(beside[1], beside[0], raw.warnings)
        raw.images = [] if image is None else [image]
    elif raw.images and len(names) > 1 and numbered is not None:
        raw.face_image = index[np.clip(numbered, -1, len(names))]


READERS = {".ply": read}
