"Cohorts of a few hundred patients are answered, with wide intervals; those of a few dozen are refused in plain words."

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_risk_model import built

from medlab.core.seeds import stream
from medlab.judge import audit, metrics, predictions, residuals
from medlab.judge.audit_course import time_structure
from medlab.judge.audit_signs import sweep_reached
from medlab.judge.evidence import Evidence
from medlab.learn import boosting, trees_onnx
from medlab.learn.enough import NEEDED, check_enough
from medlab.learn.imbalance import damage
from medlab.learn.recalibration import Recalibration
from medlab.learn.search import check_reached
from medlab.studies.risk import acting, cohorts, evidence, forecast, lens, moments, uncertainty
from medlab.studies.risk.forecast import Settings, impatient, space_of
from medlab.studies.risk.model import load
from medlab.studies.risk.prepare import RATE, prepare
from medlab.studies.risk.prepare import load as load_rows
from medlab.studies.risk.simulate import simulate
from medlab.studies.risk.study import study

pytestmark = pytest.mark.filterwarnings("ignore:Ignoring params argument")
ONE = Settings(algorithms=("logistic",), trials=1, pruner="none", threads=1, max_features=12)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "Two hundred patients through prepare and train, one algorithm, one trial: the data, the artifacts, the rows."
    folder = tmp_path_factory.mktemp("small")
    simulate(folder / "data", patients=200, seed=7, patients_per_part=1000)
    prepare(folder / "data", folder / "artifacts" / "prepared")
    built(folder / "data", folder / "artifacts", ONE)
    return folder / "data", folder / "artifacts", load_rows(folder / "artifacts" / "prepared")


def split_of(rows):
    return {split: rows[rows["split"] == split] for split in NEEDED}


def test_an_honest_cohort_of_two_hundred_passes_the_audit_with_the_algorithm_and_the_one_trial_asked_for(
    small, monkeypatch
):
    data, artifacts, _ = small
    grown = []
    fit = boosting.fit
    monkeypatch.setattr(
        boosting, "fit", lambda kind, *rest, **more: grown.append(kind) or fit(kind, *rest, **more)
    )
    gathered = evidence.gather(data, artifacts, moments=60, examples=300)
    assert set(grown) == {"logistic"}, "the twin fits what the user asked for"
    table = predictions.read(artifacts / "predictions.parquet", study)
    findings = {f.check: f for f in audit.run(table, study, gathered)}
    audit.stop_on_errors(list(findings.values()))
    assert findings["sweep_reached"].verdict == "not applicable"
    assert "trials=1" in findings["sweep_reached"].evidence
    assert findings["split_power"].severity == "warning" and findings["time_structure"].verdict == "pass"


def test_its_report_says_unclear_and_nothing_breaks(small):
    data, artifacts, rows = small
    table = predictions.read(artifacts / "predictions.parquet", study)
    assert "observed_expected" in set(metrics.table(table, study, n_resamples=50)["metric"])
    tests = residuals.run(table, study, n_resamples=50)
    assert set(tests["verdict"]) <= {"ok", "unclear", "not assessable", "concern"}
    own = tests[~tests["assumes_independence"].astype(bool)]
    assert (own["verdict"] == "unclear").sum() > (own["verdict"] == "concern").sum()
    truth = pd.read_parquet(data / "oracle", columns=["patient_id", "true_diagnosis_year"])
    scorer = load(artifacts / "model")
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    found = lens.measure(
        table, study, prepared=test, oracle=truth, n_resamples=50,
        score=lambda features: scorer.score(features)["probability"].to_numpy(),
    )  # fmt: skip
    said = [cohorts.section(found.cohorts, found.gaps, study), acting.section(found.acting, study)]
    said += [uncertainty.section(found.doubt, study)]
    text = " ".join(" ".join(one.text) for one in said if one is not None)
    assert "nan" not in text and "By confident learning not shown" not in text
    assert "equally well" not in text, "five diagnoses among known patients are not compared"


