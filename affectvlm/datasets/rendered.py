"""Records → stored views on disk, in the shards that `affectvlm.data.RenderedFaces` reads.

    rendered = render_index(index, "cache")
    print(rendered.summary())                       # what could not be rendered, what is doubtful
    faces = RenderedFaces([rendered.folder])

Each face is rendered once and kept in `cache/faces/` under the fingerprint of its files and of the settings; the
folder of an index is put together from there. So another split, another label or one more scan costs next to nothing,
and a run that was stopped goes on where it was. Processes that render into one cache take turns.

A shard has up to SHARD faces: `shard_0007.npy` (n, 3, S, S, 7) uint8 (see `augmentation.views.store`) and
`shard_0007.json`, a list of n records:

    class        the record's label; also: further ones
    intensity    0 to 1, 0 for labels that are no emotion, null where it is not known
    photo        True for pictures
    picture      the same; generated photo-like faces have surface directions and lack this key
    subject      SOURCE-NAME: people of two data sets stay apart
    source, id   of the record; metadata: sex, age_group, ethnicity as far as known
    units        null: action units are not known
    certainty    how sure the pose is (scans), or that there is a face in the least sure of the three pictures

Scans are read, turned and drawn as `Predictor` does it. A picture has no surface: its views hold its colours, the
direction (0, 0, 1) and full coverage everywhere. Whoever shows records with "picture" has to leave out the light (the
colours are lit already: brightness 1, no lamps) and must not show them as normals, which are the same everywhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.augmentation.views import CHANNELS, store
from affectvlm.datasets.content import Fingerprints
from affectvlm.datasets.records import Index, Record, listed
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, VIEW_NAMES, render_buffers

log = logging.getLogger(__name__)

REJECTION = ("neutral", "no face")
"""No emotions: faces with these labels have an intensity of 0."""

SHARD = 256
"""Most faces of a shard, as in `affectvlm.data`."""

CONTENT = 1
"""Raise it when a change of reading, pose, photos or rendering changes the pixels: older faces are then not used."""

FACING = (128, 128, 255)
"""The direction (0, 0, 1) as stored views hold it."""


@dataclass(frozen=True)
class ViewSize:
    """pixels: of a stored view; margin: its window over a model's, as in `data.FaceSet`."""

    pixels: int = 128
    margin: float = 128 / 112


@dataclass(frozen=True)
class RenderedIndex:
    """What `render_index` made.

    Attributes:
        folder: of the shards, for `RenderedFaces`.
        count: faces in it.
        failures: id → why there is no view of it; these faces are not in the folder.
        doubtful: id → what speaks against its views (the pose may be wrong, no face was found in a picture, sides seem
            swapped); these faces are in the folder. Exclude them with `Index.without` after a look at them.
        fresh: how many faces were rendered by this call; the others were there.
    """

    folder: Path
    count: int
    failures: Mapping[str, str]
    doubtful: Mapping[str, str]
    fresh: int

    def summary(self) -> str:
        """Some lines of text."""
        lines = [f"{self.count} faces in {self.folder.name}, {self.fresh} of them rendered now"]
        for title, found in (("could not be rendered", self.failures), ("are doubtful", self.doubtful)):
            if found:
                lines.append(f"{len(found)} {title}: " + listed(f"{name} ({why})" for name, why in found.items()))
        return "\n".join(lines)


@dataclass(frozen=True)
class _Task:
    """Paths of a record, and where its views go."""

    files: tuple[Path, ...]
    landmarks: Path | None
    size: ViewSize
    stored: Path


def render_index(
    index: Index,
    cache: str | Path,
    workers: int = 0,
    size: ViewSize = ViewSize(),  # noqa: B008  (frozen)
) -> RenderedIndex:
    """Render what is missing of an index and put its shards together.

    Args:
        cache: the folder that holds all caches.
        workers: processes; 0 = one per CPU core, 1 = this process alone.

    Returns:
        The folder, and what is to be known of it. Files that cannot be rendered are named there and skipped.

    Raises:
        ValueError: no records, or not one face could be rendered.
        OSError: the cache cannot be written.
    """
    if not index.records:
        raise ValueError("the index holds no records; there is nothing to render")
    cache = Path(cache)
    keys, failures = _keys(index, size)
    tasks = {key: _task(index, record, size, _place(cache, key)) for record, key in _distinct(index, keys)}
    with _alone(cache):
        missing = {key: task for key, task in tasks.items() if _facts(task.stored) is None}
        if missing:
            log.info("rendering %d of %d faces", len(missing), len(tasks))
        failed = _render(missing, workers)
        failures |= {name: failed[key] for name, key in keys.items() if key in failed}
        kept = [(record, tasks[keys[record.id]].stored) for record in index.records if record.id not in failures]
        if not kept:
            reasons = listed(f"{name}: {why}" for name, why in failures.items())
            raise ValueError(f"not one of {len(index)} faces could be rendered ({reasons})")
        facts = {stored: _facts(stored) for stored in {stored for _, stored in kept}}
        entries = [_entry(record, facts[stored]) for record, stored in kept]
        folder = _write_folder(cache, entries, [stored for _, stored in kept], size)
    doubtful = {record.id: facts[stored]["doubt"] for record, stored in kept if facts[stored]["doubt"]}
    return RenderedIndex(folder, len(kept), failures, doubtful, fresh=len(missing) - len(failed))


