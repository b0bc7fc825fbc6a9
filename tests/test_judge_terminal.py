"""Cohorts that are followed until the event: the true risks must be acquitted by every question, wrong ones convicted."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import residuals, slices
from medlab.judge.covariates import covariates
from medlab.judge.drift import drift
from medlab.judge.risks import clustered_risks
from medlab.judge.verdicts import Cell

N = 200  # simulated cohorts
YEAR = 31_557_600_000
EVENT = Target("event", "Event", "probability", 0, 1, 0.05, "a source", 0.1, 0.0, "another source")
STUDY = Study(
    "example", "Example", "Who falls ill?", "binary", (EVENT,), (1.0,), "year", "UTC timestamp", "model", "prevalence",
    ("age", "sex", "site", "year"), "To test.", "Anything else.",
)  # fmt: skip


def cohort(seed, n=400, years=8, men=1.0, entry=0.0):
    "True yearly risks, and what happened, until the event; men's true risks are `men` times those that are told."
    rng = stream(seed, "until the event")
    old, man, site = rng.random(n) < 0.4, rng.random(n) < 0.5, rng.choice(list("xyz"), n)
    level = np.where(old, -2.0, -3.4) + 0.5 * rng.standard_normal(n)
    risk = 1 / (1 + np.exp(-(level[:, None] + 0.08 * np.arange(years))))
    true = np.minimum(risk * np.where(man, men, 1.0)[:, None], 0.95)
    happens = rng.random((n, years)) < true
    seen = np.cumsum(happens, axis=1) - happens == 0
    who, year = np.nonzero(seen)
    start = np.sort(entry * rng.random(n))
    by = {"by_age": np.where(old, "65+", "under 65")[who], "by_sex": np.where(man, "male", "female")[who]}
    by |= {"by_site": site[who], "by_year": (2015 + year).astype(str)}
    empty, time = np.full(len(who), np.nan), np.rint((start[who] + year) * YEAR).astype(np.int64)
    return Cell(
        STUDY, EVENT, 1.0, "all", np.arange(n), who, time, happens[seen].astype(float), risk[seen], empty, empty,
        np.full(len(who), happens[seen].mean()), np.nan, n_resamples=199, seed=seed, by=by,
    )  # fmt: skip


@cache
def quiet():
    return [cohort(k) for k in range(N)]


def at_most_nominal(found, share=0.05):
    "No more than a binomial count with that probability; 1 in 1,000 cohorts of cohorts would fail."
    n, most = len(found), stats.binom.ppf(0.999, len(found), share)
    assert np.sum(found) <= most, f"{np.sum(found)} of {n}; at most {most:.0f} expected"


def own(rows):
    return [one for one in rows if not one["assumes_independence"]]


def test_patient_means_convict_the_truth():
    "The negative control: the estimand of before, the average patient, is biased by the design."
    whole, parts, slopes = [], [], []
    for cell in quiet()[:60]:
        mean, old = cell.means(cell.residual), np.zeros(cell.n_subjects, bool)
        old[cell.subject] = cell.by["by_age"] == "65+"
        whole.append(stats.ttest_1samp(mean, 0).pvalue)
        parts.append(stats.ttest_ind(mean[old], mean[~old], equal_var=False).pvalue)
        loss = cell.means(cell.residual**2)
        slopes.append(stats.ttest_ind(loss[old], loss[~old], equal_var=False).pvalue)
    assert min(np.mean(np.array(x) < 0.05) for x in (whole, parts, slopes)) > 0.9


def test_groups_acquit_the_truth():
    rows = [own(covariates(cell)) for cell in quiet()]
    for k, first in enumerate(rows[0]):
        at_most_nominal([one[k]["p"] < 0.05 for one in rows])
        at_most_nominal([one[k]["verdict"] == "concern" for one in rows])
        assert first["p"] >= 0 and "over all predictions" in first["sentence"]
        assert abs(np.mean([one[k]["effect"] for one in rows])) < 0.4, first["group"]
    held = [one["effect_low"] < 0 < one["effect_high"] for line in rows for one in line]
    assert 0.93 < np.mean(held) < 0.98


@pytest.mark.parametrize("entry", [0.0, 30.0], ids=["together", "one after another"])
def test_drift_acquits_the_truth(entry):
    rows = [own(drift(cohort(k, entry=entry) if entry else quiet()[k])) for k in range(N)]
    tests = {one["test"] for one in rows[0]}
    assert tests == {"drift_bias"} | ({"drift_patients"} if entry else set())
    for test in tests:
        lines = [one for line in rows for one in line if one["test"] == test]
        at_most_nominal([one["p"] < 0.05 for one in lines])
        at_most_nominal([one["verdict"] == "concern" for one in lines])
        assert "average patient" not in lines[0]["sentence"]


def test_the_search_acquits_the_truth():
    found = [slices.discover(cell, n_resamples=199, n_halves=2) for cell in quiet()]
    at_most_nominal([(table["p_adjusted"] < 0.05).any() for table in found])
    at_most_nominal([(table["verdict"] == "concern").any() for table in found])
    p = np.concatenate([table["p"] for table in found])
    assert found[0].attrs["n_candidates"] > 20 and len(p) > N


def test_all_other_questions_acquit_the_truth():
    known = (covariates, drift, slices.discovered)
    for question in residuals.QUESTIONS["binary"]:
        if question in known or "discrimination" in question.__module__:
            continue  # ranking has no truth to be acquitted of
        found = [own(question(replace(cell, n_resamples=99))) for cell in quiet()[:100]]
        for k, first in enumerate(found[0]):
            assert np.mean([one[k]["verdict"] == "concern" for one in found]) < 0.1, first["test"]
            if first["test"] != "flexible_calibration" and not np.isnan(first["p"]):
                at_most_nominal([one[k]["p"] < 0.05 for one in found], 0.08)


def test_a_group_with_1_6_times_its_risk_is_found():
    worlds = [cohort(k, n=800, men=1.6) for k in range(40)]
    of_sex = [next(x for x in covariates(c) if x["group"] == "by_sex=female") for c in worlds]
    assert np.mean([one["p"] < 0.05 for one in of_sex]) > 0.8
    tables = [slices.discover(c, n_resamples=199, n_halves=10, top=3) for c in worlds]
    assert np.mean([t["p_adjusted"].iloc[0] < 0.05 for t in tables]) > 0.75
    assert np.mean(["sex" in t["slice"][0] for t in tables]) > 0.8
    sexes = [t[t["slice"] == "sex=female"] for t in tables]
    ratio = np.concatenate([np.log(t["ratio"]) for t in sexes])
    assert np.exp(ratio.mean()) == pytest.approx(1 / 1.6, rel=0.1)
    assert (
        np.mean([(t["ratio_low"] < 1 / 1.6).all() and (t["ratio_high"] > 1 / 1.6).all() for t in sexes]) > 0.8
    )
    line = next(x for c in worlds for x in slices.discovered(c) if x["verdict"] == "concern")
    assert "times as often as predicted, elsewhere" in line["sentence"] and line["tolerance"] == 1.25


def test_the_ordinary_null_keeps_its_size():
    "Sixty patients with twenty rows each, outcomes that resemble each other within patients; rows as witnesses fail."
    risk, y = clustered_risks(stream(0, "ordinary"), 60, 20, sets=(N,))
    group, naive, searched = [], [], []
    sex, age = np.repeat(np.arange(60) < 24, 20), np.repeat(np.arange(60) % 3, 20)
    by = {"by_sex": np.where(sex, "female", "male"), "by_age": age.astype(str)}
    for k in range(N):
        q, r = y[k].ravel(), risk[k].ravel()
        empty, who = np.full(1200, np.nan), np.repeat(np.arange(60), 20)
        one = Cell(STUDY, EVENT, 1.0, "all", np.arange(60), who, None, q, r, empty, empty, None, np.nan, n_resamples=199, seed=k, by=by)  # fmt: skip
        rows = covariates(one)
        group.append(
            next(x["p"] for x in rows if x["test"] == "covariate_bias" and x["group"] == "by_sex=female")
        )
        naive.append(next(x["p"] for x in rows if x["test"] == "covariate_bias_rows"))
        searched.append(slices.discover(one, n_resamples=199, n_halves=2)["p_adjusted"].min())
    low, high = stats.binom.interval(0.999, N, 0.05)
    assert low <= np.sum(np.array(group) < 0.05) <= high
    assert np.sum(np.array(searched) < 0.05) <= high
    assert np.mean(np.array(naive) < 0.05) > 0.2


def test_names_and_copies_change_nothing():
    cell = cohort(3)
    before = slices.discover(cell, n_resamples=199, n_halves=20)
    twice = np.repeat(np.arange(len(cell.y)), 2)
    columns = {c: getattr(cell, c)[twice] for c in ("subject", "time", "y", "yhat", "lo", "hi", "reference")}
    double = replace(cell, **columns, by={k: v[twice] for k, v in cell.by.items()})
    after = slices.discover(double, n_resamples=199, n_halves=20)
    free = [c for c in before if c not in ("n_rows", "loss_inside", "loss_outside")]
    pd.testing.assert_frame_equal(after[free], before[free], rtol=1e-9)
    new = stream(0, "names").permutation(cell.n_subjects)
    order = np.lexsort((cell.time, new[cell.subject]))
    columns = {c: getattr(cell, c)[order] for c in ("time", "y", "yhat", "lo", "hi", "reference")}
    other = replace(
        cell, subject=new[cell.subject][order], **columns, by={k: v[order] for k, v in cell.by.items()}
    )
    renamed = slices.discover(other, n_resamples=199, n_halves=20)
    assert list(renamed["slice"]) == list(before["slice"])
    assert np.allclose(
        renamed[["p", "p_adjusted", "ratio_low", "t"]], before[["p", "p_adjusted", "ratio_low", "t"]]
    )
    numbers = [[(x["effect"], x["p"]) for x in own(covariates(c))] for c in (cell, double, other)]
    assert np.allclose(numbers[0], numbers[1]) and np.allclose(numbers[0], numbers[2])


def test_the_oracle_of_the_simulated_study_raises_no_concern():
    from medlab.judge import predictions
    from medlab.studies.risk.study import study

    path = Path(__file__).parents[1] / "artifacts/risk/predictions.parquet"
    if not path.exists():
        pytest.skip("no predictions of the study 'risk': `dvc repro` makes them")
    table = predictions.read(path, study)
    if "oracle" not in set(table["model"].astype(str)):
        pytest.skip("these predictions have no oracle: the patients are not simulated")
    tests = residuals.run(table, replace(study, primary="oracle"), n_resamples=499, validated=True)
    concerns = tests[tests["verdict"] == "concern"]
    assert concerns.empty, concerns[["test", "group", "sentence"]].to_string()
