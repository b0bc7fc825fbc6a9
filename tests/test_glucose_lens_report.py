"What only a glucose report says: counted by hand, chosen on other rows, the same in both languages."

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from medlab.core.files import read_json
from medlab.studies.glucose import alarms, announced, harms, lens
from medlab.studies.glucose.floor import fresh, noise_floor
from medlab.studies.glucose.grids import GRIDS
from medlab.studies.glucose.study import study as real
from medlab.tell import example
from medlab.tell.language import speaking

pytestmark = pytest.mark.filterwarnings("error")
NOISE = replace(
    real.targets[0],
    noise_absolute=11.0,
    noise_relative=0.0,
    noise_source=real.targets[0].noise_source
    or "Breton and Kovatchev 2008 (J Diabetes Sci Technol 2:853-862): standard deviation of the error of one sensor, after recalibration",
)
STUDY = replace(
    example.STUDY,
    name="glucose",
    targets=(replace(example.STUDY.targets[0], noise_absolute=11.0, noise_source=NOISE.noise_source),),
)


def halves(**changes):
    table = example.predictions(**({"days": 4, "patients": 16} | changes))
    start = table["time"].min() + pd.Timedelta("2D")
    return table.assign(split=np.where(table["time"] < start, "calibration", "test"))


def both(table, study=STUDY, n_resamples=100):
    return [
        alarms.measure(table, study, level=level, high=high, n_resamples=n_resamples)
        for level, high in ((70.0, False), (180.0, True))
    ]


def harm(table, study=STUDY, n_resamples=100):
    return harms.measure(table, study, *both(table, study, n_resamples), n_resamples=n_resamples)


@pytest.fixture(scope="module")
def table():
    return halves()


@pytest.fixture(scope="module")
def measured(table):
    return lens.measure(table, STUDY, n_resamples=100)


