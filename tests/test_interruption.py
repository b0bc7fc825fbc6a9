"kill -9 at any moment: a file is whole or absent, work resumes, the result is the one that would have been."

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
import yaml
from conftest import ROOT, wait_until, write_cohort

WRITER = """
import sys
from medlab.core.files import atomic
n = 0
while True:
    n += 1
    with atomic(sys.argv[1]) as file:
        for _ in range(2000):
            file.write(f"{n}\\n")
    print(n, flush=True)
"""

LEARNER = """
import sys, numpy as np, torch
from medlab.learn.batches import Batches
from medlab.learn.lightning import Regressor, Training, fit
from medlab.shape.windows import Windows
torch.set_num_threads(1)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.drop, self.out = torch.nn.LSTM(1, 16, batch_first=True), torch.nn.Dropout(0.3), torch.nn.Linear(16, 3)
    def forward(self, x):
        return x[:, -1] + self.out(self.drop(self.lstm(x)[0][:, -1]))
rng = np.random.default_rng(0)
wave = (np.sin(np.arange(3000) / 7) + rng.normal(0, 0.1, 3000)).astype(np.float32)[:, None]
train, held = (Windows(wave, wave[:, 0].astype(float), np.arange(a, b), 24, 3) for a, b in ((23, 2400), (2430, 2990)))
plan = Training(batch_size=32, max_epochs=8, learning_rate=0.01, patience=3, seed=5)
torch.manual_seed(5)
module = Regressor(Net(), plan)
fitted = fit(module, Batches(train, 32, shuffle_seed=5), Batches(held, 256), plan, sys.argv[1], device="cpu")
torch.save([p.detach() for p in module.parameters()], sys.argv[2])
print(fitted.resumed_from, flush=True)
"""


def test_a_file_is_whole_or_absent_whenever_the_writer_dies(tmp_path):
    target = tmp_path / "out.txt"
    for wait in (0.0, 0.013, 0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines = target.read_text().splitlines()
        assert len(lines) == 2000
        assert len(set(lines)) == 1


def test_training_killed_with_signal_nine_ends_with_the_same_weights(tmp_path):
    import torch

    def learn(name, kill_after=None):
        command = [sys.executable, "-c", LEARNER, str(tmp_path / name), str(tmp_path / f"{name}.pt")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if kill_after is not None:
            last = tmp_path / name / "last.ckpt"
            wait_until(last.exists, "the first checkpoint", process=process)
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        return process.communicate()[0].strip(), process.returncode

    learn("whole")
    assert learn("cut", kill_after=0.35)[1] == -signal.SIGKILL
    assert not (tmp_path / "cut.pt").exists()
    resumed_from, code = learn("cut")
    assert code == 0
    assert resumed_from != "None"
    whole, cut = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(whole, cut, strict=True))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "A copy of the project with a small cohort and a small network."
    place = tmp_path_factory.mktemp("project") / "medlab"
    ignore = shutil.ignore_patterns(
        ".venv",
        ".git",
        "artifacts",
        "data",
        "dvcstore",
        "logs",
        ".medlab",
        "tmp",
        "cache",
        "__pycache__",
        ".pytest_cache",
    )
    shutil.copytree(ROOT, place, ignore=ignore)
    for made in ("reports", "dvc.lock", "data.dvc"):
        path = place / made
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    write_cohort(place / "data" / "glucose")
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["studies"] = ["glucose"]  # one study is enough to be killed in every stage
    pipeline = (ROOT / "dvc.yaml").read_text().splitlines(keepends=True)
    (place / "dvc.yaml").write_text("".join(line for line in pipeline if "reports/risk" not in line))
    settings["glucose"]["train"].update(max_epochs=2, hidden=8, lookback=12, ridge_lags=6)
    settings["glucose"]["residuals"].update(n_resamples=200)
    settings["glucose"]["report"].update(n_resamples=200)
    (place / "params.yaml").write_text(yaml.safe_dump(settings))
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *command], cwd=place, check=True, capture_output=True)
    return place


def environment(project):
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return {
        **os.environ,
        "MEDLAB_ROOT": str(project),
        "PYTHONPATH": str(project),
        "PATH": path,
        "MEDLAB_PROGRESS": "off",
    }


def repro(project, *more):
    forget_broken_lock(project)
    return subprocess.run(
        ["dvc", "repro", *more],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        check=False,
    )


def forget_broken_lock(project):
    "What `make reports` does first: DVC writes its lock file in place, and a kill can leave half of it."
    guard = (
        next(line for line in (ROOT / "Makefile").read_text().splitlines() if "rwlock" in line)
        .strip()
        .lstrip("@")
    )
    subprocess.run(["bash", "-c", guard], cwd=project, env=environment(project), check=True)


