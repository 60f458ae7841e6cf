"""Pseudo-labels: clusters found again, the best assignment, balance, confidence, and targets that are odd."""

import itertools

import numpy as np
import pytest

from affectvlm.methods.clustering import (
    NO_LABEL,
    assign,
    balanced,
    centred,
    clustering_accuracy,
    linear_probe,
    most_confident,
    pseudo_labels,
    spherical_kmeans,
)

SCALE = 10.0


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def groups(k=4, each=15, dim=8, noise=0.15, seed=0):
    """(k * each, dim) unit features around k orthogonal centres, their groups, and the centres."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:k]
    labels = np.tile(np.arange(k), each)
    return unit(centres[labels] + noise * rng.normal(size=(k * each, dim))), labels, centres


def test_groups_are_found_and_their_centres_are_the_normalised_means():
    x, labels, _ = groups()
    found = max((spherical_kmeans(x, 4, np.random.default_rng(s)) for s in range(4)), key=lambda c: c.cohesion)
    assert clustering_accuracy(labels, found.members) == 1.0
    for j in range(4):
        np.testing.assert_allclose(found.centres[j], unit(x[found.members == j].sum(axis=0)))
    best = np.mean([max(a @ c for c in found.centres) for a in x])
    assert found.cohesion == pytest.approx(best)


def test_a_step_of_kmeans_never_lowers_the_cohesion():
    x = unit(np.random.default_rng(1).normal(size=(60, 6)))
    start = x[:5]
    steps = [spherical_kmeans(x, 5, np.random.default_rng(0), start, iterations=i).cohesion for i in range(1, 12)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(steps)) and steps[-1] > steps[0]


def test_no_cluster_stays_empty():
    x, _, _ = groups(k=3, each=10)
    far = -x[:1]  # nobody's nearest
    found = spherical_kmeans(x, 4, np.random.default_rng(0), np.concatenate([x[:3], far]))
    assert (np.bincount(found.members, minlength=4) > 0).all()
    copies = np.repeat(x[:1], 6, axis=0)
    assert (np.bincount(spherical_kmeans(copies, 3, np.random.default_rng(0)).members, minlength=3) > 0).all()
    with pytest.raises(ValueError, match="2 samples for 3 clusters"):
        spherical_kmeans(x[:2], 3, np.random.default_rng(0))


def test_opposite_members_do_not_make_a_centre_of_nothing():
    x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    found = spherical_kmeans(x, 1, np.random.default_rng(0))
    assert np.isfinite(found.centres).all() and np.linalg.norm(found.centres[0]) == pytest.approx(1)


@pytest.mark.parametrize("per_class", [1, 2])
def test_the_assignment_is_the_best_of_all(per_class):
    similarity = np.random.default_rng(3).normal(size=(3 * per_class, 3))
    columns = np.repeat(np.arange(3), per_class)
    best = max(
        {tuple(order) for order in itertools.permutations(columns)},
        key=lambda order: sum(similarity[i, j] for i, j in enumerate(order)),
    )
    assert tuple(assign(similarity, per_class)) == best
    lifted = similarity + np.array([5.0, -1.0, 0.3])  # a class that all clusters like as much changes nothing
    assert tuple(assign(lifted, per_class)) == best


def test_balanced_guesses_take_each_class_equally_often_and_keep_what_tells_samples_apart():
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3 + np.array([4.0, 0, 0, -2.0])
    even = balanced(logits)
    np.testing.assert_allclose(even.sum(axis=1), 1)
    np.testing.assert_allclose(even.sum(axis=0), 50 / 4, rtol=1e-3)
    # only offsets of rows and columns were added: double differences of the logarithms stay
    log = np.log(even)
    for i, j, a, b in ((0, 1, 2, 3), (7, 20, 0, 1)):
        ours = log[i, a] - log[i, b] - log[j, a] + log[j, b]
        theirs = logits[i, a] - logits[i, b] - logits[j, a] + logits[j, b]
        assert ours == pytest.approx(theirs)


def test_a_bank_that_prefers_one_class_is_set_right_by_balance_and_clusters():
    x, labels, centres = groups(k=4, each=25, noise=0.25)
    drawn = unit(x + 0.9 * centres[0])  # all faces of another source lean toward the first class
    plain = pseudo_labels(drawn, centres, SCALE, np.random.default_rng(0), cluster=False, balance=False)
    ours = pseudo_labels(drawn, centres, SCALE, np.random.default_rng(0), per_class=1)
    assert (plain.rows == labels).mean() < 0.75 < 0.95 < (ours.rows == labels).mean()


def people(each=6, k=4, dim=24, own=1.2, seed=3):
    """Every one of eight people shows every class `each` times, beside something strong that is only theirs."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    classes, traits = basis[:k], unit(basis[k : k + 8] + 0.9 * basis[rng.integers(k, size=8)])
    person, labels = (part.ravel() for part in np.meshgrid(np.arange(8), np.repeat(np.arange(k), each)))
    x = unit(classes[labels] + own * traits[person] + 0.1 * rng.normal(size=(len(labels), dim)))
    return x, labels, person, classes


