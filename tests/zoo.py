"""The leak zoo: faults that real systems had, each built small and broken or mended by one flag.

`build(broken)` hands back what a study would: predictions, study, evidence. Nothing but the line that asks `broken` differs.
"""

import argparse
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge.audit_probes import association, forest, line, twin
from medlab.judge.dependence import clustered
from medlab.judge.evidence import Evidence
from medlab.shape import grid, windows
from medlab.shape.scaling import fit_robust
from medlab.shape.splits import by_subject

HOUR = pd.Timedelta(hours=1)
START = pd.Timestamp("2024-03-01")


def question(
    name: str, kind: str, target: Target, horizons: tuple, unit: str, primary: str = "model"
) -> Study:
    return Study(
        name, name.title(), f"What about {target.label.lower()}?", kind, (target,), horizons, unit, "UTC timestamp",
        primary, "usual", (), "To teach.", "Anything else.",
    )  # fmt: skip


WORSE = Target("worse", "Deterioration", "probability", 0, 1, 0.05, "convention", 0.1, 0.0, "convention", 2)
POTASSIUM = Target("potassium", "Potassium", "mmol/L", 1, 10, 0.1, "convention", 0.3, 0.05, "convention", 2)
GLUCOSE = Target("glucose", "Glucose", "mg/dL", 20, 600, 5, "convention", 15, 0.15, "convention")
WARD = question("ward", "binary", WORSE, (0.0,), "h")
THEATRE = question("theatre", "binary", WORSE, (1.0,), "min")
LAB = question("lab", "regression", POTASSIUM, (24.0,), "h")
PADDED = question("lab", "regression", POTASSIUM, tuple(24.0 + i for i in range(20)), "h")
SENSOR = question("sensor", "regression", GLUCOSE, (10.0,), "min")

# why a question does not arise in a toy; anything that is not excused here is looked at
NOT_ASKED = {
    "future_replay": "every input is one reading of its own moment; none is computed over time",
    "outcome_erased": "every input is one reading of its own moment; none is computed from an outcome",
    "sweep_reached": "no search was made",
}


@dataclass
class Case:
    "What a study hands to the audit, and what a naive reader looks at."

    predictions: pd.DataFrame
    study: Study
    evidence: Evidence
    told: dict = field(default_factory=dict)  # further numbers that a report would show


def auroc(case: Case, model: str | None = None) -> float:
    "Area under the ROC curve on the test rows."
    rows = case.predictions[case.predictions["model"] == (model or case.study.primary)]
    return association(rows["y"], rows["yhat"], rows["subject"])[0]


def r2(case: Case) -> float:
    "Share of the variance on the test rows that the model takes away from the usual guess."
    by = case.predictions.set_index(["model", "subject", "time", "horizon"])
    error = lambda model: ((by.loc[model, "y"] - by.loc[model, "yhat"]) ** 2).sum()
    return float(1 - error(case.study.primary) / error(case.study.reference))


# --------------------------------------------------------------------------- patients with a known truth


def people(rng: np.random.Generator, n: int) -> pd.DataFrame:
    "What does not change about a patient."
    return pd.DataFrame(
        {
            "subject": [f"P{i:05d}" for i in rng.choice(90_000, n, replace=False)],
            "birth_year": rng.integers(1935, 2005, n),
            "sex": rng.choice(["F", "M"], n),
            "height_cm": np.round(rng.normal(170, 10, n), 1),
            "ward": rng.choice(["east", "west"], n),
        }
    )


