"""The multiview model and its checkpoints, on networks small enough for a second."""

import dataclasses
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from affectvlm.emotions import EKMAN
from affectvlm.model import (
    Card,
    CheckpointError,
    at_size,
    build_model,
    from_config,
    load_checkpoint,
    probabilities,
    read_card,
    save_checkpoint,
)
from affectvlm.prompts import PromptSet

PROMPTS = PromptSet.load()
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TOWERS = {
    "vit": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None},
    "timm": {"image_size": 32, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
}


def config(tower="vit", **text):
    return {"embed_dim": 16, "vision_cfg": dict(TOWERS[tower]), "text_cfg": TEXT | text}


def tiny(tower="vit", seed=0):
    torch.manual_seed(seed)
    return from_config(f"tiny-{tower}", config(tower))


def faces(batch=2, n_views=3, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, n_views, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def bank(model):
    with torch.no_grad():
        return model.text_bank(PROMPTS)


@pytest.fixture(autouse=True)
def no_gradients(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", TOWERS)
def test_features_are_those_of_open_clip_on_normalised_pixels(tower):
    model = tiny(tower)
    views = faces()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.mean, model.std))
    pixels = (views.flatten(0, 1) / 255 - mean) / std
    want = model.clip.encode_image(pixels, normalize=True).view(2, 3, -1)
    torch.testing.assert_close(model.encode_views(views), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode_views(views / 255), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(want.norm(dim=-1), torch.ones(2, 3))


def test_other_sizes_are_resized_with_antialiasing(model):
    smooth = F.interpolate(torch.rand(1, 3, 4, 4), size=32, mode="bicubic").clamp(0, 1)[None]
    large = smooth.repeat_interleave(4, dim=3).repeat_interleave(4, dim=4)
    assert (model.encode_views(large) * model.encode_views(smooth)).sum() > 0.999
    # one-pixel stripes above the limit of the small image fade to grey instead of coming back as coarse ones
    stripes = torch.arange(128).remainder(2).float().expand(1, 1, 3, 128, 128)
    grey = torch.full((1, 1, 3, 32, 32), 0.5)
    assert (model.encode_views(stripes) * model.encode_views(grey)).sum() > 0.99


@pytest.mark.parametrize(
    "views",
    [
        torch.zeros(1, 3, 32, 32),
        torch.zeros(1, 3, 32, 32, 3),
        torch.zeros(1, 3, 3, 32, 24),
        torch.zeros(0, 3, 3, 32, 32),
        torch.zeros(1, 3, 3, 32, 32, dtype=torch.int64),
    ],
    ids=lambda views: str(tuple(views.shape)),
)
def test_wrong_views_are_said(model, views):
    with pytest.raises(ValueError, match="views"):
        model.encode_views(views)


def test_a_sample_is_the_normalised_mean_of_its_present_views(model):
    z = model.encode_views(faces())
    mask = torch.tensor([[True, True, True], [True, False, True]])
    got = model.aggregate(z, mask)
    torch.testing.assert_close(got[0], F.normalize(z[0].mean(0), dim=0))
    torch.testing.assert_close(got[1], F.normalize(z[1, [0, 2]].mean(0), dim=0))
    torch.testing.assert_close(model.aggregate(z, torch.ones_like(mask)), model.aggregate(z))
    z[1, 1] = torch.nan
    torch.testing.assert_close(model.aggregate(z, mask), got)


def test_views_in_another_order_give_the_same_logits(model, bank):
    views = faces()
    logits = [model.logits(model(views[:, order]), bank) for order in ([0, 1, 2], [2, 0, 1])]
    torch.testing.assert_close(*logits)


def test_wrong_masks_are_said(model):
    z = model.encode_views(faces())
    for mask in (torch.ones(2, 3), torch.ones(2, 2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="mask"):
            model.aggregate(z, mask)
    with pytest.raises(ValueError, match="no view"):
        model.aggregate(z, torch.tensor([[True] * 3, [False] * 3]))


def test_prompts_are_encoded_as_open_clip_does_and_in_their_order(model):
    prompts = ["a happy face", "an angry face", "a happy face", "a face"] + [f"face {i}" for i in range(300)]
    want = model.clip.encode_text(open_clip.tokenize(prompts, context_length=32), normalize=True)
    got = model.encode_prompts(prompts)
    torch.testing.assert_close(got, want)
    assert torch.equal(got[0], got[2])


@pytest.mark.parametrize("prompts", [[], "a face"])
def test_wrong_prompts_are_said(model, prompts):
    with pytest.raises(ValueError, match="prompts"):
        model.encode_prompts(prompts)


def test_a_bank_row_is_the_normalised_mean_of_its_prompts(model, bank):
    for place, row in enumerate(PROMPTS.rows):
        want = F.normalize(model.encode_prompts(PROMPTS.bank_prompts(row)).mean(0), dim=0)
        torch.testing.assert_close(bank[place], want)


def test_logits_are_scaled_cosines(model, bank):
    z = model.encode_views(faces())
    got = model.logits(z, bank)
    assert got.shape == (2, 3, 8)
    torch.testing.assert_close(got, F.cosine_similarity(z[..., None, :], bank, dim=-1) / 0.07, rtol=1e-4, atol=1e-4)


def test_the_logit_scale_is_bounded_as_in_clip():
    model = tiny()
    model.clip.logit_scale.fill_(50.0)
    assert model.logit_scale == 100.0


def test_gradients_reach_both_towers_and_the_logit_scale():
    model = tiny().train()
    loss = F.cross_entropy(model.logits(model(faces()), model.text_bank(PROMPTS)), torch.tensor([0, 3]))
    loss.backward()
    grads = {name: value.grad for name, value in model.named_parameters()}
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads.values())
    for name in ("clip.visual.conv1.weight", "clip.text_projection", "clip.logit_scale"):
        assert grads[name].abs().sum() > 0


def test_all_prompts_fit_into_the_compact_text_tower():
    tokenizer = open_clip.SimpleTokenizer()
    longest = {"sex": "female", "age_group": "middle-aged", "ethnicity": "middle eastern", "intensity": "moderate"}
    child = {"sex": "female", "age_group": "child", "ethnicity": "latino", "intensity": "slight"}
    limit = build_model().model_cfg["text_cfg"]["context_length"] - 2
    for row in PROMPTS.rows:
        for metadata in (longest, child):
            for held_out in (False, True):
                prompts = PROMPTS.prompts(row, metadata, held_out)
                assert max(len(tokenizer.encode(prompt)) for prompt in prompts) <= limit


def test_bfloat16_gives_nearly_the_same_answer(model, bank):
    views = faces()
    low = tiny().to(torch.bfloat16)
    cosines = (low(views) * model(views)).sum(-1), (low.text_bank(PROMPTS) * bank).sum(-1)
    assert all((cosine > 0.999).all() for cosine in cosines)
    assert low(views).dtype == torch.float32


def test_threads_sharing_a_model_get_the_answers_of_one(model, bank):
    batches = [faces(1, seed=seed) for seed in range(16)]
    alone = [model.logits(model(views), bank) for views in batches]

    def ask(views):
        with torch.no_grad():  # per thread
            return model.logits(model(views), model.text_bank(PROMPTS))

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, batches))
    torch.testing.assert_close(alone, together)


