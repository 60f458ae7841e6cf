"""Bars of the six emotions: always in the same order, in the same colours, with the word beside them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import plotly.graph_objects as go

from affectvlm.emotions import COLORS, EKMAN
from affectvlm.ui.words import percent


def probability_bars(probabilities: Mapping[str, float], height: int = 250) -> go.Figure:
    """The six probabilities as horizontal bars, the first emotion on top; made to sit on a page of any theme."""
    values = [probabilities[name] for name in EKMAN]
    bars = go.Bar(
        x=values,
        y=[name.capitalize() for name in EKMAN],
        orientation="h",
        marker={"color": [COLORS[name] for name in EKMAN], "cornerradius": 4},
        text=[percent(value) for value in values],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 48, "t": 0, "b": 0},
        bargap=0.38,
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={"range": [0, 1], "visible": False, "fixedrange": True},
        yaxis={"autorange": "reversed", "fixedrange": True, "showgrid": False, "ticklabelstandoff": 10, "title": None},
        font={"size": 15},
    )
    return figure


def small_bars(probabilities: Mapping[str, float]) -> str:
    """The same as a few lines of HTML, small enough to stand under a picture."""
    rows = "".join(
        f'<div class="bar-row" title="{escape(name)}: {percent(probabilities[name])}">'
        f'<span class="bar-name">{escape(name)}</span>'
        f'<span class="bar-track"><span class="bar-fill" style="width:{100 * probabilities[name]:.1f}%;'
        f'background:{COLORS[name]}"></span></span></div>'
        for name in EKMAN
    )
    return f'<div class="bars">{rows}</div>'
