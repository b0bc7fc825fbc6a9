"Tasks in worker processes: order, exceptions, deaths, a window instead of a flood, and a scheduler of somebody else's."

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import loaded

from medlab.core import spread as module
from medlab.core.files import digest, write_json
from medlab.core.spread import here, workers


class OutOfRange(ValueError):
    "A type that a caller may want to catch."


def task(number: int, folder: Path, slow: float = 0.0, deadly: tuple = (), fatal: tuple = ()) -> int:
    "Writes a file. A deadly item kills its worker once, a fatal one each time."
    trace = folder / f"killed-{number}"
    if number in fatal or (number in deadly and not trace.exists()):
        trace.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number < 0:
        raise OutOfRange(f"{number} is below zero")
    time.sleep(slow)
    write_json(folder / "out" / f"{number}.json", {"number": number, "half": number / 2})
    return number * 10


@pytest.fixture(scope="module")
def two():
    with workers(processes=2, memory="1GiB") as spread:
        yield spread


def test_results_come_in_the_order_of_items_and_files_are_the_same(two, tmp_path):
    "The first task is the slowest, and one worker dies on the way."
    there, here_ = tmp_path / "there", tmp_path / "here"
    for folder in (there, here_):
        folder.mkdir()
    assert here(partial(task, folder=here_), range(9)) == [10 * n for n in range(9)]
    assert two(partial(task, folder=there, deadly=(4,)), range(9), "tasks") == [10 * n for n in range(9)]
    assert (there / "killed-4").exists() and digest(there / "out") == digest(here_ / "out")


def process_of(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_a_worker_killed_from_outside_costs_only_its_own_task(two, tmp_path):
    victim = two(process_of, [0])[0]
    assert victim != os.getpid()
    killer = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(0.3); os.kill({victim}, 9)"]
    )
    assert two(partial(task, folder=tmp_path, slow=0.1), range(8)) == [10 * n for n in range(8)]
    assert killer.wait() == 0
    assert victim not in set(two(process_of, range(4)))


def test_exceptions_keep_type_and_text_and_name_their_item(two, tmp_path):
    for spread in (here, two):
        with pytest.raises(OutOfRange, match="^-7 is below zero") as caught:
            spread(partial(task, folder=tmp_path), [1, -7, 2], "halving")
        assert str(caught.value) == "-7 is below zero"
        assert caught.value.__notes__ == ["halving: item 2 of 3, -7"]
    assert two(partial(task, folder=tmp_path), [3]) == [30]  # and the workers still work
    assert two(task, []) == here(task, []) == []


def test_a_task_that_kills_its_worker_again_and_again_is_named(two, tmp_path):
    with pytest.raises(RuntimeError, match=r"^writing: item 2 of 4, 13: its worker process died .*memory"):
        two(partial(task, folder=tmp_path, fatal=(13,)), [1, 13, 2, 3], "writing")


class Counting:
    "A client that counts how many tasks are under way at the most."

    def __init__(self, client):
        self.client, self.most, self.given = client, 0, 0

    def __getattr__(self, name):
        return getattr(self.client, name)

    def submit(self, *arguments, **options):
        self.given += 1
        future = self.client.submit(*arguments, **options)
        self.most = max(self.most, len(self.client.futures))
        return future


def ten_times(number: int) -> int:
    return 10 * number


def test_a_scheduler_of_somebody_elses_is_never_flooded_and_left_running():
    from distributed import Client, LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        address = cluster.scheduler_address
        for _ in range(2):  # the block ends its own connection, not the scheduler
            with workers(address) as spread:
                assert spread(ten_times, range(5)) == [0, 10, 20, 30, 40]
        with Client(address, set_as_default=False) as client:
            counting = Counting(client)
            assert module._spread(counting, "here")(ten_times, range(200)) == [10 * n for n in range(200)]
            assert (
                counting.given == 200 and counting.most <= 4
            )  # three threads, and the one that has just ended


def test_contradictions_and_absent_schedulers_are_refused_in_words(monkeypatch):
    for wrong in ({"processes": -1}, {"processes": 2, "scheduler": "tcp://127.0.0.1:1"}):
        with pytest.raises(ValueError, match="or neither"), workers(**wrong):
            pass
    with workers() as spread:
        assert spread is here
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    with pytest.raises(ConnectionError, match="dask scheduler"), workers("tcp://127.0.0.1:1"):
        pass


def test_dask_is_loaded_only_when_it_is_needed():
    assert loaded(["medlab.core.spread"], ("dask", "distributed")) == []
