"""`PROTOCOLS`: which samples of a data set count, how many there must be, and how its people are divided.

Sizes and readings are those of the literature on posed 3D and 4D expressions; where it can be read in two ways, both
are there under names of their own, and the report says which one a number was made with.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from affectvlm.emotions import BP4D, EKMAN, FOURDME

NO_EMOTION = ("neutral", "no face")
"""Labels that may be trained on, but are not scored."""

BP4D_TASKS = dict(enumerate(BP4D, 1))
"""Task of BP4D-Spontaneous → the emotion it is meant to elicit."""

BP4D_PLUS_TASKS = dict(
    enumerate(
        ("happy", "surprise", "sad", "startle", "skepticism", "embarrassment", "fear", "pain", "angry", "disgust"), 1
    )
)
"""The same of BP4D+, whose tasks are others: its task 8 is pain."""

_TASKS = {"bp4d": BP4D_TASKS, "bp4dplus": BP4D_PLUS_TASKS}
_TASK_IN_ID = re.compile(r"(?:^|[/_])T(\d{1,2})(?=[/_.]|$)", re.IGNORECASE)
_BOSPHORUS_ID = re.compile(r"_(?P<group>[A-Z]+)_(?P<code>[A-Z0-9]+)_(?P<repeat>\d+)(?:\.[A-Z0-9]+)?$", re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True)
class Protocol:
    """One way to evaluate on a data set.

    Attributes:
        name, title: for commands, and for people. dataset: name of its layout, as indexers are called.
        classes: what is told apart, in order; empty takes the labels that are found.
        people, per_person: how many there are of both in the whole data set, after selection; None where that is not
            fixed. complete_people: whoever lacks a sample is left out, before people are counted.
        drawn: so many people are drawn at random; None takes all.
        folds: how many; None leaves one person out at a time. 0: one training on everybody, tested on `target`.
        repeats: independent runs that the literature makes of it.
        levels: intensities that count, 1 (slight) to 4 (strong); empty takes all.
        tasks: number of a task → label, for data sets that are labelled by tasks.
        multilabel: a sample may bear several classes, each of which is a yes or a no; `mixed` says whether samples with
            more than one label are kept ("keep") or left out ("drop") where it is False.
        prompts: name of the prompt set with these classes.
        target: what is tested on, where that is another data set.
        notes: what a reader of its numbers has to know.
    """

    name: str
    title: str
    dataset: str
    classes: tuple[str, ...] = EKMAN
    people: int | None = None
    per_person: int | None = None
    complete_people: bool = False
    drawn: int | None = None
    folds: int | None = 10
    repeats: int = 1
    levels: tuple[int, ...] = ()
    tasks: Mapping[int, str] | None = None
    multilabel: bool = False
    mixed: str = "keep"
    prompts: str = "ekman"
    target: Protocol | None = None
    notes: tuple[str, ...] = ()

    @property
    def expected(self) -> int | None:
        """Samples of the whole data set that count; None where that is not fixed."""
        return None if self.people is None or self.per_person is None else self.people * self.per_person


_SPREAD = "Runs share people, so their spread is no standard error over people; the interval over people is given too."
_TASK_LABELS = "Labels are the emotions that tasks were meant to elicit, not verified displays."
_SUBSET1 = Protocol(
    "bu3dfe-subset1", "BU-3DFE subset I: six expressions, the two higher intensities, 60 of 100 people, ten folds",
    "bu3dfe", people=100, per_person=12, drawn=60, repeats=100, levels=(3, 4), notes=(_SPREAD,),
)  # fmt: skip
_BP4D = Protocol(
    "bp4d", "BP4D-Spontaneous: eight tasks as labels, ten folds", "bp4d", BP4D, people=41,
    per_person=8, tasks=BP4D_TASKS, prompts="bp4d", notes=(_TASK_LABELS,),
)  # fmt: skip
_SIX_TASKS = {task: name for task, name in BP4D_TASKS.items() if name in EKMAN}
_TARGET_TASKS = {1: "happy", 8: "disgust"}
_MICRO = Protocol(
    "4dme", "4DME: five classes, of which a clip may bear several, one person left out at a time", "4dme", FOURDME,
    folds=None, multilabel=True, prompts="4dme",
    notes=("Each class is a yes or a no at a threshold fixed beforehand; all folds are pooled before scoring.",),
)  # fmt: skip

PROTOCOLS: dict[str, Protocol] = {
    one.name: one
    for one in (
        _SUBSET1,
        Protocol(
            "bu3dfe-subset2", "BU-3DFE subset II: six expressions, all four intensities, 100 people, ten folds",
            "bu3dfe", people=100, per_person=24, levels=(1, 2, 3, 4),
        ),
        Protocol(
            "bosphorus", "Bosphorus: 60 of the 65 people who show all six expressions, first scan of each, ten folds",
            "bosphorus", people=65, per_person=6, complete_people=True, drawn=60, repeats=100, notes=(_SPREAD,),
        ),
        Protocol(
            "bu4dfe", "BU-4DFE: six expressions, one decision for a whole sequence, 101 people, ten folds",
            "bu4dfe", people=101, per_person=6,
        ),
        _BP4D,
        replace(
            _BP4D, name="bp4d-six", title="BP4D-Spontaneous: the six tasks of basic emotions, ten folds",
            classes=EKMAN, per_person=6, tasks=_SIX_TASKS, prompts="ekman",
        ),
        Protocol(
            "bu4dfe-to-bp4d", "Trained on all of BU-4DFE, tested on tasks 1 (happy) and 8 (disgust) of BP4D", "bu4dfe",
            people=101, per_person=6, folds=0,
            target=replace(
                _BP4D, name="bp4d-happy-disgust", title="BP4D tasks 1 and 8", classes=tuple(_TARGET_TASKS.values()),
                per_person=2, tasks=_TARGET_TASKS,
            ),
            notes=(
                _TASK_LABELS, "Both rules are given: the largest of six shares, and the larger of the two.",
                "Full sequences; one of the 82 is 1.2 points.",
                "Of the 101 people of BU-4DFE, 90 are trained on, 10 validated on, and one is neither.",
            ),
        ),
        _MICRO,
        replace(
            _MICRO, name="4dme-single", title="4DME: five classes, clips with one label, one person left out at a time",
            multilabel=False, mixed="drop", notes=("Clips with more than one label are left out.",),
        ),
        replace(
            _MICRO, name="4dme-first", title="4DME: five classes, first label of a clip, one person left out at a time",
            multilabel=False, notes=("Of clips with more than one label, the first counts.",),
        ),
    )
}  # fmt: skip
"""By name; `protocol` also knows kfold:N."""


def protocol(name: str) -> Protocol:
    """The protocol of a name: one of PROTOCOLS, or kfold:N for N folds of any data set with subjects.

    Raises:
        ValueError: there is none.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    kind, _, number = name.partition(":")
    if kind == "kfold" and number.isdigit() and int(number) >= 2:
        return Protocol(name, f"{int(number)} folds over people", "folder", (), folds=int(number))
    raise ValueError(f"protocol {name!r} is unknown; one of {', '.join(PROTOCOLS)} or kfold:N (N from 2) is needed")


