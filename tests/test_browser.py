"Reports and pages in a real browser, where there is one: axe-core, no requests, reflow, print, two validators."

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "browser"))
import check

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tools():
    try:
        return check.chromium(), check.packages()
    except check.Missing as reason:
        pytest.skip(str(reason))


def test_the_proof_can_fail(tools, tmp_path):
    "A proof that never fails is none."
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!DOCTYPE html><html><head></head><body><h1></h1><img src="https://example.org/a.png"><h3>x</h3>'
        '<p style="width:2000px;color:#ccc">far too wide and far too pale</p></body></html>'
    )
    (row,), findings = check.check([bad])
    said = "\n".join(findings)
    for part in (
        "axe html-has-lang", "axe image-alt", "axe color-contrast", "asks for https://example.org/a.png", "scrolls sideways at 320",
        "html-validate", "bad.html: axe heading-order",
    ):  # fmt: skip
        assert part in said, part
    assert int(row["axe"]) >= 5
    assert int(row["requests"]) >= 1


def test_reports_and_pages_have_no_findings(tools, tmp_path):
    "The invented study in both languages, a losing model, and an executed notebook."
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
    from test_tell_page import LANGUAGES, make

    from medlab.run.html import write_html

    pages = []
    for name, changes in {code: {"language": code} for code in LANGUAGES}.items():
        pages.append(tmp_path / f"{name}.html")
        pages[-1].write_text(make(**changes), encoding="utf-8")
    table = "<table border='1'><thead><tr><th></th><th>rows</th></tr></thead><tbody><tr><th>read</th><td>12104</td></tr></tbody></table>"
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A stage\n\nIt looks.\n\n### Rows\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
            new_code_cell("frame", outputs=[new_output("execute_result", data={"text/html": table})]),
            new_code_cell("frame", outputs=[new_output("execute_result", data={"text/html": table})]),
        ]
    )
    pages.append(write_html(tmp_path / "train.html", notebook, simulated=True))
    rows, findings = check.check(pages)
    assert not findings, "\n".join(findings)
    assert all(int(row["A4"]) >= 1 and row["views"] == "8" for row in rows)
