"""The losses without labels: against the equations as loops, closed-form gradients, and behaviour at the edges."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affectvlm.losses import (
    MifarLoss,
    MultiviewVLMLoss,
    SmileVLMLoss,
    barlow_twins,
    contrastive,
    cross_correlation,
    effective_rank,
)
from affectvlm.losses.multiview import negative_pairs, positive_pairs

TAU = 0.2


def unit(*shape, seed=0, offset=0.4):
    """Float64 features of unit length, and the leaf they are made of: gradients count along the sphere only."""
    raw = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double() + offset
    raw.requires_grad_()
    return F.normalize(raw, dim=-1), raw


def sim(a, b):
    return (a @ b) / (a.norm() * b.norm())


def image_to_text(v, t, tau=TAU, others=lambda i, j: True):
    """Eq. 1, term by term; `others` says which j belong into the sum of i."""
    n = len(v)
    total = 0.0
    for i in range(n):
        bottom = sum(torch.exp(sim(v[i], t[j]) / tau) for j in range(n) if others(i, j))
        total = total - torch.log(torch.exp(sim(v[i], t[i]) / tau) / bottom)
    return total / n


def text_to_image(v, t, tau=TAU, others=lambda i, j: True):
    """Eq. 2."""
    return image_to_text(t, v, tau, others)


def test_the_contrastive_term_is_eq_1_to_3():
    (v, raw_v), (t, raw_t) = unit(5, 4), unit(5, 4, seed=1)
    want = (image_to_text(v, t) + text_to_image(v, t)) / 2
    got = contrastive(v, t, 1 / TAU)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, (raw_v, raw_t), retain_graph=True),
                    torch.autograd.grad(want, (raw_v, raw_t)), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)


def slope(first, second, tau=TAU):
    """d s / d first, with s = sim(first, second) / tau. The paper prints it for a second of unit length alone."""
    n = first.norm()
    return (second / (n * second.norm()) - (first @ second) * first / (n**3 * second.norm())) / tau


def closed_form(v, t, tau=TAU):
    """Gradients of Eq. 1 and 2 by all of v and t, as in Eq. 12 and 14.

    Printed there: a sum over i in the gradient by one v_i, which only the i-th term of Eq. 1 holds; and only one of
    the two gradients of each loss. In Eq. 1 t_j stands in every term's denominator, as v_j does in Eq. 2.
    """
    n = len(v)
    s = torch.stack([torch.stack([sim(v[i], t[j]) / tau for j in range(n)]) for i in range(n)])
    p, q = s.softmax(dim=1), s.softmax(dim=0)  # of text j for image i; of image i for text j
    by_v, by_t = {"i2t": [], "t2i": []}, {"i2t": [], "t2i": []}
    for i in range(n):
        by_v["i2t"].append(-(slope(v[i], t[i]) - sum(p[i, j] * slope(v[i], t[j]) for j in range(n))) / n)
        by_t["t2i"].append(-(slope(t[i], v[i]) - sum(q[j, i] * slope(t[i], v[j]) for j in range(n))) / n)
        by_t["i2t"].append(-(slope(t[i], v[i]) - sum(p[j, i] * slope(t[i], v[j]) for j in range(n))) / n)
        by_v["t2i"].append(-(slope(v[i], t[i]) - sum(q[i, j] * slope(v[i], t[j]) for j in range(n))) / n)
    return [{name: torch.stack(parts) for name, parts in found.items()} for found in (by_v, by_t)]


def test_autograd_gives_the_closed_forms_of_eq_11_to_14():
    """For embeddings of any length: what Eq. 12 and 14 call for goes through the norms."""
    generator = torch.Generator().manual_seed(3)
    v, t = (
        (torch.randn(4, 3, generator=generator).double() * 2).requires_grad_(),
        torch.randn(4, 3, generator=generator).double().requires_grad_(),
    )
    by_v, by_t = closed_form(v, t)
    for name, loss in (("i2t", image_to_text(v, t)), ("t2i", text_to_image(v, t))):
        got = torch.autograd.grad(loss, (v, t))
        torch.testing.assert_close(got[0], by_v[name])
        torch.testing.assert_close(got[1], by_t[name])
    both = contrastive(F.normalize(v, dim=1), F.normalize(t, dim=1), 1 / TAU)
    for got, parts in zip(torch.autograd.grad(both, (v, t)), (by_v, by_t), strict=True):
        torch.testing.assert_close(got, (parts["i2t"] + parts["t2i"]) / 2)  # Eq. 15: the average of both


def test_the_signs_as_printed_would_go_the_other_way():
    """A step against the gradient brings an image and its text together; Eq. 8 as printed pulls negatives together."""
    v, t = unit(4, 3)[0].detach(), unit(4, 3, seed=1)[0].detach()
    by_v, _ = closed_form(v, t)
    stepped = F.normalize(v - 0.05 * by_v["i2t"], dim=1)
    assert image_to_text(stepped, t) < image_to_text(v, t)
    near, far = torch.tensor(0.9).double(), torch.tensor(-0.9).double()
    printed = [torch.log(1 - torch.sigmoid(cosine)) for cosine in (near, far)]
    assert printed[0] < printed[1]  # minimised where negatives are near: wrong
    ours = [negative_pairs(F.normalize(torch.tensor([[[1.0, 0.0]], [[c, math.sqrt(1 - c * c)]]]).double(), dim=-1),
                           torch.tensor([0, 1]), 1.0) for c in (0.9, -0.9)]  # fmt: skip
    assert ours[0] > ours[1]
    torch.testing.assert_close(ours[0], -printed[0])


def literal(z, text, rows, scale, false_negatives):
    """Eq. 4, 6 and 8 and the contrastive term over views, as loops."""
    samples, views = range(len(z)), range(z.shape[1])
    known = [i for i in samples if rows[i] >= 0]
    nothing = torch.zeros(()).double()

    def others(i, j):
        return false_negatives or i == j or rows[known[i]] != rows[known[j]]

    per_view = []
    for k in views if known else ():
        v, t = [z[i, k] for i in known], [text[i] for i in known]
        per_view.append((image_to_text(v, t, others=others) + text_to_image(v, t, others=others)) / 2)
    positive = [
        -torch.log(torch.sigmoid(scale * sim(z[i, a], z[i, b]))) for i in samples for a in views for b in views if a < b
    ]
    negative = [
        -torch.log(1 - torch.sigmoid(scale * sim(z[i, k], z[j, m])))
        for i in known for j in known if rows[i] != rows[j] for k in views for m in views
    ]  # fmt: skip
    far = [(sum(z[i, k] for k in views) / len(views) - text[i]).square().sum().sqrt() for i in known]
    return {
        "contrastive": sum(per_view) / len(per_view) if known else nothing,
        "multiview": sum(far) / len(far) if known else nothing,
        "positive": sum(positive) / len(positive),
        "negative": sum(negative) / len(negative) if negative else nothing,
    }


CASES = {"some without a label": [0, 2, -1, 1, 2, 0], "all labelled": [0, 1, 2, 3, 0, 1], "one class": [1, 1, -1, 1],
         "one labelled": [-1, 2, -1], "none labelled": [-1, -1]}  # fmt: skip


@pytest.mark.parametrize("false_negatives", [False, True])
@pytest.mark.parametrize("rows", CASES.values(), ids=CASES.keys())
def test_multiviewvlm_is_its_equations(rows, false_negatives):
    (z, raw_z), (text, raw_t) = unit(len(rows), 3, 5), unit(len(rows), 5, seed=1)
    loss = MultiviewVLMLoss(0.5, 0.25, 2.0, 0.75, pair_scale=4.0, false_negatives=false_negatives)
    got = loss(z, text, torch.tensor(rows), 1 / TAU)
    want = literal(z, text, rows, 4.0, false_negatives)
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, msg=lambda m, n=name: f"{n}: {m}")
    total = 0.5 * want["contrastive"] + 0.25 * want["multiview"] + 2 * want["positive"] + 0.75 * want["negative"]
    torch.testing.assert_close(got["loss"], total)
    reference = torch.autograd.grad(total, (raw_z, raw_t), retain_graph=True, allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(torch.autograd.grad(got["loss"], (raw_z, raw_t)), reference, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert got["labelled"] == pytest.approx(np.mean(np.array(rows) >= 0))


def test_each_term_can_be_switched_off_and_negative_factors_are_refused():
    z, text, rows = unit(4, 3, 5)[0], unit(4, 5, seed=1)[0], torch.tensor([0, 1, 2, 0])
    names = ("contrastive", "multiview", "positive", "negative")
    for name in names:
        alone = MultiviewVLMLoss(**{other: float(other == name) for other in names})(z, text, rows, 5.0)
        torch.testing.assert_close(alone["loss"], alone[name])
    with pytest.raises(ValueError, match="none below 0"):
        MultiviewVLMLoss(negative=-1.0)
    with pytest.raises(ValueError, match="pair_scale is 0"):
        MultiviewVLMLoss(pair_scale=0)


def test_pair_terms_reach_zero_only_with_a_scaled_cosine():
    """Perfect pairs: with a bare cosine nothing falls below -log sigmoid(1) = 0.313."""
    z = torch.tensor([[[1.0, 0.0]] * 3, [[-1.0, 0.0]] * 3])
    assert positive_pairs(z, 1.0) == pytest.approx(math.log(1 + math.exp(-1)))
    assert positive_pairs(z, 10.0) < 1e-4 and negative_pairs(z, torch.tensor([0, 1]), 10.0) < 1e-4


def test_samples_in_another_order_and_wrong_shapes():
    z, text, rows = unit(5, 3, 4)[0], unit(5, 4, seed=1)[0], torch.tensor([0, 1, -1, 2, 1])
    order = torch.tensor([3, 0, 4, 2, 1])
    a, b = (MultiviewVLMLoss()(z[i], text[i], rows[i], 5.0) for i in (torch.arange(5), order))
    for name in a:
        torch.testing.assert_close(a[name], b[name])
    with pytest.raises(ValueError, match=r"prompts are \(5, 3, 4\)"):
        MultiviewVLMLoss()(z, z, rows, 5.0)
    with pytest.raises(ValueError, match="pseudo-labels are"):
        MultiviewVLMLoss()(z, text, rows.double(), 5.0)


def literal_twins(a, b, lam):
    """Barlow Twins' own pseudo-code as loops, divided by the width."""
    n, width = a.shape
    a, b = ((x - x.mean(0)) / x.std(0, correction=0) for x in (a, b))
    value, diagonal, off = 0.0, [], []
    for i in range(width):
        for j in range(width):
            c = sum(a[k, i] * b[k, j] for k in range(n)) / n
            value = value + ((1 - c) ** 2 if i == j else lam * c**2)
            (diagonal if i == j else off).append(c)
    return value / width, sum(diagonal) / width, (sum(c**2 for c in off) / len(off)) ** 0.5


