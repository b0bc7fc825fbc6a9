"""Agreement, allowed error, censoring and badly predicted patients: published values, size, invariances, small inputs."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import agreement, patients
from medlab.judge.bootstrap import bootstrap_rows
from medlab.judge.dependence import clustered, dependence
from medlab.judge.medians import median_interval
from medlab.judge.metrics import within_tolerance
from medlab.judge.verdicts import COLUMNS, Cell

GLUCOSE = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "a source", 15, 0.15, "another source")
STUDY = Study(
    "example", "Example", "Where is glucose going?", "regression", (GLUCOSE,), (60.0,), "min", "UTC timestamp",
    "model", "persistence", (), "To test.", "Anything else.",
)  # fmt: skip
N = 200  # simulated studies per size test
QUESTIONS = (agreement.agreement, agreement.allowed_error, agreement.censoring, patients.patients)


def cell_of(y, residual, target=GLUCOSE, calibration=None, same=False, by=None):
    "A cell from (n_subjects, n_rows) arrays."
    (g, m), known = residual.shape, None
    y, r = np.broadcast_to(y, residual.shape).ravel().astype(float), residual.ravel().astype(float)
    if calibration is not None:
        ids = [f"{'P' if same else 'C'}{i:04d}" for i in range(len(calibration))]
        known = calibration.ravel(), np.repeat(ids, calibration.shape[1])
    return Cell(
        replace(STUDY, targets=(target,)), target, 60.0, "all", np.array([f"P{i:04d}" for i in range(g)]),
        np.repeat(np.arange(g), m), None, y, y + r, np.full(g * m, np.nan), np.full(g * m, np.nan), None, 0.9,
        n_resamples=199, by=by or {}, calibration=known,
    )  # fmt: skip


def assert_size(p, one_sided_discrete=False):
    "As many false alarms as a test at 5 % makes; fewer where p jumps in steps."
    low, high = stats.binom.interval(0.999, N, 0.05)
    alarms = int((np.asarray(p) < 0.05).sum())
    assert (0 if one_sided_discrete else low) <= alarms <= high, f"{alarms} false alarms of {N}"


@pytest.fixture(scope="module")
def worlds():
    rng = stream(0, "agreement worlds")
    return [clustered(rng, 60, 20, 0.3, 0.7, (N,)) for _ in range(3)]


# --------------------------------------------------------------------- published values, retyped from the papers

# Bland and Altman 1986, Lancet i:307, table I: first reading by Wright meter and by mini meter (l/min)
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# Bland and Altman 1999, Stat Methods Med Res 8:135, table 1: observer J three times, machine S three times (mmHg)
PRESSURE = """
100 106 107 122 128 124, 108 110 108 121 127 128, 76 84 82 95 94 98, 108 104 104 127 127 135,
124 112 112 140 131 124, 122 140 124 139 142 136, 116 108 102 122 112 112, 114 110 112 130 129 135,
100 108 112 119 122 122, 108 92 100 126 113 111, 100 106 104 107 113 111, 108 112 122 123 125 125,
112 112 110 131 129 122, 104 108 104 123 126 114, 106 108 102 127 119 126, 122 122 114 142 133 137,
100 102 102 104 116 115, 118 118 120 117 113 112, 140 134 138 139 127 113, 150 148 144 143 155 133,
166 154 154 181 170 166, 148 156 134 149 156 140, 174 172 166 173 170 154, 174 166 150 160 155 170,
140 144 144 158 152 154, 128 134 130 139 144 141, 146 138 140 153 150 154, 146 152 148 138 144 131,
220 218 220 228 228 226, 208 200 192 190 183 184, 94 84 86 103 99 106, 114 124 116 131 131 124,
126 120 122 131 123 124, 124 124 132 126 129 125, 110 120 128 121 114 125, 90 90 94 97 94 96,
106 106 110 116 121 127, 218 202 208 215 201 207, 130 128 130 141 133 146, 136 136 130 153 143 138,
100 96 88 113 107 102, 100 98 88 109 105 97, 124 116 122 145 102 137, 164 168 154 192 178 171,
100 102 100 112 116 116, 136 126 122 152 144 147, 114 108 122 141 141 137, 148 120 132 206 188 166,
160 150 148 151 147 136, 84 92 98 112 125 124, 156 162 152 162 165 189, 110 98 98 117 118 109,
100 106 106 119 131 124, 100 102 94 136 116 113, 86 74 76 112 115 104, 106 100 110 120 118 132,
108 110 106 117 118 115, 168 188 178 194 191 196, 166 150 154 167 160 161, 146 142 132 173 161 154,
204 198 188 228 218 189, 96 94 86 77 89 101, 134 126 124 154 156 141, 138 144 140 154 155 148,
134 136 142 145 154 166, 156 160 154 200 180 179, 124 138 138 188 147 139, 114 110 114 149 217 192,
112 116 122 136 132 133, 112 116 134 128 125 142, 202 220 228 204 222 224, 132 136 134 184 187 192,
158 162 152 163 160 152, 88 76 88 93 88 88, 170 174 176 178 181 181, 182 176 180 202 199 195,
112 114 124 162 166 148, 120 118 120 227 227 219, 110 108 106 133 127 126, 112 112 106 202 190 213,
154 134 130 158 121 134, 116 112 94 124 149 137, 108 110 114 114 118 126, 106 98 100 137 135 134,
122 112 112 121 123 128
"""

# Bland and Altman 1999, table 4, and 2007, table 1: patient, cardiac output by RV and by IC (l/min)
CARDIAC = """
1 7.83 6.57, 1 7.42 5.62, 1 7.89 6.90, 1 7.12 6.57, 1 7.88 6.35, 2 6.16 4.06, 2 7.26 4.29, 2 6.71 4.26, 2 6.54 4.09,
3 4.75 4.71, 3 5.24 5.50, 3 4.86 5.08, 3 4.78 5.02, 3 6.05 6.01, 3 5.42 5.67, 4 4.21 4.14, 4 3.61 4.20, 4 3.72 4.61,
4 3.87 4.68, 4 3.92 5.04, 5 3.13 3.03, 5 2.98 2.86, 5 2.85 2.77, 5 3.17 2.46, 5 3.09 2.32, 5 3.12 2.43, 6 5.92 5.90,
6 6.42 5.81, 6 5.92 5.70, 6 6.27 5.76, 7 7.13 5.09, 7 6.62 4.63, 7 6.58 4.61, 7 6.93 5.09, 8 4.54 4.72, 8 4.81 4.61,
8 5.11 4.36, 8 5.29 4.20, 8 5.39 4.36, 8 5.57 4.20, 9 4.48 3.17, 9 4.92 3.12, 9 3.97 2.96, 10 4.22 4.35, 10 4.65 4.62,
10 4.74 3.16, 10 4.44 3.53, 10 4.50 3.53, 11 6.78 7.20, 11 6.07 6.09, 11 6.52 7.00, 11 6.42 7.10, 11 6.41 7.40,
11 5.76 6.80, 12 5.06 4.50, 12 4.72 4.20, 12 4.90 3.80, 12 4.80 3.80, 12 4.90 4.20, 12 5.10 4.50
"""


def table_of(text, n_columns):
    return np.array(text.replace(",", " ").split(), float).reshape(-1, n_columns)


def test_peak_flow_of_the_lancet_1986():
    found = agreement.limits_of_agreement(np.subtract(WRIGHT, MINI), range(17), method="rows")
    assert (found.bias, found.sd) == pytest.approx((-2.1176, 38.765), abs=5e-4)
    assert found.bias - 2 * found.sd == pytest.approx(-79.65, abs=5e-3)  # they used 2, not 1.96
    assert found.bias + 2 * found.sd == pytest.approx(75.41, abs=5e-3)


def test_blood_pressure_of_1999_first_readings():
    first = table_of(PRESSURE, 6)
    found = agreement.limits_of_agreement(first[:, 0] - first[:, 3], range(85), method="rows")
    assert (found.bias, found.sd) == pytest.approx((-16.29412, 19.61099), abs=5e-6)
    assert found.lower == pytest.approx((-54.73166, -61.989, -47.474), abs=1e-3)  # 1.96 against 1.959964
    assert found.upper[0] == pytest.approx(22.14343, abs=1e-3)


def test_blood_pressure_of_1999_three_readings_each():
    values, patient = table_of(PRESSURE, 6), np.repeat(np.arange(85), 3)
    j, s = values[:, :3].ravel(), values[:, 3:].ravel()
    assert dependence(j, patient).within == pytest.approx(37.40784, abs=5e-6)
    assert dependence(s, patient).within == pytest.approx(83.14118, abs=5e-6)
    found = agreement.limits_of_replicates(j, patient, s, patient)
    assert (found.bias, found.sd) == pytest.approx((-15.61961, 20.94895), abs=5e-6)
    assert (found.lower[0], found.upper[0]) == pytest.approx((-56.6795, 25.4403), abs=1e-3)


def test_cardiac_output_of_1999_constant_truth():
    patient, rv, ic = table_of(CARDIAC, 3).T
    found = agreement.limits_of_replicates(rv, patient, ic, patient)
    assert (found.bias, found.sd) == pytest.approx((0.7092361, 1.0518506), abs=5e-7)
    assert (found.lower[0], found.upper[0]) == pytest.approx((-1.3524, 2.7709), abs=1e-4)


def test_cardiac_output_of_2007_changing_truth():
    patient, rv, ic = table_of(CARDIAC, 3).T
    one_way = dependence(rv - ic, patient)
    assert (one_way.between, one_way.within) == pytest.approx((4.2090856, 0.170714026), abs=5e-7)
    found = agreement.limits_of_agreement(rv - ic, patient, method="one-way")
    assert (found.bias, found.sd) == pytest.approx((0.6021667, 0.99062408), abs=5e-8)
    assert (found.lower[0], found.upper[0]) == pytest.approx((-1.3394565, 2.5437899), abs=1e-4)
    naive = agreement.limits_of_agreement(rv - ic, patient, method="rows")
    assert naive.sd == pytest.approx(0.9610571, abs=5e-8)


def test_intervals_of_zou_2013():
    "The first four patients of the cardiac data; in his replicate example two readings of IC are missing."
    patient, rv, ic = (column[:20] for column in table_of(CARDIAC, 3).T)
    nested = agreement.limits_of_agreement(rv - ic, patient, method="zou")
    assert (nested.bias, nested.lower[0], nested.upper[0]) == pytest.approx((0.7255, -2.14, 3.59), abs=5e-3)
    assert (*nested.lower[1:], *nested.upper[1:]) == pytest.approx((-9.83, -0.33, 1.77, 11.27), abs=0.011)
    seen = np.delete(np.arange(20), [4, 8])
    replicated = agreement.limits_of_replicates(rv, patient, ic[seen], patient[seen])
    assert (replicated.lower[0], replicated.upper[0]) == pytest.approx((-2.23, 3.66), abs=5e-3)
    assert (*replicated.lower[1:], *replicated.upper[1:]) == pytest.approx(
        (-9.76, -0.48, 1.91, 11.20), abs=0.01
    )


def test_limits_against_pingouin():
    pingouin = pytest.importorskip("pingouin")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    data = pingouin.read_dataset("blandaltman")
    axes = pingouin.plot_blandaltman(data["A"], data["B"])
    drawn = [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1]
    plt.close("all")
    found = agreement.limits_of_agreement(data["A"] - data["B"], range(len(data)), method="rows")
    assert (found.bias, found.sd) == pytest.approx((-27.16667, 34.80595), abs=5e-6)
    for value in (found.bias, found.lower[0], found.upper[0]):
        assert np.abs(np.array(drawn) - value).min() < 2e-3  # pingouin multiplies by 1.96
    assert pytest.approx(found.lower[0], abs=2e-3) == -95.38632


@pytest.mark.filterwarnings("ignore")
def test_intraclass_correlation_against_pingouin():
    pingouin = pytest.importorskip("pingouin")
    data = pingouin.read_dataset("icc")
    found = dependence(data["Scores"], data["Wine"])
    theirs = pingouin.intraclass_corr(data, "Wine", "Judge", "Scores").iloc[0]
    assert found.icc == pytest.approx(theirs["ICC"], abs=1e-9)
    assert (found.icc, found.between / found.within) == pytest.approx((0.7275, 11.68), abs=5e-5)


# ------------------------------------------------------------------------------------------- size and coverage


def test_intervals_of_the_limits_hold_and_those_of_rows_do_not(worlds):
    "Also where patients differ in how predictable they are: each has a standard deviation of their own."
    rng, true = stream(0, "unequal"), stats.norm.ppf(0.975)
    unequal = worlds[0] * np.exp(rng.normal(-0.25, 0.5, (N, 60, 1)))
    for studies, least in ((worlds[0], 0.90), (unequal, 0.86)):
        held = dict.fromkeys(("patients", "rows"), 0)
        for one in studies:
            for method in held:
                found = agreement.limits_of_agreement(
                    one.ravel(), np.repeat(np.arange(60), 20), method=method
                )
                held[method] += found.upper[1] <= true <= found.upper[2]
        assert held["patients"] / N > least
        assert held["rows"] / N < 0.75


def test_variance_is_unbiased_whatever_the_memory():
    for rho in (0.0, 0.95):
        worlds = clustered(stream(0, "memory", rho), 12, 8, 0.3, rho, (2000,))
        variance = [
            agreement.limits_of_agreement(one.ravel(), np.repeat(np.arange(12), 8)).sd ** 2 for one in worlds
        ]
        assert np.mean(variance) == pytest.approx(1, abs=5 * np.std(variance) / np.sqrt(2000))


def test_size_of_proportional_bias(worlds):
    "Truth and prediction vary equally much around a common level: no slope on their mean."
    level, a, b = worlds
    rows = [
        agreement.agreement(cell_of(150 + 30 * t + 9 * e, 9 * (f - e)))[2:]
        for t, e, f in zip(level, a, b, strict=True)
    ]
    assert_size([one[0]["p"] for one in rows])
    assert np.mean([one[1]["p"] < 0.05 for one in rows]) > 0.2


@pytest.mark.parametrize("n_rows", [1, 2, 4, 20])
def test_size_of_the_allowed_error(n_rows):
    "The limit is the true median: also with an even, small number of rows, where a patient's median is biased."
    rng, true = stream(0, "allowed", n_rows), 100 * 15 * stats.norm.ppf(0.75) / 150
    errors = 15 * clustered(rng, 60, n_rows, 0.3, 0.7, (N,))
    target = replace(GLUCOSE, allowed_relative=true / 100)
    rows = [agreement.allowed_error(cell_of(150.0, one, target)) for one in errors]
    tests = ["allowed_error", "allowed_error_two_percent", "allowed_error_rows"]
    assert [one["test"] for one in rows[0]] == tests
    assert_size([one[0]["p"] for one in rows], one_sided_discrete=True)
    assert "one-sided" in rows[0][0]["method"]
    if n_rows == 20:
        assert np.mean([one[2]["p"] < 0.05 for one in rows]) > 0.15


def test_patients_medians_would_have_cried_wolf():
    "The control for the test before: the sign test on patients' medians, two rows each."
    errors = np.abs(clustered(stream(0, "control"), 300, 2, 0.0, 0.0, (N,)))
    off = (np.median(errors, axis=2) > stats.norm.ppf(0.75)).sum(axis=1)
    assert np.mean([stats.binomtest(int(k), 300, 0.5, "greater").pvalue < 0.05 for k in off]) > 0.4


def test_allowed_error_p_and_effect_ask_the_same():
    "Patients' mean share beyond the limit is above one half exactly where their common median is."
    rng, sides = stream(0, "same question"), []
    for scale in np.linspace(0.6, 1.6, 30):
        one = agreement.allowed_error(cell_of(150.0, scale * rng.normal(0, 4.5, (40, 3))))[0]
        sides.append((one["effect"] > one["tolerance"], one["p"] < 0.5))
    assert all(a == b for a, b in sides)
    assert {a for a, _ in sides} == {True, False}
    far = agreement.allowed_error(cell_of(150.0, np.full((40, 3), 30.0)))[0]
    assert 0 < far["p"] < 1e-6
    assert far["sentence"].startswith("In the average patient, half of the predictions")


def test_median_interval_holds_at_60_patients():
    worlds, true = np.abs(clustered(stream(0, "median"), 60, 20, sets=(400,))), stats.norm.ppf(0.75)
    who = np.repeat(np.arange(60), 20)
    found = [median_interval(one.ravel(), who, stream(i, "d"), 400) for i, one in enumerate(worlds)]
    assert 0.91 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.98


def test_size_of_censoring(worlds):
    top = 150 + 30 * stats.norm.ppf(0.9)
    target = replace(GLUCOSE, lower=-np.inf, upper=top)
    rows = [agreement.censoring(cell_of(150 + 30 * one, np.zeros((60, 20)), target)) for one in worlds[0]]
    assert_size([one[0]["p"] for one in rows])
    assert np.mean([one[2]["p"] < 0.05 for one in rows]) > 0.2
    harmless = replace(target, upper=150 + 30 * stats.norm.ppf(0.999))
    calm = agreement.censoring(cell_of(150 + 30 * worlds[0][0], np.zeros((60, 20)), harmless))
    assert min(one["p"] for one in calm) > 0.9, "few stuck values are no alarm"
    assert all("one-sided" in one["method"] for one in calm)


def test_size_of_bad_patients_and_t_tests_on_rows_as_control(worlds):
    rows = [
        patients.patients(cell_of(150.0, 15 * r, calibration=15 * c))[0]
        for r, c in zip(*worlds[:2], strict=True)
    ]
    assert_size([one["p"] for one in rows], one_sided_discrete=True)
    assert np.mean([one["verdict"] == "concern" for one in rows]) <= 0.05
    naive = [stats.ttest_1samp(np.abs(r), np.abs(r).mean(), axis=1).pvalue for r in worlds[0]]
    assert np.mean([stats.false_discovery_control(p).min() < 0.05 for p in naive]) > 0.9


@pytest.mark.parametrize("lengths", [(200, 10), (200, 2), (10, 200), (3, 2)], ids=str)
@pytest.mark.parametrize("icc", [0.0, 0.3])
def test_records_of_unequal_length_are_no_alarm(lengths, icc):
    "Calibration patients with 20 or 100 times the rows, or fewer; the naive comparison of all rows as control."
    alarms, naive, rng = [], [], stream(0, "lengths", *lengths)
    for _ in range(N):
        before, after = (10 * clustered(rng, 60, m, icc, 0.5 * (icc > 0)) for m in lengths)
        one = patients.patients(cell_of(150.0, after, calibration=before))[0]
        alarms.append(one["p"])
        line = np.sort(np.abs(before).mean(axis=1))[-3]
        naive.append(stats.betabinom.sf((np.abs(after).mean(axis=1) >= line).sum() - 1, 60, 3, 58))
    assert_size(alarms, one_sided_discrete=True)
    if lengths == (200, 10):
        assert np.mean(np.array(naive) < 0.05) > 0.2
        assert (
            "over equally long records (5 % of the rows of each calibration patient on average)"
            in one["sentence"]
        )


def test_records_are_cut_to_one_distribution_of_lengths():
    rng = stream(0, "cut")
    a, b = rng.integers(1, 400, 50), rng.choice([2, 100], 50)
    first, second = patients.equal_lengths(a, b, rng)
    assert (first <= a).all()
    assert (second <= b).all()
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    for x, y in zip(patients.equal_lengths(a, a[::-1], rng), (a, a[::-1]), strict=True):
        np.testing.assert_array_equal(x, y)  # nothing to cut
    before = np.tile(
        np.r_[np.ones(3), np.full(7, 50.0)], (19, 1)
    )  # only the first three rows of ten are compared
    table = patients.rank(cell_of(150.0, np.full((4, 3), 2.0), calibration=before))
    assert (table["p"] == 1 / 20).all()
    assert (table["score"] == 2).all()


def test_conformal_p_is_uniform_and_names_few_wrongly():
    wrong, found, p = [], [], []
    for world in range(100):
        rng = stream(world, "named")
        errors = clustered(rng, 40, 20, 0.1, 0.7)
        errors[:5] *= 3
        table = patients.rank(cell_of(150.0, errors, calibration=clustered(rng, 300, 20, 0.1, 0.7)))
        bad = table["subject"] < "P0005"
        named = table["p_adjusted"] <= 0.05
        wrong.append((named & ~bad).sum() / max(named.sum(), 1))
        found.append((named & bad).sum() / 5)
        p += table.loc[~bad, "p"].tolist()
    assert np.mean(wrong) < 0.08
    assert np.mean(found) > 0.7
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.03)


def test_the_same_people_at_an_earlier_time_are_compared_with_others():
    offset = clustered(stream(0, "offset"), 200, 1, 1.0, 0.0, (N,))
    p = []
    for world, own in enumerate(offset):
        rng = stream(world, "later")
        later, earlier = (np.exp(0.3 * own) * clustered(rng, 200, 10, 0.0, 0.5) for _ in range(2))
        table = patients.rank(cell_of(150.0, later, calibration=earlier, same=True))
        p.append((table["p"] <= 0.05).mean())
        assert table["p"].min() >= 1 / 200  # the own earlier part is not in the reference group
    assert np.mean(p) == pytest.approx(0.05, abs=0.01)
    one = patients.patients(cell_of(150.0, later, calibration=earlier, same=True))[0]
    assert "200 of them the same people at another time" in one["sentence"]


# ----------------------------------------------------------------------------------------------- closed forms


def test_equal_rows_make_the_three_variances_one():
    d, who = clustered(stream(0, "equal"), 15, 6).ravel(), np.repeat(np.arange(15), 6)
    found = [agreement.limits_of_agreement(d, who, method=m) for m in ("patients", "one-way", "zou")]
    assert [one.sd for one in found] == pytest.approx([found[0].sd] * 3, rel=1e-12)
    alone = agreement.limits_of_agreement(d[::6], range(15))
    assert (alone.bias, alone.sd) == pytest.approx((d[::6].mean(), d[::6].std(ddof=1)))


def test_the_farther_limit_decides():
    cell = cell_of(150.0, 5 * clustered(stream(0, "far"), 40, 20) - 8)
    one = agreement.agreement(cell)[0]
    found = agreement.limits_of_agreement(cell.residual, cell.subject)
    assert one["effect"] == -found.lower[0] > found.upper[0]
    assert (one["effect_low"], one["effect_high"]) == (-found.lower[2], -found.lower[1])
    only_share = replace(GLUCOSE, tolerance_absolute=0.0, tolerance_relative=0.2)
    assert agreement.agreement(replace(cell, target=only_share))[0]["tolerance"] == pytest.approx(30)
    assert f"{-found.lower[0]:.1f} mg/dL below the truth" in one["sentence"]
    above = agreement.agreement(replace(cell, yhat=cell.yhat + 20))[0]["sentence"]
    assert "mg/dL above the truth" in above
    nothing = replace(GLUCOSE, tolerance_absolute=0.0, tolerance_relative=0.0)
    assert "allows no error" in agreement.agreement(replace(cell, target=nothing))[0]["sentence"]


def test_the_limit_of_a_prediction_is_the_larger_of_two():
    "At 260 mg/dL 15 % are 39 mg/dL: the limits may not alarm where 99 % of predictions are usable; at 60 the 15 count."
    errors = 12 * clustered(stream(0, "larger"), 40, 30)
    cell = cell_of(260.0, errors)
    assert within_tolerance(cell.y, cell.yhat, GLUCOSE).mean() > 0.99
    one = agreement.agreement(cell)[0]
    assert (one["tolerance"], one["verdict"]) == (pytest.approx(39), "ok")
    assert "the 39.0 mg/dL allowed for one prediction at the usual level of 260.0 mg/dL" in one["sentence"]
    low = agreement.agreement(cell_of(60.0, errors))[0]
    assert (low["tolerance"], low["verdict"]) == (15, "concern")
    assert "usual level" not in low["sentence"]


def test_the_smallest_effect_that_would_be_noticed_is_stated():
    "Limits that lie that far beyond the allowed error are a concern in four of five studies; none is stated as zero."
    worlds = 10 * clustered(stream(0, "detectable"), 40, 20, 0.3, 0.7, (N,))
    stated = [agreement.agreement(cell_of(150.0, one))[0]["minimum_detectable_effect"] for one in worlds]
    for part, least, most in ((1, 0.8, 1), (3, 0, 0.6)):
        allowed = 10 * stats.norm.ppf(0.975) - np.mean(stated) / part
        target = replace(GLUCOSE, tolerance_absolute=allowed, tolerance_relative=0.0)
        verdicts = [agreement.agreement(cell_of(150.0, one, target))[0]["verdict"] for one in worlds]
        assert least <= verdicts.count("concern") / N <= most
    silent = agreement.censoring(cell_of(150.0, np.ones((40, 5))))
    assert all(one["minimum_detectable_effect"] > 1 for one in silent if not one["assumes_independence"])


def test_slope_of_a_forecast_that_tones_down():
    truth = 150 + 30 * clustered(stream(0, "toned"), 60, 20)
    one = agreement.agreement(cell_of(truth, -0.5 * (truth - 150)))[2]
    assert one["verdict"] in {"concern", "not assessable"}
    noisy = agreement.agreement(cell_of(truth, -0.5 * (truth - 150) + clustered(stream(0, "n"), 60, 20)))[2]
    assert noisy["effect"] == pytest.approx(-100 * 0.5 / 0.75, abs=2)
    assert noisy["verdict"] == "concern"
    assert "less (95 % interval" in noisy["sentence"]


def test_median_bootstrap_is_the_plain_one():
    values, who = np.abs(clustered(stream(0, "plain"), 20, 31)).ravel(), np.repeat(np.arange(20), 31)
    fast = median_interval(values, who, stream(0, "draw"), 500, n_thresholds=10_000)
    plain = bootstrap_rows(np.median, who, values, rng=stream(0, "draw"), n_resamples=500)
    assert fast.value == plain.value
    assert (fast.low, fast.high, fast.se) == pytest.approx((plain.low, plain.high, plain.se), rel=1e-9)
    coarse = median_interval(values, who, stream(0, "draw"), 500, n_thresholds=200)
    assert (coarse.low, coarse.high) == pytest.approx((plain.low, plain.high), abs=0.15 * plain.se)


def test_median_counts_each_patient_alike():
    values, who = np.array([1.0] * 90 + [5.0, 6.0, 7.0]), np.array([0] * 90 + [1, 2, 3])
    assert median_interval(values, who, stream(0, "x")).value == 5.5


def test_truths_of_zero_are_left_out_and_counted():
    y = np.tile([0.0, 1.0, 2.0, 4.0], (20, 1))
    target = replace(GLUCOSE, lower=0, upper=10)
    one = agreement.allowed_error(cell_of(y, np.tile([9.0, 0.1, 0.2, 0.4], (20, 1)), target))[0]
    assert one["effect"] == pytest.approx(10)
    assert "20 predictions of a truth of zero have no percentage" in one["sentence"]
    none = agreement.allowed_error(cell_of(0.0, np.ones((20, 3)), target))
    assert len(none) == 1
    assert none[0]["verdict"] == "not assessable"
    assert "only 0 patients with a truth that is not zero" in none[0]["sentence"]


def test_censored_values_are_found_at_bounds_and_by_the_studys_mark():
    y = np.full((40, 10), 150.0)
    y[:, 0], y[:8, 1] = 400, 40 * (1 + 1e-12)
    errors = np.zeros((40, 10))
    errors[:, 1:] = 10.0
    one = agreement.censoring(cell_of(y, errors))[0]
    assert one["effect"] == pytest.approx(12)
    assert "at a limit of measurement (40 mg/dL or 400 mg/dL)" in one["sentence"]
    assert "without them the mean absolute error is 10.0 and not 9.0 mg/dL" in one["sentence"]
    for yes, no in (("True", "False"), ("1", "0"), ("1.0", "0.0"), ("true", "missing")):
        marked = {"by_censored": np.where(np.arange(400) % 10 == 5, yes, no)}
        assert agreement.censoring(cell_of(y, errors, by=marked))[0]["effect"] == pytest.approx(22)
    level = agreement.censoring(cell_of(y, np.full((40, 10), 6.3)))[0]["sentence"]
    assert "without them the mean absolute error does not change from 6.3 mg/dL" in level
    open_ended = replace(GLUCOSE, lower=-np.inf, upper=np.inf)
    assert agreement.censoring(cell_of(y, errors, open_ended)) == []
    only_marks = agreement.censoring(cell_of(y, errors, open_ended, by=marked))
    assert [one["test"] for one in only_marks] == ["censoring", "censoring_rows"]
    assert only_marks[0]["effect"] == pytest.approx(10)


def test_errors_without_stuck_values_count_patients_alike():
    "One patient with 90 rows off by 1, nine with 10 rows off by 11, each with one stuck: 10 mg/dL, and not 6."
    rows = np.array([90] + [10] * 9)
    who, stuck = np.repeat(np.arange(10), rows), np.zeros(180, bool)
    stuck[np.cumsum(rows) - 1] = True
    y, r = np.where(stuck, 400.0, 150.0), np.where(stuck, 0.0, np.where(who == 0, 1.0, 11.0))
    empty = np.full(180, np.nan)
    cell = Cell(
        STUDY,
        GLUCOSE,
        60.0,
        "all",
        np.arange(10),
        who,
        None,
        y,
        y + r,
        empty,
        empty,
        None,
        0.9,
        n_resamples=99,
    )
    assert agreement._mean_error(cell, ~stuck) == pytest.approx(10)
    assert agreement._mean_error(cell, stuck | True) == pytest.approx((89 / 90 + 9 * 9.9) / 10)


def test_ranks_p_and_adjustment_by_hand():
    errors = np.array([[1.0], [3.0], [2.0]])
    table = patients.rank(cell_of(150.0, errors, calibration=np.array([[0.5], [1.5], [2.0], [2.5]])))
    assert table["subject"].tolist() == ["P0001", "P0002", "P0000"]
    assert table["p"].tolist() == [1 / 5, 3 / 5, 4 / 5]
    np.testing.assert_allclose(table["p_adjusted"], [3 / 5, 4 / 5, 4 / 5])
    alone = patients.rank(cell_of(150.0, errors))
    assert alone["p"].isna().all()
    assert not alone["conformal"].any()
    assert alone["rank"].tolist() == [1, 2, 3]


def test_worst_patients_by_mean_rank():
    frame = pd.DataFrame({"subject": ["a", "b", "c"] * 2, "horizon": [30.0] * 3 + [60.0] * 3, "y": 100.0})
    frame = frame.assign(yhat=[109, 101, 102, 108, 150, 101], model="model", split="test", target="glucose")
    study = replace(STUDY, horizons=(30.0, 60.0))
    found = patients.worst(frame, study, n=2)
    assert found["subject"].tolist() == ["a", "b"]
    assert found["mean_rank"].tolist() == pytest.approx([(1 / 3 + 2 / 3) / 2, (3 / 3 + 1 / 3) / 2])
    only = patients.worst(frame, replace(study, key_horizons=(60.0,)), n=1)
    assert only["subject"].tolist() == ["b"]


# ------------------------------------------------------------------------------------------------- invariances

RAGGED = stream(0, "ragged").integers(3, 40, 35)


def ragged(scale=1.0, shift=0.0, copies=1, order=None, new_names=None):
    "Patients with unequal numbers of rows, given in any order, under any names."
    rng = stream(0, "ragged rows")
    who = np.repeat(np.arange(35), RAGGED)
    y = 150 + 40 * rng.standard_normal(len(who))
    r = 10 * rng.standard_normal(len(who)) + 6 * rng.standard_normal(35)[who]
    known, ids = 11 * rng.standard_normal(600), np.repeat([f"C{i:02d}" for i in range(40)], 15)
    known, ids = np.repeat(known, copies), np.repeat(ids, copies)
    position = new_names[who] if new_names is not None else who
    at = (
        np.argsort(position, kind="stable")
        if order is None
        else order[np.argsort(position[order], kind="stable")]
    )
    at = np.repeat(at, copies)
    target = replace(
        GLUCOSE,
        lower=(80 + shift) * scale,
        upper=(230 + shift) * scale,
        tolerance_absolute=15 * scale,
        allowed_relative=0.05,
    )
    y = np.clip(y, 80, 230)
    empty = np.full(len(at), np.nan)
    return Cell(
        replace(STUDY, targets=(target,)), target, 60.0, "all", np.array([f"P{i:02d}" for i in range(35)]), position[at],
        None, scale * (y + shift)[at], scale * (y + shift + r)[at], empty, empty, None, 0.9, n_resamples=199,
        calibration=(scale * known, ids),
    )  # fmt: skip


def answers(cell, rows=False):
    found = pd.DataFrame([one for question in QUESTIONS for one in question(cell)])
    assert set(COLUMNS) == set(found.columns)
    return found if rows else found[~found["assumes_independence"]].reset_index(drop=True)


NUMBERS = ["effect", "effect_low", "effect_high", "p"]


def test_row_order_changes_nothing():
    shuffled = answers(ragged(order=stream(0, "o").permutation(RAGGED.sum())), rows=True)
    plain = answers(ragged(), rows=True)
    timeless = (
        plain["test"] != "bad_patients"
    )  # compares the beginnings of records: order of time counts there
    np.testing.assert_allclose(plain.loc[timeless, NUMBERS], shuffled.loc[timeless, NUMBERS], rtol=1e-9)


def test_order_of_calibration_patients_changes_nothing():
    cell = ragged()
    known, ids = cell.calibration
    other = np.argsort(ids, kind="stable").reshape(40, 15)[stream(0, "c").permutation(40)].ravel()
    again = patients.rank(replace(cell, calibration=(known[other], ids[other])))
    pd.testing.assert_frame_equal(patients.rank(cell), again)


def test_names_change_nothing_but_the_draws():
    renamed = answers(ragged(new_names=stream(0, "n").permutation(35)))
    plain, drawn = answers(ragged()), answers(ragged())["test"].str.startswith("allowed_error")
    np.testing.assert_allclose(plain.loc[~drawn, NUMBERS], renamed.loc[~drawn, NUMBERS], rtol=1e-9)
    np.testing.assert_allclose(
        plain.loc[drawn, ["effect", "p"]], renamed.loc[drawn, ["effect", "p"]], rtol=1e-9
    )


def test_copied_rows_change_nothing():
    pd.testing.assert_frame_equal(answers(ragged())[NUMBERS], answers(ragged(copies=3))[NUMBERS], rtol=1e-9)


def test_units_scale_effects_and_leave_p():
    a, b = answers(ragged()), answers(ragged(scale=1 / 18.016))
    in_units = np.where(a["effect_unit"] == "mg/dL", 1 / 18.016, 1.0)
    np.testing.assert_allclose(a["p"], b["p"], rtol=1e-6)
    np.testing.assert_allclose(a["effect"] * in_units, b["effect"], rtol=1e-9)
    assert (a["verdict"] == b["verdict"]).all()


def test_a_constant_added_to_truth_and_prediction_matters_only_for_percentages():
    a, b = answers(ragged()), answers(ragged(shift=55.0))
    same = ~a["test"].str.startswith("allowed_error")
    np.testing.assert_allclose(a.loc[same, NUMBERS], b.loc[same, NUMBERS], rtol=1e-6)


# ------------------------------------------------------------------------------------------------ small inputs


@pytest.mark.parametrize("n_subjects", [1, 2, 9, 35])
@pytest.mark.parametrize("n_rows", [1, 2, 250])
@pytest.mark.parametrize("kind", ["noise", "constant", "exact", "same truth and prediction", "zero"])
@pytest.mark.parametrize("n_known", [0, 1, 25])
def test_small_and_degenerate_inputs_give_answers_and_no_warnings(n_subjects, n_rows, kind, n_known):
    rng = stream(0, "degenerate", kind)
    y = 150 + 20 * rng.standard_normal((n_subjects, n_rows))
    r = {"noise": 10 * rng.standard_normal(y.shape), "constant": np.full(y.shape, 7.3), "exact": 0 * y}.get(
        kind, 0 * y
    )
    y = {"same truth and prediction": 150.0, "zero": 0.0}.get(kind, y)
    known = 10 * rng.standard_normal((n_known, 5)) if n_known else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = answers(cell_of(y, r, calibration=known), rows=True)
        table = patients.rank(cell_of(y, r, calibration=known))
    ours = found[~found["assumes_independence"]]
    assert ours["sentence"].str.endswith(".").all()
    assert not ours["sentence"].str.contains("nan").any()
    assert (ours["verdict"] == "not assessable").all() or n_subjects == 35
    if n_subjects < 10:
        assert ours["p"].isna().all()
    assert len(table) == n_subjects
    assert table["low"].notna().all() == (n_rows == 250)


def test_too_few_calibration_patients_are_said_to_be_too_few():
    errors = 10 * clustered(stream(0, "few"), 40, 20)
    one = patients.patients(cell_of(150.0, errors, calibration=errors[:18]))[0]
    assert one["verdict"] == "not assessable"
    assert "18 in the calibration split, at least 19 are needed" in one["sentence"]
    assert patients.patients(cell_of(150.0, errors, calibration=errors[:19]))[0]["p"] <= 1


def test_unknown_methods_and_other_patients_are_refused():
    with pytest.raises(ValueError, match="'patients', 'zou'"):
        agreement.limits_of_agreement([1.0, 2.0], [0, 1], method="loa")
    with pytest.raises(ValueError, match="same patients"):
        agreement.limits_of_replicates([1.0, 2.0], [0, 1], [1.0, 2.0], [0, 2])
