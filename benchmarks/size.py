"""How often does each test of the battery cry wolf, how often does its interval hold the truth, and what can it find?

Simulated studies in which every null hypothesis is true, with patients who repeat themselves. `make size` runs all of it
and writes benchmarks/size.csv, size.md and size.png; tests/test_size.py runs a small part and reads the committed table."""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom, norm

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import agreement, averages, discrimination, distribution, residuals
from medlab.judge.agreement import STUCK
from medlab.judge.dependence import clustered
from medlab.judge.engines import mean_test
from medlab.judge.risks import clustered_risks
from medlab.judge.verdicts import Cell

HERE = Path(__file__).parent
SETTINGS = [
    (60, 20, 0.0, 0.0),
    (60, 20, 0.3, 0.0),
    (60, 20, 0.3, 0.7),
    (20, 50, 0.3, 0.7),
    (10, 200, 0.3, 0.7),
]
WORLD = ["patients", "rows", "icc", "rho"]
HARD = (60, 20, 0.3, 0.7)  # patients, rows of each, intraclass correlation, correlation of neighbouring rows
SD, LEVEL_SD, MARGIN = 15.0, 20.0, 6.0
POWER = {"patients": (15, 30, 60, 120), "effects": (0.1, 0.2, 0.3, 0.5)}
TRUTH = {  # where the effect's true value is known in closed form
    "bias": 0.0, "within_tolerance": 95.0, "coverage": 0.0, "auroc": 0.5, "censoring": STUCK.tolerance, "spread": 1.0, "skill": 0.0, "drift_bias": 0.0, "memory": 0.0,
    "covariate_error": 1.0, "covariate_bias": 0.0, "distribution": 1.0, "calibration_in_the_large": 1.0,
    "calibration_slope": 1.0, "proportional_bias": 0.0, "spread_between": 1.0,
}  # fmt: skip


@cache
def study(kind: str) -> Study:
    "A study whose tolerances are the true values of what is tested, so that each null hypothesis lies on its edge."
    rng = stream(0, "size", "allowed")
    r, level = SD * rng.standard_normal(2_000_000), 150 + LEVEL_SD * rng.standard_normal(2_000_000)
    allowed = float(np.median(np.abs(r) / np.abs(level - r)))
    limits = (MARGIN, "simulation", 1.959964 * SD, 0.0, "simulation", 0, allowed, "simulation")
    target = Target("value", "Value", "units", -1e6, 1e6, *limits)
    if kind == "binary":
        target = Target("event", "Event", "probability", 0, 1, 0.05, "simulation", 0.5, 0, "simulation")
    return Study(
        "size", "Size", "How often does a test cry wolf?", kind, (target,), (60.0,), "min", "UTC timestamp",
        "model", "persistence", ("ward", "phase"), "To be simulated.", "Anything else.",
    )  # fmt: skip


def cell(kind, y, yhat, rng, reach=None, reference=None, calibration=None, n_resamples=199) -> Cell:
    "A cell from arrays (n_subjects, n_rows), with a group that belongs to patients and one that comes and goes."
    n_subjects, n_rows = y.shape
    names = np.array([f"P{i:04d}" for i in range(n_subjects)])
    subject = np.repeat(np.arange(n_subjects), n_rows)
    phase = np.where(clustered(rng, n_subjects, n_rows, 0.2, 0.5) > 0, "day", "night")
    by = {
        "by_ward": np.array(["a", "b", "c"])[rng.integers(0, 3, n_subjects)][subject],
        "by_phase": phase.ravel(),
    }
    y, yhat = y.ravel().astype(float), yhat.ravel()
    lo, hi = (np.full(len(y), np.nan),) * 2 if reach is None else (yhat - reach, yhat + reach)
    other = None if reference is None else reference.ravel()
    time_of = np.tile(np.arange(n_rows) * 300_000, n_subjects)
    about = study(kind)
    return Cell(
        about, about.targets[0], 60.0, "all", names, subject, time_of, y, yhat, lo, hi, other, 0.9,
        n_resamples=n_resamples, seed=int(rng.integers(2**31)), by=by, calibration=calibration,
    )  # fmt: skip


