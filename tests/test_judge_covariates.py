"""Drift and covariates: size, power, exact twins, invariances, degenerate cells, binary studies."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge.contrasts import contrast, contributions, rank_test, ranked, sides, slices_of
from medlab.judge.covariates import covariates, spread_between
from medlab.judge.dependence import clustered, dependence
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
    rows = pd.DataFrame({"s": example.subject, "a": label == "a", "x": np.abs(example.residual)})
    means = rows.groupby(["s", "a"], as_index=False)["x"].mean()  # a patient counts once on each side
    assert len(means) > 1.5 * G
    design = np.column_stack([np.ones(len(means)), means["a"]])
    theirs = cluster_regression(design, means["x"].to_numpy(), means["s"].to_numpy()).test(1)
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


# ---------------------------------------------------------------- patients of unequal length


def ragged(residual, rows, by=None, days=None, study=STUDY, y=150.0, n_resamples=199):
    "A cell from the first `rows[i]` of each patient's residuals (n_subjects, at least max(rows))."
    keep = np.arange(residual.shape[1]) < np.asarray(rows)[:, None]
    full = cell(residual, TOGETHER if days is None else days, {}, study, y, n_resamples)
    columns = {c: getattr(full, c)[keep.ravel()] for c in ("subject", "time", "y", "yhat", "lo", "hi")}
    return replace(
        full, **columns, by={} if by is None else {k: np.asarray(v, object) for k, v in by.items()}
    )


def test_one_missing_label_changes_no_verdict():
    "Fifteen women with two rows are read 14 mg/dL high, three with 300 are not: the average woman is, whatever a lost form says."
    rows, rng = np.repeat([2, 300, 20], [15, 3, 18]), stream(0, "lost label")
    r = 8 * rng.standard_normal((36, 300)) + 14.0 * (np.arange(36) < 15)[:, None]
    sex = np.repeat(np.where(np.arange(36) < 18, "F", "M"), rows)
    whole, answers = np.array(sex, object), []
    for lost in ([], [0], [len(sex) - 1], [0, 500, len(sex) - 1]):
        label = whole.copy()
        label[lost] = "missing"
        one = covariates(ragged(r, rows, {"by_sex": label}, np.arange(300.0)))
        answers.append([numbers(one), [x["sentence"] for x in one], [x["method"] for x in one]])
        assert found(one, "covariate_bias", "by_sex=F")["verdict"] == "concern"
    assert all(np.array_equal(a[0], answers[0][0]) and a[1:] == answers[0][1:] for a in answers)
    label[sex == "M"] = np.where(
        np.arange((sex == "M").sum()) < 20, "missing", "M"
    )  # one man without any form
    levels = slices_of(ragged(r, rows, {"by_sex": label}, np.arange(300.0)))[0]
    assert (list(levels.levels), levels.of_patients) == (["F", "M", "missing"], True)
    # one patient with two labels makes it a column of rows, and the question stays the same one
    label = whole.copy()
    label[-1] = "F"
    moved = found(
        covariates(ragged(r, rows, {"by_sex": label}, np.arange(300.0))), "covariate_bias", "by_sex=F"
    )
    assert moved["verdict"] == "concern" and moved["effect"] == pytest.approx(answers[0][0][1, 2], abs=1)
    assert "patients' means" in moved["method"]


def test_patients_count_alike_in_columns_of_rows():
    "One patient with 400 rows and a trend of his own is one patient."
    rows = np.array([400] + [8] * 39)
    r = 5 * stream(0, "loud").standard_normal((40, 400))
    up = np.tile(np.arange(400) % 2 == 0, (40, 1))
    r[0] += np.where(up[0], 100.0, 0.0)
    keep = np.arange(400) < rows[:, None]
    one = ragged(r, rows, {"by_trend": np.where(up, "rising", "falling")[keep]}, np.arange(400.0))
    gap = found(covariates(one), "covariate_bias", "by_trend=falling")["effect"]
    own = [x[:m][~u[:m]].mean() - x[:m][u[:m]].mean() for x, u, m in zip(r, up, rows, strict=True)]
    assert gap == pytest.approx(np.mean(own))


def test_short_records_do_not_scatter_less():
    "Six rows beside a hundred, memory or none: the ratio is 1, and the test keeps its size; standard deviations of records do not."
    sex = np.where(np.arange(40) % 2, "long", "short")
    rows = np.where(sex == "short", 6, 100)
    for rho in (0.0, 0.7):
        worlds = 15 * clustered(stream(0, "records"), 40, 100, 0.3, rho, (150,))
        lines = [
            found(
                spread_between(ragged(r, rows, {"by_sex": np.repeat(sex, rows)}, np.arange(100.0))),
                "spread_between",
            )
            for r in worlds
        ]
        assert_size([one["p"] for one in lines])
        assert np.exp(np.mean(np.log([one["effect"] for one in lines]))) == pytest.approx(1, abs=0.04)
        naive = [
            stats.ttest_ind(
                np.log(r[sex == "short", :6].std(axis=1)), np.log(r[sex == "long"].std(axis=1))
            ).pvalue
            for r in worlds
        ]
        assert alarms(naive) > 60
    rows = np.where(np.arange(40) < 6, 4, rows)  # too short: they take no part, and are not counted
    one = found(
        spread_between(ragged(worlds[0], rows, {"by_sex": np.repeat(sex, rows)}, np.arange(100.0))),
        "spread_between",
    )
    assert (one["n_subjects"], one["n_rows"]) == (17, 1700) and "short (17 patients)" in one["sentence"]


def test_drift_is_that_of_the_average_patient():
    "One patient with 400 rows whose errors rise does not speak for thirty others."
    rows = np.array([400] + [4] * 30)
    r = 5 * stream(0, "one drifts").standard_normal((31, 400))
    days = np.where(np.arange(31)[:, None] == 0, np.arange(400) / 10.0, np.arange(400) * 13.0)
    r[0] += 5 * days[0]
    one = ragged(r, rows, days=days)
    ours, naive = (found(drift(one), test)["effect"] for test in ("drift_bias", "drift_bias_rows"))
    weight = 1 / rows[one.subject]
    time = one.time / np.ptp(one.time)
    design = np.column_stack([np.ones(len(time)), time]) * np.sqrt(weight)[:, None]
    assert ours == pytest.approx(np.linalg.lstsq(design, np.sqrt(weight) * one.residual)[0][1])
    assert naive > 4 * abs(ours)
    growth = found(drift(one), "drift_error")["tolerance"]
    assert growth == pytest.approx(0.25 * one.means(np.abs(one.residual)).mean())


def test_rows_of_a_group_count_the_group(worlds):
    rows = covariates(cell(worlds[0])) + spread_between(cell(worlds[0]))
    for test in ("covariate_error", "covariate_bias", "covariate_error_rows", "spread_between"):
        one = found(rows, test, "by_sex=female")
        assert (one["n_subjects"], one["n_rows"]) == (24, 480)
    women = dependence(np.abs(worlds[0][:24]).ravel(), np.repeat(np.arange(24), M))
    assert found(rows, "covariate_error", "by_sex=female")["icc"] == pytest.approx(women.icc)
    few = cell(worlds[0], by={"by_sex": np.repeat(np.where(np.arange(G) < 6, "a", "b"), M)})
    one = found(covariates(few), "covariate_error")  # six patients of sixty: judged, as all sixty are at hand
    assert one["n_subjects"] == 6 and one["verdict"] != "not assessable" and one["p"] > 0


def test_sentences_name_the_quantity_and_its_sign(worlds):
    for sign, text in ((3, "+"), (-3, "-")):
        rows = drift(cell(worlds[0] + sign * ENTRY / 30, ENTRY))
        bias, error = found(rows, "drift_bias")["sentence"], found(rows, "drift_error")["sentence"]
        assert f"(predicted minus true value) changes by {text}" in bias
        assert "the mean absolute error in the average patient" in error
        assert "falls" not in bias + error
    r = worlds[0] * (2 - ENTRY / 360)
    lines = drift(cell(r, ENTRY))
    for test in ("drift_error", "drift_patients"):
        one = found(lines, test)
        assert one["verdict"] == "ok" and "which would matter, is ruled out" in one["sentence"]
    assert "in the average patient" in found(covariates(cell(r)), "covariate_error")["sentence"]


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
    every = np.arange(G * M).astype(str)  # a value of its own in each row
    (one,) = {
        x["sentence"]
        for x in covariates(cell(worlds[0], by={"by_age": every}))
        if x["test"] == "covariate_bias"
    }
    assert f"age has {G * M} values" in one


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


def rare(rng, n, prevalence, spread=0.7):
    "Right risks (n, 1) of that average, and what happened."
    logit = np.log(prevalence / (1 - prevalence)) + spread * rng.standard_normal((n, 1))
    truth = 1 / (1 + np.exp(-logit))
    return truth, (rng.random((n, 1)) < truth).astype(float)


def bias_of_group(truth, y, group, **more):
    one = cell(truth - y, np.zeros((1, 1)), {"by_sex": group}, BINARY, y, **more)
    return found(covariates(one), "covariate_bias")


def test_a_group_without_events_is_no_concern():
    "Twelve of 200 people, one in ten has the event: their spread is an accident, and nothing is said."
    lines = [
        bias_of_group(*rare(stream(i, "few"), 200, 0.1), np.repeat(["a", "b"], [12, 188])) for i in range(150)
    ]
    assert np.mean([one["verdict"] == "concern" for one in lines]) < 0.01
    quiet = next(one for one in lines if one["verdict"] == "not assessable")
    assert "of 12 patients there had the event, at least 5 are needed" in quiet["sentence"]
    assert np.isnan(quiet["p"])
    large = [
        bias_of_group(*rare(stream(i, "few"), 200, 0.1), np.repeat(["a", "b"], [60, 140])) for i in range(150)
    ]
    assert np.mean([one["verdict"] == "concern" for one in large]) < 0.03
    assert np.mean([one["verdict"] == "unclear" for one in large]) > 0.6
    y = np.tile([[0.0], [1.0]], (12, 1))
    few = bias_of_group(np.full((24, 1), 0.5), y, np.repeat(["a", "b"], 12))
    assert few["verdict"] == "not assessable" and "24 patients are too few, at least 30" in few["sentence"]
    assert (
        "30" in found(drift(cell(0.5 - y, np.arange(24.0)[:, None], {}, BINARY, y)), "drift_bias")["sentence"]
    )


def test_limits_of_risks_shrink_with_the_risk():
    "Prevalence 1.6 %: a model that gives women three times their risk is not 'ok' because three points are few."
    rng, n = stream(0, "rare"), 6000
    truth, y = rare(rng, n, 0.016)
    women = np.arange(n) < n // 2
    said = np.where(women[:, None], 3 * truth, truth)
    one = bias_of_group(said, y, np.where(women, "F", "M"), n_resamples=49)
    assert one["effect"] < 5 and one["verdict"] == "concern"
    assert one["tolerance"] == pytest.approx(20 * y.mean())
    days = np.linspace(0, 300, n)[:, None]
    later = cell(truth * (1 + days / 100) - y, days, {}, BINARY, y, n_resamples=49)
    line = found(drift(later), "drift_bias")
    assert line["verdict"] == "concern" and 10 * line["effect"] < 6
    assert found(drift(later), "drift_patients")["tolerance"] == pytest.approx(20 * y.mean())
    y[:] = 0
    y[:4] = 1
    none = found(drift(cell(truth - y, days, {}, BINARY, y, n_resamples=49)), "drift_bias")
    assert none["verdict"] == "not assessable" and "only 4 of" in none["sentence"]
