"""Binary outcomes: calibration, curve, discrimination, net benefit. Size, references, oracles, invariances, small inputs."""

import re
from dataclasses import replace
from importlib import import_module
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import calibration_curve, chances, discrimination, metrics, recalibration, risks
from medlab.judge.verdicts import COLUMNS, Cell

SEPSIS = Target("sepsis", "Sepsis", "risk", 0, 1, 0.05, "a source", 0.1, 0.0, "a source", 2)
STUDY = Study(
    "example", "Example", "Who will fall ill?", "binary", (SEPSIS,), (6.0,), "h", "UTC timestamp", "model", "base rate",
    (), "To test.", "Anything else.",
)  # fmt: skip
N = 200  # simulated studies per size test
CALIBRATION = (
    risks.calibration_in_the_large,
    recalibration.calibration_intercept,
    recalibration.calibration_slope,
    risks.spiegelhalter,
    risks.hosmer_lemeshow,
    calibration_curve.flexible_calibration,
)
QUESTIONS = (*CALIBRATION, discrimination.discrimination, discrimination.net_benefit)


def cell(p, y, subject=None, n_resamples=199):
    "From (patients, rows) arrays, or from flat ones with a patient for each row."
    p, y = np.asarray(p, float), np.asarray(y, float)
    subject = np.repeat(np.arange(len(p)), p.shape[1]) if subject is None else np.asarray(subject)
    names, empty = np.arange(subject.max() + 1), np.full(y.size, np.nan)
    return Cell(
        STUDY, SEPSIS, 6.0, "all", names, subject, None, y.ravel(), p.ravel(), empty, empty, None, np.nan,
        n_resamples=n_resamples,
    )  # fmt: skip


def answers(one, questions=QUESTIONS):
    return pd.DataFrame([line for question in questions for line in question(one)]).set_index("test")


def assert_size(p):
    low, high = stats.binom.interval(0.999, len(p), 0.05)
    alarms = int((np.asarray(p) < 0.05).sum())
    assert low <= alarms <= high, f"{alarms} false alarms of {len(p)}; {low:.0f} to {high:.0f} expected"


# --------------------------------------------------------------------------- size and coverage: (60, 20, .3, .7)


@pytest.fixture(scope="module")
def perfect():
    "What the battery says of models that tell the true risks."
    p, y = risks.clustered_risks(stream(0, "binary worlds"), 60, 20, sets=(N,))
    return pd.concat([answers(cell(a, b), CALIBRATION) for a, b in zip(p, y, strict=True)])


def test_simulated_risks_come_true_and_outcomes_of_a_patient_resemble_each_other():
    p, y = risks.clustered_risks(stream(0, "true"), 20_000, 10, prevalence=0.15)
    assert p.mean() == pytest.approx(0.15, abs=0.003)
    for low, high in ((0, 0.05), (0.1, 0.12), (0.4, 0.6)):
        among = (p > low) & (p < high)
        assert y[among].mean() == pytest.approx(p[among].mean(), abs=0.02)
    gap = y - p
    assert gap.sum(axis=1).var() > 2 * (p * (1 - p)).sum(axis=1).mean()


@pytest.mark.parametrize(
    "test",
    [
        "calibration_in_the_large",
        "calibration_intercept",
        "calibration_slope",
        "calibration_joint",
        "spiegelhalter",
        "flexible_calibration",
    ],
)
def test_perfect_models_are_accused_as_often_as_promised(perfect, test):
    assert_size(perfect.loc[test, "p"])
    assert (perfect.loc[test, "verdict"] == "concern").mean() <= 0.025


@pytest.mark.parametrize(
    "test",
    [
        "calibration_in_the_large_rows",
        "calibration_slope_rows",
        "spiegelhalter_rows",
        "hosmer_lemeshow_rows",
    ],
)
def test_tests_on_rows_accuse_perfect_models(perfect, test):
    assert (perfect.loc[test, "p"] < 0.05).mean() > 0.2
    assert perfect.loc[test, "assumes_independence"].all()


def test_intervals_of_calibration_hold_the_truth(perfect):
    for test, truth in (("calibration_in_the_large", 1), ("calibration_intercept", 0), ("calibration_slope", 1), ("spiegelhalter", 0), ("flexible_calibration", 0)):  # fmt: skip
        rows = perfect.loc[test]
        held = ((rows["effect_low"] <= truth) & (truth <= rows["effect_high"])).mean()
        assert 0.89 <= held <= 0.99, test  # 199 resamples, so somewhat short


def test_the_curves_index_holds_its_true_value_where_the_model_is_wrong():
    "Told risks are a known function of the true ones, so that the true index is an average."
    p, y = risks.clustered_risks(stream(1, "wrong"), 60, 20, sets=(60,))
    truth = 100 * np.mean(0.5 * p * (1 - p))
    rows = [
        calibration_curve.flexible_calibration(cell(a + 0.5 * a * (1 - a), b))[0]
        for a, b in zip(p, y, strict=True)
    ]
    assert np.mean([one["effect_low"] <= truth <= one["effect_high"] for one in rows]) >= 0.92
    assert np.mean([one["effect"] for one in rows]) == pytest.approx(truth, abs=0.5)


def test_a_useless_score_is_not_called_useful():
    _, y = risks.clustered_risks(stream(2, "useless"), 60, 20, sets=(N,))
    other, _ = risks.clustered_risks(stream(3, "useless"), 60, 20, sets=(N,))
    rows = pd.concat(
        [
            answers(cell(a, b), (discrimination.discrimination, discrimination.net_benefit))
            for a, b in zip(other[:150], y[:150], strict=True)
        ]
    )
    assert_size(rows.loc["auroc", "p"])
    assert (rows.loc["auroc_rows", "p"] < 0.05).mean() > 0.2
    assert (rows.loc["auroc", "verdict"] == "ok").mean() <= 0.06
    assert (rows.loc["average_precision", "verdict"] == "ok").mean() <= 0.06
    assert (rows.loc["net_benefit_30", "verdict"] == "ok").mean() <= 0.06


