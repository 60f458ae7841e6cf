"""What ranks share: gathered rows and their gradients, batch normalisation, and training that equals that of one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from affectvlm.losses import AffectVLMLoss
from affectvlm.methods.gathering import gather, synchronise_batch_norm
from tests.two_ranks import assert_equal_to_one, assert_near, run, train


class Towers(nn.Module):
    """Two small towers under the supervised loss; `together` False forgets to gather."""

    def __init__(self, together: bool = True) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(),
            nn.Linear(16, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5),
        )  # fmt: skip
        self.text = nn.Linear(3, 5)
        self.scale = nn.Parameter(torch.tensor(7.0))
        self.loss = AffectVLMLoss(3)
        self.share = gather if together else lambda rows: rows

    def forward(self, views, words, labels):
        z = F.normalize(self.image(views.flatten(0, 1)), dim=-1).unflatten(0, views.shape[:2])
        text = F.normalize(self.text(words), dim=-1)
        z, text, labels = self.share(z), self.share(text), self.share(labels)
        return self.loss(z, labels, text, self.scale)["loss"]


def batch():
    generator = torch.Generator().manual_seed(1)
    views, words = torch.randn(8, 3, 2, 4, 4, generator=generator), torch.randn(8, 3, 3, generator=generator)
    return {"views": views.double(), "words": words.double(), "labels": torch.tensor([0, 1, 2, 0, 1, 1, 3, 2])}


def towers():
    torch.manual_seed(0)
    return synchronise_batch_norm(Towers().double()), batch()


def towers_that_forget_to_gather():
    torch.manual_seed(0)
    return synchronise_batch_norm(Towers(together=False).double()), batch()


def towers_with_plain_batch_norm():
    torch.manual_seed(0)
    return Towers().double(), batch()


def mine(rows):
    return rows.chunk(dist.get_world_size())[dist.get_rank()]


ROWS = {
    "int64": torch.arange(6) * 10**12,
    "bool": torch.tensor([[True], [False], [False], [True], [True], [False]]),
    "bfloat16": torch.arange(24.0).view(6, 2, 2).bfloat16(),
    "channels last": torch.arange(96.0).view(6, 2, 2, 4).to(memory_format=torch.channels_last),
    "every second column": torch.arange(24.0).view(6, 4)[:, ::2],
}


def gather_rows():
    return {name: gather(mine(rows)) for name, rows in ROWS.items()}


def gather_unequal():
    try:
        gather(torch.zeros(2 + dist.get_rank(), 3))
    except ValueError as error:
        return str(error)


def gradient_of_gather():
    """Of row i rank r asks for (i + 1) (r + 1)."""
    x = mine(torch.ones(4, 2)).double().requires_grad_()
    everyone = gather(x)
    asked = (torch.arange(4.0).double() + 1) * (dist.get_rank() + 1)
    (everyone * asked[:, None]).sum().backward()
    return x.grad


def whole_batch():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(7, 3, 2, 2, generator=generator).double() * 3 + torch.tensor([5.0, -1.0, 0.0]).view(3, 1, 1)


def norm(kind=nn.BatchNorm2d, **options):
    layer = kind(3, **options).double()
    if layer.affine:
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(4))
    return layer


class WithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: what comes after the normalisation is part of it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Hardtanh(-1.5, 1.5), nn.LeakyReLU(0.1)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


LAYERS = {
    "plain": norm,
    "running mean of all batches": lambda: norm(momentum=None),
    "no affine": lambda: norm(affine=False),
    "no statistics kept": lambda: norm(track_running_stats=False),
    "with activation": lambda: norm(WithActivation),
}


def normalise(layer, x):
    """Output, gradient of x and buffers after two batches; the gradient is of a sum with weights of its own."""
    for scale in (1.0, 2.0):
        x = (x * scale).detach().requires_grad_()
        y = layer(x)
    (y.sin() * x.detach().cos()).sum().backward()
    return {"y": y.detach(), "gradient": x.grad, **dict(layer.named_buffers())}


def normalise_unequal_batches():
    """Rank 0 has three of the rows, rank 1 four."""
    rows = whole_batch().split([3, 4])[dist.get_rank()]
    return {name: normalise(synchronise_batch_norm(make()), rows) for name, make in LAYERS.items()}


def normalise_in_a_compiled_function():
    layer = synchronise_batch_norm(norm())
    x = mine(whole_batch()[:6]).requires_grad_()
    y = torch.compile(lambda rows: layer(rows * 2.0) + 1.0, backend="eager", dynamic=False)(x)
    y.sin().sum().backward()
    return {"y": gather(y.detach()), "gradient": gather(x.grad)}


def normalise_far_from_zero():
    layer = synchronise_batch_norm(nn.BatchNorm1d(3, momentum=1.0))
    layer(mine(far_from_zero()))
    return layer.running_var


def far_from_zero():
    return torch.randn(64, 3, generator=torch.Generator().manual_seed(5)) + torch.tensor([1e4, -2e4, 0.0])


def normalise_in_bf16():
    layer = synchronise_batch_norm(nn.BatchNorm2d(3, momentum=1.0))
    x = mine(whole_batch()[:6].bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    return {"y": gather(y), "mean": layer.running_mean, "variance": layer.running_var}


def evaluate_on_rank_0_alone():
    """Rank 1 does not take part: a collective would never end."""
    layer = synchronise_batch_norm(norm()).eval()
    return layer(whole_batch()) if dist.get_rank() == 0 else whole_batch()[:0]


def one_row_on_each_rank():
    """Too few for a variance on one rank, enough on two."""
    layer = synchronise_batch_norm(nn.BatchNorm1d(3, momentum=1.0))
    layer(torch.full((1, 3), float(dist.get_rank())))
    return layer.running_var


def no_row_on_rank_1():
    try:
        synchronise_batch_norm(nn.BatchNorm1d(3))(torch.ones(3, 3) if dist.get_rank() == 0 else torch.ones(0, 3))
    except ValueError as error:
        return str(error)


BUILDS = (towers, towers_that_forget_to_gather, towers_with_plain_batch_norm)
OTHERS = (
    gather_rows, gather_unequal, gradient_of_gather, normalise_unequal_batches, normalise_in_a_compiled_function,
    normalise_far_from_zero, normalise_in_bf16, evaluate_on_rank_0_alone, one_row_on_each_rank, no_row_on_rank_1,
)  # fmt: skip


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of these returned on both ranks; one start of two processes serves all tests."""
    jobs = [(train, build) for build in BUILDS] + [(job,) for job in OTHERS]
    results = run(jobs, tmp_path_factory.mktemp("ranks"))
    return dict(zip(BUILDS + OTHERS, results, strict=True))


