"Bad input has a clear error or a counted rejection; nothing is lost and the rest goes on."

import gzip

import numpy as np
import pandas as pd
import pytest
from conftest import write_cohort

from medlab.core.files import read_json
from medlab.studies.glucose.prepare import prepare, replay
from medlab.studies.glucose.readers import (
    Count,
    FileError,
    read_event_table,
    read_pump_folders,
    read_table,
    to_utc,
)


@pytest.fixture
def cohort(tmp_path):
    return write_cohort(tmp_path / "cohort", subjects=3, ticks=400)


def cgm(cohort, number=0):
    return cohort / f"pump_{100 + number}" / "raw" / "raw_cgm_20240301.csv"


def whole(manifest):
    rows = manifest["rows"]
    return rows["in"] == rows["used"] + sum(rows["rejected"].values())


def test_a_clean_cohort_loses_nothing(cohort, tmp_path):
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert whole(manifest)
    assert manifest["rows"]["rejected"] == {}
    assert manifest["subjects"] == {"used": 3, "set_aside": 0}
    assert manifest["grid"]["readings"] == 1200


def test_a_corrupt_file_is_set_aside_by_name_and_the_rest_goes_on(cohort, tmp_path):
    path = cgm(cohort)
    path.write_bytes(path.read_bytes()[:500] + b"\x00\x00\xff\xfe" + path.read_bytes()[500:])
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert any("raw_cgm" in name for name in manifest["files"]["set_aside"])
    assert "S0" in manifest["files"]["set_aside"]  # the patient is left without a reading, and named
    assert manifest["subjects"]["used"] == 2
    assert whole(manifest)


def test_a_truncated_last_line_costs_one_row(cohort, tmp_path):
    path = cgm(cohort)
    path.write_text(path.read_text()[:-9])  # cut off in the middle of a line, as a full disk does
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert sum(manifest["rows"]["rejected"].values()) == 1
    assert whole(manifest)


def test_mixed_units_set_the_file_aside_with_the_rows_named(cohort, tmp_path):
    path = cgm(cohort)
    lines = path.read_text().splitlines()
    for i in range(100, 160):
        time, value = lines[i].split(",")
        lines[i] = f"{time},{float(value) / 18.0156:.1f}"
    path.write_text("\n".join(lines) + "\n")
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    reason = next(v for k, v in manifest["files"]["set_aside"].items() if "raw_cgm" in k)
    assert "mixes units" in reason
    assert "data rows 98" in reason
    assert manifest["rows"]["rejected"]["in a file that was set aside"] == 400
    assert whole(manifest)


def test_a_file_in_mmol_is_converted(cohort, tmp_path):
    path = cgm(cohort)
    before = read_pump_folders(cohort)[0][0].glucose["bg"].to_numpy()
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join(
            [*lines[:3], *(f"{t},{float(v) / 18.0156:.6f}" for t, v in (x.split(",") for x in lines[3:]))]
        )
        + "\n"
    )
    np.testing.assert_allclose(read_pump_folders(cohort)[0][0].glucose["bg"], before, rtol=1e-5)


def test_duplicates_are_counted_and_disorder_is_sorted(cohort, tmp_path):
    path = cgm(cohort)
    lines = path.read_text().splitlines()
    body = lines[3:]
    shuffled = [body[1], body[0], *body[2:], body[7], body[7]]
    path.write_text("\n".join([*lines[:3], *shuffled]) + "\n")
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert manifest["rows"]["rejected"] == {"same time as a later row of the file": 2}
    assert manifest["notes"]["rows out of order, sorted"] >= 1
    assert manifest["grid"]["readings"] == 1200
    assert whole(manifest)
    times = pd.read_parquet(tmp_path / "out" / "series.parquet").groupby("subject", observed=True)["time"]
    assert times.apply(lambda t: t.is_monotonic_increasing and t.is_unique).all()


def test_a_patient_without_readings_and_a_pump_without_cgm(cohort, tmp_path):
    cgm(cohort, 0).unlink()  # a pump without CGM
    cgm(cohort, 1).write_text("timestamp,bg\n")  # an empty file
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert set(manifest["files"]["set_aside"]) == {"S0", "S1"}
    assert manifest["subjects"]["used"] == 1


def test_no_usable_subject_at_all_is_an_error_that_says_why(cohort, tmp_path):
    with pytest.raises(ValueError, match="not one usable subject.*S0: only 400 readings, fewer than 5000"):
        prepare(cohort, "pump_folders", tmp_path / "out", least_readings=5000)
    assert not (tmp_path / "out" / "series.parquet").exists()