def regression(rng, setting) -> Cell:
    "Residuals that know nothing of anything: no bias, no drift, the same for all, as good as the reference."
    shape = setting[:2]
    r, other, level = (clustered(rng, *shape, *setting[2:]) for _ in range(3))
    level = 150 + LEVEL_SD * level
    earlier = SD * clustered(rng, *shape, *setting[2:])
    ids = np.repeat([f"C{i:04d}" for i in range(shape[0])], shape[1])
    y = level - SD * r
    return cell("regression", y, level, rng, 1.644854 * SD, y + SD * other, (earlier.ravel(), ids))


def exchangeable(rng, setting) -> Cell:
    "Truth and prediction that could change places."
    base, one, two = (clustered(rng, *setting) for _ in range(3))
    return cell("regression", *(150 + LEVEL_SD * base + SD / np.sqrt(2) * e for e in (one, two)), rng)


def at_the_margin(rng, setting) -> Cell:
    "A bias of exactly the size that would begin to matter."
    y = 150 + LEVEL_SD * clustered(rng, *setting)
    return cell("regression", y, y + MARGIN + SD * clustered(rng, *setting), rng)


def binary(rng, setting) -> Cell:
    "Outcomes that happen exactly as often as was said, to patients who repeat themselves."
    n_subjects, n_rows, icc, rho = setting
    p, y = clustered_risks(rng, n_subjects, n_rows, icc, rho, 0.2)
    return cell("binary", y, p, rng)


def blind(rng, setting) -> Cell:
    "Risks that know nothing of the outcome: an AUROC of one half."
    n_subjects, n_rows, icc, rho = setting
    (p, _), (_, y) = (clustered_risks(rng, n_subjects, n_rows, icc, rho, 0.2) for _ in range(2))
    return cell("binary", y, p, rng)


def at_the_limit(rng, setting) -> Cell:
    "As many values stuck at the lower limit as are still allowed."
    calm = regression(rng, setting)
    low = 150 + norm.ppf(STUCK.tolerance / 100) * np.hypot(SD, LEVEL_SD)
    return replace(calm, target=replace(calm.target, lower=low), y=np.maximum(calm.y, low))


EXCHANGEABLE = {
    "distribution", "distribution_distance", "distribution_rows", "distribution_mises_rows", "proportional_bias",
    "proportional_bias_rows",
}  # fmt: skip
NOT_TRUE = {
    "allowed_error_two_percent",
    "censoring_predictions",
}  # their null hypothesis is false in these worlds


def rows_of(kind: str, rng, setting) -> list[dict]:
    "Every row that the battery makes of one simulated study in which its null hypothesis is true."
    if kind == "binary":
        right, blank = binary(rng, setting), blind(rng, setting)
        asked = [
            q
            for q in residuals.QUESTIONS["binary"]
            if q not in (discrimination.discrimination, discrimination.net_benefit)
        ]
        return [row for q in asked for row in q(right)] + discrimination.discrimination(blank)
    calm, swapped, edge = (make(rng, setting) for make in (regression, exchangeable, at_the_margin))
    special = {averages.equivalence: edge, agreement.censoring: at_the_limit(rng, setting)}
    found = averages.bias(calm)
    for question in residuals.QUESTIONS["regression"]:
        found += [
            row for row in question(special.get(question, calm)) if row["test"] not in EXCHANGEABLE | NOT_TRUE
        ]
        if question in (agreement.agreement, distribution.distribution):
            found += [row for row in question(swapped) if row["test"] in EXCHANGEABLE]
    return found


def named(row: dict) -> str:
    "The test, and what divides the patients."
    return row["test"] + (f" ({row['group'].partition('=')[0]})" if row["group"] != "all" else "")


def simulate(kind: str, setting: tuple, first: int, n: int) -> pd.DataFrame:
    "Rejections, judged tests, intervals and hits of `n` simulated studies; the same whatever is simulated beside them."
    tally = {}
    for number in range(first, first + n):
        rng = stream(0, "size", kind, *setting, number)
        for row in rows_of(kind, rng, setting):
            at = tally.setdefault((named(row), bool(row["assumes_independence"])), np.zeros(4))
            if not np.isnan(row["p"]):
                at += [row["p"] < 0.05, 1, 0, 0]
            truth = TRUTH.get(row["test"])
            if truth is not None and not np.isnan(row["effect_low"]) and not row["assumes_independence"]:
                at += [0, 0, row["effect_low"] <= truth <= row["effect_high"], 1]
    columns = ["rejected", "tested", "covered", "intervals"]
    frame = pd.DataFrame([(kind, *setting, *key, *at) for key, at in tally.items()])
    frame.columns = ["kind", *WORLD, "test", "assumes_independence", *columns]
    return frame


