"""Learning without labels, measured: what a model knows of faces from elsewhere before and after adapting to them.

    scores = measure(model, prompts, test, probe_on=train)     # prompts, clusters, linear probe
    recovered(before, after, supervised)                       # share of the gap to training with labels
    adapt("scans", "checkpoints/affectvlm-compact")            # python -m affectvlm adapt: a folder of the user's own
    compare("runs/adaptation", start, settings, seeds)         # all methods over seeds, before, after, and the curve

Labels are read here, to score, and nowhere in training: what methods are given has none (`methods.unlabelled`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affectvlm.config import METHODS
from affectvlm.evaluation.fleet import Training, train_all
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM
from affectvlm.runs import MODEL, RunError, events, free_name

if TYPE_CHECKING:
    from affectvlm.methods.clustering import PseudoLabels
    from affectvlm.methods.rounds import Observe
    from affectvlm.methods.unlabelled import Unlabelled
    from affectvlm.model import Card, MultiviewCLIP
    from affectvlm.prompts import PromptSet

ADAPTATION = "adaptation.json"
"""File of a run: what `measure` gave before and after."""

SCORES = ("prompt", "clustering", "probe")

PROBED = 1000
"""Most faces a linear probe is fitted on."""

GENTLE = ("optim.lr=3e-4", "optim.ema=0.9")
"""Settings for weights that are trained already."""

_SEED = 20
_RESTARTS = 10


def measure(
    model: MultiviewCLIP, prompts: PromptSet, faces: Any, probe_on: Any | None = None, kind: str = "normals"
) -> dict[str, Any]:
    """Three ways to ask what is in the features of labelled faces; of those alone that show a class.

    Args:
        faces: as `data.RenderedFaces`: whom the scores are of.
        probe_on: the same, of other subjects: whom a linear probe is fitted on; None leaves it out.
        kind: how faces are shown: normals, shaded or textured.

    Returns:
        {"n": faces, "prompt": {"accuracy", "uar"} by the text bank, rejection rows among the answers' competitors;
        "clustering": {"accuracy"} of as many clusters as there are classes, under the best matching; "probe":
        {"accuracy", "uar"} of `linear_probe`}.

    Raises:
        ValueError: no face shows a class, or a subject is in both sets.
    """
    from affectvlm.methods.rounds import aggregated
    from affectvlm.metrics import summary

    model.eval()
    rows, labels = np.flatnonzero(faces.emotional), faces.labels[faces.emotional]
    if not len(rows):
        raise ValueError("no face shows an emotion of the class set; nothing can be scored")
    features = aggregated(model, faces, kind, rows)
    result: dict[str, Any] = {"n": len(rows), "prompt": _by_prompts(model, prompts, features, labels)}
    result["clustering"] = {"accuracy": _by_clusters(features, labels)}
    if probe_on is not None:
        if shared := set(faces.subjects) & set(probe_on.subjects):
            raise ValueError(f"subject {sorted(shared)[0]!r} is in both sets; a probe is scored on other people")
        known = np.flatnonzero(probe_on.emotional)[:PROBED]
        if len(known):
            from affectvlm.methods.clustering import linear_probe

            classes = len(prompts.classes)
            train = aggregated(model, probe_on, kind, known)
            scores = linear_probe(train, probe_on.labels[known], features, classes)
            found = summary(labels, np.eye(classes)[scores.argmax(axis=1)])
            result["probe"] = {name: round(found[name], 4) for name in ("accuracy", "uar")}
    return result


def observer(faces: Unlabelled, labelled: Any) -> Observe:
    """Says how right the pseudo-labels of a round are, where labels of the same faces are known to a scorer.

    Args:
        labelled: as `data.RenderedFaces`, holding the same pixels; faces it does not hold are not scored.
    """
    from affectvlm.methods.unlabelled import fingerprint

    truth = {fingerprint(labelled.views([i])[0]): int(label) for i, label in enumerate(labelled.labels)}
    labels = np.array([truth.get(fingerprint(faces.views([i])[0]), -1) for i in range(len(faces))])

    def observe(found: PseudoLabels) -> dict[str, float]:
        known, right = labels >= 0, found.rows == labels
        accuracy = {"accuracy": right[known], "accuracy_kept": right[known & found.kept]}
        return {name: round(float(hits.mean()), 4) for name, hits in accuracy.items() if len(hits)}

    return observe


def recovered(before: float, after: float, supervised: float) -> float | None:
    """Share of the gap between `before` and `supervised` that adaptation closed; below 0 where it did harm, None where
    there was no gap."""
    return None if supervised <= before else (after - before) / (supervised - before)


def adapt(
    folder: str | Path, start: str | Path, settings: Sequence[str] = (), method: str = "multiviewvlm"
) -> Path | None:
    """Adapt a checkpoint to a folder of faces without labels, in a training of its own; what it says goes to the shell.

    Called again with the same run.name it goes on where it was stopped.

    Args:
        folder: any scans or view triples, see `datasets.unlabelled`.
        start: folder of the checkpoint to adapt; its words and kind of picture are kept.
        settings: section.key=value, as for train.py, over what `adaptation_settings` chooses.
        method: multiviewvlm, smilevlm or mifar.

    Returns:
        The folder of the adapted checkpoint; None where the training was stopped before its end.

    Raises:
        ValueError: a checkpoint, a folder or a method that cannot be used.
        RunError: the training failed; it has said why.
    """
    from affectvlm.datasets.unlabelled import index_unlabelled
    from affectvlm.model.checkpoint import read_card

    if method not in METHODS[1:]:
        raise ValueError(f"method is {method!r}; one that reads no label is needed: {', '.join(METHODS[1:])}")
    card = read_card(start)  # before minutes are spent on faces
    if card.yaws != DEFAULT_YAWS or card.half_width != HALF_WIDTH_MM:
        raise ValueError(f"{card.name} looks at faces from {card.yaws} degrees; {DEFAULT_YAWS} is what we draw")
    index = index_unlabelled(folder)
    given = dict(word.partition("=")[::2] for word in settings)
    root = Path(given.get("run.folder", "runs"))
    training = Training(
        root / (given.get("run.name") or free_name(root, f"{method}-adapted")),
        (*adaptation_settings(folder, start, method, len(index)), f"data.image_kind={card.image_kind}",
         *_words_of(card, Path(given.get("data.cache", "cache"))), *settings),
    )  # fmt: skip
    if training.state != "finished" and subprocess.run(training.command()).returncode:
        raise RunError(f"adapting to {Path(folder).name} did not finish; the training has said why")
    return training.folder / MODEL if training.state == "finished" else None


def adaptation_settings(folder: str | Path, start: str | Path, method: str, faces: int) -> list[str]:
    """What adapting changes of train.py's defaults: weights that are trained already want small steps, and a small
    target few of them: about thirty passes over the faces, between 100 and 600 steps."""
    batch = max(8, min(48, faces - faces % 4))
    steps = int(np.clip(30 * faces / batch, 100, 600))
    return [
        f"method={method}", "data.sources=[unlabelled]", "data.train_faces=[0]", f"data.folder={folder}",
        f"model.start={start}", f"optim.batch={batch}", f"optim.steps={steps}", f"optim.warmup={steps // 10}",
        *GENTLE,
    ]  # fmt: skip


def compare(
    folder: str | Path, start: str | Path, settings: Sequence[str], seeds: Sequence[int],
    methods: Sequence[str] = METHODS, jobs: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Adapt a checkpoint by every method with every seed to faces whose labels are known, and score them.

    The same faces, subjects and splits for all. The first of METHODS reads the labels of the adaptation subjects: its
    gain is the gap that the others are measured by.
    What is finished is not done again.

    Args:
        folder: for the runs and the report (adaptation.json, .md).
        settings: section.key=value for all, with a source that has labels (data.sources=[folder] data.folder=...).
        methods: of METHODS.
        jobs: trainings at a time.

    Returns:
        {"start", "settings", "seeds", "before": scores, "methods": {method: {"by_seed", "mean", "sd", "recovered"}},
        "curves": {method: {seed: rounds}}}; scores are those of `measure` on test subjects.

    Raises:
        ValueError: an unknown method, or no seed.
        RunError: a training failed; what is finished is kept.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"unknown methods {unknown}; there are {', '.join(METHODS)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}; one or more, none twice, are needed")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    runs = {(method, seed): folder / f"{method}-seed{seed}" for method in methods for seed in seeds}
    train_all([
        Training(run, (*GENTLE, *settings, f"method={method}", f"model.start={start}", f"run.seed={seed}",
                       "run.measure=true"))
        for (method, seed), run in runs.items()
    ], jobs)  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    curves: dict[str, dict[str, Any]] = {}
    for (method, seed), run in runs.items():
        found.setdefault(method, {})[str(seed)] = json.loads((run / ADAPTATION).read_text("utf-8"))
        curves.setdefault(method, {})[str(seed)] = curve(run)
    report = summarise(found) | {"start": Path(start).name, "settings": list(settings), "seeds": list(seeds)}
    report["curves"] = curves
    (folder / ADAPTATION).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    (folder / "adaptation.md").write_text(markdown(report), "utf-8")
    return report


def summarise(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Means and standard deviations over seeds, and the share of the gap that each method recovers.

    Args:
        found: method → seed → {"before": scores, "after": scores}.

    Returns:
        "before": one dict of scores (the start does not depend on seeds); "methods": for each {"by_seed": {seed:
        {score: accuracy}}, "mean", "sd", "recovered": {score: share or None}}; the gap is that of METHODS[0], if there.
    """
    before = next(iter(next(iter(found.values())).values()))["before"]
    start = {name: before[name]["accuracy"] for name in SCORES if name in before}
    methods: dict[str, Any] = {}
    for method, by_seed in found.items():
        after = {seed: {name: both["after"][name]["accuracy"] for name in start} for seed, both in by_seed.items()}
        columns = {name: [scores[name] for scores in after.values()] for name in start}
        methods[method] = {
            "by_seed": after,
            "mean": {name: statistics.fmean(values) for name, values in columns.items()},
            "sd": {name: statistics.stdev(v) if len(v) > 1 else None for name, v in columns.items()},
        }
    best = methods.get(METHODS[0])
    for row in methods.values():
        row["recovered"] = {
            name: recovered(start[name], row["mean"][name], best["mean"][name]) if best else None for name in start
        }
    return {"before": before, "methods": methods}


