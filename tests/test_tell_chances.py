"Chances, decisions and ranks in the report: right numbers, nobody given away, both languages, and nothing that crashes."

import itertools
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medlab.core.seeds import stream
from medlab.judge.calibration_curve import curve
from medlab.judge.metrics import table as metrics_of
from medlab.tell import chances, curves, example
from medlab.tell.language import speaking
from medlab.tell.svg import to_svg

RISK, SCORE = example.STUDY_RISK, example.STUDY_SCORE


@pytest.fixture(scope="module")
def risk():
    frame = example.predictions_risk()
    return frame, metrics_of(frame, RISK, n_resamples=200)


@pytest.fixture(scope="module")
def score():
    frame = example.predictions_score()
    return frame, metrics_of(frame, SCORE, n_resamples=200)


def everything(study, frame, metrics, **settings):
    "All text of the sections, as one string, with figures as SVG."
    found = chances.sections(study, frame, metrics, **({"n_resamples": 50} | settings))
    parts = []
    for one in found:
        parts += [one.title, *([one.text] if isinstance(one.text, str) else one.text), *map(str, one.tables)]
        for drawn in one.figures:
            parts += [drawn.caption, str(drawn.table), str(drawn.svg)]
        for more in one.details:
            parts += [more.summary, *more.text]
    return found, "\n".join(map(str, parts))


def numbers(text, comma=False):
    "All numbers of a text, in order, as floats."
    text = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", text, flags=re.DOTALL).replace("\u2212", "-")
    text = re.sub(r"(?<=\d)[\u00a0\u202f](?=\d{3}\b)", "", text)
    found = re.findall(r"-?\d+(?:,\d+)?" if comma else r"-?\d+(?:\.\d+)?", text)
    return [float(one.replace(",", ".")) for one in found]


# ------------------------------------------------------------------------------------------------ right numbers


def test_captions_say_the_numbers_of_the_metrics_table(risk, score):
    frame, metrics = risk
    rows = curves.rows_of(frame, RISK)
    own = metrics.query("model == 'model' and group == 'all'").set_index("metric")
    caption = curves.calibration(rows, RISK, metrics, n_resamples=50).caption
    for name in ("observed_expected", "calibration_slope"):
        value, low, high = own.loc[name, ["value", "low", "high"]]
        assert f"{value:.2f} ({low:.2f} to {high:.2f})" in caption
    frame, metrics = score
    drawn = curves.ranking(curves.rows_of(frame, SCORE), None, SCORE, metrics)
    value, low, high = metrics.query("model == 'model' and group == 'all' and metric == 'auroc'").iloc[0][["value", "low", "high"]]  # fmt: skip
    assert f"{100 * value:.0f} ({100 * low:.0f} to {100 * high:.0f}) of 100 pairs" in drawn.caption


def test_the_calibration_caption_says_what_the_curve_says(risk):
    frame, metrics = risk
    rows = curves.rows_of(frame, RISK)
    drawn = curves.calibration(rows, RISK, metrics, n_resamples=200)
    said, value, low, high = re.search(r"said (\d+)\u00a0%, the event came in (\d+) \((\d+) to (\d+)\) of 100", drawn.caption).groups()  # fmt: skip
    at = [int(said) / 100]
    found = curve(rows["y"], rows["yhat"], rows["subject"], at, rng=stream(0, "x"), n_resamples=400).iloc[0]
    assert abs(100 * found["observed"] - int(value)) <= 0.51
    assert abs(100 * found["low"] - int(low)) <= 2
    assert abs(100 * found["high"] - int(high)) <= 2


