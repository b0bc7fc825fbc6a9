"A leaked model and a useless one: the first screen of the report says so, in both languages, and stays silent about a mended twin."

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from medlab.judge import audit, metrics, residuals
from medlab.judge.evidence import Evidence
from medlab.tell import example, report
from medlab.tell.language import speaking, t
from medlab.tell.page import Additions
from medlab.tell.questions import CHECKS

STUDY, OWN = example.STUDY, example.STUDY.primary
ASKED = ("time_overlap", "judged_rows", "predictions_reproduced", "future_replay", "too_good")
HOUR = pd.Timedelta("1h")
BELOW = {  # what stands below the first screen and takes seconds to draw
    "accuracy": ("accuracy",),
    "results": ("for_whom", "ranges", "where_errors_lie", "over_time"),
    "worst": ("section",),
    "fans": ("section",),
    "diagnostics": ("section",),
    "checks": ("what_was_tested",),
    "recommendations": ("section",),
    "card_page": ("section",),
}


@functools.cache
def honest() -> pd.DataFrame:
    "Predictions of a model that is better than its reference and worse than the oracle at every horizon."
    frame = example.predictions(patients=16, days=2)
    frame.attrs["level"] = 0.9
    return frame


@functools.cache
def beside() -> pd.DataFrame:
    "The own model's rows, with the forecasts of the others beside: row for row."
    frame = honest()
    keys = ["subject", "time", "horizon"]
    wide = frame.pivot(index=keys, columns="model", values="yhat").drop(columns=OWN)
    return frame[frame["model"] == OWN].join(wide, on=keys)


def with_own(yhat) -> pd.DataFrame:
    "The predictions with other forecasts under the own model's name; its ranges keep their width."
    frame = honest().copy()
    own = frame["model"] == OWN
    moved = np.asarray(yhat) - frame.loc[own, "yhat"]
    for column in ("yhat", "lo", "hi"):
        frame.loc[own, column] = frame.loc[own, column] + moved
    frame.attrs = honest().attrs
    return frame


def evidence(frame: pd.DataFrame) -> Evidence:
    "What an honest study hands to the audit: the model says again what was judged, nothing touches the training."
    own = frame[frame["model"] == OWN]
    moments = own[["subject", "time"]].drop_duplicates()
    spans = moments.rename(columns={"time": "origin"}).assign(split="test")
    spans = spans.assign(first=spans["origin"] - 3 * HOUR, last=spans["origin"] + HOUR)
    begins = spans.groupby("subject", as_index=False)["first"].min().rename(columns={"first": "last"})
    trained = begins.assign(last=begins["last"] - HOUR, split="train")
    trained = trained.assign(origin=trained["last"] - HOUR, first=trained["last"] - 5 * HOUR)
    shown = moments.assign(x_last=np.arange(len(moments), dtype=float))
    return Evidence(
        windows=pd.concat([trained, spans], ignore_index=True),
        gap=pd.Timedelta(0),
        truth=own[["subject", "time", "horizon", "y"]],
        predicted=own[["subject", "time", "horizon", "yhat"]],
        replay=(shown, shown.copy()),
        simulated=True,
    )


def better_than_possible():
    "The model itself was given the answer: its forecasts lie closer to the truth than the oracle's."
    row = beside()
    frame = with_own(row["y"] + 0.2 * (row["oracle"] - row["y"]))
    return frame, evidence(frame)


def just_worse_than_possible():
    "Forecasts blended with the reading to come, so that the error stays above the oracle's; the exported model says other things."
    row = beside()
    off = lambda model: (row[model] - row["y"]).abs().groupby(row["horizon"]).mean()
    kept = row["horizon"].map(1.05 * off("oracle") / off("yhat"))
    assert kept.max() < 1
    frame = with_own(row["y"] + kept * (row["yhat"] - row["y"]))
    return frame, evidence(honest())


def shown_the_future():
    "The same blend, but in the model itself, so that it says it again; the stored inputs are not those of the time."
    frame, _ = just_worse_than_possible()
    given = evidence(frame)
    stored, remade = given.replay
    return frame, replace(given, replay=(stored.assign(x_last=stored["x_last"] + 1), remade))


def judged_on_the_time_of_training():
    given = evidence(honest())
    training = given.windows["split"] == "train"
    last = given.windows["last"].where(~training, given.windows["last"] + 2 * HOUR)
    return honest(), replace(given, windows=given.windows.assign(last=last))


def judged_against_other_truths():
    given = evidence(honest())
    return honest(), replace(given, truth=given.truth.assign(y=given.truth["y"] + 3))


def repeats_the_last_value():
    frame = with_own(beside()["persistence"])
    return frame, evidence(frame)


def repeats_the_last_value_with_noise():
    noise = np.random.default_rng(1).normal(0, 3, len(beside()))
    frame = with_own(beside()["persistence"] + noise)
    return frame, evidence(frame)


def says_the_mean_of_the_patient():
    row = beside()
    frame = with_own(row.groupby("subject")["y"].transform("mean"))
    return frame, evidence(frame)


def mended():
    return honest(), evidence(honest())


