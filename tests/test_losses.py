"""The supervised loss against slow literal versions, and its behaviour at the edges."""

import math

import pytest
import torch
import torch.nn.functional as F

from affectvlm.losses import AffectVLMLoss

K = 3
SCALE = 7.0


def batch(labels, n_views=3, dim=5, seed=0):
    """z and text (B, N, D) float64 of unit length that keep their gradients, and labels (B,)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(labels), n_views, dim)
    # an offset makes all cosines large, so that hinges of both signs occur
    raw = [(torch.randn(shape, generator=generator).double() + 0.6).requires_grad_() for _ in range(2)]
    z, text = (F.normalize(value, dim=-1) for value in raw)
    z.raw, text.raw = raw  # gradients count along the sphere only: they are compared before the normalisation
    return z, torch.tensor(labels), text


def mean(terms):
    """Weighted mean of (value, weight) pairs; 0 for none."""
    total = sum(weight for _, weight in terms)
    return sum(value * weight for value, weight in terms) / total if total else torch.zeros(())


def literal(z, labels, text, margin, mask, weight, bears, words):
    """Every term as a loop over its definition. bears: a set of labels a sample; words: the label of each prompt."""
    items = [(b, v) for b in range(len(z)) for v in range(z.shape[1]) if mask[b, v]]
    faces = [(b, v) for b, v in items if labels[b] < K]
    same, different, triplet = [], [], []
    for a in faces:
        for p in faces:
            if a == p:
                continue
            cosine, w = z[a] @ z[p], weight[a[0]] * weight[p[0]]
            if not bears[a[0]] & bears[p[0]]:
                different.append((F.relu(cosine - margin), w))
                continue
            same.append((1 - cosine, w))
            for n in faces:
                if a[1] != p[1] and not bears[n[0]] & bears[a[0]]:
                    gap = (z[a] - z[p]).square().sum() - (z[a] - z[n]).square().sum()
                    triplet.append((F.relu(gap + margin), w * weight[n[0]]))
    means = {b: F.normalize(sum(z[b, v] for c, v in items if c == b), dim=0) for b in sorted({b for b, _ in items})}
    prompts = [(text[i], {words[i[0]][i[1]]}, weight[i[0]]) for i in items]
    views = [(z[i], bears[i[0]], weight[i[0]]) for i in items]
    samples = [(feature, bears[b], weight[b]) for b, feature in means.items()]
    return {
        "same": mean(same),
        "different": mean(different),
        "triplet": mean(triplet),
        "align_views": (literal_toward(views, prompts) + literal_toward(prompts, views)) / 2,
        "align_mean": (literal_toward(samples, prompts) + literal_toward(prompts, samples)) / 2,
        "active_different": mean([(float(value > 0), w) for value, w in different]),
        "active_triplet": mean([(float(value > 0), w) for value, w in triplet]),
    }


def literal_toward(rows, columns):
    terms = []
    for feature, own, weight in rows:
        shares = torch.stack([SCALE * feature @ other for other, _, _ in columns]).softmax(0)
        positives = [share for share, (_, other, _) in zip(shares, columns, strict=True) if other & own]
        target = 1 / len(positives)
        terms.append((sum(target * (math.log(target) - share.log()) for share in positives), weight))
    return mean(terms)


SEVERAL = [{0, 1}, {1}, {1, 2}, {0}, {2, 0}, {4}], [[1, 0, 1], [1] * 3, [2, 2, 1], [0] * 3, [2, 0, 0], [4] * 3]
"""Every label of six samples, and the label of each view's prompt."""

CASES = {
    "emotions and rejection rows": ([0, 1, 1, 2, 3, 4], None, None),
    "weights": ([0, 1, 1, 2, 2, 3], None, [1.0, 0.25, 0.5, 1.0, 0.0, 0.7]),
    "missing views": ([0, 0, 1, 2], [[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]], [1.0, 0.5, 1.0, 0.3]),
    "one class": ([1, 1, 1], None, None),
    "one sample": ([2], None, None),
    "rejection rows only": ([3, 4, 3], None, None),
    "several labels": (SEVERAL, None, None),
    "several labels, weights and missing views": (
        SEVERAL,
        [[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 1]],
        [1.0, 0.5, 0.4, 1.0, 0.3, 0.7],
    ),
}


