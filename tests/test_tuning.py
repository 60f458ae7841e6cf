"""Which parameters are trained and how fast, on networks small enough for a second."""

import copy

import pytest
import torch
import torch.nn.functional as F

from affectvlm.config import load
from affectvlm.model import Card, build_model, from_config, load_checkpoint, save_checkpoint
from affectvlm.model.tuning import (
    TuningConfig,
    interpolate,
    merge,
    optimizer_groups,
    parameter_groups,
    prepare,
    select,
    table,
)
from affectvlm.prompts import PromptSet

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
TOWERS = {
    "vit": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None},
    "timm": {"image_size": 32, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
    "timm alone": {"image_size": 32, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": None},
}
TEXT_GROUPS = ["text.embedding", "text.block00", "text.block01", "text.head"]
IMAGE_GROUPS = {
    "vit": ["image.stem", "image.block00", "image.block01", "image.head"],
    "resnet": ["image.stem", "image.layer1", "image.layer2", "image.layer3", "image.layer4", "image.head"],
    "timm": ["image.trunk", "image.head"],
    "timm alone": ["image.trunk", "image.head"],
}
LORA = TuningConfig(mode="lora", lora_rank=2, lora_alpha=4.0)
PROMPTS = ["a happy face", "an angry face"]


def tiny(tower="vit", custom_text=False):
    torch.manual_seed(0)
    cfg = {"embed_dim": 16, "vision_cfg": dict(TOWERS[tower]), "text_cfg": TEXT, "custom_text": custom_text}
    model = from_config(f"tiny-{tower}", cfg)
    with torch.no_grad():
        for parameter in model.parameters():  # open_clip starts some gains at 0, and no gradient passes those
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def faces():
    return torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def answers(model):
    with torch.no_grad():
        return torch.cat([model.encode_views(faces()).flatten(0, 1), model.encode_prompts(PROMPTS)])


def loss_of(model):
    return F.cross_entropy(model.logits(model(faces()), model.encode_prompts(PROMPTS)), torch.tensor([0, 1]))


def learn(model, tuning, steps=2):
    """A training of two steps, after which the gradients of the last are there."""
    optimizer = torch.optim.AdamW(optimizer_groups(model, tuning, lr=1e-2, weight_decay=0.1))
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def members(model, *names):
    groups = parameter_groups(model)
    return {name for group in select(groups, names) for name, _ in groups[group]}


# --- groups -----------------------------------------------------------------------------------------------------------


def assert_every_parameter_once(model):
    found = [pair for group in parameter_groups(model).values() for pair in group]
    assert len(found) == len(list(model.parameters()))
    assert {name: id(value) for name, value in found} == {name: id(value) for name, value in model.named_parameters()}


@pytest.mark.parametrize("custom_text", [False, True], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("tower", TOWERS)
def test_every_parameter_is_in_one_group_and_groups_go_from_input_to_output(tower, custom_text):
    model = tiny(tower, custom_text)
    assert_every_parameter_once(model)
    assert list(parameter_groups(model)) == IMAGE_GROUPS[tower] + TEXT_GROUPS + ["logit_scale"]


@pytest.mark.parametrize(
    "arch, inner, text_layers",
    [
        ("affectvlm-compact", [f"image.layer{number}" for number in range(1, 5)], 4),
        ("RN101", [f"image.layer{number}" for number in range(1, 5)], 12),
        ("ViT-L-14", [f"image.block{number:02d}" for number in range(24)], 12),
    ],
)
def test_real_architectures_fall_into_groups(arch, inner, text_layers):
    with torch.device("meta"):  # names and shapes without memory
        model = build_model(arch)
    assert_every_parameter_once(model)
    text = [f"text.block{number:02d}" for number in range(text_layers)]
    want = ["image.stem", *inner, "image.head", "text.embedding", *text, "text.head", "logit_scale"]
    assert list(parameter_groups(model)) == want


@pytest.mark.parametrize(
    "tower, group, name",
    [
        ("vit", "image.stem", "clip.visual.class_embedding"),
        ("vit", "image.stem", "clip.visual.ln_pre.bias"),
        ("vit", "image.block01", "clip.visual.transformer.resblocks.1.attn.in_proj_weight"),
        ("vit", "image.head", "clip.visual.proj"),
        ("vit", "image.head", "clip.visual.ln_post.weight"),
        ("vit", "text.embedding", "clip.positional_embedding"),
        ("vit", "text.head", "clip.text_projection"),
        ("resnet", "image.stem", "clip.visual.bn3.weight"),
        ("resnet", "image.layer2", "clip.visual.layer2.0.downsample.0.weight"),
        ("resnet", "image.head", "clip.visual.attnpool.c_proj.weight"),
        ("timm", "image.head", "clip.visual.head.proj.weight"),
        ("timm alone", "image.head", "clip.visual.trunk.fc.weight"),
    ],
)
def test_parameters_are_in_the_group_of_their_place(tower, group, name):
    assert name in dict(parameter_groups(tiny(tower))[group])


def test_starts_of_names_stand_for_several_groups():
    groups = [f"image.block{number:02d}" for number in range(12)] + ["image.head", "text.block00", "logit_scale"]
    assert select(groups, ["image"]) == groups[:13]
    assert select(groups, ["image.block"]) == groups[:12]
    assert select(groups, ["logit_scale", "image.block03"]) == ["image.block03", "logit_scale"]
    assert select(groups, []) == []


@pytest.mark.parametrize("name", ["img", "image.", "image.block0", "image.block012", "image.blo", "ima", "", "i.*"])
def test_unknown_groups_are_said_with_the_known_ones(name):
    groups = ["image.block01", "image.block02", "logit_scale"]
    with pytest.raises(ValueError, match="no group .*known: image.block01, image.block02, logit_scale"):
        select(groups, [name])


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"mode": "some"}, "tuning.mode is 'some'; one of full, lora, projection"),
        ({"freeze": "image"}, "tuning.freeze is 'image'; a tuple"),
        ({"layer_decay": 0.0}, "tuning.layer_decay is 0.0"),
        ({"layer_decay": 1.1}, "tuning.layer_decay is 1.1"),
        ({"layer_decay": float("nan")}, "tuning.layer_decay is nan"),
        ({"lora_rank": 0}, "tuning.lora_rank is 0; 1 or more"),
        ({"lora_alpha": 0.0}, "tuning.lora_alpha is 0.0; a positive"),
        ({"lora_towers": ()}, r"tuning.lora_towers is \(\); image, text or both"),
        ({"lora_towers": ("image", "sound")}, "tuning.lora_towers"),
        ({"lora_towers": ("image", "image")}, "tuning.lora_towers"),
        ({"freeze": ("logit_scale", "text", "image")}, "names everything .*nothing is left"),
        ({"mode": "projection", "freeze": ("image.head", "text", "logit_scale")}, "projection .*names them all"),
        ({"mode": "lora", "freeze": ("text",)}, "names text, which is one of tuning.lora_towers"),
    ],
)
def test_contradictory_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        TuningConfig(**settings)


