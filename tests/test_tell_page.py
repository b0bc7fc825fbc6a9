"The report as a browser, a screen reader, a privacy officer and a hurried clinician find it."

import hashlib
import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from medlab.judge.metrics import per_subject as errors_of
from medlab.judge.metrics import table as metrics_of
from medlab.judge.residuals import run
from medlab.tell import example
from medlab.tell.language import speaking
from medlab.tell.page import Additions, Section
from medlab.tell.privacy import shown_tests
from medlab.tell.report import report

ID, SERIAL, DATE = "KARIN-1957", "881235", "2021-02-17"
LANGUAGES = ("en", "sv")


def make(frame=None, study=example.STUDY, gain=0.35, failed=False, language="en", **changes):
    "The whole report of an invented study; the language is an argument of `report`, or what is spoken when it is called."
    frame = example.predictions(patients=16, days=2, gain=gain) if frame is None else frame
    frame.attrs["level"] = 0.9
    tables = {} if "metrics" in changes else {"metrics": metrics_of(frame, study, n_resamples=100)}
    tables |= {} if "per_subject" in changes else {"per_subject": errors_of(frame)}
    given = tables | {
        "tests": example.tests(),
        "audit": example.audit(failed),
        "manifest": example.MANIFEST,
        "predictions": frame,
        "provenance": {"code": "0123456789abcdef"},
        "simulated": True,
        "issued": "2026-11-21",
    }
    with speaking(language, study.name):
        return report(study, **(given | changes))


def battery(frame, study):
    "The battery on these predictions, quickly."
    frame.attrs["level"] = 0.9
    return run(frame, study, n_resamples=60)


@pytest.fixture(scope="module")
def html():
    return make()


@pytest.fixture(scope="module")
def soup(html):
    return BeautifulSoup(html, "html.parser")


def first_screen(soup):
    return " ".join(soup.find("main").header.text.split() + soup.select_one(".verdict").text.split())


def test_the_page_has_its_landmarks(soup):
    assert soup.html["lang"] == "en"
    assert soup.title.text == example.STUDY.title
    assert soup.find("meta", attrs={"name": "viewport"})
    assert len(soup.find_all("main")) == len(soup.find_all("nav")) == 1
    skip = soup.body.find("a")
    assert skip["href"] == "#content"
    assert soup.find(id="content").name == "main"


def test_headings_start_with_one_h1_and_skip_no_level(soup):
    levels = [int(h.name[1]) for h in soup.find_all(re.compile("^h[1-6]$"))]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(h.text.strip() for h in soup.find_all(re.compile("^h[1-6]$")))


def test_every_figure_speaks(soup):
    figures = soup.find_all("figure")
    assert len(figures) >= 5
    for figure in figures:
        assert len(figure.figcaption.text) > 30
        drawing = figure.find("svg")
        assert drawing["role"] == "img"
        assert len(drawing["aria-label"]) >= len(figure.figcaption.text) - 60
        assert re.search(r"\d", drawing["aria-label"])  # the finding, with its numbers
        assert figure.parent.find("table")  # its numbers, folded away beside it


def test_every_table_has_caption_scopes_and_no_empty_header(soup):
    tables = soup.find_all("table")
    assert len(tables) >= 10
    for table in tables:
        assert table.caption.text.strip()
        assert table.thead
        assert table.tbody
        for th in table.find_all("th"):
            assert th["scope"] in {"row", "col"}
            assert th.text.strip()
        widths = {len(row.find_all(["td", "th"])) for row in table.find_all("tr")}
        assert len(widths) == 1


def test_ids_are_unique_and_links_lead_somewhere(soup):
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    for tag in soup.find_all(href=True):
        assert tag["href"].startswith(("#", "data:image/png;base64,")), tag["href"][:60]
        if tag["href"].startswith("#"):
            assert tag["href"][1:] in ids
    for tag in soup.find_all(attrs={"aria-labelledby": True}):
        assert tag["aria-labelledby"] in ids


def test_nothing_is_fetched_and_nothing_runs(html, soup):
    assert soup.find(["script", "link", "iframe", "object", "embed", "form", "base"]) is None
    assert not [a for tag in soup.find_all() for a in tag.attrs if a.startswith("on")]
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"


def test_size(html):
    assert len(html.encode()) < 600_000  # the invented study; the limit of every page is two megabytes


def test_no_color_stands_alone(soup):
    "Every status has its sign and a word."
    for status in soup.select(".status"):
        sign, word = status.text.split("\u00a0", 1)
        assert sign in "✓?!–"
        assert len(word) > 3
    for mark in soup.select(".verdict .mark"):
        assert mark.text in "✓?!–"


