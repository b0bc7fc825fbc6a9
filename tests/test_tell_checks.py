"What was tested, what to do about it, until when it holds, what changed: rules, anchors, triggers, two languages."

import re
from dataclasses import replace
from datetime import date
from html import unescape

import numpy as np
import pandas as pd
import pytest

from medlab.judge.metrics import per_subject
from medlab.judge.metrics import table as metrics_of
from medlab.tell import changes, checks, comparisons, example, findings, methods, recommendations, validity
from medlab.tell.language import speaking

STUDY = example.STUDY


def row(test, verdict, group="all", effect=2.0, horizon=60.0, **more):
    "One test result, made up."
    one = example.tests().iloc[0].to_dict()
    one |= {"test": test, "verdict": verdict, "group": group, "effect": effect, "horizon": horizon}
    return one | {"effect_low": effect - 1, "effect_high": effect + 1, "tolerance": 1.5} | more


def frame(*rows):
    return pd.DataFrame(list(rows))


def everything(section):
    "All markup of a section, folded or not."
    parts = [*section.tables, *(table for part in section.details for table in part.tables)]
    return "".join(map(str, parts)) + "".join(everything(part) for part in section.sections)


def numbers(text, language):
    "The numbers of a page in a form that does not know languages."
    text = unescape(re.sub(r"<[^>]*>", " ", str(text))).replace("\u2212", "-")
    thousands, point = {"en": (",", "."), "sv": ("\u00a0", ",")}[language]
    text = re.sub(rf"(?<=\d){thousands}(?=\d{{3}}(?!\d))", "", text)
    return sorted(re.findall(r"\d+(?:\.\d+)?", re.sub(rf"(?<=\d){re.escape(point)}(?=\d)", ".", text)))


# --- findings ---------------------------------------------------------------------------------------------------------


def test_every_row_has_its_own_id_that_is_valid_in_html():
    groups = [
        "all",
        "by_range=<70",
        "by_range=>70",
        "by_range=70",
        "by_pump=881235",
        "by_pump=881236",
        "by_x=" + "y" * 80,
    ]
    keys = [
        findings.test_key(row(t, "ok", g, horizon=h))
        for t in ("bias", "skill")
        for g in groups
        for h in (0.0, 30.0)
    ]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", key) for key in keys)
    assert not any("88123" in key for key in keys)


def test_a_pseudonym_stands_in_an_id_where_a_group_is_called_by_a_patient():
    key = findings.test_key(row("bias", "ok", "by_ward=KARIN-1957"), {"KARIN-1957": "P07"})
    assert "karin" not in key
    assert "1957" not in key


@pytest.mark.parametrize("test", [*findings.STATEMENTS, "bias_sign_flip", "net_benefit_10", "a_new_test"])
@pytest.mark.parametrize("verdict", ["ok", "concern", "unclear", "not assessable"])
def test_both_languages_say_the_same_numbers(test, verdict):
    for unit, effect in (
        ("mg/dL", -2.25),
        ("ratio", 0.7),
        ("fraction", 0.25),
        ("mg/dL over 46 days", 3.0),
        ("%", 1234.5),
    ):
        one = row(test or "unheard_of", verdict, "by_age_band=18-39", effect, effect_unit=unit)
        english = findings.built(one, STUDY, {})
        with speaking("sv") as now:
            swedish = findings.finding(one, STUDY, {})
        assert english.count("{") == swedish.count("{") == 0
        assert not now.missing & (set(findings.ENDS.values()) | set(findings._COUNTED.values())), now.missing
        points = lambda text: sorted(
            re.findall(r"\d+(?:[.,]\d+)?", re.sub(r"(?<=\d)[ \u00a0,](?=\d{3}\b)", "", text))
        )
        assert [x.replace(",", ".") for x in points(english)] == [
            x.replace(",", ".") for x in points(swedish)
        ]


def test_english_is_the_judges_own_sentence_without_small_groups():
    one = row("bias", "ok", sentence="Read -2 mg/dL low in 3 patients of CLINIC-1 since 2023-03-06.")
    assert findings.finding(one, STUDY, {"CLINIC-1": "P01"}) == (
        "Read \u22122 mg/dL low in fewer than 11 patients of P01 since [date]."
    )


