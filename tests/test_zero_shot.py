"""Answers from stored features: with a checkpoint's own words the predictor's, with others what the arithmetic says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectvlm import zero_shot as module
from affectvlm.model import Card, from_config
from affectvlm.predictor import Predictor, pose_doubt
from affectvlm.prompts import PromptSet
from affectvlm.wording import Sentence, Wording
from affectvlm.zero_shot import TextFeatures, ZeroShot, similarities

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PROMPTS = PromptSet.load()


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    torch.manual_seed(5)
    model = from_config("tiny", TINY)
    card = Card.of(model, PROMPTS, "tiny", image_kind="normals", temperature=0.3, rejection_margin=0.6)
    return Predictor(model, card)


@pytest.fixture(scope="module")
def asked(tiny) -> ZeroShot:
    return ZeroShot(tiny.model, tiny.card)


@pytest.fixture(scope="module")
def face(asked, happy_views):
    return asked.features(happy_views)


@pytest.fixture(scope="module")
def happy_views(happy_scan) -> np.ndarray:
    from affectvlm.rendering import render_views

    return render_views(happy_scan, "normals", 32)


class Counted:
    """A model that notes which texts it encodes."""

    def __init__(self, model) -> None:
        self.model, self.seen = model, []

    def encode_prompts(self, texts):
        self.seen += texts
        return self.model.encode_prompts(texts)


def by_hand(model, card, views, sentences: dict[str, tuple[str, ...]], n_classes: int, mask=None) -> np.ndarray:
    """Probabilities from first principles, in float64: means, cosines, softmax, the rejected mass shared out."""
    with torch.inference_mode():
        pixels = torch.from_numpy(views.transpose(0, 3, 1, 2).copy())[None]
        each = model.encode_views(pixels)[0].numpy().astype(np.float64)
        texts = {row: model.encode_prompts(list(said)).numpy().astype(np.float64) for row, said in sentences.items()}
    mean = each[np.ones(len(each), bool) if mask is None else mask].mean(axis=0)
    rows = np.stack([part.mean(axis=0) / np.linalg.norm(part.mean(axis=0)) for part in texts.values()])
    logits = float(model.logit_scale) * rows @ (mean / np.linalg.norm(mean))
    logits[n_classes:] += card.rejection_margin
    logits /= card.temperature
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    return shares[:n_classes] + shares[n_classes:].sum() / n_classes


def test_with_its_own_words_it_answers_as_the_predictor(predictor, happy_scan):
    prediction = predictor.predict(happy_scan)
    asked = ZeroShot(predictor.model, predictor.card)
    face = asked.features(prediction.inputs)
    answer = asked.answer(face, predictor.card.prompts, doubt=pose_doubt(prediction.pose, (0, 0, 0)))
    assert answer.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)
    assert answer.rejection == pytest.approx(prediction.rejection, abs=1e-6)
    assert (answer.emotion, answer.certainty) == (prediction.emotion, prediction.certainty)
    for place, name in enumerate(prediction.view_names):
        alone = asked.answer(face.only(place), predictor.card.prompts).probabilities
        assert alone == pytest.approx(prediction.view_probabilities[name], abs=1e-6)


def test_photos_with_a_missing_view_too(predictor, happy_photos):
    prediction = predictor.predict_photos(front=happy_photos["front"], right=happy_photos["right"])
    asked = ZeroShot(predictor.model, predictor.card)
    face = asked.features(prediction.inputs, np.array([True, False, True]))
    answer = asked.answer(face, predictor.card.prompts)
    assert answer.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)


def test_a_doubtful_pose_is_held_back_as_by_the_predictor(tiny, asked, happy_scan, monkeypatch):
    monkeypatch.setattr("affectvlm.predictor.DOUBTFUL_POSE", 1.5)  # everything is doubtful
    prediction = tiny.predict(happy_scan)
    doubt = pose_doubt(prediction.pose, (0, 0, 0))
    assert doubt > 0.3 and pose_doubt(prediction.pose, (0, 1, 0)) == 0
    answer = asked.answer(asked.features(prediction.inputs), PROMPTS, doubt=doubt)
    assert answer.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)
    assert answer.rejection == pytest.approx(prediction.rejection, abs=1e-6)


def test_other_words_give_what_the_formula_says(tiny, asked, face, happy_views):
    wording = Wording.of(PROMPTS).with_class("contempt").with_sentences("happy", [Sentence("a grin"), Sentence("glee")])
    wording = wording.with_sentences("neutral", [])
    prompts = wording.prompt_set()
    answer = asked.answer(face, prompts, asked.text_features())
    said = {row: wording.used(row) for row in prompts.rows}
    wanted = by_hand(tiny.model, tiny.card, happy_views, said, n_classes=7)
    assert list(answer.probabilities) == [*PROMPTS.classes, "contempt"] and list(answer.rejection) == ["no face"]
    assert list(answer.probabilities.values()) == pytest.approx(wanted, abs=1e-5)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert answer.confidence == max(answer.probabilities.values()) == answer.probabilities[answer.emotion]


def test_the_reference_agrees_with_itself_on_the_own_words(tiny, asked, face, happy_views):
    said = {row: PROMPTS.bank_prompts(row) for row in PROMPTS.rows}
    mask = np.array([False, True, True])
    part = asked.features(happy_views, mask)
    wanted = by_hand(tiny.model, tiny.card, happy_views, said, 6, mask)
    assert list(asked.answer(part, PROMPTS).probabilities.values()) == pytest.approx(wanted, abs=1e-5)


def test_a_sentence_is_encoded_once(tiny):
    counted = Counted(tiny.model)
    texts = TextFeatures(counted, {"known": np.ones(32, np.float32)})
    first = texts(["a", "b", "a", "known"])
    again = texts(["b", "c"])
    assert counted.seen == ["a", "b", "c"] and len(texts) == 3
    assert np.array_equal(first[0], first[2]) and np.array_equal(first[1], again[0]) and (first[3] == 1).all()
    with torch.inference_mode():
        wanted = tiny.model.encode_prompts(["a", "b", "c"]).numpy()
    assert np.allclose(np.stack([first[0], again[0], again[1]]), wanted, atol=1e-6)
    assert np.allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-6)


def test_the_longest_unused_is_forgotten(tiny, monkeypatch):
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    counted = Counted(tiny.model)
    texts = TextFeatures(counted)
    for asked_for in (["a", "b"], ["a"], ["c"], ["a"], ["b"]):
        texts(asked_for)
    assert counted.seen == ["a", "b", "c", "b"] and len(texts) == 2


def test_a_session_does_not_encode_the_checkpoints_own_sentences_again(asked, face):
    mine = asked.text_features()
    asked.answer(face, PROMPTS, mine)
    assert len(mine) == 0


def test_similarities_are_cosines(asked, face):
    texts = asked.texts(["a happy face", "an object"])
    found = similarities(face.views, texts)
    assert found.shape == (3, 2) and (np.abs(found) <= 1).all()
    for view, row in zip(face.views, found, strict=True):
        for text, cosine in zip(texts, row, strict=True):
            wanted = view @ text / np.linalg.norm(view) / np.linalg.norm(text)
            assert cosine == pytest.approx(wanted, abs=1e-6)
    assert similarities(face.fused, texts) == pytest.approx(face.fused @ texts.T, abs=1e-6)


def test_many_faces_at_once_are_the_same_faces(asked, face, happy_views):
    both = asked.fused_features(np.stack([happy_views, happy_views[:, ::-1]]))
    assert np.allclose(both[0], face.fused, atol=1e-5) and not np.allclose(both[1], face.fused, atol=1e-3)


def test_log_probabilities_are_the_rows_own(asked, face):
    bank = asked.bank(PROMPTS)
    logs = asked.log_probabilities(face.fused[None], bank, 6)
    assert np.exp(logs).sum() == pytest.approx(1, abs=1e-12)
    shares, rejected = asked.shares(face.fused[None], bank, 6)
    assert np.exp(logs[0, 6:]) == pytest.approx(rejected[0], abs=1e-5)
    assert np.exp(logs[0, :6]) + rejected.sum() / 6 == pytest.approx(shares[0], abs=1e-5)


def test_a_text_too_long_for_the_tower_is_known(tiny):
    assert tiny.model.reads_whole("a happy face")
    assert tiny.model.reads_whole(" ".join(["face"] * 30)) and not tiny.model.reads_whole(" ".join(["face"] * 31))
    with torch.inference_mode():
        cut = tiny.model.encode_prompts([" ".join(["face"] * 31), " ".join(["face"] * 30 + ["sad"])])
        whole = tiny.model.encode_prompts([" ".join(["face"] * 30), " ".join(["face"] * 29 + ["sad"])])
    assert torch.equal(cut[0], cut[1]) and not torch.allclose(whole[0], whole[1], atol=1e-4)
