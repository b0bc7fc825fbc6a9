"The first screen: what a hurried reader takes away, decided by rules and said in words that can't be misread."

import re
import warnings
from collections import Counter
from dataclasses import replace

import pandas as pd
import pyphen
import pytest

from medlab.core.study import Study, Target
from medlab.judge import audit
from medlab.judge.metrics import difference, per_subject, table
from medlab.studies.glucose.study import study as GLUCOSE
from medlab.tell import example
from medlab.tell.cards import cards
from medlab.tell.language import speaking, t
from medlab.tell.questions import CHECKS, TESTS
from medlab.tell.reference import against_best, against_reference
from medlab.tell.verdict import judge
from medlab.tell.words import LEADS, METRICS, PLAIN, called, group_name, listed, people, some, where

ENGLISH = pyphen.Pyphen(lang="en_US", left=1, right=1)
LONG = "Eighty letters of a name that somebody thought would make a fine label for tables"


def target(name="glucose", label="Glucose", unit="mg/dL"):
    return Target(name, label, unit, 40, 400, 6, "convention", 15, 0.15, "ISO 15197:2013")


STUDY = Study(
    "made_up",
    "A made-up study",
    "Where will it be?",
    "regression",
    (target(),),
    (30.0, 60.0),
    "min",
    "UTC timestamp",
    "lstm",
    "persistence",
    ("trend", "range"),
    "Research.",
    "Everything else.",
    key_horizons=(30.0, 60.0),
    outcome_slices=("range",),
    yardsticks=("within_tolerance",),
)
RISK = replace(STUDY, kind="binary", reference="prevalence", horizons=(0.0,), key_horizons=(0.0,))
SCORE = replace(RISK, kind="score", reference="warning_score")


def measured(skill=0.25, half=0.05, study=STUDY, n=30, at=None, **changed):
    "A metrics table in which the model saves `skill` of the reference's error of 20, more or less by `half`."
    lead, rows = LEADS[study.kind], []
    for x in study.targets:
        for h in study.horizons:
            saved = changed.get(x.name, (at or {}).get(h, skill))
            for model, error in ((study.primary, 20 * (1 - saved)), (study.reference, 20.0)):
                common = {"model": model, "target": x.name, "scope": "at", "horizon": h, "group": "all"}
                common |= {"n_subjects": n, "n_rows": 100 * n, "n_censored": 0, "note": ""}
                values = {lead.error: (error, 1.0, x.unit), "within_tolerance": (60.0, 3.0, "%")}
                values |= {lead.skill: (saved if model == study.primary else 0.0, half, "fraction")}
                for metric, (value, wide, unit) in values.items():
                    ends = {"value": value, "low": value - wide, "high": value + wide}
                    ends |= {} if n >= 5 else {"low": float("nan"), "high": float("nan")}
                    rows.append(common | {"metric": metric, "unit": unit} | ends)
    found = pd.DataFrame(rows)
    return found[found["metric"] != ""]


def apart(study=STUDY, n=30, half=0.5, metric="mae_difference", **gains):
    "Paired differences in which the model gains so much on each other method."
    rows = [
        {"other": other, "target": x.name, "horizon": h, "metric": metric, "n_subjects": n}
        | {"value": -gain, "low": -gain - half, "high": -gain + half, "unit": x.unit}
        for other, gain in gains.items()
        for x in study.targets
        for h in study.horizons
    ]
    return pd.DataFrame(rows)


def results(*rows, study=STUDY):
    "Test results of (test, verdict) or (test, verdict, group, effect, unit)."
    made = []
    for test, verdict, *more in rows:
        group, effect, unit = more or ("all", 1.0, "mg/dL")
        for h in study.horizons:
            made.append(
                {"test": test, "model": study.primary, "horizon": h, "group": group, "verdict": verdict}
                | {"effect": effect, "effect_unit": unit, "assumes_independence": False, "sentence": "x."}
            )
    return pd.DataFrame(made)


def check(name="target_in_input", verdict="pass", severity="error"):
    question = "Is the answer among the inputs?"
    return {
        "check": name,
        "verdict": verdict,
        "severity": severity,
        "question": question,
        "evidence": "3 of 24",
    }


