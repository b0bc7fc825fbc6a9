"The server of the risk study: the pipeline's numbers or a reason, never anything between."

import copy
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, wait_until
from fastapi.testclient import TestClient

from medlab.serve.answers import Answer, Answers
from medlab.serve.app import bundles, create_app, main
from medlab.serve.bundles import BundleError
from medlab.serve.example import as_request, example_bundle, example_rows
from medlab.serve.guards import Settings
from medlab.serve.problems import dumps, loads
from medlab.serve.requests import read_patient
from medlab.serve.scoring import answers_apart, batch, contradictions
from medlab.studies.risk.model import load
from medlab.studies.risk.prepare import settle
from medlab.studies.risk.rows import normalise

KEY = "a key for the tests only"
PATIENT = ("--seconds-to-arrive", "300", "--seconds-to-answer", "300")  # limits of a server on a busy machine
LONG = 300  # seconds: no test waits so long unless something hangs


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return example_bundle(tmp_path_factory.mktemp("risk") / "model", patients=200, rounds=8)


@pytest.fixture(scope="session")
def raw() -> pd.DataFrame:
    return example_rows(1000, seed=3)


@pytest.fixture(scope="session")
def requests(raw) -> list[dict]:
    return [as_request(rows) for _, rows in raw.groupby("patient_id", sort=True)]


@pytest.fixture(scope="session")
def scorer(bundle):
    return load(bundle)


@pytest.fixture(scope="session")
def client(bundle) -> TestClient:
    return TestClient(create_app({"risk": bundle}), raise_server_exceptions=False)


def changed(patient: dict, **values) -> dict:
    "A copy whose newest record has other values."
    copied = copy.deepcopy(patient)
    max(copied["records"], key=lambda r: r["year"]).update(values)
    return copied


def test_a_thousand_patients_get_the_pipelines_probability(client, scorer, raw, requests):
    rows, _ = settle(normalise(raw)[0])
    expected = scorer.score(scorer.features(rows)).assign(who=rows["patient_id"], year=rows["year"])
    expected = expected.sort_values("year").groupby("who").last()
    got = {}
    for start in range(0, len(requests), 500):
        body = client.post(
            "/predict/batch",
            content=dumps({"patients": requests[start : start + 500]}),
            headers={"content-type": "application/json"},
        ).json()
        assert Answers.model_validate(body)
        got |= {p["patient_id"]: p for p in body["predictions"]}
        assert all("outside of what the model is for" in e["error"] for e in body["errors"])
    assert len(got) > 950
    for key in ("probability", "low", "high"):
        served = pd.Series(
            {who: p["probability"] if key == "probability" else p["interval"][key] for who, p in got.items()}
        )
        assert np.abs(served - expected[key].astype(float).reindex(served.index)).max() < 1e-6
    assert all(p["year"] == expected["year"][who] + 1 for who, p in got.items())


def test_one_patient_alone_is_answered_as_in_a_batch_and_in_any_order_of_records(client, requests):
    for patient in requests[:5]:
        alone = client.post("/predict", json=patient)
        assert alone.status_code == 200 and Answer.model_validate(alone.json())
        turned = {**patient, "records": patient["records"][::-1]}
        batch = client.post("/predict/batch", json={"patients": [turned, requests[7]]}).json()["predictions"][
            0
        ]
        assert abs(batch["probability"] - alone.json()["probability"]) < 1e-9


def test_the_flat_record_of_the_reference_document_is_understood(client):
    flat = {
        "patient_id": "TEST001", "year": 2024, "age": 65, "gender": "M", "bmi": 28.5, "systolic_bp": 160, "diastolic_bp": 90,
        "cholesterol": 240, "glucose": 120, "smoking_status": "Former", "num_visits": 5, "medications_count": 3,
        "lab_abnormal_flag": True, "primary_diagnosis": "I10", "additional_diagnoses": "E11",
    }  # fmt: skip
    answer = client.post("/predict", json=flat)
    assert answer.status_code == 200, answer.text
    record = {k: v for k, v in flat.items() if k != "patient_id"}
    as_history = client.post("/predict", json={"patient_id": "x", "records": [record]}).json()
    assert as_history["probability"] == answer.json()["probability"] and answer.json()["year"] == 2025
    assert any("no history" in w for w in answer.json()["warnings"])
    assert "confidence" not in answer.text.lower()