# --- probabilities ----------------------------------------------------------------------------------------------------


def test_probabilities_follow_the_rule():
    logits = torch.randn(50, 8) * 5
    got, rejected = probabilities(logits, 6, temperature=1.7)
    mass = (logits / 1.7).softmax(-1)[:, 6:]
    reject = mass.sum(-1, keepdim=True)
    torch.testing.assert_close(got, (1 - reject) * (logits[:, :6] / 1.7).softmax(-1) + reject / 6)
    torch.testing.assert_close(rejected, mass)
    torch.testing.assert_close(got.sum(-1), torch.ones(50))
    assert (got >= 0).all()


def test_what_is_rejected_gets_a_flat_answer_and_the_rest_keeps_its_order():
    logits = torch.tensor([5.0, 4.0, 1.0, 0.0, -1.0, -2.0, 0.0, 0.0])
    last = 1.0
    for neutral in (-20.0, 3.0, 6.0, 30.0):
        logits[6] = neutral
        got, rejected = probabilities(logits, 6)
        assert got.argmax() == 0 and got[0] < last and (got.diff() <= 0).all()
        last = got[0]
    torch.testing.assert_close(got, torch.full((6,), 1 / 6))
    assert rejected[0] == pytest.approx(1.0)


def test_a_margin_lifts_the_rejection_rows_and_keeps_the_order_of_the_classes():
    logits = torch.randn(50, 8) * 3
    lifted = logits + torch.tensor([0.0] * 6 + [1.2] * 2)
    for got, expected in zip(probabilities(logits, 6, 0.7, margin=1.2), probabilities(lifted, 6, 0.7), strict=True):
        torch.testing.assert_close(got, expected)
    plain, held = (probabilities(logits, 6, 0.7, margin)[0] for margin in (0.0, 1.2))
    assert (plain.argmax(-1) == held.argmax(-1)).all()
    fallen = plain.max(-1).values - held.max(-1).values
    assert (fallen > -1e-6).all() and (fallen > 0.01).any()
    with pytest.raises(ValueError, match="margin is nan"):
        probabilities(logits, 6, margin=float("nan"))


