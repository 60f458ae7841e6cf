"""Faces to train on: generated from face models, rendered once into a cache, read from there at every step.

A cache is a folder of shards. `shard_0007.npy` holds the stored views of 256 faces, (256, 3, S, S, 7) uint8 (see
`augmentation.views.store`); `shard_0007.json` holds their records: label, intensity, subject, source, metadata.
Faces of files have listings alone, see `datasets.rendered`.
Shards are written whole or not at all, so a killed run goes on where it was, and two runs with the same settings
share one cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from affectvlm.augmentation.on_device import pack
from affectvlm.augmentation.scans import crop, damage, pose_error, reshape, restyle
from affectvlm.augmentation.views import (
    CHANNELS,
    DIRECTIONS,
    PICTURE,
    Draws,
    MixedViews,
    draw,
    join,
    show,
    store,
    stored_side,
)
from affectvlm.emotions import EKMAN
from affectvlm.prompts import PromptSet
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
UNITS = ("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15", "AU16", "AU17", "AU18",
"AU20",
         "AU22", "AU23", "AU24", "AU25", "AU26", "AU27", "AU28", "AU34", "AU43")  # fmt: skip
"""Action units whose intensities a record holds, in this order."""

_LABEL_SHARES = np.array([0.12] * 6 + [0.19, 0.09])
_LOOSE_PARTS = ("teeth", "gums_tongue", "mouth_socket", "sclera_L", "sclera_R")


@dataclass(frozen=True)
class FaceSet:
    """Settings of one generated set; equal settings give equal pixels.

    Attributes:
        source: "procedural", or "ict" (needs `model_path`, a packed ICT-FaceKit model or a checkout).
        split: "train", "validation" or "test": identities of different splits never meet.
        count: faces. per_identity: faces of one person.
        damaged: True for what real scans bring and photo-like views; False for clean cropped faces.
        size: pixels of the pictures to be taken from the stored views, which are larger (`augmentation.views.MARGIN`).
        intensity: lowest and highest; drawn evenly.
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

    def key(self) -> str:
        """Names the cache folder: settings, without the place the model lies at."""
        settings = {k: v for k, v in asdict(self).items() if k not in ("model_path", "count")}
        text = json.dumps(settings | {"content": CONTENT}, sort_keys=True)
        return f"{self.source}-{self.split}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def build(faces: FaceSet, cache: str | Path, workers: int = 0) -> Path:
    """Render what is missing of a set into `cache`; returns its folder. `workers` 0 = one per CPU core.

    Processes that want the same set at the same time (ranks, two trainings) wait for the first of them.
    """
    folder = Path(cache) / faces.key()
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(-(-faces.count // SHARD))
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [shard for shard in shards if not (folder / f"shard_{shard:04d}.json").is_file()]
        if not missing:
            return folder
        log.info("rendering %d faces of %s into %s", len(missing) * SHARD, faces.source, folder)
        with ProcessPoolExecutor(workers or os.cpu_count(), initializer=_open_model, initargs=(faces,)) as pool:
            for done, shard in enumerate(pool.map(_write_shard, [(faces, folder, shard) for shard in missing]), 1):
                log.info("shard %d written (%d of %d)", shard, done, len(missing))
    return folder


class RenderedFaces:
    """The first `count` faces of one or several cache folders, read lazily; `photos` False leaves photo-like ones out.

    `classes` and `rejection` are the rows of the text bank: labels are numbers into both together. Faces without an
    emotion are left out where no row is for them; a face of another emotion than those is refused.

    Attributes:
        classes, rejection: as given; rows: both. labels: (n,) int64 into rows; bears: (n, len(rows)) bool, that label
        and the further ones of a sample that has several; emotional: (n,) bool, of a class; intensity: (n,) float32, 1
        where it is not known; graded: (n,) bool, where it is; photo: (n,) bool, seen as a camera sees; picture: (n,)
        int, how views stored from pictures are shown (augmentation.views.PICTURE or DIRECTIONS), 0 for scans;
        subjects, records: lists of length n.
        metadata: list of n dicts, as `PromptSet.draw` takes them: what is known of the subject, and the intensity.
        units: (n, len(UNITS)) float32 action-unit intensities in [0, 1], NaN where there is no face.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        counts: Sequence[int] | None = None,
        photos: bool = True,
        classes: Sequence[str] = EKMAN,
        rejection: Sequence[str] = REJECTION,
    ) -> None:
        self.classes, self.rejection = tuple(classes), tuple(rejection)
        self.rows = self.classes + self.rejection
        self._shards: list[Any] = []
        self._where: list[tuple[int, int]] = []
        self.records: list[dict] = []
        for number, folder in enumerate(folders):
            left = counts[number] if counts else None
            for file in sorted(Path(folder).glob("shard_*.json")):
                if left is not None and left <= 0:
                    break
                records = json.loads(file.read_text("utf-8"))[:left]
                self._shards.append(open_shard(file, records))
                kept = [row for row, record in enumerate(records) if self._wanted(record, photos)]
                self._where += [(len(self._shards) - 1, row) for row in kept]
                self.records += [records[row] for row in kept]
                left = None if left is None else left - len(records)
        if not self.records:
            raise ValueError(f"no rendered faces in {', '.join(Path(f).name for f in folders)}; build them first")
        self.labels = np.array([self.rows.index(class_name(r)) for r in self.records], np.int64)
        self.bears = np.array([[row in self._names(r) for row in self.rows] for r in self.records])
        self.emotional = self.labels < len(self.classes)
        self.intensity = np.array([1.0 if r["intensity"] is None else r["intensity"] for r in self.records], np.float32)
        self.graded = np.array([r["intensity"] is not None for r in self.records], bool)
        self.photo = np.array([r["photo"] for r in self.records], bool)
        self.picture = np.array([picture_mode(r) for r in self.records], np.int64)
        self.subjects = [r["subject"] for r in self.records]
        self.metadata = [_metadata(r, emotional) for r, emotional in zip(self.records, self.emotional, strict=True)]
        self.units = np.array([r["units"] or [np.nan] * len(UNITS) for r in self.records], np.float32)

    def __len__(self) -> int:
        return len(self.records)

    @staticmethod
    def _names(record: dict) -> tuple[str, ...]:
        return (class_name(record), *record.get("also", ()))

    def _wanted(self, record: dict, photos: bool) -> bool:
        for name in self._names(record):
            if name not in self.rows and name not in REJECTION:
                raise ValueError(f"a face of {record['source']} is labelled {name!r}; the classes are {self.classes}")
        return class_name(record) in self.rows and (photos or not record["photo"])

    def views(self, indices: Sequence[int]) -> np.ndarray:
        """(n, 3, S, S, 7) uint8 stored views."""
        return np.stack([self._shards[shard][row] for shard, row in (self._where[i] for i in indices)])

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Index arrays in order, for scoring each face once."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


def open_shard(listing: Path, records: Sequence[dict]) -> Any:
    """The stored views of a shard: item `row` is (3, S, S, 7) uint8. Generated faces lie in one array beside their
    listing; faces of files lie each in a file of its own, which any number of listings may name."""
    array = listing.with_suffix(".npy")
    if array.is_file():
        return np.load(array, mmap_mode="r")
    return _FaceFiles([listing.parent / record["stored"] for record in records])


class _FaceFiles:
    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __getitem__(self, row: int) -> np.ndarray:
        with np.load(self._files[row]) as content:
            return content["views"]


def class_name(record: dict) -> str:
    """Which emotion a record shows, or which row of rejection."""
    return record["class"] if "class" in record else LABELS[record["label"]]


def picture_mode(record: dict) -> int:
    """How views stored from pictures have to be shown; 0 for views of scans."""
    if not record.get("picture", False):
        return 0
    return DIRECTIONS if record.get("directions", False) else PICTURE


def _metadata(record: dict, emotional: bool) -> dict:
    known = dict(record.get("metadata") or {})
    if emotional and record["intensity"] is not None:
        known["intensity"] = float(record["intensity"])
    return known


_model = None
"""The face model of a worker process: made once, used for all its shards."""


def _open_model(faces: FaceSet) -> None:
    global _model
    _model = open_source(faces.source, faces.model_path)


def open_source(source: str, model_path: str = ""):
    """The face model named by a setting.

    Raises:
        ValueError: unknown name, or ICT-FaceKit without its files.
    """
    if source == "procedural":
        from affectvlm.synthesis.procedural import ProceduralFace

        return ProceduralFace()
    if source == "ict":
        from affectvlm.synthesis.ict import ICTFace

        if not model_path:
            raise ValueError(
                "source is 'ict' but model_path is empty; the path of ICT-FaceKit (checkout or pack) is needed"
            )
        return ICTFace.load(model_path)
    raise ValueError(f"source is {source!r}; procedural or ict is needed")


def _write_shard(task: tuple[FaceSet, Path, int]) -> int:
    faces, folder, shard = task
    side = stored_side(faces.size)
    views = np.empty((SHARD, 3, side, side, CHANNELS), np.uint8)
    records = []
    for row in range(SHARD):
        views[row], record = make_face(_model, faces, shard * SHARD + row)
        records.append(record)
    array, listing = folder / f"shard_{shard:04d}.npy", folder / f"shard_{shard:04d}.json"
    temporary = folder / f"shard_{shard:04d}.{os.getpid()}.tmp"
    with temporary.open("wb") as file:
        np.save(file, views)
    temporary.replace(array)
    temporary.write_text(json.dumps(records), "utf-8")
    temporary.replace(listing)
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
    units = {} if no_face else sample_expression(LABELS[label], intensity, rng)
    both = {name: sum(sides) / 2 for name, sides in sided(units).items()}
    record = {
        "label": label,
        "intensity": round(intensity, 3),
        "photo": bool(photo),
        "subject": f"object-{faces.split}-{index}"
        if no_face
        else f"{faces.source}-{faces.split}-{_person(faces, index)}",
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
        wide = {"spread": float(rng.uniform(0.7, 1.35))} if faces.split == "train" else {}
        identity = model.sample_identity(np.random.default_rng([faces.seed, split, 1, _person(faces, index)]), **wide)
        record["metadata"] = described(identity)
        options = {}
        if model.name == "ict" and faces.damaged and not record["photo"]:
            options = {"without": [part for part in _LOOSE_PARTS if rng.random() < 0.3]}
        scan = model.generate(identity, units, **options)
        if faces.split == "train" and rng.random() < 0.6:
            scan = restyle(scan, model.generate(identity, {}, **options), rng)
        if faces.split == "train" and rng.random() < 0.75:
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


def sample_weight(emotional: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """(B,) float32 in [0.2, 1]: a slight expression, hard to tell from a resting face, counts less; full weight from an
    intensity of two thirds, and for faces that show no emotion."""
    return np.where(emotional, np.clip(0.2 + 1.2 * intensity, 0.2, 1.0), 1.0).astype(np.float32)


def shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) int64: the order of the faces in one pass over them."""
    return np.random.default_rng([seed, 0, int(epoch)]).permutation(count)


def shuffled_rows(seed: int, step: int, batch: int, count: int) -> np.ndarray:
    """(batch,) int64: which of `count` faces batch `step` shows; each once in every pass over them."""
    places = np.arange(step * batch, (step + 1) * batch)
    orders = {epoch: shuffled(seed, epoch, count) for epoch in np.unique(places // count)}
    return np.array([orders[place // count][place % count] for place in places], np.int64)


class MixedBatches(IterableDataset):
    """An endless shuffle of rendered faces, cut into augmented batches; batch `step` depends on seed and step alone.

    Yields dicts: views (B, `per_sample`, 3, size, size) uint8 (or packed, which makes them on a GPU), labels (B,)
    int64, bears (B, rows) bool, units (B, U) float32, weight (B,) float32, and prompts, B tuples of `per_sample`
    strings: every view's own, drawn anew, about one of the sample's labels; words (B, `per_sample`) int64 says which.
    With several loader workers, worker w makes every w-th batch; the loader takes them in turn, so the order is that
    of the steps.

    Of several ranks, each makes its own rows of the batch; put together they are the batch of a single rank, number
    for number, so that a run can go on with another number of ranks.

    Args:
        prompts: draws each view's prompt; None yields none.
        metadata: whether prompts may say what a record knows of its subject.
        scans_first: steps at the start that show scans alone, nearly all as surface directions and none covered: with
            everything at once, random weights find nothing to begin with.
        rank, ranks: whose rows of the `batch` are made.
        on_device: leave the pixels to the GPU: the batch holds "packed" for `augmentation.on_device.unpack` instead of
            "views".

    Raises:
        ValueError: a batch that the ranks cannot share in chunks of CHUNK rows.
    """

    CHUNK = 4
    """Rows that share a generator: what a row becomes must not depend on how many ranks share the batch."""

    def __init__(
        self,
        faces: RenderedFaces,
        views: MixedViews,
        batch: int,
        steps: int,
        seed: int,
        start: int = 0,
        per_sample: int = 3,
        prompts: PromptSet | None = None,
        metadata: bool = True,
        scans_first: int = 0,
        rank: int = 0,
        ranks: int = 1,
        on_device: bool = False,
    ) -> None:
        if ranks > 1 and batch % (self.CHUNK * ranks):
            raise ValueError(f"a batch of {batch} for {ranks} ranks; a multiple of {self.CHUNK * ranks} is needed")
        self.faces, self.views, self.batch = faces, views, batch
        self.steps, self.seed, self.start, self.per_sample = steps, seed, start, per_sample
        self.prompts, self.metadata, self.rank, self.ranks = prompts, metadata, rank, ranks
        self.on_device = on_device
        scans = np.flatnonzero(~faces.photo)
        self.scans_first = scans_first if len(scans) else 0
        easy = replace(views, kinds=(0.9, 0.1, 0.0), occlusion=0.0, blur=min(views.blur, 0.1))
        self._early, self._later = (scans, easy), (np.arange(len(faces)), views)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.start + number, self.steps, workers):
            yield self.make(step)

    def make(self, step: int) -> dict[str, Any]:
        """This rank's rows of batch `step`."""
        pool, views = self._early if step < self.scans_first else self._later
        rows = pool[shuffled_rows(self.seed, step, self.batch, len(pool))]
        share = self.batch // self.ranks
        chosen = rows[self.rank * share : (self.rank + 1) * share]
        first = self.rank * share // self.CHUNK
        chunks = [
            self._chunk(part, views, np.random.default_rng([self.seed, 1, step, first + number]))
            for number, part in enumerate(np.split(chosen, range(self.CHUNK, len(chosen), self.CHUNK)))
        ]
        labels, intensity = self.faces.labels[chosen], self.faces.intensity[chosen]
        stored = np.concatenate([stored for stored, *_ in chunks])
        draws = join([draws for _, draws, *_ in chunks])
        batch = {
            **({"packed": pack(stored, draws)} if self.on_device else {"views": torch.from_numpy(show(stored, draws))}),
            "labels": torch.from_numpy(labels),
            "bears": torch.from_numpy(self.faces.bears[chosen]),
            "units": torch.from_numpy(self.faces.units[chosen]),
            "weight": torch.from_numpy(sample_weight(self.faces.emotional[chosen], intensity)),
        }
        if self.prompts:
            batch["words"] = torch.from_numpy(np.concatenate([about for *_, about, _ in chunks]))
            batch["prompts"] = [row for *_, rows in chunks for row in rows]
        return batch

    def _chunk(
        self, rows: np.ndarray, views: MixedViews, rng: np.random.Generator
    ) -> tuple[np.ndarray, Draws, np.ndarray, list[tuple[str, ...]]]:
        stored = self._sides(self.faces.views(rows), rng)
        draws = draw(stored, self.faces.photo[rows], views, rng, picture=self.faces.picture[rows])
        about = self._about(rows, rng)
        words = [self._words(row, labels, rng) for row, labels in zip(rows, about, strict=True)] if self.prompts else []
        return stored, draws, about, words

    def _about(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, per_sample) int64: the label each view's prompt will be about, any of those that the sample bears."""
        about = np.repeat(self.faces.labels[rows][:, None], self.per_sample, axis=1)
        for place in np.flatnonzero(self.faces.bears[rows].sum(axis=1) > 1):
            about[place] = rng.choice(np.flatnonzero(self.faces.bears[rows[place]]), self.per_sample)
        return about

    def _words(self, row: int, about: np.ndarray, rng: np.random.Generator) -> tuple[str, ...]:
        """Every view's own prompt."""
        known = self.faces.metadata[row] if self.metadata else None
        return tuple(self.prompts.draw(self.faces.rows[label], known, rng) for label in about)

    def _sides(self, stored: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """All three views, or the front and one side of each sample."""
        if self.per_sample == 3:
            return stored
        sides = rng.integers(1, 3, len(stored))
        return np.stack([stored[:, 0], stored[np.arange(len(stored)), sides]], axis=1)
