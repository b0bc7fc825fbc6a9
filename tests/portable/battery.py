"""A little of every numeric library that medlab uses, and a digest of each result's bits: `battery.py [NAME ...]`.

Each piece is chosen for the arithmetic that the stages do: products of matrices, sums, elementary functions, an LSTM's
training, trees, searches, resampling. What is printed is one JSON object, name -> SHA-256, so that two processors can be
compared by comparing two files. A library that isn't installed is left out, and said so on the error stream.
"""

import hashlib
import io
import json
import sys
import time

import numpy as np


def digest(*values) -> str:
    "SHA-256 over the bits of arrays, numbers and bytes."
    total = hashlib.sha256()
    for value in values:
        total.update(value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def rows(n: int = 600, columns: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    "A table with holes, and a 0/1 outcome that depends on it."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns))
    y = (x[:, 0] - 0.5 * x[:, 1] * x[:, 2] + rng.normal(size=n) > 0).astype(float)
    x[rng.random(x.shape) < 0.05] = np.nan
    return x.astype(np.float32), y


def numpy_arithmetic():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(150, 130)), rng.normal(size=(130, 90))
    square = a.T @ a
    for kind in (np.float64, np.float32):
        x = rng.normal(size=5001).astype(kind)
        yield from (
            np.exp(x),
            np.log(np.abs(x)),
            np.sin(x),
            np.cos(x),
            np.tanh(x),
            np.sqrt(np.abs(x)),
            np.abs(x) ** 3.3,
            np.arctan2(x, 2 * x + 1),
        )
        yield from (
            x.sum(),
            x.mean(),
            x.std(),
            np.cumsum(x),
            np.dot(x, x),
            np.sort(x),
            np.quantile(x, [0.1, 0.5]),
        )
        yield from (a.astype(kind) @ b.astype(kind), np.einsum("ij,jk->ik", a.astype(kind), b.astype(kind)))
    yield from (
        np.linalg.solve(square, a.T),
        *np.linalg.svd(b),
        np.linalg.eigvalsh(square),
        np.linalg.lstsq(a, a[:, :3] * 2)[0],
    )
    ties = np.round(a.ravel(), 1)
    yield from (np.argsort(ties), np.argpartition(ties, 30), np.unique(ties, return_index=True)[1])
    yield from (np.fft.rfft(a).real, np.corrcoef(a.T), np.polyfit(a[:, 0], a[:, 1], 3))


def scipy_functions():
    from scipy import linalg, optimize, signal, special, stats

    x = np.random.default_rng(2).normal(size=(300, 5))
    yield from (
        special.expit(x),
        special.logit(special.expit(x)),
        special.ndtri(special.ndtr(x)),
        special.gammaln(np.abs(x)),
        special.erf(x),
    )
    yield from (
        special.logsumexp(x, axis=1),
        stats.norm.logpdf(x),
        stats.t.sf(x, 4),
        stats.beta.ppf([0.02, 0.98], 3, 9),
    )
    yield from (
        stats.spearmanr(x[:, 0], x[:, 1]).statistic,
        stats.ks_2samp(x[:, 0], x[:, 1]).pvalue,
        stats.gaussian_kde(x[:, 0])(x[:9, 1]),
    )
    yield optimize.minimize(optimize.rosen, np.full(5, 1.3)).x
    yield from (
        linalg.cho_solve(linalg.cho_factor(x.T @ x), x.T),
        signal.lfilter([1, 0.5], [1, -0.9], x[:, 0]),
    )


def pandas_tables():
    import pandas as pd

    x = np.random.default_rng(3).normal(size=(2000, 3))
    table = pd.DataFrame(x, columns=list("abc")).assign(who=np.arange(2000) % 37)
    groups = table.groupby("who")
    yield from (
        groups.mean(),
        groups.std(),
        groups.sum(),
        groups.median(),
        table.rolling(12).mean(),
        table["a"].ewm(span=9).mean(),
    )
    yield from (table[["a", "b", "c"]].corr(), table.describe(), table["a"].rolling(30).std())


def arrow_tables():
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    x = np.random.default_rng(4).normal(size=5000)
    column = pa.array(x)
    yield from (
        pc.sum(column).as_py(),
        pc.mean(column).as_py(),
        pc.variance(column).as_py(),
        pc.exp(column).to_numpy(),
        pc.stddev(column).as_py(),
    )
    file = io.BytesIO()
    pq.write_table(
        pa.Table.from_pandas(pd.DataFrame({"x": x, "word": [f"p{i % 90}" for i in range(5000)]})),
        file,
        compression="zstd",
    )
    yield file.getvalue()


