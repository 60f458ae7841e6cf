"""What a model says of rendered faces, each scored once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from affectvlm.augmentation.views import NORMALS, PICTURE, SHADED, TEXTURED, MixedViews, augment, plain
from affectvlm.data import RenderedFaces
from affectvlm.metrics import confusion, summary
from affectvlm.model import MultiviewCLIP, probabilities
from affectvlm.prompts import PromptSet

KIND_NUMBERS = {"normals": NORMALS, "shaded": SHADED, "textured": TEXTURED}


@torch.no_grad()
def face_logits(
    model: MultiviewCLIP,
    prompts: PromptSet,
    faces: RenderedFaces,
    kind: str = "normals",
    views: Sequence[int] = (0, 1, 2),
    augmented: int | None = None,
    bank: torch.Tensor | None = None,
    batch: int = 64,
) -> np.ndarray:
    """(n, K + R) float32 logits of every face.

    Args:
        kind: how the views are shown: normals, shaded or textured.
        views: which of front, left, right are given to the model.
        augmented: None shows clean views; a number seeds random light, background and framing, photo-like samples as
        photos.
        bank: (K + R, D) `text_bank` or `held_out_bank` of these prompts; None makes the first. A large text tower takes
            longer over it than over the faces.
    """
    model.eval()
    bank = model.text_bank(prompts) if bank is None else bank
    settings = MixedViews(size=model.image_size, flip=0.0, occlusion=0.0)
    result = []
    for number, indices in enumerate(faces.batches(batch)):
        stored, picture = faces.views(indices), faces.picture[indices]
        if augmented is None:
            images = plain(stored, KIND_NUMBERS[kind], model.image_size)
            if picture.any():
                images[picture > 0] = plain(stored[picture > 0], PICTURE, model.image_size)
        else:
            rng = np.random.default_rng([augmented, number])
            images = augment(stored, faces.photo[indices], settings, rng, KIND_NUMBERS[kind], picture)
        z = model.encode_views(torch.from_numpy(np.ascontiguousarray(images[:, list(views)])))
        result.append(model.logits(model.aggregate(z), bank).float().cpu().numpy())
    return np.concatenate(result)


def held_out_bank(model: MultiviewCLIP, prompts: PromptSet) -> torch.Tensor:
    """(K + R, D): like the text bank, of the held-out templates."""
    means = [model.encode_prompts(prompts.prompts(row, held_out=True)).mean(dim=0) for row in prompts.rows]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


@torch.no_grad()
def cases(model: MultiviewCLIP, prompts: PromptSet, kind: str) -> dict[str, dict]:
    """What a test asks, by name → arguments of `face_logits`: the default kind of picture first, other words last.

    Those are of the templates that training never drew, where the prompts have any.
    """
    bank = model.eval().text_bank(prompts)
    kinds = [kind, *(other for other in KIND_NUMBERS if other != kind)]
    asked = {
        **{f"three views, {name}": {"kind": name, "bank": bank} for name in kinds},
        "front view alone": {"kind": kind, "views": (0,), "bank": bank},
        "front and left view": {"kind": kind, "views": (0, 1), "bank": bank},
        "left view alone": {"kind": kind, "views": (1,), "bank": bank},
    }
    if prompts.held_out_templates:
        asked["three views, held-out wording"] = {"kind": kind, "bank": held_out_bank(model, prompts)}
    return asked


def report(logits: np.ndarray, faces: RenderedFaces, temperature: float = 1.0, margin: float = 0.0) -> dict:
    """Scores of the emotions, by class and intensity, and how often what is no emotion is kept from a confident
    one."""
    classes, emotional = faces.classes, faces.emotional
    parts = probabilities(torch.from_numpy(logits), len(classes), temperature, margin)
    chances, rejected = (part.numpy() for part in parts)
    labels, own = faces.labels[emotional], chances[emotional]
    intensity = np.where(faces.graded, faces.intensity, np.nan)[emotional]  # NaN, not known, is in no band
    scores: dict = {"emotions": summary(labels, own)}
    right = own.argmax(axis=1) == labels
    scores["confusion"] = confusion(labels, own.argmax(axis=1), len(classes)).tolist()  # true classes in rows
    scores["by_class"] = {name: _share(right[labels == k]) for k, name in enumerate(classes)}
    bands = {"slight (under 0.5)": intensity < 0.5, "medium (0.5 to 0.75)": (intensity >= 0.5) & (intensity < 0.75),
             "strong (0.75 and over)": intensity >= 0.75, "medium or higher": intensity >= 0.5}  # fmt: skip
    scores["by_intensity"] = {name: _share(right[band]) for name, band in bands.items()}
    for row, name in enumerate(faces.rejection, len(classes)):
        of_row = faces.labels == row
        if of_row.any():
            scores[name] = {
                "n": int(of_row.sum()),
                "recognised": _share(rejected[of_row].sum(axis=1) > 0.5),
                "confident emotion (0.75 and over)": _share(chances[of_row].max(axis=1) >= 0.75),
            }
    scores["emotions taken for neutral or no face"] = _share(rejected[emotional].sum(axis=1) > 0.5)
    return scores


def predictions(logits: np.ndarray, faces: RenderedFaces, temperature: float, margin: float = 0.0) -> dict:
    """What is said of each face that shows an emotion, ready for JSON: {"classes": names, "faces": [{"id", "subject",
    "label", "also", "intensity", "metadata", "probabilities"}]}; generated faces have no id but their number."""
    chances, _ = probabilities(torch.from_numpy(logits), len(faces.classes), temperature, margin)
    rows = [
        {
            "id": record.get("id", str(number)),
            "subject": record["subject"],
            "label": faces.rows[faces.labels[number]],
            "also": record.get("also", []),
            "intensity": record["intensity"],
            "metadata": record.get("metadata") or {},
            "probabilities": [round(float(share), 6) for share in chances[number]],
        }
        for number, record in enumerate(faces.records)
        if faces.emotional[number]
    ]
    return {"classes": list(faces.classes), "faces": rows}


def _share(hits: np.ndarray) -> float | None:
    return round(float(hits.mean()), 4) if len(hits) else None
