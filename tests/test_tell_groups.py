"Groups of a yes/no study are compared by whether their risks come true, and nobody is named by chance or by a few events."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medlab.judge.metrics import table
from medlab.tell import example, figures, results
from medlab.tell.cards import cards
from medlab.tell.groups import by_group, clear, furthest, hidden, said
from medlab.tell.language import speaking

STUDY = replace(
    example.STUDY,
    kind="binary",
    targets=(replace(example.STUDY.targets[0], name="stroke", label="Stroke", unit="1", lower=0, upper=1),),
    horizons=(1.0,),
    key_horizons=(1.0,),
    slices=("age", "smoking"),
    outcome_slices=(),
)


def cohort(n=4000, smokers=1.0):
    "Risks that are right, save that smokers have `smokers` times as many events; the old have ten times those of the young."
    random = np.random.default_rng(4)
    old, smoker = random.random(n) < 0.4, random.random(n) < 0.3
    told = np.where(old, 0.3, 0.03) * random.uniform(0.7, 1.3, n)
    y = random.random(n) < told * np.where(smoker, smokers, 1)
    named = {"by_age": np.where(old, "old", "young"), "by_smoking": np.where(smoker, "yes", "no")}
    base = {
        "split": "test",
        "subject": [f"s{i}" for i in range(n)],
        "time": 0.0,
        "target": "stroke",
        "horizon": 1.0,
    }
    own = pd.DataFrame(
        base
        | named
        | {"model": STUDY.primary, "y": y.astype(float), "yhat": told, "lo": np.nan, "hi": np.nan}
    )
    return pd.concat([own, own.assign(model=STUDY.reference, yhat=y.mean())])


@pytest.fixture(scope="module")
def off():
    return table(cohort(smokers=1.6), STUDY, n_resamples=200)


@pytest.fixture(scope="module")
def right():
    return table(cohort(), STUDY, n_resamples=200)


def test_the_worst_group_is_the_one_whose_risks_are_wrong_and_not_the_one_with_most_events(off):
    brier = by_group(off, STUDY, 1.0, "brier").set_index("group")["value"]
    assert brier.idxmax() == "by_age=old"
    assert furthest(by_group(off, STUDY, 1.0))["group"].iloc[0] == "by_smoking=yes"
    card = cards(STUDY, off, pd.DataFrame()).cards[-1]
    assert (
        "smoking is yes" in card.range
        and "too low" in card.text[0]
        and card.unit == "events per one predicted"
    )


def test_half_as_many_is_as_far_off_as_twice_as_many():
    parts = pd.DataFrame({"value": [0.4, 2.0], "low": [0.38, 1.9], "high": [0.42, 2.1]})
    assert furthest(parts)["value"].tolist() == [0.4, 2.0]
    assert furthest(parts.iloc[::-1])["clear"].tolist() == ["below", "above"]


def test_an_interval_that_leaves_out_one_is_not_enough_among_many():
    one = pd.DataFrame({"value": [1.2], "low": [1.02], "high": [1.4]})
    assert clear(one).tolist() == ["above"]
    assert (clear(pd.concat([one] * 40, ignore_index=True)) == "").all()


@pytest.mark.parametrize("language", ["en", "sv"])
def test_where_risks_are_right_nobody_is_named(right, language):
    with speaking(language) as now:
        card = cards(STUDY, right, pd.DataFrame()).cards[-1]
        caption = figures.by_slice(hidden(right, STUDY), STUDY, 1.0, "observed_expected").caption
    assert now.missing <= {"old", "young", "smoking"}  # names of this invented study
    assert card.value == {"en": "none", "sv": "ingen"}[language]
    if language == "en":
        assert "In no group is it clearly different from 1, with 4 groups" in caption


def test_a_ratio_of_fewer_than_eleven_events_is_hidden_everywhere(right):
    metrics = right.assign(
        n_rows=right["n_rows"].where(right["group"] != "by_age=young", 300)
    )  # of which nine with it
    young = metrics[(metrics["group"] == "by_age=young") & (metrics["model"] == STUDY.primary)].set_index(
        "metric"
    )
    assert 0 < young.at["prevalence", "value"] * young.at["prevalence", "n_rows"] < 11
    shown = hidden(metrics, STUDY)
    for measure in ("observed_expected", "auroc"):
        assert (
            by_group(shown, STUDY, 1.0, measure).set_index("group")["value"].isna().to_dict()["by_age=young"]
        )
    part = results.for_whom(STUDY, metrics, pd.DataFrame({"subject": [], "horizon": [], "model": []}))
    number = f"{young.at['observed_expected', 'value']:.2f} "
    assert (
        "too few to say" in str(part.figures[0].svg)
        and number not in str(part.tables) + part.figures[0].caption
    )
    assert hidden(metrics, replace(STUDY, kind="regression")) is metrics


def test_the_section_shows_the_ratio_with_the_ranking_beside_it_and_no_funnel(off):
    rows = cohort(smokers=1.6).query("model == 'model'") if STUDY.primary == "model" else cohort()
    part = results.for_whom(STUDY, off, pd.DataFrame({"subject": [], "horizon": [], "model": []}), rows=rows)
    assert [f.key for f in part.figures] == ["error-by-group"]
    assert "AUROC" in part.tables[0] and "Brier" not in part.tables[0]
    assert "Risks are clearly too low: smoking: yes" in part.figures[0].caption


def test_without_any_ratio_nothing_is_compared(off):
    bare = off[off["metric"] != "observed_expected"]
    assert by_group(bare, STUDY, 1.0).empty and by_group(off[:0], STUDY, 1.0).empty
    made = cards(STUDY, bare, pd.DataFrame()).cards
    assert made[0].title == "How good are its risks?" and len(made) == 2
    everybody = off[(off["metric"] == "observed_expected") & (off["group"] == "all")].iloc[0]
    assert "No group has enough events" in said(
        by_group(off, STUDY, 1.0).assign(value=np.nan), everybody, STUDY
    )