def test_the_decision_caption_says_net_benefit_as_dcurves_does(risk):
    dcurves = pytest.importorskip("dcurves")
    rows = curves.rows_of(risk[0], RISK)
    drawn = chances.decisions(rows, None, RISK, n_resamples=50)
    data = pd.DataFrame({"y": rows["y"].to_numpy(), "p": rows["yhat"].to_numpy()})
    theirs = dcurves.dca(data=data, outcome="y", modelnames=["p"], thresholds=[0.05, 0.1, 0.2, 0.3])
    model = 100 * theirs[theirs["model"] == "p"].set_index("threshold")["net_benefit"]
    shown = [float(cell.split(" (")[0]) for cell in drawn.table["the model"]]
    np.testing.assert_allclose(shown, model.to_numpy(), atol=0.051)
    assert f"is worth {model.loc[0.1]:.1f} (" in drawn.caption
    everybody = 100 * theirs[theirs["model"] == "all"].set_index("threshold")["net_benefit"]
    assert f"treating everybody is worth {everybody.loc[0.1]:.1f}" in drawn.caption


def test_what_is_called_clearly_better_is_better_than_both():
    "A perfect model, one that knows nothing, and one whose risks are all too low to act on."
    found = {}
    for name, gain, factor in (("good", 1.0, 1.0), ("useless", 0.0, 1.0), ("low", 1.0, 0.02)):
        frame = example.predictions_risk(600, gain=gain, bold=1.0)
        rows = curves.rows_of(frame.assign(yhat=factor * frame["yhat"]), RISK)
        found[name] = chances.decisions(rows, None, RISK, n_resamples=200).caption
    assert "is clearly better than both" in found["good"]
    assert not found["good"].startswith("At no threshold")
    for name in ("useless", "low"):
        assert found[name].startswith("At no threshold"), found[name]


def test_runs_of_good_thresholds():
    t = np.array([1, 2, 3, 4, 5])
    assert chances._ranges(t, np.array([0, 1, 1, 0, 1], bool)) == [(2, 3), (5, 5)]
    assert chances._ranges(t, np.zeros(5, bool)) == []
    assert chances._ranges(t, np.ones(5, bool)) == [(1, 5)]


def test_thresholds_are_a_parameter(risk):
    drawn = chances.decisions(curves.rows_of(risk[0], RISK), None, RISK, (0.02, 0.08), n_resamples=50)
    assert list(drawn.table["acting from"]) == ["2\u00a0%", "8\u00a0%"]
    one = chances.decisions(curves.rows_of(risk[0], RISK), None, RISK, (0.15,), n_resamples=50)
    assert "15\u00a0%" in one.caption


def test_the_roc_curve_is_that_of_scikit_learn(score):
    from sklearn.metrics import precision_recall_curve, roc_curve

    rows = curves.rows_of(score[0], SCORE, "warning_score")
    ours = curves.ranks(rows)
    false, found, _ = roc_curve(rows["y"], rows["yhat"], drop_intermediate=False)
    np.testing.assert_allclose(np.r_[0, ours["false"]], false)
    np.testing.assert_allclose(np.r_[0, ours["found"]], found)
    precision, recall, _ = precision_recall_curve(rows["y"], rows["yhat"])
    np.testing.assert_allclose(ours["precision"], precision[:-1][::-1])
    np.testing.assert_allclose(ours["found"], recall[:-1][::-1])


def test_order_of_rows_and_copies_of_rows_change_no_word(risk):
    frame, metrics = risk
    once = everything(RISK, frame, metrics)[1]
    assert everything(RISK, frame.sample(frac=1, random_state=1), metrics)[1] == once
    twice = pd.concat([frame, frame], ignore_index=True)
    a, b = (chances.sections(RISK, f, metrics, n_resamples=50) for f in (frame, twice))
    captions = lambda found: [drawn.caption for one in found for drawn in one.figures]
    assert captions(a) == captions(b)
    assert str(a[1].tables[0]) == str(b[1].tables[0])


# ------------------------------------------------------------------------------------------------ nobody given away