def test_contrast_of_the_themes(html):
    "WCAG 2.2: 4.5 to 1 for text, 3 to 1 for marks, in light and in dark."

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)[:2]
    ]
    assert len(themes) == 2
    for theme in themes:
        for name in ("ink", "muted", "link", "ok", "unclear", "concern"):
            assert contrast(theme[name], theme["paper"]) >= 4.5, name
        for name in ("ink", "muted"):
            assert contrast(theme[name], theme["soft"]) >= 4.5, name
        for name in ("blue", "vermilion", "green", "purple"):
            assert contrast(theme[name], theme["paper"]) >= 3, name
        assert contrast(theme["banner"], theme["banner-ink"]) >= 4.5


@pytest.fixture(scope="module")
def bare():
    "Real data as categories, nothing hidden, and nobody tested or audited anything."
    frame = example.predictions(patients=16, days=2)
    frame = frame.sort_values(
        ["model", "split", "subject", "time", "target", "horizon"], kind="stable", ignore_index=True
    )
    frame = frame.astype(dict.fromkeys(["model", "split", "subject", "target"], "category"))
    return BeautifulSoup(
        make(frame, simulated=False, smallest=0, tests=example.tests()[:0], audit=[]), "html.parser"
    )


def test_simulated_data_say_so_before_anything_else(soup, bare):
    assert soup.body.find_all(["aside", "div", "main"])[0]["class"] == ["notice"]
    assert "SIMULATED DATA" in soup.select_one(".notice").text
    assert bare.select_one(".notice") is None
    assert "simulated" not in first_screen(bare)
    assert "not a medical device" in first_screen(bare)


def test_a_report_without_tests_or_audit_says_that_nobody_looked(bare):
    assert "No leakage audit was made" in first_screen(bare)
    assert "No residual tests were made" in first_screen(bare)


def test_categories_and_order_of_rows_change_nothing(soup, bare):
    assert soup.select_one(".cards").text == bare.select_one(".cards").text


def test_the_first_screen_says_how_far_off_and_compared_with_what(html, soup):
    text = first_screen(soup)
    frame = example.predictions(patients=16, days=2)
    mae = {m: (g["yhat"] - g["y"]).abs().mean() for m, g in frame[frame["horizon"] == 60].groupby("model")}
    assert f"typically off by {mae['model']:.1f} mg/dL" in text
    assert f"less than with repeating the last value ({mae['persistence']:.1f} mg/dL)" in text
    cards = soup.select(".card")
    assert len(cards) == 3
    assert f"{mae['model']:.1f}" in cards[0].text
    assert "Of 100 predictions" in cards[0].text
    assert "worst" in cards[2].text
    assert html.index('class="verdict') < html.index('class="cards"') < html.index("<nav")


def test_a_losing_model_says_so_first():
    soup = BeautifulSoup(make(gain=-0.2), "html.parser")
    assert "no better than repeating the last value" in soup.select_one(".verdict h2").text
    assert re.search(r"That is \d+\s%.* more than with repeating the last value", first_screen(soup))
    assert soup.select_one(".verdict")["class"] == ["verdict", "concern"]


def test_a_failed_audit_says_so_first_even_of_a_losing_model():
    soup = BeautifulSoup(make(gain=-0.2, failed=True), "html.parser")
    assert "Do not rely on these numbers: the leakage audit failed" in soup.select_one(".verdict h2").text
    assert "the same patients are in training and test" in first_screen(soup)
    assert (
        "fewer than 11 of 24 patients are in training and test" in soup.select_one("#was-the-test-fair").text
    )
    assert re.search(r"That is \d+\s%.* more than with repeating the last value", first_screen(soup))


@pytest.fixture(scope="module")
def canaries():
    "A patient id, a pump's serial number and a date, wherever something free can hold one."
    frame = example.predictions(patients=16, days=2)
    shift = pd.Timestamp(DATE) - frame["time"].min().normalize()
    frame = frame.assign(time=frame["time"] + shift, by_pump="pump B")
    one = frame["subject"] == frame["subject"].iloc[0]
    frame.loc[one, "subject"] = ID
    frame.loc[one, "by_pump"] = SERIAL
    study = replace(example.STUDY, slices=("sex", "pump"))
    audit = [
        row | {"evidence": f"{ID} wore pump {SERIAL} from {DATE} 08:05 on"} for row in example.audit(True)
    ]
    tests = example.tests().assign(sentence=f"{ID} ({SERIAL}) is bad since {DATE}")
    tests.loc[2, "group"] = f"by_pump={SERIAL}"
    manifest = {
        "files": {f"pump_{SERIAL}.csv": {"read": 12}, "set_aside": {"SVEN-1931": f"seen {DATE}"}},
        "rows": {
            "in": 10,
            "used": 9,
            "rejected": {f"clock of {ID} wrong on {DATE}": 1},
            "first_rejected": {"x": f"{ID} {DATE}"},
        },
        "subjects": {ID: 1, "CLINIC-7314": 2},
        "notes": [f"{ID}"],
    }
    return make(frame, study, audit=audit, tests=tests, manifest=manifest)


