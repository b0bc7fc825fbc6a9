"The diary of trainings: it remembers, it holds no pickle, and it never stops or delays the work."

import importlib.util
import multiprocessing
import os
import socket
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from conftest import ROOT, loaded
from onnx import TensorProto, helper, numpy_helper

from medlab.core.files import digest, write_json
from medlab.learn import tracking


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    "No place is given up yet, tracking is on, and nothing of this machine's own settings counts."
    for name in ("MLFLOW_TRACKING_URI", "MEDLAB_TRACKING", "MEDLAB_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracking, "_given_up", set())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    "A folder for one database; a blank in its name, as people have."
    return tmp_path_factory.mktemp("a store")


@pytest.fixture
def local(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}")
    return store


def bundle(folder: Path, study: str = "example", weight: float = 1.0, **card) -> Path:
    "A graph that multiplies three numbers by a weight and adds them."
    folder.mkdir(parents=True, exist_ok=True)
    floats = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
    weights = numpy_helper.from_array(np.full((3, 1), weight, np.float32), "w")
    node = helper.make_node("MatMul", ["input", "w"], ["sum"])
    graph = helper.make_graph([node], "sum", [floats("input", 3)], [floats("sum", 1)], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    shapes = {"input": {"shape": ["batch", 3]}, "output": {"shape": ["batch", 1]}}
    about = {"study": study, "files": {"model.onnx": digest(folder / "model.onnx")}} | shapes | card
    write_json(folder / "card.json", about)
    return folder


def test_the_default_is_a_database_of_the_project_and_it_can_be_turned_off(monkeypatch):
    assert tracking.uri() == f"sqlite:///{ROOT / '.medlab' / 'mlflow' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.uri() == "http://127.0.0.1:5000"
    monkeypatch.setenv("MEDLAB_TRACKING", "off")
    assert tracking.uri() == ""
    with tracking.run("risk") as one:
        one.metrics({"a": 1})
    assert repr(one) == "Run(not tracked)"


def test_importing_it_does_not_import_mlflow():
    assert loaded(["medlab.learn.tracking"], ("mlflow", "torch", "sqlalchemy")) == []


def test_a_run_keeps_parameters_scores_and_files_and_says_nothing(local, tmp_path, capfd):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "roc.txt").write_text("a curve")
    with tracking.run(
        "risk", "train", {"trials": 3, "model": {"depth": 5, "long": "x" * 9000}}, {"data": "abc"}
    ) as one:
        for step, value in enumerate((0.6, 0.7)):
            one.metrics({"auroc": value, "by": {"sex=F": 0.5}, "slope": float("nan")}, step)
        one.files(tmp_path / "figures")
    assert capfd.readouterr() == ("", "") and repr(one) == "Run(tracked)"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri())
    found = client.get_run(one._identity)
    assert found.info.status == "FINISHED"
    assert found.data.params["model.depth"] == "5" and len(found.data.params["model.long"]) == 6000
    assert found.data.metrics == {"auroc": 0.7, "by.sex_F": 0.5}
    assert [m.value for m in client.get_metric_history(one._identity, "auroc")] == [0.6, 0.7]
    assert found.data.tags.items() >= {"study": "risk", "stage": "train", "data": "abc"}.items()
    assert next(local.rglob("roc.txt")).read_text() == "a curve"
    assert not (Path.cwd() / "mlruns").exists()


def test_a_run_that_raises_is_marked_failed_and_the_error_is_the_users_own(local):
    with pytest.raises(ZeroDivisionError), tracking.run("risk") as one:
        1 / 0
    from mlflow import MlflowClient

    assert MlflowClient(tracking_uri=tracking.uri()).get_run(one._identity).info.status == "FAILED"


def load(uri: str, name: str, version: str):
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.pyfunc.load_model(f"models:/{name}/{version}")


def test_the_same_content_is_one_version_and_other_content_another(local, tmp_path):
    one = bundle(tmp_path / "one")
    assert tracking.register("example", one, {"auroc": 0.7}) == "1"
    assert tracking.register("example", one) == "1"
    assert tracking.register("example", bundle(tmp_path / "two", weight=2.0)) == "2"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri())
    versions = {v.version: v.tags for v in client.search_model_versions("name='example'")}
    assert {str(number) for number in versions} == {"1", "2"}
    tags = next(tags for number, tags in versions.items() if str(number) == "1")
    assert tags["content"] == digest(one) and tags["version"] == digest(one / "card.json")
    rows = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    assert load(tracking.uri(), "example", "1").predict(rows).ravel().tolist() == [6, 15]
    assert load(tracking.uri(), "example", "2").predict(rows).ravel().tolist() == [12, 30]


