"""GeneralMatching-v0 against hand-worked cases, dense chains, all rows of the programmes, and the theorems of Appendix F."""

import math
from itertools import chain, combinations, product

import gymnasium as gym
import numpy as np
import pytest
from scipy.optimize import linprog

from matchgym.baselines import evaluate
from matchgym.baselines.general_matching import POLICIES, CopiesMemory, OfflineCopies, PatientSide, exact_value
from matchgym.bounds import general_matching as bounds
from matchgym.bounds.rational import CertificateError
from matchgym.bounds.stationary_matching import tlp_online
from matchgym.envs.compile import views
from matchgym.envs.general_matching import GeneralMatchingInstance
from matchgym.envs.instance import InputError
from matchgym.envs.stationary_matching import StationaryMatchingInstance

ID = "GeneralMatching-v0"
LEVEL = 4.0  # standard errors: a false alarm in 16,000


def random_graph(seed: int, n: int, *, is_bipartite: bool = False) -> GeneralMatchingInstance:
    """A random instance with offered loads up to 1.5 and a third of the pairs incompatible."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.uniform(0.1, 3.0, (n, n)) * (rng.uniform(size=(n, n)) > 0.3))
    if is_bipartite:
        upper[: n // 2, : n // 2] = upper[n // 2 :, n // 2 :] = 0
        upper[0, n - 1] = 1.0
    return GeneralMatchingInstance(
        name=f"random-{seed}",
        arrival_rates=rng.uniform(0.2, 1.5, n),
        departure_rates=rng.uniform(1.0, 3.0, n),
        rewards=upper + np.triu(upper, 1).T,
    )


# The environment.


def test_steps_by_hand():
    """Waiting joins the own queue; an incompatible or absent partner is a counted no-op, which is to wait."""
    instance = {
        "model": "general_matching", "name": "two", "arrival_rates": [1.0, 1.0], "departure_rates": [1e-9, 1e-9],
        "rewards": [[0.0, 2.0], [2.0, 0.0]],
    }  # fmt: skip
    env = gym.make(ID, instance=instance)
    obs, info = env.reset(seed=5)
    queue, matched = np.zeros(2), 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        arriving = int(obs[2:].argmax())
        assert (obs[:2] == queue).all()
        assert (info["action_mask"] == [queue[0] > 0 and arriving == 1, queue[1] > 0 and arriving == 0, 1]).all()
        action, invalid = int(rng.integers(3)), info["invalid_actions"]
        valid = info["action_mask"][action]
        obs, reward, _, _, info = env.step(action)
        if action < 2 and valid:
            queue[action] -= 1
            matched += 1
            assert reward == 2.0
        else:
            queue[arriving] += 1
            assert reward == 0.0
        assert info["invalid_actions"] - invalid == (not valid)
    assert matched > 20


def test_synchronised_nodes_do_not_depend_on_the_policy():
    traces = []
    for action_of in (lambda mask: len(mask) - 1, lambda mask: int(mask.argmax())):
        env = gym.make(ID, instance="demo", synchronised=True)
        obs, info = env.reset(seed=1)
        trace = []
        for _ in range(500):
            obs, _, _, _, info = env.step(action_of(info["action_mask"]))
            trace.append((info["elapsed_time"], int(obs[3:].argmax())))
        traces.append(trace)
    assert traces[0] == traces[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rewards": [[0.0, 1.0], [2.0, 0.0]]}, r"rewards must be symmetric, but rewards\[0\]\[1\] = 1"),
        ({"rewards": [[0.0, 1.0]]}, "rewards"),
        ({"departure_rates": [1.0, 0.0]}, "departure_rates"),
        ({"arrival_rates": [1.0, -1.0]}, "arrival_rates"),
        ({"departure_rates": [1.0, 1e-12]}, r"arrival_rates\[1\]"),
        ({"customer_rates": [1.0]}, "customer_rates"),
    ],
)
def test_bad_instances_are_refused_by_field(changes, named):
    good = {"model": "general_matching", "name": "x", "arrival_rates": [1.0, 1.0], "departure_rates": [1.0, 1.0]}
    with pytest.raises(InputError, match=named):
        gym.make(ID, instance=good | {"rewards": [[0.0, 1.0], [1.0, 0.0]]} | changes)


# Exact values.


def dense_chain(instance: GeneralMatchingInstance, cap: int, act):
    """Rates (S, S) and reward rates (S,) of a stationary rule act(queue, v) -> u or None, written without the library."""
    states = list(product(range(cap + 1), repeat=instance.n_types))
    number = {state: k for k, state in enumerate(states)}
    rates, earned = np.zeros((len(states), len(states))), np.zeros(len(states))

    def shifted(state, v, step):
        moved = list(state)
        moved[v] += step
        return tuple(moved)

    for state, k in number.items():
        for v in range(instance.n_types):
            if state[v]:
                rates[k, number[shifted(state, v, -1)]] += instance.departure_rates[v] * state[v]
            u = act(state, v)
            if u is not None:
                rates[k, number[shifted(state, u, -1)]] += instance.arrival_rates[v]
                earned[k] += instance.arrival_rates[v] * instance.rewards[u, v]
            elif state[v] < cap:
                rates[k, number[shifted(state, v, 1)]] += instance.arrival_rates[v]
    return states, rates - np.diag(rates.sum(1)), earned


def test_greedy_against_a_dense_chain():
    for seed in range(8):
        instance = random_graph(seed, 2)

        def act(queue, v, instance=instance):
            worth = [instance.rewards[u, v] if queue[u] else 0.0 for u in range(2)]
            return int(np.argmax(worth)) if max(worth) > 0 else None

        _, generator, earned = dense_chain(instance, 17, act)
        system = np.vstack([generator.T, np.ones(len(earned))])
        law = np.linalg.lstsq(system, np.r_[np.zeros(len(earned)), 1.0], rcond=None)[0]
        assert exact_value(POLICIES["greedy"]().fit(instance)).mean == pytest.approx(law @ earned, rel=1e-9)


def test_the_optimum_against_value_iteration():
    """Relative value iteration on a box of its own, over the three choices written out."""
    for seed in range(8):
        instance, cap = random_graph(seed, 2), 14
        found = bounds.optimum(instance)
        found.verify()
        lam, mu, r = instance.arrival_rates, instance.departure_rates, instance.rewards
        pace = lam.sum() + cap * mu.sum()
        h = np.zeros((cap + 1, cap + 1))
        for _ in range(20_000):
            total = np.zeros_like(h)
            for v, rest in ((0, 1), (1, 0)):
                waiting = np.moveaxis(h, v, 0)
                up = np.moveaxis(np.concatenate([waiting[1:], waiting[-1:]]), 0, v)
                best = up - h
                for u in (0, 1):
                    other = np.moveaxis(h, u, 0)
                    down = np.moveaxis(np.concatenate([np.full((1, cap + 1), -np.inf), other[:-1]]), 0, u)
                    if r[u, v] > 0:
                        best = np.maximum(best, down + r[u, v] - h)
                departed = np.moveaxis(np.concatenate([waiting[:1], waiting[:-1]]), 0, v) - h
                count = np.arange(cap + 1)[:, None] if v == 0 else np.arange(cap + 1)[None, :]
                total += lam[v] * best + mu[v] * count * departed
                assert rest != v
            h = h + total / pace
            h -= h[0, 0]
            if np.ptp(total) < 1e-9:
                break
        assert found.lower - 1e-7 <= total.mean() <= found.upper + 1e-7
        assert found.upper - found.lower <= 1e-6
        assert exact_value(POLICIES["optimal"]().fit(instance)).mean == pytest.approx(found.value, abs=1e-8)


def test_the_toy_by_hand():
    """x <= 1 - 2x in tlp-joint, x <= 1 - x in tlp-sum, 4 x with x <= (1 - 2x) / 2 ... of the halved rates in tlp-general."""
    for kind, value in (("tlp-joint", 1 / 3), ("tlp-sum", 1 / 2), ("tlp-general", 2 / 3), ("optimum", 1 / 3)):
        found = bounds.bound("toy", kind)
        assert found.value == pytest.approx(value, rel=1e-9)
        assert found.verify() >= value * (1 - 1e-12)
    for policy in ("greedy", "optimal", "price-greedy", "patient-threshold"):
        assert exact_value(POLICIES[policy]().fit("toy")).mean == pytest.approx(1 / 3, rel=1e-11)


# Bounds.


def whole_programme(instance: GeneralMatchingInstance) -> float:
    """tlp-joint with all rows of (2), by another solver's interface."""
    n, lam, rho = instance.n_types, instance.arrival_rates, instance.offered
    at = np.arange(n * n).reshape(n, n)  # x_uv, passive u, active v
    rows, right = [], []
    for v in range(n):
        for subset in chain.from_iterable(combinations(range(n), k) for k in range(1, n + 1)):
            row = np.zeros(n * n)
            row[at[list(subset), v]] = 1.0
            rows.append(row)
            right.append(lam[v] * -math.expm1(-rho[list(subset)].sum()))
    for u in range(n):
        used = np.zeros(n * n)
        used[at[u, :]] += 1.0
        used[at[:, u]] += 1.0
        rows.append(used)
        right.append(lam[u])
        for v in range(n):
            row = used / instance.departure_rates[u]
            row[at[u, v]] += 1.0 / lam[v]
            rows.append(row)
            right.append(rho[u])
    upper = [(0, None if instance.rewards[u, v] > 0 else 0) for u, v in product(range(n), repeat=2)]
    return -linprog(-instance.rewards.ravel(), np.array(rows), right, bounds=upper).fun