def test_a_group_that_was_found_is_named_in_swedish():
    one = row("slice_discovery", "concern", effect=1.6, effect_unit="ratio")
    one["sentence"] = (
        "Errors 60 minutes ahead where sex is F and trend is rising are 1.60 times those of the others."
    )
    with speaking("sv"):
        text = findings.finding(one, STUDY, {})
    assert "stigande" in text
    assert "kvinna" in text


# --- tables of tests and of the audit ---------------------------------------------------------------------------------


def many():
    rows = [row("bias", "ok", horizon=h) for h in STUDY.horizons]
    rows += [
        row("memory", "unclear", effect_unit="correlation"),
        row("bias_sign_flip", "ok"),
        row("shape", "concern", effect_unit="%"),
    ]
    rows += [row("coverage", "concern", f"by_sex={s}", -6.0, effect_unit="percentage points") for s in "FM"]
    rows += [row("bias_rows", "not assessable", assumes_independence=True)]
    return frame(*rows)


def test_every_result_has_one_row_that_can_be_linked_to():
    page = everything(checks.what_was_tested(STUDY, many(), {}))
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(ids) == {findings.test_key(one) for one in many().to_dict("records")}


def test_yardsticks_stand_apart_and_trigger_nothing():
    study = replace(STUDY, yardsticks=("shape",))
    section = checks.what_was_tested(study, many(), {})
    apart = next(part for part in section.sections if part.key == "yardsticks")
    assert "test-shape" in str(apart.tables[0])
    assert "test-shape" not in str(section.tables[0])
    assert "misses" in recommendations.fired(recommendations.own_rows(STUDY, many()))
    assert "misses" not in recommendations.fired(recommendations.own_rows(study, many()))


def test_comparisons_are_counted_from_the_table():
    tests = many()
    tests.loc[0, "adjustment"] = "patient sign-flip max-T over 1,033 candidate slices, then Holm over 3 tests"
    n = comparisons.count(tests, pd.DataFrame({"slice": ["a", "b"]}))
    assert (n["results"], n["on rows"], n["groups"], n["groups and horizons"]) == (8, 1, 2, 2)
    assert (n["searched"], n["listed"], n["tests"]) == (1033, 2, 8)


def test_the_questions_of_the_audit_are_known_by_name():
    from medlab.judge.audit import CHECKS

    assert set(checks.QUESTIONS) == {check.__name__ for check in CHECKS}


def test_evidence_stays_english_and_says_so():
    audit = example.audit(True) + [
        {
            "check": "noise_rank",
            "question": "Does a column of noise matter?",
            "verdict": "pass",
            "severity": "warning",
        }
        | {"leakage_type": "L1.1 no test set", "evidence": "<b>7</b> columns", "fix": ""}
    ]
    with speaking("sv") as now:
        page = everything(checks.what_was_audited(audit, {}))
    assert not now.missing
    assert "Har en kolumn med brus betydelse?" in page
    assert '<span lang="en">&lt;b&gt;7&lt;/b&gt; columns</span>' in page
    assert (
        '<span lang="en">Is every patient in one split only?</span>' in page
    )  # not asked as the audit asks it


def test_rows_that_do_not_add_up_are_said_to():
    manifest = {
        "rows": {"in": 10, "used": 7, "rejected": {"no clock": 2}},
        "subjects": {"train": 3},
        "grid": {"low": 4},
    }
    section = methods.where_rows_went(manifest, {})
    assert "1 row is unaccounted for" in section.text[1]
    assert "no clock" in everything(section)
    assert "fewer than 11" in everything(section)
    assert methods.where_rows_went({}, {}).text == "The manifest holds no counts."


# --- recommendations --------------------------------------------------------------------------------------------------

