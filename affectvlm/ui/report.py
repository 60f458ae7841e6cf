"""One answer as one page: a self-contained HTML document that reads well on a screen and prints on one sheet of A4.

Nothing in it is fetched from anywhere and there is no script. Names that a visitor chose are escaped. No streamlit in
here.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

import affectvlm
from affectvlm.emotions import class_colors
from affectvlm.ui import card_words, words

if TYPE_CHECKING:
    from affectvlm.curves import EmotionCurve
    from affectvlm.predictor import Prediction
    from affectvlm.ui.bundle import Case

QUALITY = 90  # of the JPEGs in the page; 10 to 20 kB each
GREY = "#8a8a94"
LETTER = 6
"""Width of a letter beside the curve, in its units."""

LONGEST = 700
"""Most characters of the model's limits that the page quotes; the model card has all of them."""

_CSS = """
@page { size: A4; margin: 11mm 14mm; }
* { box-sizing: border-box; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { font: 9.5pt/1.38 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; color: #24262b; background: #fff;
       max-width: 182mm; margin: 0 auto; padding: 6mm 4mm; }
@media print { body { padding: 0; max-width: none; } }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 1em; flex-wrap: wrap;
         border-bottom: 1px solid #d9d9de; padding-bottom: 2mm; margin-bottom: 4mm; }
h1 { font-size: 18pt; letter-spacing: -0.01em; margin: 0 0 1mm; }
h2 { font-size: 11pt; margin: 4mm 0 1.2mm; }
p { margin: 0 0 1.5mm; }
figure { margin: 0; }
figcaption { font-size: 9pt; margin: 1mm 0; }
section, figure, tr { break-inside: avoid; }
.three { display: grid; grid-template-columns: repeat(3, minmax(0, 50mm)); justify-content: space-between; gap: 4mm; }
.three img { width: 100%; border-radius: 2mm; display: block; }
.fine { font-size: 8.5pt; color: #61636b; }
.bars { display: grid; grid-template-columns: fit-content(40%) 1fr 3.6em; gap: 0.8mm 2mm; margin: 1mm 0;
        align-items: center; }
.bars.small { grid-template-columns: fit-content(56%) 1fr; column-gap: 1.5mm; font-size: 8pt; line-height: 1.15; }
.row { display: contents; }
.name { min-width: 4.8em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.rail { height: 2.8mm; border-radius: 2mm; background: #ececf0; overflow: hidden; }
.small .rail { height: 1.8mm; }
.fill { height: 100%; border-radius: 2mm; }
.value { text-align: right; font-variant-numeric: tabular-nums; }
.note { background: #fff6e0; border-left: 1mm solid #e69f00; padding: 1mm 3mm; margin: 1mm 0; }
dl { display: grid; grid-template-columns: 30mm 1fr; gap: 0.4mm 3mm; margin: 0;
     font-size: 8.5pt; }
dt { color: #61636b; } dd { margin: 0; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
footer { border-top: 1px solid #d9d9de; margin-top: 5mm; padding-top: 2mm; }
"""


