"Identifiers planted in the raw data of a whole run: none may come out in anything that is made for people."

import base64
import json
import os
import re
import subprocess
import sys
import zlib

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

# Ids of several shapes, as registers, wards and researchers write them; the pump that each of them wears; ages.
PEOPLE = {
    "KARIN-1957": ("881235", 93),
    "Sven_Larsson": ("901161470", 67),
    "19570217-1234": ("SN5550199", 64),
    "MRN00421337": ("MMT-1780K-77", 41),
    "559": ("40213377", 23),
    "clinic 7301": ("60012345", 35),
}
FIRST_DAY, TICKS = "2021-02-17", 660
DAYS = [str(day.date()) for day in pd.date_range(FIRST_DAY, periods=3)]
NAMES = [
    "Anna Andersson",
    "AnnaAndersson",
    "anna.andersson@sjukhus.se",
    "070-123 45 67",
]  # in free text of files


def cohort(folder):
    "Six people with two days of readings; somebody wrote down who they are, where no reader needs it."
    rng = np.random.default_rng(5)
    for number, (serial, _) in enumerate(PEOPLE.values()):
        place = folder / f"pump_{serial}" / "raw"
        place.mkdir(parents=True)
        head = "# tz_handling: stored_in=UTC\n# time_zone: Europe/Stockholm\n# exported by Anna Andersson, 070-123 45 67\n"
        times = pd.date_range(f"{FIRST_DAY} 08:05", periods=TICKS, freq="5min").strftime("%Y-%m-%d %H:%M:%S")
        wave = 150 + 40 * np.sin(np.arange(TICKS) / 40 + number) + np.cumsum(rng.normal(0, 2, TICKS)) * 0.5
        rows = [f"{t},{v:.0f}" for t, v in zip(times, wave.clip(45, 395), strict=True)]
        rows[40] = f"{times[40]},Anna Andersson fainted"
        (place / "raw_cgm_20210217.csv").write_text(head + "timestamp,bg\n" + "\n".join(rows) + "\n")
        (place / "raw_basal_20210217.csv").write_text(head + f"timestamp,basal_rate\n{times[0]},0.8\n")
        meals = "".join(f"{times[i]},4.0,50\n" for i in range(60, TICKS, 90))
        (place / "raw_bolus_20210217.csv").write_text(head + "timestamp,bolus_dose,carbs\n" + meals)
    (folder / "pump_881235" / "raw" / "raw_cgm_AnnaAndersson_20210218.csv").write_text(
        "nonsense of Anna Andersson\n1\n"
    )
    lost = folder / "pump_77712345" / "raw"  # a pump that nobody is known to wear, with too little to use
    lost.mkdir(parents=True)
    (lost / "raw_cgm_20210217.csv").write_text("timestamp,bg\n2021-02-17 08:05:00,120\n")
    people = "".join(f"{who},{age},{'FM'[n % 2]}\n" for n, (who, (_, age)) in enumerate(PEOPLE.items()))
    (folder / "subjects.csv").write_text("subject,age,sex\n" + people)
    pumps = "".join(f"{serial},{who}\n" for who, (serial, _) in PEOPLE.items())
    (folder / "pumps.csv").write_text("pump_serial,subject\n" + pumps)
    return folder


TINY = {
    "prepare": {"least_readings": 100},
    "train": {"lookback": 12, "hidden": 4, "layers": 1, "stride": 40, "max_epochs": 1, "evaluation_stride": 3, "device": "cpu"},
    "audit": {"moments": 30, "examples": 60},
    "residuals": {"n_resamples": 60},
    "report": {"n_resamples": 60},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A whole small run of the real stages on that cohort: its reports and artifacts folders."
    folder = tmp_path_factory.mktemp("canaries")
    data, reports, artifacts = cohort(folder / "data"), folder / "reports", folder / "artifacts"
    for stage, changes in TINY.items():
        places = {"data": data, "reports": reports, "artifacts": artifacts} | changes
        if stage in ("residuals", "report"):
            places.pop("data")
        pairs = [word for key, value in places.items() for word in ("-p", f"{key}={value}")]
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from medlab.run.stage import main; sys.exit(main(sys.argv[1:]))", "glucose", stage, *pairs],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "MEDLAB_PROGRESS": "off", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, f"{stage}: {done.stderr[-3000:]}"
    return folder


def written_days() -> set[str]:
    "The days of the readings, as people and programs write them."
    found = {"2021-02", "2021/02", "202102", "Feb 2021", "February 2021", "februari 2021"}
    for day in map(pd.Timestamp, DAYS):
        d = day.day
        found |= {
            day.strftime(form) for form in ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d", "%b %d")
        }
        found |= {
            f"{d}.2.2021",
            f"{d} Feb",
            f"{d} februari",
            f"Feb {d}",
            f"February {d}",
            f"2/{d}/2021",
            f"{d}/2/2021",
        }
    return found


def planted(text: str) -> set[str]:
    "Which canaries sing in a text; ids whatever their case and the gaps in them."
    flat = re.sub(r"[\s_./-]+", "", text).lower()
    found = {who for who in PEOPLE if len(who) > 3 and re.sub(r"[\s_./-]+", "", who).lower() in flat}
    found |= {serial for serial in [s for s, _ in PEOPLE.values()] + ["77712345"] if serial in text}
    if re.search(
        r"(?i)(?:subject|patient|person|pump|id)s?\W{0,3}559\b|[\"'>]559[\"'<]|^559\b", text, re.MULTILINE
    ):
        found.add("559")
    found |= {name for name in NAMES if name.lower() in text.lower()}
    found |= {day for day in written_days() if day in text}
    return found | ({"a folder of this machine"} if "/tmp/" in text or str(ROOT) in text else set())


def texts_in(path) -> list[str]:
    "Everything in a file that somebody could read, with what hides in its images."
    raw = path.read_bytes()
    texts, images = [path.name, raw.decode("utf-8", errors="replace")], [raw] if path.suffix == ".png" else []
    if path.suffix in {".html", ".ipynb", ".json"}:
        found = re.findall(r"(?:base64,|\"image/png\": \")([A-Za-z0-9+/=\\n]{40,})", texts[1])
        images += [base64.b64decode(image.replace("\\n", "")) for image in found]
        texts[1] = re.sub(r"(?:base64,|\"image/png\": \")[A-Za-z0-9+/=\\n]{40,}", "", texts[1])
        texts[1] = re.sub(
            r"(?s)<style.*?</style>|\s(?:d|points|x|y|transform|style|viewBox)=\"[^\"]*\"", " ", texts[1]
        )
        texts.append(re.sub(r"<[^>]*>", "", texts[1]))  # what tags cut in two
    for image in images:
        texts.append(image.decode("latin-1"))
        at = 8
        while image[:4] == b"\x89PNG" and at + 8 <= len(image):
            size, kind = int.from_bytes(image[at : at + 4], "big"), image[at + 4 : at + 8]
            if kind == b"zTXt":
                texts.append(
                    zlib.decompress(image[at + 8 : at + 8 + size].split(b"\0", 1)[1][1:]).decode("latin-1")
                )
            assert kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME") or path.suffix == ".ipynb", (
                path,
                kind,
            )
            at += 12 + size
    return texts


