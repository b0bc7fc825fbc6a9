"The audit's checks on splits, twins, inputs and values: what they must not cry at, and what they must survive."

import inspect
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medlab.core.study import Study, Target
from medlab.judge import (
    audit,
    audit_answer,
    audit_course,
    audit_inputs,
    audit_splits,
    audit_twins,
    audit_values,
)
from medlab.judge.audit_course import lag_one
from medlab.judge.audit_predictions import predictions_reproduced
from medlab.judge.audit_twins import chance_of_agreement, coded, random_pairs
from medlab.judge.audit_values import filled
from medlab.judge.evidence import Checked, Evidence, EvidenceError, as_ids, looked_over
from medlab.shape.scaling import rows_digest
from medlab.studies.glucose.moments import pick_moments
from medlab.studies.glucose.prepare import FEATURES

SPLITS = "subject_overlap subject_twins time_overlap judged_rows duplicates split_power adversarial".split()
INPUTS = (
    "future_replay outcome_erased suspicious_names target_in_input row_alignment fit_scope "
    "filled_values time_structure copied_columns label_plausibility"
).split()
CHECKS = [check for name in (*SPLITS, *INPUTS) for check in audit.CHECKS if check.__name__ == name]
assert len(CHECKS) == len(SPLITS) + len(INPUTS)
TARGET = Target("glucose", "Glucose", "mg/dL", 40, 400, 6, "CLIA 2025", 15, 0.15, "ISO 15197:2013")


def study(kind="regression"):
    return Study(
        "example", "Example", "Where is glucose going?", kind, (TARGET,), (60.0,), "min", "UTC timestamp",
        "model", "persistence", (), "To teach.", "Anything else.",
    )  # fmt: skip


def seam(y, subjects=20):
    table = pd.DataFrame(
        {"subject": [f"P{k % subjects:02d}" for k in range(len(y))], "y": np.asarray(y, float)}
    )
    table["time"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(len(y)), unit="h")
    noise = np.random.default_rng(9).normal(size=len(y))
    return table.assign(model="model", split="test", target="glucose", horizon=60.0, yhat=table["y"] + noise)


def ask(check, predictions, evidence, kind="regression"):
    "Any check with what it wants, and with NumPy's warnings as errors."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = (
            len(inspect.signature(check).parameters) and "predictions" in inspect.signature(check).parameters
        )
        return check(predictions, study(kind), evidence) if few else check(evidence)


