"Search: killed and resumed without a trace, shared by processes, and honest about what reached the model."

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from medlab.core.files import write_table
from medlab.core.spread import here, workers
from medlab.learn.search import _journal, check_reached, distributions, search

SPACE = {"depth": ("int", 2, 12), "rate": ("log", 0.01, 0.3), "rule": ("choice", ["a", "b"])}


def learn(parameters, report):
    "A model whose best settings are depth 7, rate 0.05 and rule b."
    floor = (
        0.1 * abs(parameters["depth"] - 7) + 5 * abs(parameters["rate"] - 0.05) + (parameters["rule"] == "a")
    )
    for step in range(6):
        value = floor + 1 / (1 + step)
        if report(step, value):
            break
    return value, dict(parameters)


def dies_once(parameters, report, marker=""):
    "The first process that comes to rule b is killed, in the middle of a trial."
    report(0, 1.0)
    if parameters["rule"] == "b" and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(parameters["depth"]), dict(parameters)


KILLED_WHILE_WRITING = """
import os, signal, sys
import optuna.storages.journal as journal
sys.path.insert(0, sys.argv[2])
from test_learn_search import SPACE, learn
from medlab.learn.search import search
real, calls = os.fsync, []
def fsync(descriptor):  # called in the middle of writing a line, with the lock held
    calls.append(1)
    if len(calls) == 16:
        journal.JournalFileOpenLock(sys.argv[1] + "/peer").acquire()  # what Optuna would leave behind
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 30)
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
search(learn, SPACE, 24, sys.argv[1], direction="minimize", seed=5, startup=6)
"""


