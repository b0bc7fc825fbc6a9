"Simulated patient-years: the same bytes from anybody, labels that follow the stated law and nothing else, an oracle that is right."

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

from medlab.core.files import digest, read_about
from medlab.core.seeds import stream
from medlab.core.spread import workers
from medlab.studies.risk import causes, oracle, simulate

YEARS = np.arange(2015, 2025)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    "4,000 patients in parts of 1,000: folder, oracle.json, rows with the truth beside them."
    folder = tmp_path_factory.mktemp("cohort")
    told = simulate.simulate(folder, 4000, seed=5, patients_per_part=1000)
    table = pd.concat(
        [pd.read_parquet(folder / "patient_years"), pd.read_parquet(folder / "oracle").iloc[:, 2:]], axis=1
    )
    return folder, told, table


def labelled(table):
    known = table[table["target"].notna()]
    return known, known["target"].to_numpy(float), known["probability"].to_numpy(float)


# Worker processes import this file, so what is heavy and only used here is imported where it is used.
def deadly_part(number: int, make, trace) -> dict:
    "The first attempt at part 2 takes its worker with it, in the middle of the work."
    if number == 2 and not trace.exists():
        trace.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return make(number)


def test_two_processes_one_of_them_killed_write_the_same_bytes(cohort, tmp_path):
    folder, told, _ = cohort
    with workers(processes=2, memory="1GiB") as spread:
        hazardous = lambda make, items, label: spread(
            partial(deadly_part, make=make, trace=tmp_path / "killed"), items, label
        )
        again = simulate.simulate(tmp_path / "data", 4000, seed=5, patients_per_part=1000, spread=hazardous)
    assert (tmp_path / "killed").exists() and again == told
    assert digest(tmp_path / "data") == digest(folder)


def test_a_killed_run_goes_on_where_it_was_whatever_the_hash_seed(cohort, tmp_path):
    folder, _, _ = cohort
    place = tmp_path / "data"
    command = [sys.executable, "-m", "medlab.studies.risk.simulate", str(place)]
    command += ["--patients", "4000", "--seed", "5", "--patients-per-part", "1000"]
    run = subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": "77"})
    while not list(place.glob("patient_years/part-*")) and run.poll() is None:
        time.sleep(0.005)
    run.kill()
    run.wait()
    (place / "oracle" / ".part-00003.parquet.1-a.part").write_bytes(b"PAR1 half")  # or was being written
    before = {file: file.stat().st_mtime_ns for file in place.glob("patient_years/part-*")}
    assert before and not (place / "oracle.json").exists()
    simulate.simulate(place, 4000, seed=5, patients_per_part=1000)
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    assert digest(place) == digest(folder)


def test_how_patients_are_cut_into_files_and_how_many_there_are_changes_no_row(cohort, tmp_path):
    folder, told, table = cohort
    other = simulate.simulate(tmp_path / "data", 2300, seed=5, patients_per_part=2000)
    assert [p.name for p in sorted((tmp_path / "data" / "oracle").iterdir())] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    fewer = pd.read_parquet(tmp_path / "data" / "patient_years")
    pd.testing.assert_frame_equal(fewer, table.iloc[: len(fewer)][list(fewer.columns)])
    assert fewer["patient_id"].nunique() == other["patients"] <= 2300 and other["rows"] == len(fewer)
    enlarged = shutil.copytree(folder, tmp_path / "enlarged")
    more = simulate.simulate(enlarged, 5000, seed=5, patients_per_part=1000)
    assert more["patients"] > told["patients"]
    assert digest(enlarged / "patient_years" / "part-00003.parquet") == digest(
        folder / "patient_years" / "part-00003.parquet"
    )


def test_the_schema_is_that_of_the_readers_and_every_row_passes(cohort):
    from medlab.studies.risk import rows

    folder, _, table = cohort
    file = folder / "patient_years" / "part-00000.parquet"
    part = pd.read_parquet(file)
    assert set(part.columns) == set(rows.COLUMNS) and set(causes.CODES) == set(rows.DIAGNOSES)
    about = read_about(file)
    assert about["simulated"] is True and about["units"]["glucose"] == "mg/dL"
    _, refused = rows.normalise(part.head(2000), about["units"])
    assert len(refused) == 0
    assert table["additional_diagnoses"].str.split(",").map(len).max() <= 3
    pairs = zip(table["primary_diagnosis"], table["additional_diagnoses"], strict=True)
    assert not any(primary in more for primary, more in pairs)


