"The checklist, the cards and who was absent, on made-up runs whose answers are known by hand."

import datetime
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from medlab.judge.metrics import table as metrics_of
from medlab.tell import absent, card_page, example, model_card, tripod
from medlab.tell.language import speaking
from medlab.tell.page import Page, render
from medlab.tell.probast import probast

ID, SERIAL, DATE = "KARIN-1957", "881235", "2021-02-17"
BUNDLE = {
    "input": {"features": ["bg", "basal_rate"], "scaled_by": "scaler.json"},
    "parameters": {"hidden": 64, "dropout": 0.2},
    "files": {"model.onnx": "84af39b61dd73e06"},
}
MEANT = (("age_band", ("18-39", "40-59", "60+", "80+")), ("sex", ("F", "M")), ("pregnancy", ("pregnant",)))
STUDY = replace(example.STUDY, population=MEANT)


@pytest.fixture(scope="module")
def rows():
    made = example.predictions(patients=48, days=1)
    old = made["by_age_band"] == "60+"
    made = made[~old | made["subject"].isin(made["subject"].unique()[:12])].copy()  # four of the old are left
    made.attrs["level"] = 0.9
    return made


@pytest.fixture(scope="module")
def metrics(rows):
    return metrics_of(rows, STUDY, n_resamples=50)


def filled(rows, metrics, study=STUDY, stated=None, **changes):
    given = {
        "manifest": example.MANIFEST,
        "metrics": metrics,
        "tests": example.tests(),
        "audit": example.audit(),
        "provenance": {"medlab": "0.1.0", "code": "0123456789abcdef", "prepared data": "fedcba98"},
        "stated": stated or {},
        "card": BUNDLE,
        "predictions": rows,
    }
    return tripod.checklist(study, **(given | changes))


def carded(rows, metrics, study=STUDY, **changes):
    given = {
        "metrics": metrics,
        "tests": example.tests(),
        "audit": example.audit(),
        "card": BUNDLE,
        "manifest": example.MANIFEST,
        "provenance": {"code": "0123456789abcdef"},
        "stated": {},
        "issued": "2026-11-21",
        "valid_months": 12,
    }
    return model_card.model_card(study, **(given | changes))


# -- the checklist ------------------------------------------------------------------------------------------------------


def test_the_list_has_27_items_in_52_parts_with_the_published_letters():
    letters = {}
    for row in tripod.items():
        number, letter = re.fullmatch(r"(\d+)([a-g]?)", row["item"]).groups()
        letters.setdefault(int(number), []).append(letter)
    assert sum(map(len, letters.values())) == 52
    assert list(letters) == list(range(1, 28))
    several = {
        3: "abc",
        5: "ab",
        6: "abc",
        8: "abc",
        9: "abc",
        12: "abcdefg",
        18: "abcdef",
        20: "abc",
        23: "ab",
        27: "abc",
    }
    for number, found in letters.items():
        assert "".join(found) == several.get(number, ""), number
    only = {row["item"]: row["applies"] for row in tripod.items() if row["applies"] != "D;E"}
    assert {k for k, v in only.items() if v == "D"} == {"9a", "12a", "12b", "12c", "15", "22", "27a", "27b"}
    assert {k for k, v in only.items() if v == "E"} == {"12f", "12g", "20c", "24"}


def test_what_only_people_know_is_missing_until_they_say_it(rows, metrics):
    human = {row["item"] for row in tripod.items() if row["mode"] == "human"}
    before = filled(rows, metrics).set_index("item")["status"]
    assert (before[sorted(human)] == "missing").all()
    said = {row["key"]: "Said." for row in tripod.items() if row["key"]}
    after = filled(rows, metrics, stated=said).set_index("item")["status"]
    assert (after[sorted(human)] == "human").all()
    assert set(after[after == "missing"].index) == {"12a", "12g", "20c"}  # this run has no evidence of them


@pytest.mark.parametrize("blank", ["", "   ", None])
def test_a_blank_is_no_answer(rows, metrics, blank):
    assert filled(rows, metrics, stated={"ethics": blank}).set_index("item").loc["17", "status"] == "missing"


def test_half_an_answer_is_missing_and_shows_its_half(rows, metrics):
    found = filled(rows, metrics).set_index("item")
    assert found.loc["10", "status"] == found.loc["11", "status"] == found.loc["9b", "status"] == "missing"
    assert "6,912 rows are worth about 195" in found.loc["10", "text"]
    assert "2 inputs: bg, basal_rate" in found.loc["9b", "text"]


