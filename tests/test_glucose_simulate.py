"The simulated glucose cohort: what the notebooks' prose cannot hold."

import json
import os

import numpy as np
import pandas as pd
import pytest
from conftest import loaded

from medlab.core.files import digest, read_about
from medlab.studies.glucose.day import chance, step
from medlab.studies.glucose.hovorka import (
    COMPARTMENTS,
    Body,
    advance,
    derivative,
    eat,
    inject,
    plasma,
    steady_state,
)
from medlab.studies.glucose.oracle import forecasts, futures, score
from medlab.studies.glucose.people import bodies, recruit, settings, take
from medlab.studies.glucose.pumpfiles import write_raw
from medlab.studies.glucose.sensor import STEP, display
from medlab.studies.glucose.simulate import BURN_IN, TICKS, calendar, live, summary, write

SEED, SUBJECTS, DAYS, FUTURES = 7, 10, 4, 40


@pytest.fixture(scope="module")
def run():
    os.environ["MEDLAB_PROGRESS"] = "off"
    return live(SEED, SUBJECTS, DAYS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run):
    place = tmp_path_factory.mktemp("glucose")
    write(place, SEED, SUBJECTS, DAYS, FUTURES)
    return place


def table(path):
    return pd.read_csv(path, comment="#", parse_dates=["timestamp"])


def owners(folder):
    return pd.read_csv(folder / "pumps.csv", dtype=str)


def test_steady_state_holds_for_every_body_and_glucose():
    from medlab.studies.glucose.people import Chance

    body = bodies(Chance(3, 500, "person"))
    for glucose in (70.0, 110.0, 160.0, 220.0):
        for sensitivity in (0.6, 1.0, 1.8):
            masses, infusion = steady_state(body, glucose, sensitivity)
            assert np.abs(derivative(masses, body, infusion, sensitivity)).max() < 1e-10
            assert (infusion > 0).all()
            assert np.allclose(plasma(masses, body), glucose)


def test_steady_state_refuses_what_no_insulin_can_hold():
    with pytest.raises(ValueError, match="no insulin holds"):
        steady_state(Body(weight=np.array([75.0])), 900.0)


def test_masses_stay_non_negative_or_the_step_is_refused():
    from medlab.studies.glucose.people import Chance

    body = bodies(Chance(4, 100, "person"))
    rest, infusion = steady_state(body, 120.0)
    start = inject(eat(eat(rest, body, 300.0), body, 100.0, juice=True), 60.0)
    masses = start
    for _ in range(24 * 12):
        masses = advance(masses, body, infusion, 3.0, steps=12)
        assert masses.min() >= 0
        assert np.isfinite(masses).all()
    assert masses.shape == (len(COMPARTMENTS), 100)

    def carelessly():
        masses = start
        for _ in range(24 * 12):
            masses = advance(masses, body, infusion, 3.0)

    with pytest.raises(FloatingPointError, match="too long"):
        carelessly()


def test_the_step_has_room_to_spare_in_the_cohort(run):
    "Runge-Kutta at 5 min overshoots above 0.55 per minute; the cohort must stay far below."
    assert run.states.masses[COMPARTMENTS.index("x1")].max() < 0.35


def test_more_insulin_is_lower_and_more_food_is_higher_in_everyone():
    people = recruit(5, 40)
    rest, infusion = steady_state(people.body, 140.0)
    level = []
    for grams, units in ((0, 2), (0, 1), (0, 0), (20, 0), (40, 0)):
        masses = inject(eat(rest, people.body, grams), units)
        for _ in range(36):
            masses = advance(masses, people.body, infusion)
        level.append(plasma(masses, people.body))
    assert (np.diff(level, axis=0) > 0).all()


def test_carb_ratio_of_the_body_brings_glucose_home():
    people = recruit(6, 30)
    ratio, _ = settings(people.body)
    rest, infusion = steady_state(people.body, 120.0)
    masses = inject(eat(rest, people.body, 60.0), 60.0 / ratio)
    for _ in range(72):
        masses = advance(masses, people.body, infusion)
    assert np.abs(plasma(masses, people.body) - 130).max() < 1.0


