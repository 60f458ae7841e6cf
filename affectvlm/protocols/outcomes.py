"""`Outcomes`: what a model said of the test samples of all folds, beside what is true, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Outcomes:
    """n answers; a sample has one in each run.

    Attributes:
        classes: K names in the order of the probabilities.
        ids, subjects: n texts. runs, folds: (n,) int64.
        labels: (n,) int64 into classes: the true class, of several the first.
        truths: (n, K) bool, every class that a sample bears.
        probabilities: (n, K) float64.
        intensity: (n,) float64, NaN where it is not known.
        metadata: n mappings: what is known of the subject.

    Raises:
        ValueError: arrays that do not belong together, or probabilities that are none.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    runs: np.ndarray
    folds: np.ndarray
    labels: np.ndarray
    truths: np.ndarray
    probabilities: np.ndarray
    intensity: np.ndarray
    metadata: tuple[Mapping[str, str], ...]

    def __post_init__(self) -> None:
        n, k = len(self.ids), len(self.classes)
        shapes = {
            "subjects": (len(self.subjects),), "metadata": (len(self.metadata),), "runs": self.runs.shape,
            "folds": self.folds.shape, "labels": self.labels.shape, "intensity": self.intensity.shape,
        }  # fmt: skip
        if wrong := {name: shape for name, shape in shapes.items() if shape != (n,)}:
            raise ValueError(f"{n} answers with {wrong}; one of each for every answer is needed")
        if self.truths.shape != (n, k) or self.probabilities.shape != (n, k):
            found = f"{self.truths.shape} and {self.probabilities.shape}"
            raise ValueError(f"truths and probabilities are {found}; ({n}, {k}) is needed")
        shares = self.probabilities
        if not np.isfinite(shares).all() or (shares < 0).any() or (shares > 1 + 1e-6).any():
            raise ValueError("probabilities lie outside of 0 to 1; shares of one are needed")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> np.ndarray:
        """(n,) int64: the class with the largest probability."""
        return self.probabilities.argmax(axis=1)

    @property
    def right(self) -> np.ndarray:
        """(n,) bool: the predicted class is the true one."""
        return self.predicted == self.labels

    @classmethod
    def of(cls, folds: Iterable[tuple[Any, Mapping[str, Any]]], records: Iterable[Any]) -> tuple[Outcomes, list[str]]:
        """Join the answers of every fold with the records they are about.

        Args:
            folds: a `Fold`, and its answers: {"classes": names, "faces": [{"id", "label", "probabilities"}]}. The
                label is what the training took the sample for, and has to be ours.
            records: all records that may be tested.

        Returns:
            The outcomes, and ids of test samples that got no answer ("run000-fold03: ID").

        Raises:
            ValueError: classes that differ among folds or lack a label; a sample that is answered twice, is not in the
                test part, or has another label or subject than its record.
        """
        known = {record.id: record for record in records}
        rows: list[tuple[Any, ...]] = []
        missing: list[str] = []
        classes: tuple[str, ...] | None = None
        for fold, answers in folds:
            here = tuple(answers["classes"])
            classes = classes or here
            if here != classes:
                raise ValueError(f"{fold.name} has the classes {here}, others {classes}; the same are needed")
            found = _checked(fold, answers["faces"], known, classes)
            for name in fold.test.ids:
                record = known[name]
                if name in found:
                    rows.append((fold, record, found[name]))
                elif record.label in classes:
                    missing.append(f"{fold.name}: {name}")
        if not rows:
            raise ValueError("not one test sample has an answer; train the folds first")
        return cls._from_rows(classes, rows), missing

    @classmethod
    def _from_rows(cls, classes: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> Outcomes:
        number = {name: place for place, name in enumerate(classes)}
        truths = np.zeros((len(rows), len(classes)), bool)
        for row, (_, record, _) in enumerate(rows):
            for name in (record.label, *getattr(record, "also", ())):
                if name not in number:
                    raise ValueError(f"{record.id} is labelled {name}; the classes are {', '.join(classes)}")
                truths[row, number[name]] = True
        return cls(
            classes,
            tuple(record.id for _, record, _ in rows),
            tuple(record.subject for _, record, _ in rows),
            np.array([fold.run for fold, _, _ in rows], np.int64),
            np.array([fold.number for fold, _, _ in rows], np.int64),
            np.array([number[record.label] for _, record, _ in rows], np.int64),
            truths,
            np.array([shares for _, _, shares in rows], np.float64).reshape(len(rows), len(classes)),
            np.array([np.nan if r.intensity is None else r.intensity for _, r, _ in rows], np.float64),
            tuple(dict(getattr(record, "metadata", {}) or {}) for _, record, _ in rows),
        )

    def where(self, mask: np.ndarray) -> Outcomes:
        """The answers where `mask` (n,) bool is True."""
        rows = np.flatnonzero(mask)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows), subjects=tuple(self.subjects[i] for i in rows),
            runs=self.runs[rows], folds=self.folds[rows], labels=self.labels[rows], truths=self.truths[rows],
            probabilities=self.probabilities[rows], intensity=self.intensity[rows],
            metadata=tuple(self.metadata[i] for i in rows),
        )  # fmt: skip

    def relative(self) -> Outcomes:
        """The same with every share divided by the largest of its sample: 1 for the class that is named first.

        Shares of a softmax sum to one, so two classes at once leave at most a half to each.
        """
        largest = self.probabilities.max(axis=1, keepdims=True)
        return replace(self, probabilities=self.probabilities / np.where(largest > 0, largest, 1))

    def among(self, classes: Sequence[str]) -> Outcomes:
        """The same samples asked for some of the classes only: their shares made to sum to one.

        Raises:
            ValueError: a class that is not there, or a sample of another one.
        """
        if unknown := [name for name in classes if name not in self.classes]:
            raise ValueError(f"class {unknown[0]!r} is not among {', '.join(self.classes)}")
        columns = [self.classes.index(name) for name in classes]
        place = {column: row for row, column in enumerate(columns)}
        if outside := sorted({self.classes[label] for label in self.labels.tolist() if label not in place}):
            raise ValueError(f"a sample is labelled {outside[0]}; only {', '.join(classes)} are possible here")
        shares = self.probabilities[:, columns]
        total = shares.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / len(columns))
        labels = np.array([place[label] for label in self.labels.tolist()], np.int64)
        return replace(
            self, classes=tuple(classes), probabilities=shares, labels=labels, truths=self.truths[:, columns]
        )


def _checked(
    fold: Any, faces: Iterable[Mapping[str, Any]], known: Mapping[str, Any], classes: tuple[str, ...]
) -> dict[str, list[float]]:
    """id → probabilities of a fold's answers, each of a test sample, once, and about the label that we know."""
    tested, found = set(fold.test.ids), {}
    for face in faces:
        name, shares = face["id"], face["probabilities"]
        if name in found:
            raise ValueError(f"{fold.name}: {name!r} is answered twice; one prediction a sample is needed")
        if name not in tested or name not in known:
            raise ValueError(f"{fold.name}: {name!r} is answered but not in its test part")
        record = known[name]
        if face["label"] != record.label:
            raise ValueError(f"{fold.name}: {name!r} was taken for {face['label']}, but is labelled {record.label}")
        subject = face.get("subject", record.subject)
        if subject != record.subject and not subject.endswith(f"-{record.subject}"):
            raise ValueError(f"{fold.name}: {name!r} was taken for {subject}, but shows {record.subject}")
        if len(shares) != len(classes):
            raise ValueError(f"{fold.name}: {name!r} has {len(shares)} probabilities for {len(classes)} classes")
        found[name] = list(shares)
    return found
