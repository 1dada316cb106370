"""Policies for freelance markets: MaxWeight against enumeration, GreedyJob and GreedyAgent against their laws, stability."""

import itertools
import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from cases_freelance import CLASSES, allocations, is_feasible, random_market

from matchgym.baselines import evaluate
from matchgym.baselines.freelance_agents import greedy_agent, knapsack, near_knapsack
from matchgym.baselines.freelance_market import POLICIES, greedy_job, maxweight
from matchgym.bounds.freelance_market import bound
from matchgym.cli import main
from matchgym.envs.catalogues.freelance_market import crowd, prop12
from matchgym.envs.freelance_market import MODEL, FreelanceMarketEnv
from matchgym.envs.instance import InputError
from matchgym.envs.rng import seed_words

ID = "FreelanceMarket-v0"


def state_of(instance, seed):
    """A queue, arrivals and agents."""
    rng = np.random.default_rng(seed)
    n, skills = instance.n_types, instance.n_skills
    queue = rng.integers(0, 5, (n, skills)) * instance.needs if instance.decomposable else rng.integers(0, 5, n)
    return queue, rng.integers(0, 3, n), [rng.integers(0, 3, len(each)).tolist() for each in instance.availability_means]


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(12))
def test_maxweight_is_the_best_of_all_allocations(seed, kind, capped):
    instance = random_market(700 + seed, kind, n=2, skills=2, categories=1 + seed % 2)
    queue, arrivals, agents = state_of(instance, seed)
    hours = np.array([np.array(count) @ brought for count, brought in zip(agents, instance.agent_hours)])
    waiting = queue + (arrivals[:, None] * instance.needs if instance.decomposable else arrivals) if capped else queue
    weights = waiting if instance.decomposable else waiting[:, None] * instance.needs
    cap = waiting if instance.decomposable else np.where(instance.needs, waiting[:, None], 0)
    per_pool = allocations(instance, hours)
    if capped:
        best = max(
            float((weights * total).sum())
            for total in (sum(choice) for choice in itertools.product(*per_pool))
            if (total <= cap).all()
        )
    else:
        best = sum(max(float((weights * tasks).sum()) for tasks in points) for points in per_pool)
    found = maxweight(instance, queue.tolist(), arrivals.tolist(), agents, capped=capped)
    assert found.objective == best
    tasks = found.allocation if instance.decomposable else found.allocation[:, None] * instance.needs
    assert (weights * tasks).sum() == best
    if instance.flexible:
        assert is_feasible(instance, tasks, hours)
    else:
        pieces = found.split if instance.decomposable else found.split[..., None] * instance.needs
        assert ((pieces * instance.job_hours).sum(1) <= hours + 1e-6).all()
        assert (found.split.sum(0) == found.allocation).all()
    rounded = maxweight(instance, queue.tolist(), arrivals.tolist(), agents, exact=False, capped=capped)
    delta = instance.allowed.sum(1).max() if not instance.flexible else 1
    assert best - delta * weights.sum() <= rounded.objective <= best


def test_named_allocations():
    """Section 12.3: three tasks fit if one is split. A lossy rounding: 40 of weight, more than the sum of the weights, 31."""
    market = MODEL.load("fractional-split").to_dict()
    assert maxweight(market, [1], [0], [[1], [1]]).allocation.tolist() == [3]
    assert maxweight(market | {"flexible": False}, [1], [0], [[1], [1]]).allocation.tolist() == [2]
    queue, agents = [21, 10], [[1]] * 4
    exact = maxweight("lp-floor-loss", queue, [0, 0], agents).objective
    assert exact == 4 * 31
    assert exact - maxweight("lp-floor-loss", queue, [0, 0], agents, exact=False).objective == 40
    assert maxweight("toy", [0], [2], [[3]]).objective == 0
    assert maxweight("toy", [0], [2], [[3]], capped=True).allocation.tolist() == [2]