def test_a_person_is_the_same_in_any_cohort(run):
    fewer = live(SEED, 4, DAYS)
    for name in ("reading", "bolus", "basal", "carbs", "plasma"):
        assert np.array_equal(fewer.happened[name], run.happened[name][:, :4], equal_nan=True), name
    other = live(SEED + 1, 2, 3)
    assert not np.array_equal(other.happened["plasma"][:100], run.happened["plasma"][:100, :2])


def test_saved_states_live_on_as_the_data_did(run):
    "The oracle restarts from `run.states`; with the cohort's own chance it must reproduce the cohort."
    from medlab.core.seeds import stream

    k = run.kept + 10
    state = take(run.states, (k - run.kept) * SUBJECTS + run.people.who)
    draws = []
    for person in range(SUBJECTS):
        rng = stream(SEED, "day", person)
        days = [(rng.random((TICKS, 9)), rng.standard_normal((TICKS, 7))) for _ in range(2 + DAYS)]
        draws.append([np.concatenate([day[i] for day in days]) for i in (0, 1)])
    for ahead in range(1, 13):
        tick = BURN_IN + k + ahead
        u, z = (np.stack([person[i][tick] for person in draws], axis=-1) for i in (0, 1))
        state, happened = step(state, calendar(run.plan, tick, run.people.who), run.people, u, z)
        assert np.array_equal(happened["shown"], run.happened["shown"][k + ahead])
        assert np.array_equal(happened["bolus"], run.happened["bolus"][k + ahead])


def test_step_leaves_the_state_it_was_given_alone(run):
    state = take(run.states, np.arange(SUBJECTS))
    before = {name: value.copy() for name, value in vars(state).items()}
    step(
        state,
        calendar(run.plan, BURN_IN + run.kept + 1, run.people.who),
        run.people,
        *chance(np.random.default_rng(0), SUBJECTS),
    )
    for name, value in vars(state).items():
        assert np.array_equal(value, before[name], equal_nan=True), name


def test_forecast_does_not_depend_on_the_recorded_future(run):
    "Change everything that happened after the forecast; the forecast stays."
    at, who = np.array([run.kept + 20, run.kept + 40]), np.array([0, 3])
    first = futures(run, at, who, np.random.default_rng(1), 20)
    saved = {name: array.copy() for name, array in run.happened.items()}
    try:
        for array in run.happened.values():
            array[run.kept + 21 :] = 0
        again = futures(run, at, who, np.random.default_rng(1), 20)
    finally:
        for name, array in saved.items():
            run.happened[name][:] = array
    assert np.array_equal(first, again)


def test_oracle_beats_persistence_and_is_calibrated(run):
    scores = score(forecasts(run, copies=60))
    assert set(scores) == {"at 15 min", "at 30 min", "at 45 min", "at 60 min", "path"}
    for part in scores.values():
        assert part["oracle"]["mae"] < 0.7 * part["persistence"]["mae"]
        assert part["oracle"]["mae"] < 1.02 * part["quiet"]["mae"]
        assert 0.84 < part["coverage"] < 0.95


def test_same_seed_same_bytes_and_no_mixing(folder, tmp_path):
    write(tmp_path / "again", SEED, SUBJECTS, DAYS, FUTURES)
    assert digest(folder) == digest(tmp_path / "again")
    with pytest.raises(FileExistsError, match="another cohort"):
        write(tmp_path / "again", SEED + 1, SUBJECTS, DAYS, 0)