def test_barlow_twins_is_its_pseudo_code():
    a, b = (torch.randn(7, 4, generator=torch.Generator().manual_seed(s)).double() * 3 + 1 for s in (0, 1))
    found = barlow_twins(a, b, 0.01)
    for got, want in zip(found.values(), literal_twins(a, b, 0.01), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cross_correlation(a, b), np.corrcoef(a.T, b.T)[:4, 4:], atol=1e-5)


def test_the_identity_costs_nothing_and_a_flat_feature_is_no_nan():
    # columns of a Hadamard matrix: means of 0, and no two correlate
    h = torch.tensor([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]]).double()
    assert barlow_twins(h, 5 * h + 2)["loss"] < 1e-9
    flat = h.clone()
    flat[:, 0] = 4.0
    flat.requires_grad_()
    found = barlow_twins(flat, h)
    torch.testing.assert_close(found["loss"], torch.tensor(1 / 3).double(), rtol=1e-4, atol=1e-6)
    found["loss"].backward()
    assert flat.grad.isfinite().all()
    with pytest.raises(ValueError, match="a batch of 1; two"):
        barlow_twins(h[:1], h[:1])


def test_alarms_tell_what_collapsed():
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(64, 6, generator=generator).double()
    line = spread[:, :1] * torch.ones(6)
    assert effective_rank(spread) > 5 and effective_rank(line) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.ones(8, 6)) == 1
    assert barlow_twins(line, line)["off_diagonal"] == pytest.approx(1, abs=1e-3)  # all features say the same
    strangers = torch.randn(64, 6, generator=generator).double()
    assert barlow_twins(spread, strangers)["diagonal"].abs() < 0.2  # views share nothing
    assert barlow_twins(spread, spread)["diagonal"] == pytest.approx(1, abs=1e-3)


