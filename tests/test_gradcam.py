"""Maps and what is made of them: against the package grad-cam, against known answers, from many threads."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from affectvlm import gradcam
from affectvlm.emotions import EKMAN
from affectvlm.gradcam import maps as maps_module
from affectvlm.gradcam import pictures
from affectvlm.gradcam.projection import project
from affectvlm.gradcam.regions import REGIONS, pixel_positions, region_of, scan_regions
from affectvlm.gradcam.targets import Target, contrast_target, emotion_target, prompt_target
from affectvlm.gradcam.trust import deletion_insertion, random_fields, shuffled
from affectvlm.model import from_config, towers
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, PIVOT_MM, render_buffers, rotation_y
from affectvlm.scan import Scan
from affectvlm.scan_io import read_scan

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 32, "layers": 3}
RESNET = {"image_size": 64, "patch_size": None, "width": 8, "layers": [1, 1, 1, 1]}


def tiny(vision: dict):
    """A CLIP of random weights, all of which matter."""
    torch.manual_seed(3)
    model = from_config("tiny", {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT}).requires_grad_(False)
    for name, weight in model.clip.visual.named_parameters():
        if name.endswith("bn3.weight"):  # open_clip starts these at zero, which switches whole blocks off
            nn.init.uniform_(weight, 0.5, 1.5)
    return model


@pytest.fixture(scope="module", params=["vit", "resnet"])
def model(request):
    return tiny({"vit": VIT, "resnet": RESNET}[request.param])


@pytest.fixture(scope="module")
def views() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def some_target(seed: int = 0) -> Target:
    features = torch.randn(4, 32, generator=torch.Generator().manual_seed(seed))
    features = features / features.norm(dim=1, keepdim=True)
    return Target("something", features[0], features[1:])


@pytest.fixture(scope="module")
def shipped(predictor):
    """The shipped model, a smile and nothing else on an average face, and the answer to it."""
    if not any(part.get("emotions") for part in predictor.card.metrics.values() if isinstance(part, dict)):
        pytest.skip("no trained model is shipped")
    from affectvlm.synthesis.procedural import ProceduralFace

    face = ProceduralFace()
    person = face.sample_identity(np.random.default_rng(0), spread=0.0)
    return predictor, predictor.predict(face.generate(person, {"AU12": 1.0, "AU25": 0.6}))


def smile(predictor) -> Target:
    return emotion_target(predictor._bank, predictor.card.prompts.rows, "happy", predictor.card.temperature)


# the halves of the towers


def test_the_two_halves_are_the_tower(model, views):
    images = torch.from_numpy(views.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        whole = model.encode_views(images[None])[0]
        names = towers.layer_names(model)
        for name in names:
            halves = towers.split(model, name)
            flow = halves.lower(images)
            torch.testing.assert_close(halves.upper(flow), whole)
            assert halves.grid(flow).ndim == 4 and len(halves.grid(flow)) == 3
        features, attentions, (height, width) = towers.attentive_features(model, images)
    torch.testing.assert_close(features, whole, atol=1e-5, rtol=1e-4)
    for attention in attentions:
        assert attention.shape[-2:] == (1 + height * width,) * 2
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))
    with pytest.raises(ValueError, match=names[0]):
        towers.split(model, "no such layer")


def test_patches_of_every_offered_layer_have_a_gradient():
    model = tiny(VIT)
    assert towers.layer_names(model) == ("resblocks.0.ln_1", "resblocks.1.ln_1", "resblocks.2.ln_1")
    views = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name in towers.layer_names(model):
        halves = towers.split(model, name)
        flow = halves.lower(views).requires_grad_()
        (gradient,) = torch.autograd.grad(some_target().score(model, halves.upper(flow)).sum(), flow)
        product = (halves.grid(gradient) * halves.grid(flow)).sum(dim=1)
        assert halves.grid(gradient).abs().amax(dim=(1, 2, 3)).min() > 1e-5
        assert product.abs().amax(dim=(1, 2)).min() > 1e-5  # at the entry of the last block it would be nothing


def test_tokens_lie_where_their_patches_are():
    """One bright patch changes what enters the first block at its own place most."""
    halves = towers.split(tiny(VIT), "resblocks.0.ln_1")
    dark, bright = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    bright[..., 16:32, 48:64] = 1.0  # row 1, column 3
    change = (halves.grid(halves.lower(bright)) - halves.grid(halves.lower(dark))).norm(dim=1)[0]
    assert divmod(int(change.argmax()), 4) == (1, 3)


# the methods


def scaled(maps: torch.Tensor) -> torch.Tensor:
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + 1e-7)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam", "gradcam++"])
def test_maps_equal_those_of_the_package(model, views, method):
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM

    package = {"gradcam": GradCAM, "hirescam": HiResCAM, "layercam": LayerCAM, "gradcam++": GradCAMPlusPlus}[method]
    visual, target = model.clip.visual, some_target()
    is_vit = hasattr(visual, "transformer")
    layer = "resblocks.2.ln_1" if is_vit else "layer2"
    module = visual.transformer.resblocks[2].ln_1 if is_vit else visual.layer2

    class Joint(nn.Module):
        """The views as a batch in, the joint feature out: what the package wants to look into."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images):
            return model.aggregate(model.encode_views(images[None]))

    pixels = maps_module.prepared(model, views).requires_grad_()
    places = (lambda x: x[:, 1:].transpose(1, 2).unflatten(2, visual.grid_size)) if is_vit else None
    with package(model=Joint(), target_layers=[module], reshape_transform=places) as cam:
        theirs = cam(input_tensor=pixels, targets=[lambda z: target.score(model, z[None])[0]])
    there = torch.ones(3, dtype=torch.bool)
    ours, _ = maps_module.layer_map(model, maps_module.prepared(model, views), target, there, method, layer)
    # the package scales each picture by itself, once before and once after it makes it larger
    ours = scaled(ours.clamp(min=0))
    ours = scaled(torch.nn.functional.interpolate(ours[:, None], size=(64, 64), mode="bilinear")[:, 0]).numpy()
    assert theirs.max() == pytest.approx(1.0, abs=1e-2) and np.ptp(theirs) > 0.5
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_the_integrated_map_sums_to_what_the_expression_gives(views, monkeypatch):
    """Completeness over all places and views; of a ResNet, as part of a transformer's lies in its class token."""
    monkeypatch.setattr(maps_module, "STEPS", 96)
    model = tiny(RESNET)
    pixels, target, there = maps_module.prepared(model, views), some_target(), torch.ones(3, dtype=torch.bool)
    for layer in towers.layer_names(model):
        raw, score = maps_module.layer_map(model, pixels, target, there, "integrated", layer)
        z = model.aggregate(model.encode_views(maps_module.smoothed(pixels)[None]))
        assert float(raw.sum()) == pytest.approx(score - float(target.score(model, z)), rel=0.02, abs=2e-3)


