"""The promise of every test, measured: a small simulation here, and what the committed table of the large one says.

`make size` runs the large one; it takes half an hour."""

import sys

import pandas as pd
import pytest
from conftest import ROOT
from scipy.stats import binom

sys.path.insert(0, str(ROOT / "benchmarks"))
import size

from medlab.core.seeds import stream
from medlab.judge import residuals

STUDIES = 120


@pytest.fixture(scope="module")
def small():
    "120 studies in the hard setting, in this process."
    parts = [size.simulate(kind, size.HARD, 10_000, STUDIES) for kind in ("regression", "binary")]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def committed():
    return pd.read_csv(ROOT / "benchmarks/size.csv")


def too_many(rows, confidence, level=0.05):
    "Tests that reject more often than a test of that level does, with that confidence for the whole table."
    limit = binom.ppf(1 - (1 - confidence) / len(rows), rows["tested"], level)
    over = rows[rows["rejected"] > limit]
    return over.assign(limit=limit[rows["rejected"] > limit])[
        ["kind", *size.WORLD, "test", "rejected", "tested", "limit"]
    ]


def test_no_test_that_counts_patients_cries_wolf(small):
    ours = small[~small["assumes_independence"] & (small["tested"] > 0)]
    assert len(ours) >= 35
    # a nominal 5 % that is 6 % in truth is what t-distributions on few patients cost; 12 % would be a fault
    assert too_many(ours, 0.99, 0.06).empty, too_many(ours, 0.99, 0.06)


def test_tests_that_count_rows_do(small):
    rows = small[small["assumes_independence"] & (small["tested"] > 0)]
    rate = rows["rejected"] / rows["tested"]
    assert (rate > 0.08).all(), rows.assign(rate=rate)[["test", "rate"]]
    assert rate.median() > 0.25


def test_every_test_of_the_battery_is_simulated(small):
    "A new question without a world in which its null hypothesis is true is noticed here."
    made = {
        size.named(row)
        for kind in ("regression", "binary")
        for row in size.rows_of(kind, stream(0, "all"), size.HARD)
    }
    asked = set()
    for kind, make in (("regression", size.regression), ("binary", size.binary)):
        one = make(stream(0, "asked"), size.HARD)
        asked |= {size.named(row) for question in residuals.QUESTIONS[kind] for row in question(one)}
    untested = {name for name in asked if name.startswith("net_benefit")} | size.NOT_TRUE
    assert asked - made == untested
    known = set(small.loc[small["tested"] > 0, "test"])
    without_p = {
        "limits_of_agreement",
        "limits_of_agreement_rows",
        "average_precision",
        "memory_later",
        "distribution_distance",
    }
    assert made - known == without_p


def test_the_committed_table_holds_the_promise(committed):
    assert (committed.groupby(size.WORLD).size() > 50).all()
    assert len(committed.groupby(size.WORLD)) == len(size.SETTINGS)
    ours = committed[~committed["assumes_independence"] & (committed["tested"] > 0)]
    enough = ours[ours["patients"] >= 60]
    assert enough["tested"].max() >= 2000
    assert too_many(enough, 0.99, 0.06).empty, too_many(enough, 0.99, 0.06)
    few = ours[ours["patients"] < 60]
    assert (few["rejected"] / few["tested"]).max() < 0.10
    held = ours[(ours["patients"] >= 60) & (ours["intervals"] > 0)]
    cover = held["covered"] / held["intervals"]
    assert cover.between(0.925, 0.985).all(), held.assign(cover=cover)[["test", "cover", *size.WORLD]]


def test_the_committed_table_is_the_one_that_this_code_makes(committed):
    "The first ten studies again: no more rejections than the table holds, and the same tests."
    again = size.simulate("binary", size.HARD, 0, 10)
    both = again.merge(
        committed, on=["kind", *size.WORLD, "test", "assumes_independence"], suffixes=("", "_all")
    )
    assert len(both) == len(again)
    assert (both["rejected"] <= both["rejected_all"]).all()
    assert (both["covered"] <= both["covered_all"]).all()
    assert (both["tested_all"] - both["tested"] >= both["rejected_all"] - both["rejected"]).all()


def test_power_is_as_published():
    "Student's t on patient means: facts of a simulation of 2,000 studies, against 400 of ours."
    curve = size.power(400).set_index(["patients", "effect"])["power"]
    expected = {
        15: (0.08, 0.18, 0.35, 0.75),
        30: (0.11, 0.33, 0.64, 0.97),
        60: (0.19, 0.61, 0.91, 1.0),
        120: (0.36, 0.88, 1.0, 1.0),
    }
    for patients, values in expected.items():
        for effect, value in zip(size.POWER["effects"], values, strict=True):
            assert curve[patients, effect] == pytest.approx(value, abs=0.085), (patients, effect)