def test_what_is_a_persons_own_is_taken_out_where_it_is_known_whose_faces_they_are():
    x, labels, person, classes = people()
    plain = pseudo_labels(x, classes, SCALE, np.random.default_rng(0), per_class=1)
    told = pseudo_labels(x, classes, SCALE, np.random.default_rng(0), per_class=1, person=person)
    assert (told.rows == labels).mean() > 0.99 > 0.9 > (plain.rows == labels).mean()
    uneven = pseudo_labels(x, classes, SCALE, np.random.default_rng(0), per_class=1, person=person, balance=False)
    without = pseudo_labels(x, classes, SCALE, np.random.default_rng(0), per_class=1, balance=False)
    np.testing.assert_array_equal(uneven.rows, without.rows)  # it rests on everybody showing various classes


def test_centred_features_have_the_mean_of_the_bank_and_length_one():
    x, labels, person, classes = people()
    found = centred(x, classes, person, labels)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    one = person == 2
    raw = x[one] - x[one].mean(axis=0) + classes.mean(axis=0)
    np.testing.assert_allclose(found[one], unit(raw))


def test_people_of_few_faces_of_one_class_or_unknown_ones_are_left_as_they_are():
    x, labels, person, classes = people()
    few = np.where(np.arange(len(x)) % 8 == 0, 0, -1)
    few[np.flatnonzero(few == 0)[3:]] = -1  # three faces
    np.testing.assert_allclose(centred(x, classes, few, labels), x)
    np.testing.assert_allclose(centred(x, classes, person, np.zeros(len(x), int)), x)  # each shows one class alone
    mostly = np.where(np.arange(len(x)) < 0.9 * len(x), 0, labels)
    assert np.allclose(centred(x, classes, np.zeros(len(x), int), mostly, dominance=0.8), x)
    assert not np.allclose(centred(x, classes, np.zeros(len(x), int), mostly, dominance=0.99), x)


def test_of_each_class_the_most_confident_are_kept():
    x, labels, centres = groups(k=3, each=20, noise=0.3)
    found = pseudo_labels(x, centres, SCALE, np.random.default_rng(0), keep=0.4)
    for row in range(3):
        of_row = found.rows == row
        assert found.kept[of_row].sum() == np.ceil(0.4 * of_row.sum()) == found.kept_sizes[row]
        assert found.confidence[of_row & found.kept].min() >= found.confidence[of_row & ~found.kept].max()
    assert (found.targets[found.kept] == found.rows[found.kept]).all() and (
        found.targets[~found.kept] == NO_LABEL
    ).all()
    assert found.share == found.kept.mean() and sum(found.sizes.values()) == 60
    assert most_confident(np.array([0, 0, 1]), np.array([0.5, 0.5, 0.1]), 0.5, 2).tolist() == [True, False, True]


def test_the_same_generator_gives_the_same_labels_and_order_does_not_matter_to_their_truth():
    x, labels, centres = groups(noise=0.2)
    one, two = (pseudo_labels(x, centres, SCALE, np.random.default_rng(4)) for _ in range(2))
    assert (one.rows == two.rows).all() and (one.confidence == two.confidence).all()
    order = np.random.default_rng(0).permutation(len(x))
    moved = pseudo_labels(x[order], centres, SCALE, np.random.default_rng(4))
    assert (moved.rows == labels[order]).mean() == 1.0 == (one.rows == labels).mean()


