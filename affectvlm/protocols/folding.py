"""`folds`: who is trained on, validated on and tested on, by seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectvlm.protocols.definitions import NO_EMOTION, Protocol, protocol, select

VALIDATION_SHARE = 1 / 9
"""Of the training people: of 54 people 6, as many as a fold tests."""

READINGS = ("A", "B")
"""Where people are drawn: A draws once and reshuffles the folds in every run, B draws anew in every run."""

_DRAW, _SHUFFLE, _VALIDATE = range(3)
_ORDERS = 24
"""Orders of people that are tried for a validation part that takes no class away from training."""


@dataclass(frozen=True)
class Part:
    """Some people and all their samples. `dataset` tells apart people of two data sets with one name."""

    dataset: str
    subjects: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """One training and its test.

    Attributes:
        run, number: from 0.
        train, validation, test: the parts. Where another data set is tested on, `spare` are a few people of the
            training's own data, neither trained nor validated on, for a training that cannot do without a test.

    Raises:
        ValueError: a part is empty, or somebody or some sample is in two of them.
    """

    run: int
    number: int
    train: Part
    validation: Part
    test: Part
    spare: Part | None = None

    def __post_init__(self) -> None:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        parts |= {"spare": self.spare} if self.spare else {}
        for name, part in parts.items():
            if not part.ids:
                raise ValueError(f"{self.name}: no sample is in {name}; more people are needed")
        for (first, a), (second, b) in itertools.combinations(parts.items(), 2):
            if a.dataset != b.dataset:
                continue
            for what, shared in (("subject", set(a.subjects) & set(b.subjects)), ("sample", set(a.ids) & set(b.ids))):
                if shared:
                    raise ValueError(
                        f"{self.name} leaks: {len(shared)} {what}s are in {first} and in {second}, such as "
                        f"{min(shared)!r}"
                    )

    @property
    def name(self) -> str:
        """For folders: run000-fold00."""
        return f"run{self.run:03d}-fold{self.number:02d}"

    def split(self) -> dict[str, list[str]]:
        """Ids of records of the training's own data set, for train, validation and test."""
        test = self.spare or self.test
        return {"train": list(self.train.ids), "validation": list(self.validation.ids), "test": list(test.ids)}


def folds(
    given: str | Protocol,
    records: Iterable[Any],
    seed: int = 0,
    *,
    repeats: int | None = None,
    reading: str = "B",
    everyone: bool = False,
    partial: bool = False,
    target: Iterable[Any] = (),
) -> tuple[Fold, ...]:
    """The folds of a protocol; equal for equal records and seed, in whatever order the records come.

    The folds of run r depend on seed and r alone: more repeats only add to them.

    Args:
        records: objects with id, subject, label and intensity; see `select`.
        repeats: runs; None makes as many as the literature.
        reading: A or B, where people are drawn.
        everyone: take all people where the protocol draws some.
        partial: go on with fewer people or samples than the data set should have.
        target: the records that are tested on, where that is another data set.

    Raises:
        ValueError: sizes that are not the protocol's, too few people for train, validation and test, or other
            arguments.
    """
    given = protocol(given) if isinstance(given, str) else given
    repeats = given.repeats if repeats is None else repeats
    if reading not in READINGS:
        raise ValueError(f"reading is {reading!r}; A or B is needed")
    if repeats < 1 or seed < 0:
        raise ValueError(f"{repeats} repeats and seed {seed}; 1 or more and 0 or more are needed")
    chosen, _ = select(given, records, partial)
    people = sorted({record.subject for record in chosen})
    if len(people) < 3:
        raise ValueError(f"{given.name}: {len(people)} people; train, validation and test need 3 at least")
    made: list[Fold] = []
    for run in range(repeats):
        if given.target is not None:
            tested, _ = select(given.target, target, partial)
            made.append(_across(given, chosen, tested, people, seed, run))
            continue
        if given.folds is None:  # one person out at a time: there is nothing to shuffle
            groups = [[person] for person in people]
        else:
            here = _drawn(given, people, seed, run, reading, everyone)
            groups = _groups(given, here, seed, run, partial)
        taken = [record for record in chosen if record.subject in set(itertools.chain(*groups))]
        made += [_fold(given, taken, group, seed, run, number) for number, group in enumerate(groups)]
    return tuple(made)


def _drawn(given: Protocol, people: list[str], seed: int, run: int, reading: str, everyone: bool) -> list[str]:
    if given.drawn is None or everyone or given.drawn >= len(people):
        return people
    rng = np.random.default_rng([seed, _DRAW, 0 if reading == "A" else run])
    return sorted(people[i] for i in rng.choice(len(people), given.drawn, replace=False))


def _groups(given: Protocol, people: list[str], seed: int, run: int, partial: bool) -> list[list[str]]:
    """The people of each fold, in sizes that differ by one at most; the larger ones come last."""
    count = given.folds
    if count > len(people):
        if not partial and given.people is None:
            raise ValueError(f"{given.name}: {len(people)} people for {count} folds; as many people are needed")
        count = len(people)
    order = np.random.default_rng([seed, _SHUFFLE, run]).permutation(len(people))
    edges = [len(people) * number // count for number in range(count + 1)]
    groups = [sorted(people[i] for i in order[a:b]) for a, b in itertools.pairwise(edges)]
    return sorted(groups, key=len)  # stable: only the sizes are ordered


def _fold(given: Protocol, records: Sequence[Any], tested: list[str], seed: int, run: int, number: int) -> Fold:
    out = set(tested)
    rest = [record for record in records if record.subject not in out]
    validated = _validation(rest, [seed, _VALIDATE, run, number])
    return Fold(
        run, number,
        _part(given, rest, set(_people(rest)) - validated),
        _part(given, rest, validated),
        _part(given, records, out),
    )  # fmt: skip


def _across(
    given: Protocol, records: Sequence[Any], tested: Sequence[Any], people: list[str], seed: int, run: int
) -> Fold:
    """Train on everybody of one data set but the validation people, test on another."""
    validated = sorted(_validation(records, [seed, _VALIDATE, run, 0], at_least=2))
    spare = {validated[int(np.random.default_rng([seed, _DRAW, run]).integers(len(validated)))]}
    return Fold(
        run, 0,
        _part(given, records, set(people) - set(validated)),
        _part(given, records, set(validated) - spare),
        _part(given.target, tested, set(_people(tested))),
        spare=_part(given, records, spare),
    )  # fmt: skip


def _validation(records: Sequence[Any], seed: list[int], at_least: int = 1) -> set[str]:
    """People held out of training: the first order of a few that leaves training every class, else the first."""
    people = _people(records)
    count = min(max(at_least, round(VALIDATION_SHARE * len(people))), len(people) - 1)
    if count < at_least:
        raise ValueError(f"{len(people)} people are left to train and validate on; {at_least + 1} are needed")
    classes = {record.label for record in records} - set(NO_EMOTION)
    rng = np.random.default_rng(seed)
    orders = [{people[i] for i in rng.permutation(len(people))[:count]} for _ in range(_ORDERS)]
    return next((held for held in orders if classes <= {r.label for r in records if r.subject not in held}), orders[0])


def _people(records: Iterable[Any]) -> list[str]:
    return sorted({record.subject for record in records})


def _part(given: Protocol, records: Iterable[Any], people: set[str]) -> Part:
    own = [record for record in records if record.subject in people]
    return Part(given.dataset, tuple(_people(own)), tuple(sorted(record.id for record in own)))