def test_nothing_in_the_store_is_a_pickle_and_a_changed_bundle_is_not_loaded(local, tmp_path):
    number = tracking.register("changed", bundle(tmp_path / "b", weight=3.0))
    kept = [p for p in local.rglob("*") if p.is_file()]
    assert any(p.name == "mlflow_model.py" for p in kept) and any(p.name == "model.onnx" for p in kept)
    for path in kept:
        assert path.suffix not in {".pkl", ".pickle", ".joblib"} and not path.read_bytes().startswith(
            b"\x80\x04\x95"
        )
    place = next(
        p for p in kept if p.name == "model.onnx" and digest(p) == digest(tmp_path / "b" / "model.onnx")
    )
    place.write_bytes(place.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"model\.onnx is not the file that card\.json describes"):
        load(tracking.uri(), "changed", number)


def test_a_scaled_bundle_of_glucose_answers_in_its_own_units(local, tmp_path):
    from medlab.shape.scaling import RobustScaler, fit_robust

    rng = np.random.default_rng(0)
    scaler = fit_robust(rng.normal(150, 40, (500, 3)), ["bg", "a", "b"])
    folder = bundle(tmp_path / "g", "glucose")
    write_json(folder / "scaler.json", scaler.to_json(), digits=17)
    files = {name: digest(folder / name) for name in ("model.onnx", "scaler.json")}
    shapes = {"input": {"shape": ["batch", 3], "scaled_by": "scaler.json"}, "output": {"shape": ["batch", 1]}}
    write_json(folder / "card.json", {"study": "glucose", "files": files} | shapes)
    rows = np.array([[400, 500, 90], [150, 150, 150]], np.float32)
    answer = load(tracking.uri(), "glucose", tracking.register("glucose", folder)).predict(rows)
    from medlab.studies.glucose.study import study

    expected = RobustScaler.from_json(scaler.to_json()).transform(rows.astype(float)).sum(axis=1)
    limits = study.targets[0].lower, study.targets[0].upper
    np.testing.assert_allclose(answer.ravel(), expected.clip(*limits), rtol=1e-5)


STUDY = """
import pandas as pd

class Scorer:
    used = ("x_a",)
    def features(self, rows):
        return pd.DataFrame({"x_a": rows["age"] / 100}, index=rows.index)
    def score(self, x):
        return pd.DataFrame({"probability": x["x_a"] / 2}, index=x.index)

def load(folder):
    return Scorer()
"""


