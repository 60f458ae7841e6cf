"""Faces to train on, rendered once into a cache and read from there at every step.

generated   faces of our face models, by settings: `build` renders what is missing
faces       `RenderedFaces`: what a cache holds, with labels
batches     `MixedBatches`: an endless shuffle of them, augmented

    folder = build(FaceSet("procedural", "train", 4096), "cache")
    batches = MixedBatches(RenderedFaces([folder]), MixedViews(size=112), batch=64, steps=600, seed=0)
"""

from affectvlm.data.batches import Batches, MixedBatches, sample_weight, shuffled, shuffled_rows
from affectvlm.data.faces import RenderedFaces, class_name, open_shard, picture_mode
from affectvlm.data.generated import (
    LABELS,
    REJECTION,
    SHARD,
    UNITS,
    FaceSet,
    build,
    clean,
    described,
    draw_record,
    make_face,
    open_source,
)

__all__ = [
    "LABELS",
    "REJECTION",
    "SHARD",
    "UNITS",
    "Batches",
    "FaceSet",
    "MixedBatches",
    "RenderedFaces",
    "build",
    "class_name",
    "clean",
    "described",
    "draw_record",
    "make_face",
    "open_shard",
    "open_source",
    "picture_mode",
    "sample_weight",
    "shuffled",
    "shuffled_rows",
]
