"""Published values of the textbook tests and models that the battery prints beside its own, or is built on.

The row-level classics come from scipy and statsmodels; these tests pin what the installed versions say to what other
programs printed (R, Stata, EViews, NIST), so that an upgrade that changes a default is noticed here and not in a report."""

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medlab.judge import engines, multiplicity
from medlab.judge.dependence import dependence


@pytest.fixture(scope="module")
def investment():
    "Residuals and design of real investment on growth and interest: statsmodels' macro data."
    import statsmodels.api as sm

    data = sm.datasets.macrodata.load_pandas().data
    y = 400 * np.diff(np.log(data["realinv"]))
    x = np.column_stack([np.ones(len(y)), 400 * np.diff(np.log(data["realgdp"])), data["realint"][:-1]])
    return sm.OLS(y, x).fit(), y, x


def test_breusch_pagan_against_r_lmtest(investment):
    from statsmodels.stats.diagnostic import het_breuschpagan

    fit, _, x = investment
    assert het_breuschpagan(fit.resid, x)[:2] == pytest.approx((0.709924388395087, 0.701199952134347))
    original = het_breuschpagan(fit.resid, x, robust=False)
    assert original[:2] == pytest.approx((1.302014063483341, 0.5215203247110649))


def test_white_against_eviews(investment):
    from statsmodels.stats.diagnostic import het_white

    fit, _, x = investment
    assert het_white(fit.resid, x)[:3] == pytest.approx((33.503722896538441, 2.98879606e-06, 7.7945101))


def test_ljung_box_and_box_pierce_against_r(investment):
    "As the battery computes it (autocorrelations by Fourier transform), which must be what acorr_ljungbox says."
    from statsmodels.stats.diagnostic import acorr_ljungbox
    from statsmodels.tsa.stattools import acf, q_stat

    r = investment[0].resid
    box, p = q_stat(acf(r, nlags=4, fft=True)[1:], len(r))
    assert (box[-1], p[-1]) == pytest.approx((5.23587172795227, 0.263940335284713))
    whole = acorr_ljungbox(r, lags=[4], boxpierce=True).iloc[0]
    assert whole["lb_stat"] == pytest.approx(box[-1])
    assert whole["bp_stat"] == pytest.approx(5.12462932741681)


def test_breusch_godfrey_against_r(investment):
    from statsmodels.stats.diagnostic import acorr_breusch_godfrey

    found = acorr_breusch_godfrey(investment[0], nlags=4, result_object=True)
    assert (found.lm, found.lmpval) == pytest.approx((4.771042651230007, 0.3116067133066697))
    assert found.fval == pytest.approx(1.179280833676792)


@pytest.mark.parametrize(("lags", "statistic", "p"), [(4, 3.43473400836259, 0.487871), (12, 8.648320999014171, 0.732639)])  # fmt: skip
def test_arch_against_r_fints(investment, lags, statistic, p):
    from statsmodels.stats.diagnostic import het_arch

    found = het_arch(investment[0].resid, nlags=lags, result_object=True)
    assert (found.lm, found.lmpval) == pytest.approx((statistic, p), rel=1e-5)


def test_goldfeld_quandt_against_r(investment):
    from statsmodels.stats.diagnostic import het_goldfeldquandt

    _, y, x = investment
    above = het_goldfeldquandt(y, x, split=0.5, alternative="increasing", result_object=True)
    below = het_goldfeldquandt(y, x, split=0.5, alternative="decreasing", result_object=True)
    assert above.fval == pytest.approx(0.5313259064778423)
    assert (above.pval, below.pval) == pytest.approx((0.99902, 0.000978214880627621), rel=1e-4)


def test_newey_west_against_r_sandwich(investment):
    "R's NeweyWest without small-sample correction, lag 4."
    from statsmodels.stats.sandwich_covariance import cov_hac

    assert cov_hac(investment[0], nlags=4, use_correction=False)[0, 0] == pytest.approx(1.385551290884014)


@pytest.mark.parametrize(
    ("name", "f", "digits"),
    [
        ("SiRstv", 1.18046237440255, 9),
        ("AtmWtAg", 15.9467335677930, 6),
        ("SmLs01", 21.0, 9),
        ("SmLs04", 21.0, 3),
        ("SmLs09", 2001.0, 3),  # thirteen leading digits are the same: float64 holds no more
    ],
)
def test_analysis_of_variance_against_nist(name, f, digits):
    lines = (files("scipy.stats") / f"tests/data/nist_anova/{name}.dat").read_text().splitlines()
    group, value = np.array([line.split() for line in lines[60:] if line.strip()], float).T
    found = dependence(value, group)
    assert found.between / found.within == pytest.approx(f, rel=10.0**-digits)


