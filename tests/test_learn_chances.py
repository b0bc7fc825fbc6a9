"Recalibration, thresholds and sets: against closed forms and brute force, counted in patients, kept exactly."

import json

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit

from medlab.core.files import read_json, write_json
from medlab.core.seeds import stream
from medlab.judge.bootstrap import bootstrap_rows
from medlab.judge.recalibration import log_odds
from medlab.judge.risks import clustered_risks
from medlab.learn import recalibration, sets, thresholds


def cohort(n_subjects=300, n_rows=4, name="cohort", **more):
    "True risks, what a model says that is too sure, outcomes, patients."
    risk, y = (
        v.ravel() for v in clustered_risks(stream(4, name), n_subjects, n_rows, prevalence=0.12, **more)
    )
    return risk, expit(1.7 * log_odds(risk) + 1.2), y, np.repeat(np.arange(n_subjects), n_rows)


# ---- recalibration


def test_the_two_numbers_are_those_of_logistic_regression():
    _, p, y, patient = cohort()
    found = recalibration.fit(p, y, patient)
    theirs = sm.GLM(y, sm.add_constant(log_odds(p)), family=sm.families.Binomial()).fit().params
    np.testing.assert_allclose([found.intercept, found.slope], theirs, rtol=2e-6, atol=1e-6)
    assert (found.patients, found.events, found.note) == (300, int(y.sum()), "")
    assert abs(found.apply(p).mean() - y.mean()) < 1e-6, "right on average where it was fitted"


def test_the_pairs_vary_as_full_refits_do():
    _, p, y, patient = cohort(200, 5, icc=0.6)
    pairs = np.array(recalibration.fit(p, y, patient, n_resamples=400).pairs)

    def refit(y, x):
        return sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit().params

    full = bootstrap_rows(refit, patient, y, log_odds(p), rng=stream(0, "refits"), n_resamples=200)
    np.testing.assert_allclose(pairs.std(axis=0), full.se, rtol=0.2)
    naive = np.array(recalibration.fit(p, y, None, n_resamples=400).pairs)
    assert naive.std(axis=0)[0] < 0.9 * pairs.std(axis=0)[0], "rows are not patients"


def test_names_order_and_copies_of_rows_change_nothing():
    _, p, y, patient = cohort(120)
    found, order = recalibration.fit(p, y, patient, seed=3), stream(0, "order").permutation(len(p))
    named = np.array([f"P{k:06d}" for k in patient])
    assert recalibration.fit(p[order], y[order], named[order], seed=3) == found
    twice = recalibration.fit(np.tile(p, 2), np.tile(y, 2), np.tile(patient, 2), seed=3)
    np.testing.assert_allclose((twice.slope, twice.intercept), (found.slope, found.intercept), rtol=1e-5)
    np.testing.assert_allclose(twice.pairs, found.pairs, rtol=1e-4, atol=1e-4)


def test_it_is_kept_exactly_even_by_the_default_digits(tmp_path):
    _, p, y, patient = cohort(120)
    found = recalibration.fit(p, y, patient)
    back = recalibration.from_json(read_json(write_json(tmp_path / "recalibration.json", found.to_json())))
    assert back == found and (back.apply(p) == found.apply(p)).all()
    assert np.array_equal(back.interval(p), found.interval(p))


def test_order_is_kept_and_nothing_is_impossible_or_certain():
    _, p, y, patient = cohort()
    found = recalibration.fit(p, y, patient)
    grid = np.r_[0, 1e-12, np.linspace(1e-5, 1 - 1e-5, 5001), 1]
    q, (low, high) = found.apply(grid), found.interval(grid)
    assert (np.diff(q[2:-1]) > 0).all() and (np.diff(q) >= 0).all()
    assert q.min() > 0 and q.max() < 1 and (low > 0).all() and (high < 1).all()
    assert (low <= q).all() and (q <= high).all() and np.isnan(found.apply([np.nan])).all()