def examples(seed=0, patients=40, rows=15, columns=5):
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rows)
    x = rng.normal(size=(patients, columns))[who] + rng.normal(size=(len(who), columns))
    part = rng.choice(["train", "validation", "test"], patients, p=[0.6, 0.2, 0.2])
    table = pd.DataFrame(x, columns=[f"x_{k}" for k in range(columns)])
    return table.assign(subject=who, split=part[who], row=np.arange(len(who)), y=rng.normal(size=len(who)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_without_evidence_nothing_passes_by_default(check):
    found = ask(check, seam(np.linspace(60, 300, 600)).iloc[:0], Evidence())
    if check.__name__ == "split_power":
        assert (found.verdict, found.severity) == (
            "fail",
            "error",
        )  # an empty test set is a finding, not a gap
    elif check.__name__ in ("copied_columns", "filled_values"):
        assert found.verdict in ("pass", "not assessable")
    else:
        assert found.verdict == "not assessable"
    assert (
        found.check == check.__name__
        and found.question.endswith("?")
        and found.fix
        and found.leakage_type.startswith(("L", "none: a data fault"))
    )


ODD = {
    "one subject": lambda t: t[t["subject"] == 0],
    "two rows": lambda t: t.head(2),
    "no rows": lambda t: t.head(0),
    "missing inputs": lambda t: t.assign(x_0=np.nan, x_1=t["x_1"].where(t["x_1"] > 0)),
    "infinite inputs": lambda t: t.assign(x_0=np.inf),
    "constant inputs": lambda t: t.assign(x_0=1.0, x_1=1.0),
    "text inputs": lambda t: t.assign(
        x_0=np.where(t["x_0"] > 0, "yes", "no"), x_1=t["x_1"].round(1).astype(str)
    ),
    "flags": lambda t: t.assign(**{f"x_{k}": t[f"x_{k}"] > 0 for k in range(5)}),
    "categories": lambda t: t.astype({"subject": str, "split": "category"}).astype({"subject": "category"}),
    "whole numbers": lambda t: t.assign(**{f"x_{k}": (3 * t[f"x_{k}"]).round() for k in range(5)}),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("odd", ODD)
def test_odd_tables_are_survived_without_a_warning(check, odd):
    table = ODD[odd](examples()).reset_index(drop=True)
    evidence = Evidence(examples=table, people=table.drop(columns=["row", "y"]), is_series=False)
    found = ask(check, seam(np.linspace(60, 300, 600)), evidence)
    expected = {"split_power"} if odd in ("one subject", "two rows", "no rows") else set()
    assert found.verdict != "fail" or check.__name__ in expected, found.evidence


@pytest.mark.parametrize("own_future", [False, True])
def test_natural_windows_of_a_sensor_are_no_copies(own_future):
    "Whole numbers, a ceiling at 400, overlapping windows: nothing here was copied."
    for seed in range(4):
        rng = np.random.default_rng(seed)
        trace = np.clip(np.round(330 + np.cumsum(rng.normal(0, 9, (30, 90)), 1)), 40, 400)
        rows = [(p, t, *trace[p, t : t + 12 : 2]) for p in range(30) for t in range(0, 76, 3)]
        table = pd.DataFrame(rows, columns=["subject", "row", *[f"x_{k}" for k in range(6)]])
        late = table["row"] > 45 if own_future else table["subject"] > 20
        evidence = Evidence(
            examples=table.assign(split=np.where(late, "test", "train"), y=0.0), shares_subjects=own_future
        )
        assert ask(audit_twins.duplicates, None, evidence).verdict == "pass"


def test_static_inputs_that_repeat_within_a_patient_are_no_copies():
    table = examples().assign(x_0=lambda t: 60.0 + t["subject"], x_1=lambda t: 20 + t["subject"] / 7, x_2=1.0)
    late = table.groupby("subject").cumcount() > 9
    assert (
        ask(
            audit_twins.duplicates,
            None,
            Evidence(examples=table.assign(split=np.where(late, "test", "train"))),
        ).verdict
        == "pass"
    )


def test_one_copied_patient_is_found_exactly_nearly_and_as_an_outcome():
    clean = examples(columns=6)
    donor = clean[clean["split"] == "train"].query("subject == subject.iloc[0]")
    copy = pd.concat([clean, donor.assign(subject=99, split="test")], ignore_index=True)
    assert ask(audit_twins.duplicates, None, Evidence(examples=clean)).verdict == "pass"
    assert ask(audit_twins.duplicates, None, Evidence(examples=copy)).verdict == "fail"
    x = [c for c in copy if c.startswith("x_")]
    near = copy.assign(**{c: copy[c] + np.random.default_rng(1).normal(0, 0.01, len(copy)) for c in x})
    assert ask(audit_twins.duplicates, None, Evidence(examples=near)).verdict == "fail"
    outputs = np.random.default_rng(2).normal(size=(len(clean), 6))
    assert ask(audit_twins.duplicates, None, Evidence(examples=clean, outputs=outputs)).verdict == "pass"
    train, test = (clean.index[clean["split"] == part][:20] for part in ("train", "test"))
    outputs[test] = outputs[train]
    assert ask(audit_twins.duplicates, None, Evidence(examples=clean, outputs=outputs)).verdict == "fail"


def people(n, seed):
    rng = np.random.default_rng(seed)
    height, year = rng.normal(171, 9, n).round(), rng.integers(1940, 2005, n)
    weight = (rng.normal(25, 4, n) * (height / 100) ** 2).round(1)
    table = {
        "subject": np.arange(n),
        "split": rng.choice(["train", "test"], n, p=[0.7, 0.3]),
        "year": year,
        "age": 2024 - year,
    }
    return pd.DataFrame(
        {
            **table,
            "height": height,
            "weight": weight,
            "bmi": (weight / (height / 100) ** 2).round(1),
            "sex": rng.choice(["f", "m"], n),
        }
    )


def test_strangers_are_no_twins_though_columns_say_the_same_thing_twice():
    for n in (30, 200, 1000):
        for seed in range(4):
            assert ask(audit_twins.subject_twins, None, Evidence(people=people(n, seed))).verdict != "fail"


def test_two_devices_of_one_patient_are_found_whatever_they_are_called():
    table = people(150, 0)
    again = (
        table[table["split"] == "train"].head(5).assign(split="test", subject=lambda t: t["subject"] + 1000)
    )
    again["sex"] = again["sex"].str.upper() + " "
    found = ask(audit_twins.subject_twins, None, Evidence(people=pd.concat([table, again])))
    assert found.verdict == "fail" and found.evidence.startswith("5 pairs")
    shared = Evidence(people=pd.concat([table, again]), shares_subjects=True)
    assert ask(audit_twins.subject_twins, None, shared).verdict == "not applicable"


def test_the_chance_of_agreement_is_the_product_where_columns_are_independent():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, [4, 10, 25], (3000, 3))
    chance = chance_of_agreement(codes, *random_pairs(np.arange(3000), inside=False))
    assert chance == pytest.approx(1 / 1000, rel=0.5)


def test_codes_are_equal_to_six_digits_and_missing_is_missing():
    assert coded(pd.Series([0.1 + 0.2, 0.3, 0.30001, np.nan, np.inf])).tolist() == [0, 0, 1, -1, -1]
    assert coded(pd.Series([True, False, True])).tolist() == [0, 1, 0]


def test_a_gap_is_asked_for_in_timestamps_and_in_numbers():
    table = pd.DataFrame(
        {"subject": 1, "split": ["train", "test"], "first": [0, 110], "origin": [50, 150], "last": [100, 200]}
    )
    overlap = audit_splits.time_overlap
    assert [overlap(Evidence(windows=table, gap=g)).verdict for g in (0, 9, 10)] == ["pass", "pass", "fail"]
    clock = table.assign(
        **{
            c: pd.Timestamp("2024-01-01") + pd.to_timedelta(table[c], unit="min")
            for c in ("first", "origin", "last")
        }
    )
    gaps = (0, pd.Timedelta("9min"), pd.Timedelta("10min"))
    assert [overlap(Evidence(windows=clock, gap=g)).verdict for g in gaps] == ["pass", "pass", "fail"]
    with pytest.raises(ValueError, match="Timedelta"):
        overlap(Evidence(windows=clock, gap=5))


def test_a_validation_set_of_five_rows_is_an_error_and_a_small_test_set_a_warning():
    table = examples(patients=60)
    few = pd.concat([table[table["split"] != "validation"], table[table["split"] == "validation"].head(5)])
    power = lambda evidence, n=600, subjects=20: ask(
        audit_splits.split_power, seam(np.arange(n), subjects), evidence
    )
    assert power(Evidence(examples=table)).verdict == "pass"
    assert (power(Evidence(examples=few)).verdict, power(Evidence(examples=few)).severity) == (
        "fail",
        "error",
    )
    assert (power(Evidence(), 600, 6).verdict, power(Evidence(), 600, 6).severity) == ("fail", "warning")
    yes_no = ask(audit_splits.split_power, seam(np.zeros(600)), Evidence(), "binary")
    assert (yes_no.verdict, yes_no.severity) == ("fail", "error")


def test_truths_of_several_targets_and_of_the_moment_itself_are_matched():
    rows = pd.concat([seam(np.arange(40.0)), seam(np.arange(40.0) + 7).assign(target="insulin")])
    spans = rows.assign(first=rows["time"], origin=rows["time"], last=rows["time"])
    truth = rows[["subject", "time", "target", "horizon", "y"]]
    for given, verdict in (
        (truth, "pass"),
        (truth.assign(y=truth["y"] + (truth["target"] == "insulin")), "fail"),
    ):
        assert ask(audit_splits.judged_rows, rows, Evidence(windows=spans, truth=given)).verdict == verdict


NATURAL = {
    "boluses": lambda r: np.where(r.random(1500) < 0.9, 0, r.gamma(2, 2, 1500)),
    "meals from 10 g": lambda r: np.where(r.random(1500) < 0.95, 0, 5.0 * r.integers(2, 20, 1500)),
    "clipped": lambda r: np.clip(r.normal(350, 80, 1500), 40, 400),
    "below the limit of detection": lambda r: np.where(
        r.random(1500) < 0.6, 5, 5 + np.exp(r.normal(2, 1.2, 1500))
    ),
    "heaped": lambda r: np.where(
        r.random(1500) < 0.7, 10 * r.normal(13, 1.8, 1500).round(), r.normal(130, 18, 1500).round()
    ),
    "saturation": lambda r: np.minimum(100, r.normal(98, 2, 1500).round()),
    "coma scale": lambda r: np.where(r.random(1500) < 0.7, 15, r.integers(3, 15, 1500)).astype(float),
    "oxygen flow": lambda r: np.where(r.random(1500) < 0.6, 0, r.integers(1, 16, 1500)).astype(float),
    "oxygen share": lambda r: r.choice([21, 21, 21, 24, 28, 35, 40, 60, 100.0], 1500),
    "skewed": lambda r: np.exp(r.normal(0, 1.5, 1500)).round(2),
    "heavy tails": lambda r: r.standard_t(2, 1500).round(2),
    "counts": lambda r: r.poisson(2, 1500).astype(float),
    "held changes": lambda r: np.where(r.random(1500) < 0.4, 0, r.normal(0, 3, 1500).round()),
    "a height per patient": lambda r: r.normal(170, 9, 30)[np.arange(1500) % 30],
}


@pytest.mark.parametrize("name", NATURAL)
def test_natural_values_are_not_called_filled(name):
    for seed in range(10):
        values = NATURAL[name](np.random.default_rng(seed))
        assert not filled(values, np.arange(1500) % 30), (seed, filled(values, np.arange(1500) % 30))


@pytest.mark.parametrize("code", [-1, -200, 999, "mean"])
def test_codes_for_missing_are_called_filled(code):
    rng = np.random.default_rng(0)
    values = rng.normal(150, 30, 1500).round()
    holes = rng.random(1500) < 0.1
    assert filled(np.where(holes, values.mean() if code == "mean" else code, values), np.arange(1500) % 30)


def test_censored_outcomes_are_measured_and_padded_ones_are_not():
    rng = np.random.default_rng(0)
    censored = np.clip(rng.normal(300, 120, 900).round(), 40, 400)
    assert ask(audit_values.filled_values, seam(censored), Evidence()).verdict == "pass"
    padded = ask(audit_values.filled_values, seam(np.r_[censored, np.zeros(50)]), Evidence())
    assert (padded.verdict, padded.severity) == ("fail", "error")
    outputs = np.where(rng.random((900, 3)) < 0.3, 0, rng.normal(150, 20, (900, 3)))
    assert ask(audit_values.filled_values, seam(censored), Evidence(outputs=outputs)).verdict == "fail"


def test_a_lag_of_one_is_the_autocorrelation_and_patients_who_differ_feign_none():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 60))
    offsets = 10 * rng.normal(size=(300, 1))
    assert lag_one(noise + offsets) == pytest.approx(0, abs=0.03)
    slow = noise.copy()
    for t in range(1, 60):
        slow[:, t] = 0.5 * slow[:, t - 1] + np.sqrt(0.75) * noise[:, t]
    assert lag_one(slow + offsets) == pytest.approx(0.5, abs=0.05)  # up to the bias of 60 steps


