"""Which maps point at what counts: methods and layers by deletion and insertion.

    python -m benchmarks.gradcam                        # 12 faces of our own
    python -m benchmarks.gradcam --ict PATH             # and 12 of ICT-FaceKit

Each face poses one of the six emotions and is explained for it. Deletion: the share of the emotion (among the six and
"neutral") that is left with 3 to 48 % of the pixels smoothed, strongest first, lower is better. Insertion: the share
with nothing but those, higher is better.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from affectvlm.emotions import EKMAN
from affectvlm.gradcam import emotion_target, explain
from affectvlm.gradcam.trust import deletion_insertion, random_fields
from affectvlm.predictor import Predictor
from affectvlm.rendering import render_views
from affectvlm.synthesis.expressions import prototype
from affectvlm.synthesis.ict import ICTFace
from affectvlm.synthesis.procedural import ProceduralFace

CASES = (
    ("integrated", "layer2"),
    ("integrated", "layer3"),
    ("layercam", "layer2"),
    ("layercam", "layer3"),
    ("hirescam", "layer3"),
    ("gradcam++", "layer3"),
    ("gradcam", "layer3"),
    ("gradcam", "layer4"),
    ("attention", ""),
)
PER_MODEL = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", help="ICT-FaceKit: a checkout or the packed .npz")
    parser.add_argument("--checkpoint", help="folder; the shipped one without it")
    args = parser.parse_args()
    predictor = Predictor.from_checkpoint(args.checkpoint)
    model, card = predictor.model, predictor.card
    bank, rows = model.text_bank(card.prompts).detach(), card.prompts.rows
    rng = np.random.default_rng(5)
    cases = []
    for face in [ProceduralFace(), *([ICTFace.load(args.ict)] if args.ict else [])]:
        for number in range(PER_MODEL):
            emotion = EKMAN[number % len(EKMAN)]
            scan = face.generate(face.sample_identity(rng), prototype(emotion))
            views = render_views(scan, card.image_kind, yaws=card.yaws, half_width=card.half_width)
            cases.append((views, emotion_target(bank, rows, emotion, card.temperature)))
    print(
        f"{len(cases)} faces\n\n| method | layer | deletion | insertion | difference | ms |\n|---|---|---|---|---|---|"
    )
    for method, layer in (("random places", ""), *CASES):
        scores, spent = [], 0.0
        for number, (views, target) in enumerate(cases):
            started = time.perf_counter()
            if method == "random places":
                maps = random_fields(PER_MODEL, len(views), model.image_size)[number % PER_MODEL].numpy()
            else:
                maps = explain(model, views, target, method=method, layer=layer or None).maps
            spent += time.perf_counter() - started
            scores.append(deletion_insertion(model, views, target, maps))
        deletion, insertion = np.mean(scores, axis=0)
        print(
            f"| {method} | {layer} | {deletion:.3f} | {insertion:.3f} | {insertion - deletion:+.3f} "
            f"| {1000 * spent / len(cases):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
