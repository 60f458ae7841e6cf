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
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from affectvlm.adaptation import ADAPTATION, measure, observer
from affectvlm.config import PATHS, TrainConfig, load, to_dict
from affectvlm.data import RenderedFaces, build
from affectvlm.datasets import Index, index_dataset, parse_option, read_split, render_index, split_subjects
from affectvlm.datasets.unlabelled import index_unlabelled, without_labels
from affectvlm.fitting import Keeping, TrainingError, callbacks, choose_weights, take_average
from affectvlm.launching import fast_precision, place, rank, threads_per_process, trainer_options, watch_parent
from affectvlm.methods.affectvlm import separate_words
from affectvlm.methods.base import Method
from affectvlm.methods.building import (
    build_batches,
    build_method,
    face_sets,
    picture_size,
    tuning_of,
    uses_pseudo_labels,
)
from affectvlm.methods.gathering import synchronise_batch_norm
from affectvlm.methods.rounds import Rounds, class_rows
from affectvlm.methods.scoring import cases, face_logits, predictions, report
from affectvlm.methods.unlabelled import Unlabelled
from affectvlm.metrics import fit_margin, fit_temperature
from affectvlm.model import Card, MultiviewCLIP, at_size, build_model, load_checkpoint, save_checkpoint
from affectvlm.model.tuning import parameter_groups, prepare, select, table
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
    signal.signal(signal.SIGTERM, interrupt)
    try:
        train(config, resume=given.resume)
    except (RunError, TrainingError, ValueError, OSError) as error:  # OSError: a folder or disk that cannot be written
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def interrupt(number: int, frame: Any) -> None:
    """SIGTERM ends what Ctrl-C ends; while steps are taken, `fitting.Keeping` finishes and saves one first."""
    raise KeyboardInterrupt


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
    except KeyboardInterrupt:
        run.event("end", state="stopped")
        again = "--resume " if (run.folder / CONFIG).is_file() else ""
        log.info("stopped, nothing rendered or saved is lost; go on with:  python train.py %srun.name=%s ...", again,
                 run.folder.name)  # fmt: skip
        raise
    except BaseException as error:
        run.event("end", state="failed", message=str(error) or type(error).__name__)
        raise
    finally:
        run.close()


def _train(config: TrainConfig, run: Run, resume: bool, placement: Any) -> Path | None:
    pl.seed_everything(config.run.seed, verbose=False)
    config = dataclasses.replace(config, views=dataclasses.replace(config.views, size=picture_size(config)))
    first = rank(placement) == 0
    prompts = PromptSet.load(config.prompts.file)
    prompts = prompts if config.prompts.augmented else prompts.plain()
    if config.unsupervised:
        class_rows(prompts, config.pseudo)  # names that are wrong are said before faces are rendered, which takes long
    model, temperature, margin = network(config, prompts, resume and (run.folder / LAST).is_file())
    tuning = tuning_of(config)
    select(parameter_groups(model), tuning.freeze)
    own = own_faces(config, prompts, say=first)
    splits = () if "unlabelled" in config.data.sources else ("train", "validation", "test")
    faces = {split: faces_of(config, split, prompts, own.get(split), say=first) for split in splits}
    check_subjects(faces)
    shown = unlabelled_faces(config, own, say=first) if config.unsupervised else faces["train"]
    if config.prompts.metadata and config.prompts.augmented and not config.unsupervised:
        check_words(prompts, faces["train"])

    start = None
    if config.model.pretrained or config.model.start:
        start = {name: value.clone() for name, value in model.state_dict().items()}
    described = describe(faces) or {"train": {"faces": len(shown), "labels": "none"}}
    measured = {"before": features_say(model, prompts, faces, config)} if first else {}
    prepare(model, tuning)
    method = build_method(config, model, prompts, tuning)
    if placement.strategy == "ddp":
        synchronise_batch_norm(method)
    if first:
        describe_run(run, config, described, table(model, tuning, config.optim.lr, config.optim.text_lr))

    def score(method: Method) -> dict:
        return report(face_logits(method.model, prompts, faces["validation"], augmented=0), faces["validation"])

    hooks = rounds(method, shown, prompts, config, run, faces.get("train"))
    if not fit(method, shown, prompts, config, run, resume, placement, score if faces else None, hooks):
        if first:
            log.info("stopped; go on with:  python train.py --resume run.name=%s", run.folder.name)
        return None
    if not first:
        return run.folder / MODEL

    if config.unsupervised:  # no label chooses among weights, and none calibrates: the start's temperature stays
        take_average(method, run)
    else:
        tried = choose_weights(method, run, score, start, config.model.interpolate)
        log.info("validation UAR by share of the trained weights: %s", {k: round(v, 3) for k, v in tried.items()})
        temperature, margin = calibrate(model, prompts, faces["validation"], margin)
    scores: dict = {}
    if faces:
        scores, predicted = test(model, prompts, faces["test"], temperature, margin, config.data.image_kind)
        run.write_json(METRICS, scores)
        run.write_json(PREDICTIONS, predicted)
    if measured["before"]:
        run.write_json(ADAPTATION, measured | {"after": features_say(model, prompts, faces, config)})
    temporal = "train" in faces and all("frames" in record for record in faces["train"].records)
    card = Card.of(
        model, prompts, name=run.folder.name, view_names=VIEW_NAMES, yaws=DEFAULT_YAWS,
        image_kind=config.data.image_kind, half_width=HALF_WIDTH_MM, temperature=temperature,
        rejection_margin=margin,
        metrics=scores, temporal=temporal, magnify=config.data.magnify if temporal else 1.0,
        licence="MIT", training_data={"faces": described, "settings": shareable(config)},
        intended_use=INTENDED_USE, limits=LIMITS,
    )  # fmt: skip
    save_checkpoint(run.folder / MODEL, model, card)
    say_results(scores, run)
    return run.folder / MODEL


