"""The oracle's programme (4) and the exact values of known-reward rules."""

import dataclasses
import itertools

import numpy as np
import pytest
from platforms import best_servers, expected_reward, one_hot
from scipy.optimize import linear_sum_assignment, linprog

from matchgym.baselines.congestion_learning import JSQ, BarrierKnown, QueueKnown, QueueUCB, Random, exact_value
from matchgym.bounds.congestion_learning import bound, oracle, solve_oracle
from matchgym.bounds.floating_clients import oracle as floating_oracle
from matchgym.bounds.rational import CertificateError
from matchgym.bounds.slotted_chain import fixed_value, rule_value
from matchgym.envs.catalogues.congestion_learning import PRICES, SCORES, healthcare, random_platform
from matchgym.envs.congestion_instances import CongestionLearningInstance
from matchgym.envs.instance import InputError


def platform(**fields):
    return CongestionLearningInstance(**fields)


def everywhere(r):
    return np.ones(r.shape, bool)


def test_integer_rates_are_an_assignment():
    """Type i gets lambda_i whole servers."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        n, m = int(rng.integers(1, 4)), 7
        lam, r = rng.integers(1, 3, n), rng.uniform(0, 1, (n, m))
        rows, columns = linear_sum_assignment(-np.repeat(r, lam, axis=0))
        best = np.repeat(r, lam, axis=0)[rows, columns].sum()
        found = oracle(platform(arrival_rates=lam.astype(float), n_servers=m, rewards=r))
        assert found.value == pytest.approx(best, abs=1e-9)
        assert found.verify() == pytest.approx(best, abs=1e-9)
        assert found.certified_value >= best - 1e-12


def test_vertices_and_duals():
    """Against linprog with "=" rows (Lemma 1), feasibility, complementary duals, and enumeration of a small case."""
    rng = np.random.default_rng(1)
    for _ in range(40):
        n, m = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        r, lam, capacity = rng.uniform(0.05, 1, (n, m)), rng.uniform(0.1, 1, n), rng.uniform(0.5, 2, m)
        lam *= rng.uniform(0.2, 0.98) * capacity.sum() / lam.sum()
        found = solve_oracle(r, lam, capacity, everywhere(r))
        equal = linprog(
            -r.ravel(), np.kron(np.ones(n), np.eye(m)), capacity, np.kron(np.eye(n), np.ones(m)), lam, method="highs"
        )
        assert found.value == pytest.approx(-equal.fun, abs=1e-9)
        np.testing.assert_allclose(found.x.sum(1), lam, atol=1e-8)
        assert (found.x.sum(0) <= capacity + 1e-8).all()
        assert capacity @ found.alpha + lam @ found.beta == pytest.approx(found.value, abs=1e-8)
        assert (found.alpha + found.beta[:, None] >= r - 1e-8).all()
    # One type: fill the best servers.
    r, lam = rng.uniform(0, 1, (1, 5)), 2.4
    order = np.sort(r[0])[::-1]
    assert solve_oracle(r, np.array([lam]), np.ones(5), everywhere(r)).value == pytest.approx(order[:2].sum() + 0.4 * order[2])
    overloaded = solve_oracle(r, np.array([9.0]), np.ones(5), everywhere(r))
    assert overloaded.value == pytest.approx(r.sum())
    # Compatibility by brute force over assignments of unit jobs.
    r, allowed = rng.uniform(0, 1, (2, 3)), np.array([[1, 1, 0], [0, 1, 0]], bool)
    best = max(r[0, j] * allowed[0, j] + r[1, k] * allowed[1, k] for j, k in itertools.permutations(range(3), 2))
    assert solve_oracle(r, np.ones(2), np.ones(3), allowed).value == pytest.approx(best)


def test_healthcare_closed_form():
    """Rank one: 1.5 x the three largest v_j + 0.8 x the next seven."""
    v = np.sort(np.array(PRICES) * np.array(SCORES) / 5)[::-1]
    found = oracle("healthcare")
    assert found.value == pytest.approx(1.5 * v[:3].sum() + 0.8 * v[3:10].sum(), rel=1e-12)
    found.verify()
    rewards = np.array(healthcare()["rewards"])
    assert rewards.min() == pytest.approx(14.88)
    assert rewards.max() == pytest.approx(404.19)


def test_certificates():
    found = oracle(random_platform(3, 5, seed=1, density=0.7))
    assert found.verify() == found.certified_value >= found.value - 1e-12
    worse = dataclasses.replace(found, certificate=found.certificate | {"alpha": [0.0] * 5})
    with pytest.raises(CertificateError, match="proves"):
        worse.verify()
    for alpha in ([0.0] * 4, [float("nan")] * 5, ["0"] * 5, None):
        with pytest.raises(CertificateError):
            dataclasses.replace(found, certificate={"kind": "oracle", "alpha": alpha}).verify()
    noisy = oracle(platform(arrival_rates=[1.0], n_servers=2, rewards=[[0.95, 0.4]], reward_law="uniform_noise", noise=0.3))
    assert noisy.value == pytest.approx(0.95 - 0.25**2 / 1.2)  # clipping from above costs ((r + noise - 1)^+)^2 / (4 noise)
    assert noisy.verify() == pytest.approx(noisy.value)
    for source in ("base", platform(arrival_rates=[1.0], n_servers=2)):
        with pytest.raises(InputError, match="rewards are drawn"):
            bound(source)
    with pytest.raises(InputError, match="kind"):
        bound("toy", "fluid")


def test_floating_clients():
    """(EC.37) is (4) at rates mu lambda / nu, certified in exact arithmetic."""
    rng = np.random.default_rng(2)
    r = rng.uniform(0, 1, (2, 6))
    fields = {"client_arrivals": [0.1, 0.3], "client_departures": [0.1, 0.6], "job_rates": [2.0, 6.0], "n_servers": 6}
    found = floating_oracle({"model": "floating_clients", "rewards": r.tolist(), **fields})
    assert found.value == pytest.approx(oracle(platform(arrival_rates=[2.0, 3.0], n_servers=6, rewards=r)).value, abs=1e-9)
    assert found.verify() == pytest.approx(found.value, abs=1e-9)


def queue_rule(estimates, eps):
    """Rule (10) for `expected_reward`."""
    return lambda t, lengths, h, w: one_hot(best_servers(estimates, lengths, eps), estimates.shape[1])


SMALL = (
    {"arrival_rates": [0.8], "rewards": [[0.9, 0.35]], "arrival_success": 0.4},
    {"arrival_rates": [0.7, 0.6], "rewards": [[0.9, 0.35], [0.5, 0.45]], "arrival_success": 0.6},
    {"arrival_rates": [0.4, 0.9], "rewards": [[0.1, 0.75], [0.65, 0.2]], "arrival_success": 0.5},
)


@pytest.mark.parametrize("fields", SMALL)
def test_exact_values_by_enumeration(fields):
    """Fixed routing, rule (10) and JSQ against the law of the whole state, queues with their types in order."""
    instance = platform(n_servers=2, horizon=6, arrival_law="binomial", **fields)
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(2), instance.n_types)
    truth = expected_reward(instance, lambda t, q, h, w: p, is_learning=False) / 6
    assert fixed_value(instance, p).mean == pytest.approx(truth, abs=1e-12)
    for eps in (0.07, 0.31, 5.0):
        for estimates in (instance.mean_rewards, 0 * instance.mean_rewards):
            truth = expected_reward(instance, queue_rule(estimates, eps), is_learning=False) / 6
            found = rule_value(instance, estimates, eps)
            assert found.mean == pytest.approx(truth, abs=1e-12)
            assert found.error < 1e-9


def test_formula_by_shares_needs_random_order():
    """Sharing a server's reward out by rates is right for one type; for two, types join in order, and it is not."""
    p = np.array([[0.5, 0.5], [0.5, 0.5]])
    instance = platform(arrival_rates=[0.8, 0.7], n_servers=2, rewards=[[0.9, 0.8], [0.1, 0.2]], horizon=5)
    ones = platform(arrival_rates=[0.8, 0.7], n_servers=2, rewards=np.ones((2, 2)), horizon=5)
    served = fixed_value(ones, p).mean
    by_shares = served * (0.8 * 0.85 + 0.7 * 0.15) / 1.5
    assert fixed_value(instance, p).mean - by_shares > 0.01  # type 0 goes first, and earns more
    alone = platform(arrival_rates=[1.5], n_servers=2, rewards=[[0.85, 0.15]], horizon=5)
    assert fixed_value(alone, p[:1]).mean == pytest.approx(served * 0.5, abs=1e-12)


