"""Train AffectVLM: settings, data, model, fit, calibrate, report. Reads top to bottom.

    python train.py                                     procedural faces, compact model, CPU
    python train.py --config settings.yaml optim.lr=1e-3 run.name=mine
    python train.py data.sources=[ict,procedural] data.ict_path=ICT-FaceKit data.train_faces=[20000,8000]
    optim.steps=8000

The run folder (runs/NAME) holds the resolved settings, metrics and the trained checkpoint; the app and the shell take
the checkpoint folder as it is.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader

from affectvlm.config import TrainConfig, load, to_dict
from affectvlm.data import FaceSet, MixedBatches, RenderedFaces, build
from affectvlm.emotions import EKMAN
from affectvlm.losses import AffectVLMLoss
from affectvlm.methods.affectvlm import AffectVLM
from affectvlm.methods.scoring import face_logits, report
from affectvlm.metrics import fit_temperature
from affectvlm.model import Card, build_model, load_checkpoint, save_checkpoint
from affectvlm.prompts import PromptSet
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, VIEW_NAMES

log = logging.getLogger("train")

INTENDED_USE = (
    "Naming the posed facial expression that a 3D scan or three photos of one face resemble most, for research and "
    "demonstration."
)
LIMITS = (
    "Trained on computer-generated faces only. Expressions are not feelings. Not for decisions about people: not for "
    "hiring, schools, workplaces, policing or medical use. Use it only with the consent of the person shown."
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--config", help="YAML file with settings")
    arguments.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    arguments.add_argument("settings", nargs="*", help="section.key=value")
    given = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        config = load(TrainConfig, given.config, given.settings)
    except (ValueError, OSError) as error:
        arguments.error(str(error))
    train(config, resume=given.resume)


def train(config: TrainConfig, resume: bool = False) -> Path:
    """Run everything; returns the folder of the trained checkpoint."""
    run = Path(config.run.folder) / config.run.name
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False), "utf-8")
    pl.seed_everything(config.run.seed)
    if config.optim.threads:
        torch.set_num_threads(config.optim.threads)

    faces = {split: render_faces(config, split) for split in ("train", "validation", "test")}
    check_subjects(faces)

    prompts = PromptSet.load()
    model = (
        load_checkpoint(config.model.start)[0]
        if config.model.start
        else build_model(config.model.arch, config.model.pretrained or None)
    )
    model.clip.visual.to(memory_format=torch.channels_last)
    loss = AffectVLMLoss(
        len(EKMAN),
        contrastive=config.loss.contrastive, triplet=config.loss.triplet, alignment=config.loss.alignment,
    )  # fmt: skip
    method = AffectVLM(model, prompts, loss, config.optim, config.loss, config.run.seed)

    fit(method, faces, config, run, resume)

    temperature = calibrate(method, faces["validation"])
    scores = test(method, faces["test"], temperature)
    (run / "metrics.json").write_text(json.dumps(scores, indent=2), "utf-8")
    card = Card.of(
        model, prompts, name=config.run.name, view_names=VIEW_NAMES, yaws=DEFAULT_YAWS, image_kind="normals",
        half_width=HALF_WIDTH_MM, temperature=temperature, metrics=scores, licence="MIT",
        training_data={"faces": describe(faces), "settings": shareable(config)},
        intended_use=INTENDED_USE, limits=LIMITS,
    )  # fmt: skip
    save_checkpoint(run / "model", model, card)
    log.info("accuracy on unseen identities: %s", scores["three views, normals"]["emotions"])
    log.info("use it:  python -m affectvlm predict SCAN --checkpoint %s", run / "model")
    return run / "model"


def render_faces(config: TrainConfig, split: str) -> RenderedFaces:
    """The rendered faces of one split, over all sources; made now where the cache lacks them."""
    folders, counts = [], []
    for source, train_faces in zip(config.data.sources, config.data.train_faces, strict=True):
        count = {"train": train_faces, "validation": config.data.validation_faces, "test": config.data.test_faces}[
            split
        ]
        settings = FaceSet(
            source, split, count, damaged=split != "test", model_path=config.data.ict_path if source == "ict" else ""
        )
        folders.append(build(settings, config.data.cache, config.data.workers))
        counts.append(count)
    return RenderedFaces(folders, counts, photos=config.data.photos or split != "train")


def check_subjects(faces: dict[str, RenderedFaces]) -> None:
    """No subject in two splits, or the run stops here."""
    splits = list(faces)
    for i, first in enumerate(splits):
        for second in splits[i + 1 :]:
            shared = set(faces[first].subjects) & set(faces[second].subjects)
            if shared:
                raise ValueError(f"{len(shared)} subjects are in {first} and in {second}, such as {sorted(shared)[0]}")


class Progress(pl.Callback):
    """Says how far the training is, writes events.jsonl, and scores the averaged weights on validation now and then."""

    def __init__(self, run: Path, validation: RenderedFaces, config: TrainConfig) -> None:
        self.events = (run / "events.jsonl").open("a", encoding="utf-8", buffering=1)
        self.validation, self.config = validation, config
        self.since = self.first = 0.0

    def on_train_start(self, trainer: pl.Trainer, method: AffectVLM) -> None:
        self.since, self.first = time.time(), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, method: AffectVLM, *_: object) -> None:
        step, steps = trainer.global_step, self.config.optim.steps
        if step % self.config.run.every == 0:
            values = {k: round(float(v), 4) for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
            rate = (step - self.first) / (time.time() - self.since)
            event = {"step": step, "time": round(time.time(), 1), "steps_per_s": round(rate, 3), **values}
            self.events.write(json.dumps(event) + "\n")
            log.info("step %d/%d  loss %.3f  %.0f views/s  %.0f min left", step, steps, values["train/loss"],
                     self.config.optim.views * rate * self.config.optim.batch, (steps - step) / rate / 60)  # fmt: skip
        if step % self.config.run.validate == 0 or step == steps:
            self.validate(trainer, method, step)

    def validate(self, trainer: pl.Trainer, method: AffectVLM, step: int) -> None:
        """Score the weights as they are and their running average, which is poor while learning is fast."""
        self.current = {name: value.clone() for name, value in method.model.state_dict().items()}
        averaging = next(c for c in trainer.callbacks if isinstance(c, EMAWeightAveraging))
        self.scores = {"current": self.score(method)}
        averaging.on_validation_epoch_start(trainer, method)  # swaps the averaged weights in
        self.scores["averaged"] = self.score(method)
        averaging.on_validation_epoch_end(trainer, method)
        method.train()
        self.events.write(json.dumps({"step": step, "validation": self.scores}) + "\n")
        for name, scores in self.scores.items():
            log.info("step %d  validation, %s weights: %s", step, name, scores["emotions"])

    def score(self, method: AffectVLM) -> dict:
        return report(face_logits(method.model, method.prompts, self.validation, augmented=0), self.validation)

    def keep_better(self, method: AffectVLM) -> None:
        """Leave the averaged or the last weights in the model, whichever validation prefers."""
        uar = {name: scores["emotions"]["uar"] for name, scores in self.scores.items()}
        log.info("validation UAR: %s", uar)
        if uar["current"] > uar["averaged"]:
            method.model.load_state_dict(self.current)


def fit(method: AffectVLM, faces: dict[str, RenderedFaces], config: TrainConfig, run: Path, resume: bool) -> None:
    """Train; afterwards `method.model` holds the averaged or the last weights, as validation prefers."""
    last = run / "last.ckpt"
    start = torch.load(last, weights_only=True)["global_step"] if resume and last.is_file() else 0
    optim = config.optim
    batches = MixedBatches(
        faces["train"], config.views, optim.batch, optim.steps, config.run.seed, start, per_sample=optim.views
    )
    progress = Progress(run, faces["validation"], config)
    trainer = pl.Trainer(
        accelerator="auto", devices=1, max_steps=config.optim.steps, max_epochs=-1,
        precision="bf16-mixed" if config.optim.precision == "bf16" else "32-true",
        gradient_clip_val=config.optim.clip, default_root_dir=run, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[
            EMAWeightAveraging(decay=config.optim.ema),
            progress,
            # without a version counter: a resumed run must go on writing last.ckpt, not last-v1.ckpt beside it
            ModelCheckpoint(run, save_last=True, save_top_k=0, every_n_train_steps=config.run.validate,
                            enable_version_counter=False),
        ],
    )  # fmt: skip
    if not start and not config.model.pretrained and not config.model.start:
        log.info("words separated, loss %.3f", method.separate_words())
    method.train()  # models are built in evaluation mode, and Lightning keeps what it finds
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    trainer.fit(method, loader, ckpt_path=str(last) if start else None, weights_only=True)
    progress.keep_better(method)


def calibrate(method: AffectVLM, validation: RenderedFaces) -> float:
    """The temperature that fits the validation faces, half of them shown as the scan path shows them, half as
    photos."""
    logits = face_logits(method.model, method.prompts, validation, augmented=1)
    return fit_temperature(validation.labels, logits)


def test(method: AffectVLM, faces: RenderedFaces, temperature: float) -> dict:
    """Unseen identities: every kind of picture with three views, and one and two views of the default kind."""
    cases = {f"three views, {kind}": (kind, (0, 1, 2)) for kind in ("normals", "shaded", "textured")}
    cases |= {
        "front view alone": ("normals", (0,)),
        "front and left view": ("normals", (0, 1)),
        "left view alone": ("normals", (1,)),
    }
    return {
        name: report(face_logits(method.model, method.prompts, faces, kind, views), faces, temperature)
        for name, (kind, views) in cases.items()
    }


def shareable(config: TrainConfig) -> dict:
    """The settings as a card may tell them to strangers: without the places things lie at on this machine."""
    settings = to_dict(config)
    for section, key in (("data", "ict_path"), ("data", "cache"), ("run", "folder"), ("model", "start")):
        settings[section][key] = Path(settings[section][key]).name
    return settings


def describe(faces: dict[str, RenderedFaces]) -> dict:
    """Counts of each split: faces, subjects and sources."""
    return {
        split: {
            "faces": len(part),
            "subjects": len(set(part.subjects)),
            "sources": sorted({r["source"] for r in part.records}),
        }
        for split, part in faces.items()
    }


if __name__ == "__main__":
    main()