FINE = results(("bias", "ok"), ("spread", "ok"), ("within_tolerance", "ok"))
SIMPLE = apart(persistence=5, ridge=2, oracle=-5)
PASSED = [check(), check("duplicates")]
USELESS = "Useless as it stands: no better than repeating the last value"
CASES = {  # what is so: (what differs from a model that is fine, status, headline)
    "all fine": ({}, "ok", "Better than repeating the last value, and within the limits"),
    "audit failed": (
        {"audit": [check(verdict="fail")]},
        "concern",
        "Do not rely on these numbers: the leakage audit",
    ),
    "better than possible": (
        {"differences": apart(persistence=9, oracle=3)},
        "concern",
        "too good to be true",
    ),
    "leaked and useless": (
        {"metrics": measured(-0.1), "audit": [check(verdict="fail")]},
        "concern",
        "Do not rely on these numbers",
    ),
    "useless": ({"metrics": measured(-0.1)}, "concern", USELESS),
    "exactly as good as the reference": ({"metrics": measured(0.0)}, "concern", USELESS),
    "useless, whatever the tests say": (
        {"metrics": measured(-0.1), "tests": results(("bias", "concern"))},
        "concern",
        USELESS,
    ),
    "useless early only": (
        {"metrics": measured(at={30.0: -0.1})},
        "concern",
        "Useless for 30 min ahead: no better than repeating the last value",
    ),
    "may be chance": (
        {"metrics": measured(0.03)},
        "unclear",
        "Not shown to be better than repeating the last value",
    ),
    "loses to a simple method": (
        {"differences": apart(persistence=5, ridge=-1)},
        "concern",
        "Not worth using as it stands: a simpler method is at least as good, a ridge regression",
    ),
    "as good as a simple method": (
        {"differences": apart(persistence=5, ridge=0.2)},
        "unclear",
        "Better than repeating the last value, but not clearly better than a ridge regression",
    ),
    "a test of concern": (
        {"tests": results(("bias", "concern"), ("spread", "ok"))},
        "concern",
        "but 1 of 2 kinds of test raises a concern",
    ),
    "tests of concern, perhaps no better": (
        {"metrics": measured(0.03), "tests": results(("bias", "concern"))},
        "concern",
        "Not shown to be better than repeating the last value; 1 of 1 kinds",
    ),
    "only a yardstick is missed": (
        {"tests": results(("bias", "ok"), ("within_tolerance", "concern"))},
        "ok",
        "within the limits that were set beforehand",
    ),
    "nothing but yardsticks": (
        {"tests": results(("within_tolerance", "ok"))},
        "unclear",
        "its errors were not tested",
    ),
    "a group has larger errors": (
        {"tests": results(("bias", "ok"), ("covariate_error", "concern", "by_trend=rising", 1.6, "ratio"))},
        "concern",
        "but its errors are larger where trend is rising",
    ),
    "errors of a group scatter more": (
        {"tests": results(("bias", "ok"), ("spread_between", "concern", "by_trend=rising", 1.6, "ratio"))},
        "concern",
        "but its errors scatter more where trend is rising",
    ),
    "a group has smaller errors": (
        {"tests": results(("bias", "ok"), ("covariate_error", "concern", "by_trend=rising", 0.6, "ratio"))},
        "ok",
        "Better than",
    ),
    "a group cut by the truth": (
        {"tests": results(("bias", "ok"), ("covariate_error", "concern", "by_range=below 70", 1.9, "ratio"))},
        "ok",
        "Better than",
    ),
    "a question is open": (
        {"tests": results(("bias", "unclear"))},
        "unclear",
        "but one question is still open",
    ),
    "the audit warns": (
        {"audit": [check("split_power", "fail", "warning")]},
        "unclear",
        "but the leakage audit has a warning",
    ),
    "nobody audited": ({"audit": []}, "unclear", "but nobody has looked for leaks"),
    "nobody tested": ({"tests": FINE[:0]}, "unclear", "but its errors were not tested"),
    "no rows": (
        {"metrics": measured()[:0], "differences": SIMPLE[:0]},
        "unclear",
        "there are no predictions to test on",
    ),
    "no table at all": (
        {"metrics": pd.DataFrame(), "tests": pd.DataFrame()},
        "unclear",
        "there are no predictions",
    ),
    "no rows of the model": (
        {"metrics": measured().query("model != 'lstm'")},
        "unclear",
        "there are no predictions to test on",
    ),
    "nothing beside it": (
        {"metrics": measured().query("model == 'lstm'")},
        "unclear",
        "Nothing to compare it with",
    ),
    "one patient": (
        {"metrics": measured(-0.4, n=1), "differences": apart(n=1, half=0, persistence=-4, oracle=3)},
        "unclear",
        "Nothing can be said: too few patients to test on",
    ),
}