def test_without_rejection_rows_probabilities_are_a_softmax():
    logits = torch.randn(4, 6)
    got, rejected = probabilities(logits, 6)
    torch.testing.assert_close(got, logits.softmax(-1))
    assert rejected.shape == (4, 0)


def test_classes_in_another_order_permute_the_probabilities(model, bank):
    plain = PROMPTS.to_dict()
    order = [3, 0, 5, 1, 4, 2]
    plain["classes"] = {EKMAN[place]: plain["classes"][EKMAN[place]] for place in order}
    z = model(faces())
    a, rejected_a = probabilities(model.logits(z, bank), 6)
    b, rejected_b = probabilities(model.logits(z, model.text_bank(PromptSet.from_dict(plain))), 6)
    torch.testing.assert_close(a[:, order], b)
    torch.testing.assert_close(rejected_a, rejected_b)


@pytest.mark.parametrize("n_classes, temperature", [(0, 1.0), (9, 1.0), (6, 0.0), (6, -1.0), (6, float("nan"))])
def test_wrong_arguments_of_probabilities_are_said(n_classes, temperature):
    with pytest.raises(ValueError):
        probabilities(torch.zeros(1, 8), n_classes, temperature)


# --- building ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_arch(tmp_path):
    """An architecture that open_clip knows by name."""
    path = tmp_path / "tiny-vit.json"
    path.write_text(json.dumps(config()))
    open_clip.add_model_config(path)
    return "tiny-vit"


