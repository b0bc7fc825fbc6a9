"Rows and files of the risk study: the same patients out of every layout and unit, and every lost row accounted for."

import gzip
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import loaded
from hypothesis import given, settings
from hypothesis import strategies as st

from medlab.shape.quantities import UnitError, convert, plausible
from medlab.studies.risk import readers
from medlab.studies.risk.rows import BOUNDS, COLUMNS, NUMBERS, UNITS, normalise, repeated, schema
from medlab.studies.risk.simulate import simulate


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    "One simulated cohort in the units of the United States and in SI units."
    folder = tmp_path_factory.mktemp("risk")
    for units in ("us", "si"):
        simulate(folder / units, patients=120, units=units)
    return folder


@pytest.fixture(scope="module")
def rows(cohort):
    "Its rows, as read."
    return readers.read(cohort / "us")[0]


def line(**changes) -> pd.DataFrame:
    "One good row, with changes."
    good = {"patient_id": "A", "year": 2020, "age": 50.0, "gender": "F", "birth_year": 1970, "height": 170.0}
    good |= {"weight": 70.0, "bmi": 24.2, "systolic_bp": 130.0, "diastolic_bp": 80.0, "cholesterol": 200.0}
    good |= {"glucose": 95.0, "smoking_status": "Never", "num_visits": 3, "medications_count": 1}
    good |= {"lab_abnormal_flag": False, "primary_diagnosis": "I10", "additional_diagnoses": "", "target": 0}
    return pd.DataFrame([good | changes], dtype=object)


def test_the_simulated_cohort_is_read_without_a_loss_and_keeps_its_promises(cohort, rows):
    about = readers.read(cohort / "us")[2]
    assert about["used"] == about["rows"] == len(rows) and about["refused"] == about["set_aside"] == {}
    assert about["simulated"] is True
    assert schema().validate(rows) is not None and tuple(rows.columns) == COLUMNS
    assert rows["target"].isna().any() and rows["glucose"].isna().any()  # missing stays missing


