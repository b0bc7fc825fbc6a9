"Reports of studies that have almost nothing, too much, or nothing good to say: readable, honest, no crash, no warning."

import functools
import itertools
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from test_tell_page import LANGUAGES, make

from medlab.judge.metrics import per_subject as errors_of
from medlab.judge.metrics import table as metrics_of
from medlab.tell import example

STUDY, TARGET = example.STUDY, example.STUDY.targets[0]
LONG = "A quantity with a name so long that nobody could ever want to put it into a table"[:80]


def few(patients=12, days=1, gain=0.35) -> pd.DataFrame:
    return example.predictions(patients=patients, days=days, gain=gain)


def one_patient():
    return few(1), STUDY, {}


def one_row():
    frame = few(1)
    return (
        frame[(frame["horizon"] == 60) & (frame["time"] == frame["time"].min())].reset_index(drop=True),
        STUDY,
        {},
    )


def no_test_rows():
    return few(4).assign(split="calibration"), STUDY, {}


def no_rows_at_all():
    return few(2).iloc[:0], STUDY, {}


def only_the_model():
    frame = few()
    return frame[frame["model"] == "model"].reset_index(drop=True), STUDY, {}


def worse_than_persistence():
    return few(gain=-0.2), STUDY, {}


def forty_targets():
    targets = tuple(replace(TARGET, name=f"lab_{n:02}", label=f"Analyte {n:02}") for n in range(40))
    frame = few(12, 1)
    frame = frame[
        (frame["horizon"] == 60)
        & frame["model"].isin(["model", "persistence"])
        & (frame["time"].dt.minute == 0)
    ]
    parts = [frame.assign(target=t.name, yhat=frame["yhat"] + n % 7) for n, t in enumerate(targets)]
    study = replace(STUDY, targets=targets, horizons=(60.0,), key_horizons=(60.0,))
    tests = example.tests().assign(target="lab_00", horizon=60.0)
    return pd.concat(parts, ignore_index=True), study, {"tests": tests}