@pytest.mark.parametrize("prevalence", [0.03, 0.07, 0.15])
def test_prevalence_is_what_was_asked_for(prevalence):
    intercept = causes.intercept_for(prevalence, 1, YEARS, 0.1, blocks=8)
    plan = {
        "seed": 1,
        "late": 0.1,
        "first_year": 2015,
        "last_year": 2024,
        "missing": "complete",
        "units": "us",
    }
    tables = [simulate.block_tables(block, plan | {"intercept": intercept})[0] for block in range(6)]
    labels = pd.concat(tables)["target"].dropna().astype(float)
    assert abs(labels.mean() - prevalence) < 0.08 * prevalence + 3 * np.sqrt(prevalence / len(labels))


def test_the_labels_agree_with_the_oracle_within_chance_over_patients(cohort):
    "The Bayes scores come from the probabilities alone; labels must differ from them by the luck of the draw only."
    from sklearn.metrics import average_precision_score, roc_auc_score

    _, told, table = cohort
    known, y, p = labelled(table)
    code = pd.factorize(known["patient_id"])[0]
    at = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    rng, drawn = np.random.default_rng(1), []
    for _ in range(100):
        take = np.concatenate([at[k] for k in rng.integers(0, len(at), len(at))])
        drawn.append(
            (
                roc_auc_score(y[take], p[take]),
                average_precision_score(y[take], p[take]),
                ((y - p)[take] ** 2).mean(),
                y[take].sum() / p[take].sum(),
            )
        )
    low, high = np.quantile(drawn, (0.005, 0.995), axis=0)
    truth = (told["auroc"], told["average_precision"], told["brier"], 1.0)
    assert ((low < truth) & (truth < high)).all(), (low, truth, high)
    assert 0.78 < told["auroc"] < 0.82
    labels = told["labels"]
    assert np.isclose(labels["auroc"], roc_auc_score(y, p), atol=1e-4)
    assert np.isclose(labels["average_precision"], average_precision_score(y, p), atol=1e-4)
    assert abs(labels["calibration_slope"] - 1) < 0.15 and abs(labels["calibration_intercept"]) < 0.3


def test_the_oracle_is_calibrated_at_every_level_of_risk_year_and_in_every_group(cohort):
    _, _, table = cohort
    known, y, p = labelled(table)
    groups = [np.digitize(p, np.quantile(p, np.linspace(0.1, 0.9, 9))), known["year"], known["gender"]]
    groups += [
        known["smoking_status"],
        known["primary_diagnosis"],
        known["bmi"].isna(),
        known["num_visits"] > 4,
    ]
    z = []
    for group in groups:
        sums = pd.DataFrame({"y": y, "p": p, "v": p * (1 - p)}).groupby(np.asarray(group)).sum()
        z.extend((sums["y"] - sums["p"]) / np.sqrt(sums["v"]))
    assert len(z) > 40 and np.abs(z).max() < 4 and abs(np.std(z) - 1) < 0.35


def test_missing_values_never_reach_a_label():
    "Where a missing value made the risk undefined, the last rows of each file became the patients."
    plan = {"seed": 2, "late": 0.1, "first_year": 2015, "last_year": 2024, "units": "us", "intercept": -3.7}
    tables = {name: simulate.block_tables(0, plan | {"missing": name})[0] for name in causes.MISSING}
    full = tables["complete"]
    assert (
        full.drop(columns=["diagnosis_year", "diagnosis_year_low", "diagnosis_year_high", "target"])
        .notna()
        .all(axis=None)
    )
    for name, (cholesterol, mass, glucose, pressure) in causes.MISSING.items():
        table = tables[name]
        assert table[["patient_id", "year", "target", "diagnosis_year"]].equals(
            full[["patient_id", "year", "target", "diagnosis_year"]]
        )
        rates = table[["cholesterol", "bmi", "glucose", "systolic_bp"]].isna().mean()
        assert np.allclose(rates, (cholesterol, mass, glucose, pressure), rtol=0.2, atol=0.002)
        assert table["diastolic_bp"].isna().equals(table["systolic_bp"].isna())


