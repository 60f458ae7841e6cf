"""Pictures of how well sentences fit a face, and of what action units do to an answer. No streamlit in here."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go

from affectvlm.ui import figures

_CLEAR = "rgba(0,0,0,0)"
_OFF = 0.22  # opacity of a sentence that is switched off


@dataclass(frozen=True, eq=False)
class Group:
    """The sentences of a class or rejection row against one face.

    Attributes:
        row: its name; color: its colour.
        texts, cosines, used: (P) sentences, similarities, and whether each takes part.
    """

    row: str
    color: str
    texts: tuple[str, ...]
    cosines: np.ndarray
    used: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        """The similarities that make up the answer."""
        return self.cosines[self.used]

    def summary(self) -> str:
        """Mean and spread in a few letters: "0.75 ± 0.01"."""
        if not self.used.any():
            return "off"
        return f"{signed(self.counted.mean(), 3)} ± {self.counted.std():.3f}"


def signed(value: float, digits: int) -> str:
    """A number with a true minus sign, and none before zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def sentence_bars(groups: list[Group]) -> go.Figure:
    """Every sentence as a horizontal bar, grouped by row, with each group's mean as a line and its name beside it."""
    figure, place, centres, gap = go.Figure(), 0.0, [], 5.0
    for group in groups:
        count = max(len(group.texts), 1)
        positions = place + np.arange(count)
        if group.texts:
            figure.add_bar(
                x=group.cosines,
                y=positions,
                orientation="h",
                width=0.78,
                marker={"color": group.color, "opacity": np.where(group.used, 1.0, _OFF)},
                customdata=[
                    [escape(text), state_word(used)] for text, used in zip(group.texts, group.used, strict=True)
                ],
                hovertemplate="%{customdata[0]}<br><b>%{x:.3f}</b>%{customdata[1]}<extra></extra>",
            )
        if group.used.any():
            mean = float(group.counted.mean())
            figure.add_scatter(
                x=[mean, mean], y=[place - 1.6, place + count + 0.6], mode="lines", hoverinfo="skip",
                line={"color": group.color, "width": 1.5, "dash": "dot"},
            )  # fmt: skip
        centres.append(float(positions.mean()))
        place += count + gap
    names = [f"<b>{figures.title(group.row)}</b><br>{group.summary()}" for group in groups]
    figure.update_layout(
        height=int(np.clip(4.0 * place + 46, 300, 1000)),
        margin={"l": 0, "r": 10, "t": 4, "b": 34},
        showlegend=False,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        hovermode="closest",
        hoverlabel={"align": "left"},
        xaxis={
            "range": _span(groups),
            "fixedrange": True,
            "zeroline": True,
            "zerolinewidth": 1,
            "title": {"text": "similarity (cosine)", "font": {"size": 12}},
            "nticks": 6,
        },
        yaxis={
            "range": [place - gap + 2.5, -3.0],
            "tickvals": centres,
            "ticktext": names,
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
            "ticklabelstandoff": 12,
        },
        font={"size": 13},
    )
    return figure


def state_word(used: bool) -> str:
    return "" if used else " (switched off)"


def _span(groups: list[Group]) -> list[float]:
    every = np.concatenate([group.cosines for group in groups] or [np.zeros(1)])
    low, high = min(0.0, float(every.min(initial=0.0))), max(0.2, float(every.max(initial=0.0)))
    return [1.06 * low, min(1.08 * high, 1.02)]


def class_bars(groups: list[Group], height: int) -> go.Figure:
    """Each row's mean similarity as one bar; the span of its sentences shows where one points."""
    groups = [group for group in groups if group.used.any()]
    means = np.array([group.counted.mean() for group in groups])
    figure = go.Figure(
        go.Bar(
            x=means,
            y=[figures.title(group.row) for group in groups],
            orientation="h",
            marker={"color": [group.color for group in groups], "cornerradius": 4},
            text=[signed(mean, 2) for mean in means],
            textposition="outside",
            cliponaxis=False,
            customdata=[
                f"from {signed(group.counted.min(), 3)} to {signed(group.counted.max(), 3)}" for group in groups
            ],
            hovertemplate="%{y}: mean %{x:.3f}, %{customdata}<extra></extra>",
        )
    )
    low, high = _span(groups)
    hidden = {"range": [low, 1.1 * high], "visible": False, "fixedrange": True}
    return figure.update_layout(**figures.bar_layout(height), xaxis=hidden)


def effect_bars(rows: list[tuple[str, float | None, float | None]], color: str) -> go.Figure:
    """What more and less of each action unit does, as signed bars.

    Args:
        rows: name, effect of more, effect of less (None where there is no room), from top to bottom.
    """
    names = [name for name, _, _ in rows]
    figure = go.Figure()
    for which, title, paint in ((1, "more of it", color), (2, "less of it", _faded(color))):
        values = [row[which] for row in rows]
        figure.add_bar(
            x=values,
            y=names,
            orientation="h",
            name=title,
            marker={"color": paint, "line": {"color": color, "width": 1}, "cornerradius": 3},
            text=["" if value is None else f"{'+' if value > 0 else ''}{signed(value, 2)}" for value in values],
            textposition="outside",
            textfont={"size": 12},
            constraintext="none",
            cliponaxis=False,
            hovertemplate=f"%{{y}}: {title} %{{text}}<extra></extra>",
        )
    known = [value for row in rows for value in row[1:] if value is not None]
    largest = max([0.05, *map(abs, known)])
    figure.update_layout(
        height=int(30 * len(rows) + 66),
        margin={"l": 0, "r": 12, "t": 30, "b": 0},
        barmode="group",
        bargap=0.35,
        bargroupgap=0.08,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        xaxis={
            "range": [
                1.25 * min([0.0, *known], default=0) - 0.12 * largest,
                1.25 * max([0.0, *known]) + 0.12 * largest,
            ],
            "fixedrange": True,
            "showticklabels": False,
            "showgrid": False,
            "zeroline": True,
        },
        yaxis={"autorange": "reversed", "fixedrange": True, "showgrid": False, "ticklabelstandoff": 10},
        font={"size": 13},
    )
    return figure


def _faded(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.22)"


def sentence_bar(cosine: float, color: str, used: bool, span: float) -> str:
    """One sentence's similarity as a line of HTML; `span` is the similarity of a full bar."""
    width = 100 * np.clip(cosine / span, 0, 1)
    return (
        f'<div class="sentence-bar" style="opacity:{1.0 if used else 0.35}"><span class="bar-track">'
        f'<span class="bar-fill" style="width:{width:.1f}%;background:{color}"></span></span>'
        f"<span>{signed(cosine, 3)}</span></div>"
    )
