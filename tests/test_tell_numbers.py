"No number on the page is made up: cells are the tables' values, and what does not follow the data is on a short list of constants."

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from test_tell_page import make

from medlab.judge.metrics import table as metrics_of
from medlab.tell import example

TRUE_MINUS = "\u2212"


def number(text: str) -> float:
    "A number as the English page writes it."
    return float(text.replace(TRUE_MINUS, "-").replace(",", ""))


def triple(cell) -> tuple[float, float, float] | None:
    "Value and interval of a cell; None where there is none."
    text = cell.get_text(" ").replace("\u00a0", " ").replace("\u202f", " ")
    found = re.fullmatch(
        rf"([{TRUE_MINUS}\d.,]+)\s*\S*\s*\(\s*([{TRUE_MINUS}\d.,]+) to ([{TRUE_MINUS}\d.,]+)\s*\)\s*\S*",
        text.strip(),
    )
    return tuple(map(number, found.groups())) if found else None


def near(shown, true, decimals_of) -> bool:
    "Whether a shown number is the true one, rounded as shown."
    places = len(decimals_of.partition(".")[2]) if isinstance(decimals_of, str) else decimals_of
    return abs(shown - true) <= 0.5000001 * 10.0**-places


@pytest.fixture(scope="module")
def frame():
    return example.predictions(patients=16, days=2)


@pytest.fixture(scope="module")
def metrics(frame):
    frame.attrs["level"] = 0.9
    return metrics_of(frame, example.STUDY, n_resamples=100)


@pytest.fixture(scope="module")
def soup(frame, metrics):
    return BeautifulSoup(make(frame, metrics=metrics), "html.parser")


def tables(soup, *words):
    "The tables whose caption holds all these words."
    return [t for t in soup.find_all("table") if all(w in t.caption.get_text().lower() for w in words)]


def values(metrics, **where) -> pd.DataFrame:
    "Rows of the metrics table."
    keep = np.ones(len(metrics), bool)
    for column, value in where.items():
        keep &= (
            (metrics[column].astype(str) if isinstance(value, str) else metrics[column]).eq(value).to_numpy()
        )
    return metrics[keep]


def test_every_interval_of_the_accuracy_tables_stands_in_the_metrics(soup, metrics):
    "Value, low and high of a cell are one row of the metrics table, in its unit or in percent."
    known = metrics[["value", "low", "high"]].to_numpy(float)
    known = np.concatenate([known, 100 * known])
    seen = 0
    for part in soup.select("#how-accurate-is-it, #are-its-ranges-honest"):
        for cell in part.find_all("td"):
            if (shown := triple(cell)) is None:
                continue
            texts = re.findall(r"[\d.,]+", cell.get_text(" "))[:3]
            half = np.array([0.5000001 * 10.0 ** -len(t.replace(",", "").partition(".")[2]) for t in texts])
            assert (np.abs(known - np.array(shown)) <= half).all(axis=1).any(), cell.get_text(" ")
            seen += 1
    assert seen >= 20


def test_the_main_table_has_the_right_number_in_the_right_place(soup, metrics):
    "Model by model: the mean absolute error at the hardest horizon is where it should be."
    table = tables(soup, "accuracy")[0]
    heads = [th.get_text(" ").strip().lower() for th in table.thead.find_all("th")]
    column = next(i for i, head in enumerate(heads) if head.startswith("typical error"))
    rows = {
        row.find(["th", "td"]).get_text().lower(): row.find_all(["th", "td"])[column]
        for row in table.tbody.find_all("tr")
    }
    for model, word in (("persistence", "repeating the last value"), ("ridge", "ridge")):
        true = values(metrics, model=model, metric="mae", group="all", scope="at", horizon=60.0).iloc[0]
        (cell,) = [cell for name, cell in rows.items() if word in name]
        shown = triple(cell)
        assert all(near(s, true[c], 1) for s, c in zip(shown, ("value", "low", "high"), strict=True))


def test_groups_are_those_of_the_metrics(soup, metrics):
    table = tables(soup, "error in every group")[0]
    rows = {row.find("th").get_text().strip(): row.find_all("td")[-1] for row in table.tbody.find_all("tr")}
    compared = 0
    for name, cell in rows.items():
        column, _, value = name.partition(": ")
        found = [
            g for g in metrics["group"].unique() if g.endswith(f"={value}") and column.replace(" ", "_") in g
        ]
        if len(found) != 1 or (shown := triple(cell)) is None:
            continue
        true = values(metrics, model="model", metric="mae", group=found[0], scope="at", horizon=60.0).iloc[0]
        assert all(near(s, true[c], 1) for s, c in zip(shown, ("value", "low", "high"), strict=True)), name
        compared += 1
    assert compared >= 3