def test_values_in_other_units_give_the_same_probability(client, requests):
    patient = changed(
        requests[0],
        glucose=126.0,
        cholesterol=200.0,
        systolic_bp=130.0,
        diastolic_bp=80.0,
        height=180.0,
        weight=80.0,
    )
    units = {"glucose": (126 / 18.0156, "mmol/L"), "cholesterol": (200 / 38.665, "mmol/L"), "height": (180 / 2.54, "in"), "weight": (80 / 0.45359237, "lb"), "systolic_bp": (130 / 7.50061683, "kPa")}  # fmt: skip
    other = changed(patient, **{k: {"value": v, "unit": u} for k, (v, u) in units.items()})
    one, two = (client.post("/predict", json=p).json()["probability"] for p in (patient, other))
    assert abs(one - two) < 1e-6


@pytest.mark.parametrize(
    ("field", "value"),
    [("glucose", "126"), ("glucose", True), ("glucose", [126]), ("glucose", 7.0), ("glucose", {"value": 126, "unit": "mmol/L"}),
     ("glucose", {"value": 7}), ("glucose", {"value": 7, "unit": "mmol/L", "by": "me"}), ("year", "2024"), ("year", 2024.5), ("year", None), ("age", -1),
     ("num_visits", 1.5), ("num_visits", True), ("lab_abnormal_flag", 1), ("lab_abnormal_flag", "true"), ("gender", "male"), ("smoking_status", "never"),
     ("primary_diagnosis", "hypertension"), ("additional_diagnoses", "E11;I10"), ("bmi", 1e300), ("target", 1), ("diagnosis_year", 2025), ("glucos", 100)],
)  # fmt: skip
def test_a_value_that_breaks_the_schema_is_named_and_gets_no_number(client, requests, field, value):
    answer = client.post("/predict", json=changed(requests[0], **{field: value}))
    assert answer.status_code == 422 and "probability" not in answer.text
    body = answer.json()
    assert field in body["where"] and body["error"] and body["do"]


@pytest.mark.parametrize(
    "values",
    [
        {"systolic_bp": 80, "diastolic_bp": 90},
        {"birth_year": 1900, "age": 50},
        {"age": 12, "birth_year": None},
        {"height": 230, "weight": 25, "bmi": None},
    ],
)
def test_values_that_contradict_each_other_get_no_number(client, requests, values):
    answer = client.post(
        "/predict", json={"patient_id": "x", "records": [{"year": 2024, "age": 60, **values}]}
    )
    assert answer.status_code == 409 and "probability" not in answer.text and answer.json()["do"]


def test_a_year_twice_and_a_patient_who_changes_sex_get_no_number(client, requests):
    record = {"year": 2024, "age": 60, "gender": "F"}
    for other in (record, {**record, "glucose": 99}, {**record, "year": 2023, "age": 59, "gender": "M"}):
        answer = client.post("/predict", json={"patient_id": "x", "records": [record, other]})
        assert answer.status_code == 409, answer.text


