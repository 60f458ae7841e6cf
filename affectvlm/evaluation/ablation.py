"""Trainings that are compared: the ablation of a method, every row over the same seeds, faces and splits.

Each row of each seed is a training of its own, in a process of its own and a run folder of its own. What is finished is
not done again, what was stopped is gone on with: a killed ablation is repeated with the same command.
"""

from __future__ import annotations

import json
import logging
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affectvlm.runs import METRICS, RunError, status

log = logging.getLogger(__name__)

FULL = "everything on"
ROWS: dict[str, tuple[str, ...]] = {
    FULL: (),
    "no augmented prompts": ("prompts.augmented=false",),
    "no mixed views": ("views.mixed=false",),
    "no view augmentation": (
        "views.rotation=0", "views.zoom=0", "views.shift=0", "views.flip=0", "views.blur=0", "views.noise=0",
        "views.occlusion=0", "views.bend=0", "views.tilt=0",
    ),
    "no contrastive term": ("loss.contrastive=0",),
    "no triplet term": ("loss.triplet=0",),
    "no text alignment": ("loss.alignment=0",),
}  # fmt: skip
"""Row of the table → what it changes. The first three and the loss terms are those of Fig. 3 of the AffectVLM paper;
"no mixed views" moves all views of a sample alike, "no view augmentation" leaves them as they were rendered."""

_NO_PAIRS = ("multiview.positive=0", "multiview.negative=0")
_NO_MULTIVIEW = ("multiview.multiview=0",)
TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "affectvlm": ROWS,
    "multiviewvlm": {
        "baseline": (
            "pseudo.epochs=0", "pseudo.clusters=false", "pseudo.balance=false", "prompts.augmented=false",
            *_NO_PAIRS, *_NO_MULTIVIEW,
        ),
        "+ pseudo-labels": (*_NO_PAIRS, *_NO_MULTIVIEW),
        "+ positive and negative pairs": _NO_MULTIVIEW,
        FULL: (),
        "no clusters": ("pseudo.clusters=false",),
        "no balance": ("pseudo.balance=false",),
        "people not known": ("pseudo.people=none",),
        "no teacher": ("pseudo.teacher=false",),
        "labels made once": ("pseudo.epochs=0",),
    },
    "smilevlm": {
        FULL: (),
        "no decorrelation of views": ("smile.decorrelation=0",),
        "no alignment with text": ("smile.alignment=0",),
        "no cross-modal redundancy term": ("smile.redundancy=0",),
    },
}  # fmt: skip
"""Method → its rows. The first four of MultiviewVLM are those of Fig. 3 of its paper, each with all before it: the
baseline follows zero-shot guesses by one plain sentence a class, made once; pseudo-labels brings the generated prompts
and the clustering rounds; FULL adds the multiview term (Eq. 4). The others are ours."""

_TRAIN = Path(__file__).parents[2] / "train.py"