def verdict_of(study=STUDY, extra=(), **given):
    given = {"metrics": measured(study=study), "differences": SIMPLE, "tests": FINE, "audit": PASSED} | given
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return judge(study, **given, extra=extra)


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_follows_the_rules(name):
    given, status, headline = CASES[name]
    verdict = verdict_of(**given)
    assert (verdict.status, headline in verdict.headline) == (status, True), verdict.headline


@pytest.mark.parametrize("name", CASES)
def test_every_verdict_is_short_in_both_languages_and_says_the_same_numbers(name):
    english = verdict_of(**CASES[name][0])
    with speaking("sv", "") as now:
        swedish = verdict_of(**CASES[name][0])
    assert not now.missing
    assert [s for s, _ in swedish.reasons] == [s for s, _ in english.reasons]
    for ours, theirs in zip(texts_of(english), texts_of(swedish), strict=True):
        assert numbers(ours) == numbers(theirs)
        assert ours != theirs
    assert len(english.reasons) <= 7
    for _, reason in english.reasons:
        assert len(list(sentences([reason]))) <= 2, reason
        assert max(map(len, sentences([reason]))) <= 18, reason


def test_what_makes_everything_else_void_comes_first():
    verdict = verdict_of(metrics=measured(-0.1), audit=[check(verdict="fail")])
    assert verdict.reasons[0] == ("concern", "The leakage audit failed: the answer is among the inputs.")
    assert any("more than with repeating the last value" in reason for _, reason in verdict.reasons)


def test_a_failed_audit_is_never_softened_by_what_is_fine():
    for name in ("audit failed", "better than possible", "leaked and useless", "useless"):
        assert "Better than" not in verdict_of(**CASES[name][0]).headline


def test_yardsticks_are_told_last_and_never_as_a_concern():
    verdict = verdict_of(tests=results(("bias", "ok"), ("within_tolerance", "concern")))
    assert verdict.reasons[-1][0] == "unclear"
    assert "misses 1 of 1 limits that were made for something else" in verdict.reasons[-1][1]
    counted = next(reason for _, reason in verdict.reasons if "of test" in reason)
    assert counted.startswith("1 kind of test: 1 within limits, 0 of concern")


def test_a_second_way_to_ask_is_not_a_second_question():
    verdict = verdict_of(tests=results(("bias", "ok"), ("bias_sign_flip", "concern"), ("spread", "ok")))
    assert any(
        reason.startswith("2 kinds of test: 1 within limits, 1 of concern") for _, reason in verdict.reasons
    )


def test_tests_that_count_rows_or_other_models_or_horizons_do_not_decide():
    rows = results(("bias", "concern"))
    for other in ({"assumes_independence": True}, {"model": "ridge"}, {"horizon": 45.0}):
        tests = pd.concat([FINE, rows.assign(**other)])
        assert verdict_of(tests=tests).status == "ok"


def test_reasons_of_the_lens_stand_after_accuracy_and_count():
    harm = ("concern", "It misses 3 lows per 100 patient-days.", "it misses more lows than it should")
    verdict = verdict_of(extra=(harm,))
    assert verdict.status == "concern"
    assert verdict.headline == "Better than repeating the last value, but it misses more lows than it should"
    assert verdict.reasons[1] == harm[:2]
    assert verdict_of(extra=(("none", "It misses nothing.", ""),)).status == "ok"


@pytest.fixture(scope="module")
def forty():
    names = [f"{LONG} {i}" for i in range(40)]
    return replace(STUDY, targets=tuple(target(f"t{i}", name, "mmol/L") for i, name in enumerate(names)))


def test_forty_targets_are_counted_and_at_most_three_are_named(forty):
    verdict = verdict_of(forty, metrics=measured(study=forty, t3=-0.1, t5=-0.1, t6=-0.2, t9=-0.1, t11=-0.1))
    assert verdict.headline == "Useless for 5 of 40 targets: no better than repeating the last value"
    assert len(verdict.reasons) <= 6
    for _, reason in verdict.reasons:
        assert reason.count(LONG) <= 3
    assert "Better than repeating the last value for 35 of 40 targets." in verdict.reasons[0][1]
    assert f"{LONG} 6 and 2 more" in verdict.reasons[0][1]


