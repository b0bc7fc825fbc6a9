"Figures, the funnel and the sections of results against closed forms, in two languages, and on data that nobody wishes for."

import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.stats import binom, ttest_1samp, ttest_ind

from medlab.judge.dependence import clustered
from medlab.judge.metrics import difference
from medlab.judge.metrics import per_subject as errors_of
from medlab.judge.metrics import table as metrics_of
from medlab.tell import example, figures, results
from medlab.tell.funnel import INNER, OUTER, against_all, critical, funnel
from medlab.tell.language import speaking
from medlab.tell.page import Page, Section, render
from medlab.tell.words import say

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning", "error::FutureWarning")
STUDY = example.STUDY


@pytest.fixture(scope="module")
def frame():
    return example.predictions(patients=24, days=2)


@pytest.fixture(scope="module")
def metrics(frame):
    return metrics_of(frame, STUDY, n_resamples=100)


@pytest.fixture(scope="module")
def people(frame):
    names = {s: f"P{i:02}" for i, s in enumerate(frame["subject"].unique(), 1)}
    return errors_of(frame).replace({"subject": names})


@pytest.fixture(scope="module")
def own(frame):
    return frame[(frame["model"] == "model") & (frame["horizon"] == 60)]


def invented(random, patients=60, rows=20, icc=0.3, **groups):
    "Errors of patients with nothing wrong with them, as predictions of one model and horizon."
    errors = 20 + 5 * clustered(random, patients, rows, icc=icc, rho=0.7)
    of = pd.DataFrame(
        {"subject": np.repeat(np.arange(patients), rows), "hour": np.tile(np.arange(rows), patients)}
    )
    of = of.assign(target="glucose", horizon=60.0, y=100.0, yhat=100 + errors.ravel(), lo=np.nan, hi=np.nan)
    return of.assign(**{f"by_{name}": made(of) for name, made in groups.items()})


# -- the funnel's limits ------------------------------------------------------------------------------------------------


def test_groups_of_equal_patients_are_a_t_test_of_the_group_against_the_rest():
    "Thompson's tau is the two-sample t-test in disguise."
    rows = invented(np.random.default_rng(1), third=lambda f: f["subject"] % 3)
    found = against_all(rows, replace(STUDY, slices=("third",)))
    means = (rows["yhat"] - rows["y"]).abs().groupby(rows["subject"]).mean()
    for _, row in found.iterrows():
        inside = means.index % 3 == int(row["group"][-1])
        assert row["p"] == pytest.approx(ttest_ind(means[inside], means[~inside]).pvalue, rel=1e-9)
        assert row["size"] == pytest.approx(inside.sum())
        assert row["spread"] == pytest.approx(means.std(ddof=1))
        width = means.std(ddof=1) * np.sqrt(1 / inside.sum() - 1 / len(means))
        assert row["width"] == pytest.approx(width)
        assert (row["p"] < INNER) == (abs(row["distance"]) > critical(INNER, 60) * width)


def test_situations_are_a_paired_t_test_of_patients():
    rows = invented(np.random.default_rng(2), night=lambda f: f["hour"] < 7)
    found = against_all(rows, replace(STUDY, slices=("night",))).set_index("group")
    error = (rows["yhat"] - rows["y"]).abs()
    inside = error[rows["by_night"]].groupby(rows["subject"]).mean() - error.groupby(rows["subject"]).mean()
    row = found.loc["by_night=True"]
    assert row["p"] == pytest.approx(ttest_1samp(inside, 0).pvalue, rel=1e-9)
    assert row["distance"] == pytest.approx(inside.mean())
    curve = lambda share: (
        critical(share, 60) * row["spread"] * np.sqrt(1 / row["size"] - 1 / row["total_size"])
    )
    for share in (INNER, OUTER):  # where it stands in the figure says what its p-value says
        assert (abs(row["distance"]) > curve(share)) == (row["p"] < share)