def test_the_tests_tables_hold_the_effects_of_the_tests(soup):
    effects = example.tests()[["effect", "effect_low", "effect_high"]].to_numpy(float)
    effects, seen = np.concatenate([effects, 100 * effects]), 0
    for cell in soup.select_one("#what-was-tested").find_all("td"):
        if (shown := triple(cell)) is not None:
            texts = re.findall(r"[\d.,]+", cell.get_text(" "))[:3]
            half = np.array([0.5000001 * 10.0 ** -len(t.partition(".")[2]) for t in texts])
            assert (np.abs(effects - np.array(shown)) <= half).all(axis=1).any(), cell.get_text(" ")
            seen += 1
    assert seen >= 3


def test_the_cards_hold_the_models_error_its_skill_and_the_worst_group(soup, metrics):
    first, second, third = (card.select_one(".value") for card in soup.select(".card")[:3])
    mae = values(metrics, model="model", metric="mae", group="all", scope="at", horizon=60.0).iloc[0]
    skill = values(metrics, model="model", metric="skill", group="all", scope="at", horizon=60.0).iloc[0]
    leading = lambda tag: number(re.match(rf"[{TRUE_MINUS}\d.,]+", tag.get_text().strip())[0])
    assert near(leading(first), mae["value"], 1)
    assert near(leading(second), 100 * abs(skill["value"]), 0)
    groups = values(metrics, model="model", metric="mae", scope="at", horizon=60.0)
    groups = groups[(groups["group"] != "all") & groups["value"].notna()]
    assert any(near(leading(third), value, 1) for value in groups["value"])


# Numbers that do not come from the data: (pattern of the words around it, why it may stay).
CONSTANTS = [
    (r"12 months|21 November 20\d\d|24 hours", "stretches that were chosen: of a trace, of a report's validity"),
    (r"\b5(?:\.0)? mg/dL", "the limit of the average error"),
    (r"(?:15|30|45|60) min(?:utes)?(?: ahead)?", "the study's horizons"),
    (r"95\s?%|95 times(?: in| of)? 100", "the level of intervals"),
    (r"90\s?%|90 times(?: in| of)? 100", "what the model's ranges promise"),
    (r"ISO 15197:2013|(?:42|45) CFR [\d.]+|HIPAA", "a standard or a law"),
    (r"(?:within |more than |of )?15\s?mg/dL|15\s?%", "the tolerance of a single prediction"),
    (r"(?:19|20)\d\d[,:;)]?(?: [A-Z][\w ]+ [\d:]+)?", "the year of a cited paper, and where it was printed"),
    (r"(?:fewer than|below|at least) 11\b", "the smallest number of patients that may be shown (CMS cell rule)"),
    (r"[Oo]ut of 100\b|[Oo]f 100\b|[Pp]er 100\b|\b100 (?:predictions|times|patients|patient-days|days)|in 100\b", "natural frequencies"),
    (r"\b1 minus\b|above 0\b|below 0\b|below 0\.05|between 0 and 1\b|from 0 to 1\b|\b0 (?:is|means)\b", "how a measure is defined"),
    (r"\b[PQ]\d\d\b", "a pseudonym"),
    (r"\b(?:week|day|month|quarter day) \d+\b", "a period that is counted off"),
    (r"in 52 parts|run answers \d+ of them|people answered 0|NOT STATED: \d+", "a published checklist and what is answered of it, which tells of the study and not of its data"),
    (r"1\.96|1 of 40|square root of 2", "the normal distribution"),
    (r"0\.8 to 1\.25", "a convention, and called one on the page"),
    (r"44136fa355b3678a", "a digest: the version of a model of which neither run has a card"),
    (r"SHA-256|0123456789abcdef", "a digest"),
    (r"\bL\d\.\d\b", "a kind of leak in a published list"),
]  # fmt: skip


PLACES = [  # cells, by caption, row and column
    (r"(?i)(?:limit|tolerance|unit|horizon|ahead|kind of leak|promised)[^|]*$", "a column of limits, units, horizons or kinds of leak"),
    (r"What the words mean", "definitions"),
    (r"^NOT STATED|^TRIPOD\+AI", "items of a checklist that tell of the study, not of its data"),
    (r"^Model card \| the model itself", "the study's horizons"),
    (r"^Numbers: P# over|^What to measure again", "coarse values of one patient, and limits: too few digits to tell"),
    (r"are correlated #|risk of bias", "correlations and counts, too few digits to tell"),
    (r"came in \| of all that came in", "the whole is 100 % of itself"),
    (r"What was counted \| (?:groups|p-values below)", "counts of groups and horizons, which both studies share"),
]  # fmt: skip


def changed(frame: pd.DataFrame) -> pd.DataFrame:
    "Three patients and seven hours fewer, other truths, errors 1.37 times as large and larger ones more so: no ratio survives."
    y, error = 150 + 1.13 * (frame["y"] - 150), frame["yhat"] - frame["y"]
    own = np.where(frame["model"].astype(str) == "model", 1.37, 1.91)
    scaled = {"y": y, "yhat": y + own * np.sign(error) * error.abs() ** 1.13 + 0.713}
    for end in ("lo", "hi"):
        scaled[end] = scaled["yhat"] + 1.17 * (frame[end] - frame["yhat"])
    stays = frame["time"] < frame["time"].max() - pd.Timedelta("7h")
    stays &= ~frame["subject"].isin(sorted(frame["subject"].unique())[:3])
    return frame.assign(**scaled)[stays].reset_index(drop=True)


