"A running server asked by sixteen clients at once, and workers that start while the machine is busy."

import http.client
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT, wait_until
from fastapi.testclient import TestClient
from onnx import TensorProto, helper, numpy_helper
from test_serve import LONG, PATIENT, ask, free_port, started, stopped

from medlab.core.files import digest, write_json
from medlab.learn.growing import KINDS
from medlab.serve.app import create_app
from medlab.serve.example import example_bundle, example_patients

CLIENTS, TURNS = 16, 24
LOOKBACK, FEATURES, HORIZON, HIDDEN = 36, 8, 12, 16


def forecast_bundle(folder: Path) -> Path:
    "A bundle of the glucose study's kind: a recurrent network with random weights behind a scaler."
    draws = np.random.default_rng(0)
    weight = lambda name, *shape: numpy_helper.from_array(
        draws.normal(0, 0.3, shape).astype(np.float32), name
    )
    floats = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
    nodes = [
        helper.make_node("Transpose", ["input"], ["by_time"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["by_time", "w", "r"], ["", "last"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["last", "axis"], ["state"]),
        helper.make_node("Gemm", ["state", "out", "middle"], ["forecast"]),
    ]
    weights = [
        weight("w", 1, 4 * HIDDEN, FEATURES),
        weight("r", 1, 4 * HIDDEN, HIDDEN),
        weight("out", HIDDEN, HORIZON),
        numpy_helper.from_array(np.full(HORIZON, 120, np.float32), "middle"),
        numpy_helper.from_array(np.array([0], np.int64), "axis"),
    ]
    ends = [floats("input", LOOKBACK, FEATURES)], [floats("forecast", HORIZON)]
    graph = helper.make_graph(nodes, "forecast", *ends, weights)
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    names = ["glucose", *(f"other_{i}" for i in range(1, FEATURES))]
    scaler = {"features": names, "center": [120.0] * FEATURES, "scale": [40.0] * FEATURES}
    write_json(folder / "scaler.json", scaler | {"n_rows": 2, "rows_digest": "0"})
    card = {"study": "glucose", "input": {"features": names, "scaled_by": "scaler.json"}}
    files = {name: digest(folder / name) for name in ("model.onnx", "scaler.json")}
    write_json(folder / "card.json", card | {"files": files})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    risk = example_bundle(folder / "risk" / "model", patients=200, rounds=8, kinds=KINDS)
    return {"risk": risk, "glucose": forecast_bundle(folder / "glucose" / "model")}


def questions() -> list[tuple[str, dict]]:
    "Requests of every kind; the first ones name units that a fresh server has not met."
    patients = [p for p in example_patients(40) if 18 <= max(r["age"] for r in p["records"]) <= 90]
    for i, patient in enumerate(patients):
        for record in patient["records"]:
            for name, other in (("glucose", 18.0156), ("cholesterol", 38.665)):
                if i % 2 and isinstance(record.get(name), float):
                    record[name] = {"value": round(record[name] / other, 3), "unit": "mmol/L"}
    plain = [
        {"patient_id": p["patient_id"], **record}
        for p in patients[::2]
        for record in ({k: v for k, v in r.items() if k != "additional_diagnoses"} for r in p["records"])
    ]
    table = lambda first: {"dataframe_records": plain[first : first + 25]}
    names = ("patient_id", "year", "age", "glucose")
    kinds = dict(zip(names, ("BYTES", "INT64", "FP64", "FP64"), strict=True))

    def tensors(first):
        rows = plain[first : first + 20]
        columns = {name: [row.get(name) for row in rows] for name in names}
        return {
            "inputs": [
                {"name": n, "shape": [len(c)], "datatype": kinds[n], "data": c} for n, c in columns.items()
            ]
        }

    draws = np.random.default_rng(1)
    windows = [draws.uniform(70, 250, (n, LOOKBACK, FEATURES)).round(1) for n in (1, 2, 5, 9)]
    flat = lambda w: {
        "name": "input",
        "shape": list(w.shape),
        "datatype": "FP64",
        "data": w.reshape(-1).tolist(),
    }
    return [
        *(("/predict", p) for p in patients[:12]),
        *(("/predict/batch", {"patients": patients[first : first + 9]}) for first in range(0, 27, 3)),
        ("/predict/batch", {"patients": [patients[0], None, {"patient_id": "b"}, patients[0], patients[1]]}),
        *(("/invocations", table(first)) for first in (0, 10, 30)),
        *(("/v2/models/risk/infer", tensors(first)) for first in (0, 15, 40)),
        *(("/v2/models/glucose/infer", {"inputs": [flat(w)]}) for w in windows),
        *(("/models/glucose/invocations", {"instances": w.tolist()}) for w in windows),
    ]


def lasting(answer):
    "An answer without the moment that it was made at."
    if isinstance(answer, dict):
        return {k: lasting(v) for k, v in answer.items() if k != "timestamp"}
    return [lasting(v) for v in answer] if isinstance(answer, list) else answer


def test_sixteen_clients_get_bit_for_bit_what_one_client_gets(models, tmp_path):
    asked = questions()
    port, wrong, done = free_port(), [], []
    log = tmp_path / "log"
    more = ("--model", str(models["glucose"]), "--threads", str(CLIENTS), *PATIENT)
    server = started(models["risk"], port, log, *more)
    gate = threading.Barrier(CLIENTS)
    got = []

    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
        try:
            gate.wait(LONG)
            for turn in range(TURNS):
                which = (number * 7 + turn * 5) % len(asked)
                path, body = asked[which]
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                got.append((which, answer.status, lasting(json.loads(answer.read()))))
        except Exception as error:
            wrong.append(f"client {number}: {error!r}")
        finally:
            connection.close()
            done.append(number)

    try:
        threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(CLIENTS)]
        [t.start() for t in threads]
        wait_until(lambda: len(done) == CLIENTS, "every client is done", 2 * LONG, server, log)
    finally:
        stopped(server)
    alone = TestClient(create_app(models), raise_server_exceptions=False)
    expected = [alone.post(path, json=body) for path, body in asked]
    assert all(answer.status_code == 200 for answer in expected), [a.text[:300] for a in expected]
    expected = [lasting(answer.json()) for answer in expected]
    assert not wrong and len(got) == CLIENTS * TURNS, wrong[:3]
    assert {which for which, _, _ in got} == set(range(len(asked)))  # each question was asked
    differing = [(asked[which][0], status, said) for which, status, said in got if said != expected[which]]
    assert not differing, f"{len(differing)} of {len(got)} differ, first {str(differing[0])[:800]}"
    assert {status for _, status, _ in got} == {200} and '"event":"error"' not in log.read_text()


GRAPH = """
import sys, threading
import numpy as np
from medlab.serve.bundles import onnx_bundle
draws = np.random.default_rng(0)
name, *_ = (t.name for t in onnx_bundle(sys.argv[1]).inputs)
asked = [{name: draws.uniform(70, 250, (1 + n % 5, 36, 8))} for n in range(16)]
expected = [onnx_bundle(sys.argv[1]).infer(one)["forecast"] for one in asked]
shared, gate, wrong = onnx_bundle(sys.argv[1]), threading.Barrier(16), []
def ask(number):
    gate.wait()
    for turn in range(60):
        i = (number + turn) % 16
        try:
            if not np.array_equal(shared.infer(asked[i])["forecast"], expected[i]):
                wrong.append("another number")
        except Exception as error:
            wrong.append(repr(error)[:300])
threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
[t.start() for t in threads], [t.join() for t in threads]
print(len(wrong), *wrong[:5], sep="\\n")
sys.exit(len(wrong) > 0)
"""


def test_sixteen_threads_get_from_one_graph_what_one_thread_gets(models):
    words = [sys.executable, "-c", GRAPH, str(models["glucose"])]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, f"ended with {ran.returncode}\n{ran.stdout}{ran.stderr[-3000:]}"


BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(10_000))"  # ends with the test at the latest


