"""Every loss of the methods: tensors in, named scalars out; nothing of ranks, files or models.

supervised   AffectVLM: multiview contrastive and triplet terms with a learnable margin, text alignment
multiview    MultiviewVLM: prompts of pseudo-labels, the multiview term, positive and negative pairs
redundancy   SMILE-VLM and MiFaR: decorrelation of views, of modalities and of distortions
"""

from affectvlm.losses.multiview import MultiviewVLMLoss, contrastive
from affectvlm.losses.redundancy import MifarLoss, SmileVLMLoss, barlow_twins, cross_correlation, effective_rank
from affectvlm.losses.supervised import AffectVLMLoss

__all__ = [
    "AffectVLMLoss", "MifarLoss", "MultiviewVLMLoss", "SmileVLMLoss", "barlow_twins", "contrastive",
    "cross_correlation", "effective_rank",
]  # fmt: skip