def scan_views(
    file: Path,
    landmarks: Path | None = None,
    size: ViewSize = ViewSize(),  # noqa: B008  (frozen)
) -> tuple[np.ndarray, dict[str, Any]]:
    """The stored views (3, S, S, 7) uint8 of a scan, as the predictor sees it; certainty of its pose, and doubts.

    Landmarks are those of the scan's reader, or of another file; they give the pose its first guess.

    Raises:
        ScanError: the scan or the landmarks cannot be used.
        ValueError: nothing of the scan lies in the front view.
    """
    from affectvlm.pose import frontalize
    from affectvlm.scan_io import read_scan

    scan = read_scan(file)
    if landmarks is not None:
        scan = replace(scan, landmarks=_landmarks(landmarks, scan.unit))
    frontal = frontalize(scan)
    views = store(render_buffers(frontal.scan, DEFAULT_YAWS, size.pixels, HALF_WIDTH_MM * size.margin))
    if not views[0, ..., 6].any():
        raise ValueError(f"{file.name}: nothing of it lies where the face should be")
    certainty = float(frontal.pose.certainty)
    doubt = "" if frontal.pose.is_face else f"no clear face was found (certainty {certainty:.2f})"
    return views, {"certainty": round(certainty, 4), "doubt": doubt}


def picture_views(
    files: Sequence[Path],
    size: ViewSize = ViewSize(),  # noqa: B008  (frozen)
) -> tuple[np.ndarray, dict[str, Any]]:
    """The stored views (3, S, S, 7) uint8 of front, left and right pictures, framed as the predictor frames photos but
    with the margin around; and how sure it is that each shows a face.

    Raises:
        PhotoError: a picture cannot be read.
    """
    from affectvlm.photos import prepare_photos, read_photo
    from affectvlm.photos.faces import cut_out

    photos = [read_photo(file, f"{name} picture") for name, file in zip(VIEW_NAMES, files, strict=True)]
    prepared = prepare_photos(*photos, size=size.pixels)
    views = np.full((len(VIEW_NAMES), size.pixels, size.pixels, CHANNELS), 255, np.uint8)
    views[..., :3] = FACING
    for view, photo, box in zip(views, photos, prepared.boxes, strict=True):
        view[..., 3:6] = cut_out(photo, replace(box, half=box.half * size.margin), size.pixels)
    certainty = min(float(box.score) for box in prepared.boxes)
    return views, {"certainty": round(certainty, 4), "doubt": "; ".join(prepared.warnings)}


def _landmarks(file: Path, unit: str) -> dict[str, np.ndarray]:
    """The landmarks of a file that has the unit of its scan, in millimetres."""
    from affectvlm.scan import ScanError
    from affectvlm.scan_io.landmarks import parse_bnd, parse_lm3
    from affectvlm.scan_io.limits import MAX_NOTE_BYTES
    from affectvlm.scan_io.raw import MILLIMETRES

    parse = {".lm3": parse_lm3, ".bnd": parse_bnd}.get(file.suffix.lower())
    if parse is None or file.stat().st_size > MAX_NOTE_BYTES:
        raise ScanError(f"{file.name}: a .lm3 or .bnd file of at most {MAX_NOTE_BYTES:,} bytes is needed")
    factor = MILLIMETRES.get(unit, 1.0)
    return {name: (np.asarray(point) * factor).astype(np.float32) for name, point in parse(file.read_bytes()).items()}


def _keys(index: Index, size: ViewSize) -> tuple[dict[str, str], dict[str, str]]:
    """id → name of the views in the cache; and id → why, where a file cannot even be read."""
    fingerprints = Fingerprints(index.root)
    drawn = {"content": CONTENT, "yaws": DEFAULT_YAWS, "half_width": HALF_WIDTH_MM, **asdict(size)}

    def key(record: Record) -> tuple[str, str]:
        try:
            text = json.dumps({**drawn, "of": fingerprints.of_views(record)}, sort_keys=True)
        except OSError as error:
            return "", f"cannot be read: {error.strerror or error}"
        return hashlib.sha256(text.encode()).hexdigest()[:32], ""

    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        found = list(zip(index.records, pool.map(key, index.records), strict=True))
    return (
        {record.id: name for record, (name, _) in found if name},
        {record.id: why for record, (name, why) in found if not name},
    )


def _distinct(index: Index, keys: Mapping[str, str]) -> list[tuple[Record, str]]:
    """One record of each key."""
    return list({keys[record.id]: (record, keys[record.id]) for record in index.records if record.id in keys}.values())


