"""What happens around the steps of a training: progress, scores on validation, saving, stopping, guarding.

Lightning callbacks, all of them method-agnostic: they need a `method.model` (MultiviewCLIP) and a scorer. They stand in
the order of `callbacks`: the running average first, since validation and saving look at it.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import safetensors.torch
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor, nn

from affectvlm.config import TrainConfig
from affectvlm.model.tuning import interpolate, merge
from affectvlm.runs import BEST, LAST, Run, duration

log = logging.getLogger(__name__)

Score = Callable[[nn.Module], dict[str, Any]]
"""Scores a method on validation: {"emotions": {"uar": ...}, ...}."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and what to try."""


def callbacks(
    run: Run, config: TrainConfig, score: Score | None, own: Sequence[pl.Callback] = ()
) -> list[pl.Callback]:  # fmt: skip
    """Everything a training runs with, in the order it has to run in.

    Args:
        score: None where there is nothing to validate on.
        own: what the method brings with it.
    """
    average = EMAWeightAveraging(decay=config.optim.ema)
    validation = [Validation(run, config, score, average)] if score else []
    keeping = Keeping(run, config.run.validate, config.run.save_minutes)
    return [average, *own, FiniteGuard(), Progress(run, config), *validation, keeping]


class FiniteGuard(pl.Callback):
    """Leaves out steps whose gradients are not finite, and ends a training in which they do not stop."""

    def __init__(self, patience: int = 5) -> None:
        self.patience, self.row, self.skipped = patience, 0, 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, method: pl.LightningModule, optimizer: Any) -> None:
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        # gradients are the same on all ranks by now, so all ranks decide alike
        if bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all()):
            self.row = 0
            return
        self.row, self.skipped = self.row + 1, self.skipped + 1
        for gradient in gradients:
            gradient.zero_()
        terms = {k: round(float(v), 4) for k, v in trainer.callback_metrics.items()}
        log.warning("step %d: gradients are not finite; the step is left out. Terms: %s", trainer.global_step, terms)
        if self.row >= self.patience:
            raise TrainingError(
                f"gradients were not finite in {self.row} steps in a row, last at step {trainer.global_step}: {terms}. "
                "The last checkpoint is untouched; try a lower optim.lr, or optim.precision=fp32."
            )