@pytest.mark.parametrize("patients", [30, 60, 90, 120, 200, 400])
def test_no_difference_of_shown_numbers_is_a_small_group(patients):
    frame = example.predictions_risk(patients)
    rows = curves.rows_of(frame, RISK)
    cuts = (0.05, 0.1, 0.2, 0.3)
    outer, inner = curves.visible(rows, cuts)
    who, y, p = rows["subject"].to_numpy(), rows["y"].to_numpy(), rows["yhat"].to_numpy()
    for shown, parts in ((outer, [y >= 0]), (inner, [y == 1, y == 0])):
        edges = [-1, *[c for c, ok in zip(cuts, shown, strict=True) if ok], 2]
        for low, high in itertools.pairwise(edges):
            for part in parts:
                n = len(set(who[part & (p >= low) & (p < high)]))
                assert n == 0 or n >= 11 or len(edges) == 2, (low, high, n)
    assert all(a or not b for a, b in zip(outer, inner, strict=True))


def test_bars_hold_nobody_or_enough_people():
    for seed in range(30):
        rng = stream(seed, "bars")
        values, who = rng.beta(1, 6, 80), rng.integers(0, 50, 80)
        ends, height = curves.bars(values, who, np.linspace(0, 0.6, 26))
        place = np.clip(np.searchsorted(ends, values, "right") - 1, 0, len(ends) - 2)
        sizes = [len(set(who[place == b])) for b in range(len(ends) - 1)]
        assert all(n == 0 or n >= 11 for n in sizes), sizes
        assert (height * np.diff(ends)).sum() == pytest.approx(1)
        assert (np.diff(ends) > 0).all()


def test_few_events_are_told_without_their_number(risk):
    frame, metrics = risk
    few = frame["subject"].isin(frame["subject"].unique()[:7])
    for y, words in ((few, "had the event"), (~few, "stayed without the event")):
        found, text = everything(RISK, frame.assign(y=y.astype(float)), metrics)
        assert len(found) == 3
        assert not any(one.figures for one in found)
        assert text.count(f"Fewer than 11 patients {words}") == 3
        assert "7" not in re.sub(r"How to read.*", "", text)
    shown = everything(RISK, frame.assign(y=few.astype(float)), metrics, smallest=0)[0]
    assert all(one.figures for one in shown)


def test_no_id_is_on_the_page(risk, score):
    for study, pair in ((RISK, risk), (SCORE, score)):
        text = everything(study, *pair)[1]
        assert "CLINIC" not in text
        assert "2023" not in text


# ------------------------------------------------------------------------------------------------ both languages


@pytest.mark.parametrize("name", ["risk", "score"])
def test_swedish_is_complete_and_says_the_same_numbers(name, request):
    study, pair = (RISK, SCORE)[name == "score"], request.getfixturevalue(name)
    english = everything(study, *pair)
    with speaking("sv", "") as now:
        swedish = everything(study, *pair)
    assert not now.missing - {"warning score"}, now.missing
    assert numbers(english[1]) == numbers(swedish[1], comma=True)
    assert [one.key for one in english[0]] == [one.key for one in swedish[0]]
    assert not re.search(r"\d\.\d", re.sub(r"<svg.*?</svg>|<[^>]*>", " ", swedish[1], flags=re.DOTALL))


def test_all_sentences_of_the_modules_are_translated():
    import ast
    import inspect

    from babel.messages.pofile import read_po

    found = set()
    for module in (chances, curves):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"t", "several"}
            if called and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    found |= {*curves.RATIO, *curves.SLOPE}
    from pathlib import Path

    folder = Path(chances.__file__).parent / "translations" / "sv"
    known = {}
    for path in folder.glob("*.po"):
        with path.open("rb") as file:
            known |= {(m.id if isinstance(m.id, str) else m.id[0]): m.string for m in read_po(file)}
    assert not found - set(known)
    places = lambda text: sorted(re.findall(r"\{\w+\}", text))
    for text in found:
        for form in [known[text]] if isinstance(known[text], str) else known[text]:
            assert places(form) == places(text), text


# ------------------------------------------------------------------------------------------------ nothing crashes


