"""Evaluation: the compiled and the generic path agree bit for bit, and intervals cover as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from matchgym.baselines import evaluate
from matchgym.baselines.evaluation import roll_out, run_length, simulate
from matchgym.baselines.exact import exact_value
from matchgym.baselines.policy import parse_argument
from matchgym.baselines.scoring import score_exactly, score_simulated
from matchgym.baselines.stationary_matching import POLICIES, CorrelatedProposals, Greedy, Random
from matchgym.baselines.statistics import batch_means_interval, paired_interval, t_interval
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find

ID = "StationaryMatching-v0"


@pytest.mark.parametrize("name", list(POLICIES))
def test_compiled_simulation_is_the_generic_loop(name):
    """`simulate` and a loop over `VectorEnv.step` and `predict` give the same rewards, bit for bit."""
    entry = find(ID)
    policy = POLICIES[name]().fit("random-3x4").acting
    size = (policy.instance, 3, 40, 200, 17)
    assert (simulate(policy, entry, *size) == roll_out(policy, entry, *size, False)).all()


def test_t_interval_by_hand():
    found = t_interval([1.0, 2.0, 3.0, 4.0])
    half = stats.t.ppf(0.975, 3) * math.sqrt(5 / 3) / 2
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))
    assert paired_interval([1, 2, 4], [0, 1, 3]).half_width == 0
    assert batch_means_interval(np.array([[1.0, 2.0], [3.0, 4.0]])).mean == 2.5
    for values in ([1.0], [], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="two values"):
            t_interval(values)
    with pytest.raises(ValueError, match="same shape"):
        paired_interval([1, 2], [1, 2, 3])


def test_intervals_cover_the_known_answer():
    """On the toy, whose value is 1 - 1/(e - 1): 95 % intervals from 16 replications cover it in 95 % of 500 experiments.

    The number of hits is Binomial(500, 0.95) up to normality of the replications; the test is two-sided at level 1e-4.
    """
    truth, experiments = 1 - 1 / (math.e - 1), 500
    found = evaluate(Greedy().fit("toy"), ID, replications=16 * experiments, warmup=50, decisions=400)
    hits = sum(t.low <= truth <= t.high for t in map(t_interval, found.values.reshape(experiments, 16)))
    low, high = stats.binom(experiments, 0.95).ppf([5e-5, 1 - 5e-5])
    assert low <= hits <= high
    assert found.objective.low <= truth <= found.objective.high
    means = sum(t.low <= truth <= t.high for t in map(batch_means_interval, found.batches.reshape(experiments, 16, -1)))
    assert means >= stats.binom(experiments, 0.90).ppf(5e-5)  # batches of 40 decisions are a little dependent


def test_warm_up_matters_and_is_deleted():
    """From an empty start the first decisions earn less; with warm-up the bias is gone."""
    policy = Greedy().fit("demo")
    truth = exact_value(policy).mean
    cold = evaluate(policy, ID, replications=8192, warmup=0, decisions=10).objective
    warm = evaluate(policy, ID, replications=512, warmup=500, decisions=2000).objective
    assert cold.high < truth
    assert warm.low <= truth <= warm.high


def test_paired_differences_are_sharper():
    """Common random numbers: the variance of a difference falls well below the sum of the variances."""
    run = {"replications": 64, "warmup": 500, "decisions": 5_000}
    first = evaluate(CorrelatedProposals().fit("demo"), ID, **run)
    second = evaluate(POLICIES["price-greedy"]().fit("demo"), ID, **run)
    paired = np.var(first.values - second.values)
    assert paired < (np.var(first.values) + np.var(second.values)) / 5
    gap = exact_value(CorrelatedProposals().fit("demo")).mean - exact_value(POLICIES["price-greedy"]().fit("demo")).mean
    difference = first.minus(second)
    assert difference.low <= gap <= difference.high
    other = evaluate(Greedy().fit("demo"), ID, **run | {"replications": 32})
    with pytest.raises(ValueError, match="same"):
        first.minus(other)


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "balanced-greedy"])
def test_simulated_values_are_the_exact_ones(name):
    """Every policy on B5(2), simulated, against the value of its chain (99.99 % interval)."""
    policy = POLICIES[name]().fit("b5-2")
    truth = exact_value(policy)
    found = evaluate(policy, ID, replications=32, warmup=500, decisions=20_000).objective
    assert abs(found.mean - truth.mean) <= found.half_width * stats.t.isf(5e-5, 31) / stats.t.isf(0.025, 31)


def test_seeds_and_chunks():
    """The same seed gives the same values, another seed others, and the progress callback ends at 1."""
    shares = []
    run = {"replications": 4, "warmup": 100, "decisions": 1_000}
    first = evaluate(Random().fit("demo"), ID, **run, progress=shares.append)
    assert shares[-1] == 1.0
    assert (first.values == evaluate(Random().fit("demo"), ID, **run).values).all()
    assert (first.values != evaluate(Random().fit("demo"), ID, **run, seed=100).values).any()
    assert first.values == pytest.approx(first.batches.mean(1))


def test_scores():
    entry = find(ID)
    policy = CorrelatedProposals().fit("demo")
    exact = score_exactly(entry, policy)
    assert exact.score == pytest.approx((3.81216043 - 2.77019589) / (4.71422229 - 2.77019589), rel=1e-7)
    assert exact.ratio == pytest.approx(3.81216043 / 4.71422229, rel=1e-7)
    found = evaluate(policy, ID, replications=16, warmup=500, decisions=4_000)
    simulated = score_simulated(entry, policy, found, 500, 4_000)
    assert abs(simulated.score - exact.score) < 0.05
    assert not simulated.is_above_bound
    itself = score_exactly(entry, Greedy().fit("demo"))
    assert itself.score == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {"replications": 1},
        {"replications": -1},
        {"warmup": -1},
        {"decisions": 5},
        {"seed": -1},
        {"decisions": 2.5},
        {"replications": True},
        {"decisions": 10**30},
        {"replications": 10**9},
    ],
)
def test_bad_numbers_name_the_argument(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        evaluate(Greedy().fit("toy"), ID, **arguments)


def test_arguments_from_text(tmp_path):
    assert parse_argument("eps", "0.5", float) == 0.5
    assert parse_argument("n", "7", int) == 7
    assert parse_argument("flag", "True", bool) is True
    assert parse_argument("t", "0.5", float | None) == 0.5
    path = tmp_path / "x.json"
    path.write_text("[[1, 2], [3, 4]]")
    assert (parse_argument("x", str(path), np.ndarray | None) == [[1, 2], [3, 4]]).all()
    for text, kind in (("x", float), ("nan", float), ("1.5", int), ("yes", bool), ("no-file.json", np.ndarray)):
        with pytest.raises(InputError):
            parse_argument("p", text, kind)


def test_policies_refuse_what_does_not_belong_to_their_instance():
    """Compiled code would read beyond its arrays."""
    policy = Greedy().fit("demo")
    with pytest.raises(InputError, match="fitted to instance"):
        evaluate(policy, ID, "random-10x10", 4, 100, 1000)
    for unfitted in (lambda: evaluate(Greedy(), ID), lambda: Greedy().predict(np.zeros(5))):
        with pytest.raises(InputError, match="fit"):
            unfitted()
    for observation in (np.zeros(4), np.zeros((2, 6)), np.full(5, np.nan)):
        with pytest.raises(InputError, match="observation"):
            policy.predict(observation)
    with pytest.raises(InputError, match="rows"):
        policy.predict(np.zeros((3, 5)), policy.start(1, 0))
    with pytest.raises(InputError, match="rows"):
        policy.predict(np.zeros((3, 5)), action_masks=np.ones((2, 3), bool))


def test_default_warm_up_outlasts_slow_suppliers():
    """Suppliers stay for 100 units of time among 1000 customers per unit: 20,000 decisions see little but the empty start."""
    slow = {
        "model": "stationary_matching",
        "name": "slow",
        "supplier_rates": [0.2],
        "departure_rates": [0.01],
        "customer_rates": [1000.0, 0.1],
        "rewards": [[0.0, 1.0]],
    }
    policy = Greedy().fit(slow)
    found = evaluate(policy, ID).objective
    exact = exact_value(policy).mean
    assert abs(found.mean - exact) < 4 * (found.high - found.low) / (2 * stats.t.ppf(0.975, 31))
    biased = evaluate(policy, ID, warmup=2_000, decisions=20_000, replications=512).objective
    assert biased.high < exact
    assert run_length(find(ID).model, policy.instance, None, None)[0] == 1_000_000  # ten stays
    assert run_length(find(ID).model, find(ID).model.load("demo"), None, None) == (2_000, 20_000)