def gather(
    n: int, settings=SETTINGS, kinds=("regression", "binary"), workers: int = 2, batch: int = 50
) -> pd.DataFrame:
    "All simulated studies, in parallel."
    jobs = [(k, s, f, min(batch, n - f)) for k in kinds for s in settings for f in range(0, n, batch)]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(simulate, *zip(*jobs, strict=True)))
    keys = ["kind", *WORLD, "test", "assumes_independence"]
    return pd.concat(parts).groupby(keys, sort=False).sum().reset_index()


def power(n: int) -> pd.DataFrame:
    "How often the t-test on patient means finds a bias, in standard deviations of a single error."
    found = []
    for patients in POWER["patients"]:
        means = clustered(stream(0, "power", patients), patients, 20, 0.3, 0.7, (n,)).mean(axis=-1)
        for effect in POWER["effects"]:
            hits = sum(mean_test(one + effect).p < 0.05 for one in means)
            found.append((patients, effect, hits / n))
    return pd.DataFrame(found, columns=["patients", "effect", "power"])


def band(n, confidence=0.95) -> tuple[float, float]:
    "Between which rates a test of level 5 % falls in `n` simulated studies."
    return tuple(end / n for end in binom.interval(confidence, n, 0.05))


def figure(table: pd.DataFrame, curve: pd.DataFrame, n: int, path: Path) -> None:
    "False alarms of every question in the hard setting, asked of patients and of rows, and the power curve."
    import matplotlib.pyplot as plt

    hard = table[
        (table["tested"] > 0)
        & np.logical_and.reduce([table[k] == v for k, v in zip(WORLD, HARD, strict=True)])
    ]
    hard = hard.assign(
        rate=100 * hard["rejected"] / hard["tested"], question=hard["test"].str.replace("_rows", "")
    )
    hard["question"] += np.where(hard["kind"] == "binary", ", yes or no", "")
    rates = hard.pivot_table(index="question", columns="assumes_independence", values="rate", aggfunc="max")
    rates = rates.sort_values([True, False], na_position="first")
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 0.19 * len(rates) + 1), width_ratios=[1.6, 1])
    at = np.arange(len(rates))
    left.axvspan(*(100 * end for end in band(n)), color="#0072b2", alpha=0.2, lw=0)
    left.hlines(at, rates[False], rates[True], color="0.85", zorder=0)
    left.plot(rates[True], at, "s", color="#d55e00", ms=4, label="counting rows")
    left.plot(rates[False], at, "o", color="#0072b2", ms=4, label="counting patients")
    left.set_yticks(at, rates.index.str.replace("_", " "), fontsize=7)
    left.set(xlabel="false alarms, % (5 is promised)", xlim=(-1, 101), ylim=(-0.8, len(rates) - 0.2))
    left.set_title("Tests that count rows cry wolf", fontsize=11)
    left.legend(loc="lower right", fontsize=8)
    for effect, part in curve.groupby("effect"):
        right.plot(part["patients"], 100 * part["power"], marker="o", ms=3, label=f"{effect:g} SD")
    right.set(xscale="log", xlabel="patients, 20 rows each", ylabel="biases found, %", ylim=(0, 101))
    right.set_xticks(POWER["patients"], POWER["patients"])
    right.minorticks_off()
    right.set_title("Power is bought with patients", fontsize=11)
    right.legend(title="true bias", fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=110, metadata={"Software": None})