def test_the_search_finds_what_is_there(tmp_path):
    "A search that finds nothing proves something only if it can find."
    assert planted("Karin 1957 and SVEN_LARSSON, 19570217-1234, mrn-00421337, Clinic7301") >= {
        "KARIN-1957", "Sven_Larsson", "19570217-1234", "MRN00421337", "clinic 7301"
    }  # fmt: skip
    assert planted("pump 881235 on 17 Feb") == {"881235", "17 Feb"}
    assert planted("<td>559</td>") == planted("patient 559 is") == {"559"}
    assert planted("0.559 of 559 rows, 1559, 93 mg/dL") == set()
    hidden = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b" " * 40 + b"KARIN-1957").decode()
    (tmp_path / "x.html").write_text(f'<img src="data:image/png;base64,{hidden}">17<b>.02</b>.2021')
    assert set.union(*map(planted, texts_in(tmp_path / "x.html"))) == {"KARIN-1957", "17.02.2021"}


@pytest.mark.slow
def test_no_canary_gets_out_of_a_whole_run(made):
    """Everything below reports/, and the model's card: pages, tables for people, JSON, executed notebooks, images.

    Parquet is data, not for people: its `subject` column holds ids so that results can be joined. Nothing else in it may.
    """
    files = [p for p in sorted((made / "reports").rglob("*")) if p.is_file()]
    files += sorted((made / "artifacts" / "model").glob("*.json"))
    kinds = {path.suffix for path in files}
    assert {".html", ".ipynb", ".json", ".parquet"} <= kinds
    sung = {}
    for path in files:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path).drop(columns="subject", errors="ignore")
            cells = frame.select_dtypes(["object", "string", "category"]).astype(str)
            texts = [text for column in cells for text in cells[column].unique()]
        else:
            texts = texts_in(path)
        if found := set().union(*map(planted, texts)):
            sung[path.relative_to(made).as_posix()] = sorted(found)
    assert not sung, json.dumps(sung, indent=1)


@pytest.mark.slow
def test_nobody_is_counted_in_a_whole_run(made):
    "Six people are few: no text or table for people says that they are six, or that so many of them are women."
    counts = re.compile(
        r"(?<!than )(?<!least )(?<!most )\b(?:[1-9]|10) (?:patients|subjects|people|persons)\b(?! or more)"
    )
    sung = {}
    for path in (made / "reports").rglob("*"):
        if path.suffix not in {".html", ".ipynb", ".yaml", ".csv"}:
            continue
        text = path.read_text()
        if path.suffix == ".ipynb":  # its code and prose speak of limits
            cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            text = json.dumps([cell["outputs"] for cell in cells])
        elif path.suffix == ".html":
            text = re.sub(r"(?s)<pre><code>.*?</code></pre>|<style.*?</style>", " ", text)
        if found := set(counts.findall(re.sub(r"<[^>]*>", " ", text))):
            sung[path.name] = sorted(found)
    assert not sung, json.dumps(sung, indent=1)


@pytest.mark.slow
def test_no_age_above_89_and_no_metadata_in_what_people_see(made):
    pages = [p for p in (made / "reports").rglob("*") if p.suffix in {".html", ".ipynb", ".yaml", ".csv"}]
    for path in pages:
        assert not re.search(r"(?i)\bage\w*\W{1,3}93\b|93 years", path.read_text()), path
    for path in (made / "reports").rglob("*.ipynb"):
        notebook = json.loads(path.read_text())
        assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}, path
        assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"]), path
