"""Slice discovery: what it promises under the null, what it finds, what must not change it, and empty hands."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import multiplicity, slices
from medlab.judge.dependence import clustered
from medlab.judge.verdicts import COLUMNS, Cell

GLUCOSE = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "a source", 15, 0.15, "another source")
STUDY = Study(
    "example", "Example", "Where is glucose going?", "regression", (GLUCOSE,), (60.0,), "min", "UTC timestamp",
    "model", "persistence", ("sex",), "To test.", "Anything else.",
)  # fmt: skip
N = 150  # simulated studies per size test


def cell(residual, by, study=STUDY, seed=0, y=150.0, subject=None, n_resamples=199):
    n, m = residual.shape
    subject = np.repeat(np.arange(n), m) if subject is None else subject
    y = np.full(n * m, y)
    empty = np.full(n * m, np.nan)
    return Cell(
        study, GLUCOSE, 60.0, "all", np.arange(n), subject, None, y, y + residual.ravel(), empty, empty, None,
        np.nan, n_resamples=n_resamples, seed=seed, by=by,
    )  # fmt: skip


def world(seed, between=1.0, rising=1.0, n=60, m=20, moments=True):
    "Patients with random labels, moments with random labels; errors larger for sex F and where trend is rising."
    rng = stream(seed, "test slices")
    own = {"by_sex": "FM", "by_age": "abc", "by_site": "xyz", "by_smoker": "ny", "by_pump": "ny"}
    own = {name: rng.choice(list(labels), n) for name, labels in own.items()}
    residual = 15 * clustered(rng, n, m) * np.exp(0.2 * rng.standard_normal((n, 1)))
    residual *= np.where(own["by_sex"] == "F", between, 1.0)[:, None]
    by = {name: np.repeat(labels, m) for name, labels in own.items()}
    if moments:
        trend = np.where(clustered(rng, n, m) > 0.5, "rising", "flat")
        residual = residual * np.where(trend == "rising", rising, 1.0)
        by |= {"by_trend": trend.ravel()}
    return cell(residual, by, seed=seed)


def alarms(p, n=N):
    low, high = stats.binom.interval(0.999, n, 0.05)
    return low, int((np.asarray(p) < 0.05).sum()), high


@pytest.mark.parametrize("moments", [False, True])
def test_a_search_in_which_all_groups_are_alike_rarely_finds_one(moments):
    found, rows = [], []
    for i in range(N):
        one = world(i, moments=moments)
        table = slices.discover(one, n_resamples=199, n_halves=2, top=3)
        found.append(table["p_adjusted"].min())
        loss, names = slices.losses(one), slices.candidates(one)[0]
        member = [np.all([one.by[c] == label for c, label in name], axis=0) for name in names]
        if i < 20:
            rows.append(min(stats.ttest_ind(loss[k], loss[~k]).pvalue for k in member))
    low, count, high = alarms(found)
    assert (0 if moments else low) <= count <= high, f"{count} false alarms of {N}"
    assert np.mean(np.array(rows) < 0.05) > 0.8, "the simulator does not bite: rows must fail"


def test_groups_that_differ_only_in_spread_are_no_finding():
    "One group of twelve patients, the same mean loss, three times the spread: Welch's statistic must hold."
    p = []
    for i in range(N):
        rng = stream(i, "spread")
        group = np.repeat(["a", "b"], [12, 48])
        loss = 10 + np.where(group == "a", 3.0, 1.0) * rng.standard_normal(60)
        table = slices.discover(cell(loss[:, None], {"by_group": group}), n_resamples=199, n_halves=2)
        p.append(table.set_index("slice")["p"]["group=a"])
    assert (np.array(p) < 0.05).mean() < 0.11


def test_planted_groups_are_found_and_their_verdict_follows():
    hits = [slices.discover(world(i, 2.0), n_resamples=199, n_halves=10).iloc[0] for i in range(12)]
    assert np.mean([one["slice"] == "sex=F" for one in hits]) > 0.7
    assert np.mean([one["p_adjusted"] < 0.05 for one in hits]) > 0.8
    best = slices.discover(world(1, rising=1.8), n_resamples=499).set_index("slice").loc["trend=rising"]
    assert (best["p_adjusted"] < 0.05, best["kind"], best["verdict"]) == (True, "within patients", "concern")
    every = [slices.discover(world(i, rising=1.8), n_resamples=199, n_halves=2) for i in range(12)]
    every = [table.set_index("slice").loc["trend=rising"] for table in every]
    assert np.mean([one["ratio_low"] < 1.8 < one["ratio_high"] for one in every]) > 0.7
    assert best["stability"] > 0.5


def test_one_split_in_two_is_an_ordinary_permutation_test():
    rng = stream(5, "two")
    loss, group = rng.gamma(4, 1, 40), np.repeat(["a", "b"], 20)
    table = slices.discover(cell(loss[:, None], {"by_g": group}), n_resamples=4000, n_halves=2).set_index(
        "slice"
    )
    a, b = loss[:20], loss[20:]
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: stats.ttest_ind(x, y, axis=axis, equal_var=False).statistic,
        vectorized=True, n_resamples=4000, alternative="greater", rng=rng,
    )  # fmt: skip
    assert table.loc["g=a", "t"] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).statistic)
    assert table.loc["g=a", "df"] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).df)
    assert table.loc["g=a", "p"] == pytest.approx(theirs.pvalue, abs=0.03)
    assert table.loc["g=a", "ratio"] == pytest.approx(a.mean() / b.mean())


def test_within_patients_is_a_paired_t_test():
    one = world(2, rising=1.3)
    table = slices.discover(replace(one, by={"by_trend": one.by["by_trend"]}), n_halves=2).set_index("slice")
    up, loss = one.by["by_trend"] == "rising", slices.losses(one)
    frame = pd.DataFrame({"s": one.subject, "up": up, "loss": loss})
    enough = frame.groupby("s")["up"].sum().between(5, 15)  # five rows on each side, of twenty
    assert 20 < enough.sum() < 60
    frame = frame[frame["s"].map(enough)].pivot_table("loss", "s", "up")
    paired = stats.ttest_rel(frame[True], frame[False])
    assert table.loc["trend=rising", "t"] == pytest.approx(paired.statistic)
    assert table.loc["trend=rising", "n_subjects"] == len(frame)
    assert table.loc["trend=rising", "ratio"] == pytest.approx(frame[True].mean() / frame[False].mean())


def reordered(one, order, subject, names):
    by = {name: label[order] for name, label in one.by.items()}
    parts = {name: getattr(one, name)[order] for name in ("y", "yhat", "lo", "hi")}
    return replace(one, subject=subject, names=names, by=by, **parts)


def test_order_of_rows_names_of_patients_and_copies_change_nothing():
    one = world(7, 1.6)
    before = slices.discover(one, n_resamples=199, n_halves=20)
    rng, m = stream(0, "shuffle"), 20
    new = rng.permutation(60)  # who takes whose place
    order = (new[:, None] * m + rng.permuted(np.tile(np.arange(m), (60, 1)), axis=1)).ravel()
    renamed = reordered(one, order, np.repeat(np.arange(60), m), np.arange(60))
    copies = reordered(one, np.repeat(np.arange(1200), 2), np.repeat(one.subject, 2), one.names)
    for other in (renamed, copies):
        after = slices.discover(other, n_resamples=199, n_halves=20)
        pd.testing.assert_frame_equal(after.drop(columns="n_rows"), before.drop(columns="n_rows"), rtol=1e-9)
        assert after.attrs == pytest.approx(before.attrs)
    assert slices.discover(copies, n_resamples=19)["n_rows"][0] == 2 * before["n_rows"][0]


def test_units_change_nothing_but_the_losses():
    one = world(8, 1.4)
    scaled = replace(one, y=one.y / 18, yhat=one.yhat / 18)
    a, b = (slices.discover(c, n_resamples=99, n_halves=5) for c in (one, scaled))
    free = [c for c in a if not c.startswith("loss")]
    pd.testing.assert_frame_equal(a[free], b[free], rtol=1e-7)


def test_columns_that_describe_the_same_patients_are_one_candidate():
    one = world(3, moments=False)
    twice = replace(one, by=one.by | {"by_ward": np.where(one.by["by_sex"] == "F", "1", "2")})
    a, b = (slices.candidates(c)[0] for c in (one, twice))
    assert a == b
    woman = one.subject[one.by["by_sex"] == "F"][0]
    almost = np.where((one.by["by_sex"] == "F") & (one.subject != woman), "1", "2")
    found = slices.discover(replace(one, by={"by_sex": one.by["by_sex"], "by_ward": almost}), n_resamples=99)
    assert found["merged_with"].str.len().gt(0).any()
    jaccard = slices.overlap(one, a[:4])
    member = [np.all([one.by[c] == label for c, label in name], axis=0) for name in a[:4]]
    assert jaccard[0, 2] == pytest.approx((member[0] & member[2]).sum() / (member[0] | member[2]).sum())


def test_small_groups_are_not_searched():
    names, *_ = slices.candidates(world(4), minimum=10)
    one = world(4)
    for name in names:
        inside = np.all([one.by[c] == label for c, label in name], axis=0)
        assert len(np.unique(one.subject[inside])) >= 10
    assert not any("missing" in label for name in names for _, label in name)
    with pytest.raises(ValueError, match="depth"):
        slices.candidates(one, depth=3)


def test_groups_of_risks_are_compared_by_observed_over_expected_events():
    rng = stream(0, "binary")
    study = replace(STUDY, kind="binary")
    p = rng.uniform(0.1, 0.9, (40, 5))
    y = (rng.uniform(size=p.shape) < p).astype(float)
    group = np.repeat(rng.choice(["a", "b"], 40), 5)
    one = replace(cell(p - y, {"by_g": group}, study), y=y.ravel(), yhat=p.ravel())
    table, a = slices.discover(one, n_resamples=199), group == "a"
    assert len(table) == 1  # the rest of a group is no second question
    inside, outside = (one.y[g].sum() / one.yhat[g].sum() for g in (a, ~a))
    assert table["loss_inside"][0] == pytest.approx(inside) and table["loss_outside"][0] == pytest.approx(
        outside
    )
    assert table["ratio"][0] == pytest.approx(inside / outside)
    (line,) = slices.discovered(one)
    assert line["verdict"] in ("ok", "unclear") and line["test"] == "slice_calibration"
    assert "times as often as predicted" in line["sentence"]
    score = replace(one, study=replace(study, kind="score"))
    assert slices.discover(score).empty  # a score has an order, and no errors


def test_columns_that_the_truth_cuts_are_not_searched():
    "Errors twice as large where glucose is high: the strongest slice there is, and none of the search's business."
    one = world(5)
    high = np.where(stream(0, "high").random(1200) < 0.4, "high", "in range")
    one = replace(
        one, yhat=one.y + one.residual * np.where(high == "high", 3.0, 1.0), by=one.by | {"by_range": high}
    )
    naive = slices.discover(one, n_resamples=99, n_halves=2)
    assert "range=high" in naive["slice"][0] and naive.attrs["left_out"] == ""
    study = replace(STUDY, slices=("sex", "range"), outcome_slices=("range",))
    told = replace(one, study=study)
    table = slices.discover(told, n_resamples=99, n_halves=2)
    assert not table["slice"].str.contains("range").any() and table.attrs["left_out"] == "by_range"
    (line,) = slices.discovered(told)
    assert "range" not in line["sentence"] and line["method"].endswith("cut by the true value: range")
    assert slices.discovered(replace(told, by={"by_range": high})) == []


def test_a_lost_label_loses_no_patient():
    one = world(6, 1.5, moments=False)
    holes = {name: np.where(np.arange(1200) % 20 == 3, "missing", label) for name, label in one.by.items()}
    a, b = (slices.discover(x, n_resamples=99, n_halves=5) for x in (one, replace(one, by=holes)))
    pd.testing.assert_frame_equal(a, b)


def test_the_loss_of_a_single_row_is_not_compared_with_the_mean_of_many():
    "Skewed losses: a first row against 39 others fails the sign-flip, so it is not asked; five rows may be."
    first, fifth, naive = [], [], []
    for i in range(N):
        loss = np.abs(stream(i, "skewed").standard_t(3, (12, 40)))
        own = loss[:, 0] - loss[:, 1:].mean(axis=1)
        flips = own * (1 - 2 * stream(i, "flips").integers(0, 2, (400, 12)))
        flips[0] = own
        t = np.abs(flips.mean(axis=1) / flips.std(axis=1))
        naive.append((t >= t[0] - 1e-9).mean())
        for k, found in ((1, first), (5, fifth)):
            label = np.tile(np.where(np.arange(40) < k, "first", "later"), 12)
            table = slices.discover(cell(loss, {"by_phase": label}), n_resamples=199, n_halves=2)
            found.append(table["p_adjusted"].min() if len(table) else np.nan)
    assert np.isnan(first).all()
    assert (np.array(fifth) < 0.05).mean() < 0.12 < 0.04 + (np.array(naive) < 0.05).mean()
    label = np.tile(np.where(np.arange(40) < 3, "first", "later"), 12)
    few = cell(loss, {"by_phase": label})
    twice = reordered(few, np.repeat(np.arange(480), 2), np.repeat(few.subject, 2), few.names)
    assert (
        slices.candidates(few)[0] == slices.candidates(twice)[0] == []
    )  # three rows and their copies are three


def test_a_group_without_events_is_not_searched():
    rng, found = stream(0, "rare"), []
    study = replace(STUDY, kind="binary")
    for _ in range(N):
        p = 1 / (1 + np.exp(3 + 0.7 * rng.standard_normal((40, 20))))
        y = (rng.random(p.shape) < p).astype(float)
        label = np.tile(np.where(np.arange(20) < 5, "first", "later"), 40)
        one = replace(cell(p - y, {"by_phase": label}, study), y=y.ravel(), yhat=p.ravel())
        table = slices.discover(one, n_resamples=199, n_halves=2)
        found.append(table["p_adjusted"].min() if len(table) else np.nan)
    assert np.nanmean(np.array(found) < 0.05) < 0.1
    y[:, :5] = 0  # nothing happens early
    calm = replace(one, y=y.ravel())
    (line,) = slices.discovered(calm)
    assert line["verdict"] == "not assessable" and "5 events on both sides" in line["sentence"]


def test_the_battery_gets_one_row_or_none(recwarn):
    rng = stream(0, "degenerate")
    two, residual = np.repeat(["a", "b"], [15, 15]), rng.standard_normal((30, 1))
    assert slices.discovered(cell(residual, {})) == []
    cases = {
        "one patient": cell(residual[:1], {"by_g": two[:1]}),
        "two patients": cell(residual[:2], {"by_g": two[[0, -1]]}),
        "all in one group": cell(residual, {"by_g": np.repeat("a", 30)}),
        "every patient a group": cell(residual, {"by_g": np.arange(30).astype(str)}),
        "no error at all": cell(residual * 0, {"by_g": two}),
        "no error outside": cell(residual * (two == "a")[:, None], {"by_g": two}),
    }
    for name, one in cases.items():
        (line,) = slices.discovered(one)
        assert set(line) == set(COLUMNS), name
        assert name == "no error outside" or line["verdict"] == "not assessable", name
        assert name == "no error outside" or line["sentence"].startswith("Not assessable"), name
    (line,) = slices.discovered(cell(residual * 0 + 3, {"by_g": two}))  # constant error: all alike
    assert (line["effect"], line["p"], line["verdict"]) == (1, 1, "ok")
    (line,) = slices.discovered(world(0))
    assert line["adjustment"].endswith("candidate slices")
    assert line["p"] == line["p_adjusted"]
    assert line["sentence"].startswith("None of ")
    assert line["verdict"] == "unclear"
    assert not recwarn.list


def test_alike_groups_of_many_patients_get_the_all_clear():
    rng = stream(0, "clear")
    group = np.repeat(rng.choice(["a", "b", "c"], 600), 4)
    (line,) = slices.discovered(cell(15 * clustered(rng, 600, 4), {"by_g": group}))
    assert line["verdict"] == "ok"
    assert "no interval reaches 1.25 times" in line["sentence"]


# ------------------------------------------------------------------------------------------------- adjustments

TRIAL = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1]  # fmt: skip


def test_yekutieli_against_statsmodels_and_scipy():
    from statsmodels.stats.multitest import multipletests

    ours = multiplicity.benjamini_yekutieli(TRIAL)
    assert (ours <= 0.05).sum() == 3
    np.testing.assert_allclose(ours, multipletests(TRIAL, method="fdr_by")[1])
    np.testing.assert_allclose(ours, stats.false_discovery_control(TRIAL, method="by"))
    np.testing.assert_allclose(multiplicity.benjamini_yekutieli([0.01, np.nan, 0.04])[[0, 2]], [0.03, 0.06])
    assert np.isnan(multiplicity.benjamini_yekutieli([np.nan])).all()


def test_gate_protects_the_family_where_every_gate_opens_for_a_reason():
    "Eight targets, all truly off at their first horizon and nowhere else; and the version that splits no level, which fails."
    target, shift = np.repeat(np.arange(8), 6), np.where(np.arange(48) % 6 == 0, 1.0, 0.0)
    ours, theirs = [], []
    for i in range(N):
        rng = stream(i, "gate")
        means = shift + rng.standard_normal((40, 48))
        p, gate = multiplicity.gated(means, target, rng, 499)
        assert (p >= gate).all()
        ours.append(p[shift == 0].min())
        if i < 40:
            loose = [multiplicity.sign_flip(means[:, target == t], rng, 199)[1][1:].min() for t in range(8)]
            theirs.append(min(loose))
    _, count, high = alarms(ours)
    assert count <= high
    assert np.mean(np.array(theirs) < 0.05) > 0.15


def test_gate_in_small_and_empty_cases():
    rng = stream(0, "gate")
    x = rng.standard_normal((30, 4)) + 2
    p, gate = multiplicity.gated(x, ["a", "a", "b", "b"], stream(1, "g"), 999)
    assert (p == 2 / 1000).all()
    order = [3, 0, 2, 1]
    q, _ = multiplicity.gated(x[:, order], np.array(list("aabb"))[order], stream(1, "g"), 999)
    np.testing.assert_array_equal(q, p[order])
    x[:, 3] = np.nan
    p, gate = multiplicity.gated(x, ["a", "a", "b", "c"], stream(1, "g"), 999)
    assert np.isnan(p[3])
    assert np.isnan(gate[3])
    assert (p[:3] == 2 / 1000).all()  # a target without data is not counted
    alone, _ = multiplicity.gated(x[:, :1], ["a"], stream(1, "g"))
    assert alone[0] == pytest.approx(1 / 2001)
    with pytest.raises(ValueError, match="one label per column"):
        multiplicity.gated(x, ["a"], rng)