def test_smile_is_its_three_terms():
    (z, _), (text, _) = unit(6, 3, 5), unit(6, 5, seed=1)
    p, q = (torch.randn(*shape, generator=torch.Generator().manual_seed(4)).double() for shape in ((6, 3, 4), (6, 4)))
    rows = torch.tensor([0, 1, -1, 2, 0, 1])
    known = [0, 1, 3, 4, 5]
    got = SmileVLMLoss(2.0, 0.5, 0.25, off_diagonal=0.02)(z, p, text, q, rows, 1 / TAU)
    pairs = [literal_twins(p[:, i], p[:, j], 0.02) for i, j in ((0, 1), (0, 2), (1, 2))]
    redundancy = literal_twins(p[known].mean(1), q[known], 0.02)[0]

    def others(i, j):
        return i == j or rows[known[i]] != rows[known[j]]

    parts = [
        toward(z[known, k], text[known], others=others) for k in range(3) for toward in (image_to_text, text_to_image)
    ]
    alignment = sum(parts) / 6
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(got["decorrelation"], sum(pair[0] for pair in pairs) / 3, **close)
    torch.testing.assert_close(got["diagonal"], sum(pair[1] for pair in pairs) / 3, **close)
    torch.testing.assert_close(got["alignment"], alignment)
    torch.testing.assert_close(got["redundancy"], redundancy, **close)
    total = 2 * got["decorrelation"] + 0.5 * alignment + 0.25 * redundancy
    torch.testing.assert_close(got["loss"], total, **close)


