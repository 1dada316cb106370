"""DataLocality-v0 against closed forms, brute force and small Markov chains written out here."""

import math
from itertools import combinations, product

import gymnasium as gym
import numpy as np
import pytest

from matchgym.baselines import evaluate
from matchgym.baselines.data_locality import POLICIES, exact_value
from matchgym.bounds import data_locality as bounds
from matchgym.bounds.locality_limit import drift, fixed_point, limit_of, mean_field, newton, random_loads, transient
from matchgym.bounds.locality_load import brute_force_load, finite_load
from matchgym.bounds.rational import CertificateError
from matchgym.envs.instance import InputError
from matchgym.envs.locality_instances import DataLocalityInstance, adjacency, draw_graph, neighbours

ID = "DataLocality-v0"
LEVEL = 4.0  # standard errors: a false alarm in 16,000
STABLE = ("jsq-d", "random", "sed-d", "jfsq-d", "jsq", "jiq", "jfiq", "jfsq", "sed", "rate-proportional")


def cluster(seed: int, n_servers: int, *, load: float = 0.7, graph: str = "irg", **changes) -> DataLocalityInstance:
    """A random cluster with two types of servers and of dispatchers in which everybody has a server."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.5, 3.0, 2)
    fields = {
        "name": f"cluster-{seed}",
        "arrival_rate": 1.0,
        "dispatchers_per_server": 1.0,
        "dispatcher_fractions": [0.5, 0.5],
        "server_fractions": [0.5, 0.5],
        "service_rates": rates,
        "compatibility": [[1.0, rng.uniform(0.4, 1)], [rng.uniform(0.4, 1), 1.0]],
        "choices": 2,
        "n_servers": n_servers,
        "graph": graph,
        "graph_seed": seed,
    } | changes
    if graph == "complete":
        fields["compatibility"] = [[1.0, 1.0], [1.0, 1.0]]
    unit = DataLocalityInstance(**fields)
    return DataLocalityInstance(**fields | {"arrival_rate": load / unit.load})


def single(d: int, load: float, n_servers: int = 100) -> DataLocalityInstance:
    return DataLocalityInstance(
        arrival_rate=load, dispatchers_per_server=1.0, dispatcher_fractions=[1.0], server_fractions=[1.0], service_rates=[1.0],
        compatibility=[[1.0]], choices=d, n_servers=n_servers, graph="complete",
    )  # fmt: skip


# Mean field.


@pytest.mark.parametrize(("d", "load"), [(1, 0.8), (2, 0.5), (2, 0.9), (3, 0.7)])
def test_one_type_has_the_fixed_point_of_the_supermarket_model(d, load):
    """q_l = load^((d^l - 1) / (d - 1)), and load^l for d = 1."""
    q = fixed_point(limit_of(single(d, load)))[0]
    levels = np.arange(len(q))
    exponents = levels if d == 1 else (float(d) ** levels - 1) / (d - 1)
    assert np.allclose(q, load**exponents, atol=1e-13)


def test_transients_of_random_routing_are_those_of_one_queue():
    """With d = 1 each server is an M/M/1 queue; its law by the forward equations with a matrix exponential."""
    from scipy.linalg import expm

    load, size = 0.6, 60
    generator = np.zeros((size, size))
    for n in range(size - 1):
        generator[n, n + 1], generator[n + 1, n] = load, 1.0
    generator -= np.diag(generator.sum(1))
    for time, q in zip((0.5, 2.0, 7.0), transient(limit_of(single(1, load)), (0.5, 2.0, 7.0))):
        law = expm(generator * time)[0]
        tails = law[::-1].cumsum()[::-1]
        assert np.allclose(q[0, : min(q.shape[1], 30)], tails[: min(q.shape[1], 30)], atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_the_fixed_point_by_two_methods_and_its_identities(seed):
    limit = limit_of(cluster(seed, 100, load=0.75))
    q = fixed_point(limit)
    assert np.abs(drift(limit, q)).max() < 1e-11
    start = np.clip(q + 0.01 * np.random.default_rng(seed).uniform(size=q.shape) * (np.arange(q.shape[1]) > 0), 0, 1)
    start[:, 1:] = np.minimum.accumulate(start[:, 1:], axis=1)
    assert np.allclose(newton(limit, start), q, atol=1e-10)
    assert limit.v * limit.u @ q[:, 1] == pytest.approx(limit.offered, rel=1e-10)  # all work is done
    assert (np.diff(q, axis=1) <= 1e-14).all()
    found = mean_field(cluster(seed, 100, load=0.75))
    assert found.tasks == pytest.approx(float(limit.v @ q[:, 1:].sum(1)), rel=1e-10)
    assert limit.w @ found.response_by_dispatcher == pytest.approx(found.response_time, rel=1e-9)  # Little's law, twice
    assert np.abs(found.work_balance).max() < 1e-11


@pytest.mark.parametrize("seed", range(6))
def test_transients_reach_the_fixed_point_from_both_sides(seed):
    instance = cluster(seed, 100, load=0.6)
    limit = limit_of(instance)
    q, full = fixed_point(limit), np.zeros((2, 6))
    full[:, 5] = 1.0
    for start in (None, full):
        (late,) = transient(limit, (400.0,), start)
        width = min(late.shape[1], q.shape[1])
        assert np.abs(late[:, :width] - q[:, :width]).max() < 1e-6


def test_rescaling_the_rows_of_the_compatibility_changes_nothing():
    instance = cluster(3, 100)
    fields = instance.to_dict()
    halved = fields | {"compatibility": (instance.compatibility * [[0.5], [0.8]]).tolist()}
    assert np.allclose(
        fixed_point(limit_of(instance)), fixed_point(limit_of(DataLocalityInstance.from_dict(halved))), atol=1e-12
    )


def test_loads_of_the_paper():
    """rho(p) on the paper's instances: 3/4 where its graph balances, 1.5 where slow servers are sampled too often."""
    stable = bounds.stability("paper-100").as_dict()
    assert stable["rho_limit"] < 1
    assert (np.array(stable["lhs"]) > 0).all()
    complete = next(name for name in bounds.MODEL.catalogue if "complete" in name)
    assert bounds.stability(complete).as_dict()["rho_limit"] == pytest.approx(1.5, rel=1e-12)
    assert bounds.stability(complete).as_dict()["q_star"] is None