def test_too_few_are_refused_in_plain_words_that_name_what_is_needed(small):
    parts = split_of(small[2])
    assert "100 are wanted" in check_enough(parts)
    for split, least in NEEDED.items():
        of = parts[split]
        ill = of.loc[of["y"] == 1, "subject"].unique()
        for some in (of[~of["subject"].isin(ill[least - 1 :])], of[of["subject"].isin(ill)].assign(y=1.0)):
            with pytest.raises(
                ValueError, match=f"too few rows and events.*{split} has .* needs {least}.*prepare"
            ):
                check_enough(parts | {split: some})
    enough = [f"P{k}" for k in range(100)]
    many = pd.DataFrame({"subject": enough + [f"Q{k}" for k in range(100)], "y": [1.0] * 100 + [0.0] * 100})
    assert check_enough(dict.fromkeys(NEEDED, many)) == ""


def test_trees_that_cannot_be_parted_further_are_no_setting_that_was_lost():
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(100, 4)), columns=list("abcd"))
    y = (np.arange(100) % 7 == 0).astype(float)
    asked = {"rounds": 64, "min_data_in_leaf": 60}
    model = boosting.fit("lightgbm", asked, x, y)
    assert model.parameters["rounds"] == 64 and model.parameters["trees"] == 1
    assert np.ptp(boosting.predict(model, x)) == 0
    rows = [asked, {"rounds": 71, "min_data_in_leaf": 55}]
    used = [boosting.fit("lightgbm", row, x, y).parameters for row in rows]
    trials = pd.DataFrame(
        [
            {f"requested_{k}": v for k, v in row.items()} | {f"resolved_{k}": u[k] for k in row}
            for row, u in zip(rows, used, strict=True)
        ]
    )
    assert check_reached(trials) == []
    late = boosting.fit(
        "lightgbm", {"rounds": 40, "patience": 3, "min_data_in_leaf": 5}, x, y, validation=(x, 1 - y)
    )
    assert late.parameters["rounds"] < 40 and "trees" not in late.parameters, (
        "patience keeps fewer, and says so"
    )


def test_a_model_that_says_the_same_to_everybody_can_be_exported_and_served(tmp_path):
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(60, 3)), columns=list("abc"))
    y = (np.arange(60) % 7 == 0).astype(float)
    members = {
        "lightgbm": boosting.fit("lightgbm", {"min_data_in_leaf": 59}, x, y),
        "xgboost": boosting.fit("xgboost", {"min_child_weight": 1000}, x, y),
    }
    mended = Recalibration(0.0, 1.0, (), 0.9, 60, 9)
    weights = dict.fromkeys(members, 0.5)
    trees_onnx.export(members, weights, mended, tmp_path / "model.onnx", tuple(x))
    assert trees_onnx.parity(tmp_path / "model.onnx", members, weights, mended, x) < 1e-6
    for kind, model in members.items():
        boosting.save(model, tmp_path)
        assert np.array_equal(boosting.predict(boosting.load(kind, tmp_path), x), boosting.predict(model, x))


@pytest.mark.parametrize("kind", boosting.KINDS)
def test_the_twin_uses_what_was_asked_for_and_spaces_fit_the_rows(kind, small):
    assert impatient(Settings(algorithms=(kind,))).algorithms == (kind,)
    asked = Settings(selection="none", max_features=7, seed=3)
    assert impatient(asked) == replace(
        asked, algorithms=("lightgbm", "logistic"), trials=2, pruner="none", threads=1
    )
    y = split_of(small[2])["train"]["y"].to_numpy()
    assert space_of(kind, np.tile([0.0, 1.0], 20_000)) == forecast.SPACES[kind]
    for name, (_, low, high) in space_of(kind, y).items():
        assert forecast.SPACES[kind][name][1] == low <= high <= forecast.SPACES[kind][name][2]
    table = split_of(small[2])["train"]
    names = [c for c in table if c.startswith("x_") and "noise" not in c][:20]
    for name in set(space_of(kind, y)) & {
        "min_data_in_leaf",
        "min_child_weight",
    }:  # even the largest leaf can be had
        model = boosting.fit(kind, {"rounds": 20, name: space_of(kind, y)[name][2]}, table[names], y)
        assert np.ptp(boosting.predict(model, table[names])) > 0.01


def test_an_exchange_that_leaves_calibration_patients_one_outcome_is_still_judged(small):
    rows = small[2]
    ill = rows.loc[(rows["y"] == 1) & (rows["split"] == "calibration"), "subject"].unique()
    healthy = rows[~((rows["split"] == "calibration") & rows["subject"].isin(ill))]
    few = healthy[(healthy["split"] != "calibration") | healthy["subject"].isin(healthy.loc[healthy["split"] == "calibration", "subject"].unique()[:2])]  # fmt: skip
    traded = forecast.exchanged(few, impatient(ONE), n_permutations=2)
    assert traded["permutation"].nunique() == 2 and np.isfinite(traded["yhat"]).all()