def test_the_wrong_folder_and_the_wrong_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc pull"):
        prepare(tmp_path, "pump_folders", tmp_path / "out")
    with pytest.raises(ValueError, match="layout 'pumps' is unknown"):
        prepare(tmp_path, "pumps", tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2024-03-01 00:05:00,abc", "bg is not a number"),
        ("2024-03-01 00:05:00,1200", "bg outside 20 to 600"),
        ("not a time,100", "unreadable timestamp"),
        ("2024-03-01 00:05:00,100,extra", "wrong number of cells"),
    ],
)
def test_each_bad_row_is_counted_with_its_line(tmp_path, line, reason):
    path = tmp_path / "raw_cgm.csv"
    path.write_text(f"timestamp,bg\n2024-03-01 00:00:00,100\n{line}\n")
    count = Count()
    table, _ = read_table(path, ("bg",), count, "raw_cgm.csv")
    assert len(table) == 1
    assert count.refused == {reason: 1}
    assert count.first[reason] == "raw_cgm.csv, line 3"


def test_a_file_without_its_columns(tmp_path):
    path = tmp_path / "raw_cgm.csv"
    path.write_text("when,value\n1,2\n")
    with pytest.raises(FileError, match="has no column timestamp, bg"):
        read_table(path, ("bg",), Count(), "raw_cgm.csv")


def test_low_and_high_are_kept_as_censored(tmp_path):
    path = tmp_path / "raw_cgm.csv"
    path.write_text(
        "timestamp,bg\n2024-03-01 00:00:00,Low\n2024-03-01 00:05:00,HIGH\n2024-03-01 00:10:00,120\n"
    )
    table, _ = read_table(path, ("bg",), Count(), "x")
    assert table["bg"].tolist() == [40, 400, 120]
    assert table["censored"].tolist() == [-1, 1, 0]


def test_a_number_in_a_row_flagged_as_missing_is_not_a_reading(tmp_path):
    "An earlier system filled missing readings with a healthy 100."
    path = tmp_path / "lstm_train.csv"
    path.write_text("timestamp,bg,bg_missing_flag\n2024-03-01 00:00:00,100,1\n2024-03-01 00:05:00,90,0\n")
    table, _ = read_table(path, ("bg",), Count(), "x")
    assert table["bg"].isna().tolist() == [True, False]


def test_autumn_has_twenty_five_hours():
    utc = pd.date_range("2024-10-26 20:00", "2024-10-27 06:00", freq="5min", tz="UTC")
    local = utc.tz_convert("Europe/Stockholm").tz_localize(None)
    np.testing.assert_array_equal(to_utc(local, "Europe/Stockholm"), utc.tz_localize(None).as_unit("us"))


def test_two_pumps_of_one_patient_are_one_series(cohort, tmp_path):
    (cohort / "pumps.csv").write_text("pump_serial,subject\n100,S0\n101,S0\n102,S2\n")
    for kind in ("cgm", "basal", "bolus"):  # the second pump starts where the first ends
        path = cohort / "pump_101" / "raw" / f"raw_{kind}_20240301.csv"
        path.write_text(
            path.read_text().replace("2024-03-01", "2024-03-03").replace("2024-03-02", "2024-03-04")
        )
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert manifest["subjects"]["used"] == 2
    series = pd.read_parquet(tmp_path / "out" / "series.parquet")
    one = series[series["subject"] == "S0"]
    ends = one.groupby("split", observed=True)["time"].agg(["min", "max"])
    assert ends.loc["train", "max"] < ends.loc["validation", "min"] < ends.loc["test", "min"]


def test_features_of_a_real_cohort_never_look_ahead(cohort, tmp_path):
    prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    stored, again = replay(cohort, "pump_folders", tmp_path / "out", n=50)
    pd.testing.assert_frame_equal(stored, again, check_exact=True)


def test_d1namo_is_read(realdata, tmp_path):
    manifest = prepare(realdata / "glucose" / "dubosson_events.csv.gz", "event_table", tmp_path / "out")
    assert whole(manifest)
    assert manifest["rows"]["in"] == 8055
    assert manifest["subjects"]["used"] == 7
    assert set(manifest["files"]["set_aside"]) == {"3", "9"}  # fewer readings than a day holds
    with gzip.open(realdata / "glucose" / "dubosson_events.csv.gz", "rt") as file:
        raw = pd.read_csv(file, dtype={"id": str})
    series = pd.read_parquet(tmp_path / "out" / "series.parquet")
    given = raw[~raw["id"].isin(["3", "9"])].groupby("id")["fast_insulin"].sum()
    kept = series.groupby("subject", observed=True)["bolus_dose"].sum()
    assert (kept <= given + 1e-6).all()  # a published benchmark's own columns held 3,580 U for person 1
    assert kept["1"] == pytest.approx(111)
    assert read_json(tmp_path / "out" / "manifest.json")["grid"]["low"] > 0


def test_an_event_table_without_its_columns(tmp_path):
    pd.DataFrame({"id": [1], "time": ["2024-03-01"]}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(FileError, match="gl, fast_insulin, slow_insulin"):
        read_event_table(tmp_path / "x.csv")
