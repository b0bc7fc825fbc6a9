"Looking at single patients: the notebook as it stands, driven without a browser."

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from medlab.judge import predictions
from medlab.studies.glucose.study import study
from medlab.tell import example
from medlab.tell.browse import browse
from medlab.tell.looking import View, look, material

NOTEBOOK = ROOT / "nbs" / "explore" / "glucose.ipynb"


def small(patients=4):
    "Two days of invented forecasts in the form of the glucose study: one for calibration, one to look at."
    rng, parts = np.random.default_rng(0), []
    start = pd.Timestamp("2024-03-01")
    for k in range(patients):
        minute = np.arange(0, 2 * 1440, 15)
        level = lambda at, k=k: np.round(110 + 40 * np.sin(at / 90 + k) + 15 * np.sin(at / 31))
        for horizon in study.horizons:
            y = np.clip(level(minute + horizon), 40, 400)
            said = {"lstm": y + rng.normal(0, 5 + 6 * k, len(minute)), "persistence": level(minute)}
            for model, yhat in said.items():
                parts.append(
                    pd.DataFrame(
                        {
                            "model": model, "split": np.where(minute < 1440, "calibration", "test"), "subject": f"SECRET-{k}",
                            "time": start + pd.to_timedelta(minute, "min"), "target": "glucose", "horizon": horizon, "y": y,
                            "yhat": np.clip(yhat, 40, 400), "lo": np.clip(yhat, 40, 400) - 20, "hi": np.clip(yhat, 40, 400) + 20,
                        }
                    )
                )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def inputs(subject, start, end):
    "Bolus insulin of one patient: as many units as the patient's number, every three hours."
    time = pd.date_range("2024-02-28", "2024-03-05", freq="5min")
    dose = np.where(np.arange(len(time)) % 36 == 0, float(subject[-1]) + 1, 0.0)
    return pd.DataFrame({"bolus insulin, U": dose}, time).loc[start:end]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    table = small()
    predictions.write(folder / "predictions.parquet", table, study, 0.9)
    (folder / "prepared").mkdir()
    time = pd.date_range("2024-03-01", periods=600, freq="5min")
    series = [
        pd.DataFrame({"subject": s, "time": time, "bg": 100.0 + k, "bolus_dose": 0.0, "basal_rate": 0.8, "bg_missing_flag": 0.0})
        for k, s in enumerate(sorted(table["subject"].unique()))
    ]  # fmt: skip
    pd.concat(series).to_parquet(folder / "prepared" / "series.parquet")
    return folder


@pytest.fixture
def shown():
    stuff = material(small(), study, {f"SECRET-{k}": f"P{k + 1:02}" for k in range(4)})
    return browse(stuff, inputs, {"low": 70}, threshold=(70.0, 54.0, 120.0), event=70.0)


def lines(shown, panel=0):
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in shown.figure.axes[panel].lines}


def test_the_notebook_runs_from_top_to_bottom_without_a_browser(files, tmp_path):
    papermill = pytest.importorskip("papermill")
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        str(NOTEBOOK),
        str(out),
        {"artifacts": str(files)},
        cwd=str(ROOT),
        kernel_name="python3",
        progress_bar=False,
    )
    text = out.read_text()
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    assert all(o.get("output_type") != "error" for c in cells for o in c["outputs"])
    assert "SECRET" not in json.dumps([c["outputs"] for c in cells])
    assert out.stat().st_size < 1_000_000


@pytest.mark.parametrize("study_name", ["glucose", "risk"])
def test_the_notebook_in_the_repository_holds_no_data(study_name):
    cells = json.loads(NOTEBOOK.with_stem(study_name).read_text())
    assert not any(c.get("outputs") for c in cells["cells"]) and "widgets" not in cells["metadata"]
    assert any("skip_exec: true" in "".join(c["source"]) for c in cells["cells"])


def test_without_the_pipelines_files_it_says_what_to_run(tmp_path):
    from medlab.studies.glucose.explore import load

    with pytest.raises(FileNotFoundError, match="make reports") as why:
        load(tmp_path / "artifacts" / "mine")
    assert "artifacts/mine: no predictions.parquet and no prepared/series.parquet" in str(why.value)
    assert str(tmp_path) not in str(why.value)