def test_settings_can_be_read_as_all_others_are():
    got = load(TuningConfig, overrides=["mode=lora", "freeze=[image]", "lora_towers=[text]", "layer_decay=1e-1"])
    assert got == TuningConfig(mode="lora", freeze=("image",), lora_towers=("text",), layer_decay=0.1)


@pytest.mark.parametrize(
    "tuning, said",
    [
        (TuningConfig(freeze=("image.layer1",)), "no group .*'image.layer1'; known: image.stem, image.block00"),
        (
            TuningConfig(freeze=("image", "text.block", "text.head", "text.embedding", "logit_scale")),
            "nothing to train",
        ),
        (TuningConfig(mode="lora", freeze=("image.block",), lora_towers=("image",)), "nothing for lora"),
    ],
)
def test_what_leaves_nothing_to_train_is_refused_and_the_model_unchanged(tuning, said):
    model = tiny()
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=said):
        prepare(model, tuning)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert list(model.state_dict()) == before


# --- full and projection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", TOWERS)
def test_projection_trains_the_heads_and_the_scale_alone(tower):
    model = tiny(tower)
    prepare(model, TuningConfig(mode="projection"))
    assert trained(model) == members(model, "image.head", "text.head", "logit_scale")
    prepare(model, TuningConfig(mode="projection", freeze=("text",)))
    assert trained(model) == members(model, "image.head", "logit_scale")
    prepare(model, TuningConfig())
    assert trained(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    "tower, frozen",
    [
        ("vit", ("image.stem", "image.block00", "text.embedding")),
        ("resnet", ("image.stem", "image.layer")),
        ("timm", ("image",)),
    ],
)
def test_frozen_groups_do_not_move_and_all_others_do(tower, frozen):
    model = tiny(tower)
    tuning = TuningConfig(freeze=frozen)
    prepare(model, tuning)
    model.train()
    before = state(model)
    learn(model, tuning)
    still = members(model, *frozen)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved & before.keys() >= trained(model)
    assert trained(model) == {name for name, _ in model.named_parameters()} - still
    modules = {name.rpartition(".")[0] for name in still}
    # running statistics of frozen batch norms are part of this
    assert not {name for name in moved if name in still or (name.rpartition(".")[0] in modules and "running" in name)}


