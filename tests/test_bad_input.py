"Bad input has a clear error or a counted rejection; nothing is lost and the rest goes on."

import gzip

import numpy as np
import pandas as pd
import pytest
from conftest import write_cohort

from medlab.core.files import read_json
from medlab.shape.clock import local_to_utc, to_utc
from medlab.shape.units import UnitError, to_mgdl
from medlab.studies.glucose.prepare import age_band, known, prepare, replay
from medlab.studies.glucose.readers import read_event_table, read_pump_folders
from medlab.studies.glucose.rows import Count, FileError, read_table


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


def one_file(tmp_path, rows, header="", columns="timestamp,bg", signals=("bg",)):
    "One small file through the reader: table and count."
    path = tmp_path / "raw_cgm.csv"
    path.write_text(header + columns + "\n" + "\n".join(rows) + "\n")
    count = Count()
    return read_table(path, signals, count, "raw_cgm.csv")[0], count


def at(values, start="2024-03-01"):
    times = pd.date_range(start, periods=len(values), freq="5min").strftime("%Y-%m-%d %H:%M:%S")
    return [f"{t},{v}" for t, v in zip(times, values, strict=True)]


# units


def test_a_file_of_deep_lows_is_not_guessed_to_be_mmol():
    with pytest.raises(UnitError, match="plausible in mg/dL and in mmol/L"):
        to_mgdl([30.0, 28.0])
    assert to_mgdl([30.0, 28.0], "mg/dL").tolist() == [30, 28]
    assert to_mgdl([30.0, 28.0], "mmol/L") == pytest.approx([540.5, 504.4], abs=0.1)


def test_the_declared_unit_is_taken_from_the_header(tmp_path):
    table, _ = one_file(tmp_path, at([30, 28]), "# units: bg=mg/dL, basal_rate=U/hr\n")
    assert table["censored"].tolist() == [-1, -1]
    table, _ = one_file(tmp_path, at([30, 28]), "# units: bg=mmol/L\n")
    assert table["censored"].tolist() == [1, 1]
    with pytest.raises(UnitError, match="says mmol/L, but its readings lie in the range of mg/dL"):
        one_file(tmp_path, at([110] * 20), "# units: bg=mmol/L\n")
    with pytest.raises(UnitError, match="declares the unit 'g/L'"):
        one_file(tmp_path, at([110] * 20), "# units: bg=g/L\n")


def test_one_odd_reading_costs_one_row_and_no_patient(cohort, tmp_path):
    path = cgm(cohort)
    lines = path.read_text().splitlines()
    for i, value in ((50, "32"), (60, "7.1")):  # plausible in both units; in mmol/L only
        lines[i] = f"{lines[i].split(',')[0]},{value}"
    path.write_text("\n".join(lines) + "\n")
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert manifest["subjects"] == {"used": 3, "set_aside": 0}
    assert manifest["rows"]["rejected"] == {"bg outside 20 to 600": 1}
    assert manifest["grid"]["low"] == 1
    assert whole(manifest)


@pytest.mark.parametrize(("odd", "mixed"), [(4, False), (5, True), (9, True)])
def test_a_mix_needs_five_readings_and_one_in_a_hundred(odd, mixed):
    for n, expected in ((400, mixed), (2000, False)):
        values = np.r_[np.full(n, 110.0), np.full(odd, 6.0)]
        if expected:
            with pytest.raises(UnitError, match="mixes units"):
                to_mgdl(values)
        else:
            np.testing.assert_array_equal(to_mgdl(values), values)


def test_limits_of_the_sensor_are_censored_alike_in_both_readers(tmp_path):
    values = [35, 40, 41, 399, 399.6, 400, 450]
    marks = [-1, -1, 0, 0, 1, 1, 1]
    table, _ = one_file(tmp_path, at(values))
    assert table["censored"].tolist() == marks
    assert table["bg"].tolist() == [40, 40, 41, 399, 400, 400, 400]
    records, _ = read_event_table(events(tmp_path, [f"a,{row},0,0" for row in at(values)]))
    pd.testing.assert_frame_equal(
        records[0].glucose, table[["time", "bg", "censored"]].reset_index(drop=True)
    )
    table, _ = one_file(tmp_path, at([2.2, 5.5, 22.2]))
    assert table["censored"].tolist() == [-1, 0, 1]