def test_slotted_poisson_queue():
    """E Q = s^2 / (2 (1 - s)) in the long run, and E R(T) = r (s T - E Q(T))."""
    for s in (0.2, 0.5, 0.8):
        horizon = 3000
        instance = platform(arrival_rates=[s], n_servers=1, rewards=[[1.0]], horizon=horizon)
        queue = s * horizon - horizon * fixed_value(instance, np.ones((1, 1))).mean
        assert queue == pytest.approx(s * s / (2 * (1 - s)), rel=1e-8)


def test_fractional_capacities():
    """Bernoulli service: the fixed routing of one slot and of two by hand."""
    instance = platform(
        arrival_rates=[0.5],
        n_servers=1,
        rewards=[[1.0]],
        service_rates=[0.4],
        arrival_law="binomial",
        arrival_success=0.5,
        horizon=1,
    )
    assert fixed_value(instance, np.ones((1, 1))).mean == pytest.approx(0.2)
    two = dataclasses.replace(instance, horizon=2)
    waiting = 0.5 * 0.6  # after the first slot
    second = 0.4 * (waiting + (1 - waiting) * 0.5)
    assert 2 * fixed_value(two, np.ones((1, 1))).mean == pytest.approx(0.2 + second)
    more = dataclasses.replace(instance, service_rates=[1.7], horizon=30)
    assert fixed_value(more, np.ones((1, 1))).mean == pytest.approx(0.5)
    with pytest.raises(InputError, match="service_rates"):
        rule_value(more, np.ones((1, 1)), 1.0)