def test_one_bad_target_among_forty_is_enough(forty):
    assert verdict_of(forty, metrics=measured(study=forty)).status == "ok"
    assert verdict_of(forty, metrics=measured(study=forty, t39=-0.01)).status == "concern"
    best = apart(forty, persistence=5, ridge=2)
    best.loc[(best["target"] == "t7") & (best["horizon"] == 30), ["value", "low", "high"]] = [1.0, 0.5, 1.5]
    verdict = verdict_of(forty, metrics=measured(study=forty), differences=best)
    assert (verdict.status, verdict.headline) == (
        "concern",
        f"Not worth using for {LONG} 7: a simpler method is at least as good",
    )


def test_two_targets_are_named_one_by_one():
    two = replace(STUDY, targets=(target(), target("potassium", "Potassium", "mmol/L")))
    reasons = against_reference(measured(study=two, potassium=-0.1), two)
    assert [reason[0] for reason in reasons] == ["ok", "concern"]
    assert reasons[1][1].startswith("Potassium, 60 min ahead: it is typically off by 22.0 mmol/L")
    assert reasons[1][2] == "Useless for Potassium: no better than repeating the last value"


def test_risks_lead_with_the_brier_score_and_need_no_unit():
    (reason,) = against_reference(measured(study=RISK), RISK)
    assert reason[0] == "ok"
    assert reason[1].startswith("Its Brier score is 15.0000 (14.0000 to 16.0000); 0 is perfect.")
    assert "less than with the same risk for everybody" in reason[1]
    (reason,) = against_reference(measured(-0.1, study=RISK), RISK)
    assert reason[2] == "Useless as it stands: no better than the same risk for everybody"
    (reason,) = against_reference(measured(study=RISK).replace({"metric": {"skill": "brier_skill"}}), RISK)
    assert reason[0] == "ok"


@pytest.mark.parametrize(("gain", "status"), [(0.1, "ok"), (0.02, "unclear"), (-0.1, "concern")])
def test_a_score_is_judged_by_its_ranking_where_high_is_good(gain, status):
    metrics = measured(study=SCORE)
    found = apart(SCORE, half=0.05, metric="auroc_difference", warning_score=-gain, logistic=-gain)
    reason = against_reference(metrics, SCORE, found)[0]
    assert reason[0] == status
    assert against_best(found, SCORE)[0][0] == status
    best = apart(SCORE, half=0.05, metric="auroc_difference", oracle=-0.2)
    assert "leaked" in verdict_of(SCORE, metrics=metrics, differences=best).headline


def people_of(study, n=4):
    keys = {"model": study.primary, "target": study.targets[0].name}
    rows = [
        keys | {"subject": f"P{i:02}", "horizon": h, "mae": 10.0 + i}
        for i in range(n)
        for h in study.horizons
    ]
    return pd.DataFrame(rows)


def grouped(metrics, **groups):
    "The same table with rows for groups: `rising=31` is the error where trend is rising."
    own = metrics[(metrics["model"] == "lstm") & (metrics["metric"] == "mae")]
    rows = [
        own.assign(group=f"by_{column}={name}", value=value, low=value - 1, high=value + 1)
        for name, (column, value) in groups.items()
    ]
    return pd.concat([metrics, *rows])


def test_the_three_cards_of_a_model_that_is_fine():
    metrics = grouped(measured(), rising=("trend", 31.0), steady=("trend", 12.0), low=("range", 60.0))
    floor = pd.DataFrame({"horizon": [30.0, 60.0], "value": [3.2, 4.1]})
    error, against, worst = cards(STUDY, metrics, people_of(STUDY), floor).cards
    assert (error.value, error.unit) == ("15.0", "mg/dL")
    assert error.range == "60 min ahead; 95\u00a0% interval 14.0 to 16.0 mg/dL"
    assert "Of 100 predictions, 60 (57 to 63) are close enough." in error.text[0]
    assert "Measurement noise alone would leave 4.1 mg/dL." in error.text
    assert (against.value, against.unit) == ("25\u00a0%", "less error")
    assert against.range == "than with repeating the last value; 95\u00a0% interval 20 to 30\u00a0%"
    assert (worst.value, worst.range) == (
        "31.0",
        "where trend is rising; 95\u00a0% interval 30.0 to 32.0 mg/dL",
    )
    assert "from 10.0 mg/dL to 13.0 mg/dL (P03)" in worst.text[1]