CASES = [
    (row("bias", "concern"), {"recalibrate"}),
    (row("bias", "ok"), set()),
    (row("bias", "unclear"), {"open"}),
    (row("bias", "not assessable"), set()),
    (row("spread", "concern", effect_unit="ratio"), {"levels"}),
    (row("memory_later", "concern"), {"memory"}),
    (row("drift_error", "concern"), {"drift"}),
    (row("drift_error", "unclear"), {"watch"}),
    (row("skill", "concern", effect=-0.1), {"useless"}),
    (row("skill", "unclear"), {"skill"}),
    (row("coverage", "concern", effect=-7.0), {"narrow"}),
    (row("coverage", "concern", effect=7.0), {"wide"}),
    (row("coverage", "concern", "by_sex=F", -7.0), {"narrow groups"}),
    (row("coverage", "concern", "by_sex=F", 7.0), {"wide groups"}),
    (row("covariate_error", "concern", "by_sex=F", 1.9, effect_unit="ratio"), {"found group"}),
    (row("covariate_error", "concern", "by_sex=F", 0.5, effect_unit="ratio"), set()),
    (row("covariate_bias", "concern", "by_range=<70"), {"group bias"}),
    (row("slice_discovery", "concern", effect=1.6, effect_unit="ratio"), {"found group"}),
    (row("proportional_bias", "concern"), {"shrinkage"}),
    (row("shape", "concern"), {"misses"}),
    (row("censoring", "concern"), {"limits"}),
    (row("bad_patients", "concern"), {"patients"}),
    (row("pit", "concern"), {"levels"}),
    (row("calibration_slope", "concern"), {"slope"}),
    (row("calibration_in_the_large", "concern"), {"risks"}),
    (row("auroc", "unclear"), {"ranking"}),
    (row("net_benefit_10", "concern"), {"benefit"}),
    (row("covariate_error", "not assessable", "by_sex=F"), {"too few"}),
    (row("bias", "concern", horizon=15.0), set()),  # not a key horizon
    (row("bias", "concern", model="persistence"), set()),
    (row("bias", "concern", assumes_independence=True), set()),
    (row("bias_sign_flip", "concern"), set()),
]


@pytest.mark.parametrize(
    ("one", "expected"), CASES, ids=lambda c: f"{c['test']} {c['verdict']}" if isinstance(c, dict) else None
)
def test_a_rule_fires_exactly_when_it_should(one, expected):
    assert set(recommendations.fired(recommendations.own_rows(STUDY, frame(one)))) == expected


def test_a_group_of_which_something_is_known_is_not_said_to_be_too_small():
    both = frame(row("coverage", "not assessable", "by_sex=F"), row("bias", "ok", "by_sex=F"))
    assert "too few" not in recommendations.fired(recommendations.own_rows(STUDY, both))


def test_the_sizes_of_large_groups_do_not_give_away_a_small_one():
    sizes = {
        "by_age=18-39": 12,
        "by_age=40-59": 15,
        "by_age=60+": 3,
        "by_sex=F": 14,
        "by_sex=M": 16,
        "all": 30,
    }
    sentence = "Where {g} ({n} patients) errors are 1.0 times those elsewhere ({m} patients)."
    made = frame(*[row("covariate_error", "concern", g, 1.5, effect_unit="ratio", n_subjects=n, sentence=sentence.format(g=g, n=n, m=30 - n)) for g, n in sizes.items()])  # fmt: skip
    page = everything(checks.what_was_tested(STUDY, made, {})) + everything(advice(made))
    assert "14 patients" in page
    assert not re.search(r"\b(3|12|15|18|27) patients", page)


def test_groups_that_are_cut_by_the_truth_trigger_nothing():
    study = replace(STUDY, outcome_slices=("range",))
    assert recommendations.own_rows(study, frame(row("covariate_bias", "concern", "by_range=<70"))).empty


def test_a_concern_of_any_known_test_leads_to_advice():
    known = {test for rule in recommendations.RULES if "concern" in rule.verdicts for test in rule.tests}
    yardsticks = {"limits_of_agreement", "within_tolerance", "allowed_error"}
    assert set(findings.STATEMENTS) - {""} - yardsticks <= known


def advice(tests, audit=(), **more):
    return recommendations.section(STUDY, tests, list(audit) or example.audit(), {}, **more)


def test_every_link_leads_to_a_row():
    tests, audit = many(), example.audit(True)
    page = everything(checks.what_was_tested(STUDY, tests, {})) + everything(
        checks.what_was_audited(audit, {})
    )
    links = re.findall(r'href="#([^"]+)"', everything(advice(tests, audit)))
    assert len(links) >= 4
    for link in links:
        assert f'id="{link}"' in page


def test_a_failed_audit_comes_first_and_nothing_recommends_use():
    section = advice(many(), example.audit(True))
    assert section.tables[0].index("Do not use these results") < section.tables[0].index("misses")
    assert "None of this makes the model fit for use with patients" in section.text[1]
    assert "Split by patient." in section.tables[0]


