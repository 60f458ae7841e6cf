"""Train AffectVLM: settings, data, model, fit, choose, calibrate, test, report. Reads top to bottom.

    python train.py                                     procedural faces, compact model, CPU
    python train.py --config settings.yaml optim.lr=1e-3 run.name=mine
    python train.py --resume run.name=mine              go on after a stop or a kill
    python train.py --fast-dev-run                      the whole path once, in under a minute
    torchrun --nproc-per-node 4 train.py ...            several processes, here or on many machines

The run folder (runs/NAME, see affectvlm/runs.py) holds settings, events, checkpoints, scores and the exported model;
the app and the shell take its folder `model` as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from affectvlm.config import DataConfig, TrainConfig, load, to_dict
from affectvlm.data import FaceSet, MixedBatches, RenderedFaces, build
from affectvlm.datasets import Index, index_dataset, read_split, render_index, split_subjects
from affectvlm.fitting import Keeping, TrainingError, callbacks, choose_weights
from affectvlm.launching import fast_precision, place, rank, threads_per_process, trainer_options, watch_parent
from affectvlm.losses import AffectVLMLoss
from affectvlm.methods.affectvlm import AffectVLM, separate_words
from affectvlm.methods.gathering import synchronise_batch_norm
from affectvlm.methods.scoring import cases, face_logits, predictions, report
from affectvlm.metrics import fit_temperature
from affectvlm.model import Card, MultiviewCLIP, build_model, load_checkpoint, save_checkpoint
from affectvlm.model.tuning import TuningConfig, prepare, table
from affectvlm.prompts import PromptSet
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, VIEW_NAMES
from affectvlm.runs import CONFIG, LAST, METRICS, MODEL, PREDICTIONS, Run, RunError, command, environment, free_name

log = logging.getLogger("train")

RUN_NAME = "AFFECTVLM_RUN"
"""Environment variable: the run that ranks of this training share."""

FAST_DEV_RUN = (
    "data.sources=[procedural]", "data.train_faces=[32]", "data.validation_faces=16", "data.test_faces=16",
    "optim.steps=4", "optim.batch=8", "optim.warmup=1", "optim.word_steps=2", "run.every=1", "run.validate=2",
)  # fmt: skip
INTENDED_USE = (
    "Naming the posed facial expression that a 3D scan or three photos of one face resemble most, for research and "
    "demonstration."
)
LIMITS = (
    "Expressions are not feelings. Not for decisions about people: not for hiring, schools, workplaces, policing or "
    "medical use. Use it only with the consent of the person shown."
)


def main() -> None:
    watch_parent()
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--config", help="YAML file with settings")
    arguments.add_argument("--resume", action="store_true", help="go on with the run that run.name says")
    arguments.add_argument("--fast-dev-run", action="store_true", help="a few steps on a few faces: does it all work?")
    arguments.add_argument("settings", nargs="*", help="section.key=value")
    given = arguments.parse_intermixed_args()  # settings may stand on both sides of options
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    quieten()
    try:
        config = settings(given)
        place(config.run.devices, config.run.nodes)
    except (ValueError, OSError, RunError) as error:
        arguments.error(str(error))
    try:
        train(config, resume=given.resume)
    except (RunError, TrainingError, ValueError) as error:
        sys.exit(f"train.py: {error}")


def quieten() -> None:
    """Leave out what Lightning says of itself; its warnings and errors stay."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # one is enough here, see loader_wait
    warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode.*")  # frozen batch norms


def settings(given: argparse.Namespace) -> TrainConfig:
    """Defaults, then the YAML file (of the run itself, where one is gone on with), then section.key=value."""
    overrides = [*(FAST_DEV_RUN if given.fast_dev_run else ()), *given.settings]
    config = load(TrainConfig, given.config, overrides)
    if not given.resume:
        return config
    if not config.run.name:
        raise ValueError("--resume needs the name of the run: run.name=NAME")
    kept = Path(config.run.folder) / config.run.name / CONFIG
    if not kept.is_file():
        raise RunError(f"there is no run in {kept.parent}: nothing to resume")
    return load(TrainConfig, given.config or kept, overrides)