@pytest.mark.parametrize("seed", range(10))
def test_rho_of_a_graph_against_all_subsets(seed):
    """max over sets U of servers of the rate of tasks whose samples all lie in U over the work of U, from the definition."""
    instance = cluster(seed, 6, graph=("irg", "regular-contiguous", "regular-random", "complete")[seed % 4])
    edges = adjacency(draw_graph(instance))
    best = 0.0
    for size in range(1, 7):
        for chosen in combinations(range(6), size):
            rate = 0.0
            for row in edges:
                degree, inside = int(row.sum()), int(row[list(chosen)].sum())
                d = instance.choices if degree >= instance.choices else 1
                rate += instance.arrival_rate * math.comb(inside, d) / math.comb(degree, d)
            best = max(best, rate / instance.rates[list(chosen)].sum())
    assert brute_force_load(edges, instance.choices, instance.arrival_rate, instance.rates) == pytest.approx(best, rel=1e-12)
    found = finite_load(instance)
    assert found.low <= best * (1 + 1e-9)
    assert found.high >= best * (1 - 1e-9)
    assert random_loads(limit_of(instance)).max() > 0


# Graphs.


def test_graphs_have_the_stated_numbers_and_densities():
    rng = np.random.default_rng(0)
    for graph, _ in product(("irg", "regular-random", "regular-contiguous", "complete"), range(3)):
        p = rng.uniform(0.1, 0.9, (2, 2)) if graph != "complete" else np.ones((2, 2))
        instance = cluster(int(rng.integers(1000)), 400, graph=graph, compatibility=p.tolist())
        edges = adjacency(draw_graph(instance))
        assert edges.shape == (instance.n_dispatchers, 400)
        ends, firsts = instance.server_counts.cumsum(), instance.dispatcher_counts.cumsum()
        blocks = [np.split(part, ends[:-1], 1) for part in np.split(edges, firsts[:-1], 0)]
        for k, m in product(range(2), range(2)):
            error = LEVEL * math.sqrt(0.25 / blocks[k][m].size) if graph == "irg" else 0.5 / 200
            assert abs(blocks[k][m].mean() - p[k, m]) <= error + 1e-12
        assert (np.flatnonzero(edges[5]) == np.sort(neighbours(draw_graph(instance), 5))).all()


# Exact values.