def report(table: pd.DataFrame, curve: pd.DataFrame, n: int) -> str:
    "The committed page."
    columns = WORLD
    low, high = (100 * end for end in band(n))
    rate = table[table["tested"] >= n / 4].assign(rate=lambda t: 100 * t["rejected"] / t["tested"])
    wide = rate.pivot_table(
        index=["assumes_independence", "kind", "test"], columns=columns, values="rate", sort=False
    )
    wide = wide.sort_index(level=[0, 1], ascending=[True, False], sort_remaining=False)
    all_ours = rate.loc[~rate["assumes_independence"], "rate"]
    worst = f"`{rate.loc[all_ours.idxmax(), 'test']}`"
    over, under = int((all_ours > high).sum()), int((all_ours < low).sum())
    heads = [f"{g} x {m}, ICC {icc:g}, rho {rho:g}" for g, m, icc, rho in wide.columns]
    lines = [
        "# What the tests promise, and keep",
        "",
        f"Written by `make size`: {n:,} simulated studies for every column, in which each null hypothesis is true. A false alarm is a p below",
        "0.05 before adjustment; a report adjusts, and takes its verdicts from intervals. An entry of an exact 5 % test lies between",
        f"{low:.1f} and {high:.1f} in 95 of 100 cases; here {over} of {len(all_ours)} entries lie above that, the largest at {all_ours.max():.1f} ({worst}),",
        f"and {under} below, which is cautious. Columns: patients x rows, intraclass correlation, correlation of neighbouring rows. `by_ward` is a",
        "random group that belongs to the patient, `by_phase` one that comes and goes, SD that of one row's error. Empty: too few",
        "patients for a p-value (10; 30 for most shares, for `bad_patients` and for yes/no outcomes; a ward has fewer), or too few rows.",
        "`memory_rows` (Ljung-Box) takes a patient's own level, and any correlation of neighbouring rows, for memory; `memory` asks only",
        "about rows a horizon apart, beyond that level. Not simulated, since no null hypothesis or no p belongs to them: net benefit, average",
        "precision, limits of agreement.",
        "",
        "![False alarms of the tests, and power by number of patients](size.png)",
        "",
        "## False alarms, %",
    ]
    for counts, title in (
        (False, "whose unit is the patient"),
        (True, "that take rows as independent (for comparison)"),
    ):
        lines += [
            "",
            f"### Tests {title}",
            "",
            "| test | " + " | ".join(heads) + " |",
            "| --- |" + " ---: |" * len(heads),
        ]
        for (_, kind, test), values in wide.xs(counts, level=0, drop_level=False).iterrows():
            cells = ["" if np.isnan(v) else f"{v:.1f}" for v in values]
            lines.append(
                f"| `{test}`{' (yes/no outcome)' if kind == 'binary' else ''} | " + " | ".join(cells) + " |"
            )
    held = table[table["intervals"] > 0].assign(rate=lambda t: 100 * t["covered"] / t["intervals"])
    wide = held.pivot_table(index=["kind", "test"], columns=columns, values="rate", sort=False)
    wide = wide.sort_index(level=0, ascending=False, sort_remaining=False)
    lines += [
        "",
        "## 95 % intervals that hold the true value, %",
        "",
        "| effect of | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for (kind, test), values in wide.iterrows():
        name = f"`{test}`{' (yes/no outcome)' if kind == 'binary' else ''}"
        lines.append(f"| {name} | " + " | ".join("" if np.isnan(v) else f"{v:.1f}" for v in values) + " |")
    wide = curve.pivot(index="patients", columns="effect", values="power")
    lines += ["", "## Power of the t-test on patient means, % (20 rows each, ICC 0.3, rho 0.7)", ""]
    lines += [
        "| patients | " + " | ".join(f"bias {e:g} SD" for e in wide) + " |",
        "| ---: |" + " ---: |" * len(wide.columns),
    ]
    lines += [f"| {g} | " + " | ".join(f"{100 * v:.0f}" for v in row) + " |" for g, row in wide.iterrows()]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=2000, help="simulated studies in each setting")
    n, began = parser.parse_args().n, time.perf_counter()
    table, curve = gather(n), power(max(n, 400))
    table.to_csv(HERE / "size.csv", index=False, float_format="%g")
    figure(table, curve, n, HERE / "size.png")
    (HERE / "size.md").write_text(report(table, curve, n))
    sys.stdout.write(f"wrote benchmarks/size.md, .csv and .png in {time.perf_counter() - began:.0f} s\n")


if __name__ == "__main__":
    main()
