"""The player of a sequence: its pictures, each with a bar a class, played in the browser.

All frames are sent once. The browser plays them by itself and tells the page only where it was left, so that playing
costs the server nothing and runs at the pace of the film.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import cache

import streamlit as st

from affectvlm.emotions import class_colors
from affectvlm.ui.clips import SeenFrame

SLOWEST_MS, QUICKEST_MS = 500, 40

_HTML = """
<div class="player">
  <div class="stage">
    <img class="picture" alt="">
    <div class="bars" role="img"></div>
  </div>
  <div class="line">
    <button class="play" type="button" aria-label="Play"></button>
    <div class="track">
      <div class="strip" aria-hidden="true"></div>
      <input class="seek" type="range" min="0" step="1" aria-label="Frame">
    </div>
    <output class="where"></output>
  </div>
</div>
"""

_CSS = """
.player { font-family: var(--st-font); color: var(--st-text-color); }
.stage { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 4fr); gap: 1.6rem; align-items: center; }
.picture { width: 100%; aspect-ratio: 1; border-radius: 12px; display: block; background: rgba(128, 128, 128, .16); }
.bars { display: grid; grid-template-columns: fit-content(45%) 1fr max-content; gap: .55rem .6em; align-items: center;
        font-size: .95rem; }
.bars:empty { display: none; }
.row { display: contents; }
.row > :first-child { min-width: 4em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.rail { height: 12px; border-radius: 6px; background: rgba(128, 128, 128, .16); overflow: hidden; }
.fill { height: 100%; border-radius: 6px; width: 0; }
.value { font-variant-numeric: tabular-nums; text-align: right; min-width: 3.4em; }
.line { display: grid; grid-template-columns: auto 1fr auto; gap: .9rem; align-items: center; margin-top: .9rem; }
.play { width: 2.6rem; height: 2.6rem; border-radius: 50%; border: 0; cursor: pointer; color: #fff; padding: 0;
        background: var(--st-primary-color); display: grid; place-items: center; }
.play:focus-visible, .seek:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 3px; }
.play svg { width: 1.2rem; height: 1.2rem; fill: currentColor; }
.seek { width: 100%; margin: 0; accent-color: var(--st-primary-color); display: block; }
.strip { display: flex; height: 7px; border-radius: 4px; overflow: hidden; margin: 0 8px 5px;
         background: rgba(128, 128, 128, .16); }
.strip:empty { display: none; }
.strip span { flex: 1; }
.where { font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 7.5em; text-align: right; opacity: .8; }
@media (max-width: 560px) { .stage { grid-template-columns: 1fr; gap: 1rem; } .where { min-width: 0; } }
"""

_JS = """
const PLAY = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M8 5v14l11-7z"/></svg>';
const PAUSE = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M6 5h4v14H6zm8 0h4v14h-4z"/></svg>';

function percent(share) {
  const rounded = Math.round(100 * share);
  if (rounded === 0 && share > 0) return "< 1 %";
  if (rounded === 100 && share < 1) return "> 99 %";
  return rounded + " %";
}