def test_every_method_gives_maps_on_one_scale(model, views):
    for method in gradcam.methods_for(model):
        found = gradcam.explain(model, views, some_target(1), method=method)
        assert found.maps.shape == (3, 64, 64) and found.maps.dtype == np.float32
        assert found.maps.min() >= 0 and (found.maps.max() == 1 or not found.maps.any())
        assert found.shares.sum() == pytest.approx(float(found.maps.any()))
        z = model.aggregate(model.encode_views(maps_module.prepared(model, views)[None]))
        assert found.score == pytest.approx(float(some_target(1).score(model, z)), abs=1e-4)


def test_an_unknown_tower_can_still_be_explained(views):
    model = tiny(RESNET)
    visual = model.clip.visual
    model.clip.visual = nn.Sequential(visual)
    assert gradcam.methods_for(model) == ("occlusion",)
    assert gradcam.explain(model, views, some_target()).maps.shape == (3, 64, 64)
    with pytest.raises(ValueError, match="occlusion"):
        gradcam.explain(model, views, some_target(), method="gradcam")


def test_a_missing_view_has_no_map_and_no_say(model, views):
    present = np.array([True, False, True])
    found = gradcam.explain(model, views, some_target(), present)
    assert not found.maps[1].any() and found.shares[1] == 0
    other = views.copy()
    other[1] = 7
    again = gradcam.explain(model, other, some_target(), present)
    np.testing.assert_array_equal(found.maps, again.maps)
    assert found.score == again.score