def test_merged_files_hold_exactly_what_was_simulated(folder, run):
    numbers, truth = owners(folder), pd.read_parquet(folder / "truth.parquet").set_index(["subject", "time"])
    merged = [s for s in numbers["pump_serial"] if (folder / f"pump_{s}" / "train").exists()]
    assert len(merged) >= 8
    for serial in merged:
        subject = numbers.set_index("pump_serial")["subject"][serial]
        parts = [
            table(next((folder / f"pump_{serial}" / role).glob(f"lstm_{role}_*.csv")))
            for role in ("train", "validate", "test")
        ]
        rows = pd.concat(parts, ignore_index=True)
        assert rows["timestamp"].is_monotonic_increasing
        assert rows["timestamp"].is_unique
        assert abs(len(parts[0]) - 0.70 * len(rows)) < 1.01
        assert abs(len(parts[1]) - 0.15 * len(rows)) < 1.01
        real = truth.loc[subject].loc[rows["timestamp"]]
        assert np.array_equal(rows["bg"], real["cgm"], equal_nan=True)
        assert (rows["bg_missing_flag"] == real["cgm"].isna().to_numpy()).all()
        assert np.allclose(rows["basal_rate"], real["basal"])
        assert np.allclose(rows["bolus_dose"], real["bolus"])
        assert np.allclose(rows["sin_time"] ** 2 + rows["cos_time"] ** 2, 1, atol=1e-5)
        hour = rows["timestamp"].dt.hour + rows["timestamp"].dt.minute / 60
        assert np.allclose(rows["sin_time"], np.sin(2 * np.pi * hour / 24), atol=1e-5)
        jump = rows["timestamp"].diff() != pd.Timedelta(minutes=5)
        assert rows.loc[jump, "delta_bg"].isna().all()
        for part, path_role in zip(parts, ("train", "validate", "test"), strict=True):
            path = next((folder / f"pump_{serial}" / path_role).glob("*.csv"))
            head = dict(
                line[2:].split(": ", 1)
                for line in path.read_text().splitlines()
                if line.startswith("# ") and ": " in line
            )
            assert int(head["record_count"]) == len(part)
            assert int(head["bg_clipped_count"]) == part["bg_clip_flag"].sum()
            assert head["tz_handling"] == "stored_in=UTC"
            assert path.stem.endswith(f"{part['timestamp'][0]:%Y%m%d}")
            assert "SIMULATED" in head["notes"]


def test_low_and_high_are_kept_apart_from_readings_at_the_limit():
    assert display(np.array([39.0, 41.0]), np.full(2, -0.0)).tolist()[0] == 39
    assert abs(np.linalg.eigvals(STEP)).max() < 1


def test_raw_files_are_local_and_recover_the_truth(folder, run):
    numbers, truth = owners(folder), pd.read_parquet(folder / "truth.parquet").set_index(["subject", "time"])
    raw = [s for s in numbers["pump_serial"] if (folder / f"pump_{s}" / "raw").exists()]
    assert len(raw) == SUBJECTS // 5
    for serial in raw:
        real = truth.loc[numbers.set_index("pump_serial")["subject"][serial]]
        place = folder / f"pump_{serial}" / "raw"
        cgm, basal, bolus = (
            table(next(place.glob(f"raw_{kind}_*.csv"))) for kind in ("cgm", "basal", "bolus")
        )
        assert len(cgm) == real["cgm"].notna().sum()
        assert "stored_in=local" in next(place.glob("raw_cgm_*.csv")).read_text()[:1000]
        value = cgm["bg"].replace({"Low": "40", "High": "400"}).astype(float)
        assert np.array_equal(value, real["cgm"].dropna())
        assert np.isclose(bolus["bolus_dose"].sum(), real["bolus"].sum())
        assert (basal["basal_rate"].diff()[1:] != 0).all()


def test_raw_rows_keep_their_order_through_the_repeated_hour(tmp_path):
    time = np.datetime64("2024-10-26T23:00:00") + np.arange(60) * np.timedelta64(300, "s")
    zero = np.zeros(60)
    paths = write_raw(
        tmp_path,
        "1",
        time,
        zero + 100,
        zero + 0.5,
        zero + 1,
        zero,
        "Europe/Stockholm",
        np.random.default_rng(2),
    )
    wall = table(paths[0])["timestamp"]
    assert (wall.diff() < pd.Timedelta(0)).sum() == 1
    for dose in (True, False):  # no event is later than its grid time; every event within two minutes of it
        stamps = table(paths[2 if dose else 0])["timestamp"]
        fold = stamps.index >= np.flatnonzero(stamps.diff() < pd.Timedelta(0))[0]
        late = time - (stamps - pd.Timedelta(hours=2) + pd.to_timedelta(np.where(fold, 1, 0), "h")).to_numpy()
        assert (late >= np.timedelta64(0)).all()
        assert (late <= np.timedelta64(120, "s")).all()