def day(said, lows=((300, 345, 62), (900, 945, 50)), subject="one", model="model"):
    "One day, forecasts every quarter of an hour; `said` maps the minute to the forecast, 120 otherwise."
    minute, curve = np.arange(0, 1440, 15), np.full(320, 120.0)
    for start, stop, value in lows:
        curve[start // 5 : stop // 5] = value
    parts = []
    for horizon in (5.0, 10.0, 15.0, 30.0):
        parts.append(
            pd.DataFrame(
                {
                    "model": model, "split": "test", "subject": subject, "target": "glucose", "horizon": horizon,
                    "time": pd.Timestamp("2024-01-01") + pd.to_timedelta(minute, "min"),
                    "y": curve[(minute + int(horizon)) // 5], "yhat": [float(said.get(m, 120)) for m in minute],
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


HAND = replace(STUDY, horizons=(5.0, 10.0, 15.0, 30.0, 60.0), key_horizons=(30.0,))


def test_a_day_counted_by_hand():
    # warned 45 min before the first low, 0 to 15 min before the second (late), once for nothing (two alarms within the hour)
    said = {255: 65, 270: 65, 285: 65, 885 + 10: 65, 600: 60, 615: 60}
    said[885] = 65  # the last forecast before the onset at 900: fifteen minutes ahead, not late
    counted = harms.count(day(said), HAND, "model", low=70, high=180).iloc[0]
    assert counted[["lows", "very_lows", "missed_low", "missed_very_low", "late", "false_low"]].tolist() == [
        2,
        1,
        0,
        0,
        0,
        1,
    ]
    second = [(300, 345, 62), (910, 950, 50)]
    counted = harms.count(day({255: 65, 900: 65}, second), HAND, "model", low=70, high=180).iloc[0]
    assert counted[["missed_low", "late"]].tolist() == [0, 1]  # ten minutes of lead
    counted = harms.count(day({}), HAND, "model", low=70, high=180).iloc[0]
    assert counted[["missed_low", "missed_very_low", "false_low"]].tolist() == [2, 1, 0]
    assert np.isclose(counted["days"], 1)


def test_highs_are_counted_by_hand_too():
    counted = harms.count(
        day({240: 200, 600: 200}, [(300, 345, 220), (900, 945, 220)]), HAND, "model", 70, 180
    ).iloc[0]
    assert counted[["highs", "missed_high", "false_high", "lows"]].tolist() == [2, 1, 1, 0]


def test_rates_are_per_100_patient_days_and_the_difference_is_paired(table):
    found = harm(table)
    low, high = both(table, n_resamples=0)
    by_hand = harms.count(table, STUDY, "model", low.thresholds["model"], high.thresholds["model"])
    assert np.isclose(
        found.row("missed_low", "model")["value"], 100 * by_hand["missed_low"].sum() / by_hand["days"].sum()
    )
    for name in harms.HARMS:
        one, other, gap = (found.row(name, who)["value"] for who in harms.WHO)
        assert np.isclose(one - other, gap)


def test_the_sign_of_the_difference_follows_who_is_better(table):
    swapped = table.assign(model=table["model"].replace({"model": "persistence", "persistence": "model"}))
    mine, theirs = harm(table), harm(swapped)
    a, b = (found.row("missed_low", "difference") for found in (mine, theirs))
    assert a["value"] < 0 < b["value"] and np.isclose(a["value"], -b["value"])
    assert np.isclose(a["low"], -b["high"], atol=1e-9)


def test_who_wins_depends_on_what_a_missed_low_is_worth():
    found = harm(halves())
    wide = found.burden.pivot(index="rate", columns="who", values="value")
    grave = found.row("missed_low", "model")["value"] + 0.5 * found.row("late", "model")["value"]
    assert np.allclose(
        wide["model"], found.row("false_low", "model")["value"] + wide.index.to_numpy() * grave
    )
    assert list(wide.index) == [1, 5, 10, 20]


def test_test_rows_never_move_the_threshold(table):
    chosen = both(table, n_resamples=0)
    changed = table.copy()
    test = changed["split"] == "test"
    changed.loc[test, "yhat"] = np.random.default_rng(0).uniform(50, 300, test.sum())
    changed.loc[test, "y"] = 60.0
    again = both(changed, n_resamples=0)
    assert [c.thresholds for c in chosen] == [c.thresholds for c in again]
    assert chosen[0].chosen_on == "calibration"
    moved = table.copy()
    moved.loc[~test, "yhat"] -= 20  # cries wolf earlier there, so the threshold must fall
    assert both(moved, n_resamples=0)[0].thresholds["model"] < chosen[0].thresholds["model"]


def test_without_calibration_rows_the_report_admits_it(table):
    only = table[table["split"] == "test"]
    assert both(only, n_resamples=0)[0].chosen_on == "test"
    made = lens.additions(lens.measure(only, STUDY, n_resamples=20), only, STUDY)
    text = " ".join(str(s.text) + "".join(s.tables) for s in made.sections)
    assert "on these same data" in text and "earlier data of the same people" not in text


def texts(made):
    return " ".join(
        str(piece)
        for s in made.sections
        for piece in (
            s.title,
            s.text,
            *s.tables,
            *(f.caption for f in s.figures),
            *(t for d in s.details for t in d.tables),
        )
    )


def test_swedish_is_complete_and_has_the_same_numbers(measured, table):
    english = lens.additions(measured, table, STUDY)
    with speaking("sv", "glucose") as now:
        swedish = lens.additions(measured, table, STUDY)
    assert not now.missing
    plain = lambda made: re.sub(r"(?<=\d)[.,\u00a0\u202f](?=\d)", "", texts(made))
    numbers = lambda made: sorted(re.findall(r"\d+", plain(made)))
    assert numbers(english) == numbers(swedish)
    assert [s.key for s in english.sections] == [s.key for s in swedish.sections]
    assert english.reasons[0][0] == swedish.reasons[0][0]
    assert english.reasons[0][1] != swedish.reasons[0][1]
    assert english.floor.equals(swedish.floor) and swedish.floor_source.startswith("Sensorns")
    assert "CLINIC" not in texts(english)


@pytest.mark.parametrize("case", ["no lows", "no reference", "one patient", "one row", "not a number"])
def test_every_sentence_of_odd_data_is_translated(case):
    table = halves(days=2, patients=8)
    table = table.assign(
        split=np.where(table["time"] < table["time"].min() + pd.Timedelta("1D"), "calibration", "test")
    )
    if case == "no lows":
        table["y"] = table["y"].clip(lower=100)
    elif case == "no reference":
        table = table[table["model"] == "model"]
    elif case == "one patient":
        table = table[table["subject"] == table["subject"].iloc[0]]
    elif case == "one row":
        table = table[
            (table["model"] == "model") & (table["split"] == "test") & (table["horizon"] == 60)
        ].head(1)
    else:
        table.loc[table.index[::7], "yhat"] = np.nan
    found = lens.measure(table, STUDY, n_resamples=30)
    with speaking("sv", "glucose") as now:
        made = lens.additions(found, table, STUDY)
    assert not now.missing and len(made.sections) >= 4
    for status, sentence, _ in made.reasons:
        assert status in {"ok", "unclear", "concern"} and sentence
    if case in {"no lows", "no reference", "one patient"}:
        assert made.reasons[0][0] == "unclear"
    if case == "one patient":
        assert found.harms.table["low"].isna().all()  # no interval from one patient


def test_without_the_studys_model_nothing_is_said(table):
    rest = table[table["model"] != "model"]
    assert lens.measure(rest, STUDY) is None
    made = lens.additions(None, rest, STUDY)
    assert made.sections == () and made.reasons == () and made.marks == {"low": 70.0, "high": 180.0}


def test_what_decides_comes_from_the_interval():
    found = harm(halves(gain=-0.3))
    status, sentence, headline = harms.reason(found, STUDY)
    assert (status == "concern") == (
        found.row("missed_low", "difference")["low"] > 0
        or (
            found.row("missed_low", "difference")["high"] >= 0
            and found.row("false_low", "difference")["low"] > 0
        )
    )
    assert status == "concern" and headline.startswith("it misses more lows than repeating the last value")
    assert max(len(part.split()) for part in sentence.split(". ")) <= 24
    per_100 = 100 * found.episodes["lows"] / found.days
    assert (
        f" of {per_100:.0f} lows per 100 patient-days, with " in sentence
    )  # "9.1 missed" says nothing without "of 93"


def test_the_reader_is_told_what_counts_as_a_false_alarm(measured, table):
    said = " ".join(announced.parts(measured.lows, STUDY).text)
    assert "An alarm is false if no low starts in the hour after it" in said


def test_what_was_never_seen_has_no_interval_of_no_width(measured, table):
    "Drawing patients again finds no zone E where there was none; '0.0 (0.0 to 0.0)' would call it impossible."
    never = measured.zones.assign(value=0.0, low=0.0, high=0.0)
    shown = texts(lens.additions(replace(measured, zones=never), table, STUDY))
    assert "0.0 <small" not in shown.partition("Does it see lows")[0]
    assert "100 (100 to 100)" not in re.sub(r"<[^>]*>", "", shown)


def test_each_grid_says_what_its_own_zones_mean(measured, table):
    captions = {
        f.key: f.caption for part in lens.additions(measured, table, STUDY).sections for f in part.figures
    }
    assert "zone A (no risk)" in captions["dts-error-grid"]
    assert "same treatment" not in captions["dts-error-grid"]
    assert "zone A (same treatment)" in captions["clarke-error-grid"]


def test_a_low_forecast_in_range_is_in_zone_d_of_clarke_if_off_by_more_than_a_fifth():
    "What the text beside the grids says."
    y, yhat = (a.ravel() for a in np.meshgrid(np.arange(41.0, 400.0), np.arange(70.0, 180.0)))
    missed = ((y < 70) | (y > 240)) & (np.abs(yhat - y) > 0.2 * y)
    zones = GRIDS["Clarke"](y, yhat)
    assert set(zones[missed & (yhat != 70)]) == {"D"}
    assert "D" not in set(zones[~missed])


def test_never_seen_is_not_impossible(table):
    found = harm(table)
    for _, row in found.table[(found.table["value"] == 0) & (found.table["who"] != "difference")].iterrows():
        assert np.isclose(row["high"], -100 * np.log(0.025) / found.days)


def test_the_floor_is_its_closed_form():
    rows = pd.DataFrame({"horizon": [15.0, 15.0, 60.0], "y": [100.0, 200.0, 300.0]})
    study = replace(real, targets=(replace(NOISE, noise_absolute=11.0, noise_relative=0.1),))
    got = noise_floor(rows, study).set_index("horizon")["value"]
    assert np.isclose(got[15.0], np.sqrt(2 / np.pi) * np.mean([11, 20]) * fresh(15))
    assert np.isclose(got[60.0], np.sqrt(2 / np.pi) * 30 * fresh(60))
    assert noise_floor(rows, replace(study, targets=(replace(NOISE, noise_absolute=0.0),))) is None
    assert fresh(0) == 0 and all(np.diff([fresh(h) for h in range(0, 120, 5)]) > 0) and fresh(600) <= 1
    assert np.isclose(fresh(1e4), 1)


def test_the_floor_is_what_the_simulators_sensor_leaves():
    "Known truth: somebody who knows the sensor's state and glucose itself is off by no less, and by hardly more."
    from medlab.studies.glucose.sensor import JOHNSON, drift, error

    rng = np.random.default_rng(1)
    now = rng.standard_normal((2, 40_000))
    guess, scale = now, 11.0 / np.std(error(rng.standard_normal(400_000)))
    assert set(JOHNSON)  # the published distribution, not a normal one
    floor = noise_floor(
        pd.DataFrame({"horizon": [5.0, 15.0, 30.0, 60.0], "y": 100.0}), replace(real, targets=(NOISE,))
    )
    floor = floor.set_index("horizon")["value"]
    for step in range(1, 13):
        now, guess = drift(now, rng.standard_normal(now.shape)), drift(guess, np.zeros_like(guess))
        if 5.0 * step in floor.index:
            left = np.mean(np.abs(scale * (error(now[0]) - error(guess[0]))))
            assert 0.88 < left / floor[5.0 * step] < 1.02


def test_no_forecast_of_the_sample_can_get_below_the_floor():
    "The oracle knows everything but chance, so it lies above the floor at every horizon, and a floor above it would be false."
    path = ROOT / "data" / "glucose" / "oracle.json"
    if not path.is_file():
        pytest.skip("the sample data are not here: run `dvc pull`")
    scores = read_json(path)["scores"]
    for horizon in (15, 30, 45, 60):
        best = scores[f"at {horizon} min"]["oracle"]["mae"]
        floor = np.sqrt(2 / np.pi) * 11.0 * fresh(horizon)
        assert 0.7 * best < floor < best
