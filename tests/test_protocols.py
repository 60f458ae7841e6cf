"""Protocols: sizes of the literature, people who never meet, readings that differ as stated, scores worked by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from affectvlm.emotions import EKMAN
from affectvlm.protocols import (
    PROTOCOLS,
    PUBLISHED,
    Fold,
    Outcomes,
    Part,
    Report,
    bootstrap,
    check_task,
    counts_of,
    folds,
    protocol,
    reliability,
    scores_of,
    select,
    task_of,
)

BU3DFE_PEOPLE = [f"F{n:04d}" for n in range(1, 57)] + [f"M{n:04d}" for n in range(1, 45)]
BU4DFE_PEOPLE = [f"F{n:03d}" for n in range(1, 59)] + [f"M{n:03d}" for n in range(1, 44)]
BP4D_PEOPLE = [f"F{n:03d}" for n in range(1, 24)] + [f"M{n:03d}" for n in range(1, 19)]
EIGHT = ("happy", "sad", "surprise", "embarrassment", "fear", "pain", "angry", "disgust")


@dataclass(frozen=True)
class Sample:
    id: str
    subject: str
    label: str
    intensity: float | None = None
    also: tuple[str, ...] = ()
    source: str = "x"
    metadata: dict = field(default_factory=dict)


def bu3dfe(people=BU3DFE_PEOPLE):
    faces = [Sample(f"{who}/{who}_NE00", who, "neutral", 0.0) for who in people]
    faces += [Sample(f"{who}/{e}{k}", who, e, k / 4) for who in people for e in EKMAN for k in (1, 2, 3, 4)]
    return faces


def bu4dfe(people=BU4DFE_PEOPLE):
    return [Sample(f"{who}/{e}/000.wrl", who, e) for who in people for e in EKMAN]


def bp4d(people=BP4D_PEOPLE, source="bp4d"):
    return [
        Sample(f"Sequences(2D+3D)/{who}/T{task}/0001.obj", who, name, source=source)
        for who in people
        for task, name in enumerate(EIGHT, 1)
    ]


def bosphorus(complete=65, people=105):
    codes = dict(zip(EKMAN, ("HAPPY", "ANGER", "DISGUST", "FEAR", "SADNESS", "SURPRISE"), strict=True))
    faces = []
    for number in range(people):
        who = f"bs{number:03d}"
        faces.append(Sample(f"{who}/{who}_N_N_0.bnt", who, "neutral"))
        # of people without all six, every other one has six files still: one emotion twice
        labels = EKMAN if number < complete else EKMAN[1:]
        faces += [Sample(f"{who}/{who}_E_{codes[e]}_0.bnt", who, e) for e in labels]
        if number % 2:
            faces.append(Sample(f"{who}/{who}_E_ANGER_1.bnt", who, "angry"))
    return faces


def micro(people=12):
    classes = PROTOCOLS["4dme"].classes
    return [
        Sample(
            f"s{p}/c{c}", f"s{p}", classes[(p + c) % 5], also=(classes[(p + c + 1) % 5],) if (p + c) % 4 == 0 else ()
        )
        for p in range(people)
        for c in range(1 + p % 4)
    ]


EVERYTHING = {
    "bu3dfe-subset1": bu3dfe, "bu3dfe-subset2": bu3dfe, "bosphorus": bosphorus, "bu4dfe": bu4dfe, "bp4d": bp4d,
    "bp4d-six": bp4d, "bu4dfe-to-bp4d": bu4dfe, "4dme": micro, "4dme-single": micro, "4dme-first": micro,
}  # fmt: skip


def made(name, **options):
    target = bp4d() if name == "bu4dfe-to-bp4d" else ()
    return folds(name, EVERYTHING[name](), target=target, **{"seed": 3, "repeats": 2, **options})


@pytest.mark.parametrize(
    ("name", "options", "people", "samples", "fold_people", "trained"),
    [
        ("bu3dfe-subset1", {}, 60, 720, {6}, 648),
        ("bu3dfe-subset1", {"everyone": True}, 100, 1200, {10}, 1080),
        ("bu3dfe-subset2", {}, 100, 2400, {10}, 2160),
        ("bosphorus", {}, 60, 360, {6}, 324),
        ("bosphorus", {"everyone": True}, 65, 390, {6, 7}, None),
        ("bu4dfe", {}, 101, 606, {10, 11}, None),
        ("bp4d", {}, 41, 328, {4, 5}, None),
        ("bp4d-six", {}, 41, 246, {4, 5}, None),
    ],
)
def test_sizes_are_those_of_the_literature(name, options, people, samples, fold_people, trained):
    everything = made(name, **options)
    for run in (0, 1):
        here = [fold for fold in everything if fold.run == run]
        assert [fold.number for fold in here] == list(range(10))
        assert Counter(len(fold.test.subjects) for fold in here).keys() == fold_people
        tested = [name for fold in here for name in fold.test.ids]
        assert len(tested) == len(set(tested)) == samples
        assert len({who for fold in here for who in fold.test.subjects}) == people
        for fold in here:
            everybody = {*fold.train.subjects, *fold.validation.subjects, *fold.test.subjects}
            assert len(everybody) == people
            assert len(fold.train.ids) + len(fold.validation.ids) + len(fold.test.ids) == samples
            if trained:
                assert len(fold.train.ids) + len(fold.validation.ids) == trained


@pytest.mark.parametrize("name", PROTOCOLS)
def test_people_never_meet_and_everybody_is_tested_once_a_run(name):
    everything = made(name)
    for fold in everything:
        parts = [part for part in (fold.train, fold.validation, fold.test, fold.spare) if part]
        people = [(part.dataset, who) for part in parts for who in part.subjects]
        assert len(people) == len(set(people))
        split = fold.split()
        ids = [one for part in split.values() for one in part]
        assert len(ids) == len(set(ids)) and all(split.values())
    for run in (0, 1):
        tested = Counter(who for fold in everything if fold.run == run for who in fold.test.subjects)
        assert set(tested.values()) == {1}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_folds_depend_on_the_seed_and_not_on_the_order_of_files(name):
    rng = np.random.default_rng(0)
    records, target = EVERYTHING[name](), bp4d()
    first = folds(name, records, 5, repeats=2, target=target)
    shuffled = [records[i] for i in rng.permutation(len(records))]
    assert folds(name, shuffled, 5, repeats=2, target=target[::-1]) == first
    other = folds(name, records, 6, repeats=2, target=target)
    assert [fold.split() for fold in other] != [fold.split() for fold in first]
    # the runs of a seed stay what they are when more are asked for
    assert folds(name, records, 5, repeats=3, target=target)[: len(first)] == first
    half = len(first) // 2
    assert [fold.split() for fold in first[:half]] != [fold.split() for fold in first[half:]]


def test_reading_a_keeps_its_people_and_reading_b_draws_anew():
    def people(reading):
        made_ = folds("bu3dfe-subset1", bu3dfe(), 1, repeats=4, reading=reading)
        runs = [{who for fold in made_ if fold.run == run for who in fold.test.subjects} for run in range(4)]
        groups = [{fold.test.subjects for fold in made_ if fold.run == run} for run in range(4)]
        return runs, groups

    kept, shuffled = people("A")
    assert all(run == kept[0] for run in kept) and shuffled[0] != shuffled[1]
    drawn, _ = people("B")
    assert all(len(run) == 60 for run in drawn) and len({frozenset(run) for run in drawn}) == 4
    # 60 of 100 twice share 36 on average; the same 60 again would share all
    assert 25 < len(drawn[0] & drawn[1]) < 47


def test_subset_one_holds_the_two_higher_levels_and_no_neutral_face():
    chosen, _ = select(protocol("bu3dfe-subset1"), bu3dfe())
    assert Counter(one.intensity for one in chosen) == {0.75: 600, 1.0: 600}
    assert Counter(one.label for one in chosen) == dict.fromkeys(EKMAN, 200)


def test_bosphorus_takes_people_by_their_classes_and_not_by_their_number_of_files():
    chosen, remarks = select(protocol("bosphorus"), bosphorus())
    by_person = Counter(one.subject for one in chosen)
    assert len(by_person) == 65 and set(by_person.values()) == {6}
    # bs065 has six emotional files, two of them of anger
    assert sum("_E_" in one.id for one in bosphorus() if one.subject == "bs065") == 6 and "bs065" not in by_person
    assert all(one.id.endswith("_0.bnt") for one in chosen)
    assert any("40 people lack a class" in remark for remark in remarks)
    with pytest.raises(ValueError, match=r"64 people were found; 65 are expected"):
        select(protocol("bosphorus"), bosphorus(64))
    with pytest.raises(ValueError, match=r"66 people were found; 65 are expected"):
        select(protocol("bosphorus"), bosphorus(66), partial=True)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (bu3dfe(BU3DFE_PEOPLE[:40]), r"480 samples of 1200 expected: 40 people were found; 100 are expected"),
        (bu3dfe()[:-1], r"1199 samples of 1200 expected: 1 samples are missing: M0044 surprise level 4"),
        ([*bu3dfe(), Sample("copy", "F0001", "sad", 1.0)], r"'F0001/sad4' and 'copy' are both sad level 4 of F0001"),
        ([*bu3dfe(), bu3dfe()[5]], "ids are unique"),
        ([*bu3dfe(), Sample("odd", "F0001", "sad", 0.4)], "has the intensity 0.4"),
        ([Sample("a", "b", "neutral", 0.0)], "none of 1 records counts"),
    ],
)
def test_wrong_sizes_fail_in_words(records, message):
    with pytest.raises(ValueError, match=message):
        folds("bu3dfe-subset1", records)


def test_partial_goes_on_and_says_what_is_missing():
    few = [one for one in bu3dfe(BU3DFE_PEOPLE[:7]) if one.id != "F0003/sad4"]
    _, remarks = select(protocol("bu3dfe-subset1"), few, partial=True)
    assert remarks == ("7 people were found; 100 are expected", "1 samples are missing: F0003 sad level 4")
    here = folds("bu3dfe-subset1", few, repeats=1, partial=True)
    assert len(here) == 7 and sum(len(fold.test.ids) for fold in here) == 7 * 12 - 1
    with pytest.raises(ValueError, match="need 3 at least"):
        folds("bu3dfe-subset1", bu3dfe(BU3DFE_PEOPLE[:2]), partial=True)


def test_task_eight_is_disgust_in_bp4d_and_pain_in_bp4d_plus():
    check_task("bp4d", 8, "disgust")
    assert task_of("bp4d", "disgust") == 8 and task_of("bp4dplus", "disgust") == 10
    with pytest.raises(ValueError, match=r"task 8 of bp4dplus elicits pain, not disgust; disgust is task 10 there"):
        check_task("bp4dplus", 8, "disgust")
    with pytest.raises(ValueError, match="no task of bp4d elicits 'startle'"):
        task_of("bp4d", "startle")
    with pytest.raises(ValueError, match=r"task 2 of bp4dplus elicits surprise|task 8 of bp4dplus elicits pain"):
        folds("bu4dfe-to-bp4d", bu4dfe(), target=bp4d(source="bp4dplus"))
    many = [*bp4d(), Sample("F001/T9/0001.obj", "F001", "angry", source="bp4d")]
    with pytest.raises(ValueError, match=r"this is BP4D\+"):
        folds("bp4d", many)
    wrong = [replace(one, label="pain") if "/T8/" in one.id else one for one in bp4d()]
    with pytest.raises(ValueError, match="labelled pain; task 8 is disgust"):
        folds("bp4d", wrong)
    with pytest.raises(ValueError, match="names no task"):
        folds("bp4d", [Sample("F001/0001.obj", "F001", "happy", source="bp4d")])


def test_across_data_sets_all_of_one_is_trained_on_and_two_tasks_of_the_other_tested():
    (fold,) = made("bu4dfe-to-bp4d", repeats=1)
    assert len(fold.test.ids) == 82 and len(fold.test.subjects) == 41
    assert all("/T1/" in one or "/T8/" in one for one in fold.test.ids)
    own = [*fold.train.subjects, *fold.validation.subjects, *fold.spare.subjects]
    assert sorted(own) == sorted(BU4DFE_PEOPLE) and len(fold.spare.subjects) == 1
    counts = [len(part.subjects) for part in (fold.train, fold.validation)]
    assert "{} are trained on, {} validated on, and one is neither".format(*counts) in " ".join(
        protocol("bu4dfe-to-bp4d").notes
    )
    # F001 is another person there: that is no leak
    assert "F001" in own and "F001" in fold.test.subjects
    assert set(fold.split()["test"]) == set(fold.spare.ids)


def test_one_person_out_at_a_time():
    everything = made("4dme", repeats=1)
    assert [fold.test.subjects for fold in everything] == [(who,) for who in sorted(f"s{p}" for p in range(12))]
    mixed = [one for one in micro() if one.also]
    assert mixed and sum(len(fold.test.ids) for fold in everything) == len(micro())
    assert sum(len(fold.test.ids) for fold in made("4dme-single", repeats=1)) == len(micro()) - len(mixed)


def test_validation_leaves_training_every_class_where_it_can():
    records = [Sample(f"p{p}/{k}", f"p{p}", EKMAN[k] if p < 2 else EKMAN[k % 3]) for p in range(9) for k in range(6)]
    for fold in folds("kfold:9", records, repeats=5):
        if set(fold.test.subjects) & {"p0", "p1"}:
            continue  # only one person with the rare classes is left
        labels = {record.label for record in records if record.id in fold.train.ids}
        assert labels == set(EKMAN)


def test_kfold_takes_any_number_and_any_labels():
    records = [Sample(f"{p}-{k}", f"p{p:02d}", ("calm", "tense", "neutral")[k]) for p in range(11) for k in range(3)]
    everything = folds("kfold:4", records, 0)
    assert sorted(len(fold.test.subjects) for fold in everything) == [2, 3, 3, 3]
    assert sum(len(fold.test.ids) for fold in everything) == 33
    with pytest.raises(ValueError, match="11 people for 12 folds"):
        folds("kfold:12", records)
    for name in ("kfold", "kfold:1", "kfold:x", "bu3dfe"):
        with pytest.raises(ValueError, match="is unknown"):
            protocol(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"reading": "C"}, "A or B"), ({"repeats": 0}, "1 or more"), ({"seed": -1}, "0 or more")],
)
def test_other_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        folds("bu3dfe-subset2", bu3dfe(), **options)


def test_a_fold_that_leaks_cannot_be_made():
    a, b = Part("x", ("p1",), ("1",)), Part("x", ("p2",), ("2",))
    with pytest.raises(ValueError, match="leaks: 1 subjects are in train and in test, such as 'p1'"):
        Fold(0, 0, a, b, Part("x", ("p1",), ("3",)))
    with pytest.raises(ValueError, match="leaks: 1 samples are in validation and in test, such as '2'"):
        Fold(0, 0, a, b, Part("x", ("p3",), ("2",)))
    with pytest.raises(ValueError, match="no sample is in test"):
        Fold(0, 0, a, b, Part("x", (), ()))
    Fold(0, 0, a, b, Part("y", ("p1",), ("1",)))


# Scores


def outcomes(labels, probabilities, classes=("a", "b", "c"), subjects=None, truths=None, **fields):
    n, k = len(labels), len(classes)
    labels = np.asarray(labels)
    made_ = {
        "ids": tuple(map(str, range(n))), "subjects": tuple(subjects or map(str, range(n))),
        "runs": np.zeros(n, int), "folds": np.zeros(n, int), "labels": labels,
        "truths": np.eye(k, dtype=bool)[labels] if truths is None else np.asarray(truths, bool),
        "probabilities": np.asarray(probabilities, float), "intensity": np.full(n, np.nan), "metadata": ({},) * n,
    }  # fmt: skip
    return Outcomes(tuple(classes), **{**made_, **fields})


def from_confusion(table):
    """Outcomes whose confusion is a table, true classes in rows."""
    pairs = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    shares = np.full((len(pairs), len(table)), 0.1)
    shares[np.arange(len(pairs)), [j for _, j in pairs]] = 0.8
    return outcomes([i for i, _ in pairs], shares, tuple("abcdefgh"[: len(table)]))


def test_scores_of_a_table_worked_by_hand():
    found = scores_of(from_confusion([[8, 1, 1], [2, 6, 2], [0, 0, 5]]))
    assert found["n"] == 25 and found["accuracy"] == pytest.approx(19 / 25)
    assert found["uar"] == pytest.approx((0.8 + 0.6 + 1.0) / 3)
    assert found["macro_f1"] == pytest.approx((16 / 20 + 12 / 17 + 10 / 13) / 3)


def test_an_absent_class_is_left_out_and_one_never_found_counts_as_zero():
    # "c" has no true sample, yet is said once; "b" is never found
    found = scores_of(from_confusion([[3, 0, 1], [2, 0, 0], [0, 0, 0]]))
    assert found["uar"] == pytest.approx((3 / 4 + 0) / 2)
    assert found["macro_f1"] == pytest.approx((6 / (6 + 2 + 1) + 0) / 2)


def test_multi_label_scores_are_those_of_binary_problems():
    truths = [[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    shares = [[0.9, 0.5, 0.1], [0.4, 0.6, 0.0], [0.7, 0.8, 0.2], [0.1, 0.2, 0.3]]
    one = outcomes([0, 0, 1, 2], shares, truths=truths)
    assert counts_of(one, 0.5).tolist() == [[1, 1, 1], [2, 1, 0], [0, 0, 1]]
    found = scores_of(one, 0.5)
    assert found["macro_f1"] == pytest.approx((2 / 4 + 4 / 5 + 0) / 3)
    assert found["uar"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["exact"] == 1 / 4 and "accuracy" not in found
    # against the textbook, in loops
    said = np.asarray(shares) >= 0.5
    f1 = []
    for k in range(3):
        tp = sum(s and t for s, t in zip(said[:, k], np.asarray(truths)[:, k], strict=True))
        f1.append(2 * tp / (said[:, k].sum() + np.asarray(truths)[:, k].sum()))
    assert found["macro_f1"] == pytest.approx(np.mean(f1))


@pytest.mark.slow
def test_scores_agree_with_another_implementation():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(6), 300)
    labels = np.where(rng.random(300) < 0.6, shares.argmax(1), rng.integers(6, size=300))
    found = scores_of(outcomes(labels, shares, EKMAN))
    p, t = torch.from_numpy(shares), torch.from_numpy(labels)
    assert found["accuracy"] == pytest.approx(float(torchmetrics.multiclass_accuracy(p, t, 6, average="micro")))
    assert found["uar"] == pytest.approx(float(torchmetrics.multiclass_recall(p, t, 6)))
    assert found["macro_f1"] == pytest.approx(float(torchmetrics.multiclass_f1_score(p, t, 6)))
    assert found["ece"] == pytest.approx(float(torchmetrics.multiclass_calibration_error(p, t, 6)), abs=1e-5)


def test_intervals_are_over_people():
    rng = np.random.default_rng(0)
    people = 40
    share = rng.beta(2, 1, people)  # each person is easy or hard, 50 samples each
    right = rng.random((people, 50)) < share[:, None]
    labels = np.tile(np.arange(50) % 2, people)
    said = np.where(right.ravel(), labels, 1 - labels)
    shares = np.where(np.eye(2)[said] > 0, 0.9, 0.1)
    one = outcomes(labels, shares, ("a", "b"), [f"p{p}" for p in range(people) for _ in range(50)])
    low, high = bootstrap(one, seed=0)["accuracy"]
    # the sample mean of 40 people; 2,000 scans taken for independent would give an interval of a third of this
    error = right.mean(axis=1).std(ddof=1) / np.sqrt(people)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert low < right.mean() < high
    assert bootstrap(one, seed=0) == bootstrap(one, seed=0) != bootstrap(one, seed=1)
    alone = outcomes(labels[:50], shares[:50], ("a", "b"), ["p"] * 50)
    assert bootstrap(alone) is None


def test_reliability_bins_hold_everything_once():
    rng = np.random.default_rng(2)
    one = outcomes(rng.integers(3, size=200), rng.dirichlet([0.5] * 3, 200))
    bins = reliability(one)
    assert sum(row["n"] for row in bins) == 200
    gap = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / 200
    assert gap == pytest.approx(scores_of(one)["ece"])


def test_fewer_classes_are_asked_by_renormalised_shares():
    one = outcomes([0, 2], [[0.2, 0.7, 0.1], [0.0, 1.0, 0.0]])
    two = one.among(("c", "a"))
    assert two.labels.tolist() == [1, 0]
    np.testing.assert_allclose(two.probabilities, [[1 / 3, 2 / 3], [0.5, 0.5]])
    with pytest.raises(ValueError, match="a sample is labelled c"):
        one.among(("a", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.full((2, 3), np.nan)}, "outside of 0 to 1"),
        ({"probabilities": np.full((2, 3), 1.5)}, "outside of 0 to 1"),
        ({"probabilities": np.full((2, 2), 0.5)}, r"\(2, 3\) is needed"),
        ({"runs": np.zeros(3, int)}, "one of each"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(outcomes([0, 1], np.full((2, 3), 1 / 3)), **change)


# Joining answers and records, and the report


def answered(name, records, accuracy, runs=1, seed=0, classes=EKMAN, target=(), **options):
    """Folds, and answers that are right with a probability."""
    rng = np.random.default_rng(seed)
    made_ = folds(name, records, seed, repeats=runs, target=target, **options)
    known = {record.id: record for record in (target or records)}
    answers = []
    for fold in made_:
        faces = []
        for one in fold.test.ids:
            true = classes.index(known[one].label)
            said = true if rng.random() < accuracy else int(rng.integers(len(classes)))
            shares = [0.9 if k == said else 0.1 / (len(classes) - 1) for k in range(len(classes))]
            faces.append({"id": one, "label": known[one].label, "subject": f"x-{known[one].subject}",
                          "probabilities": shares})  # fmt: skip
        answers.append((fold, {"classes": list(classes), "faces": faces}))
    return made_, answers, list(known.values())


def test_a_report_holds_what_was_measured():
    records = [replace(r, metadata={"sex": "female" if r.subject[0] == "F" else "male"}) for r in bu3dfe()]
    made_, answers, records = answered("bu3dfe-subset1", records, 0.8, runs=2)
    found, missing = Outcomes.of(answers, records)
    assert len(found) == 1440 and not missing
    report = Report.of(protocol("bu3dfe-subset1"), made_, found, choices={"seed": 0, "reading": "B", "repeats": 2})
    (result,) = report.results.values()
    # 0.8 right and a sixth of the rest by luck
    assert result["scores"]["accuracy"] == pytest.approx(0.8 + 0.2 / 6, abs=0.03)
    assert result["scores"]["accuracy"] == pytest.approx(np.trace(result["confusion"]) / 1440)
    assert result["spread_folds"]["groups"] == 20 and result["spread_runs"]["groups"] == 2
    low, high = result["intervals"]["accuracy"]
    assert low < result["scores"]["accuracy"] < high
    assert {row["intensity"]: row["n"] for row in result["by_intensity"]} == {0.75: 720, 1.0: 720}
    by_sex = {row["value"]: row for row in result["slices"]}
    assert by_sex["female"]["n"] + by_sex["male"]["n"] == 1440 and by_sex["female"]["people"] <= 56
    assert len(report.folds) == 20 and set(report.folds[0]["test"]) == set(made_[0].test.subjects)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    text = report.markdown()
    assert "AffectVLM | accuracy | 92.63" in text and "chosen on the test fold" in text
    assert f"**{100 * result['scores']['accuracy']:.1f}**" in text
    assert "reading B" in text and "mean ± sd over runs" in text


def test_published_figures_stand_beside_whole_protocols_on_real_data_only():
    made_, answers, records = answered("bu3dfe-subset2", bu3dfe(), 0.5)
    whole, _ = Outcomes.of(answers, records)
    some, _ = Outcomes.of(answers[:4], records)
    given = protocol("bu3dfe-subset2")
    assert Report.of(given, made_, whole).published == PUBLISHED["bu3dfe-subset2"]
    for report in (Report.of(given, made_, some), Report.of(given, made_, whole, comparable=False)):
        assert report.published == () and "83.98" not in report.markdown()
    assert Report.of(given, made_, some).sizes["folds done"] == 4


def test_across_data_sets_both_rules_are_told():
    made_, answers, records = answered("bu4dfe-to-bp4d", bu4dfe(), 0.5, target=bp4d())
    found, _ = Outcomes.of(answers, records)
    report = Report.of(protocol("bu4dfe-to-bp4d"), made_, found)
    six, two = report.results.values()
    assert six["scores"]["n"] == two["scores"]["n"] == 82
    assert len(six["confusion"]) == 6 and len(two["confusion"]) == 2
    # a wrong one of six may still be the larger of two
    assert two["scores"]["accuracy"] >= six["scores"]["accuracy"]


def test_several_labels_are_scored_one_by_one():
    classes = PROTOCOLS["4dme"].classes
    made_, answers, records = answered("4dme", micro(), 1.0, classes=classes)
    found, _ = Outcomes.of(answers, records)
    assert found.truths.sum() == len(micro()) + sum(bool(one.also) for one in micro())
    report = Report.of(protocol("4dme"), made_, found)
    result, relative = report.results.values()
    assert result["threshold"] == relative["threshold"] == 0.5 and result["confusion"] is relative["confusion"] is None
    # the first label is always found, the second never
    recall = {row["class"]: row["recall"] for row in result["by_class"]}
    expected = {
        name: sum(r.label == name for r in micro()) / sum(name in (r.label, *r.also) for r in micro())
        for name in classes
    }
    assert recall == pytest.approx(expected)
    assert "0.536" not in report.markdown() and "53.60" in report.markdown()


def test_two_classes_with_nearly_equal_shares_are_both_named_by_the_relative_rule():
    classes = PROTOCOLS["4dme"].classes
    _, answers, records = answered("4dme", micro(), 1.0, classes=classes)
    found, _ = Outcomes.of(answers, records)
    shares = np.where(found.truths, 0.8 / found.truths.sum(axis=1, keepdims=True), 0.0)
    shares += (1 - shares.sum(axis=1, keepdims=True)) / len(classes)
    found = replace(found, probabilities=shares)
    assert ((found.probabilities >= 0.5) == found.truths).all(axis=1).mean() < 1  # a half for each is not reached
    assert ((found.relative().probabilities >= 0.5) == found.truths).all()
    assert found.relative().probabilities.max(axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.append(dict(f[0])), "answered twice"),
        (lambda f: f[0].update(id="F0001/sad9"), "not in its test part"),
        (lambda f: f[0].update(label="happy" if f[0]["label"] != "happy" else "sad"), "but is labelled"),
        (lambda f: f[0].update(subject="x-somebody"), "was taken for x-somebody"),
        (lambda f: f[0].update(probabilities=[1.0]), "1 probabilities for 6 classes"),
    ],
)
def test_answers_that_are_about_something_else_are_refused(spoil, message):
    _, answers, records = answered("bu3dfe-subset2", bu3dfe(), 0.5)
    spoil(answers[2][1]["faces"])
    with pytest.raises(ValueError, match=message):
        Outcomes.of(answers, records)


def test_samples_without_an_answer_are_named():
    made_, answers, records = answered("bu3dfe-subset2", bu3dfe(), 0.5)
    gone = answers[0][1]["faces"].pop()["id"]
    found, missing = Outcomes.of(answers, records)
    assert missing == [f"run000-fold00: {gone}"] and len(found) == 2399
    report = Report.of(protocol("bu3dfe-subset2"), made_, found, missing)
    assert "1 test samples have no answer" in report.markdown() and not report.published


def test_class_orders_that_differ_are_refused():
    _, answers, records = answered("bu3dfe-subset2", bu3dfe(), 0.5)
    answers[1][1]["classes"] = answers[1][1]["classes"][::-1]
    with pytest.raises(ValueError, match="the same are needed"):
        Outcomes.of(answers, records)
