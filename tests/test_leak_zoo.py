"""The leak zoo: sixteen faults of real systems, each caught by the check that is named here; each mended twin passes."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
import zoo

from medlab.judge import audit
from medlab.judge.evidence import Finding
from medlab.judge.predictions import read, write


class Fault(NamedTuple):
    build: Callable[[bool], zoo.Case]
    check: str  # that has to catch it
    score: Callable[[zoo.Case], float]  # what a report would show
    broken: tuple[float, float]  # where it lies with the fault: what the authors saw
    mended: tuple[float, float]  # and without


def squared_error(case):
    "Mean squared error over all cells of the output, as a training loop averages it."
    rows = case.predictions[case.predictions["model"] == case.study.primary]
    return float(((rows["y"] - rows["yhat"]) ** 2).mean())


def test_rows(case):
    return len(case.predictions[case.predictions["model"] == case.study.primary])


test_rows.__test__ = False  # a score, no test
told = lambda name: lambda case: case.told[name]

ZOO = {
    # a score that should not have been believed
    "target inside the tensor": Fault(zoo.target_in_tensor, "target_in_input", zoo.r2, (0.999, 1), (0.2, 0.6)),
    "missing coded as a value": Fault(zoo.missing_as_value, "filled_values", zoo.r2, (0.85, 1), (0.3, 0.75)),
    "judged on training data": Fault(zoo.judged_on_training, "permutation_twin", zoo.auroc, (0.999, 1), (0.65, 0.85)),
    "windows split at random": Fault(zoo.windows_at_random, "time_overlap", zoo.auroc, (0.93, 1), (0.55, 0.8)),
    "imputed with the future": Fault(zoo.future_imputation, "future_replay", zoo.r2, (0.999, 1), (0.2, 0.6)),
    "a label that a rule recovers": Fault(zoo.label_by_rule, "rule_recovery", zoo.auroc, (0.98, 1), (0.55, 0.75)),
    "two devices of one patient": Fault(zoo.two_devices, "subject_twins", zoo.auroc, (0.93, 1), (0.6, 0.85)),
    "resampled controls, noise labels": Fault(zoo.resampled_controls, "duplicates", zoo.auroc, (0.9, 1), (0.35, 0.65)),
    "strangers as a time series": Fault(zoo.strangers_as_series, "time_structure", zoo.auroc, (0.66, 1), (0.6, 0.8)),
    "padding in the loss": Fault(zoo.padding_in_loss, "judged_rows", squared_error, (0, 0.006), (0.07, 0.15)),
    # a fault that does not pay, but makes something else of the result; see the tests below
    "labels follow the row order": Fault(zoo.labels_by_row_order, "row_order", told("row number"), (0.999, 1), (0.4, 0.6)),
    "misaligned by a sort": Fault(zoo.misaligned_by_sort, "row_alignment", zoo.auroc, (0.35, 0.65), (0.75, 0.9)),
    "an empty temporal split": Fault(zoo.empty_temporal_split, "split_power", test_rows, (5, 9), (100, 500)),
    "scaler fitted on everything": Fault(zoo.scaler_on_everything, "fit_scope", zoo.auroc, (0.75, 0.9), (0.75, 0.9)),
    "a sweep that swept nothing": Fault(zoo.sweep_of_nothing, "sweep_reached", told("different results"), (3, 3), (27, 27)),
    "fusion with its own copy": Fault(zoo.fusion_with_own_copy, "copied_columns", told("agreement"), (0.999, 1), (0, 0.8)),
}  # fmt: skip

everything = pytest.mark.parametrize("name", ZOO)


@cache
def looked_at(name: str, broken: bool) -> tuple[zoo.Case, dict[str, Finding]]:
    "The case, and what the audit finds in the file that a stage would have written."
    case = ZOO[name].build(broken)
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / "predictions.parquet", case.predictions, case.study, 0.9)
        findings = audit.run(read(path, case.study), case.study, case.evidence)
    return case, {f.check: f for f in findings}


def failing(findings, *verdicts):
    return {c: f.evidence for c, f in findings.items() if f.verdict in verdicts and f.severity == "error"}


@everything
def test_the_named_check_catches_the_fault(name):
    found = looked_at(name, True)[1][ZOO[name].check]
    assert (found.verdict, found.severity) == ("fail", "error"), found


@everything
def test_the_mended_twin_passes(name):
    "No check of severity error fails or lacks its evidence; what is not asked is what the toy excuses in a sentence."
    case, findings = looked_at(name, False)
    assert findings[ZOO[name].check].verdict == "pass", findings[ZOO[name].check]
    assert not failing(findings, "fail", "not assessable")
    excused = {*case.evidence.reasons, "noise_rank"}  # no toy draws columns of noise
    excused |= set() if case.evidence.is_series else {"time_structure"}  # rows are single visits
    excused |= (
        {"subject_twins", "subject_overlap"} if case.evidence.shares_subjects else set()
    )  # the same people, later
    assert {c for c, f in findings.items() if f.verdict == "not applicable"} <= excused


@everything
def test_a_naive_reader_sees_the_score_that_the_authors_saw(name):
    fault, scores = ZOO[name], [ZOO[name].score(looked_at(name, broken)[0]) for broken in (True, False)]
    for score, (low, high) in zip(scores, (fault.broken, fault.mended), strict=True):
        assert low <= score <= high, scores


@everything
def test_the_build_stops(name):
    with pytest.raises(audit.LeakError, match=rf"- {ZOO[name].check}: "):
        audit.stop_on_errors(list(looked_at(name, True)[1].values()))
    audit.stop_on_errors(list(looked_at(name, False)[1].values()))


def test_there_are_sixteen_and_no_check_is_made_up():
    assert len(ZOO) == 16
    assert {fault.check for fault in ZOO.values()} <= {check.__name__ for check in audit.CHECKS}


# --------------------------------------------------------------------------- faults that do not show as a score


def both(name):
    return (looked_at(name, broken)[0] for broken in (True, False))


def test_labels_by_row_order_have_nothing_to_do_with_the_risk():
    broken, mended = both("labels follow the row order")
    assert broken.told["true risk"] == pytest.approx(0.5, abs=0.1) and mended.told["true risk"] > 0.9
    assert zoo.auroc(broken) < 0.6 and zoo.auroc(mended) > 0.8  # on new patients


def test_a_misaligned_model_is_perfect_on_its_own_rows():
    broken, mended = both("misaligned by a sort")
    assert broken.told["on its own training rows"] == mended.told["on its own training rows"] == 1.0


def test_a_split_that_is_nearly_empty_can_show_any_score():
    "One pair of a case and a control moves the area by more than a model is usually better than another."
    step = {}
    for name, case in zip(("broken", "mended"), both("an empty temporal split"), strict=True):
        y = case.predictions.loc[case.predictions["model"] == "model", "y"]
        step[name] = 1 / (y.sum() * (1 - y).sum())
    assert step["broken"] > 0.1 and step["mended"] < 0.001


def test_padding_divides_the_error_by_the_share_of_real_cells():
    broken, mended = (squared_error(case) for case in both("padding in the loss"))
    assert mended / broken == pytest.approx(20, rel=0.05)


def test_a_scaler_that_saw_the_test_rows_does_not_show_in_the_score():
    broken, mended = both("scaler fitted on everything")
    assert zoo.auroc(broken) == pytest.approx(zoo.auroc(mended), abs=0.01)
    assert broken.evidence.fitted["scaler"]["n_rows"] > mended.evidence.fitted["scaler"]["n_rows"]


def test_a_copy_adds_nothing_to_its_original():
    broken, mended = both("fusion with its own copy")
    assert zoo.auroc(broken) == pytest.approx(zoo.auroc(broken, "heart"), abs=0.02)
    assert zoo.auroc(mended) > zoo.auroc(mended, "heart") + 0.02


def test_strangers_know_nothing_of_the_next_window():
    broken, mended = both("strangers as a time series")
    assert abs(broken.told["next window"]) < 0.1 and mended.told["next window"] > 0.6


def test_permuted_outcomes_are_learned_as_well_as_real_ones_on_training_data():
    broken, mended = both("judged on training data")
    area = lambda case: [
        zoo.association(rows["y"], rows["yhat"], rows["subject"])[0]
        for _, rows in case.evidence.twin.groupby("permutation")
    ]
    assert min(area(broken)) > 0.999 and max(area(mended)) < 0.65


# --------------------------------------------------------------------------- and where there is nothing to find


def test_innocent_studies_raise_no_alarm():
    "Twenty clean studies, all checks together: not one finding of severity error."
    alarms = Counter()
    for seed in range(20):
        case = zoo.innocent(seed)
        findings = {f.check: f for f in audit.run(case.predictions, case.study, case.evidence)}
        alarms.update(failing(findings, "fail", "not assessable").keys())
    assert not alarms