class Progress(pl.Callback):
    """Every `run.every` steps: loss terms, speed, share of the time spent waiting for the loader, and what is left."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        self.run, self.config = run, config
        self.waited = self.worked = 0.0

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        self.began = self.first = trainer.global_step
        self.since = time.monotonic()
        self.mark = time.monotonic()
        self.run.event("start", step=trainer.global_step, steps=self.config.optim.steps, ranks=trainer.world_size)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        now = time.monotonic()
        self.waited += now - self.mark
        self.mark = now

    def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, *_: Any) -> None:
        now = time.monotonic()
        self.worked += now - self.mark
        step, steps = trainer.global_step, self.config.optim.steps
        if step % self.config.run.every == 0 or step == steps:
            self._tell(trainer, step, steps)
        if step == self.began + 1:  # the first step compiles and warms up: it says nothing about the others
            self.first, self.since = step, now
        self.mark = time.monotonic()

    def _tell(self, trainer: pl.Trainer, step: int, steps: int) -> None:
        values = {k: round(float(v), 4) for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        rate = max(step - self.first, 1) / max(time.monotonic() - self.since, 1e-6)
        left, views = (steps - step) / rate, rate * self.config.optim.batch * self.config.optim.views
        waiting = self.waited / max(self.waited + self.worked, 1e-9)
        self.waited = self.worked = 0.0
        self.run.event(
            "progress", step=step, steps=steps, eta_s=round(left, 1), steps_per_s=round(rate, 4),
            views_per_s=round(views, 1), loader_wait=round(waiting, 4), **values,
        )  # fmt: skip
        if trainer.is_global_zero:
            log.info(
                "step %d/%d  loss %.3f  %.0f views/s (%.0f %% of it waiting for the loader)  %s left",
                step, steps, values.get("train/loss", float("nan")), views, 100 * waiting, duration(left),
            )  # fmt: skip


class Validation(pl.Callback):
    """Every `run.validate` steps the weights and their running average are scored; the best so far are kept in a file.

    With `optim.patience` the training ends when so many validations in a row brought nothing better. Only the first
    rank scores; the others wait for what it decides. Where a method learns without labels the scores are told and
    decide nothing: no weights are kept for them.
    """

    def __init__(self, run: Run, config: TrainConfig, score: Score, average: EMAWeightAveraging) -> None:
        self.run, self.config, self.score, self.average = run, config, score, average
        self.chooses = not config.unsupervised
        self.best, self.best_step, self.best_of, self.idle = -1.0, 0, "", 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "best_of": self.best_of, "idle": self.idle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_step = state["best"], state["best_step"]
        self.best_of, self.idle = state["best_of"], state["idle"]

    def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step % self.config.run.validate and step != self.config.optim.steps:
            return
        if trainer.is_global_zero:
            self._validate(trainer, method, step)
        state = trainer.strategy.broadcast(self.state_dict())
        self.load_state_dict(state)
        if self.config.optim.patience and self.idle >= self.config.optim.patience:
            log.info("no better score in %d validations: stopping early", self.idle)
            trainer.should_stop = True

    def _validate(self, trainer: pl.Trainer, method: pl.LightningModule, step: int) -> None:
        """Score the weights as they are and their average, which is the poorer one while learning is fast."""
        before = self.best
        scores = {"current": self._score(method, step, "current")}
        self.average.on_validation_epoch_start(trainer, method)  # swaps the averaged weights in
        scores["averaged"] = self._score(method, step, "averaged")
        self.average.on_validation_epoch_end(trainer, method)
        method.train()
        self.idle = 0 if self.best > before else self.idle + 1
        uar = {name: round(found["emotions"]["uar"], 4) for name, found in scores.items()}
        self.run.event("validation", step=step, uar=uar, scores=scores, **({"best": self.best} if self.chooses else {}))
        for name, value in uar.items():
            method.log(f"validation/uar_{name}", value, rank_zero_only=True)
        best = f" (best {self.best:.3f}, step {self.best_step})" if self.chooses else ""
        log.info("step %d  validation UAR: current %.3f, averaged %.3f%s", step, uar["current"], uar["averaged"], best)

    def _score(self, method: pl.LightningModule, step: int, name: str) -> dict[str, Any]:
        scores = self.score(method)
        if self.chooses and scores["emotions"]["uar"] > self.best:
            self.best, self.best_step, self.best_of = scores["emotions"]["uar"], step, name
            state = {key: value.detach().cpu().contiguous() for key, value in method.model.state_dict().items()}
            self.run.write(BEST, lambda path: safetensors.torch.save_file(state, path), size=_bytes(state))
        return scores


class Keeping(pl.Callback):
    """Saves everything needed to go on, every `every` steps and every `minutes`; and ends the training when asked to.

    Asked by Ctrl-C, SIGTERM, or a file `stop` in the run folder: the present step is finished and saved first.
    """

    def __init__(self, run: Run, every: int, minutes: float) -> None:
        self.run, self.every, self.minutes = run, every, minutes
        self.stopped, self._signalled, self._size = False, False, 0
        self._saved = time.monotonic()
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, method: pl.LightningModule, stage: str) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        """Lightning has put a handler of SIGTERM over ours by now, which would end the training in an exception."""
        for number in self._handlers:
            signal.signal(number, self._ask)

    def teardown(self, trainer: pl.Trainer, method: pl.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _ask(self, number: int, frame: Any) -> None:
        if self._signalled:  # asked twice: at once
            raise KeyboardInterrupt
        self._signalled = True
        log.info("stopping after this step; once more stops at once, without saving")

    def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, *_: Any) -> None:
        stop = self._signalled or (trainer.is_global_zero and self.run.stop_requested)
        late = time.monotonic() - self._saved > 60 * self.minutes
        last = trainer.global_step >= trainer.max_steps
        wish = 2 * stop + bool(late or last or trainer.global_step % self.every == 0)
        if trainer.world_size > 1:  # the ranks see signals and clocks apart; what any of them wants, all do
            wish = int(trainer.strategy.reduce(torch.tensor(wish, device=method.device), reduce_op="max"))
        if wish:
            self.save(trainer)
        if wish >= 2:
            self.stopped = trainer.should_stop = True

    def save(self, trainer: pl.Trainer) -> None:
        """last.ckpt, in one step; the one before stays where this one cannot be written."""
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            self.run.write(LAST, trainer.save_checkpoint, size=self._size)
            self._size = (self.run.folder / LAST).stat().st_size
        else:
            trainer.save_checkpoint(self.run.folder / LAST)  # takes part, writes nothing


def choose_weights(
    method: pl.LightningModule, run: Run, score: Score, start: dict[str, Tensor] | None, shares: Sequence[float]
) -> dict[str, float]:
    """Put the weights that validation prefers into the model: the best of training, or a mixture with the start.
    Low-rank updates are folded into the weights before.

    Weight-space interpolation (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022) keeps what
    pretrained weights knew.

    Args:
        start: state dict of the weights training began from, or None where they were random.
        shares: of the trained weights in the mixtures to try.

    Returns:
        The share tried → its validation UAR; 1.0 is the trained weights alone.
    """
    method.model.load_state_dict(safetensors.torch.load_file(run.folder / BEST, device=str(method.device)))
    merge(method.model)
    best = {name: value.clone() for name, value in method.model.state_dict().items()}
    tried = {}
    for share in sorted({1.0, *(shares if start is not None else ())}, reverse=True):
        method.model.load_state_dict(best if share == 1.0 else interpolate(start, best, share))
        tried[share] = score(method)["emotions"]["uar"]
    chosen = max(tried, key=lambda share: (tried[share], share))
    method.model.load_state_dict(best if chosen == 1.0 else interpolate(start, best, chosen))
    run.event("chosen", share=chosen, uar=tried[chosen], tried={str(k): round(v, 4) for k, v in tried.items()})
    return tried


def take_average(method: pl.LightningModule, run: Run) -> None:
    """Put the running average of the weights into the model, as the last checkpoint holds it: what a training ends with
    that has no labels to choose weights by. Low-rank updates are folded into the weights."""
    state = torch.load(run.folder / LAST, weights_only=True, map_location=method.device)["state_dict"]
    prefix = "model."
    method.model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    merge(method.model)
    method.model.eval()


def _bytes(state: dict[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())