def test_limits_hold_what_they_promise_where_no_group_is_special():
    random, sets, made = np.random.default_rng(3), 200, []
    study = replace(STUDY, slices=("half", "tenth", "stretch", "uneven"))
    lots = lambda f: np.repeat(random.permutation(60), 20)
    for _ in range(sets):
        rows = invented(
            random,
            half=lambda f: lots(f) % 2,
            tenth=lambda f: lots(f) // 6,
            stretch=lambda f: f["hour"] // 5,
            uneven=lambda f: lots(f) < 20,
        )
        keep = (rows["subject"] % 3 > 0) | (rows["hour"] < 6)  # every third patient has fewer rows
        made.append(against_all(rows[keep], study))
    made = pd.concat(made)
    for column, part in made.groupby(made["group"].str.partition("=")[0]):
        sizes = sets * (
            1 if column in {"by_half", "by_uneven"} else 3
        )  # groups of one column lean on each other
        low, high = binom.ppf([0.0005, 0.9995], sizes, 0.05) / sizes
        assert low <= (part["p"] < INNER).mean() <= high, column
        assert (part["p"] < OUTER).mean() <= binom.ppf(0.9995, sizes, 0.002) / sizes, column


def test_limits_that_count_rows_would_not_have_held():
    random, outside = np.random.default_rng(4), []
    for _ in range(100):
        rows = invented(random, tenth=lambda f: f["subject"] // 6)
        error = (rows["yhat"] - rows["y"]).abs()
        mean = error.groupby(rows["by_tenth"]).mean()
        outside += list(abs(mean - error.mean()) > 1.96 * error.std() / np.sqrt(120))
    assert np.mean(outside) > 0.25


def test_a_real_difference_is_outside_and_named():
    rows = invented(np.random.default_rng(5), bad=lambda f: f["subject"] < 15, sex=lambda f: f["subject"] % 2)
    rows.loc[rows["by_bad"], "yhat"] += 10
    drawn = funnel(rows, replace(STUDY, slices=("bad", "sex")))
    assert "Outside: bad: no" in drawn.caption or "Outside: bad: yes" in drawn.caption
    assert "2 of 4 groups lie outside" in drawn.caption
    assert "by chance alone 0.2 would" in drawn.caption
    assert drawn.table["outside the limits"].tolist() == ["99.8\u00a0%", "99.8\u00a0%", "no", "no"]


def test_order_names_units_and_doubled_rows_change_no_p_value():
    rows = invented(np.random.default_rng(6), third=lambda f: f["subject"] % 3, night=lambda f: f["hour"] < 7)
    study = replace(STUDY, slices=("third", "night"))
    p = against_all(rows, study)["p"].to_numpy()
    changed = {
        "order": rows.sample(frac=1, random_state=1),
        "names": rows.assign(subject=rows["subject"].map(lambda s: f"x{97 * s % 61}")),
        "unit": rows.assign(y=rows["y"] / 18, yhat=rows["yhat"] / 18),
        "twice": pd.concat([rows, rows]),
    }
    for what, other in changed.items():
        np.testing.assert_allclose(against_all(other, study)["p"], p, rtol=1e-8, err_msg=what)


# -- what may not be told -----------------------------------------------------------------------------------------------


def test_the_funnel_tells_no_small_group_by_its_place_or_its_limits():
    few = lambda f: np.where(f["subject"] < 8, "few", np.where(f["subject"] < 30, "some", "most"))
    rows = invented(np.random.default_rng(7), clinic=few)
    drawn = funnel(rows, replace(STUDY, slices=("clinic",)))
    table = drawn.table.set_index("group")
    assert table.loc["clinic: few", "patients"] == "fewer than 11"
    assert table.loc["clinic: some", "patients"] == "not shown"  # 60 minus 30 minus 22 is 8
    assert table.loc["clinic: most", "patients"] == "30"
    assert (
        (table.loc[["clinic: few", "clinic: some"], ["worth as many patients", "95 % limits"]] == "not shown")
        .all()
        .all()
    )
    axes = drawn.figure.axes[0]
    at = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", "D")]
    assert sorted(np.round(at, 6))[-1] == pytest.approx(np.sqrt(30), abs=1e-5)
    assert not any(abs(x - np.sqrt(n)) < 1e-3 for x in at for n in (8, 22))


def test_hidden_counts_of_predictions_cannot_be_worked_out_either():
    study = replace(STUDY, slices=("night",))
    common = {
        "model": "model",
        "target": "glucose",
        "metric": "mae",
        "scope": "at",
        "horizon": 60.0,
        "unit": "mg/dL",
    }
    groups = [("all", 40, 1000), ("by_night=a", 4, 40), ("by_night=b", 40, 700), ("by_night=c", 39, 260)]
    metrics = pd.DataFrame(
        [
            common | {"group": g, "n_subjects": s, "n_rows": n, "value": 9.0, "low": 8.0, "high": 10.0}
            for g, s, n in groups
        ]
    )
    table = results._groups(study, metrics, 11).set_index("group")
    assert table.loc["night: a", "predictions"] == "not shown"
    assert table.loc["night: c", "predictions"] == "not shown"  # or 1000 - 700 - 260 would be told
    assert table.loc["night: b", "predictions"] == "700"


def test_a_group_named_after_a_serial_number_or_an_id_is_not_named():
    rows = invented(
        np.random.default_rng(8), pump=lambda f: np.where(f["subject"] < 20, "881235", "KARIN-1957")
    )
    drawn = funnel(rows, replace(STUDY, slices=("pump",)), names={"KARIN-1957": "P07"})
    said = drawn.caption + drawn.alt + drawn.table.to_string()
    assert "881235" not in said
    assert "KARIN" not in said
    assert "P07" in said


def test_single_patients_are_not_drawn_where_they_could_be_counted(frame):
    some = frame[frame["subject"].isin(frame["subject"].unique()[:6])]
    section = results.for_whom(STUDY, metrics_of(some, STUDY, n_resamples=50), errors_of(some))
    assert "error-by-patient" not in [f.key for f in section.figures]
    assert "too few patients to show them one by one" in section.text


# -- numbers ------------------------------------------------------------------------------------------------------------


def test_every_number_of_the_figures_is_in_the_metrics(metrics, people):
    at = metrics[(metrics["scope"] == "at") & (metrics["metric"] == "mae")].set_index(
        ["model", "horizon", "group"], drop=False
    )
    drawn = figures.error_by_horizon(metrics, STUDY)
    for column, model in zip(
        drawn.table.columns[1:], ["model", "persistence", "ridge", "oracle"], strict=True
    ):
        for horizon, cell in zip(STUDY.horizons, drawn.table[column], strict=True):
            assert cell == say(at.loc[(model, horizon, "all")], STUDY, False)
    drawn = figures.by_slice(metrics, STUDY, 60.0)
    for _, row in drawn.table.iloc[1:].iterrows():
        group = f"by_{row['divided by'].replace(' ', '_')}={row['group']}"
        assert row.iloc[2] == say(at.loc[("model", 60.0, group)], STUDY, False)
    drawn = figures.by_patient(people, STUDY, 60.0)
    of = people[(people["model"] == "model") & (people["horizon"] == 60)].set_index("subject")["mae"]
    assert drawn.table.iloc[:, 1].tolist() == [f"{of[s]:.1f}" for s in drawn.table["patient"]]


def test_the_funnel_agrees_with_the_metrics(metrics, own):
    at = metrics[
        (metrics["metric"] == "mae") & (metrics["horizon"] == 60) & (metrics["model"] == "model")
    ].set_index("group")
    found = against_all(own, STUDY).set_index("group")
    for group, row in found[found["p"].notna()].iterrows():
        assert row["value"] == pytest.approx(at.loc[group, "value"])
        assert row["n_subjects"] == at.loc[group, "n_subjects"]
    at = metrics[
        (metrics["metric"] == "coverage") & (metrics["horizon"] == 60) & (metrics["model"] == "model")
    ].set_index("group")
    found = against_all(own, STUDY, "coverage").set_index("group")
    assert found.loc["by_sex=F", "value"] == pytest.approx(at.loc["by_sex=F", "value"])


def bias_row(**changes):
    row = {
        "test": "bias",
        "model": "model",
        "target": "glucose",
        "horizon": 60.0,
        "group": "all",
        "assumes_independence": False,
    }
    row |= {
        "n_subjects": 30,
        "n_rows": 5230,
        "icc": 0.0147,
        "design_effect": 3.54441,
        "minimum_detectable_effect": 2.197737,
    }
    return pd.DataFrame([row | changes])


def test_what_the_predictions_are_worth_is_rows_over_design_effect(people):
    said = results.worth(STUDY, bias_row())
    assert said[0] == "The 5,230 predictions of 30 patients are worth about 1,480 independent ones."  # 1475.6
    assert (
        said[1]
        == "With them, an average error of 2.2 mg/dL would be noticed 8 times in 10, and a smaller one less often."
    )
    assert "tell as much as" in results.worth(STUDY, bias_row(design_effect=1.0))[0]
    assert results.worth(STUDY, bias_row(n_subjects=7)) == []  # how alike rows are can't be told from so few
    assert len(results.worth(STUDY, bias_row(minimum_detectable_effect=np.nan))) == 1
    means = people[(people["model"] == "model") & (people["horizon"] == 60)]["bias"]
    least = 2.8 * means.std() / np.sqrt(len(means))
    assert (
        f"an average error of {least:.1f} mg/dL would be noticed"
        in results.worth(STUDY, bias_row(minimum_detectable_effect=np.nan), people)[1]
    )
    first = pd.concat([bias_row(test="spread", design_effect=2.0), bias_row()])
    assert "1,480" in results.worth(STUDY, first)[0]  # `bias` leads
    assert "2,620" in results.worth(STUDY, first[:1])[0]  # else what there is: 2615
    assert results.worth(STUDY, None) == results.worth(STUDY, bias_row(horizon=5.0)) == []
    assert results.worth(STUDY, bias_row(design_effect=np.nan)) == []


def test_what_is_saved_is_the_paired_difference(frame, metrics):
    paired = pd.concat(
        [difference(frame, STUDY, "model", o, n_resamples=100) for o in ("ridge", "persistence", "oracle")]
    )
    text = " ".join(map(str, results.accuracy(STUDY, metrics, differences=paired).text))
    row = paired[(paired["other"] == "ridge") & (paired["horizon"] == 60)].iloc[0]
    ridge = (frame["yhat"] - frame["y"]).abs()[(frame["model"] == "ridge") & (frame["horizon"] == 60)].mean()
    size = f"{-row['value']:.1f} mg/dL ({-row['high']:.1f} to {-row['low']:.1f}) smaller, which may be chance"
    assert row["low"] < row["value"] < 0 < row["high"]
    assert (
        f"Against the best simple method, a ridge regression, its error is {size}.".replace("(-", "(\u2212")
        in text
    )
    sure = paired.assign(value=-2.0, low=-3.0, high=-1.0)
    text = " ".join(map(str, results.accuracy(STUDY, metrics, differences=sure).text))
    assert f"is 2.0 mg/dL (1.0 to 3.0) smaller, which is {100 * 2 / ridge:.0f}\u00a0%." in text
    skill = metrics.query("model == 'model' and metric == 'skill' and horizon == 60 and group == 'all'").iloc[
        0
    ]
    assert (
        f"saves {100 * skill['value']:.0f}\u00a0% ({100 * skill['low']:.0f} to {100 * skill['high']:.0f}) of the error"
        in text
    )
    worse = paired.assign(value=2.0, low=1.0, high=3.0)
    text = " ".join(map(str, results.accuracy(STUDY, metrics, differences=worse).text))
    assert "2.0 mg/dL (1.0 to 3.0) LARGER, which is" in text
    worse = paired.assign(value=2.0, low=-1.0, high=5.0)
    text = " ".join(map(str, results.accuracy(STUDY, metrics, differences=worse).text))
    assert "2.0 mg/dL (\u22121.0 to 5.0) LARGER, which may be chance" in text


def test_with_too_few_patients_a_gain_has_no_interval_and_may_be_chance():
    "One patient's bootstrap has no width: '3.4 (3.4 to 3.4) smaller' would be certainty from nothing."
    one = example.predictions(patients=1, days=1)
    paired = pd.concat([difference(one, STUDY, "model", o, n_resamples=50) for o in ("ridge", "persistence")])
    made = results.accuracy(STUDY, metrics_of(one, STUDY, n_resamples=50), differences=paired)
    said = " ".join(map(str, made.text))
    assert re.search(r"its error is [\d.]+ mg/dL smaller, which may be chance", said)
    assert re.search(r"saves \d+\u00a0% of the error, which may be chance", said)


def test_a_ranking_that_is_worse_is_not_said_to_be_a_smaller_error():
    study, frame = example.STUDY_SCORE, example.predictions_score()
    frame = pd.concat(
        [frame, frame[frame["model"] == study.reference].assign(model="ridge")], ignore_index=True
    )
    metrics = metrics_of(frame, study, n_resamples=50)
    paired = difference(frame, study, study.primary, "ridge", n_resamples=50)
    for value, word in ((-0.05, "LOWER"), (0.05, "higher")):
        given = paired.assign(value=value, low=value - 0.01, high=value + 0.01)
        said = " ".join(map(str, results.accuracy(study, metrics, differences=given).text))
        assert f"(AUROC) is 0.05 (0.04 to 0.06) {word}." in said
        assert "its error is" not in said


def test_noise_stands_beside_the_error(metrics):
    floor = pd.DataFrame({"horizon": [15.0, 60.0, 999.0], "value": [2.0, 4.13, 9.0]})
    section = results.accuracy(STUDY, metrics, floor=floor, floor_source="the maker")
    error = metrics.query("model == 'model' and metric == 'mae' and horizon == 60 and group == 'all'")[
        "value"
    ].iloc[0]
    text = " ".join(map(str, section.text))
    assert "Measurement noise alone would leave 4.1 mg/dL to a perfect forecast. the maker. The two" in text
    left = np.sqrt(
        error**2 - 4.13**2
    )  # independent errors add up as squares, so 4.1 is far from a quarter of it
    assert f"about {left:.1f} mg/dL of the {error:.1f} mg/dL would remain" in text
    drawn = figures.error_by_horizon(metrics, STUDY, floor=floor)
    assert drawn.table["noise of measurement"].tolist() == ["2.0", "–", "–", "4.1"]
    assert "noise" not in " ".join(map(str, results.accuracy(STUDY, metrics, floor=floor[:1]).text))


def test_ranges_that_hold_too_much_are_named_as_well_as_those_that_hold_too_little(metrics):
    said = figures.by_slice(metrics, STUDY, 60.0, "coverage", level=0.9).caption
    at = metrics.query(
        "model == 'model' and metric == 'coverage' and horizon == 60 and group != 'all'"
    ).dropna(subset=["value"])
    for row, word in ((at.loc[at["value"].idxmin()], "from"), (at.loc[at["value"].idxmax()], "to")):
        assert f"{word} {say(row, STUDY)} where" in said
    assert "at its worst" not in said


def test_periods_are_compared_at_their_ends_and_no_change_is_not_claimed():
    made = pd.DataFrame({"period": ["week 1", "week 2", "week 3"], "at": [0, 1, 2], "n_subjects": 12})
    made = made.assign(value=[10.0, 30.0, 10.5], low=[9.0, 28.0, 9.4], high=[11.0, 32.0, 11.4])
    said = figures.over_time(made, STUDY, "typical error").caption
    assert (
        "10.0 mg/dL (9.0 to 11.0) in week 1 and 10.5 mg/dL (9.4 to 11.4) in week 3, which is no clear difference."
        in said
    )
    assert "did not" not in said


def test_the_best_possible_is_not_said_to_bound_who_knows_the_future(metrics):
    assert (
        "Without knowing the future, nobody could do better"
        in figures.error_by_horizon(metrics, STUDY).caption
    )


def test_periods_are_means_of_what_lies_in_them(own):
    found = results.periods(own)
    day = ((own["time"] - own["time"].min()).dt.total_seconds() // 86_400).astype(int)
    quarter = ((own["time"] - own["time"].min()).dt.total_seconds() // 21_600).astype(int)
    part = quarter if len(found) > 3 else day
    error = (own["yhat"] - own["y"]).abs()
    np.testing.assert_allclose(found["value"], error.groupby(part).mean())
    np.testing.assert_allclose(results.periods(own, metric="brier")["value"], (error**2).groupby(part).mean())
    seconds = own.assign(time=(own["time"] - own["time"].min()).dt.total_seconds())
    pd.testing.assert_frame_equal(results.periods(seconds), found)
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()


# -- two languages ------------------------------------------------------------------------------------------------------


def everything(study, frame, metrics, people, own):
    paired = pd.concat(
        [difference(frame, study, "model", o, n_resamples=20) for o in ("ridge", "persistence")]
    )
    floor = pd.DataFrame({"horizon": study.horizons, "value": 4.1})
    two = replace(
        study, targets=(study.targets[0], replace(study.targets[0], name="other")), outcome_slices=("range",)
    )
    doubled = pd.concat([metrics, metrics.assign(target="other")])
    few = metrics[metrics["horizon"] == 60]
    return [
        results.accuracy(study, metrics, bias_row(), paired, floor, "x"),
        results.accuracy(two, doubled, bias_row(design_effect=1.0), paired.assign(value=2.0), floor),
        results.accuracy(study, metrics[:0]),
        results.for_whom(two, metrics, people, rows=own),
        results.for_whom(study, few[few["group"] == "all"], people[:0]),
        results.for_whom(study, metrics, people[people["subject"] == "P01"], rows=own),
        results.ranges(study, metrics, 0.9),
        results.over_time(study, own),
        Section("x", figures=tuple(drawn_in_passing(few, people, study, own))),
    ]


def drawn_in_passing(few, people, study, own):
    from medlab.tell.page import figure

    at = pd.DataFrame(
        {"period": ["a", "b"], "value": [10.0, 15.0], "low": [9.0, 14.0], "high": [11.0, 16.0], "at": [0, 1]}
    )
    worse = people.assign(mae=np.where(people["model"] == "model", 99.0, people["mae"]))
    one = people[people["subject"] == "P01"]
    drawn = [
        figures.over_time(at, study, "x"),
        figures.over_time(at[::-1], study, "x"),
        figures.by_patient(worse, study, 60.0),
        figures.by_patient(people.assign(mae=np.arange(len(people)) * 1.0), study, 60.0),
        figures.by_patient(one, study, 60.0),
        figures.error_by_horizon(few, replace(study, horizons=(60.0,), key_horizons=())),
        figures.error_by_horizon(few.assign(value=9.0), study),
        figures.by_slice(few[few["group"] == "all"], study, 60.0),
        funnel(own.assign(by_sex="F", by_age_band="x", by_range=own["subject"].str[-1] < "5"), study),
        funnel(
            own[own["by_sex"] == "F"].assign(by_range="x", by_age_band="x"), replace(study, slices=("sex",))
        ),
    ]
    return [figure(d, f"x{i}") for i, d in enumerate(drawn) if d is not None]


def told(section: Section) -> str:
    "All that a section says, tables and descriptions too."
    parts = [
        section.title,
        section.text if isinstance(section.text, str) else " ".join(map(str, section.text)),
    ]
    for f in section.figures:
        labels = " ".join(re.findall(r'aria-label="([^"]*)"|<text[^>]*>([^<]*)', str(f.svg))[0])
        parts += [
            f.caption,
            re.sub(r"<caption>.*?</caption>", "", str(f.table)),
            labels,
        ]  # it repeats the beginning of the first
    tables = [*section.tables, *(table for d in section.details for table in d.tables)]
    return re.sub(r"<[^>]*>", " ", " ".join(map(str, [*parts, *tables])))


def numbers_in(text: str, language: str) -> list[str]:
    text = text.replace("&#39;", "'")
    between, point = (",", ".") if language == "en" else ("\u00a0", ",")
    text = re.sub(rf"(?<=\d){between}(?=\d{{3}}(?!\d))", "", text)
    text = text.replace("five ", "").replace("fem ", "")
    return sorted(re.findall(r"\d+(?:\.\d+)?", re.sub(rf"(?<=\d)\{point}(?=\d)", ".", text)))


def test_swedish_says_everything_with_the_same_numbers(frame, metrics, people, own):
    said, missing = {}, set()
    for language in ("en", "sv"):
        with speaking(language, "glucose") as now:
            said[language] = [told(s) for s in everything(STUDY, frame, metrics, people, own)]
            missing |= now.missing
    known = {"Glucose"}  # invented targets are nobody's to translate
    assert missing <= known, missing - known
    for english, swedish in zip(said["en"], said["sv"], strict=True):
        assert numbers_in(english, "en") == numbers_in(swedish, "sv")
        for word in (" the ", " of the ", "typical", "patients", "error", " and "):
            assert word not in re.sub(r"ISO 15197:2013, per reading", "", swedish), word


# -- what nobody wishes for ---------------------------------------------------------------------------------------------


def sections(study, frame, level=0.9, people=None, tests=None):
    metrics = metrics_of(frame, study, n_resamples=20)
    people = errors_of(frame) if people is None else people
    lead = study.leading_horizons[-1]
    own = frame[
        (frame["model"] == study.primary)
        & (frame["horizon"] == lead)
        & (frame["target"] == study.targets[0].name)
    ]
    made = [
        results.accuracy(study, metrics, tests, None, None, "", people),
        results.for_whom(study, metrics, people, 11, own),
        results.ranges(study, metrics, level),
        results.over_time(study, own),
    ]
    made = [section for section in made if section is not None]
    html = render(Page("T", "L", sections=tuple(made)))
    assert "nan" not in re.sub(r"<[^>]*>", " ", html).lower().split()
    return made, html


@pytest.mark.parametrize(
    "change",
    {
        "one patient": lambda f: f[f["subject"] == f["subject"].iloc[0]],
        "one row": lambda f: f[
            (f["subject"] == f["subject"].iloc[0]) & (f["time"] == f["time"].min()) & (f["horizon"] == 60)
        ],
        "one row per patient": lambda f: f[f["time"] == f["time"].min()],
        "five patients": lambda f: f[f["subject"].isin(f["subject"].unique()[:5])],
        "no ranges": lambda f: f.assign(lo=np.nan, hi=np.nan),
        "some ranges": lambda f: f.assign(lo=f["lo"].where(f["by_sex"] == "F")),
        "no time": lambda f: f.assign(time=None),
        "seconds": lambda f: f.assign(time=(f["time"] - f["time"].min()).dt.total_seconds()),
        "perfect": lambda f: f.assign(yhat=f["y"]),
        "always off by one": lambda f: f.assign(yhat=f["y"] + 1),
        "useless": lambda f: f.assign(yhat=f["yhat"].where(f["model"] != "model", 400.0)),
        "no reference": lambda f: f[f["model"] == "model"],
        "no groups": lambda f: f.drop(columns=["by_sex", "by_age_band", "by_range"]),
        "one group": lambda f: f.assign(by_sex="F", by_age_band="a", by_range="b"),
        "long names": lambda f: f.assign(by_sex=f["by_sex"] + "x" * 80),
        "categories": lambda f: f.astype(
            dict.fromkeys(["model", "split", "subject", "target", "by_sex"], "category")
        ),
        "groups that are missing": lambda f: f.assign(by_sex=f["by_sex"].where(f["by_sex"] == "F", None)),
    }.items(),
    ids=lambda item: item[0],
)
def test_unlucky_data_make_a_readable_page(frame, change):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made, html = sections(STUDY, change[1](frame))
    assert made[0].key == "how-accurate-is-it"
    assert len(html) > 5000


def test_without_rows_of_the_model_it_says_so(metrics, people):
    other = metrics[metrics["model"] != "model"]
    assert "no predictions of the model" in results.accuracy(STUDY, other).text
    assert results.for_whom(STUDY, other, people) is None
    assert results.ranges(STUDY, other, 0.9) is None
    empty = pd.DataFrame(columns=["time", "y", "yhat", "subject", "target", "horizon", "lo", "hi"])
    assert results.over_time(STUDY, empty) is None
    assert results.where_errors_lie(STUDY, empty) is None
    assert funnel(empty, STUDY) is None


def test_a_horizon_of_zero_is_not_said(frame):
    study = replace(STUDY, horizons=(0.0,), key_horizons=())
    _, html = sections(study, frame[frame["horizon"] == 60].assign(horizon=0.0))
    assert "ahead" not in re.sub(r"<[^>]*>", " ", html)
    assert "Error in every group" in html


def test_forty_targets_make_one_table_with_one_row_each(frame):
    base = STUDY.targets[0]
    targets = tuple(
        replace(base, name=f"t{i}", label=f"Analyte {i} " + "y" * 70, unit="U/L") for i in range(40)
    )
    study = replace(STUDY, targets=targets, horizons=(60.0,), key_horizons=(), slices=("sex",))
    small = frame[
        (frame["horizon"] == 60)
        & frame["model"].isin(["model", "persistence"])
        & (frame["time"].dt.hour % 6 == 0)
    ]
    frame = pd.concat([small.assign(target=f"t{i}") for i in range(40)])
    made, html = sections(study, frame, people=errors_of(frame))
    assert made[0].tables[0].count("<tr>") == 41
    assert "all 40 targets" in " ".join(map(str, made[0].text))
    assert "Analyte 0" in " ".join(map(str, made[0].text))
    assert len(html) < 400_000


def binary(patients=60):
    random, rows = np.random.default_rng(9), 10
    risk = np.clip(
        random.beta(2, 5, patients).repeat(rows) + 0.05 * random.standard_normal(patients * rows), 0.01, 0.99
    )
    frame = pd.DataFrame(
        {"subject": np.arange(patients).repeat(rows), "yhat": risk, "target": "sepsis", "horizon": 0.0}
    )
    frame["time"] = np.tile(np.arange(rows) * 86_400.0, patients)
    frame["y"] = (random.random(len(frame)) < risk).astype(float)
    study = replace(
        STUDY,
        kind="binary",
        targets=(replace(STUDY.targets[0], name="sepsis", label="Sepsis", unit="1", lower=0, upper=1),),
        horizons=(0.0,),
        key_horizons=(),
        slices=("sex",),
    )
    frame = frame.assign(lo=np.nan, hi=np.nan, model="model", by_sex=np.where(frame["subject"] % 2, "F", "M"))
    square = (frame["yhat"] - frame["y"]) ** 2
    groups = {"all": square} | {f"by_sex={s}": square[frame["by_sex"] == s] for s in "FM"}
    common = {"target": "sepsis", "scope": "at", "horizon": 0.0, "n_subjects": 60, "n_rows": 600, "unit": ""}
    made = [
        common
        | {
            "model": m,
            "group": g,
            "metric": "brier",
            "value": v.mean() * k,
            "low": v.mean() * k - 0.01,
            "high": v.mean() * k + 0.01,
        }
        for m, k in (("model", 1.0), ("persistence", 1.3))
        for g, v in groups.items()
    ]
    extra = {"model": "model", "group": "all", "low": 0.1, "high": 0.3}
    made += [common | extra | {"metric": m, "value": 0.2} for m in ("skill", "auroc", "calibration_slope")]
    return study, frame, pd.DataFrame(made), square


def test_a_binary_study_leads_with_its_brier_score():
    study, frame, metrics, square = binary()
    section = results.accuracy(
        study, metrics, bias_row(test="calibration_in_the_large", target="sepsis", horizon=0.0)
    )
    assert f"Brier score is {square.mean():.4f}" in section.figures[0].caption
    assert "worth about 1,480" in " ".join(map(str, section.text))
    assert "mg/dL" not in told(section)
    groups = results.for_whom(study, metrics, errors_of(frame.assign(split="test")), rows=frame)
    assert (
        not groups.figures
    )  # no Brier score of groups or of single patients: it grows with the share of events
    assert "enough events" in groups.text
    time = results.over_time(study, frame)
    assert "1 is right" in time.figures[0].caption
    ratio = results.periods(frame, metric="observed_expected")["value"]
    day = frame.groupby(frame["time"] // 86_400)
    np.testing.assert_allclose(ratio, day["y"].sum() / day["yhat"].sum())
    found = results.periods(frame, metric="brier")
    np.testing.assert_allclose(found["value"], square.groupby(frame["time"] // 86_400).mean())
    assert results.where_errors_lie(study, frame) is None


def test_a_score_has_no_errors_over_time():
    study, frame, metrics, _ = binary()
    study = replace(study, kind="score")
    assert results.over_time(study, frame) is None
    assert "AUROC" in results.accuracy(study, metrics).figures[0].caption


def test_labels_of_a_crowded_funnel_do_not_cover_each_other(own):
    "Twelve groups, all of them special."
    rank = own["subject"].rank(method="dense").astype(int)
    rows = own.assign(by_sex=rank % 2, by_age_band=rank % 3, by_range=own["time"].dt.hour // 4)
    rows["yhat"] += np.where(rows["by_range"] % 2, 40, 0) * np.sign(rows["yhat"] - rows["y"])
    drawn = funnel(rows, STUDY)
    drawn.figure.draw_without_rendering()
    renderer = FigureCanvasAgg(drawn.figure).get_renderer()
    texts = [x for x in drawn.figure.axes[0].texts if ":" in x.get_text() and "all" not in x.get_text()]
    boxes = [x.get_window_extent(renderer) for x in texts]
    assert len(boxes) >= 5
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    assert not overlaps