def test_a_sentence_needs_its_evidence(rows, metrics):
    audit = [{"check": "predictions_reproduced", "verdict": "pass", "severity": "error"}]
    with_it, without = (filled(rows, metrics, audit=a).set_index("item") for a in (audit, []))
    assert with_it.loc["12g", ["status"]].item() == "auto"
    assert without.loc["12g", ["status"]].item() == "missing"
    failed = filled(rows, metrics, audit=[audit[0] | {"verdict": "fail"}]).set_index("item")
    assert "THEY DIFFER" in failed.loc["12g", "text"]
    nothing = filled(
        None, metrics[:0], manifest={}, tests=example.tests()[:0], audit=[], provenance={}, card=None
    )
    assert set(nothing.loc[nothing["status"] == "auto", "item"]) == {
        "1",
        "2",
        "4",
        "12f",
        "13",
        "14",
        "15",
        "20b",
        "24",
    } - {"14"}


def test_simulated_data_have_a_known_source(rows, metrics):
    simulated = filled(rows, metrics, manifest=example.MANIFEST | {"simulated": True}).set_index("item")
    assert simulated.loc["5a", "status"] == "auto"
    assert "represent nobody" in simulated.loc["5a", "text"]
    assert filled(rows, metrics).set_index("item").loc["5a", "status"] == "missing"


def test_an_unknown_key_is_named_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match=r"'fundign' \(did you mean 'funding'\?\)"):
        tripod.check_stated({"fundign": "nobody"})


def test_nothing_claims_that_the_checklist_is_met(rows, metrics):
    made = tripod.section(filled(rows, metrics), {}, probast(STUDY, example.tests(), example.audit()))
    page = render(Page(title="t", lead="l", sections=(made,)))
    for text in (page, tripod.to_csv(filled(rows, metrics))):
        assert not re.search(
            r"compl(y|ies|iant|iance)\b|fulfil|adheres", text.partition("</style>")[2] or text, re.IGNORECASE
        )
    assert "not a claim that it is met" in page


def test_the_missing_stand_in_the_open_and_links_lead_to_sections_that_are_there(rows, metrics):
    frame = filled(rows, metrics)
    made = tripod.section(frame, {"how-accurate-is-it": "How accurate is it?"})
    open_ = BeautifulSoup(made.tables[0], "html.parser")
    assert len(open_.tbody.find_all("tr")) == (frame["status"] == "missing").sum()
    assert "NOT STATED" in open_.caption.text
    full = BeautifulSoup(made.details[0].tables[0], "html.parser")
    assert len(full.tbody.find_all("tr")) == 52
    assert {a["href"] for a in full.find_all("a")} == {"#how-accurate-is-it"}
    assert made.details[0].printed
    assert f"The run answers {(frame['status'] == 'auto').sum()} of them" in made.text[0]


def test_the_csv_is_stable_and_reads_back(rows, metrics, tmp_path):
    text = tripod.to_csv(filled(rows, metrics))
    assert text == tripod.to_csv(filled(rows, metrics))
    (tmp_path / "list.csv").write_text(text)
    back = pd.read_csv(tmp_path / "list.csv", dtype=str)
    assert back["item"].tolist() == [row["item"] for row in tripod.items()]


# -- who was absent -----------------------------------------------------------------------------------------------------


def test_groups_are_absent_few_unrecorded_or_there(rows):
    found = absent.table(STUDY, rows).set_index("group")
    expected = {
        "18-39": "there",
        "40-59": "there",
        "60+": "few",
        "80+": "absent",
        "F": "there",
        "M": "there",
        "pregnant": "unrecorded",
    }
    assert found["status"].to_dict() == expected


def test_small_numbers_and_what_gives_them_away_are_hidden(rows):
    found = absent.table(STUDY, rows).set_index("group")["patients"]
    assert found["60+"] == "fewer than 11"
    assert found["18-39"] == "not shown"  # or 36 - 16 would tell
    assert found["40-59"] == "16"
    assert found["80+"] == "0"
    assert absent.table(STUDY, rows, smallest=0).set_index("group").loc["60+", "patients"] == "4"
    page = str(absent.section(STUDY, rows))
    assert not re.search(r"(?<![\d-])4(?![\d-])", BeautifulSoup(page.split("Markup")[-1], "html.parser").text)


