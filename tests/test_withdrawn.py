"A report that an earlier run left behind must not survive the audit that failed."

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook

LEAK = "class LeakError(RuntimeError): pass\nraise LeakError(1)"
OTHER = "raise MemoryError('the disk is full')"


def project(folder, cell: str):
    "A project whose glucose audit does what `cell` says, with a report from an earlier run."
    (folder / "nbs/stages/glucose").mkdir(parents=True)
    parameters = new_code_cell("moments = 1", metadata={"tags": ["parameters"]})
    write(new_notebook(cells=[parameters, new_code_cell(cell)]), folder / "nbs/stages/glucose/audit.ipynb")
    for name in ("settings.ini", "dvc.yaml"):
        (folder / name).write_text("")
    about = {"studies": ["glucose"], "glucose": {"audit": {"moments": 1}}}
    (folder / "params.yaml").write_text(yaml.safe_dump(about))
    reports = folder / "reports/glucose"
    for part in (reports / "translated", reports / "cards", folder / "reports/summaries"):
        part.mkdir(parents=True)
    (reports / "report.html").write_text('<html lang="sv">MAE 0,1')
    (reports / "translated/report.en.html").write_text('<html lang="en">MAE 0.1')
    (reports / "cards/model_card.yaml").write_text("mae: 0.1")
    (folder / "reports/summaries/glucose.json").write_text("{}")
    (folder / "reports/index.html").write_text("MAE 0.1, see the report")
    return folder


def audit(folder):
    return subprocess.run(
        [str(Path(sys.executable).parent / "medlab-run"), "glucose", "audit"],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"MEDLAB_ROOT": str(folder), "MEDLAB_PROGRESS": "off"},
    )  # fmt: skip


def test_a_failed_audit_puts_a_notice_in_the_reports_place_in_each_language(tmp_path):
    done = audit(project(tmp_path, LEAK))
    assert done.returncode == 1 and "withdrawn: a notice now stands" in done.stderr
    swedish = (tmp_path / "reports/glucose/report.html").read_text()
    english = (tmp_path / "reports/glucose/translated/report.en.html").read_text()
    assert "har dragits tillbaka" in swedish and 'lang="sv"' in swedish
    assert "has been withdrawn" in english and 'href="../report.html"' in english
    assert not re.search(r"0[,.]1\b", swedish + english)
    assert not (tmp_path / "reports/glucose/cards").exists()
    index = (tmp_path / "reports/index.html").read_text()
    assert "There is no report of this study" in index and "MAE" not in index


def test_any_other_failure_leaves_the_report_alone(tmp_path):
    done = audit(project(tmp_path, OTHER))
    assert done.returncode == 1 and "withdrawn" not in done.stderr
    assert "MAE 0,1" in (tmp_path / "reports/glucose/report.html").read_text()
    assert (tmp_path / "reports/glucose/cards/model_card.yaml").exists()