def report(case: Case) -> str:
    """The page: views, answer, probabilities, pose, warnings, evidence and curve where there are any, model and limits.

    The same case gives the same text.
    """
    prediction = case.prediction
    parts = [
        f"<header><strong>AffectVLM</strong><span>{escape(case.title)} · {case.made.isoformat()}</span></header>",
        f"<h1>{escape(words.headline(prediction))}</h1>",
        f"<p>{escape(words.confidence(prediction))}</p>",
        *(f'<p class="note">{escape(warning[:1].upper() + warning[1:])}</p>' for warning in prediction.warnings),
        _section(*_titled_views(prediction)),
        _section(_together(prediction), bars(prediction.probabilities)),
    ]
    if prediction.curve is not None:
        parts.append(_section("The emotions over time", _curve(prediction.curve)))
    if prediction.dynamic_images is not None:
        parts.append(_section("What moved", _pictures(prediction, prediction.dynamic_images, "dynamic image")))
    if case.evidence is not None:
        parts.append(_section(f"Where the model looks: what speaks for {case.evidence.target}", _evidence(case)))
    parts += [_section("How it was made", _facts(case)), _footer(case)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>AffectVLM: {escape(case.title)}</title><style>{_CSS}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def bars(shares: Mapping[str, float], small: bool = False) -> str:
    """Class → probability as rows of HTML; small ones without numbers."""
    rows, colors = [], class_colors(shares)
    for name, share in shares.items():
        fill = f'<div class="fill" style="width:{100 * share:.1f}%;background:{colors[name]}"></div>'
        value = "" if small else f'<span class="value">{words.percent(share)}</span>'
        word = f'<span class="name">{escape(name)}</span>'
        rows.append(f'<div class="row">{word}<div class="rail">{fill}</div>{value}</div>')
    return f'<div class="bars{" small" if small else ""}">{"".join(rows)}</div>'


def curve_svg(curve: EmotionCurve, width: int = 680, height: int = 190) -> str:
    """The smoothed curve as a drawing: a line an emotion with its name at the end, phases as dashed lines."""
    left, right, top, bottom = 34, _room(curve.classes), 16, 22
    time = np.asarray(curve.frames if curve.times is None else curve.times, float)
    span = max(float(time[-1] - time[0]), 1e-9)
    x = left + (time - time[0]) / span * (width - left - right)
    floor = height - bottom

    def y(share: np.ndarray | float) -> np.ndarray | float:
        return floor - share * (floor - top)

    def text(px: float, py: float, said: str, anchor: str = "start", color: str = "#61636b") -> str:
        return f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}" fill="{color}">{escape(said)}</text>'

    drawn = [f'<svg viewBox="0 0 {width} {height}" font-size="11" role="img" aria-label="probabilities over time">']
    for share in (0.0, 0.5, 1.0):
        drawn.append(f'<path d="M{left} {y(share):.1f}H{width - right}" stroke="#e3e3e8"/>')
        drawn.append(text(left - 6, y(share) + 4, f"{share:.0%}", "end"))
    for name in ("onset", "apex", "offset"):
        if (index := getattr(curve, name)) is not None:
            drawn.append(f'<path d="M{x[index]:.1f} {top}V{floor}" stroke="{GREY}" stroke-dasharray="4 3"/>')
            drawn.append(text(x[index], top - 5, name, "middle"))
    ends = _apart([float(y(share)) for share in curve.smoothed[-1]], min(12, (floor - top) / len(curve.classes)), floor)
    colors = class_colors(curve.classes)
    for name, column, end in zip(curve.classes, curve.smoothed.T, ends, strict=True):
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(x, y(column), strict=True))
        color, thick = colors[name], 3 if name == curve.emotion else 1.6
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{thick}"/>')
        drawn.append(text(width - right + 6, end + 4, name, color=color))
    unit = "frame {:.0f}" if curve.times is None else "{:.2f} s"
    drawn += [text(x[0], height - 6, unit.format(time[0])), text(x[-1], height - 6, unit.format(time[-1]), "end")]
    return "".join(drawn) + "</svg>"


def _room(names: Sequence[str]) -> int:
    """For words beside the ends of lines; very long ones are cut by the edge."""
    return min(max(76, 12 + LETTER * max(map(len, names))), 180)


def _apart(places: list[float], least: float, floor: float) -> list[float]:
    """Heights moved up until no two are nearer than `least`; for words beside lines that end together."""
    moved, below = list(places), floor + least
    for index in sorted(range(len(places)), key=lambda index: -places[index]):
        moved[index] = below = min(places[index], below - least)
    return moved


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _titled_views(prediction: Prediction) -> tuple[str, str]:
    of_sequence = prediction.kind == "sequence"
    title = "The most expressive frame, and what each view says over all frames" if of_sequence else ""
    return title or "The views, and what each says by itself", _views(prediction)