def test_odd_calibration_sets_still_give_probabilities_that_are_honest():
    _, p, y, patient = cohort(100)
    backwards = recalibration.fit(1 - p, y, patient)  # the model ranks the wrong way round
    assert backwards.slope == recalibration.LEAST and "no better than chance" in backwards.note
    assert abs(backwards.apply(1 - p).mean() - y.mean()) < 0.005
    constant = recalibration.fit(np.full(400, 0.3), y, patient)
    assert constant.slope == 1 and np.allclose(constant.apply([0.3]), y.mean(), atol=1e-5)
    perfect = recalibration.fit(np.where(y == 1, 0.9, 0.2), y, patient)
    assert (
        "Platt" in perfect.note
        and 0.9 < perfect.apply([0.9])[0] < 1
        and np.isnan(perfect.interval([0.9])[0]).all()
    )


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        ([0.1, 0.2], [0, 0], "patients with the event"),
        ([0.1, 1.2], [0, 1], "row 1: the probability is 1.2"),
        ([np.nan, 0.2], [0, 1], "row 0: the probability is nan"),
        ([0.1, 0.2], [0, 0.5], "row 1: the outcome is 0.5"),
        ([0.1], [0, 1], "one of each per row"),
        ([], [], "no calibration rows"),
    ],
)
def test_what_cannot_be_calibrated_on_is_refused(p, y, said):
    with pytest.raises(ValueError, match=said):
        recalibration.fit(p, y)


# ---- thresholds


def brute(policy, y, p, c_fp, c_fn):
    "The best score of a policy over all cuts, counted one by one."
    best = -np.inf
    for cut in [*np.unique(p), 2.0]:
        alarm = p >= cut
        true, false, missed = (alarm & (y == 1)).sum(), (alarm & (y == 0)).sum(), (~alarm & (y == 1)).sum()
        f1 = 2 * true / (2 * true + false + missed)
        youden = true / (true + missed) - false / (y == 0).sum()
        best = max(best, {"f1": f1, "youden": youden, "costs": -(c_fp * false + c_fn * missed)}[policy])
    return best


@pytest.mark.parametrize("policy", ["costs", "f1", "youden"])
def test_the_cut_is_the_best_of_all_cuts(policy):
    for number in range(30):
        rng = stream(9, policy, number)
        p = rng.beta(1, 8, 60)
        if number % 3 == 0:
            p = np.round(p, 2)  # ties
        y = (rng.random(60) < p).astype(float)
        y[:2] = 0, 1
        cut = thresholds.choose(policy, y, p, cost_miss=5, n_resamples=2).value
        alarm = p >= cut
        true, false, missed = (alarm & (y == 1)).sum(), (alarm & (y == 0)).sum(), (~alarm & (y == 1)).sum()
        mine = {"f1": 2 * true / (2 * true + false + missed), "youden": true / (true + missed) - false / (y == 0).sum(), "costs": -(false + 5.0 * missed)}  # fmt: skip
        assert mine[policy] == pytest.approx(brute(policy, y, p, 1, 5), abs=1e-12)


def test_rounding_a_cut_never_moves_a_patient_across_it(tmp_path):
    p = np.array([0.1234567, 0.12345671, 0.3, 0.05])  # 0.123457 lies above both
    y = np.array([1, 1, 1, 0])
    chosen = thresholds.choose("f1", y, p)
    kept = read_json(write_json(tmp_path / "threshold.json", chosen.to_json()))
    assert (
        kept["value"] == chosen.value == 0.123456 and (p >= kept["value"]).sum() == 3 and kept["found"] == 100
    )
    assert 100 * (p >= chosen.value).mean() == chosen.table["flagged"][0] == kept["flagged"]


def test_stated_costs_need_no_outcomes_and_imply_their_threshold():
    assert (
        thresholds.from_costs(1, 9) == 0.1
        and thresholds.from_costs(2, 18) == 0.1
        and thresholds.from_costs(1, 1) == 0.5
    )
    _, p, _, patient = cohort(50)
    chosen = thresholds.choose("net_benefit", np.zeros(len(p)), p, patient, cost_miss=19)
    assert chosen.value == 0.05 and chosen.table["false_alarms_per_miss"][0] == pytest.approx(19)
    with pytest.raises(ValueError, match="'f1' cannot choose"):
        thresholds.choose("f1", np.zeros(len(p)), p)
    with pytest.raises(ValueError, match="policy must be one of"):
        thresholds.choose("0.5", np.zeros(len(p)), p)
    with pytest.raises(ValueError, match="cost_miss must be a positive number"):
        thresholds.choose("net_benefit", np.zeros(len(p)), p, cost_miss=0)
    with pytest.raises(ValueError, match="row 0: probability nan"):
        thresholds.choose("costs", [0, 1], [np.nan, 0.2])