def uneven(seed, n, correlation=0.2, n_subjects=40):
    "Perfect models of patients of whom a quarter bring nearly all rows."
    for i in range(n):
        rng = stream(seed, "uneven", i)
        subject = np.repeat(np.arange(n_subjects), rng.choice([1, 2, 10, 200], n_subjects))
        x, luck = (
            np.sqrt(share) * rng.standard_normal(n_subjects)[subject]
            + np.sqrt(1 - share) * rng.standard_normal(len(subject))
            for share in (0.5, correlation)
        )
        p = expit(x - 1.4)
        yield p, (stats.norm.cdf(luck) < p).astype(float), subject


def test_patients_who_bring_most_rows_do_not_make_perfect_models_look_wrong():
    asked = (
        risks.calibration_in_the_large,
        recalibration.calibration_intercept,
        recalibration.calibration_slope,
        risks.spiegelhalter,
        calibration_curve.flexible_calibration,
    )
    rows = pd.concat([answers(cell(*one, n_resamples=99), asked) for one in uneven(0, 100)])
    rows = rows[~rows["assumes_independence"]]
    alarms = (rows["p"] < 0.05).groupby(level=0).sum()
    assert (alarms <= stats.binom.interval(0.999, 100, 0.06)[1]).all(), alarms.to_dict()
    naive = 0  # negative control: all patients alike, as Student's distribution of G - 1 has it
    for p, y, subject in uneven(0, 100):
        fit = recalibration.logistic_regression(np.column_stack([np.ones_like(p), logit(p)]), y, subject)
        off = fit.coefficients - [0, 1]
        naive += stats.f.sf(off @ np.linalg.inv(fit.covariance) @ off / 2, 2, subject.max()) < 0.05
    assert naive > alarms["calibration_joint"]


@pytest.mark.parametrize(("n_subjects", "sizes"), [(40, (1, 2, 10, 200)), (40, (10,)), (100, (1, 3, 7, 20, 60))])  # fmt: skip
def test_a_useless_score_is_not_called_useful_where_the_outcome_belongs_to_the_patient(n_subjects, sizes):
    ours, obuchowski = [], []
    for i in range(300):
        rng = stream(i, "of the patient")
        subject = np.repeat(np.arange(n_subjects), rng.choice(sizes, n_subjects))
        y, score = (rng.random(n_subjects) < 0.3).astype(float)[subject], rng.random(n_subjects)[subject]
        if not 5 <= len(np.unique(subject[y == 1])) <= n_subjects - 5:
            continue
        found = discrimination.auroc_test(y, score, subject)
        sums = np.bincount(subject, discrimination.auroc_influence(y, score))
        t = (found.estimate - 0.5) / np.sqrt((sums**2).sum() * n_subjects / (n_subjects - 1))
        ours.append(found.p < 0.05)
        obuchowski.append(2 * stats.t.sf(abs(t), n_subjects - 1) < 0.05)
        assert ours[-1] == (found.low > 0.5 or found.high < 0.5)  # one story
        assert found.low <= found.estimate <= found.high
    assert sum(ours) <= stats.binom.interval(0.999, len(ours), 0.05)[1]
    assert sum(obuchowski) > sum(ours)
    if max(sizes) == 200:
        assert np.mean(obuchowski) > 0.1


def test_calibration_p_and_interval_tell_one_story(perfect):
    for test, truth in (("calibration_in_the_large", 1), ("calibration_intercept", 0), ("calibration_slope", 1), ("spiegelhalter", 0)):  # fmt: skip
        rows = perfect.loc[test]
        outside = (rows["effect_low"] > truth) | (rows["effect_high"] < truth)
        assert (outside == (rows["p"] < 0.05)).all(), test


def test_too_few_events_are_no_ground_for_a_verdict():
    "Two events in three hundred patients once gave '98.9 % smaller (-99.0 to -98.8 %)'."
    rng = stream(0, "rare")
    p, y = rng.beta(1, 140, 300), (np.arange(300) < 2).astype(float)
    found = answers(cell(p, y, np.arange(300)))
    ours = found[~found["assumes_independence"]]
    assert (ours["verdict"] == "not assessable").all()
    assert ours["p"].isna().all()
    assert "only 2 of 300 patients had the event" in found.loc["spiegelhalter", "sentence"]
    alarms = 0
    for i in range(200):
        rng = stream(i, "rare")
        p = rng.beta(1, 60, 300)
        line = risks.spiegelhalter(cell(p, (rng.random(300) < p).astype(float), np.arange(300)))[0]
        alarms += line["verdict"] == "concern"
    assert alarms <= 8


def test_every_function_named_exists(study):
    p, y, subject = study
    for name in answers(cell(p, y, subject))["function"].unique():
        module, _, function = name.rpartition(".")
        assert hasattr(import_module(module), function), name