@pytest.mark.parametrize("canary", [ID, "KARIN", SERIAL, DATE, "CLINIC", "SVEN", "17.2.2021", "17 Feb"])
def test_no_canary_gets_out(canaries, canary):
    assert canary not in canaries


def test_what_replaces_the_canaries(canaries):
    text = BeautifulSoup(canaries, "html.parser").text
    assert re.search(r"P\d\d wore pump \[number\] from \[date\]", text)


def test_what_no_scrubber_saw_stops_the_report():
    frame = example.predictions(patients=16, days=2)
    frame["subject"] = frame["subject"].where(frame["subject"] != frame["subject"].iloc[0], ID)
    frame["time"] += pd.Timestamp(DATE) - frame["time"].min().normalize()
    with pytest.raises(ValueError, match="1 patient ids, 1 dates: it was not made") as caught:
        make(
            frame,
            additions=Additions(sections=(Section("An extra", f"Look at {ID} on {DATE}.", key="an-extra"),)),
        )
    assert ID not in str(caught.value)
    assert DATE not in str(caught.value)


def test_small_groups_are_not_counted_out(soup, bare):
    def counts(page):
        table = next(t for t in page.find_all("table") if t.caption.text.startswith("Error in every group"))
        return {row.th.text: row.td.text for row in table.tbody.find_all("tr")}

    assert counts(soup)["sex: F"] == counts(soup)["sex: M"] == "fewer than 11"  # eight and eight
    assert counts(bare)["sex: F"] == "8"


WHO = ("Anna", "Karin Ek", "24", "559", "a<b>", "x.*y", "(unclosed", "A|B", "MRN-1", "Model", "P07", "C-2")
SECRET = (
    "Anna",
    "Karin",
    "x.*y",
    "(unclosed",
    "MRN-1",
    "A|B",
    "a&lt;b",
    "881235",
    "901161470",
    DATE,
    "2021-03-19",
)


@pytest.fixture(scope="module")
def odd():
    "Ids that are names, words, numbers and regular expressions; groups called by a serial number, a day and markup."
    frame = example.predictions(patients=20, days=2)
    order = {who: i for i, who in enumerate(frame["subject"].unique())}
    place = frame["subject"].map(order)
    part = lambda a, b, c: place.map(lambda i: a if i < 6 else b if i < 12 else c)
    frame = frame.assign(
        subject=place.map(lambda i: WHO[i] if i < len(WHO) else f"N{i:03d}x"),
        by_pump=part(SERIAL, "901161470", "B"),
        by_visit=part(DATE, "2021-03-19", "later"),
        by_nurse=part("<b>x</b>", "a=b|c(*", "day"),
    )
    study = replace(
        example.STUDY, slices=("pump", "visit", "nurse"), population=(("pump", ("B",)), ("visit", ("later",)))
    )
    said = "Anna and Karin Ek; patient 24, a<b> and x.*y, (unclosed, MRN-1, subject A|B, patient Model"
    audit = [row | {"evidence": said} for row in example.audit(True)]
    rejected = {"Anna was ill": 1, f"pump {SERIAL} of Karin Ek broke on {DATE}": 1}
    manifest = example.MANIFEST | {"rows": {"in": 10, "used": 8, "rejected": rejected}}
    tests = battery(frame, study)
    return make(frame, study, audit=audit, manifest=manifest, tests=tests)


@pytest.mark.parametrize("secret", SECRET)
def test_odd_ids_and_groups_called_by_ids_do_not_get_out(odd, secret):
    assert secret not in re.sub(r'\sd="[^"]*"', "", odd)


def test_two_groups_that_read_alike_stay_two(odd):
    soup = BeautifulSoup(odd, "html.parser")
    test_ids_are_unique_and_links_lead_somewhere(soup)
    assert "pump: [number] (2)" in soup.text
    assert "patient P07" not in soup.text  # an id that looks like a pseudonym is no pseudonym