def test_the_person_who_changes_pumps(folder):
    numbers = owners(folder)
    twice = numbers["subject"].value_counts()
    assert twice.max() == 2
    assert (twice == 2).sum() == 1
    spans = []
    for serial in numbers.loc[numbers["subject"] == twice.idxmax(), "pump_serial"]:
        times = pd.concat([table(path)["timestamp"] for path in (folder / f"pump_{serial}").rglob("*.csv")])
        spans.append((times.min(), times.max()))
    (_, end), (start, _) = sorted(spans)
    assert pd.Timedelta(minutes=5) < start - end < pd.Timedelta(hours=2)


def test_a_long_gap_has_no_rows(folder, run):
    serial = owners(folder).set_index("subject").loc["S009", "pump_serial"]
    times = pd.concat(
        [table(path)["timestamp"] for path in (folder / f"pump_{serial}").rglob("*.csv")]
    ).sort_values()
    assert times.diff().max() > pd.Timedelta(hours=15)


def test_tables_of_truth(folder):
    truth, oracle = pd.read_parquet(folder / "truth.parquet"), pd.read_parquet(folder / "oracle.parquet")
    assert len(truth) == SUBJECTS * DAYS * TICKS
    assert not truth.duplicated(["subject", "time"]).any()
    assert not oracle.duplicated(["subject", "time", "horizon"]).any()
    assert (oracle["time"].dt.minute % 15 == 0).all()
    assert sorted(oracle["horizon"].unique()) == [float(h) for h in range(5, 65, 5)]
    assert (oracle["lower"] <= oracle["median"]).all()
    assert (oracle["median"] <= oracle["upper"]).all()
    target = oracle.assign(at=oracle["time"] + pd.to_timedelta(oracle["horizon"], "min"))
    joined = target.merge(
        truth, left_on=["subject", "at"], right_on=["subject", "time"], how="left", suffixes=("", "_truth")
    )
    assert np.array_equal(joined["y"], joined["cgm"], equal_nan=True)
    starts = truth.groupby("subject")["time"].min()
    assert (
        (oracle["time"] - oracle["subject"].map(starts))
        >= pd.Timedelta(days=0.7 * DAYS) - pd.Timedelta(minutes=5)
    ).all()
    said = json.loads((folder / "oracle.json").read_text())
    assert said["futures"] == FUTURES
    assert said["forecasts"] * 12 == len(oracle)
    assert read_about(folder / "oracle.parquet")["simulated"] is True
    rows = oracle.dropna(subset=["y", "last"])
    at_30 = rows[rows["horizon"] == 30.0]
    assert np.isclose(
        said["scores"]["at 30 min"]["oracle"]["mae"], (at_30["y"] - at_30["median"]).abs().mean(), rtol=1e-4
    )


def test_summary_against_a_series_known_by_hand():
    reading = np.array([[39.0], [100.0], [np.nan], [300.0], [401.0]] + [[100.0]] * 15)
    found = summary(reading)
    assert np.isclose(found["below 70, %"], 100 / 19)
    assert np.isclose(found["above 180, %"], 200 / 19)
    assert np.isclose(found["missing, %"], 5.0)
    assert np.isclose(found["mean, mg/dL"], (40 + 100 + 300 + 400 + 1500) / 19)


def test_the_simulator_loads_no_deep_learning():
    simulator = ["medlab.studies.glucose.simulate", "medlab.studies.glucose.oracle"]
    assert loaded(simulator, ("torch", "tensorflow", "matplotlib")) == []