def open_run(config: TrainConfig, resume: bool, first: bool) -> tuple[Run, TrainConfig]:
    """The run folder, written by the first rank alone, and the settings with its name in them."""
    name = config.run.name or os.environ.get(RUN_NAME) or free_name(config.run.folder, config.method)
    os.environ[RUN_NAME] = name  # ranks that this process starts write about the same run
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))
    folder = Path(config.run.folder) / name
    return (Run.open(folder, resume) if first else Run.follow(folder)), config


def describe_run(run: Run, config: TrainConfig, faces: dict[str, Any], trained: str) -> None:
    """What is needed to understand and to repeat the run, said and written before it starts."""
    run.write(CONFIG, lambda path: path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), "utf-8"))
    run.write("command.txt", lambda path: path.write_text(command() + "\n", "utf-8"))
    run.write_json("environment.json", environment())
    run.write_json("data.json", faces)
    log.info("run folder: %s", run.folder)
    log.info("what is trained:\n%s", trained)


def own_faces(config: TrainConfig, prompts: PromptSet, say: bool) -> dict[str, Index]:
    """The user's own faces, by split; empty where none are asked for. A method that learns without labels gets a
    division that does not depend on them either."""
    data = config.data
    if "unlabelled" in data.sources:
        index = index_unlabelled(data.folder)
        if say:
            log.info("%s", index.summary())
        if say and len(index.subjects) > 1 and config.pseudo.people == "subjects":
            log.info("does each of the %d folders hold the faces of one person? Then say pseudo.people=folders (adapt "
                     "--people): names are found better", len(index.subjects))  # fmt: skip
        return {"train": index}
    if "folder" not in data.sources:
        return {}
    options = dict(map(parse_option, data.options))
    shown = [*prompts.classes, *(row for row in prompts.rejection if row == "neutral")]
    index = index_dataset(data.dataset, data.folder, classes=shown, **options)
    if say:
        log.info("%s", index.summary())
    if data.split:
        return read_split(index, data.split)
    if config.unsupervised:
        parts = split_subjects(without_labels(index), seed=data.split_seed)
        return {name: index.select(part.subjects) for name, part in parts.items()}
    return split_subjects(index, seed=data.split_seed)


def faces_of(config: TrainConfig, split: str, prompts: PromptSet, own: Index | None, say: bool) -> RenderedFaces:
    """The rendered faces of one split, over all sources; made now where the cache lacks them."""
    folders, counts = folders_of(config, split, own, say)
    photos = config.data.photos or split != "train"
    return RenderedFaces(folders, counts, photos, prompts.classes, prompts.rejection)


def unlabelled_faces(config: TrainConfig, own: dict[str, Index], say: bool) -> Unlabelled:
    """The pixels of the training faces, and no label of theirs."""
    folders, counts = folders_of(config, "train", own.get("train"), say)
    known = {"none": False, "folders": True, "subjects": "unlabelled" not in config.data.sources}[config.pseudo.people]
    return Unlabelled.open(folders, counts, config.data.photos, people=known)


def folders_of(
    config: TrainConfig, split: str, own: Index | None, say: bool
) -> tuple[list[Path], list[int | None]]:  # fmt: skip
    """Where the rendered faces of a split lie, and how many of each folder count; None = all."""
    data = config.data
    folders: list[Path] = []
    counts: list[int | None] = []
    for source, train_faces in zip(data.sources, data.train_faces, strict=True):
        if source in ("folder", "unlabelled"):
            if config.unsupervised and train_faces:  # the first of a folder are those of its first class
                raise ValueError(f"data.train_faces is {train_faces} for a folder; {config.method} takes all of it: 0")
            folders.append(rendered(own, split, config, say))
            counts.append(train_faces if split == "train" and train_faces else None)
            continue
        for settings in face_sets(data, source, split, config.views.size):
            folders.append(build(settings, data.cache, data.workers))
            counts.append(settings.count)
    return folders, counts


def rendered(index: Index, split: str, config: TrainConfig, say: bool) -> Path:
    """Their folder; what cannot be used or looks doubtful is said."""
    made = render_index(
        index, config.data.cache, config.data.workers, config.views.size, magnify=config.data.magnify
    )  # fmt: skip
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


