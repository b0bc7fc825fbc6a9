"The runner: a stage's own surroundings, parameters as they are typed, and what a failed run leaves."

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from medlab.run.html import NOT_SHOWN, write_html
from medlab.run.stage import StageError, overrides_of, run
from medlab.run.unfinished import outputs

DRAWS = "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])\nplt.rcParams['lines.linewidth'], name"


def cells(*sources) -> list:
    parameters = "name = 'a'\nnumber = 1\nartifacts = 'artifacts/tiny'\nreports = 'reports/tiny'"
    return [
        new_markdown_cell("# Tiny"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(new_code_cell(source) for source in sources),
    ]


def make(folder: Path, stages: dict[str, list]) -> Path:
    "A project with one study."
    (folder / "settings.ini").write_text("[DEFAULT]\n")
    values = {"name": "a", "number": 1, "artifacts": "artifacts/tiny", "reports": "reports/tiny"}
    (folder / "params.yaml").write_text(
        yaml.safe_dump({"studies": ["tiny"], "tiny": dict.fromkeys(stages, values)})
    )
    outs = ["artifacts/${item.study}/model", "artifacts/${item.study}/shares.bin"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"outs": outs}}}))
    (folder / "nbs/stages/tiny").mkdir(parents=True)
    for stage, made in stages.items():
        nbformat.write(new_notebook(cells=made), folder / f"nbs/stages/tiny/{stage}.ipynb")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    "In a folder whose name is anything, as names of folders are."
    folder = tmp_path / "a b&c {study} #1"
    folder.mkdir()
    monkeypatch.setenv("MEDLAB_ROOT", str(folder))
    return folder