def test_other_laws_and_capacities_against_simulation():
    """Geometric arrivals, capacities 2 and 1, compatibility: within 4.5 standard errors of 8,000 episodes."""
    from matchgym.baselines import evaluate

    instance = platform(
        arrival_rates=[1.1, 0.7], n_servers=2, rewards=[[0.9, 0.3], [0.4, 0.8]], service_rates=[2, 1], arrival_law="geometric",
        compatibility=[[1, 1], [0, 1]], horizon=25,
    )  # fmt: skip
    for policy in (Random(), BarrierKnown(V=20.0), QueueKnown(eps=0.05), JSQ()):
        truth = exact_value(policy.fit(instance))
        found = evaluate(policy, "CongestionLearning-v0", replications=8_000, seed=1)
        error = found.values.std(ddof=1) / np.sqrt(len(found.values))
        assert abs(found.objective.mean - truth.mean) < 4.5 * error
        assert error < 0.005


def test_exact_values_respect_the_papers_bounds():
    """Prop. 2 (iii) R* T - E R(T) <= B_1 eps T / 2 + sum_j E Q_j(T), and Theorem 1's E Q_j <= (V - 1)^2 / (2 V)."""
    lam, r, horizon = 1.4, np.array([[0.9, 0.55]]), 300
    instance = platform(arrival_rates=[lam], n_servers=2, rewards=r, horizon=horizon)
    ones = dataclasses.replace(instance, rewards=np.ones((1, 2)))
    star = oracle(instance).certified_value
    second_moment = lam + lam**2
    for eps in (0.011, 0.103):
        earned = horizon * rule_value(instance, r, eps).mean
        waiting = lam * horizon - horizon * rule_value(ones, r, eps).mean
        assert 0 <= star * horizon - earned <= (second_moment - 2 * lam + 2) * eps * horizon / 2 + waiting
        assert waiting <= 2 / (2 * (2 - lam)) * (2 * lam / eps + second_moment - 2 * lam + 2)
    for v in (5.0, 50.0, 1000.0):
        policy = BarrierKnown(V=v).fit(instance)
        p = policy.exact_value().mean
        assert p <= star
    single = platform(arrival_rates=[0.99], n_servers=1, rewards=[[1.0]], horizon=4000)
    queue = 4000 * (0.99 - fixed_value(single, np.ones((1, 1))).mean)
    v = 1 / (1 - 0.99)  # the slack of programme (8) is 1 / V at least
    assert queue <= (v - 1) ** 2 / (2 * v) + 1e-9


def test_what_has_no_exact_value():
    for policy, source in (
        (QueueUCB(), "toy"),
        (QueueKnown(), "tables"),
        (QueueKnown(), "base"),
        (BarrierKnown(), "base"),
        (JSQ(), random_platform(8, 2, seed=0)),
    ):
        with pytest.raises(InputError, match=r"exact|rewards"):
            exact_value(policy.fit(source))
    with pytest.raises(InputError, match="outgrow"):
        exact_value(JSQ().fit(platform(arrival_rates=[2.5], n_servers=2, rewards=[[0.5, 0.5]])), max_states=2500)