def markdown(report: Mapping[str, Any]) -> str:
    """The table for people, in percent."""
    start = {name: report["before"][name]["accuracy"] for name in SCORES if name in report["before"]}
    lines = [
        "# Adaptation without labels", "",
        f"From {report['start']}, {report['before']['n']} test faces of subjects nobody adapted to, accuracy in "
        f"percent, mean ± standard deviation over seeds {report['seeds']}. {METHODS[0]} learns from labels; recovered: "
        "share of its gain by prompts that a method reaches without.", "",
        "| | " + " | ".join(start) + " | recovered |", "|---|" + "---|" * (len(start) + 1),
        "| before | " + " | ".join(f"{100 * value:.1f}" for value in start.values()) + " | |",
    ]  # fmt: skip
    for method, row in report["methods"].items():
        cells = [_said(row["mean"][name], row["sd"][name]) for name in start]
        share = row["recovered"].get("prompt")
        share = "" if share is None or method == METHODS[0] else f"{100 * share:.0f} %"
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {share} |")
    return "\n".join([*lines, "", "Settings: " + (" ".join(report["settings"]) or "defaults"), ""])


def curve(run: str | Path) -> dict[str, list[dict[str, Any]]]:
    """How a run went: its rounds (step, share kept, accuracy of the pseudo-labels where known) and validations (step,
    UAR of present and averaged weights)."""
    keys = {"round": ("step", "share", "accuracy", "accuracy_kept"), "validation": ("step", "uar")}
    found: dict[str, list[dict[str, Any]]] = {"rounds": [], "validations": []}
    for event in events(run):
        if event["kind"] in keys:
            found[event["kind"] + "s"].append({key: event[key] for key in keys[event["kind"]] if key in event})
    return found