def train(config: TrainConfig, resume: bool = False) -> Path | None:
    """Run everything; returns the folder of the trained checkpoint, or None where the training was stopped before."""
    placement = place(config.run.devices, config.run.nodes)
    threads = config.optim.threads or threads_per_process(placement)
    if placement.strategy == "ddp":  # Lightning sets threads of its own where nothing is said here
        os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    run, config = open_run(config, resume, rank(placement) == 0)
    try:
        folder = _train(config, run, resume, placement)
        run.event("end", state="finished" if folder else "stopped")
        return folder
    except BaseException as error:
        run.event("end", state="failed", message=str(error) or type(error).__name__)
        raise
    finally:
        run.close()


def _train(config: TrainConfig, run: Run, resume: bool, placement: Any) -> Path | None:
    pl.seed_everything(config.run.seed, verbose=False)
    first = rank(placement) == 0
    prompts = PromptSet.load(config.prompts.file)
    prompts = prompts if config.prompts.augmented else prompts.plain()
    own = own_faces(config.data, say=first)
    splits = ("train", "validation", "test")
    faces = {split: faces_of(config, split, prompts, own.get(split), say=first) for split in splits}
    check_subjects(faces)
    if config.prompts.metadata and config.prompts.augmented:
        check_words(prompts, faces["train"])

    model = network(config, prompts, resume)
    start = None
    if config.model.pretrained or config.model.start:
        start = {name: value.clone() for name, value in model.state_dict().items()}
    tuning = resting_text(config)
    prepare(model, tuning)
    if placement.strategy == "ddp":
        synchronise_batch_norm(model)
    loss = AffectVLMLoss(
        len(prompts.classes), margin=config.loss.margin,
        contrastive=config.loss.contrastive, triplet=config.loss.triplet, alignment=config.loss.alignment,
    )  # fmt: skip
    method = AffectVLM(model, loss, tuning, config.optim, config.loss)
    if first:
        describe_run(run, config, faces, table(model, tuning, config.optim.lr, config.optim.text_lr))

    def score(method: AffectVLM) -> dict:
        return report(face_logits(method.model, prompts, faces["validation"], augmented=0), faces["validation"])

    if not fit(method, faces["train"], prompts, config, run, resume, placement, score):
        log.info("stopped; go on with:  python train.py --resume run.name=%s", run.folder.name)
        return None
    if not first:
        return run.folder / MODEL

    tried = choose_weights(method, run, score, start, config.model.interpolate)
    log.info("validation UAR by share of the trained weights: %s", {k: round(v, 3) for k, v in tried.items()})
    temperature = calibrate(model, prompts, faces["validation"])
    scores, predictions = test(model, prompts, faces["test"], temperature, config.data.image_kind)
    run.write_json(METRICS, scores)
    run.write_json(PREDICTIONS, predictions)
    card = Card.of(
        model, prompts, name=run.folder.name, view_names=VIEW_NAMES, yaws=DEFAULT_YAWS,
        image_kind=config.data.image_kind, half_width=HALF_WIDTH_MM, temperature=temperature, metrics=scores,
        licence="MIT", training_data={"faces": describe(faces), "settings": shareable(config)},
        intended_use=INTENDED_USE, limits=LIMITS,
    )  # fmt: skip
    save_checkpoint(run.folder / MODEL, model, card)
    say_results(scores, run)
    return run.folder / MODEL


def open_run(config: TrainConfig, resume: bool, first: bool) -> tuple[Run, TrainConfig]:
    """The run folder, written by the first rank alone, and the settings with its name in them."""
    name = config.run.name or os.environ.get(RUN_NAME) or free_name(config.run.folder, "affectvlm")
    os.environ[RUN_NAME] = name  # ranks that this process starts write about the same run
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))
    folder = Path(config.run.folder) / name
    return (Run.open(folder, resume) if first else Run.follow(folder)), config