# event tables


def events(folder, rows):
    path = folder / "events.csv"
    path.write_text("id,time,gl,fast_insulin,slow_insulin\n" + "\n".join(rows) + "\n")
    return path


def test_a_unit_problem_in_an_event_table_concerns_one_person(tmp_path):
    good = [f"a,{row},0,0" for row in at([110] * 299 + [31])]
    bad = [f"b,{row},0,0" for row in at([110] * 150 + [6.1] * 150)]
    manifest = prepare(events(tmp_path, good + bad), "event_table", tmp_path / "out")
    assert manifest["subjects"] == {"used": 1, "set_aside": 1}
    assert "mixes units" in manifest["files"]["set_aside"]["b"]
    assert "id b" in manifest["files"]["set_aside"]["b"]
    assert manifest["rows"]["used"] == 300
    assert manifest["rows"]["rejected"] == {"of a patient who was set aside": 300}
    assert whole(manifest)


def test_bad_cells_of_an_event_table_are_refused_as_elsewhere(tmp_path):
    rows = [f"a,{row},0,0" for row in at([110] * 6)]
    wrong = ["abc,0,0", "110,x,0", "110,-3,0", "110,500,0", "110,0,900", "999,0,0"]
    rows += [f"a,2024-03-02 00:0{i}:00,{cells}" for i, cells in enumerate(wrong)]
    records, count = read_event_table(events(tmp_path, [*rows, ",2024-03-03,110,0,0"]))
    assert count.refused == {
        "bg is not a number": 1,
        "fast_insulin is not a number": 1,
        "fast_insulin outside 0 to 25": 2,
        "slow_insulin outside 0 to 240": 1,
        "bg outside 20 to 600": 1,
        "no id": 1,
    }
    assert (count.rows, count.used, records[0].rows) == (13, 6, 6)
    assert count.first["bg is not a number"] == "events.csv, line 8"


def test_rows_of_people_set_aside_are_not_used(cohort, tmp_path):
    cgm(cohort, 0).unlink()  # no reading at all
    path = cgm(cohort, 1)
    path.write_text("\n".join(path.read_text().splitlines()[:53]) + "\n")  # 50 readings
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    others = sum(
        len(path.read_text().splitlines()) - 3 for path in (cohort / "pump_102" / "raw").glob("*.csv")
    )
    assert manifest["rows"]["used"] == others
    assert list(manifest["rows"]["rejected"]) == ["of a patient who was set aside"]
    assert manifest["subjects"] == {"used": 1, "set_aside": 2}
    assert whole(manifest)


# doses


def test_a_pump_in_two_layouts_counts_its_insulin_once(cohort, tmp_path):
    given = read_pump_folders(cohort)[0][0].bolus["bolus_dose"].sum()
    merged = cohort / "pump_100" / "train"
    merged.mkdir()
    rows = [f"{row},0.8,2.0" for row in at([120] * 200, "2024-03-01 00:02")]
    (merged / "lstm_train_20240301.csv").write_text(
        "timestamp,bg,basal_rate,bolus_dose\n" + "\n".join(rows) + "\n"
    )
    records, count = read_pump_folders(cohort)
    assert records[0].bolus["bolus_dose"].sum() == given
    assert "another layout" in count.set_aside["pump_100/train/lstm_train_20240301.csv"]
    (cohort / "pump_100" / "raw" / "raw_bolus_20240301.csv").unlink()  # now only the merged file is whole
    records, count = read_pump_folders(cohort)
    assert records[0].bolus["bolus_dose"].sum() == 400
    assert "another layout" in count.set_aside["pump_100/raw/raw_cgm_20240301.csv"]


def test_two_boluses_at_one_moment_are_added(cohort, tmp_path):
    path = cohort / "pump_100" / "raw" / "raw_bolus_20240301.csv"
    before = read_pump_folders(cohort)[0][0].bolus["bolus_dose"].sum()
    time = path.read_text().splitlines()[3].split(",")[0]
    with path.open("a") as file:
        file.write(f"{time},1.5,0\n{time},1.5,0\n")
    records, count = read_pump_folders(cohort)
    assert records[0].bolus["bolus_dose"].sum() == before + 1.5
    assert records[0].bolus["time"].is_unique
    assert count.refused == {"same time as a later row of the file": 1}
    assert count.rows == count.used + 1
    rows = ["a,2024-03-01 12:00:00,110,2,0", "a,2024-03-01 12:00:00,0,3,0", "a,2024-03-01 12:00:00,0,3,0"]
    records, count = read_event_table(events(tmp_path, rows))
    assert records[0].bolus["bolus_dose"].tolist() == [5]
    assert records[0].glucose["bg"].tolist() == [110]
    assert (count.used, sum(count.refused.values())) == (2, 1)