def test_the_list_is_sorted_worst_first_and_shows_no_id(shown):
    labels = [label for label, _ in shown.controls["subject"].options]
    assert [label[:3] for label in labels] == ["P04", "P03", "P02", "P01"]
    assert "SECRET" not in shown.words.value + str(labels)


def test_another_patient_is_another_patients_curve_and_inputs(shown):
    shown.controls["subject"].value = "SECRET-1"
    rows = shown.stuff.rows["lstm", "SECRET-1"]
    at = rows["hours"] + rows["ahead"]
    truth = (
        rows[at.between(shown.seen.start, shown.seen.end)]
        .assign(at=at)
        .drop_duplicates("at")
        .sort_values("at")["y"]
    )
    drawn = lines(shown)["measured"]
    assert np.array_equal(drawn[~np.isnan(drawn)], truth)
    tallest = max(s[:, 1].max() for s in shown.figure.axes[2].collections[0].get_segments())
    assert tallest == 2.0  # this patient's bolus


def test_time_moves_the_fan(shown):
    shown.controls["moment"].value = 40
    hours = np.sort(shown.stuff.rows["lstm", shown.seen.view.subject]["hours"].unique())[40]
    rows = shown.stuff.rows["lstm", shown.seen.view.subject]
    assert np.array_equal(lines(shown)["forecast made now"], rows[rows["hours"] == hours]["yhat"])
    before = lines(shown)["forecast made now"]
    shown.controls["moment"].value = 41
    assert not np.array_equal(before, lines(shown)["forecast made now"])


def test_the_settings_have_their_effect(shown):
    count = lambda name: shown.seen.numbers.loc[name, "all"]
    shown.controls["threshold"].value = 60
    few = count("alarms")
    shown.controls["threshold"].value = 110
    assert count("alarms") > few and (lines(shown)["alarm below"] == 110).all()
    loud = shown.seen.said["yhat"] < 110
    assert len(lines(shown)["alarm"]) == loud.sum()
    near = count("close")
    shown.controls["tolerance"].value = 40
    assert count("close") > near
    shown.controls["level"].value = 0.5
    narrow = count("width")
    shown.controls["level"].value = 0.8
    assert count("width") > narrow
    shown.controls["horizon"].value = 15.0
    assert (shown.seen.said["horizon"] == 15).all()
    shown.controls["model"].value = "persistence"
    assert shown.seen.fan["yhat"].nunique() == 1


def test_the_buttons_lead_to_the_worst_patients_at_their_worst_moment(shown):
    shown.controls["worst"][2].click()
    assert shown.seen.view.subject == shown.controls["subject"].value == shown.stuff.worst[2]
    rows = shown.stuff.rows["lstm", shown.seen.view.subject]
    error = (rows["yhat"] - rows["y"])[rows["horizon"] == 60].abs().max()
    assert np.isclose(shown.seen.fan.query("horizon == 60")["error"].abs().iloc[0], error)
    assert bytes(shown.image.value).startswith(b"\x89PNG")


def test_a_range_of_another_level_holds_about_that_share():
    table = example.predictions(patients=24, days=6)
    start = table["time"].min() + pd.Timedelta("3D")
    table["split"] = np.where(table["time"] < start, "calibration", "test")
    stuff = material(table, example.STUDY)
    for level in (0.5, 0.8):
        inside = look(stuff, View(stuff.worst[0], level=level)).numbers.loc["inside", "all"]
        assert abs(inside - level) < 0.08


def test_names_and_worst_patients_are_those_of_the_report():
    import re

    from medlab.tell import worst
    from medlab.tell.privacy import report_names

    table = example.predictions(patients=24, days=3)
    names = report_names(table, example.STUDY)
    stuff = material(table, example.STUDY, names)
    told = worst.section(example.STUDY, table[table["split"] == "test"], None, names)
    listed = re.findall(r'id="worst-(p\d+)"', str(told.tables[0]))
    assert listed == [names[subject].lower() for subject in stuff.worst]