def test_whole_patient_rules_are_those_of_prepare():
    rng = np.random.default_rng(0)
    n = 600
    frame = pd.DataFrame({"patient_id": rng.integers(0, 150, n).astype(str), "year": rng.integers(2005, 2025, n), "age": 50, "birth_year": None, "gender": rng.choice(np.array(["F", "M", None], object), n, p=[0.6, 0.05, 0.35])})  # fmt: skip
    frame["birth_year"] = frame["year"] - 50 + np.where(rng.random(n) < 0.02, 1, 0)
    frame = frame.drop_duplicates(["patient_id", "year"])
    frame.loc[rng.random(len(frame)) < 0.5, "birth_year"] = np.nan
    frame["birth_year"] = frame["birth_year"].where(frame["birth_year"].isna(), 1960.0)
    frame["age"] = frame["year"] - 1960.0
    rows = normalise(frame)[0]
    theirs, refused = settle(rows)
    against = {who for who, _ in contradictions(rows)}
    assert against == set(refused["patient_id"]) and len(against) > 3
    kept = rows[~rows["patient_id"].isin(against)].sort_values(["patient_id", "year"], ignore_index=True)
    pd.testing.assert_frame_equal(kept, theirs, check_dtype=False)  # and nothing is filled in


def test_in_a_batch_each_patient_is_in_exactly_one_of_the_lists(client, requests):
    twice = {**requests[3], "patient_id": requests[2]["patient_id"]}
    items = [
        requests[0],
        7,
        changed(requests[1], glucose="x"),
        requests[2],
        twice,
        changed(requests[4], systolic_bp=80, diastolic_bp=90),
        requests[5],
    ]
    answer = client.post("/predict/batch", json={"patients": items})
    body = answer.json()
    assert answer.status_code == 200 and body["total"] == len(items) and Answers.model_validate(body)
    assert [e["index"] for e in body["errors"]] == [1, 2, 3, 4, 5]
    assert [p["patient_id"] for p in body["predictions"]] == [
        requests[0]["patient_id"],
        requests[5]["patient_id"],
    ]
    assert all(e["error"] and e["do"] and "probability" not in e for e in body["errors"])
    assert not any(p["patient_id"] in json.dumps(body["errors"]) for p in requests[:6])
    assert all("items 3, 4 have" in body["errors"][i]["error"] for i in (2, 3))  # the caller's positions


def test_an_error_names_the_callers_positions_also_when_patients_are_scored_alone(scorer, requests):
    class Broken:
        def __getattr__(self, name):
            return getattr(scorer, name)

        def score(self, x):
            raise RuntimeError

    items = [
        {"patient_id": "a-1", "year": 2020, "age": 55},
        {"patient_id": "b"},
        None,
        {"patient_id": "a-1", "year": 2021, "age": 56},
        requests[0],
    ]
    for model in (scorer, Broken()):
        errors = {e["index"]: e["error"] for e in batch(model, items)["errors"]}
        assert errors[0] == errors[3] == "items 0, 3 have the same patient_id"


def test_one_patient_who_breaks_the_scorer_fails_alone(scorer, requests):
    class Breaking:
        def __getattr__(self, name):
            return getattr(scorer, name)

        def score(self, x):
            if (x["x_glucose"] == 333).any():
                raise RuntimeError("secret P000123")
            return scorer.score(x)

    told = []
    patients = [read_patient(p) for p in (requests[0], changed(requests[1], glucose=333), requests[2])]
    first, broken, last = answers_apart(Breaking(), patients, told=told.append)
    assert (
        first["probability"]
        and last["probability"]
        and broken.status == 500
        and "secret" not in str(broken.body())
    )
    assert len(told) == 2


def test_warnings_name_what_training_never_saw_and_what_is_missing(client, requests):
    odd = client.post("/predict", json=changed(requests[0], glucose=499.0, cholesterol=None)).json()[
        "warnings"
    ]
    assert any("out of range" in w and "glucose" in w for w in odd)
    assert any("not recorded in the newest year" in w and "cholesterol" in w for w in odd)


