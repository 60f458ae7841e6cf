"""The table of contributions, the scale of the maps, and the curves behind the trust figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from affectvlm.ui import evidence_words

if TYPE_CHECKING:
    from affectvlm.gradcam import Level, Target, Trust

STYLE = """
<style>
.parts { display: grid; gap: 7px; padding: 2px 0 14px; }
.part-row { display: grid; grid-template-columns: 6.2em 1fr 8.6em; align-items: center; column-gap: 0.7em;
            font-size: 0.92rem; line-height: 1.2; }
.part-track { height: 9px; border-radius: 5px; background: rgba(128, 128, 128, 0.16); overflow: hidden; }
.part-fill { display: block; height: 100%; border-radius: 5px; background: #d65a3a; }
.part-value { font-variant-numeric: tabular-nums; opacity: 0.86; white-space: nowrap; }
.scale { display: flex; align-items: center; gap: 0.6em; font-size: 0.8rem; opacity: 0.8; }
.scale-bar { flex: 0 0 180px; height: 9px; border-radius: 5px; }
</style>
"""


def parts_table(whole: Level, groups: Sequence[Mapping[str, Level]], titles: Mapping[str, str], is_share: bool) -> str:
    """Rows of HTML: part, bar of what it gives (in logits, the strongest of all fills it), the value with and without.

    Parts that speak against the target have an empty bar and a mark. Empty groups are left out.
    """
    falls = {name: evidence_words.fall(whole, part) for group in groups for name, part in group.items()}
    top = max([*falls.values(), 1e-9])
    tables = []
    for group in filter(None, groups):
        rows = "".join(_part_row(titles[name], whole, part, falls[name], top, is_share) for name, part in group.items())
        tables.append(f'<div class="parts">{rows}</div>')
    return STYLE + "".join(tables)


def _part_row(title: str, whole: Level, part: Level, fall: float, top: float, is_share: bool) -> str:
    before, after = (evidence_words.level(one.value, is_share) for one in (whole, part))
    against = fall < -0.05 * top and fall < -0.02
    hint = f"{title}: {fall:+.2f} logits" + (", speaks against it" if against else "")
    width = 100 * max(fall, 0.0) / top
    return (
        f'<div class="part-row" title="{escape(hint)}"><span>{escape(title)}</span>'
        f'<span class="part-track"><span class="part-fill" style="width:{width:.0f}%"></span></span>'
        f'<span class="part-value">{escape(before)} → {escape(after)}{" ▲" if against else ""}</span></div>'
    )


def scale_bar() -> str:
    """The colours of the maps from weak to strong, with words at both ends."""
    from affectvlm.gradcam.pictures import scale_colors

    stops = ", ".join(f"rgb({','.join(map(str, color))})" for color in scale_colors(np.linspace(0, 1, 9)).astype(int))
    bar = f'<span class="scale-bar" style="background:linear-gradient(90deg, {stops})"></span>'
    return STYLE + f'<div class="scale"><span>says little</span>{bar}<span>says much</span></div>'


def trust_curves(trust: Trust, target: Target, fractions: tuple[float, ...]) -> go.Figure:
    """What is left of the target as more and more is smoothed: the map's bright places, and random ones."""
    figure = go.Figure()
    lines = (
        ("Bright places", trust.deletion_curve, "#D55E00", "solid"),
        ("Random places", trust.random_deletion_curve, "#8a8a94", "dash"),
    )
    for name, curve, color, dash in lines:
        scores = np.array([trust.start, *curve])
        values = 1 / (1 + np.exp(-scores)) if target.is_share else scores
        figure.add_scatter(
            x=[0.0, *fractions], y=values, name=name, mode="lines+markers", line={"color": color, "dash": dash}
        )
    percents = {"tickformat": ".0%", "range": [0, 1.02]} if target.is_share else {}
    figure.update_layout(
        height=260,
        margin={"l": 0, "r": 10, "t": 34, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis={"title": "share of the pictures that is smoothed", "tickformat": ".0%", "fixedrange": True},
        yaxis={"title": None if percents else "logits", "fixedrange": True, **percents},
    )
    return figure
