"""DataLocalityDesign-v0: the fixed point, the simulation, the constructions of Appendix A, and bounds."""

import gymnasium as gym
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from matchgym.baselines import evaluate
from matchgym.baselines.data_locality_design import POLICIES, densest, design_value, least_load, north_west
from matchgym.bounds.data_locality_design import KINDS, bound, bound_for
from matchgym.bounds.locality_limit import fixed_point, limit_load, limit_of, random_loads
from matchgym.envs.data_locality_design import MODEL, PENALTY
from matchgym.envs.instance import InputError

ID = "DataLocalityDesign-v0"
LEVEL = 4.0  # standard errors


def load(seed: int, **changes):
    rng = np.random.default_rng(seed)
    k, m = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    v, w, u = rng.dirichlet(np.full(m, 4.0)), rng.dirichlet(np.full(k, 4.0)), rng.uniform(0.5, 3, m)
    return MODEL.load(
        {
            "model": "data_locality",
            "name": f"design-{seed}",
            "arrival_rate": float(0.8 * (v @ u)),
            "dispatchers_per_server": 1.0,
            "dispatcher_fractions": w.tolist(),
            "server_fractions": v.tolist(),
            "service_rates": u.tolist(),
            "compatibility": np.ones((k, m)).tolist(),
            "n_servers": 60,
        }
        | changes
    )


def limit_under(instance, p):
    """The limit under design p (K, M)."""
    weights = instance.server_fractions * np.asarray(p, float)
    return limit_of(instance)._replace(x=weights / weights.sum(1, keepdims=True))


@pytest.mark.parametrize("seed", range(6))
def test_reward_of_the_fixed_point(seed):
    """Against the fixed point to its last digits, and the penalty where there is none."""
    instance, rng = load(seed), np.random.default_rng(seed)
    env = gym.make(ID, instance=instance, reward="fixed-point")
    env.reset(seed=0)
    for _ in range(8):
        p = rng.uniform(0.01, 1, instance.compatibility.shape)
        obs, reward, _, _, info = env.step(p)
        limit = limit_under(instance, p)
        rho = limit_load(limit)[0]
        assert info["rho"] == pytest.approx(rho, rel=1e-12)
        if rho >= 1:
            assert reward == pytest.approx(-PENALTY * rho, rel=1e-12)
        else:
            q = fixed_point(limit)
            assert reward == pytest.approx(-float(limit.v @ q[:, 1:].sum(1)), abs=1e-9)
            seen = obs[env.unwrapped.observation_layout["occupancy"]].reshape(len(q), -1)
            width = min(seen.shape[1], q.shape[1] - 1)
            np.testing.assert_allclose(seen[:, :width], q[:, 1 : width + 1], atol=1e-6)


def test_rescaled_rows_are_one_design_in_the_limit():
    env = gym.make(ID, reward="fixed-point")
    env.reset(seed=0)
    p = np.array([[0.1, 0.5, 1.0], [0.05, 0.6, 0.9]])
    first, second = (env.step(rows)[1] for rows in (p, p * [[0.3], [0.7]]))
    assert first == pytest.approx(second, rel=1e-10)


@pytest.mark.parametrize("design", ["proportional", "delay-optimised"])
def test_simulation_of_many_servers_is_near_the_limit(design):
    """Within LEVEL standard errors and 10 / N of the limit; dense designs, so that graphs have the limit's shares."""
    instance = load(3, n_servers=2000)
    policy = POLICIES[design]().fit(instance)
    found = evaluate(policy, ID, replications=8, warmup=60, decisions=150)
    value = design_value(limit_under(instance, policy.design_))
    assert abs(found.objective.mean + value) <= LEVEL / 2 * found.objective.half_width + 10 / instance.n_servers


def test_two_servers_by_hand():
    """N = 2, one dispatcher type, p = 1 and d = 2: JSQ on two servers of rate 1, whose mean is known from its Markov chain."""
    instance = MODEL.load(
        {
            "model": "data_locality",
            "name": "pair",
            "arrival_rate": 1.2,
            "dispatchers_per_server": 0.5,
            "dispatcher_fractions": [1.0],
            "server_fractions": [1.0],
            "service_rates": [1.0],
            "compatibility": [[1.0]],
            "n_servers": 2,
        }
    )
    size = 40
    place = {(a, b): k for k, (a, b) in enumerate((a, b) for a in range(size) for b in range(size))}
    generator = np.zeros((size * size, size * size))
    for (a, b), k in place.items():
        for to, rate in (((a - 1, b), 1.0), ((a, b - 1), 1.0)):
            if to in place:
                generator[k, place[to]] += rate
        for to, share in (((a + 1, b), 0.5 * ((a <= b) + (a < b))), ((a, b + 1), 0.5 * ((b <= a) + (b < a)))):
            if to in place:
                generator[k, place[to]] += 1.2 * share
    generator -= np.diag(generator.sum(1))
    generator[:, 0] = 1.0
    law = np.linalg.solve(generator.T, np.eye(size * size)[0])
    mean = sum(law[k] * (a + b) for (a, b), k in place.items()) / 2
    found = evaluate(POLICIES["all-ones"]().fit(instance), ID, replications=32, warmup=100, decisions=2000)
    assert abs(found.objective.mean + mean) <= LEVEL / 2 * found.objective.half_width


