"What lies in a cohort's folder is read or named, every line below the column names is counted, and the audit's own eyes see the same."

import gzip
import shutil
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_cohort
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medlab.core.files import write_table
from medlab.judge.raw_files import raw_files, raw_text
from medlab.shape.folders import walk
from medlab.shape.lines import GAPS, lines, split
from medlab.studies.glucose import moments as glucose_moments
from medlab.studies.glucose import prepare as glucose
from medlab.studies.glucose.readers import read_event_table, read_pump_folders
from medlab.studies.glucose.rows import Count, FileError, read_table
from medlab.studies.risk import moments as risk_moments
from medlab.studies.risk import prepare as risk
from medlab.studies.risk import readers
from medlab.studies.risk.evidence import raw_rows
from medlab.studies.risk.simulate import simulate


def whole(manifest):
    rows = manifest["rows"]
    return rows["in"] == rows["used"] + sum(rows["rejected"].values())


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    "Simulated patient-years, as a table."
    folder = tmp_path_factory.mktemp("risk")
    simulate(folder, patients=150)
    table = pd.concat(pd.read_parquet(path) for path in readers.files(folder))
    return table.drop(columns=[c for c in table if c.startswith("noise")]).reset_index(drop=True)


# every line is counted

JUNK = st.lists(
    st.one_of(
        st.sampled_from(
            ["", "  ", "# a remark", "#", '"open', "a,b", ",,,", ",,,,,,,", 'a"b,"c', '"x" ,1', "\ttab"]
        ),
        st.text(alphabet='ab,#"1.-\u2028\x0b\r \t\xa0', max_size=12),
    ),
    max_size=12,
)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mixed(good: list[str], junk: list[str], at: int) -> tuple[str, int]:
    "A table's body with junk in it, and how many lines of it are not blank."
    body = "\n".join([*good[:at], *junk, *good[at:]])
    return body, sum(bool(line.strip()) for line in body.replace("\r", "\n").split("\n"))


@MANY
@given(junk=JUNK, at=st.integers(0, 3), packed=st.booleans())
def test_every_line_of_a_pump_is_counted(junk, at, packed, tmp_path):
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
    place = tmp_path / "c" / "pump_#1" / "raw"
    place.mkdir(parents=True)
    head, total = "# tz_handling: stored_in=UTC\n", 0
    for kind, columns, cells in (("cgm", "timestamp,bg", ["110"] * 3), ("basal", "timestamp,basal_rate", ["1"] * 3),
                                 ("bolus", "timestamp,bolus_dose,carbs", ["2,5"] * 3)):  # fmt: skip
        body, n = mixed([f"2024-03-01 00:{5 * i:02}:00,{cell}" for i, cell in enumerate(cells)], junk, at)
        text, total = (head + columns + "\n" + body).encode(), total + n
        name = f"RAW_{kind}_1.csv.GZ" if packed else f"raw_{kind}_1.CSV"
        (place / name).write_bytes(gzip.compress(text) if packed else text)
        found, own = lines(place / name), raw_text(place / name)  # the audit's own eyes see the same rows
        closed = [row for k, row in enumerate(found.rows) if k not in found.unbalanced]
        right = [cells for row in closed if len(cells := split(row, ",")) == len(found.columns)]
        assert [[cell.strip() for cell in row] for row in own.rows.values()] == right
    _, count = read_pump_folders(tmp_path / "c")
    assert count.rows == total == count.used + sum(count.refused.values()) and count.files == 3
    assert not count.not_read


@MANY
@given(junk=JUNK, at=st.integers(0, 3))
def test_every_line_of_an_event_table_is_counted(junk, at, tmp_path):
    body, n = mixed([f"#{i},2024-03-01 00:{5 * i:02}:00,110,0,0" for i in range(3)], junk, at)
    (tmp_path / "events.csv").write_bytes(f"id,time,gl,fast_insulin,slow_insulin\n{body}".encode())
    records, count = read_event_table(tmp_path / "events.csv")
    assert count.rows == n == count.used + sum(count.refused.values())
    assert {"#0", "#1", "#2"} <= {record.subject for record in records}


