"""A benchmark that anyone can make again: computer-generated people, laid out as BU-3DFE and BU-4DFE are.

    affectvlm-synth-3d   F0001/F0001_AN01XX_F3D.wrl .bmp .bnd   100 people, six emotions at four levels, one neutral
    affectvlm-synth-4d   F001/Angry/000.wrl .jpg ...            20 people, six emotions, 10 frames, neutral at both ends

Everything follows from SEED and the version: identities and ways to show an emotion are drawn from numbers that no
training draws from. A scan is what a depth camera would see of a face: a grid of points, noise, a head not quite held
straight, holes behind the nose. `benchmark.json` says what it is, `MANIFEST.sha256` holds the checksum of each file
(`sha256sum -c MANIFEST.sha256`). Equal versions of numpy and of this package give equal files on one kind of processor;
elsewhere a coordinate may differ in its last digit, a hundredth of a millimetre.

Ethnic letters are XX, which says that there is none. Sexes are those of the procedural identities; ICT-FaceKit's have
none, so that there F and M are names only.

Versions count for each kind on its own; a folder is named after its version.

* 3d, version 2: a `.bnd` of 83 landmarks lies beside each scan, as in BU-3DFE: rows of the number of a vertex, counted
  from 0, and its place as the `.wrl` has it. Version 1 had none and is otherwise the same, byte for byte: its manifest
  is the one of version 2 without the lines of `.bnd` files. Scans with landmarks start the search for their pose from
  these, so the views of the two versions may differ by a fraction of a degree: figures of version 1 are those of the
  same scans without landmarks, and taking the `.bnd` files away gives version 1 again.
* 4d, version 1: without landmarks, which BU-4DFE brings as a package of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.scan import Scan

log = logging.getLogger(__name__)

VERSIONS = {"3d": 2, "4d": 1}
SEED = 20_260_401
NAMES = {"3d": "affectvlm-synth-3d", "4d": "affectvlm-synth-4d"}
CARD, MANIFEST = "benchmark.json", "MANIFEST.sha256"

WOMEN, MEN = 56, 44
SUBJECTS = {"3d": WOMEN + MEN, "4d": 20}
FRAMES = 10
LEVELS = (1, 2, 3, 4)
CODES = {"angry": "AN", "disgust": "DI", "fear": "FE", "happy": "HA", "sad": "SA", "surprise": "SU", "neutral": "NE"}
FOLDERS = {
    "angry": "Angry", "disgust": "Disgust", "fear": "Fear", "happy": "Happy", "sad": "Sad", "surprise": "Surprise",
}  # fmt: skip

SPACING_MM = 1.8
NOISE_MM = 0.1
CENTRE_MM = np.array([0.0, -8.0, -25.0])
RADIUS_MM = (88.0, 98.0)
MOSAIC_YAWS = (-30.0, 30.0)
MOSAIC_PIXELS, MOSAIC_HALF_WIDTH_MM = 128, 110.0
DEPTH_4D_MM = -100.0
"""Where the heads of BU-4DFE lie along z."""

POINT = "%.2f %.2f %.2f"
"""A place in mm, as a file has it."""

BYTES_3D, BYTES_4D = 800_000, 720_000
"""About what a scan and a frame take."""

_PERSON, _WAY, _SCAN, _TIME, _PLACE = range(5)


@dataclass(frozen=True)
class Benchmark:
    """What is to be made.

    Attributes:
        kind: "3d" or "4d". subjects: people; fewer are the first of all. frames: of each sequence.
        ict: path of ICT-FaceKit (checkout or pack); empty draws procedural faces.
    """

    kind: str
    subjects: int
    frames: int = FRAMES
    ict: str = ""

    def __post_init__(self) -> None:
        if self.kind not in NAMES:
            raise ValueError(f"kind is {self.kind!r}; 3d or 4d is needed")
        if not 3 <= self.subjects <= WOMEN + MEN:
            raise ValueError(f"{self.subjects} subjects; 3 to {WOMEN + MEN} are possible")
        if not 2 <= self.frames <= 1000:
            raise ValueError(f"{self.frames} frames; 2 to 1000 are possible")

    @property
    def people(self) -> list[tuple[str, int]]:
        """(name, number) of each person. The number decides who it is; women and men come in equal shares."""
        women = round(self.subjects * WOMEN / (WOMEN + MEN))
        digits = 4 if self.kind == "3d" else 3
        names = [(f"F{n + 1:0{digits}d}", n) for n in range(women)]
        return names + [(f"M{n + 1:0{digits}d}", WOMEN + n) for n in range(self.subjects - women)]

    @property
    def version(self) -> int:
        return VERSIONS[self.kind]

    @property
    def scans(self) -> int:
        each = len(FOLDERS) * len(LEVELS) + 1 if self.kind == "3d" else len(FOLDERS) * self.frames
        return self.subjects * each

    @property
    def bytes(self) -> int:
        """About what it will take on disk."""
        return self.scans * (BYTES_3D if self.kind == "3d" else BYTES_4D)

    def card(self) -> dict[str, Any]:
        """What `benchmark.json` says."""
        own = {"frames": self.frames} if self.kind == "4d" else {}
        return {
            "name": NAMES[self.kind], "version": self.version, "seed": SEED,
            "source": "ict" if self.ict else "procedural",
            "layout": "bu3dfe" if self.kind == "3d" else "bu4dfe", "subjects": self.subjects, "scans": self.scans,
            **own,
            "notes": "computer-generated faces; no person, no real scan. Ethnic letters XX say nothing"
            + ("; neither do F and M" if self.ict else ""),
        }  # fmt: skip


def make_benchmark(folder: str | Path, wanted: Benchmark, workers: int = 0) -> Path:
    """Write a benchmark, or what is missing of it.

    Args:
        folder: it becomes a folder of its own name in there. workers: processes; 0 = one per core.

    Returns:
        Its folder.

    Raises:
        ValueError: another benchmark lies there, or ICT-FaceKit is not at its path.
    """
    place = Path(folder) / f"{NAMES[wanted.kind]}-v{wanted.version}"
    _claim(place, wanted)
    tasks = [task for task in _tasks(wanted) if not all((place / name).is_file() for name in _files(wanted, *task))]
    log.info("%s: %d scans of %d people, about %.1f GB", place.name, wanted.scans, wanted.subjects, wanted.bytes / 1e9)
    if tasks:
        _open_model(wanted.ict)  # here too: a wrong path is said once and in words
        _make(place, wanted, tasks, workers)
    digest = _write_manifest(place)
    _write(place / CARD, (json.dumps({**wanted.card(), "manifest": digest}, indent=2) + "\n").encode())
    log.info("%s is complete; checksum of its manifest %s", place.name, digest[:16])
    return place


def verify(folder: str | Path) -> list[str]:
    """What is wrong with a benchmark's files against its manifest, in words; nothing where all is well."""
    folder = Path(folder)
    try:
        lines = (folder / MANIFEST).read_text("utf-8").splitlines()
    except OSError:
        return [f"there is no {MANIFEST}"]
    listed = dict(reversed(line.split("  ", 1)) for line in lines)
    found = {path.relative_to(folder).as_posix() for path in _scan_files(folder)}
    problems = [f"{name} is missing" for name in sorted(set(listed) - found)]
    problems += [f"{name} is not listed" for name in sorted(found - set(listed))]
    problems += [f"{name} differs" for name in sorted(found & set(listed)) if _hash(folder / name) != listed[name]]
    return problems