def _together(prediction: Prediction) -> str:
    return "Probabilities, all views " + ("and frames together" if prediction.kind == "sequence" else "together")


def _views(prediction: Prediction) -> str:
    under = {name: bars(shares, small=True) for name, shares in prediction.view_probabilities.items()}
    return _pictures(prediction, prediction.views, "view", under)


def _pictures(prediction: Prediction, images: np.ndarray, what: str, under: Mapping[str, str] | None = None) -> str:
    shown = []
    for name, image in zip(prediction.view_names, images, strict=True):
        if name in prediction.view_probabilities:
            title = words.VIEW_TITLES.get(name, name)
            picture = f'<img alt="{escape(title)} {what}" src="{_data(image)}">'
            shown.append(
                f"<figure>{picture}<figcaption>{escape(title)}</figcaption>{(under or {}).get(name, '')}</figure>"
            )
    return f'<div class="three">{"".join(shown)}</div>'


def _curve(curve: EmotionCurve) -> str:
    from affectvlm.ui.sequence_figures import phases_in_words

    return f"<p>{escape(phases_in_words(curve))}</p>{curve_svg(curve)}"


def _evidence(case: Case) -> str:
    from affectvlm.gradcam import overlay

    prediction, evidence = case.prediction, case.evidence
    shares = dict(zip(prediction.view_names, evidence.shares, strict=True))
    under = {name: f'<p class="fine">{round(100 * share)} % of the evidence</p>' for name, share in shares.items()}
    said = (
        "Dark to yellow: says little to says much. A map is a hint, not a proof; the app can test how far to trust it."
    )
    return _pictures(prediction, overlay(prediction.views, evidence.maps), "evidence", under) + (
        f'<p class="fine">{said}</p>'
    )


def _facts(case: Case) -> str:
    prediction, card = case.prediction, case.card
    facts = {
        "Brought": f"{case.title} ({prediction.kind})",
        "SHA-256": case.digest,
        "Pose in the file": _pose(case),
        "Not an emotion": ", ".join(f"{name} {words.percent(share)}" for name, share in prediction.rejection.items()),
        "Model": " · ".join(filter(None, (str(card.get("name") or ""), str(card.get("created") or "")[:10]))),
        **{title: line for title, line in card_words.facts(card).items() if title in ("Sees", "Was trained on")},
        "How good it is": card_words.headline(card),
        "Time": words.cost(dict(prediction.timings_ms)),
    }
    rows = "".join(f"<dt>{escape(title)}</dt><dd>{escape(line)}</dd>" for title, line in facts.items() if line)
    return f"<dl>{rows}</dl>"


def _pose(case: Case) -> str:
    pose = case.prediction.pose
    if pose is None:
        return ""
    said = f"yaw {round(pose.yaw)}°, pitch {round(pose.pitch)}°, roll {round(pose.roll)}°"
    said += f", certainty {pose.certainty:.2f}"
    if any(case.correction):
        axes = zip(("yaw", "pitch", "roll"), case.correction, strict=True)
        turned = ", ".join(f"{name} {angle:+.0f}°" for name, angle in axes if angle)
        said += f"; corrected by hand: {turned}"
    return said


def _footer(case: Case) -> str:
    limits = str(case.card.get("limits") or "")
    limits = limits if len(limits) <= LONGEST else limits[:LONGEST].rsplit(" ", 1)[0] + " …"
    said = [f"<p><strong>{escape(words.INTENDED_USE)}</strong></p>"]
    if limits:
        said.append(f'<p class="fine">Limits of the model. {escape(limits)}</p>')
    said.append(f'<p class="fine">Made with AffectVLM {affectvlm.__version__} on {case.made.isoformat()}.</p>')
    return f"<footer>{''.join(said)}</footer>"


def _data(image: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