def test_rows_of_one_patient_count_once_and_order_does_not_matter(rows):
    again = pd.concat([rows, rows]).sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(absent.table(STUDY, rows), absent.table(STUDY, again))


def test_people_of_unknown_group_and_people_it_is_not_meant_for_are_told(rows):
    told = rows.assign(by_sex=rows["by_sex"].where(rows["by_age_band"] == "18-39", None))
    found = absent.table(STUDY, told)
    assert "unknown" in set(found["status"])
    narrow = replace(STUDY, population=(("age_band", ("40-59",)),))
    assert "not among those it is meant for" in " ".join(absent.section(narrow, rows).text)


def test_a_study_that_says_nothing_of_people_gets_a_section_that_says_so(rows):
    made = absent.section(example.STUDY, rows)
    assert made.key == "who-was-absent"
    assert "Nobody has stated" in made.text[0]
    assert len(absent.table(example.STUDY, rows)) == 0


# -- cards --------------------------------------------------------------------------------------------------------------


def test_cards_read_back_as_they_were_and_are_stable(rows, metrics):
    for made in (carded(rows, metrics), model_card.dataset_card(STUDY, example.MANIFEST, rows, {}, {})):
        text = model_card.to_yaml(made)
        assert yaml.safe_load(text) == made
        assert text == model_card.to_yaml(yaml.safe_load(text))
        assert "!!" not in text


def test_the_card_says_what_the_tables_say(rows, metrics):
    made = carded(rows, metrics)
    own = metrics[(metrics["model"] == "model") & (metrics["group"] == "all") & (metrics["scope"] == "at")]
    row = own[(own["metric"] == "mae") & (own["horizon"] == 60)].iloc[0]
    told = next(m for m in made["metrics"] if m["metric"] == "mae" and m["horizon"] == 60)
    assert told["value"] == pytest.approx(row["value"], rel=1e-3)
    assert told["low"] == pytest.approx(row["low"], rel=1e-3)
    assert made["valid_until"] == "2027-11-21"
    assert made["evaluation_data"]["patients"] == 36
    assert made["factors"]["never_recorded"] == ["pregnancy"]
    assert [f["test"] for f in made["quantitative_analyses"]["verdict_concern"]] == ["spread"]
    worst = made["quantitative_analyses"]["worst_groups"]
    values = [w["value"] for w in worst]
    assert values == sorted(values, reverse=True)
    assert "age_band=60+" not in [w["group"] for w in worst]  # four people are not ranked


def test_the_version_changes_with_the_model_and_only_with_it(rows, metrics):
    first = carded(rows, metrics)["version"]
    assert carded(rows, metrics, issued="2027-01-01", stated={"ethics": "x"})["version"] == first
    other = BUNDLE | {"files": {"model.onnx": "ffff"}}
    assert carded(rows, metrics, card=other)["version"] != first


def test_few_patients_are_not_counted_in_cards(rows, metrics):
    few = rows[rows["subject"].isin(rows["subject"].unique()[:3])]
    assert carded(rows, metrics.assign(n_subjects=3))["evaluation_data"]["patients"] == "fewer than 11"
    sheet = model_card.dataset_card(STUDY, {}, few, {}, {})
    assert sheet["composition"]["patients_judged_by_split"] == {"test": "not shown"}


def test_planted_ids_serials_and_dates_do_not_get_out(rows, metrics):
    planted = rows.assign(subject=rows["subject"].replace(rows["subject"].iloc[0], ID))
    reason = f"row of {ID}, pump {SERIAL}, on {DATE}"
    manifest = example.MANIFEST | {"rows": {"in": 10, "used": 9, "rejected": {reason: 1}}}
    names = {ID: "P01"}
    made = carded(planted, metrics, manifest=manifest, names=names)
    sheet = model_card.dataset_card(STUDY, manifest, planted, {}, {})
    listed = filled(planted, metrics, manifest=manifest)
    parts = (absent.section(STUDY, planted), tripod.section(listed), card_page.section(made, sheet))
    page = render(Page(title="t", lead="l", sections=parts))
    for text in (model_card.to_yaml(made), model_card.to_yaml(sheet), tripod.to_csv(listed), page):
        for secret in (ID, SERIAL, DATE):
            assert secret not in text
    assert "2023-03" not in model_card.to_yaml(sheet) + model_card.to_yaml(made)  # only the year
    assert sheet["composition"]["years_judged"] == [2023]