def test_independent_rows_are_no_series_and_one_window_per_patient_may_be_one():
    noise = examples(1)
    assert ask(audit_course.time_structure, None, Evidence(examples=noise)).verdict == "fail"
    assert (
        ask(audit_course.time_structure, None, Evidence(examples=noise, is_series=False)).verdict
        == "not applicable"
    )
    single = noise.drop_duplicates("subject")
    assert ask(audit_course.time_structure, None, Evidence(examples=single)).verdict == "fail"
    walks = np.cumsum(np.random.default_rng(0).normal(size=(40, 24, 2)), axis=1)
    stays = Evidence(examples=single, inputs=walks, features=("a", "b"))
    assert ask(audit_course.time_structure, None, stays).verdict == "pass"


def test_files_compare_by_patient_and_poisoned_files_are_named():
    rng = np.random.default_rng(0)
    table = examples(patients=300, rows=3).assign(by_file=lambda t: (t["subject"] // 100).astype(str))
    table["y"] = (rng.random(300) < 0.3)[table["subject"]]
    plausible = audit_values.label_plausibility
    assert ask(plausible, None, Evidence(examples=table)).verdict == "pass"
    named = ask(plausible, None, Evidence(examples=table.assign(y=table["y"] & (table["by_file"] != "2"))))
    assert (named.verdict, named.severity) == ("fail", "warning") and "by_file = 2" in named.evidence
    for poisoned in (table.assign(y=0), table.assign(y=np.where(table["subject"] < 3, np.nan, table["y"]))):
        found = ask(plausible, None, Evidence(examples=poisoned))
        assert (found.verdict, found.severity) == ("fail", "error")


def test_a_fusion_with_its_own_copy_is_one_model():
    rows = seam(np.random.default_rng(0).normal(150, 30, 300))
    copy = rows.assign(model="fusion", yhat=0.5 * rows["yhat"] + 70)
    found = ask(audit_values.copied_columns, pd.concat([rows, copy]), Evidence())
    assert (found.verdict, found.severity) == ("fail", "error")
    other = rows.assign(model="prevalence", yhat=150.0)  # a constant is no copy of anything
    assert ask(audit_values.copied_columns, pd.concat([rows, other]), Evidence()).verdict == "pass"


def test_the_fitted_thing_that_is_wrong_is_named():
    from medlab.shape.scaling import rows_digest

    rows = np.arange(12.0).reshape(6, 2)
    good, silent = {"n_rows": 6, "rows_digest": rows_digest(rows)}, {"n_rows": 6}
    fit = lambda fitted, training: ask(
        audit_inputs.fit_scope, None, Evidence(fitted=fitted, training_rows=training)
    )
    assert fit({"scaler": good}, {"scaler": rows}).verdict == "pass"
    assert "training rows: scaler." in fit({"scaler": silent}, {"scaler": rows}).evidence
    assert fit({"scaler": good}, {"scaler": rows, "encoder": rows}).verdict == "fail"
    assert fit({"scaler": good, "encoder": good}, {"scaler": rows}).verdict == "fail"


def test_shuffled_rows_must_be_shuffled_and_rounding_is_allowed():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"subject": np.arange(60), "time": 0.0, "yhat": rng.normal(size=60)})
    mixed = table.sample(frac=1, random_state=0)
    align = lambda other: ask(audit_inputs.row_alignment, None, Evidence(shuffled=(table, other))).verdict
    assert align(mixed) == "pass"
    assert align(mixed.assign(yhat=mixed["yhat"] * (1 + 1e-7))) == "pass"
    assert align(mixed.assign(yhat=rng.permutation(mixed["yhat"]))) == "fail"
    assert align(table) == "not assessable"
    assert align(mixed.head(50)) == "fail"


