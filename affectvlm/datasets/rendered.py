"""Records → stored views on disk, with listings that `affectvlm.data.RenderedFaces` reads.

    rendered = render_index(index, "cache")
    print(rendered.summary())                       # what could not be rendered, what is doubtful
    faces = RenderedFaces([rendered.folder])

Each face is rendered once and kept in `cache/faces/`, (3, S, S, 7) uint8 (see `augmentation.views.store`), under the
fingerprint of its files and of the settings; the folder of an index only lists what lies there. So another split, fold
or label costs nothing, one more scan no more than itself, and a run that was stopped goes on where it was. Processes
that render into one cache take turns.

A listing, `shard_0007.json`, holds up to SHARD records:

    stored       where the views are, from the folder of the listing
    class        the record's label; also: further ones
    intensity    0 to 1, 0 for labels that are no emotion, null where it is not known
    photo        True for pictures
    picture      the same, and for sequences; generated photo-like faces have surface directions and lack this key
    subject      SOURCE-NAME: people of two data sets stay apart
    source, id   of the record; metadata: sex, age_group, ethnicity as far as known
    units        null: action units are not known
    certainty    how sure the pose is (scans), or that there is a face in the least sure of the three pictures

Scans are read, turned and drawn as `Predictor` does it. A picture has no surface: its views hold its colours, the
direction (0, 0, 1) and full coverage everywhere. Whoever shows records with "picture" has to leave out the light (the
colours are lit already: brightness 1, no lamps) and must not show them as normals, which are the same everywhere.

A sequence is stored in the same way: its pictures are the dynamic images of its views (`datasets.views`), and its
record says in "frames" how many scans they are made of, and in "directions" whether red and green are directions.
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
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.datasets.content import Fingerprints
from affectvlm.datasets.records import Index, Record, listed
from affectvlm.datasets.views import SIZE, picture_views, scan_views, sequence_settings, sequence_views
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM

log = logging.getLogger(__name__)

REJECTION = ("neutral", "no face")
"""No emotions: faces with these labels have an intensity of 0."""

SHARD = 256
"""Most faces of a listing, as in `affectvlm.data`."""

CONTENT = 1
"""Raise it when a change of reading, pose, photos or rendering changes the pixels: older faces are then not used."""


@dataclass(frozen=True)
class RenderedIndex:
    """What `render_index` made.

    Attributes:
        folder: of the listings, for `RenderedFaces`.
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
    """Paths of a record, and where its views go; frames, frame_landmarks, kind and magnify of a sequence."""

    files: tuple[Path, ...]
    landmarks: Path | None
    size: int
    stored: Path
    frames: tuple[int, ...] | None = None
    frame_landmarks: tuple[Path | None, ...] = ()
    kind: str = "normals"
    magnify: float = 1.0


def render_index(
    index: Index,
    cache: str | Path,
    workers: int = 0,
    size: int = SIZE,
    sequence_kind: str = "normals",
    magnify: float = 1.0,
) -> RenderedIndex:
    """Render what is missing of an index and list it.

    Args:
        cache: the folder that holds all caches.
        workers: processes; 0 = one per CPU core, 1 = this process alone.
        size: pixels of the pictures that will be taken from the views (`augmentation.views.stored_side`).
        sequence_kind, magnify: what is pooled of sequences, and how many times as strong their motion is shown.

    Returns:
        The folder, and what is to be known of it. Files that cannot be rendered are named there and skipped.

    Raises:
        ValueError: no records, or not one face could be rendered.
        OSError: the cache cannot be written.
    """
    if not index.records:
        raise ValueError("the index holds no records; there is nothing to render")
    cache = Path(cache)
    keys, failures = _keys(index, cache, size, sequence_kind, magnify)
    tasks = {
        key: _task(index, record, size, _place(cache, key), sequence_kind, magnify)
        for record, key in _distinct(index, keys)
    }
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
        folder = _write_folder(cache, entries, [stored for _, stored in kept])
    doubtful = {record.id: facts[stored]["doubt"] for record, stored in kept if facts[stored]["doubt"]}
    return RenderedIndex(folder, len(kept), failures, doubtful, fresh=len(missing) - len(failed))


def _keys(
    index: Index, cache: Path, size: int, kind: str, magnify: float
) -> tuple[dict[str, str], dict[str, str]]:  # fmt: skip
    """id → name of the views in the cache; and id → why, where a file cannot even be read."""
    fingerprints = Fingerprints(index.root, cache / "fingerprints.json")
    drawn = {"content": CONTENT, "yaws": DEFAULT_YAWS, "half_width": HALF_WIDTH_MM, "size": size}

    def key(record: Record) -> tuple[str, str]:
        try:
            more = sequence_settings(kind, magnify) if record.is_sequence else {}
            text = json.dumps({**drawn, **more, "of": fingerprints.of_views(record)}, sort_keys=True)
        except OSError as error:
            return "", f"cannot be read: {error.strerror or error}"
        return hashlib.sha256(text.encode()).hexdigest()[:32], ""

    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        found = list(zip(index.records, pool.map(key, index.records), strict=True))
    fingerprints.keep()
    return (
        {record.id: name for record, (name, _) in found if name},
        {record.id: why for record, (name, why) in found if not name},
    )


def _distinct(index: Index, keys: Mapping[str, str]) -> list[tuple[Record, str]]:
    """One record of each key."""
    return list({keys[record.id]: (record, keys[record.id]) for record in index.records if record.id in keys}.values())


def _task(index: Index, record: Record, size: int, stored: Path, kind: str, magnify: float) -> _Task:
    def place(file: str | None) -> Path | None:
        return None if file is None else index.root / file

    files, frame_landmarks = tuple(map(place, record.files)), tuple(map(place, record.frame_landmarks))
    return _Task(files, place(record.landmarks), size, stored, record.frames, frame_landmarks, kind, magnify)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time: ranks and trainings that want the same faces wait for the first of them."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "faces.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process renders into %s; waiting for it", cache)
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
        if task.frames is not None:
            views, facts = sequence_views(
                task.files, task.frames, task.frame_landmarks, task.size, task.kind, task.magnify
            )
        elif len(task.files) == 3:
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
        np.savez(file, views=views, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8))
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
    """The record of a listing; see above."""
    frames = {"frames": len(record.files), "directions": facts.get("kind") == "normals"} if record.is_sequence else {}
    return {
        "class": record.label,
        "also": list(record.also),
        "intensity": 0.0 if record.label in REJECTION else record.intensity,
        "photo": record.is_pictures,
        "picture": record.is_pictures or record.is_sequence,
        "subject": f"{record.source}-{record.subject}",
        "source": record.source,
        "units": None,
        "id": record.id,
        "metadata": dict(record.metadata),
        "certainty": facts["certainty"],
        **frames,
    }


def _write_folder(cache: Path, entries: list[dict], faces: list[Path]) -> Path:
    """The listings of these faces, as far as they are not there yet."""
    entries = [
        {**entry, "stored": os.path.relpath(face, cache / "any").replace(os.sep, "/")}
        for entry, face in zip(entries, faces, strict=True)
    ]
    sources = sorted({entry["source"] for entry in entries})
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:10]
    folder = cache / f"{sources[0] if len(sources) == 1 else 'mixed'}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    for shard, start in enumerate(range(0, len(entries), SHARD)):
        listing = folder / f"shard_{shard:04d}.json"
        if not listing.is_file():
            temporary = listing.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(entries[start : start + SHARD]), "utf-8")
            temporary.replace(listing)
    return folder