def test_statistics_of_batch_norms_stand_still_while_they_are_frozen_and_only_then():
    model = tiny("resnet")
    norms = {"image.stem": model.clip.visual.bn1, "image.layer1": model.clip.visual.layer1[0].bn1}
    prepare(model, TuningConfig(freeze=("image.stem",)))
    for network in (model.train(), copy.deepcopy(model).train()):
        assert not network.clip.visual.bn1.training and network.clip.visual.layer1[0].bn1.training
    assert not norms["image.layer1"].eval().training
    prepare(model, TuningConfig())
    model.train()
    assert all(norm.training for norm in norms.values())


# --- low-rank updates -------------------------------------------------------------------------------------------------


BLOCK = {"attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"}
CONVOLUTIONS = {"conv1.weight", "conv3.weight", "downsample.0.weight"}


def adapted(model):
    """Names, as they were, of the weights with an update."""
    ending = ".original"
    names = [name.removesuffix(ending) for name in model.state_dict() if name.endswith(ending)]
    return {name.replace("parametrizations.", "").removeprefix("clip.") for name in names}


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_updates_go_to_attention_linear_layers_and_pointwise_convolutions(tower):
    model = tiny(tower)
    prepare(model, LORA)
    text = {f"transformer.resblocks.{number}.{name}" for number in range(2) for name in BLOCK}
    if tower == "vit":
        image = {f"visual.{name}" for name in text}
    else:
        image = {f"visual.layer{number}.0.{name}" for number in range(1, 5) for name in CONVOLUTIONS}
        image |= {f"visual.attnpool.{name}_proj.weight" for name in "qkvc"}
    assert adapted(model) == image | text
    assert_every_parameter_once(model)
    assert list(parameter_groups(model)) == IMAGE_GROUPS[tower] + TEXT_GROUPS + ["logit_scale"]


def test_updates_go_to_a_timm_trunk_too():
    model = tiny("timm")
    prepare(model, TuningConfig(mode="lora", lora_towers=("image",)))
    assert adapted(model) and all(name.startswith("visual.") for name in adapted(model))


def test_updates_keep_to_their_towers_and_out_of_frozen_groups():
    model = tiny()
    prepare(model, TuningConfig(mode="lora", lora_towers=("image",), freeze=("image.block00",)))
    assert adapted(model) == {f"visual.transformer.resblocks.1.{name}" for name in BLOCK}


@pytest.mark.parametrize("tower", TOWERS)
def test_updates_change_nothing_at_first_and_then_they_alone_are_trained(tower):
    model = tiny(tower)
    plain, before = answers(model), state(model)
    prepare(model, LORA)
    torch.testing.assert_close(answers(model), plain, rtol=1e-5, atol=1e-6)
    model.train()
    learn(model, LORA)
    assert trained(model) == {name for name, _ in model.named_parameters() if name.endswith((".A", ".B"))}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == name.endswith((".A", ".B")), name
    model.eval()
    assert (answers(model) - plain).abs().max() > 1e-3
    now = {name.replace("parametrizations.", "").removesuffix(".original"): v for name, v in model.state_dict().items()}
    assert all(torch.equal(now[name], value) for name, value in before.items())


