"Single predictions as a stranger reads them: agreement, traces, fans, residuals and the worst patients."

import ast
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medlab.core.seeds import stream
from medlab.core.study import Target
from medlab.judge import agreement as judged
from medlab.judge.agreement import limits_of_agreement
from medlab.judge.dependence import codes
from medlab.judge.metrics import per_subject as errors_of
from medlab.judge.patterns import memory
from medlab.judge.residuals import cells
from medlab.tell import diagnostics, example, fans, points, worst
from medlab.tell.language import speaking
from medlab.tell.privacy import pseudonyms
from medlab.tell.tables import interval

warnings.simplefilter("error", RuntimeWarning)
pytestmark = pytest.mark.filterwarnings("error")

STUDY = replace(example.STUDY, name="glucose")  # so that the catalogue of glucose is known
MARKS = {"low": 70.0, "high": 180.0}


@pytest.fixture(scope="module")
def frame():
    made = example.predictions(patients=16, days=2)
    made.attrs["level"] = 0.9
    return made


@pytest.fixture(scope="module")
def names(frame):
    return pseudonyms(frame["subject"], "salt")


def of(frame, horizon=60.0):
    return frame[(frame["model"] == "model") & (frame["horizon"] == horizon)]


def patient(frame):
    return frame[(frame["model"] == "model") & (frame["subject"] == frame["subject"].iloc[0])]