@MANY
@given(junk=JUNK, at=st.integers(0, 3), packed=st.booleans())
def test_every_line_of_patient_years_is_counted(junk, at, packed, tmp_path):
    body, n = mixed([f"#{i},2020,{50 + i},0" for i in range(3)], junk, at)
    text = f"# a comment\npatient_id,year,age,target\n{body}".encode()
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
    (tmp_path / "c").mkdir()
    path = tmp_path / "c" / ("x.csv.gz" if packed else "X.CSV")
    path.write_bytes(gzip.compress(text) if packed else text)
    rows, refused, about = readers.read(tmp_path / "c")
    assert about["rows"] == n == len(rows) + len(refused) == about["used"] + sum(about["refused"].values())
    assert {"#0", "#1", "#2"} <= set(rows["patient_id"])
    known = raw_rows(tmp_path / "c")
    assert {"#0", "#1", "#2"} <= set(known["subject"]) and len(known) <= n


def test_patients_whose_names_begin_like_comments(patients, tmp_path):
    text = "# units: weight=kg\n" + patients.assign(patient_id="#" + patients["patient_id"]).to_csv(
        index=False
    )
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.csv").write_text(text)
    manifest = risk.prepare(tmp_path / "c", tmp_path / "out")
    assert manifest["rows"]["in"] == len(patients) == len(raw_rows(tmp_path / "c")) and whole(manifest)


# every file is read or named


def test_a_pump_in_every_kind_of_file(tmp_path):
    plain, odd = write_cohort(tmp_path / "plain", 2, 400), tmp_path / "odd"
    shutil.copytree(plain, odd)
    raw, disk = odd / "pump_100" / "raw", tmp_path / "disk"
    (raw / "raw_cgm_20240301.csv").rename(raw / "Raw_CGM_20240301.CSV")
    basal = raw / "raw_basal_20240301.csv"
    (raw / "raw_basal_20240301.csv.GZ").write_bytes(gzip.compress(basal.read_bytes()))
    basal.unlink()
    disk.mkdir()
    (raw / "raw_bolus_20240301.csv").rename(disk / "anything")
    (raw / "raw_bolus_20240301.csv").symlink_to(disk / "anything")
    (odd / "pump_101").rename(disk / "another")
    (odd / "pump_101").symlink_to(disk / "another")
    (odd / "pumps.csv").rename(odd / "PUMPS.csv")
    (odd / "pump_102").symlink_to(disk / "another")  # the same folder again: nobody's second body
    (odd / "round").symlink_to(odd)
    (raw / "raw_cgm_20240302.csv").symlink_to(disk / "gone")
    (raw / "raw_cgm_20240303.xlsx").write_text("x")
    (raw / ".raw_cgm_20240304.csv.swp").write_text("x")
    (odd / "notes.txt").write_text("x")
    (odd / "README.md").write_text("x")
    one, two = (glucose.prepare(c, "pump_folders", tmp_path / f"{c.name}.out") for c in (plain, odd))
    left = two["files"].pop("not_read")
    assert one["files"].pop("not_read") == {}
    assert one == two | {"notes": one["notes"]} and whole(two)
    assert (tmp_path / "plain.out" / "series.parquet").read_bytes() == (
        tmp_path / "odd.out" / "series.parquet"
    ).read_bytes()
    names = ["notes.txt", "pump_100/raw/.raw_cgm_20240304.csv.swp", "pump_100/raw/raw_cgm_20240302.csv"]
    assert list(left) == [*names, "pump_100/raw/raw_cgm_20240303.xlsx", "pump_102", "round"]
    assert "nowhere" in left["pump_100/raw/raw_cgm_20240302.csv"] and "pump_101" in left["pump_102"]
    table = pd.read_parquet(tmp_path / "odd.out" / "series.parquet")  # and the audit cuts the same files off
    moment = table.loc[table["subject"] == "S0", "time"].iloc[200]
    (tmp_path / "copy").mkdir()
    copy = glucose_moments.cut_off(odd, "pump_folders", "S0", moment, tmp_path / "copy")
    cut = {record.subject: record for record in read_pump_folders(copy)[0]}["S0"]
    whole_record = next(record for record in read_pump_folders(odd)[0] if record.subject == "S0")
    for part in ("glucose", "basal", "bolus"):
        rows = getattr(whole_record, part)
        pd.testing.assert_frame_equal(getattr(cut, part), rows[rows["time"] <= moment].reset_index(drop=True))


