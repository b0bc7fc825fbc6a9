"The pipeline's contracts: parameters, dependencies, the runner."

import ast
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from test_house import imported

from medlab.core.project import ParameterError, section
from medlab.run.stage import declared_parameters, main, parameters, stage_notebook

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STUDIES = section("studies")
PAIRS = [(study, stage) for study in STUDIES for stage in PIPELINE if stage not in {"pages", "index"}]


@pytest.mark.parametrize(("study", "stage"), PAIRS)
def test_params_yaml_and_the_parameters_cell_have_the_same_keys(study, stage):
    declared = set(declared_parameters(stage_notebook(study, stage)))
    assert declared - {"study"} == set(section(study, stage))
    parameters(study, stage)  # and the same kinds


@pytest.mark.parametrize(("study", "stage"), PAIRS)
def test_dvc_depends_on_every_module_that_a_stage_imports(study, stage):
    "Without this, editing a function would leave its results standing."
    text = "\n".join(
        "".join(c["source"])
        for c in json.loads(stage_notebook(study, stage).read_text())["cells"]
        if c["cell_type"] == "code"
    )
    wanted = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medlab"):
            wanted |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    wanted |= {
        m.replace("{study}", study) for m in re.findall(r"f\"(medlab\.studies\.\{study\}\.\w+)\"", text)
    }
    modules, todo = set(), [ROOT / (m.replace(".", "/") + ".py") for m in wanted]
    while todo:
        path = todo.pop()
        if path.exists() and path not in modules:
            modules.add(path)
            todo += [ROOT / (m.replace(".", "/") + ".py") for m in imported(path)]
    deps = [d.replace("${item.study}", study) for d in PIPELINE[stage]["deps"]]
    for path in modules:
        name = path.relative_to(ROOT).as_posix()
        assert any(name == d or name.startswith(d + "/") for d in deps), (
            f"{stage} uses {name}, dvc.yaml does not say so"
        )
    assert any(d == stage_notebook(study, stage).relative_to(ROOT).as_posix() for d in deps)


def test_editing_prose_or_style_does_not_retrain():
    for name, stage in PIPELINE.items():
        for dep in stage["deps"]:
            assert not re.match(r"nbs/\d", dep), f"{name} depends on a library notebook: {dep}"
        if name in ("prepare", "train", "audit", "residuals"):
            assert not any(d.startswith(("medlab/tell", "medlab/run/html")) for d in stage["deps"])


def test_the_committed_lock_belongs_to_this_pipeline():
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    each = [stage for stage in PIPELINE if "matrix" in PIPELINE[stage]]
    assert set(lock) == {f"{stage}@{study}" for stage in each for study in STUDIES} | {"index"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["glucose", "train", "-p", "learning_rat=0.1"],
            ["unknown parameter 'learning_rat'", "did you mean 'learning_rate'"],
        ),
        (["glucose", "train", "-p", "learning_rate=1e-3"], ["should be a number", "1.0e-03"]),
        (["glucose", "train", "-p", "learning_rate"], ["write it as"]),
        (["glucose", "trian"], ["no stage 'trian'", "train"]),
        (["glucos", "train"], ["no study 'glucos'", "glucose"]),
    ],
)
def test_a_slip_is_refused_before_anything_runs(arguments, words, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_a_parameter_missing_from_params_yaml_is_refused(monkeypatch):
    import medlab.run.stage as stage

    short = {k: v for k, v in section("glucose", "train").items() if k != "dropout"}
    monkeypatch.setattr(stage, "section", lambda *keys: short)
    with pytest.raises(ParameterError, match="missing parameter 'dropout'"):
        parameters("glucose", "train")


def test_papermill_by_hand_works_from_another_folder(tmp_path):
    "The fourth way in: another parameter, another place, plain papermill."
    cohort = tmp_path / "cohort" / "pump_1" / "raw"
    cohort.mkdir(parents=True)
    stamps = [f"2024-03-{1 + i // 288:02d} {i % 288 // 12:02d}:{i % 12 * 5:02d}:00" for i in range(600)]
    (cohort / "raw_cgm_20240301.csv").write_text(
        "timestamp,bg\n" + "".join(f"{t},{120 + i % 50}\n" for i, t in enumerate(stamps))
    )
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(ROOT / "nbs/stages/glucose/prepare.ipynb"), "out.ipynb", "--log-level", "ERROR",
         "-p", "data", str(tmp_path / "cohort"), "-p", "artifacts", str(tmp_path / "artifacts"), "-p", "least_readings", "100"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "MEDLAB_PROGRESS": "off"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = json.loads((tmp_path / "artifacts/prepared/manifest.json").read_text())
    assert manifest["rows"]["in"] == 600


LED_BY = {  # study -> the numbers of the README: (column, value, digits)
    "glucose": [("horizon", 15.0, 1), ("horizon", 30.0, 1), ("horizon", 60.0, 1)],
    "risk": [("metric", "auroc", 3), ("metric", "average_precision", 3), ("metric", "brier", 4), ("metric", "observed_expected", 2)],
}  # fmt: skip


@pytest.mark.parametrize("study", STUDIES)
def test_the_numbers_in_the_readme_are_those_of_the_pipeline(study):
    import io

    import pandas as pd

    name = f"reports/{study}/error_by_horizon.csv"
    committed = subprocess.run(
        ["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    readme = (ROOT / "README.md").read_text()

    def told(text: str) -> bool:
        curve = pd.read_csv(io.StringIO(text))
        for model, rows in curve.groupby("model"):
            cells = [
                f"{c.value:.{digits}f} ({c.low:.{digits}f} to {c.high:.{digits}f})"
                for column, value, digits in LED_BY[study]
                for c in rows[rows[column] == value].itertuples()
            ]
            lines = [line for line in readme.splitlines() if line.startswith(f"| {model} |")]
            if not any(all(cell in line for cell in cells) for line in lines):
                return False
        return True

    here = (ROOT / name).read_text() if (ROOT / name).exists() else ""
    assert any(text and told(text) for text in (here, committed)), (
        "run nbs/index.ipynb again after the pipeline"
    )