def test_two_ranks_train_as_one(ranks):
    assert_equal_to_one(ranks[towers], towers)


def test_the_margin_the_scale_and_the_text_tower_are_among_what_is_compared(ranks):
    names = {name.removeprefix("1: gradient of ") for name in ranks[towers][0]["steps"]}
    assert names >= {"loss.raw_margin", "scale", "text.weight", "text.bias", "image.0.weight", "image.1.weight"}
    assert {"image.1.running_var", "image.5.running_mean"} <= ranks[towers][0]["state"].keys()


@pytest.mark.parametrize("build", [towers_that_forget_to_gather, towers_with_plain_batch_norm])
def test_the_comparison_notices_what_is_missing(ranks, build):
    with pytest.raises(AssertionError, match="rank 0 0: loss"):
        assert_equal_to_one(ranks[build], build)


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_all_ranks_in_their_order(ranks, name):
    for rank in ranks[gather_rows]:
        torch.testing.assert_close(rank[name], ROWS[name], rtol=0, atol=0)


def test_unequal_ranks_are_refused_on_all(ranks):
    assert ranks[gather_unequal] == ["the ranks hold 2, 3 rows; the same number on each is needed"] * 2


def test_gradients_of_all_ranks_add_up(ranks):
    for rank, gradient in enumerate(ranks[gradient_of_gather]):
        rows = torch.tensor([1.0, 2.0] if rank == 0 else [3.0, 4.0]).double()
        torch.testing.assert_close(gradient, (rows * (1 + 2))[:, None].expand(2, 2))