def names_of_eighty_characters():
    wide = replace(TARGET, name="glucose", label=LONG)
    study = replace(STUDY, title=LONG * 2, question=LONG + "?", targets=(wide,), slices=("sex", "a" * 80))
    return few().assign(**{"by_" + "a" * 80: ["b" * 80, "c " * 40] * (len(few()) // 2)}), study, {}


def censored_truths():
    frame = few()
    high = frame["y"].quantile(0.6)
    return (
        frame.assign(y=frame["y"].clip(upper=high), by_censored=frame["y"] > high),
        replace(STUDY, targets=(replace(TARGET, upper=float(high)),)),
        {},
    )


def horizon_zero():
    frame = few()
    study = replace(STUDY, horizons=(0.0,), key_horizons=(0.0,), horizon_unit="min")
    return frame[frame["horizon"] == 15].assign(horizon=0.0).reset_index(drop=True), study, {}


def seconds():
    frame = few()
    return (
        frame.assign(time=(frame["time"] - frame["time"].min()).dt.total_seconds()),
        replace(STUDY, time_unit="s since start"),
        {},
    )


def no_ranges():
    return few().assign(lo=np.nan, hi=np.nan), STUDY, {}


def no_slices():
    frame = few()
    return frame.drop(columns=[c for c in frame if c.startswith("by_")]), replace(STUDY, slices=()), {}


def constant_truth():
    return few().assign(y=120.0), STUDY, {}


def perfect():
    frame = few()
    return frame.assign(yhat=frame["y"].where(frame["model"] == "model", frame["yhat"])), STUDY, {}


def nobody_tested_or_audited():
    return few(), STUDY, {"tests": example.tests()[:0], "audit": [], "manifest": {}, "provenance": None}


def leaked():
    return few(), STUDY, {"audit": example.audit(failed=True)}


def real():
    return few(), STUDY, {"simulated": False}


def risk():
    return example.predictions_risk(), example.STUDY_RISK, {"tests": example.tests_risk()}


def score():
    return example.predictions_score(), example.STUDY_SCORE, {"tests": example.tests_score()}


def risk_of_one_class():
    frame = example.predictions_risk(patients=30)
    return frame.assign(y=0.0), example.STUDY_RISK, {"tests": example.tests_risk()[:0]}


CASES = {
    f.__name__: f
    for f in (
        one_patient, one_row, no_test_rows, no_rows_at_all, only_the_model, worse_than_persistence, forty_targets,
        names_of_eighty_characters, censored_truths, horizon_zero, seconds, no_ranges, no_slices, constant_truth, perfect,
        nobody_tested_or_audited, leaked, real, risk, score, risk_of_one_class,
    )
}  # fmt: skip
# What the first screen must say, in English; a study that has little must say that it has little.
MUST_SAY = {
    "one_patient": r"(?i)one patient|1 patient|fewer than|too few|not assessable|unclear",
    "one_row": r"(?i)one patient|1 patient|fewer than|too few|not assessable|unclear|1 prediction",
    "no_test_rows": r"(?i)no predictions|not tested|nothing (?:to|was)|not assessable|no (?:rows|patients)",
    "no_rows_at_all": r"(?i)no predictions|not tested|nothing (?:to|was)|not assessable|no (?:rows|patients)",
    "only_the_model": r"(?i)no reference|nothing to compare",
    "worse_than_persistence": r"(?i)no better than|worse than|larger",
    "nobody_tested_or_audited": r"(?i)no leakage audit was made(?s:.)*|no residual tests were made",
    "leaked": r"(?i)do not rely|leakage audit failed",
}


@functools.cache
def built(name: str, language: str = "en") -> str:
    frame, study, changes = CASES[name]()
    tables = {}
    if name in (
        "no_test_rows",
        "no_rows_at_all",
    ):  # no stage makes tables of nothing; a report may still be asked for
        full = few(2)
        tables = {"metrics": metrics_of(full, STUDY, n_resamples=5)[:0], "per_subject": errors_of(full)[:0]}
        tables["tests"] = example.tests()[:0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return make(frame, study, language=language, **(tables | changes))


def first_screen(soup) -> str:
    parts = [soup.find("main").header, soup.select_one(".verdict"), soup.select_one(".cards")]
    return " ".join(" ".join(part.get_text(" ").split()) for part in parts if part is not None)


@pytest.mark.parametrize("name", CASES)
def test_a_report_is_made_and_is_sound(name):
    "Structure as on every page: one h1, no level left out, unique ids, no empty cell in a header, under two megabytes."
    html = built(name)
    assert len(html.encode()) < 2_000_000
    soup = BeautifulSoup(html, "html.parser")
    levels = [int(h.name[1]) for h in soup.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert all(tag["href"][1:] in ids for tag in soup.find_all("a", href=re.compile("^#")))
    assert all(th.get_text(strip=True) for th in soup.find_all("th"))
    assert all(figure.figcaption.get_text(strip=True) for figure in soup.find_all("figure"))
    for tag in soup.find_all(["svg", "style"]):
        tag.extract()
    text = soup.get_text(" ")
    assert "None" not in {node.strip() for node in soup.find_all(string=True)}
    broken = re.search(r".{0,60}\b(?:nan|NaN|NaT|inf|Traceback|Timestamp|dtype)\b.{0,40}", text, re.DOTALL)
    assert not broken, broken[0]
    assert not re.search(r"\{\w+\}", text), "a place in a sentence was left empty"
    assert "SIMULATED DATA" in text or name == "real"


@pytest.mark.parametrize("name", MUST_SAY)
def test_the_first_screen_says_what_is_the_matter(name):
    screen = first_screen(BeautifulSoup(built(name), "html.parser"))
    assert re.search(MUST_SAY[name], screen), screen[:1500]


def test_the_status_of_a_poor_study_is_never_ok():
    for name in (
        "one_patient",
        "one_row",
        "no_test_rows",
        "only_the_model",
        "worse_than_persistence",
        "leaked",
        "nobody_tested_or_audited",
    ):
        verdict = BeautifulSoup(built(name), "html.parser").select_one(".verdict")
        assert "ok" not in verdict["class"], (name, verdict.get_text(" "))


@pytest.mark.parametrize(
    "name", ["one_patient", "no_test_rows", "forty_targets", "horizon_zero", "risk", "score"]
)
@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_report_is_made_in_other_languages_too(name, language):
    soup = BeautifulSoup(built(name, language), "html.parser")
    assert soup.html["lang"] == language
    assert not re.search(r"\{\w+\}", soup.get_text(" "))