def test_the_version_is_the_content_and_a_changed_file_is_not_loaded(bundle, scorer, client, tmp_path):
    import shutil

    assert (
        client.get("/model/info").json()["version"]
        == scorer.version
        == client.get("/health").json()["models"]["risk"]
    )
    copied = tmp_path / "model"
    shutil.copytree(bundle, copied)
    file = copied / "thresholds.json"
    file.write_text(file.read_text().replace("0.1", "0.2"))
    with pytest.raises(BundleError, match=r"thresholds\.json is not the file"):
        create_app({"risk": copied})
    with pytest.raises(BundleError, match=r"no card\.json"):
        bundles([str(tmp_path)])
    assert bundles([str(bundle)]) == {"risk": bundle.resolve()}


def test_information_says_what_the_model_is_for(client):
    info = client.get("/model/info").json()
    assert (
        info["simulated"] is True and "Do not" in info["not_for_use"] and info["units"]["glucose"] == "mg/dL"
    )
    assert (
        info["bounds"]["glucose"] == [50, 500]
        and 0 < info["threshold"]["value"] < 1
        and info["threshold"]["why"]
    )
    assert client.get("/model/info?model=other").status_code == 404


def test_limits_answer_413_and_never_reach_the_model(bundle, requests):
    small = TestClient(
        create_app({"risk": bundle}, Settings(most_patients=2, most_records=3, most_bytes=100_000))
    )
    assert small.post("/predict/batch", json={"patients": [1, 2, 3]}).status_code == 413
    long = {"patient_id": "x", "records": [{"year": 2010 + i, "age": 40 + i} for i in range(4)]}
    assert small.post("/predict", json=long).status_code == 413
    body = small.post(
        "/predict/batch", json={"patients": [long, requests[0] | {"records": requests[0]["records"][:2]}]}
    ).json()
    assert body["errors"][0]["index"] == 0 and len(body["predictions"]) == 1
    assert (
        small.post(
            "/predict", content=b" " * 200_000, headers={"content-type": "application/json"}
        ).status_code
        == 413
    )


def test_the_key_guards_everything_but_health_and_the_empty_page(bundle, requests, scorer):
    guarded = TestClient(create_app({"risk": bundle}, Settings(api_key=KEY)))
    for path in ("/model/info", "/metrics", "/openapi.json", "/v2/models/risk", "/nowhere"):
        answer = guarded.get(path)
        assert answer.status_code == 401 and answer.headers["www-authenticate"]
    for path in (
        "/health",
        "/ping",
        "/docs",
        "/docs/page.js",
    ):  # the page holds nothing, and asks for the key
        assert guarded.get(path).status_code == 200
    assert scorer.version not in guarded.get("/docs").text and guarded.get("/docs/other").status_code == 401
    assert guarded.post("/predict", json=requests[0], headers={"X-API-Key": KEY[:-1]}).status_code == 401
    assert guarded.post("/predict", json=requests[0], headers={"X-API-Key": KEY}).status_code == 200
    with pytest.raises(ValueError, match="shorter than 16"):
        Settings(api_key="short")
    with pytest.raises(SystemExit):
        main(["--host", "0.0.0.0", "--model", str(bundle)])


def test_logs_and_metrics_hold_no_identifier(client, requests, caplog):
    caplog.set_level("INFO", logger="medlab.serve")
    for patient in (
        requests[0],
        changed(requests[0], glucose="x"),
        changed(requests[0], systolic_bp=80, diastolic_bp=90),
    ):
        client.post("/predict", json=patient)
    client.get("/predict/" + requests[0]["patient_id"])
    client.post("/predict/batch", json={"patients": requests[:3]})
    lines = [json.loads(r.getMessage()) for r in caplog.records if r.name == "medlab.serve"]
    assert [line["status"] for line in lines] == [200, 422, 409, 404, 200] and lines[3]["route"] == "other"
    metrics = client.get("/metrics").text
    for text in (caplog.text, metrics):
        assert not re.search(r"P0\d+", text)
    assert 'medlab_patients_total{outcome="refused"}' in metrics and 'route="/predict"' in metrics
    assert all(line["request"] and line["ms"] >= 0 for line in lines)