@pytest.mark.parametrize("name", LAYERS)
def test_batch_norm_of_unequal_batches_equals_that_of_all_rows(ranks, name):
    whole = normalise(LAYERS[name](), whole_batch())
    for rank, rows in enumerate([slice(3), slice(3, 7)]):
        found = ranks[normalise_unequal_batches][rank][name]
        expected = whole | {part: whole[part][rows] for part in ("y", "gradient")}
        assert_near(found, expected, 1e-12, f"rank {rank}")


def test_batch_norm_inside_a_compiled_function(ranks):
    x = whole_batch()[:6].requires_grad_()
    y = norm()(x * 2.0) + 1.0
    y.sin().sum().backward()
    for rank in ranks[normalise_in_a_compiled_function]:
        assert_near(rank, {"y": y.detach(), "gradient": x.grad}, 1e-12)


def test_batch_norm_keeps_its_digits_far_from_zero(ranks):
    expected = far_from_zero().double().var(dim=0)
    for variance in ranks[normalise_far_from_zero]:
        torch.testing.assert_close(variance.double(), expected, rtol=1e-3, atol=0)


def test_batch_norm_under_autocast_counts_in_float32(ranks):
    x = whole_batch()[:6].bfloat16()
    for rank in ranks[normalise_in_bf16]:
        assert (rank["y"].dtype, rank["mean"].dtype, rank["variance"].dtype) == (x.dtype, torch.float32, torch.float32)
        torch.testing.assert_close(rank["mean"], x.float().mean(dim=(0, 2, 3)), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(rank["variance"], x.float().transpose(0, 1).flatten(1).var(dim=1))
        torch.testing.assert_close(rank["y"], nn.BatchNorm2d(3)(x.float()).bfloat16())


def test_evaluation_needs_no_other_rank(ranks):
    torch.testing.assert_close(ranks[evaluate_on_rank_0_alone][0], norm().eval()(whole_batch()), rtol=0, atol=0)


def test_too_few_rows_are_those_of_all_ranks(ranks):
    for variance in ranks[one_row_on_each_rank]:
        torch.testing.assert_close(variance, torch.full((3,), 0.5))
    assert len(set(ranks[no_row_on_rank_1])) == 1
    assert "3, 0 values per channel" in ranks[no_row_on_rank_1][0]


def test_a_single_process_gathers_nothing():
    rows = torch.ones(3, requires_grad=True)
    assert gather(rows) is rows
    with pytest.raises(ValueError, match="scalar"):
        gather(torch.tensor(1.0))


@pytest.mark.parametrize("name", LAYERS)
def test_a_single_process_normalises_as_before(name):
    plain, ours = LAYERS[name](), synchronise_batch_norm(LAYERS[name]())
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert_near(normalise(copy.deepcopy(ours), whole_batch()), normalise(plain, whole_batch()), 0.0)
    with pytest.raises(ValueError, match="expected 4D input"):
        ours(torch.ones(2, 3))


def test_what_is_borrowed_for_the_gpu_finds_all_it_needs():
    """Without ranks, torch's SyncBatchNorm normalises on a CPU, too."""
    for make in (norm, lambda: norm(momentum=None)):
        ours, plain = synchronise_batch_norm(make()), make()
        y = nn.SyncBatchNorm.forward(ours, whole_batch())
        torch.testing.assert_close(y, plain(whole_batch()), rtol=0, atol=0)
        assert_near(dict(ours.named_buffers()), dict(plain.named_buffers()), 0.0)
        assert ours.process_group is None  # asked for only among ranks


def test_layers_change_in_place_and_keep_their_parameters():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm2d(3)))
    before = [*model.parameters(), *model.buffers()]
    assert synchronise_batch_norm(synchronise_batch_norm(model)) is model
    assert all(a is b for a, b in zip(before, [*model.parameters(), *model.buffers()], strict=True))
    assert "BatchNorm2dAcrossRanks(3" in repr(model) and isinstance(model[1], nn.BatchNorm1d)


def test_timms_layer_is_known_and_others_are_refused():
    from timm.layers import BatchNormAct2d

    layer = BatchNormAct2d(3)
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(6))
    expected = copy.deepcopy(layer)(x)
    torch.testing.assert_close(synchronise_batch_norm(layer)(x), expected, rtol=0, atol=0)

    class Odd(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="1.0 is a Odd; torch's or timm's"):
        synchronise_batch_norm(nn.Sequential(nn.Identity(), nn.Sequential(Odd(3))))
