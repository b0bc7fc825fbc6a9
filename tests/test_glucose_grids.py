"Error grids against slow, independent versions of themselves: if-ladders, polygons, published corners."

import itertools
from fractions import Fraction

import numpy as np
import pytest
from matplotlib.path import Path

from medlab.studies.glucose.grids import GRIDS, MMOL, PARKES, clarke, dts, dts_risk, parkes

WHOLE = np.arange(20.0, 601.0)
REFERENCE, PREDICTION = (values.ravel() for values in np.meshgrid(WHOLE, WHOLE, indexing="ij"))


def clarke_ladder(r, p):
    "Clarke's rules from the gravest to the mildest, one point at a time, in whole numbers."
    if (r <= 70 and p >= 180) or (r >= 180 and p <= 70):
        return "E"
    if (r < 70 and p < 70) or 5 * abs(p - r) <= r:
        return "A"
    if (130 <= r <= 180 and 5 * p < 7 * r - 910) or (r > 70 and p > 180 and p > r + 110):
        return "C"
    if 70 <= p < 180 and not 70 <= r <= 240:
        return "D"
    return "B"


def test_clarke_equals_the_ladder_everywhere():
    slow = [clarke_ladder(int(r), int(p)) for r, p in zip(REFERENCE, PREDICTION, strict=True)]
    assert np.array_equal(clarke(REFERENCE, PREDICTION), slow)


def parkes_exact(r, p, kind):
    "Rank by exact fractions: how many edges lie between the point and the diagonal; on an edge is the milder zone."
    rank = 0
    for side, beyond in (("above", lambda y: p > y), ("below", lambda y: p < y)):
        edges = 0
        for edge in PARKES[kind][side]:
            points = [(Fraction(x), Fraction(y)) for x, y in edge]
            if side == "below" and r <= points[0][0]:
                continue
            pieces = [(a, b) for a, b in itertools.pairwise(points) if b[0] > a[0]]
            (x0, y0), (x1, y1) = next(((a, b) for a, b in pieces if r < b[0]), pieces[-1])
            edges += beyond(y0 + (y1 - y0) * (Fraction(r) - x0) / (x1 - x0))
        rank = max(rank, edges)
    return "ABCDE"[rank]


@pytest.mark.parametrize("kind", [1, 2])
def test_parkes_equals_exact_fractions(kind):
    few = np.arange(20, 601, 7)
    r, p = (values.ravel() for values in np.meshgrid(few, few, indexing="ij"))
    r = np.concatenate(
        [r, [50, 50, 51, 120, 121, 250, 251, 85, 30, 430, 550]]
    )  # on and beside the vertical edges
    p = np.concatenate([p, [20, 29, 29, 20, 20, 30, 39, 110, 50, 550, 450]])
    slow = [parkes_exact(int(a), int(b), kind) for a, b in zip(r, p, strict=True)]
    assert np.array_equal(parkes(r, p, kind), slow)


@pytest.mark.parametrize("kind", [1, 2])
def test_parkes_equals_polygons_everywhere(kind):
    "Containment in the paper's polygons, at points that lie on no edge."
    far = 10.0
    r, p = REFERENCE + 0.31, PREDICTION + 0.17
    rank = np.zeros(len(r), int)
    for side, _corner in (("above", [(0, far * 1000)]), ("below", [(far * 1000, 0)])):
        count = np.zeros(len(r), int)
        for edge in PARKES[kind][side]:
            (x0, y0), (x1, y1) = edge[-2:]
            end = (x1 + far * (x1 - x0), y1 + far * (y1 - y0))
            closing = [(0, end[1])] if side == "above" else [(end[0], 0)]
            count += Path([*edge, end, *closing]).contains_points(np.c_[r, p])
        rank = np.maximum(rank, count)
    assert np.array_equal(parkes(r, p, kind), np.array(list("ABCDE"))[rank])


def test_parkes_has_the_published_corner():
    "A widely used package has (410, 110) in the lower D edge of type 1, which belongs to type 2."
    assert parkes([450.0], [115.0], 1)[0] == "C"
    assert parkes([450.0], [113.0], 1)[0] == "D"
    assert parkes([450.0], [115.0], 2)[0] == "D"