def _by_prompts(model: MultiviewCLIP, prompts: PromptSet, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    import torch

    from affectvlm.metrics import summary
    from affectvlm.model import probabilities

    with torch.no_grad():
        logits = model.logits(torch.from_numpy(features).to(model.clip.logit_scale.device), model.text_bank(prompts))
        chances = probabilities(logits.float().cpu(), len(prompts.classes))[0].numpy()
    found = summary(labels, chances)
    return {name: round(found[name], 4) for name in ("accuracy", "uar")}


def _by_clusters(features: np.ndarray, labels: np.ndarray) -> float:
    """Of the tightest of several clusterings, as nobody without labels could choose a better one."""
    from affectvlm.methods.clustering import clustering_accuracy, spherical_kmeans

    k = len(np.unique(labels))
    if len(features) < k:
        raise ValueError(f"{len(features)} faces for {k} clusters; at least one for each is needed")
    rng = np.random.default_rng(_SEED)
    found = max((spherical_kmeans(features.astype(np.float64), k, rng) for _ in range(_RESTARTS)),
                key=lambda clusters: clusters.cohesion)  # fmt: skip
    return round(clustering_accuracy(labels, found.members), 4)


def _words_of(card: Card, cache: Path) -> list[str]:
    """The setting by which a training takes the words of a checkpoint; a file of them where they are not the usual
    ones."""
    import hashlib

    import yaml

    from affectvlm.prompts import PromptSet

    if card.prompts == PromptSet.load():
        return []
    text = yaml.safe_dump(card.prompts.to_dict(), sort_keys=False, allow_unicode=True)
    file = cache / f"prompts-{hashlib.sha256(text.encode()).hexdigest()[:10]}.yaml"
    cache.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return [f"prompts.file={file}"]


def _said(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")
