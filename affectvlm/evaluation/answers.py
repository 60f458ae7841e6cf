"""What a checkpoint says of the samples of a data set: the way without training, and across data sets.

`answer` shows it what trainings see: rendered views from the cache, sequences as dynamic images. A checkpoint that was
trained on single scans cannot read those; `answer_frames` asks it frame by frame, as the app does. `answer_as_trained`
reads in its card which of them it is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from affectvlm.datasets import Index, render_index

log = logging.getLogger(__name__)


def answer(
    checkpoint: str | Path | None, index: Index, ids: Iterable[str], cache: str | Path, workers: int = 0
) -> dict[str, Any]:
    """Ask a checkpoint about some samples, with three views of its own kind of picture.

    Args:
        checkpoint: a folder; None is the shipped one.
        ids: of records of the index.
        cache: where rendered views are kept. workers: processes that render; 0 = one per core.

    Returns:
        {"classes": names, "faces": [{"id", "subject", "label", "probabilities", ...}]}, as a run's predictions.json.

    Raises:
        CheckpointError: no checkpoint, or one that cannot be used.
        ValueError: it was made for other views, does not know a class, or no sample can be rendered.
    """
    from affectvlm.data import RenderedFaces
    from affectvlm.methods.scoring import face_logits, predictions
    from affectvlm.model import load_checkpoint
    from affectvlm.predictor import default_checkpoint
    from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM

    model, card = load_checkpoint(default_checkpoint() if checkpoint is None else checkpoint)
    part = _part(index, ids, card)
    if card.temporal and not all(record.is_sequence for record in part.records):
        raise ValueError(f"{card.name} was trained on sequences; single scans say nothing to it")
    if tuple(card.yaws) != tuple(DEFAULT_YAWS) or card.half_width != HALF_WIDTH_MM:
        raise ValueError(f"{card.name} looks from {card.yaws} degrees at {card.half_width} mm; rendered views do not")
    made = render_index(part, cache, workers, card.image_size, magnify=card.magnify)
    log.info("%s", made.summary())
    faces = RenderedFaces([made.folder], classes=card.classes, rejection=card.rejection)
    logits = face_logits(model, card.prompts, faces, kind=card.image_kind)
    return predictions(logits, faces, card.temperature, card.rejection_margin)


def answer_as_trained(
    checkpoint: str | Path | None, index: Index, ids: Iterable[str], cache: str | Path, partial: Path, workers: int = 0
) -> dict[str, Any]:
    """`answer_frames` for sequences and a checkpoint that was trained on single scans, else `answer`."""
    from affectvlm.predictor import Predictor

    ids = tuple(ids)
    are_sequences = any(record.is_sequence for record in _chosen(index, ids))
    if are_sequences and not Predictor.from_checkpoint(checkpoint).card.temporal:
        return answer_frames(checkpoint, index, ids, partial, workers)
    return answer(checkpoint, index, ids, cache, workers)


def answer_frames(
    checkpoint: str | Path | None, index: Index, ids: Iterable[str], partial: Path, workers: int = 0
) -> dict[str, Any]:
    """Ask a checkpoint about sequences frame by frame, at most `predictor.MAX_FRAMES` of each, spread evenly.

    Args:
        checkpoint, index, ids: as for `answer`.
        partial: a file that keeps each answer as it comes; what is there already is not asked again.
        workers: sequences at a time; 0 = one per core.

    Returns:
        As `answer`; a sequence that cannot be read has no answer.

    Raises:
        CheckpointError, ValueError: as `answer`.
    """
    from affectvlm.predictor import Predictor

    predictor = Predictor.from_checkpoint(checkpoint)
    part = _part(index, ids, predictor.card)
    known = _lines(partial)
    left = [record for record in part.records if record.id not in known]
    partial.parent.mkdir(parents=True, exist_ok=True)
    whole = partial.with_suffix(f".{os.getpid()}.tmp")  # without a line that a kill has cut
    whole.write_text("".join(json.dumps(row) + "\n" for row in known.values()), "utf-8")
    whole.replace(partial)

    def ask(record: Any) -> dict[str, Any]:
        try:
            said = predictor.predict_sequence([index.root / file for file in record.files])
        except ValueError as error:  # ScanError is one
            return {"id": record.id, "failed": str(error)}
        shares = [round(said.probabilities[name], 6) for name in predictor.card.classes]
        about = {"id": record.id, "subject": record.subject, "label": record.label, "also": list(record.also)}
        return {**about, "intensity": record.intensity, "metadata": dict(record.metadata), "probabilities": shares}

    with partial.open("a", encoding="utf-8") as file, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for done, row in enumerate(pool.map(ask, left), 1):
            known[row["id"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            if done % 20 == 0 or done == len(left):
                log.info("%d of %d sequences answered", done, len(left))
    failed = {name: row["failed"] for name, row in known.items() if "failed" in row}
    for name, why in failed.items():
        log.warning("%s could not be answered: %s", name, why)
    faces = [known[record.id] for record in part.records if record.id not in failed]
    return {"classes": list(predictor.card.classes), "faces": faces}


def _part(index: Index, ids: Iterable[str], card: Any) -> Index:
    """The records that are asked about.

    Raises:
        ValueError: the checkpoint does not know one of their classes.
    """
    part = Index(index.root, index.classes, _chosen(index, ids))
    if unknown := {record.label for record in part.records} - {*card.classes, *card.rejection}:
        raise ValueError(f"{card.name} does not know {min(unknown)!r}; its classes are {', '.join(card.classes)}")
    return part


def _chosen(index: Index, ids: Iterable[str]) -> tuple[Any, ...]:
    wanted = set(ids)
    return tuple(record for record in index.records if record.id in wanted)


def _lines(file: Path) -> dict[str, dict[str, Any]]:
    """id → row of a file with a JSON object a line; a last line cut by a kill is left out."""
    rows = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["id"]] = row
    return rows
