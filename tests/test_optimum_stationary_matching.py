"""The exact optimum of stationary matching and the chains behind it, against other methods (arXiv 2411.08218)."""

import math

import numpy as np
import pulp
import pytest
from cases import random_instance
from scipy import sparse, stats

from matchgym.bounds import stationary_matching as bounds
from matchgym.bounds.chain import box_of, make_box, match_law, poisson_equation, policy_iteration, stationary_law
from matchgym.envs.catalogues.stationary_matching import b1, b3, b5
from matchgym.envs.instance import InputError
from matchgym.envs.stationary_matching import StationaryMatchingInstance


def birth_death(supplier_rate, departure_rate, customer_rate):
    """Gain of greedy on one merged supplier type with reward 1 (Section 7 of the specification of B1, B3, B5)."""
    total = term = 1.0
    for level in range(1, 400):
        term *= supplier_rate / (level * departure_rate + customer_rate)
        total += term
    return customer_rate * (1 - 1 / total)


def value_iteration(instance, caps):
    """Relative value iteration, written from the Bellman equation without the package's chain."""
    shape = tuple(cap + 1 for cap in caps)
    h = np.zeros(shape)
    n, m = instance.rewards.shape
    speed = instance.supplier_rates.sum() + instance.departure_rates @ caps + instance.customer_rates.sum()
    for _ in range(200_000):
        b = np.zeros(shape)
        for q in np.ndindex(shape):
            value = 0.0
            for i in range(n):
                up, down = list(q), list(q)
                up[i] += 1
                down[i] -= 1
                if q[i] < caps[i]:
                    value += instance.supplier_rates[i] * (h[tuple(up)] - h[q])
                if q[i] > 0:
                    value += instance.departure_rates[i] * q[i] * (h[tuple(down)] - h[q])
            for j in range(m):
                gains = [0.0]
                for i in range(n):
                    if q[i] > 0:
                        down = list(q)
                        down[i] -= 1
                        gains.append(instance.rewards[i, j] + h[tuple(down)] - h[q])
                value += instance.customer_rates[j] * max(gains)
            b[q] = value
        if np.ptp(b) < 1e-8:
            return b.min(), b.max()
        h += b / speed
        h -= h[(0,) * n]
    raise AssertionError("no convergence")


def linear_programme_optimum(instance, caps):
    """The average-reward LP over state-action frequencies, without the package's chain."""
    states = list(np.ndindex(*(cap + 1 for cap in caps)))
    n, m = instance.rewards.shape
    problem = pulp.LpProblem("mdp", pulp.LpMaximize)
    pi = {s: problem.add_variable("p" + "_".join(map(str, s)), 0) for s in states}
    z = {
        (s, j, i): problem.add_variable("z" + "_".join(map(str, (*s, j, i))), 0)
        for s in states for j in range(m) for i in range(n) if s[i] > 0
    }  # fmt: skip
    problem += pulp.lpSum(instance.customer_rates[j] * instance.rewards[i, j] * v for (s, j, i), v in z.items())
    problem += pulp.lpSum(pi.values()) == 1
    flow = {s: [] for s in states}

    def move(source, target, amount):
        flow[source].append(-amount)
        flow[target].append(amount)

    for s in states:
        for i in range(n):
            up, down = list(s), list(s)
            up[i] += 1
            down[i] -= 1
            if s[i] < caps[i]:
                move(s, tuple(up), float(instance.supplier_rates[i]) * pi[s])
            if s[i] > 0:
                move(s, tuple(down), float(instance.departure_rates[i] * s[i]) * pi[s])
                for j in range(m):
                    move(s, tuple(down), float(instance.customer_rates[j]) * z[s, j, i])
        for j in range(m):
            problem += pulp.lpSum(z[s, j, i] for i in range(n) if s[i] > 0) <= pi[s]
    for s in states:
        problem += pulp.lpSum(flow[s]) == 0
    problem.solve(pulp.HiGHS(msg=False))
    return pulp.value(problem.objective)


