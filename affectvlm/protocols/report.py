"""`Report`: the outcomes of a protocol as numbers, and as a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from affectvlm.metrics import confusion
from affectvlm.protocols.definitions import Protocol
from affectvlm.protocols.folding import Fold
from affectvlm.protocols.outcomes import Outcomes
from affectvlm.protocols.published import CAVEATS, OF_PROTOCOL, PUBLISHED, Published
from affectvlm.protocols.scores import (
    THRESHOLD,
    bootstrap,
    by_class,
    by_intensity,
    reliability,
    scores_of,
    slices,
    spread,
)

FEW = 10
"""People below whom a group's numbers are marked as too few for a claim."""

_LISTED_FOLDS = 45
_NAMES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1", "exact": "all classes right"}


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        protocol: name, title, dataset, classes and notes, and the choices: seed, reading, repeats, everyone, partial.
        sizes: people, samples, runs, folds, trainings planned and done.
        results: decision rule → scores, intervals, spreads, tables; see `result`. Most protocols have one rule.
        folds: of each, its name, people of each part and scores by the first rule.
        missing: test samples without an answer. remarks: what was left out, and what else there is to know.
        published: figures of others, where the whole protocol was run on its own data set. caveats: of those.
        settings: what the trainings were told. trained: False where one checkpoint answered for all folds.
    """

    protocol: Mapping[str, Any]
    sizes: Mapping[str, int]
    results: Mapping[str, Mapping[str, Any]]
    folds: tuple[Mapping[str, Any], ...]
    missing: tuple[str, ...]
    remarks: tuple[str, ...]
    published: tuple[Published, ...]
    caveats: tuple[str, ...]
    settings: tuple[str, ...]
    trained: bool

    @classmethod
    def of(
        cls,
        given: Protocol,
        folds: Sequence[Fold],
        outcomes: Outcomes,
        missing: Sequence[str] = (),
        remarks: Sequence[str] = (),
        choices: Mapping[str, Any] | None = None,
        settings: Sequence[str] = (),
        comparable: bool = True,
        trained: bool = True,
        threshold: float = THRESHOLD,
    ) -> Report:
        """Score outcomes by the rules of a protocol.

        Args:
            folds: all that were planned; those without an answer are counted as not done.
            missing, remarks: to be told.
            choices: seed, reading and the like, as they were given.
            comparable: whether figures of others may stand beside ours: the whole protocol, on its own data.
            threshold: of classes of which a sample may bear several.
        """
        choices = dict(choices or {})
        results = {
            rule: result(part, limit, int(choices.get("seed", 0)))
            for rule, (part, limit) in _rules(given, outcomes, threshold).items()
        }
        done = set(zip(outcomes.runs.tolist(), outcomes.folds.tolist(), strict=True))
        rule = next(iter(_rules(given, outcomes, threshold).values()))
        whole = comparable and len(done) == len(folds) and not missing
        return cls(
            protocol={
                "name": given.name, "title": given.title, "dataset": given.dataset, "classes": list(outcomes.classes),
                "target": given.target.dataset if given.target else None, "notes": list(given.notes), **choices,
            },
            sizes={
                "people": len(set(outcomes.subjects)), "samples": len(set(outcomes.ids)), "answers": len(outcomes),
                "runs": len({fold.run for fold in folds}), "folds": len(folds), "folds done": len(done),
            },
            results=results,
            folds=tuple(_fold(fold, *rule) for fold in folds),
            missing=tuple(missing),
            remarks=tuple(remarks),
            published=PUBLISHED.get(given.name, ()) if whole else (),
            caveats=(*CAVEATS, *OF_PROTOCOL.get(given.name, ())) if whole and given.name in PUBLISHED else (),
            settings=tuple(settings),
            trained=trained,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return _plain(asdict(self))

    def markdown(self) -> str:
        """The page for people; plots are named as `evaluation` writes them."""
        lines = [f"# {self.protocol['title']}", "", *self._facts(), ""]
        for rule, found in self.results.items():
            lines += [f"## Scores: {rule}", "", *_scores(found, self.sizes), ""]
            lines += self._beside(rule, found)
            lines += _tables(found, self.protocol["classes"])
        if self.caveats:
            lines += ["## How to read published figures", "", *(f"- {caveat}" for caveat in self.caveats), ""]
        lines += self._all_folds()
        return "\n".join(lines).rstrip() + "\n"

    def _facts(self) -> list[str]:
        sizes = self.sizes
        chosen = {key: value for key, value in self.protocol.items() if key not in _OWN_FIELDS and value is not None}
        lines = [
            f"{sizes['answers']} answers about {sizes['samples']} samples of {sizes['people']} people; "
            f"{sizes['folds done']} of {sizes['folds']} folds in {sizes['runs']} runs"
            + ("" if self.trained else ", all answered by one checkpoint that was not trained here")
            + ".",
            "",
            "- " + ", ".join(f"{key} {value}" for key, value in chosen.items()),
            f"- settings: {' '.join(self.settings) or 'defaults'}",
            *(f"- {note}" for note in self.protocol["notes"]),
        ]
        if self.trained:
            held, trained = (len(self.folds[0][part]) for part in ("validation", "train"))
            lines.append(
                f"- Validation, calibration and the choice of weights use {held} of {held + trained} training people "
                "(of the first fold); those of the test are scored once, at the end."
            )
        if self.missing:
            lines.append(
                f"- **{len(self.missing)} test samples have no answer** and are in no score: "
                + ", ".join(self.missing[:5])
                + (" ..." if len(self.missing) > 5 else "")
            )
        return lines + [f"- **{remark}**" for remark in self.remarks]

    def _beside(self, rule: str, found: Mapping[str, Any]) -> list[str]:
        """Published figures, under the scores they may be compared with."""
        shown = [one for one in self.published if one.metric in found["scores"]]
        if not shown:
            return []
        lines = ["| beside published figures | metric | % | |", "|---|---|---|---|"]
        for metric in dict.fromkeys(one.metric for one in shown):
            interval = _interval(found["intervals"], metric)
            lines.append(
                f"| **this evaluation** | {_NAMES[metric]} | **{_percent(found['scores'][metric])}** | {interval} |"
            )
        lines += [f"| {p.method} | {_NAMES[p.metric]} | {100 * p.value:.2f} | {p.caveat} |" for p in shown]
        return [*lines, ""]

    def _all_folds(self) -> list[str]:
        lines = ["## Folds", ""]
        if len(self.folds) > _LISTED_FOLDS:
            return [*lines, f"All {len(self.folds)} folds with their people are in report.json.", ""]
        lines += ["| fold | samples | UAR | test people | validation people |", "|---|---|---|---|---|"]
        for fold in self.folds:
            scores = fold["scores"] or {"n": "", "uar": None}
            people = (" ".join(fold[part]) for part in ("test", "validation"))
            lines.append(f"| {fold['name']} | {scores['n']} | {_percent(scores['uar'])} | " + " | ".join(people) + " |")
        return [*lines, ""]


_OWN_FIELDS = ("name", "title", "dataset", "classes", "notes", "target")


def result(outcomes: Outcomes, threshold: float | None, seed: int) -> dict[str, Any]:
    """Everything that one decision rule gives.

    Returns:
        classes; scores (all answers together) and intervals (95 %, over people); spread_folds and spread_runs (mean
        and sample standard deviation); confusion (counts, true classes in rows; None with a threshold); by_class,
        by_intensity, slices, reliability.
    """
    single = threshold is None
    table = confusion(outcomes.labels, outcomes.predicted, len(outcomes.classes)).tolist() if single else None
    fold_numbers = np.unique(np.stack([outcomes.runs, outcomes.folds]), axis=1, return_inverse=True)[1].ravel()
    return {
        "classes": list(outcomes.classes),
        "threshold": threshold,
        "scores": scores_of(outcomes, threshold),
        "intervals": bootstrap(outcomes, threshold, seed),
        "spread_folds": spread(outcomes, fold_numbers, threshold),
        "spread_runs": spread(outcomes, outcomes.runs, threshold),
        "confusion": table,
        "by_class": by_class(outcomes, threshold),
        "by_intensity": by_intensity(outcomes) if single else [],
        "slices": slices(outcomes, threshold, seed),
        "reliability": reliability(outcomes) if single else [],
    }


def _rules(given: Protocol, outcomes: Outcomes, threshold: float) -> dict[str, tuple[Outcomes, float | None]]:
    """Name of a decision rule → the outcomes as it sees them, and the threshold where it has one."""
    if given.multilabel:
        return {
            f"each class with a share of {threshold:g}": (outcomes, threshold),
            f"each class with {threshold:g} of the largest share": (outcomes.relative(), threshold),
        }
    if given.target is None:
        return {"the largest share": (outcomes, None)}
    asked = given.target.classes
    return {
        f"the largest of {len(outcomes.classes)} shares": (outcomes, None),
        f"the larger share of {' and '.join(asked)}": (outcomes.among(asked), None),
    }


def _fold(fold: Fold, outcomes: Outcomes, threshold: float | None) -> dict[str, Any]:
    own = outcomes.where((outcomes.runs == fold.run) & (outcomes.folds == fold.number))
    parts = {name: list(getattr(fold, name).subjects) for name in ("train", "validation", "test")}
    scores = scores_of(own, threshold) if len(own) else None
    return {"name": fold.name, "run": fold.run, "fold": fold.number, **parts, "scores": scores}


def _scores(found: Mapping[str, Any], sizes: Mapping[str, int]) -> list[str]:
    heads = ["| | all together | 95 % over people | mean ± sd over folds |", "|---|---|---|---|"]
    many = sizes["runs"] > 1
    if many:
        heads = [heads[0] + " mean ± sd over runs |", heads[1] + "---|"]
    rows = []
    for key, name in _NAMES.items():
        if key not in found["scores"]:
            continue
        row = f"| {name} | {_percent(found['scores'][key])} % | {_interval(found['intervals'], key)} | "
        row += f"{_mean(found['spread_folds'].get(key))} |" + (f" {_mean(found['spread_runs'].get(key))} |" * many)
        rows.append(row)
    if "ece" in found["scores"]:
        rows.append(f"| calibration error (ECE) | {found['scores']['ece']:.3f} | | |" + " |" * many)
    return [*heads, *rows]


def _tables(found: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    lines = ["| class | n | recall | precision | F1 |", "|---|---|---|---|---|"]
    for row in found["by_class"]:
        values = " | ".join(_percent(row[key]) for key in ("recall", "precision", "f1"))
        lines.append(f"| {row['class']} | {row['n']} | {values} |")
    lines.append("")
    if found["confusion"] is not None:
        names = found["classes"]
        lines += ["| true \\ said | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        pairs = zip(names, found["confusion"], strict=True)
        lines += [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in pairs]
        lines.append("")
    if found["by_intensity"]:
        names = found["classes"]
        lines += ["| intensity | n | accuracy | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
        for row in found["by_intensity"]:
            each = " | ".join(_percent(row["classes"].get(name, {}).get("accuracy")) for name in names)
            lines.append(f"| {row['intensity']:.2f} | {row['n']} | {_percent(row['accuracy'])} | {each} |")
        lines.append("")
    if found["slices"]:
        lines += ["| people | number | answers | UAR | 95 % |", "|---|---|---|---|---|"]
        for row in found["slices"]:
            few = " (too few for a claim)" if row["people"] < FEW else ""
            low_high = _interval({"uar": row["uar_interval"]} if row["uar_interval"] else None, "uar")
            lines.append(
                f"| {row['group'].replace('_', ' ')}: {row['value']}{few} | {row['people']} | {row['n']} | "
                f"{_percent(row['uar'])} | {low_high} |"
            )
        lines.append("")
    return lines


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _interval(intervals: Mapping[str, Sequence[float]] | None, key: str) -> str:
    if not intervals or key not in intervals:
        return ""
    low, high = intervals[key]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _mean(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return ""
    return _percent(values["mean"]) + ("" if values["sd"] is None else f" ± {100 * values['sd']:.1f}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value
