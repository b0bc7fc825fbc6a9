"What only the report of the risk study says: counted by hand, the same in both languages, honest where little is known."

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from medlab.judge.metrics import per_subject
from medlab.judge.metrics import table as metrics_table
from medlab.studies.risk import acting, cohorts, example, importance, lens, patterns, uncertainty
from medlab.studies.risk.study import study
from medlab.tell import example as invented
from medlab.tell.language import speaking
from medlab.tell.report import assemble

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def rows():
    return example.cohort(1000)


@pytest.fixture(scope="module")
def table(rows):
    return example.predictions(rows)


@pytest.fixture(scope="module")
def measured(rows, table):
    return lens.measure(
        table, study, rows, rows[["subject", "true_diagnosis_year"]], example.score, n_resamples=100
    )


def own(table, split="test"):
    return table[(table["model"] == study.primary) & (table["split"] == split)]


def hand(p, y, subject=None):
    "A table of the seam with one method."
    n = len(p)
    subject = [f"s{i}" for i in range(n)] if subject is None else subject
    time = pd.to_datetime([f"{2015 + i}-12-31" for i in range(n)])
    return pd.DataFrame({"model": study.primary, "split": "test", "subject": subject, "time": time, "target": "diagnosis", "horizon": 1.0, "y": np.asarray(y, float), "yhat": p, "lo": np.nan, "hi": np.nan})  # fmt: skip


def test_alarms_are_counted_by_hand():
    rows = hand([0.5, 0.2, 0.1, 0.05], [1, 0, 1, 1])
    found = acting.count(rows, study, {"a": (study.primary, 0.1)}, price=1 / 9, n_resamples=20)
    value = found.set_index("measure")["value"]
    assert value["alarms"] == 75 and value["found"] == 50 and value["missed"] == 25
    assert value["evaluate"] == 1.5 and np.isclose(value["net_benefit"], 100 * (2 - 1 / 9) / 4)
    assert found["low"].isna().all()  # four patients say nothing about the spread


def test_the_gain_is_paired_and_of_a_method_against_itself_nothing(table):
    twice = {"one": (study.primary, 0.1), "two": (study.primary, 0.1), "other": ("age_and_sex", 0.1)}
    rows = table[table["split"] == "test"]
    gain = acting.count(rows, study, twice, 1 / 9, 100).query("measure == 'gain'").set_index("line")
    assert (gain.loc["two", ["value", "low", "high"]] == 0).all()
    assert gain.loc["other", "low"] < gain.loc["other", "value"] < gain.loc["other", "high"]


def test_stated_costs_are_used_and_missing_ones_are_said_to_be_missing(table):
    stated = acting.measure(table, study, {"net_benefit": 0.2, "youden": 0.06}, n_resamples=50)
    assert (
        stated.threshold == 0.2
        and stated.stated
        and list(dict.fromkeys(stated.policies["line"])) == ["net_benefit", "youden"]
    )
    assert "4 people called in vain" in acting.section(stated, study).text[0]
    nobody = acting.measure(table, study, n_resamples=50)
    assert nobody.threshold == 0.1 and any(
        "Nobody stated" in text for text in acting.section(nobody, study).text
    )


def test_test_rows_never_choose_a_threshold(table):
    worse = table.assign(y=1 - table["y"])
    kept = {"net_benefit": 0.1, "f1": 0.13}
    assert acting.measure(worse, study, kept, n_resamples=20).threshold == acting.measure(table, study, kept, n_resamples=20).threshold  # fmt: skip


def test_new_and_known_patients_are_measured_apart(table):
    found = cohorts.measure(table, study, n_resamples=50)
    whole = found[(found["year"] == 0) & (found["model"] == study.primary)].set_index(["split", "metric"])
    for split in ("test", "next_year"):
        rows = own(table, split)
        assert np.isclose(whole.loc[(split, "brier"), "value"], ((rows["yhat"] - rows["y"]) ** 2).mean())
        assert np.isclose(
            whole.loc[(split, "observed_expected"), "value"], rows["y"].sum() / rows["yhat"].sum()
        )
    years = found[(found["year"] > 0) & (found["metric"] == "brier") & (found["split"] == "test")]
    assert years["n_rows"].sum() == len(own(table))


