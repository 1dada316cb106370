"""Policies for congestion-aware learning: rules by the letter, exact learning, the paper's inequalities and claims."""

import gymnasium as gym
import numpy as np
import pytest
from platforms import best_servers, expected_reward, one_hot, upper_bounds
from scipy import stats
from scipy.optimize import brentq

from matchgym.baselines import evaluate
from matchgym.baselines.congestion_learning import (
    POLICIES,
    BarrierUCB,
    GreedyUCB,
    QueueRidge,
    QueueUCB,
    TwoStageBarrier,
    TwoStageQueue,
)
from matchgym.baselines.congestion_learning import solve_barrier as solve
from matchgym.baselines.evaluation import drawn_instances, roll_out, run_length, simulate
from matchgym.baselines.policy import build
from matchgym.baselines.scoring import score_exactly, score_simulated
from matchgym.baselines.statistics import paired_interval
from matchgym.bounds.congestion_learning import oracle
from matchgym.envs.congestion_instances import CongestionLearningInstance
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find
from matchgym.envs.rng import beta, gamma, seed_words

ID = "CongestionLearning-v0"
ENTRY = find(ID)


def platform(**fields):
    return CongestionLearningInstance(**fields)


def parts(policy, obs):
    layout = ENTRY.model.layout(policy.instance, ENTRY.model.check_options(policy.options))
    return {name: obs[part] for name, part in layout.items()}


def trajectory(policy, slots, seed=0):
    """(t, parts of the observation, action) of a policy slot by slot, through `predict`."""
    env = gym.make(ID, instance=policy.instance.to_dict(), **policy.options)
    obs, _ = env.reset(seed=seed)
    state = policy.start(1, seed)
    for t in range(1, slots + 1):
        actions, state = policy.predict(obs[None], state, np.array([t == 1]), True)
        yield t, parts(policy, obs), actions[0]
        obs, *_ = env.step(actions[0])


FIXED = platform(arrival_rates=[2.0, 3.0], n_servers=6, rewards=np.random.default_rng(4).uniform(0, 1, (2, 6)), horizon=400)


def bounds_by_the_letter(t, seen, shape):
    h, mean = seen["served"].reshape(shape).astype(float), seen["mean"].reshape(shape).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(h > 0, np.minimum(mean + np.sqrt(2 * np.log(max(t - 1, 1)) / h), 1), 1.0)


@pytest.mark.parametrize(("policy", "eps"), [(QueueUCB(eps=0.037), 0.037), (GreedyUCB(), 0.0)])
def test_rule_9_by_the_letter(policy, eps):
    for t, seen, action in trajectory(policy.fit(FIXED), 400):
        values = bounds_by_the_letter(t, seen, (2, 6)) - eps * seen["queue"].astype(float)
        assert (action == values.argmax(1)).all()  # argmax takes the smallest index


def test_algorithm_1_by_the_letter():
    """The probabilities solve (7) at the bounds (6), and the repaired inequality of the proof holds in every slot."""
    policy, known = BarrierUCB(V=100.0).fit(FIXED), solve(FIXED.arrival_rates, FIXED.rewards, 100.0)
    lam, r, (t0, spread) = FIXED.arrival_rates, FIXED.rewards, (0, 0.0)
    for t, seen, p in trajectory(policy, 300):
        upper = bounds_by_the_letter(t, seen, (2, 6))
        found = solve(lam, upper, 100.0)
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
        flows = lam[:, None] * p / p.sum(1, keepdims=True)
        value = (flows * upper).sum() + np.log(1 - flows.sum(0)).sum() / 100
        assert value == pytest.approx(found.value, abs=1e-5)
        np.testing.assert_allclose(flows.sum(0), found.loads, atol=2e-2)
        left = ((known.flows - found.flows) * r).sum()
        right = ((upper - r) * (found.flows - known.flows)).sum() + np.log((1 - found.loads) / (1 - known.loads)).sum() / 100
        assert left <= right + 1e-9
        t0, spread = t, max(spread, right)
    assert t0 == 300
    assert spread > 0.1


def test_the_clock_of_the_bounds():
    """log(t - 1): at t = 2 the radius is 0, so that a pair that has failed counts 0; at t = 1 all count the cap."""
    instance = platform(
        arrival_rates=[1.0, 1.0], n_servers=3, rewards=np.zeros((2, 3)), arrival_law="binomial", arrival_success=1.0
    )
    seen = [action.tolist() for _, _, action in trajectory(GreedyUCB().fit(instance), 3)]
    assert seen[0] == [0, 0]
    assert seen[1] == [1, 0]  # type 0 has failed at server 0; type 1 still waits there
    assert seen[2] == [0, 0]  # sqrt(2 log 2) lifts every bound to the cap again