def test_numbers_in_a_sentence_agree_in_sign():
    shown = re.compile(r"(-?[\d.,]+) (?:% (?:larger|smaller)|percentage points (?:high|low)|(?:more|less) than).*?interval (-?[\d.,]+) to (-?[\d.,]+)")  # fmt: skip
    seen = set()
    p, y = (v.ravel() for v in risks.clustered_risks(stream(4, "signs"), 60, 20, 0.1))
    for told in (p, p / 2, np.sqrt(p), expit(2 * logit(p)), expit(logit(p) / 2), np.roll(p, 300)):
        for test, line in answers(cell(told, y, np.repeat(np.arange(60), 20))).iterrows():
            if (match := shown.search(line["sentence"])) and not test.startswith("flexible"):
                size, low, high = (float(text.replace(",", "")) for text in match.groups())
                assert low <= size <= high, line["sentence"]
                assert size == pytest.approx(abs(line["effect"]), abs=0.051)
                seen.add((test, line["effect"] >= 0))
    for test in ("spiegelhalter", "calibration_joint"):
        assert {(test, True), (test, False)} <= seen
    assert {at for test, at in seen if test.startswith("net_benefit")} == {True, False}


def test_scores_are_called_scores(study):
    p, y, subject = study
    one = cell(p, y, subject)
    assert "the higher risk in" in discrimination.discrimination(one)[0]["sentence"]
    score = replace(one, study=replace(STUDY, kind="score"))
    assert "the higher score in" in discrimination.discrimination(score)[0]["sentence"]


def test_miscalibration_is_found():
    p, y = risks.clustered_risks(stream(4, "found"), 100, 30, 0.1)
    found = answers(cell(expit(2 * logit(p)), y))
    assert found.loc["calibration_slope", "verdict"] == "concern"
    assert found.loc["calibration_slope", "effect"] == pytest.approx(0.5, abs=0.1)
    assert "too extreme" in found.loc["calibration_slope", "sentence"]
    assert found.loc["spiegelhalter", "effect"] > 0
    low = answers(cell(p / 2, y))
    assert low.loc["calibration_in_the_large", "effect"] == pytest.approx(2, abs=0.2)
    assert "too low" in low.loc["calibration_in_the_large", "sentence"]
    assert low.loc["flexible_calibration", "verdict"] == "concern"


# ------------------------------------------------------------------------------------------------ reference values


@pytest.fixture(scope="module")
def births():
    "Low birth weight, 189 births (Hosmer and Lemeshow), and the fitted risks of Stata's example."
    import statsmodels.formula.api as formula
    from statsmodels.genmod.families import Binomial

    data = pd.read_csv(files("statsmodels.genmod") / "tests/results/stata_lbw_glm.csv")
    data["race"] = data["race"].str.strip('"')
    fit = formula.glm("low ~ age + lwt + C(race) + smoke + ptl + ht + ui", data, family=Binomial()).fit()
    assert fit.llf == pytest.approx(-100.72400, abs=1e-5)
    return data["low"].to_numpy(float), np.asarray(fit.fittedvalues)


def test_hosmer_lemeshow_against_stata(births):
    chi2, df, p, _ = risks.hosmer_lemeshow_test(*births, fitted=True)
    assert (chi2, df, p) == pytest.approx((9.650683, 8, 0.290404), abs=1e-6)
    assert risks.hosmer_lemeshow_test(*births)[1] == 10
    assert discrimination.auroc(*births) == pytest.approx(0.746219, abs=5e-7)


@pytest.fixture(scope="module")
def cancer():
    "750 patients of the decision-curve tutorial: outcome, marker model, family history."
    dcurves = pytest.importorskip("dcurves")
    data = pd.read_csv(files(dcurves) / "data/df_binary.csv")
    return data, data["cancer"].to_numpy(float), data["cancerpredmarker"].to_numpy(float)


def test_calibration_measures_of_the_cancer_model(cancer):
    _, y, p = cancer
    sizes = calibration_curve.calibration_errors(calibration_curve.calibration_gap(y, p, len(p)))
    assert list(sizes.values()) == pytest.approx([0.0127017, 0.0048887, 0.0320154, 0.0458498], abs=5e-8)
    merged = calibration_curve.calibration_errors(calibration_curve.calibration_gap(y, p))
    assert merged["ici"] == pytest.approx(0.0127017, abs=1e-4)
    assert risks.spiegelhalter_test(y, p) == pytest.approx((-0.129765, 0.8968), abs=5e-5)
    assert risks.brier(y, p) == pytest.approx(0.08492910, abs=5e-9)
    assert discrimination.auroc(y, p) == pytest.approx(0.86062754, abs=5e-9)
    found = answers(cell(p, y, np.arange(750)))
    assert found.loc["calibration_slope", "effect"] == pytest.approx(1, abs=5e-5)
    assert found.loc["calibration_intercept", "effect"] == pytest.approx(0, abs=5e-5)


def test_net_benefit_against_published_values_and_dcurves(cancer):
    data, y, p = cancer
    table = discrimination.decision_curve(y, p, np.arange(750), rng=stream(0, "x"), n_resamples=20).set_index(
        "threshold"
    )
    at = [0.05, 0.1, 0.15, 0.2]
    np.testing.assert_allclose(table.loc[at, "model"], [10.5544, 8.7407, 7.9216, 6.7333], atol=5e-5)
    np.testing.assert_allclose(table.loc[at, "treat_all"], [9.4737, 4.4444, -1.1765, -7.5], atol=5e-5)
    family = discrimination.decision_curve(
        y, data["famhistory"], np.arange(750), [0.2, 0.05, 0.1], rng=stream(0, "x"), n_resamples=20
    )
    np.testing.assert_allclose(family["model"], [2.5614, 1.8519, 0.1667], atol=5e-5)
    from dcurves import dca

    theirs = dca(data=data, outcome="cancer", modelnames=["cancerpredmarker"], thresholds=np.arange(5, 31) / 100)  # fmt: skip
    model = theirs[theirs["model"] == "cancerpredmarker"].set_index("threshold")["net_benefit"]
    np.testing.assert_allclose(table["model"], 100 * model.to_numpy(), atol=1e-9)


