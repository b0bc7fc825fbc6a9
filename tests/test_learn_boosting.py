"Boosters, selection, imbalance, and their ONNX graph: what prose cannot hold."

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import loaded
from scipy.special import expit, logit

from medlab.core.seeds import stream
from medlab.learn import boosting, imbalance, selection, trees_onnx
from medlab.learn.growing import KINDS, matrix

TREES = KINDS[:3]


def cohort(n=1500, seed=1):
    rng = stream(seed, "boosting tests")
    x = pd.DataFrame(rng.normal(size=(n, 4)), columns=[f"x_{i}" for i in range(4)]).astype("float32")
    truth = -1 + x.x_0 + 0.8 * x.x_1 * (x.x_1 > 0)
    y = (rng.random(n) < expit(truth)).astype(float)
    x.loc[rng.random(n) < 0.2, "x_1"] = np.nan
    return x, y


@pytest.fixture(scope="module")
def fitted():
    x, y = cohort()
    return (
        x,
        y,
        {kind: boosting.fit(kind, {"rounds": 25} if kind in TREES else {}, x, y, seed=3) for kind in KINDS},
    )


def test_a_second_process_with_two_threads_writes_the_same_bytes(fitted, tmp_path):
    models = fitted[2]
    names = [name for model in models.values() for name in boosting.save(model, tmp_path / "one")]
    assert names == [n for k in KINDS for n in (boosting.FILES[k], f"{k}.about.json")]
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from test_learn_boosting import *\nx, y = cohort()\n"
        "for kind in KINDS:\n"
        "    m = boosting.fit(kind, {'rounds': 25} if kind in TREES else {}, x, y, seed=3, threads=2)\n"
        f"    boosting.save(m, {str(tmp_path / 'two')!r})\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
        assert b"/" + b"work" not in (tmp_path / "one" / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_is_the_saved_one_and_a_changed_file_is_refused(kind, fitted, tmp_path):
    x, _, models = fitted
    native, about = boosting.save(models[kind], tmp_path)
    back = boosting.load(kind, tmp_path)
    assert back.features == models[kind].features and back.parameters == models[kind].parameters
    assert np.array_equal(boosting.predict(back, x), boosting.predict(models[kind], x))
    again = boosting.save(back, tmp_path / "again")[0]
    assert (tmp_path / "again" / again).read_bytes() == (tmp_path / native).read_bytes()
    whole = (tmp_path / native).read_bytes()
    assert not any(word in whole for word in (b"cloudpickle", b"builtins", b"__reduce__"))
    for broken in (whole[: len(whole) // 2], b"", whole[:-30] + b"9" + whole[-29:], b"x" + whole):
        (tmp_path / native).write_bytes(broken)
        with pytest.raises(ValueError, match="not the file that"):
            boosting.load(kind, tmp_path)
    described = json.loads((tmp_path / about).read_text())
    import hashlib

    for broken in (
        whole[: len(whole) // 2],
        b"",
    ):  # a forger who also changes the description gets an error, not a crash
        (tmp_path / native).write_bytes(broken)
        (tmp_path / about).write_text(json.dumps(described | {"sha256": hashlib.sha256(broken).hexdigest()}))
        with pytest.raises(ValueError, match=f"cannot be read by {kind}"):
            boosting.load(kind, tmp_path)
    (tmp_path / about).unlink()
    with pytest.raises(ValueError, match="absent"):
        boosting.load(kind, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_add_up_to_the_log_odds(kind, fitted):
    x, _, models = fitted
    parts = boosting.contributions(models[kind], x.iloc[:300])
    assert parts.shape == (300, 5)
    assert np.abs(parts.sum(axis=1) - logit(boosting.predict(models[kind], x.iloc[:300]))).max() < 1e-5
    assert boosting.importance(models[kind]).idxmax() == "x_0"
    assert boosting.importance(models[kind]).sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_found_by_name_and_a_patient_is_the_same_alone_and_in_a_crowd(kind, fitted):
    x, _, models = fitted
    p = boosting.predict(models[kind], x)
    mixed = x[["x_2", "x_0", "x_3", "x_1"]].assign(unknown="text").astype({"x_0": "float64"})
    assert np.array_equal(boosting.predict(models[kind], mixed), p)
    assert np.array_equal([boosting.predict(models[kind], x.iloc[[i]])[0] for i in range(5)], p[:5])
    assert np.array_equal(boosting.predict(models[kind], x, threads=2), p)
    assert boosting.predict(models[kind], x.iloc[:0]).shape == (0,)
    with pytest.raises(ValueError, match="absent: x_2"):
        boosting.predict(models[kind], x.drop(columns="x_2"))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("lightgbm", {"num_leafs": 8}),
        ("lightgbm", {"n_estimators": 8}),
        ("xgboost", {"max_dept": 3}),
        ("xgboost", {"eta": 0.3}),
        ("catboost", {"dept": 3}),
        ("catboost", {"bagging_temperature": 0.5}),
        ("catboost", {"iterations": 10}),
        ("logistic", {"rounds": 10}),
        ("forest", {}),
    ],
)
def test_a_name_that_would_be_ignored_is_refused(kind, parameters, fitted):
    with pytest.raises(ValueError, match=f"{next(iter(parameters), kind)}"):
        boosting.fit(kind, parameters, *fitted[:2])


def test_resolved_parameters_are_the_librarys_own(fitted):
    x, y, models = fitted
    asked = {
        "lightgbm": {"num_leaves": 7, "lambda_l2": 2.5, "bagging_fraction": 0.7},
        "xgboost": {"max_depth": 2, "reg_lambda": 2.5, "subsample": 0.7},
        "catboost": {"depth": 3, "l2_leaf_reg": 2.5, "subsample": 0.7},
        "logistic": {"C": 0.5},
    }
    for kind, wanted in asked.items():
        model = boosting.fit(kind, wanted, x, y)
        assert all(model.parameters[name] == pytest.approx(value) for name, value in wanted.items())
        assert not {"num_threads", "nthread", "thread_count", "n_jobs"} & set(model.parameters)
        assert not np.array_equal(boosting.predict(model, x), boosting.predict(models[kind], x))
        json.dumps(model.parameters)
    assert models["xgboost"].parameters["base_score"] == pytest.approx(y.mean(), abs=0.02)


@pytest.mark.parametrize("kind", TREES)
def test_early_stopping_keeps_the_best_round_and_a_search_can_end_a_fit(kind):
    x, y = cohort(600)
    others = cohort(600, seed=2)
    scores = []
    wanted = {"rounds": 150, "patience": 10, "learning_rate": 0.3}
    model = boosting.fit(kind, wanted, x, y, validation=others, stop=lambda r, s: scores.append((r, s)))
    best = min(scores, key=lambda item: item[1])
    assert model.parameters["rounds"] == best[0] and len(scores) == best[0] + 10
    p = boosting.predict(model, others[0])
    assert -np.log(np.where(others[1] == 1, p, 1 - p)).mean() == pytest.approx(best[1], abs=1e-6)
    ended = boosting.fit(kind, {"rounds": 50}, x, y, validation=others, stop=lambda r, s: r == 7)
    assert ended.parameters["rounds"] == 7

    class Pruned(Exception):
        pass

    def prune(round, score):
        raise Pruned(f"in round {round}")

    with pytest.raises(Pruned, match="in round 1"):
        boosting.fit(kind, {"rounds": 50}, x, y, validation=others, stop=prune)
    with pytest.raises(ValueError, match="validation"):
        boosting.fit(kind, {"patience": 5}, x, y)


def test_weights_are_heard(fitted):
    x, y, models = fitted
    for kind in KINDS:
        some = {"rounds": 25} if kind in TREES else {}
        heavy = boosting.fit(kind, some, x, y, weight=imbalance.weights(y, "balanced"))
        assert boosting.predict(heavy, x).mean() > boosting.predict(models[kind], x).mean() + 0.03


def test_bad_rows_are_named(fitted):
    x, y, _ = fitted
    with pytest.raises(ValueError, match="row 3, column x_2: infinite"):
        boosting.fit("lightgbm", {}, x.assign(x_2=np.where(np.arange(len(x)) == 3, np.inf, 0)), y)
    with pytest.raises(ValueError, match="must be numbers"):
        matrix(x.assign(x_2="F"), ("x_2",))
    with pytest.raises(ValueError, match="x_0 is there twice"):
        matrix(pd.concat([x, x[["x_0"]]], axis=1), ("x_1",))
    with pytest.raises(ValueError, match="nothing to learn"):
        boosting.fit("xgboost", {}, x, np.zeros(len(x)))
    with pytest.raises(ValueError, match="zeros and ones"):
        boosting.fit("xgboost", {}, x, y + 1)
    with pytest.raises(ValueError, match="letters, digits"):
        boosting.fit("lightgbm", {}, x.rename(columns={"x_0": "a b"}), y)
    with pytest.raises(TypeError, match="DataFrame"):
        boosting.predict(fitted[2]["lightgbm"], x.to_numpy())


def test_a_fit_survives_columns_without_values_and_a_constant_one(fitted):
    x, y, _ = fitted
    odd = x.assign(x_2=np.float32(np.nan), x_3=np.float32(1))
    for kind in KINDS:
        p = boosting.predict(boosting.fit(kind, {"rounds": 5} if kind in TREES else {}, odd, y), odd)
        assert np.isfinite(p).all()


def test_a_blend_is_the_weighted_mean_of_log_odds(fitted):
    x, _, models = fitted
    pair = {kind: models[kind] for kind in ("xgboost", "logistic")}
    expected = (
        3 * logit(boosting.predict(models["xgboost"], x)) + logit(boosting.predict(models["logistic"], x))
    ) / 4
    assert np.allclose(boosting.blend(pair, {"xgboost": 3, "logistic": 1}, x), expected, atol=1e-12)
    with pytest.raises(ValueError, match="weights must name"):
        boosting.blend(pair, {"xgboost": 1}, x)


class Moved:
    "A recalibration."

    intercept, slope = -0.3, 1.2

    def apply(self, p):
        return expit(self.intercept + self.slope * logit(p))


def test_the_graph_equals_the_models_on_every_threshold_and_repeats_its_bytes(fitted, tmp_path):
    import onnx

    x, _, models = fitted
    weights = {"lightgbm": 2, "xgboost": 1, "catboost": 1, "logistic": 0.5}
    order = ("x_3", "x_1", "x_0", "x_2", "x_spare")
    trees_onnx.export(models, weights, Moved(), tmp_path / "a.onnx", features=order)
    trees_onnx.export(models, weights, Moved(), tmp_path / "b.onnx", features=order)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert b"/" + b"work" not in (tmp_path / "a.onnx").read_bytes()
    doubles = models["lightgbm"].native.trees_to_dataframe()[["split_feature", "threshold"]].dropna()
    points = [(name, value) for name, value in doubles.itertuples(index=False)]
    for node in onnx.load(tmp_path / "a.onnx").graph.node:
        if node.op_type == "TreeEnsembleRegressor":
            held = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            ends = zip(held["nodes_featureids"], held["nodes_modes"], held["nodes_values"], strict=True)
            points += [
                (order[column], value) for column, mode, value in ends if mode != b"LEAF" and abs(value) < 1e9
            ]
    points = list(dict.fromkeys(points))
    rows = pd.concat([x] * (3 * len(points) // len(x) + 1), ignore_index=True).iloc[: 3 * len(points)].copy()
    values = rows.to_numpy(copy=True)
    for i, (name, value) in enumerate(points):
        near, column = np.float32(value), rows.columns.get_loc(name)
        values[3 * i : 3 * i + 3, column] = (
            near,
            np.nextafter(near, np.float32(-9)),
            np.nextafter(near, np.float32(9)),
        )
    hard = pd.DataFrame(values, columns=x.columns)
    hard = pd.concat([x, hard, x * np.float32(np.nan), x.assign(x_0=np.float32(np.nan)), x.round(1)]).assign(
        x_spare=0.0
    )
    assert trees_onnx.parity(tmp_path / "a.onnx", models, weights, Moved(), hard) < 5e-7
    run = trees_onnx.load(tmp_path / "a.onnx")
    for (
        kind,
        model,
    ) in models.items():  # a patient on the wrong side of one split would differ by a leaf: 1e-3 and more
        assert np.abs(run(hard)[kind] - boosting.log_odds(model, hard)).max() < 5e-6
    assert run(hard.iloc[:0])["probability"].shape == (0,)
    assert run(hard.iloc[:1])["probability"] == pytest.approx(run(hard)["probability"][:1], abs=1e-7)
    (tmp_path / "a.onnx").write_bytes((tmp_path / "a.onnx").read_bytes()[:500])
    with pytest.raises(ValueError, match="not a graph"):
        trees_onnx.load(tmp_path / "a.onnx")


def test_what_cannot_be_exported_exactly_is_refused(fitted, tmp_path):
    x, y, models = fitted
    lossguide = boosting.fit("catboost", {"rounds": 3, "grow_policy": "Lossguide"}, x, y)
    with pytest.raises(ValueError, match="symmetric"):
        trees_onnx.export({"catboost": lossguide}, {"catboost": 1}, None, tmp_path / "no.onnx")
    with pytest.raises(ValueError, match="not among"):
        trees_onnx.export(
            {"xgboost": models["xgboost"]}, {"xgboost": 1}, None, tmp_path / "no.onnx", ("x_0",)
        )
    assert not (tmp_path / "no.onnx").exists()


def test_smote_touches_no_real_row_and_refuses_to_delete_patients():
    x, y = cohort(800)
    x, y = x[(y == 0) | (np.arange(800) < 200)], y[(y == 0) | (np.arange(800) < 200)]
    more, outcome = imbalance.smote(x, y, 0.5, seed=1)
    assert more.iloc[: len(x)].equals(x.reset_index(drop=True)) and np.array_equal(outcome[: len(x)], y)
    assert outcome.sum() == int(0.5 * (1 - y).sum()) and more.iloc[len(x) :].notna().all(axis=None)
    assert more.equals(imbalance.smote(x, y, 0.5, seed=1)[0])
    low, high = x[y == 1].fillna(x.median()).min(), x[y == 1].fillna(x.median()).max()
    assert ((more.iloc[len(x) :] >= low - 1e-5) & (more.iloc[len(x) :] <= high + 1e-5)).all(axis=None)
    present = y.sum() / (1 - y).sum()
    for ratio in (present, present / 2, 1.5):
        with pytest.raises(ValueError, match="is not above the present one"):
            imbalance.smote(x, y, ratio)
    with pytest.raises(ValueError, match="neighbours"):
        imbalance.smote(x.iloc[:40], np.arange(40) < 3, 0.5)


def test_balanced_weights_balance():
    y = np.array([1.0] * 7 + [0.0] * 93)
    w = imbalance.weights(y, "balanced")
    assert w.mean() == pytest.approx(1) and w[y == 1].sum() == pytest.approx(w[y == 0].sum())
    assert (imbalance.weights(y) == 1).all()


def noisy(seed=5, patients=150, years=3):
    rng = stream(seed, "selection tests")
    groups = np.repeat([f"P{i}" for i in range(patients)], years)
    x = pd.DataFrame(rng.normal(size=(len(groups), 8)), columns=[f"x_{i}" for i in range(8)]).astype(
        "float32"
    )
    x["x_name"] = rng.normal(size=patients).astype("float32")[np.repeat(np.arange(patients), years)]
    y = (rng.random(len(groups)) < expit(2 * x.x_3 - 1.5 * x.x_5)).astype(float).to_numpy()
    return x, y, groups


def test_selection_finds_what_matters_and_keeps_patients_together():
    x, y, groups = noisy()
    some = {"rounds": 25, "min_data_in_leaf": 10}
    kept, table = selection.by_importance(x, y, groups, parameters=some)
    assert kept == ["x_3", "x_5"] and set(table.feature) == set(x)
    assert selection.by_importance(x, y, groups, parameters=some)[1].equals(table)
    assert selection.by_importance(x, y, groups, most=1, parameters=some)[0] == ["x_3"]
    left, steps = selection.recursive(x, y, groups, most=2, step=0.5, parameters=some)
    assert left == ["x_3", "x_5"] and list(steps.features) == [9, 5, 3, 2] and (steps.rows == len(x)).all()
    of = selection.folds(groups, 3)
    assert pd.Series(of).groupby(groups).nunique().max() == 1 and set(of) == {0, 1, 2}
    turned = np.random.default_rng(0).permutation(len(x))
    assert np.array_equal(selection.folds(groups[turned], 3), of[turned])


def test_nothing_is_kept_of_shuffled_labels_but_one_column_and_a_reason():
    x, y, groups = noisy()
    kept, table = selection.by_importance(
        x, np.random.default_rng(1).permutation(y), groups, parameters={"rounds": 25}
    )
    assert len(kept) == 1 and "nothing beats noise" in table.reason[0]


def test_memory_bounds_the_rows_by_whole_patients():
    x, y, groups = noisy()
    assert 3 * 4 * 9 * len(x) > 30e3
    _, steps = selection.recursive(x, y, groups, most=8, memory="30kB", parameters={"rounds": 3})
    rows = steps.rows.iloc[0]
    assert rows % 3 == 0 and 3 * 4 * 9 * rows <= 30e3 < 3 * 4 * 9 * (rows + 6)
    assert steps.patients.iloc[0] == rows / 3 and "whole patients" in steps.note.iloc[0]
    with pytest.raises(ValueError, match="not one patient"):
        selection.recursive(x, y, groups, memory="0.1kB")
    with pytest.raises(ValueError, match="must be a size"):
        selection.recursive(x, y, groups, memory="lots")


def test_importing_these_modules_loads_no_library_of_models():
    names = ["boosting", "selection", "imbalance", "trees_onnx"]
    heavy = ("lightgbm", "xgboost", "catboost", "sklearn", "imblearn", "onnx", "onnxruntime", "torch")
    assert loaded([f"medlab.learn.{name}" for name in names], heavy) == []