@pytest.mark.parametrize("tower", TOWERS)
def test_merging_keeps_the_answers_and_restores_the_keys(tower):
    model = tiny(tower)
    before = state(model)
    prepare(model, LORA)
    learn(model, LORA)
    tuned = answers(model)
    merge(model)
    torch.testing.assert_close(answers(model), tuned, rtol=1e-5, atol=1e-6)
    assert list(model.state_dict()) == list(before)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in tiny(tower).named_parameters()]
    fresh = tiny(tower)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(answers(fresh), tuned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank, alpha", [(2, 4.0), (3, 1.0)])
def test_an_update_is_b_times_a_by_alpha_over_rank(rank, alpha):
    model = tiny("resnet")
    convolution = model.clip.visual.layer1[0].conv3
    weight = convolution.weight.detach().clone()
    prepare(model, TuningConfig(mode="lora", lora_rank=rank, lora_alpha=alpha))
    update = convolution.parametrizations.weight[0]
    assert update.A.shape == (rank, 8) and update.B.shape == (32, rank) and not update.B.any()
    with torch.no_grad():
        update.B.normal_()
    want = weight + alpha / rank * (update.B @ update.A).detach().view(32, 8, 1, 1)
    merge(model)
    torch.testing.assert_close(convolution.weight.detach(), want)


def test_a_rank_above_a_matrix_is_cut_to_it():
    model = tiny("resnet")
    prepare(model, TuningConfig(mode="lora", lora_rank=1000))
    assert model.clip.visual.layer1[0].conv1.parametrizations.weight[0].A.shape == (8, 8)


def test_attention_uses_the_update_on_its_fast_path_and_off_it(monkeypatch):
    model = tiny()
    prepare(model, LORA)
    learn(model, LORA)
    merged = copy.deepcopy(model)
    merge(merged)
    want = answers(merged)
    taken = []
    fast = torch._native_multi_head_attention
    monkeypatch.setattr(torch, "_native_multi_head_attention", lambda *args: taken.append(1) or fast(*args))
    torch.testing.assert_close(answers(model), want, rtol=1e-4, atol=1e-5)
    assert taken  # evaluation without gradients
    taken.clear()
    torch.testing.assert_close(model.encode_views(faces()).detach().flatten(0, 1), want[:4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answers(model.train()), want, rtol=1e-4, atol=1e-5)
    assert not taken
    with torch.no_grad():  # each matrix counts, in both modes
        for module in (
            model.clip.visual.transformer.resblocks[0].attn,
            model.clip.transformer.resblocks[1].attn.out_proj,
        ):
            chain = next(iter(module.parametrizations.values()))
            chain[0].B.normal_()
            for mode in (True, False):
                got = answers(model.train(mode))
                assert (got - want).abs().max() > 1e-3
            want = got


def test_a_copy_can_be_merged_and_its_original_goes_on():
    model = tiny()
    prepare(model, LORA)
    learn(model, LORA)
    tuned, keys = answers(model), list(model.state_dict())
    merge(copy.deepcopy(model))
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(answers(model), tuned)
    learn(model, LORA, steps=1)
    merge(model)
    assert (answers(model) - tuned).abs().max() > 1e-4


def test_a_merged_model_can_be_saved_and_prepared_again(tmp_path):
    model = tiny("resnet")
    prepare(model, LORA)
    learn(model, LORA)
    with pytest.raises(ValueError, match="updates already; merge"):
        prepare(model, TuningConfig())
    merge(model)
    save_checkpoint(tmp_path, model, Card.of(model, PromptSet.load(), "tuned"), half=False)
    loaded, _ = load_checkpoint(tmp_path)
    torch.testing.assert_close(answers(loaded), answers(model))
    prepare(model, TuningConfig())
    assert all(parameter.requires_grad for parameter in model.parameters())


# --- learning rates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", [TuningConfig(freeze=("image.stem",)), TuningConfig(mode="projection"), LORA])
@pytest.mark.parametrize("tower", ["vit", "resnet", "timm"])
def test_the_optimiser_gets_every_trained_parameter_once_and_only_matrices_decay(tower, tuning):
    if tower == "timm" and tuning.freeze:
        tuning = TuningConfig(freeze=("image.trunk",))
    model = tiny(tower)
    prepare(model, tuning)
    groups = optimizer_groups(model, tuning, lr=1e-3, weight_decay=0.1)
    got = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(got) == len(set(got))
    assert set(got) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.1}
        assert group["weight_decay"] in (0.1, 0.0)
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert [group["name"] for group in torch.optim.AdamW(groups).param_groups] == names


def test_rates_fall_toward_the_input_of_each_tower():
    model = tiny("resnet")
    tuning = TuningConfig(layer_decay=0.5, freeze=("image.layer4",))
    prepare(model, tuning)
    got = {}
    for group in optimizer_groups(model, tuning, lr=0.8, weight_decay=0.0, text_factor=0.1):
        name = group["name"].removesuffix(".no_decay")
        assert got.setdefault(name, group["lr"]) == group["lr"]
    want = {"image.head": 0.8, "image.layer3": 0.2, "image.layer2": 0.1, "image.layer1": 0.05, "image.stem": 0.025}
    want |= {"text.head": 0.08, "text.block01": 0.04, "text.block00": 0.02, "text.embedding": 0.01, "logit_scale": 0.8}
    assert got == pytest.approx(want)


@pytest.mark.parametrize(
    "numbers, said",
    [
        ({"lr": 0.0}, "lr is 0.0; a positive number"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; 0 or more"),
        ({"text_factor": -1.0}, "text_factor is -1.0; 0 or more"),
    ],
)
def test_wrong_rates_are_said(numbers, said):
    with pytest.raises(ValueError, match="^" + said):
        optimizer_groups(tiny(), TuningConfig(), **({"lr": 1e-3, "weight_decay": 0.1} | numbers))


def test_a_model_that_is_not_prepared_is_said():
    model = tiny()
    with pytest.raises(ValueError, match="not prepared for mode lora"):
        optimizer_groups(model, LORA, lr=1e-3, weight_decay=0.1)
    prepare(model, LORA)
    with pytest.raises(ValueError, match="not prepared for mode full"):
        table(model, TuningConfig(), lr=1e-3)


def test_the_table_counts_and_is_aligned():
    model = tiny()
    tuning = TuningConfig(freeze=("text",), layer_decay=0.5)
    prepare(model, tuning)
    lines = table(model, tuning, lr=1e-3).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(rows)[2:-1] == [*IMAGE_GROUPS["vit"], *TEXT_GROUPS, "logit_scale"]
    assert rows["image.head"] == ["576", "576", "100.0", "%", "1.00e-03"]  # 2 x 32 of the norm, 32 x 16
    assert rows["image.block00"][-1] == "2.50e-04"
    assert rows["text.head"] == ["288", "0", "0.0", "%", "-"]
    total = sum(parameter.numel() for parameter in model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert rows["total"] == [f"{total:,}", f"{count:,}", f"{100 * count / total:.1f}", "%"]
    assert len({line.rindex("%") for line in lines if "%" in line}) == 1
    assert len({len(line) for line in lines[:-1]}) == 1


def test_the_table_counts_low_rank_updates():
    model = tiny()
    prepare(model, LORA)
    rows = {line.split()[0]: line.split()[1:] for line in table(model, LORA, lr=1e-3, text_factor=0.5).splitlines()}
    sides = (96 + 32) + (32 + 32) + 2 * (128 + 32)
    assert rows["image.block00"][1] == rows["image.block01"][1] == f"{2 * sides:,}"
    assert rows["image.head"][1:] == ["0", "0.0", "%", "-"]
    assert rows["text.block00"][-1] == "5.00e-04"


# --- interpolation ----------------------------------------------------------------------------------------------------


def test_interpolation_goes_from_one_state_to_the_other():
    start = {"weight": torch.tensor([1.0, 2.0, -4.0]), "count": torch.tensor(3)}
    end = {"weight": torch.tensor([2.0, 2.0, 4.0], dtype=torch.float16), "count": torch.tensor(5)}
    for share, want in ((0, [1.0, 2.0, -4.0]), (1, [2.0, 2.0, 4.0]), (0.5, [1.5, 2.0, 0.0]), (0.25, [1.25, 2.0, -2.0])):
        got = interpolate(start, end, share)
        assert got["weight"].tolist() == want and got["weight"].dtype == torch.float32
        assert got["count"] == 5 and got["count"].dtype == torch.int64
        got["weight"].zero_(), got["count"].zero_()
    assert (
        start["weight"].tolist() == [1.0, 2.0, -4.0] and end["weight"].tolist() == [2.0, 2.0, 4.0] and end["count"] == 5
    )


def test_an_interpolated_state_fits_the_model():
    model = tiny("resnet")
    tuning = TuningConfig()
    start = state(model)
    prepare(model, tuning)
    learn(model.train(), tuning)
    end = state(model)
    model.load_state_dict(interpolate(start, end, 0.5))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, (start[name] + end[name]) / 2 if value.is_floating_point() else end[name])


@pytest.mark.parametrize(
    "end, share, said",
    [
        ({"b": torch.zeros(2)}, 0.5, r"lacks tensors such as \['a'\] of the start and has others such as \['b'\]"),
        ({"a": torch.zeros(3)}, 0.5, r"a is \(2,\) at the start and \(3,\) at the end"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, 0.5, "a is floating at the start and integer at the end"),
        ({"a": torch.zeros(2)}, 1.5, "share is 1.5; a number from 0 to 1"),
        ({"a": torch.zeros(2)}, float("nan"), "share is nan"),
    ],
)
def test_states_that_do_not_fit_are_said(end, share, said):
    with pytest.raises(ValueError, match=said):
        interpolate({"a": torch.zeros(2)}, end, share)