def network(config: TrainConfig, prompts: PromptSet, resume: bool) -> tuple[MultiviewCLIP, float, float]:
    """The model as training begins, and the temperature and margin it is calibrated with by then (1 and 0 where it is
    not); the words of random weights are separated first."""
    temperature, margin = 1.0, 0.0
    if config.model.start:
        model, card = load_checkpoint(config.model.start)
        temperature, margin = card.temperature, card.rejection_margin
    else:
        model = build_model(config.model.arch, config.model.pretrained or None)
    model = at_size(model, config.model.image_size or model.image_size)
    model.clip.visual.to(memory_format=torch.channels_last)
    if not (resume or config.model.start or config.model.pretrained):
        value = separate_words(model, prompts, config.optim.word_steps, config.run.seed)
        log.info("words of the classes separated, loss %.3f", value)
    return model, temperature, margin


def features_say(
    model: MultiviewCLIP, prompts: PromptSet, faces: dict[str, RenderedFaces], config: TrainConfig
) -> dict:
    """Prompts, clusters and a linear probe on the test faces; nothing where that is not asked for or has no labels."""
    if not faces or not (config.unsupervised or config.run.measure):
        return {}
    return measure(model, prompts, faces["test"], faces["train"], config.data.image_kind)


def rounds(
    method: Method, shown: Any, prompts: PromptSet, config: TrainConfig, run: Run, labelled: RenderedFaces | None
) -> list[pl.Callback]:
    """The clustering rounds of a method that has some; where labels are known, the log says how right they are."""
    if not uses_pseudo_labels(method):
        return []
    return [Rounds(
        shown, prompts, config.pseudo, config.optim.steps, config.optim.batch, config.run.seed,
        config.data.image_kind, run.event, observer(shown, labelled) if labelled else None,
    )]  # fmt: skip


def fit(
    method: Method, faces: RenderedFaces | Unlabelled, prompts: PromptSet, config: TrainConfig, run: Run, resume: bool,
    placement: Any, score: Any, own: list[pl.Callback],
) -> bool:  # fmt: skip
    """Train, from the last checkpoint where a run is gone on with; False where it was asked to stop before the end."""
    optim, last = config.optim, run.folder / LAST
    start = torch.load(last, weights_only=True, mmap=True)["global_step"] if resume and last.is_file() else 0
    if start >= optim.steps:
        return True
    on_device = config.data.augment == "device" or (
        config.data.augment == "auto" and placement.accelerator == "cuda"
    )  # fmt: skip
    ranks = placement.devices * placement.nodes
    batches = build_batches(config, faces, prompts, start, rank(placement), ranks, on_device)
    loaders = config.data.loaders or (1 if placement.accelerator == "cpu" else min(8, threads_per_process(placement)))
    loader = DataLoader(batches, batch_size=None, num_workers=loaders, prefetch_factor=4)
    hooks = callbacks(run, config, score, own)
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


def calibrate(
    model: MultiviewCLIP, prompts: PromptSet, validation: RenderedFaces, margin: float
) -> tuple[float, float]:  # fmt: skip
    """Temperature and margin that fit the validation faces, half of them shown as the scan path shows them, half as
    photos. Where too few of them are without an emotion, the given margin stays, and the temperature fits it."""
    logits, classes = face_logits(model, prompts, validation, augmented=1), len(prompts.classes)
    temperature = fit_temperature(validation.labels, logits)
    fitted = fit_margin(validation.labels, logits, classes, temperature)
    if fitted is None:
        logits[:, classes:] += margin
        return fit_temperature(validation.labels, logits), margin
    return temperature, fitted


def test(
    model: MultiviewCLIP, prompts: PromptSet, faces: RenderedFaces, temperature: float, margin: float, kind: str
) -> tuple[dict, dict]:
    """Unseen identities: every kind of picture with three views, one and two views of the default kind, other words.

    Returns:
        The scores of each case, and what was predicted for every face with three views of the default kind.
    """
    asked = cases(model, prompts, kind)
    logits = {name: face_logits(model, prompts, faces, **shown) for name, shown in asked.items()}
    scores = {name: report(found, faces, temperature, margin) for name, found in logits.items()}
    return scores, predictions(next(iter(logits.values())), faces, temperature, margin)


def shareable(config: TrainConfig) -> dict:
    """The settings as a card may tell them to strangers: without the places things lie at on this machine."""
    settings = to_dict(config)
    for section, key in (path.split(".") for path in PATHS):
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
    if scores:
        first = next(iter(scores.values()))
        found = first["emotions"]
        log.info("accuracy on unseen identities: %.1f %% (UAR %.1f %%, %d faces; chance is %.0f %%)",
                 100 * found["accuracy"], 100 * found["uar"], found["n"], 100 / len(first["by_class"]))  # fmt: skip
        log.info("all scores: %s", run.folder / METRICS)
    log.info("use it:  python -m affectvlm predict SCAN --checkpoint %s", run.folder / MODEL)


if __name__ == "__main__":
    main()
