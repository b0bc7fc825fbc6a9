"The Open Inference Protocol and MLflow's dialect, for every study's bundle."

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from fastapi.testclient import TestClient

from medlab.serve.app import create_app
from medlab.serve.example import example_bundle, example_rows
from medlab.serve.requests import YEAR
from medlab.studies.risk.model import load
from medlab.studies.risk.rows import normalise

GLUCOSE = ROOT / "artifacts" / "glucose"
FORECAST = GLUCOSE / "model" / "card.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return example_bundle(tmp_path_factory.mktemp("risk") / "model", patients=200, rounds=8)


@pytest.fixture(scope="module")
def client(bundle) -> TestClient:
    models = {"glucose": GLUCOSE / "model"} if FORECAST.exists() else {}
    return TestClient(create_app({**models, "risk": bundle}), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    rows = example_rows(60, seed=4)
    return rows[rows["age"].between(18, 90)].reset_index(drop=True)[["patient_id", *YEAR]]


@pytest.fixture(scope="module")
def expected(bundle, raw) -> np.ndarray:
    scorer = load(bundle)
    rows, bad = normalise(raw)
    assert bad.empty
    return scorer.score(scorer.features(rows))["probability"].to_numpy()


def tensors(client, raw) -> list[dict]:
    "The table as named tensors."
    made = []
    for about in client.get("/v2/models/risk").json()["inputs"]:
        column = raw[about["name"]].astype(object).where(raw[about["name"]].notna(), None)
        to = {"INT64": int, "FP64": float, "BOOL": bool, "BYTES": str}[about["datatype"]]
        data = [None if v is None else to(v) for v in column]
        made.append(
            {"name": about["name"], "shape": [len(data)], "datatype": about["datatype"], "data": data}
        )
    return made


def test_version_2_gives_the_pipelines_probability_for_every_row(client, raw, expected):
    body = {"id": "42", "inputs": tensors(client, raw), "outputs": [{"name": "probability"}]}
    answer = client.post("/v2/models/risk/infer", json=body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["id"] == "42" and made["model_name"] == "risk" and len(made["outputs"]) == 1
    assert np.abs(np.array(made["outputs"][0]["data"]) - expected).max() < 1e-9
    version = client.get("/v2/models/risk").json()["versions"][0]
    assert made["model_version"] == version
    same = client.post(f"/v2/models/risk/versions/{version}/infer", json=body)
    assert (
        same.json() == made and client.post("/v2/models/risk/versions/1/infer", json=body).status_code == 404
    )


@pytest.mark.parametrize("address", ["/invocations", "/models/risk/invocations"])
def test_mlflow_gives_the_same_from_records_and_from_columns(client, raw, expected, address):
    plain = raw.astype(object).where(raw.notna(), None)
    for name in ("year", "birth_year", "num_visits", "medications_count"):
        plain[name] = [None if v is None else int(v) for v in plain[name]]
    plain["lab_abnormal_flag"] = [None if v is None else bool(v) for v in plain["lab_abnormal_flag"]]
    bodies = [
        {"dataframe_records": plain.to_dict("records")},
        {"dataframe_split": {"columns": list(plain), "data": plain.to_numpy(object).tolist()}},
    ]
    for body in bodies:
        answer = client.post(address, json=body)
        assert answer.status_code == 200, answer.text
        assert (
            np.abs(np.array([p["probability"] for p in answer.json()["predictions"]]) - expected).max() < 1e-9
        )


def test_a_row_sees_only_its_own_past(client, raw, expected):
    cut = raw[raw["year"] <= 2019]
    answer = client.post("/v2/models/risk/infer", json={"inputs": tensors(client, cut)}).json()
    assert np.abs(np.array(answer["outputs"][0]["data"]) - expected[cut.index]).max() < 1e-9


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda b: b["inputs"].pop(2), 409),
        (lambda b: b["inputs"][2].update(datatype="BYTES"), 409),
        (lambda b: b["inputs"][2]["data"].__setitem__(0, "60"), 409),
        (lambda b: b["inputs"][2]["data"].__setitem__(0, True), 409),
        (lambda b: b["inputs"][2]["data"].__setitem__(0, 400), 409),
        (lambda b: b["inputs"][1].update(shape=[3]), 409),
        (
            lambda b: b["inputs"].append(
                {"name": "target", "shape": [2], "datatype": "INT64", "data": [1, 1]}
            ),
            409,
        ),
        (lambda b: b.update(inputs=[]), 422),
        (lambda b: b.update(outputs=[{"name": "truth"}]), 409),
        (lambda b: b.update(id=3), 422),
    ],
)
def test_tensors_that_do_not_fit_get_a_reason_and_no_number(client, raw, change, status):
    body = {"inputs": tensors(client, raw.head(2))}
    change(body)
    answer = client.post("/v2/models/risk/infer", json=body)
    assert (
        answer.status_code == status and set(answer.json()) >= {"error"} and "outputs" not in answer.json()
    ), answer.text