# --------------------------------------------------------------------------------------------------------- oracles


def test_areas_with_weights_and_ties_against_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    for seed in range(20):
        rng = stream(seed, "areas")
        y, weight = rng.integers(0, 2, 80), rng.integers(0, 4, 80)
        score = rng.normal(size=80).round(seed % 3) + y
        ours = discrimination.auroc(y, score, weight), discrimination.average_precision(y, score, weight)
        theirs = (
            roc_auc_score(y, score, sample_weight=weight),
            average_precision_score(y, score, sample_weight=weight),
        )
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_resampled_areas_are_those_of_copied_rows():
    from sklearn.metrics import average_precision_score, roc_auc_score

    p, y = (v.ravel() for v in risks.clustered_risks(stream(0, "copies"), 12, 15))
    p, subject = p.round(2), np.repeat(np.arange(12), 15)
    ours = discrimination.bootstrap_areas(y, p, subject, stream(0, "d"), 40, 0.9)
    drawn = discrimination.draw(12, 40, stream(0, "d"))
    copies = [np.concatenate([np.flatnonzero(subject == one) for one in some]) for some in drawn]
    theirs = np.array(
        [[roc_auc_score(y[rows], p[rows]), average_precision_score(y[rows], p[rows])] for rows in copies]
    )
    np.testing.assert_allclose(ours.se, theirs.std(axis=0, ddof=0), rtol=1e-9)


def test_delong_equals_its_definition_and_the_jackknife_is_close_with_one_row_each():
    rng = stream(0, "delong")
    y = rng.integers(0, 2, 60)
    score = (rng.normal(size=60) + y).round(1)
    wins = (score[y == 1][:, None] > score[y == 0]) + 0.5 * (score[y == 1][:, None] == score[y == 0])
    variance = wins.mean(axis=1).var(ddof=1) / (y == 1).sum() + wins.mean(axis=0).var(ddof=1) / (y == 0).sum()
    by_rows = discrimination.auroc_test(y, score)
    assert by_rows.estimate == pytest.approx(wins.mean())
    assert by_rows.se == pytest.approx(np.sqrt(variance), rel=1e-12)
    by_patients = discrimination.auroc_test(y, score, np.arange(60))
    assert by_patients.se == pytest.approx(by_rows.se, rel=0.04)  # of log odds, and leaving one out
    drawn = discrimination.bootstrap_areas(y, score, np.arange(60), stream(0, "d"), 2000)
    assert drawn.se[0] == pytest.approx(by_rows.se, rel=0.1)


def test_leaving_a_patient_out_is_leaving_his_rows_out():
    for seed in range(5):
        rng = stream(seed, "left out")
        subject = np.sort(rng.integers(0, 15, 120))
        subject = np.unique(subject, return_inverse=True)[1]
        y, score = rng.integers(0, 2, 120), rng.normal(size=120).round(seed % 3)
        plain = [discrimination.auroc(y[subject != i], score[subject != i]) for i in range(subject.max() + 1)]
        np.testing.assert_allclose(discrimination.auroc_left_out(y, score, subject), plain, rtol=1e-12)
    alone = discrimination.auroc_left_out(np.array([1, 0, 0]), np.array([2.0, 1, 3]), np.arange(3))
    np.testing.assert_array_equal(alone, [np.nan, 0, 1])


def test_a_ratio_and_its_effective_patients():
    assert risks.effective_patients(np.ones(40)) == pytest.approx(40)
    assert risks.effective_patients(np.array([1.0, 0, 0])) == 1
    sums = np.exp(stream(0, "ratio").standard_normal((30, 2)))
    found, other = risks.ratio_test(sums, np.ones(30)), risks.ratio_test(sums[:, ::-1], np.ones(30))
    assert (found.p, found.low * other.high, found.estimate * other.estimate) == pytest.approx(
        (other.p, 1, 1)
    )
    assert found.df == pytest.approx(29)
    alone = risks.ratio_test(np.array([[1.0, 2], [0, 0], [0, 0]]), np.ones(3))
    assert alone.estimate == 0.5
    assert np.isnan([alone.low, alone.p]).all()


def test_logistic_regression_against_statsmodels():
    import statsmodels.api as sm

    p, y = (v.ravel() for v in risks.clustered_risks(stream(0, "glm"), 40, 25))
    subject, x = np.repeat(np.arange(40), 25), logit(p)
    for design, offset in ((np.column_stack([np.ones_like(x), x]), None), (np.ones((1000, 1)), x)):
        ours = recalibration.logistic_regression(design, y, subject, 0.0 if offset is None else offset, "CR1")
        model = sm.GLM(y, design, family=sm.families.Binomial(), offset=offset)
        theirs = model.fit(cov_type="cluster", cov_kwds={"groups": subject})
        factor = (1000 - 1) / (1000 - design.shape[1])  # statsmodels also counts rows
        np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-8)
        np.testing.assert_allclose(ours.covariance * factor, theirs.cov_params(), rtol=1e-6, atol=1e-12)


def test_the_smoother_is_lowess():
    from statsmodels.nonparametric.smoothers_lowess import lowess

    rng = stream(0, "lowess")
    for digits in (1, 2, 8):  # many ties, some, none
        p = rng.beta(1, 4, 300).round(digits)
        y = (rng.random(300) < p**1.3).astype(float)
        theirs = lowess(y, p, frac=2 / 3, it=0, return_sorted=False)
        np.testing.assert_allclose(p - calibration_curve.calibration_gap(y, p, 300), theirs, atol=1e-9)


