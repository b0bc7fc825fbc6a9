"""Statistics of the judge floor: size, negative controls, invariances, degenerate cases, reference values."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import averages, bootstrap, engines, intervals, metrics, patterns, residuals
from medlab.judge.dependence import clustered, codes
from medlab.judge.verdicts import COLUMNS, CONVENTIONS, Cell, coverage_limit, number, verdict

GLUCOSE = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "a source", 15, 0.15, "another source")
STUDY = Study(
    "example", "Example", "Where is glucose going?", "regression", (GLUCOSE,), (30.0, 60.0), "min", "UTC timestamp",
    "model", "persistence", ("sex",), "To test.", "Anything else.",
)  # fmt: skip
MINUTE = 60_000
N = 300  # simulated studies per size test


def cell(y, residual, n_subjects, n_rows, reach=np.nan, reference=None, study=STUDY, horizon=60.0, step=5):
    y, residual = np.broadcast_to(y, residual.shape).ravel().astype(float), residual.ravel()
    time = np.tile(np.arange(n_rows) * step * MINUTE, n_subjects)
    return Cell(
        study, study.targets[0], horizon, "all", np.arange(n_subjects), np.repeat(np.arange(n_subjects), n_rows),
        time, y, y + residual, y + residual - reach, y + residual + reach, reference, 0.9, n_resamples=199,
    )  # fmt: skip


def band(n, level=0.05, confidence=0.999):
    "Range of false-alarm counts that a true test of that level stays in; wide, since many tests are looked at."
    return stats.binom.interval(confidence, n, level)


def assert_size(p, n=N):
    low, high = band(n)
    alarms = int((np.asarray(p) < 0.05).sum())
    assert low <= alarms <= high, f"{alarms} false alarms of {n}; {low:.0f} to {high:.0f} expected"


# ---------------------------------------------------------------- size and negative controls: (60, 20, .3, .7)


@pytest.fixture(scope="module")
def worlds():
    "Simulated studies in which every null hypothesis is true."
    rng = stream(0, "test worlds")
    r, other, level = (clustered(rng, 60, 20, 0.3, 0.7, (N,)) for _ in range(3))
    return r, other, level


def test_size_of_bias_tests(worlds):
    rows = [averages.bias(cell(150.0, 15 * r, 60, 20)) for r in worlds[0]]
    assert_size([one[0]["p"] for one in rows])
    assert_size([one[1]["p"] for one in rows])
    assert np.mean([one[2]["p"] < 0.05 for one in rows]) > 0.2, "the simulator does not bite: rows must fail"


def test_size_of_equivalence_at_its_margin(worlds):
    assert_size([averages.equivalence(cell(150.0, 6 + 15 * r, 60, 20))[0]["p"] for r in worlds[0]])


def test_size_of_coverage_and_share(worlds):
    reach = 15 * stats.norm.ppf(0.95)
    rows = [averages.coverage(cell(150.0, 15 * r, 60, 20, reach)) for r in worlds[0]]
    assert_size([one[0]["p"] for one in rows])
    assert np.mean([one[1]["p"] < 0.05 for one in rows]) > 0.2
    flat = replace(GLUCOSE, tolerance_absolute=15 * stats.norm.ppf(0.975), tolerance_relative=0.0)
    study = replace(STUDY, targets=(flat,))
    assert_size([averages.usable(cell(150.0, 15 * r, 60, 20, study=study))[0]["p"] for r in worlds[0]])


def test_size_of_skill(worlds):
    rows = [
        averages.skill(cell(150.0, 15 * r, 60, 20, reference=150.0 + 15 * o.ravel()))
        for r, o in zip(*worlds[:2], strict=True)
    ]
    assert_size([one[0]["p"] for one in rows])
    assert_size([one[1]["p"] for one in rows])
    assert np.mean([one[2]["p"] < 0.05 for one in rows]) > 0.2


def test_size_of_spread(worlds):
    rows = [
        patterns.spread(cell(150 + 30 * level - 15 * r, 15 * r, 60, 20))
        for r, level in zip(worlds[0], worlds[2], strict=True)
    ]
    assert_size([one[0]["p"] for one in rows])
    assert np.mean([one[1]["p"] < 0.05 for one in rows]) > 0.2


def test_perfect_forecaster_has_no_memory():
    "Errors of the best 4-step forecast of a random walk, with patient offsets: neighbours correlate with 0.75."
    rng = stream(0, "test memory")
    walk = np.cumsum(rng.standard_normal((N, 60, 24)), axis=2)
    errors = (walk[:, :, :-4] - walk[:, :, 4:]) / 2
    errors = np.sqrt(0.3) * rng.standard_normal((N, 60, 1)) + np.sqrt(0.7) * errors
    rows = [patterns.memory(cell(150.0, 15 * e, 60, 20, horizon=20.0)) for e in errors]
    assert_size([one[0]["p"] for one in rows])
    assert_size([one[1]["p"] for one in rows])
    assert np.mean([one[2]["p"] < 0.05 for one in rows]) == 1
    assert abs(np.mean([one[0]["effect"] for one in rows])) < 0.01  # no Nickell bias


def test_memory_is_found():
    errors = clustered(stream(0, "lingering"), 60, 200, 0.3, 0.4**0.25)
    found = patterns.memory(cell(150.0, 15 * errors, 60, 200, horizon=20.0))
    assert found[0]["effect_low"] < 0.4 < found[0]["effect_high"]
    assert found[0]["verdict"] == "concern"
    assert found[1]["effect"] == pytest.approx(0.16, abs=0.05)


def test_memory_is_not_fooled_by_stride_longer_than_horizon():
    found = patterns.memory(
        cell(150.0, clustered(stream(0, "s"), 20, 50, 0.3, 0.0), 20, 50, horizon=60.0, step=90)
    )
    assert "90 minutes apart" in found[0]["sentence"]
    assert "180 minutes apart" in found[1]["sentence"]


def test_family_of_biases_keeps_its_promise():
    "Twelve correlated horizons, no bias: any alarm in at most 5 % of studies."
    rng = stream(0, "family")
    means = np.sqrt(0.9) * rng.normal(size=(N, 60, 1)) + np.sqrt(0.1) * rng.normal(size=(N, 60, 12))
    any_alarm = [engines.sign_flip(one, stream(i, "flip"), 299)[1].min() for i, one in enumerate(means)]
    assert_size(any_alarm)


@pytest.mark.parametrize("method", ["expanded", "percentile", "bca"])
def test_patient_bootstrap_covers_at_60_patients(method):
    truth, held = np.sqrt(2 / np.pi), 0
    studies = np.abs(clustered(stream(1, "coverage"), 60, 20, sets=(1000,))).mean(axis=2)
    for i, means in enumerate(studies):
        one = bootstrap.bootstrap_sums(
            lambda s: s[..., 0] / 60, means[:, None], stream(i, "d"), 400, 0.95, method
        )
        held += one.low <= truth <= one.high
    assert 0.92 <= held / 1000 <= 0.97


# ------------------------------------------------------------------------------------------------ invariances


def example(n_subjects=14, n_rows=40, seed=0, scale=1.0):
    "A small table of predictions for two horizons and two models."
    parts = []
    for horizon in (30.0, 60.0):
        y = 150 + 30 * clustered(stream(seed, "y", horizon), n_subjects, n_rows)
        for model, sd in (("model", 12), ("persistence", 18)):
            r = (
                sd
                * clustered(stream(seed, model, horizon), n_subjects, n_rows)
                * (1 + (y - 100).clip(0) / 200)
            )
            part = pd.DataFrame({"y": y.ravel(), "yhat": (y + r).ravel()})
            part["subject"] = np.repeat([f"P{i:02d}" for i in range(n_subjects)], n_rows)
            part["time"] = np.tile(pd.date_range("2024-03-01", periods=n_rows, freq="5min"), n_subjects)
            part["by_sex"] = np.where(part["subject"] < "P03", "F", "M")
            part["by_trend"] = np.where(np.arange(len(part)) % 3 == 0, "rising", "flat")
            parts.append(part.assign(model=model, split="test", target="glucose", horizon=horizon))
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.assign(lo=frame["yhat"] - 22, hi=frame["yhat"] + 22)
    for column in ("y", "yhat", "lo", "hi"):
        frame[column] *= scale
    frame.attrs["level"] = 0.9
    return frame


def with_level(frame):
    frame.attrs["level"] = 0.9
    return frame


KEY = ["test", "horizon", "group"]


def test_row_order_changes_nothing():
    frame = example()
    shuffled = with_level(frame.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(
        residuals.run(frame, STUDY), residuals.run(shuffled, STUDY, validated=True), rtol=1e-9
    )
    pd.testing.assert_frame_equal(metrics.table(frame, STUDY), metrics.table(shuffled, STUDY), rtol=1e-9)


def test_categories_and_text_are_the_same():
    frame = example()
    coded = with_level(frame.astype(dict.fromkeys(("model", "split", "subject", "target"), "category")))
    pd.testing.assert_frame_equal(residuals.run(frame, STUDY), residuals.run(coded, STUDY))
    pd.testing.assert_frame_equal(metrics.table(frame, STUDY), metrics.table(coded, STUDY))


def test_names_of_patients_change_nothing():
    frame = example()
    new = dict(zip(sorted(frame["subject"].unique()), stream(0, "n").permutation(14), strict=True))
    renamed = with_level(frame.assign(subject=frame["subject"].map(lambda s: f"Z{new[s]:02d}")))
    a, b = residuals.run(frame, STUDY), residuals.run(renamed, STUDY)
    flips = a["test"].str.endswith("sign_flip")
    stable = ~flips & (a["test"] != "memory_rows")  # stacking patients makes Ljung-Box depend on their names
    np.testing.assert_allclose(a.loc[stable, "p"], b.loc[stable, "p"], rtol=1e-8)
    np.testing.assert_allclose(
        a.loc[flips, "p"], b.loc[flips, "p"], atol=0.04
    )  # other flips, same distribution
    np.testing.assert_allclose(a.loc[stable, "effect"], b.loc[stable, "effect"], rtol=1e-8)
    np.testing.assert_allclose(a["icc"], b["icc"], rtol=1e-8, atol=1e-12)


def test_unit_change_scales_effects_and_leaves_p():
    factor = 1 / 18.016
    small = replace(
        GLUCOSE, unit="mmol/L", lower=40 * factor, upper=400 * factor, bias_tolerance=6 * factor,
        tolerance_absolute=15 * factor, decimals=1,
    )  # fmt: skip
    a = residuals.run(example(), STUDY)
    b = residuals.run(example(scale=factor), replace(STUDY, targets=(small,)))
    np.testing.assert_allclose(a["p"], b["p"], rtol=1e-6)
    in_units = a["effect_unit"].str.startswith("mg/dL")
    np.testing.assert_allclose(a["effect"] * np.where(in_units, factor, 1), b["effect"], rtol=1e-8)
    assert (a["verdict"] == b["verdict"]).all()
    t = [
        metrics.table(example(), STUDY),
        metrics.table(example(scale=factor), replace(STUDY, targets=(small,))),
    ]
    in_units = t[0]["unit"] == "mg/dL"
    np.testing.assert_allclose(t[0]["value"] * np.where(in_units, factor, 1), t[1]["value"], rtol=1e-8)


def test_copied_rows_change_no_patient_aware_p():
    frame = example()
    twice = with_level(pd.concat([frame, frame], ignore_index=True))
    a, b = residuals.run(frame, STUDY), residuals.run(twice, STUDY, validated=True)
    ours = ~a["assumes_independence"]
    np.testing.assert_allclose(a.loc[ours, "p"], b.loc[ours, "p"], rtol=1e-6)
    np.testing.assert_allclose(a.loc[ours, "effect_low"], b.loc[ours, "effect_low"], rtol=1e-6)
    assert (
        b.loc[~ours & a["test"].eq("bias_rows"), "p"] < a.loc[~ours & a["test"].eq("bias_rows"), "p"]
    ).all()
    x, y = metrics.table(frame, STUDY), metrics.table(twice, STUDY)
    np.testing.assert_allclose(x[["value", "low", "high"]], y[["value", "low", "high"]], rtol=1e-9)


def test_adding_a_constant_changes_no_residual_test():
    frame = example()
    moved = with_level(frame.assign(**{c: frame[c] + 37 for c in ("y", "yhat", "lo", "hi")}))
    a, b = (residuals.run(f, STUDY).set_index(KEY).sort_index() for f in (frame, moved))
    for test in ("bias", "equivalence", "spread", "memory", "skill", "coverage"):
        np.testing.assert_allclose(a.loc[test, "p"], b.loc[test, "p"], rtol=1e-6)


def test_the_same_seed_gives_the_same_bytes():
    a, b = (residuals.run(example(), STUDY).to_json() for _ in range(2))
    assert a == b
    assert residuals.run(example(), STUDY, seed=1).to_json() != a


# ------------------------------------------------------------------------------------------ degenerate cases


def test_one_row_per_patient_is_the_textbook():
    r = stream(0, "one").normal(1, 4, 25)
    t, flip, rows = averages.bias(cell(150.0, r[:, None], 25, 1))
    theirs = stats.ttest_1samp(r, 0)
    assert t["p"] == pytest.approx(theirs.pvalue, rel=1e-12)
    assert rows["p"] == pytest.approx(theirs.pvalue, rel=1e-12)
    assert flip["p"] == pytest.approx(theirs.pvalue, abs=0.08)
    assert t["design_effect"] == 1
    assert t["n_effective"] == 25
    low, high = theirs.confidence_interval()
    assert (t["effect_low"], t["effect_high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("n_subjects", [1, 2, 9])
def test_few_patients_get_no_p_and_no_verdict(n_subjects):
    tests = residuals.run(example(n_subjects), STUDY)
    ours = tests[~tests["assumes_independence"]]
    assert ours["p"].isna().all()
    assert ours["p_adjusted"].isna().all()
    assert (ours["verdict"] == "not assessable").all()
    assert ours["sentence"].str.contains("too few, at least (?:10|30) are needed").all()
    if n_subjects == 1:
        assert ours[["effect_low", "effect_high"]].isna().all(axis=None)
        assert ours["sentence"].str.contains("1 patient is too few").all()


def test_between_10_and_30_patients_shares_get_no_verdict():
    tests = residuals.run(example(14), STUDY)
    shares = tests[tests["test"].isin(["coverage", "within_tolerance"])]
    assert (shares["verdict"] == "not assessable").all()
    assert shares["p"].isna().all()
    assert (tests.loc[tests["test"] == "bias", "verdict"] != "not assessable").all()


def test_many_targets_and_horizons_are_one_family_whatever_a_question_adjusts_itself():
    "Nothing is wrong for anybody in 4 targets x 3 horizons: how often does any group stand out?"
    targets = tuple(replace(GLUCOSE, name=f"t{i}", label=f"T{i}") for i in range(4))
    study = replace(STUDY, targets=targets, horizons=(10.0, 20.0, 30.0), slices=("sex", "age"))
    n, alarms = 40, {"covariates": 0, "slice_discovery": 0}
    for seed in range(n):
        rng, parts = stream(seed, "family"), []
        who = np.repeat(np.arange(30), 4)
        sex, age = (
            np.array(["F", "M"])[rng.integers(0, 2, 30)],
            np.array(["a", "b", "c"])[rng.integers(0, 3, 30)],
        )
        for target in targets:
            for horizon in study.horizons:
                y = 150 + 20 * rng.standard_normal(120)
                r = 10 * clustered(rng, 30, 4, 0.3, 0.5).ravel()
                parts.append(pd.DataFrame({
                    "subject": [f"P{i:02d}" for i in who], "target": target.name, "horizon": horizon, "y": y, "yhat": y + r,
                    "time": np.tile(pd.date_range("2024-03-01", periods=4, freq="h"), 30), "by_sex": sex[who], "by_age": age[who],
                }))  # fmt: skip
        frame = pd.concat(parts, ignore_index=True).assign(model="model", split="test", lo=np.nan, hi=np.nan)
        tests = residuals.run(frame, study, n_resamples=199, validated=True)
        found = tests[(tests["p_adjusted"] < 0.05) & ~tests["assumes_independence"].astype(bool)]
        for family in alarms:
            alarms[family] += (found["family"] == family).any()
        assert (
            tests.loc[tests["family"].isin(alarms) & tests["p"].notna(), "adjustment"]
            .str.contains("Benjamini")
            .all()
        )
    assert max(alarms.values()) <= band(n, 0.07)[1], alarms


def test_average_risk_is_adjusted_by_flips_of_the_sums_it_tests():
    "200 people with one calibrated prediction, 40 with a hundred at half the true risk: sums and means disagree."
    event = Target("event", "Event", "probability", 0, 1, 0.05, "a source", 0.5, 0, "another source")
    study = replace(STUDY, kind="binary", targets=(event,), horizons=(0.0,), slices=(), reference="model")
    rng = stream(0, "sums")
    subject = np.concatenate([np.arange(200), np.repeat(np.arange(200, 240), 100)])
    p = rng.uniform(0.1, 0.3, len(subject))
    y = (rng.random(len(p)) < np.where(subject < 200, p, 2 * p)).astype(float)
    frame = pd.DataFrame(
        {"subject": [f"P{i:03d}" for i in subject], "y": y, "yhat": p, "time": np.arange(len(p)) * 1.0}
    )
    frame = frame.assign(model="model", split="test", target="event", horizon=0.0, lo=np.nan, hi=np.nan)
    found = (
        residuals.run(frame, replace(study, time_unit="s since start"))
        .set_index("test")
        .loc["calibration_in_the_large"]
    )
    assert found["verdict"] == "concern"
    assert found["p_adjusted"] < 0.01


def test_errors_at_irregular_times_are_compared_about_a_step_apart():
    "Times that miss the clock by two seconds: the memory of errors is measured all the same, and at horizon 0 no copy is a pair."
    frame = example(30)
    jitter = pd.to_timedelta(stream(0, "jitter").integers(-2000, 2000, len(frame)), unit="ms")
    regular = residuals.run(frame, STUDY).set_index(KEY).loc[("memory", 30.0, "all")]
    missed = residuals.run(with_level(frame.assign(time=frame["time"] + jitter)), STUDY, validated=True)
    missed = missed.set_index(KEY).loc[("memory", 30.0, "all")]
    assert missed["verdict"] != "not assessable"
    assert missed["effect"] == pytest.approx(regular["effect"], abs=0.12)
    now = replace(STUDY, horizons=(0.0,), key_horizons=())
    once = frame[frame["horizon"] == 30].assign(horizon=0.0)
    a, b = (
        residuals.run(with_level(f), now, validated=True).set_index("test").loc["memory"]
        for f in (once, pd.concat([once, once], ignore_index=True))
    )
    assert a["p"] == pytest.approx(b["p"], rel=1e-6)


def test_shares_do_not_change_when_rows_are_copied():
    shares = (
        stream(0, "shares").binomial(20, 0.9, 40) / 20
    )  # independent rows: the effective number is near the real one
    found = engines.share_test(shares, 0.9)
    assert found.df == 39
    assert found.se == pytest.approx(shares.std(ddof=1) / np.sqrt(40), rel=1e-9)


def test_a_reference_without_errors_is_said_to_have_none():
    frame = example(30)
    frame.loc[frame["model"] == "persistence", "yhat"] = frame.loc[frame["model"] == "persistence", "y"]
    tests = residuals.run(with_level(frame), STUDY).set_index("test")
    assert tests.loc["skill", "sentence"].str.contains("makes no error here").all()
    assert tests.loc["skill", "p"].isna().all()


def test_promised_misses_bound_the_coverage_that_is_accepted():
    assert coverage_limit(0.9).lower == -5
    assert coverage_limit(0.99).lower == pytest.approx(-0.5)
    assert coverage_limit(0.99).upper == 5


def test_every_function_that_a_row_names_exists():
    from importlib import import_module

    frame = example(30)
    earlier = frame.assign(split="calibration")
    names = set(residuals.run(with_level(pd.concat([frame, earlier], ignore_index=True)), STUDY)["function"])
    import test_predictions_schema as schema

    names |= set(residuals.run(schema.table(schema.BINARY), schema.BINARY)["function"])
    assert len(names) > 20
    for name in names:
        module, _, function = name.rpartition(".")
        assert hasattr(import_module(module), function), name


def test_residuals_that_never_vary():
    frame = example()
    exact = with_level(frame.assign(yhat=frame["y"]))
    tests = residuals.run(exact, STUDY).set_index(KEY)
    for horizon in (30.0, 60.0):
        assert tests.loc[("bias", horizon, "all"), "verdict"] == "ok"
        assert tests.loc[("bias", horizon, "all"), "p"] == 1
        assert tests.loc[("equivalence", horizon, "all"), "p"] == 0
        for test in ("spread", "memory", "memory_later"):
            assert tests.loc[(test, horizon, "all"), "verdict"] == "not assessable"
            assert "do not vary" in tests.loc[(test, horizon, "all"), "sentence"]
    off = residuals.run(with_level(frame.assign(yhat=frame["y"] + 9.1)), STUDY).set_index(KEY)
    assert off.loc[("bias", 30.0, "all"), "verdict"] == "concern"
    assert off.loc[("spread", 30.0, "all"), "verdict"] == "not assessable"
    assert off.loc[("memory", 30.0, "all"), "verdict"] == "not assessable"


def test_predictions_that_never_vary():
    frame = example()
    tests = residuals.run(with_level(frame.assign(yhat=150.0)), STUDY).set_index(KEY)
    assert "all predictions are the same" in tests.loc[("spread", 30.0, "all"), "sentence"]


def test_a_horizon_without_rows_is_marked():
    frame = example()
    tests = residuals.run(with_level(frame[frame["horizon"] == 30]), STUDY)
    missing = tests[tests["horizon"] == 60]
    assert missing["test"].tolist() == ["rows"]
    assert missing["verdict"].tolist() == ["not assessable"]
    assert missing["n_rows"].tolist() == [0]


def test_model_without_intervals_or_reference():
    frame = example().assign(lo=np.nan, hi=np.nan)
    tests = residuals.run(frame[frame["model"] == "model"], STUDY)
    assert not tests["test"].str.startswith(("coverage", "skill")).any()
    table = metrics.table(frame[frame["model"] == "model"], STUDY)
    assert set(table["metric"]) == set(metrics.UNITS) - {
        "coverage",
        "interval_width",
        "skill",
        "skill_subject_mean",
    }


def test_errors_say_what_to_do():
    frame = example()
    with pytest.raises(ValueError, match="no rows of model 'model' in split 'holdout'"):
        residuals.run(frame, STUDY, split="holdout")
    with pytest.raises(ValueError, match="splits are"):
        metrics.table(frame, STUDY, split="holdout")
    frame.attrs = {}
    with pytest.raises(ValueError, match="at which level"):
        residuals.run(frame, STUDY)
    unpaired = with_level(frame.drop(index=frame.index[frame["model"] == "persistence"][3]))
    with pytest.raises(ValueError, match=r"differ in 1 row"):
        residuals.run(unpaired, STUDY)
    with pytest.raises(ValueError, match="different rows"):
        residuals.run(unpaired, STUDY, validated=True)
    with pytest.raises(ValueError, match="outcome y must be 0 or 1"):
        residuals.run(with_level(frame), replace(STUDY, kind="score"))
    half = with_level(
        frame.assign(lo=frame["lo"].mask(frame.index == 7), hi=frame["hi"].mask(frame.index == 7))
    )
    with pytest.raises(ValueError, match=r"an interval for some rows .* 1 row\(s\), first at position 7"):
        residuals.run(half, STUDY)
    with pytest.raises(ValueError, match="no model 'lstm'"):
        metrics.difference(frame, STUDY, "lstm", "model")
    with pytest.raises(ValueError, match="at most 30 bands"):
        metrics.table(frame.assign(by_sex=np.arange(len(frame))), STUDY)


def test_times_may_be_numbers_or_have_a_zone():
    frame = example()
    a = residuals.run(frame, STUDY)
    zoned = with_level(frame.assign(time=frame["time"].dt.tz_localize("Europe/Rome")))
    pd.testing.assert_frame_equal(a, residuals.run(zoned, STUDY))
    seconds = with_level(frame.assign(time=(frame["time"] - frame["time"].min()).dt.total_seconds()))
    pd.testing.assert_frame_equal(a, residuals.run(seconds, replace(STUDY, time_unit="s since start")))
    unknown = residuals.run(seconds, replace(STUDY, time_unit="visits")).set_index(KEY)
    assert "unit of time is unknown" in unknown.loc[("memory", 30.0, "all"), "sentence"]


# ----------------------------------------------------------------------------------------- contract of the table


def test_columns_and_values_of_the_results():
    tests = residuals.run(example(40), STUDY)
    assert list(tests.columns) == COLUMNS
    design = (
        "study, test, family, model, target, horizon, group, n_subjects, n_rows, icc, design_effect, statistic, df, p, "
        "p_adjusted, adjustment, effect, effect_low, effect_high, effect_unit, tolerance, tolerance_source, verdict, "
        "assumes_independence, method, function, library_version, sentence"
    )
    assert COLUMNS[:28] == design.split(", ")
    assert set(tests["verdict"]) <= {"ok", "concern", "unclear", "not assessable"}
    assert (tests.loc[tests["assumes_independence"], "verdict"] == "not assessable").all()
    assert tests["sentence"].str.endswith(".").all()
    assert not tests["sentence"].str.contains("nan").any()
    assert (tests["tolerance_source"].str.len() > 3).all()
    known = tests[tests["p"].notna()]
    assert known["p_adjusted"].notna().all()
    assert (known["p_adjusted"] >= known["p"] - 1e-12).all()
    assert (known["adjustment"] != "").all()
    assert {"by_sex=F", "by_sex=M"} <= set(tests.loc[tests["test"] == "coverage", "group"])
    names = tests["function"].unique()
    for name in names:
        module, _, function = name.rpartition(".")
        __import__(module)
        assert hasattr(sys.modules[module], function), name


def test_key_horizons_are_the_ones_judged():
    tests = residuals.run(example(), replace(STUDY, key_horizons=(60.0,)))
    assert set(tests["horizon"]) == {60.0}


def test_verdict_does_not_listen_to_p():
    "Significant and harmless; not significant and not harmless."
    tiny = averages.bias(cell(150.0, 0.5 + stream(0, "t").normal(0, 0.3, (60, 20)), 60, 20))[0]
    assert tiny["p"] < 1e-6
    assert tiny["verdict"] == "ok"
    vague = averages.bias(cell(150.0, stream(1, "v").normal(0, 60, (12, 1)), 12, 1))[0]
    assert vague["p"] > 0.05
    assert vague["verdict"] == "unclear"
    assert verdict(np.nan, np.nan, -1, 1) == "not assessable"
    assert all("convention" in limit.source for limit in CONVENTIONS.values())


def test_numbers_in_sentences():
    assert number(-0.04) == "0.0"
    assert number(1234.56, 0) == "1,235"
    assert number(-2.25, 2) == "-2.25"


# ----------------------------------------------------------------------------------------------- metrics by hand


def test_metrics_against_a_table_small_enough_to_check_by_hand():
    keys = {"target": "glucose", "split": "test", "horizon": 30.0, "time": pd.Timestamp("2024-03-01")}
    own = pd.DataFrame(
        {
            "model": "model",
            "subject": ["A", "A", "A", "B"],
            "y": [100.0, 200.0, 40.0, 100.0],
            "yhat": [110.0, 170.0, 56.0, 140.0],
            "lo": [90.0, 180.0, 40.0, 120.0],
            "hi": [130.0, 220.0, 80.0, 160.0],
            "by_censored": [False, False, True, False],
        }
    )
    other = own.assign(model="persistence", yhat=own["y"] + 48)
    frame = pd.concat([own, other], ignore_index=True).assign(**keys)
    study = replace(STUDY, horizons=(30.0,), slices=())
    found = metrics.table(frame, study, minimum=1, n_resamples=50).set_index(["model", "metric"])
    value = found.loc["model", "value"]
    assert value["mae"] == (10 + 30 + 16 + 40) / 4
    assert value["mae_subject_mean"] == pytest.approx((56 / 3 + 40) / 2)
    assert value["rmse"] == pytest.approx(np.sqrt((100 + 900 + 256 + 1600) / 4))
    assert value["bias"] == (10 - 30 + 16 + 40) / 4
    assert value["mard"] == pytest.approx(100 * (0.1 + 0.15 + 0.4 + 0.4) / 4)
    assert value["within_tolerance"] == 50.0  # 10 <= 15, 30 <= 30, 16 > 15, 40 > 15
    assert value["skill"] == 1 - 24 / 48
    assert value["coverage"] == 75.0
    assert value["interval_width"] == 40.0
    assert found.loc[("model", "mae"), "n_censored"] == 1
    assert (found["scope"] == "at").all()  # one horizon has no path
    people = metrics.per_subject(frame).set_index(["model", "subject"])
    assert people.loc[("model", "A"), "mae"] == pytest.approx(56 / 3)
    assert people.loc[("model", "A"), "n_rows"] == 3
    paired = metrics.difference(frame, study, "model", "persistence", n_resamples=50)
    assert paired.loc[0, "value"] == -24


def test_mard_only_where_truth_cannot_be_zero():
    signed = replace(STUDY, targets=(replace(GLUCOSE, lower=-50),))
    assert "mard" not in set(metrics.table(example(), signed, n_resamples=50)["metric"])


def test_small_missing_and_unknown_groups_are_marked():
    frame = example()
    frame["by_sex"] = frame["by_sex"].where(frame["subject"] != "P13")
    found = metrics.table(frame, replace(STUDY, slices=("sex", "age")), n_resamples=50)
    maes = found[
        (found["metric"] == "mae") & (found["model"] == "model") & (found["horizon"] == 30)
    ].set_index("group")
    assert maes.loc["by_sex=F", "n_subjects"] == 3
    assert np.isnan(maes.loc["by_sex=F", "value"])
    assert "at least 5" in maes.loc["by_sex=F", "note"]
    assert maes.loc["by_sex=missing", "n_subjects"] == 1
    assert maes.loc["by_age (no such column)", "n_subjects"] == 0
    assert maes.loc["by_sex=M", "low"] < maes.loc["by_sex=M", "value"] < maes.loc["by_sex=M", "high"]


def test_path_pools_rows_of_all_horizons():
    frame = example()
    found = metrics.table(frame, STUDY, n_resamples=50)
    own = frame[frame["model"] == "model"]
    path = found[
        (found["scope"] == "path") & (found["group"] == "all") & (found["model"] == "model")
    ].set_index("metric")
    assert path.loc["rmse", "value"] == pytest.approx(np.sqrt(((own["yhat"] - own["y"]) ** 2).mean()))
    assert path.loc["mae", "n_rows"] == len(own)
    assert path["horizon"].isna().all()


# ---------------------------------------------------------------------------------------------- reference values


def test_cluster_standard_errors_against_stata():
    import statsmodels.api as sm

    firms = sm.datasets.grunfeld.load_pandas().data
    design = np.column_stack([np.ones(len(firms)), firms["value"], firms["capital"]])
    found = engines.cluster_regression(design, firms["invest"].to_numpy(), codes(firms["firm"])[0], "CR1")
    factor = np.sqrt((len(firms) - 1) / (len(firms) - 3))
    np.testing.assert_allclose(found.coefficients, [-38.41005, 0.11453, 0.22751], rtol=5e-5)
    np.testing.assert_allclose(
        np.sqrt(np.diag(found.covariance)) * factor, [18.1363, 0.0162004, 0.0854778], rtol=5e-5
    )
    with pytest.raises(ValueError, match="repeat each other"):
        engines.cluster_regression(np.ones((4, 2)), np.ones(4), np.array([0, 0, 1, 1]))


def test_sign_flip_enumerates_when_it_can():
    means = np.array([1.0, 2.0, -0.5, 3.0])
    signs = np.array(np.meshgrid(*[[1, -1]] * 4)).reshape(4, -1).T
    exact = (np.abs((signs * means).mean(axis=1)) >= abs(means.mean()) - 1e-12).mean()
    assert engines.sign_flip(means, stream(0, "x"))[0][0] == exact
    p, family = engines.sign_flip(np.column_stack([means, [np.nan] * 4, -means]), stream(0, "x"))
    assert np.isnan(p[1])
    assert p[0] == p[2]
    assert (family[[0, 2]] >= p[[0, 2]]).all()


def test_bca_against_scipy():
    values = stream(0, "bca").gamma(2, 1, (40, 1))
    ours = bootstrap.bootstrap_sums(lambda s: s[..., 0] / 40, values, stream(0, "d"), 20_000, 0.95, "bca")
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20_000, rng=stream(0, "e")
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


# ---------------------------------------------------------------------------------------------------- intervals


def test_half_width_with_one_row_each_is_split_conformal():
    for n, level in ((19, 0.9), (50, 0.8), (99, 0.95)):
        absolute = np.abs(stream(n, "w").normal(size=n))
        rank = int(np.ceil((n + 1) * level - 1e-9))
        assert intervals.half_width(absolute, np.arange(n), level) == np.sort(absolute)[rank - 1]


def test_half_width_ignores_copies_and_counts_patients():
    absolute = np.abs(stream(0, "w").normal(size=60))
    subject = np.repeat(np.arange(20), 3)
    once = intervals.half_width(absolute, subject, 0.9)
    assert once == intervals.half_width(np.repeat(absolute, 5), np.repeat(subject, 5), 0.9)
    only_first = np.concatenate([absolute, np.full(500, 99.0)])
    hogged = intervals.half_width(only_first, np.concatenate([subject, np.zeros(500, int)]), 0.9)
    assert hogged < 99  # one patient with many rows cannot dictate the width


def test_intervals_stay_inside_the_target_and_keep_their_order():
    frame = example(30)
    widths = intervals.calibrate(frame, 0.9)
    out = intervals.apply(frame.drop(columns=["lo", "hi"]), widths, STUDY)
    assert out["lo"].ge(40).all()
    assert out["hi"].le(400).all()
    assert (out["lo"] <= out["hi"]).all()
    assert out.index.equals(frame.index)
    assert ((out["lo"] <= out["y"]) & (out["y"] <= out["hi"])).mean() > 0.88
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.calibrate(frame, 90)
    with pytest.raises(ValueError, match="no calibration rows"):
        intervals.calibrate(frame.head(0), 0.9)


# ------------------------------------------------------------------------------------------------------- imports


def test_importing_the_judge_stays_light():
    code = (
        "import sys, medlab.judge.residuals, medlab.judge.intervals\n"
        "heavy = {'torch', 'tensorflow', 'statsmodels', 'matplotlib', 'sklearn', 'pandera'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