TINY = (
    {"arrival_rates": [0.8], "rewards": [[0.9, 0.35]], "arrival_success": 0.4, "horizon": 5},
    {"arrival_rates": [0.7, 0.6], "rewards": [[0.9, 0.35], [0.5, 0.45]], "arrival_success": 0.7, "horizon": 4},
)


def split_one_type(lam, r, v):
    """Programme (7) for one type by water-filling."""

    def loads(u):
        return np.maximum(0, 1 - 1 / (v * np.maximum(r - u, 1e-300)))

    u = brentq(lambda u: loads(u).sum() - lam, r.min() - 1e3 / v - 1, r.max() - 1e-12, xtol=1e-15)
    return loads(u) / lam


@pytest.mark.parametrize("fields", TINY)
@pytest.mark.parametrize("name", ["greedy-ucb", "queue-ucb", "barrier-ucb"])
def test_learning_by_full_enumeration(name, fields):
    """E R(T) over all arrivals, rewards and routings; the simulation within 4.5 standard errors of 40,000 episodes."""
    instance = platform(n_servers=2, arrival_law="binomial", **fields)
    eps = {"greedy-ucb": 0.0, "queue-ucb": 0.3}.get(name)
    cache = {}

    def decide(t, lengths, h, w):
        upper = upper_bounds(instance, t, h, w)
        if eps is not None:
            return one_hot(best_servers(upper, lengths, eps), 2)
        key = upper.tobytes()
        if key not in cache:
            lam = instance.arrival_rates
            cache[key] = split_one_type(lam[0], upper[0], 5.0)[None] if len(lam) == 1 else solve(lam, upper, 5.0).probabilities
        return cache[key]

    truth = expected_reward(instance, decide) / instance.horizon
    parameters = {"queue-ucb": {"eps": "0.3"}, "barrier-ucb": {"V": "5"}}.get(name, {})
    found = evaluate(build(POLICIES, name, parameters).fit(instance), ID, replications=40_000, seed=3)
    error = found.values.std(ddof=1) / np.sqrt(40_000)
    assert error < 0.002
    assert abs(found.objective.mean - truth) < 4.5 * error


@pytest.mark.parametrize("name", POLICIES)
def test_compiled_loop_is_predict(name):
    """`simulate` and a loop over `VectorEnv.step` and `predict` give the same rewards, bit for bit."""
    source = platform(
        arrival_rates=[2.0, 0.0, 2.5], n_servers=6, horizon=120, compatibility=np.tri(3, 6, 3, int),
        job_features=np.eye(3), server_features=np.linspace(-1, 1, 6)[:, None],
    )  # fmt: skip
    policy = POLICIES[name]().fit(source)
    size = (policy.instance, 3, 0, 120, 5)
    assert (simulate(policy, ENTRY, *size) == roll_out(policy, ENTRY, *size, False)).all()


def test_relabelling_servers():
    """Without ties, renaming the servers renames the queues and earns the same."""
    order = np.array([3, 0, 5, 1, 4, 2])
    renamed = platform(arrival_rates=[2.0, 3.0], n_servers=6, rewards=FIXED.rewards[:, order], horizon=400)
    for name in ("queue-known", "barrier-known"):
        one, two = (evaluate(POLICIES[name]().fit(each), ID, replications=20, seed=0) for each in (FIXED, renamed))
        assert one.objective.mean == pytest.approx(two.objective.mean, rel=0.01 if name == "barrier-known" else 1e-3)
        if name == "queue-known":
            np.testing.assert_allclose(one.values, two.values, rtol=1e-9)


def test_extremes_of_eps():
    """QB at eps = 0 is greedy; at a huge eps it joins the shortest queue, equal ones by the larger bound."""
    greedy = evaluate(GreedyUCB().fit("base"), ID, replications=8)
    assert (evaluate(QueueUCB(eps=0.0).fit("base"), ID, replications=8).values == greedy.values).all()
    for t, seen, action in trajectory(QueueUCB(eps=1e6).fit(FIXED), 100):
        upper, queue = bounds_by_the_letter(t, seen, (2, 6)), seen["queue"]
        for i in range(2):
            shortest = np.flatnonzero(queue == queue.min())
            assert action[i] == shortest[upper[i, shortest].argmax()]


def test_balance_of_the_queue_rule():
    """Pathwise under (9): Q_k - Q_j <= 1/eps + M for all servers."""
    instance = platform(arrival_rates=[2.0, 3.0], n_servers=6, arrival_law="binomial", arrival_success=0.5, horizon=600)
    most = int(instance.trials.sum())
    for eps in (0.05, 0.2):
        widest = 0.0
        for _, seen, _ in trajectory(QueueUCB(eps=eps).fit(instance), 600):
            widest = max(widest, float(np.ptp(seen["queue"])))
        assert 0.4 / eps < widest <= 1 / eps + most