@pytest.mark.parametrize("kind", CLASSES)
def test_policies_request_what_the_functions_allocate(kind):
    """The request of `maxweight-ilp` has the objective of `maxweight` at the same state, and is granted in full if capped."""
    for seed in range(4):
        instance = random_market(800 + seed, kind, n=2, categories=2, skills=2, law="poisson", initial_jobs=[3, 2])
        policy = POLICIES["maxweight-ilp"]().fit(instance)
        env = FreelanceMarketEnv(instance)
        obs, _ = env.reset(seed=seed)
        memory = policy.start(1, seed)
        for _ in range(15):
            parts = {name: obs[part].astype(int) for name, part in env.observation_layout.items()}
            action, memory = policy.predict(obs[None], memory)
            obs, _, _, _, info = env.step(action[0])
            assert info["cut"] == 0
            if kind == "ID":
                continue  # queues by pool have no counterpart
            width = instance.n_skills if instance.decomposable else 1
            queue = parts["queue"].reshape(-1, width) if instance.decomposable else parts["queue"]
            ends = np.cumsum([len(each) for each in instance.availability_means])[:-1]
            agents = [each.tolist() for each in np.split(parts["agents"], ends)]
            found = maxweight(instance, queue, parts["arrivals"], agents, capped=True)
            waiting = queue + (parts["arrivals"][:, None] * instance.needs if instance.decomposable else parts["arrivals"])
            weights = waiting if instance.decomposable else (waiting * instance.needs.sum(1))[:, None]
            granted = env.state.allocation[0].reshape(-1, 2, width).sum(0)
            assert (weights * granted).sum() == found.objective


def test_greedy_job_by_hand_and_at_every_order():
    """r = (2,1), (1,1), (0,2) and H = (4,4): in the order 0 2 0 1, job types 0, 2 and 1 win, the second 0 fails."""
    market = {
        "model": "freelance_market", "name": "g", "arrival_means": [1, 1, 1], "job_hours": [[2, 1], [1, 1], [0, 2]],
        "availability_means": [[4]], "agent_hours": [[[1, 1]]],
    }  # fmt: skip
    assert greedy_job(market, [0, 2, 0, 1], [[4]]).tolist() == [2, 0, 1]
    assert greedy_job(market, [0, 2, 1, 0], [[4]]).tolist() == [1, 1, 1]
    assert greedy_job(market, [2, 2, 0, 1], [[4]]).tolist() == [0, 0, 2]
    with pytest.raises(InputError, match="jobs_in_order"):
        greedy_job(market, [3], [[4]])


def chi_square(counts, law):
    """Pearson's statistic, and the 1 - 1e-6 quantile it stays below."""
    from scipy.stats import chi2

    total = sum(counts.values())
    expected = {key: p * total for key, p in law.items() if p > 0}
    assert set(counts) <= set(expected)
    value = sum((counts.get(key, 0) - e) ** 2 / e for key, e in expected.items())
    return value, chi2.ppf(1 - 1e-6, max(1, len(expected) - 1))


def test_greedy_job_draws_a_random_order():
    """The law of what is granted, against all orders of the waiting jobs."""
    market = {
        "model": "freelance_market", "name": "g", "arrival_means": [2, 2, 1], "job_hours": [[2, 1], [1, 1], [0, 2]],
        "availability_means": [[4]], "agent_hours": [[[1, 1]]], "arrival_law": "deterministic",
        "availability_law": "deterministic",
    }  # fmt: skip
    law, jobs = {}, [0, 0, 1, 1, 2]
    orders = list(itertools.permutations(range(5)))
    for order in orders:
        key = tuple(greedy_job(market, [jobs[k] for k in order], [[4]]).tolist())
        law[key] = law.get(key, 0) + 1 / len(orders)
    policy = POLICIES["greedy-job"]().fit(market)
    env = FreelanceMarketEnv(market)
    obs, _ = env.reset(seed=0)
    actions, _ = policy.predict(np.repeat(obs[None], 20_000, 0), policy.start(20_000, 1))
    keys, counts = np.unique(actions.astype(int), axis=0, return_counts=True)
    value, limit = chi_square({tuple(key.tolist()): int(c) for key, c in zip(keys, counts)}, law)
    assert value < limit


def brute_greedy_agent(job_hours, agent_hours, crowd, orders, jobs, decomposable):
    """Algorithm 2 at given orders, job by job and hour by hour."""
    left = {(k, s): h for k, j in enumerate(jobs) for s, h in enumerate(job_hours[j]) if h > 0}
    fresh, partial = set(left), {}
    for i, order in zip(crowd, orders):
        for s, hours in enumerate(agent_hours[i]):
            for k in order:
                if (k, s) in fresh and left[k, s] <= hours:
                    hours -= left[k, s]
                    left[k, s] = 0
                    fresh.discard((k, s))
            if hours > 0 and s in partial:
                part = min(hours, left[partial[s], s])
                left[partial[s], s] -= part
                hours -= part
                if left[partial[s], s] == 0:
                    del partial[s]
            if hours > 0 and s not in partial:
                for k in order:
                    if (k, s) in fresh:
                        left[k, s] -= hours
                        fresh.discard((k, s))
                        partial[s] = k
                        break
    done = np.zeros((len(job_hours), len(job_hours[0])), int)
    for k, j in enumerate(jobs):
        needed = [s for s, h in enumerate(job_hours[j]) if h > 0]
        for s in needed:
            done[j, s] += left[k, s] == 0 and (decomposable or all(left[k, each] == 0 for each in needed))
    return done