@pytest.mark.parametrize("seed", [0, 4, 9])
def test_policy_iteration_is_value_iteration_is_linear_programming(seed):
    instance, caps = random_instance(seed, n=2, m=2), (3, 4)
    gain = policy_iteration(box_of(instance, caps)).gain
    low, high = value_iteration(instance, np.array(caps))
    assert low - 1e-9 <= gain <= high + 1e-9
    assert gain == pytest.approx(linear_programme_optimum(instance, caps), abs=1e-7)


@pytest.mark.parametrize(
    ("fields", "merged"),
    [(b1(2), (1, 1, 1 / 4)), (b1(3), (1, 1, 1 / 9)), (b3(4), (2, 1, 1)), (b5(2), (2, 1, 1)), (b5(3), (3, 1, 1))],
)
def test_examples_have_a_merged_optimum(fields, merged):
    found = bounds.optimum(fields)
    truth = birth_death(*merged)
    assert found.lower <= truth * (1 + 1e-12)
    assert truth <= found.upper * (1 + 1e-12)
    assert found.upper - found.lower <= 1e-6
    assert found.verify() == found.upper


def test_toy_by_hand():
    truth = 1 - 1 / (math.e - 1)
    found = bounds.optimum("toy")
    assert found.lower <= truth <= found.upper
    assert found.value == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_bracket_holds_the_value_of_larger_caps(seed):
    instance = random_instance(seed)
    found = bounds.optimum(instance)
    assert 0 <= found.upper - found.lower <= 1e-6
    larger = policy_iteration(box_of(instance, tuple(cap + 4 for cap in found.solution["caps"]))).gain
    assert found.lower * (1 - 1e-12) <= larger <= found.upper * (1 + 1e-12)
    assert found.upper <= bounds.tlp_online(instance).certified_value * (1 + 1e-7)
    found.verify()


def test_one_supplier_type_has_thresholds():
    """With one supplier type the best policy serves customer type j exactly when enough suppliers wait."""
    for seed in range(20):
        actions = bounds.optimum(random_instance(seed, n=1, m=4)).solution["actions"]
        serves = actions[:, 1:] == 0
        assert (np.diff(serves.astype(int), axis=1) >= 0).all()


def test_too_large_a_state_space_is_refused():
    with pytest.raises(InputError, match="random-40x40"):
        bounds.optimum("random-40x40")


@pytest.mark.parametrize("size", [5, 9])
def test_large_chains_are_solved_iteratively_to_the_same_value(size):
    """GMRES with an incomplete factorisation gives what the direct solver gives."""
    from matchgym.bounds import chain

    instance = random_instance(7, n=3, m=2)
    box = box_of(instance, (size,) * 3)
    direct = policy_iteration(box).gain
    limit, chain.DIRECT_STATES = chain.DIRECT_STATES, 10
    try:
        assert policy_iteration(box).gain == pytest.approx(direct, rel=1e-11)
    finally:
        chain.DIRECT_STATES = limit


def test_chain_solvers_on_a_queue_by_hand():
    """M/M/inf cut off at 12: stationary law Poisson(1) conditioned on <= 12; Poisson's equation gives the mean reward."""
    instance = StationaryMatchingInstance(supplier_rates=[1.0], departure_rates=[1.0], customer_rates=[1e-12], rewards=[[0.0]])
    box = box_of(instance, (12,))
    generator = box.generator(match_law(box, np.full((1, 13), 1)))
    law = stats.poisson(1).pmf(np.arange(13))
    assert np.allclose(stationary_law(generator), law / law.sum(), atol=1e-14)
    gain, bias = poisson_equation(sparse.csr_matrix(generator), box.queues[0].astype(float))
    assert gain == pytest.approx(law @ np.arange(13) / law.sum(), rel=1e-12)
    assert bias[0] == 0


def test_box_is_the_smallest():
    instance = random_instance(0, n=2, m=2)
    box = make_box(instance, 1e-6, np.ones(2), "test")
    for cap, offered in zip(box.caps, instance.offered):
        assert stats.poisson(offered).sf(cap - 1) <= 5e-7
        assert cap == 1 or stats.poisson(offered).sf(cap - 2) > 5e-7