def test_the_callers_surroundings_do_not_reach_a_stage(project, monkeypatch, tmp_path):
    make(
        project,
        {
            "draw": cells(
                DRAWS,
                "import os\n{k: os.environ.get(k) for k in ('OMP_NUM_THREADS', 'MKL_CBWR')}, 'surprise' in globals()",
            )
        },
    )
    plain = run("tiny", "draw").read_bytes()
    own = tmp_path / "ipython" / "profile_default" / "startup"
    own.mkdir(parents=True)
    (own / "00.py").write_text(
        "surprise = 1\nimport matplotlib\nmatplotlib.rcParams['lines.linewidth'] = 9\n"
    )
    (tmp_path / "start.py").write_text("surprise = 2\n")
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 7\n")
    for name, value in {
        "MPLBACKEND": "Agg", "IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONSTARTUP": str(tmp_path / "start.py"),
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "TZ": "Asia/Kathmandu", "OMP_NUM_THREADS": "3",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert run("tiny", "draw").read_bytes() == plain
    assert b"image/png" in plain and b"False" in plain
    assert os.environ["TZ"] == "Asia/Kathmandu"  # and the caller has its own back


def test_arithmetic_is_portable_unless_somebody_wants_it_fast(project, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    make(project, {"ask": cells("import os\nprint(os.environ.get('OMP_NUM_THREADS'))")})
    printed = lambda path: json.loads(path.read_text())["cells"][-1]["outputs"][0]["text"]
    assert "".join(printed(run("tiny", "ask"))) == "1\n"
    assert "".join(printed(run("tiny", "ask", arithmetic="fast"))) == "None\n"
    chosen = yaml.safe_load((project / "params.yaml").read_text()) | {"arithmetic": "fast"}
    (project / "params.yaml").write_text(yaml.safe_dump(chosen))
    assert "".join(printed(run("tiny", "ask"))) == "None\n"


def test_text_is_taken_as_it_is_typed(project):
    make(project, {"ask": cells()})
    asked = ["name=/data/set #2", "number=3"]
    assert overrides_of("tiny", "ask", asked) == {"name": "/data/set #2", "number": 3}
    for text in ("@x", "2026-11-21", "1e3", "null", "{a}", "", "x=y"):
        assert overrides_of("tiny", "ask", [f"name={text}"]) == {"name": text}
    with pytest.raises(ValueError, match="no value that YAML can read"):
        overrides_of("tiny", "ask", ["number=@x"])


def test_a_date_in_params_yaml_is_told_to_wear_quotation_marks(project):
    make(project, {"ask": cells()})
    text = (project / "params.yaml").read_text().replace("name: a", "name: 2026-11-21")
    (project / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"'name' should be text, not a date .* quotation marks"):
        run("tiny", "ask")


TRAINS = """from pathlib import Path
model = Path(artifacts) / "model"
model.mkdir(parents=True, exist_ok=True)
(model / "card.json").write_text("{}")
(Path(artifacts) / "shares.bin").write_text("numbers")"""


def test_a_failed_stage_leaves_nothing_that_looks_finished(project):
    make(project, {"train": cells(TRAINS, "1 / (number - 1)"), "audit": cells("'looked'")})
    with pytest.raises(StageError, match=r"set aside in .medlab/failed/tiny-train.*: model, shares.bin"):
        run("tiny", "train")
    assert not (project / "artifacts/tiny/model").exists()
    assert (project / ".medlab/failed/tiny-train/model/card.json").exists()
    with pytest.raises(StageError, match="'train' of these artifacts was begun and did not finish"):
        run("tiny", "audit")
    run("tiny", "train", {"number": 2})
    run("tiny", "audit")
    assert (project / "artifacts/tiny/model/card.json").exists()
    assert not (project / "artifacts/tiny/.unfinished").exists()


def test_a_failed_audit_can_be_reported_and_a_killed_one_cannot(project):
    finds = "from pathlib import Path\nPath(reports).mkdir(parents=True, exist_ok=True)\n(Path(reports) / 'audit.json').write_text('[]')"
    make(project, {"audit": cells("number / (number - 1)", finds), "report": cells("'told'")})
    with pytest.raises(StageError, match="ZeroDivisionError"):
        run("tiny", "audit")
    with pytest.raises(StageError, match="did not finish"):
        run("tiny", "report")
    (project / "nbs/stages/tiny/audit.ipynb").unlink()
    nbformat.write(new_notebook(cells=cells(finds, "1 / 0")), project / "nbs/stages/tiny/audit.ipynb")
    with pytest.raises(StageError):
        run("tiny", "audit")
    run("tiny", "report")


def test_an_earlier_result_is_not_taken_for_that_of_a_failed_run(project):
    make(project, {"train": cells("1 / (number - 2)", TRAINS), "audit": cells("'looked'")})
    run("tiny", "train")
    with pytest.raises(StageError) as caught:
        run("tiny", "train", {"number": 2})
    assert "set aside" not in str(caught.value)
    assert (project / "artifacts/tiny/model/card.json").exists()  # of the first run, untouched
    with pytest.raises(StageError, match="did not finish"):
        run("tiny", "audit")


def test_a_killed_stage_is_refused_by_later_ones(project):
    dies = TRAINS + "\nimport os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    make(project, {"train": cells(dies), "audit": cells("'looked'")})
    command = "from medlab.run.stage import main; import sys; sys.exit(main(['tiny', 'train']))"
    done = subprocess.run([sys.executable, "-c", command], check=False, capture_output=True, text=True)
    assert done.returncode < 0, done.stderr
    with pytest.raises(StageError, match="did not finish"):
        run("tiny", "audit")
    shutil.rmtree(project / "artifacts")
    run("tiny", "audit")


def test_outputs_follow_the_folders_of_a_run(project):
    make(project, {})
    found = outputs("tiny", "train", {"artifacts": "artifacts/mine"})
    assert [p.relative_to(project).as_posix() for p in found] == [
        "artifacts/mine/model",
        "artifacts/mine/shares.bin",
    ]


def test_a_page_that_cannot_be_shown_says_so_and_costs_nothing_else(tmp_path, caplog):
    "An id in prose, which no scrubber touches."
    notebook = new_notebook(cells=[new_markdown_cell("# Training\n\nWe looked at KARIN-1957.")])
    path = write_html(tmp_path / "train.html", notebook, names={"KARIN-1957": "P01"}, simulated=True)
    page = path.read_text(encoding="utf-8")
    assert NOT_SHOWN.split(":")[0] in page and "KARIN" not in page and "SIMULATED DATA" in page
    assert "would show 1 patient ids" in caplog.text


def test_an_id_of_six_digits_is_no_part_of_a_number(tmp_path):
    "With 1,000 patients numbered from 000000, a loss of 0.000000 is nobody."
    names = {f"{n:06d}": f"P{n:04d}" for n in range(1000)}
    output = {
        "output_type": "stream",
        "name": "stdout",
        "text": "loss 0.000000, step 1.000017e-3, 12.000123 %",
    }
    table = {
        "output_type": "execute_result", "metadata": {}, "execution_count": None,
        "data": {"text/html": "<table><thead><tr><th>patient</th><th>p</th></tr></thead><tbody><tr><td>000017</td><td>0.000123</td></tr></tbody></table>"},
    }  # fmt: skip
    cell = new_code_cell("1", outputs=[nbformat.from_dict(output), nbformat.from_dict(table)])
    notebook = new_notebook(cells=[new_markdown_cell("# Training"), cell])
    page = write_html(tmp_path / "train.html", notebook, names=names).read_text(encoding="utf-8")
    assert "loss 0.000000, step 1.000017e-3, 12.000123 %" in page
    assert "P0017" in page and "000017<" not in page and "0.000123" in page