def test_patient_years_in_every_kind_of_file(patients, tmp_path):
    plain, odd, disk = (tmp_path / name for name in ("plain", "odd", "disk"))
    for folder in (plain, odd, disk / "year=2019"):
        folder.mkdir(parents=True)
    (odd / "units.json").write_text('{"Weight": "KG"}')
    (plain / "units.json").write_text('{"weight": "kg"}')
    for year, part in patients.groupby("year"):
        part.to_csv(plain / f"{year}.csv", index=False)
    text = {int(path.stem): path.read_text() for path in sorted(plain.glob("*.csv"))}
    (odd / "2015.CSV").write_text(text.pop(2015))
    (odd / "2016.Csv.GZ").write_bytes(gzip.compress(text.pop(2016).encode()))
    patients[patients["year"] == 2017].to_parquet(odd / "2017.PARQUET")
    (disk / "2018").write_text(text.pop(2018))
    (odd / "2018.csv").symlink_to(disk / "2018")
    patients[patients["year"] == 2019].drop(columns="year").to_parquet(disk / "year=2019" / "x.parquet")
    (odd / "year=2019").symlink_to(disk / "year=2019")
    (odd / "2020.csv").write_text("sep=,\n" + text.pop(2020))
    patients[patients["year"] == 2021].to_csv(odd / "2021.csv", sep="\t", index=False)
    for year in (2017, 2019, 2021):
        text.pop(year)
    for year, rest in text.items():
        (odd / f"{year}.csv").write_text(rest)
    (odd / "latest").symlink_to(disk / "year=2019")
    (odd / "up").symlink_to(tmp_path)
    (odd / "2030.csv").symlink_to(disk / "gone")
    (odd / "2031.tsv").write_text("x")
    (odd / "_SUCCESS").write_text("")
    (odd / "LICENSE").write_text("x")
    one, two = (risk.prepare(c, tmp_path / f"{c.name}.out") for c in (plain, odd))
    assert list(two["files"]["not_read"]) == ["2030.csv", "2031.tsv", "_SUCCESS", "latest", "up"]
    raw = [
        raw_rows(c).drop(columns="row").sort_values(["subject", "year"], ignore_index=True)
        for c in (plain, odd)
    ]
    pd.testing.assert_frame_equal(*raw, check_dtype=False)
    assert [*risk_moments.raw_paths(odd)] == readers.files(odd)
    assert one["rows"] == two["rows"] and whole(two) and one["files"]["not_read"] == {}


def test_a_link_named_before_the_folder_it_leads_to(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "x.csv").write_text("a\n")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    found, left = walk(tmp_path)
    assert found == [tmp_path / "z" / "x.csv"] == raw_files(tmp_path) and list(left) == ["a"]
    (tmp_path / "z" / "back").symlink_to(tmp_path)
    (tmp_path / "z" / "self").symlink_to(tmp_path / "z" / "self")
    found, left = walk(tmp_path)
    assert len(found) == 1 == len(raw_files(tmp_path)) and sorted(left) == ["a", "z/back", "z/self"]


def test_only_folders_below_the_named_one_are_columns(patients, tmp_path):
    data = tmp_path / "year=2023" / "age=7"
    data.mkdir(parents=True)
    patients.to_csv(data / "x.csv", index=False)
    (data / "units.json").write_text('{"weight": "kg"}')
    for path in (data, data / "x.csv"):
        assert readers.read(path)[2]["refused"] == {}
        assert sorted(raw_rows(path)["year"].unique()) == sorted(patients["year"].unique())
    manifest = risk.prepare(data, tmp_path / "out")
    assert "the folder's name says otherwise" not in manifest["rows"]["rejected"]


# the same values however a file stores them