def walk(n=600, step=5, seed=3):
    "A curve without a period, and rows at every step for horizons of 5 and 60 minutes that read it."
    curve = np.cumsum(stream(seed, "walk").normal(0, 4, n + 40)) + 150
    at, rows = np.arange(20, n), []
    for horizon in (5.0, 60.0):
        when = pd.Timestamp("2023-03-06") + pd.to_timedelta(step * at, "min")
        about = at + int(horizon // step)
        rows.append(pd.DataFrame({"subject": "A", "time": when, "horizon": horizon, "y": curve[about], "i": about}))  # fmt: skip
    return curve, pd.concat(rows, ignore_index=True).assign(model="model", target="glucose")


def everything(frame, names, study=STUDY):
    "All blocks of all four modules as one text, pictures included."
    own = frame[frame["model"] == study.primary]
    lead = own[own["horizon"] == own["horizon"].max()]
    drawn = [
        points.agreement(lead, study),
        points.trace(lead[lead["subject"] == lead["subject"].iloc[0]], study, "P01", MARKS),
        points.on_grid(lead, study, np.full(len(lead), "A"), [], [], "DTS", 400.0),
    ]
    blocks = [
        fans.section(study, own, 0.9, MARKS),
        diagnostics.section(study, own),
        worst.section(study, frame, errors_of(frame), names, MARKS),
    ]
    return " ".join(
        [str(d.caption) + d.alt + d.table.to_csv(sep="\t", index=False) for d in drawn]
        + [str(b) for b in blocks]
    )


# ---- agreement


def test_the_limits_of_agreement_are_those_of_the_judge(frame):
    rows = of(frame)
    drawn = points.agreement(rows, STUDY)
    found = judged.limits_of_agreement((rows["yhat"] - rows["y"]).to_numpy(), rows["subject"])
    assert interval(*found.lower, 1) in drawn.caption
    assert interval(*found.upper, 1) in drawn.caption


def test_the_tilt_is_the_judges_proportional_bias(frame):
    study = replace(STUDY, key_horizons=(60.0,))
    (cell,) = cells(frame, study, n_resamples=10)
    ours = next(r for r in judged.agreement(cell) if r["test"] == "proportional_bias")
    said = points.agreement(of(frame), STUDY).caption
    assert f"the lower it reads, by {-ours['effect']:.0f}\u00a0%" in said
    assert "(dotted line)" in said


def test_limits_say_how_many_errors_were_inside_and_speak_of_nobody_new(frame):
    rows = of(frame)
    found = limits_of_agreement((rows["yhat"] - rows["y"]).to_numpy(), codes(rows["subject"])[0])
    low, high = found.lower[0], found.upper[0]
    inside = (rows["yhat"] - rows["y"]).between(low, high).mean()
    said = points.agreement(rows, STUDY).caption
    assert f"; here {100 * inside:.0f} of 100 were." in said
    assert "someone new" not in said  # the model may have seen these people before


def test_an_average_error_whose_interval_holds_zero_is_neither_high_nor_low(frame):
    rows = of(frame)
    offsets = np.where(rows["subject"].rank(method="dense") % 2 == 0, 20.0, -20.0)
    said = points.agreement(rows.assign(yhat=rows["y"] + offsets + 0.5), STUDY).caption
    assert "which may be chance" in said
    assert "too high" not in said
    assert "too low" not in said
    said = points.agreement(rows.assign(yhat=rows["yhat"] + 40), STUDY).caption
    assert "Averaged over patients, it reads" in said
    assert "too high" in said


def test_a_forecast_that_never_moves_does_not_lose_more_than_there_is(frame):
    rows = of(frame)
    said = points.agreement(rows.assign(yhat=150.0), STUDY).caption
    assert (
        "the lower it reads, by 200\u00a0%" in said
    )  # the mean of both rises by half of what the truth does
    assert "too small" not in said


def test_the_lowest_predictions_are_counted_and_one_patient_is_no_bell(frame):
    few = frame[frame["subject"] == frame["subject"].iloc[0]]
    cell = diagnostics.errors_of(few[few["horizon"] == 60].iloc[:96], STUDY)
    assert "Of the 20 lowest predictions" in diagnostics.along(cell).caption  # a tenth would be 9
    said = diagnostics.bell(cell).caption
    assert said.startswith("5\u00a0% of errors are below")  # nothing on the bell curve without an interval
    assert "differ" not in said


def test_a_patient_who_is_hard_for_all_is_not_said_to_swing(frame, names):
    made = worst.section(STUDY, frame, None, names)
    text = str(made.tables) + " ".join(str(part.text) for part in made.sections)
    assert "swing" not in text
    assert "worst stretch of its patient, not a usual one" in str(made.text)


def test_a_level_error_has_no_dotted_line(frame):
    rows = of(frame)
    noise = stream(0, "level").normal(0, 10, len(rows)) + stream(0, "each").normal(0, 3, 16).repeat(len(rows) // 16)  # fmt: skip
    middle = rows["y"] - noise / 2  # the mean of both does not depend on the noise
    drawn = points.agreement(rows.assign(y=middle, yhat=middle + noise), STUDY)
    assert "dotted" not in drawn.caption


def test_clipped_truths_are_said_apart(frame):
    rows = of(frame).assign(by_censored=False)
    rows = rows[rows["y"].between(41, 399)]
    assert "limit of measurement" not in points.agreement(rows, STUDY).caption
    marked = rows["by_censored"].to_numpy().copy()
    marked[: len(rows) // 10] = True
    drawn = points.agreement(rows.assign(by_censored=marked), STUDY)
    assert "10.0\u00a0% of the true values were at a limit" in drawn.caption
    stuck = rows.assign(y=np.where(np.arange(len(rows)) < len(rows) // 5, 400.0, rows["y"]))
    assert "20.0\u00a0% of the true values were at a limit" in points.agreement(stuck, STUDY).caption


# ---- traces and fans


def test_time_in_a_trace_starts_at_zero_and_suits_its_length(frame):
    rows = of(patient(frame))
    day = points.trace(rows.iloc[:97], STUDY, "P01")
    assert "P01 over 24 hours" in day.caption
    assert "minutes" in points.trace(rows.iloc[:9], STUDY).table.columns
    seconds = replace(STUDY, time_unit="s since start")
    numbers = rows.assign(time=(rows["time"] - rows["time"].min()).dt.total_seconds() + 9e6)
    assert points.trace(numbers.iloc[:97], seconds, "P01").caption == day.caption
    assert "predictions, in order" in points.trace(rows.assign(time=None), STUDY).table.columns


def test_a_fan_counts_what_was_inside_as_one_would_by_hand(frame):
    drawn = fans.fans(frame, STUDY, level=0.9)
    own = frame[frame["model"] == "model"]
    error = (own["yhat"] - own["y"]).abs().groupby(own["subject"]).mean().sort_values()
    one = own[own["subject"] == error.index[8]]  # the worse of the two in the middle of sixteen
    made = np.sort(one["time"].unique())
    spans = [np.ptp(one.loc[(one["time"] >= m) & (one["time"] <= m + pd.Timedelta("6h")), "y"]) for m in made if m + pd.Timedelta("6h") <= made[-1]]  # fmt: skip
    start = made[int(np.argmax(spans))]
    shown = one[one["time"].isin([start + pd.Timedelta(f"{90 * i}min") for i in range(4)])]
    inside = ((shown["y"] >= shown["lo"]) & (shown["y"] <= shown["hi"])).sum()
    assert len(shown) == 16
    assert (
        f"Of 16 measured values ahead, {inside} ({inside / 16:.0%}) were inside".replace("%", "\u00a0%")
        in drawn.caption
    )
    assert "which promises 90\u00a0%" in drawn.caption
    widths = (shown["hi"] - shown["lo"]).groupby(shown["horizon"]).mean()
    assert f"{widths.iloc[0]:.0f} mg/dL wide 15 min ahead and {widths.iloc[-1]:.0f} mg/dL wide 60 min" in drawn.caption  # fmt: skip


def test_a_study_with_one_horizon_has_no_fan(frame):
    assert fans.section(STUDY, of(frame)) is None
    assert fans.section(STUDY, frame.iloc[:0]) is None
    assert fans.section(replace(STUDY, kind="binary"), frame) is None


# ---- residuals


def test_the_memory_drawn_at_one_horizon_is_the_one_that_is_tested(frame):
    study = replace(STUDY, key_horizons=(60.0,))
    (cell,) = cells(frame, study, n_resamples=10)
    effect = next(r for r in memory(cell) if r["test"] == "memory")["effect"]
    drawn = diagnostics.repeats(diagnostics.errors_of(frame, study))
    assert f"made 60 min apart are correlated {effect:.2f}".replace("-", "\u2212") in drawn.caption


def test_normal_errors_follow_the_bell_and_heavy_ones_do_not(frame):
    rng, rows = stream(0, "bell"), of(frame)
    normal = rows.assign(yhat=rows["y"] + rng.normal(0, 10, len(rows)))
    heavy = rows.assign(yhat=rows["y"] + 10 * rng.standard_t(2, len(rows)))
    even = rows.assign(yhat=rows["y"] + rng.uniform(-10, 10, len(rows)))
    said = [diagnostics.bell(diagnostics.errors_of(f, STUDY)).caption for f in (normal, heavy, even)]
    assert "do not clearly differ from" in said[0]
    assert "reach farther" in said[1]
    assert "reach less far" in said[2]


def test_the_running_band_finds_errors_that_grow(frame):
    rows = of(frame)
    yhat = stream(0, "level").uniform(100, 300, len(rows))
    grown = rows.assign(yhat=yhat, y=yhat + stream(0, "noise").normal(0, 1, len(rows)) * yhat / 10)
    caption = diagnostics.along(diagnostics.errors_of(grown, STUDY)).caption
    assert 2.2 < float(re.search(r"That is ([\d.]+) times", caption)[1]) < 3.4  # 290 / 110, less chance


def test_patients_are_not_counted_where_they_are_few(frame):
    few = frame[frame["subject"].isin(frame["subject"].unique()[:8])]
    assert diagnostics.in_order(diagnostics.errors_of(few, STUDY)) is None
    assert diagnostics.in_order(diagnostics.errors_of(few, STUDY), smallest=0) is not None
    drawn = diagnostics.in_order(diagnostics.errors_of(frame, STUDY))
    assert re.search(r"leaves out zero in: (fewer than 11|not shown|1[1-6])\.", drawn.caption)


# ---- causes


def test_a_forecast_that_is_the_truth_delayed_is_late_by_that_lag():
    curve, rows = walk()
    for steps in (1, 4, 12):
        found = worst.cause(rows.assign(yhat=curve[rows["i"] - steps]), STUDY, 60.0)
        assert found.which == "late"
        assert found.lag == 5 * steps
        assert found.late == pytest.approx(1 - found.offset)
    assert found.words(STUDY) == "late by about 60 min"


def test_an_offset_a_flat_and_an_erratic_forecast_are_called_so():
    _, rows = walk()
    noise = stream(1, "noise").normal(0, 15, len(rows))
    high = worst.cause(rows.assign(yhat=rows["y"] + 25), STUDY, 60.0)
    assert (high.which, high.offset, high.words(STUDY)) == ("offset", pytest.approx(1), "reads too high throughout")  # fmt: skip
    low = worst.cause(rows.assign(yhat=rows["y"] - 25 + noise / 5), STUDY, 60.0)
    assert low.words(STUDY) == "reads too low throughout"
    assert worst.cause(rows.assign(yhat=rows["y"] + noise), STUDY, 60.0).words(STUDY) == "erratic"
    mean = rows["y"].groupby(rows["horizon"]).transform("mean")
    flat = worst.cause(rows.assign(yhat=mean + 0.3 * (rows["y"] - mean)), STUDY, 60.0)
    assert flat.words(STUDY) == "keeps too close to the middle"
    assert flat.slope == pytest.approx(0.3, abs=0.1)
    wild = worst.cause(rows.assign(yhat=mean + 1.8 * (rows["y"] - mean)), STUDY, 60.0)
    assert wild.words(STUDY) == "exaggerates rises and falls"


def test_the_shares_add_up_and_do_not_depend_on_the_order_of_rows(frame):
    one = patient(frame)
    found = worst.cause(one, STUDY, 60.0)
    assert found.offset + found.late + found.size + found.rest == pytest.approx(1)
    assert min(found.offset, found.late, found.size, found.rest) >= -1e-9
    again = worst.cause(one.sample(frac=1, random_state=1), STUDY, 60.0)
    assert again.lag == found.lag
    assert again.late == pytest.approx(found.late)


def test_swings_need_the_reference_to_be_worse_too():
    table = pd.DataFrame({"error": [10.0, 10, 20, 20], "reference": [20.0, 20, 40, 20]}, index=list("ABCD"))
    table = pd.concat([table, table.iloc[:2].set_axis(["E", "F"])])
    assert worst.swings(table, "C")
    assert not worst.swings(table, "D")
    assert not worst.swings(table.assign(reference=np.nan), "C")


# ---- the gallery


def test_patients_are_ranked_by_their_own_error_and_carry_the_judges_numbers(frame, names):
    made = worst.section(STUDY, frame, errors_of(frame), names)
    table = errors_of(frame).query("model == 'model' and horizon == 60").sort_values("mae", ascending=False)
    first = [names[s] for s in table["subject"].astype(str).head(5)]
    assert re.findall(r'<tr id="worst-(p\d+)"', str(made.tables[0])) == [p.lower() for p in first]
    assert [s.title[:3] for s in made.sections] == first[:3]
    assert f"off by {table['mae'].iloc[0]:.1f} mg/dL on average" in made.sections[0].text
    assert f"median over all is {table['mae'].median():.1f}" in made.sections[0].text


def test_a_patient_with_three_bad_rows_is_not_the_worst(frame, names):
    bad = frame["subject"].unique()[0]
    few = frame[(frame["subject"] != bad) | (frame.groupby(["subject", "model", "horizon"]).cumcount() < 3)]
    few = few.assign(yhat=np.where(few["subject"] == bad, 400.0, few["yhat"]))
    made = worst.section(STUDY, few, None, names)
    assert names[bad].lower() not in re.findall(r'<tr id="worst-(p\d+)"', str(made.tables[0]))


def test_the_stretch_is_the_one_with_the_largest_mean_error(frame):
    rows = of(patient(frame)).reset_index(drop=True)
    rows["yhat"] = rows["y"] + np.where(rows.index.isin(range(80, 176)), 50.0, 1.0)
    part = worst.excerpt(rows, STUDY)
    assert list(part.index) == list(range(80, 176))
    seconds = rows.assign(time=np.arange(len(rows)) * 60.0)  # all within four hours: the whole record
    assert len(worst.excerpt(seconds, replace(STUDY, time_unit="s since start"))) == len(rows)


def test_with_few_patients_one_is_shown_and_none_is_counted(frame, names):
    for n in (1, 2, 8):
        few = frame[frame["subject"].isin(frame["subject"].unique()[:n])]
        made = worst.section(STUDY, few, errors_of(few), names, MARKS)
        assert len(made.sections) == 1
        assert "median" not in str(made.tables) + str([s.text for s in made.sections])
        assert "too few patients to compare" in made.text[-1]
    assert len(worst.section(STUDY, few, None, names, smallest=0).sections) == 3


def test_errors_may_come_with_ids_or_with_pseudonyms(frame, names):
    table = errors_of(frame)
    renamed = table.assign(subject=table["subject"].astype(str).map(names)).rename(columns={"n_rows": "n"})
    one, two, three = (worst.section(STUDY, frame, given, names) for given in (table, renamed, None))
    assert one == two == three


def test_an_id_without_a_pseudonym_stops_the_report_and_is_not_repeated(frame, names):
    lost = {k: v for k, v in names.items() if k != frame["subject"].iloc[0]}
    with pytest.raises(ValueError, match=r"1 subject\(s\) have no pseudonym") as error:
        worst.section(STUDY, frame, None, lost)
    assert frame["subject"].iloc[0] not in str(error.value)


# ---- privacy, language, odd input


def test_no_planted_id_or_date_comes_out(frame):
    ids = {s: f"KARIN-19{i}57-881235" for i, s in enumerate(frame["subject"].unique())}
    planted = frame.assign(subject=frame["subject"].map(ids), by_clinic="Norrtull-77")
    planted["time"] = planted["time"] + (pd.Timestamp("2021-02-17 04:13") - planted["time"].min())
    text = everything(planted, pseudonyms(ids.values(), "salt"))
    for secret in ("KARIN", "881235", "2021-02", "17 Feb", "2/17", "04:13", "Norrtull"):
        assert secret not in text


def digits(text):
    "All numbers of a page's text, in any order, as English writes them."
    cut = r"<svg.*?</svg>|<caption>.*?</caption>|aria-label=\"[^\"]*\""  # captions repeat a finding, cut to length
    text = re.sub(cut, " ", text, flags=re.DOTALL)
    text = text.replace("\\xa0", "\u00a0").replace("\\u202f", "\u202f").replace("\u2212", "-")
    text = re.sub(r"(?<=\d)[\u00a0\u202f](?=\d{3})", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)(?!\d{3},\d)", "", text)
    return sorted(re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d)", ".", text)))


def test_swedish_is_complete_and_has_the_same_numbers(frame, names):
    english = everything(frame, names)
    with speaking("sv", "glucose") as now:
        swedish = everything(frame, names)
    assert not now.missing, now.missing
    assert digits(swedish) == digits(english)
    for left in ("measured", " inside", "patients", " late by", "the model"):
        assert left not in re.sub(r"key='[^']*'|<svg.*?</svg>", "", swedish, flags=re.DOTALL)


def test_every_sentence_in_the_catalogues_has_its_places():
    from importlib.resources import files

    from babel.messages.pofile import read_po

    for module in ("points", "fans", "diagnostics", "worst"):
        path = files("medlab.tell") / "translations" / "sv" / f"{module}.po"
        tree = ast.parse((files("medlab.tell") / f"{module}.py").read_text(encoding="utf-8"))
        source = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        with path.open("rb") as file:
            for message in read_po(file, locale="sv", abort_invalid=True):
                if message.id:
                    assert message.id in source, f"{module}.po has '{message.id}', which {module}.py does not"
                    places = [sorted(re.findall(r"{\w+}", text)) for text in (message.id, message.string)]
                    assert places[0] == places[1]


def odd(frame):
    lead = frame[frame["horizon"] == 60]
    one = frame[frame["subject"] == frame["subject"].iloc[0]]
    yield "one patient", STUDY, one
    yield "one row", STUDY, one[one["model"] == "model"].iloc[:1]
    yield "two rows", STUDY, of(one).iloc[:2]
    yield "one row a patient", STUDY, lead.groupby(["model", "subject"]).head(1)
    yield "one horizon", STUDY, lead
    yield "no rows of the model", STUDY, frame[frame["model"] != "model"]
    yield "no reference", STUDY, frame[frame["model"] == "model"]
    yield "no ranges", STUDY, frame.assign(lo=np.nan, hi=np.nan)
    yield "a perfect model", STUDY, frame.assign(yhat=frame["y"])
    yield "constant predictions", STUDY, frame.assign(yhat=150.0)
    yield "constant everything", STUDY, frame.assign(y=140.0, yhat=150.0)
    yield "worse than useless", STUDY, frame.assign(yhat=400 - frame["yhat"])
    yield "missing values", STUDY, frame.assign(y=frame["y"].where(np.arange(len(frame)) % 3 > 0))
    yield "nothing but missing values", STUDY, frame.assign(y=np.nan)
    yield "no clock", STUDY, frame.assign(time=None)
    since = (frame["time"] - frame["time"].min()).dt.total_seconds()
    yield "seconds", replace(STUDY, time_unit="s since start"), frame.assign(time=since)
    yield "all at one time", STUDY, frame.assign(time=frame["time"].iloc[0]).drop_duplicates(["model", "subject", "horizon"])  # fmt: skip
    yield "irregular times", STUDY, frame.assign(time=frame["time"] + pd.to_timedelta(stream(0, "odd").integers(0, 400, len(frame)), "s"))  # fmt: skip
    now = replace(STUDY, horizons=(0.0,), key_horizons=())
    yield "no horizon", now, lead.assign(horizon=0.0)
    long = "a quantity with a name that is much longer than anybody who draws figures would like it to be"
    many = [Target(f"t{i:02}", long, "mmol/L", 0, 500, 5, "x", 15, 0.15, "x") for i in range(40)]
    few = [lead.groupby(["model", "subject"]).head(4).assign(target=f"t{i:02}") for i in range(40)]
    yield "forty targets", replace(STUDY, targets=tuple(many)), pd.concat(few, ignore_index=True)
    yield "probabilities", replace(STUDY, kind="binary"), frame.assign(y=1.0, yhat=0.3)
    yield "scores", replace(STUDY, kind="score"), frame.assign(y=1.0, yhat=0.3)


def test_odd_input_gives_a_block_or_nothing_but_no_crash_and_no_warning():
    few = example.predictions(patients=12, days=1).query("model in ('model', 'persistence')")
    names = pseudonyms(few["subject"], "salt")
    for what, study, rows in odd(few.reset_index(drop=True)):
        with speaking("sv", "glucose"):
            made = [
                fans.section(study, rows, 0.9, MARKS),
                diagnostics.section(study, rows, smallest=0),
                worst.section(study, rows, None, names, MARKS),
                points.agreement(of(rows, study.horizons[-1]), study, study.targets[0].name),
            ]
        assert "CLINIC" not in str(made), what
        assert not re.search(r"\bnan\b|\binf\b", re.sub(r"<svg.*?</svg>", "", str(made))), what
        if study.kind != "regression" or what in ("no rows of the model", "nothing but missing values"):
            assert made == [None] * 4, what


def test_two_hundred_thousand_rows_are_drawn_as_few(names):
    rng, n, each = stream(0, "large"), 200, 1000
    time_ = pd.Timestamp("2023-01-01") + pd.to_timedelta(15 * np.arange(each), "min")
    y = 150 + np.cumsum(rng.normal(0, 3, (n, each)), axis=1)
    large = pd.DataFrame({"model": "model", "split": "test", "subject": np.repeat([f"S-{i}" for i in range(n)], each), "time": np.tile(time_, n), "target": "glucose", "horizon": 60.0, "y": y.ravel(), "yhat": y.ravel() + rng.normal(0, 9, n * each)})  # fmt: skip
    large = large.assign(lo=large["yhat"] - 15, hi=large["yhat"] + 15)
    known = pseudonyms(large["subject"], "salt")
    points.agreement(large.iloc[:5000], STUDY)  # imports
    for make in (
        lambda: worst.section(STUDY, large, None, known),
        lambda: diagnostics.section(STUDY, large),
        lambda: points.agreement(large, STUDY),
    ):
        assert len(str(make())) < 2_000_000  # what is shown does not grow with the number of rows