def test_controls_keep_their_width_and_numbers_have_units(shown):
    fixed = [c for name, c in shown.controls.items() if name not in ("worst", "largest")]
    assert all(c.layout.flex == "0 0 auto" for c in fixed)
    assert "typical error, mg/dL" in shown.words.value
    assert "inside the range, %" in shown.words.value


def test_one_patient_one_moment_and_nobody():
    table = small(patients=1)
    alone = browse(material(table, study))
    assert alone.seen.numbers.loc["error", "this patient"] == alone.seen.numbers.loc["error", "all"]
    one = table[(table["time"] == table["time"].max())]
    only = browse(material(one, study), inputs)
    assert only.controls["moment"].max == 0 and len(only.seen.fan) == 12
    with pytest.raises(ValueError, match="no forecasts"):
        material(table[table["split"] == "nowhere"], study)


def test_seconds_and_a_method_that_says_nothing_about_somebody():
    table = small(patients=2)
    table["time"] = (table["time"] - table["time"].min()).dt.total_seconds()
    table = table[~((table["model"] == "persistence") & (table["subject"] == "SECRET-0"))]
    shown = browse(material(table, study))
    assert np.isclose(np.diff(np.sort(shown.stuff.rows["lstm", "SECRET-0"]["hours"].unique())), 0.25).all()
    shown.controls["model"].value = "persistence"
    shown.controls["subject"].value = "SECRET-0"
    assert "no forecasts" in shown.words.value


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    "Eighty invented patients, predictions that are the oracle's with an error, and no bundle."
    from scipy.special import expit, logit

    from medlab.studies.risk import simulate
    from medlab.studies.risk.study import study as risk

    folder = tmp_path_factory.mktemp("risk")
    simulate.simulate(folder / "data", 80)
    raw = pd.read_parquet(folder / "data" / "patient_years")
    truth = pd.read_parquet(folder / "data" / "oracle")
    known = raw["target"].notna().to_numpy()
    raw, truth = raw[known], truth[known]
    error = np.random.default_rng(0).normal(0, 0.3, len(raw))
    said = {
        "ensemble": expit(logit(truth["probability"]) + error),
        "oracle": truth["probability"],
        "prevalence": 0.07,
    }
    shared = {
        "split": "test", "subject": raw["patient_id"], "time": pd.to_datetime(raw["year"].astype(str) + "-12-31"), "target": "diagnosis",
        "horizon": 1.0, "y": raw["target"].astype(float), "lo": np.nan, "hi": np.nan,
    }  # fmt: skip
    table = pd.concat([pd.DataFrame(shared | {"model": name, "yhat": p}) for name, p in said.items()])
    (folder / "artifacts").mkdir()
    predictions.write(folder / "artifacts" / "predictions.parquet", table, risk, 0.9)
    return folder


class Pressure:
    "A bundle that thinks of nothing but this year's systolic pressure, and of 200 mmHg where there is none."

    def features(self, rows):
        return rows[["systolic_bp"]]

    def score(self, x):
        return pd.DataFrame({"probability": x["systolic_bp"].fillna(200.0) / 400})


@pytest.fixture
def patients(cohort):
    from dataclasses import replace

    from medlab.studies.risk.explore import load

    return replace(load(cohort / "artifacts", cohort / "data"), scorer=Pressure())


def test_risk_the_notebook_runs_from_top_to_bottom_without_a_browser_and_a_bundle(cohort, tmp_path):
    papermill = pytest.importorskip("papermill")
    out = tmp_path / "out.ipynb"
    where = {"artifacts": str(cohort / "artifacts"), "data": str(cohort / "data")}
    notebook = NOTEBOOK.with_stem("risk")
    papermill.execute_notebook(
        str(notebook), str(out), where, cwd=str(ROOT), kernel_name="python3", progress_bar=False
    )
    cells = [c for c in json.loads(out.read_text())["cells"] if c["cell_type"] == "code"]
    assert all(o.get("output_type") != "error" for c in cells for o in c["outputs"])
    told = json.dumps([c["outputs"] for c in cells])
    assert "the law says" in told and "P0000" not in told


