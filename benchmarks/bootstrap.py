"The patient bootstrap against what one would use instead, in one run; writes benchmarks/bootstrap.md. Run by `make benchmarks`."

import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from medlab.core.seeds import stream
from medlab.core.study import Study, Target
from medlab.judge import metrics, residuals
from medlab.judge.bootstrap import bootstrap_rows, bootstrap_sums, subject_sums
from medlab.judge.metrics import within_tolerance

ROOT = Path(__file__).resolve().parents[1]
GLUCOSE = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "example", 15, 0.15, "example")
STUDY = Study(
    "example", "Example", "Where is glucose going?", "regression", (GLUCOSE,), (60.0,), "min", "UTC timestamp",
    "model", "persistence", ("sex", "trend"), "To measure speed.", "Anything else.",
)  # fmt: skip
SUBJECTS, ROWS, RESAMPLES, FEW = 1000, 1000, 2000, 20


def world():
    "A million forecasts of a thousand people."
    rng = stream(0, "benchmark")
    subject = np.repeat(np.arange(SUBJECTS), ROWS)
    y = np.clip(150 + 40 * rng.standard_normal(len(subject)), 40, 400)
    r = 15 * (
        np.sqrt(0.3) * np.repeat(rng.standard_normal(SUBJECTS), ROWS)
        + np.sqrt(0.7) * rng.standard_normal(len(y))
    )
    return subject, y, y + r, y + r - 25, y + r + 25


def of_rows(y, yhat, lo, hi):
    "Six regression measures of rows."
    r = yhat - y
    return [
        r.mean(), np.abs(r).mean(), np.sqrt((r**2).mean()), 100 * (np.abs(r) / y).mean(),
        100 * within_tolerance(y, yhat, GLUCOSE).mean(), 100 * ((lo <= y) & (y <= hi)).mean(),
    ]  # fmt: skip


def of_sums(s):
    "The same six from sums: rows, r, |r|, r squared, relative, within, inside."
    n = s[..., 0]
    mean = s[..., 1:] / n[..., None]
    return np.stack(
        [mean[..., 0], mean[..., 1], np.sqrt(mean[..., 2]), *(100 * mean[..., i] for i in (3, 4, 5))], axis=-1
    )


def contributions(y, yhat, lo, hi):
    "What each row adds to the sums."
    r = yhat - y
    inside = (lo <= y) & (y <= hi)
    return np.stack(
        [np.ones(len(y)), r, np.abs(r), r**2, np.abs(r) / y, within_tolerance(y, yhat, GLUCOSE), inside],
        axis=1,
    )


def clock(function, repeats=1):
    "Seconds, the best of several runs, and the result."
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        found = function()
        best = min(best, time.perf_counter() - began)
    return best, found