def test_wrong_arguments_are_told(model, views):
    for bad in (views[0], views.astype(np.float32), views[:, :, :32]):
        with pytest.raises(ValueError, match="uint8 is needed"):
            gradcam.explain(model, bad, some_target())
    with pytest.raises(ValueError, match="one True"):
        gradcam.explain(model, views, some_target(), np.zeros(3, bool))
    with pytest.raises(ValueError, match="integrated"):
        gradcam.explain(model, views, some_target(), method="no such method")


def test_eight_threads_get_what_one_gets(model, views):
    questions = [(np.roll(views, 5 * i, axis=2), some_target(i)) for i in range(8)]
    methods = gradcam.methods_for(model)[:6]

    def ask(i: int) -> list[np.ndarray]:
        return [gradcam.explain(model, questions[i][0], questions[i][1], method=method).maps for method in methods]

    alone = [ask(i) for i in range(8)]
    together: dict[int, list[np.ndarray]] = {}
    start = threading.Barrier(8)

    def run(i: int) -> None:
        start.wait()
        with torch.inference_mode(i % 2 == 0):  # as a predictor's thread may be
            together[i] = ask(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        for one, other in zip(alone[i], together[i], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_model_is_left_as_it_was(model, views):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for method in gradcam.methods_for(model):
        found = gradcam.explain(model, views, some_target(), method=method)
    gradcam.trust(model, views, some_target(), found.maps)
    gradcam.weights_matter(model, views, some_target())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None and not weight.requires_grad for weight in model.parameters())
    assert all(not part._forward_hooks and not part._backward_hooks for part in model.modules())


# targets


def test_scores_are_log_odds_without_the_row_for_no_face():
    model = tiny(RESNET)
    bank = torch.nn.functional.normalize(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    rows = ("happy", "sad", "fear", "neutral", "no face")
    z = torch.nn.functional.normalize(torch.randn(2, 32), dim=1)
    logits = model.logit_scale * z @ bank.T / 0.7
    shares = torch.softmax(logits[:, :4], dim=1)
    target = emotion_target(bank, rows, "fear", temperature=0.7)
    for i, score in enumerate(target.score(model, z)):
        assert target.readable(model, float(score)) == pytest.approx(float(shares[i, 2]), abs=1e-6)
    one, other = (contrast_target(bank, rows, *pair, 0.7) for pair in (("fear", "sad"), ("sad", "fear")))
    torch.testing.assert_close(one.score(model, z), logits[:, 2] - logits[:, 1])
    torch.testing.assert_close(one.score(model, z), -other.score(model, z))


def test_own_words_are_scored_by_their_similarity():
    model = tiny(RESNET)
    target = prompt_target(model, "  a person\nwho smiles ")
    assert target.name == "“a person who smiles”" and not target.is_share
    z = model.encode_prompts(["a person who smiles"])
    assert target.readable(model, float(target.score(model, z)[0])) == pytest.approx(1.0, abs=1e-5)
    versus = prompt_target(model, "a smile", "a frown")
    assert versus.is_share and len(versus.against) == 1


def test_targets_that_mean_nothing_are_refused():
    model, bank = tiny(RESNET), torch.eye(3, 32)
    with pytest.raises(ValueError, match="no 'joy'"):
        emotion_target(bank, ("a", "b", "c"), "joy")
    with pytest.raises(ValueError, match="twice"):
        contrast_target(bank, ("a", "b", "c"), "a", "a")
    for words in (("",), ("  \n",), ("same", "same"), ("one", "")):
        with pytest.raises(ValueError, match="prompts are"):
            prompt_target(model, *words)


# trust


@pytest.mark.slow
def test_a_smile_is_found_at_the_mouth_and_the_map_is_told_to_count(shipped):
    predictor, prediction = shipped
    target = smile(predictor)
    found = gradcam.explain(predictor.model, prediction.inputs, target)
    regions = scan_regions(prediction.scan, size=224)
    strength = {name: found.maps[regions == i].sum() for i, name in enumerate(REGIONS)}
    assert prediction.emotion == "happy"
    assert max(strength, key=strength.get) in ("mouth", "rest") and strength["mouth"] > 2 * strength["brows"]
    told = gradcam.trust(predictor.model, prediction.inputs, target, found.maps)
    assert told.word == "points at what counts" and told.gain > told.random_gain
    assert told.start == pytest.approx(found.score, abs=1e-3)
    assert len(told.deletion_curve) == len(told.random_deletion_curve) and told.sigmas >= 2


@pytest.mark.slow
def test_maps_that_know_nothing_are_told_to(shipped):
    predictor, prediction = shipped
    target = smile(predictor)
    found = gradcam.explain(predictor.model, prediction.inputs, target)

    def told(maps: np.ndarray) -> str:
        return gradcam.trust(predictor.model, prediction.inputs, target, maps, random_maps=4).word

    assert told(1 - found.maps) == "no better than chance"
    assert told(np.zeros_like(found.maps)) == "no better than chance"
    assert told(random_fields(20, 3, 112)[-1].numpy()) != "points at what counts"


@pytest.mark.slow
def test_the_best_method_comes_first(shipped):
    """The default beats plain Grad-CAM by deletion and insertion, as it did on the faces it was chosen by."""
    predictor, prediction = shipped
    gains = {}
    for method in ("integrated", "gradcam"):
        maps = gradcam.explain(predictor.model, prediction.inputs, smile(predictor), method=method).maps
        gains[method] = gradcam.trust(predictor.model, prediction.inputs, smile(predictor), maps, random_maps=2).gain
    assert gradcam.methods_for(predictor.model)[0] == "integrated"
    assert gains["integrated"] > gains["gradcam"]


def test_shuffled_weights_give_another_map(shipped):
    predictor, prediction = shipped
    twin = shuffled(predictor.model, seed=1)
    ours, theirs = predictor.model.clip.visual.state_dict(), twin.clip.visual.state_dict()
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    for name, weight in predictor.model.clip.visual.named_parameters():
        torch.testing.assert_close(weight.flatten().sort().values, theirs[name].flatten().sort().values)
    assert predictor.model.clip.visual is not twin.clip.visual
    assert gradcam.weights_matter(predictor.model, prediction.inputs, smile(predictor)) < 0.7


def test_deletion_and_insertion_tell_a_map_from_its_opposite(shipped):
    predictor, prediction = shipped
    maps = gradcam.explain(predictor.model, prediction.inputs, smile(predictor)).maps
    ask = (predictor.model, prediction.inputs, smile(predictor))
    (deletion, insertion), (opposite_deletion, opposite_insertion) = (
        deletion_insertion(*ask, one) for one in (maps, 1 - maps)
    )
    assert deletion < opposite_deletion and insertion > opposite_insertion
    assert all(0 <= share <= 1 for share in (deletion, insertion))


def test_trust_wants_a_map_for_each_view(model, views):
    with pytest.raises(ValueError, match="one map a view"):
        gradcam.trust(model, views, some_target(), np.zeros((2, 64, 64)))


# contributions and regions


def test_leaving_out_the_mouth_costs_a_smile_most(shipped):
    predictor, prediction = shipped
    regions = scan_regions(prediction.scan)
    parts = gradcam.contributions(predictor.model, prediction.inputs, smile(predictor), regions)
    falls = {name: parts.whole.score - level.score for name, level in parts.without_region.items()}
    assert max(falls, key=falls.get) == "mouth" and falls["mouth"] > 2 * falls["brows"]
    assert set(parts.without_view) == set(parts.only_view) == {"front", "left", "right"}
    classes = list(predictor.card.classes)
    assert parts.whole.value == pytest.approx(prediction.probabilities["happy"], abs=0.02)
    for name, level in parts.only_view.items():
        assert level.value == pytest.approx(prediction.view_probabilities[name][classes[0]], abs=0.05)


def test_a_view_alone_cannot_be_left_out(model, views):
    regions = np.zeros((3, 64, 64), np.int8)
    parts = gradcam.contributions(model, views, some_target(), regions, np.array([False, True, False]))
    assert parts.without_view == {} and set(parts.only_view) == {"left"}
    assert parts.only_view["left"] == parts.whole
    with pytest.raises(ValueError, match="N each"):
        gradcam.contributions(model, views, some_target(), regions[:2])


def test_landmarks_of_the_mean_face_lie_in_their_regions():
    from affectvlm.pose.landmarks import MEAN

    expected = {"eye outer": "eyes", "eye inner": "eyes", "nose tip": "nose", "subnasale": "nose"}
    expected |= {"mouth corner": "mouth", "upper lip": "mouth", "lower lip": "mouth", "nostril side": "nose"}
    for name, region in expected.items():
        point = np.array(MEAN[name])
        for side in ([1, 1, 1], [-1, 1, 1]):
            assert REGIONS[region_of(point * side)] == region, name
    assert REGIONS[region_of(np.array(MEAN["chin"]))] == "rest"
    assert REGIONS[region_of(np.array([0.0, -40.0, -120.0]))] == "rest"  # the neck behind the mouth


def test_pixels_know_where_they_are(happy_scan):
    size = 200
    for yaw in DEFAULT_YAWS:
        buffers = render_buffers(happy_scan, (yaw,), size, supersample=1)
        seen = buffers.coverage[0] > 0
        points = pixel_positions(buffers.depth[0], yaw)[seen]
        turned = (points - PIVOT_MM) @ rotation_y(yaw).T
        rows, columns = np.nonzero(seen)
        np.testing.assert_allclose(turned[:, 0], (columns + 0.5 - size / 2) * 2 * HALF_WIDTH_MM / size, atol=1e-3)
        np.testing.assert_allclose(turned[:, 1], (size / 2 - rows - 0.5) * 2 * HALF_WIDTH_MM / size, atol=1e-3)
        from scipy.spatial import cKDTree

        distance = cKDTree(happy_scan.vertices).query(points[::37])[0]
        assert np.median(distance) < 1.5 and distance.max() < 10.0  # the mesh's own spacing


def test_regions_of_photos_cover_them_and_those_of_scans_stop_at_the_face(happy_scan):
    photo, scan = gradcam.photo_regions(), scan_regions(happy_scan)
    assert photo.shape == scan.shape == (3, 112, 112)
    assert photo.min() == 0 and scan.min() == -1
    for regions in (photo, scan):
        assert all((regions[0] == i).mean() > 0.01 for i in range(len(REGIONS)))
        mirrored = (regions[0] == regions[0, :, ::-1]).mean()
        assert mirrored > 0.97  # the boxes are symmetric, and so, nearly, are faces


# back onto the mesh


def plane(z: float, half: float = 60.0, count: int = 41) -> Scan:
    x, y = np.meshgrid(np.linspace(-half, half, count), np.linspace(-half, half, count))
    index = np.arange(count * count).reshape(count, count)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    vertices = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1)
    return Scan(vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]))