def stored(form: str, patients: pd.DataFrame, path) -> None:
    "The same patients in one of the forms of Parquet."
    table = pa.Table.from_pandas(patients, preserve_index=False)
    change = lambda name, made: table.set_column(table.column_names.index(name), name, made)
    if form == "index":
        return patients.set_index(["patient_id", "year"]).to_parquet(path)
    if form == "saved index":
        return patients[patients["year"] > 0].iloc[::-1].to_parquet(path)
    if form == "categories":
        frame = patients.astype(
            dict.fromkeys(("patient_id", "gender", "primary_diagnosis", "year"), "category")
        )
        return frame.to_parquet(path, index=False)
    if form == "large_string":
        for name in ("patient_id", "gender", "smoking_status"):
            table = change(name, table[name].cast(pa.large_string()))
    if form == "dictionary years":
        for name in ("year", "birth_year"):
            table = change(name, table[name].dictionary_encode())
    if form == "float":
        for name in ("year", "target", "num_visits", "diagnosis_year", "lab_abnormal_flag"):
            table = change(name, table[name].cast(pa.int64()).cast(pa.float64()))
    if form == "decimal":
        for name in ("weight", "year"):
            cells = [None if v is None else Decimal(str(v)) for v in table[name].to_pylist()]
            table = change(name, pa.array(cells, pa.decimal128(12, 4)))
    if form == "small integers":
        table = change("num_visits", table["num_visits"].cast(pa.uint8()))
        table = change("lab_abnormal_flag", table["lab_abnormal_flag"].cast(pa.bool_()))
    if form == "nullable booleans":
        for name in ("target", "lab_abnormal_flag"):
            table = change(name, table[name].cast(pa.bool_()))
    if form == "others beside":
        n = len(patients)
        table = table.append_column("visits", pa.array([[1, 2]] * n)).append_column(
            "who", pa.array([{"a": 1}] * n)
        )
        table = table.append_column("seen", pa.array(pd.date_range("2020-01-01", periods=n))).append_column(
            "raw", pa.array([b"\xff"] * n)
        )
        table = table.append_column("small", pa.array(np.ones(n, "float16")))
    return pq.write_table(table.replace_schema_metadata(None) if form != "plain" else table, path)


FORMS = [
    "index",
    "saved index",
    "categories",
    "large_string",
    "dictionary years",
    "float",
    "decimal",
    "small integers",
]


@pytest.mark.parametrize("form", [*FORMS, "nullable booleans", "others beside"])
def test_every_form_of_parquet_is_the_same_to_prepare_and_to_the_audit(form, patients, tmp_path):
    found = {}
    for name in ("plain", form):
        data = tmp_path / name / "data"
        data.mkdir(parents=True)
        stored(name, patients, data / "x.parquet")
        (data / "units.json").write_text('{"weight": "kg"}')
        manifest = risk.prepare(data, tmp_path / name / "out")
        raw = raw_rows(data).drop(columns="row").sort_values(["subject", "year"], ignore_index=True)
        found[name] = manifest["rows"], risk.load(tmp_path / name / "out"), raw
    (rows, table, raw), (rows_again, again, raw_again) = found.values()
    assert rows == rows_again
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    pd.testing.assert_frame_equal(raw, raw_again, check_dtype=False, check_exact=True)
    for as_prepared, made in risk_moments.replays(data, again, 20.0, n=30):
        pd.testing.assert_frame_equal(as_prepared, made, check_dtype=False, rtol=1e-6)
        assert len(made) > 10


def test_integer_names_with_a_gap_among_them(tmp_path):
    for kind, dtype in (("int32", "int32"), ("int64", "int64"), ("gap", "Int64")):
        names = [10**7, 2, 3] if kind != "gap" else [2**60 + 1, None, 3]
        frame = pd.DataFrame({"patient_id": pd.array(names, dtype), "year": 2020, "age": 50.0})
        frame.to_parquet(tmp_path / f"{kind}.parquet")
        kept, refused, _ = readers.read_file(tmp_path / f"{kind}.parquet")
        expected = [str(name) for name in names if name is not None]
        assert kept["patient_id"].tolist() == expected
        assert refused["reason"].tolist() == ["patient_id is missing"] * (kind == "gap")
        assert set(expected) <= set(raw_rows(tmp_path / f"{kind}.parquet")["subject"])


