"English and Swedish: nothing left untranslated, the same numbers in the same places, catalogues without dead or double entries."

import ast
import itertools
import re
import string
from collections import Counter
from functools import cache
from importlib import import_module

import pytest
from babel.messages.pofile import read_po
from bs4 import BeautifulSoup, NavigableString
from conftest import ROOT
from test_tell_page import make

from medlab.core.project import section
from medlab.tell import example
from medlab.tell.language import speaking, t

SOURCES = sorted([*(ROOT / "medlab/tell").rglob("*.py"), *(ROOT / "medlab/studies").rglob("*.py")])
CATALOGUES = sorted((ROOT / "medlab").rglob("translations/sv/*.po"))
# Words that hardly an English sentence does without and that no Swedish one has ("is", "in", "under" and "men" are both).
ENGLISH = set(
    "the of and or not with without than from that this these those which what where when who how has have had are was were "
    "be been being it its they their them there every each other more most less least as at by for to an on off out only "
    "never always between because than then would should could can may must does do did made make no one two three all any "
    "patients measured predicted values error model".split()
)  # fmt: skip


def entries(path):
    "A catalogue's messages: singular English -> (plural or None, translations)."
    with path.open("rb") as file:
        messages = [m for m in read_po(file, locale="sv", abort_invalid=True) if m.id]
    found = {}
    for message in messages:
        one, many = (message.id, None) if isinstance(message.id, str) else message.id
        told = (message.string,) if isinstance(message.string, str) else tuple(message.string)
        assert one not in found, f"{path.name} translates '{one}' twice"
        assert not message.fuzzy, f"{path.name}: '{one}' is marked fuzzy"
        found[one] = (many, told)
    return found


TRANSLATED = {path: entries(path) for path in CATALOGUES}


def places(text: str) -> set[str]:
    "The {names} of a sentence."
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def asked():
    "Every literal text that a module says through `t` or `several`: (file, line, one, many or None)."
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            texts = [
                a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
            if name == "t" and texts and isinstance(node.args[0], ast.Constant) and texts[0].strip():
                yield path.relative_to(ROOT), node.lineno, texts[0], None
            elif name == "several" and len(texts) == 2:
                yield path.relative_to(ROOT), node.lineno, *texts


@cache
def constants() -> set[str]:
    "Every string constant of the package: what a catalogue may translate. English lives in code, and in the criteria as data."
    found = set()
    for path in (ROOT / "medlab").rglob("*.py"):
        found |= {
            n.value
            for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(n, ast.Constant)
        }
    return {text for text in found if isinstance(text, str)}


@cache
def data_texts() -> set[str]:
    "Texts in the package's JSON files, e.g. the items of a checklist."
    import json

    found, todo = (
        set(),
        [json.loads(p.read_text(encoding="utf-8")) for p in (ROOT / "medlab").rglob("*.json")],
    )
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [*value.values(), *value]
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, str):
            found.add(value)
    return found


def test_every_sentence_of_the_code_has_a_translation_with_the_same_places():
    wrong = []
    for path, line, one, many in asked():
        folders = {
            ROOT / "medlab/tell",
            (ROOT / path).parent,
        }  # what one study's catalogue says, the others don't hear
        known = {
            one: entry for file, catalogue in TRANSLATED.items() if folders & set(file.parents) for one, entry in catalogue.items()
        }  # fmt: skip
        if one not in known or not all(known[one][1]):
            wrong.append(f"{path}:{line}: no Swedish for '{one}'")
        elif many is not None and known[one][0] != many:
            wrong.append(
                f"{path}:{line}: the plural of '{one}' is '{many}' here, '{known[one][0]}' in the catalogue"
            )
    assert not wrong, f"{len(wrong)} sentences:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda p: p.stem)
def test_a_catalogue_has_the_same_places_and_no_dead_entries(path):
    said, wrong = constants() | data_texts(), []
    for one, (many, told) in TRANSLATED[path].items():
        if one not in said and one.replace(" ", "_") not in said:  # `age_band` is said "age band"
            wrong.append(f"nobody says '{one}' any more")
        for text in filter(None, told):
            wanted = places(one) | (places(many) if many else set())
            if (many is None and places(text) != places(one)) or not places(text) <= wanted:
                wrong.append(f"places of '{one}' differ: {sorted(wanted)} and {sorted(places(text))}")
        if many is not None and len(told) != 2:
            wrong.append(f"'{one}' needs two forms")
    assert not wrong, f"{path.name}, {len(wrong)} entries:\n" + "\n".join(wrong)