def test_the_card_of_a_losing_model_needs_no_subtraction():
    against = cards(STUDY, measured(-0.12), people_of(STUDY)).cards[1]
    assert (against.value, against.unit) == ("12\u00a0%", "more error")
    assert against.range.endswith("95\u00a0% interval 7 to 17\u00a0%")


@pytest.mark.parametrize("language", ["en", "sv"])
def test_cards_survive_what_is_missing(language):
    nobody = people_of(STUDY)[:0]
    given = [
        (STUDY, measured()[:0], nobody),
        (STUDY, pd.DataFrame(), pd.DataFrame()),
        (STUDY, measured(n=1), people_of(STUDY, 1)),
        (STUDY, measured().query("model == 'lstm'"), nobody),
        (
            STUDY,
            measured().assign(low=float("nan"), high=float("nan")),
            people_of(STUDY).assign(mae=float("nan")),
        ),
        (RISK, measured(study=RISK), people_of(RISK)),
        (SCORE, measured(study=SCORE), people_of(SCORE)),
    ]
    with warnings.catch_warnings(), speaking(language) as now:
        warnings.simplefilter("error")
        made = [cards(*each).cards for each in given]
    assert [len(each) for each in made] == [0, 0, 2, 1, 2, 2, 2]
    assert not now.missing
    assert "nan" not in str(made).lower().replace("finansi", "")


# ---- the real study, with invented numbers


@pytest.fixture(scope="module")
def glucose():
    frame = example.predictions(patients=16, days=2, gain=0.45)
    frame["model"] = frame["model"].replace("model", GLUCOSE.primary)
    frame = frame.rename(columns={"by_age_band": "by_age"}).assign(by_trend="rising")
    frame["by_age"] = frame["by_age"].map({"18-39": "18 to 39", "40-59": "40 to 64", "60+": "65 and over"})
    frame["by_range"] = frame["by_range"].map({"<70": "below 70", "70-180": "70 to 180", ">180": "above 180"})
    study = replace(GLUCOSE, slices=("age", "sex", "trend", "range"), outcome_slices=("range",))
    metrics = table(frame, study, n_resamples=50)
    others = [model for model in frame["model"].unique() if model != study.primary]
    differences = pd.concat(
        [difference(frame, study, study.primary, other, n_resamples=50) for other in others]
    )
    rows = [(test, "concern" if test in study.yardsticks else "ok") for test in TESTS]
    rows = [(test, "unclear" if i % 5 == 0 else verdict) for i, (test, verdict) in enumerate(rows)]
    rows += [("shape", "concern"), ("proportional_bias", "concern"), ("slice_discovery", "concern")]
    rows += [("covariate_error", "concern", "by_age=65 and over", 1.6, "ratio")]
    tests = results(*rows, study=study)
    patients = per_subject(frame)
    names = {name: f"P{i:02}" for i, name in enumerate(patients["subject"].unique())}
    patients["subject"] = patients["subject"].map(names)
    floor = pd.DataFrame({"horizon": study.horizons, "value": 4.1})
    checks = [check(name) for name in CHECKS] + [check("x", "not applicable")]

    def screen():
        verdict = judge(study, metrics, differences, tests, checks)
        return texts_of(verdict), texts_of(*cards(study, metrics, patients, floor).cards)

    return screen


def texts_of(*blocks):
    "All texts of a verdict or of cards, one by one."
    found = []
    for block in blocks:
        if hasattr(block, "headline"):
            found += [block.headline, *(sentence for _, sentence in block.reasons)]
        else:
            found += [block.title, f"{block.value} {block.unit}", block.range]
            found += [block.text] if isinstance(block.text, str) else list(block.text)
    return found


def sentences(texts):
    "Sentences as lists of words; a number is a word."
    for text in texts:
        for sentence in re.split(r"(?<=[.?!])\s+", text):
            if found := re.findall(r"[^\W_]+(?:[.,'/-][^\W_]+)*", sentence):
                yield found


def grade(texts):
    "Reading grade (Kincaid et al. 1975); syllables are counted in words that have letters."
    every = list(sentences(texts))
    words = [word for sentence in every for word in sentence]
    spoken = [word.lower() for word in words if re.search(r"[^\W\d]", word)]
    syllables = sum(len(ENGLISH.positions(word)) + 1 for word in spoken)
    return 0.39 * len(words) / len(every) + 11.8 * syllables / len(spoken) - 15.59


