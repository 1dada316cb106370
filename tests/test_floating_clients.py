"""FloatingClients-v0: clients, queues and learning against a plain account, laws by hand, policies by the letter."""

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

from matchgym.baselines import evaluate
from matchgym.baselines.evaluation import roll_out, simulate
from matchgym.baselines.floating_clients import POLICIES, QueueUCB
from matchgym.baselines.scoring import score_simulated
from matchgym.bounds.floating_clients import bound
from matchgym.envs.congestion_instances import FloatingClientsInstance
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find

ID = "FloatingClients-v0"
ENTRY = find(ID)


def platform(**fields):
    given = {"client_arrivals": [0.3, 0.2], "client_departures": [0.25, 0.1], "job_rates": [1.0, 0.7], "n_servers": 3}
    return FloatingClientsInstance(**(given | {"rewards": [[0.2, 0.5, 0.8], [0.6, 0.1, 0.9]], "horizon": 80} | fields))


def test_against_a_plain_account():
    """Jobs of clients who have gone are served and paid, but teach nothing; seats start afresh."""
    instance = platform(rewards=[[0, 1, 0], [1, 0, 1]])
    env = gym.make(ID, instance=instance.to_dict())
    rng, after_departure = np.random.default_rng(0), 0
    for episode in range(4):
        obs, info = env.reset(seed=episode)
        state, layout = env.unwrapped.state, env.unwrapped.observation_layout
        queues, h, w, collected, done = [deque() for _ in range(3)], {}, {}, 0.0, False
        while not done:
            seen = {name: obs[part] for name, part in layout.items()}
            clients = state.seat_client[0].copy()
            types = state.client_type[0]
            np.testing.assert_array_equal(seen["queue"], [len(queue) for queue in queues])
            np.testing.assert_array_equal(clients >= 0, seen["age"] > 0)
            assert (seen["arrivals"][clients < 0] == 0).all()
            for seat, client in enumerate(clients.tolist()):
                for j in range(3):
                    k = 3 * seat + j
                    assert seen["served"][k] == h.get((client, j), 0)
                    assert seen["mean"][k] == w.get((client, j), 0) / max(h.get((client, j), 0), 1)
                    assert seen["pending"][k] == (sum(c == client for c in queues[j]) if client >= 0 else 0)
            choice = rng.integers(3, size=instance.n_seats)
            for seat, client in enumerate(clients.tolist()):
                queues[choice[seat]].extend([client] * int(seen["arrivals"][seat]))
            obs, reward, done, _, info = env.step(choice)
            earned = 0.0
            for j in range(3):
                if queues[j]:
                    client = queues[j].popleft()
                    x = float((types[client] == 0) == (j == 1))
                    h[client, j], w[client, j] = h.get((client, j), 0) + 1, w.get((client, j), 0) + x
                    after_departure += client not in clients
                    earned += x
            assert reward == earned
            collected += earned
        assert info["total_reward"] == info["expected_reward"] == collected
        assert info["elapsed_time"] == 80
    assert after_departure > 20


@pytest.mark.parametrize(("start", "share"), [("empty", lambda nu, t: 1 - (1 - nu) ** t), ("stationary", lambda nu, t: 1.0)])
def test_number_of_clients(start, share):
    """E clients of type i in slot t = mu_i / nu_i (1 - (1 - nu_i)^t) from an empty start; 4.5 standard errors of 4000 rows."""
    instance = platform(horizon=10)
    env = gym.make_vec(ID, num_envs=4000, instance=instance.to_dict(), initial_state=start)
    env.reset(seed=0)
    state = env.unwrapped.state
    for t in range(1, 9):
        seated = state.seat_client >= 0
        types = np.take_along_axis(state.client_type, np.maximum(state.seat_client, 0), 1)
        for i in range(2):
            counts = (seated & (types == i)).sum(1)
            wanted = instance.client_arrivals[i] / instance.client_departures[i] * share(instance.client_departures[i], t)
            assert abs(counts.mean() - wanted) < 4.5 * counts.std() / np.sqrt(4000)
        env.step(np.zeros((4000, instance.n_seats), int))
    assert (state.clients_turned_away == 0).all()


def test_stays_are_geometric():
    """Ages at departure on {1, 2, ...} (chi-square, level 1e-4)."""
    instance = platform(
        client_arrivals=[0.5], client_departures=[0.3], job_rates=[1.0], rewards=[[1.0]], n_servers=1, horizon=8000
    )
    env = gym.make(ID, instance=instance.to_dict())
    obs, _ = env.reset(seed=1)
    part, stays, done = env.unwrapped.observation_layout["age"], [], False
    while not done:
        before, clients = obs[part].copy(), env.unwrapped.state.seat_client[0].copy()
        obs, _, done, _, _ = env.step(np.zeros(instance.n_seats, int))
        gone = (clients >= 0) & (env.unwrapped.state.seat_client[0] != clients)
        stays += before[gone].tolist()
    counts = np.bincount(np.minimum(np.array(stays, int), 10), minlength=11)[1:]
    law = 0.3 * 0.7 ** np.arange(9)
    assert stats.chisquare(counts, counts.sum() * np.append(law, 0.7**9)).pvalue > 1e-4