# times


@pytest.mark.parametrize(
    "stamp", ["2024-03-01T01:00:00Z", "2024-03-01 02:00:00+01:00", "2024-03-01T03:00+0200"]
)
@pytest.mark.parametrize("header", ["", "# tz_handling: stored_in=local\n# time_zone: Asia/Tokyo\n"])
def test_a_time_with_an_offset_is_absolute(tmp_path, stamp, header):
    table, count = one_file(tmp_path, [f"{stamp},100", "2024-03-01T12:00:00-05:00,110"], header)
    assert not count.refused
    assert table["time"].tolist() == [pd.Timestamp("2024-03-01 01:00"), pd.Timestamp("2024-03-01 17:00")]


def test_a_clock_that_was_never_set_costs_the_row(tmp_path):
    table, count = one_file(tmp_path, ["9999-12-31 00:00:00,100", "2024-03-01 00:00:00,100"])
    assert len(table) == 1
    assert count.refused == {"timestamp outside 1990 to 2100": 1}


def test_local_time_needs_a_zone_that_exists(cohort, tmp_path):
    for zone, message in (
        ("", "names no zone"),
        ("# time_zone: Sweden/Stockholm\n", "'Sweden/Stockholm', which is none"),
    ):
        with pytest.raises(FileError, match=message):
            one_file(tmp_path, at([100]), "# tz_handling: stored_in=local\n" + zone)
    path = cgm(cohort)
    path.write_text(path.read_text().replace("Europe/Stockholm", "Sweden/Stockholm"))
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert "which is none" in manifest["files"]["set_aside"]["pump_100/raw/raw_cgm_20240301.csv"]
    assert manifest["subjects"] == {"used": 2, "set_aside": 1}
    assert whole(manifest)


def test_a_patient_with_a_bad_zone_is_set_aside_by_name(cohort, tmp_path):
    (cohort / "subjects.csv").write_text(
        "subject,age,sex,time_zone\nS0,30,F,\nS1,40,M,Mars/Base\nS2,50,F,Europe/Oslo\n"
    )
    manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    assert set(manifest["files"]["set_aside"]) == {"S0", "S1"}
    assert "Mars/Base" in manifest["files"]["set_aside"]["S1"]
    assert manifest["subjects"] == {"used": 1, "set_aside": 2}
    assert whole(manifest)


def test_a_late_row_in_the_repeated_hour_moves_no_other():
    utc = pd.date_range("2024-10-26 23:30", "2024-10-27 02:30", freq="5min", tz="UTC")
    order = np.arange(len(utc))
    for i in (8, 9, 20):  # small disorder in either pass
        order[[i, i + 1]] = order[[i + 1, i]]
    utc = utc[order]
    local = utc.tz_convert("Europe/Stockholm").tz_localize(None)
    expected = utc.tz_localize(None).as_unit("us")
    for step in (1, -1):
        found, assumed = local_to_utc(local[::step], "Europe/Stockholm")
        np.testing.assert_array_equal(found, expected[::step])
        assert not assumed.any()


def test_a_few_basal_changes_in_the_repeated_hour_are_told_apart():
    local = pd.to_datetime([f"2024-10-27 02:{m}" for m in ("05", "45", "25", "55")])
    utc, assumed = local_to_utc(local, "Europe/Stockholm")
    assert utc.strftime("%H:%M").tolist() == ["00:05", "00:45", "01:25", "01:55"]
    assert not assumed.any()