@pytest.mark.parametrize("decomposable", [False, True])
def test_greedy_agent_has_the_law_of_random_orders(decomposable):
    job_hours, agent_hours = np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([[2.0, 0.0], [1.0, 1.0]])
    jobs, agents = [0, 0, 1], np.array([1, 1])
    orders = list(itertools.permutations(range(3)))
    law = {}
    for winners in ([0, 1], [1, 0]):
        for pair in itertools.product(orders, orders):
            key = brute_greedy_agent(job_hours.tolist(), agent_hours.tolist(), winners, pair, jobs, decomposable).tobytes()
            law[key] = law.get(key, 0) + 1 / 72
    stream, counts = np.array([seed_words(5)]), {}
    for hours in (job_hours, agent_hours):
        hours.setflags(write=False)  # as those of an instance are, which spares a compilation
    waiting = np.array([[2, 2], [1, 0]])
    for _ in range(20_000):
        done = greedy_agent(job_hours, agent_hours, agents, waiting, decomposable, stream, 0) * (job_hours > 0)
        counts[done.astype(int).tobytes()] = counts.get(done.astype(int).tobytes(), 0) + 1
    value, limit = chi_square(counts, law)
    assert value < limit


def test_knapsacks():
    """The table = the branch and bound of `maxweight`; the scheme is within 1 - eps."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, capacity = int(rng.integers(1, 6)), int(rng.integers(0, 40))
        profits, sizes = rng.integers(0, 30, n).astype(float), rng.integers(1, 9, n)
        caps = rng.integers(0, 12, n)
        value, x = knapsack(profits, sizes, capacity, caps)
        best = max(
            (profits @ y for y in np.ndindex(*(np.minimum(caps, capacity // sizes) + 1)) if sizes @ y <= capacity), default=0
        )
        assert value == profits @ x == best
        assert sizes @ x <= capacity
        assert (x <= caps).all()
        for eps in (0.5, 0.1):
            near, y = near_knapsack(profits, sizes.astype(float), float(capacity), caps, eps)
            assert near == profits @ y >= (1 - eps) * best
            assert sizes @ y <= capacity


def test_proposition_12():
    """One epoch with n waiting jobs completes k^2 / n on average under GreedyAgent: 4.4 standard errors at n = 60, k = 20."""
    instance = MODEL.load(prop12(k=20))
    stream = np.array([seed_words(3)])
    waiting = np.full((1, 4), 60)
    agents = np.array([20, 20])
    draws = np.array(
        [greedy_agent(instance.job_hours, instance.hours, agents, waiting, False, stream, 0)[0, 0] for _ in range(4000)]
    )
    variance = 20 * (1 / 3) * (2 / 3) * 40 / 59
    assert abs(draws.mean() - 20 / 3) < 4.4 * np.sqrt(variance / 4000)
    assert abs(draws.var() - variance) < 0.3


def slope(name, instance, decisions=600, **arguments):
    policy = POLICIES[name](**arguments).fit(instance)
    found = evaluate(policy, ID, instance, replications=6, warmup=decisions // 2, decisions=decisions)
    limit = bound(instance, "throughput").certified_value
    assert found.objective.low <= limit
    return found.trends["backlog_slope"], found.rates["backlog"].mean


def test_agents_that_choose_are_unstable_where_jobs_are_not():
    """Proposition 12, started at 3k: 18 arrive and fewer than 20^2 / 60 are completed."""
    unstable, _ = slope("greedy-agent", prop12(start=60), 150)
    assert unstable.low > 10
    for name, kind in (("greedy-job", "FND"), ("greedy-agent", "FD")):
        found, backlog = slope(name, prop12(start=60, kind=kind), 150)
        assert backlog < 20
        assert abs(found.mean) < 0.2


def test_section_1():
    """Jobs in index order, higher category first: type 1 grows by 8 per epoch, exactly; lower: no backlog."""
    found, _ = slope("naive-jobs-pick", "section1", order="index", prefer="high")
    assert found.mean == pytest.approx(8, abs=1e-9)
    for prefer in ("low", "random"):
        order = "index" if prefer == "low" else "random"
        found, backlog = slope("naive-jobs-pick", "section1", order=order, prefer=prefer)
        assert backlog < (1 if prefer == "low" else 100)
        assert abs(found.mean) < 0.2


@pytest.mark.parametrize(
    ("name", "kind", "categories"),
    [
        ("maxweight-ilp", "FND", 1), ("maxweight-lp", "FND", 1), ("greedy-job", "FND", 1), ("maxweight-knapsack", "FD", 1),
        ("maxweight-ilp", "IND", 2), ("jltt-maxweight", "IND", 3), ("jltt-greedy-job", "IND", 3),
        ("maxweight-ilp", "ID", 3), ("maxweight-ilp", "FND", 3), ("greedy-job", "FND", 3),
    ],
)  # fmt: skip
def test_stable_inside_and_growing_outside(name, kind, categories):
    """At 0.8 of the outer region the backlog stays small; at 1.3 it grows by the excess of hours at least."""
    n = {1: 24, 2: 5, 3: 12}[categories]
    found, backlog = slope(name, crowd(n, n, categories, kind, 0.8))
    assert found.low < 0.05
    assert backlog < 40
    market = MODEL.load(crowd(n, n, categories, kind, 1.3))
    demand, supply = market.arrival_means @ market.job_hours, market.mean_hours.sum(0)
    least = ((demand - supply) / market.job_hours.max(0)).max()
    found, _ = slope(name, market)
    assert found.high > least * 0.97
    assert found.low > 0


def test_admission_is_all_or_nothing_and_nears_beta():
    """Outside the region: what is accepted comes near (1 - beta*) sum lambda, and the backlog grows as nu falls."""
    market = MODEL.load(crowd(24, 24, load=1.25))
    target = (1 - bound(market, "decline").value) * market.arrival_means.sum()
    backlogs = []
    for nu in (0.01, 0.001):
        policy = POLICIES["admission-maxweight"](nu=nu).fit(market)
        found = evaluate(policy, ID, market, replications=4, warmup=2000, decisions=1000)  # filling takes time of order 1 / nu
        accepted = market.arrival_means.sum() - found.rates["declined"].mean
        backlogs.append(found.rates["backlog"].mean)
        assert 0.99 * target < accepted < 1.01 * bound(market).value  # above the target where types differ (Theorem 18)
        assert abs(found.trends["backlog_slope"].mean) < 2
    assert backlogs[1] > 1.5 * backlogs[0]
    inside = POLICIES["admission-maxweight"](nu=0.001).fit(crowd(24, 24, load=0.8))
    assert evaluate(inside, ID, None, replications=4, warmup=100, decisions=400).rates["declined"].mean == 0
    env = FreelanceMarketEnv(market, admission="common")
    obs, _ = env.reset(seed=0)
    policy = POLICIES["admission-maxweight"](nu=1.0).fit(market)
    memory = policy.start(1, 0)
    for _ in range(30):
        queue = obs[env.observation_layout["queue"]].astype(float)
        arrivals = obs[env.observation_layout["arrivals"]].astype(float)
        action, memory = policy.predict(obs[None], memory)
        declines = (arrivals * queue * market.needs.sum(1)).sum() > arrivals.sum()
        assert action[0, 0] == (not declines)
        obs = env.step(action[0])[0]


def test_every_policy_refuses_what_it_cannot_do():
    for name, instance in (
        ("maxweight-knapsack", "crowd-24-fnd"), ("greedy-agent", "asymmetric"), ("greedy-job", "asymmetric"),
        ("jltt-maxweight", "crowd-24-fnd"), ("naive-jobs-pick", "random-5x3-id"),
    ):  # fmt: skip
        with pytest.raises(InputError):
            POLICIES[name]().fit(instance)
    for wrong in (lambda: POLICIES["naive-jobs-pick"](order="up"), lambda: POLICIES["maxweight-knapsack"](eps=1.0)):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="queue"):
        maxweight("toy", [[1]], [0], [[3]])
    with pytest.raises(InputError, match="availability"):
        maxweight("toy", [1], [0], [[3], [1]])


def run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--json"])
    out = capsys.readouterr()
    assert not caught.value.code, out.err
    return json.loads(out.out)


def naive_outcomes(cohorts, hours, market):
    """All that naive jobs may be granted, the oldest cohort (jobs by type) first, ties in any order; lowest category first."""
    found = {((0,) * market.n_types, tuple(hours.ravel()))}
    for cohort in cohorts:
        jobs = [j for j, count in enumerate(cohort) for _ in range(count)]
        after = set()
        for (granted, left), order in itertools.product(found, set(itertools.permutations(jobs))):
            done, spare = list(granted), np.array(left).reshape(hours.shape)
            for j in order:
                for c in np.flatnonzero(market.allowed[j]):
                    if (market.job_hours[j] <= spare[c]).all():
                        spare[c] -= market.job_hours[j]
                        done[j] += 1
                        break
            after.add((tuple(done), tuple(spare.ravel())))
        found = after
    return {granted for granted, _ in found}


def test_naive_jobs_first_come_first_served():
    """Every epoch's grants are those of jobs in order of their age, and at times not those of jobs in any other order."""
    market = random_market(20, "IND", n=2, categories=2, skills=1, law="poisson", initial_jobs=[2, 0])
    market = replace(market, arrival_means=[0.8, 0.6], job_hours=[[1], [2]], agent_hours=[[[2]], [[2]]],
                     availability_means=[[0.6], [0.6]], compatible=[[1, 1], [1, 1]])  # fmt: skip
    policy, env = POLICIES["naive-jobs-pick"](order="fifo", prefer="low").fit(market), FreelanceMarketEnv(market)
    obs, _ = env.reset(seed=1)
    memory, cohorts, differs = policy.start(1, 0), [[2, 0]], 0
    for _ in range(150):
        parts = {name: obs[part].astype(int) for name, part in env.observation_layout.items()}
        cohorts.append(parts["arrivals"].tolist())
        assert np.sum(cohorts, 0).tolist() == (parts["queue"] + parts["arrivals"]).tolist()
        actions, memory = policy.predict(obs[None], memory)
        obs, *_, info = env.step(actions[0])
        granted = env.state.allocation[0].reshape(2, 2).sum(0)
        hours = parts["hours"].astype(float).reshape(2, 1)
        if np.sum(cohorts) <= 8:
            assert tuple(granted.tolist()) in naive_outcomes(cohorts, hours, market)
            differs += tuple(granted.tolist()) not in naive_outcomes(cohorts[::-1], hours, market)
        assert info["cut"] == 0
        for cohort in cohorts:  # the oldest of a type have gone
            for j in range(2):
                gone = min(cohort[j], granted[j])
                cohort[j] -= gone
                granted[j] -= gone
        cohorts = [cohort for cohort in cohorts if any(cohort)]
    assert differs > 5


