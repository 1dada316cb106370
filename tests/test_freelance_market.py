"""The kernel of freelance markets: epochs by hand, conservation, feasibility, who does what, laws of arrivals and agents."""

import json

import gymnasium as gym
import numpy as np
import pytest
from cases_freelance import CLASSES, allocations, is_feasible, random_market, satisfies_hall

from matchgym.baselines.freelance_market import split
from matchgym.envs.freelance_instances import FreelanceMarketInstance, read_counts, with_data
from matchgym.envs.freelance_market import MODEL, FreelanceMarketEnv, FreelanceMarketVectorEnv, action_layout
from matchgym.envs.freelance_split import realise
from matchgym.envs.instance import InputError
from matchgym.envs.packing import branch, relax, room

TOY = {key: value for key, value in MODEL.load("toy").to_dict().items() if value is not None and key != "compatible"}


def started(instance, seed=0, **options):
    env = FreelanceMarketEnv(instance, **options)
    env.reset(seed=seed)
    return env


def parts(env, obs):
    return {name: obs[part] for name, part in env.observation_layout.items()}


def test_toy_by_hand():
    """Two jobs arrive, three agents are there: ask for 1, then 5 (3 wait), then nothing."""
    env = started("toy")
    for wanted, completed, backlog, cut in ((1, 1, 1, 0), (5, 4, 0, 2), (0, 4, 2, 0), (4, 7, 1, 1)):
        obs, _, _, _, info = env.step(np.array([wanted]))
        assert (info["completed"], info["backlog"], info["cut"]) == (completed, backlog, cut)
        assert obs.tolist() == [backlog, 2, 3, 3]
    assert info["total_cut"] == 3
    assert info["total_reward"] == 7


def test_costs_and_admission_by_hand():
    env = started(TOY | {"holding_cost": 0.5, "decline_cost": 0.25}, admission="common")
    _, reward, _, _, info = env.step(np.array([0.0, 5.0]))  # both declined
    assert (reward, info["declined"], info["cut"]) == (-0.5, 2, 5)
    _, reward, _, _, info = env.step(np.array([1.0, 1.0]))
    assert reward == 1 - 0.5
    for p in (np.nan, -0.1, 1.5):
        before = info["invalid_actions"]
        *_, info = env.step(np.array([p, 0.0]))
        assert info["invalid_actions"] == before + 1
    assert info["declined"] == 2


def test_acceptance_is_binomial():
    """Declined of 20,000 jobs at p = 0.3: within 4.4 standard deviations, which a correct program leaves once in 10^5 seeds."""
    env = started(TOY | {"arrival_means": [20.0]}, admission="per-type")
    for _ in range(1000):
        *_, info = env.step(np.array([0.3, 50.0]))
    assert abs(info["declined"] - 14_000) < 4.4 * np.sqrt(20_000 * 0.21)


def test_first_come_first_served_completion():
    """Tasks of skill 0 and 1: a decomposable job is complete when both are done; max_s Q_js jobs are not."""
    market = {
        "model": "freelance_market", "name": "two", "arrival_means": [2], "job_hours": [[1, 1]], "availability_means": [[2, 1]],
        "agent_hours": [[[1, 0], [0, 1]]], "decomposable": True, "arrival_law": "deterministic",
        "availability_law": "deterministic",
    }  # fmt: skip
    env = started(market)
    for epoch in range(1, 5):  # two tasks of skill 0 and one of skill 1 fit in an epoch
        obs, reward, _, _, info = env.step(np.array([9.0, 9.0]))
        assert obs[:2].tolist() == [0, epoch]
        assert (reward, info["backlog"], info["completed"]) == (1, epoch, epoch)