@pytest.mark.parametrize(
    ("address", "body", "where"),
    [
        ("/invocations", {"dataframe_records": [{"patient_id": "a", "year": 2020, "age": 50}, {"patient_id": "a", "year": 2021, "age": "x"}]}, "dataframe_records[1].age"),
        ("/invocations", {"dataframe_split": {"columns": ["patient_id", "year", "age"], "data": [["a", 2020, 50], ["b", 2020, "x"]]}}, "dataframe_split.data[1][2]"),
        ("/v2/models/risk/infer", {"inputs": [{"name": "patient_id", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], [3]]}]}, "inputs[0].data[1][0]"),
        ("/v2/models/risk/infer", {"inputs": [{"name": "year", "shape": [2], "datatype": "INT64", "data": [2020, 2**70]}]}, "inputs[0].data[1]"),
    ],
)  # fmt: skip
def test_an_error_names_the_place_in_the_callers_own_body(client, address, body, where):
    answer = client.post(address, json=body)
    assert answer.status_code == 409 and answer.json()["where"] == where, answer.text


def test_health_and_metadata_speak_the_protocols(client):
    assert client.get("/v2").json()["name"] == "medlab"
    assert client.get("/v2/health/live").json() == {"live": True} and client.get(
        "/v2/health/ready"
    ).json() == {"ready": True}
    assert client.get("/v2/models/risk/ready").json() == {"name": "risk", "ready": True}
    assert (
        client.get("/v2/models/other").status_code == client.get("/v2/models/other/ready").status_code == 404
    )
    assert client.get("/ping").status_code == 200 and client.get("/version").text
    assert client.get("/model/info").json()["model"] == "risk"
    assert client.put("/invocations", json={}).status_code == 405


def windows():
    "Windows of the glucose study as the pipeline cut them, raw and in order, and what it predicted."
    from medlab.studies.glucose.forecast import load_series, split_windows

    card = pd.read_json(FORECAST, typ="series")
    series = load_series(GLUCOSE / "prepared")
    cut, _ = split_windows(series, "test", card["lookback"], card["horizon"], card["evaluation_stride"])
    predictions = pd.read_parquet(GLUCOSE / "predictions.parquet")
    mine = predictions[(predictions["model"] == "lstm") & (predictions["split"] == "test")]
    return series, cut, mine


@pytest.mark.skipif(
    not (FORECAST.exists() and (GLUCOSE / "predictions.parquet").exists()),
    reason="the glucose study has not been run",
)
def test_glucose_served_from_raw_windows_is_what_the_pipeline_predicted(client):
    series, cut, mine = windows()
    some = np.linspace(0, len(cut.ends) - 1, 40).astype(int)
    ends = cut.ends[some]
    raw = np.asarray(cut.inputs(), float)[some]
    body = {
        "inputs": [
            {"name": "input", "shape": list(raw.shape), "datatype": "FP64", "data": raw.reshape(-1).tolist()}
        ]
    }
    answer = client.post("/v2/models/glucose/infer", json=body)
    assert answer.status_code == 200, answer.text
    forecast = np.array(answer.json()["outputs"][0]["data"]).reshape(len(some), -1)
    lists = client.post("/models/glucose/invocations", json={"instances": raw.tolist()}).json()["predictions"]
    assert np.abs(np.array(lists) - forecast).max() < 1e-9
    rows = series.iloc[ends][["subject", "time"]].astype({"subject": str}).assign(window=range(len(ends)))
    rows["time"] = rows["time"].astype(mine["time"].dtype)
    both = mine.astype({"subject": str, "horizon": float}).merge(rows, on=["subject", "time"])
    served = forecast[both["window"], (both["horizon"] / 5 - 1).astype(int)]
    assert (
        len(both) > 300 and np.abs(served - both["yhat"]).max() < 0.01
    )  # the card's tolerance between formats


@pytest.mark.skipif(not FORECAST.exists(), reason="the glucose study has not been run")
@pytest.mark.parametrize(
    "data",
    [
        [[[1.0] * 8] * 35],
        [[[1.0] * 7 + [None]] * 36],
        [[[1.0] * 7 + ["1"]] * 36],
        [[[1.0] * 8] * 35 + [[1.0] * 7]],
        5,
        [],
        [[]],
        [{"a": 1}],
    ],
)
def test_windows_of_another_form_get_no_forecast(client, data):
    answer = client.post("/models/glucose/invocations", json={"instances": data})
    assert answer.status_code in (409, 422) and "predictions" not in answer.json(), answer.text