def test_a_lonely_bolus_in_the_repeated_hour_is_noted(tmp_path):
    header = "# tz_handling: stored_in=local\n# time_zone: Europe/Stockholm\n"
    table, count = one_file(
        tmp_path, ["2024-10-27 02:30:00,3.0"], header, "timestamp,bolus_dose", ("bolus_dose",)
    )
    assert table["time"].iloc[0] == pd.Timestamp("2024-10-27 00:30")
    assert count.notes == {"local time in the repeated hour, first pass assumed": 1}
    _, count = one_file(
        tmp_path, ["2024-10-28 02:30:00,3.0"], header, "timestamp,bolus_dose", ("bolus_dose",)
    )
    assert not count.notes


# files


def test_an_open_quotation_mark_costs_its_own_line(tmp_path):
    rows = at([100, 101, 102])
    table, count = one_file(tmp_path, [rows[0], rows[1].replace(",", ',"'), rows[2]])
    assert table["bg"].tolist() == [100, 102]
    assert count.first == {"unbalanced quotation mark": "raw_cgm.csv, line 3"}
    table, count = one_file(
        tmp_path, [rows[0] + ',"soup, bread"', rows[1] + ",none"], columns="timestamp,bg,note"
    )
    assert len(table) == 2


def test_a_column_that_occurs_twice(tmp_path):
    with pytest.raises(FileError, match="the column bg more than once"):
        one_file(tmp_path, [row + ",5" for row in at([100])], columns="timestamp,bg,bg")


def test_any_bad_file_leaves_the_cohort_standing(cohort, tmp_path):
    path, text = cgm(cohort), cgm(cohort).read_text()
    for wrong in (
        text.replace("timestamp,bg\n", "timestamp,bg,bg\n"),
        text.replace("timestamp,bg\n", 'timestamp,"bg\n'),
        text.replace("00:00,", "00:00Z,"),
        text.replace(",", ';"'),
        "",
    ):
        path.write_text(wrong)
        manifest = prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
        assert manifest["subjects"]["used"] >= 2
        assert whole(manifest)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pumps.csv", "serial,owner\n100,S0\n", "pumps.csv has no column pump_serial, subject"),
        ("pumps.csv", "pump_serial,subject\n100,S0\n100,S1\n", "lists pump_serial '100' more than once"),
        ("subjects.csv", "name,age\nS0,30\n", "subjects.csv has no column subject"),
        ("subjects.csv", 'subject,age\nS0,"30\n', "subjects.csv, line 2: unbalanced quotation mark"),
    ],
)
def test_a_bad_listing_is_named(cohort, name, content, message):
    (cohort / name).write_text(content)
    with pytest.raises(FileError, match=message):
        read_pump_folders(cohort)


def test_an_age_that_is_not_known_is_no_old_age(cohort, tmp_path):
    for missing in (None, "", " ", np.nan, float("nan"), "NaN", pd.NA, -1, "inf", "adult"):
        assert age_band(missing) == "unknown", missing
    assert [age_band(a) for a in (0, "17.9", 18, 40, "65")] == [
        "under 18",
        "under 18",
        "18 to 39",
        "40 to 64",
        "65 and over",
    ]
    assert [known(v) for v in (None, "", " ", np.nan, pd.NA, "F")] == ["unknown"] * 5 + ["F"]
    (cohort / "subjects.csv").write_text("subject,age,sex\nS0,,\nS1,40,M\n")
    prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
    people = pd.read_parquet(tmp_path / "out" / "subjects.parquet").set_index("subject")
    assert people["age"].tolist() == ["unknown", "40 to 64", "unknown"]
    assert people["sex"].tolist() == ["unknown", "M", "unknown"]


def test_the_replay_finds_a_filling_rule_that_looks_ahead(cohort, tmp_path, monkeypatch):
    "Interpolating over holes is the classic; it changes only rows without a reading."
    import medlab.studies.glucose.prepare as module

    path = cgm(cohort)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for i, line in enumerate(lines) if i < 50 or i % 3) + "\n")  # holes

    def interpolated(values, limit=None):
        filled = pd.Series(values).interpolate(limit_area="inside").ffill().to_numpy()
        return filled, np.where(np.isnan(values), 1, 0)

    for rule, found in ((module.carry_forward, False), (interpolated, True)):
        monkeypatch.setattr(module, "carry_forward", rule)
        prepare(cohort, "pump_folders", tmp_path / "out", least_readings=100)
        stored, again = replay(cohort, "pump_folders", tmp_path / "out", n=60)
        assert (not stored.equals(again)) == found
