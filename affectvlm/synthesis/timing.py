"""When an expression comes and goes: intensity curves for 4D sequences."""

from __future__ import annotations

import numpy as np


def timeline(onset_s: float, apex_s: float, offset_s: float, fps: float, peak: float = 1.0) -> np.ndarray:
    """Intensity of an expression over time: up from neutral, held, back to neutral.

    Rise and fall are minimum-jerk curves, 10 t³ - 15 t⁴ + 6 t⁵ (Flash & Hogan 1985), whose speed and acceleration
    vanish at both ends, as in a face that starts and stops moving softly.

    Args:
        onset_s: seconds from neutral to the peak, at least 0.
        apex_s: seconds at the peak, at least 0.
        offset_s: seconds back to neutral, at least 0.
        fps: frames a second, above 0.
        peak: intensity at the apex, 0 to 1.

    Returns:
        (T,) float64 in [0, peak], one value a frame from time 0 to the end, T = round(total seconds * fps) + 1.

    Raises:
        ValueError: a negative or non-finite duration, no duration at all, fps not above 0, or a peak outside [0, 1].
    """
    durations = np.array([onset_s, apex_s, offset_s], float)
    if not np.isfinite(durations).all() or (durations < 0).any() or durations.sum() == 0:
        raise ValueError(
            f"onset, apex and offset last {durations.tolist()} s; finite, not negative, not all 0 are needed"
        )
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; more than 0 is needed")
    if not 0 <= peak <= 1:
        raise ValueError(f"peak is {peak}; 0 to 1 is needed")
    end = durations.sum()
    time = np.linspace(0.0, end, round(end * fps) + 1)
    rise = _minimum_jerk(time / onset_s) if onset_s > 0 else np.ones_like(time)
    fall = _minimum_jerk((end - time) / offset_s) if offset_s > 0 else np.ones_like(time)
    return peak * np.minimum(rise, fall)


def _minimum_jerk(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0.0, 1.0)
    return t**3 * (10 - 15 * t + 6 * t**2)