def test_the_same_patients_in_si_units_give_equal_rows(cohort, rows):
    other = readers.read(cohort / "si")[0]
    written = pd.read_parquet(readers.files(cohort / "si")[0])
    assert written["glucose"].max() < 40 < 50 < rows["glucose"].min()
    pd.testing.assert_frame_equal(other, rows, rtol=0.02, atol=0.6)  # SI files keep two decimals
    exact = rows.assign(
        glucose=convert(rows["glucose"], "mg/dL", "mmol/L", "glucose"),
        cholesterol=convert(rows["cholesterol"], "mg/dL", "mmol/L", "cholesterol"),
        height=rows["height"] / 2.54,
        weight=rows["weight"] / 0.45359237,
    )
    units = {"glucose": "mmol/L", "cholesterol": "mmol/L", "height": "in", "weight": "lb"}
    pd.testing.assert_frame_equal(normalise(exact, units)[0], rows, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("layout", ["hive", "csv", "csv.gz", "names", "shuffled", "spreadsheet"])
def test_every_layout_gives_equal_rows(layout, rows, tmp_path):
    plain = rows.copy()
    if layout == "hive":
        for year, part in rows.groupby("year"):
            (tmp_path / "p" / f"year={year}").mkdir(parents=True)
            part.drop(columns="year").to_parquet(tmp_path / "p" / f"year={year}" / "0.parquet", index=False)
        (tmp_path / "p" / "units.json").write_text(json.dumps({"weight": "kg"}))
    elif layout == "csv":
        plain.to_csv(tmp_path / "p", index=False)
        (tmp_path / "p.csv").write_text(
            "# units: weight=kg\n# simulated: true\n" + (tmp_path / "p").read_text()
        )
    elif layout == "csv.gz":
        plain.rename(columns={"glucose": "Glucose (mg/dL)", "weight": "weight_kg"}).to_csv(
            tmp_path / "p.csv.gz", index=False, na_rep="NA"
        )
    elif layout == "names":
        plain["glucose"] /= 18.0156
        plain["weight"] /= 0.45359237
        plain.rename(columns={"glucose": "glucose_mmol_l", "weight": "weight_lbs"}).to_parquet(
            tmp_path / "p.parquet"
        )
    elif layout == "shuffled":
        plain.sample(frac=1, random_state=0)[sorted(COLUMNS)].to_parquet(tmp_path / "p.parquet")
    else:  # what Excel writes: a byte order mark, carriage returns, empty lines at the end
        text = plain.to_csv(index=False, lineterminator="\r\n")
        (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbf# units: weight=kg\r\n" + text.encode() + b"\r\n\r\n")
    found = next(p for p in sorted(tmp_path.iterdir()) if p.suffix or p.is_dir())
    again, refused, about = readers.read(found)
    assert refused.empty and about["set_aside"] == {}
    pd.testing.assert_frame_equal(again, rows, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patient_id": " "}, "patient_id is not text"),
        ({"patient_id": None}, "patient_id is missing"),
        ({"patient_id": 7.5}, "patient_id is not text"),
        ({"patient_id": "\ud800"}, "patient_id is not text"),
        ({"year": None}, "year is missing"),
        ({"year": 1999}, "year outside 2000 to 2030"),
        ({"year": 2020.5}, "year is not a whole number"),
        ({"year": 10**400}, "year is not a number"),
        ({"year": True}, "year is not a number"),
        ({"age": None, "birth_year": None}, "neither age nor birth_year is there"),
        ({"age": 53}, "age and birth_year disagree"),
        ({"age": "50"}, "age is not a number"),
        ({"age": None, "birth_year": 1890}, "age outside 0 to 120 as computed from birth_year"),
        ({"glucose": "high"}, "glucose is not a number"),
        ({"glucose": float("inf")}, "glucose is not a number"),
        ({"glucose": 5.4}, "glucose outside 50 to 500 mg/dL"),
        ({"glucose": [95]}, "glucose is not a number"),
        (
            {"bmi": None, "height": 110.0, "weight": 200.0},
            "bmi outside 10 to 60 as computed from height and weight",
        ),
        ({"diastolic_bp": 130.0}, "diastolic_bp is not below systolic_bp"),
        ({"num_visits": 2.5}, "num_visits is not a whole number"),
        ({"medications_count": -1}, "medications_count outside 0 to 60"),
        ({"lab_abnormal_flag": 2}, "lab_abnormal_flag is neither 0 nor 1"),
        ({"lab_abnormal_flag": "yes"}, "lab_abnormal_flag is not a number"),
        ({"gender": "male"}, "gender is not one of M, F"),
        ({"smoking_status": 1}, "smoking_status is not one of Never, Former, Current"),
        ({"primary_diagnosis": "sugar"}, "primary_diagnosis is not an ICD-10 code"),
        ({"additional_diagnoses": "I10;E11"}, "additional_diagnoses is not an ICD-10 code"),
        ({"noise_feature_3": float("-inf")}, "noise_feature_3 is not a number"),
        ({"target": 0.5}, "target is neither 0 nor 1"),
        ({"diagnosis_year": 2020}, "already diagnosed in that year"),
        ({"diagnosis_year": 2021}, "target and diagnosis_year disagree"),
        ({"target": 1, "diagnosis_year": 2023}, "target and diagnosis_year disagree"),
        (
            {"diagnosis_year": 2023, "diagnosis_year_low": 2024},
            "diagnosis_year is not between diagnosis_year_low and diagnosis_year_high",
        ),
    ],
    ids=lambda value: str(value)[:50].encode("ascii", "replace").decode() if isinstance(value, str) else None,
)
def test_each_trap_costs_one_row_and_says_why(changes, reason):
    table = pd.concat([line(**changes), line(patient_id="B")], ignore_index=True)
    kept, refused = normalise(table)
    assert kept["patient_id"].tolist() == ["B"] and kept.index.tolist() == [1]
    assert refused["reason"].tolist() == [reason] and refused["row"].tolist() == [0]


def test_the_value_is_shown_and_the_first_reason_counts():
    refused = normalise(line(glucose="high", gender="x"))[1]
    assert refused[["patient_id", "column", "value"]].values.tolist() == [["A", "glucose", "high"]]


def test_what_is_missing_stays_missing_and_what_follows_is_filled():
    kept, refused = normalise(
        line(bmi=None, age=None, glucose=None, gender=None, target=1, additional_diagnoses=None)
    )
    assert refused.empty
    row = kept.iloc[0]
    assert row["age"] == 50 and row["bmi"] == pytest.approx(70 / 1.7**2)
    assert kept[["glucose", "gender"]].isna().all(axis=None) and row["additional_diagnoses"] == ""
    assert row[["diagnosis_year", "diagnosis_year_low", "diagnosis_year_high"]].tolist() == [2021] * 3
    few = normalise(pd.DataFrame({"patient_id": ["A"], "year": [2020], "birth_year": [1970]}))[0]
    assert (
        tuple(few.columns) == COLUMNS and few.iloc[0, 3:4].isna().all() and len(schema().validate(few)) == 1
    )


def test_needed_columns_and_unknown_units_are_errors_of_the_table():
    with pytest.raises(ValueError, match=r"no column year and age \(or birth_year\)"):
        normalise(pd.DataFrame({"patient_id": ["A"]}))
    with pytest.raises(ValueError, match="gender, which has none"):
        normalise(line(), {"gender": "cm"})
    with pytest.raises(UnitError, match="different things"):
        normalise(line(), {"weight": "cm"})


def test_an_empty_table_is_an_empty_table():
    kept, refused = normalise(line().iloc[:0])
    assert kept.empty and refused.empty and tuple(kept.columns) == COLUMNS and kept["year"].dtype == "int64"


def test_rows_are_refused_alike_in_any_order_and_input_is_left_alone(rows):
    table = pd.concat(
        [rows.iloc[:50], rows.iloc[[3, 3]], rows.iloc[[5]].assign(glucose=99.5)], ignore_index=True
    )
    before = table.copy(deep=True)
    kept, refused = normalise(table)
    pd.testing.assert_frame_equal(table, before)
    assert sorted(refused["reason"]) == [
        *["another row of the same patient and year says otherwise"] * 2,
        *["the same row is there twice"] * 2,
    ]
    other = normalise(table.sample(frac=1, random_state=3).reset_index(drop=True))[0]
    sort = lambda frame: frame.sort_values(["patient_id", "year"], ignore_index=True)
    pd.testing.assert_frame_equal(sort(other), sort(kept))
    assert (repeated(kept) == "").all() and len(kept) == 49


def test_rows_of_one_year_in_two_files_are_found(rows, tmp_path):
    rows.iloc[:30].to_parquet(tmp_path / "a.parquet")
    rows.iloc[20:50].to_parquet(tmp_path / "b.parquet")
    (tmp_path / "units.json").write_text('{"weight": "kg"}')
    again, refused, about = readers.read(tmp_path)
    pd.testing.assert_frame_equal(again, rows.iloc[:50].reset_index(drop=True))
    assert about["refused"] == {"the same row is there twice": 10} and about["rows"] == 60
    assert refused["file"].unique().tolist() == ["b.parquet"]


def csv_of(folder, text, name="x.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


HEAD = "patient_id,year,age"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# units: glucose=mg/dL\n", "is empty"),
        (f"{HEAD}\n", "no readable row after its first line"),
        ("patient_id,year\nA,2020\n", "no column age"),
        (f"{HEAD.replace(',', ';')}\nA;2020;50\n", "semicolons"),
        (f"{HEAD},age\nA,2020,50,50\n", "more than once"),
        (f"{HEAD},glucose,glucose_mmol_l\nA,2020,50,95,5\n", "glucose more than once"),
        (f"{HEAD}\nA,2020,50\n".encode("utf-16"), "not readable"),
        (
            f"# units: glucose=mg/dL\n{HEAD},glucose_mmol_l\nA,2020,50,5\n",
            "the name of the column says mmol/L",
        ),
        (f"# units: glucose=mg/dL\n{HEAD},glucose\nA,2020,50,5\nB,2020,50,6\n", "in the range of mmol/L"),
        (f"{HEAD},glucose\nA,2020,50,25\n", "say which"),
        (f"{HEAD},weight\nA,2020,50,80\n", "say which"),
        (f"# units: weight=cm\n{HEAD},weight\nA,2020,50,80\n", "different things"),
        (f"{HEAD},weight (blocks)\nA,2020,50,80\n", "not a unit"),
        (
            f"# units: weight=kg\n{HEAD},height,weight,bmi\n"
            + "".join(f"P{i},2020,50,170,{150 + i},{(150 + i) * 0.4536 / 2.89:.1f}\n" for i in range(9)),
            "factor of 2.20",
        ),
        (
            f"{HEAD},glucose\n"
            + "".join(f"P{i},2020,50,{95 + i if i % 2 else round(5 + i / 20, 1)}\n" for i in range(20)),
            "mixes units",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_costs_only_itself(text, message, tmp_path):
    path = csv_of(tmp_path, text)
    with pytest.raises(readers.FileError, match=message):
        readers.read_file(path)
    csv_of(tmp_path, f"{HEAD}\nZ,2020,50\n", "y.csv")
    rows, _, about = readers.read(tmp_path)
    assert rows["patient_id"].tolist() == ["Z"] and list(about["set_aside"]) == ["x.csv"]


def test_broken_lines_cost_themselves_and_keep_their_place(tmp_path):
    text = f'{HEAD},additional_diagnoses\n001,2020,50,"I10,E11"\nA,2020\nB,2020,50,"I10\nC,2020,5O,\nD,2020,50,,,\nE,2020,N/A,\n002,2020,60,\n'
    for path in (csv_of(tmp_path, text), csv_of(tmp_path, gzip.compress(text.encode()), "x.csv.gz")):
        kept, refused, about = readers.read_file(path)
        assert kept["patient_id"].tolist() == ["001", "002"] and kept.index.tolist() == [0, 6]
        assert kept["additional_diagnoses"].tolist() == ["I10,E11", ""]
        assert refused["row"].tolist() == [1, 2, 3, 4, 5] and about["rows"] == 7
        assert refused["value"].tolist()[2] == "5O"


def test_folders_that_contradict_their_rows_cost_those_rows(tmp_path):
    place = tmp_path / "year=2019" / "site=north"
    place.mkdir(parents=True)
    csv_of(place, f"{HEAD},bmi_category\nA,2019,50,x\nB,2020,50,x\n")
    kept, refused, about = readers.read_file(readers.files(tmp_path)[0], tmp_path)
    assert kept["patient_id"].tolist() == ["A"] and refused["reason"].tolist() == [
        "the folder's name says otherwise"
    ]
    assert about["ignored"] == ["bmi_category", "site"]
    named = readers.read(
        tmp_path / "year=2019"
    )  # the folder that was named, and what is above it, are no columns
    assert named[0]["year"].tolist() == [2019, 2020] and named[2]["ignored"] == ["bmi_category", "site"]


def test_files_finds_data_and_nothing_else(cohort, tmp_path):
    assert [p.parent.name for p in readers.files(cohort / "us")] == [
        "patient_years"
    ]  # not the oracle's answers
    shutil.copytree(cohort / "us" / "patient_years", tmp_path / "p")
    (tmp_path / "p" / "_metadata.parquet").write_bytes(b"x")
    (tmp_path / "p" / ".part.parquet").write_bytes(b"x")
    assert len(readers.files(tmp_path / "p")) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \.parquet"):
        readers.files(tmp_path / "empty")


def test_a_truncated_file_is_set_aside_at_any_length(cohort, tmp_path):
    whole = readers.files(cohort / "us")[0].read_bytes()
    for share in (0, 0.01, 0.5, 0.99):
        (tmp_path / "x.parquet").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(readers.FileError, match="not readable"):
            readers.read_file(tmp_path / "x.parquet")


cell = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=1),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), cell, max_size=6), min_size=1, max_size=4))
def test_no_cell_breaks_the_rules_or_passes_them_wrongly(changes):
    table = pd.concat(
        [
            line(patient_id=f"P{i}", **{k: v for k, v in c.items() if k != "patient_id"})
            for i, c in enumerate(changes)
        ]
    )
    kept, refused = normalise(table.reset_index(drop=True))
    assert len(kept) + len(refused) == len(changes) and not set(kept.index) & set(refused["row"])
    for column, (low, high) in BOUNDS.items():
        assert kept[column].dropna().between(low, high).all()
    assert np.isfinite(kept[list(NUMBERS)].astype(float).fillna(0)).all(axis=None)