def synthetic_name(folder: str | Path) -> str | None:
    """Name and version of the benchmark that lies in a folder; None where it holds something else."""
    try:
        card = json.loads((Path(folder) / CARD).read_text("utf-8"))
        return f"{card['name']} v{card['version']}, {card['source']}, {card['subjects']} people"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _claim(place: Path, wanted: Benchmark) -> None:
    """Take the folder, unless something else is in it."""
    if not place.exists():
        place.mkdir(parents=True)
        _write(place / CARD, (json.dumps(wanted.card(), indent=2) + "\n").encode())
        return
    try:
        before = json.loads((place / CARD).read_text("utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{place.name} is there and holds no {CARD}; an empty place is needed") from None
    card = wanted.card()
    if differ := [key for key in card if before.get(key) != card[key]]:
        told = ", ".join(f"{key} {before.get(key)!r} instead of {card[key]!r}" for key in differ)
        raise ValueError(f"{place.name} holds another benchmark ({told}); another folder is needed")


Task = tuple[str, int, str]
"""Name of a person, number of it, and an emotion."""


def _tasks(wanted: Benchmark) -> list[Task]:
    emotions = [*FOLDERS, *(["neutral"] if wanted.kind == "3d" else [])]
    return [(name, number, emotion) for name, number in wanted.people for emotion in emotions]


def _files(wanted: Benchmark, name: str, number: int, emotion: str) -> list[str]:
    """Relative paths of what a task writes."""
    if wanted.kind == "4d":
        stems = [f"{name}/{FOLDERS[emotion]}/{frame:03d}" for frame in range(wanted.frames)]
        return [f"{stem}.{extension}" for stem in stems for extension in ("wrl", "jpg")]
    levels = (0,) if emotion == "neutral" else LEVELS
    stems = [f"{name}/{name}_{CODES[emotion]}{level:02d}XX_F3D" for level in levels]
    return [f"{stem}.{extension}" for stem in stems for extension in ("wrl", "bmp", "bnd")]


def _make(place: Path, wanted: Benchmark, tasks: Sequence[Task], workers: int) -> None:
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    start = said = time.monotonic()
    for done, _ in enumerate(_done(place, wanted, tasks, workers), 1):
        now = time.monotonic()
        if now - said > 15 or done == len(tasks):
            said, left = now, (now - start) / done * (len(tasks) - done)
            log.info("%d of %d expressions written, about %.0f s left", done, len(tasks), left)


def _done(place: Path, wanted: Benchmark, tasks: Sequence[Task], workers: int) -> Iterator[None]:
    if workers == 1:
        for task in tasks:
            yield _make_one(place, wanted, task)
        return
    # spawned, not forked: the caller may have used torch, whose threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_open_model, initargs=(wanted.ict,)) as pool:
        try:
            for future in as_completed([pool.submit(_make_one, place, wanted, task) for task in tasks]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_model: Any = None
"""The face model of this process: made once."""

_points = np.zeros(0, np.int64)
"""(83,) vertices of its mesh: the landmarks of a `.bnd`, in order."""


def _open_model(ict: str) -> None:
    global _model, _points
    if ict:
        from affectvlm.synthesis.ict import ICTFace

        _model = ICTFace.load(ict)
    else:
        from affectvlm.synthesis.procedural import ProceduralFace

        _model = ProceduralFace()
    _points = _landmarked(_model)


def _landmarked(model: Any) -> np.ndarray:
    """(83,) int64 vertices of a model's mesh that are the landmarks of a `.bnd`: those next to their places in the
    front view of its average face, of those that are seen there."""
    from scipy.spatial import cKDTree

    from affectvlm.augmentation.scans import range_scan
    from affectvlm.datasets.fixtures.faces import places83

    average = model.generate(model.sample_identity(np.random.default_rng(0), spread=0.0), {})
    surface = cKDTree(range_scan(average, 0.0, 0.0, SPACING_MM).vertices)
    seen = np.flatnonzero(surface.query(average.vertices)[0] < SPACING_MM)
    return seen[cKDTree(average.vertices[seen, :2]).query(places83())[1]]


def _make_one(place: Path, wanted: Benchmark, task: Task) -> None:
    """Write the scans of one person and emotion."""
    name, number, emotion = task
    files = iter(_files(wanted, *task))
    made = _sequence(wanted, name, number, emotion) if wanted.kind == "4d" else _levels(name, number, emotion)
    for scan, rng, landmarks in made:
        mesh, picture = place / next(files), place / next(files)
        uv, uv_faces, texture = mosaic(scan)
        placed = _placed(scan, wanted.kind, rng)
        _write(picture, _picture(texture, picture.suffix))
        _write(mesh, wrl(placed, uv, uv_faces, picture.name))
        if landmarks is not None:
            _write(place / next(files), _bnd(placed, landmarks))


Made = tuple[Scan, np.random.Generator, np.ndarray | None]
"""A scan, what draws its place, and its (83,) vertices that are landmarks, where it has some."""


def _levels(name: str, number: int, emotion: str) -> Iterator[Made]:
    """A person's one way to show an emotion at four strengths, or the neutral face."""
    from scipy.spatial import cKDTree

    person = _identity(name, number)
    for level in (0,) if emotion == "neutral" else LEVELS:
        units = {} if level == 0 else _units(number, emotion, level / max(LEVELS))
        rng = np.random.default_rng([SEED, _SCAN, number, _code(emotion), level])
        head = _model.generate(person, units)
        scan = _scanned(head, rng)
        yield scan, rng, cKDTree(scan.vertices).query(head.vertices[_points])[1]


def _sequence(wanted: Benchmark, name: str, number: int, emotion: str) -> Iterator[Made]:
    """From neutral to the peak and back, the head moving a little; frames spread evenly over the time."""
    from affectvlm.synthesis.timing import timeline

    person = _identity(name, number)
    rng = np.random.default_rng([SEED, _TIME, number, _code(emotion)])
    curve = timeline(*rng.uniform([0.6, 0.6, 0.8], [1.4, 1.6, 1.8]), fps=25, peak=1.0)
    curve = np.interp(np.linspace(0, len(curve) - 1, wanted.frames), np.arange(len(curve)), curve)
    full = _units(number, emotion, float(rng.uniform(0.6, 1.0)))
    sway, phase = rng.normal(0, 1.5, 3), rng.uniform(0, 2 * np.pi, 3)
    for frame, strength in enumerate(curve):
        noise = np.random.default_rng([SEED, _SCAN, number, _code(emotion), 100 + frame])
        scan = _scanned(_model.generate(person, {unit: strength * value for unit, value in full.items()}), noise)
        swayed = _turned(scan, sway * np.sin(2 * np.pi * frame / wanted.frames + phase))
        yield swayed, np.random.default_rng([SEED, _PLACE, number, _code(emotion)]), None  # one place for all frames


def _identity(name: str, number: int) -> Any:
    """The person of a number: the first drawn whose sex fits the name, where the model has sexes."""
    wanted = {"F": "female", "M": "male"}[name[0]]
    for attempt in range(1000):
        person = _model.sample_identity(np.random.default_rng([SEED, _PERSON, number, attempt]))
        if getattr(person, "sex", wanted) == wanted:
            return person
    raise RuntimeError(f"no {wanted} person among 1000 drawn")


def _units(number: int, emotion: str, intensity: float) -> dict[str, float]:
    """Equal but for its strength for one person and emotion: one way to show it."""
    from affectvlm.synthesis.expressions import sample_expression

    return sample_expression(emotion, intensity, np.random.default_rng([SEED, _WAY, number, _code(emotion)]))


def _code(emotion: str) -> int:
    return list(CODES).index(emotion)


def _scanned(head: Scan, rng: np.random.Generator) -> Scan:
    """The face as a depth camera in front of it sees it."""
    from affectvlm.augmentation.scans import add_noise, range_scan

    near = np.linalg.norm(head.vertices - CENTRE_MM, axis=1) < rng.uniform(*RADIUS_MM)
    yaw, pitch = rng.normal(0, 4, 2)
    seen = range_scan(head.keep_vertices(near), float(yaw), float(pitch), SPACING_MM)
    used = np.zeros(len(seen.vertices), bool)
    used[seen.faces] = True
    return add_noise(seen.keep_vertices(used), NOISE_MM, rng)


def _placed(scan: Scan, kind: str, rng: np.random.Generator) -> Scan:
    """In the frame of the data set: centred, or at the depth of BU-4DFE; the head turned by a few degrees."""
    turned = _turned(scan, rng.normal(0, 4, 3))
    shift = np.array([0.0, 0.0, DEPTH_4D_MM]) + rng.normal(0, 4, 3)
    if kind == "3d":
        shift = -(turned.vertices.min(axis=0) + turned.vertices.max(axis=0)).astype(np.float64) / 2
    return turned.transformed(np.eye(3), shift)


def _turned(scan: Scan, degrees: np.ndarray) -> Scan:
    """Yaw, pitch and roll about the middle of the face."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("YXZ", degrees, degrees=True).as_matrix()
    return scan.transformed(turn, CENTRE_MM - turn @ CENTRE_MM)


def mosaic(scan: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The texture of a coloured scan in the canonical frame, as BU-3DFE has it: two views side by side.

    Returns:
        uv (T, 2) float64, v from the bottom; uv_faces (F, 3) into uv; and the picture (H, 2 H, 3) uint8.
    """
    from affectvlm.rendering import PIVOT_MM, render_buffers, rotation_y

    size, half = MOSAIC_PIXELS, MOSAIC_HALF_WIDTH_MM
    buffers = render_buffers(replace(scan, landmarks={}), MOSAIC_YAWS, size, half, supersample=1)
    seen = buffers.coverage[..., None] > 0
    mean = buffers.albedo[seen[..., 0]].mean(axis=0) if seen.any() else np.full(3, 0.5, np.float32)
    views = np.where(seen, buffers.albedo, mean)
    picture = np.clip(255 * np.concatenate(list(views), axis=1), 0, 255).astype(np.uint8)
    # a positive yaw shows the subject's right cheek, which lies at -x
    view = (scan.vertices[scan.faces].mean(axis=1)[:, 0] < 0).astype(np.int64)
    pairs, uv_faces = np.unique(2 * scan.faces + view[:, None], return_inverse=True)
    vertex, which = pairs // 2, pairs % 2
    points = scan.vertices[vertex].astype(np.float64) - PIVOT_MM
    turned = np.stack([points @ rotation_y(yaw).T for yaw in MOSAIC_YAWS])[which, np.arange(len(pairs))]
    column, row = (turned[:, 0] / half + 1) / 2, (1 - turned[:, 1] / half) / 2
    return np.column_stack([(which + column) / 2, 1 - row]), uv_faces.reshape(-1, 3), picture


def wrl(scan: Scan, uv: np.ndarray, uv_faces: np.ndarray, picture: str) -> bytes:
    """VRML 2.0 with one textured IndexedFaceSet, in the order of blocks of BU-3DFE."""
    blocks = [
        "#VRML V2.0 utf8\n\nShape {\n  appearance Appearance {\n    texture ImageTexture { url \"" + picture + "\" }\n"
        "  }\n  geometry IndexedFaceSet {\n    coord Coordinate {\n      point [\n",
        _lines(f"{POINT},\n", _written(scan.vertices)),
        "      ]\n    }\n    coordIndex [\n",
        _lines("%d, %d, %d, -1,\n", scan.faces),
        "    ]\n    texCoord TextureCoordinate {\n      point [\n",
        _lines("%.4f %.4f,\n", uv),
        "      ]\n    }\n    texCoordIndex [\n",
        _lines("%d, %d, %d, -1,\n", uv_faces),
        "    ]\n  }\n}\n",
    ]  # fmt: skip
    return "".join(blocks).encode()


def _bnd(scan: Scan, vertices: np.ndarray) -> bytes:
    """The landmarks of a scan that are its vertices (83,) with these numbers: each where the `.wrl` says it is."""
    rows = zip(vertices.tolist(), _written(scan.vertices[vertices]).tolist(), strict=True)
    return "".join(f"{number}\t\t{POINT % tuple(point)}\n" for number, point in rows).encode()


def _written(points: np.ndarray) -> np.ndarray:
    return points.astype(np.float64) + 0.0  # -0.0 becomes 0.0


def _lines(form: str, rows: np.ndarray) -> str:
    return (form * len(rows)) % tuple(rows.ravel().tolist())


def _picture(pixels: np.ndarray, extension: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    options = {"quality": 92} if extension == ".jpg" else {}
    Image.fromarray(pixels).save(stream, {".bmp": "BMP", ".jpg": "JPEG"}[extension], **options)
    return stream.getvalue()


def _scan_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/**/*") if path.is_file() and not path.name.startswith("."))


def _write_manifest(place: Path) -> str:
    """List the checksum of every file; returns the checksum of the list."""
    text = "".join(f"{_hash(path)}  {path.relative_to(place).as_posix()}\n" for path in _scan_files(place))
    _write(place / MANIFEST, text.encode())
    return hashlib.sha256(text.encode()).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