def test_native_files_are_loaded_by_their_study_and_asked_with_rows_or_with_features(
    local, monkeypatch, tmp_path
):
    (tmp_path / "own.py").write_text(STUDY)
    spec = importlib.util.spec_from_file_location("medlab.studies.risk.model", tmp_path / "own.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "medlab.studies.risk.model", module)
    folder = bundle(tmp_path / "b", "risk")
    (folder / "models").mkdir()
    (folder / "models" / "trees.txt").write_text("trees")
    files = {name: digest(folder / name) for name in ("model.onnx", "models/trees.txt")}
    shapes = {"input": {"shape": ["batch", 3]}, "output": {"shape": ["batch"]}}
    write_json(folder / "card.json", {"study": "risk", "files": files} | shapes)
    answer = load(tracking.uri(), "risk", tracking.register("risk", folder)).predict
    rows = pd.DataFrame({"patient_id": ["A", "A", "B"], "year": [2019, 2020, 2020], "age": [40, 41, 60]})
    assert answer(rows).values.tolist() == [["A", 2019, 0.2], ["A", 2020, 0.205], ["B", 2020, 0.3]]
    assert answer(pd.DataFrame({"x_a": [0.4]}))["probability"].tolist() == [0.2]
    with pytest.raises(
        ValueError, match="1 of 3 rows cannot be scored; the first, row 1: age outside 0 to 120"
    ):
        answer(rows.assign(age=[40, 141, 60]))


def test_no_bundle_is_an_error_of_the_caller(local, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no card\.json"):
        tracking.register("risk", tmp_path)


def tracked(place: str, name: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = place
    warnings.simplefilter("error")
    with tracking.run("race", name, {"name": name}) as one:
        one.metrics({"a": 1})
    assert repr(one) == "Run(tracked)"


def test_two_stages_that_start_together_share_one_store(local, tmp_path):
    context = multiprocessing.get_context("fork")
    pair = [context.Process(target=tracked, args=(tracking.uri(), n)) for n in "ab"]
    for process in pair:
        process.start()
    for process in pair:
        process.join(60)
    assert [p.exitcode for p in pair] == [0, 0]


@pytest.mark.parametrize(
    "kind", ["refused", "silent", "unknown host", "wrong page", "file store", "broken database"]
)
def test_a_tracker_that_fails_warns_once_and_never_stops_or_delays(kind, monkeypatch, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "silent":
            silent.listen()  # takes the call, and never says a word
        port = silent.getsockname()[1]
        (tmp_path / "mlflow.db").write_text("this is no database " * 100)
        place = {
            "refused": f"http://u:secret@127.0.0.1:{port}",
            "silent": f"http://u:secret@127.0.0.1:{port}",
            "unknown host": "http://u:secret@nowhere.invalid:5000",
            "wrong page": "https://u:secret@127.0.0.1:1/path",
            "file store": f"file://{tmp_path}/mlruns",
            "broken database": f"sqlite:///{tmp_path}/mlflow.db",
        }[kind]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
        done, knocks, ask = [], [], tracking._answers
        monkeypatch.setattr(tracking, "_answers", lambda place: knocks.append(place) or ask(place))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for _ in range(3):
                with tracking.run("risk", "train", {"a": 1}) as one:
                    one.metrics({"auroc": 0.7})
                    one.files(tmp_path)
                    done.append(repr(one))
                assert tracking.register("risk", bundle(tmp_path / "b")) is None
        assert done == ["Run(not tracked)"] * 3
        said = [str(w.message) for w in heard if "not tracked" in str(w.message)]
        assert len(said) == 1 and "secret" not in said[0] and "MEDLAB_TRACKING=off" in said[0]
        assert len(knocks) <= 1  # whoever did not answer is not asked again


@pytest.fixture
def server(local, monkeypatch):
    "MLflow's own web application on loopback, over the store of the other tests: `mlflow server` without its 17 s of start."
    from mlflow.server import constants
    from werkzeug.serving import WSGIRequestHandler, make_server

    for name in (constants.BACKEND_STORE_URI_ENV_VAR, constants.REGISTRY_STORE_URI_ENV_VAR):
        monkeypatch.setenv(name, tracking.uri())
    monkeypatch.setenv(constants.ARTIFACT_ROOT_ENV_VAR, "mlflow-artifacts:/")
    monkeypatch.setenv(constants.ARTIFACTS_DESTINATION_ENV_VAR, str(local / "kept"))
    monkeypatch.setenv(constants.SERVE_ARTIFACTS_ENV_VAR, "true")
    monkeypatch.setattr(WSGIRequestHandler, "log", lambda *_: None)
    from mlflow.server import app

    one = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{one.port}")
    yield one
    one.shutdown()
    one.server_close()
    thread.join()


def test_a_server_takes_runs_and_models_and_its_death_stops_nobody(server, local, tmp_path):
    place = tracking.uri()
    with tracking.run("served", "train", {"a": 1}) as one:
        one.metrics({"auroc": 0.7})
    assert repr(one) == "Run(tracked)"
    number = tracking.register("served", bundle(tmp_path / "b", weight=5.0))
    assert number == tracking.register("served", tmp_path / "b") == "1"
    assert load(place, "served", "1").predict(np.ones((1, 3), np.float32)).ravel().tolist() == [15]
    assert any(
        p.name == "model.onnx" for p in (local / "kept").rglob("*")
    )  # sent to the server, not written past it
    assert not list(local.rglob("*.pkl"))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with tracking.run("served") as one:
            server.shutdown()
            server.server_close()
            one.metrics({"auroc": 0.8})
            one.metrics({"auroc": 0.9})
    assert sum("not tracked" in str(w.message) for w in heard) == 1
