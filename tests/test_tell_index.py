"The page that leads to every report: complete, honest about what is missing, and every link leads to a file."

import itertools
import json
import re

import pytest
from bs4 import BeautifulSoup

from medlab.tell import example, index
from medlab.tell.language import speaking
from medlab.tell.page import Card, Numbers, Verdict

WHEN = {"issued": "2026-11-21", "valid_until": "2027-11-21"}
NUMBERS = Numbers((Card("How far off is it, typically?", "17.7", "mg/dL", "95 % interval 15.4 to 20.1"),))


def made(name, simulated=True, patients=24, swedish=False, **changes):
    verdict = Verdict("concern", "it is off by 17.7 mg/dL an hour ahead")
    pages = {"audit": f"{name}/pages/audit.html"}
    found = index.summary(
        example.STUDY, verdict, NUMBERS, simulated=simulated, patients=patients, report=f"{name}/report.html", pages=pages, **WHEN
    )  # fmt: skip
    if swedish:
        with speaking("sv"):
            words = Verdict("concern", "den missar med 17,7 mg/dL en timme framåt")
            found = index.summary(
                example.STUDY, words, Numbers(), simulated=simulated, patients=patients,
                report=f"{name}/report.sv.html", pages=pages, others=found, **WHEN,
            )  # fmt: skip
    return found | {"study": name} | changes


def put(folder, *summaries):
    (folder / "summaries").mkdir(parents=True, exist_ok=True)
    for found in summaries:
        for path in [*found["pages"].values(), *(said["report"] for said in found["languages"].values())]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("<!DOCTYPE html><title>here</title>")
        (folder / "summaries" / f"{found['study']}.json").write_text(json.dumps(found), encoding="utf-8")


def soup(html):
    return BeautifulSoup(html, "html.parser")


def test_every_link_leads_to_a_file_and_every_report_is_linked(tmp_path):
    put(tmp_path, made("glucose", swedish=True), made("ward", simulated=False))
    files = index.write(tmp_path, ("glucose", "ward"))
    assert [f.name for f in files] == ["index.html", "index.sv.html"]
    for file in files:
        page = soup(file.read_text(encoding="utf-8"))
        links = {a["href"] for a in page.find_all("a", href=True)}
        ids = {tag["id"] for tag in page.find_all(id=True)}
        assert all((link[1:] in ids) if link[0] == "#" else (tmp_path / link).is_file() for link in links)
        wanted = {
            "glucose/report.html",
            "glucose/report.sv.html",
            "ward/report.html",
            "glucose/pages/audit.html",
        }
        assert wanted <= links
        assert page.html["lang"] == ("sv" if ".sv" in file.name else "en")


def test_a_missing_broken_or_lost_report_is_listed_and_not_dropped(tmp_path):
    put(tmp_path, made("glucose"), made("lost"))
    (tmp_path / "lost" / "report.html").unlink()
    (tmp_path / "summaries" / "half.json").write_text('{"study": "ha')
    (tmp_path / "summaries" / "odd.json").write_text('["a", "list"]')
    found = index.read(tmp_path, ("blood", "glucose"))
    told = {"blood": "missing", "glucose": None, "half": "broken", "lost": "gone", "odd": "broken"}
    assert {f["study"]: f.get("problem") for f in found} == told
    page = soup(index.index(found))
    table = page.find(id="without-report").table
    assert [row.th.text for row in table.tbody.find_all("tr")] == ["blood", "half", "lost", "odd"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"simulated": "no"},
        {"languages": {}},
        {"languages": {"en": {"title": "t"}}},
        {"issued": "yesterday"},
        {"pages": {"audit": 3}},
        {"valid_until": "2025-01-01"},
    ],
)
def test_a_summary_with_a_wrong_part_is_broken_and_stops_nothing(tmp_path, change):
    put(tmp_path, made("good"))
    (tmp_path / "summaries" / "bad.json").write_text(json.dumps(made("bad") | change))
    assert [f.get("problem") for f in index.read(tmp_path)] == ["broken", None]
    assert index.write(tmp_path)


def test_simulated_and_real_patients_never_share_a_table():
    page = soup(index.index([made("a"), made("b", simulated=False), made("c")]))
    names = {
        part["id"]: [row.th.text for row in part.table.tbody.find_all("tr")]
        for part in page.select("section.part")
    }
    assert {key: len(rows) for key, rows in names.items()} == {"real": 1, "simulated": 2}
    assert page.select_one(".notice") is None
    assert "SIMULATED" in soup(index.index([made("a")])).select_one(".notice").text


