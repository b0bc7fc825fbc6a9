"The risk model: one scorer for judging and serving, features that can't look ahead, a pipeline that finds nothing in nothing."

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from medlab.core.files import read_json, rounded
from medlab.core.seeds import stream
from medlab.judge import audit, predictions
from medlab.judge.audit_probes import association
from medlab.judge.evidence import Evidence
from medlab.learn import boosting, recalibration, sets, thresholds
from medlab.studies.risk import evidence, forecast, moments, readers
from medlab.studies.risk.forecast import TWIN, Settings
from medlab.studies.risk.model import learned_from, load, recorded, together, unusual, write
from medlab.studies.risk.prepare import RATE, features, prepare
from medlab.studies.risk.prepare import load as load_rows
from medlab.studies.risk.simulate import simulate
from medlab.studies.risk.study import study

SETTINGS = Settings(**TWIN | {"max_features": 12, "selection": "importance"})
pytestmark = pytest.mark.filterwarnings("ignore:Ignoring params argument")


def built(data, artifacts, settings=SETTINGS):
    "What the train stage does, without its figures."
    rows = load_rows(artifacts / "prepared")
    rows, rates = forecast.encoded(rows, 20.0)
    part = {split: rows[rows["split"] == split] for split in ("train", "calibration", "test", "next_year")}
    train, others = part["train"], part["calibration"]
    names, _ = forecast.choose(train, settings)
    found = forecast.find(train, names, settings, artifacts / "search")
    members = forecast.refit(train, names, found, settings)
    weights = {kind: 1 / len(members) for kind in members}
    y, who = others["y"].to_numpy(), others["subject"].to_numpy()
    pooled = together({kind: boosting.predict(m, others) for kind, m in members.items()}, weights)
    mended = recalibration.fit(pooled, y, who, 0.9)
    risk = mended.apply(pooled)
    limits, threshold = sets.fit(risk, y, who), thresholds.choose("net_benefit", y, risk, n_resamples=20)
    simply, simple = forecast.baselines(train, part)
    fitted = recorded(train, names, members, rates, simple, (pooled, risk, y), mended, limits)
    write(
        artifacts / "model", members, weights, names, rates, mended, limits, {"net_benefit": threshold}, "net_benefit",
        learned_from(train, names), forecast.all_trials(found), fitted, {"study": "risk", "parameters": vars(settings)},
    )  # fmt: skip
    scorer, tables = load(artifacts / "model"), []
    for split in ("calibration", "test", "next_year"):
        answer = scorer.score(part[split])
        said = {
            "ensemble": answer["probability"],
            **{kind: answer[kind] for kind in members},
            **simply[split],
        }
        tables.append(
            forecast.long_rows(part[split], said | {"oracle": forecast.oracle(part[split], data)}, split)
        )
    predictions.write(artifacts / "predictions.parquet", pd.concat(tables, ignore_index=True), study, 0.9)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    "A small cohort through simulate, prepare and train: its folder, and that of the artifacts."
    folder = tmp_path_factory.mktemp("risk")
    simulate(folder / "data", patients=700, patients_per_part=1000)
    prepare(folder / "data", folder / "artifacts" / "prepared")
    built(folder / "data", folder / "artifacts")
    return folder / "data", folder / "artifacts"


@pytest.fixture(scope="module")
def prepared(cohort):
    return load_rows(cohort[1] / "prepared")


def test_raw_rows_scored_as_a_server_would_are_the_judged_predictions(cohort, prepared):
    data, artifacts = cohort
    scorer = load(artifacts / "model")
    rows = readers.read(data)[0]
    served = scorer.score(scorer.features(rows)).assign(subject=rows["patient_id"], year=rows["year"])
    judged = predictions.read(artifacts / "predictions.parquet", study)
    judged = judged[judged["model"] == "ensemble"].assign(
        year=lambda t: t["time"].dt.year, subject=lambda t: t["subject"].astype(str)
    )
    both = judged.merge(served, on=["subject", "year"])
    assert len(both) == len(judged) > 300
    assert np.abs(both["yhat"] - both["probability"]).max() < 1e-9


def test_no_row_sees_another_and_a_history_in_any_order_gives_the_same(cohort):
    data, artifacts = cohort
    scorer = load(artifacts / "model")
    rows = readers.read(data)[0].head(60)
    whole = scorer.score(scorer.features(rows))
    mixed = rows.iloc[stream(0, "mixed").permutation(len(rows))]
    assert scorer.score(scorer.features(mixed)).loc[whole.index].equals(whole)
    one = rows[rows["patient_id"] == rows["patient_id"].iloc[0]]
    assert (
        np.abs(scorer.score(scorer.features(one))["probability"] - whole.loc[one.index, "probability"]).max()
        < 1e-12
    )