def test_a_label_is_no_function_of_where_its_row_stands(cohort):
    from sklearn.metrics import roc_auc_score

    _, told, table = cohort
    known, y, p = labelled(table)
    place = np.arange(len(known))
    assert abs(roc_auc_score(y, place) - 0.5) < 0.025  # 0.5 with a standard error of 0.006
    assert abs(roc_auc_score(y, known.groupby("patient_id").ngroup()) - 0.5) < 0.025
    lastly = np.zeros(len(y))
    lastly[-int(y.sum()) :] = 1  # the mistake: the last rows are the patients
    wrong = oracle.scores(oracle.tally(p, lastly))
    assert abs(wrong["labels"]["auroc"] - told["auroc"]) > 0.2


def test_noise_medications_and_the_year_have_no_effect(cohort):
    from sklearn.metrics import roc_auc_score

    people = causes.lives(3, 0, YEARS)
    changed = people | {
        "noise": people["noise"][::-1] * 9,
        "medications_count": 20 - people["medications_count"],
        "weight": people["weight"] * 2,  # weight counts through the body mass index, which is kept here
    }
    assert np.array_equal(causes.log_odds(people), causes.log_odds(changed))
    later = causes.lives(3, 0, YEARS)
    assert np.array_equal(
        causes.log_odds(people), causes.log_odds(later | {"birth_year": people["birth_year"] + 5})
    )
    _, _, table = cohort
    known, y, _ = labelled(table)
    noise = [roc_auc_score(y, known[name]) for name in causes.NOISE]
    error = np.sqrt(1 / (12 * y.sum()))
    assert np.abs((np.array(noise) - 0.5) / error).max() < 4


def test_each_stated_coefficient_is_the_difference_it_makes(cohort):
    "One unit more of a term is its coefficient more of log-odds: nothing else is hidden in the law."
    people = causes.lives(4, 1, YEARS)
    adults = people["present"]
    for name, step, term in (
        ("cholesterol", 20, "cholesterol"),
        ("glucose", 10, "glucose"),
        ("bmi", 1, "bmi"),
    ):
        moved = causes.log_odds(people | {name: people[name] + step}) - causes.log_odds(people)
        assert np.allclose(moved[adults], causes.COEFFICIENTS[term])
    high = people | {"systolic_bp": np.maximum(people["systolic_bp"], 131)}
    moved = causes.log_odds(high | {"systolic_bp": high["systolic_bp"] + 10}) - causes.log_odds(high)
    both = causes.COEFFICIENTS["systolic_bp"] + causes.COEFFICIENTS["smoking_x_pressure"]
    smokes = people["smoking"] == 2
    assert np.allclose(moved[adults & smokes], both)
    assert np.allclose(moved[adults & ~smokes], causes.COEFFICIENTS["systolic_bp"])
    assert set(causes.terms(people)) == set(causes.COEFFICIENTS)


def test_risk_looks_back_three_years_and_never_ahead():
    people = causes.lives(6, 0, YEARS)
    later = people | {name: people[name].copy() for name in ("glucose", "systolic_bp", "bmi", "cholesterol")}
    for name in ("glucose", "systolic_bp", "bmi", "cholesterol"):
        later[name][:, 6:] += 30
    assert np.array_equal(causes.log_odds(people)[:, :6], causes.log_odds(later)[:, :6])
    early = people | {"glucose": people["glucose"].copy()}
    early["glucose"][:, 2] += 30
    changed = causes.log_odds(people) != causes.log_odds(early)
    changed &= people["present"]
    assert not changed[:, :2].any() and changed[:, 2:5].any(axis=0).all() and not changed[:, 5:].any()


def test_one_in_ten_is_recorded_a_year_late_and_the_range_of_years_holds_the_truth(cohort):
    _, _, table = cohort
    ill = table[table["diagnosis_year"].notna()].drop_duplicates("patient_id").astype({"diagnosis_year": int})
    late = ill["diagnosis_year"] - ill["true_diagnosis_year"]
    assert set(late) == {0, 1} and abs((late == 1).mean() - 0.1) < 0.03
    assert (ill["diagnosis_year_low"] <= ill["true_diagnosis_year"]).all()
    assert (ill["diagnosis_year_high"] == ill["diagnosis_year"]).all()
    unsure = ill["diagnosis_year_low"] < ill["diagnosis_year"]
    assert unsure[late == 1].all() and 0.1 < unsure[late == 0].mean() < 0.2
    assert not (table["year"] >= table["diagnosis_year"]).fillna(False).any()
    last = table[table["target"] == 1]
    assert (last["diagnosis_year"] == last["year"] + 1).all() and not last["patient_id"].duplicated().any()
    assert table.loc[table["year"] == 2024, "target"].isna().all()
    hazard = np.full((3, 4), 0.2)
    present = np.array([[True] * 4, [False, True, True, True], [False] * 4])
    never_late, followed = causes.recorded(hazard, present, 0.0)
    assert np.allclose(never_late[present], 0.2) and np.allclose(followed[0], 0.8 ** np.arange(4))
    always, _ = causes.recorded(hazard, present, 0.25)
    assert np.isclose(always[1, 1], 0.75 * 0.2)  # first year: no letter can be in the post
    assert np.isclose(always[1, 2], (0.75 * 0.8 * 0.2 + 0.25 * 0.2) / (0.8 + 0.25 * 0.2))