def task_of(dataset: str, label: str) -> int:
    """Number of the task that elicits an emotion in "bp4d" or "bp4dplus".

    Raises:
        ValueError: none does, or another data set.
    """
    for task, name in _tasks(dataset).items():
        if name == label:
            return task
    raise ValueError(f"no task of {dataset} elicits {label!r}; there are {', '.join(_tasks(dataset).values())}")


def check_task(dataset: str, task: int, label: str) -> None:
    """That a task elicits an emotion; BP4D and BP4D+ number them differently.

    Raises:
        ValueError: it elicits another; the message says which.
    """
    found = _tasks(dataset).get(task)
    if found is None:
        raise ValueError(f"{dataset} has no task {task}; there are 1 to {len(_tasks(dataset))}")
    if found != label:
        raise ValueError(
            f"task {task} of {dataset} elicits {found}, not {label}; {label} is task {task_of(dataset, label)} there"
        )


def select(given: Protocol, records: Iterable[Any], partial: bool = False) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The records that count, sorted by id, and remarks on what was left out or is missing.

    Args:
        records: objects with id, subject, label and intensity; `also` (further labels) and `source` where there are.
        partial: go on with fewer people or samples than the whole data set has; otherwise that is refused.

    Raises:
        ValueError: other sizes than expected (what was found and what is expected are said), samples that appear twice,
            a label that contradicts its task, or nothing at all.
    """
    records = sorted(records, key=lambda record: record.id)
    if twice := [name for name, count in Counter(record.id for record in records).items() if count > 1]:
        raise ValueError(f"{given.name}: two records have the id {twice[0]!r}; ids are unique")
    chosen, remarks = [record for record in records if _counts(given, record)], []
    if given.mixed == "drop":
        mixed = [record for record in chosen if getattr(record, "also", ())]
        chosen = [record for record in chosen if not getattr(record, "also", ())]
        if mixed:
            remarks.append(f"{len(mixed)} samples with more than one label were left out")
    if given.complete_people:
        chosen, left_out = _complete(given, chosen)
        if left_out:
            remarks.append(f"{len(left_out)} people lack a class and were left out: {_listed(left_out)}")
    if not chosen:
        labels = ", ".join(f"{name} {count}" for name, count in sorted(Counter(r.label for r in records).items()))
        raise ValueError(f"{given.name}: none of {len(records)} records counts (labels: {labels or 'none'})")
    _check_twice(given, chosen)
    remarks += _check_sizes(given, chosen, partial)
    return tuple(chosen), tuple(remarks)


def level(intensity: float | None) -> int | None:
    """1 to 4 of an intensity of 0.25 to 1; None where it is not known or lies between levels."""
    if intensity is None:
        return None
    nearest = round(4 * intensity)
    return nearest if 1 <= nearest <= 4 and abs(4 * intensity - nearest) < 0.01 else None


def _counts(given: Protocol, record: Any) -> bool:
    """Whether a record is one of the protocol's samples."""
    if given.tasks is not None and not _of_task(given, record):
        return False
    if given.classes and record.label not in given.classes:
        return False
    if given.levels:
        found = level(record.intensity)
        if found is None:
            raise ValueError(f"{given.name}: {record.id} has the intensity {record.intensity}; 0.25, 0.5, 0.75 or 1")
        return found in given.levels
    return given.dataset != "bosphorus" or _first_scan(record)