def test_the_scorer_refuses_what_it_cannot_answer_and_warns_about_what_it_has_not_seen(cohort):
    data, artifacts = cohort
    scorer = load(artifacts / "model")
    rows = readers.read(data)[0].head(8)
    x = scorer.features(rows)
    with pytest.raises(ValueError, match="features are missing"):
        scorer.score(x.drop(columns=scorer.used[0]))
    with pytest.raises(ValueError, match="infinite"):
        scorer.score(x.assign(**{scorer.used[0]: np.inf}))
    blank = x.assign(**dict.fromkeys(x, np.nan))
    assert np.isfinite(scorer.score(blank)["probability"]).all(), "missing everywhere is allowed"
    assert all("missing" in said[-1] for said in scorer.warnings(blank))
    strange = rows.assign(primary_diagnosis="A00")
    assert any("A00" in one for one in scorer.warnings(scorer.features(strange), strange)[0])
    assert scorer.score(x.iloc[:0]).empty and scorer.warnings(x.iloc[:0]) == []


def test_ranges_are_those_of_training_and_far_means_far():
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(3000, 9)), columns=[f"x_{name}" for name in ("age", *[
        "bmi", "systolic_bp", "diastolic_bp", "cholesterol", "glucose", "num_visits", "medications_count", "lab_abnormal_flag"])])  # fmt: skip
    x["x_diastolic_bp"] = x["x_systolic_bp"] + rng.normal(0, 0.1, 3000)
    reference = learned_from(x, ["x_age"])
    ordinary, apart = x.head(1) * 0, x.head(1) * 0
    apart["x_systolic_bp"], apart["x_diastolic_bp"] = 1.0, -1.0  # each ordinary for itself
    assert unusual(ordinary, reference) == [[]] and "combination" in unusual(apart, reference)[0][0]
    assert sum(map(len, unusual(x, reference))) <= 4, "one in a thousand of 3,000"
    x["x_cholesterol"] = np.nan  # a cohort that lacks a variable is still watched
    reference = json.loads(json.dumps(rounded(learned_from(x, ["x_age", "x_cholesterol"]))))
    assert unusual(ordinary.assign(x_cholesterol=np.nan), reference) == [[]]
    assert "combination" in unusual(apart.assign(x_cholesterol=np.nan), reference)[0][0]
    assert "no training patient had one" in unusual(ordinary, reference)[0][0]


def test_one_exchanged_byte_is_noticed_and_an_unfinished_bundle_is_not_loaded(cohort, tmp_path):
    import shutil

    shutil.copytree(cohort[1] / "model", tmp_path / "model")
    path = tmp_path / "model" / "recalibration.json"
    path.write_text(path.read_text().replace('"slope": ', '"slope": 1', 1))
    with pytest.raises(ValueError, match="recalibration.json is not the file"):
        load(tmp_path / "model")
    (tmp_path / "model" / "card.json").unlink()
    with pytest.raises(FileNotFoundError, match="unfinished"):
        load(tmp_path / "model")


def test_built_again_the_bundle_has_the_same_bytes(cohort, tmp_path):
    import shutil

    data, artifacts = cohort
    shutil.copytree(artifacts / "prepared", tmp_path / "prepared")
    built(data, tmp_path)
    first, second = (read_json(folder / "model" / "card.json") for folder in (artifacts, tmp_path))
    assert first == second and len(first["files"]) > 8
    assert (artifacts / "predictions.parquet").read_bytes() == (tmp_path / "predictions.parquet").read_bytes()


def test_the_stored_rates_are_those_of_their_own_outcomes(prepared):
    again, whole = forecast.encoded(prepared, 20.0)
    assert np.array_equal(again[RATE], prepared[RATE])
    train = prepared[prepared["split"] == "train"]
    moved = prepared.assign(y=prepared["y"].where(prepared["split"] != "test", 1 - prepared["y"]))
    assert forecast.encoded(moved, 20.0)[1] == whole, "test outcomes play no part"
    one = train["subject"].iloc[0]
    flipped = prepared.assign(y=np.where(prepared["subject"] == one, 1 - prepared["y"], prepared["y"]))
    mine = ((prepared["subject"] == one) & (prepared["split"] == "train")).to_numpy()
    # only everybody's prior, to which rates are drawn, may feel a patient's own outcome
    assert np.abs(forecast.encoded(flipped, 20.0)[0][RATE][mine] - again[RATE][mine]).max() < 0.002


def test_with_outcomes_of_other_patients_the_whole_pipeline_finds_nothing(prepared):
    traded = forecast.exchanged(prepared, SETTINGS, n_permutations=2, most=700)
    found = [association(one["y"], one["yhat"], one["subject"]) for _, one in traded.groupby("permutation")]
    value, error = np.mean([f[0] for f in found]), np.hypot(*[f[2] for f in found]) / 2
    assert abs(value - 0.5) < 3.3 * error, (value, error)