def test_methods_and_absent_groups_trigger_too():
    differences = pd.DataFrame(
        [
            ("glucose", 60.0, "ridge", 0.1, -0.2, 0.4, "mg/dL"),
            ("glucose", 60.0, "oracle", -1.0, -2.0, -0.5, "mg/dL"),
        ],
        columns=["target", "horizon", "other", "value", "low", "high", "unit"],
    )
    absent = pd.DataFrame([("pregnancy", "pregnant", "absent")], columns=["division", "group", "status"])
    page = everything(advice(many(), differences=differences, absent=absent))
    assert "Use the simpler method" in page
    assert "1.0 mg/dL (0.5 to 2.0)" in page
    assert "Do not use it for people who were not in the data" in page
    clear = differences.assign(high=[-0.1, 3.0])
    assert "simpler" not in everything(advice(many(), differences=clear))


def test_at_most_ten_are_shown_and_no_finding_says_so():
    rows = [one for one, _ in CASES]
    section = advice(frame(*rows), example.audit(True))
    assert section.tables[0].count('scope="row"') == 10
    assert section.details[0].tables[0].count('scope="row"') >= 5
    fine = [one | {"verdict": "pass"} for one in example.audit()]
    assert advice(frame(row("bias", "ok")), fine).text[0] == "The tests and the audit call for nothing."
    assert (
        recommendations.section(STUDY, many()[:0], [], {}).text[0]
        == "Nothing was tested, so nothing follows."
    )


def test_the_number_of_patients_that_would_settle_it():
    n = recommendations.patients_needed(
        row("bias", "unclear", effect=1.0, n_subjects=25)
    )  # limit 1.5, se 1/1.96
    assert n == pytest.approx(25 * (2.8 / 1.96 / 0.5) ** 2, rel=0.06)
    assert recommendations.patients_needed(row("bias", "unclear", effect=1.5)) is None
    assert recommendations.patients_needed(row("bias", "unclear", effect=np.nan)) is None


# --- validity ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictions():
    made = example.predictions(patients=14, days=2)
    made.attrs["level"] = 0.9
    return made


@pytest.fixture(scope="module")
def metrics(predictions):
    return metrics_of(predictions, STUDY, n_resamples=200)


def test_two_samples_of_an_unchanged_model_trigger_in_one_of_forty_looks():
    rng, n, alarms = np.random.default_rng(7), 200, []
    for _ in range(3000):
        then, later = rng.gamma(4, 5, (2, n))
        half = 1.96 * then.std(ddof=1) / np.sqrt(n)
        one = {
            "metric": "mae",
            "value": then.mean(),
            "low": then.mean() - half,
            "high": then.mean() + half,
            "unit": "mg/dL",
        }
        alarms.append(later.mean() > validity.trigger(one, 1))
    assert 0.015 < np.mean(alarms) < 0.038


def test_triggers_point_in_the_bad_direction(metrics):
    found = validity.triggers(STUDY, metrics).set_index("measure")
    error, close, bias = (
        found.loc[name]
        for name in ("typical error", "share of predictions that are close enough", "average error")
    )
    assert error["high_limit"] > error["now"]
    assert close["low_limit"] < close["now"]
    assert (bias["low_limit"], bias["high_limit"]) == (-5, 5)


def test_binary_studies_watch_the_brier_score_and_the_sum_of_risks():
    study = replace(STUDY, kind="binary")
    rows = [("brier", 0.12, 0.10, 0.14, ""), ("observed_expected", 1.5, 1.2, 1.8, "")]
    table = pd.DataFrame(rows, columns=["metric", "value", "low", "high", "unit"])
    table = table.assign(
        model="model", target="glucose", horizon=60.0, group="all", scope="at", n_subjects=40
    )
    section = validity.section(study, table, "2026-11-21", 12, {"pump": 0.04})
    assert f"above {0.12 + 0.02 * 2**0.5:.3f}" in section.tables[0]
    assert "1.50 (at its limit now)" in section.tables[0]
    assert "missing values of pump" in section.tables[0]
    assert any("1 of them is beyond its limit already" in text for text in section.text)


