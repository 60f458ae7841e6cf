"""The MiFaR-style baseline: self-supervised on views alone, without any text.

The image tower learns what two distortions of a view, and two views of a face, have in common. Text and logit scale
stay as they are, so prompts fit afterwards only as far as the start has made them fit: clusters and a linear probe are
the fair scores of this method.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from affectvlm.config import OptimConfig
from affectvlm.losses import MifarLoss
from affectvlm.methods.base import Method
from affectvlm.methods.gathering import gather
from affectvlm.methods.smilevlm import projector, projector_groups
from affectvlm.model import MultiviewCLIP
from affectvlm.model.tuning import TuningConfig

DISTORTIONS = 2
"""How often each view is drawn."""


class Mifar(Method):
    """Wires model, projection and `MifarLoss`.

    A batch is a dict: views (B, 2 * N, 3, S, S) uint8, all N views in one distortion and then in another.

    Args:
        projection: width of what is correlated.
    """

    def __init__(
        self, model: MultiviewCLIP, loss: MifarLoss, tuning: TuningConfig, optim: OptimConfig, projection: int = 128
    ) -> None:
        super().__init__(model, tuning, optim)
        self.loss = loss
        self.project_views = projector(model.embed_dim, projection)

    def training_step(self, batch: dict[str, Any], step: int) -> Tensor:
        views = self.encode_views(batch["views"])
        projected = self.project_views(views.flatten(0, 1)).unflatten(0, (len(views), DISTORTIONS, -1))
        terms = self.loss(gather(projected))
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]

    def extra_groups(self) -> Iterable[dict[str, Any]]:
        """The projection at the full rate."""
        yield from projector_groups(self.optim.weight_decay, self.project_views)
