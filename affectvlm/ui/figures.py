"""Bars of the classes of a model: in the model's order, each in its own colour, with the word beside it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import plotly.graph_objects as go

from affectvlm.emotions import GREY, class_colors
from affectvlm.ui.words import percent

BAR_PIXELS, EDGE_PIXELS = 36, 34
MIN_PIXELS = 150


def probability_bars(
    probabilities: Mapping[str, float],
    colors: Mapping[str, str] | None = None,
    before: Mapping[str, float] | None = None,
) -> go.Figure:
    """Class → probability as horizontal bars, the first class on top; made to sit on a page of any theme.

    Args:
        colors: class → colour, where it is decided elsewhere; None = `emotions.class_colors`.
        before: other probabilities, as a thin mark on each bar where it is known.
    """
    names, colors = list(probabilities), colors or class_colors(probabilities)
    titles = {name: title(name) for name in names}
    figure = go.Figure(
        go.Bar(
            x=[probabilities[name] for name in names],
            y=list(titles.values()),
            orientation="h",
            marker={"color": [colors[name] for name in names], "cornerradius": 4},
            text=[percent(probabilities[name]) for name in names],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    marked = [name for name in names if before and name in before]
    if marked:
        figure.add_scatter(
            x=[before[name] for name in marked],
            y=[titles[name] for name in marked],
            mode="markers",
            marker={"symbol": "line-ns", "size": 16, "line": {"width": 2, "color": GREY}},
            text=[percent(before[name]) for name in marked],
            cliponaxis=False,
            hovertemplate="%{y} in the model's own words: %{text}<extra></extra>",
        )
    figure.update_layout(**bar_layout(max(BAR_PIXELS * len(names) + EDGE_PIXELS, MIN_PIXELS)))
    return figure.update_layout(margin={"r": 52}, xaxis={"range": [0, 1], "visible": False, "fixedrange": True})


def bar_layout(height: int) -> dict:
    """What horizontal bars have in common: no frame, no ground of their own, the first on top."""
    return {
        "height": height,
        "margin": {"l": 0, "r": 16, "t": 0, "b": 0},
        "bargap": 0.38,
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "yaxis": {
            "autorange": "reversed", "fixedrange": True, "showgrid": False, "ticklabelstandoff": 10, "title": None,
            "type": "category",  # a class called "1" is a word too
        },
        "font": {"size": 15},
    }  # fmt: skip


def title(name: str) -> str:
    """A class beside its bar: with a capital, and free of marks that plotly would take for HTML."""
    return escape(name[:1].upper() + name[1:])


def small_bars(probabilities: Mapping[str, float]) -> str:
    """The same as a few lines of HTML, small enough to stand under a picture."""
    colors = class_colors(probabilities)
    rows = "".join(
        f'<div class="bar-row" title="{escape(name)}: {percent(share)}">'
        f'<span class="bar-name">{escape(name)}</span>'
        f'<span class="bar-track"><span class="bar-fill" style="width:{100 * share:.1f}%;'
        f'background:{colors[name]}"></span></span></div>'
        for name, share in probabilities.items()
    )
    return f'<div class="bars">{rows}</div>'
