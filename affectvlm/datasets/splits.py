"""Training, validation and test sets of different people, with the classes spread as evenly as people allow."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from affectvlm.datasets.records import Index

SPLITS = ("train", "validation", "test")
ORDERS = 8
"""Orders of people that are tried; the best division is kept."""


def split_subjects(index: Index, shares: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> dict[str, Index]:
    """Divide the people of an index among SPLITS.

    People with many faces are placed first, each where the counts of classes then come nearest to their shares. No
    split stays empty, and a class is kept in training wherever that can be had by exchanging people. The same records
    and seed give the same division, in whatever order the files were found.

    Args:
        shares: of the faces, for train, validation and test; positive, 1 together.

    Raises:
        ValueError: fewer than three subjects, or shares of another kind.
    """
    wanted = _checked(shares)
    people = index.subjects
    if len(people) < len(SPLITS):
        raise ValueError(
            f"there are {len(people)} subjects ({', '.join(people)}); at least {len(SPLITS)} are needed, since "
            "training, validation and test must show different people"
        )
    counts = _counts(index, people)
    rng = np.random.default_rng(seed)
    best = min((_divided(counts, wanted, rng) for _ in range(ORDERS)), key=lambda place: _cost(counts, wanted, place))
    parts = {
        name: index.select(person for person, place in zip(people, best, strict=True) if place == number)
        for number, name in enumerate(SPLITS)
    }
    check_disjoint(parts)
    return parts


def read_split(index: Index, file: str | Path) -> dict[str, Index]:
    """The division that a JSON file lists: {"train": [ids of records], "validation": [...], "test": [...]}.

    Records that it does not name are left out.

    Raises:
        ValueError: not such a file, an id that the index does not hold, an empty part, or a subject in two parts.
    """
    name = Path(file).name
    try:
        listed_ids = json.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the split {name} cannot be read ({error}); a JSON file is needed") from None
    if not isinstance(listed_ids, dict) or set(listed_ids) != set(SPLITS):
        raise ValueError(f"the split {name} holds {_keys(listed_ids)}; lists of ids for {', '.join(SPLITS)} are needed")
    records = {record.id: record for record in index.records}
    parts = {}
    for split in SPLITS:
        ids = listed_ids[split]
        if not isinstance(ids, list) or not ids:
            raise ValueError(f"the split {name} has no list of ids for {split}; one or more are needed")
        if unknown := [one for one in ids if one not in records]:
            raise ValueError(f"the split {name} names {unknown[0]!r}, which {index.root.name} does not hold")
        parts[split] = Index(index.root, index.classes, tuple(records[one] for one in dict.fromkeys(ids)))
    check_disjoint(parts)
    return parts


def _keys(content: object) -> str:
    return ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__


def check_disjoint(parts: Mapping[str, Index]) -> None:
    """No subject and no file is in two parts.

    Raises:
        ValueError: one is; the message names it and the parts.
    """
    for (first, a), (second, b) in itertools.combinations(parts.items(), 2):
        for what, shared in (("subject", _people(a) & _people(b)), ("file", _files(a) & _files(b))):
            if shared:
                example = sorted(shared)[0]
                example = example[1] if what == "subject" else example
                raise ValueError(f"{len(shared)} {what}s are in {first} and in {second}, such as {example!r}")


def _checked(shares: Sequence[float]) -> np.ndarray:
    values = [float(share) for share in shares]
    if len(values) != len(SPLITS) or not all(math.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"shares are {tuple(shares)}; three positive numbers are needed, for {', '.join(SPLITS)}")
    if abs(sum(values) - 1) > 1e-6:
        raise ValueError(f"shares are {tuple(shares)} and make {sum(values):g}; they must make 1")
    return np.array(values)


def _counts(index: Index, people: Sequence[str]) -> np.ndarray:
    """(people, classes) float64 numbers of faces; classes without any are left out."""
    row, column = ({name: place for place, name in enumerate(names)} for names in (people, index.classes))
    counts = np.zeros((len(people), len(index.classes)))
    for record in index.records:
        counts[row[record.subject], column[record.label]] += 1
    return counts[:, counts.any(axis=0)]


def _divided(counts: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(people,) number of the split of each."""
    # large first, since what is placed last can only even out what is there; the noise lets seeds differ
    order = np.argsort(-counts.sum(axis=1) * rng.uniform(0.5, 1.5, len(counts)), kind="stable")
    total = counts.sum(axis=0)
    off = -wanted[:, None] * total  # (splits, classes) what is there minus what should be
    place = np.full(len(counts), -1)
    for done, person in enumerate(order):
        empty = [split for split in range(len(SPLITS)) if split not in place]
        options = empty if len(order) - done <= len(empty) else range(len(SPLITS))
        after = off + counts[person]
        change = ((after**2 - off**2) / total**2).sum(axis=1)
        place[person] = min(options, key=lambda split: (change[split], split))
        off[place[person]] = after[place[person]]
    return _covering(counts, wanted, place)


def _covering(counts: np.ndarray, wanted: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The division after moving or exchanging people until training has every class, or nothing helps any more."""
    while (missing := _cost(counts, wanted, place)[0]) > 0:
        options = [
            (_cost(counts, wanted, other), number, other) for number, other in enumerate(_exchanges(counts, place))
        ]
        cost, _, best = min(options, default=((missing,), 0, place), key=lambda option: option[:2])
        if cost[0] >= missing:
            break
        place = best
    return place


def _exchanges(counts: np.ndarray, place: np.ndarray) -> Iterator[np.ndarray]:
    """Divisions in which training has one person more that brings a missing class, in exchange or for nothing."""
    lacks = ~counts[place == 0].any(axis=0)
    for person in np.flatnonzero((place != 0) & counts[:, lacks].any(axis=1)):
        moved = place.copy()
        moved[person] = 0
        if (moved == place[person]).any():
            yield moved
        for other in np.flatnonzero(place == 0):
            exchanged = moved.copy()
            exchanged[other] = place[person]
            yield exchanged


def _cost(counts: np.ndarray, wanted: np.ndarray, place: np.ndarray) -> tuple[int, float]:
    """Classes that training lacks, then how far the counts are from their shares."""
    there = np.stack([counts[place == split].sum(axis=0) for split in range(len(SPLITS))])
    total = counts.sum(axis=0)
    return int((there[0] == 0).sum()), float((((there - wanted[:, None] * total) / total) ** 2).sum())


def _people(index: Index) -> set[tuple[str, str]]:
    return {(record.source, record.subject) for record in index.records}


def _files(index: Index) -> set[str]:
    return {str(index.root / file) for record in index.records for file in record.files}