def test_routes():
    market = {
        "model": "freelance_market", "name": "pools", "arrival_means": [7, 3], "job_hours": [[1], [1]],
        "availability_means": [[0.0], [0.0], [0.0]], "agent_hours": [[[1]]] * 3, "compatible": [[1, 1, 1], [0, 1, 1]],
        "flexible": False, "arrival_law": "deterministic",
    }  # fmt: skip
    env = started(market, pools=True)
    layout = action_layout(env.instance, {"action": "request", "pools": True, "admission": "all"})
    assert {name: (part.start, part.stop) for name, part in layout.items()} == {"route": (0, 6), "request": (6, 12)}

    def routed(route):
        before = env.state.queue[0].copy()
        env.step(np.r_[np.asarray(route, float).ravel(), np.zeros(6)])
        return (env.state.queue[0] - before).reshape(3, 2).T.tolist()

    assert routed([[4, 0], [1, 2], [2, 1]]) == [[4, 1, 2], [0, 2, 1]]  # integers that add up
    assert routed([[0, 5], [0, 0], [0, 0]]) == [[3, 2, 2], [0, 2, 1]]  # no weight that counts: even, first remainders first
    assert routed([[2, 0], [1, 1], [0.5, 0]]) == [[4, 2, 1], [0, 3, 0]]  # 7 x (4, 2, 1) / 7


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_grants_are_feasible_and_conserve(seed, kind, pools):
    """Every epoch: D <= waiting, A = D + change of Q, hours respected, and what was feasible was granted in full."""
    instance = random_market(400 + seed, kind)
    if pools and instance.flexible:
        pytest.skip("flexible markets have no pools")
    n, width = instance.n_types, instance.n_skills if instance.decomposable else 1
    needs = instance.needs if instance.decomposable else np.ones((n, 1), bool)
    for action in ("request", "priority"):
        env, rng = started(instance, seed, pools=pools, action=action), np.random.default_rng(seed)
        for _ in range(40):
            before, seen = env.state.queue[0].copy(), parts(env, env_observation(env))
            request = rng.integers(0, 4, env.action_space.shape) if action == "request" else env.action_space.sample()
            *_, info = env.step(request)
            granted = env.state.allocation[0].reshape(-1, n, width)
            total = granted.sum(0)
            queue = len(before) // (n * width)
            change = (before - env.state.queue[0]).reshape(queue, n, width).sum(0)
            if queue > 1 and not (pools or kind == "ID"):
                change = (before - env.state.queue[0]).reshape(queue, n, width)[0]
            assert (change == total - seen["arrivals"][:, None] * needs).all()
            assert (env.state.queue[0] >= 0).all()
            hours = seen["hours"].reshape(instance.n_categories, -1).astype(float)
            if instance.flexible:
                tasks = total * instance.needs
                assert is_feasible(instance, tasks, hours)
                assert env.state.used[0].sum() == pytest.approx((tasks * instance.job_hours).sum())
                assert (env.state.used[0] <= hours.ravel() + 1e-6).all()
            else:
                used = granted * instance.needs[None]
                assert ((used * instance.job_hours).sum(1) <= hours + 1e-6).all()
                assert not granted[~instance.allowed.T].any()
            assert info["backlog"] == env.state.jobs[0].sum()


def env_observation(env):
    obs = np.empty((1, env.observation_space.shape[0]), np.float32)
    env.model.reset_batch(env._params, env._state, np.zeros(1, bool), obs, np.zeros((1, env._n_actions), bool))
    return obs[0]