@pytest.mark.parametrize("labels, mask, weight", CASES.values(), ids=CASES.keys())
def test_values_and_gradients_are_those_of_the_literal_loops(labels, mask, weight):
    more = {}
    if labels is not SEVERAL:
        sets, words = [{label} for label in labels], [[label] * 3 for label in labels]
    else:
        sets, words = SEVERAL
        labels = [row[0] for row in words]
        hot = torch.tensor([[row in own for row in range(K + 2)] for own in sets])
        more = {"bears": hot, "words": torch.tensor(words)}
    z, labels, text = batch(labels)
    mask = torch.ones(z.shape[:2], dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    weight = torch.ones(len(labels)).double() if weight is None else torch.tensor(weight).double()
    loss = AffectVLMLoss(K, margin=0.3, contrastive=0.5, triplet=2.0, alignment=0.8).double()
    got = loss(z, labels, text, SCALE, mask, weight, **more)
    want = literal(z, labels, text, loss.margin, mask, weight, sets, words)
    for name, value in want.items():
        torch.testing.assert_close(got[name], torch.as_tensor(value).double(), msg=lambda m, n=name: f"{n}: {m}")
    total = 0.5 * (want["same"] + want["different"]) + 2.0 * want["triplet"]
    total = total + 0.8 * (want["align_views"] + want["align_mean"]) / 2
    torch.testing.assert_close(got["loss"], total)
    inputs = (z.raw, text.raw, loss.raw_margin)
    for grad, reference in zip(
        torch.autograd.grad(got["loss"], inputs, retain_graph=True),
        torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(grad, reference)


def test_the_literal_cases_have_hinges_on_both_sides():
    z, labels, text = batch([0, 1, 1, 2, 3, 4])
    got = AffectVLMLoss(K, margin=0.3)(z, labels, text, SCALE)
    assert 0.1 < got["active_triplet"] < 0.9 and 0.1 < got["active_different"] < 0.95


def test_order_of_samples_and_of_views_does_not_matter():
    z, labels, text = batch([0, 1, 1, 2, 3, 0])
    loss = AffectVLMLoss(K).double()
    samples, views = torch.tensor([4, 2, 0, 5, 1, 3]), torch.tensor([2, 0, 1])
    a = loss(z, labels, text, SCALE)
    b = loss(z[samples][:, views], labels[samples], text[samples][:, views], SCALE)
    for name in a:
        torch.testing.assert_close(a[name], b[name])


@pytest.mark.parametrize("labels, n_views", [([1], 1), ([1], 3), ([0, 0, 0], 3), ([3, 4], 1), ([0, 1], 1)])
def test_terms_without_pairs_are_zero_and_gradients_finite(labels, n_views):
    z, labels, text = batch(labels, n_views)
    loss = AffectVLMLoss(K).double()
    got = loss(z, labels, text, SCALE)
    got["loss"].backward()
    assert all(torch.isfinite(value) for value in got.values())
    assert all(torch.isfinite(value.grad).all() for value in (z.raw, text.raw, loss.raw_margin))
    assert got["triplet"] == 0


def test_absent_views_change_nothing_even_when_nan():
    z, labels, text = batch([0, 1, 3])
    mask = torch.tensor([[True, True, False], [True, False, True], [False, True, True]])
    with torch.no_grad():
        clean = AffectVLMLoss(K)(z, labels, text, SCALE, mask)
    dirty = z.detach().masked_fill(~mask[..., None], math.nan).requires_grad_()
    got = AffectVLMLoss(K)(dirty, labels, text, SCALE, mask)
    got["loss"].backward()
    for name in clean:
        torch.testing.assert_close(got[name].detach(), clean[name])
    assert torch.isfinite(dirty.grad[mask]).all() and (dirty.grad[~mask] == 0).all()


def test_perfect_features_cost_nothing():
    corners = torch.eye(4).double()
    labels = torch.tensor([0, 1, 2, 3, 0])
    z = corners[labels][:, None].expand(-1, 3, -1)
    got = AffectVLMLoss(K)(z, labels, z, 100.0)
    assert got["loss"].item() == pytest.approx(0.0, abs=1e-9)
    assert got["active_triplet"] == 0 and got["active_different"] == 0


@pytest.mark.parametrize("push", [1e3, -1e3])
def test_margin_stays_in_its_interval_under_any_optimiser(push):
    loss = AffectVLMLoss(K, margin_range=(0.1, 0.5))
    assert loss.margin.item() == pytest.approx(0.2)
    optimiser = torch.optim.SGD(loss.parameters(), lr=1e6)
    (push * loss.margin).backward()
    optimiser.step()
    assert 0.1 - 1e-6 <= loss.margin <= 0.5 + 1e-6
    assert loss.margin < 0.2 if push > 0 else loss.margin > 0.2


def test_margin_follows_the_hinge_that_is_active():
    z, labels, text = batch([0, 1, 2])
    loss = AffectVLMLoss(K).double()
    got = loss(z, labels, text, SCALE)
    (slope,) = torch.autograd.grad(got["loss"], loss.raw_margin, retain_graph=True)
    (raw,) = torch.autograd.grad(loss.margin, loss.raw_margin)
    torch.testing.assert_close(slope / raw, got["active_triplet"] - got["active_different"])


def test_half_precision_features_are_summed_in_full_precision():
    z, labels, text = batch([0, 1, 1, 2, 3, 4])
    loss = AffectVLMLoss(K)
    half = [value.detach().bfloat16() for value in (z, text)]
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(half[0], labels, half[1], SCALE)
    high = loss(half[0].double(), labels, half[1].double(), SCALE)
    assert all(value.dtype == torch.float32 for name, value in low.items())
    for name in low:
        torch.testing.assert_close(low[name].double(), high[name].double(), rtol=1e-5, atol=1e-6)


def test_a_large_batch_needs_memory_by_pairs_not_by_triplets():
    # all triplets of 1536 views would be 3.6e9 numbers (14 GB in float32)
    labels = (torch.arange(512) % K).tolist()
    z, labels, text = batch(labels, dim=8)
    got = AffectVLMLoss(K)(z.float(), labels, text.float(), SCALE)
    got["loss"].backward()
    assert torch.isfinite(got["loss"]) and torch.isfinite(z.raw.grad).all()


def test_training_on_it_separates_the_emotions():
    torch.manual_seed(0)
    labels = torch.arange(12) % 4
    z, text = (torch.randn(12, 3, 8).requires_grad_() for _ in range(2))
    loss = AffectVLMLoss(K)
    optimiser = torch.optim.Adam([{"params": [z, text], "lr": 0.1}, {"params": loss.parameters(), "lr": 0.01}])
    for _ in range(150):
        parts = loss(F.normalize(z, dim=-1), labels, F.normalize(text, dim=-1), 10.0)
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
    bank = torch.stack([F.normalize(text, dim=-1)[labels == k].mean((0, 1)) for k in range(4)])
    answer = (F.normalize(z, dim=-1).mean(1) @ F.normalize(bank, dim=-1).T).argmax(1)
    assert (answer == labels).all() and parts["same"] < 0.1 and parts["triplet"] < 0.05


@pytest.mark.parametrize(
    "change, words",
    [
        ({"z": torch.zeros(2, 3)}, "views"),
        ({"text": torch.zeros(2, 2, 5)}, "prompts"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "labels"),
        ({"labels": torch.zeros(2)}, "labels"),
        ({"mask": torch.ones(2, 3)}, "mask"),
        ({"weight": torch.ones(2, 3)}, "weight"),
    ],
)
def test_wrong_shapes_are_said(change, words):
    z, labels, text = batch([0, 1])
    inputs = {"z": z, "labels": labels, "text": text, "logit_scale": SCALE} | change
    with pytest.raises(ValueError, match=words):
        AffectVLMLoss(K)(**inputs)


@pytest.mark.parametrize("settings", [{"margin": 0.6}, {"margin": 0.01}, {"triplet": -1.0}])
def test_wrong_settings_are_said(settings):
    with pytest.raises(ValueError):
        AffectVLMLoss(K, **settings)


@pytest.mark.parametrize("more, said", [
    ({"bears": torch.ones(3, 2, dtype=torch.bool)}, "bears"),
    ({"bears": torch.ones(2, 5)}, "bears"),
    ({"words": torch.zeros(3, 2, dtype=torch.long)}, "words"),
    ({"words": torch.full((3, 3), 9)}, "words"),
])  # fmt: skip
def test_labels_that_do_not_fit_are_said(more, said):
    z, labels, text = batch([0, 1, 2])
    with pytest.raises(ValueError, match=said):
        AffectVLMLoss(K)(z, labels, text, SCALE, **more)