def test_a_half_written_dvc_lock_is_forgotten_and_a_whole_one_kept(tmp_path):
    lock = tmp_path / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    for text, kept in (('{"a": {"write": {"pid": 1', False), ("{}", True), ("", False)):
        lock.write_text(text)
        forget_broken_lock(tmp_path)
        assert lock.exists() == kept


def outputs(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    return {o["path"]: o["md5"] for stage in lock.values() for o in stage.get("outs", [])}


def at_work(project, stage, process):
    "Wait until the stage is in the middle of its work; the command lines of everything that runs then."

    def busy():
        if stage == "pages":
            marks = list((project / "reports/glucose/pages").glob("*.html"))
        elif stage == "train":
            marks = list((project / ".medlab/checkpoints").glob("*/last.ckpt"))
        else:  # papermill saves after each cell: two are done, the third is working
            books = [
                p.read_text() for p in (project / ".medlab").glob(f"run-glucose-{stage}-*/notebook.ipynb")
            ]
            marks = [b for b in books if b.count('"status": "completed"') >= 2]
        if marks:
            with suppress(psutil.NoSuchProcess):
                return [p.cmdline() for p in psutil.Process(process.pid).children(recursive=True)]
        return None

    return wait_until(busy, f"{stage} in the middle of its work", process=process)


def readable(project):
    "Every file that stands at a final path is whole."
    import pandas as pd

    for path in [*project.glob("artifacts/**/*"), *project.glob("reports/**/*")]:
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".parquet":
            pd.read_parquet(path)
        elif path.suffix in (".json", ".ipynb"):
            json.loads(path.read_text())
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        else:
            assert path.stat().st_size > 0


@pytest.mark.slow
def test_the_whole_pipeline_survives_a_kill_in_every_stage(project):
    whole = repro(project)
    assert whole.returncode == 0, whole.stdout[-3000:] + whole.stderr[-3000:]
    expected = outputs(project)
    again = repro(project)
    assert "up to date" in again.stdout + again.stderr
    assert "Running stage" not in again.stdout

    stages = ["prepare", "train", "audit", "residuals", "report", "pages"]
    shutil.rmtree(project / ".dvc" / "cache")  # no shortcut: everything has to be made again
    shutil.rmtree(project / "artifacts")
    shutil.rmtree(project / "reports")
    (project / "dvc.lock").unlink()
    for stage in stages:
        forget_broken_lock(project)
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=project,
            env=environment(project),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in process.stdout:
            if f"'{stage}@glucose'" in line and "Running" in line:
                break
        caught = at_work(project, stage, process)
        assert caught, f"{stage} was not caught at work: {process.stdout.read()[-2000:]}"
        dvc = psutil.Process(process.pid)
        for member in [
            dvc,
            *dvc.children(recursive=True),
        ]:  # dvc first, so that it cannot tidy up after its children
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        assert any("ipykernel" in " ".join(words) for words in caught) or stage == "pages"
        readable(project)
    done = repro(project)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert outputs(project) == expected
    assert not list((project / ".medlab" / "checkpoints").glob("*"))  # cleaned up on success


@pytest.mark.slow
def test_a_changed_parameter_reruns_only_what_depends_on_it(project):
    if not (project / "dvc.lock").exists():
        assert repro(project).returncode == 0
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["glucose"]["residuals"]["seed"] = 7
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    said = repro(project, "--dry").stdout  # what comes after residuals depends on whether its outputs change
    assert "Running stage 'residuals@glucose'" in said
    assert "Running stage 'train@glucose'" not in said
    assert "Running stage 'prepare@glucose'" not in said


def test_two_writers_of_one_file_never_mix(tmp_path):
    target = tmp_path / "out.txt"
    command = [sys.executable, "-c", WRITER, str(target)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        writer.stdout.readline()
    for _ in range(200):
        lines = target.read_text().splitlines()
        assert len(lines) == 2000
        assert len(set(lines)) == 1
    for writer in writers:
        writer.kill()
        writer.wait()


@pytest.mark.slow
def test_a_leak_stops_the_pipeline_before_the_report(project):
    "Future information planted in the prepared features is found by the replay, and no report is made."
    if not (project / "artifacts").exists():
        assert repro(project).returncode == 0
    code = (
        "import pandas as pd, medlab.core.files as f\n"
        "p = 'artifacts/glucose/prepared/series.parquet'\n"
        "t = pd.read_parquet(p)\n"
        "t['delta_bg'] = t['bg'].shift(-1).fillna(0).astype('float32') - t['bg']\n"
        "import os; os.chmod(p, 0o644)\n"
        "f.write_table(p, t, f.read_about(p))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, env=environment(project), check=True)
    run = subprocess.run(
        ["medlab-run", "glucose", "audit"],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "future_replay" in run.stderr
    assert "delta_bg" in run.stderr
    found = {
        row["check"]: row["verdict"]
        for row in json.loads((project / "reports/glucose/audit.json").read_text())
    }
    assert found["future_replay"] == "fail"
    assert found["time_overlap"] == "pass"
