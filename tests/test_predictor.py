"""The facade, with a tiny model that was never trained: every property here must hold whatever the weights."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

from affectvlm.emotions import EKMAN
from affectvlm.model import Card, CheckpointError, from_config, save_checkpoint
from affectvlm.photos import PhotoError, prepare_photos
from affectvlm.predictor import MAX_FRAMES, Prediction, Predictor, certainty_word
from affectvlm.prompts import PromptSet
from affectvlm.scan import Scan, ScanError
from affectvlm.synthesis.objects import random_object

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    torch.manual_seed(3)
    model = from_config("tiny", TINY)
    card = Card.of(model, PromptSet.load(), "tiny", image_kind="normals", half_width=80.0, temperature=0.7,
                   rejection_margin=0.9)  # fmt: skip
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(folder, model, card, half=False)
    return folder


@pytest.fixture(scope="module")
def tiny(tiny_folder) -> Predictor:
    return Predictor.from_checkpoint(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def answer(tiny, happy_scan) -> Prediction:
    return tiny.predict(happy_scan)


def same(first: Prediction, second: Prediction) -> bool:
    """Equal to the last bit in everything but the time it took."""
    a, b = ({k: v for k, v in p.to_dict().items() if k != "timings_ms"} for p in (first, second))
    return a == b and np.array_equal(first.views, second.views) and np.array_equal(first.inputs, second.inputs)


def test_a_scan_is_answered_in_full(answer):
    assert tuple(answer.probabilities) == EKMAN
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert answer.probabilities[answer.emotion] == answer.confidence == max(answer.probabilities.values())
    assert list(answer.view_probabilities) == ["front", "left", "right"]
    for shares in answer.view_probabilities.values():
        assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert set(answer.rejection) == {"neutral", "no face"} and 0 < sum(answer.rejection.values()) < 1
    assert answer.views.shape == answer.inputs.shape == (3, 224, 224, 3) and answer.views.dtype == np.uint8
    assert answer.kind == "scan" and answer.pose.certainty > 0.5 and isinstance(answer.scan, Scan)
    assert list(answer.timings_ms) == ["read", "pose", "render", "model", "total"]
    assert sum(answer.timings_ms.values()) <= 2 * answer.timings_ms["total"] + 1e-6


def test_a_prediction_cannot_be_changed(answer):
    for field in fields(answer):
        with pytest.raises(FrozenInstanceError):
            setattr(answer, field.name, None)
    for pictures in (answer.views, answer.inputs):
        with pytest.raises(ValueError, match="read-only"):
            pictures[0, 0, 0] = 0


def test_its_dict_survives_json(answer):
    plain = answer.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert set(plain["pose"]) == {"yaw", "pitch", "roll", "certainty"}


def test_a_path_bytes_and_the_scan_itself_give_the_same(tiny, happy_ply, tmp_path):
    file = tmp_path / "face.ply"
    file.write_bytes(happy_ply)
    from affectvlm.scan_io import read_scan

    first = tiny.predict(file)
    for source in (str(file), (happy_ply, "face.ply"), read_scan(file)):
        assert same(first, tiny.predict(source))


def test_another_load_of_the_checkpoint_gives_the_same(tiny_folder, answer, happy_scan):
    assert same(answer, Predictor.from_checkpoint(tiny_folder).predict(happy_scan))


def test_eight_threads_get_what_one_gets(tiny, happy_scan, happy_photos, answer):
    photos = tiny.predict_photos(**happy_photos)
    with ThreadPoolExecutor(8) as pool:
        scans = [pool.submit(tiny.predict, happy_scan) for _ in range(8)]
        others = [pool.submit(tiny.predict_photos, **happy_photos) for _ in range(8)]
        assert all(same(answer, job.result()) for job in scans)
        assert all(same(photos, job.result()) for job in others)


def test_the_views_are_what_the_model_was_asked(tiny, answer):
    """The rule of the module's text, worked out again from the logits."""
    with torch.inference_mode():
        features = tiny.model(torch.from_numpy(answer.inputs.transpose(0, 3, 1, 2).copy())[None])
        logits = tiny.model.logits(features, tiny.model.text_bank(tiny.card.prompts))[0].double()
    logits = (logits + torch.tensor([0.0] * 6 + [0.9] * 2)) / 0.7
    rejected = torch.softmax(logits, 0)[6:].sum()
    expected = (1 - rejected) * torch.softmax(logits[:6], 0) + rejected / 6
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert list(answer.rejection.values()) == pytest.approx(torch.softmax(logits, 0)[6:].tolist(), abs=1e-6)


def test_what_is_no_face_gets_a_flat_answer_and_a_warning(tiny):
    answer = tiny.predict(random_object(np.random.default_rng(5)))
    assert answer.rejection["no face"] > 0.5
    assert max(answer.probabilities.values()) - min(answer.probabilities.values()) < 0.5
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert any("doubtful" in warning for warning in answer.warnings)
    assert answer.certainty == "not sure"


def test_a_correction_turns_the_face(tiny, answer, happy_scan):
    turned = tiny.predict(happy_scan, correction=(30, 0, 0))
    assert turned.pose.yaw == pytest.approx(answer.pose.yaw - 30, abs=1)
    assert not np.array_equal(turned.views, answer.views)
    with pytest.raises(ValueError, match="yaw, pitch and roll"):
        tiny.predict(happy_scan, correction=(30, 0))


def test_photos_by_name_prepared_or_as_arguments_are_one(tiny, happy_photos):
    answer = tiny.predict_photos(**happy_photos)
    assert answer.kind == "photos" and answer.pose is None and answer.scan is None
    assert list(answer.view_probabilities) == ["front", "left", "right"]
    assert same(answer, tiny.predict(happy_photos))
    assert same(answer, tiny.predict(prepare_photos(**happy_photos)))