# the real server, in its own process


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port: int, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
    "One request over a connection of its own: status and answer."
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    try:
        connection.request(method, path, body and dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, loads(answer.read())
    finally:
        connection.close()


def started(bundle, port, log, *more, **environment):
    "A server that is ready, as a process that logs to a file (a pipe that nobody empties would stop it)."
    command = [sys.executable, "-c", "import sys; from medlab.serve.app import main; sys.exit(main(sys.argv[1:]))", "--model", str(bundle), "--port", str(port), *more]  # fmt: skip
    with open(log, "wb") as file:
        server = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    def ready():
        try:
            return ask(port, "GET", "/health")[1]["ready"]
        except OSError:
            return False

    try:
        wait_until(ready, "the server is ready", process=server, log=Path(log))
    except BaseException:
        stopped(server, signal.SIGKILL)
        raise
    return server


def stopped(server, how=signal.SIGTERM) -> int:
    "How the server ended; a server that outlives its test is a failure, and is not left running."
    server.send_signal(how)
    try:
        return server.wait(LONG)
    finally:
        server.kill()
        server.wait()


def test_a_server_told_to_stop_under_load_answers_or_refuses_and_never_hangs(bundle, requests, tmp_path):
    port, outcomes = free_port(), []
    server = started(bundle, port, tmp_path / "log", *PATIENT)
    try:
        expected = [ask(port, "POST", "/predict", p)[1]["probability"] for p in requests[:10]]
        # a client that sends a little too much is told so; its connection isn't torn from it while it sends
        assert ask(port, "POST", "/predict", {"patient_id": "x" * 9_000_000})[0] == 413

        def client(number):
            while True:
                try:
                    status, answer = ask(port, "POST", "/predict", requests[number % 10])
                    outcomes.append(
                        (status, status == 503 or abs(answer["probability"] - expected[number % 10]) < 1e-9)
                    )
                except TimeoutError:
                    return outcomes.append(("hang", False))
                except (ConnectionError, http.client.HTTPException):
                    return outcomes.append(("connection error", True))

        threads = [threading.Thread(target=client, args=(i,)) for i in range(50)]
        [t.start() for t in threads]
        wait_until(
            lambda: len(outcomes) > 100, "a hundred answers under load", process=server, log=tmp_path / "log"
        )
        assert stopped(server) in (0, -signal.SIGTERM)
        wait_until(lambda: not any(t.is_alive() for t in threads), "every client has an answer or an end")
    finally:
        server.kill()
        server.wait()
    kinds = {status for status, _ in outcomes}
    assert 200 in kinds and kinds <= {200, 503, "connection error"}
    assert all(right for _, right in outcomes)
    log = (tmp_path / "log").read_text()
    assert not re.search(r"P0\d{3}", log) and '"event":"request"' in log


def test_an_address_that_nobody_can_listen_on_is_refused_before_models_are_loaded(bundle, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, reason in (
            (["--port", str(port)], f"cannot listen on 127.0.0.1, port {port} (Address already in use)"),
            (["--port", "99999"], "there is no port 99999"),
            (["--workers", "0"], "workers must be at least 1"),
        ):
            with pytest.raises(SystemExit) as end:
                main(["--model", str(bundle), *words])
            assert end.value.code == 2 and reason in capsys.readouterr().err


def test_head_is_answered_as_get_without_the_body(client):
    for path in ("/health", "/metrics", "/v2/models/risk", "/predict", "/nowhere"):
        get, head = client.get(path), client.head(path)
        assert head.status_code == get.status_code and head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]


def test_importing_the_server_loads_no_trainer():
    from conftest import loaded

    assert (
        loaded(["medlab.serve.app"], ("torch", "tensorflow", "papermill", "dvc", "lightgbm", "mlflow")) == []
    )


def test_json_survives_the_way_through():
    values = np.random.default_rng(0).normal(size=500).tolist()
    assert loads(dumps({"v": values}))["v"] == values