WRITERS = {
    "weights.pt": torch.save,
    "wrapped.pt": lambda state, path: torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path),
    "weights.safetensors": safetensors.torch.save_file,
    "half.safetensors": lambda state, path: safetensors.torch.save_file({k: v.half() for k, v in state.items()}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_local_weight_files_load(tmp_path, tiny_arch, name):
    model = tiny(seed=1)
    path = tmp_path / name
    WRITERS[name](model.clip.state_dict(), path)
    loaded = build_model(tiny_arch, path)
    tolerance = 1e-2 if name.startswith("half") else 1e-6
    torch.testing.assert_close(loaded(faces()), model(faces()), rtol=0, atol=tolerance)


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weight_files_that_do_not_fit_are_said_and_nothing_is_run(tmp_path, tiny_arch):
    mark = tmp_path / "mark"
    other = from_config("other", config(width=32)).clip.state_dict()
    files = {
        "trap.pt": lambda path: torch.save({"state_dict": Trap(mark)}, path),
        "trap.pkl": lambda path: path.write_bytes(pickle.dumps(Trap(mark), protocol=2)),
        "other.pt": lambda path: torch.save(other, path),
        "other.safetensors": lambda path: safetensors.torch.save_file(other, path),
        "empty.pt": lambda path: torch.save({}, path),
        "list.pt": lambda path: torch.save([1, 2], path),
        "nothing.pt": lambda path: path.write_bytes(b""),
        "text.safetensors": lambda path: path.write_text("hello"),
    }
    for name, write in files.items():
        write(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            build_model(tiny_arch, tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize(
    "arch, pretrained, said",
    [
        ("ViT-Z-99", None, "no architecture 'ViT-Z-99'.*affectvlm-compact"),
        ("hf-hub:some/model", None, "no architecture"),
        ("local-dir:somewhere", None, "no architecture"),
        ("affectvlm-compact", "openai", "neither a tag"),
        ("affectvlm-compact", "nowhere.pt", "'nowhere.pt' is neither a tag"),
        ("ViT-B-16-SigLIP", None, "tokenizer"),
        ("coca_ViT-B-32", None, "CoCa"),
    ],
)
def test_unknown_names_are_said(arch, pretrained, said):
    with pytest.raises(ValueError, match=said):
        build_model(arch, pretrained)


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": "wide"},
        {"vision_cfg": {"image_size": 32, "colour": "red"}},
        {"vision_cfg": {"image_size": [32, 48], "layers": 1, "width": 32, "head_width": 16}},
        {"vision_cfg": None},
        {"text_cfg": TEXT | {"heads": 3}},
        {"text_cfg": TEXT | {"hf_model_name": "some/model"}},
        {"surprise": 1},
    ],
    ids=str,
)
def test_configurations_that_cannot_be_built_are_said(change):
    with pytest.raises(ValueError):
        from_config("tiny", config() | change)


OFFLINE = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError(f"network used: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = socket.create_connection = refuse
import sys, torch
from affectvlm.model import Card, build_model, load_checkpoint, save_checkpoint
from affectvlm.prompts import PromptSet
model, prompts = build_model(), PromptSet.load()
save_checkpoint(sys.argv[1], model, Card.of(model, prompts, "compact"))
model, card = load_checkpoint(sys.argv[1])
with torch.no_grad():
    logits = model.logits(model(torch.zeros(1, 3, 3, 224, 224)), model.text_bank(card.prompts))
print(tuple(logits.shape))
"""


def test_the_compact_model_needs_no_network_and_stays_under_50_mb(tmp_path):
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "compact")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 8)"
    assert sum(item.stat().st_size for item in (tmp_path / "compact").iterdir()) < 50e6


@pytest.mark.slow
@pytest.mark.parametrize("arch, size", [("ViT-B-32", 224), ("RN50", 224), ("ViT-B-16", 224)])
def test_large_architectures_build_and_answer(arch, size):
    model = build_model(arch)
    assert model.image_size == size
    bank = model.text_bank(PROMPTS)
    got, _ = probabilities(model.logits(model(faces(1, size=128)), bank), 6)
    assert got.shape == (1, 6) and got.sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_a_pretrained_tag_brings_its_activation_and_normalisation(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(build_model("ViT-B-32").clip.state_dict(), path)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: str(path))
    openai = build_model("ViT-B-32", "openai")
    laion = build_model("ViT-B-32", "laion2b_s34b_b79k")
    assert openai.model_cfg["quick_gelu"] and not laion.model_cfg.get("quick_gelu")
    kinds = [{type(module).__name__ for module in model.clip.modules()} for model in (openai, laion)]
    assert "QuickGELU" in kinds[0] and "QuickGELU" not in kinds[1]
    card = Card.of(openai, PROMPTS, "openai")
    save_checkpoint(tmp_path / "saved", openai, card, half=False)
    loaded, card = load_checkpoint(tmp_path / "saved")
    assert card.quick_gelu
    torch.testing.assert_close(loaded(faces(1)), openai(faces(1)))


# --- checkpoints ------------------------------------------------------------------------------------------------------


def card_of(model, **rest):
    return Card.of(
        model,
        PROMPTS,
        "tiny",
        temperature=1.25,
        training_data={"samples": 10, "sources": ["procedural"]},
        metrics={"uar": 0.5},
        licence="MIT",
        intended_use="tests",
        limits="none",
        **rest,
    )


@pytest.fixture
def saved(tmp_path, model):
    save_checkpoint(tmp_path / "tiny", model, card_of(model))
    return tmp_path / "tiny"


@pytest.mark.parametrize("tower", TOWERS)
def test_saved_and_loaded_models_give_equal_logits_and_cards(tmp_path, tower):
    model = tiny(tower).train()
    model(faces(8))  # running statistics of batch norm move
    model.eval()
    written = save_checkpoint(tmp_path / "tiny", model, card_of(model), half=False)
    loaded, card = load_checkpoint(tmp_path / "tiny")
    assert card == written == read_card(tmp_path / "tiny")
    assert not loaded.training
    banks = [one.text_bank(one_card.prompts) for one, one_card in ((model, written), (loaded, card))]
    assert torch.equal(model.logits(model(faces()), banks[0]), loaded.logits(loaded(faces()), banks[1]))


def test_half_precision_weights_are_rounded_and_loaded_as_float32(saved, model):
    loaded, _ = load_checkpoint(saved)
    for name, value in loaded.clip.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.clip.state_dict()[name].half().float())


def test_the_model_itself_is_not_changed_by_saving(saved, model):
    assert all(value.dtype == torch.float32 for value in model.state_dict().values() if value.is_floating_point())


def test_open_clip_reads_the_weights(saved, model, tiny_arch):
    clip = open_clip.create_model(tiny_arch, pretrained=str(saved / "model.safetensors"), require_pretrained=True)
    loaded, _ = load_checkpoint(saved)
    assert all(torch.equal(value, loaded.clip.state_dict()[name]) for name, value in clip.state_dict().items())


def test_the_card_is_readable_and_says_everything(saved):
    card = json.loads((saved / "card.json").read_text(encoding="utf-8"))
    assert card["classes"] == list(EKMAN) and card["rejection"] == ["neutral", "no face"]
    assert card["view_names"] == ["front", "left", "right"] and card["yaws"] == [0.0, -40.0, 40.0]
    assert card["model_cfg"] == config() and card["quick_gelu"] is False
    assert card["half_width"] == 80.0 and card["image_kind"] == "shaded" and card["image_size"] == 32
    assert card["temperature"] == 1.25 and card["licence"] == "MIT" and card["metrics"] == {"uar": 0.5}
    assert card["prompts"] == PROMPTS.to_dict()
    assert card["created"].startswith("20") and len(card["weights_sha256"]) == 64


def test_saving_again_replaces_both_files_and_leaves_the_others(saved):
    (saved / "notes.txt").write_text("keep me")
    other = tiny(seed=5)
    save_checkpoint(saved, other, card_of(other, image_kind="depth"), half=False)
    loaded, card = load_checkpoint(saved)
    assert card.image_kind == "depth" and torch.equal(loaded(faces()), other(faces()))
    assert sorted(item.name for item in saved.iterdir()) == ["card.json", "model.safetensors", "notes.txt"]


def test_a_save_that_fails_leaves_the_old_checkpoint(saved, model):
    before = load_checkpoint(saved)[1]
    broken = tiny()
    broken.clip.text_projection.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="text_projection.*NaN"):
        save_checkpoint(saved, broken, card_of(broken))
    huge = tiny()
    huge.clip.text_projection.fill_(1e6)  # fits float32 but not float16
    with pytest.raises(CheckpointError, match="text_projection"):
        save_checkpoint(saved, huge, card_of(huge))
    with pytest.raises(CheckpointError, match="JSON"):
        save_checkpoint(saved, model, dataclasses.replace(before, metrics={"uar": float("nan")}))
    with pytest.raises(CheckpointError, match="arch"):
        save_checkpoint(saved, model, dataclasses.replace(before, arch="other"))
    assert load_checkpoint(saved)[1] == before
    assert sorted(item.name for item in saved.iterdir()) == ["card.json", "model.safetensors"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": 3},
        {"licence": None},
        {"model_cfg": "ViT"},
        {"prompts": {}},
        {"view_names": ()},
        {"view_names": ("front", "front", "right")},
        {"view_names": "front"},
        {"yaws": (0.0, -40.0)},
        {"yaws": (0.0, -40.0, "40")},
        {"yaws": (0.0, -40.0, 400.0)},
        {"yaws": (0.0, -40.0, float("nan"))},
        {"image_kind": "thermal"},
        {"half_width": 0},
        {"half_width": True},
        {"temperature": -1.0},
        {"temperature": float("inf")},
        {"temperature": "1"},
        {"rejection_margin": float("nan")},
        {"rejection_margin": None},
        {"mean": (0.5, 0.5)},
        {"std": (1.0, 1.0, 0.0)},
        {"image_size": 32.0},
        {"metrics": [1]},
    ],
    ids=str,
)
def test_contradictory_cards_are_refused(model, change):
    with pytest.raises(CheckpointError):
        dataclasses.replace(card_of(model), **change)


def edit_card(folder, **change):
    """Replace entries of a card; None removes one."""
    content = json.loads((folder / "card.json").read_text(encoding="utf-8")) | change
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / "card.json").write_text(json.dumps(kept), encoding="utf-8")


def edit_weights(folder, change):
    """Rewrite the weights and the sha256 in the card with them: only what is inside can give it away."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit_card(folder, weights_sha256=digest)


def flip_a_bit(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickled(folder):
    torch.save({"state_dict": {}}, folder / "model.safetensors")


def only_a_pickle(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "model.pt")


def without(name):
    return lambda folder: (folder / name).unlink()


def text(content):
    return lambda folder: (folder / "card.json").write_bytes(content)


def text_with_deep_prompts(folder):
    edit_card(folder, prompts=PROMPTS.to_dict() | {"age_group": "DEEP"})
    path = folder / "card.json"
    path.write_bytes(path.read_bytes().replace(b'"DEEP"', b'{"a":' * 900 + b"1" + b"}" * 900))


def weights(change):
    return lambda folder: edit_weights(folder, change)


def card(**change):
    return lambda folder: edit_card(folder, **change)


def huge_header(folder):
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


BROKEN = {
    "no weights": (without("model.safetensors"), "no file model.safetensors"),
    "no card": (without("card.json"), "no file card.json"),
    "a pickle instead of weights": (only_a_pickle, "model.pt: pickles by their names and never opened"),
    "a pickle named safetensors": (pickled, "not a safetensors file"),
    "truncated weights": (truncate, "broken"),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "size of model.safetensors"),
    "header that lies": (huge_header, "broken"),
    "one bit flipped": (flip_a_bit, "sha256"),
    "a tensor missing": (weights(lambda t: t.pop("text_projection")), "lacks tensors such as .*text_projection"),
    "a tensor too many": (weights(lambda t: t.update(extra=torch.zeros(1))), "unknown ones such as .*extra"),
    "another shape": (weights(lambda t: t.update(text_projection=torch.zeros(2, 2))), "shape of text_projection"),
    "double weights": (weights(lambda t: t.update(text_projection=torch.zeros(16, 16).double())), "dtype"),
    "NaN weights": (weights(lambda t: t["text_projection"].fill_(torch.nan)), "NaN"),
    "infinite weights": (weights(lambda t: t["text_projection"].fill_(torch.inf)), "NaN or infinite"),
    "not JSON": (text(b"{"), "not JSON"),
    "not text": (text(b"\xff\xfe\x00\x01"), "cannot be read"),
    "empty card": (text(b""), "not JSON"),
    "a list": (text(b"[]"), "JSON object"),
    "NaN in the card": (text(b'{"temperature": NaN}'), "not JSON"),
    "deep nesting": (text(b"[" * 100_000), "not JSON"),
    "huge card": (text(b" " * (5 << 20)), "size of card.json"),
    "another format": (card(format="something"), "format"),
    "a later version": (card(format_version=2), "version 1"),
    "an entry missing": (card(temperature=None), "lacks .*temperature"),
    "an entry too many": (card(colour="red"), "unknown entries .*colour"),
    "no classes": (card(classes=[]), "classes"),
    "classes in another order": (card(classes=list(EKMAN[::-1])), "classes"),
    "other rejection rows": (card(rejection=["neutral"]), "rejection"),
    "another activation": (card(quick_gelu=True), "quick_gelu"),
    "activation as a number": (card(quick_gelu=0), "quick_gelu"),
    "prompts without classes": (card(prompts={"templates": ["{noun}"]}), "prompts"),
    "bottomless prompts": (text_with_deep_prompts, "prompts"),
    "angles that do not match": (card(yaws=[0, 10]), "yaws"),
    "wrong sha": (card(weights_sha256="0" * 64), "sha256"),
    "another architecture": (card(model_cfg=config("resnet")), "lacks tensors"),
    "a wider network": (card(model_cfg=config(width=32)), "shape of"),
    "a network for a warehouse": (card(model_cfg=config(width=2**20 - 1024)), "model_cfg|shape of|cannot build"),
    "absurd layers": (card(model_cfg=config(layers=10**9)), "layers"),
    "absurd numbers": (card(model_cfg=config(vocab_size=10**12)), "vocab_size"),
    "absurd stages": (card(model_cfg={"vision_cfg": {"layers": [1, 10**6, 1, 1]}}), "layers"),
    "no towers": (card(model_cfg={}), "cannot build"),
    "image size not the network's": (card(image_size=64), "image_size"),
}


@pytest.mark.parametrize("damage, said", BROKEN.values(), ids=BROKEN.keys())
def test_broken_checkpoints_are_refused_with_the_reason(saved, damage, said):
    damage(saved)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(saved)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", ["model.pt", "last.ckpt", "model.safetensors", "card.json", "photo.jpg"])
def test_files_are_not_checkpoints(saved, name):
    path = saved / name
    if not path.exists():
        path.write_bytes(b"content")
    with pytest.raises(CheckpointError, match="folder with card.json and model.safetensors"):
        load_checkpoint(path)


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint .*nowhere"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_checkpoint_moves_with_its_folder(saved, tmp_path, model):
    shutil.move(saved, tmp_path / "elsewhere")
    loaded, _ = load_checkpoint(str(tmp_path / "elsewhere"))
    assert (loaded(faces()) * model(faces())).sum(-1).min() > 0.999


@pytest.mark.parametrize("vision", [
    {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
    {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
])  # fmt: skip
def test_a_network_for_pictures_of_another_side_says_nearly_the_same(vision):
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = from_config("tiny", {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text})
    larger = at_size(model, 96)
    assert larger.image_size == 96 and larger.model_cfg["vision_cfg"]["image_size"] == 96 and model.image_size == 64
    assert at_size(model, 64) is model
    smooth = torch.nn.functional.interpolate(torch.rand(6, 3, 4, 4), 192, mode="bicubic").clamp(0, 1)[None]
    with torch.no_grad():
        cosines = (larger.encode_views(smooth) * model.encode_views(smooth)).sum(-1)
        back = at_size(larger, 64).state_dict()
    assert cosines.min() > 0.9
    grids = {name for name, value in larger.state_dict().items() if value.shape != model.state_dict()[name].shape}
    assert len(grids) == 1 and grids.pop().endswith("positional_embedding")
    assert all(torch.equal(back[n], v) for n, v in model.state_dict().items() if not n.endswith("positional_embedding"))


def test_a_side_that_a_network_cannot_have_is_said():
    vision = {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 32}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = from_config("tiny", {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text})
    with pytest.raises(ValueError, match="side|build"):
        at_size(model, 16)