function build(root, data, leave) {
  const find = (name) => root.querySelector("." + name);
  const [picture, bars, play, seek, strip, where] = ["picture", "bars", "play", "seek", "strip", "where"].map(find);
  const state = { id: data.id, at: data.at, timer: null, leave };
  bars.replaceChildren(); strip.replaceChildren();
  const fills = data.shares ? data.classes.map((name, k) => {
    const row = document.createElement("div");
    row.className = "row";
    row.innerHTML = '<span></span><div class="rail"><div class="fill"></div></div><span class="value"></span>';
    row.firstChild.textContent = row.firstChild.title = name;
    row.querySelector(".fill").style.background = data.colors[k];
    bars.append(row);
    return row;
  }) : [];
  (data.shares || []).forEach((shares) => {
    const cell = document.createElement("span"), best = Math.max(...shares), k = shares.indexOf(best);
    cell.style.background = data.colors[k];
    cell.style.opacity = Math.max(0, (best - 1 / shares.length) / (1 - 1 / shares.length));
    strip.append(cell);
  });
  seek.max = data.pictures.length - 1;

  function show(at) {
    state.at = at;
    picture.src = "data:image/jpeg;base64," + data.pictures[at];
    picture.alt = "front view of frame " + data.numbers[at];
    seek.value = at;
    const words = "frame " + data.numbers[at] + (data.times ? " · " + data.times[at].toFixed(2) + " s" : "");
    where.textContent = words;
    seek.setAttribute("aria-valuetext", words);
    fills.forEach((row, k) => {
      row.querySelector(".fill").style.width = (100 * data.shares[at][k]).toFixed(1) + "%";
      row.querySelector(".value").textContent = percent(data.shares[at][k]);
    });
    if (data.shares) bars.setAttribute("aria-label",
      data.classes.map((name, k) => name + " " + percent(data.shares[at][k])).join(", "));
  }
  function pause(tell) {
    if (state.timer !== null) clearInterval(state.timer);
    state.timer = null;
    play.innerHTML = PLAY;
    play.setAttribute("aria-label", "Play");
    if (tell) state.leave(state.at);
  }
  function start() {
    if (state.at >= data.pictures.length - 1) show(0);
    play.innerHTML = PAUSE;
    play.setAttribute("aria-label", "Pause");
    state.timer = setInterval(() => {
      if (!root.isConnected) return pause(false);
      if (state.at >= data.pictures.length - 1) return pause(true);
      show(state.at + 1);
    }, data.pause_ms);
  }
  play.onclick = () => (state.timer === null ? start() : pause(true));
  seek.oninput = () => { if (state.timer !== null) pause(false); show(Number(seek.value)); };
  seek.onchange = () => state.leave(state.at);
  pause(false);
  show(data.at);
  state.pause = pause;
  return state;
}

export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".player");
  const leave = (at) => setStateValue("frame", at);
  if (root.state && root.state.id === data.id) {
    root.state.leave = leave;  // the page was drawn again: go on
  } else {
    if (root.state) root.state.pause(false);
    root.state = build(root, data, leave);
  }
}
"""


@cache
def _component():
    return st.components.v2.component("affectvlm_player", html=_HTML, css=_CSS, js=_JS)


def show(
    key: str,
    frames: Sequence[SeenFrame],
    classes: Sequence[str] | None,
    times: Sequence[float] | None,
    at: int,
    on_change: Callable[[], None],
) -> int:
    """The player, first shown at frame `at`; returns the frame where the visitor left it.

    Args:
        key: of the sequence; another one starts anew.
        classes: names of the frames' shares, or None where the frames have no answers of their own.
        times: seconds of each frame, or None where they are not known.
        on_change: called when the visitor has moved on.
    """
    place = _component()(
        key=f"player_{key}",
        data={
            "id": key,
            "pictures": [base64.b64encode(frame.picture).decode() for frame in frames],
            "numbers": [frame.number for frame in frames],
            "times": None if times is None else [float(time) for time in times],
            "classes": list(classes or ()),
            "colors": list(class_colors(classes or ()).values()),
            "shares": [[round(float(share), 4) for share in frame.shares] for frame in frames] if classes else None,
            "pause_ms": pause_ms(times),
            "at": at,
        },
        default={"frame": at},
        on_frame_change=on_change,
    )
    left = place.frame
    return min(max(int(left), 0), len(frames) - 1) if isinstance(left, int | float) else at


def pause_ms(times: Sequence[float] | None) -> int:
    """Milliseconds from frame to frame: as it was filmed, where that is known; a quarter of a second else."""
    if times is None or len(times) < 2:
        return 250
    usual = 1000 * (times[-1] - times[0]) / (len(times) - 1)
    return round(min(max(usual, QUICKEST_MS), SLOWEST_MS))