@pytest.mark.parametrize("quantity", [q for q in UNITS if q != "age"])
def test_a_column_there_and_back_is_the_same_column(quantity):
    from medlab.shape.quantities import PLAUSIBLE

    usual, low, high, others = PLAUSIBLE[quantity]
    values = np.linspace(low, high, 50)
    for unit in others:
        there = convert(values, usual, unit, quantity)
        np.testing.assert_allclose(convert(there, unit, usual, quantity), values, rtol=1e-12)
        assert plausible(there, unit, quantity) == unit
    assert plausible(values, usual, quantity) == usual


def test_a_hundred_thousand_rows_are_held_to_the_rules_of_one(rows):
    many = pd.concat([rows] * (100_000 // len(rows)), ignore_index=True)
    many["patient_id"] = many["patient_id"] + (np.arange(len(many)) // len(rows)).astype(str)
    kept, refused = normalise(many)
    assert len(kept) == len(many) and refused.empty
    few = normalise(rows)[0].drop(columns="patient_id")
    for start in (0, len(many) - len(rows)):
        part = kept.iloc[start : start + len(rows)].drop(columns="patient_id").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, few.reset_index(drop=True))


def test_importing_the_rules_loads_no_library_of_units_or_schemas():
    assert loaded(["medlab.studies.risk.readers"], ("pint", "pandera", "dask", "mlflow", "sklearn")) == []
