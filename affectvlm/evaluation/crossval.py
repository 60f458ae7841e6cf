"""`evaluate`: a protocol from the folder of a data set to its report, fold by fold.

    OUTPUT/
        plan.json                       what was asked for; the same command goes on, another one is refused
        run000-fold00/                  a run folder, see `affectvlm.runs`, with the fold's split.json
            answers.json                what its model said of the test, where that is another data set
        answers.json                    the same of a checkpoint that answered without training
        report.json, report.md, *.png

A fold that is done is never done again. Its weights are deleted then, unless they are to be kept: a hundred repeats of
ten folds would fill a disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from affectvlm.datasets import Index, index_dataset, parse_option
from affectvlm.datasets.benchmark import synthetic_name
from affectvlm.evaluation.answers import answer, answer_as_trained
from affectvlm.evaluation.fleet import Training, train_all
from affectvlm.evaluation.plots import draw
from affectvlm.protocols import Fold, Outcomes, Protocol, Report, folds, protocol, select
from affectvlm.protocols.scores import THRESHOLD
from affectvlm.runs import BEST, LAST, MODEL, PREDICTIONS, RunError

log = logging.getLogger(__name__)

PLAN, SPLIT, ANSWERS, REPORT_JSON, REPORT_MD = "plan.json", "split.json", "answers.json", "report.json", "report.md"
PARTIAL = "answers.jsonl"
OURS = (
    "run.name=",
    "run.folder=",
    "data.dataset=",
    "data.folder=",
    "data.split=",
    "data.sources=",
    "data.train_faces=",
)
"""Settings that the evaluation itself decides."""


@dataclass(frozen=True)
class Request:
    """What is to be evaluated, and how.

    Attributes:
        protocol: its name, see `protocols`. folder: of the data set. output: for everything that is written.
        settings: section.key=value for `train.py`, the same for all folds.
        dataset: the layout of the folder; empty takes the protocol's.
        target: the folder that is tested on, where the protocol tests on another data set.
        seed, repeats, reading, everyone: see `protocols.folds`; 0 repeats makes as many as the literature.
        partial: go on with fewer people, samples or finished folds; the report says so.
        exclude: a text file of known faults, left out of the data set.
        checkpoint: a folder: it answers about all samples, and nothing is trained. "default" is the shipped one.
        jobs: trainings at a time. fold: number of the only fold to do, None does all and writes the report.
        collect: only write the report. keep_models: leave the weights of finished folds.
        threshold: of classes of which a sample may bear several.
    """

    protocol: str
    folder: str | Path
    output: str | Path
    settings: Sequence[str] = ()
    dataset: str = ""
    target: str | Path | None = None
    seed: int = 0
    repeats: int = 0
    reading: str = "B"
    everyone: bool = False
    partial: bool = False
    exclude: str | Path | None = None
    checkpoint: str | Path | None = None
    jobs: int = 1
    fold: int | None = None
    collect: bool = False
    keep_models: bool = False
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        if decided := [given for given in self.settings if given.startswith(OURS)]:
            raise ValueError(f"{', '.join(decided)}: the evaluation itself names runs, data and splits")
        if wrong := [given for given in self.settings if "=" not in given]:
            raise ValueError(f"{wrong[0]!r} is not section.key=value")
        if self.jobs < 1 or self.repeats < 0 or not 0 < self.threshold < 1:
            raise ValueError(
                f"{self.jobs} jobs, {self.repeats} repeats, threshold {self.threshold}; 1 or more, 0 or more, and a "
                "share are needed"
            )
        if (protocol(self.protocol).target is None) != (self.target is None):
            wanted = "the folder that it is tested on" if self.target is None else "no other folder to test on"
            raise ValueError(f"{self.protocol} needs {wanted} (--target)")
        trains = [given for given in self.settings if not given.startswith(("data.cache=", "data.workers="))]
        if self.checkpoint and (trains or self.fold is not None):
            raise ValueError("a checkpoint answers without training; --fold and settings but data.cache are for those")


def evaluate(request: Request) -> Report | None:
    """Do what is left of an evaluation; the report, or None where only one fold was asked for.

    Raises:
        ValueError: the data set has not the protocol's sizes, a request that cannot be, or a leak: nothing is trained.
        RunError: the output folder belongs to another evaluation, a training failed, or folds are missing.
    """
    work = _Evaluation(request)
    work.open()
    if request.checkpoint:
        if not request.collect:
            work.ask_checkpoint()
    elif not request.collect:
        work.train()
    return None if request.fold is not None else work.report()


class _Evaluation:
    """A request with what follows from it: records, folds, places."""

    def __init__(self, request: Request) -> None:
        self.request = request
        named = protocol(request.protocol)
        self.dataset = request.dataset or named.dataset
        self.is_native = self.dataset == named.dataset
        self.protocol: Protocol = replace(named, dataset=self.dataset)
        self.output = Path(request.output)
        self.cache = _setting(request.settings, "data.cache", "cache")
        self.workers = int(_setting(request.settings, "data.workers", "0"))

    @cached_property
    def index(self) -> Index:
        """The data set that is trained on."""
        return _indexed(self.dataset, self.request.folder, self.request)

    @cached_property
    def target(self) -> Index | None:
        """The data set that is tested on, where it is another one."""
        if self.protocol.target is None:
            return None
        return _indexed(self.protocol.target.dataset, self.request.target, self.request)

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        request = self.request
        return folds(
            self.protocol, self.index.records, request.seed, repeats=request.repeats or None, reading=request.reading,
            everyone=request.everyone, partial=request.partial, target=self.target.records if self.target else (),
        )  # fmt: skip

    @property
    def tested(self) -> Index:
        return self.target or self.index

    @cached_property
    def remarks(self) -> list[str]:
        """What selection left out, and what the readers of the data set had to say in short."""
        remarks = list(select(self.protocol, self.index.records, self.request.partial)[1])
        if self.target:
            remarks += select(self.protocol.target, self.target.records, self.request.partial)[1]
        for index in (self.index, *([self.target] if self.target else [])):
            if index.excluded:
                remarks.append(f"{len(index.excluded)} files or folders of {index.root.name} were left out")
        return remarks

    def open(self) -> None:
        """Make the output folder, or see that it is that of this evaluation; say what is to come."""
        runs = len({fold.run for fold in self.folds})  # wrong sizes end here, before anything is written
        choices, place = self._choices(), self.output / PLAN
        if place.is_file():
            before = _read(place)
            differ = [key for key in choices if key != "partial" and before.get(key) != choices[key]]
            if differ:
                told = "; ".join(f"{key} was {before.get(key)!r}, now {choices[key]!r}" for key in differ[:3])
                raise RunError(f"{self.output.name} holds another evaluation ({told}); choose another --output")
        elif self.request.collect:
            raise RunError(f"there is no evaluation in {self.output.name}; nothing to collect")
        else:
            _write(place, {**choices, "repeats": self.repeats})
        people = len({who for fold in self.folds for who in fold.test.subjects})
        log.info("%s", self.protocol.title)
        log.info("%d folds in %d runs; %d people are tested", len(self.folds), runs, people)
        for remark in self.remarks:
            log.warning("%s", remark)

    @property
    def repeats(self) -> int:
        return self.request.repeats or self.protocol.repeats

    def _choices(self) -> dict[str, Any]:
        """What two calls must have in common to be one evaluation. More repeats only add to it."""
        request = self.request
        parts = [self.index, *([self.target] if self.target else [])]
        texts = [[r.id, r.subject, r.label, r.intensity, list(r.also)] for index in parts for r in index.records]
        return {
            "protocol": self.protocol.name, "dataset": self.dataset, "seed": request.seed, "reading": request.reading,
            "everyone": request.everyone, "partial": request.partial, "settings": list(request.settings),
            "checkpoint": None if request.checkpoint is None else Path(request.checkpoint).name,
            "records": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16],
        }  # fmt: skip

    def train(self) -> None:
        """Run the trainings that are left: of all folds, or of one."""
        chosen = self.folds
        if self.request.fold is not None:
            if not 0 <= self.request.fold < len(self.folds):
                raise ValueError(f"there is no fold {self.request.fold}; there are 0 to {len(self.folds) - 1}")
            chosen = (self.folds[self.request.fold],)
        by_name = {fold.name: fold for fold in chosen}
        trainings = [self._training(fold) for fold in chosen]  # all splits are checked before anything is trained
        train_all(trainings, self.request.jobs, lambda training: self._finish(by_name[training.name]))

    def _training(self, fold: Fold) -> Training:
        """The training of a fold, its split written down; a split that is there already has to be the same."""
        folder = self.output / fold.name
        place, split = folder / SPLIT, fold.split()
        check_split(fold.name, split, self.index.records)
        if place.is_file():
            if _read(place) != split:
                raise RunError(f"{fold.name}/{SPLIT} is not the split of this fold; it was changed, or the data were")
        else:
            _write(place, split)
        settings = [
            "data.sources=[folder]", "data.train_faces=[0]", f"data.dataset={self.dataset}",
            f"data.folder={self.request.folder}", f"data.split={place}", f"prompts.file={self.protocol.prompts}",
        ]  # fmt: skip
        return Training(folder, (*settings, *self.request.settings))

    def _finish(self, fold: Fold) -> None:
        """After a training: have the other data set answered, see that the answers are whole, tidy up."""
        folder = self.output / fold.name
        if self.target and not (folder / ANSWERS).is_file():
            _write(folder / ANSWERS, answer(folder / MODEL, self.target, fold.test.ids, self.cache, self.workers))
        Outcomes.of([(fold, self._answers(fold))], self.tested.records)
        if not self.request.keep_models:
            for name in (LAST, BEST):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / MODEL, ignore_errors=True)

    def ask_checkpoint(self) -> None:
        """Have a checkpoint answer about every sample that is tested, once."""
        place = self.output / ANSWERS
        if place.is_file():
            return
        checkpoint = None if str(self.request.checkpoint) == "default" else self.request.checkpoint
        asked = sorted({one for fold in self.folds for one in fold.test.ids})
        partial = self.output / PARTIAL
        _write(place, answer_as_trained(checkpoint, self.tested, asked, self.cache, partial, self.workers))
        (self.output / PARTIAL).unlink(missing_ok=True)

    def _answers(self, fold: Fold) -> Mapping[str, Any]:
        """What was said of the test part of a fold.

        Raises:
            RunError: nothing was, or it cannot be read.
        """
        if self.request.checkpoint:
            everything = _read(self.output / ANSWERS)
            tested = set(fold.test.ids)
            return {**everything, "faces": [face for face in everything["faces"] if face["id"] in tested]}
        return _read(self.output / fold.name / (ANSWERS if self.target else PREDICTIONS))

    def report(self) -> Report:
        """Score what was answered, write the report and its pictures.

        Raises:
            RunError: folds are missing, and `partial` does not say to go on without them.
        """
        done, open_ = [], []
        for fold in self.folds:
            there = self.request.checkpoint or Training(self.output / fold.name, ()).state == "finished"
            (done if there else open_).append(fold)
        if open_ and not (self.request.partial and done):
            raise RunError(
                f"{len(open_)} of {len(self.folds)} folds are not finished, such as {open_[0].name}; the same command "
                "without --collect does them, --partial reports without them"
            )
        outcomes, missing = Outcomes.of(((fold, self._answers(fold)) for fold in done), self.tested.records)
        request, synthetic = self.request, synthetic_name(self.tested.root)
        remarks = [*self.remarks, *([f"{len(open_)} folds are not finished"] if open_ else [])]
        if synthetic:
            remarks.append(f"computer-generated faces ({synthetic}): published figures are of real ones")
        whole = self.is_native and not (open_ or missing or synthetic or request.partial)
        choices = self._choices()
        shown = ("seed", "reading", "everyone", "partial", "checkpoint")
        report = Report.of(
            self.protocol, self.folds, outcomes, missing, remarks,
            choices={key: choices[key] for key in shown if self._matters(key)} | {"repeats": self.repeats},
            settings=request.settings, comparable=whole, trained=not request.checkpoint, threshold=request.threshold,
        )  # fmt: skip
        _write(self.output / REPORT_JSON, report.to_dict())
        pictures = draw(next(iter(report.results.values())), self.output)
        text = report.markdown() + "\n" + " ".join(f"![{name[:-4]}]({name})" for name in pictures) + "\n"
        _write_text(self.output / REPORT_MD, text)
        return report

    def _matters(self, choice: str) -> bool:
        draws = self.protocol.drawn is not None
        return {"reading": draws and not self.request.everyone, "everyone": draws}.get(choice, True)


def check_split(name: str, split: Mapping[str, Sequence[str]], records: Iterable[Any]) -> None:
    """That nobody is in two parts of a split, looked up in the records and not in the fold.

    Raises:
        ValueError: somebody is.
    """
    subject_of = {record.id: record.subject for record in records}
    seen: dict[str, str] = {}
    for part, ids in split.items():
        for one in ids:
            first = seen.setdefault(subject_of[one], part)
            if first != part:
                raise ValueError(f"{name} leaks: {subject_of[one]} is in {first} and in {part}")


def _indexed(dataset: str, folder: str | Path, request: Request) -> Index:
    """The data set as its trainings will index it: `data.options` count for both."""
    given = yaml.safe_load(_setting(request.settings, "data.options", "[]")) or []
    options = dict(map(parse_option, given if isinstance(given, list) else [given]))
    options |= {} if request.exclude is None else {"exclude": request.exclude}
    return index_dataset(dataset, folder, **options)


def _setting(settings: Sequence[str], name: str, default: str) -> str:
    """The last value of a setting among section.key=value."""
    return next((one.partition("=")[2] for one in reversed(settings) if one.startswith(name + "=")), default)


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{file.parent.name}/{file.name} cannot be read ({error}); delete its folder to do it again"
        ) from None


def _write(file: Path, content: Any) -> None:
    _write_text(file, json.dumps(content, indent=2) + "\n")


def _write_text(file: Path, text: str) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(file)