def joined(*scans: Scan) -> Scan:
    starts = np.cumsum([0, *(len(scan.vertices) for scan in scans)])[:-1]
    faces = [scan.faces + start for scan, start in zip(scans, starts, strict=True)]
    return Scan(np.concatenate([scan.vertices for scan in scans]), np.concatenate(faces))


def ramp(yaw: float, scan: Scan, size: int = 224) -> np.ndarray:
    """(size, size): 0 to 1 from the canonical x = -80 to 80 mm, as view `yaw` sees the scan."""
    depth = render_buffers(scan, (yaw,), size, supersample=1).depth[0]
    return np.clip((pixel_positions(depth, yaw)[..., 0] + 80) / 160, 0, 1)


def test_what_was_seen_at_a_place_comes_back_to_it(happy_scan):
    maps = np.stack([ramp(yaw, happy_scan) for yaw in DEFAULT_YAWS])
    values = project(happy_scan, maps)
    seen = ~np.isnan(values)
    truth = np.clip((happy_scan.vertices[:, 0] + 80) / 160, 0, 1)
    assert values.dtype == np.float32 and 0.4 < seen.mean() < 0.95
    error = np.abs(values - truth)[seen]
    assert np.median(error) < 0.004 and np.quantile(error, 0.98) < 0.05