def dense_value(instance: DataLocalityInstance, name: str, cap: int) -> float:
    """Minus mean tasks per server by a dense chain on {0..cap}^N, with the policies written out."""
    n, edges = instance.n_servers, adjacency(draw_graph(instance))
    u, states = instance.rates, list(product(range(cap + 1), repeat=instance.n_servers))
    number = {state: k for k, state in enumerate(states)}
    generator = np.zeros((len(states), len(states)))

    def index(j, x):
        return {
            "jsq-d": (x,), "jsq": (x,), "jfsq-d": (x, -u[j]), "jfsq": (x, -u[j]), "sed-d": ((x + 1) / u[j],),
            "sed": ((x + 1) / u[j],), "jiq": (min(x, 1),), "jfiq": (min(x, 1), -u[j] if x == 0 else 0.0), "random": (0,),
        }[name]  # fmt: skip

    for state, k in number.items():
        for j in range(n):
            if state[j]:
                generator[k, number[(*state[:j], state[j] - 1, *state[j + 1 :])]] += u[j]
        for row in edges:
            servers = np.flatnonzero(row).tolist()
            d = len(servers)
            if name.endswith("-d"):
                d = instance.choices if len(servers) >= instance.choices else 1
            samples = list(combinations(servers, d))
            for sample in samples:
                least = min(index(j, state[j]) for j in sample)
                best = [j for j in sample if index(j, state[j]) == least]
                for j in best:
                    if state[j] < cap:
                        to = number[(*state[:j], state[j] + 1, *state[j + 1 :])]
                        generator[k, to] += instance.arrival_rate / len(samples) / len(best)
    generator -= np.diag(generator.sum(1))
    system = np.vstack([generator.T, np.ones(len(states))])
    law = np.linalg.lstsq(system, np.r_[np.zeros(len(states)), 1.0], rcond=None)[0]
    return -float(law @ np.array(states).sum(1)) / n


@pytest.mark.parametrize("name", [name for name in STABLE if name not in ("rate-proportional", "random")])
def test_exact_values_against_a_dense_chain(name):
    for seed, n, cap in ((1, 2, 24), (2, 3, 10)):
        instance = cluster(seed, n, load=0.35, graph="irg" if n == 3 else "complete")
        found = exact_value(POLICIES[name]().fit(instance))
        assert found.mean == pytest.approx(dense_value(instance, name, cap), abs=2e-6)
        assert found.error < 1e-6


def test_random_routing_by_hand():
    """Independent M/M/1 queues: load / (1 - load) tasks each."""
    assert exact_value(POLICIES["random"]().fit("toy")).mean == pytest.approx(-1.0, rel=1e-12)
    assert exact_value(POLICIES["random"]().fit(single(2, 0.8, 4))).mean == pytest.approx(-4.0, rel=1e-12)


@pytest.mark.parametrize("name", POLICIES)
def test_simulation_agrees_with_the_exact_value(name):
    instance = cluster(5, 3, load=0.6)
    policy = POLICIES[name]().fit(instance)
    values = evaluate(policy, ID, instance, replications=48, warmup=1000, decisions=20_000, seed=11).values
    assert abs(values.mean() - exact_value(policy).mean) <= LEVEL * values.std(ddof=1) / math.sqrt(len(values))


@pytest.mark.parametrize(
    "options", [{"reward": "integral"}, {"occupancy": "both"}, {"reward": "integral", "occupancy": "local"}]
)
def test_events_and_looks_have_the_same_law(options):
    """The shortcut without departure events earns what the event simulation earns, which is the exact value of JSQ(2)."""
    instance = cluster(7, 4, load=0.6)
    policy = POLICIES["jsq-d"]().fit(instance)
    policy.options = {**policy.options, **options}
    values = evaluate(policy, ID, instance, replications=48, warmup=1000, decisions=20_000, seed=2).values
    assert abs(values.mean() - exact_value(POLICIES["jsq-d"]().fit(instance)).mean) <= LEVEL * values.std(ddof=1) / math.sqrt(
        48
    )


# Bounds.


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_for_their_policies_and_are_in_order(seed):
    instance = cluster(seed, 3, load=0.35, graph=("irg", "regular-contiguous", "complete")[seed % 3])
    sampling = max(exact_value(POLICIES[name]().fit(instance)).mean for name in ("jsq-d", "sed-d", "jfsq-d", "class-index"))
    best = max(exact_value(POLICIES[name]().fit(instance)).mean for name in ("jsq", "jfsq", "sed"))
    values = {}
    for kind in set(bounds.KINDS) - {"horizon"}:
        found = bounds.bound(instance, kind)
        values[kind] = found.verify()
        assert found.certified_value == pytest.approx(found.value, abs=1e-7)
    for kind in ("tightest", "sampled-graph", "sampled-types"):
        assert sampling <= values[kind] + 1e-9
    for kind in ("tightest-any", "fluid-graph", "fluid-types", "birth-death", "pooled"):
        assert max(best, sampling) <= values[kind] + 1e-9
    assert values["birth-death"] <= values["pooled"] + 1e-12
    assert values["fluid-graph"] <= values["fluid-types"] + 1e-9


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_the_sampled_limit_of_one_type_is_attained_by_jsq_d(load):
    """For one type the limit bound is the fixed point of JSQ(d) itself."""
    instance = single(2, load)
    assert bounds.bound(instance, "sampled").value == pytest.approx(-mean_field(instance).tasks, abs=1e-6)