def test_only_the_rows_that_may_occur_are_said():
    x, labels, centres = groups(k=4)
    wanted = np.array([1, 3])
    found = pseudo_labels(x[np.isin(labels, wanted)], centres, SCALE, np.random.default_rng(0), rows=wanted)
    assert set(found.rows) == {1, 3} == set(found.sizes)
    assert (found.rows == labels[np.isin(labels, wanted)]).all()


def test_a_target_of_one_class_is_left_in_one_piece():
    x, labels, centres = groups(k=4, each=30)
    alike = x[labels == 2]
    found = pseudo_labels(alike, centres, SCALE, np.random.default_rng(0))
    assert (found.rows == 2).all()
    assert "100 % of the faces look alike to the text (row 2)" in found.remarks[0]
    torn = pseudo_labels(alike, centres, SCALE, np.random.default_rng(0), dominance=1.0)
    assert len(set(torn.rows)) == 4  # what would have become of it


def test_fewer_faces_than_clusters_and_copies_are_labelled_without_clusters():
    x, labels, centres = groups(k=4, each=1)
    found = pseudo_labels(x[:3], centres, SCALE, np.random.default_rng(0), per_class=1)
    assert (found.rows == labels[:3]).all() and "3 different faces for 4 clusters" in found.remarks[0]
    copies = pseudo_labels(np.repeat(x[:3], 5, axis=0), centres, SCALE, np.random.default_rng(0), per_class=1)
    assert "3 different faces" in copies.remarks[0] and np.isnan(copies.cohesion)
    single = pseudo_labels(x[:1], centres[:1], SCALE, np.random.default_rng(0))
    assert single.rows.tolist() == [0] and single.kept.all()


def test_no_label_is_confident_enough():
    x, _, centres = groups()
    found = pseudo_labels(x, centres, 1.0, np.random.default_rng(0), confidence=0.99)
    assert not found.kept.any() and "no face is labelled" in found.remarks[-1]


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (np.zeros((0, 8)), {}, "features are"),
        (np.ones((3, 5)), {}, "are needed"),
        (np.full((3, 8), np.nan), {}, "finite"),
        (np.ones((3, 8)), {"keep": 0.0}, "keep is 0.0"),
        (np.ones((3, 8)), {"per_class": 0}, "per_class 0"),
    ],
)
def test_what_cannot_be_labelled_is_refused(features, settings, message):
    with pytest.raises(ValueError, match=message):
        pseudo_labels(features, groups()[2], SCALE, np.random.default_rng(0), **settings)


def test_clustering_accuracy_matches_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert clustering_accuracy(labels, np.array([7, 7, 5, 5, 5, 1])) == pytest.approx(5 / 6)
    assert clustering_accuracy(labels, np.zeros(6, int)) == pytest.approx(1 / 2)
    assert clustering_accuracy(labels, np.arange(6)) == pytest.approx(3 / 6)  # one cluster a class, the rest is lost


def test_a_linear_probe_reads_what_lies_on_a_line_and_nothing_else():
    x, labels, _ = groups(k=3, each=40, noise=0.2)
    train, test = np.arange(60), np.arange(60, 120)
    scores = linear_probe(x[train], labels[train], x[test], 3)
    assert (scores.argmax(axis=1) == labels[test]).mean() > 0.95
    rng = np.random.default_rng(0)
    noise = linear_probe(rng.normal(size=(60, 8)), labels[train], rng.normal(size=(60, 8)), 3)
    assert (noise.argmax(axis=1) == labels[test]).mean() < 0.6
    scaled = linear_probe(x[train] * 50 + 3, labels[train], x[test] * 50 + 3, 3)
    np.testing.assert_allclose(scaled, scores, rtol=1e-3, atol=1e-4)
    missing = linear_probe(x[train], labels[train], x[test], 5)
    assert (missing[:, 3:] == -np.inf).all() and (missing.argmax(axis=1) == scores.argmax(axis=1)).all()
    with pytest.raises(ValueError, match="no sample"):
        linear_probe(x[:0], labels[:0], x, 3)