def test_the_joint_test_and_its_band_agree():
    "Scheffe's band excludes the model's own risks somewhere only where the Wald test rejects."
    p, y = risks.clustered_risks(stream(5, "joint"), 60, 20, sets=(60,))
    rows = [
        recalibration.calibration_slope(cell(expit(1.5 * logit(a)), b))[1] for a, b in zip(p, y, strict=True)
    ]
    excluded = [one["effect_low"] > 0 or one["effect_high"] < 0 for one in rows]
    assert sum(excluded) > 10
    assert all(one["p"] < 0.05 for one, out in zip(rows, excluded, strict=True) if out)


# ----------------------------------------------------------------------------------------------------- invariances


@pytest.fixture(scope="module")
def study():
    p, y = risks.clustered_risks(stream(7, "one study"), 40, 15)
    return p.ravel(), y.ravel(), np.repeat(np.arange(40), 15)


def same(a, b, columns=("statistic", "p", "effect", "effect_low", "effect_high"), rows=slice(None)):
    for column in columns:
        np.testing.assert_allclose(a.loc[rows, column], b.loc[rows, column], rtol=1e-6, atol=1e-8, err_msg=column)  # fmt: skip


def test_every_row_written_twice_changes_nothing_that_counts_patients(study):
    p, y, subject = study
    once = answers(cell(p, y, subject))
    twice = answers(cell(np.repeat(p, 2), np.repeat(y, 2), np.repeat(subject, 2)))
    ours = ~once["assumes_independence"]
    same(once, twice, rows=ours)
    assert (once.loc[~ours, "p"] > twice.loc[~ours, "p"]).all()


def test_copies_of_rows_do_not_move_the_place_that_looks_worst():
    for seed in range(6):
        p, y = (v.ravel() for v in risks.clustered_risks(stream(seed, "copied"), 31, 7))
        subject = np.repeat(np.arange(31), 7)
        asked = (recalibration.calibration_slope,)
        once = answers(cell(p, y, subject), asked)
        again = answers(cell(*(np.repeat(v, 3) for v in (p, y, subject))), asked)
        same(once, again, rows=["calibration_slope", "calibration_joint"])


def test_order_and_names_of_patients_change_no_statistic(study):
    p, y, subject = study
    new = stream(0, "names").permutation(40)[subject]
    order = np.argsort(new, kind="stable")[::1]
    once, other = answers(cell(p, y, subject)), answers(cell(p[order], y[order], new[order]))
    same(once, other, ("statistic", "effect"))
    same(once.drop("flexible_calibration"), other.drop("flexible_calibration"), ("p",))  # resampled
    shuffled = np.argsort(stream(0, "rows").random(600) + 10 * subject)
    same(once, answers(cell(p[shuffled], y[shuffled], subject)))


def test_swapping_the_outcome_mirrors_calibration(study):
    p, y, subject = study
    here, there = answers(cell(p, y, subject)), answers(cell(1 - p, 1 - y, subject))
    for test in ("calibration_slope", "spiegelhalter", "auroc", "flexible_calibration"):
        merged = 1e-2 if test == "flexible_calibration" else 1e-6  # quantile bins have an upper end
        assert there.loc[test, "effect"] == pytest.approx(here.loc[test, "effect"], rel=merged)
    for test in ("calibration_intercept", "calibration_joint"):
        assert there.loc[test, "effect"] == pytest.approx(-here.loc[test, "effect"], rel=1e-5)
        assert there.loc[test, "p"] == pytest.approx(here.loc[test, "p"], rel=1e-5)


def test_any_rising_function_of_a_score_discriminates_alike(study):
    p, y, subject = study
    a = answers(cell(p, y, subject), (discrimination.discrimination,))
    b = answers(cell(100 * logit(p) + 7, y, subject), (discrimination.discrimination,))
    same(a, b)


# ------------------------------------------------------------------------------------------------ degenerate cases


def degenerate():
    rng = stream(0, "degenerate")
    many = np.repeat(np.arange(40), 5)
    p, y = rng.uniform(0.05, 0.6, 200), rng.integers(0, 2, 200)
    yield "no event", p, np.zeros(200), many, "the event never happened"
    yield "only events", p, np.ones(200), many, "the event always happened"
    yield "three patients with it", p, (many < 3) * 1.0, many, "only 3 of 40 patients had the event"
    yield "one risk", np.full(200, 0.3), y, many, "all predicted risks are the same"
    yield "zero or one", (rng.random(200) < 0.4) * 1.0, y, many, "all predicted risks are 0 or 1"
    yield "parted", np.where(y == 1, 0.8, 0.2) + p / 10, y, many, "part the outcomes perfectly"
    yield "an oracle", y * 1.0, y, many, "part the outcomes perfectly"
    yield "always wrong", 1.0 - y, y, many, "part the outcomes perfectly"
    yield "all zero", np.zeros(200), y, many, "all predicted risks are zero"
    yield "one patient", p, y, np.zeros(200, int), "1 patient is too few"
    yield "two patients", p, y, np.repeat([0, 1], 100), "2 patients are too few"
    yield "one row", p[:1], y[:1], np.zeros(1, int), "1 patient is too few"
    yield "one row each", p[:40], y[:40], np.arange(40), ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "p", "y", "subject", "said"), list(degenerate()), ids=lambda v: v if isinstance(v, str) else "")  # fmt: skip
def test_small_and_odd_inputs_are_answered_without_noise(name, p, y, subject, said):
    found = answers(cell(p, y, subject, n_resamples=50))
    assert set(found.columns) == set(COLUMNS) - {"test"}
    assert set(found["verdict"]) <= {"ok", "concern", "unclear", "not assessable"}
    assert not found["sentence"].str.contains("nan|inf").any(), found["sentence"].tolist()
    assert found["sentence"].str.contains(said, regex=False).any(), found["sentence"].tolist()
    assert found["tolerance_source"].str.startswith("convention").all()


