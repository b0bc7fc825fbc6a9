"Files of an earlier revision: from git, from DVC's cache or remote, from within a running pipeline; and when they are gone."

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medlab.run.revisions import RevisionError, commit_of, earlier, fetch

pytest.importorskip("dvc")
WHO = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}
ENVIRONMENT = (
    os.environ
    | WHO
    | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
)
STAGES = """stages:
  make:
    cmd: cp source.txt reports/tests.parquet && cp source.txt reports/metrics.json
    deps: [source.txt]
    outs: [reports/tests.parquet]
    metrics:
      - reports/metrics.json: {cache: false}
"""


def run(folder, *words):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(folder):
    "Every file of the working tree, with its content and time."
    files = (p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts and ".dvc" not in p.parts)
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    "Two versions of a pipeline whose outputs are in DVC, pushed to a remote folder."
    folder = tmp_path_factory.mktemp("repository")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "-d", "store", str(tmp_path_factory.mktemp("store")))
    (folder / "reports").mkdir()
    (folder / "dvc.yaml").write_text(STAGES)
    for version in ("v1", "v2"):
        (folder / "source.txt").write_text(f"numbers of {version}\n")
        run(folder, "dvc", "repro", "-q")
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-qm", version)
        run(folder, "git", "tag", version)
    run(folder, "dvc", "push", "-q", "--all-tags")
    return folder


def test_a_file_of_another_version_comes_back_and_the_tree_stays(repository, tmp_path):
    before = state(repository)
    for name in ("reports/tests.parquet", "reports/metrics.json"):
        assert fetch(name, "v1", tmp_path / "x", repository).read_text() == "numbers of v1\n"
        assert fetch(name, "v2", tmp_path / "x", repository).read_text() == "numbers of v2\n"
    assert state(repository) == before
    assert run(repository, "git", "status", "--porcelain") == ""


def test_all_that_can_be_had_is_had(repository, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = earlier("any", "v1", tmp_path, artifacts="artifacts", reports="reports", at=repository)
    assert set(found) == {"tests", "numbers"}
    assert "predictions.parquet of revision v1 cannot be had" in caplog.text


@pytest.mark.parametrize("revision", ["v9", "", "--help", "main..v1", "$(touch x)"])
def test_a_revision_that_git_does_not_know_is_an_error_that_helps(repository, tmp_path, revision):
    with pytest.raises(RevisionError, match="git knows no revision"):
        fetch("reports/tests.parquet", revision, tmp_path / "x", repository)
    assert len(commit_of("v1", repository)) == 40


def clone(repository, tmp_path):
    "A copy whose cache is empty."
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy, symlinks=True)
    shutil.rmtree(copy / ".dvc" / "cache")
    return copy


def test_what_the_cache_lost_comes_from_the_remote(repository, tmp_path):
    copy = clone(repository, tmp_path)
    assert fetch("reports/tests.parquet", "v1", tmp_path / "x", copy).read_text() == "numbers of v1\n"


def test_what_is_in_no_store_is_none_with_a_reason(repository, tmp_path, caplog):
    copy = clone(repository, tmp_path)
    run(copy, "dvc", "remote", "modify", "store", "url", str(tmp_path / "empty"))
    with caplog.at_level(logging.WARNING):
        assert fetch("reports/tests.parquet", "v1", tmp_path / "x", copy) is None
    assert "tests.parquet of revision v1 cannot be had" in caplog.text
    assert not (tmp_path / "x").exists()
    assert fetch("reports/metrics.json", "v1", tmp_path / "y", copy).read_text() == "numbers of v1\n"


def test_it_works_within_a_running_pipeline(repository, tmp_path):
    "DVC holds its locks while a stage runs; fetching must not wait for them."
    copy = tmp_path / "running"
    shutil.copytree(repository, copy, symlinks=True)
    code = "from medlab.run.revisions import fetch; fetch('reports/tests.parquet', 'v1', 'old.txt', '.')"
    stage = f'  compare:\n    cmd: "{sys.executable} -c \\"{code}\\""\n    deps: [reports/tests.parquet]\n    outs: [old.txt]\n'
    (copy / "dvc.yaml").write_text(STAGES + stage)
    done = subprocess.run(
        ["dvc", "repro", "-f", "compare"], cwd=copy, capture_output=True, text=True, timeout=120,
        env=ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (copy / "old.txt").read_text() == "numbers of v1\n"
