"""The vision-language model: an open_clip network that sees a face from several sides, and its checkpoints."""

from affectvlm.model.checkpoint import Card, CheckpointError, load_checkpoint, read_card, save_checkpoint
from affectvlm.model.clip import MultiviewCLIP, at_size, build_model, from_config, image_side, probabilities

__all__ = [
    "Card",
    "CheckpointError",
    "MultiviewCLIP",
    "at_size",
    "build_model",
    "from_config",
    "image_side",
    "load_checkpoint",
    "probabilities",
    "read_card",
    "save_checkpoint",
]
