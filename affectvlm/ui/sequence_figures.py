"""The emotions of a sequence over time as a figure, and its phases in words. No streamlit in here."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from affectvlm.emotions import class_colors
from affectvlm.ui import words

if TYPE_CHECKING:
    from affectvlm.curves import EmotionCurve

PHASES = ("onset", "apex", "offset")
GREY = "#8a8a94"
DASHES = ("solid", "dash", "dot", "dashdot")


def curve_figure(curve: EmotionCurve, at: int | None = None, height: int = 360) -> go.Figure:
    """A line an emotion: raw thin, smoothed thick, the answer's own thickest; phases marked.

    Args:
        at: which frame of the curve is on the screen, marked too; None = none.
    """
    x = where(curve)
    figure, colors = go.Figure(), class_colors(curve.classes)
    dashes = {name: _dash(name, colors) for name in curve.classes}
    for name, raw in zip(curve.classes, curve.raw.T, strict=True):
        line = {"color": colors[name], "width": 1}
        figure.add_scatter(
            x=x, y=raw, mode="lines", line=line, opacity=0.45, legendgroup=name, showlegend=False, hoverinfo="skip"
        )
    for name, smoothed in zip(curve.classes, curve.smoothed.T, strict=True):
        line = {"color": colors[name], "dash": dashes[name], "width": 4 if name == curve.emotion else 2.2}
        mode = "lines" if len(x) > 1 else "markers"
        figure.add_scatter(
            x=x, y=smoothed, name=escape(name), mode=mode, line=line, legendgroup=name, hovertemplate="%{y:.0%}"
        )
    for phase in PHASES:
        index = getattr(curve, phase)
        if index is not None:
            figure.add_vline(x=x[index], line={"color": GREY, "width": 1.4, "dash": "dash"})
            figure.add_annotation(
                x=x[index], y=1.0, yref="paper", yanchor="bottom", text=phase, showarrow=False, font={"size": 13}
            )
    if at is not None:
        figure.add_vline(x=x[at], line={"color": GREY, "width": 5}, opacity=0.35)
    return figure.update_layout(
        height=height,
        margin={"l": 0, "r": 8, "t": 24, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0, "title": None},
        xaxis={
            "title": {"text": "frame" if curve.times is None else "seconds", "standoff": 4},
            "showgrid": False, "zeroline": False, "fixedrange": True,
        },
        yaxis={"tickformat": ".0%", "range": [0, 1.02], "fixedrange": True, "title": None, "zeroline": False},
    )  # fmt: skip


def _dash(name: str, colors: Mapping[str, str]) -> str:
    """Another dash for each further line of one colour: there are more classes than colours."""
    alike = [other for other, color in colors.items() if color == colors[name]]
    return DASHES[alike.index(name) % len(DASHES)]


def where(curve: EmotionCurve) -> np.ndarray:
    """(T,) places on the time axis: seconds where they are known, else numbers of frames."""
    return curve.frames if curve.times is None else curve.times


def phases_in_words(curve: EmotionCurve) -> str:
    """When the expression comes, is strongest and goes."""
    if curve.apex is None:
        return "No expression stands out in this sequence."

    def moment(index: int) -> str:
        frame = f"frame {curve.frames[index]}"
        return frame if curve.times is None else f"{frame} ({curve.times[index]:.2f} s)"

    begins = "is there from the start" if curve.onset is None else f"begins at {moment(curve.onset)}"
    ends = "stays to the end" if curve.offset is None else f"fades after {moment(curve.offset)}"
    return f"The {words.expression(curve.emotion)} {begins}, is strongest at {moment(curve.apex)} and {ends}."
