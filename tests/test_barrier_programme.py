"""The barrier programme (7)/(8): certificates, closed forms, invariances, the paper's inequalities, a general solver."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from matchgym.baselines.barrier_programme import R, solve_barrier, solve_one, workspace
from matchgym.bounds.congestion_learning import solve_oracle
from matchgym.envs.instance import InputError


def random_programme(rng, ties=False):
    n, m = int(rng.integers(1, 5)), int(rng.integers(1, 13))
    lam = rng.uniform(0.1, 1, n)
    lam *= rng.uniform(0.2, 0.99) * m / lam.sum()
    r = rng.uniform(0, 1, (n, m))
    return lam, np.round(3 * r) / 3 if ties else r


def value(lam, r, v, x, m=None):
    m = np.ones(r.shape[1]) if m is None else m
    return (r * x).sum() + np.log(m - x.sum(0)).sum() / v


def dual(lam, r, v, u, m=None):
    """D(u), written out anew."""
    m = np.ones(r.shape[1]) if m is None else m
    a = (r - u[:, None]).max(0)
    phi = np.where(a * v * m >= 1, a * m - 1 / v - np.log(np.maximum(v * a, 1e-300)) / v, np.log(m) / v)
    return lam @ u + phi.sum()


@pytest.mark.parametrize("v", [0.1, 1.0, 30.0, 1e3, 1e5, 1e6])
def test_certified_gap_and_feasibility(v):
    rng = np.random.default_rng(0)
    for trial in range(60):
        lam, r = random_programme(rng, ties=trial % 2 == 0)
        found = solve_barrier(lam, r, v)
        assert found.gap <= 1e-9
        assert (found.flows >= 0).all()
        np.testing.assert_allclose(found.flows.sum(1), lam, rtol=1e-12)
        np.testing.assert_allclose(found.loads, found.flows.sum(0), atol=1e-9)
        assert (found.loads < 1).all()
        assert found.value == pytest.approx(value(lam, r, v, found.flows), abs=1e-9)
        assert dual(lam, r, v, found.multipliers) - value(lam, r, v, found.flows) <= 2e-9
        prices = 1 / (v * (1 - found.loads))
        np.testing.assert_allclose(found.prices, prices, rtol=1e-6)
        slack = found.multipliers[:, None] - (r - prices)
        assert (slack >= -1e-6 * prices.max()).all()
        assert (slack * found.flows).sum() <= 1e-6


def test_any_multipliers_bound_any_flows():
    """The dual function of the module: weak duality, and phi as a maximum over a grid of loads."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        lam, r = random_programme(rng)
        x = rng.dirichlet(np.ones(r.shape[1]), len(lam)) * lam[:, None]
        x *= min(1, 0.999 / x.sum(0).max())
        x = x if np.allclose(x.sum(1), lam) else np.outer(lam, np.full(r.shape[1], 1 / r.shape[1]))
        u = rng.normal(0, 1, len(lam))
        assert dual(lam, r, 7.0, u) >= value(lam, r, 7.0, x)
    s = np.linspace(0, 1, 200_001)[:-1]
    for a in (-1.0, 0.05, 0.2, 3.0):
        assert dual(np.zeros(1), np.array([[a]]), 7.0, np.zeros(1)) == pytest.approx(
            (a * s + np.log(1 - s) / 7).max(), abs=1e-9
        )


def test_certificates_of_rough_solutions():
    """Far from the optimum too, the gap that is reported is D(u) - P(x) at u_i = max_j (r_ij - a_j)."""
    rng, widest = np.random.default_rng(9), 0.0
    for _ in range(40):
        (lam, r), v = random_programme(rng), 10 ** rng.uniform(0, 3)
        n, m = r.shape
        work, flows = workspace(n, m), np.zeros(n * m)
        work[R, : n * m] = r.ravel()
        found, gap, _ = solve_one(lam, np.ones(m), v, 0.05, np.inf, flows, False, work)
        x = flows.reshape(n, m)
        u = (r - 1 / (v * (1 - x.sum(0)))).max(1)
        assert found == pytest.approx(value(lam, r, v, x), abs=1e-11)
        assert gap == pytest.approx(dual(lam, r, v, u) - value(lam, r, v, x), abs=1e-10)
        widest = max(widest, gap)
    assert widest > 0.01


def test_equal_rewards():
    for lam, m in (([2.0, 3.0], 6), ([0.3], 1), ([1.0, 2.0, 3.0], 7)):
        total = sum(lam)
        found = solve_barrier(lam, np.full((len(lam), m), 0.4), 50.0)
        np.testing.assert_allclose(found.probabilities, 1 / m, atol=1e-6)
        np.testing.assert_allclose(found.loads, total / m, atol=1e-8)
        assert found.value == pytest.approx(total * 0.4 + m / 50 * np.log(1 - total / m), abs=1e-9)
        np.testing.assert_allclose(found.multipliers, 0.4 - m / (50 * (m - total)), atol=1e-6)