def test_two_stages():
    """Random first; then one matrix from the empirical means of the first stage, or the queue rule at these."""
    for kind in (TwoStageBarrier, TwoStageQueue):
        estimates = None
        for t, seen, p in trajectory(kind(stage=30).fit(FIXED), 120):
            if t <= 30:
                assert (p == p[0, 0]).all()
                continue
            h, mean = seen["served"].reshape(2, 6), seen["mean"].reshape(2, 6).astype(float)
            estimates = np.where(h > 0, mean, 1.0) if estimates is None else estimates
            if kind is TwoStageBarrier:
                np.testing.assert_allclose(FIXED.arrival_rates @ p, solve([2.0, 3.0], estimates, 1000.0).loads, atol=1e-6)
            else:
                assert (p.argmax(1) == (estimates - 0.01 * seen["queue"].astype(float)).argmax(1)).all()
                assert (p.sum(1) == 1).all()


def test_horizon_awareness():
    """No job is sent where it cannot be completed if it could be elsewhere, and otherwise nothing changes."""
    aware, plain = POLICIES["horizon-queue-ucb"]().fit(FIXED), QueueUCB().fit(FIXED)
    differs = 0
    for t, seen, action in trajectory(aware, 400):
        queue, left = seen["queue"].astype(float), 400 - t + 1
        values = bounds_by_the_letter(t, seen, (2, 6)) - 0.01 * queue
        if queue.max() + seen["arrivals"][0] < left:
            assert (action == values.argmax(1)).all()
        else:
            differs += int((action != values.argmax(1)).any())
            if queue.min() < left:
                assert queue[action[0]] < left
    assert differs > 0
    assert plain.is_horizon_aware is False


def test_samplers_of_the_posterior():
    """Gamma and beta against scipy (Kolmogorov-Smirnov, level 1e-4)."""
    stream = np.array([seed_words(5)])
    for shape in (1.0, 2.5, 40.0):
        sample = [gamma(stream, 0, shape) for _ in range(20_000)]
        assert stats.kstest(sample, stats.gamma(shape).cdf).pvalue > 1e-4
    for a, b in ((1.0, 1.0), (3.0, 1.0), (12.0, 30.0)):
        assert stats.kstest([beta(stream, 0, a, b) for _ in range(20_000)], stats.beta(a, b).cdf).pvalue > 1e-4


def test_figure_1_ratios():
    """Over 100 random matrices, mean collected / (R* T) within the bands of the reference study, and paired orders at 95 %."""
    bands = {
        "barrier-ucb": (0.92, 0.95), "queue-ucb": (0.92, 0.95), "greedy-ucb": (0.43, 0.52), "random": (0.68, 0.74),
        "barrier-known": (0.965, 0.985), "queue-known": (0.965, 0.985), "thompson-barrier": (0.95, 0.975),
        "thompson-queue": (0.95, 0.975),
    }  # fmt: skip
    drawn = drawn_instances(ENTRY, ENTRY.model.load("base"), 100, 0)
    stars = np.array([oracle(each).certified_value for each in drawn])
    ratios = {name: evaluate(POLICIES[name]().fit("base"), ID, replications=100).values / stars for name in bands}
    for name, (low, high) in bands.items():
        assert low < ratios[name].mean() < high, name
        assert (ratios[name] < 1.02).all()
    assert paired_interval(ratios["queue-ucb"], ratios["barrier-ucb"]).low > 0
    assert paired_interval(ratios["queue-ucb"], ratios["barrier-ucb"]).high < 0.01
    assert paired_interval(ratios["thompson-queue"], ratios["queue-ucb"]).low > 0.01
    assert paired_interval(ratios["barrier-ucb"], ratios["greedy-ucb"]).low > 0.4
    policy = POLICIES["random"]().fit("base")
    score = score_simulated(ENTRY, policy, evaluate(policy, ID, replications=100))
    assert score.ratio == pytest.approx(ratios["random"].mean(), abs=1e-12)
    assert score.bound.certified_value == pytest.approx(stars.mean())
    assert score.score == 0
    assert not score.is_above_bound


def test_healthcare():
    """With the cap at 410 the rules learn; with the cap at 1, as (6) is printed, the barrier rule is an even split."""
    star = oracle("healthcare").certified_value
    v50 = evaluate(BarrierUCB(V=50.0).fit("healthcare"), ID, replications=10).objective.mean / star
    eps5 = evaluate(QueueUCB(eps=5.0).fit("healthcare"), ID, replications=10).objective.mean / star
    assert 0.95 < v50 < 1
    assert 0.95 < eps5 < 1
    assert evaluate(GreedyUCB().fit("healthcare"), ID, replications=10).objective.mean / star < 0.3
    assert 0.68 < evaluate(BarrierUCB(V=50.0, cap=1.0).fit("healthcare"), ID, replications=10).objective.mean / star < 0.78