def moved_on(n=60, seed=0, **columns):
    "Sixty moments of one patient with some features, as stored and as made again."
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"subject": "P01", "time": np.arange(n), "level": rng.normal(size=n)}).assign(
        **columns
    )
    return table, table.copy()


def spans(**columns):
    base = {"subject": ["P01", "P02"], "split": ["train", "test"], "first": 0.0, "origin": 1.0, "last": 2.0}
    return pd.DataFrame({**base, **columns})


MALFORMED = {
    "spans without times": ("windows", spans(first=np.nan, last=np.nan)),
    "splits by another name": ("windows", spans(split=["Train", "Test"])),
    "spans that run backwards": ("windows", spans(last=-1.0)),
    "spans without rows": ("windows", spans().head(0)),
    "a column by another name": ("windows", spans().rename(columns={"origin": "at"})),
    "no table": ("windows", {"subject": []}),
    "times of two kinds": ("windows", spans(first=["a", 1.0])),
    "training errors that are missing": (
        "training",
        pd.DataFrame({"subject": ["a"], "y": 1.0, "yhat": np.nan}),
    ),
    "text for numbers": ("training", pd.DataFrame({"subject": ["a"], "y": 1.0, "yhat": "high"})),
    "one trial": ("trials", pd.DataFrame({"requested_rate": [0.1], "value": [1.0]})),
    "trials of one setting": ("trials", pd.DataFrame({"requested_rate": [0.1, 0.1], "value": [1.0, 2.0]})),
    "a time by another name": (
        "shuffled",
        (pd.DataFrame({"subject": ["a"], "origin": 0, "yhat": 1.0}),) * 2,
    ),
    "the same row twice": (
        "shuffled",
        (pd.DataFrame({"subject": ["a", "a"], "time": 0, "yhat": 1.0}),) * 2,
    ),
    "a pair of one": ("replay", (spans(),)),
    "file positions that are missing": ("examples", spans(row=np.nan)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_evidence_is_named_and_passes_no_check(name):
    part, value = MALFORMED[name]
    evidence, faults = looked_over(Evidence(**{part: value}))
    assert list(faults) == [part] and faults[part]
    with pytest.raises(EvidenceError, match=part):
        getattr(Checked(evidence, faults), part)


def test_a_malformed_table_stops_the_build_and_no_reason_helps():
    rows = seam(np.linspace(60, 300, 600)).assign(lo=np.nan, hi=np.nan)
    reasons = {"time_overlap": "we have no times at all"}
    gone = Evidence(windows=MALFORMED["spans without times"][1], reasons=reasons)
    found = {f.check: f for f in audit.run(rows, study(), gone)}
    for check in ("subject_overlap", "time_overlap", "judged_rows", "split_power"):
        assert found[check].verdict == "not assessable" and "windows has 2 gaps" in found[check].evidence
    with pytest.raises(audit.LeakError, match="time_overlap"):
        audit.stop_on_errors(list(found.values()))


def test_ids_of_every_kind_are_the_same_person():
    kinds = (
        pd.Series([7, 8]),
        pd.Series([7.0, 8.0]),
        pd.Series(["7 ", "8"]),
        pd.Series(["7", "8"], dtype="category"),
    )
    assert all(as_ids(kind).tolist() == ["7", "8"] for kind in kinds)
    both = spans(subject=["7 ", 7])
    assert audit_splits.subject_overlap(looked_over(Evidence(windows=both))[0]).verdict == "fail"


@pytest.mark.parametrize(
    "reasons", [{"too_good": "we are proud of it"}, {"sweep_reached": "x"}, {"sweep_reached": {"a": 1}}]
)
def test_a_reason_is_a_sentence_about_a_question_that_may_not_arise(reasons):
    with pytest.raises(ValueError, match="reason"):
        audit.run(seam(np.arange(40.0)), study(), Evidence(reasons=reasons))


def test_a_declared_design_is_not_applicable_in_words_and_only_where_it_is_used():
    both = spans(subject="P01")
    assert audit_splits.subject_overlap(Evidence(windows=both)).verdict == "fail"
    found = audit_splits.subject_overlap(Evidence(windows=both, shares_subjects=True))
    assert found.verdict == "not applicable" and "declares" in found.evidence
    assert audit_splits.subject_overlap(Evidence(windows=spans(), shares_subjects=True)).verdict == "pass"


def test_predictions_are_compared_with_the_model():
    rng = np.random.default_rng(0)
    rows = seam(np.linspace(60, 300, 600))
    again = rows[["subject", "time", "horizon", "yhat"]]
    check = lambda rows, again: ask(predictions_reproduced, rows, Evidence(predicted=again)).verdict
    assert check(rows, again) == "pass"
    assert check(rows, again.assign(yhat=again["yhat"].astype("float32"))) == "pass"
    assert check(rows.assign(yhat=rows["yhat"].shift(-1, fill_value=0)), again) == "fail"  # the next window's
    assert check(rows.assign(yhat=rng.permutation(rows["yhat"])), again) == "fail"
    assert check(rows.assign(yhat=0.9 * rows["yhat"] + 0.1 * rows["y"]), again) == "fail"  # blended
    assert check(rows.iloc[:550], again) == "fail"  # the hardest rows left out
    assert check(rows, again.head(299)) == "not assessable" and check(rows, again.head(300)) == "pass"


def test_a_truth_may_be_rounded_and_not_invented_and_an_odd_unit_is_no_crash():
    rows = seam(np.arange(1.0, 601))
    origins = rows.assign(first=rows["time"], origin=rows["time"], last=rows["time"])
    hour = pd.Timedelta("60min")
    truth = rows.assign(time=rows["time"] + hour)[["subject", "time", "y"]]
    minutes = study()
    judged = lambda rows, about=minutes: audit_splits.judged_rows(
        rows, about, Evidence(windows=origins, truth=truth)
    )
    assert judged(rows).verdict == "pass"
    assert judged(rows.assign(y=((rows["y"] - 151) / 73) * 73 + 151)).verdict == "pass"
    assert judged(rows.assign(y=rows["y"] + 0.01)).verdict == "fail"
    found = judged(rows, replace(study(), horizon_unit="cycles"))
    assert found.verdict == "not assessable" and "cycles" in found.evidence
    years = rows.assign(horizon=2.0)
    later = truth.assign(time=rows["time"] + pd.DateOffset(years=2))
    about = replace(study(), horizon_unit="years", horizons=(2.0,))
    assert audit_splits.judged_rows(years, about, Evidence(windows=origins, truth=later)).verdict == "pass"


def test_a_few_moments_or_empty_ones_prove_nothing():
    stored, again = moved_on()
    replay = lambda stored, again: audit_inputs.future_replay(Evidence(replay=(stored, again))).verdict
    assert replay(stored, again) == "pass" and replay(stored.head(29), again.head(29)) == "not assessable"
    assert replay(*moved_on(level=np.nan)) == "not assessable"
    assert replay(stored, again.assign(level=again["level"].where(again["time"] != 30, 9.0))) == "fail"


def test_a_digest_on_the_wrong_bottle_is_found():
    rows = np.random.default_rng(0).normal(size=(100, 2))
    label = {"n_rows": 70, "rows_digest": rows_digest(rows[:70])}
    scope = lambda parameters: audit_inputs.fit_scope(
        Evidence(
            fitted={"scaler": {**label, "parameters": parameters}}, training_rows={"scaler": rows[:70]},
            refit={"scaler": np.median(rows[:70], 0)}, not_refitted="the weights",
        )
    )  # fmt: skip
    assert scope(np.median(rows[:70], 0)).verdict == "pass"
    assert "not covered: the weights" in scope(np.median(rows[:70], 0)).evidence
    assert scope(np.median(rows, 0)).verdict == "fail" and scope([]).verdict == "fail"


def levels(seed, n=900, steps=48):
    "Overlapping windows of a mean-reverting level (n, 36), and what follows (n, 12)."
    rng = np.random.default_rng(seed)
    walk = np.full(5 * n + steps, 150.0)
    for t in range(1, len(walk)):
        walk[t] = 150 + 0.99 * (walk[t - 1] - 150) + rng.normal(0, 4)
    cut = np.lib.stride_tricks.sliding_window_view(walk, steps)[::5][:n]
    return cut[:, :36], cut[:, 36:], rng


def test_a_blurred_answer_in_one_column_is_found_and_honest_inputs_are_not():
    for seed in range(4):
        past, future, rng = levels(seed)
        inputs = np.stack([past, rng.gamma(1, 1, past.shape) * (rng.random(past.shape) < 0.03)], axis=2)
        evidence = lambda inputs, future=future: Evidence(
            inputs=inputs, outputs=future, features=("bg", "bolus")
        )
        assert ask(audit_answer.target_in_input, None, evidence(inputs)).verdict == "pass"
        blurred = inputs.copy()
        blurred[:, 0, 1] = future[:, -1] + rng.normal(0, 1, len(future))
        found = ask(audit_answer.target_in_input, None, evidence(blurred))
        assert found.verdict == "fail" and "bolus 35 steps" in found.evidence


@pytest.mark.parametrize("rate", [0.002, 0.01])
def test_a_setting_that_is_held_is_no_answer(rate):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        series = np.empty((1500, 40))
        series[:, 0] = rng.choice([4.0, 5.0, 6.0, 7.0, 8.0], 1500)
        for t in range(1, 40):
            change = rng.random(1500) < rate
            series[:, t] = np.where(change, rng.choice([4.0, 5.0, 6.0, 7.0, 8.0], 1500), series[:, t - 1])
        other = rng.normal(size=(1500, 36))
        evidence = lambda shift, series=series, other=other: Evidence(
            inputs=np.stack([series[:, shift : shift + 36], other], axis=2), outputs=series[:, [38]], features=("rate", "x")
        )  # fmt: skip
        assert ask(audit_answer.target_in_input, None, evidence(0)).verdict == "pass"
        if rate == 0.01:
            assert ask(audit_answer.target_in_input, None, evidence(3)).verdict == "fail"


def test_a_sample_without_events_is_no_split_without_events():
    rng = np.random.default_rng(0)
    rows = seam((rng.random(2000) < 0.05).astype(float))
    sample = examples(patients=60).assign(y=0.0)
    found = ask(audit_splits.split_power, rows, Evidence(examples=sample), "binary")
    assert found.verdict == "pass", found.evidence


def test_moments_of_a_replay_meet_what_is_rare():
    n = 6000
    for seed in range(5):
        rng = np.random.default_rng(seed)
        grid = pd.DataFrame({name: rng.normal(size=n) for name in FEATURES})
        grid["bolus_dose"] = np.where(np.arange(n) % 96 == 50, 4.0, 0.0)
        grid = grid.assign(reading=1.0, run=0)
        inside = np.arange(n) < 5000
        chosen = pick_moments(grid, inside, 60, rng)
        early = grid["bolus_dose"].shift(-1, fill_value=0.0)
        assert len(set(chosen)) == 60 and inside[chosen].all()
        assert (early != grid["bolus_dose"])[chosen].sum() >= 4