LEAKED = {  # case -> the check that must fail
    better_than_possible: "too_good",
    just_worse_than_possible: "predictions_reproduced",
    shown_the_future: "future_replay",
    judged_on_the_time_of_training: "time_overlap",
    judged_against_other_truths: "judged_rows",
}
USELESS = (repeats_the_last_value, repeats_the_last_value_with_noise, says_the_mean_of_the_patient)
RELY = {"en": "Do not rely on these numbers", "sv": "Lita inte på siffrorna"}
WORTHLESS = {"en": "Useless as it stands: no better than", "sv": "Oanvändbar som den är: inte bättre än"}


@functools.cache
def audited(case) -> dict[str, audit.Finding]:
    frame, given = case()
    checks = [check for check in audit.CHECKS if check.__name__ in ASKED]
    assert len(checks) == len(ASKED)
    return {found.check: found for found in (audit._ask(check, frame, STUDY, given) for check in checks)}


@functools.cache
def judged(case) -> dict:
    "All that a report takes, by the real functions; few patients are drawn, few tests are made."
    frame, _ = case()
    rows = frame[frame["horizon"] == STUDY.key_horizons[-1]]
    rows.attrs = frame.attrs
    return {
        "metrics": metrics.table(frame, STUDY, n_resamples=100),
        "per_subject": metrics.per_subject(frame),
        "tests": residuals.run(rows, replace(STUDY, slices=()), n_resamples=40),
        "differences": report.versus(frame, STUDY, n_resamples=100),
        "audit": audit.as_table(list(audited(case).values())).to_dict("records"),
        "manifest": example.MANIFEST,
        "predictions": frame,
        "simulated": True,
        "issued": "2026-11-21",
        "additions": Additions(),
    }


@pytest.fixture(scope="module")
def screen():
    "The first 700 characters that a reader sees, and the verdict's sentences; what is drawn below is left out."

    @functools.cache
    def of(case, language="en"):
        with pytest.MonkeyPatch.context() as patch, speaking(language, STUDY.name):
            for module, names in BELOW.items():
                place = report if module == "accuracy" else getattr(report, module)
                for name in names:
                    patch.setattr(place, name, lambda *_, **__: None)
            soup = BeautifulSoup(report.assemble(STUDY, **judged(case)).html, "html.parser")
        for tag in soup.find_all(["head", "style", "svg"]):
            tag.extract()
        seen = " ".join(soup.get_text(" ").split())
        verdict = soup.select_one(".verdict")
        return seen[:700], " ".join(verdict.get_text(" ").split()), verdict["class"]

    return of


@pytest.mark.parametrize("case", LEAKED)
def test_the_audit_names_the_leak_and_no_other(case):
    failed = {name for name, found in audited(case).items() if found.verdict == "fail"}
    assert failed == {LEAKED[case]}
    assert {found.verdict for found in audited(case).values()} == {"pass", "fail"}
    with pytest.raises(audit.LeakError, match=LEAKED[case]):
        audit.stop_on_errors(list(audited(case).values()))


@pytest.mark.parametrize("case", [*USELESS, mended])
def test_the_audit_has_nothing_against_a_model_that_is_only_useless(case):
    assert {found.verdict for found in audited(case).values()} == {"pass"}
    audit.stop_on_errors(list(audited(case).values()))


@pytest.mark.parametrize("language", RELY)
@pytest.mark.parametrize("case", LEAKED)
def test_the_first_screen_of_a_leaked_model_says_do_not_rely_on_it_and_why(case, language, screen):
    seen, verdict, classes = screen(case, language)
    assert RELY[language] in seen
    assert seen.index(RELY[language]) < 500
    with speaking(language, STUDY.name):
        why = t(CHECKS[LEAKED[case]])
    assert why in seen
    assert (why == CHECKS[LEAKED[case]]) is (language == "en")
    assert "concern" in classes
    assert WORTHLESS[language] not in verdict


@pytest.mark.parametrize("language", WORTHLESS)
@pytest.mark.parametrize("case", USELESS)
def test_the_first_screen_of_a_useless_model_says_that_it_is_useless(case, language, screen):
    seen, verdict, classes = screen(case, language)
    assert WORTHLESS[language] in seen
    assert seen.index(WORTHLESS[language]) < 500
    assert "concern" in classes
    assert RELY[language] not in verdict


@pytest.mark.parametrize("language", RELY)
def test_the_mended_twin_is_neither_leaked_nor_useless(language, screen):
    seen, verdict, _ = screen(mended, language)
    assert RELY[language] not in verdict
    assert WORTHLESS[language] not in verdict
    assert {"en": "Better than", "sv": "Bättre än"}[language] in seen


def test_a_leaked_model_looks_better_than_its_twin_and_is_trusted_less():
    "Without the audit, the better numbers would win: the leak is seen by nothing else."
    error = lambda case: (
        judged(case)["metrics"]
        .query("model == @OWN and group == 'all' and metric == 'mae' and scope == 'at' and horizon == 60")[
            "value"
        ]
        .item()
    )
    for case in (better_than_possible, just_worse_than_possible, shown_the_future):
        assert error(case) < error(mended)
    assert (
        error(just_worse_than_possible)
        > (beside()["oracle"] - beside()["y"]).abs()[beside()["horizon"] == 60].mean()
    )
