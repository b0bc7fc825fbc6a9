"""The audit's probes and signs: how often they cry wolf, and whether they see the wolf."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medlab.core.study import Study, Target
from medlab.judge import audit, audit_probes, audit_signs, audit_twins, audit_values
from medlab.judge.audit_probes import (
    association,
    permutation_twin,
    permute_between_subjects,
    rule_recovery,
    single_feature,
    twin,
)
from medlab.judge.audit_signs import noise_rank, row_order, sweep_reached, too_good
from medlab.judge.dependence import clustered
from medlab.judge.evidence import Evidence, finding

TARGET = Target("worse", "Deterioration", "probability", 0, 1, 0.05, "a source", 0.1, 0.0, "another source")


def study(kind="binary"):
    return Study(
        "example", "Example", "Who will deteriorate?", kind, (TARGET,), (0.0,), "h", "s since start", "model",
        "naive", (), "To test.", "Anything else.",
    )  # fmt: skip


def world(seed, n_patients=60, n_rows=5, binary=True, signal=1.0, icc=0.6):
    "Patients with repeated, resembling rows; `signal` is what x_a and x_b say about the outcome."
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_patients), n_rows)
    x = clustered(rng, n_patients, n_rows, icc, 0.7, (4,)).reshape(4, -1)
    y = signal * (x[0] + x[1]) + clustered(rng, n_patients, n_rows, icc, 0.7).ravel()
    train = rng.permutation(n_patients) < 0.6 * n_patients
    return pd.DataFrame(
        {
            "subject": np.array([f"P{i:03d}" for i in rng.permutation(n_patients)])[who],
            "split": np.where(train, "train", "test")[who],
            "row": np.arange(len(who)),
            "y": (y > 0.5).astype(float) if binary else y,
            **{f"x_{name}": values for name, values in zip("abcd", x, strict=True)},
        }
    )


def seam(y, yhat, subject, oracle=None):
    rows = pd.DataFrame({"subject": subject, "time": np.arange(len(y)), "y": y, "yhat": yhat})
    rows = rows.assign(model="model", split="test", target="worse", horizon=0.0, lo=np.nan, hi=np.nan)
    return rows if oracle is None else pd.concat([rows, rows.assign(model="oracle", yhat=oracle)])


# ---------------------------------------------------------------- the measure


def test_association_is_the_area_and_the_correlation_that_others_compute():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y, guess = (rng.random(200) < 0.3).astype(float), rng.normal(size=200).round(1)  # with ties
    assert association(y, guess, np.arange(200))[0] == pytest.approx(roc_auc_score(y, guess))
    z = rng.normal(size=200)
    assert association(z, guess, np.arange(200))[0] == pytest.approx(stats.pearsonr(z, guess)[0])


@pytest.mark.parametrize("binary", [True, False])
def test_its_standard_error_counts_patients_and_the_row_level_one_does_not(binary):
    z = {"patients": [], "rows": []}
    rng = np.random.default_rng(1)
    for _ in range(300):
        y, guess = clustered(rng, 60, 20, 0.6, 0.7, (2,)).reshape(2, -1)
        y = (y > 0.5).astype(float) if binary else y
        for unit, who in (("patients", np.repeat(np.arange(60), 20)), ("rows", np.arange(1200))):
            value, chance, se = association(y, guess, who)
            z[unit].append((value - chance) / se)
    alarms = {unit: np.mean(np.abs(values) > stats.t.ppf(0.975, 59)) for unit, values in z.items()}
    assert alarms["patients"] <= 0.10 and alarms["rows"] > 0.4, alarms


def test_doubling_rows_or_renaming_and_reordering_patients_changes_nothing():
    table = world(3)
    one = association(table["y"], table["x_a"], table["subject"])
    two = pd.concat([table, table]).sample(frac=1, random_state=0)
    named = two["subject"].map({name: f"Q{i}" for i, name in enumerate(two["subject"].unique())})
    assert association(two["y"], two["x_a"], named) == pytest.approx(one)


# ---------------------------------------------------------------- false alarms on clean data


@pytest.mark.parametrize("binary", [True, False])
def test_clean_worlds_raise_next_to_no_alarm(binary):
    "100 worlds of 60 patients: at most two alarms of the checks that have a random element."
    alarms = dict.fromkeys(("order", "twin"), 0)
    for seed in range(100):
        table = world(seed, binary=binary)
        alarms["order"] += row_order(Evidence(examples=table)).verdict != "pass"
        again = twin(table, audit_probes.line, seed=seed)
        alarms["twin"] += permutation_twin(Evidence(twin=again)).verdict != "pass"
    assert max(alarms.values()) <= 2, alarms


@pytest.mark.parametrize(("binary", "signal"), [(True, 0.0), (True, 1.0), (False, 1.0), (False, 3.0)])
def test_an_honest_column_is_not_suspected_however_much_of_the_skill_it_carries(binary, signal):
    for seed in range(12):
        table = world(seed, binary=binary, signal=signal)
        for check in (single_feature, rule_recovery):
            found = check(Evidence(examples=table.drop(columns=["x_b"])))
            assert found.verdict == "pass", found


def test_the_forests_twin_is_quiet_where_everybody_is_in_all_splits_on_purpose():
    "One's own future: a patient's level is recognised, which is no leak; outcomes are traded within each split."
    alarms = {"split": 0, None: 0}
    for seed in range(6):
        table = world(seed, 30, 20, binary=False, icc=0.8)
        table["split"] = np.where(table.groupby("subject").cumcount() < 14, "train", "test")
        for groups in alarms:
            found = permutation_twin(Evidence(twin=twin(table, groups=groups, n_permutations=3)))
            alarms[groups] += found.verdict == "fail"
    assert alarms["split"] == 0 and alarms[None] >= 4, alarms


# ---------------------------------------------------------------- planted leaks


@pytest.mark.parametrize("binary", [True, False])
def test_a_column_written_by_the_outcome_is_named(binary):
    table, rng = world(5, binary=binary), np.random.default_rng(0)
    written = table["y"] * 3 + rng.normal(0, 0.1, len(table))
    for column in (written, -written, written.where(table["y"] > 0.5)):  # also: only written for the ill
        found = single_feature(Evidence(examples=table.assign(x_code=column)))
        assert (found.verdict == "fail" and "x_code" in found.evidence) or not binary
    found = single_feature(Evidence(examples=table.assign(x_code=written)))
    assert (found.verdict, found.severity) == ("fail", "error") and "x_code" in found.evidence


def test_a_text_column_can_know_too_much_as_well():
    table = world(5)
    words = np.where(table["y"] == 1, "intensive care", "home")
    found = single_feature(Evidence(examples=table.assign(x_discharged_to=words)))
    assert found.verdict == "fail" and "x_discharged_to" in found.evidence


def test_a_very_good_but_imperfect_column_is_a_warning():
    table, rng = world(6, 200), np.random.default_rng(0)
    table["x_marker"] = table["y"] + rng.normal(0, 0.4, len(table))
    found = single_feature(Evidence(examples=table))
    assert (found.verdict, found.severity) == ("fail", "warning"), found


def test_a_column_that_beats_the_oracle_is_an_error_at_any_height():
    table = world(7, 200, binary=False)
    table["oracle"] = table["x_a"] + table["x_b"]
    assert single_feature(Evidence(examples=table)).verdict == "pass"
    rng = np.random.default_rng(0)
    table["x_late"] = table["y"] + rng.normal(0, 0.6, len(table))
    found = single_feature(Evidence(examples=table))
    assert (found.verdict, found.severity) == ("fail", "error") and "better than the best" in found.evidence


def test_a_label_made_by_a_rule_is_found_and_the_rule_is_named():
    table = world(8, 120)
    ruled = table.assign(y=((table["x_a"] > 0) & (table["x_c"] < 0.5)).astype(float))
    found = rule_recovery(Evidence(examples=ruled))
    assert found.verdict == "fail" and "x_a" in found.evidence and "x_c" in found.evidence
    total = table.assign(y=table["x_a"] + 2 * table["x_b"] - table["x_d"])
    assert rule_recovery(Evidence(examples=total)).verdict == "fail"
    noisy = ruled.assign(
        y=np.where(np.random.default_rng(0).random(len(ruled)) < 0.05, 1 - ruled["y"], ruled["y"])
    )
    assert rule_recovery(Evidence(examples=noisy)).verdict == "pass"


@pytest.mark.parametrize("binary", [True, False])
def test_judging_on_training_rows_makes_other_peoples_outcomes_predictable(binary):
    table = world(9, binary=binary)
    both = pd.concat([table.assign(split="train"), table.assign(split="test")], ignore_index=True)
    again = twin(both)
    found = permutation_twin(Evidence(twin=again))
    assert found.verdict == "fail"
    values = [association(g["y"], g["yhat"], g["subject"])[0] for _, g in again.groupby("permutation")]
    assert min(values) > 0.999  # source of the check: 1.000 on permuted labels
    assert permutation_twin(Evidence(twin=twin(table))).verdict == "pass"


def test_rows_of_a_patient_on_both_sides_are_found_by_exchanging_whole_patients_only():
    table = world(10, 100, 6, icc=0.95)
    table["y"] = table.groupby("subject")["y"].transform("first")
    rng = np.random.default_rng(0)
    by_row = table.assign(split=np.where(rng.random(len(table)) < 0.7, "train", "test"))
    assert permutation_twin(Evidence(twin=twin(by_row))).verdict == "fail"
    rows = by_row.assign(subject=np.arange(len(table)))  # exchanging rows: the naive permutation sees nothing
    naive = twin(rows).assign(subject=twin(by_row)["subject"])
    assert permutation_twin(Evidence(twin=naive)).verdict == "pass"


def test_exchanged_outcomes_belong_to_exactly_one_other_patient():
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    y = subject + 0.1
    for _ in range(20):
        new = permute_between_subjects(y, subject, rng)
        assert not (new == y).any()
        donors = pd.Series(new).groupby(subject).agg(["nunique", "first"])
        assert (donors["nunique"] == 1).all() and donors["first"].nunique() == 30  # so prevalence stays
    groups = subject % 2
    new = permute_between_subjects(y, subject, rng, groups)
    assert ((new - 0.1).round().astype(int) % 2 == groups).all()
    with pytest.raises(ValueError, match="only one"):
        permute_between_subjects(y[:1], subject[:1], rng)


def test_a_series_is_handed_over_in_its_order():
    rng = np.random.default_rng(0)
    y = np.r_[np.arange(10.0), 100 + np.arange(4.0)]
    new = permute_between_subjects(y, np.repeat([0, 1], [10, 4]), rng)
    assert set(np.diff(new[:10])) <= {1.0, -3.0} and set(np.diff(new[10:])) <= {1.0, -9.0}


@pytest.mark.parametrize(
    ("order", "severity"),
    [
        ("sorted", "error"),
        ("middle", "error"),
        ("alternating", "error"),
        ("drift", "warning"),
        ("ids", "error"),
    ],
)
def test_labels_in_the_order_of_the_file_are_found(order, severity):
    rng, n = np.random.default_rng(2), 150
    y = np.r_[np.zeros(n // 2), np.ones(n - n // 2)]
    names = rng.permutation(n)
    if order == "middle":
        y = np.r_[np.zeros(50), np.ones(50), np.zeros(50)]
    elif order == "alternating":
        y = np.arange(n) % 2.0
    elif order == "drift":
        y = (rng.random(n) < np.linspace(0.2, 0.7, n)).astype(float)
    elif order == "ids":
        shuffle = rng.permutation(n)
        y, names = y[shuffle], shuffle
    table = pd.DataFrame({"subject": [f"P{i:04d}" for i in names], "row": np.arange(n), "y": y})
    found = row_order(Evidence(examples=table.loc[table.index.repeat(3)].assign(row=np.arange(3 * n))))
    assert (found.verdict, found.severity) == ("fail", severity), found


def test_noise_that_knows_the_outcome_is_noticed_and_real_noise_is_not():
    table, rng = world(11, 100), np.random.default_rng(0)
    assert noise_rank(Evidence(examples=table)).verdict == "not applicable"
    drawn = table.assign(x_noise_1=rng.normal(size=len(table)))
    assert noise_rank(Evidence(examples=drawn)).verdict == "pass"
    found = noise_rank(Evidence(examples=drawn.assign(x_noise_2=table["y"] + rng.normal(0, 0.3, len(table)))))
    assert found.verdict == "fail" and "x_noise_2" in found.evidence


# ---------------------------------------------------------------- too good, and a search that did not search


def test_a_model_that_beats_the_oracle_is_too_good_and_a_bold_one_is_not():
    rng = np.random.default_rng(0)
    p = np.clip(rng.beta(2, 2, 400), 0.01, 0.99)
    y, who = (rng.random(400) < p).astype(float), np.repeat(np.arange(100), 4)
    simulated = Evidence(simulated=True)
    bold = (p > 0.5).astype(float)  # wins by absolute error, knows no more than the oracle
    assert np.abs(y - bold).mean() < np.abs(y - p).mean()
    assert too_good(seam(y, bold, who, p), study(), simulated).verdict == "pass"
    peeked = p + 0.3 * (y - p)
    assert too_good(seam(y, peeked, who, p), study(), simulated).verdict == "fail"
    assert too_good(seam(y, p, who), study(), simulated).verdict == "not assessable"  # an oracle must exist
    z = rng.normal(size=400)
    found = too_good(seam(z, z / 2, who), study("regression"), Evidence())
    assert (found.verdict, found.severity) == ("not assessable", "warning")  # real data have no oracle


def test_a_nearly_perfect_area_is_an_alarm_without_an_oracle():
    rng = np.random.default_rng(0)
    y, who = (rng.random(400) < 0.2).astype(float), np.repeat(np.arange(100), 4)
    assert too_good(seam(y, y + rng.normal(0, 0.2, 400), who), study(), Evidence()).verdict == "fail"
    assert too_good(seam(y, y + rng.normal(0, 1, 400), who), study(), Evidence()).verdict == "pass"


def test_training_rows_among_the_test_rows_and_absurdly_good_test_scores_are_found():
    rng = np.random.default_rng(0)
    y, who = rng.normal(size=400), np.repeat(np.arange(100), 4)
    said = y + rng.normal(0, 1, 400)
    about, fitted = study("regression"), pd.DataFrame({"subject": who, "y": y, "yhat": said})
    verdict = lambda rows, training: too_good(rows, about, Evidence(training=training)).verdict
    test = seam(y[200:], said[200:], who[200:])
    assert verdict(seam(y, said, who), fitted) == "fail"  # the same rows
    assert verdict(test, fitted) == "fail"  # some of them
    assert verdict(test, fitted[:200]) == "pass"
    assert verdict(seam(y[200:], y[200:] + rng.normal(0, 0.2, 200), who[200:]), fitted[:200]) == "fail"
    assert (
        verdict(seam(y[200:], y[200:] + rng.normal(0, 2, 200), who[200:]), fitted[:200]) == "pass"
    )  # overfitted


def test_a_search_must_arrive_and_must_matter():
    trials = pd.DataFrame(
        [(a, b) for a in (1, 2) for b in ("x", "y")], columns=["requested_a", "requested_b"]
    )
    trials = trials.assign(resolved_a=trials["requested_a"], resolved_b=trials["requested_b"])
    value = trials["requested_a"] + (trials["requested_b"] == "x") * 0.5
    verdict = lambda rows: sweep_reached(Evidence(trials=rows)).verdict
    assert verdict(trials.assign(value=value)) == "pass"
    assert verdict(trials.assign(value=value, resolved_a=1)) == "fail"  # did not arrive
    assert verdict(trials.assign(value=trials["requested_a"])) == "fail"  # b changes nothing
    assert verdict(trials.assign(value=0.7)) == "fail"
    assert verdict(trials.assign(value=value).drop(columns="resolved_b")) == "not assessable"
    assert (
        verdict(trials.assign(value=value, requested_a=1, resolved_a=1, requested_b="x", resolved_b="x"))
        == "fail"
    )
    floats = trials.assign(
        value=value, requested_a=[0.1, 0.1, 0.3, 0.3], resolved_a=[0.1, 0.1, 0.1 + 0.2, 0.1 + 0.2]
    )
    assert verdict(floats) == "pass"
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame({"requested_rate": rng.random(20), "requested_depth": rng.integers(1, 9, 20)})
    drawn = drawn.assign(resolved_rate=drawn["requested_rate"], resolved_depth=drawn["requested_depth"])
    assert (
        verdict(drawn.assign(value=rng.random(20))) == "pass"
    )  # random search: no two trials differ in one axis


# ---------------------------------------------------------------- poor evidence, and the audit that calls them


def poor_tables():
    table = world(12)
    return {
        "none": None,
        "no rows": table[:0],
        "one patient": table[table["subject"] == "P000"],
        "no columns": table[["subject", "split", "row", "y"]],
        "no test": table.assign(split="train"),
        "constant outcome": table.assign(y=1.0),
        "no outcome": table.assign(y=np.nan),
    }


@pytest.mark.parametrize("name", list(poor_tables()))
@pytest.mark.parametrize("check", [single_feature, rule_recovery, row_order])
def test_poor_evidence_is_not_assessable_and_never_a_crash_or_a_pass(name, check):
    if check is row_order and name in ("no columns", "no test"):
        return  # needs neither
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(Evidence(examples=poor_tables()[name])).verdict == "not assessable"


def test_odd_columns_do_not_disturb():
    table = world(13).astype({"subject": "category"})
    table = table.assign(
        x_empty=np.nan, x_one=1, x_flag=table["x_a"] > 0, x_word=None, x_kind=pd.Categorical(["a", "b"] * 150)
    )
    table.loc[::3, "x_a"] = np.nan
    table.loc[::7, "x_b"] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for check in (single_feature, rule_recovery, row_order):
            assert check(Evidence(examples=table)).verdict == "pass"
        assert permutation_twin(Evidence(twin=twin(table, n_permutations=2))).verdict == "pass"
    assert permutation_twin(Evidence(twin=twin(world(1))[:0])).verdict == "not assessable"


def broken(evidence: Evidence):
    "Breaks down whatever it is given."
    raise RuntimeError("no idea")


def test_a_check_that_breaks_down_stops_the_build_and_not_the_audit(monkeypatch):
    after = lambda evidence: finding("after", "?", False, "error", "L1", "fine", "")
    after.__name__ = "after"
    monkeypatch.setattr(audit, "CHECKS", (broken, after))
    found = audit.run(None, study(), Evidence(reasons={"broken": "we would rather not"}))
    assert [f.verdict for f in found] == ["not assessable", "pass"]
    assert "no idea" in found[0].evidence
    with pytest.raises(audit.LeakError, match="broken"):
        audit.stop_on_errors(found)


def test_a_reason_excuses_missing_evidence_and_nothing_else():
    table = world(14)
    table["y"] = np.sort(table["y"].to_numpy())
    reasons = {"row_order": "we like it sorted", "sweep_reached": "no search was made"}
    rows = seam(table["y"], table["x_a"].to_numpy(), table["subject"].to_numpy())
    found = {f.check: f for f in audit.run(rows, study(), Evidence(examples=table, reasons=reasons))}
    assert found["row_order"].verdict == "fail"
    assert found["sweep_reached"].verdict == "not applicable"
    assert found["sweep_reached"].evidence == "no search was made"
    for wrong in ({"row_ordre": "a slip"}, {"row_order": " "}):
        with pytest.raises(ValueError, match="row_ord"):
            audit.run(rows, study(), Evidence(reasons=wrong))


def test_every_check_has_its_own_name_and_says_so_without_evidence():
    names = [check.__name__ for check in audit.CHECKS]
    assert len(set(names)) == len(names) >= 24
    rows = seam(np.tile([0.0, 1.0], 50), np.tile([0.2, 0.1], 50), np.repeat(np.arange(20), 5))
    findings = audit.run(rows, study(), Evidence(simulated=True))
    assert [f.check for f in findings] == names
    assert all(f.severity in ("error", "warning") and f.question.endswith("?") for f in findings)
    with pytest.raises(audit.LeakError):
        audit.stop_on_errors(findings)  # nothing passes by default
    with pytest.raises(audit.LeakError):
        audit.stop_on_errors([replace(f, verdict="not assessable") for f in findings])


def test_signs_and_probes_are_the_ones_the_audit_calls():
    assert {single_feature, rule_recovery, permutation_twin, row_order, too_good} <= set(audit.CHECKS)
    assert audit_signs.sweep_reached in audit.CHECKS


# ---------------------------------------------------------------- what a reviewer broke


def own_future(seed=0, n=30, rows=24):
    "Everybody in both splits, later rows in the test; the outcome is noise."
    table = world(seed, n, rows, binary=False, signal=0.0)
    return table.assign(split=np.where(table.groupby("subject").cumcount() < rows // 2, "train", "test"))


@pytest.mark.parametrize("groups", [None, "split"])
@pytest.mark.parametrize("key", ["row", "time"])
def test_a_copy_of_a_training_row_keeps_its_foreign_outcome_in_a_forecast_of_ones_own_future(groups, key):
    table = own_future().rename(columns={"row": key})
    train = table[table["split"] == "train"]
    drop = np.random.default_rng(0).random(len(train)) < 0.8  # patients with rows of any number
    leaked = pd.concat([train, train[drop].assign(split="test")], ignore_index=True)
    assert permutation_twin(Evidence(twin=twin(leaked, groups=groups))).verdict == "fail"
    assert permutation_twin(Evidence(twin=twin(table, groups="split"))).verdict == "pass"


def test_skill_backwards_is_skill_and_a_constant_is_no_answer():
    again = twin(world(2, binary=False), audit_probes.line)
    verdict = lambda table: permutation_twin(Evidence(twin=table)).verdict
    assert verdict(again) == "pass"
    assert verdict(again.assign(yhat=-again["y"])) == "fail"
    constant = permutation_twin(Evidence(twin=again.assign(yhat=0.0)))
    assert (constant.verdict, constant.severity) == ("not assessable", "error")
    assert verdict(again.assign(yhat=again["yhat"].where(again.index > 3))) == "not assessable"


def test_a_sample_of_training_rows_that_are_test_rows_is_found():
    "600 training rows are at most a few per cent of the test rows, even if all test rows were trained on."
    rng, n = np.random.default_rng(0), 8000
    rows = seam(rng.normal(size=n), rng.normal(size=n), np.repeat(np.arange(100), 80))
    sample = rows.sample(600, random_state=0)[["subject", "time", "target", "horizon", "y", "yhat"]]
    verdict = lambda training: too_good(rows, study("regression"), Evidence(training=training)).verdict
    assert verdict(sample) == "fail" and verdict(sample.drop(columns="time")) == "fail"
    assert verdict(sample.assign(yhat=sample["yhat"] + 1e-3)) == "fail"  # known by their time
    rounded = sample.drop(columns="time").astype({"yhat": "float32"})
    assert verdict(rounded) == "fail"  # and without one, not by every bit
    assert verdict(sample.assign(time=sample["time"] + n)) == "pass"


def test_training_rows_with_holes_stop_the_build_and_none_at_all_are_a_warning():
    rng = np.random.default_rng(0)
    rows = seam(rng.normal(size=400), rng.normal(size=400), np.repeat(np.arange(40), 10))
    fitted = rows[["subject", "horizon", "y", "yhat"]].assign(y=rng.normal(size=400))
    ask = lambda training: too_good(rows, study("regression"), Evidence(training=training))
    assert ask(fitted).verdict == "pass"
    for useless in (fitted[:0], fitted.assign(yhat=np.nan), fitted.assign(horizon="60")):
        assert (ask(useless).verdict, ask(useless).severity) == ("not assessable", "error")


def test_a_model_nearly_as_good_as_the_oracle_is_innocent_in_few_patients_and_many_cells():
    alarms = 0
    for seed in range(60):
        rng, who = np.random.default_rng(seed), np.repeat(np.arange(6), 20)
        best = rng.normal(size=(8, 120))
        y, close = best + rng.normal(size=best.shape), best + 0.02 * rng.normal(size=best.shape)
        cells = [seam(y[k], close[k], who, best[k]).assign(horizon=float(k)) for k in range(8)]
        alarms += too_good(pd.concat(cells), study("regression"), Evidence(simulated=True)).verdict != "pass"
    assert alarms <= 1
    few = too_good(seam(y[0], close[0], who % 4, best[0]), study("regression"), Evidence(simulated=True))
    assert (few.verdict, few.severity) == ("not assessable", "warning")


def test_a_guess_at_the_mean_of_a_skewed_outcome_does_not_beat_the_median():
    for seed in range(6):
        rng, who = np.random.default_rng(seed), np.repeat(np.arange(40), 40)
        a = rng.normal(size=1600)
        table = pd.DataFrame(
            {"subject": who, "split": np.where(who < 25, "train", "test"), "row": range(1600)}
        )
        y = np.exp(0.5 * a + rng.normal(size=1600))
        table = table.assign(y=y, x_a=a, x_b=rng.normal(size=1600), oracle=np.exp(0.5 * a))
        assert single_feature(Evidence(examples=table)).verdict == "pass"


def settings(rate, horizon, seed=0, n=40, spacing=15):
    "A pump's setting in a while; the present setting is an input."
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        level = np.cumsum(rng.random(1800) < rate)
        level = rng.choice([4.0, 5.0, 6.0, 7.0, 8.0], 1800)[level]
        at = np.arange(0, 1800 - horizon, spacing)
        rows.append(pd.DataFrame({"subject": i, "row": at, "x_rate": level[at], "y": level[at + horizon]}))
    table = pd.concat(rows, ignore_index=True)
    table["split"] = np.where(table["subject"] < 24, "train", "test")
    return table.assign(x_other=rng.normal(size=len(table)))


def test_the_present_setting_is_no_leak_and_a_copy_of_the_next_one_is():
    for rate, horizon, verdict in (
        (1 / 6000, 30, "not assessable"),
        (1 / 600, 60, "pass"),
        (1 / 600, 30, "pass"),
    ):
        table = settings(rate, horizon)
        for check in (single_feature, rule_recovery):
            found = check(Evidence(examples=table))
            assert found.verdict == verdict and "rarely changes" in found.evidence
            assert verdict == "pass" or found.severity == "warning"
    leaked = single_feature(Evidence(examples=table.assign(x_next=table["y"])))
    assert (leaked.verdict, leaked.severity) == ("fail", "error") and "x_next" in leaked.evidence


def test_rare_outcomes_and_few_patients_are_a_warning_with_the_number():
    table = world(4)
    for rows in (table.assign(y=(np.arange(300) % 60 == 0) * 1.0), table[table["subject"] < "P005"]):
        for check in (single_feature, rule_recovery):
            found = check(Evidence(examples=rows))
            assert (found.verdict, found.severity) == ("not assessable", "warning"), found
        found = permutation_twin(Evidence(twin=twin(rows)))
        assert (found.verdict, found.severity) == ("not assessable", "warning"), found
    assert single_feature(Evidence()).severity == "error"


def test_numbers_that_are_missing_are_not_evidence_of_order_and_one_trial_is_no_search():
    table = world(1).assign(row=np.nan, y=np.arange(300.0))
    assert (
        found := row_order(Evidence(examples=table))
    ).verdict == "not assessable" and found.severity == "error"
    for trials in ({"requested_a": [1], "value": [1.0]}, {"a": [1, 2], "value": [1.0, 2.0]}):
        assert sweep_reached(Evidence(trials=pd.DataFrame(trials))).verdict == "not assessable"


def test_a_file_in_the_order_of_the_calendar_is_a_warning_however_steep():
    n = 200
    table = pd.DataFrame({"subject": np.random.default_rng(0).permutation(n), "row": np.arange(n)})
    table = table.assign(y=(np.arange(n) > 120) * 1.0)
    assert row_order(Evidence(examples=table)).severity == "error"
    dated = table.assign(time=pd.Timestamp("2020-01-01") + pd.to_timedelta(table["row"], unit="D"))
    assert (row_order(Evidence(examples=dated)).verdict, row_order(Evidence(examples=dated)).severity) == (
        "fail",
        "warning",
    )


def test_honest_models_may_agree_and_copies_may_not():
    from dataclasses import replace as altered

    rng, who = np.random.default_rng(0), np.repeat(np.arange(40), 10)
    base = seam(rng.normal(size=400), rng.normal(size=400), who)
    two = altered(study("regression"), reference="naive")
    with_ = lambda **models: pd.concat([base, *(base.assign(model=k, yhat=v) for k, v in models.items())])
    found = lambda **models: audit_values.copied_columns(with_(**models), two, Evidence())
    yhat, noise = base["yhat"], rng.normal(size=400)
    assert found(fusion=0.5 * yhat + 70).severity == found(heart=noise, breath=noise).severity == "error"
    for honest in (
        found(ols=yhat + 1e-4 * noise), found(oracle=noise, naive=noise), found(model_recalibrated=2 * yhat + 1),
    ):  # fmt: skip
        assert (honest.verdict, honest.severity) == ("fail", "warning")


def test_fingerprints_of_all_rows_find_what_a_sample_cannot():
    rng = np.random.default_rng(0)
    x, split = rng.normal(size=(12_000, 6)), np.where(np.arange(12_000) < 9000, "train", "test")
    who = np.arange(12_000) // 50
    whole = pd.DataFrame(x, columns=[f"x_{k}" for k in range(6)]).assign(subject=who, split=split, y=0.0)
    some = whole.groupby("split").sample(200, random_state=0)
    evidence = Evidence(windows=whole[["subject", "split"]], examples=some)
    blind = audit_twins.duplicates(evidence)
    assert (blind.verdict, blind.severity) == ("not assessable", "warning") and "noticed" in blind.evidence
    for n, verdict in ((0, "pass"), (30, "fail")):
        x[9000 : 9000 + n] = x[:n]
        prints = audit_twins.fingerprint(x.astype("float32").reshape(-1, 3, 2))
        evidence.fingerprints = whole[["subject", "split"]].assign(fingerprint=prints)
        assert audit_twins.duplicates(evidence).verdict == verdict