def test_exact_scores():
    score = score_exactly(ENTRY, POLICIES["barrier-known"]().fit("toy"))
    assert score.objective.mean == pytest.approx(0.4, abs=5e-3)
    assert score.anchor.mean == pytest.approx(0.5 * 0.55)
    assert score.ratio <= 1


def test_run_lengths():
    model, instance = ENTRY.model, ENTRY.model.load("base")
    assert run_length(model, instance, None, None) == (0, 1000)
    assert run_length(model, instance, 200, None) == (200, 800)
    assert run_length(model, instance, None, 10) == (0, 10)
    for warmup, decisions in ((0, 1001), (500, 501), (1000, None), (-1, None), (0, 0)):
        with pytest.raises(InputError, match=r"warmup|decisions"):
            run_length(model, instance, warmup, decisions)


def test_refusals():
    overloaded = platform(arrival_rates=[4.0], n_servers=2, rewards=[[0.5, 0.6]])
    crowded = platform(arrival_rates=[1.2, 0.1], n_servers=2, compatibility=[[1, 0], [1, 1]])
    for name, arguments, source, word in (
        ("barrier-ucb", {}, overloaded, "arrival_rates"),
        ("barrier-ucb", {"V": "-1"}, "base", "V"),
        ("barrier-ucb", {"V": "1e9"}, "base", "V"),
        ("barrier-ucb", {}, crowded, "compatibility"),
        ("queue-ucb", {"eps": "-1"}, "base", "eps"),
        ("queue-ucb", {"cap": "0"}, "base", "cap"),
        ("queue-ucb", {"floor": "2"}, "base", "cap"),
        ("two-stage-queue", {"stage": "-3"}, "base", "stage"),
        ("jsq", {"eps": "1"}, "base", "eps"),
    ):
        with pytest.raises(InputError, match=word):
            build(POLICIES, name, arguments).fit(source)
    QueueUCB().fit(overloaded)  # needs no slack


# The bilinear model.


def test_ridge_estimates_by_the_letter():
    """theta' phi + b sqrt(phi' A^-1 phi) from the definition, on every slot of an episode; features of both signs."""
    rng = np.random.default_rng(8)
    f, g = rng.normal(size=(3, 2)), rng.normal(size=(4, 3))
    instance = platform(
        arrival_rates=[0.5, 1.0, 0.7], n_servers=4, rewards=rng.uniform(0, 1, (3, 4)), horizon=200, job_features=f.tolist(),
        server_features=g.tolist(),
    )  # fmt: skip
    phi = np.array([np.outer(f[i], g[j]).ravel() for i in range(3) for j in range(4)])
    clipped = 0
    for t, seen, action in trajectory(QueueRidge(eps=0.03, radius=0.4).fit(instance), 200):
        h, total = seen["served"].astype(float), seen["served"].astype(float) * seen["mean"]
        a = np.eye(6) + (phi.T * h) @ phi
        theta = np.linalg.solve(a, phi.T @ total)
        width = np.sqrt(np.einsum("kp,pk->k", phi, np.linalg.solve(a, phi.T)))
        estimates = np.clip(phi @ theta + 0.4 * width, 0, 1).reshape(3, 4)
        clipped += ((estimates == 0) | (estimates == 1)).any()
        values = estimates - 0.03 * seen["queue"].astype(float)
        chosen = np.take_along_axis(values, action[:, None], 1)[:, 0]
        assert (chosen >= values.max(1) - 1e-6).all(), t
    assert clipped > 5


@pytest.mark.parametrize(("rule", "parameters"), [("barrier", {}), ("queue", {"eps": 5.0})])
def test_features_pay_where_rewards_are_bilinear(rule, parameters):
    """On `healthcare`, which is rank one, ridge regression collects more than (6) under the same seeds, at 99.9 %."""
    plain, ridge = (
        evaluate(POLICIES[f"{rule}-{belief}"](**parameters).fit("healthcare"), ID, replications=16, seed=1).values
        for belief in ("ucb", "ridge")
    )
    assert paired_interval(ridge, plain, 0.999).low > 0


def test_ridge_policies_need_features():
    with pytest.raises(InputError, match="no job_features"):
        QueueRidge().fit(FIXED)
    with pytest.raises(InputError, match="belong together"):
        platform(arrival_rates=[1.0], n_servers=1, job_features=[[1.0]])
    with pytest.raises(InputError, match="server_features has shape"):
        platform(arrival_rates=[1.0], n_servers=2, job_features=[[1.0]], server_features=[[1.0]])
    with pytest.raises(InputError, match=r"job_features\[0, 0\] is nan"):
        platform(arrival_rates=[1.0], n_servers=1, job_features=[[float("nan")]], server_features=[[1.0]])