def test_better_than_possible_is_a_concern_and_a_little_worse_is_not(table):
    honest = cohorts.to_the_best(table, study, n_resamples=100)
    assert (honest["low"] <= 0).all() and cohorts.best_sentence(honest.iloc[0])[0] == "ok"
    leaky = table.copy()
    mine = (leaky["model"] == study.primary).to_numpy() & (np.arange(len(leaky)) % 7 == 0)
    leaky.loc[mine, "yhat"] = leaky.loc[mine, "y"].clip(0.001, 0.999)
    leaked = cohorts.to_the_best(leaky, study, n_resamples=100)
    assert cohorts.best_sentence(leaked.iloc[0])[0] == "concern"
    assert cohorts.to_the_best(table[table["model"] != "oracle"], study).empty


def test_the_recorded_years_give_the_rows_back_and_others_move_them(rows, table):
    mine = own(table).assign(year=lambda f: cohorts.year_of(f["time"]))[["subject", "year", "y", "yhat"]]
    recorded = rows.groupby("subject")["diagnosis_year"].first().astype(float)
    same = uncertainty.moved(mine, recorded)
    assert len(same) == len(mine) and same["y"].sum() == mine["y"].sum()
    later, earlier = uncertainty.moved(mine, recorded + 1), uncertainty.moved(mine, recorded - 1)
    ill = int(mine["y"].sum())
    assert len(later) == len(mine) + ill and later["y"].sum() == ill
    assert len(earlier) == len(mine) - ill and earlier["y"].sum() <= ill


def test_a_date_that_is_certain_never_moves(rows, table):
    certain = rows.assign(
        diagnosis_year_low=rows["diagnosis_year"], diagnosis_year_high=rows["diagnosis_year"]
    )
    found = uncertainty.measure(table, study, certain, n_draws=5, n_resamples=20)
    assert found.uncertain == 0 and "drawn" not in set(found.moves["case"])
    bare = rows.drop(columns=["diagnosis_year", "diagnosis_year_low", "diagnosis_year_high"])
    unknown = uncertainty.measure(table, study, bare, n_draws=5, n_resamples=20)
    assert not unknown.limits and {"earlier", "later"} <= set(unknown.moves["case"])


def test_features_of_one_variable_go_together():
    assert (
        importance.variable("x_systolic_bp_trend_3y")
        == importance.variable("x_missing_systolic_bp")
        == "systolic_bp"
    )
    assert importance.variable("x_has_E11") == importance.variable("x_primary_diagnosis_rate") == "diagnoses"
    assert (
        importance.variable("x_noise_feature_3_lag_1y") == "noise" and importance.variable("x_age") == "age"
    )


def test_what_a_model_does_not_use_costs_nothing_and_histories_stay_whole(rows):
    here = rows[rows["split"] == "test"]
    blind = lambda x: np.full(len(x), 0.1)
    costs, _ = importance.permutation(blind, here.filter(like="x_"), here["y"], here["subject"], here["year"])
    assert (costs[["auroc", "loss"]].to_numpy() == 0).all()
    who = np.repeat(np.arange(50), np.random.default_rng(0).integers(1, 6, 50))
    source = importance.exchanged(who, np.random.default_rng(1))
    donors = pd.Series(who[source]).groupby(who).nunique()
    assert (donors == 1).all() and (who[source] != who).all() and len(set(who[source])) == 50


def test_importance_does_not_depend_on_the_order_of_the_rows(rows):
    one = importance.measure(example.score, rows, study, most=100)
    other = importance.measure(example.score, rows.sample(frac=1, random_state=1), study, most=100)
    pd.testing.assert_frame_equal(one.costs, other.costs)


def test_shares_of_missed_and_called_in_vain_are_those_of_the_rows(table):
    found = patterns.measure(table, study, 0.1, n_resamples=20).set_index("group")
    for group, part in own(table).groupby("by_sex"):
        ill = part[part["y"] == 1]
        assert np.isclose(found.loc[f"by_sex={group}", "missed"], (ill["yhat"] < 0.1).mean())
    assert found.loc["all", "n_subjects"] == own(table)["subject"].nunique()


def test_risks_that_are_wrong_on_average_are_the_first_thing_said(table):
    double = table.assign(
        yhat=np.where(table["model"] == study.primary, np.minimum(2.2 * table["yhat"], 0.99), table["yhat"])
    )
    status, sentence, headline = patterns.reason(patterns.measure(double, study, 0.1, n_resamples=50))
    assert status == "concern" and "0.4" in sentence and headline