def test_risks_of_zero_and_one_are_counted_in_the_sentence(study):
    p, y, subject = study
    p = np.where(p < 0.05, 0.0, p)
    found = answers(cell(p, y, subject), (recalibration.calibration_slope,))
    assert f"{(p == 0).sum()} of 600 risks of 0 or 1" in found.loc["calibration_slope", "sentence"]


def test_few_patients_get_no_verdict(study):
    p, y, subject = study
    few = answers(cell(p[:300], y[:300], subject[:300]))
    assert (few["verdict"] == "not assessable").all()
    assert few.loc[~few["assumes_independence"], "p"].isna().all()


def test_a_threshold_that_parts_nobody_is_not_judged(study):
    p, y, subject = study
    found = answers(cell(p / 4, y, subject), (discrimination.net_benefit,))
    assert "treating nobody" in found.loc["net_benefit_30", "sentence"]
    assert found.loc["net_benefit_30", "verdict"] == "not assessable"
    assert "per 100 predictions" in found.loc["net_benefit_5", "sentence"]
    with pytest.raises(ValueError, match="between 0 and 1"):
        discrimination.decision_curve(y, p, subject, [0.1, 1.0], rng=stream(0, "x"))


def test_the_curve_is_a_table_for_a_figure(study):
    p, y, subject = study
    table = calibration_curve.curve(y, p, subject.astype(str), rng=stream(0, "x"), n_resamples=100)
    assert list(table.columns) == ["predicted", "observed", "low", "high", "density"]
    assert table["density"].sum() == pytest.approx(1)
    assert (table["low"] <= table["observed"] + 0.05).all()
    assert table[["low", "observed", "high"]].stack().between(0, 1).all()
    at = calibration_curve.curve(y, p, subject, [0.3], rng=stream(0, "x"), n_resamples=100)
    assert len(at) == 1


def test_three_hundred_thousand_rows_are_answered():
    p, y = risks.clustered_risks(stream(0, "million"), 1000, 300)
    one = replace(cell(p, y), n_resamples=2000)
    assert len(answers(one)) == len(answers(replace(cell(p[:20], y[:20]), n_resamples=20)))


# ------------------------------------------------------------------------------------------- the table of metrics


def long(p, y, subject, other=None, study=STUDY, **columns):
    "A predictions table of the study's model and its reference."
    n = len(p)
    common = {"split": "test", "subject": [f"S{i:04d}" for i in subject], "time": np.arange(n, dtype=float)}
    common |= {
        "target": "sepsis",
        "horizon": 6.0,
        "y": np.asarray(y, float),
        "lo": np.nan,
        "hi": np.nan,
    } | columns
    told = {"model": p, "base rate": np.full(n, np.mean(y)) if other is None else other}
    return pd.concat([pd.DataFrame({"model": m, "yhat": v} | common) for m, v in told.items()], ignore_index=True)  # fmt: skip


def whole(frame, study=STUDY, model="model", **settings):
    found = metrics.table(frame, study, **({"n_resamples": 200} | settings))
    return found[found["group"].eq("all") & found["model"].eq(model)].set_index("metric")


def test_every_measure_of_the_table_against_scikit_learn_and_closed_form(study):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    p, y, subject = study
    value = whole(long(p, y, subject))["value"]
    assert set(value.index) == set(chances.UNITS)
    base = brier_score_loss(y, np.full(len(y), y.mean()))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], y)
    expected = {
        "auroc": roc_auc_score(y, p),
        "average_precision": average_precision_score(y, p),
        "prevalence": y.mean(),
        "brier": brier_score_loss(y, p),
        "log_loss": log_loss(y, p),
        "skill": 1 - brier_score_loss(y, p) / base,
        "calibration_in_the_large": p.mean() - y.mean(),
        "observed_expected": y.sum() / p.sum(),
        "calibration_slope": fit.coef_[0, 0],
    }
    for name, theirs in expected.items():
        assert value[name] == pytest.approx(theirs, rel=1e-5 if name == "calibration_slope" else 1e-12), name


def test_a_resample_is_a_weight_as_scikit_learn_understands_it(study):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    p, y, subject = study
    weights = stream(0, "weights").poisson(1, (40, 8)).astype(float)
    ours = chances.resample(chances.prepare(y, p, subject), weights)
    for k, weight in enumerate(weights[subject].T):
        for name, theirs in (
            ("auroc", roc_auc_score(y, p, sample_weight=weight)),
            ("average_precision", average_precision_score(y, p, sample_weight=weight)),
            ("brier", brier_score_loss(y, p, sample_weight=weight)),
            ("log_loss", log_loss(y, p, sample_weight=weight)),
            ("prevalence", np.average(y, weights=weight)),
            ("observed_expected", (weight * y).sum() / (weight * p).sum()),
            ("calibration_in_the_large", np.average(p - y, weights=weight)),
        ):
            assert ours[name][k] == pytest.approx(theirs, rel=1e-10), name
    weights = stream(1, "weights").poisson(1, (40, 60)).astype(float)
    ours, theirs = chances.resample(chances.prepare(y, p, subject), weights)["calibration_slope"], []
    for weight in weights[subject].T:
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        theirs.append(fit.fit(logit(p)[:, None], y, sample_weight=weight).coef_[0, 0])
    assert np.corrcoef(ours, theirs)[0, 1] > 0.97  # one step of Newton's method
    assert np.std(ours) / np.std(theirs) == pytest.approx(0.95, abs=0.1)


