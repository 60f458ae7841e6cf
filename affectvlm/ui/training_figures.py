"""Pictures of trainings: curves over steps, one run or several, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from affectvlm.histories import Curve

RUN_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
"""Of runs and terms: Paul Tol's bright scheme, which colour-blind people can tell apart. Not those of the emotions."""

DASHES = ("solid", "dash", "dot", "dashdot")
TERMS = {
    "loss": "loss, all together",
    "same": "contrastive: same emotion",
    "different": "contrastive: other emotion",
    "triplet": "triplet",
    "align_views": "image to text: each view",
    "align_mean": "image to text: all views",
    "units": "action units",
}
"""Terms of the losses in words; others are shown by name."""

NO_TERMS = ("active_", "margin", "validation, ", "views/s", "loader wait")
"""Beginnings of names that are told beside the losses and are none."""

CONFIG = {"displayModeBar": False, "scrollZoom": False}


def loss_curves(curves: Mapping[str, Curve], steps: int) -> go.Figure:
    """The loss of one run of so many steps, thick, and its terms."""
    told = [name for name in curves if not name.startswith(NO_TERMS)]
    names = [*(name for name in TERMS if name in told), *(name for name in told if name not in TERMS)]
    figure = go.Figure()
    for number, name in enumerate(names):
        _line(figure, TERMS.get(name, name.replace("_", " ")), curves[name], number, 3 if name == "loss" else 1.5)
    return _laid_out(figure, "step", "loss", "loss", steps)


def score_curves(curves: Mapping[str, Curve], steps: int) -> go.Figure:
    """Validation UAR of one run: of the weights as they are, and of their running average."""
    figure = go.Figure()
    prefix = "validation, "
    titles = {"current": "weights as they are", "averaged": "their running average"}
    for number, name in enumerate(name for name in curves if name.startswith(prefix)):
        short = name.removeprefix(prefix)
        _line(figure, titles.get(short, short), curves[name], number, 2.5, "lines+markers")
    return _shares(_laid_out(figure, "step", "validation UAR", "uar", steps))


def overlaid(curves: Mapping[str, Curve], title: str, share: bool) -> go.Figure:
    """One curve of several runs: run → curve."""
    figure = go.Figure()
    for number, (name, curve) in enumerate(curves.items()):
        _line(figure, name, curve, number, 2.5, "lines+markers" if len(curve) < 12 else "lines")
    _laid_out(figure, "step", title, title)
    return _shares(figure) if share else figure


def best_so_far(curves: Mapping[str, Curve]) -> Curve:
    """The better of the validation curves at each step, as long as it rose: what a run had in hand."""
    points: dict[int, float] = {}
    for name, curve in curves.items():
        for step, value in curve if name.startswith("validation, ") else ():
            points[step] = max(value, points.get(step, 0.0))
    best, line = 0.0, []
    for step in sorted(points):
        best = max(best, points[step])
        line.append((step, best))
    return line


def confusion_table(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> go.Figure:
    """True classes in rows, answers in columns; shares of a row as colour, counts as text."""
    totals = [max(sum(line), 1) for line in counts]
    shares = [[count / total for count in line] for line, total in zip(counts, totals, strict=True)]
    heat = go.Heatmap(
        z=shares,
        x=list(classes),
        y=list(classes),
        customdata=counts,
        colorscale=[[0, "rgba(91,91,214,0.06)"], [1, "rgba(91,91,214,0.95)"]],
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=3,
        ygap=3,
        hovertemplate="%{y} taken for %{x}: %{customdata} (%{z:.0%})<extra></extra>",
    )
    figure = go.Figure(heat)
    for row, (line, of_row) in enumerate(zip(counts, shares, strict=True)):
        for column, (count, share) in enumerate(zip(line, of_row, strict=True)):
            if count:  # as annotations, which take the theme's own colour where the cell is pale
                font = {"color": "#ffffff"} if share > 0.45 else None
                figure.add_annotation(x=column, y=row, text=f"{count}", showarrow=False, font=font)
    figure.update_layout(
        height=110 + 38 * len(classes),
        margin={"l": 0, "r": 0, "t": 4, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={"side": "bottom", "title": "answer", "fixedrange": True, "showgrid": False},
        yaxis={"autorange": "reversed", "title": "shown", "fixedrange": True, "showgrid": False},
    )
    return figure


def _line(figure: go.Figure, name: str, curve: Curve, number: int, width: float, mode: str = "lines") -> None:
    steps, values = zip(*curve, strict=True) if curve else ((), ())
    look = {
        "color": RUN_COLORS[number % len(RUN_COLORS)],
        "dash": DASHES[number % len(DASHES)] if number else "solid",
        "width": width,
    }
    mode = "lines+markers" if len(curve) == 1 else mode
    figure.add_scatter(x=steps, y=values, name=name, mode=mode, line=look)


def _laid_out(figure: go.Figure, x: str, y: str, keep: object, steps: int = 0) -> go.Figure:
    figure.update_layout(
        height=340,
        margin={"l": 0, "r": 8, "t": 8, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        uirevision=str(keep),  # what was zoomed or switched off stays so while new points come
        legend={"orientation": "h", "yanchor": "top", "y": -0.26, "x": 0, "title": None},
        showlegend=True,
        xaxis={"title": {"text": x, "standoff": 4}, "showgrid": False, "range": [0, steps] if steps else None},
        yaxis={"title": y, "zeroline": False},
    )
    return figure


def _shares(figure: go.Figure) -> go.Figure:
    return figure.update_layout(yaxis={"tickformat": ".0%", "range": [0, 1.02]})
