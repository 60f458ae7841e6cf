"""What the theme settings cannot say: spacing, small bars, rounded pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from affectvlm.ui import words

ICON = Path(__file__).parent / "icon.svg"  # an icon by name would be fetched from elsewhere

CSS = """
<style>
.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 3rem; max-width: 1400px; }
@media (min-width: 700px) { .stMainBlockContainer { padding-left: 2.6rem; padding-right: 2.6rem; } }
[data-testid="stSidebarHeader"] { height: 2.6rem; }
h1 { font-size: 2.1rem !important; letter-spacing: -0.015em; padding-bottom: 0.1rem !important; }
h2 { font-size: 1.75rem !important; letter-spacing: -0.01em; padding-top: 0 !important; }
.stImage img, .stIFrame, iframe { border-radius: 12px; }
@media (max-width: 700px) {
  h1 { font-size: 1.7rem !important; }
  :is(.st-key-samples, .st-key-views) [data-testid="stColumn"] { min-width: 27%; flex: 1 1 27%; }
  [role="radiogroup"] { flex-wrap: wrap; row-gap: 0.4rem; }
  .st-key-sentences [data-testid="stElementContainer"]:has(.sentence-bar) { flex-basis: 2.9rem !important; }
  .st-key-sentences .sentence-bar { grid-template-columns: 1fr; }
  .st-key-sentences .sentence-bar .bar-track { display: none; }
  .st-key-samples button { padding-left: 0.2rem; padding-right: 0.2rem; }
  .st-key-explorer_main > * > [data-testid="stHorizontalBlock"] > [data-testid="stColumn"]:last-child { order: -1; }
}
.coming { aspect-ratio: 1; border-radius: 12px; background: rgba(128, 128, 128, 0.16); }
.bars { display: grid; grid-template-columns: fit-content(56%) 1fr; gap: 3px 0.7em; padding: 2px 0 6px;
        align-items: center; font-size: 0.76rem; line-height: 1.15; }
.bar-row { display: contents; }
.bar-name { opacity: 0.72; min-width: 3.9em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar-track { height: 6px; border-radius: 3px; background: rgba(128, 128, 128, 0.16); overflow: hidden; }
.bar-fill { display: block; height: 100%; border-radius: 3px; }
.sentence-bar { display: grid; grid-template-columns: 1fr 3.2em; gap: 0.6em; align-items: center; font-size: 0.8rem; }
.sentence-bar .bar-track { height: 7px; }
:is(.st-key-explorer_pose, .st-key-explorer_target, .st-key-prompt_row) [role="radiogroup"] { flex-wrap: wrap;
                                                                                             row-gap: 0.4rem; }
.made-face { display: grid; grid-template-columns: 2fr 1fr; gap: 10px; }
.made-face img { width: 100%; display: block; border-radius: 12px; }
.made-face img:first-child { grid-row: 1 / 3; height: 100%; object-fit: cover; }
.strip-answer { font-size: 0.92rem; margin-top: -0.35rem; }
.dot { display: inline-block; width: 0.62em; height: 0.62em; border-radius: 50%; margin-right: 0.45em; }
.fine { font-size: 0.8rem; opacity: 0.74; line-height: 1.45; }
[data-testid="stCaptionContainer"] { opacity: 0.76 !important; }
.js-plotly-plot :is(.xtick text, .ytick text, .bartext, .xtitle, .ytitle, .legendtext) {
  fill: currentColor !important;
}
[data-testid="stBaseButton-primary"]:not(:disabled) { color: light-dark(#ffffff, #16181c); }
[data-testid="stMultiSelect"] [data-baseweb="tag"] :is(span, svg) { color: light-dark(#ffffff, #16181c); }
</style>
"""


def set_up() -> None:
    """Title, icon and layout of the browser page, and the style above; the first thing a script calls."""
    st.set_page_config(
        page_title="AffectVLM", page_icon=str(ICON), layout="wide", initial_sidebar_state=264, menu_items={}
    )
    st.html(CSS)


def remarks(warnings: Sequence[str]) -> None:
    """Doubts about an answer in boxes that cannot be overlooked; what was put right in the file in small print."""
    doubts, repairs = words.parted(warnings)
    for doubt in doubts:
        st.warning(doubt, icon=":material/warning:")
    if repairs:
        st.caption(words.plain("Put right in the file: " + "; ".join(repairs) + "."))


def fine_print(*lines: str) -> None:
    st.html('<div class="fine">' + "<br>".join(lines) + "</div>")