def test_a_cohort_of_ones_own_is_listed_as_such_and_breaks_nothing(tmp_path):
    "A second report of the same study, in folders of its own: found once, when it stopped the whole index."
    put(tmp_path, made("glucose", swedish=True))
    for name, simulated in (("glucose-mine", False), ("glucose <i>two", True)):
        own = made("glucose", simulated=simulated)
        own["languages"]["en"]["report"] = f"{name}/report.html"
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text("<!DOCTYPE html><title>here</title>")
        (tmp_path / "summaries" / f"{name}.json").write_text(json.dumps(own | {"pages": {}}))
    for file in index.write(tmp_path, ("glucose", "risk")):
        page = soup(file.read_text(encoding="utf-8"))
        ids = [tag["id"] for tag in page.find_all(id=True)]
        assert len(ids) == len(set(ids))
        assert len([a for a in page.find_all("a") if a.get("href", "").endswith("report.html")]) >= 3
    english = soup((tmp_path / "index.html").read_text(encoding="utf-8"))
    captions = [table.caption.text for table in english.find_all("table")]
    assert captions == [
        "Your own real patients, at a glance", "Simulated patients, at a glance", "Your own simulated patients, at a glance", "Why there is none",
    ]  # fmt: skip
    assert any("cohort glucose <i>two" in h.get_text() for h in english.find_all("h3"))
    swedish = (tmp_path / "index.sv.html").read_text(encoding="utf-8")
    assert "kohorten glucose-mine" in swedish and "Your own" not in swedish


def test_studies_stand_in_the_order_that_was_asked_for(tmp_path):
    put(tmp_path, *(made(name) for name in ("alpha", "beta", "gamma")))
    assert [f["study"] for f in index.read(tmp_path, ("gamma", "alpha"))] == ["gamma", "alpha", "beta"]


def test_few_patients_are_not_counted():
    found = made("a", patients=4)
    assert found["languages"]["en"]["patients"] == "fewer than 11"
    assert "fewer than 11" in soup(index.index([found])).table.text


def test_the_page_is_accessible_complete_and_quiet():
    html = index.index([made("a", swedish=True), made("b", simulated=False)])
    page = soup(html)
    levels = [int(h.name[1]) for h in page.find_all(re.compile("^h[1-6]$"))]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert page.find("script") is None
    assert "http:" not in html
    assert "https:" not in html
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    for table in page.find_all("table"):
        assert table.caption.text.strip()
        assert all(th["scope"] in {"row", "col"} and th.text.strip() for th in table.find_all("th"))
    assert html == index.index([made("a", swedish=True), made("b", simulated=False)])
    assert page.find("span", lang="sv", string="Svenska")  # the name of a language is in that language


def test_swedish_has_every_sentence_and_the_words_of_its_own_report():
    with speaking("sv") as now:
        page = soup(index.index([made("a", swedish=True), {"study": "b", "problem": "missing"}]))
        index.index([])
    own = {example.STUDY.title, example.STUDY.question}  # belong to the study
    assert not now.missing - own, now.missing
    assert "den missar med 17,7 mg/dL" in page.text
    english = soup(index.index([made("a", swedish=True)]))
    assert "it is off by 17.7 mg/dL" in english.text
    alone = made("a")
    with speaking("sv"):
        only = soup(index.index([alone]))
    assert only.find("span", lang="en", string=re.compile("it is off by"))


def test_every_stage_of_the_pipeline_has_a_name_for_readers():
    import yaml
    from conftest import ROOT

    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]) - {"pages", "index"}
    assert stages == set(index.STAGES)


def test_a_summary_is_plain_json():
    found = made("a", swedish=True)
    assert json.loads(json.dumps(found)) == found
    assert set(found["languages"]) == {"en", "sv"}


def test_the_command_writes_the_page(tmp_path, monkeypatch):
    put(tmp_path / "reports", made("glucose"))
    (tmp_path / "settings.ini").write_text("")
    (tmp_path / "params.yaml").write_text("studies: [glucose, risk]\n")
    monkeypatch.setenv("MEDLAB_ROOT", str(tmp_path))
    index.main([])
    text = (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert "glucose/report.html" in text
    assert "There is no report of this study." in text
    assert not list((tmp_path / "reports").glob(".*part"))