def test_command_line(capsys, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(random_market(3, "FND", n=2, categories=1, law="poisson").to_json())
    words = ("--replications", "3", "--warmup", "50", "--decisions", "100")
    record = run(capsys, "evaluate", ID, "--policy", "greedy-job", "--instance", str(path), *words)
    assert set(record["backlog_slope"]) == {"mean", "low", "high"}
    assert record["bound"]["kind"] == "throughput-run"
    assert run(capsys, "evaluate", ID, "--policy", "greedy-job", *words[:2], *words[4:])["bound"]["kind"] == "throughput"
    assert record["backlog"] >= 0
    assert run(capsys, "evaluate", ID, "--policy", "maxweight-ilp", "--param", "capped=false", *words)["ratio"] > 0
    assert run(capsys, "bound", ID, "--instance", "section1", "--kind", "load")["value"] == pytest.approx(10 / 9)
    assert run(capsys, "stability", ID, "--instance", "section1")["load"] == pytest.approx(10 / 9)
    for wrong in (("bound", ID, "--kind", "capacity"), ("evaluate", ID, "--policy", "greedy-job", "--exact")):
        with pytest.raises(SystemExit) as caught:
            main(list(wrong))
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_slope_is_that_of_least_squares():
    """`backlog_slope` against a fit of the trajectory."""
    market = crowd(24, 24, load=1.2)
    policy = POLICIES["greedy-job"]().fit(market)
    found = evaluate(policy, ID, market, replications=2, warmup=20, decisions=50, seed=7)
    slopes = []
    for b in range(2):
        env = gym.make(ID, instance=market)
        obs, _ = env.reset(seed=7 + b)
        memory, counts = policy.start(2, 7), []
        for _ in range(70):
            actions, memory = policy.predict(np.repeat(obs[None], 2, 0), memory)
            obs, *_, info = env.step(actions[b])
            counts.append(info["backlog"])
        slopes.append(np.polyfit(np.arange(50), counts[20:], 1)[0])
    assert found.trends["backlog_slope"].mean == pytest.approx(np.mean(slopes), rel=1e-9)