def test_two_workers_start_while_the_machine_is_busy(models, tmp_path):
    "The web server's own limit for a silent worker, five seconds, ended workers that were still loading."
    port, log = free_port(), tmp_path / "log"
    busy = [subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())]) for _ in range(4)]
    try:
        server = started(models["risk"], port, log, "--workers", "2", *PATIENT)
        try:
            came = lambda: log.read_text().count("Application startup complete")
            wait_until(lambda: came() >= 2, "both workers have started", process=server, log=log)
            assert came() == 2 and "died" not in log.read_text()  # and none had to start again
            assert ask(port, "GET", "/health")[1]["ready"]
        finally:
            stopped(server)
    finally:
        for one in busy:
            one.kill()
            one.wait()


SLOW = """
import os, sys, time
while "--multiprocessing-fork" in sys.orig_argv and not os.path.exists(os.environ["GO"]):
    time.sleep(0.05)
"""


def test_a_worker_that_is_slow_to_begin_is_not_taken_for_dead(models, tmp_path):
    port, log = free_port(), tmp_path / "log"
    (tmp_path / "sitecustomize.py").write_text(
        SLOW
    )  # what each Python runs first: here, workers wait for a file
    environment = {"PYTHONPATH": str(tmp_path), "GO": str(tmp_path / "go")}
    let = threading.Timer(12, (tmp_path / "go").touch)  # more than twice the web server's own limit
    let.start()
    try:
        server = started(models["risk"], port, log, "--workers", "2", *PATIENT, **environment)
        try:
            wait_until(
                lambda: log.read_text().count("Application startup complete") >= 2,
                "both work",
                300,
                server,
                log,
            )
            assert "died" not in log.read_text()
        finally:
            stopped(server)
    finally:
        let.cancel()