def test_nobody_is_recorded_as_a_child_or_beyond_ninety():
    years = np.arange(2015, 2045)
    plan = {
        "seed": 1,
        "late": 0.1,
        "first_year": 2015,
        "last_year": 2044,
        "missing": "complete",
        "units": "us",
    }
    table, truth = simulate.block_tables(0, plan | {"intercept": -6.0})
    assert table["age"].min() == 18 and table["age"].max() == 90
    assert np.array_equal(table["age"], table["year"] - table["birth_year"])
    assert truth["probability"].between(0, 1).all() and len(years) == table["year"].nunique()


def test_other_units_are_the_same_patients(tmp_path):
    plan = {
        "seed": 8,
        "late": 0.1,
        "first_year": 2015,
        "last_year": 2018,
        "missing": "high_quality",
        "intercept": -3.7,
    }
    us, _ = simulate.block_tables(0, plan | {"units": "us"})
    si, _ = simulate.block_tables(0, plan | {"units": "si"})
    from medlab.shape.quantities import convert

    for name in ("glucose", "cholesterol"):
        back = convert(si[name], "mmol/L", "mg/dL", name)
        assert np.allclose(back, us[name], atol=0.2, equal_nan=True)
    same = [c for c in us.columns if c not in ("glucose", "cholesterol")]
    pd.testing.assert_frame_equal(us[same], si[same])
    simulate.simulate(tmp_path, 100, last_year=2017, units="si")
    assert read_about(tmp_path / "patient_years" / "part-00000.parquet")["units"]["glucose"] == "mmol/L"


def test_fates_follow_the_hazard():
    hazard = np.full((4000, 3), 0.1)
    hazard[:, 1] = 0.5
    fate = simulate.fates(
        hazard, np.ones_like(hazard, bool), np.array([2000, 2001, 2002]), 0.3, stream(1, "test")
    )
    share = fate["diagnosed"].value_counts(normalize=True)
    assert np.allclose([share[2001], share[2002], share[2003]], [0.1, 0.45, 0.045], atol=0.025)
    assert abs((fate["recorded"] > fate["diagnosed"]).mean() - 0.3) < 0.03


def test_nonsense_is_refused_in_words_and_nothing_is_overwritten(cohort, tmp_path, capsys):
    folder, _, _ = cohort
    for wrong, told in (
        ({"patients": 0}, "whole blocks"),
        ({"patients_per_part": 1500}, "whole blocks"),
        ({"first_year": 2020, "last_year": 2020}, "at least two"),
        ({"missing": "some"}, "standard_practice"),
        ({"units": "metric"}, '"si"'),
        ({"late": 1.5}, "late=1.5"),
        ({"prevalence": 1.2}, "prevalence must lie between"),
    ):
        with pytest.raises(ValueError, match=told):
            simulate.simulate(tmp_path / "data", **({"patients": 10} | wrong))
    assert not (tmp_path / "data").exists()
    before = digest(folder)
    for other in ({"seed": 6}, {"patients_per_part": 2000}, {"missing": "complete"}):
        with pytest.raises(FileExistsError, match="empty folder"):
            simulate.simulate(folder, **({"patients": 4000, "seed": 5, "patients_per_part": 1000} | other))
    assert digest(folder) == before
    with pytest.raises(SystemExit):
        simulate.main([str(folder), "--patients", "4000", "--seed", "6"])
    assert "empty folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="missing one is neither"):
        oracle.tally(np.array([0.2, np.nan]), np.array([0, 1]))
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    shutil.copy(mixed / "oracle" / "part-00000.parquet", mixed / "oracle" / "part-00001.parquet")
    with pytest.raises(ValueError, match="part-00001.parquet: its rows are not those"):
        oracle.summary(mixed)
