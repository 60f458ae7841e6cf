"""Pictures of a report: confusion, calibration, accuracy by class and intensity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFUSION, CALIBRATION, CLASSES = "confusion.png", "calibration.png", "classes.png"

_BLUE, _ORANGE = "#0072B2", "#E69F00"


def draw(result: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw one decision rule's result (see `protocols.report.result`); returns the names of the files."""
    names = [CLASSES]
    _classes(result, folder / CLASSES)
    if result["confusion"] is not None:
        _confusion(result, folder / CONFUSION)
        names.append(CONFUSION)
    if result["reliability"]:
        _calibration(result, folder / CALIBRATION)
        names.append(CALIBRATION)
    return names


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _confusion(result: Mapping[str, Any], file: Path) -> None:
    """Shares of each true class, with counts."""
    names, table = result["classes"], result["confusion"]
    figure, axes = _axes(1.6 + 0.8 * len(names), 1.2 + 0.7 * len(names))
    shares = [[count / sum(row) if sum(row) else 0.0 for count in row] for row in table]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(table):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.6 else "black"
            axes.text(j, i, f"{100 * shares[i][j]:.0f} %\n{count}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("said")
    axes.set_ylabel("true")
    figure.savefig(file, dpi=130)


def _calibration(result: Mapping[str, Any], file: Path) -> None:
    figure, axes = _axes(4.8, 4.4)
    bins = result["reliability"]
    most = max(row["n"] for row in bins)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    sizes = [20 + 180 * row["n"] / most for row in bins]
    axes.scatter([r["confidence"] for r in bins], [r["accuracy"] for r in bins], s=sizes, color=_BLUE, alpha=0.8)
    axes.plot([r["confidence"] for r in bins], [r["accuracy"] for r in bins], color=_BLUE, linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy (area of a point: its share of answers)")
    axes.set_title(f"calibration error {result['scores']['ece']:.3f}", fontsize=10)
    figure.savefig(file, dpi=130)


def _classes(result: Mapping[str, Any], file: Path) -> None:
    """Recall of each class, and of each intensity where there are some."""
    names, levels = result["classes"], result["by_intensity"]
    figure, axes = _axes(1.8 + 1.1 * len(names), 3.6)
    if len(levels) > 1:
        width = 0.8 / len(levels)
        for number, row in enumerate(levels):
            values = [100 * ((row["classes"].get(name) or {}).get("accuracy") or 0) for name in names]
            places = [k + (number - (len(levels) - 1) / 2) * width for k in range(len(names))]
            shade = 0.25 + 0.75 * row["intensity"]
            axes.bar(places, values, width, color=_BLUE, alpha=shade, label=f"intensity {row['intensity']:.2f}")
        figure.legend(fontsize=8, ncols=len(levels), loc="outside upper center", frameon=False)
    else:
        axes.bar(range(len(names)), [100 * (row["recall"] or 0) for row in result["by_class"]], 0.6, color=_BLUE)
    if result["confusion"] is not None:
        axes.axhline(100 / len(names), color=_ORANGE, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(names)), [f"{row['class']}\nn = {row['n']}" for row in result["by_class"]])
    axes.set(ylim=(0, 100), ylabel="recall, %")
    figure.savefig(file, dpi=130)