def test_forty_patients_are_enough_for_the_replays(small):
    data, _, rows = small
    few = rows[rows["subject"].isin(rows["subject"].unique()[:40])].reset_index(drop=True)
    for stored, again in moments.replays(data, few, 20.0, n=40):
        names = [c for c in stored if c != RATE]  # a rate needs all training rows
        assert len(stored) >= 40 and stored[names].equals(again[names])


def test_damage_says_what_it_lacks_and_leaves_smote_out_where_it_has_no_neighbours():
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(90, 3)), columns=list("abc"))
    y = np.zeros(90)
    y[:5] = 1
    none, some = (x, np.zeros(90)), (x, np.arange(90) % 2.0)
    with pytest.raises(ValueError, match="calibration rows have one outcome"):
        damage((x, y), none, some, "logistic")
    assert set(damage((x, y), some, some, "logistic")["method"]) == {"none", "class weights"}


def yearly(person: float, patients=300, years=8, seed=0, course=0.0, flag=True) -> Evidence:
    "Rows of patients: a value that is `person` parts themselves, `course` carried over, and the rest drawn anew."
    rng = stream(seed, "yearly")
    noise = rng.normal(size=(patients, years, 3))
    for k in range(1, years):
        noise[:, k] = course * noise[:, k - 1] + np.sqrt(1 - course**2) * noise[:, k]
    values = person * rng.normal(size=(patients, 1, 3)) + noise
    who, year = np.divmod(np.arange(patients * years), years)
    table = pd.DataFrame(values.reshape(-1, 3), columns=["x_pressure", "x_glucose", "x_weight"])
    table = table.assign(subject=who.astype(str), split="train", time=year, row=np.arange(len(who)))
    if flag:  # so rare that its shuffles go anywhere
        table["x_rare"] = (rng.random(len(who)) < 0.002).astype(float)
    return Evidence(examples=table)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (dict(person=0.0), ("fail", "error")),  # strangers, or numbers from a generator
        (dict(person=1.0), ("fail", "warning")),  # of one person, without a course
        (dict(person=1.0, course=0.5), ("pass", "error")),
        (dict(person=0.0, course=0.5), ("pass", "error")),
        (dict(person=1.0, course=0.4, patients=60, years=6), ("pass", "error")),
    ],
)
def test_yearly_noise_of_one_person_is_a_warning_and_strangers_are_an_error(case, expected):
    for seed in range(3):
        found = time_structure(yearly(**case, seed=seed))
        assert (found.verdict, found.severity) == expected, found.evidence
    with_sex = yearly(person=0.0)
    with_sex.examples["x_male"] = with_sex.examples["subject"].astype(int) % 2
    found = time_structure(with_sex)
    assert (found.verdict, found.severity) == ("fail", "warning") and "x_male" in found.evidence


def test_a_row_of_each_patient_claims_no_course_and_a_window_of_strangers_gets_no_pardon(small):
    walks = np.random.default_rng(0).normal(size=(60, 24, 2)) + np.arange(60)[:, None, None]
    found = time_structure(Evidence(examples=yearly(1.0).examples, inputs=walks, features=("a", "b")))
    assert (found.verdict, found.severity) == ("fail", "error"), "the model reads these steps in order"


def test_one_trial_alone_is_malformed_unless_the_study_says_so():
    one = pd.DataFrame({"requested_C": [0.1], "resolved_C": [0.1], "value": [0.2]})
    assert sweep_reached(Evidence(trials=one)).verdict == "not assessable"


def test_the_train_stage_leaves_no_predictions_behind_when_it_fails():
    notebook = json.loads((Path(__file__).parents[1] / "nbs/stages/risk/train.ipynb").read_text())
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    at = {word: [k for k, cell in enumerate(code) if word in cell] for word in ("unlink(", "check_enough(part)", "predictions.write(", "exchanged(rows")}  # fmt: skip
    assert at["unlink("] == at["check_enough(part)"] and at["predictions.write("] > at["exchanged(rows"]
    assert at["predictions.write("] == [len(code) - 1]