def test_risk_without_the_pipelines_files_it_says_what_to_run(cohort, tmp_path):
    from medlab.studies.risk.explore import load

    with pytest.raises(
        FileNotFoundError, match="no artifacts/mine/predictions.parquet and no data/mine. Run `make reports`"
    ):
        load(tmp_path / "artifacts" / "mine", tmp_path / "data" / "mine")
    from medlab.studies.risk import simulate

    simulate.simulate(tmp_path / "others", 30, seed=9)
    stranger = pd.read_parquet(tmp_path / "others" / "patient_years" / "part-00000.parquet")
    stranger["patient_id"] = "X" + stranger["patient_id"]
    stranger.to_csv(tmp_path / "others.csv", index=False)
    with pytest.raises(ValueError, match="not in these data"):
        load(cohort / "artifacts", tmp_path / "others.csv")


def test_risk_only_what_was_known_at_the_time_is_shown(patients):
    from medlab.studies.risk.explore import View, look

    subject = patients.said.groupby("subject").size().idxmax()
    for year in patients.said.loc[subject].index:
        seen = look(patients, View(subject, int(year), window=2))
        assert seen.known.index.max() == year == seen.risks.index.max() == seen.features.index.max()
        values = seen.known["glucose"].reindex([year - 1, year])
        assert np.isclose(seen.features.loc[year, "mean_2y"], values.mean(), equal_nan=True)
    with pytest.raises(KeyError, match="said nothing about"):
        look(patients, View(subject, 1999))


def test_risk_the_settings_have_their_effect(patients):
    from medlab.studies.risk.explore import COPIES, browse

    shown = browse(patients)
    control = shown.controls
    options = [label for label, _ in control["subject"].options]
    gaps = [float(label.split(": ")[1].split()[0]) for label in options]
    assert gaps == sorted(gaps, reverse=True) and not any("P00" in label for label in options)
    subject = patients.said.groupby("subject").size().idxmax()
    control["subject"].value = subject
    said = patients.said.loc[subject]
    assert control["year"].value == (said["yhat"] - said["oracle"]).abs().idxmax()
    drawn = {line.get_label(): line for line in shown.figure.axes[0].lines}
    assert np.allclose(drawn["the law"].get_ydata(), 100 * shown.seen.risks["oracle"])
    control["year"].value = int(said.index.max())
    assert len(shown.figure.axes[0].lines[0].get_xdata()) == len(said)
    before = shown.seen.features["value"]
    control["variable"].value = "systolic_bp"
    assert not before.equals(shown.seen.features["value"]) and "systolic bp, mmHg" in shown.figure.axes[
        1
    ].get_title("left")
    control["window"].value = 1
    assert "mean_1y" in shown.seen.features and shown.seen.features["trend_1y"].isna().all()
    asked = shown.seen.asked
    assert np.allclose(asked, shown.seen.known["systolic_bp"].fillna(200).iloc[-1] / 400)
    control["missing"].value = "resource_limited"
    lost = shown.seen.asked == 0.5  # copies whose pressure is gone
    assert len(lost) == COPIES and 0 < lost.mean() < 0.3 and set(shown.seen.asked) == {0.5, *asked}
    assert "resource limited" in shown.words.value and bytes(shown.image.value).startswith(b"\x89PNG")


def test_risk_real_patients_have_no_law_and_perhaps_no_bundle(cohort):
    from medlab.judge.predictions import read
    from medlab.studies.risk.explore import browse, load, material
    from medlab.studies.risk.study import study as risk

    table = read(cohort / "artifacts" / "predictions.parquet", risk)
    rows = load(cohort / "artifacts", cohort / "data").rows
    shown = browse(material(table[table["model"] != "oracle"], rows))
    assert "the law" not in shown.words.value and shown.controls["missing"].disabled
    assert "the law" not in [line.get_label() for line in shown.figure.axes[0].lines]
    with pytest.raises(ValueError, match="new patients"):
        material(table[table["split"] == "nowhere"], rows)
