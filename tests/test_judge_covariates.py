"""Drift and covariates: size, power, exact twins, invariances, degenerate cells, binary studies."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge.contrasts import contrast, contributions, rank_test, ranked, sides, slices_of
from medlab.judge.covariates import covariates, spread_between
from medlab.judge.dependence import clustered
from medlab.judge.drift import drift
from medlab.judge.engines import cluster_regression
from medlab.judge.verdicts import COLUMNS, Cell

GLUCOSE = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "a source", 15, 0.15, "another source")
STUDY = Study(
    "example", "Example", "Where is glucose going?", "regression", (GLUCOSE,), (60.0,), "min", "UTC timestamp",
    "model", "persistence", ("sex", "age", "trend", "absent"), "To test.", "Anything else.",
)  # fmt: skip
RISK = Target("death", "Death", "probability", 0, 1, 0.05, "a source", 0.1, 0.0, "another source")
BINARY = replace(STUDY, kind="binary", targets=(RISK,))
DAY = 86_400_000
N, G, M = 240, 60, 20  # simulated studies, patients, rows of each
QUESTIONS = (drift, covariates, spread_between)
ENTRY = np.linspace(0, 340, G)[:, None] + np.arange(M)  # one patient after the other
TOGETHER = np.zeros((G, 1)) + np.arange(M)
SEX = np.repeat(np.where(np.arange(G) < 24, "female", "male"), M)
AGE = np.repeat(np.array(["18-39", "40-64", "65+"])[np.arange(G) % 3], M)
BY = {"by_sex": SEX, "by_age": AGE}


def cell(residual, days=TOGETHER, by=BY, study=STUDY, y=150.0, n_resamples=199):
    n_subjects, n_rows = residual.shape
    y = np.broadcast_to(y, residual.shape).ravel().astype(float)
    time = (
        None
        if days is None
        else np.rint(np.broadcast_to(days, residual.shape) * DAY).astype(np.int64).ravel()
    )
    empty = np.full(len(y), np.nan)
    return Cell(
        study, study.targets[0], 60.0, "all", np.arange(n_subjects), np.repeat(np.arange(n_subjects), n_rows), time,
        y, y + residual.ravel(), empty, empty, None, 0.9, n_resamples=n_resamples, by=by,
    )  # fmt: skip


def found(rows, test, group=None):
    return next(one for one in rows if one["test"] == test and group in (None, one["group"]))


def alarms(p):
    return int((np.asarray(p) < 0.05).sum())


def assert_size(p):
    low, high = stats.binom.interval(0.999, len(p), 0.05)
    assert low <= alarms(p) <= high, f"{alarms(p)} false alarms of {len(p)}; {low:.0f} to {high:.0f} expected"


@pytest.fixture(scope="module")
def worlds():
    "Simulated studies in which nothing drifts and no group differs."
    return 15 * clustered(stream(0, "drift and covariates"), G, M, 0.3, 0.7, (N,))


# ---------------------------------------------------------------- size, negative controls, power


def test_drift_keeps_its_size_where_rows_do_not(worlds):
    entering = [drift(cell(r, ENTRY)) for r in worlds]
    together = [drift(cell(r, TOGETHER)) for r in worlds]
    for test in ("drift_error", "drift_bias", "drift_patients"):
        assert_size([found(rows, test)["p"] for rows in entering])
    for test in ("drift_error", "drift_bias"):
        assert_size([found(rows, test)["p"] for rows in together])
    assert alarms([found(rows, "drift_bias_rows")["p"] for rows in entering]) > 0.3 * N
    assert alarms([found(rows, "drift_bias_rows")["p"] for rows in together]) > 0.15 * N


def test_covariates_keep_their_size_where_rows_do_not(worlds):
    other = clustered(
        stream(1, "labels"), G, M, 0.3, 0.7, (N,)
    )  # labels that linger within patients, as errors do
    rows = [
        covariates(cell(r, by=BY | {"by_trend": np.where(o.ravel() > 0, "rising", "falling")}))
        for r, o in zip(worlds, other, strict=True)
    ]
    for test in ("covariate_error", "covariate_bias"):
        for group in ("by_sex=female", "by_age=65+", "by_trend=falling"):
            assert_size([found(one, test, group)["p"] for one in rows])
    assert alarms([found(one, "covariate_error_rows", "by_sex=female")["p"] for one in rows]) > 0.15 * N
    patients = [[x for x in one if x["adjustment"]] for one in rows]
    assert all(len(one) == 8 for one in patients)
    assert_size(
        [min(x["p_adjusted"] for x in one) for one in patients]
    )  # any alarm among all groups and both questions
    naive = [stats.mannwhitneyu(r.ravel()[SEX == "female"], r.ravel()[SEX == "male"]).pvalue for r in worlds]
    assert alarms(naive) > 0.35 * N


def test_spread_between_keeps_its_size_where_rows_do_not(worlds):
    rows = [spread_between(cell(r)) for r in worlds]
    assert_size([found(one, "spread_between", "by_sex=female")["p"] for one in rows])
    assert_size([min(x["p_adjusted"] for x in one if x["adjustment"]) for one in rows])
    assert alarms([found(one, "spread_between_rows")["p"] for one in rows]) > 0.15 * N


def test_intervals_of_effects_hold_the_truth(worlds):
    "Nothing drifts, and all groups are alike: 0 and 1 lie in 95 % of intervals; also for a group of six."
    few = {"by_sex": np.repeat(np.where(np.arange(G) < 6, "diverse", "other"), M)}
    for question, test, truth, by in (
        (drift, "drift_bias", 0, BY),
        (covariates, "covariate_error", 1, few),
        (covariates, "covariate_bias", 0, few),
        (spread_between, "spread_between", 1, few),
    ):
        rows = [found(question(cell(r, by=by, n_resamples=19)), test) for r in worlds]
        held = np.mean([one["effect_low"] < truth < one["effect_high"] for one in rows])
        assert 0.9 <= held <= 0.99, f"{test}: {held:.3f}"


def test_what_is_planted_is_found(worlds):
    r = worlds[:40]
    moving = [drift(cell(one + 2 / 30 * ENTRY, ENTRY)) for one in r]
    assert np.mean([found(rows, "drift_bias")["p"] < 0.05 for rows in moving]) > 0.9
    estimates = [found(rows, "drift_bias")["effect"] for rows in moving]
    assert np.mean(estimates) == pytest.approx(2, abs=0.3)
    growing = [drift(cell(one * (1 + ENTRY / 360), ENTRY)) for one in r]
    assert np.mean([found(rows, "drift_error")["p"] < 0.05 for rows in growing]) > 0.9
    assert np.mean([found(rows, "drift_patients")["p"] < 0.05 for rows in growing]) > 0.8
    wider = np.where(SEX == "female", 1.6, 1.0).reshape(G, M)
    rows = [covariates(cell(one * wider)) for one in r]
    of_women = [found(one, "covariate_error", "by_sex=female") for one in rows]
    assert np.mean([one["p_adjusted"] < 0.05 for one in of_women]) > 0.8
    assert np.exp(np.mean(np.log([one["effect"] for one in of_women]))) == pytest.approx(1.6, rel=0.08)
    shifted = [covariates(cell(one + 12 * (SEX == "female").reshape(G, M))) for one in r]
    assert np.mean([found(one, "covariate_bias", "by_sex=female")["p"] < 0.05 for one in shifted]) > 0.9
    scattered = [found(spread_between(cell(one * wider)), "spread_between", "by_sex=female") for one in r]
    assert np.mean([one["p"] < 0.05 for one in scattered]) > 0.9
    assert np.exp(np.mean(np.log([one["effect"] for one in scattered]))) == pytest.approx(1.6, rel=0.05)


# ---------------------------------------------------------------- exact twins


def test_drift_with_one_row_per_patient_is_a_line_with_hc3_errors():
    from statsmodels.api import OLS, add_constant

    rng = stream(0, "one row each")
    days, r = rng.uniform(0, 100, (40, 1)).round(3), 15 * rng.standard_normal((40, 1))
    ours = found(drift(cell(r, days, {})), "drift_bias")
    line = stats.linregress(days.ravel() / 30, r.ravel())
    robust = OLS(r.ravel(), add_constant(days.ravel() / 30)).fit().HC3_se[1] * np.sqrt(39 / 40)
    reach = stats.t.ppf(0.975, 39) * robust
    assert ours["effect_unit"] == "mg/dL per 30 days"
    assert ours["effect"] == pytest.approx(line.slope, rel=1e-9)
    assert ours["effect_high"] - ours["effect"] == pytest.approx(reach, rel=1e-9)
    assert found(drift(cell(r, days, {})), "drift_bias_rows")["p"] == pytest.approx(line.pvalue, rel=1e-9)


def test_newest_against_first_is_welch_between_quarters_of_patients(worlds):
    one = found(drift(cell(worlds[0], ENTRY, n_resamples=4000)), "drift_patients")
    size = np.abs(worlds[0]).mean(axis=1)
    welch = stats.ttest_ind(size[-15:], size[:15], equal_var=False)
    assert (one["effect_low"], one["effect_high"]) == pytest.approx(tuple(welch.confidence_interval()))
    assert one["p"] == pytest.approx(welch.pvalue, abs=0.03)
    assert not [x for x in drift(cell(worlds[0], TOGETHER)) if x["test"] == "drift_patients"]


def test_contrast_of_sums_is_the_regression_with_cr3(worlds):
    rng = stream(0, "uneven labels")
    label = np.where(rng.random((G, M)) < rng.beta(1, 1, (G, 1)), "a", "b").ravel()
    example = cell(worlds[1], by={"by_trend": label})
    part = slices_of(example)[0]
    ours = contrast(*sides(contributions(example, part, np.abs(example.residual)), 0))
    design = np.column_stack([np.ones(G * M), label == "a"])
    theirs = cluster_regression(design, np.abs(example.residual), example.subject).test(1)
    assert (ours.estimate, ours.se) == pytest.approx((theirs.estimate, theirs.se), rel=1e-9)


def test_rank_test_is_the_asymptotic_mann_whitney_test_and_cliffs_delta():
    rng = stream(0, "ranks")
    x, group = rng.integers(0, 9, 80), rng.random(80) < 0.3
    u, p, delta = rank_test(*ranked(x), group)
    theirs = stats.mannwhitneyu(x[group], x[~group], method="asymptotic")
    assert (u, p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-12)
    assert delta == pytest.approx(np.sign(x[group][:, None] - x[~group]).mean())


def test_effects_are_what_they_say(worlds):
    r = worlds[2]
    rows, size, women = covariates(cell(r)), np.abs(r).mean(axis=1), SEX.reshape(G, M)[:, 0] == "female"
    assert found(rows, "covariate_error")["effect"] == pytest.approx(size[women].mean() / size[~women].mean())
    assert found(rows, "covariate_bias")["effect"] == pytest.approx(r[women].mean() - r[~women].mean())
    spread = found(spread_between(cell(r)), "spread_between")["effect"]
    log_sd = np.log(r.std(axis=1))
    assert spread == pytest.approx(np.exp(log_sd[women].mean() - log_sd[~women].mean()))
    short = found(drift(cell(r)), "drift_bias")
    slope = stats.linregress(TOGETHER.ravel(), r.ravel()).slope
    assert (short["effect"], short["effect_unit"]) == (pytest.approx(19 * slope), "mg/dL over 19 days")


def test_two_values_are_judged_once_and_from_both_sides(worlds):
    better = worlds[3] * np.where(SEX == "female", 0.4, 1.0).reshape(G, M)
    rows = covariates(cell(better, by={"by_sex": SEX}))
    assert [one["group"] for one in rows] == ["by_sex=female"] * 3
    assert found(rows, "covariate_error")["verdict"] == "concern"  # much better in women is much worse in men
    age = np.where(AGE == "65+", 0.3, 1.0).reshape(G, M)
    assert found(covariates(cell(worlds[3] * age)), "covariate_error", "by_age=65+")["verdict"] == "ok"


# ---------------------------------------------------------------- invariances


def everything(example):
    return [one for question in QUESTIONS for one in question(example)]


def numbers(rows):
    columns = ["p", "p_adjusted", "effect", "effect_low", "effect_high"]
    return np.array([[one[c] for c in columns] for one in rows if not one["assumes_independence"]])


@pytest.fixture(scope="module")
def plain(worlds):
    label = np.where(worlds[5].ravel() > 0, "rising", "falling")
    return cell(
        worlds[4], ENTRY, BY | {"by_trend": label}, y=150 + 20 * np.cos(np.arange(G * M)).reshape(G, M)
    )


def rearranged(example, order, names):
    "The same rows in the order in which a battery would sort them under other names."
    columns = {c: getattr(example, c)[order] for c in ("time", "y", "yhat", "lo", "hi")}
    by = {c: labels[order] for c, labels in example.by.items()}
    return replace(example, subject=names[example.subject][order], by=by, **columns)


def test_names_of_patients_do_not_matter(plain):
    names = stream(0, "names").permutation(G)
    order = np.lexsort((plain.time, names[plain.subject]))
    assert numbers(everything(rearranged(plain, order, names))) == pytest.approx(
        numbers(everything(plain)), nan_ok=True
    )


def test_every_row_twice_changes_nothing(plain):
    twice = np.repeat(np.arange(G * M), 2)
    assert numbers(everything(rearranged(plain, twice, np.arange(G)))) == pytest.approx(
        numbers(everything(plain)), nan_ok=True
    )


def test_adding_a_constant_and_shifting_the_clock_changes_nothing(plain):
    moved = replace(plain, y=plain.y + 50, yhat=plain.yhat + 50, time=plain.time + 17 * DAY)
    assert numbers(everything(moved)) == pytest.approx(numbers(everything(plain)), nan_ok=True)


def test_a_change_of_unit_scales_effects_only(plain):
    target = replace(GLUCOSE, unit="mmol/L", bias_tolerance=6 / 18)
    other = replace(
        plain, study=replace(STUDY, targets=(target,)), target=target, y=plain.y / 18, yhat=plain.yhat / 18
    )
    before, after = everything(plain), everything(other)
    for a, b in zip(before, after, strict=True):
        factor = 18 if "mg/dL" in a["effect_unit"] else 1
        assert b["p"] == pytest.approx(a["p"], nan_ok=True)
        assert factor * b["effect"] == pytest.approx(a["effect"])
        assert b["verdict"] == a["verdict"]


# ---------------------------------------------------------------- small and strange cells


def assert_calm(example):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = everything(example)
    assert all(set(one) == set(COLUMNS) for one in rows)
    return rows


@pytest.mark.parametrize("study", [STUDY, BINARY], ids=lambda s: s.kind)
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 30), (2, 1), (2, 20), (3, 2), (9, 5), (12, 1), (40, 1), (11, 4)], ids=str
)
def test_small_cells_give_rows_and_no_warnings(shape, study):
    rng = stream(0, "small", *shape)
    sex = np.repeat(np.where(np.arange(shape[0]) % 2, "female", "male"), shape[1])
    trend = np.where(rng.random(shape[0] * shape[1]) < 0.5, "rising", "missing")
    y = rng.integers(0, 2, shape) if study.kind == "binary" else 150.0
    residual = rng.uniform(0, 1, shape) - y if study.kind == "binary" else 15 * rng.standard_normal(shape)
    days = rng.uniform(0, 400, shape).round(2)
    for clock in (days, np.zeros(shape), None):
        rows = assert_calm(cell(residual, clock, {"by_sex": sex, "by_trend": trend}, study, y))
        if shape[0] < 10:
            assert {one["verdict"] for one in rows} <= {"not assessable"}
        if clock is not days:
            assert found(rows, "drift_bias")["verdict"] == "not assessable"
    if shape[0] == 40:
        assert np.isfinite(found(rows, "covariate_bias", "by_sex=female")["p"])


@pytest.mark.parametrize("residual", [0.0, 3.0, -1.5], ids=str)
def test_constant_errors_are_not_judged(residual):
    for r in (np.full((G, M), residual), residual * (-1.0) ** np.arange(M) + np.zeros((G, 1))):
        rows = assert_calm(cell(r, ENTRY))
        assert found(rows, "drift_error")["verdict"] == "not assessable"
        assert found(rows, "covariate_error")["verdict"] == "not assessable"
        assert found(rows, "spread_between")["verdict"] == "not assessable"


def test_errors_in_one_group_only_do_not_break_anything():
    r = np.where(SEX == "female", 15 * stream(0, "half").standard_normal(G * M), 0.0).reshape(G, M)
    assert_calm(cell(r, ENTRY))
    assert_calm(cell(r[:, ::-1] * (np.arange(M) < 1), ENTRY))


def test_groups_that_cannot_be_compared_say_why(worlds):
    few = np.repeat(np.where(np.arange(G) < 3, "diverse", np.where(np.arange(G) < 30, "female", "male")), M)
    many = np.repeat(np.array([f"{k:02d}" for k in range(20)])[np.arange(G) % 20], M)
    rows = covariates(cell(worlds[0], by={"by_sex": few, "by_age": many, "by_trend": np.full(G * M, "flat")}))
    small = found(rows, "covariate_error", "by_sex=diverse")
    assert small["verdict"] == "not assessable" and np.isnan(small["p"])
    assert "3 patients are there, at least 5 are needed" in small["sentence"]
    assert np.isfinite(found(rows, "covariate_error", "by_sex=female")["p"])
    assert "age has 20 values" in found(rows, "covariate_error", "by_age")["sentence"]
    assert "trend is flat in all rows" in found(rows, "covariate_error", "by_trend")["sentence"]


# ---------------------------------------------------------------- yes-or-no outcomes


def outcomes(rng, shift=0.0):
    "Risks with a patient's own level that are right on average, and read too high by `shift`."
    logit = -1 + rng.standard_normal((G, 1)) + 0.5 * rng.standard_normal((G, M))
    truth = 1 / (1 + np.exp(-logit))
    y = (rng.random((G, M)) < truth).astype(float)
    return y, np.clip(truth + shift, 0, 1) - y


def test_binary_studies_are_judged_on_p_minus_y():
    quiet = [outcomes(stream(i, "quiet")) for i in range(150)]
    drifts = [drift(cell(r, ENTRY, study=BINARY, y=y)) for y, r in quiet]
    gaps = [covariates(cell(r, study=BINARY, y=y)) for y, r in quiet]
    assert {one["test"] for one in drifts[0]} == {"drift_bias", "drift_bias_rows", "drift_patients"}
    assert {one["test"] for one in gaps[0]} == {"covariate_bias", "covariate_bias_rows"}
    assert spread_between(cell(quiet[0][1], study=BINARY, y=quiet[0][0])) == []
    for test in ("drift_bias", "drift_patients"):
        assert_size([found(rows, test)["p"] for rows in drifts])
    assert_size([found(rows, "covariate_bias", "by_sex=female")["p"] for rows in gaps])
    y, r = outcomes(stream(0, "shift"), 0.15 * (SEX == "female").reshape(G, M))
    women = found(covariates(cell(r, study=BINARY, y=y)), "covariate_bias", "by_sex=female")
    assert women["effect_unit"] == "percentage points" and women["verdict"] == "concern"
    assert women["effect"] == pytest.approx(100 * (r[:24].mean() - r[24:].mean()))
    y, r = outcomes(stream(0, "later"), 0.3 * ENTRY / ENTRY.max())
    assert found(drift(cell(r, ENTRY, study=BINARY, y=y)), "drift_bias")["verdict"] == "concern"