def test_sizes_of_groups_stand_in_tables_alone():
    "30 patients, 18 women and 12 men; 12, 15 and 3 of three ages: no sentence may count them out."
    frame = example.predictions(patients=30, days=1)
    place = frame["subject"].map({who: i for i, who in enumerate(frame["subject"].unique())})
    frame = frame.assign(by_sex=place.map(lambda i: "F" if i < 18 else "M"))
    frame = frame.assign(by_age_band=place.map(lambda i: "18-39" if i < 12 else "40-59" if i < 27 else "60+"))
    text = BeautifulSoup(make(frame, tests=battery(frame, example.STUDY)), "html.parser")
    for table in text.find_all("table"):
        rows = [[c.get_text() for c in row.find_all(["th", "td"])] for row in table.tbody.find_all("tr")]
        told = {row[0]: row[1] for row in rows if row[0].startswith("age band: ")}
        if told and table.thead.find_all("th")[1].text == "patients":
            assert list(told.values()) == ["not shown", "15", "fewer than 11"], table.caption
    said = text.get_text(" ")
    assert not re.search(
        r"(?<!than )\b(?:[1-9]|10|12|18|27) (?:of \d+ )?patients? ?(?:\)|are|is|to enter|left)", said
    )
    assert not re.search(r"\(\d+ patients\)", said.replace("(30 patients)", ""))


def test_ten_patients_are_not_given_away_by_a_verdict():
    'The judge asks for ten, the page hides ten: a verdict on "fewer than 11" would say which of the two.'
    frame = example.predictions(patients=22, days=1)
    place = frame["subject"].map({who: i for i, who in enumerate(frame["subject"].unique())})
    frame = frame.assign(by_sex=place.map(lambda i: "F" if i < 10 else "M"))
    tests = battery(frame, example.STUDY)
    of_ten = (tests["n_subjects"] == 10) & (tests["group"] == "by_sex=F")
    assert tests.loc[of_ten, "verdict"].isin(["ok", "concern", "unclear"]).any()
    shown = shown_tests(tests, {}, 22)
    assert set(shown.loc[of_ten, "verdict"]) == {"not assessable"}
    assert shown.loc[of_ten, ["effect", "effect_low", "effect_high", "p_adjusted"]].isna().all(axis=None)


def test_a_small_group_cannot_be_solved_for_its_size():
    "All together are the mean of women and men, weighted by how many they are: three errors give the weights."
    frame = example.predictions(patients=20, days=1)
    place = frame["subject"].map({who: i for i, who in enumerate(frame["subject"].unique())})
    frame = frame.assign(by_sex=place.map(lambda i: "F" if i < 6 else "M"))
    own = frame[(frame["model"] == "model") & (frame["horizon"] == 60)]
    error = (own["yhat"] - own["y"]).abs()
    women, men, everybody = (round(error[own["by_sex"].isin(list(s))].mean(), 1) for s in ("F", "M", "FM"))
    assert abs(20 * (everybody - men) / (women - men) - 6) < 1  # what a reader would find
    soup = BeautifulSoup(make(frame), "html.parser")
    rows = [[c.get_text(" ") for c in row.find_all(["th", "td"])] for row in soup.select("tbody tr")]
    of_women = [row for row in rows if row[0] == "sex: F" or row[:2] == ["sex", "F"]]
    assert len(of_women) >= 3
    assert all(
        re.search(r"\d", cell.replace("fewer than 11", "")) is None for row in of_women for cell in row
    )
    assert not re.search(r"sex[:,] F:? \(?\d", soup.decode())


def test_nobody_can_count_who_is_missing_at_a_longer_horizon():
    "30 patients at 30 minutes and 29 at 60 are one patient."
    frame = example.predictions(patients=30, days=1)
    frame = frame[~((frame["subject"] == frame["subject"].iloc[0]) & (frame["horizon"] == 60))]
    soup = BeautifulSoup(make(frame), "html.parser")
    table = next(t for t in soup.find_all("table") if t.caption.text == "Every measure of the model")
    heads = [th.text for th in table.thead.find_all("th")]
    told = {row.find_all(["th", "td"])[heads.index("patients")].text for row in table.tbody.find_all("tr")}
    assert told == {"30", "not shown"}


def test_the_same_tables_give_the_same_bytes_in_another_process(html):
    script = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import test_tell_page as t; "
        "print(hashlib.sha256(t.make().encode()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, os.path.dirname(__file__)],
        env=os.environ | {"PYTHONHASHSEED": "1234", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == hashlib.sha256(html.encode()).hexdigest()