def said(html: str) -> set[tuple[str, str]]:
    "(where, text) of every text with a digit, drawings and links apart; where: the words around it without their numbers."
    soup, found = BeautifulSoup(html, "html.parser"), set()
    for tag in soup.find_all(["svg", "style", "title", "nav"]):
        tag.extract()
    words = lambda tag: " ".join(tag.get_text(" ").replace("\u00a0", " ").split())
    for table in soup.find_all("table"):
        heads = [words(th) for th in table.thead.find_all("th")]
        for row in table.tbody.find_all("tr"):
            cells = row.find_all(["th", "td"])
            for head, cell in zip(heads[1:], cells[1:], strict=False):
                found.add(
                    (
                        f"{re.sub(r'[0-9.,]+', '#', words(table.caption))} | {words(cells[0])} | {head}",
                        words(cell),
                    )
                )
    for tag in soup.find_all(["p", "li", "figcaption", "caption", "h2", "h3", "summary", "dd", "dt"]):
        if not tag.find(["p", "li", "table"]) and not tag.find_parent("td"):
            found.add(
                (tag.find_parent("section").get("id", "") if tag.find_parent("section") else "", words(tag))
            )
    return {(where, text) for where, text in found if re.search(r"\d", text)}


def constant(where: str, text: str, groups: set[str]) -> bool:
    "Whether all numbers of a text that stayed the same are constants."
    if any(re.search(pattern, where) for pattern, _ in PLACES) or text in groups:
        return True
    for group in sorted(groups, key=len, reverse=True):
        text = text.replace(group, " ")
    for pattern, _ in CONSTANTS:
        text = re.sub(pattern, " ", text)
    return not re.search(r"\d", text)


@pytest.fixture(scope="module")
def pair(frame):
    "What two pages say, made from tables of which every number differs."
    other = changed(frame)
    tests = example.tests()
    moved = [
        "effect",
        "effect_low",
        "effect_high",
        "icc",
        "design_effect",
        "n_effective",
        "statistic",
        "p",
        "p_adjusted",
    ]
    moved += [c for c in ("minimum_detectable_effect", "tolerance") if c in tests]
    moving = tests.assign(
        **{c: tests[c].astype(float) * 1.37 for c in moved}, n_rows=tests["n_rows"] + 1111, n_subjects=37
    )
    moving["sentence"] = [
        re.sub(r"\d[\d.]*", lambda m: f"{float(m[0].rstrip('.')) * 1.37:.2f}", s) for s in tests["sentence"]
    ]
    extra = [
        moving.iloc[[0]].assign(test=name, p=0.04, p_adjusted=0.049, verdict="unclear")
        for name in ("slope", "autocorrelation")
    ]
    moving = pd.concat([moving, *extra], ignore_index=True)
    audit = example.audit()
    audit = [
        row | {"evidence": re.sub(r"\d+", lambda m: str(int(m[0]) + 7), row["evidence"])} for row in audit
    ]
    audit += [
        audit[1] | {"check": f"future_{n}", "question": f"Was anything {n} used?"} for n in ("more", "less")
    ]
    rejected = {"no reading within the hour": 277, "duplicate timestamp": 129}
    manifest = {
        "files": {"cgm.csv": 31},
        "rows": {"in": 8123, "used": 7717, "rejected": rejected},
        "subjects": {"train": 71, "test": 37},
    }
    return said(make(frame)), said(make(other, tests=moving, audit=audit, manifest=manifest))


def test_what_does_not_follow_the_data_is_a_constant(pair, frame):
    before, after = pair
    assert len(before) > 100
    groups = {str(v) for column in frame.filter(regex="^by_") for v in frame[column].unique()}
    same = sorted((where, text) for where, text in before & after if not constant(where, text, groups))
    assert not same, f"{len(same)} texts stayed the same while all data changed:\n" + "\n".join(
        f"{w}: {t[:260]}" for w, t in same
    )


def test_changed_data_change_most_of_the_page(pair):
    before, after = pair
    assert len(before) > 100
    assert len(before & after) < 0.4 * len(before)


def test_the_test_of_constants_can_fail(frame):
    "A number that somebody typed into a sentence is found."
    page = said(make(frame, study=replace(example.STUDY, intended_use="For 77.3 patients.")))
    assert any("For 77.3 patients." in text for _, text in page)
    assert not constant("", "For 77.3 patients.", set())
    assert not constant("", "In 95 % of cases it is off by 12.1 mg/dL.", set())
    assert constant("", "With 95 % intervals, 30 min ahead, ISO 15197:2013.", set())
