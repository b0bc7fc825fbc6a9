"""Intervals: MAPIE as oracle, coverage for new patients, quantile forecasts, and the worst of many slices."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from mapie.regression import ConformalizedQuantileRegressor, SplitConformalRegressor
from scipy import stats
from sklearn.base import BaseEstimator, RegressorMixin

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import averages, coverage_slices, engines, intervals, quantiles, residuals
from medlab.judge.dependence import clustered
from medlab.judge.verdicts import COLUMNS, Cell

GLUCOSE = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "a source", 15, 0.15, "another source")
STUDY = Study(
    "example", "Example", "Where is glucose going?", "regression", (GLUCOSE,), (60.0,), "min", "UTC timestamp",
    "model", "persistence", ("age", "site", "trend"), "To test.", "Anything else.",
)  # fmt: skip


class Column(RegressorMixin, BaseEstimator):
    "A fitted model whose forecast is a column of its input."

    def __init__(self, which=0):
        self.which = which
        self.n_features_in_ = 3

    def fit(self, x, y):
        return self

    def predict(self, x):
        return np.asarray(x)[:, self.which]


def mapie_half_width(yhat, y, level):
    peer = SplitConformalRegressor(Column(), confidence_level=level, prefit=True).conformalize(
        np.tile(yhat[:, None], 3), y
    )
    return float(peer.predict_interval(np.zeros((1, 3)))[1][0, 1, 0])


def mapie_corrections(lo, hi, y, level, together=True):
    peer = ConformalizedQuantileRegressor([Column(0), Column(1), Column(2)], level, prefit=True)
    peer.conformalize(np.stack([lo, hi, (lo + hi) / 2], axis=1), y)
    wide = np.array([[-1e6, 1e6, 0.0]])  # so that MAPIE finds nothing crossed
    ends = peer.predict_interval(wide, symmetric_correction=together)[1][0, :, 0]
    return -1e6 - ends[0], ends[1] - 1e6


def raw_forecasts(rng, n):
    "Skewed outcomes whose spread is known, and quantile forecasts of the wrong size."
    spread = np.exp(rng.standard_normal(n) / 2)
    y = 150 + 20 * spread * (rng.standard_exponential(n) - 1)
    return 150 - 17 * spread, 150 + 33 * spread, y


# ---------------------------------------------------------------- MAPIE as oracle: one row per patient


@pytest.mark.parametrize("n", [11, 19, 20, 57, 99, 200])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_half_width_equals_mapie_with_one_row_per_patient(n, level):
    r = stream(n, "oracle").standard_normal(n)
    ours = intervals.half_width(np.abs(r), np.arange(n), level)
    assert ours == pytest.approx(mapie_half_width(np.zeros(n), r, level), rel=1e-12)


@pytest.mark.parametrize("n", [20, 57, 99, 200])
@pytest.mark.parametrize("level", [0.6, 0.8, 0.9])
def test_quantile_corrections_equal_mapie_with_one_row_per_patient(n, level):
    lo, hi, y = raw_forecasts(stream(n, "oracle"), n)
    ours = quantiles.conformalise(lo, hi, y, np.arange(n), level)
    assert mapie_corrections(lo, hi, y, level) == pytest.approx((ours, ours), abs=1e-6)
    frame = table(lo, hi, y, np.arange(n))
    apart = quantiles.calibrate_quantiles(frame, level, each_side=True)["widths"][0]
    assert mapie_corrections(lo, hi, y, level, together=False) == pytest.approx(
        (apart["down"], apart["up"]), abs=1e-6
    )


def test_where_too_few_were_seen_we_give_everything_and_mapie_refuses():
    r = np.arange(1.0, 9.0)
    assert intervals.half_width(r, np.arange(8), 0.9) == np.inf
    with pytest.raises(ValueError, match="too low"):
        mapie_half_width(np.zeros(8), r, 0.9)
    assert intervals.half_width(np.arange(9.0), np.arange(9), 0.9) == 8.0  # rank ceil(10 * 0.9) exists ...
    with pytest.raises(ValueError, match="too low"):
        mapie_half_width(np.zeros(9), np.arange(9.0), 0.9)  # ... and MAPIE asks for ten


# ---------------------------------------------------------------- the promise to a new patient


def laboratory(rng, n_subjects, n_rows=40):
    "Errors of patients of unequal difficulty; those who are hard bring fewer rows."
    difficulty = np.exp(0.6 * rng.standard_normal(n_subjects))
    seen = np.arange(n_rows) < np.clip(n_rows * (0.6 / difficulty) ** 2, 3, n_rows)[:, None]
    return (difficulty[:, None] * clustered(rng, n_subjects, n_rows))[seen], np.nonzero(seen)[0]


@pytest.mark.parametrize("n_subjects", [20, 29, 60])
def test_one_value_of_a_new_patient_is_covered_as_promised_and_mapie_by_rows_is_not(n_subjects):
    rng, n, level = stream(n_subjects, "promise"), 1200, 0.9
    ours, quantile, rows = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        r, subject = laboratory(rng, n_subjects)
        new = laboratory(rng, 1)[0][0]
        ours[i] = abs(new) <= intervals.half_width(np.abs(r), subject, level)
        widened = quantiles.conformalise(np.full(len(r), -0.5), np.full(len(r), 0.8), r, subject, level)
        quantile[i] = -0.5 - widened <= new <= 0.8 + widened
        rank = int(np.ceil((len(r) + 1) * level)) - 1  # MAPIE's, checked against it below
        rows[i] = abs(new) <= np.partition(np.abs(r), rank)[rank]
    assert mapie_half_width(np.zeros(len(r)), r, level) == np.partition(np.abs(r), rank)[rank]
    low, _ = stats.binom.interval(0.999, n, level)
    _, high = stats.binom.interval(0.999, n, level + 1 / (n_subjects + 1))
    assert low <= ours.sum() <= high
    assert low <= quantile.sum() <= high
    assert rows.sum() < low, "the simulator does not bite: rows as the unit must fall short"


def test_each_side_is_crossed_by_at_most_its_half():
    rng, n, missed = stream(0, "sides"), 500, np.zeros(2)
    for _ in range(n):
        lo, hi, y = raw_forecasts(rng, 30)
        found = quantiles.calibrate_quantiles(
            table(lo[:-1], hi[:-1], y[:-1], np.arange(29)), 0.8, each_side=True
        )
        entry = found["widths"][0]
        missed += (y[-1] < lo[-1] - entry["down"], y[-1] > hi[-1] + entry["up"])
    assert (missed <= stats.binom.interval(0.999, n, 0.1)[1]).all()
    assert (missed >= stats.binom.interval(0.999, n, 0.1 - 1 / 30)[0]).all()


def test_quantiles_are_narrower_and_more_even_than_one_width_where_spread_is_known():
    rng = stream(0, "heteroscedastic")
    (lo, hi, y), (low, high, truth) = raw_forecasts(rng, 2000), raw_forecasts(rng, 20_000)
    who = np.repeat(np.arange(100), 20)
    moved = quantiles.conformalise(lo, hi, y, who, 0.9)
    width = intervals.half_width(np.abs(y - 150), who, 0.9)
    in_quantiles, in_one = (low - moved <= truth) & (truth <= high + moved), np.abs(truth - 150) <= width
    wide = high - low > np.quantile(high - low, 0.9)
    assert abs(in_quantiles.mean() - 0.9) < 0.02
    assert abs(in_one.mean() - 0.9) < 0.02
    assert in_one[wide].mean() < 0.75
    assert (
        0.9 - in_quantiles[wide].mean() < (0.9 - in_one[wide].mean()) / 2
    )  # even, as far as the raw shape is
    assert (high - low + 2 * moved).mean() < 0.95 * 2 * width


# ---------------------------------------------------------------- tables, JSON, copies, the ends of the road


def table(lo, hi, y, subject):
    return pd.DataFrame({"y": y, "yhat": (lo + hi) / 2, "lo": lo, "hi": hi, "subject": subject}).assign(
        model="model", target="glucose", horizon=60.0
    )


@pytest.fixture(scope="module")
def forecasts():
    lo, hi, y = raw_forecasts(stream(0, "table"), 1200)
    frame = table(lo, hi, y.clip(40, 400), np.repeat([f"P{i:02d}" for i in range(30)], 40))
    return frame.assign(by_trend=np.where(np.arange(1200) % 3 == 0, "rising", "flat"))


PAIRS = {
    "one width": (intervals.calibrate, intervals.apply),
    "quantiles": (quantiles.calibrate_quantiles, quantiles.apply_quantiles),
}


@pytest.mark.parametrize("way", PAIRS)
@pytest.mark.parametrize("by", [None, "by_trend"])
def test_a_calibration_survives_json_order_names_and_copies_of_rows(forecasts, way, by):
    calibrate, apply = PAIRS[way]
    kept = calibrate(forecasts, 0.9, by=by)
    again = json.loads(json.dumps(kept, allow_nan=False))
    expected = apply(forecasts, kept, STUDY)
    pd.testing.assert_frame_equal(apply(forecasts, again, STUDY), expected)
    renamed = forecasts.assign(subject=forecasts["subject"].map(lambda s: f"Q{99 - int(s[1:])}"))
    changes = {
        "order": forecasts.sample(frac=1, random_state=0),
        "names": renamed,
        "copies": pd.concat([forecasts] * 7),
        "categories": forecasts.astype({"subject": "category", "model": "category", "target": "category"}),
    }
    for name, changed in changes.items():
        pd.testing.assert_frame_equal(
            apply(forecasts, calibrate(changed, 0.9, by=by), STUDY), expected, obj=name
        )


def test_copies_of_rows_do_not_tip_the_rank_over():
    "A tenth of a million weights sum to 0.9 only up to rounding."
    rng = stream(0, "rounding")
    for n_subjects, level in ((9, 0.9), (19, 0.95), (4, 0.8)):
        r, who = np.abs(rng.standard_normal(n_subjects * 20_000)), np.repeat(np.arange(n_subjects), 20_000)
        assert intervals.half_width(r, who, level) == r.max()


def test_units_change_with_the_data(forecasts):
    study = replace(STUDY, targets=(replace(GLUCOSE, unit="mmol/L", lower=40 / 18, upper=400 / 18),))
    small = forecasts.assign(**{c: forecasts[c] / 18 for c in ("y", "yhat", "lo", "hi")})
    expected = quantiles.apply_quantiles(forecasts, quantiles.calibrate_quantiles(forecasts, 0.9), STUDY)
    found = quantiles.apply_quantiles(small, quantiles.calibrate_quantiles(small, 0.9), study)
    np.testing.assert_allclose(18 * found[["lo", "hi"]], expected[["lo", "hi"]])


def test_few_patients_give_everything_that_can_be_measured(forecasts):
    eight = forecasts[forecasts["subject"] < "P08"]
    kept = json.loads(json.dumps(quantiles.calibrate_quantiles(eight, 0.9), allow_nan=False))
    assert kept["widths"][0]["up"] is None
    assert (quantiles.apply_quantiles(forecasts, kept, STUDY)[["lo", "hi"]] == [40, 400]).all(axis=None)


def test_ranges_that_cross_are_sorted_and_never_turned_inside_out(forecasts):
    crossed = forecasts.rename(columns={"lo": "hi", "hi": "lo"})
    kept = quantiles.calibrate_quantiles(forecasts, 0.9)
    assert quantiles.calibrate_quantiles(crossed, 0.9) == kept
    expected = quantiles.apply_quantiles(forecasts, kept, STUDY)
    found = quantiles.apply_quantiles(crossed, kept, STUDY)
    np.testing.assert_array_equal(found[["lo", "hi"]], expected[["lo", "hi"]])
    sure = quantiles.calibrate_quantiles(forecasts.assign(lo=40.0, hi=400.0), 0.9)
    assert sure["widths"][0]["up"] < 0
    narrowed = quantiles.apply_quantiles(forecasts, sure, STUDY)
    assert (narrowed["lo"] <= narrowed["hi"]).all()


def test_bad_input_is_refused_with_its_reason(forecasts):
    kept = quantiles.calibrate_quantiles(forecasts, 0.9)
    hole = forecasts.assign(lo=forecasts["lo"].where(forecasts.index > 0))
    with pytest.raises(ValueError, match="lack quantile forecasts"):
        quantiles.calibrate_quantiles(hole, 0.9)
    with pytest.raises(ValueError, match="lack quantile forecasts"):
        quantiles.apply_quantiles(hole, kept, STUDY)
    with pytest.raises(ValueError, match="no correction for other glucose 60.0"):
        quantiles.apply_quantiles(forecasts.assign(model="other"), kept, STUDY)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        quantiles.calibrate_quantiles(forecasts, 90)
    with pytest.raises(ValueError, match="no calibration rows"):
        quantiles.calibrate_quantiles(forecasts.iloc[:0], 0.9)


# ---------------------------------------------------------------- coverage by slice, and of the worst slice

ICC, RHO, G, ROWS, N = 0.3, 0.7, 60, 20, 250


def cell(rng, n_subjects=G, n_rows=ROWS, harder=1.0, study=STUDY):
    "Intervals that hold 90 % in every slice, unless errors are `harder` while glucose rises."
    who, n = np.repeat(np.arange(n_subjects), n_rows), n_subjects * n_rows
    moving = clustered(rng, n_subjects, n_rows, icc=0).ravel()
    by = {
        "by_age": np.array(["young", "middle", "old"])[rng.integers(0, 3, n_subjects)][who],
        "by_site": np.array(list("ABCDE"))[rng.integers(0, 5, n_subjects)][who],
        "by_trend": np.select([moving < -0.8, moving > 0.8], ["falling", "rising"], "flat"),
        "by_secret": np.array(list("xy"))[rng.integers(0, 2, n)],  # not among the study's slices
    }
    scale = 15 * np.where(by["by_trend"] == "rising", harder, 1.0)
    residual, y = scale * clustered(rng, n_subjects, n_rows, ICC, RHO).ravel(), np.full(n, 150.0)
    reach = 15 * stats.norm.ppf(0.95)
    return Cell(
        study, GLUCOSE, 60.0, "all", np.arange(n_subjects), who, None, y, y + residual, y + residual - reach,
        y + residual + reach, None, 0.9, n_resamples=999, by=by,
    )  # fmt: skip


def worst(one):
    return coverage_slices.worst_coverage(one)[0]


def altered(one, change):
    "The cell with every column of rows passed through `change`."
    columns = {name: change(getattr(one, name)) for name in ("subject", "y", "yhat", "lo", "hi")}
    return replace(one, by={name: change(values) for name, values in one.by.items()}, **columns)


@pytest.fixture(scope="module")
def worlds():
    rng = stream(0, "slices")
    return [cell(rng) for _ in range(N)]


def test_size_of_the_worst_slice_and_the_naive_hunt_fails(worlds):
    rows = pd.DataFrame([worst(one) for one in worlds])
    assert (rows["p"] < 0.05).sum() <= stats.binom.interval(0.999, N, 0.05)[1]
    naive = [
        min(
            part["p"] if part["effect"] < 0 else 1.0
            for part in coverage_slices.coverage_by_slice(one)
            if part["test"] == "coverage_rows"
        )
        for one in worlds[:80]
    ]
    assert np.mean(np.array(naive) < 0.05) > 0.4, "the simulator does not bite: the hunt must fail"
    assert (rows["verdict"] == "concern").mean() < 0.02


def test_intervals_of_all_slices_hold_at_once(worlds):
    together = [
        all(
            found.low <= 0.9 <= found.high for found in coverage_slices.simultaneous_coverage(one)[0].values()
        )
        for one in worlds
    ]
    low, _ = stats.binom.interval(
        0.999, N, 0.92
    )  # of 95 promised: slices of a dozen patients cost three points
    assert sum(together) >= low


def test_a_broken_slice_is_found_named_and_its_truth_held():
    rng, harder, n = stream(0, "broken slice"), 1.8, 60
    truth = 100 * (2 * stats.norm.cdf(stats.norm.ppf(0.95) / harder) - 1) - 90
    rows = pd.DataFrame([worst(cell(rng, harder=harder)) for _ in range(n)])
    assert (rows["p"] < 0.05).mean() > 0.9
    assert rows["sentence"].str.contains("where trend is rising").mean() > 0.9
    assert ((rows["effect_low"] <= truth) & (truth <= rows["effect_high"])).mean() > 0.9
    assert (rows["verdict"] == "concern").mean() > 0.6
    assert (
        rows["sentence"].str.match(r"Of (9|10|11) slices").mean() > 0.9
    )  # eleven, less those of few patients


def test_one_slice_pays_for_no_others(worlds):
    study = replace(STUDY, slices=("trend",))
    one = replace(worlds[0], study=study, by={"by_trend": np.where(worlds[0].subject < 40, "a", "b")})
    few = altered(one, lambda values: values[one.subject < 45])  # "b" has five patients and is not looked at
    few = replace(few, names=np.arange(45))
    found, _ = coverage_slices.simultaneous_coverage(few)
    share = few.means(((few.lo <= few.y) & (few.y <= few.hi)).astype(float))[:40]
    alone = engines.share_test(share, 0.9, 0.95)
    assert list(found) == ["by_trend=a"]
    assert (found["by_trend=a"].low, found["by_trend=a"].high) == pytest.approx(
        (alone.low, alone.high), abs=0.01
    )
    assert "(1 with fewer than 10 patients left out)" in worst(few)["sentence"]


def test_a_column_of_too_many_values_is_named_and_stops_nothing(worlds):
    one = worlds[0]
    by = one.by | {"by_site": np.array([f"site {i}" for i in range(40)])[np.arange(len(one.y)) % 40]}
    crowded = replace(one, by=by)
    rows = pd.DataFrame(coverage_slices.coverage_by_slice(crowded), columns=COLUMNS)
    named = rows[rows["group"].str.startswith("by_site")]
    assert named["verdict"].tolist() == ["not assessable"]
    assert "site has 40 values, cut it into at most 30 bands" in named["sentence"].iloc[0]
    assert rows["group"].str.startswith("by_trend").sum() == 6
    assert re.match("Of (5|6) slices", worst(crowded)["sentence"])
    nothing = np.full(len(one.y), np.nan)
    blank = replace(crowded, lo=nothing, hi=nothing)
    assert coverage_slices.coverage_by_slice(blank) == coverage_slices.worst_coverage(blank) == []


def test_the_limit_shrinks_with_the_misses_that_were_promised(worlds):
    one = worlds[0]
    for nominal, below in ((0.8, 5), (0.9, 5), (0.95, 2.5), (0.99, 0.5)):
        found = worst(replace(one, nominal=nominal))
        assert found["tolerance"] == pytest.approx(below)
        assert f"more than {below:g} points below" in found["sentence"]
        assert "only too little counts" in found["tolerance_source"]
    wide = replace(one, lo=one.y - 1, hi=one.y + 1, nominal=0.9)
    assert coverage_slices.too_little(0.9).upper == np.inf
    assert worst(wide)["verdict"] != "concern"


def test_a_share_of_patients_is_not_called_a_share_of_rows():
    "Fifty patients whose one value is missed, ten with a hundred values that all are held."
    subject = np.concatenate([np.arange(50), np.repeat(np.arange(50, 60), 100)])
    y, held = np.full(len(subject), 100.0), np.where(subject < 50, 1.0, -1.0)
    by = {"by_trend": np.where(np.arange(len(subject)) % 2, "rising", "falling")}
    by["by_trend"][:50] = "rising"
    found = worst(Cell(STUDY, GLUCOSE, 60.0, "all", np.arange(60), subject, None, y, y, y + held, y + 2, None, 0.9, n_resamples=99, by=by))  # fmt: skip
    assert "where trend is rising: in the average patient, 16.7 % of the values" in found["sentence"]


def test_worst_slice_is_blind_to_copies_order_names_and_units(worlds):
    one = worlds[3]
    expected = worst(one)
    rng = stream(0, "shuffle")
    shuffled = np.arange(len(one.y)).reshape(G, ROWS)
    shuffled = rng.permuted(shuffled, axis=1).ravel()  # rows of a patient stay together, as in any cell
    back = np.arange(G)[::-1]  # patients renamed, so that they come in another order
    renamed = np.concatenate([np.flatnonzero(one.subject == who) for who in back])
    scale = {name: getattr(one, name) / 18 for name in ("y", "yhat", "lo", "hi")}
    changes = {
        "copies": altered(one, lambda values: np.repeat(values, 3)),
        "order": altered(one, lambda values: values[shuffled]),
        "names": replace(altered(one, lambda values: values[renamed]), subject=np.repeat(np.arange(G), ROWS)),
        "units": replace(one, **scale),
    }
    for name, changed in changes.items():
        found = worst(changed)
        assert found["sentence"] == expected["sentence"], name
        for key in ("p", "effect", "effect_low", "effect_high", "statistic"):
            assert found[key] == pytest.approx(expected[key], rel=1e-6), (name, key)


def test_slices_are_the_rows_that_the_battery_made_before(worlds):
    one = worlds[0]
    rows = pd.DataFrame(coverage_slices.coverage_by_slice(one), columns=COLUMNS)
    assert not rows["group"].str.contains("secret").any()
    frame = pd.DataFrame(
        {
            "subject": one.subject, "time": np.tile(np.arange(ROWS), G), "target": "glucose", "horizon": 60.0,
            "y": one.y, "yhat": one.yhat, "lo": one.lo, "hi": one.hi, "model": "model", "split": "test", **one.by,
        }
    )  # fmt: skip
    frame.attrs["level"] = 0.9
    study = replace(STUDY, time_unit="s since start")
    for value in np.unique(one.by["by_trend"]):
        part = residuals.cells(frame[frame["by_trend"] == value], study)[0]
        part = replace(part, group=f"by_trend={value}")
        for expected in averages.coverage(part):
            same = rows[(rows["group"] == part.group) & (rows["test"] == expected["test"])].iloc[0]
            for key in ("effect", "effect_low", "effect_high", "p", "icc", "n_rows"):
                assert same[key] == pytest.approx(expected[key], nan_ok=True), key
            assert same["verdict"] == expected["verdict"]
            assert same["sentence"] == expected["sentence"]


@pytest.mark.filterwarnings("error")
def test_degenerate_cells_give_no_verdict_and_no_warning():
    rng = stream(0, "degenerate")
    one = cell(rng, 20, 5)
    nothing = np.full(len(one.y), np.nan)
    assert worst(one)["verdict"] == "not assessable"  # 30 patients are needed for a verdict on a share
    assert coverage_slices.worst_coverage(replace(one, lo=nothing, hi=nothing)) == []
    assert coverage_slices.coverage_by_slice(replace(one, lo=nothing, hi=nothing)) == []
    assert coverage_slices.worst_coverage(replace(one, by={})) == []
    assert coverage_slices.worst_coverage(replace(one, study=replace(STUDY, slices=()))) == []
    half = np.where(np.arange(len(one.y)) % 2, one.lo, np.nan)
    with pytest.raises(ValueError, match="give lo and hi to all or to none"):
        coverage_slices.worst_coverage(replace(one, lo=half))
    assert "level that the intervals claim" in worst(replace(cell(rng), nominal=np.nan))["sentence"]
    for n_subjects, n_rows in ((1, 1), (1, 7), (2, 5), (12, 1), (40, 1)):
        assert worst_or_none(cell(rng, n_subjects, n_rows)) in {
            None,
            "not assessable",
            "unclear",
            "ok",
            "concern",
        }
    sure = cell(rng, 60, 20)
    assert worst(replace(sure, lo=sure.y - 1, hi=sure.y + 1))["effect"] == pytest.approx(10)
    none = worst(replace(sure, lo=sure.y + 1, hi=sure.y + 2))
    assert none["verdict"] == "concern"
    assert none["effect"] == pytest.approx(-90)


def worst_or_none(one):
    found = coverage_slices.worst_coverage(one)
    return found[0]["verdict"] if found else None
