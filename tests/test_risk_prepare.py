"""The preparation of patient-years: no later year, no label and no order of rows reaches a feature, and no row vanishes."""

import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import wait_until

from medlab.core.files import digest, read_json, write_table
from medlab.core.spread import here, workers
from medlab.shape import encoding, history
from medlab.shape.panels import assign
from medlab.studies.risk import prepare as stage
from medlab.studies.risk import rows as raw
from medlab.studies.risk.simulate import simulate


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    "A folder with 400 simulated patients in two files, and the same rows in one table."
    folder = tmp_path_factory.mktemp("risk")
    simulate(folder / "raw", patients=2000, seed=5)
    table = pd.concat(
        pd.read_parquet(p) for p in sorted((folder / "raw" / "patient_years").glob("*.parquet"))
    )
    names = sorted(table["patient_id"].unique())[::5]
    table = table[table["patient_id"].isin(names)].reset_index(drop=True)
    write(folder / "cohort", [table.iloc[: len(table) // 2], table.iloc[len(table) // 2 :]])
    return folder / "cohort", table


@pytest.fixture(scope="module")
def reference(cohort, tmp_path_factory):
    "The cohort, prepared in this process in one go."
    folder = tmp_path_factory.mktemp("reference") / "prepared"
    return folder, stage.prepare(cohort[0], folder, rows_per_part=800)


def write(folder: Path, tables: list) -> Path:
    for k, table in enumerate(tables):
        write_table(
            folder / f"part-{k}.parquet",
            table.reset_index(drop=True),
            {"simulated": True, "units": raw.UNITS},
        )
    return folder


def same(one: Path, other: Path) -> bool:
    "Every prepared part and the encoding, byte for byte."
    files = [(f / "encoding.json").read_bytes() for f in (one, other)]
    return digest(one / "rows") == digest(other / "rows") and files[0] == files[1]


def adds_up(manifest: dict) -> bool:
    rows = manifest["rows"]
    return rows["in"] == rows["used"] + sum(rows["rejected"].values())


# ---- features


def by_hand(years: dict, year: int) -> dict:
    "The window of one row in plain Python: years maps year -> value or None."
    points = [(t, years[t]) for t in (year - 2, year - 1, year) if years.get(t) is not None]
    values, nan = [v for _, v in points], math.nan
    found = {"mean": nan, "std": nan, "trend": nan, "min": nan, "max": nan}
    if values:
        found |= {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
    if len(values) > 1:
        middle = sum(t for t, _ in points) / len(points)
        found["std"] = math.sqrt(sum((v - found["mean"]) ** 2 for v in values) / (len(values) - 1))
        rise = sum((t - middle) * (v - found["mean"]) for t, v in points)
        found["trend"] = rise / sum((t - middle) ** 2 for t, _ in points)
    lag = years.get(year - 1)
    return found | {"lag": nan if lag is None else lag, "own": nan if years[year] is None else years[year]}


def test_windows_have_the_values_that_a_plain_loop_gives():
    rng = np.random.default_rng(0)
    people = {f"P{i}": {t: float(rng.normal(100, 20)) if rng.random() < 0.8 else None
                        for t in range(2000, 2012) if rng.random() < 0.7} for i in range(60)}  # fmt: skip
    table = pd.DataFrame(
        [(p, t, v) for p, ys in people.items() for t, v in ys.items()], columns=["who", "when", "v"]
    )
    table = table.astype({"v": float}).sample(frac=1, random_state=1)
    found = history.features(table, "who", "when", ["v"])
    for (i, row), who, when in zip(found.iterrows(), table["who"], table["when"], strict=True):
        expected = by_hand(people[who], when)
        names = {
            "mean": "v_mean_3y",
            "std": "v_std_3y",
            "trend": "v_trend_3y",
            "min": "v_min_3y",
            "max": "v_max_3y",
        }
        for what, column in (names | {"lag": "v_lag_1y", "own": "v"}).items():
            assert row[column] == pytest.approx(expected[what], rel=1e-12, abs=1e-9, nan_ok=True), (i, column)
        assert row["missing_v"] == float(math.isnan(expected["own"]))


def test_a_patient_worked_out_by_hand():
    table = pd.DataFrame(
        {"patient_id": "A", "year": [2015, 2018, 2019, 2020], "v": [80.0, 100.0, np.nan, 130.0]}
    )
    found = history.features(table, variables=["v"]).set_index(table["year"])
    assert found.loc[2018, ["v_mean_3y", "v_min_3y", "v_max_3y"]].tolist() == [
        100,
        100,
        100,
    ]  # 2015 is out of reach
    assert found.loc[2018, ["v_lag_1y", "v_std_3y", "v_trend_3y"]].isna().all()
    last = found.loc[2020]
    assert last["v_mean_3y"] == 115 and last["v_trend_3y"] == 15  # 30 in two years
    assert last["v_std_3y"] == pytest.approx(np.sqrt(450))  # divisor n - 1
    assert (
        np.isnan(last["v_lag_1y"]) and np.isnan(found.loc[2019, "v"]) and found.loc[2019, "v_mean_3y"] == 100
    )


def test_a_constant_has_no_spread_and_no_trend_to_the_last_bit():
    table = pd.DataFrame({"patient_id": "A", "year": range(2010, 2020), "v": 0.1 + 0.2})
    found = history.features(table, variables=["v"]).iloc[2:]
    assert (
        (found["v_std_3y"] == 0).all()
        and (found["v_trend_3y"] == 0).all()
        and (found["v_mean_3y"] == 0.1 + 0.2).all()
    )


def test_broken_input_is_named():
    table = pd.DataFrame({"patient_id": ["A", "A"], "year": [2015, 2015], "v": [1.0, 2.0]})
    with pytest.raises(ValueError, match="patient A has two rows for 2015"):
        history.features(table, variables=["v"])
    with pytest.raises(ValueError, match="no column w"):
        history.features(table, variables=["w"])
    with pytest.raises(ValueError, match="row 1 has no patient"):
        history.features(table.assign(patient_id=["A", None]), variables=["v"])
    with pytest.raises(ValueError, match="whole numbers"):
        history.features(table.assign(year=[2015.0, 2016.0]), variables=["v"])
    with pytest.raises(ValueError, match="infinite in row 0"):
        history.features(table.assign(year=[2015, 2016], v=[np.inf, 1]), variables=["v"])


def test_features_are_what_they_would_have_been_at_the_time(cohort):
    rows, _ = raw.normalise(cohort[1])
    rows = rows[rows["patient_id"].isin(sorted(rows["patient_id"].unique())[:120])]
    stored = stage.features(rows)
    for year in sorted(rows["year"].unique()):
        then = rows[rows["year"] <= year]
        now = then.index[then["year"] == year]
        pd.testing.assert_frame_equal(stage.features(then).loc[now], stored.loc[now], check_exact=True)
    one = rows.index[rows["year"] == 2019][:40]  # and one patient at a time, as a server would see them
    for i in one:
        row = rows.loc[i]
        alone = rows[(rows["patient_id"] == row["patient_id"]) & rows["year"].between(2017, 2019)]
        pd.testing.assert_frame_equal(stage.features(alone).loc[[i]], stored.loc[[i]], check_exact=True)


def test_another_future_and_no_labels_change_no_feature(cohort):
    rows, _ = raw.normalise(cohort[1])
    stored, rng = stage.features(rows), np.random.default_rng(0)
    other = rows.copy()
    late = other["year"] >= 2020
    for name in raw.VARIABLES:
        other.loc[late, name] = rng.normal(50, 30, late.sum())
    other.loc[late, ["smoking_status", "primary_diagnosis"]] = None
    early = rows.index[~late]
    pd.testing.assert_frame_equal(stage.features(other).loc[early], stored.loc[early], check_exact=True)
    unlabelled = rows.drop(columns=list(raw.LABELS))
    pd.testing.assert_frame_equal(stage.features(unlabelled), stored, check_exact=True)
    mixed = rows.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(stage.features(mixed), stored.loc[mixed.index], check_exact=True)


def test_missing_stays_missing_and_identity_is_no_feature(cohort):
    rows, _ = raw.normalise(cohort[1])
    x = stage.features(rows)
    for name in raw.VARIABLES:
        gap = rows[name].isna()
        assert x.loc[gap, f"x_{name}"].isna().all() and (x[f"x_missing_{name}"] == gap).all()
        assert np.array_equal(x.loc[~gap, f"x_{name}"], rows.loc[~gap, name].astype("float32"))
    assert rows["cholesterol"].isna().sum() > 20
    first = rows["year"] == rows.groupby("patient_id")["year"].transform("min")
    assert x.loc[first, [c for c in x if c.endswith(("_lag_1y", "_trend_3y", "_std_3y"))]].isna().all().all()
    assert not [
        c for c in stage.FEATURES if "year" in c.replace("years_of", "") or "birth" in c or "patient" in c
    ]
    listed = rows["additional_diagnoses"].str.split(",").map(lambda codes: "I10" in codes)
    assert (x["x_has_I10"] == (rows["primary_diagnosis"].eq("I10") | listed)).all()


# ---- the encoding


def auroc(score, y) -> float:
    "Mann and Whitney."
    rank, cases = pd.Series(score).rank().to_numpy(), np.asarray(y) == 1
    return (rank[cases].sum() - cases.sum() * (cases.sum() + 1) / 2) / (cases.sum() * (~cases).sum())


def test_out_of_fold_rates_know_nothing_of_a_coin_and_naive_rates_everything():
    rng, n = np.random.default_rng(2), 3000
    subject = np.arange(n) // 3
    naive, honest = [], []
    for _ in range(20):
        code, y = rng.integers(800, size=n).astype(str), (rng.random(n) < 0.1).astype(float)
        naive.append(auroc(encoding.fit(code, y).apply(code), y))
        honest.append(auroc(encoding.out_of_fold(code, y, subject % 5, subjects=subject), y))
    assert np.mean(naive) > 0.85
    assert abs(np.mean(honest) - 0.5) < 4 * np.std(honest) / np.sqrt(20) + 0.005


def test_a_rate_is_shrunk_by_patients_and_holds_no_outcome_of_its_fold():
    code, y = np.array(["a"] * 6 + ["b"] * 6), np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1.0])
    subject = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    found = encoding.fit(code, y, subject, smoothing=2)
    assert found.counts == {"a": 2, "b": 2} and found.rates["a"] == (2 * 0.5 + 2 * 0.5) / 4
    folds = subject % 2
    rates = encoding.out_of_fold(code, y, folds, 2, subject)
    assert rates[0] == pytest.approx((1 * 0 + 2 * 0.5) / 3) and rates[3] == pytest.approx(
        (1 * 1 + 2 * 0.5) / 3
    )
    for fold in (0, 1):  # among outcomes of the fold nothing may matter but their number
        turned = y.copy()
        turned[folds == fold] = turned[folds == fold][::-1]
        again = encoding.out_of_fold(code, turned, folds, 2, subject)
        assert np.array_equal(again[folds == fold], rates[folds == fold])
    with pytest.raises(ValueError, match="two folds"):
        encoding.tally(code, y, np.arange(12) % 2, subject)
    with pytest.raises(ValueError, match="outcome in row 0"):
        encoding.fit(code, np.full(12, np.nan))


def test_prepared_rates_are_those_of_the_encoding_and_out_of_fold_in_training(reference):
    rows = stage.load(reference[0])
    whole = encoding.Encoding.from_dict(read_json(reference[0] / "encoding.json"))
    train = rows[rows["split"] == "train"]
    rest = rows[rows["split"] != "train"]
    assert np.array_equal(rest[stage.RATE], whole.apply(rest["by_diagnosis"]).astype("float32"))
    again = encoding.out_of_fold(train["by_diagnosis"], train["y"], train["fold"], subjects=train["subject"])
    assert np.array_equal(train[stage.RATE], again.astype("float32"))
    assert whole == encoding.fit(train["by_diagnosis"], train["y"], train["subject"])


# ---- splits and counts


def test_splits_share_neither_patients_nor_years(reference):
    rows, manifest = stage.load(reference[0]), reference[1]
    groups = rows.groupby("split")["subject"].agg(set)
    assert not groups["train"] & groups["calibration"] and not groups["train"] & groups["test"]
    assert not groups["calibration"] & groups["test"] and not groups["next_year"] & (
        groups["calibration"] | groups["test"]
    )
    years = rows.groupby("split")["year"].agg(["min", "max"])
    assert (
        years.loc["train", "max"] == years.loc["calibration", "max"] == 2020
        and years.loc["next_year", "min"] == 2022
    )
    assert (rows[rows["split"] == "train"].groupby("subject")["fold"].nunique() == 1).all()
    assert set(rows.loc[rows["split"] == "train", "fold"]) == set(range(5))
    assert set(rows.loc[rows["split"] != "train", "fold"]) == {-1}
    assert rows["y"].isin([0, 1]).all() and not rows.duplicated(["subject", "year"]).any()
    assert (rows["time"].dt.strftime("%m-%d") == "12-31").all() and (
        rows["time"].dt.year == rows["year"]
    ).all()
    assert manifest["splits"] == rows["split"].value_counts().reindex(stage.SPLITS).to_dict()
    assert (
        adds_up(manifest)
        and manifest["simulated"]
        and manifest["subjects"]["used"] == rows["subject"].nunique()
    )


def test_the_outcome_stays_with_its_patient_and_year(cohort, reference):
    truth = cohort[1].set_index(["patient_id", "year"])
    rows = stage.load(reference[0])
    at = pd.MultiIndex.from_frame(rows[["subject", "year"]])
    assert (truth.loc[at, "target"].to_numpy(float) == rows["y"]).all()
    assert np.array_equal(truth.loc[at, "glucose"].astype("float32"), rows["x_glucose"], equal_nan=True)
    position = np.arange(len(rows)) / len(rows)  # the source system's labels followed the position of the row
    assert abs(auroc(position, rows["y"]) - 0.5) < 0.06


def test_order_and_partitioning_change_not_one_byte(cohort, reference, tmp_path):
    mixed = cohort[1].sample(frac=1, random_state=0)
    cuts = {
        "one file": [mixed],
        "by year": [part for _, part in mixed.groupby(mixed["year"] // 3)],
        "by patient": [mixed[mixed["patient_id"].map(hash) % 2 == k] for k in range(2)],
        "seven files": [mixed.iloc[k::7] for k in range(7)],
    }
    for name, tables in cuts.items():
        manifest = stage.prepare(
            write(tmp_path / name.replace(" ", "_"), tables), tmp_path / "prepared", rows_per_part=800
        )
        assert same(tmp_path / "prepared", reference[0]), name
        assert manifest["rows"] == reference[1]["rows"] and manifest["parts"] == reference[1]["parts"] > 2


def test_a_large_file_is_read_in_pieces_with_the_same_result(cohort, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.buckets, "pieces", partial(stage.buckets.pieces, rows=700, size=200_000))
    one = write(tmp_path / "parquet", [cohort[1]])
    stage.prepare(one, tmp_path / "prepared", rows_per_part=800)
    assert same(tmp_path / "prepared", reference[0])
    (tmp_path / "csv").mkdir()
    cohort[1].to_csv(tmp_path / "csv" / "all.csv", index=False)
    manifest = stage.prepare(tmp_path / "csv", tmp_path / "prepared", rows_per_part=800)
    assert same(tmp_path / "prepared", reference[0]) and manifest["rows"] == reference[1]["rows"]
    assert not manifest["simulated"]  # a CSV file does not say


def test_bad_files_bad_rows_and_bad_patients_are_set_aside_and_counted(cohort, reference, tmp_path):
    table = cohort[1].reset_index(drop=True)
    names = sorted(table["patient_id"].unique())
    two, other = table.index[table["patient_id"] == names[0]], table.index[table["patient_id"] == names[1]]
    table.loc[two[0], "birth_year"] -= 1  # two people under one name
    table.loc[two[0], "age"] += 1
    bad = table.index[table["patient_id"] == names[2]][0]
    table.loc[bad, "glucose"] = 5000.0
    conflict = table.loc[[other[0]]].assign(glucose=101.0)
    assert len(two) > 1 and table.loc[other[0], "glucose"] != 101
    copies = [table.loc[[other[0]]], conflict]
    write(tmp_path / "raw", [table, pd.concat([table.iloc[-1:], conflict]), copies[0]])
    (tmp_path / "raw" / "broken.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "raw" / "other.csv").write_text("name,number\nx,1\n")
    manifest = stage.prepare(tmp_path / "raw", tmp_path / "prepared", rows_per_part=800)
    assert (
        set(manifest["files"]["set_aside"]) == {"broken.parquet", "other.csv"}
        and manifest["files"]["read"] == 3
    )
    rejected = manifest["rows"]["rejected"]
    assert rejected["patient set aside: birth_year is not the same in all rows"] == len(two)
    assert rejected[raw.TWICE] == 1 and rejected[raw.CONFLICT] == 3
    assert any(reason.startswith("glucose outside") for reason in rejected)
    assert adds_up(manifest) and manifest["rows"]["in"] == len(table) + 3
    rows = stage.load(tmp_path / "prepared")
    assert names[0] not in set(rows["subject"]) and str(tmp_path) not in str(manifest)
    gone = pd.MultiIndex.from_frame(rows[["subject", "year"]])
    for lost in (table.loc[bad], table.loc[other[0]]):
        assert (lost["patient_id"], lost["year"]) not in gone
    listed = pd.read_parquet(tmp_path / "prepared" / "refused.parquet")
    assert len(listed) == len(two) + 1 + 3 + 1 and set(listed["reason"]) <= set(rejected)


def test_copies_that_disagree_are_refused_however_they_lie(tmp_path):
    base = {"patient_id": "A", "birth_year": 1960, "target": 0.0}
    filler = [{"patient_id": f"F{i}", "year": y, "birth_year": 1960, "target": float(i % 2 and y == 2018)}
              for i in range(40) for y in (2017, 2018)]  # fmt: skip
    copies = [{**base, "year": 2018, "glucose": g} for g in (90.0, 95.0, 90.0)]
    results = []
    for name, cut in {
        "together": [copies],
        "apart": [copies[:2], copies[2:]],
        "each": [[c] for c in copies],
    }.items():
        tables = [pd.DataFrame(filler + cut[0]), *map(pd.DataFrame, cut[1:])]
        manifest = stage.prepare(write(tmp_path / name.replace(" ", "_"), tables), tmp_path / "prepared")
        assert adds_up(manifest) and "A" not in set(stage.load(tmp_path / "prepared")["subject"]), name
        results.append(digest(tmp_path / "prepared" / "rows"))
    assert len(set(results)) == 1


def test_a_row_from_after_the_diagnosis_is_known_from_the_patients_other_rows():
    rows, _ = raw.normalise(
        pd.DataFrame({"patient_id": "A", "year": [2015, 2016, 2017], "birth_year": 1960, "target": [0, 1, 0]})
    )
    kept, against = stage.settle(rows)
    assert kept["year"].tolist() == [2015, 2016] and (kept["diagnosis_year"] == 2017).all()
    assert against["reason"].tolist() == ["already diagnosed in that year"]


def test_a_sample_is_drawn_by_name_and_settings_are_checked(cohort, reference, tmp_path):
    manifest = stage.prepare(cohort[0], tmp_path / "prepared", rows_per_part=800, sample_fraction=0.3)
    some, rows = stage.load(tmp_path / "prepared"), stage.load(reference[0])
    assert adds_up(manifest) and 0.2 < some["subject"].nunique() / rows["subject"].nunique() < 0.4
    unfitted = [c for c in rows if c != stage.RATE]
    inside = rows[rows["subject"].isin(set(some["subject"]))].reset_index(drop=True)
    pd.testing.assert_frame_equal(some[unfitted], inside[unfitted], check_exact=True)
    for wrong in (
        {"shares": (0.5, 0.2)},
        {"shares": (0.5, 0.2, 0.2)},
        {"folds": 1},
        {"gap_years": -1},
        {"sample_fraction": 0},
    ):
        with pytest.raises(ValueError, match="shares|folds|gap_years|sample_fraction"):
            stage.prepare(cohort[0], tmp_path / "x", **wrong)
    with pytest.raises(ValueError, match="last_training_year=1990.*column target.*rows: "):
        stage.prepare(cohort[0], tmp_path / "x", last_training_year=1990)
    with pytest.raises(ValueError, match="there is no split validation"):
        stage.load(reference[0], ["validation"])
    with pytest.raises(FileNotFoundError, match="has not finished"):
        stage.load(tmp_path / "x")
    known = assign(["A", "B"], [2018, 2018])
    assert known.equals(assign(["A", "C", "B"], [2018] * 3).drop(index=1).reset_index(drop=True))


# ---- killed


SLOW = """
import sys, time
from medlab.studies.risk.prepare import prepare
from medlab.core.spread import here

def slowly(function, items, label=""):
    def one(item):
        result = function(item)
        time.sleep(0.2)
        return result
    return here(one, items, label)

prepare(sys.argv[1], sys.argv[2], rows_per_part=800, spread=slowly)
"""


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(cohort, reference, tmp_path):
    folder = tmp_path / "prepared"
    environment = dict(os.environ, MEDLAB_PROGRESS="off", PYTHONHASHSEED="7")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(cohort[0]), str(folder)], env=environment
    ) as process:
        drafts = lambda: list(tmp_path.glob(".prepared-*/draft-00000.json"))
        wait_until(drafts, "the second pass", process=process)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(FileNotFoundError):
        stage.load(folder)
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob(".prepared-*/*.json")}
    assert kept
    seen = []

    def watched(function, items, label=""):
        results = here(function, items, label)
        seen.extend(p for p in kept if p.exists() and p.stat().st_mtime_ns == kept[p])
        return results

    stage.prepare(cohort[0], folder, rows_per_part=800, spread=watched)
    assert same(folder, reference[0]) and set(seen) == set(kept)  # what was finished was not made again
    assert [p.name for p in tmp_path.iterdir()] == ["prepared"]


def deadly(function, marker: str, item):
    "The first task that reaches its end takes its worker process with it."
    result = function(item)
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def test_two_dask_workers_of_which_one_is_killed_on_the_way(cohort, reference, tmp_path):
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with workers(processes=2, memory="1GiB") as spread:

            def killing(function, items, label=""):
                killed = partial(deadly, function, str(tmp_path / "killed"))
                return spread(killed if label == "building features" else function, items, label)

            manifest = stage.prepare(cohort[0], tmp_path / "prepared", rows_per_part=800, spread=killing)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert (tmp_path / "killed").exists()
    assert same(tmp_path / "prepared", reference[0]) and manifest == reference[1]


def test_a_sex_that_is_written_down_later_is_not_known_earlier():
    "Filled in from a later year it would be an input that looks ahead, and a server could not do the same."
    rows = pd.DataFrame(
        {"patient_id": "Ada", "year": [2015, 2016, 2017], "birth_year": 1960, "gender": [None, "F", None]}
    )
    kept, _ = stage.settle(raw.normalise(rows)[0])
    male = stage.features(kept)["x_male"]
    assert np.isnan(male.iloc[0]) and male.iloc[1] == 0 and np.isnan(male.iloc[2])
