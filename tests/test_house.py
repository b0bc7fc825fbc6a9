"The house: floors, sizes, prose, no stored outputs where DVC would trip over them."

import ast
import json
import re
import subprocess

import pytest
from conftest import ROOT, loaded

FLOORS = ["core", "shape", "judge", "learn", "tell", "studies", ("run", "serve")]
NOTEBOOKS = sorted(
    p for p in (ROOT / "nbs").rglob("*.ipynb") if not any(q.startswith((".", "_")) for q in p.parts)
)
LIBRARY = [p for p in NOTEBOOKS if re.match(r"\d_", p.relative_to(ROOT / "nbs").parts[0])]
STAGES = [p for p in NOTEBOOKS if "stages" in p.parts]


def floor(module: str) -> int | None:
    part = module.split(".")[1] if module.startswith("medlab.") else None
    for number, names in enumerate(FLOORS):
        if part in (names if isinstance(names, tuple) else (names,)):
            return number
    return None


def imported(path) -> set[str]:
    "Absolute names of the medlab modules that a file imports, at the top or inside a function."
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found.add(name)
            found |= {f"{name}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("medlab.")}


MODULES = sorted(p for p in (ROOT / "medlab").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_floor_imports_only_from_floors_above_it(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = floor(module)
    assert own is not None, f"{module} stands on no floor"
    for name in imported(path):
        other = floor(name)
        assert other is None or other <= own, f"{module} (floor {own}) imports {name} (floor {other})"
        if own == FLOORS.index("studies") and other == own:
            assert name.split(".")[2] == module.split(".")[2], f"{module} imports another study: {name}"


def test_the_import_rule_can_fail(tmp_path):
    assert (
        floor("medlab.core.files") < floor("medlab.judge.metrics") < floor("medlab.studies.glucose.prepare")
    )
    assert "medlab.judge.evidence" in imported(ROOT / "medlab/judge/audit.py")


def sources(path):
    notebook = json.loads(path.read_text())
    return [(cell, "".join(cell["source"])) for cell in notebook["cells"]]


def exported_lines(path) -> int:
    cells = [
        s for c, s in sources(path) if c["cell_type"] == "code" and re.search(r"^#\s*\|\s*export", s, re.M)
    ]
    return sum(
        1 for s in cells for line in s.splitlines() if line.strip() and not line.startswith(("#|", "# |"))
    )


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT / "nbs")))
def test_a_library_notebook_is_one_idea_and_explains_itself(path):
    lines = exported_lines(path)
    words = sum(len(s.split()) for c, s in sources(path) if c["cell_type"] == "markdown")
    assert lines <= 300, f"exports {lines} lines; split it by meaning"
    assert words >= 2 * lines, f"{words} words of prose for {lines} exported lines; at least two words a line"


def test_notebooks_are_of_middling_size():
    "A described parameter is a line of its own, so a notebook of documented functions is longer than its code."
    sizes = sorted(exported_lines(p) for p in LIBRARY)
    assert sizes[len(sizes) // 2] <= 170


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT / "nbs")))
def test_stored_outputs_tell_nothing_about_the_machine_they_were_made_on(path):
    for cell, _ in sources(path):
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", "error stream stored; `make notebooks` scrubs it"
            text = json.dumps(
                {k: v for k, v in output.get("data", {}).items() if k.startswith("text/")}
            ) + "".join(output.get("text", []))
            assert not re.search(r"site-packages|/tmp/|/home/", text), text[:300]


@pytest.mark.parametrize("path", STAGES, ids=lambda p: str(p.relative_to(ROOT / "nbs")))
def test_a_stage_notebook_has_parameters_no_output_and_reads_like_a_paper(path):
    cells = sources(path)
    assert sum("parameters" in c["metadata"].get("tags", []) for c, _ in cells) == 1
    assert not any(c.get("outputs") for c, _ in cells), "stored output makes DVC rerun the stage"
    text = " ".join(s for c, s in cells if c["cell_type"] == "markdown")
    for part in ("**Question.**", "**Data.**", "**Method.**", "## Limits"):
        assert part in text, f"lacks {part}"


def test_importing_medlab_is_light():
    light = ["medlab", "medlab.core.project", "medlab.core.files"]
    assert loaded(light, ("torch", "tensorflow", "matplotlib")) == []