def test_no_sentence_is_translated_in_two_ways():
    first, wrong = {}, []
    for path, catalogue in TRANSLATED.items():
        for one, (_, told) in catalogue.items():
            other, before = first.setdefault(one, (path.name, told))
            if before != told:
                wrong.append(f"'{one}': {other} says {before}, {path.name} says {told}")
    assert not wrong, "\n".join(wrong)


# One word for one thing: (what is not said, what is said instead).
SAID = (
    (r"läckagekontroll", "läckagegranskning"),
    (r"\btester\b|\btesterna\b", "test, testen"),
    (r"tidsavstånd", "horisont"),
    (r"prediktera", "predicera"),
    (r"normalkurva", "normalfördelning"),
    (r"förkastad|undantagen", "avvisad, lagd åt sidan"),
    (r"ej angiv", "inte angivet"),
    (r"\d(%| %)", "a no-break space before %"),
    (r"\bp\s*<", "the value of p"),
    (r"\bsignifikant", "the effect and its interval"),
    (r"\b(du|din|ditt|dina)\b", "nobody is spoken to"),
    (r"(?<![L\d])\d+\.\d", "a decimal comma"),
)


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda p: p.stem)
def test_one_thing_has_one_name_in_swedish(path):
    wrong = [
        f"'{found[0]}' in '{text[:90]}': say {right}"
        for _, told in TRANSLATED[path].values()
        for text in told
        for pattern, right in SAID
        if (found := re.search(pattern, text, re.I))
    ]
    assert not wrong, "\n".join(wrong)


KINDS = ("regression", "risk", "score")


def page(kind: str, language: str) -> BeautifulSoup:
    "The report of an invented study of a kind."
    return BeautifulSoup(made(kind, language), "html.parser")


def made(kind: str, language: str) -> str:
    if kind == "regression":
        return make(language=language)
    study, frame = getattr(example, f"STUDY_{kind.upper()}"), getattr(example, f"predictions_{kind}")()
    return make(frame, study, language=language, tests=getattr(example, f"tests_{kind}")())


@pytest.fixture(scope="module", params=KINDS)
def both(request):
    return page(request.param, "en"), page(request.param, "sv")


def read_aloud(soup) -> list[str]:
    "Every text of a page that is not in English on purpose: text, labels, captions of figures."
    found = []
    for tag in soup.find_all(["style", "title"]):
        tag.extract()
    foreign = lambda node: any(p.get("lang") for p in node.parents if p.name != "html" and hasattr(p, "get"))
    for node in soup.body.descendants:
        if isinstance(node, NavigableString):
            if node.strip() and not foreign(node):
                found.append(" ".join(node.split()))
        elif node.get("lang") is None and not foreign(node):
            found += [" ".join(node[a].split()) for a in ("aria-label", "alt", "title") if node.get(a)]
    return found


def english(text: str) -> bool:
    "Whether a text has two or more English function words."
    return sum(word in ENGLISH for word in re.findall(r"[a-z]+", text.lower())) >= 2


def test_the_search_for_english_finds_it_and_leaves_swedish_alone():
    assert english("Errors of the model are larger than those of the last value.")
    assert not english("Modellen missar oftast med 12,3 mg/dL, vilket är mindre än för det senaste värdet.")
    assert not english("ISO 15197:2013, 42 CFR 493.931")


def test_the_page_says_its_language(both):
    assert [soup.html["lang"] for soup in both] == ["en", "sv"]


# What others wrote and what is named, not said: sources of limits; an invented study's own words, which are in no catalogue.
STUDIES = (example.STUDY, example.STUDY_RISK, example.STUDY_SCORE)
NOT_SAID = {"invented for this example", "per reading"}
NOT_SAID |= {getattr(s, f) for s in STUDIES for f in ("title", "question", "intended_use", "not_for_use")}