def test_dispatchers_without_servers_use_any_allowed_one():
    """With p near 0 nearly every task is rerouted, to servers of allowed types only."""
    env = gym.make(ID, instance="tied")
    env.reset(seed=1)
    *_, info = env.step(np.full((2, 3), 1e-9))
    assert info["rerouted"] > 0.8 * env.unwrapped.instance.total_rate
    state, ends = env.unwrapped.state, np.cumsum(env.unwrapped.instance.server_counts)
    busy = (state.servers[0].reshape(-1, 2)[:, 0] > 0).reshape(-1)
    assert busy[: ends[0]].any()
    env = gym.make(ID, instance=load(0, compatibility=[[1.0, *[0.0] * (load(0).n_types - 1)]] * load(0).n_dispatcher_types))
    env.reset(seed=1)
    env.step(np.full(env.action_space.shape, 1e-9))
    lengths = env.unwrapped.state.servers[0].reshape(-1, 2)[:, 0]
    assert lengths[env.unwrapped.instance.server_counts[0] :].sum() == 0


# Designs.


@pytest.mark.parametrize("seed", range(8))
def test_constructions_attain_the_least_load(seed):
    """North-west, proportional and the programme have all lhs_m = rho_0 where every pair is allowed; p lies in [0, 1]."""
    instance = load(seed)
    rho_0 = instance.load
    assert random_loads(limit_of(instance)._replace(x=north_west(limit_of(instance)))) == pytest.approx(rho_0, rel=1e-9)
    _, rho = least_load(instance)
    assert rho == pytest.approx(rho_0, rel=1e-9)
    for name in ("north-west", "proportional", "least-load"):
        p = POLICIES[name]().fit(instance).design_
        assert p.min() >= 0
        assert p.max(1) == pytest.approx(1.0)
        assert random_loads(limit_under(instance, p)) == pytest.approx(rho_0, rel=1e-8)


@pytest.mark.parametrize("seed", [1, 4])
def test_forbidden_pairs(seed):
    """The programme on allowed pairs against a direct solution, and designs that keep to them."""
    base = load(seed)
    rng = np.random.default_rng(seed)
    allowed = rng.uniform(size=base.compatibility.shape) < 0.6
    allowed[:, 0] |= ~allowed.any(1)
    instance = load(seed, compatibility=allowed.astype(float).tolist())
    limit = limit_of(instance)
    _, rho = least_load(instance)

    def worst(free):
        scores = np.where(allowed, np.exp(np.reshape(free, allowed.shape)), 0.0)
        loads = limit.offered * (limit.w @ (scores / scores.sum(1, keepdims=True))) / (limit.v * limit.u)
        return float(logsumexp(200 * loads) / 200)  # a smooth maximum, at most log(M) / 200 above it

    direct = min(minimize(worst, rng.normal(size=allowed.size), method="BFGS", options={"maxiter": 5000}).fun for _ in range(4))
    assert rho <= direct + 1e-9
    assert direct <= rho + np.log(allowed.shape[1]) / 200 + 1e-3
    for name in ("all-ones", "proportional", "least-load", "delay-optimised"):
        assert (POLICIES[name]().fit(instance).design_[~allowed] == 0).all()
    if not allowed.all():
        with pytest.raises(InputError, match="least-load"):
            POLICIES["north-west"]().fit(instance)


@pytest.mark.parametrize("name", ["paper", "toy", "cluster"])
def test_delay_optimised_is_the_best_known(name):
    """Not above the constructions, nor 200 random designs; and above the bound."""
    instance = MODEL.load(name)
    policy = POLICIES["delay-optimised"]().fit(instance)
    assert policy.value_ == pytest.approx(design_value(limit_under(instance, policy.design_)), rel=1e-6)
    rng = np.random.default_rng(0)
    others = [POLICIES[other]().fit(instance).design_ for other in ("proportional", "least-load", "all-ones")]
    others += [rng.uniform(size=instance.compatibility.shape) for _ in range(200)]
    assert policy.value_ <= min(design_value(limit_under(instance, p)) for p in others) + 1e-9
    assert -policy.value_ <= bound(instance, "fluid").certified_value


def test_one_number_matters_on_toy():
    """The best share of the fast type, by a scan."""
    instance = MODEL.load("toy")
    limit = limit_of(instance)
    shares = np.linspace(0.3, 0.99, 691)
    best = min(design_value(limit._replace(x=np.array([[1 - share, share]]))) for share in shares)
    assert POLICIES["delay-optimised"](starts=1).fit(instance).value_ == pytest.approx(best, abs=1e-5)


def test_densest_design_has_the_shares():
    x, v = np.array([[0.2, 0.5, 0.3], [0.0, 0.1, 0.9]]), np.array([0.5, 0.3, 0.2])
    p = densest(x, v)
    weights = p * v
    np.testing.assert_allclose(weights / weights.sum(1, keepdims=True), x)
    assert (p.max(1) == 1).all()


# Bounds.


def test_bounds_hold_and_are_certified():
    for name in ("toy", "tied"):
        instance = MODEL.load(name)
        found = evaluate(POLICIES["delay-optimised"](starts=1).fit(instance), ID, replications=8, warmup=60, decisions=200)
        for kind in KINDS:
            each = bound(instance, kind)
            assert each.verify() == each.certified_value
            if kind != "fluid":  # a limit
                assert found.objective.low <= each.certified_value
    assert bound_for("toy", {"reward": "fixed-point"}).kind == "fluid"
    with pytest.raises(InputError, match="kind of bound"):
        bound("toy", "sampled")
