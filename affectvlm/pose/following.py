"""The pose of a frame of a sequence from that of the frame before: the fit alone, without the network's looks.

The template starts where the face was, and sees the surface about that place only. That takes a fifth of the time of a
search. Shape and certainty go back to a frame that was searched: the template starts shaped as it was fitted there, so
that errors do not add up from frame to frame, and the certainty has what the network said there.

From up to 12 degrees away the fit ends within 0.6 degrees of where it ends from the true place (three heads, random
axes, shifts of up to a centimetre); from farther, it can end elsewhere and be sure.
"""

from __future__ import annotations

import numpy as np

from affectvlm.pose.alignment import Similarity, refine
from affectvlm.pose.cleaning import HEAD_CENTER, MIN_POINTS
from affectvlm.pose.frontal import Pose, Sighting, apart, is_known, sighting
from affectvlm.pose.sampling import least_directions, surface_points
from affectvlm.pose.template import shipped_template
from affectvlm.scan import Scan

MARGIN_MM = 18.0
"""About the template; what lies farther from it is not looked at."""
SURFACE_POINTS, FIT_POINTS = 2048, 1400
"""As dense on a face as those of `frontal`, which lie on all of a head."""
FIRST_STEP = 3
"""Of `alignment.refine`; it reaches 14 mm."""
SETTLED_MM = 0.03
FAR_DEGREES, FAR_MM = 10.0, 12.0
"""A face that has moved farther is not followed."""


def follow(scan: Scan, pose: Pose, key: Sighting) -> Sighting | None:
    """Where the face of a scan is.

    Args:
        scan: as read; what `cleaning.tidy` would drop of it is too little to matter.
        pose: of the same face shortly before or after.
        key: what was seen of it by a search.

    Returns:
        None where there is next to no surface left, or where the face has moved far.
    """
    template = shipped_template()
    start = Similarity(pose.rotation, pose.translation, pose.scale)
    surface = _surface_about(scan, start, template.points)
    if surface is None:
        return None
    points = surface[:FIT_POINTS]
    normals = least_directions(surface, points)
    outward = (start.apply(points) - HEAD_CENTER) @ start.rotation
    normals[np.einsum("ni,ni->n", normals, outward) < 0] *= -1
    free_scale = not is_known(scan.unit, start.scale)
    fit = refine(start, points, normals, template, free_scale, key.shape, FIRST_STEP, SETTLED_MM)
    of_the_fit = [fit.coverage, fit.residual, fit.strange, fit.overlap]
    found = sighting(fit, np.concatenate([of_the_fit, key.values[len(of_the_fit) :]]))
    degrees, millimetres = apart(pose, found.pose)
    return found if degrees <= FAR_DEGREES and millimetres <= FAR_MM else None


def _surface_about(scan: Scan, start: Similarity, template: np.ndarray) -> np.ndarray | None:
    """Even surface points (M, 3) of the scan in the box about a template (P, 3), in the scan's frame, or None where
    there are too few."""
    rng = np.random.default_rng(0)
    low, high = template.min(axis=0) - MARGIN_MM, template.max(axis=0) + MARGIN_MM

    def inside(points: np.ndarray) -> np.ndarray:
        moved = start.apply(points)
        return ((moved > low) & (moved < high)).all(axis=1)

    vertices = scan.vertices.astype(np.float64)
    keep = inside(vertices)
    if not scan.is_point_cloud:
        faces = scan.faces[keep[scan.faces].any(axis=1)]
        if len(faces) == 0:
            return None
        surface = surface_points(vertices, faces, SURFACE_POINTS, rng)
        surface = surface[inside(surface)]
    else:
        surface = surface_points(vertices[keep], scan.faces, SURFACE_POINTS, rng)
    return surface if len(surface) >= MIN_POINTS else None