def cases(frame):
    first = frame["subject"].unique()[0]
    own = frame["model"].eq("model")
    return {
        "one patient": frame[frame["subject"].eq(first)],
        "one row": frame[frame["subject"].eq(first)].drop_duplicates("model"),
        "no rows": frame[:0],
        "no rows of the model": frame[~own],
        "no reference": frame[own],
        "nobody": frame.assign(y=0.0),
        "everybody": frame.assign(y=1.0),
        "constant": frame.assign(yhat=frame["yhat"].where(~own, 0.2)),
        "all zero": frame.assign(yhat=frame["yhat"].where(~own, 0.0)),
        "certain": frame.assign(yhat=frame["yhat"].where(~own, frame["y"])),
        "two values": frame.assign(yhat=frame["yhat"].where(~own, (frame["yhat"] > 0.2) * 0.3)),
        "missing values": frame.assign(yhat=frame["yhat"].where(np.arange(len(frame)) % 50 > 0)),
        "no times": frame.assign(time=None),
        "categories": frame.astype(dict.fromkeys(["model", "split", "subject", "target"], "category")),
    }


@pytest.mark.parametrize("kind", ["binary", "score"])
@pytest.mark.parametrize("name", list(cases(example.predictions_risk(8))))
def test_degenerate_tables_give_honest_sections(name, kind, risk, score):
    study, (frame, metrics) = {"binary": (RISK, risk), "score": (SCORE, score)}[kind]
    frame = cases(frame)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for known in (metrics, metrics[:0]):
            found, text = everything(study, frame, known)
            assert len(found) == (3 if kind == "binary" else 1)
            assert all(one.text for one in found)
            assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower().split()
    if name == "missing values":
        assert "without a value are left out" in text
    if name == "constant":
        assert "says the same of everybody" in text


def test_forty_targets_and_long_names():
    frame = example.predictions_risk(60)
    names = [f"outcome {i} " + "x" * 70 for i in range(40)]
    study = replace(
        RISK, targets=tuple(replace(RISK.targets[0], name=n, label=n) for n in names), primary="m" * 80
    )
    frame = frame.assign(model=frame["model"].replace({"model": "m" * 80}))
    frame = pd.concat([frame.assign(target=n) for n in names], ignore_index=True)
    metrics = metrics_of(frame, study, n_resamples=5)
    found, text = everything(study, frame, metrics, smallest=0, n_resamples=20)
    assert len(found) == 3
    assert all(name in text for name in names)
    assert sum(len(one.figures) for one in found) == 3


def test_horizons_stand_in_one_table(risk):
    frame = pd.concat([risk[0], risk[0].assign(horizon=2.0)], ignore_index=True)
    study = replace(RISK, horizons=(1.0, 2.0))
    found, text = everything(study, frame, metrics_of(frame, study, n_resamples=20))
    assert "All outcomes and horizons" in text
    assert "2 year ahead" in found[0].text[0]


def test_a_regression_gets_nothing():
    assert chances.sections(example.STUDY, example.predictions(4, 1), pd.DataFrame()) == ()


def test_figures_become_svg_of_modest_size(risk, score):
    for study, (frame, metrics) in ((RISK, risk), (SCORE, score)):
        for one in chances.sections(study, frame, metrics, n_resamples=50):
            for drawn in one.figures:
                assert len(drawn.svg) < 60_000
                assert len(drawn.caption) > 60
    a, b = (to_svg(curves.calibration(curves.rows_of(risk[0], RISK), RISK, risk[1], n_resamples=50).figure, "x", "y") for _ in range(2))  # fmt: skip
    assert a == b


def test_the_invented_studies_are_what_they_promise():
    from medlab.judge.predictions import validate

    for study, frame, tests in ((RISK, example.predictions_risk(), example.tests_risk()), (SCORE, example.predictions_score(), example.tests_score())):  # fmt: skip
        validate(frame, study)
        assert list(tests.columns) == list(example.tests().columns)
        assert set(tests["horizon"]) <= set(study.horizons)
        assert set(tests["study"]) == {study.name}