def _task(index: Index, record: Record, size: ViewSize, stored: Path) -> _Task:
    landmarks = None if record.landmarks is None else index.root / record.landmarks
    return _Task(tuple(index.root / file for file in record.files), landmarks, size, stored)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time: ranks and trainings that want the same faces wait for the first of them."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "faces.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _place(cache: Path, key: str) -> Path:
    return cache / "faces" / key[:2] / f"{key}.npz"


def _render(tasks: Mapping[str, _Task], workers: int) -> dict[str, str]:
    """Render all tasks; key → why, of those that failed."""
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        failed = {key: _render_one(task) for key, task in tasks.items()}
    else:
        failed = _render_in_processes(tasks, workers)
    return {key: why for key, why in failed.items() if why}


def _render_in_processes(tasks: Mapping[str, _Task], workers: int) -> dict[str, str]:
    """As `_render`. When a process dies (of too little memory, say), what was running is tried again one by one, so
    that only the file that kills its process twice is lost."""
    failed: dict[str, str] = {}
    waiting, suspects = deque(tasks), deque[str]()
    while waiting or suspects:
        queue, count = (suspects, 1) if suspects else (waiting, workers)
        running: dict[Future[str], str] = {}
        with _pool(count) as pool:
            try:
                while queue or running:
                    while queue and len(running) < count:
                        running[pool.submit(_render_one, tasks[queue[0]])] = queue[0]
                        queue.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        failed[running[future]] = future.result()
                        del running[future]
                        _log_progress(len(failed), len(tasks))
            except BrokenProcessPool:
                if count == 1:
                    failed |= {key: "its process ended while it was rendered (memory?)" for key in running.values()}
                else:
                    suspects.extend(running.values())
    return failed


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawned, not forked: the caller may have used torch, whose threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)


def _one_thread() -> None:
    """Each process keeps to one core."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _log_progress(done: int, of: int) -> None:
    if done % 100 == 0 or done == of:
        log.info("%d of %d faces rendered", done, of)


def _render_one(task: _Task) -> str:
    """Render and keep one face; why it is not possible, "" where it is. Only a cache that cannot be written is an
    error."""
    try:
        if len(task.files) == 3:
            views, facts = picture_views(task.files, task.size)
        else:
            views, facts = scan_views(task.files[0], task.landmarks, task.size)
    except ValueError as error:  # ScanError and PhotoError are
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror or type(error).__name__}"
    except MemoryError:
        return "more memory is needed than there is"
    except Exception as error:  # noqa: BLE001  one strange file must not end a night's work
        log.warning("unexpected %s while rendering %s", type(error).__name__, task.files[0].name, exc_info=True)
        return f"damaged in a way we did not foresee ({type(error).__name__})"
    task.stored.parent.mkdir(parents=True, exist_ok=True)
    temporary = task.stored.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, views=views, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8))
    temporary.replace(task.stored)
    return ""


def _facts(stored: Path) -> dict[str, Any] | None:
    """What is known of the views of a face; None where there are none."""
    try:
        with np.load(stored) as content:
            return json.loads(content["facts"].tobytes())
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _entry(record: Record, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a shard; see above."""
    return {
        "class": record.label,
        "also": list(record.also),
        "intensity": 0.0 if record.label in REJECTION else record.intensity,
        "photo": record.is_pictures,
        "picture": record.is_pictures,
        "subject": f"{record.source}-{record.subject}",
        "source": record.source,
        "units": None,
        "id": record.id,
        "metadata": dict(record.metadata),
        "certainty": facts["certainty"],
    }


def _write_folder(cache: Path, entries: list[dict], faces: list[Path], size: ViewSize) -> Path:
    """The shards of these faces, as far as they are not there yet."""
    text = json.dumps([[entry, face.stem] for entry, face in zip(entries, faces, strict=True)], sort_keys=True)
    sources = sorted({entry["source"] for entry in entries})
    folder = cache / f"{sources[0] if len(sources) == 1 else 'mixed'}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    for shard, start in enumerate(range(0, len(entries), SHARD)):
        listing = folder / f"shard_{shard:04d}.json"
        if not listing.is_file():
            _write_shard(listing, entries[start : start + SHARD], faces[start : start + SHARD], size.pixels)
    return folder


def _write_shard(listing: Path, entries: list[dict], faces: list[Path], pixels: int) -> None:
    """The array first: a listing stands for a whole shard."""
    views = np.empty((len(entries), len(VIEW_NAMES), pixels, pixels, CHANNELS), np.uint8)
    for row, face in enumerate(faces):
        with np.load(face) as content:
            views[row] = content["views"]
    temporary = listing.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, views)
    temporary.replace(listing.with_suffix(".npy"))
    temporary.write_text(json.dumps(entries), "utf-8")
    temporary.replace(listing)