def test_halls_condition_is_a_flow():
    rng = np.random.default_rng(0)
    seen = []
    for seed in range(40):
        instance = random_market(450 + seed, n=3)
        hours = rng.integers(0, 9, (instance.n_categories, instance.n_skills)).astype(float)
        tasks = rng.integers(0, 3, (3, instance.n_skills)) * instance.needs
        seen.append(is_feasible(instance, tasks, hours))
        assert seen[-1] == satisfies_hall(instance, tasks, hours)
    assert 5 < sum(seen) < 35


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(3))
def test_feasible_requests_are_granted_in_full(seed, kind):
    """All allocations of an epoch, by enumeration, with enough jobs waiting."""
    instance = random_market(500 + seed, kind, n=2, categories=2, skills=2, initial_jobs=[30, 30])
    env = started(instance, seed)
    n, skills = 2, 2
    snapshot = env._state.copy()
    hours = parts(env, env_observation(env))["hours"].reshape(2, 2).astype(float)
    for pool, points in enumerate(allocations(instance, hours)):
        for tasks in points[:: max(1, len(points) // 40)]:
            env._state[:] = snapshot
            request = np.zeros((1 if instance.flexible else 2, n, skills if instance.decomposable else 1))
            request[pool if not instance.flexible else 0] = tasks if instance.decomposable else tasks.max(1)[:, None]
            if kind == "ID":  # the initial jobs wait in the first pool that may serve them
                waiting = env.state.queue[0].reshape(2, n, skills)[pool]
                request[pool] = np.minimum(request[pool], waiting)
                request = np.r_[np.zeros(4), request.ravel()]
            *_, info = env.step(request.ravel())
            assert info["cut"] == 0, tasks


def test_order_and_priority_follow_the_ranking():
    """One hour, three types: who comes first takes it."""
    market = TOY | {
        "arrival_means": [1, 1, 1],
        "job_hours": [[1]] * 3,
        "availability_means": [[1]],
        "arrival_law": "deterministic",
    }
    for action, values, winner in (
        ("priority", [0.1, 0.9, 0.2], 1), ("priority", [0.5, 0.5, 0.5], 0), ("order", [2, 1, 0], 2), ("order", [1, 1, 1], 0),
    ):  # fmt: skip
        env = started(market, action=action)
        env.step(np.array(values))
        assert env.state.allocation[0].tolist() == [int(k == winner) for k in range(3)]


@pytest.mark.parametrize("seed", range(12))
def test_work_of_agents(seed):
    """Every granted task is done, nobody works more hours than it has, and only in categories that may serve the type."""
    instance = random_market(600 + seed, "FD" if seed % 2 else "FND", initial_jobs=None, whole=seed % 3 > 0)
    env = started(instance, seed, action="priority")
    for _ in range(5):
        counts = parts(env, env_observation(env))["agents"].astype(int)
        env.step(np.random.default_rng(seed).uniform(-1, 1, env.action_space.shape))
        granted = env.state.allocation[0].reshape(instance.n_types, -1)
        ends = np.cumsum([len(each) for each in instance.availability_means])[:-1]
        agents = [each.tolist() for each in np.split(counts, ends)]
        z = split(instance, granted if instance.decomposable else granted[:, 0], agents)
        work = realise(instance, z, agents)
        hours, done = {}, np.zeros(instance.job_hours.shape)
        for each in work:
            assert instance.allowed[each.job_type, each.category]
            key = (each.category, each.agent_type, each.agent, each.skill)
            hours[key] = hours.get(key, 0) + each.hours
            done[each.job_type, each.skill] += each.hours
        for (c, i, k, s), total in hours.items():
            assert k < agents[c][i]
            assert total <= instance.agent_hours[c][i, s] + 1e-6
        assert np.allclose(done, granted * instance.needs * instance.job_hours, atol=1e-6)
    with pytest.raises(InputError, match="hours of skill"):
        split("toy", [4], [[3]])
    with pytest.raises(ValueError, match="more hours"):
        realise(MODEL.load("toy"), np.full((1, 1, 1), 4.0), [[3]])


def test_laws_of_arrivals_and_agents():
    """Means and variances of 40,000 draws, within 5 standard errors."""
    rows = 200
    for law, variance in (("poisson", 3.0), ("binomial", 1.5), ("deterministic", 0.0)):
        market = TOY | {"arrival_means": [3], "arrival_law": law, "availability_law": law, "availability_means": [[3]]}
        env = FreelanceMarketVectorEnv(market, num_envs=rows)
        obs, _ = env.reset(seed=1)
        seen = []
        for _ in range(200):
            obs, *_ = env.step(np.zeros((rows, 1)))
            seen.append(obs[:, [1, 2]])
        draws = np.concatenate(seen)
        assert abs(draws.mean(0) - 3).max() <= 5 * np.sqrt(variance / len(draws))
        assert abs(draws.var(0) - variance).max() <= 5 * np.sqrt((2 * variance**2 + variance) / len(draws)) + 1e-9
    support = [[0.25, [4, 0]], [0.75, [0, 2]]]
    market = TOY | {"arrival_means": [1, 1.5], "job_hours": [[1], [1]], "arrival_law": "finite", "arrival_support": support}
    env = FreelanceMarketVectorEnv(market, num_envs=rows)
    obs, _ = env.reset(seed=2)
    draws = np.concatenate([env.step(np.zeros((rows, 2)))[0][:, 2:4] for _ in range(200)])
    assert {tuple(row) for row in draws.tolist()} == {(4.0, 0.0), (0.0, 2.0)}
    assert abs((draws[:, 0] == 4).mean() - 0.25) < 5 * np.sqrt(0.1875 / len(draws))


def test_pattern_of_arrivals():
    env = started(TOY | {"arrival_means": [1000], "arrival_law": "poisson", "arrival_pattern": [0.0, 2.0]})
    counts = []
    for _ in range(20):
        obs, *_ = env.step(np.zeros(1))
        counts.append(obs[1])
    assert not any(counts[1::2])
    assert min(counts[::2]) > 1500


def test_policies_meet_the_same_market():
    first, second = started("crowd-12x3-ind", 5), started("crowd-12x3-ind", 5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = first.step(np.zeros(first.action_space.shape))[0]
        b = second.step(rng.integers(0, 9, second.action_space.shape))[0]
        assert (a[first.observation_layout["arrivals"]] == b[first.observation_layout["arrivals"]]).all()
        assert (a[first.observation_layout["agents"]] == b[first.observation_layout["agents"]]).all()


@pytest.mark.parametrize("seed", range(40))
def test_packing_against_enumeration(seed):
    """The best integers by brute force; the relaxation lies above, its rounding down below."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    a, b = rng.integers(0, 4, (m, n)).astype(float), rng.integers(0, 12, m).astype(float)
    a[0] += a.sum(0) == 0
    w, up = rng.integers(0, 20, n).astype(float), rng.integers(0, 6, n).astype(float)
    best = max(w @ x for x in np.ndindex(*(up.astype(int) + 1)) if (a @ x <= b).all())
    x, y, scratch = np.zeros(n), np.zeros(n), room(n, m)
    value, is_proved = branch(a, b, w, up, 10_000, x, *scratch)
    assert is_proved
    assert value == w @ x == best
    assert (a @ x <= b).all()
    relaxed = relax(a, b, w, np.zeros(n), up, y, *scratch)
    assert relaxed == pytest.approx(w @ y)
    assert relaxed >= best - 1e-9
    assert w @ np.floor(y + 1e-9) <= best


def test_instances_from_csv(tmp_path):
    (tmp_path / "jobs.csv").write_text("a,b\n3,1\n1,1\n")
    (tmp_path / "agents.csv").write_text("2,5\n4,5\n")
    base = {key: value for key, value in MODEL.load("section1").to_dict().items() if value is not None}
    market = with_data(base, tmp_path / "jobs.csv", tmp_path / "agents.csv")
    instance = FreelanceMarketInstance.from_dict(json.loads(json.dumps(market)))
    assert instance.arrival_means.tolist() == [2, 1]
    assert [each.tolist() for each in instance.availability_means] == [[3], [5]]
    started(instance)
    (tmp_path / "bad.csv").write_text("a\n1\nx\n")
    for wrong in ("bad.csv", "none.csv", "jobs.csv"):
        with pytest.raises(InputError, match=r"arrival|availability"):
            with_data(
                base, **({"availability": tmp_path / "bad.csv"} if wrong == "jobs.csv" else {"arrivals": tmp_path / wrong})
            )


@pytest.mark.parametrize("row", ["1.0,2", "-7,2", "1e2,2", "inf,2", "1_0,2", "12,", "a,2", "٣,2", "99999999999999999999,2"])
def test_rows_of_a_csv_are_never_left_out(row, tmp_path):
    """The first row is a header only if no cell of it is a number; what cannot be read is named with its line."""
    path = tmp_path / "jobs.csv"
    for text, line in ((f"{row}\n3,4\n", 1), (f"a,b\n3,4\n{row}\n", 3)):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=f"line {line} of .*jobs.csv has '"):
            read_counts("arrivals", path)
    path.write_text("a,b\n")
    with pytest.raises(InputError, match="holds no epochs"):
        read_counts("arrivals", path)
    with pytest.raises(InputError, match="arrivals must be the path"):
        read_counts("arrivals", 3)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"arrival_means": [0]}, "arrival_means"),
        ({"arrival_means": [-1]}, "arrival_means"),
        ({"arrival_means": [float("nan")]}, "arrival_means"),
        ({"job_hours": [[0]]}, "job_hours"),
        ({"job_hours": [[1], [1]]}, "job_hours"),
        ({"availability_means": []}, "availability_means"),
        ({"availability_means": [[3], [3]]}, "agent_hours"),
        ({"agent_hours": [[[1, 2]]]}, "agent_hours"),
        ({"compatible": [[2]]}, "compatible"),
        ({"decomposable": 1}, "decomposable"),
        ({"arrival_law": "uniform"}, "arrival_law"),
        ({"arrival_law": "finite"}, "arrival_support"),
        ({"availability_support": [[1, [[3]]]]}, "availability_support"),
        ({"availability_law": "finite", "availability_support": [[0.5, [[3]]]]}, "availability_support"),
        ({"availability_law": "finite", "availability_support": [[1, [[4]]]]}, "availability_means"),
        ({"availability_means": [[2.5]]}, "availability_means"),
        ({"arrival_success": 2}, "arrival_success"),
        ({"arrival_pattern": [1, 2]}, "arrival_pattern"),
        ({"initial_jobs": [1.5]}, "initial_jobs"),
        ({"holding_cost": -1}, "holding_cost"),
        ({"speed": 1}, "speed"),
    ],
)
def test_refusals_name_the_field(changes, field):
    with pytest.raises(InputError, match=field):
        gym.make("FreelanceMarket-v0", instance=TOY | changes)


def test_refused_options():
    with pytest.raises(InputError, match="pools"):
        FreelanceMarketEnv("toy", pools=True)
    with pytest.raises(InputError, match="admission"):
        FreelanceMarketEnv("toy", action="order", admission="common")