def test_what_is_hidden_gets_nothing_and_flipped_faces_change_nothing():
    scan = joined(plane(0.0), plane(-30.0, half=30.0))
    front = np.arange(len(scan.vertices)) < 41 * 41
    ones = np.ones((1, 64, 64), np.float32)
    values = project(scan, ones, yaws=(0.0,))
    assert (values[front] == 1).all() and np.isnan(values[~front]).all()
    flipped = Scan(scan.vertices, scan.faces[:, ::-1])
    np.testing.assert_array_equal(project(flipped, ones, yaws=(0.0,)), values)


def test_the_view_that_looks_more_squarely_counts_more():
    scan = plane(0.0)
    maps = np.stack([np.ones((64, 64)), np.zeros((64, 64)), np.zeros((64, 64))])
    middle = len(scan.vertices) // 2
    side = np.cos(np.deg2rad(40)) ** 2
    assert project(scan, maps)[middle] == pytest.approx(1 / (1 + 2 * side), abs=1e-4)
    assert project(scan, maps, present=np.array([True, False, False]))[middle] == 1
    assert project(scan, maps, present=np.array([False, True, True]))[middle] == 0


def test_the_left_view_fills_the_left_cheek(happy_scan):
    maps = np.zeros((3, 64, 64), np.float32)
    maps[1] = 1.0
    values = np.nan_to_num(project(happy_scan, maps))
    x = happy_scan.vertices[:, 0]
    assert values[x > 50].mean() > 10 * max(values[x < -50].mean(), 1e-3)