@pytest.mark.parametrize("seed", range(12))
def test_tlp_joint_has_the_value_of_the_whole_programme(seed):
    instance = random_graph(seed, 2 + seed % 4)
    found = bounds.tlp_joint(instance)
    assert found.value == pytest.approx(whole_programme(instance), rel=1e-7)
    assert found.verify() == pytest.approx(found.value, rel=1e-8)
    x = found.solution["x"]
    assert (x.sum(0) + x.sum(1) <= instance.arrival_rates * (1 + 1e-12)).all()
    assert (instance.rewards * x).sum() == pytest.approx(found.value, rel=1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_bounds_are_in_order_above_every_policy(seed):
    instance = random_graph(seed, 2, is_bipartite=seed % 2 == 0)
    joint, both, four = (bounds.bound(instance, kind).certified_value for kind in bounds.KINDS[:3])
    best = bounds.optimum(instance)
    assert best.lower <= joint <= both * (1 + 1e-9) <= four * (1 + 2e-9)
    for name, policy in POLICIES.items():
        if name != "patient-side" or seed % 2 == 0:
            assert exact_value(policy().fit(instance)).mean <= best.upper


def test_tlp_sum_is_the_sum_over_both_sides():
    """Appendix F.1: TLP_I + TLP_J for a bipartite graph."""
    instance = random_graph(3, 5, is_bipartite=True)
    left, right = np.arange(2), np.arange(2, 5)
    total = 0.0
    for side, others in ((left, right), (right, left)):
        total += tlp_online(
            StationaryMatchingInstance(
                supplier_rates=instance.arrival_rates[side],
                departure_rates=instance.departure_rates[side],
                customer_rates=instance.arrival_rates[others],
                rewards=instance.rewards[np.ix_(side, others)],
            )
        ).value
    assert bounds.bound(instance, "tlp-sum").value == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("kind", bounds.KINDS[:3])
def test_altered_multipliers_never_prove_a_false_bound(kind):
    rng = np.random.default_rng(0)
    instance = random_graph(1, 2)
    best, found = bounds.optimum(instance).lower, bounds.bound(instance, kind)
    for _ in range(100):
        certificate = {
            "kind": kind,
            "alpha": [value * rng.uniform(-1, 2) for value in found.certificate["alpha"]],
            "z": [[u, v, value * rng.uniform(-1, 2)] for u, v, value in found.certificate["z"]],
            "beta": [[v, subset, value * rng.uniform(-1, 2)] for v, subset, value in found.certificate["beta"]],
        }
        assert found.prove(instance, certificate).upper >= best
    object.__setattr__(found, "upper", found.upper * 0.99)
    with pytest.raises(CertificateError):
        found.verify()


# Policies.


@pytest.mark.parametrize("seed", range(10))
def test_the_guarantees_of_the_two_reductions(seed):
    """Appendix F: (1/2)(1 - 1/e) of tlp-sum on bipartite graphs, (1/4)(1 - 1/e) of tlp-general on all."""
    share = 1 - 1 / math.e
    two_sided = random_graph(seed, 4, is_bipartite=True)
    assert exact_value(PatientSide().fit(two_sided)).mean >= share / 2 * bounds.bound(two_sided, "tlp-sum").value * (1 - 1e-9)
    graph = random_graph(seed, 3)
    assert exact_value(OfflineCopies().fit(graph)).mean >= share / 4 * bounds.bound(graph, "tlp-general").value * (1 - 1e-9)


@pytest.mark.parametrize("name", POLICIES)
def test_simulation_agrees_with_the_exact_value(name):
    """The reductions have hidden memory, whose law the exact value does not look at."""
    instance = random_graph(4, 4, is_bipartite=True)
    policy = POLICIES[name]().fit(instance)
    values = evaluate(policy, ID, instance, replications=48, warmup=1000, decisions=30_000, seed=3).values
    assert abs(values.mean() - exact_value(policy).mean) <= LEVEL * values.std(ddof=1) / math.sqrt(len(values))


def test_the_law_of_offline_copies_that_are_not_seen():
    """At a start with k waiting nodes Binomial(k, 1/2) are offline copies; of those that leave, a hypergeometric number."""
    rows, k, left = 4000, 20, 12
    policy = OfflineCopies().fit(random_graph(0, 2))
    state = policy.start(rows, 0)
    obs = np.tile(np.array([k, 0, 0, 1], np.float32), (rows, 1))
    moments = []
    for waiting in (k, left):
        obs[:, 0] = waiting
        actions, state = policy.predict(obs, state)
        memory = views(CopiesMemory, state)
        found = memory.offline[:, 0] + (actions == 0)
        assert (memory.seen[:, 0] == waiting - (actions == 0)).all()
        moments.append((found.mean(), found.var()))
        if waiting == k:  # put back who was matched, so that all rows have k nodes again
            memory.offline[:, 0], memory.seen[:, 0] = found, k
    for (mean, variance), size in zip(moments, (k, left)):
        assert abs(mean - size / 2) <= LEVEL * math.sqrt(size / 4 / rows)
        assert abs(variance - size / 4) <= LEVEL * size / 4 * math.sqrt(2 / rows)


def test_patient_side_refuses_other_graphs():
    with pytest.raises(InputError, match="types 0 and 0 of 'toy' are compatible"):
        PatientSide().fit("toy")
    alone = {"arrival_rates": [1.0], "departure_rates": [1.0], "rewards": [[0.0]]}
    with pytest.raises(InputError, match="needs two sides"):
        PatientSide().fit({"model": "general_matching", "name": "alone", **alone})
