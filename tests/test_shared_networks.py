"""Networks whose weights all pairs of a job type and a server share, and rows that start one after another."""

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")

import matchgym  # noqa: F401
from matchgym.agents import SB3VecEnv, hyperparameters_for, make_native
from matchgym.agents.extra import torch
from matchgym.agents.imitation import demonstrate
from matchgym.agents.learner import build
from matchgym.agents.networks import actor_scores, pairs_of
from matchgym.baselines import Policy
from matchgym.envs.instance import InputError
from matchgym.leaderboards.export import network_of

ID, INSTANCE = "CongestionLearning-v0", "random-3x5"
TYPES, SERVERS = 3, 5


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small networks are slower with more."""
    torch.set_num_threads(1)


def test_a_pair_is_described_by_what_concerns_it() -> None:
    """On an observation that says of each number what it is."""
    native = make_native(ID, INSTANCE, 1)
    layout = native.unwrapped.observation_layout
    shapes = {"queue": (SERVERS,), "arrivals": (TYPES,), "arrival_rates": (TYPES,), "time": (1,)}
    size = max(part.stop for part in layout.values())
    pairs = pairs_of(ID, layout, native.single_action_space, 2)
    assert (pairs.rows, pairs.columns, len(pairs.members)) == (TYPES, SERVERS, 2 * len(layout))
    for k, (name, part) in enumerate(2 * list(layout.items())):
        numbers = np.arange(part.start, part.stop).reshape(shapes.get(name, (TYPES, SERVERS)))
        if name in ("arrivals", "arrival_rates"):
            numbers = numbers[:, None]
        expected = np.broadcast_to(numbers, (TYPES, SERVERS)) + size * (k // len(layout))
        np.testing.assert_array_equal(np.reshape(pairs.members[k], (TYPES, SERVERS)), expected)


def test_a_permutation_of_types_and_servers_permutes_the_scores() -> None:
    native = make_native(ID, INSTANCE, 32)
    table = hyperparameters_for(
        ID, "maskable_ppo", {"shared": 8, "saturate": [1], "n_envs": 32, "n_steps": 8, "batch_size": 256}
    )
    model = build("maskable_ppo", native, table, 0)
    extractor = model.policy.features_extractor
    with torch.no_grad():  # what a column stands for is not in the fixed numbers
        extractor.shift.zero_()
        extractor.scale.fill_(3.0)
        for layer in (model.policy.mlp_extractor.actor.score, model.policy.mlp_extractor.actor.linear):
            layer.weight.mul_(100.0)
    shown = demonstrate(native, None, 1, 0, 100).observations[:, 0]
    layout = native.unwrapped.observation_layout
    types, servers = np.array([2, 0, 1]), np.array([3, 1, 4, 0, 2])
    moved = shown.copy()
    moved[:, layout["queue"]] = shown[:, layout["queue"]][:, servers]
    for name in ("arrivals", "arrival_rates"):
        moved[:, layout[name]] = shown[:, layout[name]][:, types]
    for name in ("pending", "served", "mean"):
        table_of = shown[:, layout[name]].reshape(-1, TYPES, SERVERS)
        moved[:, layout[name]] = table_of[:, types][:, :, servers].reshape(len(shown), -1)
    with torch.no_grad():
        scores, permuted = (actor_scores(model.policy, torch.as_tensor(obs)).numpy() for obs in (shown, moved))
    expected = scores.reshape(-1, TYPES, SERVERS)[:, types][:, :, servers].reshape(len(shown), -1)
    np.testing.assert_allclose(permuted, expected, atol=1e-4)
    assert scores.std() > 0.1


def test_a_permutation_of_seats_permutes_the_scores() -> None:
    """As built, with the scales of a demonstration: seats are all alike, also those that are seldom taken."""
    native = make_native("FloatingClients-v0", "floating-0.1", 16)
    changes = {"shared": 4, "saturate": [1], "n_envs": 16, "n_steps": 8, "batch_size": 128}
    model = build("maskable_ppo", native, hyperparameters_for("FloatingClients-v0", "maskable_ppo", changes), 0)
    shown = demonstrate(native, None, 1, 50, 50).observations.reshape(-1, native.single_observation_space.shape[0])
    layout, (seats, servers) = native.unwrapped.observation_layout, (20, 6)
    order = np.random.default_rng(0).permutation(seats)
    moved = shown.copy()
    for name, part in layout.items():
        if name in ("arrivals", "age"):
            moved[:, part] = shown[:, part][:, order]
        elif name in ("pending", "served", "mean"):
            moved[:, part] = shown[:, part].reshape(-1, seats, servers)[:, order].reshape(len(shown), -1)
    with torch.no_grad():
        scores, permuted = (actor_scores(model.policy, torch.as_tensor(obs)).numpy() for obs in (shown, moved))
    expected = scores.reshape(-1, seats, servers)[:, order].reshape(len(shown), -1)
    np.testing.assert_allclose(permuted, expected, atol=1e-5)
    assert scores.std() > 1e-3


def test_rows_start_one_after_another() -> None:
    """After a spread reset the rows stand at all moments of an episode; without it, all at its first."""
    rows = 50
    env = SB3VecEnv(make_native(ID, "tables", rows), is_spread=True)
    env.seed(3)
    time = env.native.unwrapped.observation_layout["time"]
    moments = env.reset()[:, time].ravel()
    np.testing.assert_allclose(np.sort(moments), np.arange(rows) / rows, atol=1e-6)
    assert not SB3VecEnv(make_native(ID, "tables", rows)).reset()[:, time].any()
    again = SB3VecEnv(make_native(ID, "tables", rows), is_spread=True)
    again.seed(3)
    np.testing.assert_array_equal(again.reset()[:, time].ravel(), moments)


def test_a_teacher_is_told_which_rows_start_anew() -> None:
    """Every row starts once at the reset and once in its turn, and where an episode ends: never unannounced."""

    class Witness(Policy):
        def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
            assert ((observation[:, time].ravel() == 0) == episode_start).all()
            return np.zeros((len(observation), TYPES), np.int64), state

        def start(self, rows, seed):
            return None

    native = make_native(ID, INSTANCE, 8)
    time = native.unwrapped.observation_layout["time"]
    shown = demonstrate(native, Witness(), 0, 10, 200)
    moments = shown.observations[0][:, time].ravel()
    assert len(set(moments.tolist())) == 8
    assert shown.dones.any()


@pytest.mark.parametrize(("instance", "shared"), [("random-3x5", 0), ("random-3x5", 8), ("base", 8)])
def test_what_is_exported_scores_as_the_model(instance: str, shared: int) -> None:
    """With saturated counts, for the plain network with its linear path and the shared one; also where rewards are shown."""
    options = {"known_rewards": True} if instance == "base" else {}
    native = make_native(ID, instance, 32, options=options)
    changes = {"shared": shared, "saturate": [1, 30], "n_envs": 32, "n_steps": 8, "batch_size": 256}
    model = build("maskable_ppo", native, hyperparameters_for(ID, "maskable_ppo", changes), 0)
    obs = demonstrate(native, None, 1, 0, 50).observations.reshape(-1, native.single_observation_space.shape[0])
    network = network_of(model, obs.shape[1], int(native.single_action_space.nvec.sum()))
    with torch.no_grad():
        scores = actor_scores(model.policy, torch.as_tensor(obs)).numpy()
    np.testing.assert_allclose(network.run(obs), scores, atol=1e-5)
    assert scores.std() > 1e-3


def test_other_environments_are_refused() -> None:
    native = make_native("StationaryMatching-v0", "toy", 4)
    table = hyperparameters_for("StationaryMatching-v0", "maskable_ppo", {"shared": 8})
    with pytest.raises(InputError, match="set shared to 0"):
        build("maskable_ppo", native, table, 0)