@pytest.mark.parametrize("rows", [[-1, -1, -1], [-1, 2, -1], [1, 1, 1]])
def test_smile_without_text_terms_keeps_its_gradients_finite(rows):
    (z, raw), (text, raw_text) = unit(3, 3, 5), unit(3, 5, seed=1)
    p, q = torch.randn(3, 3, 4).double().requires_grad_(), torch.randn(3, 4).double().requires_grad_()
    got = SmileVLMLoss()(z, p, text, q, torch.tensor(rows), 5.0)
    got["loss"].backward()
    assert all(value.isfinite() for value in got.values())
    assert all(leaf.grad.isfinite().all() for leaf in (raw, raw_text, p, q))
    if max(rows) < 0:
        assert got["alignment"] == got["redundancy"] == 0 and (q.grad == 0).all()


def test_mifar_correlates_distortions_and_views():
    p = torch.randn(6, 2, 3, 4, generator=torch.Generator().manual_seed(4)).double()
    got = MifarLoss(2.0, 0.5, off_diagonal=0.02)(p)
    same = [literal_twins(p[:, 0, k], p[:, 1, k], 0.02)[0] for k in range(3)]
    across = [literal_twins(p[:, d, i], p[:, 1 - d, j], 0.02)[0] for i, j in ((0, 1), (0, 2), (1, 2)) for d in (0, 1)]
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(got["distortions"], sum(same) / 3, **close)
    torch.testing.assert_close(got["views"], sum(across) / 6, **close)
    torch.testing.assert_close(got["loss"], 2 * got["distortions"] + 0.5 * got["views"], **close)
    with pytest.raises(ValueError, match=r"\(B, 2, N, P\)"):
        MifarLoss()(p[:, 0])
    with pytest.raises(ValueError, match="a batch of 1"):
        MifarLoss()(p[:1])


@pytest.mark.parametrize("make", [MultiviewVLMLoss, SmileVLMLoss])
def test_half_precision_features_are_summed_in_full(make):
    z, text = (F.normalize(torch.randn(6, *s), dim=-1).bfloat16() for s in ((3, 8), (8,)))
    rows = torch.tensor([0, 1, 2, 0, -1, 1])
    arguments = (z, text, rows, 5.0) if make is MultiviewVLMLoss else (z, z, text, text, rows, 5.0)
    with torch.autocast("cpu", torch.bfloat16):
        got = make()(*arguments)
    wide = make()(*(x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in arguments))
    torch.testing.assert_close(got["loss"], wide["loss"])