def test_one_type():
    """Water-filling: s_j = max(0, 1 - 1 / (V (r_j - u))) with u from sum s_j = lambda; two servers in closed form."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        m, v = int(rng.integers(1, 10)), 10 ** rng.uniform(-1, 4)
        r, lam = rng.uniform(0, 1, m), rng.uniform(0.05, 0.98) * m

        def loads(u, r=r, v=v):
            return np.maximum(0, 1 - 1 / (v * np.maximum(r - u, 1e-300)))

        u = brentq(lambda u, lam=lam: loads(u).sum() - lam, r.min() - 1e4 / v - 1, r.max() - 1e-12, xtol=1e-15)
        np.testing.assert_allclose(solve_barrier([lam], r[None], v).loads, loads(u), atol=1e-8)
    lam, v, r = 1.2, 20.0, np.array([[0.7, 0.4]])
    k = v * 0.3 * (2 - lam)
    assert 1 - solve_barrier([lam], r, v).loads[0] == pytest.approx((2 + k - np.sqrt(4 + k * k)) / (2 * v * 0.3), abs=1e-8)


def test_invariances_and_limits():
    rng = np.random.default_rng(3)
    for _ in range(30):
        lam, r = random_programme(rng)
        base = solve_barrier(lam, r, 200.0)
        scaled = solve_barrier(lam, 7 * r, 200.0 / 7)
        np.testing.assert_allclose(scaled.loads, base.loads, atol=1e-6)
        assert scaled.value == pytest.approx(7 * base.value, abs=1e-7)
        shifted = solve_barrier(lam, r + rng.uniform(-2, 2, len(lam))[:, None], 200.0)
        np.testing.assert_allclose(shifted.loads, base.loads, atol=1e-6)
        order = rng.permutation(r.shape[1])
        np.testing.assert_allclose(solve_barrier(lam, r[:, order], 200.0).loads, base.loads[order], atol=1e-6)
        small = solve_barrier(lam, r, 1e-4)
        assert small.gap <= 1e-7
        np.testing.assert_allclose(small.loads, lam.sum() / r.shape[1], atol=1e-3)
        oracle = solve_oracle(r, lam, np.ones(r.shape[1]), np.ones(r.shape, bool)).value
        assert solve_barrier(lam, r, 1e7).value == pytest.approx(oracle, abs=1e-4)


def test_proposition_1_and_slack():
    """R* - sum x r <= J / V, and 1 - s_j >= 1 / (V Delta + J / (J - lambda)), for every V."""
    rng = np.random.default_rng(4)
    tightest = 0.0
    for trial in range(300):
        lam, r = random_programme(rng, ties=trial % 3 == 0)
        v, m = 10 ** rng.uniform(-1, 5), r.shape[1]
        found = solve_barrier(lam, r, v)
        oracle = solve_oracle(r, lam, np.ones(m), np.ones(r.shape, bool)).value
        assert oracle - (found.flows * r).sum() <= m / v + 1e-9
        spread = np.ptp(r, axis=1).max()
        bound = 1 / (v * spread + m / (m - lam.sum()))
        assert (1 - found.loads).min() >= bound * (1 - 1e-6)
        tightest = max(tightest, bound / (1 - found.loads).min())
    assert tightest > 0.9


def test_lemma_ec1_is_false():
    """lambda_i / (1 - s_j) <= V lambda_i r_ij (1 - kappa) fails: printed for all pairs, it can hold only where p_ij > 0."""
    found = solve_barrier([0.6, 0.9], [[0.05, 0.9], [0.95, 0.2]], 100.0)
    np.testing.assert_allclose(found.loads, [0.9, 0.6], atol=0.01)
    assert 1 / (100 * (1 - found.loads[0])) > 0.05


def general_solver(lam, r, v):
    """The optimum of the programme by SLSQP."""
    n, m = r.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    return -minimize(
        lambda x: -(r.ravel() @ x) - np.log(1 - columns @ x).sum() / v,
        np.repeat(lam / m, m),
        jac=lambda x: -r.ravel() + (columns.T @ (1 / (1 - columns @ x))) / v,
        bounds=[(0, None)] * (n * m),
        constraints=[
            {"type": "eq", "fun": lambda x: rows @ x - lam, "jac": lambda x: rows},
            {"type": "ineq", "fun": lambda x: 0.9999 - columns @ x, "jac": lambda x: -columns},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    ).fun


def test_general_solver_agrees():
    rng = np.random.default_rng(5)
    for _ in range(8):
        v, lam, r = 10 ** rng.uniform(0, 2), rng.uniform(0.3, 1.4, 2), rng.uniform(0, 1, (2, 4))
        found, other = solve_barrier(lam, r, v).value, general_solver(lam, r, v)
        assert found >= other - 1e-8
        assert found == pytest.approx(other, abs=1e-6)


def test_warm_start_finds_the_same():
    rng = np.random.default_rng(6)
    for _ in range(50):
        lam, r = random_programme(rng)
        n, m = r.shape
        work, flows = workspace(n, m), np.zeros(n * m)
        for _ in range(5):
            work[R, : n * m] = r.ravel()
            cold = np.zeros(n * m)
            expected, _, _ = solve_one(lam, np.ones(m), 1e3, 1e-9, 1e-12, cold, False, work)
            has_flows = bool(flows.any())
            found, gap, iterations = solve_one(lam, np.ones(m), 1e3, 1e-9, 1e-12, flows, has_flows, work)
            assert gap <= 1e-9
            assert found == pytest.approx(expected, abs=2e-9)
            assert iterations <= 45
            np.testing.assert_allclose(flows.reshape(n, m).sum(0), cold.reshape(n, m).sum(0), atol=1e-6)
            r = np.clip(r + rng.normal(0, 0.01, r.shape), 0, 1)


def test_capacities_and_compatibility():
    rng = np.random.default_rng(7)
    for _ in range(40):
        n, m = 3, 6
        lam, r, capacity = rng.uniform(0.3, 1.0, n), rng.uniform(0, 1, (n, m)), rng.uniform(0.5, 3.0, m)
        allowed = rng.uniform(size=(n, m)) < 0.6
        allowed[:, 0] = True
        capacity[0] = 4.0
        v = 10 ** rng.uniform(-0.5, 4)
        found = solve_barrier(lam, r, v, capacity, allowed)
        assert (found.flows[~allowed] == 0).all()
        assert (found.loads < capacity).all()
        assert found.gap <= 1e-8
        masked = np.where(allowed, r, -1e9)
        assert dual(lam, masked, v, found.multipliers, capacity) - value(lam, r, v, found.flows, capacity) <= 1e-7
    with pytest.raises(InputError, match="compatibility"):
        solve_barrier([1.5, 0.2], [[0.5, 0.5], [0.5, 0.5]], 100.0, compatibility=[[1, 0], [1, 1]])


def test_large_programme():
    rng = np.random.default_rng(8)
    lam = rng.uniform(0.5, 1.5, 20)
    found = solve_barrier(lam * 180 / lam.sum(), rng.uniform(0, 1, (20, 200)), 1000.0)
    assert found.gap <= 1e-9
    assert found.iterations <= 60


def test_absent_types_and_refusals():
    found = solve_barrier([0.0, 1.0], [[0.1, 0.9], [0.8, 0.3]], 50.0)
    np.testing.assert_allclose(found.loads, solve_barrier([1.0], [[0.8, 0.3]], 50.0).loads, atol=1e-9)
    np.testing.assert_allclose(found.probabilities[0], 0.5)
    for arguments, word in (
        (([1.0, 1.0], [[0.5, 0.5]], 10.0), "rewards"),
        (([1.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], 10.0), "arrival_rates"),
        (([1.0], [[0.5, np.nan]], 10.0), "rewards"),
        (([1.0], [[0.5, 0.5]], 0.0), "V"),
        (([1.0], [[0.5, 0.5]], np.inf), "V"),
        (([1.0], [[0.5, 0.5]], 1e9), "V"),
        (([1.0], [[0.5, 0.5]], "1"), "V"),
        (([-1.0], [[0.5, 0.5]], 1.0), "arrival_rates"),
    ):
        with pytest.raises(InputError, match=word):
            solve_barrier(*arguments)
    with pytest.raises(RuntimeError, match="gap"):
        solve_barrier([1.0], [[0.5, 0.3]], 10.0, gap=-1.0)


@pytest.mark.parametrize(("load", "v"), [(0.999, 0.1), (0.9995, 0.1), (0.9999, 1.0), (0.9999, 100.0)])
def test_the_value_near_capacity_is_that_of_feasible_flows(load, v):
    """Steep prices multiply every job that the flows lose: value and dual bound D(u) agree within the stated gap."""
    for seed in range(10):
        rewards = np.random.default_rng(seed).uniform(0, 1, (2, 6))
        rates = np.array([2.0, 3.0]) * load * 6 / 5
        found = solve_barrier(rates, rewards, v)
        assert np.allclose(found.flows.sum(1), rates, rtol=1e-14)
        prices = np.maximum((rewards - found.multipliers[:, None]).max(0), 0)
        dual = rates @ found.multipliers
        dual += np.where(prices >= 1 / v, prices - (1 + np.log(np.maximum(v * prices, 1e-300))) / v, 0.0).sum()
        assert 0 <= found.gap <= 1e-12 * abs(found.value) + 1e-5
        assert abs(found.value - dual) <= found.gap + 1e-11 * abs(dual)


def test_arrivals_of_nobody_and_rewards_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="arrival_rates are all 0"):
        solve_barrier([0.0, 0.0], np.ones((2, 6)), 10.0)
    with pytest.raises(InputError, match="rewards must be a finite table"):
        solve_barrier([2.0, 3.0], "abc", 10.0)
