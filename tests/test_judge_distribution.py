"""Permutations of patients, and the shape of errors: big misses, spread of predictions, honest chances."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import distribution as d
from medlab.judge import permutation as perm
from medlab.judge.dependence import clustered
from medlab.judge.verdicts import Cell

MARKER = Target("marker", "Marker", "mg/dL", 0, 400, 6, "a source", 15, 0.15, "another source")
STUDY = Study(
    "example", "Example", "Where is it going?", "regression", (MARKER,), (60.0,), "min", "UTC timestamp",
    "model", "persistence", (), "To test.", "Anything else.",
)  # fmt: skip
N = 200  # simulated studies per size test


def cell(y, residual, calibration=None, names=None, order=None, n_resamples=199, study=STUDY):
    "A cell from (patients, rows); `order` says in which place each patient stands."
    n, m = residual.shape
    order = np.arange(n) if order is None else order
    y = np.broadcast_to(y, residual.shape)[order].ravel().astype(float)
    nothing = np.full(n * m, np.nan)
    return Cell(
        study, MARKER, 60.0, "all", np.arange(n) if names is None else names, np.repeat(np.arange(n), m), None, y,
        y + residual[order].ravel(), nothing, nothing, None, np.nan, n_resamples=n_resamples, calibration=calibration,
    )  # fmt: skip


def split(residual, prefix="C"):
    "Residuals of a calibration split, (patients, rows)."
    n, m = residual.shape
    return residual.ravel(), np.repeat([f"{prefix}{i}" for i in range(n)], m)


def assert_size(p):
    low, high = stats.binom.interval(0.999, len(p), 0.05)
    alarms = int((np.asarray(p) <= 0.05).sum())
    assert low <= alarms <= high, f"{alarms} false alarms of {len(p)}; {low:.0f} to {high:.0f} expected"


def values(rows):
    "What a test may not change, by test."
    keys = ("p", "statistic", "effect", "effect_low", "effect_high")
    return {one["test"]: np.array([one[k] for k in keys]) for one in rows if not one["assumes_independence"]}


# ---------------------------------------------------------------------------------------- labels of patients


@pytest.mark.parametrize("inside", [[1, 1, 1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0, 1, 1]])
def test_few_patients_are_enumerated_as_scipy_does(inside):
    scores, inside = stream(1, "few").normal(size=8) + np.arange(8) / 3, np.array(inside)
    gap, p, family = perm.label_permutation(scores, inside, stream(0, "x"))
    theirs = stats.permutation_test(
        (scores[inside == 1], scores[inside == 0]),
        lambda a, b, axis=-1: stats.ttest_ind(a, b, axis=axis, equal_var=False).pvalue,
        n_resamples=np.inf, alternative="less",
    )  # fmt: skip
    assert gap[0] == pytest.approx(scores[inside == 1].mean() - scores[inside == 0].mean())
    assert p[0] == family[0] == pytest.approx(theirs.pvalue)


def test_enumeration_agrees_with_drawing_for_several_groups():
    scores = stream(2, "several").normal(size=(9, 2))
    groups = np.column_stack([[1, 0, 1, 0, 1, 0, 1, 0, 0], [0, 1, 0, 1, 0, 1, 0, 0, 0]])
    exact = perm.label_permutation(scores, groups, stream(0, "x"), 10_000)
    drawn = perm.label_permutation(
        scores, groups, stream(0, "x"), 1_000
    )  # 1,260 seatings are too many to list
    np.testing.assert_allclose(exact[0], drawn[0])
    np.testing.assert_allclose(exact[1], drawn[1], atol=0.05)
    np.testing.assert_allclose(exact[2], drawn[2], atol=0.05)
    assert (exact[2] >= exact[1]).all()


def test_many_patients_approach_welch():
    scores = stream(3, "many").normal(size=80) * np.where(np.arange(80) < 25, 2.0, 1.0)
    scores[:25] += 0.8
    _, p, _ = perm.label_permutation(scores, np.arange(80) < 25, stream(0, "x"), 20_000)
    assert p[0] == pytest.approx(stats.ttest_ind(scores[:25], scores[25:], equal_var=False).pvalue, abs=0.02)


def test_labels_keep_their_promise_and_rows_do_not():
    rng, by_row, by_patient, family, unequal = stream(0, "labels"), [], [], [], []
    for r in clustered(rng, 60, 20, 0.3, 0.7, (N,)):
        label = np.arange(60) % 2
        by_row.append(stats.ttest_ind(r[label == 1].ravel(), r[label == 0].ravel()).pvalue)
        by_patient.append(perm.label_permutation(r.mean(axis=1), label, rng, 199)[1][0])
        groups = rng.random((60, 50)) < rng.uniform(0.05, 0.5, 50)
        family.append(np.nanmin(perm.label_permutation(r.mean(axis=1), groups, rng, 199)[2]))
        noisy = r.mean(axis=1) * np.where(np.arange(60) < 15, 3, 1)  # the small group is the noisy one
        unequal.append(perm.label_permutation(noisy, np.arange(60) < 15, rng, 199)[1][0])
    for p in (by_patient, family, unequal):
        assert_size(p)
    assert np.mean(np.array(by_row) < 0.05) > 0.3


def test_one_true_group_among_fifty_is_found():
    rng, found = stream(0, "true group"), []
    for _ in range(20):
        groups = rng.random((100, 50)) < 0.3
        found.append(
            perm.label_permutation(rng.normal(size=100) + 1.5 * groups[:, 7], groups, rng, 499)[2].argmin()
        )
    assert np.mean(np.array(found) == 7) > 0.9


def test_patients_without_score_or_membership_do_not_count():
    rng = stream(0, "missing")
    scores, inside = rng.normal(size=9), np.array([1, 1, 1, 1, 0, 0, 0, 0, np.nan])
    gap, _, _ = perm.label_permutation(scores, inside, rng)
    assert gap[0] == pytest.approx(scores[:4].mean() - scores[4:8].mean())
    one = perm.label_permutation(np.where(np.arange(9) == 8, np.nan, scores), inside, rng, 3_000)
    assert one[0][0] == pytest.approx(gap[0])
    assert np.isnan(perm.label_permutation(np.ones(3), [1, 0, 0], rng)[1]).all()  # one patient has no spread
    assert perm.label_permutation(np.ones(8), [1, 1, 1, 1, 0, 0, 0, 0], rng)[1][0] == 1


def test_order_of_patients_does_not_matter_to_any_engine():
    rng = stream(0, "order")
    scores, groups, curves = rng.normal(size=40), rng.random((40, 5)) < 0.4, rng.normal(size=(40, 7))
    mixed = rng.permutation(40)
    for a, b in zip(
        perm.label_permutation(scores, groups, stream(0, "x"), 199),
        perm.label_permutation(scores[mixed], groups[mixed], stream(0, "x"), 199),
        strict=True,
    ):
        np.testing.assert_allclose(a, b)
    a, b = (perm.swap(c, 0 * c, stream(0, "x"), 199) for c in (curves, curves[mixed]))
    assert a == pytest.approx(b)
    a, b = (perm.wobble(c, stream(0, "x"), 20) for c in (curves, curves[mixed]))
    np.testing.assert_allclose(a, b)


# ----------------------------------------------------------------------------------------------------- shape


def test_big_misses_of_normal_errors():
    "Size of the test, what the interval holds, and the test of rows as negative control."
    p, naive, held, verdicts = [], [], [], []
    for r in clustered(stream(0, "normal"), 60, 20, 0.3, 0.7, (N,)):
        ours, wilk = d.shape(cell(150.0, 12 * r))[:2]
        p.append(ours["p"])
        naive.append(wilk["p"])
        held.append(ours["effect_low"] <= 0.27 <= ours["effect_high"])
        verdicts.append(ours["verdict"])
    assert_size(p)
    assert np.mean(np.array(naive) < 0.05) > 0.2
    assert np.mean(held) > 0.9
    assert (
        verdicts.count("ok") > 0.5 * N
    )  # the rest is unclear: three big misses are expected among 1,200 rows
    assert "concern" not in verdicts


def test_heavy_tails_are_found():
    truth, rng = 100 * 2 * stats.t.sf(3 * np.sqrt(5 / 3), 5), stream(0, "tails")
    heavy = np.sqrt(0.6) * rng.standard_t(5, size=(200, 60))  # one standard deviation wide
    ours = d.shape(cell(150.0, 12 * heavy))[0]
    assert ours["effect"] == pytest.approx(truth, abs=0.25)
    assert ours["effect_low"] < truth < ours["effect_high"]
    assert ours["p"] < 0.001
    rare = np.where(rng.random(heavy.shape) < 0.04, 7, 1) * rng.normal(size=heavy.shape)
    assert d.shape(cell(150.0, rare))[0]["verdict"] == "concern"


def test_silence_of_few_rows_is_no_proof():
    r = stream(0, "flat").uniform(-1, 1, (40, 1))
    few = d.shape(cell(150.0, r))[0]
    assert few["effect"] == 0
    assert few["effect_high"] == pytest.approx(-100 * np.log(0.05) / 40)
    assert few["verdict"] == "unclear"
    tame = np.clip(stream(0, "tame").normal(size=(40, 100)), -2.5, 2.5)  # beyond two deviations, never three
    assert d.shape(cell(150.0, tame))[0]["verdict"] == "ok"


def test_silence_of_errors_that_never_pass_two_deviations_counts_patients():
    "Nothing beyond 2 SD says nothing about how big misses cluster: 3 / patients, not 0."
    flat = stream(0, "three values").choice([-5.0, 0.0, 5.0], (30, 2))
    one = d.shape(cell(150.0, flat))[0]
    assert (one["effect"], one["effect_low"]) == (0, 0)
    assert one["effect_high"] == pytest.approx(-100 * np.log(0.05) / 30)
    assert one["verdict"] == "unclear"
    assert one["minimum_detectable_effect"] > one["effect_high"]
    assert one["sentence"].startswith("In the average patient, 0.00 % of errors")


def test_each_row_says_what_its_p_and_its_effect_ask_and_no_test_is_printed_twice(world):
    y, r, before = world
    rows = {one["test"]: one for q in (d.shape, d.distribution, d.pit) for one in q(cell(y, r, before))}
    ours = {name: one for name, one in rows.items() if not one["assumes_independence"]}
    assert set(ours) == {"shape", "distribution", "distribution_distance", "pit"}
    for name, one in ours.items():
        assert one["minimum_detectable_effect"] > 0, name
        if name != "distribution_distance":
            assert "effect: " in one["method"], name
            assert "; p: " in one["method"], name
    assert np.isnan([ours["distribution_distance"][k] for k in ("p", "statistic")]).all()
    assert np.isfinite(ours["distribution"]["p"])


def test_the_smallest_gap_that_would_be_noticed_is_noticed():
    "A shift that moves the curve by the stated gap is found in most studies; a third of it is not."
    rng, stated, power = stream(0, "gap"), [], {1: [], 3: []}
    for _ in range(60):
        before = split(clustered(rng, 60, 20))
        stated.append(d.pit(cell(150.0, clustered(rng, 60, 20), before))[0]["minimum_detectable_effect"])
        for part, found in power.items():
            shift = 2 * stats.norm.ppf(0.5 + stated[-1] / 200 / part)  # largest gap: 2 Phi(shift / 2) - 1
            found.append(d.pit(cell(150.0, clustered(rng, 60, 20) + shift, before))[0]["p"] < 0.05)
    assert np.mean(power[1]) > 0.7
    assert np.mean(power[3]) < 0.5


def test_shapiro_on_students_sleep_data():
    sleep = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    sleep = sleep - np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    found = {one["test"]: one for one in d.shape(cell(150.0, sleep[:, None]))}["shape_rows"]
    assert found["statistic"] == pytest.approx(0.82987, abs=5e-6)
    assert found["p"] == pytest.approx(0.033342, abs=5e-7)


# ---------------------------------------------------------------------------------------------- distribution


def test_swaps_keep_their_promise_and_rows_fail_on_both_sides():
    rng, ours, rows, paired = stream(0, "swap"), [], [], []
    for a, b in zip(clustered(rng, 60, 20, sets=(N,)), clustered(rng, 60, 20, sets=(N,)), strict=True):
        found = d.distribution(cell(150 + 30 * a, 30 * (b - a)))
        ours.append(found[0]["p"])
        rows.append(found[2]["p"])
        close = d.distribution(cell(150 + 30 * a, 3 * (b - a)))  # predictions that follow the truth closely
        paired.append(close[2]["p"])
    assert_size(ours)
    assert np.mean(np.array(rows) < 0.05) > 0.3  # clustered: too many alarms
    assert np.mean(np.array(paired) < 0.05) < 0.02  # paired: hardly any


def test_few_patients_swap_in_all_ways():
    a, b = stream(0, "a").normal(size=(5, 1)), stream(0, "b").normal(size=(5, 1)) + 1
    grid = np.sort(np.concatenate([a, b], axis=None))
    curves = [perm.ecdfs(v.ravel(), np.arange(5), 5, grid) for v in (a, b)]
    signs = np.array(np.meshgrid(*[[1, -1]] * 5)).reshape(5, -1).T
    every = np.abs(signs @ (curves[0] - curves[1]) / 5).max(axis=1)
    largest, p = perm.swap(*curves, stream(0, "x"))
    assert largest == pytest.approx(stats.ks_2samp(a.ravel(), b.ravel()).statistic)
    assert p == (every >= largest - 1e-9).mean()


def test_shrunken_predictions_are_named():
    rng = stream(0, "shrunken")
    known, unknown = clustered(rng, 100, 50), clustered(rng, 100, 50)
    y, yhat = 150 + 30 * (known + unknown) / np.sqrt(2), 150 + 30 * known / np.sqrt(2)
    width, distance = d.distribution(cell(y, yhat - y, n_resamples=999))[:2]
    assert width["effect_low"] < np.sqrt(0.5) < width["effect_high"]
    assert width["verdict"] == "concern"
    assert "highs are predicted too low" in width["sentence"]
    assert width["p"] == 0.001
    exact = stats.wasserstein_distance(y.ravel(), yhat.ravel())
    assert distance["effect"] == pytest.approx(exact, rel=1e-9)
    assert distance["effect_low"] < 30 * (1 - np.sqrt(0.5)) * np.sqrt(2 / np.pi) < distance["effect_high"]


def test_constant_predictions_and_constant_truth():
    y = 150 + 30 * clustered(stream(0, "y"), 20, 20)
    flat = d.distribution(cell(y, 150 - y))[0]
    assert flat["effect"] == pytest.approx(0, abs=1e-12)
    assert flat["verdict"] == "concern"
    still = d.distribution(cell(150.0, y))[0]
    assert still["verdict"] == "not assessable"
    assert "the truth does not vary" in still["sentence"]


# ------------------------------------------------------------------------------------------------------- pit


@pytest.mark.parametrize(
    ("n_test", "m_test", "n_before", "m_before"),
    [(60, 20, 60, 20), (60, 60, 20, 6)],
    ids=["alike", "unbalanced"],
)
def test_chances_of_exchangeable_patients(n_test, m_test, n_before, m_before):
    rng, p, rows, verdicts = stream(0, "pit", n_before), [], [], []
    for _ in range(N):
        before = split(12 * clustered(rng, n_before, m_before))
        ours, naive = d.pit(cell(150.0, 12 * clustered(rng, n_test, m_test), before))
        p.append(ours["p"])
        rows.append(naive["p"])
        verdicts.append(ours["verdict"])
    assert_size(p)
    assert np.mean(np.array(rows) < 0.05) > 0.5
    assert verdicts.count("concern") <= 0.05 * N


def test_patients_in_both_splits_count_once():
    "The patients' own offsets cancel; taken as different patients they would drown a change."
    rng, p, strangers = stream(0, "own future"), [], []
    names = np.array([f"C{i:02d}" for i in range(40)])
    for _ in range(N):
        offset = rng.normal(size=(40, 1))
        before, after = (12 * (offset + 0.5 * rng.normal(size=(40, 20))) for _ in range(2))
        earlier = before.ravel(), np.repeat(names, 20)
        p.append(d.pit(cell(150.0, after, earlier, names))[0]["p"])
        strangers.append(d.pit(cell(150.0, after, split(before, "D"), names))[0]["p"])
    assert_size(p)
    assert np.mean(np.array(strangers) < 0.05) == 0


def test_gap_of_one_row_each_is_the_smirnov_statistic():
    rng = stream(0, "smirnov")
    test, before = rng.normal(size=(60, 1)), rng.normal(size=(50, 1)) + 0.3
    ours = d.pit(cell(150.0, test, split(before)))[0]
    assert ours["effect"] == pytest.approx(100 * stats.ks_2samp(test.ravel(), before.ravel()).statistic)


def test_larger_errors_break_the_chances():
    rng = stream(0, "larger")
    before = split(12 * clustered(rng, 80, 30))
    ours = d.pit(cell(150.0, 36 * clustered(rng, 80, 30), before, n_resamples=999))[0]
    assert ours["verdict"] == "concern"
    assert ours["p"] == 0.001


def test_nothing_to_compare_with():
    r = clustered(stream(0, "r"), 20, 5)
    assert d.pit(cell(150.0, r)) == []
    few = d.pit(cell(150.0, r, split(r[:4])))
    assert len(few) == 1
    assert "only 4 patients to calibrate with" in few[0]["sentence"]
    binary = replace(STUDY, kind="binary")
    for question in (d.shape, d.distribution, d.pit):
        assert question(cell(150.0, r, split(r), study=binary)) == []


# ----------------------------------------------------------------------------------- invariances, degenerate

QUESTIONS = (d.shape, d.distribution, d.pit)


@pytest.fixture(scope="module")
def world():
    rng = stream(0, "world")
    y, r = 150 + 30 * clustered(rng, 35, 16), 12 * clustered(rng, 35, 16)
    return y, r, split(12 * clustered(rng, 25, 8))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.__name__)
def test_what_may_not_change_an_answer(question, world):
    y, r, before = world
    base = values(question(cell(y, r, before)))
    again = values(question(cell(y, r, before, order=stream(0, "o").permutation(35))))
    twice = values(
        question(cell(np.repeat(y, 2, 1), np.repeat(r, 2, 1), tuple(np.repeat(b, 2) for b in before)))
    )
    moved = values(question(cell(y + 1000, r, before)))
    other = values(question(cell(y / 18, r / 18, (before[0] / 18, before[1]))))
    for test, expected in base.items():
        np.testing.assert_allclose(moved[test], expected, rtol=1e-6, err_msg=f"{test}: constant added")
        np.testing.assert_allclose(twice[test][0], expected[0], rtol=1e-6, err_msg=f"{test}: rows doubled")
        np.testing.assert_allclose(other[test][0], expected[0], rtol=1e-6, err_msg=f"{test}: other unit")
        np.testing.assert_allclose(
            again[test][[0, 2]], expected[[0, 2]], rtol=1e-6, err_msg=f"{test}: other names"
        )


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1), (2, 30), (12, 1), (40, 1), (40, 9)], ids=str)
def test_odd_input_gives_an_answer_and_no_warning(size):
    rng = stream(0, "odd")
    before = split(rng.normal(size=(12, 2)))
    noise, zero = rng.normal(size=size), np.zeros(size)
    lone = np.where(np.arange(noise.size).reshape(size) == 0, 5.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y, r in (
            (150 + noise, zero),
            (150.0, zero + 3),
            (150.0, noise),
            (150 + noise, lone),
            (150 + noise, noise),
        ):
            for question in QUESTIONS:
                for one in question(cell(y, r, before, n_resamples=59)):
                    assert "nan" not in one["sentence"]
                    assert one["verdict"] == "not assessable" or size[0] >= 10
