"""From settings to a method and its batches: all that `train.py` needs to know of how methods differ.

method = build_method(config, model, prompts, tuning)
batches = build_batches(config, faces, prompts, ...)      # RenderedFaces; Unlabelled where no label may be read
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch.utils.data import IterableDataset

from affectvlm.config import DataConfig, TrainConfig
from affectvlm.data import FaceSet, MixedBatches, RenderedFaces
from affectvlm.losses import AffectVLMLoss, MifarLoss, MultiviewVLMLoss, SmileVLMLoss
from affectvlm.methods.affectvlm import AffectVLM
from affectvlm.methods.base import Method
from affectvlm.methods.mifar import DISTORTIONS, Mifar
from affectvlm.methods.multiviewvlm import MultiviewVLM, Pseudolabelled
from affectvlm.methods.smilevlm import SmileVLM
from affectvlm.methods.unlabelled import Unlabelled, UnlabelledBatches
from affectvlm.model import MultiviewCLIP, image_side, read_card
from affectvlm.model.tuning import TuningConfig
from affectvlm.prompts import PromptSet


def build_method(config: TrainConfig, model: MultiviewCLIP, prompts: PromptSet, tuning: TuningConfig) -> Method:
    """The method that `config.method` names, around a model that `tuning` has prepared."""
    return _BUILDERS[config.method](config, model, prompts, tuning)


def uses_pseudo_labels(method: Method) -> bool:
    """Whether `rounds.Rounds` has to go with its training."""
    return isinstance(method, Pseudolabelled)


def face_sets(data: DataConfig, source: str, split: str, size: int) -> list[FaceSet]:
    """The generated faces of one source and split, for pictures of `size` pixels."""
    number = data.sources.index(source)
    count = {"train": data.train_faces[number], "validation": data.validation_faces, "test": data.test_faces}[split]
    paths = {"ict": data.ict_path, "makehuman": data.makehuman_path}
    made = partial(FaceSet, source, split, size=size, model_path=paths.get(source, ""))
    sets = [made(count, damaged=split != "test")]
    if split == "train" and data.clean_faces:
        sets.append(made(data.clean_faces[number], damaged=False, seed=1))  # other people
    if split == "validation":
        sets.append(made(data.wide_faces, damaged=False, seed=1, wide=True))
    return [faces for faces in sets if faces.count]


def build_batches(
    config: TrainConfig, faces: RenderedFaces | Unlabelled, prompts: PromptSet, start: int, rank: int = 0,
    ranks: int = 1, on_device: bool = False,
) -> IterableDataset:  # fmt: skip
    """The batches of a method from step `start` on, this rank's rows of them.

    Raises:
        TypeError: a method that learns without labels was given faces that have some.
        ValueError: a batch that the ranks cannot share.
    """
    optim = config.optim
    if config.unsupervised:
        distortions = DISTORTIONS if config.method == "mifar" else 1
        return UnlabelledBatches(
            faces, config.views, optim.batch, optim.steps, config.run.seed, start, distortions, rank, ranks, on_device
        )
    return MixedBatches(
        faces, config.views, optim.batch, optim.steps, config.run.seed, start, optim.views, prompts,
        config.prompts.metadata and config.prompts.augmented, config.data.scans_first, rank, ranks, on_device,
    )  # fmt: skip


def picture_size(config: TrainConfig) -> int:
    """Side in pixels of the pictures that are drawn for a training: what is set, else what the model takes.

    Raises:
        CheckpointError: the checkpoint to start from cannot be read.
        ValueError: an unknown architecture.
    """
    if config.views.size or config.model.image_size:
        return config.views.size or config.model.image_size
    return read_card(config.model.start).image_size if config.model.start else image_side(config.model.arch)


def tuning_of(config: TrainConfig) -> TuningConfig:
    """What is trained: a tower that gets no gradient is left out altogether.

    A text tower whose rate is 0 rests, which saves a fifth of a step; MiFaR knows neither text nor logit scale.
    """
    tuning = config.tuning
    resting = []
    if config.method == "mifar":
        resting = ["text", "logit_scale"]
        if tuning.mode == "lora":
            return replace(tuning, lora_towers=("image",))
    elif not config.optim.text_lr and tuning.mode == "full":
        resting = ["text"]
    return replace(tuning, freeze=tuple(dict.fromkeys((*tuning.freeze, *resting))))


def _affectvlm(config: TrainConfig, model: MultiviewCLIP, prompts: PromptSet, tuning: TuningConfig) -> Method:
    weights = config.loss
    loss = AffectVLMLoss(
        len(prompts.classes), margin=weights.margin, contrastive=weights.contrastive, triplet=weights.triplet,
        alignment=weights.alignment,
    )  # fmt: skip
    return AffectVLM(model, loss, tuning, config.optim, weights)


def _multiviewvlm(config: TrainConfig, model: MultiviewCLIP, prompts: PromptSet, tuning: TuningConfig) -> Method:
    return MultiviewVLM(
        model, MultiviewVLMLoss(**vars(config.multiview)), tuning, config.optim, prompts, config.run.seed
    )  # fmt: skip


def _smilevlm(config: TrainConfig, model: MultiviewCLIP, prompts: PromptSet, tuning: TuningConfig) -> Method:
    weights: dict[str, Any] = dict(vars(config.smile))
    projection = weights.pop("projection")
    return SmileVLM(model, SmileVLMLoss(**weights), tuning, config.optim, prompts, config.run.seed, projection)


def _mifar(config: TrainConfig, model: MultiviewCLIP, prompts: PromptSet, tuning: TuningConfig) -> Method:
    weights: dict[str, Any] = dict(vars(config.mifar))
    projection = weights.pop("projection")
    return Mifar(model, MifarLoss(**weights), tuning, config.optim, projection)


_BUILDERS: dict[str, Callable[[TrainConfig, MultiviewCLIP, PromptSet, TuningConfig], Method]] = {
    "affectvlm": _affectvlm,
    "multiviewvlm": _multiviewvlm,
    "smilevlm": _smilevlm,
    "mifar": _mifar,
}