def test_least_squares_against_nist_norris():
    "Our cluster regression's coefficients, and its CR1 with one row per cluster, which is White's HC1 up to (n-k)/(n-1)."
    import statsmodels.api as sm

    lines = (files("scipy.stats") / "tests/data/nist_linregress/Norris.dat").read_text().splitlines()
    y, x = np.array([line.split() for line in lines[60:] if line.strip()], float).T
    design = np.column_stack([np.ones(len(x)), x])
    found = engines.cluster_regression(design, y, np.arange(len(x)), "CR1")
    np.testing.assert_allclose(found.coefficients, [-0.262323073774029, 1.00211681802045], rtol=1e-10)
    fit = sm.OLS(y, design).fit()
    assert np.sqrt(fit.mse_resid) == pytest.approx(0.884796396144373, rel=1e-10)
    assert fit.rsquared == pytest.approx(0.999993745883712, rel=1e-12)
    factor = (len(x) - 1) / (len(x) - 2)
    np.testing.assert_allclose(
        found.covariance * factor, fit.get_robustcov_results("HC1").cov_params(), rtol=1e-6
    )


def test_ill_conditioned_least_squares_against_nist_longley():
    import statsmodels.api as sm

    data = sm.datasets.longley.load_pandas()
    design = sm.add_constant(data.exog).to_numpy()
    found = engines.cluster_regression(design, data.endog.to_numpy(), np.arange(len(design)))
    assert found.coefficients[0] == pytest.approx(-3482258.63459582, rel=1e-8)
    left = data.endog.to_numpy() - design @ found.coefficients
    assert np.sqrt((left**2).sum() / (len(left) - design.shape[1])) == pytest.approx(
        304.854073561965, rel=1e-8
    )


def test_adjustments_against_the_original_paper():
    "Benjamini and Hochberg 1995, table 1 (thrombolysis after myocardial infarction)."
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1]  # fmt: skip
    expected = [0.0015, 0.003, 0.0095, 0.035625, 0.0603, 0.06385714]
    np.testing.assert_allclose(multiplicity.benjamini_hochberg(p)[:6], expected, rtol=1e-6)
    np.testing.assert_allclose(multiplicity.benjamini_hochberg(p), stats.false_discovery_control(p))
    rejected = {name: int((adjust(p) <= 0.05).sum()) for name, adjust in multiplicity.ADJUSTMENTS.items()}
    assert rejected == {"Benjamini-Hochberg": 4, "Holm": 3, "Benjamini-Yekutieli": 3}
    np.testing.assert_allclose(
        multiplicity.holm([0.5, 0.011, 0.01]), [0.5, 0.03, 0.03]
    )  # never below a smaller p's
    with pytest.raises(ValueError, match="between 0 and 1"):
        multiplicity.holm([0.5, 1.2])


SLEEP = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP = SLEEP - np.array(
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
)  # Student 1908, hours of extra sleep


def test_students_sleep_data_against_r():
    found = engines.mean_test(SLEEP)
    assert (found.statistic, found.p) == pytest.approx((-4.062128, 0.002832890), rel=1e-6)
    assert stats.shapiro(SLEEP) == pytest.approx((0.82987, 0.033342), rel=1e-4)
    assert engines.equivalence_test(SLEEP, 2).p == pytest.approx(0.154157, abs=5e-7)
    assert engines.equivalence_test(SLEEP, 3).p == pytest.approx(0.0026556, abs=5e-8)


def test_equivalence_against_pingouin():
    pingouin = pytest.importorskip("pingouin")
    for bound in (1.0, 2.0, 3.0):
        theirs = pingouin.tost(SLEEP, 0, bound=bound)
        column = "p_val" if "p_val" in theirs else "pval"
        assert engines.equivalence_test(SLEEP, bound).p == pytest.approx(
            float(theirs[column].iloc[0]), rel=1e-9
        )


def test_mixed_model_against_r_lme4():
    import statsmodels.formula.api as smf

    path = files("statsmodels.regression") / "tests/results/dietox.csv"
    if not path.is_file():
        pytest.skip("this build of statsmodels ships without its test data")
    pigs = pd.read_csv(str(path))
    fit = smf.mixedlm("Weight ~ Time", pigs, groups=pigs["Pig"]).fit()
    assert fit.fe_params.to_numpy() == pytest.approx([15.72352, 6.94251], rel=1e-5)
    assert (fit.cov_re.iloc[0, 0], fit.scale) == pytest.approx((40.39387, 11.36692), rel=2e-4)


def test_generalised_estimating_equations_against_r_gee():
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    path = files("statsmodels.genmod") / "tests/results/epil.csv"
    if not path.is_file():
        pytest.skip("this build of statsmodels ships without its test data")
    fits = pd.read_csv(str(path))
    work = sm.cov_struct.Exchangeable()
    fit = smf.gee(
        "y ~ age + trt + base", "subject", fits, cov_struct=work, family=sm.families.Poisson()
    ).fit()
    found = {name.split("[")[0]: (fit.params[name], fit.bse[name]) for name in fit.params.index}
    expected = {
        "Intercept": (0.5730, 0.3607),
        "trt": (-0.1519, 0.1711),
        "age": (0.0223, 0.0114),
        "base": (0.0226, 0.0012),
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=6e-5)
    assert work.dep_params == pytest.approx(0.393, abs=1e-3)