def test_two_slots_by_hand():
    """One type, one server: a job is served in slot 1 with probability mu (1 - e^-lambda), and in slot 2 from four ways."""
    mu, nu, lam, r = 0.6, 0.4, 0.9, 0.8
    instance = platform(client_arrivals=[mu], client_departures=[nu], job_rates=[lam], rewards=[[r]], n_servers=1, horizon=2)
    first = mu * (1 - np.exp(-lam))
    # Nothing is served in slot 2 iff at most one job came in slot 1 and none in slot 2.
    stays, comes = (1 - nu) * np.exp(-lam) + nu, (1 - mu) + mu * np.exp(-lam)
    second = 1 - (mu * np.exp(-lam) * (1 + lam) * stays + (1 - mu)) * comes
    found = evaluate(POLICIES["random"]().fit(instance), ID, replications=10_000)
    error = found.values.std(ddof=1) / np.sqrt(10_000)
    assert abs(found.objective.mean - r * (first + second) / 2) < 4.5 * error


def test_seats_and_common_random_numbers():
    """The chance to find no seat is below 1e-9 an episode; clients and jobs do not depend on what is done with them."""
    assert stats.poisson(2).sf(FloatingClientsInstance.from_dict(ENTRY.model.catalogue["floating-0.1"]()).n_seats) < 1e-12
    seen = []
    for seed in range(2):
        env = gym.make(ID)
        env.action_space.seed(seed)
        obs, _ = env.reset(seed=3)
        layout, jobs = env.unwrapped.observation_layout, []
        for _ in range(200):
            jobs.append(obs[layout["arrivals"]].tolist())
            obs, *_ = env.step(env.action_space.sample())
        seen.append(jobs)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("clock", ["platform", "client"])
def test_rule_by_the_letter(clock):
    policy = QueueUCB(eps=0.07, clock=clock).fit(platform(horizon=150))
    env = gym.make(ID, instance=policy.instance.to_dict())
    obs, _ = env.reset(seed=0)
    layout, seats = env.unwrapped.observation_layout, policy.instance.n_seats
    for t in range(1, 151):
        action = policy.predict(obs[None], None, None, True)[0][0]
        seen = {name: obs[part].astype(float) for name, part in layout.items()}
        h, mean = seen["served"].reshape(seats, 3), seen["mean"].reshape(seats, 3)
        slots = np.full(seats, t - 1) if clock == "platform" else seen["age"] - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = np.sqrt(2 * np.log(np.maximum(slots, 1))[:, None] / h)
            upper = np.where(h > 0, np.minimum(mean + radius, 1), 1.0)
        assert (action == (upper - 0.07 * seen["queue"]).argmax(1)).all()
        obs, *_ = env.step(action)


@pytest.mark.parametrize("name", POLICIES)
def test_compiled_loop_is_predict(name):
    policy = POLICIES[name]().fit(platform())
    size = (policy.instance, 3, 0, 80, 5)
    assert (simulate(policy, ENTRY, *size) == roll_out(policy, ENTRY, *size, False)).all()


def test_scores_and_the_corrected_claim():
    """The ratio lies clearly below the base case's .94, and the total does not improve as nu falls; 100 episodes each."""
    means = {}
    for name in ("floating-0.5", "floating-0.1", "floating-0.01"):
        policy = QueueUCB().fit(name)
        score = score_simulated(ENTRY, policy, evaluate(policy, ID, replications=100))
        assert not score.is_above_bound
        assert 0.5 < score.ratio < 0.8
        means[name] = score.ratios
    assert means["floating-0.5"].low > means["floating-0.01"].high


def test_refusals():
    for fields, word in (
        ({"client_arrivals": [0.3, 1.2]}, "client_arrivals"),
        ({"client_departures": [0.3, 0.0]}, "client_departures"),
        ({"client_departures": [0.3]}, "client_departures"),
        ({"job_rates": [0.0, 0.0]}, "job_rates"),
        ({"n_servers": 0}, "n_servers"),
        ({"rewards": [[0.2, 0.5, 1.8], [0.6, 0.1, 0.9]]}, "rewards"),
        ({"horizon": -1}, "horizon"),
        ({"client_departures": [1e-9, 0.1]}, "client_arrivals"),
    ):
        with pytest.raises(InputError, match=word):
            platform(**fields)
    with pytest.raises(InputError, match="rewards are drawn"):
        bound("floating-0.1")
    with pytest.raises(InputError, match="clock"):
        QueueUCB(clock="wall")