def main():
    subject, *columns = world()
    starts = np.arange(SUBJECTS) * ROWS

    def ours():
        sums = subject_sums(contributions(*columns), subject, SUBJECTS)
        return bootstrap_sums(of_sums, sums, stream(0, "a"), RESAMPLES, method="percentile")

    def scipy_sums():
        "A user who knows that sums are enough, and hands scipy one number per patient and measure."
        sums = subject_sums(contributions(*columns), subject, SUBJECTS)
        found = stats.bootstrap(
            tuple(sums.T), lambda *s, axis: of_sums(np.stack([c.sum(axis=axis) for c in s], axis=-1)).T,
            paired=True, n_resamples=RESAMPLES, vectorized=True, batch=100, method="percentile", rng=stream(0, "b"),
        )  # fmt: skip
        return found.confidence_interval

    def take(drawn):
        at = (starts[drawn][:, None] + np.arange(ROWS)).ravel()
        return of_rows(*(c[at] for c in columns))

    def scipy_rows():
        "A user who resamples patients' numbers with scipy and gathers their rows in the statistic."
        return stats.bootstrap(
            (np.arange(SUBJECTS),),
            take,
            n_resamples=FEW,
            vectorized=False,
            method="percentile",
            rng=stream(0, "c"),
        )

    def loop():
        "What a notebook usually holds: draw patients, glue their rows together, measure, repeat."
        frame = pd.DataFrame(dict(zip(("y", "yhat", "lo", "hi"), columns, strict=True)), index=subject)
        people = dict(list(frame.groupby(level=0)))
        rng, draws = stream(0, "d"), []
        for _ in range(FEW):
            drawn = pd.concat([people[i] for i in rng.integers(0, SUBJECTS, SUBJECTS)])
            draws.append(of_rows(*(drawn[c].to_numpy() for c in ("y", "yhat", "lo", "hi"))))
        return np.quantile(draws, [0.025, 0.975], axis=0)

    def our_rows():
        return bootstrap_rows(of_rows, subject, *columns, rng=stream(0, "e"), n_resamples=FEW)

    own, found = clock(ours, 5)
    known, theirs = clock(scipy_sums, 5)
    np.testing.assert_allclose(found.low, theirs.low, rtol=0.05, atol=0.1)
    np.testing.assert_allclose(found.high, theirs.high, rtol=0.05, atol=0.1)
    scale = RESAMPLES / FEW
    rows = [("medlab, `bootstrap_sums` (one core, sums made on the way)", own, RESAMPLES)]
    rows.append(("`scipy.stats.bootstrap` on each patient's sums, vectorised", known, RESAMPLES))
    rows.append(
        (
            "`scipy.stats.bootstrap` on patients, rows gathered in the statistic",
            scale * clock(scipy_rows)[0],
            FEW,
        )
    )
    rows.append(("plain loop: draw patients, `pandas.concat`, measure", scale * clock(loop)[0], FEW))
    rows.append(
        (
            "medlab, `bootstrap_rows` (for measures that are no function of sums)",
            scale * clock(our_rows)[0],
            FEW,
        )
    )

    frame = pd.DataFrame(dict(zip(("y", "yhat", "lo", "hi"), columns, strict=True)))
    frame = frame.assign(
        model="model", split="test", subject=pd.Categorical.from_codes(subject, [f"S{i:04d}" for i in range(SUBJECTS)]),
        time=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.tile(np.arange(ROWS) * 5, SUBJECTS), unit="min"),
        target="glucose", horizon=60.0, by_sex=np.where(subject % 2, "F", "M"),
        by_trend=np.array(["falling", "rising", "steady"])[stream(0, "t").integers(0, 3, len(subject))],
    )  # fmt: skip
    naive = frame.assign(
        model="persistence", yhat=frame["yhat"] + 10 * stream(0, "n").standard_normal(len(frame))
    )
    calm = frame.assign(split="calibration")
    both = pd.concat([frame, naive, calm], ignore_index=True)
    both.attrs["level"] = 0.9
    measured, _ = clock(lambda: metrics.table(both, STUDY, n_resamples=RESAMPLES))
    tested, tests = clock(lambda: residuals.run(both, STUDY, n_resamples=RESAMPLES))

    lines = [
        "# The patient bootstrap",
        "",
        "Written by `make benchmarks`; one run on one machine, one core. Ratios travel, seconds don't.",
        "",
        f"Machine: {platform.machine()}, Python {platform.python_version()}. {len(subject):,} forecasts of {SUBJECTS:,} people, "
        f"{RESAMPLES:,} resamples of people,",
        "six measures at once (bias, MAE, RMSE, MARD, share within tolerance, coverage), percentile intervals. The first two agree to 5 %; an assertion in",
        "this script says so. The slow ones are run with fewer resamples and scaled.",
        "",
        "| way | resamples run | seconds for all | times slower than medlab |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [f"| {name} | {n:,} | {s:,.1f} | {s / own:,.1f} |" for name, s, n in rows]
    lines += [
        "",
        f"All metrics of two models with intervals in six groups (`metrics.table`): {measured:.1f} s. The whole residual battery at one "
        f"horizon (`residuals.run`, {len(tests)} rows): {tested:.1f} s.",
    ]
    (ROOT / "benchmarks" / "bootstrap.md").write_text("\n".join(lines) + "\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