def test_a_search_killed_while_it_writes_ends_like_one_that_was_left_alone(tmp_path):
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    killed.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(killed), str(Path(__file__).parent)],
        env=os.environ | {"PYTHONHASHSEED": "17", "MEDLAB_PROGRESS": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    journal = killed / "journal.jsonl"
    left = journal.read_bytes()
    assert not left.endswith(b"\n") and left.count(b"\n") == 2 + 13  # thirteen whole trials and a piece
    assert (killed / "peer.lock").exists(), (
        "a lock that is a file outlives its owner; this is why ours isn't one"
    )

    resumed = search(learn, SPACE, 24, killed, direction="minimize", seed=5, startup=6)
    undisturbed = search(learn, SPACE, 24, alone, direction="minimize", seed=5, startup=6)
    same = [
        write_table(f / "trials.parquet", r.trials).read_bytes()
        for f, r in ((killed, resumed), (alone, undisturbed))
    ]
    assert same[0] == same[1]
    assert resumed.best == undisturbed.best and resumed.number == undisturbed.number
    assert journal.read_bytes().startswith(left[: left.rfind(b"\n") + 1]), (
        "what was finished is not run again"
    )
    assert journal.read_bytes().count(b"\n") == 2 + 24, "one line per trial"


def test_two_processes_share_a_search_and_one_of_them_is_killed(tmp_path):
    from functools import partial

    options = {"direction": "maximize", "seed": 2, "sampler": "random", "pruner": "none"}
    objective = partial(dies_once, marker=str(tmp_path / "died"))
    with workers(processes=2, memory="1GiB") as spread:
        shared = search(objective, SPACE, 14, tmp_path / "shared", spread=spread, **options)
        tpe = search(learn, SPACE, 14, tmp_path / "tpe", direction="minimize", startup=3, spread=spread)
    assert (tmp_path / "died").exists(), "nobody was killed"
    alone = search(objective, SPACE, 14, tmp_path / "alone", **options)
    pd.testing.assert_frame_equal(
        shared.trials, alone.trials
    )  # random and unpruned: the same for any processes
    for trials in (shared.trials, tpe.trials):
        assert trials["number"].tolist() == list(range(14)) and set(trials["state"]) <= {"complete", "pruned"}


def test_pruned_trials_are_never_best_and_say_what_they_used(tmp_path):
    found = search(learn, SPACE, 30, tmp_path, direction="minimize", seed=1, startup=5)
    pruned = found.trials["state"] == "pruned"
    assert (
        3 < pruned.sum() < 27
        and (found.trials["steps"][pruned] < 6).all()
        and (found.trials["steps"][~pruned] == 6).all()
    )
    assert not pruned[found.number] and found.value == found.trials["value"][~pruned].min()
    assert found.trials.notna().all(axis=None) and check_reached(found.trials) == []
    assert found.best["rule"] == "b" and isinstance(found.best["depth"], int)
    more = search(learn, SPACE, 33, tmp_path, direction="minimize", seed=1, startup=5)
    pd.testing.assert_frame_equal(more.trials[:30], found.trials)  # a longer search goes on


@pytest.mark.parametrize("pruner", ["patient", "none"])
def test_the_other_pruners(tmp_path, pruner):
    found = search(learn, SPACE, 9, tmp_path, direction="minimize", pruner=pruner, startup=2)
    assert len(found.trials) == 9 and (pruner == "patient" or (found.trials["state"] == "complete").all())


def test_a_grid_is_walked_once_and_has_an_end(tmp_path):
    space = {"depth": ("int", 1, 3), "rule": ("choice", ["a", "b"])}
    found = search(
        lambda q, report: (q["depth"], q), space, 100, tmp_path / "all", direction="maximize", sampler="grid"
    )
    points = set(zip(found.trials["requested_depth"], found.trials["requested_rule"], strict=True))
    assert (
        len(found.trials) == 6
        and points == {(d, r) for d in (1, 2, 3) for r in "ab"}
        and found.best["depth"] == 3
    )
    with pytest.raises(ValueError, match="no end along rate"):
        search(learn, SPACE, 4, tmp_path / "no", direction="minimize", sampler="grid")


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"x": ("uniform", 0, 1)}, "x: unknown kind 'uniform'"),
        ({"x": ("int", 0.5, 2)}, "two whole numbers"),
        ({"x": ("float", 2, 1)}, "no range"),
        ({"x": ("float", 0, float("inf"))}, "no range"),
        ({"x": ("log", 0, 1)}, "no range"),
        ({"x": ("int", 1)}, "lowest and highest"),
        ({"x": ("choice", "ab")}, "one list"),
        ({"x": ("choice", [])}, "one list"),
        ({}, "empty"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(space, said):
    with pytest.raises(ValueError, match=said):
        distributions(space)


def test_a_failing_objective_keeps_its_type_and_names_the_trial(tmp_path):
    def breaks(parameters, report):
        raise ZeroDivisionError("no patients left")

    with pytest.raises(ZeroDivisionError, match="no patients left") as caught:
        search(breaks, SPACE, 2, tmp_path / "a", direction="minimize")
    assert "trial 0" in " ".join(caught.value.__notes__) and "depth" in " ".join(caught.value.__notes__)
    with pytest.raises(ValueError, match="trial 0 is nan"):
        search(lambda q, report: (float("nan"), q), SPACE, 2, tmp_path / "b", direction="minimize")
    with pytest.raises(ValueError, match="reported step 1 twice"):
        search(
            lambda q, report: (report(1, 1.0), report(1, 1.0), q),
            SPACE,
            2,
            tmp_path / "c",
            direction="minimize",
        )
    assert not list(_journal(tmp_path / "a", _about()).get_trials()), "a failed trial leaves nothing"


def _about():
    return {"space": {k: list(v) for k, v in SPACE.items()}, "direction": "minimize", "seed": 0, "sampler": "tpe", "pruner": "median", "startup": 10, "warmup": 0}  # fmt: skip


def test_a_folder_belongs_to_one_search_and_a_direction_is_never_guessed(tmp_path):
    search(learn, SPACE, 2, tmp_path, direction="minimize")
    for other in ({"seed": 1}, {"direction": "maximize"}, {"pruner": "none"}):
        with pytest.raises(ValueError, match="another search"):
            search(learn, SPACE, 2, tmp_path, **{"direction": "minimize"} | other)
    with pytest.raises(TypeError, match="direction"):
        search(learn, SPACE, 2, tmp_path)
    with pytest.raises(ValueError, match="direction must be one of"):
        search(learn, SPACE, 2, tmp_path, direction="up")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda q: q, ""),
        (lambda q: {"depth": 6, "rate": q["rate"]}, "depth: .* the model used 1, e.g. 6"),
        (lambda q: {"rate": q["rate"]}, "depth: nobody recorded"),
        (lambda q: {"depth": q["depth"] + 1, "rate": q["rate"]}, "depth: the model used"),
        (lambda q: {"depth": min(q["depth"], 8), "rate": q["rate"]}, "depth: .* the model used .*, e.g. 8"),
    ],
    ids=["sound", "the default was used", "not recorded", "shifted", "cut off"],
)
def test_a_setting_that_did_not_reach_the_model_is_found_here_and_by_the_audit(tmp_path, fault, said):
    from medlab.judge.audit_signs import sweep_reached  # not at the top: worker processes import this file
    from medlab.judge.evidence import Evidence

    space = {"depth": ("int", 2, 12), "rate": ("log", 0.01, 0.3)}

    def objective(parameters, report):
        used = fault(parameters)
        return used.get("depth", 6) + used["rate"], used

    trials = search(
        objective, space, 12, tmp_path, direction="minimize", sampler="random", pruner="none"
    ).trials
    problems, finding = check_reached(trials), sweep_reached(Evidence(trials=trials))
    assert (problems == []) == (said == "") == (finding.verdict == "pass")
    if said:
        assert len(problems) == 1
        assert pd.Series(problems).str.contains(said).all(), problems


def test_settings_of_several_types_fit_into_one_table(tmp_path):
    def objective(parameters, report):
        return float(parameters["size"] == "all"), {
            "size": parameters["size"],
            "seen": [1, 2],
            "flag": parameters["size"] == "all",
        }

    space = {"size": ("choice", ["all", 0.5, 3])}
    trials = search(objective, space, 8, tmp_path, direction="maximize", sampler="random", spread=here).trials
    back = pd.read_parquet(write_table(tmp_path / "trials.parquet", trials))
    assert set(back["requested_size"]) <= {"all", "0.5", "3"} and set(back["resolved_seen"]) == {"[1, 2]"}
    assert check_reached(trials) == []
