"A predictions table that breaks the schema is refused, with the row and the reason, wherever it is handed in."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medlab.core.study import Study, Target
from medlab.judge import predictions, residuals

GLUCOSE = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "a source", 15, 0.15, "another source")
STUDY = Study(
    "example", "Example", "Where is glucose going?", "regression", (GLUCOSE,), (30.0, 60.0), "min", "UTC timestamp",
    "model", "persistence", ("sex",), "To test.", "Anything else.",
)  # fmt: skip
EVENT = Target("event", "Event", "probability", 0, 1, 0.05, "a source", 0.5, 0, "another source")
BINARY = replace(STUDY, kind="binary", targets=(EVENT,), horizons=(0.0,))


def table(study=STUDY) -> pd.DataFrame:
    "A sound table: 12 patients, 5 moments, two models."
    rng, frames = np.random.default_rng(0), []
    binary = study.kind == "binary"
    target = study.targets[0].name
    for split in ("calibration", "test"):
        rows = pd.MultiIndex.from_product([[f"S{i:02d}" for i in range(12)], study.horizons, range(5)])
        rows = rows.to_frame(index=False, name=["subject", "horizon", "step"])
        y = (
            rng.integers(0, 2, len(rows)).astype(float)
            if binary
            else rng.normal(150, 40, len(rows)).clip(40, 400)
        )
        for model in ("model", "persistence"):
            yhat = rng.uniform(0, 1, len(rows)) if binary else y + rng.normal(0, 10, len(rows))
            reach = np.nan if binary else 20.0
            frames.append(
                rows[["subject", "horizon"]].assign(
                    model=model, split=split, target=target, y=y, yhat=yhat, lo=yhat - reach, hi=yhat + reach,
                    time=pd.Timestamp("2024-01-01") + pd.to_timedelta(rows["step"] * 5, unit="min"), by_sex="F",
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True).sort_values(
        ["model", "split", *predictions.KEYS], ignore_index=True
    )


def put(column, value, at=7):
    def fault(frame):
        frame.loc[at, column] = value
        return frame

    return fault


def swap(frame):
    "Two moments of one patient change places."
    frame.loc[[2, 4]] = frame.loc[[4, 2]].to_numpy()
    return frame.infer_objects()


FAULTS = {
    "missing column": (lambda f: f.drop(columns="yhat"), "column 'yhat' is missing"),
    "missing time": (lambda f: f.drop(columns="time"), "column 'time' is missing"),
    "unknown column": (lambda f: f.assign(age=3), "unknown column(s) age"),
    "truth is missing": (put("y", np.nan), r"column 'y': .*1 row\(s\), first at \[7\]"),
    "truth is infinite": (put("y", np.inf), r"column 'y': finite fails in 1 row\(s\), first at \[7\]"),
    "prediction is missing": (put("yhat", np.nan), r"column 'yhat': .*first at \[7\]"),
    "unknown target": (put("target", "potassium"), r"column 'target': one of \['glucose'\] fails .*first at \[7\].*potassium"),
    "unknown horizon": (put("horizon", 31.0), r"column 'horizon': .*first at \[7\].*31"),
    "lo above hi": (put("lo", 1e3), r"lo > hi: 1 row\(s\), first at position 7"),
    "half an interval": (put("lo", np.nan), "only one end of the interval given: 1 row.* position 7"),
    "out of order": (swap, "time runs backwards within a subject: 1 row.* position 4"),
    "the same row twice": (lambda f: pd.concat([f.iloc[:8], f.iloc[7:]]), r"duplicate key .*2 row\(s\), first at position 7, 8"),
    "a model on other rows": (lambda f: f.drop(index=7), r"models 'model' and 'persistence' differ in 1 row"),
    "another truth": (put("y", 99.0), "see another truth on the same rows"),
    "no rows of the study's own model": (lambda f: f[f["model"] != "model"], "own model 'model' has no rows"),
    "no rows": (lambda f: f.iloc[:0], "the table has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("entry", [predictions.validate, residuals.run])
def test_a_fault_is_named_with_its_row(name, entry):
    fault, message = FAULTS[name]
    broken = fault(table())
    before = broken.copy()
    with pytest.raises(predictions.PredictionsError, match="break .* rule") as caught:
        entry(broken, STUDY)
    import re

    assert re.search(message.replace("unknown column(s)", r"unknown column\(s\)"), str(caught.value)), str(
        caught.value
    )
    assert "Nothing was dropped" in str(caught.value)
    pd.testing.assert_frame_equal(broken, before)  # and nothing was changed


@pytest.mark.parametrize("index", [None, "text"])
def test_rows_are_counted_from_the_top_whatever_the_index(index):
    frame = table()
    frame.index = [f"row {i}" for i in range(len(frame))] if index else np.arange(len(frame))[::-1]
    frame.iloc[7, frame.columns.get_loc("y")] = np.nan
    with pytest.raises(predictions.PredictionsError, match=r"first at \[7\]"):
        predictions.validate(frame, STUDY)


def test_yes_no_outcomes_are_checked_too():
    sound = table(BINARY)
    assert predictions.validate(sound, BINARY) is sound
    for fault, message in (
        (put("yhat", 1.2), "no probability .* position 7"),
        (put("y", 0.5), "must be 0 or 1: 1 row.* position 7"),
        (lambda f: f.assign(y=np.where(f["split"] == "test", 0.0, f["y"])), "split 'test', target 'event': one class only, all 120 outcomes are 0"),
    ):  # fmt: skip
        with pytest.raises(predictions.PredictionsError, match=message):
            predictions.validate(fault(table(BINARY)), BINARY)


def test_a_sound_table_passes():
    sound = table()
    assert predictions.validate(sound, STUDY) is sound