def describe_run(run: Run, config: TrainConfig, faces: dict[str, RenderedFaces], trained: str) -> None:
    """What is needed to understand and to repeat the run, said and written before it starts."""
    run.write(CONFIG, lambda path: path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), "utf-8"))
    run.write("command.txt", lambda path: path.write_text(command() + "\n", "utf-8"))
    run.write_json("environment.json", environment())
    run.write_json("data.json", describe(faces))
    log.info("run folder: %s", run.folder)
    log.info("what is trained:\n%s", trained)


def own_faces(data: DataConfig, say: bool) -> dict[str, Index]:
    """The user's own faces, by split; empty where none are asked for."""
    if "folder" not in data.sources:
        return {}
    index = index_dataset(data.dataset, data.folder)
    if say:
        log.info("%s", index.summary())
    return read_split(index, data.split) if data.split else split_subjects(index, seed=data.split_seed)


def faces_of(config: TrainConfig, split: str, prompts: PromptSet, own: Index | None, say: bool) -> RenderedFaces:
    """The rendered faces of one split, over all sources; made now where the cache lacks them."""
    data = config.data
    folders, counts = [], []
    for source, train_faces in zip(data.sources, data.train_faces, strict=True):
        count = {"train": train_faces, "validation": data.validation_faces, "test": data.test_faces}[split]
        if source == "folder":
            folders.append(rendered(own, split, data, say))
            counts.append(count if split == "train" and count else None)
            continue
        settings = FaceSet(
            source, split, count, damaged=split != "test", model_path=data.ict_path if source == "ict" else ""
        )
        folders.append(build(settings, data.cache, data.workers))
        counts.append(count)
    photos = data.photos or split != "train"
    return RenderedFaces(folders, counts, photos, prompts.classes, prompts.rejection)


def rendered(index: Index, split: str, data: DataConfig, say: bool) -> Path:
    """Their folder; what cannot be used or looks doubtful is said."""
    made = render_index(index, data.cache, data.workers)
    if say:
        log.info("%s: %s", split, made.summary())
    return made.folder


def check_subjects(faces: dict[str, RenderedFaces]) -> None:
    """No subject in two splits, or the run stops here."""
    splits = list(faces)
    for i, first in enumerate(splits):
        for second in splits[i + 1 :]:
            shared = set(faces[first].subjects) & set(faces[second].subjects)
            if shared:
                raise ValueError(f"{len(shared)} subjects are in {first} and in {second}, such as {sorted(shared)[0]}")


def check_words(prompts: PromptSet, faces: RenderedFaces) -> None:
    """A prompt set of the user's own must know the words that faces are described in; said before training starts."""
    for known in {tuple(sorted((k, v) for k, v in m.items() if k != "intensity")) for m in faces.metadata}:
        prompts.prompts(prompts.rows[0], dict(known))


def network(config: TrainConfig, prompts: PromptSet, resume: bool) -> MultiviewCLIP:
    """The model as training begins; the words of random weights are separated first."""
    if config.model.start:
        model = load_checkpoint(config.model.start)[0]
    else:
        model = build_model(config.model.arch, config.model.pretrained or None)
    model.clip.visual.to(memory_format=torch.channels_last)
    if not (resume or config.model.start or config.model.pretrained):
        value = separate_words(model, prompts, config.optim.word_steps, config.run.seed)
        log.info("words of the classes separated, loss %.3f", value)
    return model


def resting_text(config: TrainConfig) -> TuningConfig:
    """A text tower whose rate is 0 is left out of the gradients altogether, which saves a fifth of a step."""
    tuning = config.tuning
    if config.optim.text_lr or tuning.mode != "full" or "text" in tuning.freeze:
        return tuning
    return dataclasses.replace(tuning, freeze=(*tuning.freeze, "text"))