def test_maps_that_do_not_fit_are_refused(happy_scan):
    with pytest.raises(ValueError, match="N truth values"):
        project(happy_scan, np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match="point cloud"):
        project(Scan(np.zeros((4, 3)), np.zeros((0, 3))), np.zeros((3, 8, 8)))


def test_fifty_thousand_vertices_are_painted_in_time():
    scan = plane(0.0, count=224)
    assert len(scan.vertices) > 50_000
    maps = np.random.default_rng(0).random((3, 224, 224))
    project(scan, maps)
    times = []
    for _ in range(5):
        started = time.process_time()  # of this process alone: the machine may be busy
        project(scan, maps)
        times.append(time.process_time() - started)
    assert min(times) < 0.2


# pictures and files


def test_the_scale_gets_lighter_all_the_way_and_equals_matplotlibs():
    import matplotlib

    values = np.linspace(0, 1, 256)
    colors = pictures.scale_colors(values)
    light = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()
    assert np.abs(colors / 255 - matplotlib.colormaps["inferno"](values)[:, :3]).max() < 0.03


def test_an_overlay_lets_the_face_through_where_nothing_is_said():
    views = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    maps = np.zeros((3, 32, 32), np.float32)
    maps[1, 4:8, 4:8] = 1.0
    plain, marked = pictures.overlay(views, 0 * maps), pictures.overlay(views, maps, 1.0)
    assert (np.ptp(plain, axis=-1) == 0).all()
    np.testing.assert_array_equal(plain[maps == 0], marked[maps == 0])
    np.testing.assert_array_equal(marked[maps == 1], np.tile([252, 255, 164], (16, 1)))
    np.testing.assert_array_equal(pictures.overlay(views, maps, 0.0), plain)
    with pytest.raises(ValueError, match="opacity"):
        pictures.overlay(views, maps, 1.5)