def test_the_words_of_every_real_study_are_translated():
    for name in section("studies"):
        study = import_module(f"medlab.studies.{name}.study").study
        texts = [study.title, study.question, study.intended_use, study.not_for_use]
        texts += [target.label for target in study.targets]
        with speaking("sv", name) as now:
            for text in texts:
                t(text)
        assert not now.missing, f"{name}: {sorted(now.missing)}"


def test_no_english_is_left_on_the_swedish_page(both):
    left = [
        text for text in dict.fromkeys(read_aloud(both[1]))
        if english(text) and not any(name in text for name in NOT_SAID)
    ]  # fmt: skip
    assert not left, f"{len(left)} texts:\n" + "\n".join(text[:200] for text in left)


# Sections in which English shows the judge's own sentences and Swedish says the same from the row's columns, with other
# numbers in them: there, the cells that hold nothing but numbers are compared.
TOLD_ANEW = {"what-was-tested", "recommendations"}


def numbers(soup) -> dict[str, Counter]:
    "The numbers of each section, written the same way: no thousands separated, a decimal point."
    parts = [soup.select_one(".verdict"), soup.select_one(".cards"), *soup.select(".part")]
    found, swedish = {}, soup.html["lang"] == "sv"
    for part in (p for p in parts if p is not None):
        key = part.get("id") or " ".join(part["class"])
        # Axes may choose other ticks; a table of a figure has the figure's caption, cut off where the words end.
        for tag in part.select("svg, .drawn caption"):
            tag.extract()
        cells = part.select("td.n") if key in TOLD_ANEW else [part]
        text = " ; ".join(cell.get_text(" ") for cell in cells).replace("\u2212", "-")
        if swedish:
            text = re.sub(r"(?<=\d)[\u00a0\u202f](?=\d{3}(?!\d))", "", text)
            text = re.sub(r"(?<=\d),(?=\d)", ".", text)
        else:
            text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
        found[key] = Counter(re.findall(r"\d+(?:\.\d+)?", text))
    return found


def test_both_languages_say_the_same_numbers_in_the_same_sections(both):
    one, other = map(numbers, both)
    assert list(one) == list(other)
    differing = {
        key: (dict(one[key] - other[key]), dict(other[key] - one[key]))
        for key in one
        if one[key] != other[key]
    }
    assert not differing, f"only in English, only in Swedish: {differing}"


def lix(sentences: list[str]) -> float:
    "Läsbarhetsindex (Björnsson 1968): words a sentence, and the share of words longer than six letters. Below 45: a newspaper."
    text = " ".join(s if s.endswith((".", "?", "!")) else s + "." for s in sentences)
    words = re.findall(r"[^\W\d_][\w-]*", text)
    return len(words) / len(re.findall(r"[.?!](?=\s|$)", text)) + 100 * sum(len(w) > 6 for w in words) / len(
        words
    )


def test_the_measure_of_reading_knows_easy_from_hard():
    assert lix(["Den missar med 21 mg/dL. Det är mindre än med det senaste värdet."]) < 30
    hard = "Konfidensintervallens överensstämmelse förutsätter patientbaserad återprovtagning inom analyspopulationen"
    assert lix([hard]) > 60


def test_the_first_screen_is_no_harder_to_read_than_a_newspaper(both):
    told = both[1].select(".lead, .verdict h2, .verdict li, .card h3, .card > p:not(.value, .range), .use p")
    assert len(told) > 5
    assert lix([" ".join(tag.get_text(" ").split()) for tag in told]) <= 45


def test_headings_fit_into_the_navigation(both):
    for soup in both:
        assert not [a.text for a in soup.select("nav a") if len(a.text) > 50]


def test_both_languages_have_the_same_anchors_and_structure(both):
    for what in ("id", "class"):  # class t: a column of long texts, and how long is a matter of the language
        one, other = (
            [tag[what] for tag in soup.find_all(attrs={what: True}) if tag[what] != ["t"]] for soup in both
        )
        assert one == other or (what == "class" and sorted(map(str, one)) == sorted(map(str, other)))
    tags = [[tag.name for tag in soup.body.find_all(True) if not tag.find_parent("svg")] for soup in both]
    spans = [[name for name in names if name != "span"] for names in tags]  # English marked as such
    assert len(spans[0]) == len(spans[1])
    assert all(a == b for a, b in itertools.zip_longest(*spans))