def test_dts_formula_reproduces_table_a1():
    "Klonoff et al. 2024, Table A1: far ends of the edges, and the corners at 50, within 1.2 mg/dL."
    below = {0.5: (62.5, 600, 480), 1.5: (97.5, 600, 307), 2.5: (153, 600, 197), 3.5: (238, 600, 126)}
    above = {0.5: (60, 500, 600), 1.5: (86.5, 347, 600), 2.5: (124, 241, 600), 3.5: (179, 167, 600)}
    for risk, (start, reference, prediction) in below.items():
        assert 50 * np.exp(risk / 2.25) == pytest.approx(start, abs=1.2)
        assert reference * np.exp(-risk / 2.25) == pytest.approx(prediction, abs=1.2)
    for risk, (start, reference, prediction) in above.items():
        assert 50 * np.exp(risk / 2.75) == pytest.approx(start, abs=1.2)
        assert prediction * np.exp(-risk / 2.75) == pytest.approx(reference, abs=1.2)


def test_dts_disagrees_with_table_a1_only_at_its_rounded_edges():
    starts = {"below": (62.5, 97.5, 153, 238), "above": (60, 86.5, 124, 179)}
    ends = {"below": (480, 307, 197, 126), "above": (500, 347, 241, 167)}
    r, p = np.maximum(REFERENCE, 50), np.maximum(PREDICTION, 50)
    rank, near = np.zeros(len(r), int), np.zeros(len(r), bool)
    for start, end in zip(starts["below"], ends["below"], strict=True):
        edge = 50 + (end - 50) * (r - start) / (600 - start)
        rank += p < edge
        near |= np.abs(p - edge) < 1.5
    for start, end in zip(starts["above"], ends["above"], strict=True):
        edge = 50 + (end - 50) * (p - start) / (600 - start)
        rank += r < edge
        near |= np.abs(r - edge) < 1.5
    differ = dts(REFERENCE, PREDICTION) != np.array(list("ABCDE"))[rank]
    assert not (differ & ~near).any()
    assert differ.mean() < 0.01


def test_dts_risk_by_hand():
    assert dts_risk([100.0], [150.0])[0] == pytest.approx(2.75 * np.log(1.5))
    assert dts_risk([150.0], [100.0])[0] == pytest.approx(2.25 * np.log(1.5))
    assert dts_risk([40.0, 100.0], [45.0, 40.0]) == pytest.approx(
        [0.0, 2.25 * np.log(2)]
    )  # both clamped; one clamped


@pytest.mark.parametrize("name", GRIDS)
def test_identities_of_every_grid(name):
    zones = GRIDS[name]
    assert (zones(WHOLE, WHOLE) == "A").all()
    every = zones(REFERENCE, PREDICTION)
    assert set(every) == set("ABCDE")
    assert zones(REFERENCE.reshape(581, 581), PREDICTION.reshape(581, 581)).shape == (581, 581)
    order = np.random.default_rng(0).permutation(len(every))
    assert np.array_equal(zones(REFERENCE[order], PREDICTION[order]), every[order])
    assert (zones([20.0, 100, 100], [600.0, 100, 100])[0]) == "E"  # a severe low read as the highest high


def test_clarke_at_its_boundaries():
    cases = {
        (100, 80): "A", (100, 120): "A", (100, 121): "B", (100, 79): "B", (69, 69): "A", (70, 180): "E", (69, 180): "E",
        (71, 181): "B", (71, 182): "C", (180, 70): "E", (241, 179): "D", (241, 180): "B", (240, 179): "B", (130, 0): "B",
        (140, 13): "C", (140, 14): "B", (58, 70): "D", (59, 70): "A", (69, 83): "D",
    }  # fmt: skip
    r, p = np.array(list(cases), float).T
    assert dict(zip(cases, clarke(r, p), strict=True)) == cases


@pytest.mark.parametrize("name", GRIDS)
def test_wrong_units_are_refused(name):
    mg = np.array([80.0, 120, 190, 65])
    with pytest.raises(ValueError, match="reference .* looks like mmol/L"):
        GRIDS[name](mg / MMOL, mg)
    with pytest.raises(ValueError, match="prediction .* looks like mmol/L"):
        GRIDS[name](mg, mg / MMOL)
    with pytest.raises(ValueError, match="looks scaled"):
        GRIDS[name]((mg - mg.mean()) / mg.std(), mg)
    with pytest.raises(ValueError, match="missing"):
        GRIDS[name](np.append(mg, np.nan), np.append(mg, 1.0))
    with pytest.raises(ValueError, match="shape"):
        GRIDS[name](mg, mg[:2])
    with pytest.raises(ValueError, match="diabetes_type"):
        parkes(mg, mg, 3)


def test_a_day_with_lows_is_not_taken_for_another_unit():
    day = np.array([40.0, 40, 45, 52, 60, 75, 90])
    assert (dts(day, day) == "A").all()