def test_three_pictures_in_a_row_are_front_left_and_right(tiny, happy_photos, happy_scan, tmp_path):
    from PIL import Image

    answer = tiny.predict(happy_photos)
    for role, content in happy_photos.items():
        (tmp_path / f"{role}.PNG").write_bytes(content)
    files = [tmp_path / f"{role}.PNG" for role in ("front", "left", "right")]
    assert same(answer, tiny.predict(files)) and same(answer, tiny.predict(tuple(map(str, files))))
    pictures = [Image.open(file).convert("RGB") for file in files]
    assert same(answer, tiny.predict(pictures)) and same(answer, tiny.predict([*map(np.asarray, pictures)]))
    alone = tiny.predict([files[0], None, None])
    assert same(alone, tiny.predict_photos(front=files[0])) and list(alone.view_probabilities) == ["front"]
    assert tiny.predict([happy_scan] * 3).kind == "sequence"  # three scans stay frames
    for mixed in ([files[0], happy_scan, None], [None] * 3):
        with pytest.raises(ValueError, match="front, left and right photo"):
            tiny.predict(mixed)


def test_a_missing_photo_is_left_out(tiny, happy_photos):
    front = tiny.predict_photos(front=happy_photos["front"])
    assert list(front.view_probabilities) == ["front"]
    assert list(front.probabilities.values()) == pytest.approx(
        list(front.view_probabilities["front"].values()), abs=1e-6
    )
    assert any("left and right" in warning for warning in front.warnings)


def test_a_sequence_is_the_mean_weighted_by_expressiveness(tiny, happy_scan):
    from affectvlm.ui.engine import sample_scan

    frames = [happy_scan, sample_scan("surprise"), happy_scan]
    answer = tiny.predict(frames)
    each = [tiny.predict(frame) for frame in frames]
    weights = np.array([1 - sum(one.rejection.values()) for one in each])
    expected = weights @ [list(one.probabilities.values()) for one in each] / weights.sum()
    # the pose of the frames between those that are searched is followed: nearly the same, not the same
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=5e-3)
    assert answer.kind == "sequence"
    assert np.allclose(answer.curve.raw, [list(one.probabilities.values()) for one in each], rtol=0, atol=0.02)
    own = np.average(answer.curve.raw, axis=0, weights=answer.curve.expressiveness)
    assert list(answer.probabilities.values()) == pytest.approx(own.tolist(), abs=1e-9)
    assert np.allclose(answer.curve.expressiveness, weights, rtol=0, atol=0.02)
    assert answer.curve.emotion == answer.emotion
    assert answer.dynamic_images.shape == answer.views.shape and answer.dynamic_images.dtype == np.uint8
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=False)) == answer.to_dict()
    peak = each[int(answer.curve.expressiveness.argmax())].views.astype(int)
    assert np.abs(answer.views - peak).mean() < 3


def test_a_model_of_motion_reads_dynamic_images_alone(tiny, happy_scan):
    from dataclasses import replace

    moving = Predictor(tiny.model, replace(tiny.card, temporal=True))
    answer = moving.predict([happy_scan, happy_scan])
    assert answer.kind == "sequence" and answer.curve is None
    assert np.array_equal(answer.inputs, answer.dynamic_images)
    np.testing.assert_allclose(list(answer.probabilities.values()), moving._ask(answer.dynamic_images).classes)
    for single in (happy_scan, {"front": np.zeros((64, 64, 3), np.uint8)}):
        with pytest.raises(ValueError, match="a sequence of scans is needed"):
            moving.predict(single)


def test_a_long_sequence_is_sampled(tiny, answer, happy_scan, monkeypatch):
    from affectvlm.pose import FrontalScan
    from affectvlm.sequences import streaming

    posed, drawn = [], []

    def find(chosen, read, refuse):
        posed.extend(read(frame) for frame in chosen)
        return dict.fromkeys(map(int, chosen), answer.pose)

    monkeypatch.setattr(streaming, "find_poses", find)
    monkeypatch.setattr(
        streaming, "frontalize", lambda scan, correction, pose: drawn.append(scan) or FrontalScan(answer.scan, pose)
    )
    frames = [Scan(np.full((3, 3), i, np.float32), np.zeros((0, 3))) for i in range(500)]
    sampled = tiny.predict(frames)
    for seen in (posed, drawn):
        assert len(seen) == MAX_FRAMES and seen[0] is frames[0] and seen[-1] is frames[-1]
    assert any("32 of the 500 frames" in warning for warning in sampled.warnings)
    assert set(np.diff(sampled.curve.frames)) == {16, 17}


@pytest.mark.parametrize("nothing", [None, 3, [], [1, 2], {"top": b""}, b"bytes without a name"])
def test_anything_else_is_refused_in_words(tiny, nothing):
    with pytest.raises(ValueError, match="needed"):
        tiny.predict(nothing)


def test_bad_files_end_in_their_own_errors(tiny):
    with pytest.raises(ScanError):
        tiny.predict((b"no mesh", "face.ply"))
    with pytest.raises(PhotoError):
        tiny.predict_photos(front=b"no picture")
    with pytest.raises(PhotoError):
        tiny.predict_photos()
    with pytest.raises(CheckpointError):
        Predictor.from_checkpoint("no/such/folder")


def test_certainty_has_three_words():
    assert [certainty_word(p) for p in (1, 0.75, 0.74, 0.45, 0.44, 1 / 6)] == [
        "sure", "sure", "leaning", "leaning", "not sure", "not sure",
    ]  # fmt: skip