@pytest.mark.parametrize("floor_name", ["core", "shape", "judge", "tell", "studies", "run", "serve"])
def test_only_learning_loads_torch(floor_name):
    "What judges and tells must run on a machine without torch's weight in memory."
    modules = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in MODULES
        if p.relative_to(ROOT).parts[1] == floor_name and p.stem != "model"
    ]
    assert loaded(modules, ("torch", "tensorflow", "lightning", "papermill", "dvc")) == []


def test_training_code_needs_neither_papermill_nor_dvc():
    training = ["medlab.learn.lightning", "medlab.learn.bundle", "medlab.studies.glucose.model"]
    assert loaded(training, ("papermill", "dvc", "tensorflow")) == []


def test_no_print_and_no_star_imports_in_the_package():
    for path in MODULES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} prints"
            if isinstance(node, ast.ImportFrom):
                assert all(a.name != "*" for a in node.names), f"{path}:{node.lineno} imports *"


def lesson_lines(source: str) -> list[str]:
    "Statements of a module that do something when it is imported, and are no definition."
    found = []
    for node in ast.parse(source).body:
        defines = isinstance(
            node,
            (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign),
        )  # fmt: skip
        says = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guarded = isinstance(node, ast.If) and re.search(r"TYPE_CHECKING|__name__", ast.unparse(node.test))
        if not (defines or says or guarded):
            found.append(ast.unparse(node))
    return found


def test_exported_cells_hold_definitions_only():
    "A lesson's line in an exported cell would run whenever somebody imports the module."
    assert lesson_lines("import os\nx = 1\ndef f():\n    f()\nf()\nfor i in []:\n    f()") == [
        "f()",
        "for i in []:\n    f()",
    ]
    asked_for = {
        "mlflow_model.py": ["mlflow.models.set_model(Bundle())"]
    }  # MLflow runs that file to get the model
    for path in MODULES:
        assert lesson_lines(path.read_text()) == asked_for.get(path.name, []), path


def test_public_functions_are_documented():
    missing = []
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                missing.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not missing, missing


def test_nothing_copied_from_the_real_files_or_naming_this_machine():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if not path.is_file() or name.startswith("dvcstore/") or path.suffix in {".png", ".lock"}:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not re.search(r"/(?:root|home/\w+)/", text), f"{name} names a folder of a machine"
        assert "dubosson_events" not in name


CLOCKS = {"time", "monotonic", "perf_counter", "process_time", "thread_time", "default_timer"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS - {"default_timer"}}


def clocks(source: str) -> list[int]:
    "Lines that ask a clock how long something takes, whatever the clock was imported as."
    source = re.sub(r"(?m)^\s*[%!].*$", "pass", source)
    tree, names = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "timeit"):
            names |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.asname or a.name: "module" for a in node.names if a.name in ("time", "timeit")}
    found = []
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and names.get(called.id) in CLOCKS | {"timeit", "repeat"}:
            found.append(node.lineno)
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            asked = called.attr in CLOCKS | {"timeit", "repeat"}
            found += [node.lineno] * (asked and names.get(called.value.id) == "module")
    return sorted(found)


def test_no_test_and_no_lesson_asks_a_clock():
    """A duration is true of one machine on one quiet afternoon; benchmarks/ measures, as ratios, and asserts nothing.

    Waiting for something to happen goes through `conftest.wait_until`, which has a generous limit and raises.
    """
    assert clocks("import time as t\nx = t.monotonic()") == [2]
    assert clocks("from time import perf_counter as p\nassert p() - p() < 3") == [2, 2]
    assert clocks("import time\ntime.sleep(1)\nframe.time()\ntime = pd.time()") == []
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.name != "conftest.py" and "portable" not in path.parts:
            wrong += [f"{path.relative_to(ROOT)}:{line}" for line in clocks(path.read_text())]
    for path in LIBRARY:
        cells = [s for c, s in sources(path) if c["cell_type"] == "code"]
        lessons = [s for s in cells if not re.search(r"^#\s*\|\s*export", s, re.M)]
        imports = [s for s in cells if re.search(r"^\s*(from|import) time", s, re.M)]
        for number, lesson in enumerate(lessons):
            for source in (
                lesson,
                *("\n".join(re.findall(r"(?m)^(?:from|import) time.*$", s)) + "\n" + lesson for s in imports),
            ):
                if clocks(source):
                    wrong.append(f"{path.relative_to(ROOT)}, lesson {number}")
                    break
    assert not wrong, wrong