def sklearn_models():
    from sklearn.cluster import KMeans
    from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import NearestNeighbors

    x, y = rows()
    full = np.nan_to_num(x).astype(float)
    for solver in ("newton-cholesky", "lbfgs"):
        yield LogisticRegression(solver=solver, C=0.1, tol=1e-8).fit(full, y).coef_
    yield from (
        RidgeCV([0.1, 1, 10]).fit(full, y).coef_,
        IsotonicRegression().fit(full[:, 0], y).predict(np.sort(full[:, 0])[:50]),
    )
    yield HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(x, y).predict_proba(x)
    yield IsolationForest(n_estimators=20, random_state=0).fit(full).score_samples(full)
    yield from (
        KMeans(4, n_init=2, random_state=0).fit(full).cluster_centers_,
        NearestNeighbors(n_neighbors=3).fit(full).kneighbors(full[:50])[0],
    )
    yield roc_auc_score(y, full[:, 0])


def statsmodels_fits():
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.nonparametric.smoothers_lowess import lowess

    x, y = rows()
    table = sm.add_constant(pd.DataFrame(np.nan_to_num(x).astype(float)))
    who = np.arange(len(y)) % 50
    yield (
        sm.GLM(y, table, family=sm.families.Binomial())
        .fit(cov_type="cluster", cov_kwds={"groups": who})
        .bse.to_numpy()
    )
    yield (
        sm.OLS(table[1].to_numpy(), table[[2, 3]])
        .fit(cov_type="cluster", cov_kwds={"groups": who})
        .pvalues.to_numpy()
    )
    yield lowess(y, np.nan_to_num(x[:, 0]).astype(float))


def lightgbm_trees():
    import lightgbm

    x, y = rows()
    how = {
        "objective": "binary",
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
        "seed": 1,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
    }
    booster = lightgbm.train(how, lightgbm.Dataset(x, y), 30)
    yield from (
        booster.predict(x, num_threads=1),
        booster.predict(x[:50], pred_contrib=True, num_threads=1),
        booster.model_to_string().encode(),
    )


def xgboost_trees():
    import xgboost

    x, y = rows()
    how = {
        "objective": "binary:logistic",
        "nthread": 1,
        "seed": 1,
        "subsample": 0.8,
        "max_depth": 4,
        "tree_method": "hist",
    }
    table = xgboost.DMatrix(x, y, nthread=1)
    booster = xgboost.train(how, table, 30)
    yield from (
        booster.predict(table),
        booster.predict(table, pred_contribs=True),
        bytes(booster.save_raw("ubj")),
    )


def catboost_trees():
    import catboost

    x, y = rows()
    model = catboost.CatBoostClassifier(
        iterations=30,
        depth=5,
        random_seed=1,
        thread_count=1,
        verbose=False,
        allow_writing_files=False,
        boosting_type="Plain",
    )
    model.fit(x, y)
    pool = catboost.Pool(x[:50], y[:50])
    yield from (
        model.predict(x, prediction_type="RawFormulaVal"),
        model.get_feature_importance(pool, type="ShapValues", thread_count=1),
        model.get_borders()[0],
    )


def resampling():
    from cleanlab.filter import find_label_issues
    from imblearn.over_sampling import SMOTE
    from mapie.regression import SplitConformalRegressor
    from sklearn.linear_model import LinearRegression

    x, y = rows()
    full = np.nan_to_num(x).astype(float)
    yield SMOTE(random_state=0).fit_resample(full[:-100], y[:-100] * (np.arange(len(y) - 100) % 3 == 0))[0]
    risk = 1 / (1 + np.exp(-full[:, 0]))
    yield find_label_issues(y.astype(int), np.column_stack([1 - risk, risk]), n_jobs=1)
    model = SplitConformalRegressor(
        LinearRegression().fit(full[:200, 1:], full[:200, 0]), confidence_level=0.9, prefit=True
    )
    yield model.conformalize(full[200:400, 1:], full[200:400, 0]).predict_interval(full[400:, 1:])[1]


def optuna_search():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1, multivariate=True))
    study.optimize(
        lambda t: (t.suggest_float("a", -3, 3) - 1) ** 2 + t.suggest_float("b", 1e-3, 1, log=True),
        n_trials=25,
    )
    yield np.array([[t.params["a"], t.params["b"]] for t in study.trials])


def figures():
    import matplotlib

    matplotlib.use("agg")
    import seaborn
    from matplotlib import pyplot as plt

    x, _ = rows()
    figure, axes = plt.subplots(1, 2, figsize=(5, 2))
    axes[0].plot(np.cumsum(np.nan_to_num(x[:, 0])))
    seaborn.kdeplot(x=np.nan_to_num(x[:, 1]).astype(float), ax=axes[1])
    for kind in ("png", "svg"):
        with matplotlib.rc_context({"svg.hashsalt": "medlab"}):
            file = io.BytesIO()
            figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
        yield file.getvalue()