def fit(
    method: AffectVLM, faces: RenderedFaces, prompts: PromptSet, config: TrainConfig, run: Run, resume: bool,
    placement: Any, score: Any,
) -> bool:  # fmt: skip
    """Train, from the last checkpoint where a run is gone on with; False where it was asked to stop before the end."""
    optim, last = config.optim, run.folder / LAST
    start = torch.load(last, weights_only=True, mmap=True)["global_step"] if resume and last.is_file() else 0
    if start >= optim.steps:
        return True
    batches = MixedBatches(
        faces, config.views, optim.batch, optim.steps, config.run.seed, start, optim.views, prompts,
        config.prompts.metadata and config.prompts.augmented, config.data.scans_first,
        rank(placement), placement.devices * placement.nodes,
    )  # fmt: skip
    loaders = config.data.loaders or (1 if placement.accelerator == "cpu" else min(8, threads_per_process(placement)))
    loader = DataLoader(batches, batch_size=None, num_workers=loaders, prefetch_factor=4)
    hooks = callbacks(run, config, score)
    precision = fast_precision() if optim.precision == "auto" else optim.precision
    trainer = pl.Trainer(
        **trainer_options(placement), max_steps=optim.steps, max_epochs=-1,
        precision="bf16-mixed" if precision == "bf16" else "32-true", gradient_clip_val=optim.clip,
        logger=TensorBoardLogger(run.folder, name="", version="tensorboard"), log_every_n_steps=config.run.every,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=hooks,
    )  # fmt: skip
    method.train()  # models are built in evaluation mode, and Lightning keeps what it finds
    trainer.fit(method, loader, ckpt_path=str(last) if start else None, weights_only=True)
    keeping = next(hook for hook in hooks if isinstance(hook, Keeping))
    return not keeping.stopped


def calibrate(model: MultiviewCLIP, prompts: PromptSet, validation: RenderedFaces) -> float:
    """The temperature that fits the validation faces, half of them shown as the scan path shows them, half as
    photos."""
    return fit_temperature(validation.labels, face_logits(model, prompts, validation, augmented=1))


def test(
    model: MultiviewCLIP, prompts: PromptSet, faces: RenderedFaces, temperature: float, kind: str
) -> tuple[dict, dict]:
    """Unseen identities: every kind of picture with three views, one and two views of the default kind, other words.

    Returns:
        The scores of each case, and what was predicted for every face with three views of the default kind.
    """
    asked = cases(kind, held_out=bool(prompts.held_out_templates))
    logits = {name: face_logits(model, prompts, faces, **shown) for name, shown in asked.items()}
    scores = {name: report(found, faces, temperature) for name, found in logits.items()}
    return scores, predictions(next(iter(logits.values())), faces, temperature)


def shareable(config: TrainConfig) -> dict:
    """The settings as a card may tell them to strangers: without the places things lie at on this machine."""
    settings = to_dict(config)
    for section, key in (
        ("data", "ict_path"), ("data", "folder"), ("data", "split"), ("data", "cache"), ("run", "folder"),
        ("model", "start"), ("model", "pretrained"), ("prompts", "file"),
    ):  # fmt: skip
        settings[section][key] = Path(settings[section][key]).name
    return settings


def describe(faces: dict[str, RenderedFaces]) -> dict:
    """Counts of each split: faces, subjects, sources and classes."""
    return {
        split: {
            "faces": len(part),
            "subjects": len(set(part.subjects)),
            "sources": sorted({r["source"] for r in part.records}),
            "classes": {name: int((part.labels == row).sum()) for row, name in enumerate(part.rows)},
        }
        for split, part in faces.items()
    }


def say_results(scores: dict, run: Run) -> None:
    first = next(iter(scores.values()))
    found = first["emotions"]
    log.info("accuracy on unseen identities: %.1f %% (UAR %.1f %%, %d faces; chance is %.0f %%)",
             100 * found["accuracy"], 100 * found["uar"], found["n"], 100 / len(first["by_class"]))  # fmt: skip
    log.info("all scores: %s", run.folder / METRICS)
    log.info("use it:  python -m affectvlm predict SCAN --checkpoint %s", run.folder / MODEL)


if __name__ == "__main__":
    main()