def test_a_hot_spot_does_not_hide_the_rest_of_the_evidence():
    views = np.full((2, 40, 40, 3), 90, np.uint8)
    maps = np.zeros((2, 40, 40), np.float32)
    maps[0, 10:20, 10:20] = 0.2  # a broad place in one view ...
    maps[1, 5, 5] = 1.0  # ... and a pixel in the other, five times as strong
    painted = pictures.overlay(views, maps, 1.0)
    assert np.ptp(painted[0, 15, 15].astype(int)) > 60 and np.ptp(painted[1, 5, 5].astype(int)) > 60
    assert (np.ptp(painted[maps == 0], axis=-1) == 0).all()
    np.testing.assert_allclose(pictures.stretched(maps)[0, 15, 15], 1.0, rtol=1e-6)
    even = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(pictures.stretched(even)[500], 0.5 / (1 - pictures.BRIGHT), rtol=1e-2)
    assert not pictures.stretched(np.zeros(5)).any()  # nothing speaks for the target: nothing is lit


def test_the_grid_has_a_row_for_each_face():
    from PIL import Image

    views = np.full((3, 224, 224, 3), 90, np.uint8)
    maps = np.zeros((3, 224, 224), np.float32)
    sizes = []
    for count in (1, 4):
        rows = [pictures.GridRow(f"face {i}", "sad 90 %", views, maps) for i in range(count)]
        sizes.append(Image.open(io.BytesIO(pictures.grid_png(rows, ("front", "left", "right"), "Evidence"))).size)
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] - sizes[0][1] == 3 * (168 + 6)
    strip = Image.open(io.BytesIO(pictures.strip_png(views, maps)))
    assert strip.size == (3 * 224, 224)
    with pytest.raises(ValueError, match="no faces"):
        pictures.grid_png([], ("front",))


@pytest.mark.parametrize("kind", ["ply", "glb"])
def test_painted_meshes_are_read_back(kind):
    scan = plane(-3.0)
    values = np.linspace(0, 1, len(scan.vertices)).astype(np.float32)
    values[:100] = np.nan
    write = {"ply": gradcam.evidence_ply, "glb": gradcam.evidence_glb}[kind]
    again = read_scan(write(scan, values), f"evidence.{kind}")
    np.testing.assert_allclose(again.vertices, scan.vertices, atol=1e-2)
    np.testing.assert_array_equal(again.faces, scan.faces)
    np.testing.assert_array_equal(again.colors, gradcam.vertex_paint(values))
    assert (again.colors[:100] == pictures.PLAIN_GREY).all()


def test_the_ply_holds_the_exact_values(happy_scan):
    import trimesh

    values = np.random.default_rng(0).random(len(happy_scan.vertices)).astype(np.float32)
    mesh = trimesh.load(io.BytesIO(gradcam.evidence_ply(happy_scan, values, "für fear\nx")), "ply", process=False)
    np.testing.assert_array_equal(np.ravel(mesh.metadata["_ply_raw"]["vertex"]["data"]["evidence"]), values)
    with pytest.raises(ValueError, match="one each"):
        gradcam.evidence_ply(happy_scan, values[:-1])


def test_maps_are_kept_with_what_they_mean(model, views):
    found = gradcam.explain(model, views, some_target())
    content = np.load(io.BytesIO(gradcam.maps_npz(found, views, ("front", "left", "right"))), allow_pickle=False)
    np.testing.assert_array_equal(content["maps"], found.maps)
    np.testing.assert_array_equal(content["views"], views)
    assert content["view_names"].tolist() == ["front", "left", "right"]
    assert str(content["target"]) == "something" and float(content["score"]) == found.score


def test_all_emotions_can_be_asked_of_the_shipped_model(shipped):
    predictor, prediction = shipped
    rows = predictor.card.prompts.rows
    scores = {
        name: gradcam.explain(predictor.model, prediction.inputs, emotion_target(predictor._bank, rows, name)).score
        for name in EKMAN
    }
    assert max(scores, key=scores.get) == prediction.emotion