def test_the_audit_has_an_answer_to_every_question(cohort):
    data, artifacts = cohort
    gathered = evidence.gather(data, artifacts, moments=30, examples=600)
    assert isinstance(gathered, Evidence) and not gathered.reasons
    findings = audit.run(predictions.read(artifacts / "predictions.parquet", study), study, gathered)
    bad = {
        f.check: (f.verdict, f.evidence) for f in findings if f.severity == "error" and f.verdict != "pass"
    }
    assert not bad, bad
    assert {f.check for f in findings if f.verdict == "not applicable"} == set()


@pytest.mark.parametrize("leak", ["look ahead", "own outcome"])
def test_a_feature_that_looks_ahead_differs_when_the_files_end(cohort, prepared, leak, monkeypatch):
    "The replay must be able to fail."
    wanted = {"look ahead": "glucose", "own outcome": "target"}[leak]

    def leaky(rows):
        ahead = (
            rows.sort_values("year").groupby("patient_id")[wanted].shift(-1 if leak == "look ahead" else 0)
        )
        return features(rows).assign(x_age=ahead.reindex(rows.index).astype("float32"))

    monkeypatch.setattr(moments, "features", leaky)
    stored = prepared.copy()
    whole = readers.read(cohort[0])[0]
    key = pd.MultiIndex.from_frame(whole[["patient_id", "year"]])
    stored["x_age"] = leaky(whole)["x_age"].to_numpy()[
        key.get_indexer(pd.MultiIndex.from_frame(prepared[["subject", "year"]]))
    ]
    pairs = moments.replays(cohort[0], stored, 20.0, n=30)
    differ = [not a["x_age"].equals(b["x_age"]) for a, b in pairs]
    assert differ[0 if leak == "look ahead" else 1]
    assert all(a.drop(columns="x_age").equals(b.drop(columns="x_age")) for a, b in pairs)


def test_csv_copies_end_where_they_should(cohort, tmp_path):
    rows = pd.read_parquet(cohort[0] / "patient_years").query(
        "patient_id in ['P000001', 'P000002', 'P000003']"
    )
    text = "# units: glucose=mg/dL\n" + rows.to_csv(index=False)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "cohort.csv.gz").write_bytes(gzip.compress(text.encode()))
    first = int(rows[rows["patient_id"] == "P000001"]["year"].min())
    copy = moments.copied(tmp_path / "raw", {"P000001": first + 1}, tmp_path / "copy", outcomes=False)
    again, refused, _ = readers.read(copy)
    assert refused.empty and again["year"].tolist() == [first, first + 1] and again["target"].isna().all()


def test_a_cohort_without_dates_noise_or_cholesterol_is_no_leak(cohort, tmp_path):
    "The reference document's columns: target alone, as a word; glucose is seldom measured."
    rows = pd.read_parquet(cohort[0] / "patient_years")
    rows = rows[
        [c for c in rows if not c.startswith(("noise", "diagnosis_year", "chol", "height", "weight"))]
    ]
    seldom = rows["glucose"].where(np.random.default_rng(0).random(len(rows)) < 0.02)
    said = rows["target"].map({0: "False", 1: "True"})
    (tmp_path / "cohort.csv").write_text(
        "# units: glucose=mg/dL\n" + rows.assign(glucose=seldom, target=said).to_csv(index=False)
    )
    prepare(tmp_path / "cohort.csv", tmp_path / "prepared")
    found = load_rows(tmp_path / "prepared")
    truth = evidence.measured(evidence.raw_rows(tmp_path / "cohort.csv")).set_index(["subject", "time"])["y"]
    key = pd.MultiIndex.from_arrays([found["subject"], found["time"] + pd.DateOffset(years=1)])
    assert np.array_equal(truth.reindex(key), found["y"]) and found["y"].sum() > 50
    for stored, again in moments.replays(tmp_path / "cohort.csv", found, 20.0, n=30):
        assert "x_glucose_lag_1y" in stored and "x_noise_feature_0" not in stored
        assert stored.notna().any().all() and stored.equals(again[stored.columns])


def test_rows_of_the_oracle_must_be_complete(cohort, prepared, tmp_path):
    (tmp_path / "oracle").mkdir()
    known = pd.read_parquet(cohort[0] / "oracle")
    known.iloc[5:].to_parquet(tmp_path / "oracle" / "part.parquet")
    with pytest.raises(ValueError, match="lacks"):
        forecast.oracle(prepared, tmp_path)
    assert forecast.oracle(prepared, tmp_path / "oracle") is None


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="imbalance must be one of"):
        Settings(imbalance="oversample")
    with pytest.raises(ValueError, match="algorithms must be some of"):
        Settings(algorithms=("forest",))