def test_on_true_risks_the_recipes_imply_costs_that_theory_names():
    "Youden's cut is the prevalence, F1's is half of the best F1 (Lipton 2014), counted costs find the formula's."
    risk, _, y, patient = cohort(15_000, 2, "large", icc=0.0, rho=0.0)
    table = thresholds.compare(y, risk, patient, cost_miss=9, n_resamples=50).set_index("policy")
    f1 = 2 / (table.loc["f1", "evaluate"] + 100 / table.loc["f1", "found"])
    assert table.loc["youden", "threshold"] == pytest.approx(y.mean(), abs=0.02)
    assert table.loc["f1", "threshold"] == pytest.approx(f1 / 2, abs=0.02)
    assert table.loc["costs", "threshold"] == pytest.approx(0.1, abs=0.02)
    ppv = y[risk >= 0.1].mean()
    assert table.loc["net_benefit", "evaluate"] == pytest.approx(1 / ppv)
    assert (table["benefit_low"] <= table["benefit_model"]).all() and (
        table["benefit_model"] <= table["benefit_high"]
    ).all()
    assert table["benefit_model"].idxmax() == "costs" and table.loc["net_benefit", "benefit_gain_low"] > 0


def test_intervals_of_consequences_count_patients():
    _, p, y, patient = cohort(60, 5, icc=0.9)
    wide, narrow = (thresholds.consequences(y, p, 0.2, ids, n_resamples=400) for ids in (patient, None))
    for name in ("flagged", "missed"):
        reach = [(t[f"{name}_high"] - t[f"{name}_low"])[0] for t in (wide, narrow)]
        assert reach[0] > 1.15 * reach[1], name
        assert wide[name][0] == narrow[name][0]


# ---- sets


def test_with_one_row_each_the_cuts_are_order_statistics():
    rng = stream(1, "cuts")
    p, y = np.round(rng.random(59), 4), np.r_[np.ones(19), np.zeros(40)]
    found = sets.fit(p, y, level=0.9)
    assert found.yes_from == pytest.approx(np.sort(p[:19])[19 - 18], abs=2e-6)  # the 18th of 19 + 1 worst
    assert found.no_to == pytest.approx(np.sort(p[19:])[36], abs=2e-6)  # ceil(.9 * 41) = 37th
    assert found.yes_from <= np.sort(p[:19])[1] and found.no_to >= np.sort(p[19:])[36], "rounded outwards"
    assert (found.patients_with, found.patients_without) == (19, 40)


def test_the_promise_is_kept_for_either_kind_of_new_patient():
    "Averaged over 300 calibration sets of 60 patients; new patients weigh alike however many rows they have."
    inside = []
    for number in range(300):
        risk, y = clustered_risks(stream(3, "promise", number), 90, 8, icc=0.8, prevalence=0.2)
        keep = np.arange(8) < np.where(risk.mean(axis=1) > 0.2, 8, 1)[:, None]
        who, p, y = np.nonzero(keep)[0], risk[keep], y[keep]
        old, new = who < 60, who >= 60
        may_be = sets.fit(p[old], y[old], who[old], 0.8).apply(p[new])
        held = []
        for kind in (0, 1):
            use = y[new] == kind
            weight = 1 / np.bincount(who[new][use], minlength=90)[who[new][use]]
            held.append((weight * may_be[use, kind]).sum() / weight.sum() if use.any() else np.nan)
        inside.append(held)
    mean, se = np.nanmean(inside, axis=0), np.nanstd(inside, axis=0) / np.sqrt(300)
    assert (mean > 0.8 - 2.5 * se).all() and (mean < 0.9).all(), mean


def test_sets_of_few_patients_promise_nothing_and_all_are_kept_exactly(tmp_path):
    p, y = np.linspace(0.05, 0.9, 30), np.r_[np.ones(8), np.zeros(22)]
    few = sets.fit(p, y)
    assert few.yes_from == 0 and few.apply([0.0, 1.0])[:, 1].all()
    empty = sets.fit(p, np.zeros(30))
    assert empty.patients_with == 0 and empty.apply(p)[:, 1].all()
    _, p, y, patient = cohort()
    found, order = sets.fit(p, y, patient), stream(0, "order").permutation(len(p))
    assert sets.Sets(**read_json(write_json(tmp_path / "sets.json", found.to_json()))) == found
    assert sets.fit(p[order], y[order], patient[order]) == found
    assert sets.fit(np.tile(p, 3), np.tile(y, 3), np.tile(patient, 3)) == found
    assert json.dumps(found.to_json()) and found.apply([np.nan]).all()
    for wrong, said in ((dict(p=[0.2, 2], y=[0, 1]), "row 1"), (dict(p=[0.2], y=[0], level=1.0), "level")):
        with pytest.raises(ValueError, match=said):
            sets.fit(**wrong)