def test_pooled_scores_move_no_value_and_hardly_any_interval():
    p, y = (v.ravel() for v in risks.clustered_risks(stream(2, "pooled"), 900, 4, prevalence=0.1))
    subject, weights = np.repeat(np.arange(900), 4), chances.counts(chances.draw(900, 40, stream(0, "w"))).T
    value, moved, table = chances.ranks(y, p, subject, 900)
    exact, nothing, full = chances.ranks(y, p, subject, 900, n_bins=10**6)
    np.testing.assert_array_equal(value, exact)
    np.testing.assert_array_equal(nothing, 0)
    assert table.shape[0] <= 2 * chances.BINS < full.shape[0]
    for one, share in ((0, 0.01), (1, 0.1)):  # of a standard error
        a, b = (
            discrimination._areas((t @ weights)[: t.shape[0] // 2], (t @ weights)[t.shape[0] // 2 :])[one]
            for t in (table, full)
        )
        assert np.sqrt(np.mean((a + moved[one] - b) ** 2)) < share * b.std()
        assert a.std() / b.std() == pytest.approx(1, abs=0.02)


def test_intervals_of_the_table_hold_the_truth():
    "100 patients with three rows each, of whom about 25 have the event; and 40 with one row."
    for n_subjects, n_rows, prevalence in ((100, 3, 0.1), (40, 1, 0.3)):
        many = risks.clustered_risks(stream(9, "many"), 100_000, 3, prevalence=prevalence)
        p, y = (v.ravel() for v in many)
        truth = chances.prepare(y, p, np.repeat(np.arange(100_000), 3))["value"]
        truth |= {"calibration_slope": 1, "observed_expected": 1, "calibration_in_the_large": 0}
        subject, held = np.repeat(np.arange(n_subjects), n_rows), []
        p, y = risks.clustered_risks(stream(8, "few"), n_subjects, n_rows, prevalence=prevalence, sets=(120,))
        for a, b in zip(p.reshape(120, -1), y.reshape(120, -1), strict=True):
            rows = whole(long(a, b, subject)).query("low == low")
            held.append(
                {m: rows.loc[m, "low"] <= truth[m] <= rows.loc[m, "high"] for m in rows.index if m != "skill"}
            )
        share = pd.DataFrame(held).astype(float).mean()
        assert share.between(0.87, 1).all(), share.to_dict()
        assert share.mean() > 0.91  # 120 studies, 200 resamples each


def test_the_table_counts_patients_and_not_rows(study):
    p, y, subject = study
    frame = long(p, y, subject)
    once = metrics.table(frame, STUDY, n_resamples=200)
    numbers = ["value", "low", "high"]
    shuffled = frame.sample(frac=1, random_state=0)
    for other in (shuffled, pd.concat([frame, frame]), frame.astype({"subject": "category", "model": "category"})):  # fmt: skip
        again = metrics.table(other, STUDY, n_resamples=200)
        assert (once["metric"] == again["metric"]).all()
        np.testing.assert_allclose(once[numbers], again[numbers], rtol=1e-7, atol=1e-12)
    alone = whole(long(p, y, np.arange(len(p))))  # the rows as if they were patients: too narrow
    ours = once[once["model"].eq("model")].set_index("metric")
    width = (ours["high"] - ours["low"]) / (alone["high"] - alone["low"])
    assert width[["prevalence", "observed_expected", "calibration_in_the_large"]].min() > 1.3


def test_groups_get_their_own_numbers_and_small_ones_a_reason(study):
    p, y, subject = study
    ward = np.select([subject < 20, subject < 36], ["A", "B"], "tiny")
    one_class = np.where(subject < 20, y, 0)
    study_ = replace(STUDY, slices=("ward", "age"))
    found = metrics.table(long(p, one_class, subject, by_ward=ward), study_, n_resamples=200)
    rows = found[found["model"].eq("model")].set_index(["group", "metric"])
    mine = subject < 20
    assert rows.loc[("by_ward=A", "auroc"), "value"] == discrimination.auroc(y[mine], p[mine])
    assert rows.loc[("by_ward=A", "auroc"), "low"] < rows.loc[("by_ward=A", "auroc"), "value"]
    assert rows.loc["by_ward=B", "value"].isna().all()
    assert (rows.loc["by_ward=B", "note"] == "not assessable: the event never happened").all()
    assert rows.loc["by_ward=tiny", "note"].str.contains("4 patient").all()
    assert (rows.loc["by_age (no such column)", "n_subjects"] == 0).all()
    shape = found.groupby("group", sort=False)["metric"].count()
    assert shape.nunique() == 1  # a group never loses a row


@pytest.mark.parametrize(
    "name", ["one patient", "one row", "never", "always", "constant", "zero", "certain", "parted"]
)
def test_degenerate_tables_have_numbers_or_reasons(name, study):
    import warnings

    p, y, subject = study
    p, y, subject = {
        "one patient": (p[:15], y[:15], subject[:15]),
        "one row": (p[:1], y[:1], subject[:1]),
        "never": (p, 0 * y, subject),
        "always": (p, 0 * y + 1, subject),
        "constant": (0 * p + 0.3, y, subject),
        "zero": (0 * p, y, subject),
        "certain": (y, y, subject),
        "parted": (0.2 + 0.6 * y + 0.01 * p, y, subject),
    }[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.table(long(p, y, subject), STUDY, n_resamples=100)
        metrics.difference(long(p, y, subject), STUDY, "model", "base rate", n_resamples=100)
    rows = found[found["model"].eq("model")].set_index("metric")
    assert (rows["value"].notna() | rows["note"].ne("")).all()
    assert np.isfinite(rows.loc[["prevalence", "brier", "log_loss"], "value"]).all()
    told = {"never": "never happened", "always": "always happened", "constant": "are the same", "zero": "are the same", "certain": "part the outcomes", "parted": "part the outcomes"}  # fmt: skip
    if name in told:
        assert np.isnan(rows.loc["calibration_slope", "value"])
        assert told[name] in rows.loc["calibration_slope", "note"]
    if name in {"never", "always", "one patient", "one row"}:
        assert rows[["low", "high"]].isna().all(axis=None)


def test_skill_and_difference_are_paired(study):
    p, y, subject = study
    frame = long(p, y, subject, other=np.clip(p * 1.1, 0, 1))
    rows = whole(frame)
    skill, brier = rows.loc["skill"], rows.loc["brier"]
    theirs = whole(frame, model="base rate").loc["brier"]
    assert skill["value"] == pytest.approx(1 - brier["value"] / theirs["value"])
    assert skill["high"] - skill["low"] < 0.5 * (brier["high"] - brier["low"]) / theirs["value"]
    gap = metrics.difference(frame, STUDY, "model", "base rate", n_resamples=200)
    assert list(gap["metric"]) == ["brier_difference"]
    assert gap.loc[0, "value"] == pytest.approx(brier["value"] - theirs["value"])
    assert gap.loc[0, "low"] < gap.loc[0, "value"] < gap.loc[0, "high"]
    assert gap.loc[0, "high"] - gap.loc[0, "low"] < 0.5 * (brier["high"] - brier["low"])


def test_a_score_is_ranked_and_nothing_else(study):
    p, y, subject = study
    kind = replace(STUDY, kind="score")
    rows = whole(long(100 * p, y, subject, other=p.round(1)), kind)
    assert list(rows.index) == list(chances.OF_SCORES)
    assert rows.loc["auroc", "value"] == discrimination.auroc(y, p)
    moved = whole(long(np.exp(7 * p), y, subject, other=p.round(1)), kind)  # only the order counts
    np.testing.assert_allclose(rows[["value", "low", "high"]], moved[["value", "low", "high"]], rtol=1e-12)
    gap = metrics.difference(long(100 * p, y, subject, other=p.round(1)), kind, "model", "base rate", n_resamples=100)  # fmt: skip
    assert gap.loc[0, "metric"] == "auroc_difference"
    assert gap.loc[0, "value"] == pytest.approx(
        discrimination.auroc(y, p) - discrimination.auroc(y, p.round(1))
    )


def test_patients_of_yes_no_studies_have_their_events_and_losses(study):
    p, y, subject = study
    frame = long(p, y, subject)
    people = metrics.per_subject(frame, study=STUDY).query("model == 'model'")
    assert people["events"].sum() == y.sum()
    assert np.average(people["brier"], weights=people["n_rows"]) == pytest.approx(risks.brier(y, p))
    np.testing.assert_allclose(people["rmse"] ** 2, people["brier"])
    frame.attrs["kind"] = "score"
    scored = metrics.per_subject(frame)
    assert scored["mae"].isna().all()
    assert (scored["highest_score"] >= scored["mean_score"]).all()
    assert "events" not in metrics.per_subject(long(p, y, subject))


def test_horizons_of_a_yes_no_study_are_not_ranked_together(study):
    p, y, subject = study
    later = long(p**0.5, y, subject).assign(horizon=12.0)
    rows = metrics.table(
        pd.concat([long(p, y, subject), later]), replace(STUDY, horizons=(6.0, 12.0)), n_resamples=50
    )
    path = rows[rows["scope"].eq("path") & rows["model"].eq("model")].set_index("metric")
    assert "auroc" not in path.index
    assert path.loc["brier", "value"] == pytest.approx((risks.brier(y, p) + risks.brier(y, p**0.5)) / 2)
    assert path["horizon"].isna().all()


def test_alarms_per_hundred_add_up(study):
    p, y, subject = study
    t = (0.05, 0.1, 0.2, 0.3, 0.99)
    found = chances.alarms(y, p, subject, t, rng=stream(0, "a"), n_resamples=200).set_index("threshold")
    for cut in t[:-1]:
        flagged = p >= cut
        row = found.loc[cut]
        assert row["flagged"] == pytest.approx(100 * flagged.mean())
        assert row["ill"] + row["missed"] == pytest.approx(100 * y.mean())
        assert row["evaluate"] == pytest.approx(flagged.sum() / y[flagged].sum())
        assert row["found"] == pytest.approx(100 * y[flagged].sum() / y.sum())
        assert row["evaluate_low"] <= row["evaluate"] <= row["evaluate_high"]
    assert np.isnan(found.loc[0.99, "evaluate"])
    benefit = discrimination.decision_curve(y, p, subject, t[:-1], rng=stream(0, "a"), n_resamples=20)
    false = found["flagged"] - found["ill"]
    by_hand = (found["ill"] - false * found.index / (1 - found.index)).iloc[:-1]
    np.testing.assert_allclose(benefit["model"], by_hand)


def test_a_large_yes_no_table_has_every_measure():
    p, y = (v.ravel() for v in risks.clustered_risks(stream(0, "large"), 20_000, 5, prevalence=0.1))
    frame = long(p, y, np.repeat(np.arange(20_000), 5))
    table = metrics.table(frame, STUDY, n_resamples=1000)
    everybody = table[table["group"] == "all"].set_index("metric")
    assert (everybody["n_rows"] == 100_000).all() and "auroc" in everybody.index
    assert everybody.drop(index="calibration_slope")["value"].notna().all()
