"""What all methods share: towers that train by the kernels which suit their lengths, with the same features."""

import pytest
import torch

from affectvlm.methods import base
from affectvlm.methods.building import build_method, tuning_of
from affectvlm.model import build_model
from affectvlm.model.tuning import prepare
from tests.unlabelled_faces import PROMPTS, config_of

VIEWS = torch.randint(0, 256, (2, 2, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FUSED = "ScaledDotProductFlashAttentionForCpuBackward0"


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    model, config = build_model(), config_of("affectvlm", "optim.text_lr=1")
    tuning = tuning_of(config)
    prepare(model, tuning)
    return build_method(config, model, PROMPTS, tuning).eval()


def operations(result):
    """Names of all steps of the way back."""
    found, waiting = set(), [result.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in found:
            found.add(step)
            waiting += [before for before, _ in step.next_functions]
    return {step.name() for step in found}


@pytest.mark.parametrize(
    ("ours", "models"),
    [
        (lambda m: m.encode_views(VIEWS), lambda m: m.model.encode_views(VIEWS)),
        (lambda m: m.encode_words(PROMPTS.rows), lambda m: m.model.encode_prompts(PROMPTS.rows)),
    ],
    ids=["views", "words"],
)
def test_short_sequences_train_without_the_fused_kernel_to_the_same_features_and_gradients(method, ours, models):
    found, wanted = ours(method), models(method)
    assert FUSED in operations(wanted) and FUSED not in operations(found)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    parameters = [p for p in method.model.parameters() if p.requires_grad]
    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    ways = [torch.autograd.grad((z * weight).sum(), parameters, allow_unused=True) for z in (found, wanted)]
    for one, other in zip(*ways, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_long_sequences_and_towers_that_do_not_say_keep_the_fused_kernel(method, monkeypatch):
    assert base._is_short(method.model, "image") and base._is_short(method.model, "text")
    monkeypatch.setattr(base, "_SHORT", 9)  # the pooling of views has 10 tokens
    assert not base._is_short(method.model, "image")
    monkeypatch.setattr(method.model.clip, "named_parameters", lambda: [("visual.trunk.pos_embed", torch.zeros(1, 5))])
    assert not base._is_short(method.model, "image")