def lix(texts):
    "Readability of Swedish (Bjornsson 1968): words per sentence, plus the percentage of words above six letters."
    every = list(sentences(texts))
    words = [word for sentence in every for word in sentence]
    return len(words) / len(every) + 100 * sum(len(word) > 6 for word in words) / len(words)


def numbers(text):
    "The numbers of a text and how often each is there, whatever the decimal sign."
    return Counter(found.replace(",", ".") for found in re.findall(r"\d+(?:[.,]\d+)?", text))


def test_the_measures_of_reading_tell_easy_from_hard():
    easy, hard = ["The cat sat on the mat."], [HARD]
    assert grade(easy) < 2 < 14 < grade(hard)
    assert lix(["Katten satt vid dörren."]) < 30 < 60 < lix([SVÅR])


HARD = (
    "Conditional miscalibration of probabilistic predictions, notwithstanding satisfactory discrimination, "
    "necessitates recalibration before implementation in heterogeneous clinical environments."
)
SVÅR = (
    "Betingad felkalibrering av sannolikhetsprediktioner nödvändiggör, trots tillfredsställande diskriminering, "
    "omkalibrering före implementering i heterogena kliniska verksamheter."
)


def test_reading_grade_is_at_most_nine(glucose):
    verdict, three = glucose()
    use = [GLUCOSE.intended_use, GLUCOSE.not_for_use]
    for part in (verdict, three, use, verdict + three + use):
        assert grade(part) <= 9
    assert max(map(len, sentences(verdict + three))) <= 20


def test_swedish_is_easy_to_read(glucose):
    with speaking("sv", "glucose"):
        verdict, three = glucose()
    assert lix(verdict) <= 45
    assert lix(three) <= 45


def test_swedish_misses_no_string_and_no_number(glucose):
    english = [text for part in glucose() for text in part]
    with speaking("sv", "glucose") as now:
        swedish = [text for part in glucose() for text in part]
    assert not now.missing
    assert [numbers(a) for a in english] == [numbers(b) for b in swedish]
    assert not re.search(r"\d\.\d", " ".join(swedish))
    assert not re.search(r"\b(the|with|than|and|error)\b", " ".join(swedish))


def test_every_number_of_the_cards_has_a_unit(glucose):
    number = r"\u2212?\d+(?:\.\d+)?"
    several = rf"{number}(?:(?:,| and| to) {number})*"
    units = r"(?:\u00a0%|\u202f%| mg/dL| min ahead)"
    known = [
        rf"Of \d+ predictions, {number} \({several}\)",
        rf"\b{several}{units}(?: \({several}\))?",
        r"\bP\d\d\b",
        rf"where age is {number} (?:to {number}|and over)",
    ]
    _, three = glucose()
    for text in three:
        rest = text
        for pattern in known:
            rest = re.sub(pattern, "", rest)
        assert not re.search(r"\d", rest), text


def test_no_praise_no_stars_no_p(glucose):
    everything = " ".join(text for part in glucose() for text in part)
    assert not re.search(r"significan|accura|excellent|promising|\*|\bp\s*[<=]|AUC\b", everything)


def test_every_word_of_the_dictionary_has_swedish():
    with speaking("sv") as now:
        for table_ in (PLAIN, TESTS, CHECKS, {k: v[0] for k, v in METRICS.items()}):
            said = [t(word) for word in table_.values()]
            assert len(set(said)) == len(set(table_.values()))
        for lead in LEADS.values():
            t(lead.asks), t(lead.says, value="1"), t(lead.says_of, value="1", about="x")
        assert people(STUDY) == "patienter"
        assert called("persistence", STUDY) == "upprepning av det senaste värdet"
        assert where("by_age=65 and over") == "i gruppen ”ålder: 65 och över”"
        assert group_name("by_night=00 to 06")[1] == "00 till 06"
        assert listed(["a", "b", "c"]) == "a, b och c"
        assert some(list("abcde"), 2) == "a, b och 3 till"
    assert not now.missing


def test_every_check_of_the_audit_says_what_is_wrong():
    assert {check.__name__ for check in audit.CHECKS} <= set(CHECKS)


def test_numbers_of_a_group_stay_and_words_are_translated():
    assert group_name("by_range=70-180") == ("range", "70-180")
    assert group_name("all") == ("all", "")
    with speaking("sv") as now:
        assert group_name("by_range=<70")[1] == "<70"
        assert group_name("by_trend=rising")[1] == "stigande"
    assert not now.missing