def test_groups_are_named_only_beyond_the_chance_of_many_groups():
    frame = pd.DataFrame({"group": ["all", *(f"by_x={k}" for k in range(20))], "n_events": 50, "auroc": 0.5, "auroc_low": 0.4, "auroc_high": 0.6})  # fmt: skip
    frame.loc[1, ["auroc", "auroc_low", "auroc_high"]] = 0.61, 0.51, 0.71  # by itself, beyond its interval
    frame.loc[2, ["auroc", "auroc_low", "auroc_high"]] = 0.80, 0.70, 0.90
    assert list(patterns.clearly(frame, "auroc", 0.5)["group"]) == ["by_x=1"]


def texts(told) -> str:
    return " ".join(" ".join([s.title, *([s.text] if isinstance(s.text, str) else s.text), *map(str, s.tables), *(f.caption for f in s.figures)]) for s in told.sections)  # fmt: skip


def test_both_languages_say_the_same_numbers_in_the_same_order(measured, table):
    found = {}
    for code in ("en", "sv"):
        with speaking(code, "risk") as now:
            told = lens.additions(measured, table, study)
        assert not now.missing, now.missing
        text = BeautifulSoup(texts(told), "html.parser").get_text(" ").replace("\u2212", "-")
        text = re.sub(r"(?<=\d)[\u00a0,](?=\d{3}(?!\d))", "", text) if code == "en" else re.sub(r"(?<=\d),(?=\d)", ".", re.sub(r"(?<=\d)\u00a0(?=\d{3}(?!\d))", "", text))  # fmt: skip
        found[code] = [s.key for s in told.sections], sorted(re.findall(r"\d+(?:\.\d+)?", text))
    assert found["en"] == found["sv"]


def test_no_patient_is_named_and_no_small_group_counted(measured, table):
    told = lens.additions(measured, table, study)
    assert not re.search(r"R\d{4}", texts(told)) and len(told.sections) == 5


@pytest.mark.parametrize(
    "what",
    ["one patient", "nobody ill", "everybody ill", "no later year", "no oracle", "no groups", "no rows"],
)
def test_little_is_known_and_nothing_breaks(what):
    rows = example.cohort(300)
    table = example.predictions(rows)
    here = {
        "one patient": lambda: table[table["subject"] == own(table)["subject"].iloc[0]],
        "nobody ill": lambda: table.assign(y=0.0),
        "everybody ill": lambda: table.assign(y=1.0),
        "no later year": lambda: table[table["split"] == "test"],
        "no oracle": lambda: table[table["model"] != "oracle"],
        "no groups": lambda: table.drop(columns=[c for c in table if c.startswith("by_")]),
        "no rows": lambda: table[table["model"] != study.primary],
    }[what]()
    subjects = set(here["subject"])
    some = rows[rows["subject"].isin(subjects)].assign(
        y=lambda f: {"nobody ill": 0.0, "everybody ill": 1.0}.get(what, f["y"])
    )
    found = lens.measure(here, study, some, None, example.score, n_resamples=20)
    with speaking("sv", "risk"):
        told = lens.additions(found, here, study)
    assert (found is None) == (what == "no rows") and isinstance(told.sections, tuple)


def test_the_page_opens_with_whether_chances_come_true(measured, table):
    given = table.copy()
    given.attrs = {"level": 0.9, "kind": "binary"}
    tests = invented.tests_risk().assign(model=study.primary, study=study.name)
    html = assemble(
        study, metrics=metrics_table(given, study, n_resamples=50), per_subject=per_subject(given, study=study), tests=tests,
        audit=invented.audit(), manifest=invented.MANIFEST, predictions=given, simulated=True, additions=lens.additions(measured, given, study),
    ).html  # fmt: skip
    page = BeautifulSoup(html, "html.parser")
    keys = [part["id"] for part in page.select(".part[id]")]
    assert (
        keys.index("do-its-chances-come-true")
        < keys.index("how-accurate-is-it")
        < keys.index("what-acting-would-mean")
    )
    assert "net_benefit" not in page.get_text() and "fraction" not in page.get_text()
    assert page.select_one("#error-by-patient") is None  # one outcome of one person is no error rate


def test_the_study_can_be_renamed_and_the_lens_follows(table):
    other = replace(study, primary="logistic")
    assert acting.measure(table, other, n_resamples=20).methods["line"].iloc[0] == "logistic"
