"""Generated faces: drawn from a face model, rendered once into a cache; equal settings give equal pixels.

A cache is a folder of shards. `shard_0007.npy` holds the stored views of 256 faces, (256, 3, S, S, 7) uint8 (see
`augmentation.views.store`); `shard_0007.json` holds their records: label, intensity, subject, source, metadata. The
last one may hold fewer, and grows when more are wanted.
Shards are written whole or not at all, so a killed run goes on where it was, and two runs with the same settings
share one cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from affectvlm.augmentation.scans import crop, damage, pose_error, reshape, restyle
from affectvlm.augmentation.views import CHANNELS, store, stored_side
from affectvlm.emotions import EKMAN
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, render_buffers
from affectvlm.synthesis.base import sided
from affectvlm.synthesis.expressions import sample_expression
from affectvlm.synthesis.objects import random_object

log = logging.getLogger(__name__)

REJECTION = ("neutral", "no face")
LABELS = EKMAN + REJECTION
"""Label numbers of generated faces: the six emotions, then what must not get one."""

CONTENT = 3
"""Raise it when a change of the code changes the pixels of generated faces: older caches are then no longer used."""

SHARD = 256
"""Faces in one file."""

UNITS = (
    "AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15", "AU16", "AU17", "AU18", "AU20",
    "AU22", "AU23", "AU24", "AU25", "AU26", "AU27", "AU28", "AU34", "AU43",
)  # fmt: skip
"""Action units whose intensities a record holds, in this order."""

_LABEL_SHARES = np.array([0.12] * 6 + [0.19, 0.09])
_LOOSE_PARTS = {
    "ict": ("teeth", "gums_tongue", "mouth_socket", "sclera_L", "sclera_R"),
    "makehuman": ("upper_teeth", "lower_teeth", "tongue", "eye_L", "eye_R"),
}
"""Of face models whose parts are meshes of their own: what scanners lose."""


@dataclass(frozen=True)
class FaceSet:
    """Settings of one generated set; equal settings give equal pixels.

    Attributes:
        source: "procedural", or "ict" or "makehuman", which need `model_path` (`open_source`).
        split: "train", "validation" or "test": identities of different splits never meet.
        count: faces. per_identity: faces of one person.
        damaged: True for what real scans bring and photo-like views; False for clean cropped faces.
        size: pixels of the pictures to be taken from the stored views, which are larger (`augmentation.views.MARGIN`).
        intensity: lowest and highest; drawn evenly.
        wide: True for shapes and movements outside the face model's span, which "train" always has.
    """

    source: str
    split: str
    count: int
    per_identity: int = 8
    damaged: bool = True
    photo_share: float = 0.3
    size: int = 112
    intensity: tuple[float, float] = (0.25, 1.0)
    seed: int = 0
    model_path: str = ""
    wide: bool = False

    def key(self) -> str:
        """Names the cache folder: settings, without the place the model lies at."""
        settings = {k: v for k, v in asdict(self).items() if k not in ("model_path", "count")}
        if not self.wide:
            del settings["wide"]  # caches from before it keep their names
        text = json.dumps(settings | {"content": CONTENT}, sort_keys=True)
        return f"{self.source}-{self.split}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def build(faces: FaceSet, cache: str | Path, workers: int = 0) -> Path:
    """Render what is missing of a set into `cache`; returns its folder. `workers` 0 = one per CPU core.

    Processes that want the same set at the same time (ranks, two trainings) wait for the first of them.

    Raises:
        ValueError: the face model cannot be opened.
        OSError: the cache cannot be written, or a process that rendered was ended from outside.
    """
    folder = Path(cache) / faces.key()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {shard: min(SHARD, faces.count - shard * SHARD) for shard in range(-(-faces.count // SHARD))}
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process renders into %s; waiting for it", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        there = {shard: len(_listed(folder, shard)) for shard in wanted}
        missing = [(faces, folder, shard, rows) for shard, rows in wanted.items() if there[shard] < rows]
        if not missing:
            return folder
        count = sum(rows - there[shard] for *_, shard, rows in missing)
        log.info("rendering %d faces of %s into %s", count, faces.source, folder)
        _render(missing, workers)
    return folder


def _render(missing: Sequence[tuple[FaceSet, Path, int, int]], workers: int) -> None:
    """Write the shards in processes of their own, which end at once when this one is stopped or killed."""
    context = multiprocessing.get_context()
    stop = context.Event()
    with ProcessPoolExecutor(workers or os.cpu_count(), context, _begin, (stop,)) as pool:
        try:
            with _signals_held():  # what interrupts the start of processes is lost, or leaves some that nobody ends
                shards = pool.map(_write_shard, missing)
            for done, shard in enumerate(shards, 1):
                log.info("shard %d written (%d of %d)", shard, done, len(missing))
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process that rendered faces was ended from outside (too little memory?); what is written is kept, "
                "and data.workers=1 takes less memory"
            ) from error
        except BaseException:
            stop.set()  # the pool waits for its processes, and a shard takes a minute
            raise


@contextmanager
def _signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM come at the end of this, not in it. Python tells signals to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


def _listed(folder: Path, shard: int) -> list[dict]:
    """The records of a shard; empty where it is not written."""
    listing = folder / f"shard_{shard:04d}.json"
    return json.loads(listing.read_text("utf-8")) if listing.is_file() else []


_model = None
"""The face model of a worker process: made once, used for all its shards."""
_stop: Event | None = None
"""Set when a worker process is to end after the present face."""


def _begin(stop: Event) -> None:
    """Of a worker process, before its first shard."""
    global _model, _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a shell; the first one decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A pool does not notice that its owner was killed: its processes would wait for ever, and hold the cache's lock.
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    _stop, _model = stop, None


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def open_source(source: str, model_path: str = ""):
    """The face model named by a setting.

    Raises:
        ValueError: unknown name, or a model without its files.
    """
    if source == "procedural":
        from affectvlm.synthesis.procedural import ProceduralFace

        return ProceduralFace()
    if source not in ("ict", "makehuman"):
        raise ValueError(f"source is {source!r}; procedural, ict or makehuman is needed")
    if not model_path:
        wanted = "ICT-FaceKit" if source == "ict" else "MakeHuman"
        raise ValueError(
            f"source is {source!r} but model_path is empty; the path of {wanted} (checkout or pack) is needed"
        )
    if source == "ict":
        from affectvlm.synthesis.ict import ICTFace

        return ICTFace.load(model_path)
    from affectvlm.synthesis.makehuman import MakeHumanFace

    return MakeHumanFace.load(model_path)


def _write_shard(task: tuple[FaceSet, Path, int, int]) -> int:
    """Write the first `rows` faces of a shard; those that are there already are taken over."""
    global _model
    faces, folder, shard, rows = task
    # here and not in `_begin`: what fails there is told to nobody
    _model = _model or open_source(faces.source, faces.model_path)
    array, listing = folder / f"shard_{shard:04d}.npy", folder / f"shard_{shard:04d}.json"
    side = stored_side(faces.size)
    views = np.empty((rows, 3, side, side, CHANNELS), np.uint8)
    records = _listed(folder, shard)
    if records:
        views[: len(records)] = np.load(array, mmap_mode="r")[: len(records)]
    for row in range(len(records), rows):
        if _stop.is_set():
            raise InterruptedError("rendering was stopped")
        views[row], record = make_face(_model, faces, shard * SHARD + row)
        records.append(record)
    temporary = folder / f"shard_{shard:04d}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            np.save(file, views)
        temporary.replace(array)
        temporary.write_text(json.dumps(records), "utf-8")
        temporary.replace(listing)
    finally:
        temporary.unlink(missing_ok=True)  # half a file of a disk that is full
    return shard


def draw_record(faces: FaceSet, index: int) -> tuple[dict, dict[str, float], np.random.Generator]:
    """What face `index` of a set is: its record, its action units, and the generator that draws the rest.

    The record's `units` are the intensities of UNITS (mean of both sides, since views are mirrored in training), or
    None where there is no face.
    """
    split = {"train": 0, "validation": 1, "test": 2}[faces.split]
    rng = np.random.default_rng([faces.seed, split, index])
    label = int(rng.choice(len(LABELS), p=_LABEL_SHARES))
    intensity = float(rng.uniform(*faces.intensity)) if label < len(EKMAN) else 0.0
    photo = faces.damaged and rng.random() < faces.photo_share
    no_face = LABELS[label] == "no face"
    person, other = _person(faces, index), f"-{faces.seed}" if faces.seed else ""
    units = {} if no_face else sample_expression(LABELS[label], intensity, rng)
    both = {name: sum(sides) / 2 for name, sides in sided(units).items()}
    record = {
        "label": label,
        "intensity": round(intensity, 3),
        "photo": bool(photo),
        "subject": (f"object-{faces.split}-{index}" if no_face else f"{faces.source}-{faces.split}-{person}") + other,
        "source": faces.source,
        "units": None if no_face else [round(both.get(name, 0.0), 3) for name in UNITS],
    }
    return record, units, rng


def make_face(model, faces: FaceSet, index: int) -> tuple[np.ndarray, dict]:
    """Face `index` of a set: its stored views (3, S, S, 7) uint8 and its record. Depends on nothing but the
    arguments."""
    record, units, rng = draw_record(faces, index)
    if record["units"] is None:
        scan = _not_a_face(model, rng)
    else:
        split = {"train": 0, "validation": 1, "test": 2}[faces.split]
        # Training sees wider shapes than the scores are taken on: faces of other families lie outside this one's span.
        wide = faces.wide or faces.split == "train"
        spread = {"spread": float(rng.uniform(0.7, 1.35))} if wide else {}
        identity = model.sample_identity(np.random.default_rng([faces.seed, split, 1, _person(faces, index)]), **spread)
        record["metadata"] = described(identity)
        options = {}
        if model.name in _LOOSE_PARTS and faces.damaged and not record["photo"]:
            options = {"without": [part for part in _LOOSE_PARTS[model.name] if rng.random() < 0.3]}
        scan = model.generate(identity, units, **options)
        if wide and rng.random() < 0.6:
            scan = restyle(scan, model.generate(identity, {}, **options), rng)
        if wide and rng.random() < 0.75:
            scan = reshape(scan, rng)
    return store(_draw(scan, faces, record["photo"], rng)), record


def described(identity) -> dict[str, str]:
    """What an identity says of itself, in the words of prompts: sex and age group, where its face model knows them."""
    known = {}
    if hasattr(identity, "sex"):
        known["sex"] = identity.sex
    if hasattr(identity, "age"):
        known["age_group"] = "young" if identity.age < 35 else "middle-aged" if identity.age < 60 else "older"
    return known


def _person(faces: FaceSet, index: int) -> int:
    return index // faces.per_identity


def _draw(scan, faces: FaceSet, photo: bool, rng: np.random.Generator):
    """The three buffers: clean and cropped, damaged, or with the freedom a photographer takes."""
    yaws = np.array(DEFAULT_YAWS)
    if photo:
        scan = pose_error(pose_error(scan, rng), rng)
        yaws = np.array([rng.normal(0, 8), -rng.uniform(20, 75), rng.uniform(20, 75)])
        half_width = HALF_WIDTH_MM * float(np.exp(rng.normal(0.03, 0.1)))
    else:
        half_width = HALF_WIDTH_MM
        scan = damage(scan, rng) if faces.damaged else clean(scan)
    side = stored_side(faces.size)
    return render_buffers(scan, tuple(yaws), side, half_width * side / faces.size)


def clean(scan):
    """A scan of the canonical frame cut about the face as the scan path cuts it, and nothing else done to it."""
    return crop(scan, _Fixed())


class _Fixed:
    """Stands in for a generator where a clean face must be cut the same way each time: the sphere, no mask."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def random(self) -> float:
        return 1.0


def _not_a_face(model, rng: np.random.Generator):
    """An object, or a head seen from where no face is: behind, above, upside down."""
    if rng.random() < 0.65:
        return random_object(rng)
    from scipy.spatial.transform import Rotation

    scan = model.generate(model.sample_identity(rng), {})
    axis = rng.normal(size=3) * [1, 1, 0.6]
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.deg2rad(rng.uniform(75, 180))).as_matrix()
    centre = np.array([0.0, 0.0, -90.0])
    turned = (scan.vertices - centre) @ turn.T + centre
    return scan.transformed(turn, centre - turn @ centre - [0, 0, max(0.0, float(turned[:, 2].max()))])