def ward(seed: int, n: int = 80, visits: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Rows (a visit each, patients in no order) and people; the chance of getting worse is known."
    rng = stream(seed, "ward")
    who = people(rng, n)
    state = clustered(rng, n, visits, icc=0.3, rho=0.85)
    chance = expit(2.5 * state - 0.3)
    body = lambda usual, own, effect, noise: (
        usual + own * rng.normal(size=(n, 1)) + effect * state + noise * rng.normal(size=(n, visits))
    )
    hour = rng.integers(0, 2000, (n, 1)) + np.arange(visits)
    rows = pd.DataFrame(
        {
            "subject": np.repeat(who["subject"], visits).to_numpy(),
            "time": START + pd.to_timedelta(hour.ravel(), unit="h"),
            "y": (rng.random((n, visits)) < chance).ravel().astype(float),
            "oracle": chance.ravel(),
            "x_heart_rate": body(76, 5, 6, 2).ravel(),
            "x_breathing": body(16, 1, 1.5, 0.7).ravel(),
            "x_lactate": body(2, 0.2, 0.6, 0.3).ravel(),
            "x_temperature": body(36.9, 0.2, 0.1, 0.2).ravel(),
            "by_ward": np.repeat(who["ward"], visits).to_numpy(),
        }
    )
    return rows.assign(row=np.arange(len(rows))), who


def parted(rows: pd.DataFrame, seed: int = 0, train: float = 0.6) -> pd.DataFrame:
    "Whole patients in training or test."
    return rows.assign(split=by_subject(rows["subject"], (train, 0.0, 1 - train), seed))


def inputs_of(rows: pd.DataFrame) -> np.ndarray:  # (n, features)
    return rows[[c for c in rows if c.startswith("x_")]].to_numpy(float)


# --------------------------------------------------------------------------- what a study hands in


def hand_in(
    rows: pd.DataFrame,  # subject, split, time, row, y, x_*, by_*, oracle where known
    who: pd.DataFrame | None = None,  # subject and what does not change
    study: Study = WARD,
    pipe=inputs_of,  # rows -> (n, features), before scaling
    fit=forest,  # (train_x, train_y, test_x) -> yhat
    level: str | None = None,  # column that a forecast of a move starts from
    seen: pd.DataFrame | None = None,  # rows that the scaler is fitted on; the training rows where None
    ahead: pd.Timedelta = 0 * HOUR,  # from a row to what is forecast
    back: pd.Timedelta = 0 * HOUR,  # how far an input reaches back
    parts: dict[str, list[int]] | None = None,  # further models, on some of the inputs
    groups: str | None = None,  # where the twin trades outcomes
    told: dict | None = None,
    **more,  # further parts of the evidence, or parts to replace
) -> Case:
    "Fit on the training rows, predict the test rows, and gather the evidence from the same files."
    rows = rows.reset_index(drop=True)
    train = (rows["split"] == "train").to_numpy()
    learn, test = rows[train], rows[~train]
    mixed = test.sample(frac=1, random_state=0)
    raw = pipe(learn)
    scaler = fit_robust(raw if seen is None else pipe(seen), [f"input {i}" for i in range(raw.shape[1])])
    y = rows["y"].to_numpy(float)
    start = rows[level].to_numpy(float) if level else np.zeros(len(rows))
    x = [scaler.transform(values).astype(float) for values in (raw, pipe(test), pipe(mixed))]
    on_train, on_test, on_mixed = np.split(
        fit(x[0], y[train], np.concatenate(x)), np.cumsum([len(learn), len(test)])
    )
    said = {study.primary: on_test, study.reference: np.full(len(test), y[train].mean())}
    if "oracle" in rows:
        said["oracle"] = test["oracle"].to_numpy(float)
    for name, columns in (parts or {}).items():
        said[name] = fit(x[0][:, columns], y[train], x[1][:, columns])
    keys = test[["subject", "time"]].assign(
        split="test", target=study.targets[0].name, horizon=study.horizons[0], y=(y + start)[~train]
    )
    predictions = pd.concat(
        [keys.assign(model=name, yhat=v + start[~train], lo=np.nan, hi=np.nan) for name, v in said.items()]
    ).sort_values(["model", "split", "subject", "time"], ignore_index=True)
    split_of = rows[["subject", "split"]].drop_duplicates()
    spans = rows.assign(first=rows["time"] - back, origin=rows["time"], last=rows["time"] + ahead)
    measured = rows.assign(y=y + start, time=rows["time"] + ahead)
    evidence = {
        "windows": spans[["subject", "split", "first", "origin", "last"]],
        "people": None if who is None else split_of.merge(who, on="subject"),
        "examples": rows.drop(columns="time"),
        "outputs": (y + start)[:, None],
        "inputs": inputs_of(rows)[:, None, :],
        "features": tuple(c.removeprefix("x_") for c in rows if c.startswith("x_")),
        "shuffled": (
            test[["subject", "time"]].assign(yhat=on_test),
            mixed[["subject", "time"]].assign(yhat=on_mixed),
        ),
        "fitted": {"scaler": {"n_rows": scaler.n_rows, "rows_digest": scaler.rows_digest}},
        "training_rows": {"scaler": raw},
        "predicted": mixed[["subject", "time"]].assign(yhat=on_mixed + start[mixed.index]),
        "twin": twin(rows, fit, n_permutations=4, groups=groups),
        "training": learn[["subject"]].assign(y=(y + start)[train], yhat=on_train + start[train]),
        "truth": measured[["subject", "time", "y"]].drop_duplicates(),
        "simulated": "oracle" in rows,
        "reasons": NOT_ASKED,
    }
    return Case(predictions, study, Evidence(**{**evidence, **more}), told or {})


def innocent(seed: int) -> Case:
    "A study with nothing wrong."
    rows, who = ward(seed)
    return hand_in(parted(rows, seed), who)


# --------------------------------------------------------------------------- laboratory: one value before, one after


def lab(seed: int, n: int = 80, days: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    "A row for each day with prescriptions: what was measured before, the doses, and what was measured after."
    rng = stream(seed, "lab")
    who = people(rng, n)
    potassium = 4.2 + 0.5 * clustered(rng, n, days, icc=0.4, rho=0.8)
    sodium = 138 + 4 * clustered(rng, n, days, icc=0.4, rho=0.8)
    supplement, diuretic = rng.gamma(2, 10, (2, n, days)) * (rng.random((2, n, days)) < 0.5)
    move = -0.35 * (potassium - 4.2) + 0.01 * supplement - 0.012 * diuretic
    day = rng.integers(0, 400, (n, 1)) + 3 * np.arange(days)
    rows = pd.DataFrame(
        {
            "subject": np.repeat(who["subject"], days).to_numpy(),
            "time": START + pd.to_timedelta(day.ravel(), unit="D"),
            "y": (move + 0.3 * rng.normal(size=(n, days))).ravel(),
            "oracle": move.ravel(),
            "x_potassium": potassium.ravel(),
            "x_sodium": sodium.ravel(),
            "x_supplement": supplement.ravel(),
            "x_diuretic": diuretic.ravel(),
        }
    )
    return rows.assign(row=np.arange(len(rows))), who


A_DAY = {
    "study": LAB, "fit": line, "level": "x_potassium", "ahead": 24 * HOUR, "back": 6 * HOUR,
    "is_series": False,  # a pair of values, before and after; nothing is claimed about the days between
}  # fmt: skip


def target_in_tensor(broken: bool) -> Case:
    """A forecaster of blood values after a prescription stacked [before, drugs, after] and took y = x[:, -1].
    The network copied its input: a validation loss of 2e-4 after ten epochs."""
    rows, who = lab(1)
    steps = [["x_potassium", "x_sodium"], ["x_supplement", "x_diuretic"]]
    if broken:
        rows["x_third_potassium"], rows["x_third_sodium"] = rows["x_potassium"] + rows["y"], rows["x_sodium"]
        steps.append(["x_third_potassium", "x_third_sodium"])
    tensor = np.stack([rows[step].to_numpy() for step in steps], axis=1)  # (n, steps, 2)
    return hand_in(parted(rows), who, inputs=tensor, features=("first", "second"), **A_DAY)


def padding_in_loss(broken: bool) -> Case:
    """That forecaster put one row of values into an output of twenty rows, and averaged the loss over all cells.
    25 cells of 2,600 were real, so that the squared error looked 104 times smaller than it was."""
    rows, who = lab(2)
    case = hand_in(parted(rows), who, **{**A_DAY, "study": PADDED})
    pads = [
        case.predictions.assign(horizon=h, y=0.0, yhat=case.predictions["yhat"] * 1e-3)
        for h in PADDED.horizons[1:]
    ]
    cells = pd.concat([case.predictions, *pads]).sort_values(
        ["model", "subject", "horizon"], ignore_index=True
    )
    case.predictions = cells if broken else cells[cells["horizon"] == 24].reset_index(drop=True)
    case.evidence.outputs = np.pad(case.evidence.outputs, ((0, 0), (0, 19)))
    return case


def missing_as_value(broken: bool) -> Case:
    """That forecaster wrote -200 where nothing was measured (61 % of the cells), in inputs and in outcomes.
    Who is measured before is measured after: the score came from telling the missing from the measured."""
    rows, who = lab(3)
    rng = stream(3, "ordered")
    ordered = rng.random(len(rows)) < 0.5
    after = np.where(rng.random(len(rows)) < 0.97, ordered, ~ordered)
    level = rows["x_potassium"]
    rows["oracle"] = level + rows["oracle"]
    rows["y"] = (level + rows["y"]).where(after)
    rows["x_potassium"] = level.where(ordered)
    rows["x_sodium"] = rows["x_sodium"].where(ordered)
    if broken:
        rows = rows.fillna(-200.0)
    else:
        rows = rows[rows["y"].notna()]
    masked = lambda some: np.column_stack([np.nan_to_num(x := inputs_of(some)), np.isnan(x)])
    return hand_in(parted(rows), who, pipe=masked, **{**A_DAY, "level": None})


# --------------------------------------------------------------------------- risk: one row a year


def risk(seed: int, broken: bool, prevalence: float = 0.15) -> tuple[pd.DataFrame, pd.DataFrame]:
    "The file of a simulated cohort, patients one after another; the riskiest rows get the diagnosis."
    rng = stream(seed, "risk")
    n, years = 110, 6
    who = people(rng, n).sort_values("subject", ignore_index=True)
    age = 2015 - who["birth_year"].to_numpy()[:, None] + np.arange(years)
    bmi = 27 + 4.5 * clustered(rng, n, years, icc=0.8, rho=0.6)
    pressure = 120 + 15 * clustered(rng, n, years, icc=0.6, rho=0.7)
    glucose = 95 + 15 * clustered(rng, n, years, icc=0.6, rho=0.7)
    found = np.where(rng.random((n, years)) < 0.1, np.nan, bmi)
    full = np.where(np.isnan(found), np.nanmedian(found), found)
    hazard = lambda bmi: 0.02 * age + 0.1 * bmi + 0.03 * pressure + 0.03 * glucose
    cut = lambda hazard: np.percentile(hazard, 100 * (1 - prevalence))  # one NaN, and it is NaN
    used = hazard(found if broken else full)
    draw = (used - cut(used) + 0.5 * rng.normal(size=used.shape)).ravel()
    ill = np.zeros(len(draw))
    ill[np.argsort(draw, kind="stable")[-round(prevalence * len(draw)) :]] = 1.0  # all NaN: the last rows
    rows = pd.DataFrame(
        {
            "subject": np.repeat(who["subject"], years).to_numpy(),
            "time": pd.to_datetime(np.tile(np.arange(2015, 2015 + years), n).astype(str)),
            "y": ill,
            "oracle": ndtr((hazard(full) - cut(hazard(full))) / 0.5).ravel(),
            "x_age": age.ravel(),
            "x_bmi": full.ravel(),
            "x_pressure": pressure.ravel(),
            "x_glucose": glucose.ravel(),
        }
    )
    return rows.assign(row=np.arange(len(rows))), who


def labels_by_row_order(broken: bool) -> Case:
    """A risk model's generator had a missing body mass index, so the risk cut-off was NaN, all risks were NaN, and argsort
    gave the diagnosis to the last rows of the file. The paper score was 0.9994; the true risk had an area of 0.499."""
    rows, who = risk(4, broken)
    number = association(rows["y"], rows["row"], rows["subject"])[0]
    told = {"row number": number, "true risk": association(rows["y"], rows["oracle"], rows["subject"])[0]}
    return hand_in(parted(rows), who, told=told)


def judged_on_training(broken: bool) -> Case:
    """That risk model was fitted on all rows and judged on all rows, "for the report".
    Area 1.000, and 1.000 again on permuted labels; 0.593 on new patients."""
    rows, who = ward(5)
    if broken:
        rows = pd.concat([rows.assign(split="train"), rows.assign(split="test")], ignore_index=True)
        return hand_in(rows, who)
    return hand_in(parted(rows), who)


def misaligned_by_sort(broken: bool) -> Case:
    """Its feature step sorted rows by patient and year and returned them sorted; the labels kept the order of the file.
    0.515 on new patients, and still 1.000 on the rows it was fitted on, so that nobody noticed."""
    rows, who = ward(6)
    rows = rows.sort_values("time", kind="stable", ignore_index=True)  # a file written year by year
    rows["row"] = np.arange(len(rows))
    sort = lambda some: some.sort_values(["subject", "time"]) if broken else some
    pipe = lambda some: inputs_of(sort(some))
    x, y = pipe(rows), rows["y"].to_numpy()
    told = {"on its own training rows": association(y, forest(x, y, x), rows["subject"])[0]}
    return hand_in(parted(rows), who, pipe=pipe, told=told)


def empty_temporal_split(broken: bool) -> Case:
    """Its split in time also took all patients out of the test set that had earlier rows: in a panel, everybody.
    195 rows to learn from, 5 to judge on, and a cross-validated area of 0.99 with a standard deviation of 0 (one fold)."""
    rows, _ = ward(7, n=160)
    visit = rows.groupby("subject").cumcount().to_numpy()
    rows["time"] = pd.to_datetime((2015 + visit).astype(str))
    newcomers = rows["subject"].isin(rows["subject"].unique()[:3]).to_numpy()
    rows = rows[~newcomers | (visit >= 4)]
    late = rows["time"] >= "2019"
    known = rows["subject"].isin(rows.loc[~late, "subject"])
    rows = rows[~(late & known)] if broken else rows
    split = np.where(rows["time"] >= "2019", "test", "train")
    return hand_in(rows.assign(split=split), shares_subjects=True, groups="split")


def sweep_of_nothing(broken: bool) -> Case:
    """A tuning loop passed --learning_rate to a script that knows --learning-rate and ignores what it does not know.
    81 jobs, three different results; the best of them was reported as tuned."""
    rows, who = ward(8)
    rows = parted(rows)
    parser = argparse.ArgumentParser()
    for name, kind, usual in (
        ("epochs", int, 20),
        ("learning-rate", float, 0.1),
        ("weight-decay", float, 0.01),
    ):
        parser.add_argument(f"--{name}", type=kind, default=usual)
    train = (rows["split"] == "train").to_numpy()
    x, y = inputs_of(rows), rows["y"].to_numpy()
    x = (x - x[train].mean(0)) / x[train].std(0)
    inner = train & (by_subject(rows["subject"], (0.5, 0.0, 0.5), 1) == "train")
    trials = []
    for epochs in (5, 20, 80):
        for rate in (0.01, 0.1, 1.0):
            for decay in (0.0, 0.01, 0.1):
                asked = {"epochs": epochs, "learning_rate": rate, "weight_decay": decay}
                spell = (lambda name: name) if broken else (lambda name: name.replace("_", "-"))
                argv = [word for name, value in asked.items() for word in (f"--{spell(name)}", str(value))]
                got, _ = parser.parse_known_args(argv)
                weights = np.zeros(x.shape[1])
                for _ in range(got.epochs):
                    slope = x[inner].T @ (expit(x[inner] @ weights) - y[inner]) / inner.sum()
                    weights -= got.learning_rate * (slope + got.weight_decay * weights)
                error = float(((expit(x[train & ~inner] @ weights) - y[train & ~inner]) ** 2).mean())
                trials.append(
                    {f"requested_{k}": v for k, v in asked.items()}
                    | {f"resolved_{k}": v for k, v in vars(got).items()}
                    | {"value": error}
                )
    trials = pd.DataFrame(trials)
    told = {"trials": len(trials), "different results": trials["value"].nunique()}
    reasons = {k: v for k, v in NOT_ASKED.items() if k != "sweep_reached"}
    return hand_in(rows, who, trials=trials, reasons=reasons, told=told)


# --------------------------------------------------------------------------- series: windows, gaps, scalers


def windows_at_random(broken: bool) -> Case:
    """An anaesthesia pipeline cut each operation into windows that overlap by 90 %, and gave windows to train_test_split.
    Every test window had a neighbour in training that shared nine tenths of its seconds, and the outcome."""
    rng = stream(9, "theatre")
    n, minutes, lookback, stride = 70, 40, 20, 2
    who = people(rng, n)
    severity = rng.normal(size=(n, 1))
    chance = expit(2 * severity - 0.2)
    ill = np.repeat((rng.random((n, 1)) < chance).astype(float), minutes, axis=1)
    trace = lambda usual, spread, effect: (
        usual + spread * clustered(rng, n, minutes, 0.6, 0.9) + effect * severity
    )
    series = np.stack([trace(70, 8, 8), trace(80, 8, -8)], axis=2).reshape(-1, 2)  # heart rate, pressure
    case = np.repeat(np.arange(n), minutes)
    ends, _ = windows.window_ends(case, np.ones(len(case), bool), lookback, 1, stride)
    cut = windows.Windows(series, ill.ravel(), ends, lookback, 1)
    features = lambda x: np.concatenate([x.mean(-2), x[..., -1, :], x[..., -1, :] - x[..., 0, :]], axis=-1)
    names = [f"x_{what}_{of}" for what in ("mean", "last", "change") for of in ("heart_rate", "pressure")]
    begin = START + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    minute = pd.to_timedelta(ends % minutes, unit="min")
    rows = pd.DataFrame(features(cut.inputs()), columns=names).assign(
        subject=who["subject"].to_numpy()[case[ends]], time=begin[case[ends]] + minute, y=cut.outputs()[:, 0],
        oracle=np.repeat(chance, minutes, 1).ravel()[ends], row=ends,
    )  # fmt: skip
    if broken:
        rows["split"] = rng.choice(["train", "test"], len(rows), p=[0.6, 0.4])
    else:
        rows = parted(rows)
    some = np.arange(0, len(rows), 20)
    replayed = [features(series[: end + 1][-lookback:]) for end in ends[some]]
    moments = rows.iloc[some][["subject", "time"]].reset_index(drop=True)
    pair = (rows.iloc[some][["subject", "time", *names]], moments.join(pd.DataFrame(replayed, columns=names)))
    minute = pd.Timedelta(minutes=1)
    return hand_in(
        rows, who, THEATRE, ahead=minute, back=(lookback - 1) * minute, inputs=cut.inputs(), replay=pair, erased=pair,
        features=("heart rate", "pressure"), reasons={"sweep_reached": NOT_ASKED["sweep_reached"]},
    )  # fmt: skip


def future_imputation(broken: bool) -> Case:
    """A glucose pipeline drew lines between readings before it cut windows: at the time of a forecast, the filled value
    already leans towards the reading that is to be forecast. (Another put the mean of the whole operation into each gap.)"""
    rng = stream(10, "sensor")
    n, ticks, minutes = 60, 121, 5
    who = people(rng, n)
    names = ["x_glucose", "x_change_5_min", "x_change_15_min"]
    slope = 1.5 * np.sqrt(1 - 0.8**2) * rng.normal(size=(n, ticks))
    for t in range(1, ticks):
        slope[:, t] += 0.8 * slope[:, t - 1]
    level = 140 + 30 * rng.normal(size=(n, 1)) + np.cumsum(slope, axis=1)
    clock = pd.date_range(START, periods=ticks, freq=f"{minutes}min", unit="us")

    def features(readings: np.ndarray, times: pd.DatetimeIndex, until: pd.Timestamp) -> np.ndarray:
        "Inputs (ticks, 3) of one patient on the five-minute grid, from readings every 15 minutes."
        put = grid.last_in_cell(times, readings, grid.ticks(times[0], until, minutes))
        fill = pd.Series(put).interpolate().to_numpy() if broken else grid.carry_forward(put)[0]
        before = lambda steps: np.r_[np.full(steps, np.nan), fill[:-steps]]
        return np.column_stack([fill, fill - before(1), fill - before(3)])

    read = np.arange(0, ticks, 3)
    x = np.stack([features(level[i, read], clock[read], clock[-1]) for i in range(n)])  # (n, ticks, 3)
    real = np.full((n, ticks), np.nan)
    real[:, read] = level[:, read]
    case, place = np.repeat(np.arange(n), ticks), np.tile(np.arange(ticks), n)
    phase = (place - 1) % 9  # five minutes after every third reading
    ends, _ = windows.window_ends(case, ~np.isnan(x[:, :, 0]).ravel(), 6, 2, 9, phase=phase)
    cut = windows.Windows(x.reshape(-1, 3), real.ravel(), ends, 6, 2)
    who_at, now = case[ends], place[ends]
    start = START + pd.to_timedelta(rng.integers(0, 300, n), unit="D")
    rows = pd.DataFrame(cut.inputs()[:, -1], columns=names).assign(
        subject=who["subject"].to_numpy()[who_at], time=(start - START)[who_at] + clock[now], row=ends
    )
    rows["y"] = cut.outputs()[:, 1] - rows["x_glucose"]
    rows["oracle"] = level[who_at, now] + (0.8 + 0.64) * slope[who_at, now] - rows["x_glucose"]

    def again(k: int, made_up: bool) -> np.ndarray:
        "Inputs of one moment, from a record that ends there, or goes on otherwise."
        i, t = who_at[k], now[k]
        past = read[read <= t] if not made_up else read
        values = np.where(past <= t, level[i, past], rng.uniform(40, 400, len(past)))
        return features(values, clock[past], clock[t] if not made_up else clock[-1])[t]

    some = np.arange(0, len(rows), 15)
    moments = rows.iloc[some][["subject", "time"]].reset_index(drop=True)
    stored = rows.iloc[some][["subject", "time", *names]]
    replay, erased = (
        (stored, moments.join(pd.DataFrame([again(k, made_up) for k in some], columns=names)))
        for made_up in (False, True)
    )
    return hand_in(
        parted(rows), who, SENSOR, fit=line, level="x_glucose", ahead=2 * minutes * pd.Timedelta(minutes=1),
        back=pd.Timedelta(minutes=25), replay=replay, erased=erased, inputs=cut.inputs(),
        features=("glucose", "change_5_min", "change_15_min"), reasons={"sweep_reached": NOT_ASKED["sweep_reached"]},
    )  # fmt: skip


def scaler_on_everything(broken: bool) -> Case:
    """The forecaster of blood values fitted its scaler, its text embedding and its unit codes before it split; a monitor
    system scaled the test rows with their own mean. It hardly moves a score, which is why nobody looks."""
    rows, who = ward(11)
    rows = parted(rows)
    return hand_in(rows, who, seen=rows if broken else None)


# --------------------------------------------------------------------------- vital signs


def strangers(rng: np.random.Generator, n: int) -> pd.DataFrame:
    "Uniform noise in the range of healthy vital signs, a person each, as in a much used public table."
    weight, height = rng.uniform(50, 100, n), rng.uniform(1.5, 2.0, n)
    return pd.DataFrame(
        {
            "x_heart_rate": rng.integers(60, 100, n).astype(float),
            "x_oxygen": rng.uniform(95, 100, n),
            "x_breathing": rng.integers(12, 20, n).astype(float),
            "x_bmi": weight / height**2,
            "weight": np.round(weight, 3),
            "height": np.round(height, 4),
            "age": rng.integers(18, 90, n),
        }
    )


def high_risk(heart_rate, bmi):
    "The label of that table."
    return (heart_rate > 90) | (bmi < 18.5) | (bmi > 30)


def strangers_as_series(broken: bool) -> Case:
    """A monitor system took that table, a different person in every row, for a time series "by treating records
    chronologically", in half-overlapping windows labelled by majority. It scores; no row knows anything of the next."""
    rng = stream(12, "monitor")
    n, length, lookback = 100, 72, 12
    table = strangers(rng, n * length)
    bmi = table["x_bmi"].to_numpy().reshape(n, length)
    series = table[["x_heart_rate", "x_oxygen"]].to_numpy().reshape(n, length, 2)
    if not broken:  # one person stays for the whole stretch
        bmi = np.repeat(bmi[:, :1], length, axis=1)
        pulse, oxygen = (clustered(rng, n, length, 0.4, 0.9) for _ in range(2))
        series = np.stack([80 + 11.5 * pulse, 97.5 + 1.4 * oxygen], axis=2)
    label = high_risk(series[:, :, 0], bmi).ravel()
    case = np.repeat(np.arange(n), length)
    ends, _ = windows.window_ends(case, np.ones(n * length, bool), lookback, 1, lookback // 2)
    cut = windows.Windows(series.reshape(-1, 2), label.astype(float), ends, lookback, 1)
    x = cut.inputs()
    names = [f"x_{what}_{of}" for what in ("mean", "last") for of in ("heart_rate", "oxygen")]
    fast = (x[:, :, 0] > 90).mean(1)
    majority = np.array([label[e - lookback + 1 : e + 1].mean() > 0.5 for e in ends]).astype(float)
    rows = pd.DataFrame(np.concatenate([x.mean(1), x[:, -1]], axis=1), columns=names).assign(
        x_share_fast=fast, subject=[f"bed {i:03d}" for i in rng.permutation(n)[case[ends]]], row=ends, y=majority,
        time=START + pd.to_timedelta(ends, unit="min"),
    )  # fmt: skip
    apart = rows.groupby("subject")["x_mean_heart_rate"].shift(
        -2
    )  # the next window that shares no row with this one
    told = {"next window": float(rows["x_mean_heart_rate"].corr(apart))}
    minute = pd.Timedelta(minutes=1)
    return hand_in(
        parted(rows), None, fit=lambda *known: np.clip(line(*known), 0, 1), back=(lookback - 1) * minute, inputs=x, features=("heart rate", "oxygen"), told=told,
        reasons={**NOT_ASKED, "subject_twins": "nothing that stays the same is known of a bed"},
    )  # fmt: skip


def label_by_rule(broken: bool) -> Case:
    """The label of that table is a rule: heart rate over 90, or body mass index under 18.5 or over 30, without exception in
    20,649 rows. Classifiers that were given both columns reached an accuracy of 0.997."""
    rng = stream(13, "rule")
    rows = strangers(rng, 500)
    rule = high_risk(rows["x_heart_rate"], rows["x_bmi"])
    rows["oracle"] = rule.astype(float) if broken else np.where(rule, 0.75, 0.25)
    rows["y"] = (rng.random(len(rows)) < rows["oracle"]).astype(float)
    rows["subject"] = [f"P{i:05d}" for i in rng.choice(90_000, len(rows), replace=False)]
    rows["time"] = START - pd.to_timedelta(np.arange(len(rows)), unit="min")
    rows["row"] = np.arange(len(rows))
    who, rows = rows[["subject", "weight", "height", "age"]], rows.drop(columns=["weight", "height", "age"])
    return hand_in(parted(rows), who, is_series=False)


def fusion_with_own_copy(broken: bool) -> Case:
    """A fusion of heart and breathing was fed the heart twice: the breathing branch read a copy of the other's array.
    Its report shows an area of 0.543 for the fusion, and does not ask why the two branches agree."""
    rows, who = ward(14)
    rng = stream(14, "fusion")
    logit = np.log(rows["oracle"] / (1 - rows["oracle"])).to_numpy() / 2.5
    heart = rows[["x_heart_rate", "x_lactate"]].to_numpy()
    breath = np.column_stack([16 + 2 * logit, 400 + 60 * logit]) + rng.normal(size=heart.shape) * [2.0, 60.0]
    breath = heart if broken else breath
    rows = rows[[c for c in rows if not c.startswith("x_")]].assign(
        x_heart_a=heart[:, 0], x_heart_b=heart[:, 1], x_breath_a=breath[:, 0], x_breath_b=breath[:, 1]
    )
    case = hand_in(parted(rows), who, parts={"heart": [0, 1], "breath": [2, 3]})
    wide = case.predictions.pivot(index=["subject", "time"], columns="model", values="yhat")
    case.told = {"agreement": float(wide["heart"].corr(wide["breath"]))}
    return case


def two_devices(broken: bool) -> Case:
    """A glucose system took the serial number of a pump for the patient. One person who had changed pumps was two
    patients, and the test rows of one lay among the training rows of the other."""
    rng = stream(15, "pumps")
    n, days = 110, 4
    who = people(rng, n)
    severity = rng.normal(size=(n, 1))
    chance = expit(2 * severity)
    ill = (rng.random((n, 1)) < chance).astype(float)
    habit = lambda usual, own, effect, noise: (
        usual
        + own * rng.normal(size=(n, 1))
        + effect * severity
        + noise * clustered(rng, n, 2 * days, 0.0, 0.7)
    )
    pump = np.tile(np.repeat([0, 1], days), (n, 1))
    serial = rng.choice(np.arange(100_000, 999_999), (n, 2), replace=False)
    day = rng.integers(0, 300, (n, 1)) + np.arange(2 * days) + 30 * pump
    rows = pd.DataFrame(
        {
            "person": np.repeat(who["subject"], 2 * days).to_numpy(),
            "pump": np.take_along_axis(serial, pump, 1).ravel().astype(str),
            "time": START + pd.to_timedelta(day.ravel(), unit="D"),
            "y": np.repeat(ill, 2 * days, 1).ravel(),
            "oracle": np.repeat(chance, 2 * days, 1).ravel(),
            "x_basal": habit(24, 5, 2, 0.4).ravel(),
            "x_mean_glucose": habit(155, 18, 12, 1.5).ravel(),
            "x_carbohydrates": habit(180, 40, 0, 3).ravel(),
        }
    )
    rows["subject"] = rows["pump"] if broken else rows["person"]
    held = rows[["subject", "person"]].drop_duplicates()
    who = held.merge(who.rename(columns={"subject": "person"}), on="person").drop(columns="person")
    rows = rows.drop(columns=["person", "pump"]).assign(row=np.arange(len(rows)))
    return hand_in(parted(rows, train=0.8), who)


def resampled_controls(broken: bool) -> Case:
    """Home sensors whose labels are noise (area 0.45 in 200 rows), balanced by drawing controls again, under new numbers,
    before the split: a forest remembers them, and finds a signal where there is none."""
    rng = stream(16, "sensors")
    rows = strangers(rng, 240)
    rows["y"] = (rng.random(len(rows)) < 0.565).astype(float)
    rows["oracle"] = 0.565
    number = iter(rng.permutation(90_000))
    rows["subject"] = [f"P{next(number):05d}" for _ in range(len(rows))]
    rows["time"] = START + pd.to_timedelta(rng.permutation(len(rows)), unit="h")
    rows = parted(rows)
    pool = rows[(rows["y"] == 0) & (broken | (rows["split"] == "train"))]
    again = pool.sample(400, replace=True, random_state=0)
    again["subject"] = [f"P{next(number):05d}" for _ in range(len(again))]
    rows = pd.concat([rows, again]).sample(frac=1, random_state=0, ignore_index=True)
    rows = parted(rows) if broken else rows
    rows["row"] = np.arange(len(rows))
    who, rows = rows[["subject", "weight", "height", "age"]], rows.drop(columns=["weight", "height", "age"])
    return hand_in(rows, who, is_series=False)
