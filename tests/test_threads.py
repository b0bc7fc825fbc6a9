"What many threads ask of one shared thing at once: the answer that one thread alone gets, and nothing changed by asking."

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from medlab.learn import boosting
from medlab.learn.growing import KINDS

UNITS = """
import sys, threading
from medlab.shape import quantities as q
asked = [("glucose", "mmol/L", "mg/dL", 126.1092), ("cholesterol", "mmol/L", "mg/dL", 270.655),
         ("glucose", "mg/dL", "mmol/L", 0.388552), ("cholesterol", "mg/dL", "mmol/L", 0.181042)]
sys.setswitchinterval(1e-6)
wrong = []
for turn in range(60):  # as after a start, with and without a registry
    for cached in (q._line, q._parsed, *([q._registry] if turn % 2 else [])):
        cached.cache_clear()
    gate = threading.Barrier(8)
    def ask(number):
        substance, source, goal, expected = asked[number % 4]
        gate.wait()
        try:
            found = float(q.convert([7.0], source, goal, substance)[0])
            if abs(found - expected) > 1e-4:
                wrong.append(f"{substance} {source}: {found}")
        except Exception as error:
            wrong.append(repr(error))
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
print(*wrong[:5], sep="\\n")
sys.exit(len(wrong) > 0)
"""


def test_units_that_many_threads_ask_for_first_get_their_own_molar_mass():
    "pint's registry holds the mass while it converts: a cholesterol was once converted as a glucose."
    ran = subprocess.run([sys.executable, "-c", UNITS], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]


MEMBERS = """
import sys, threading
import numpy as np
sys.path[:0] = ["tests"]
from test_learn_boosting import cohort
from medlab.learn import boosting
kind, folder = sys.argv[1:]
x, _ = cohort()
parts = [x.iloc[first : first + 40] for first in range(0, 640, 40)]
alone = boosting.load(kind, folder)
work = [f for f in (boosting.log_odds, boosting.predict, boosting.contributions)]
expected = [[f(alone, part) for part in parts] for f in work]
shared, gate, wrong = boosting.load(kind, folder), threading.Barrier(16), []
def ask(number):
    gate.wait()  # all at once, the first question included
    for turn in range(24):
        i, f = (number + turn) % 16, (number + turn) % 3
        try:
            if not np.array_equal(work[f](shared, parts[i], 1 + number % 2), expected[f][i]):
                wrong.append(f"{work[f].__name__}: another number")
        except Exception as error:
            wrong.append(f"{work[f].__name__}: {error!r}"[:300])
threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
[t.start() for t in threads], [t.join() for t in threads]
print(len(wrong), *wrong[:5], sep="\\n")
sys.exit(len(wrong) > 0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from test_learn_boosting import cohort

    folder = tmp_path_factory.mktemp("members")
    x, y = cohort()
    for kind in KINDS:
        boosting.save(boosting.fit(kind, {} if kind == "logistic" else {"rounds": 25}, x, y), folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_threads_get_from_one_model_what_one_thread_gets(kind, folder):
    "In a process of its own: a model that its readers change may take the process with it."
    words = [sys.executable, "-c", MEMBERS, kind, str(folder)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, f"ended with {ran.returncode}\n{ran.stdout}{ran.stderr[-3000:]}"


@pytest.mark.parametrize("made", ["fitted", "loaded"])
def test_asking_changes_nothing_in_a_model_of_xgboost(made, folder):
    from test_learn_boosting import cohort

    x, y = cohort()
    model = (
        boosting.fit("xgboost", {"rounds": 5}, x, y, threads=2)
        if made == "fitted"
        else boosting.load("xgboost", folder)
    )
    before = model.native.save_config()
    assert '"nthread":"1"' in before
    p = boosting.predict(model, x)
    assert np.array_equal(boosting.predict(model, x, threads=2), p)
    boosting.contributions(model, x, threads=3)
    assert model.native.save_config() == before