def _of_task(given: Protocol, record: Any) -> bool:
    match = _TASK_IN_ID.search(record.id)
    if match is None:
        raise ValueError(f"{given.name}: the id {record.id!r} names no task; T1 to T8 as a folder is needed")
    task, source = int(match[1]), _dataset_of(record)
    if source == "bp4d" and task not in BP4D_TASKS:
        raise ValueError(
            f"{given.name}: {record.id!r} is task {task}; BP4D has 8, so this is BP4D+, whose tasks differ"
        )
    if task not in given.tasks:
        return False
    check_task(source, task, given.tasks[task])
    if record.label != given.tasks[task]:
        raise ValueError(f"{given.name}: {record.id!r} is labelled {record.label}; task {task} is {given.tasks[task]}")
    return True


def _dataset_of(record: Any) -> str:
    source = getattr(record, "source", "bp4d").casefold().replace("+", "plus")
    return "bp4dplus" if re.sub(r"[\W_]", "", source) in ("bp4dplus", "bp4dp") else "bp4d"


def _tasks(dataset: str) -> Mapping[int, str]:
    if dataset not in _TASKS:
        raise ValueError(f"data set {dataset!r} has no table of tasks; bp4d or bp4dplus is needed")
    return _TASKS[dataset]


def _first_scan(record: Any) -> bool:
    """Of Bosphorus: an emotional scan (group E), the first of its kind."""
    match = _BOSPHORUS_ID.search(record.id)
    if match is None:
        raise ValueError(f"bosphorus: the id {record.id!r} is not bsNNN_GROUP_CODE_REPEAT")
    return match["group"].upper() == "E" and int(match["repeat"]) == 0


def _complete(given: Protocol, records: Sequence[Any]) -> tuple[list[Any], list[str]]:
    labels: dict[str, set[str]] = defaultdict(set)
    for record in records:
        labels[record.subject].add(record.label)
    lacking = sorted(subject for subject, own in labels.items() if own < set(given.classes))
    return [record for record in records if record.subject not in set(lacking)], lacking


def _cell(given: Protocol, record: Any) -> tuple[Any, ...]:
    """What a person has only one sample of."""
    return (record.label, level(record.intensity)) if given.levels else (record.label,)


def _check_twice(given: Protocol, records: Sequence[Any]) -> None:
    if given.per_person is None:
        return
    first: dict[tuple[Any, ...], Any] = {}
    for record in records:
        other = first.setdefault((record.subject, *_cell(given, record)), record)
        if other is not record:
            raise ValueError(
                f"{given.name}: {other.id!r} and {record.id!r} are both {_said(_cell(given, record))} of "
                f"{record.subject}; one is needed"
            )


def _check_sizes(given: Protocol, records: Sequence[Any], partial: bool) -> list[str]:
    """Remarks on sizes that differ, where that is allowed."""
    people = {record.subject for record in records}
    remarks = []
    if given.people is not None and len(people) != given.people:
        remarks.append(f"{len(people)} people were found; {given.people} are expected")
    if given.per_person is not None:
        cells = [(name, step) for name in given.classes for step in given.levels] or [(name,) for name in given.classes]
        there = {(record.subject, *_cell(given, record)) for record in records}
        missing = [f"{who} {_said(cell)}" for who in sorted(people) for cell in cells if (who, *cell) not in there]
        if missing:
            remarks.append(f"{len(missing)} samples are missing: {_listed(missing)}")
    too_many = given.people is not None and len(people) > given.people
    if remarks and (too_many or not partial):
        expected = "" if given.expected is None else f" of {given.expected} expected"
        advice = "" if too_many else "; to go on with fewer, say so (--partial), and the report will"
        raise ValueError(f"{given.name}: {len(records)} samples{expected}: {'; '.join(remarks)}{advice}")
    return remarks


def _said(cell: tuple[Any, ...]) -> str:
    return cell[0] if len(cell) == 1 else f"{cell[0]} level {cell[1]}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