def test_a_card_without_a_part_or_with_odd_values_is_refused(rows, metrics):
    made = carded(rows, metrics)
    with pytest.raises(ValueError, match="caveats is missing"):
        model_card.check({k: v for k, v in made.items() if k != "caveats"}, model_card.MODEL_CARD)
    with pytest.raises(ValueError, match=r"card\.metrics\[0\]: float64"):
        model_card.check(made | {"metrics": [np.float64(1)]}, model_card.MODEL_CARD)


# -- Swedish, and runs that are barely runs ------------------------------------------------------------------------------


def numbers_in(text):
    text = re.sub(r"(?<=\d)[\u00a0\u202f,](?=\d{3}\b)", "", text).replace("−", "-")
    return sorted(re.findall(r"\d+(?:[.,]\d+)?", text.replace(",", ".")))


def sections(rows, metrics, study=STUDY, **changes):
    card = carded(rows, metrics, study)
    sheet = model_card.dataset_card(study, example.MANIFEST, rows, {}, {})
    listed = filled(rows, metrics, study, **changes)
    evidence = probast(study, example.tests(), example.audit(), card=BUNDLE, predictions=rows)
    return absent.section(study, rows), tripod.section(listed, None, evidence), card_page.section(card, sheet)


def test_swedish_is_complete_and_has_the_same_numbers(rows, metrics):
    study = replace(STUDY, population=MEANT[:2])  # names of groups belong to the study's own catalogue
    texts = {}
    for code in ("en", "sv"):
        with speaking(code) as now:
            html = render(Page(title="t", lead="l", sections=sections(rows, metrics, study)))
            texts[code] = BeautifulSoup(html, "html.parser").main.text
            texts[code] = texts[code].replace("21 November", "21").replace("21 november", "21")
    own = {study.title, study.question, study.intended_use, study.not_for_use, study.targets[0].label}
    own |= {"age band", "sex", *MEANT[0][1], *MEANT[1][1]}
    assert not now.missing - own, now.missing - own
    assert numbers_in(texts["en"]) == numbers_in(texts["sv"])


@pytest.mark.parametrize("kind", ["binary", "score"])
def test_other_kinds_of_question(rows, metrics, kind):
    study = replace(STUDY, kind=kind)
    made = rows.assign(y=(rows["y"] > 180).astype(float))
    listed = filled(made, metrics, study).set_index("item")
    assert listed.loc["15", "text"].startswith("A probability" if kind == "binary" else "A score")
    assert listed.loc["13", "status"] == ("missing" if kind == "binary" else "auto")
    topics = set(probast(study, example.tests(), [], card=BUNDLE, predictions=made)["topic"])
    assert ("events for each input" in topics) == (kind == "binary")


def test_runs_that_are_barely_runs(rows, metrics):
    long = "x" * 80
    many = tuple(replace(STUDY.targets[0], name=f"t{i}", label=f"{long}{i}") for i in range(40))
    one = rows[rows["subject"] == rows["subject"].iloc[0]]
    cases = [
        (STUDY, one, metrics.assign(n_subjects=1)),
        (STUDY, one[:1], metrics[:1].assign(value=np.nan, low=np.nan, high=np.nan)),
        (STUDY, rows[:0], metrics[:0]),
        (
            replace(STUDY, horizons=(0.0,), key_horizons=()),
            rows.assign(horizon=0.0),
            metrics.assign(horizon=0.0),
        ),
        (replace(STUDY, targets=many), rows, metrics.assign(target="t0")),
        (STUDY, rows.assign(time=np.arange(len(rows), dtype=float)), metrics),
        (STUDY, rows.assign(time=None), metrics),
        (STUDY, rows.assign(by_sex=None, by_age_band=np.nan), metrics),
        (STUDY, rows.astype(dict.fromkeys(("model", "split", "subject", "by_sex"), "category")), metrics),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for study, some, measured in cases:
            html = render(Page(title="t", lead="l", sections=sections(some, measured, study)))
            assert "nan" not in BeautifulSoup(html, "html.parser").main.text.lower().split()
        bare = tripod.checklist(STUDY, {}, metrics[:0], example.tests()[:0], [], {}, None)
        empty = model_card.model_card(
            STUDY, metrics[:0], example.tests()[:0], [], {}, {}, {}, {}, datetime.date(2026, 11, 21), 12
        )
        model_card.dataset_card(STUDY, {}, rows[:0], {}, {})
        probast(STUDY, example.tests()[:0], [])
    assert len(bare) == 52
    assert "No leakage audit was made." in empty["caveats"]