def test_a_date_that_is_none_says_what_to_write(metrics):
    with pytest.raises(ValueError, match="write year-month-day"):
        validity.section(STUDY, metrics, "next spring", 12)
    with pytest.raises(ValueError, match="whole number of months"):
        validity.section(STUDY, metrics, "2026-11-21", 0)
    assert "not be relied on for any date" in validity.section(STUDY, metrics, "", 12).text[0]
    assert validity.not_after(date(2027, 1, 31), 1) == date(2027, 2, 28)
    assert "21 November 2027" in validity.section(STUDY, metrics, "2026-11-21", 12).text[1]


def test_missing_inputs_come_from_the_manifest():
    assert validity.missing_inputs({"grid": {"ticks": 100, "missing": 3}}) == {"readings": 0.03}
    assert validity.missing_inputs({"missing": {"lab": 0.2, "odd": "many"}}) == {"lab": 0.2}
    assert validity.missing_inputs({}) == {}


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_paired_difference_is_that_of_an_independent_computation(predictions):
    before = example.predictions(patients=14, days=2, gain=0.2)
    found = changes.compare(STUDY, predictions, before.sample(frac=1, random_state=1), n_resamples=4000)
    assert found["paired"].all()
    line = found[(found["metric"] == "mae") & (found["horizon"] == 60)].iloc[0]
    sides = [
        per_subject(part).query("model == 'model' and horizon == 60").set_index("subject")
        for part in (predictions, before)
    ]
    total = [(side["mae"] * side["n_rows"]).sum() / side["n_rows"].sum() for side in sides]
    assert line["difference"] == pytest.approx(total[0] - total[1], rel=1e-9)
    gaps = sides[0]["mae"] - sides[1]["mae"]  # every patient has as many rows: the mean of patients' gaps
    half = 2.16 * gaps.std(ddof=1) / np.sqrt(len(gaps))  # Student's t, 13 degrees of freedom
    assert line["high"] - line["low"] == pytest.approx(2 * half, rel=0.2)


def test_a_version_against_itself_has_not_changed(predictions):
    found = changes.compare(STUDY, predictions, predictions, n_resamples=50)
    assert (found["difference"] == 0).all()
    assert {changes.verdict_of(one, 0.9) for one in found.to_dict("records")} == {"no clear change"}


def test_with_other_truths_nothing_is_paired(predictions, metrics):
    other = predictions.assign(y=predictions["y"] + 1)
    found = changes.compare(STUDY, predictions, other, metrics, metrics)
    assert found.attrs["why"] == "other truths"
    assert not found["paired"].any()
    line = found[found["metric"] == "mae"].iloc[0]
    source = metrics[
        (metrics["metric"] == "mae") & (metrics["model"] == "model") & (metrics["group"] == "all")
    ]
    source = source[(source["horizon"] == line["horizon"]) & (source["scope"] == "at")].iloc[0]
    assert line["high"] - line["low"] == pytest.approx((source["high"] - source["low"]) * 2**0.5)


def test_numbers_without_intervals_leave_it_open(metrics):
    flat = changes.flat_metrics(
        {"model": {"mae": {"60min": 30.0, "path": 9.0}, "bias": {"60min": None}}}, STUDY
    )
    found = changes.compare(STUDY, None, None, metrics, flat)
    assert len(found) == 1
    assert changes.verdict_of(found.iloc[0].to_dict()) == "not known"
    assert "can't be told what is chance" in " ".join(changes.section(STUDY, found, "v1").text)


@pytest.mark.parametrize(
    ("metric", "before", "now", "expected"),
    [("mae", 20, 18, "better"), ("mae", 18, 20, "worse"), ("bias", 1, -4, "worse"), ("bias", -4, 1, "better")]
    + [("within_tolerance", 80, 85, "better"), ("coverage", 90, 99, "worse"), ("coverage", 80, 88, "better")],
)
def test_better_means_better(metric, before, now, expected):
    gap = now - before
    one = {
        "metric": metric,
        "before": before,
        "now": now,
        "difference": gap,
        "low": gap - 0.5,
        "high": gap + 0.5,
    }
    assert changes.verdict_of(one, 0.9) == expected
    assert changes.verdict_of(one | {"low": -99, "high": 99}, 0.9) == "no clear change"


