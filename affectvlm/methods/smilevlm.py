"""SMILE-VLM, without labels: decorrelated views and modalities, and views aligned with prompts of pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from affectvlm.config import OptimConfig
from affectvlm.losses import SmileVLMLoss
from affectvlm.methods.gathering import gather
from affectvlm.methods.multiviewvlm import Pseudolabelled
from affectvlm.model import MultiviewCLIP
from affectvlm.model.tuning import TuningConfig
from affectvlm.prompts import PromptSet


class SmileVLM(Pseudolabelled):
    """Wires model, projections, pseudo-labels and `SmileVLMLoss`; projections are left behind after training.

    Args:
        projection: width of what is decorrelated.
    """

    def __init__(
        self,
        model: MultiviewCLIP,
        loss: SmileVLMLoss,
        tuning: TuningConfig,
        optim: OptimConfig,
        prompts: PromptSet,
        seed: int = 0,
        projection: int = 128,
    ) -> None:
        super().__init__(model, tuning, optim, prompts, seed)
        self.loss = loss
        self.project_views, self.project_text = (projector(model.embed_dim, projection) for _ in range(2))

    def training_step(self, batch: dict[str, Any], step: int) -> Tensor:
        rows = self.targets[batch["index"]]
        views, words = self.encode_views(batch["views"]), self.words(rows, batch["index"])
        projected = self.project_views(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        z, projected, text, projected_text = map(gather, (views, projected, words, self.project_text(words)))
        terms = self.loss(z, projected, text, projected_text, gather(rows), self.model.logit_scale)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]

    def extra_groups(self) -> Iterable[dict[str, Any]]:
        """The projections at the full rate."""
        yield from projector_groups(self.optim.weight_decay, self.project_views, self.project_text)


def projector(width: int, out: int) -> nn.Sequential:
    """As Barlow Twins has them, one layer less: what is decorrelated need not be what is compared with text."""
    return nn.Sequential(
        nn.Linear(width, 2 * out, bias=False), nn.BatchNorm1d(2 * out), nn.ReLU(), nn.Linear(2 * out, out, bias=False)
    )  # fmt: skip


def projector_groups(weight_decay: float, *modules: nn.Module) -> Iterable[dict[str, Any]]:
    """Matrices with weight decay, gains and biases without."""
    parameters = [p for module in modules for p in module.parameters()]
    yield {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    yield {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