def test_the_audit_reads_what_prepare_read(patients, tmp_path):
    "Lines that were refused and a file that was set aside are no reason to stop."
    body = patients.to_csv(index=False).splitlines()
    body[5:5] = ['"open', "too,few", f"{body[7]},too many", "# a remark"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.csv").write_text("# units: weight=kg\n" + "\n".join(body) + "\n")
    (tmp_path / "c" / "broken.parquet").write_bytes(b"PAR1 and then the disk was full")
    manifest = risk.prepare(tmp_path / "c", tmp_path / "out")
    aside = set(manifest["files"]["set_aside"])
    assert aside == {"broken.parquet"} and manifest["rows"]["in"] == len(patients) + 4
    raw = raw_rows(tmp_path / "c", aside)
    assert len(raw) == len(patients)
    for pair in risk_moments.replays(tmp_path / "c", risk.load(tmp_path / "out"), 20.0, n=20, skip=aside):
        pd.testing.assert_frame_equal(*pair, check_dtype=False, rtol=1e-6)


# what a file says about itself


def test_a_simulated_cohort_is_simulated_without_its_oracle_and_never_shares_a_column(tmp_path):
    simulate(tmp_path / "risk", patients=150)
    (tmp_path / "risk" / "oracle.json").unlink()
    assert risk.prepare(tmp_path / "risk", tmp_path / "out")["simulated"]
    simulated = readers.files(tmp_path / "risk")[0]
    real = pd.read_parquet(simulated).assign(patient_id=lambda table: "R" + table["patient_id"])
    write_table(simulated.with_name("real.parquet"), real, {"units": {"weight": "kg"}})
    with pytest.raises(
        ValueError, match=r"some files are simulated and some are not .*part-00000.*real\.parquet"
    ):
        risk.prepare(tmp_path / "risk", tmp_path / "out")
    with pytest.raises(ValueError, match="some files are simulated"):
        readers.read(tmp_path / "risk")
    cohort = write_cohort(tmp_path / "glucose", 2, 400)
    assert not glucose.prepare(cohort, "pump_folders", tmp_path / "out")["simulated"]
    for path in cohort.rglob("raw_*.csv"):
        path.write_text("# notes: SIMULATED by medlab (Hovorka model)\n" + path.read_text())
    assert glucose.prepare(cohort, "pump_folders", tmp_path / "out")["simulated"]
    one = next(iter(sorted(cohort.rglob("raw_cgm*"))))
    one.write_text(one.read_text().split("\n", 1)[1])
    with pytest.raises(ValueError, match="some files are simulated and some are not"):
        glucose.prepare(cohort, "pump_folders", tmp_path / "out")
    one.write_text("# simulated: perhaps\n" + one.read_text())
    assert "perhaps" in read_pump_folders(cohort)[1].set_aside["pump_100/raw/raw_cgm_20240301.csv"]


def one_file(tmp_path, rows, header="", columns="timestamp,bg", signals=("bg",)):
    path = tmp_path / "raw_cgm.csv"
    path.write_text(header + columns + "\n" + "\n".join(rows) + "\n")
    count = Count()
    return read_table(path, signals, count, "raw_cgm.csv")[0], count


@pytest.mark.parametrize("word", ["local", "Local", "Local time", "LOCAL", "local-time"])
def test_local_time_in_any_letter_case(word, tmp_path):
    head = f"# TZ_Handling: Stored_in={word}\n# Time zone: EUROPE/stockholm\n"
    table, _ = one_file(tmp_path, ["2024-03-01 01:00:00,100"], head)
    assert table["time"].tolist() == [pd.Timestamp("2024-03-01 00:00")]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("# tz_handling: stored_in=wall clock\n", "neither UTC nor local"),
        ("# units: mmol/L\n", "of which column"),
        ("# units: glukose=mmol/L\n", "no column"),
        ("# units: bg=mg/dL, bolus_dose=mU\n", "only U is read"),
        ("# simulated: perhaps\n", "true or false"),
    ],
)
def test_a_declaration_that_is_not_understood_stops_the_file(head, message, tmp_path):
    with pytest.raises(FileError, match=message):
        one_file(tmp_path, ["2024-03-01 01:00:00,100"], head)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("# units: glukose=mmol/L\n", "no column"),
        ("# units: mmol/L\n", "of which column"),
        ("# simulated: perhaps\n", "true or false"),
    ],
)
def test_and_so_in_the_other_study(head, message, tmp_path):
    (tmp_path / "x.csv").write_text(head + "patient_id,year,age\nA,2020,50\n")
    with pytest.raises(readers.FileError, match=message):
        readers.read_file(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("# UNITS: Weight = KG\npatient_id,year,age,weight\nA,2020,50,80\n")
    assert readers.read_file(tmp_path / "x.csv")[2]["units"] == {"weight": "KG"}
    (tmp_path / "units.json").write_text('{"weigth": "lb"}')
    with pytest.raises(readers.FileError, match="is weight meant"):
        readers.read_file(tmp_path / "x.csv")


@pytest.mark.parametrize("gap", [*GAPS, "NaN", "NULL", " N/A "])
def test_a_gap_is_a_gap_in_every_spelling(gap, tmp_path):
    rows = [f"2024-03-01 00:{5 * i:02}:00,{value},0.8,1.5" for i, value in enumerate(["100", gap, "120"])]
    columns, signals = "timestamp,bg,basal_rate,bolus_dose", ("bg", "basal_rate", "bolus_dose")
    table, count = one_file(tmp_path, rows, columns=columns, signals=signals)
    assert table["bg"].isna().tolist() == [False, True, False] and table["bolus_dose"].sum() == 4.5
    assert not count.refused and not count.notes
    (tmp_path / "x.csv").write_text(f"patient_id,year,age,glucose\nA,2020,50,{gap}\nB,2020,50,95\n")
    kept, refused, _ = readers.read_file(tmp_path / "x.csv")
    assert refused.empty and kept["glucose"].isna().tolist() == [True, False]
    pd.DataFrame({"patient_id": ["A"], "year": 2020, "age": 50.0, "gender": gap}).to_parquet(
        tmp_path / "x.parquet"
    )
    assert readers.read_file(tmp_path / "x.parquet")[0]["gender"].isna().all()
    assert glucose.known(gap) == "unknown"


def test_a_bad_glucose_does_not_cost_the_insulin(tmp_path):
    rows = [
        f"2024-03-01 00:{5 * i:02}:00,{v},0.8,2" for i, v in enumerate(["hello", "999", "5", *["110"] * 9])
    ]
    columns, signals = "timestamp,bg,basal_rate,bolus_dose", ("bg", "basal_rate", "bolus_dose")
    table, count = one_file(tmp_path, rows, columns=columns, signals=signals)
    assert table["bolus_dose"].sum() == 24 and table["bg"].notna().sum() == 9 and not count.refused
    assert sorted(why.split(":")[0] for why in count.notes) == [
        "an error code of the receiver, no reading",
        "bg is not a number",
        "bg outside 20 to 600",
    ]
    times = [f"2024-03-01 {i // 12:02}:{i % 12 * 5:02}:00" for i in range(60)]
    table, count = one_file(tmp_path, [f"{t},{5 if i % 6 else 110}" for i, t in enumerate(times[:5])] + [
        f"{t},{(10, 5)[i % 2] if i % 9 == 0 else 120}" for i, t in enumerate(times[5:])])  # fmt: skip
    assert count.refused == {"an error code of the receiver, no reading": 11}


def test_dates_with_the_day_first_are_said_to_be_that(tmp_path):
    cohort = write_cohort(tmp_path / "c", 2, 400)
    path = cohort / "pump_100" / "raw" / "raw_cgm_20240301.csv"
    path.write_text(path.read_text().replace("2024-03-01", "01-03-2024").replace("2024-03-02", "02-03-2024"))
    why = glucose.prepare(cohort, "pump_folders", tmp_path / "out")["files"]["set_aside"]["S0"]
    assert "400 rows: unreadable timestamp, first '01-03-2024 00:00:00'; write times as 2024-10-03" in why


def test_one_sex_is_one_group():
    assert {glucose.sex(word) for word in ("F", "f", "Female", " FEMALE ", "woman")} == {"F"}
    assert [glucose.sex(word) for word in ("m", "Male", "X", "", None)] == [
        "M",
        "M",
        "X",
        "unknown",
        "unknown",
    ]