def test_new_and_vanished_concerns_are_named():
    new, gone = changes.concerns(
        STUDY,
        frame(row("bias", "concern"), row("shape", "ok")),
        frame(row("bias", "ok"), row("shape", "concern")),
    )
    assert list(new["test"]) == ["bias"]
    assert list(gone["test"]) == ["shape"]
    assert changes.concerns(STUDY, many(), None) is None


def test_without_an_earlier_version_it_says_which_parameter_to_set():
    assert "report.compare_with" in changes.section(STUDY, None).text


# --- Swedish, and what is small, empty or large -----------------------------------------------------------------------


def sections(study, tests, predictions, metrics, audit):
    "Everything of this part of the page."
    found = changes.compare(study, predictions, predictions, n_resamples=20)
    return [
        checks.what_was_tested(study, tests, {}, slices=pd.DataFrame({"slice": ["a"]})),
        checks.what_was_audited(audit, {}),
        methods.where_rows_went(example.MANIFEST, {}),
        recommendations.section(study, tests, audit, {}),
        validity.section(study, metrics, "2026-11-21", 12, {"readings": 0.03}),
        changes.section(study, found, "v1", changes.concerns(study, tests, tests[:1]), 0.9),
    ]


def test_swedish_is_complete_and_says_the_same_numbers(predictions, metrics):
    made = {}
    for language in ("en", "sv"):
        with speaking(language) as now:
            made[language] = sections(STUDY, many(), predictions, metrics, example.audit(True))
        assert not now.missing
    for english, swedish in zip(made["en"], made["sv"], strict=True):
        assert english.key == swedish.key
        if english.key in {
            "valid-until",
            "what-changed",
            "where-did-the-data-go",
        }:  # no sentences of the judge
            assert numbers(everything(english), "en") == numbers(everything(swedish), "sv")
        assert "&lt;span" not in everything(swedish)  # blocks in sentences stay blocks
        ids = [re.findall(r' id="([^"]+)"', everything(part)) for part in (english, swedish)]
        assert ids[0] == ids[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("language", ["en", "sv"])
@pytest.mark.parametrize(
    "cut",
    [
        "one patient",
        "one row",
        "no rows",
        "no tests",
        "nan",
        "forty targets",
        "no horizon",
        "binary",
        "score",
    ],
)
def test_odd_inputs_are_survived(cut, language, predictions, metrics):
    study, tests, part, table = STUDY, many(), predictions, metrics
    if cut == "one patient":
        part = predictions[predictions["subject"] == predictions["subject"].iloc[0]]
        table = metrics_of(part, study, n_resamples=10)
    if cut == "one row":
        part = predictions[predictions["model"] == "model"][:1]
        table = metrics_of(part, study, n_resamples=10)
    if cut == "no rows":
        part, table = predictions[predictions["model"] != "model"], metrics[metrics["model"] != "model"]
    if cut == "no tests":
        tests = tests[:0]
    if cut == "nan":
        tests = tests.assign(effect=np.nan, effect_low=np.nan, effect_high=np.nan, tolerance=np.nan)
        table = metrics.assign(low=np.nan, high=np.nan)
    if cut == "forty targets":
        many_of = tuple(
            replace(STUDY.targets[0], name=f"lab_{i}", label="A name of eighty characters " * 3)
            for i in range(40)
        )
        study = replace(STUDY, targets=many_of)
        tests = pd.concat([tests.assign(target=target.name) for target in many_of])
        table = pd.concat(
            [metrics[metrics["group"] == "all"].assign(target=target.name) for target in many_of]
        )
        part = predictions.assign(target="lab_3")
    if cut == "no horizon":
        study = replace(STUDY, horizons=(0.0,), key_horizons=(0.0,))
        tests, table = (
            tests.assign(horizon=0.0).drop_duplicates(["test", "group"]),
            metrics.assign(horizon=0.0),
        )
        part = predictions[predictions["horizon"] == 60].assign(horizon=0.0)
    if cut in {"binary", "score"}:
        study = replace(STUDY, kind=cut)
        part = predictions.assign(y=1.0, yhat=0.5)
    with speaking(language):
        for section in sections(study, tests, part, table, [] if cut == "no tests" else example.audit()):
            assert section is not None
            assert section.text or section.tables
            assert len(everything(section)) < 600_000