def test_birth_death_of_one_type_is_the_queue_with_n_servers():
    """E Z / N of M/M/N, by its recursion."""
    load, n = 0.8, 7
    pi = [1.0]
    for k in range(1, 4000):
        pi.append(pi[-1] * load * n / min(k, n))
    tasks = np.arange(4000) @ pi / sum(pi)
    assert bounds.bound(single(2, load, n), "birth-death").value == pytest.approx(-tasks / n, rel=1e-10)


def test_the_horizon_bound_of_one_type_is_the_transient_of_many_servers():
    """The mean of E Z(t) / N of M/M/2 from 0 over the time of 1000 tasks, by a matrix exponential."""
    from scipy.linalg import expm

    load, size = 0.9, 150
    generator = np.diag([2 * load] * (size - 1), 1) + np.diag([1.0] + [2.0] * (size - 2), -1)
    generator -= np.diag(generator.sum(1))
    step = expm(generator * 0.5)
    law, means = np.eye(size)[0], []
    for _ in range(int(500 / load / 0.5) + 1):
        means.append(law @ np.arange(size))
        law = law @ step
    exact = np.trapezoid(means) / (len(means) - 1) / 2
    found = bounds.bound(single(1, load, 2), "horizon")
    assert found.verify() == pytest.approx(-exact, rel=2e-3)
    assert found.certified_value >= -exact * (1 + 2e-3)


def test_altered_certificates_never_prove_a_false_bound():
    instance, rng = cluster(2, 3, load=0.6), np.random.default_rng(0)
    truth = exact_value(POLICIES["sed-d"]().fit(instance)).mean
    found = bounds.bound(instance, "sampled-graph")
    refused = 0
    for _ in range(60):
        certificate = {**found.certificate}
        certificate["cuts"] = [
            {**cut, "multiplier": int(cut["multiplier"] * rng.uniform(-1, 2)), "thresholds": list(cut["thresholds"])}
            for cut in found.certificate["cuts"]
        ]
        try:
            assert found.prove(instance, certificate).upper >= truth
        except CertificateError:
            refused += 1
    assert refused < 60
    object.__setattr__(found, "upper", found.upper * 1.01)
    with pytest.raises(CertificateError):
        found.verify()


def test_instances_that_no_policy_can_keep_up_with_are_refused():
    with pytest.raises(InputError, match="no policy is stable"):
        bounds.bound(single(2, 1.2), "birth-death")
    complete = next(name for name in bounds.MODEL.catalogue if "complete" in name)
    with pytest.raises(InputError):
        bounds.bound(complete, "sampled")


# The environment.


def test_shapes_do_not_depend_on_the_number_of_servers():
    shapes = set()
    for n in (100, 10_000):
        for action in ("server", "class"):
            env = gym.make(ID, instance=cluster(1, n, graph="regular-random").to_dict(), action=action)
            shapes.add((action, env.observation_space.shape, int(env.action_space.n)))
    assert len(shapes) == 2


def test_a_task_goes_where_it_is_sent():
    """Two servers that never finish: tasks add up where they were sent."""
    fields = single(2, 0.5, 2).to_dict() | {"service_rates": [1e-9], "arrival_rate": 1.0}
    env = gym.make(ID, instance=fields)
    obs, info = env.reset(seed=3)
    layout, sent = env.unwrapped.observation_layout, np.zeros(2)
    for _ in range(100):
        queues = obs[layout["queue"]]
        assert sorted(queues) == sorted(sent)
        slot = int(queues.argmax())
        sent[int(np.flatnonzero(sent == queues[slot])[0])] += 1
        obs, reward, _, _, info = env.step(slot)
        assert reward == pytest.approx(-(queues[slot] + 1) / 1e-9, rel=1e-6)
    assert info["decisions"] == 100