def torch_lstm():
    import torch
    from torch import nn

    torch.manual_seed(1)
    values = torch.randn(64, 36, 8)
    for hidden in (64, 128):  # the sizes of the sample and of the reference
        net, head = nn.LSTM(8, hidden, num_layers=2, batch_first=True, dropout=0.2), nn.Linear(hidden, 12)
        weights = [*net.parameters(), *head.parameters()]
        step = torch.optim.Adam(weights, lr=1e-3, fused=True)  # the others take MKL's square root
        for _ in range(3):
            step.zero_grad()
            loss = nn.functional.huber_loss(head(net(values)[0][:, -1]), values[:, -12:, 0])
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            step.step()
            yield loss.item()
        yield from (w.detach().numpy() for w in weights)
        with torch.no_grad():
            yield from (net.eval()(values[:3])[0].numpy(), net(values)[0].numpy())


def onnx_networks():
    "ONNX Runtime takes no orders about instructions: that its kernels agree is found here, and nowhere promised."
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(6)
    tensor = lambda name, *shape: numpy_helper.from_array(
        (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32), name
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    for hidden in (64, 128):
        weights = [
            tensor("w", 1, 4 * hidden, 8),
            tensor("r", 1, 4 * hidden, hidden),
            tensor("b", 1, 8 * hidden),
        ]
        weights += [tensor("v", hidden, 12), numpy_helper.from_array(np.array([0], np.int64), "first")]
        nodes = [
            helper.make_node("LSTM", ["x", "w", "r", "b"], ["", "h"], hidden_size=hidden),
            helper.make_node("Squeeze", ["h", "first"], ["state"]),
            helper.make_node("Gemm", ["state", "v"], ["moved"]),
            helper.make_node("Softplus", ["moved"], ["y"]),
        ]
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(nodes, "lstm", [value("x", [36, "n", 8])], [value("y", ["n", 12])], weights)
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for n in (1, 3, 64, 500):
            yield session.run(None, {"x": rng.normal(size=(36, n, 8)).astype(np.float32)})[0]


def torch_layers():
    import torch
    from torch import nn

    torch.manual_seed(2)
    x = torch.randn(16, 8, 256, requires_grad=True)
    convolution, norm, attention = (
        nn.Conv1d(8, 32, 5, padding=2),
        nn.BatchNorm1d(32),
        nn.MultiheadAttention(32, 4, batch_first=True),
    )
    hidden = nn.functional.gelu(norm(convolution(x))).transpose(1, 2)
    out = nn.functional.softmax(attention(hidden, hidden, hidden)[0], dim=-1)
    (out.square().sum() + nn.GRU(32, 16, batch_first=True)(hidden)[0].sum()).backward()
    yield from (out.detach().numpy(), x.grad.numpy(), convolution.weight.grad.numpy())
    y = torch.randn(4001)
    yield from (
        f(y).numpy()
        for f in (
            torch.exp,
            torch.sigmoid,
            torch.tanh,
            torch.sin,
            torch.sum,
            torch.std,
            torch.erf,
            torch.cos,
            torch.log1p,
        )
    )
    yield (torch.randn(70, 90) @ torch.randn(90, 50)).numpy()


def keras_lstm():
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    import keras

    keras.utils.set_random_seed(1)
    x = np.random.default_rng(5).normal(size=(64, 60, 6)).astype("float32")
    model = keras.Sequential(
        [
            keras.layers.Conv1D(16, 5, activation="relu"),
            keras.layers.LSTM(32, return_sequences=True),
            keras.layers.LSTM(32),
            keras.layers.Dense(3),
        ]
    )
    model.compile("adam", "mse")
    model.fit(x, x[:, -1, :3], epochs=2, batch_size=32, verbose=0)
    yield from (*model.get_weights(), model(x[:5]).numpy())


PIECES = {
    f.__name__: f
    for f in (
        numpy_arithmetic, scipy_functions, pandas_tables, arrow_tables, sklearn_models, statsmodels_fits, lightgbm_trees,
        xgboost_trees, catboost_trees, resampling, optuna_search, figures, torch_lstm, torch_layers, onnx_networks, keras_lstm,
    )
}  # fmt: skip


def main(names: list[str]) -> None:
    found = {}
    for name in names or PIECES:
        began = time.monotonic()
        try:
            found[name] = digest(*PIECES[name]())
        except ModuleNotFoundError as error:
            sys.stderr.write(f"{name}: left out, {error.name} is not installed\n")
            continue
        sys.stderr.write(f"{name}: {time.monotonic() - began:.1f} s\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