def ablation(
    folder: str | Path, seeds: Sequence[int], settings: Sequence[str] = (), rows: Sequence[str] | None = None,
    method: str = "affectvlm",
) -> dict[str, Any]:  # fmt: skip
    """Train every row with every seed, and compare their test scores.

    Args:
        folder: for the runs and the report (ablation.json, .md, .png).
        seeds: of training (`run.seed`): order of faces, augmentation, random weights. Faces and splits stay the same.
        settings: section.key=value, for all rows alike.
        rows: names of the method's table; None = all of them.
        method: one of TABLES.

    Returns:
        The report, see `compare`.

    Raises:
        ValueError: an unknown method or row, no seed, or a setting that the ablation itself decides.
        RunError: a training failed; its words are in its log, and what is finished is kept.
    """
    if method not in TABLES:
        raise ValueError(f"method is {method!r}; there is an ablation of {', '.join(TABLES)}")
    table = TABLES[method]
    rows = tuple(table) if rows is None else rows
    if unknown := [row for row in rows if row not in table]:
        raise ValueError(f"unknown rows {unknown}; there are {', '.join(table)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}; one or more, none twice, are needed")
    taken = ("run.name=", "run.folder=", "run.seed=", "method=")
    if decided := [given for given in settings if given.startswith(taken)]:
        raise ValueError(f"{', '.join(decided)}: the ablation itself names its runs and their seeds")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    total = len(seeds) * len(rows)
    for number, (seed, row) in enumerate(((seed, row) for seed in seeds for row in rows), 1):
        log.info("%d of %d: %s, seed %d", number, total, row, seed)
        _train(folder, row, seed, [*settings, f"method={method}", *table[row]])
    found = {row: {seed: _metrics(folder, row, seed) for seed in seeds} for row in rows}
    report = {"settings": list(settings), "seeds": list(seeds), "rows": compare(found)}
    (folder / "ablation.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    (folder / "ablation.md").write_text(markdown(report), "utf-8")
    plot(report, folder / "ablation.png")
    return report


def compare(found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One dict a row: accuracy and UAR over seeds, and what changed against the row with everything on.

    Args:
        found: row → seed → scores of `methods.scoring.report`, the same seeds in every row.

    Returns:
        Dicts with row, accuracy and uar (mean over seeds), accuracy_sd and uar_sd (sample standard deviation, None for
        one seed), by_seed (UAR of each), and change and change_sd: of the UAR against FULL, seed by seed (None without
        that row). All are shares of one.
    """
    table = []
    full = found.get(FULL)
    for row, by_seed in found.items():
        accuracy, uar = ([scores["emotions"][key] for scores in by_seed.values()] for key in ("accuracy", "uar"))
        changes = [by_seed[s]["emotions"]["uar"] - full[s]["emotions"]["uar"] for s in by_seed] if full else None
        table.append({
            "row": row,
            "accuracy": statistics.fmean(accuracy), "accuracy_sd": _spread(accuracy),
            "uar": statistics.fmean(uar), "uar_sd": _spread(uar),
            "by_seed": {str(seed): value for seed, value in zip(by_seed, uar, strict=True)},
            "change": statistics.fmean(changes) if changes else None,
            "change_sd": _spread(changes) if changes else None,
        })  # fmt: skip
    return table


def markdown(report: Mapping[str, Any]) -> str:
    """The table for people, in percent."""
    lines = [
        "# Ablation", "",
        f"Test UAR and accuracy on unseen identities, mean ± standard deviation over seeds {report['seeds']}, same "
        "faces and splits in every row. Change: of the UAR against everything on, seed by seed.", "",
        "| | UAR | accuracy | change |", "|---|---|---|---|",
    ]  # fmt: skip
    for row in report["rows"]:
        compared = row["change"] is not None and row["row"] != FULL
        change = _said(row["change"], row["change_sd"], sign=True) if compared else ""
        lines.append(
            f"| {row['row']} | {_said(row['uar'], row['uar_sd'])} | {_said(row['accuracy'], row['accuracy_sd'])} | "
            f"{change} |"
        )
    return "\n".join([*lines, "", "Settings: " + (" ".join(report["settings"]) or "defaults"), ""])


def plot(report: Mapping[str, Any], file: Path) -> None:
    """Bars of the mean UAR with a point a seed."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    rows = report["rows"]
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows) - 1, -1, -1)
    axes.barh(places, [100 * row["uar"] for row in rows], color="#9ecae1", height=0.6)
    for place, row in zip(places, rows, strict=True):
        values = [100 * value for value in row["by_seed"].values()]
        axes.plot(values, [place] * len(values), "o", color="#08519c", markersize=5)
    axes.set_yticks(list(places), [row["row"] for row in rows])
    axes.axvline(100 / 6, color="grey", linestyle=":", linewidth=1)
    axes.text(100 / 6 + 0.5, len(rows) - 0.45, "chance", color="grey", fontsize=8, va="bottom")
    axes.set_xlim(0, 100)
    axes.set_xlabel("UAR on unseen identities, % (bar: mean, points: seeds)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def _train(folder: Path, row: str, seed: int, settings: Sequence[str]) -> None:
    """One training to its end, unless it is there already."""
    name = _name(row, seed)
    try:
        state = status(folder / name).state
    except RunError:
        state = "new"
    if state == "finished":
        return
    words = [sys.executable, str(_TRAIN), *settings]
    words += [f"run.folder={folder}", f"run.name={name}", f"run.seed={seed}"]
    if state != "new":
        words.append("--resume")
    log_file = folder / f"{name}.log"
    with log_file.open("a", encoding="utf-8") as output:
        code = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT).returncode
    if code or status(folder / name).state != "finished":
        last = [line for line in log_file.read_text("utf-8", errors="replace").splitlines() if line.strip()][-1:]
        raise RunError(f"{row}, seed {seed}, did not finish: {''.join(last)} (log: {log_file.name})")


def _metrics(folder: Path, row: str, seed: int) -> dict[str, Any]:
    scores = json.loads((folder / _name(row, seed) / METRICS).read_text("utf-8"))
    return next(iter(scores.values()))  # the first case: three views of the default kind


def _name(row: str, seed: int) -> str:
    return re.sub(r"\W+", "-", row) + f"-seed{seed}"


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _said(mean: float, spread: float | None, sign: bool = False) -> str:
    mean = 100 * mean
    text = f"{mean:+.1f}" if sign else f"{mean:.1f}"
    return text if spread is None or math.isnan(spread) else f"{text} ± {100 * spread:.1f}"
