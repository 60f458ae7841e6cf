"""Why an answer: maps of the views, how far they can be trusted, what each part gave, and all of it on the mesh.

    target = emotion_target(bank, prompts.rows, "fear")
    evidence = explain(model, prediction.inputs, target)            # evidence.maps (N, H, W) in [0, 1]
    trust(model, prediction.inputs, target, evidence.maps).word     # "points at what counts"
    project(prediction.scan, evidence.maps)                         # (V,) on the vertices

No function here changes the model or keeps anything: threads can share it.
"""

from affectvlm.gradcam.contributions import Contributions, Level, contributions
from affectvlm.gradcam.files import evidence_glb, evidence_ply, maps_npz
from affectvlm.gradcam.maps import METHODS, ViewMaps, default_layer, explain, methods_for
from affectvlm.gradcam.pictures import GridRow, grid_png, overlay, strip_png, vertex_paint
from affectvlm.gradcam.projection import project
from affectvlm.gradcam.regions import REGIONS, photo_regions, scan_regions
from affectvlm.gradcam.targets import Target, contrast_target, emotion_target, prompt_target
from affectvlm.gradcam.trust import Trust, trust, weights_matter

__all__ = [
    "METHODS",
    "REGIONS",
    "Contributions",
    "GridRow",
    "Level",
    "Target",
    "Trust",
    "ViewMaps",
    "contributions",
    "contrast_target",
    "default_layer",
    "emotion_target",
    "evidence_glb",
    "evidence_ply",
    "explain",
    "grid_png",
    "maps_npz",
    "methods_for",
    "overlay",
    "photo_regions",
    "project",
    "prompt_target",
    "scan_regions",
    "strip_png",
    "trust",
    "vertex_paint",
    "weights_matter",
]
