"""EuclideanMatching-v0 against hand-worked cases, the network it stands for, and the facts of Section 4 and Appendix 8."""

import dataclasses
import json
import math

import gymnasium as gym
import numpy as np
import pytest

from matchgym.bounds import euclidean_matching as bounds
from matchgym.bounds import matching_queues as network_bounds
from matchgym.envs.euclidean_matching import MODEL, EuclideanMatchingInstance, distances
from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import MatchingQueuesInstance

ID = "EuclideanMatching-v0"


def random_map(seed, n, m, d=2, price=0.6, target=0.5):
    """A random instance with rates on (0.5, 1.5) and abandonment 1."""
    rng = np.random.default_rng(seed)
    return EuclideanMatchingInstance(
        name=f"random-{seed}",
        supplier_rates=rng.uniform(0.5, 1.5, n),
        abandonment_rate=1.0,
        customer_rates=rng.uniform(0.5, 1.5, m),
        supplier_locations=rng.uniform(size=(n, d)),
        customer_locations=rng.uniform(size=(m, d)),
        throughput_target=target,
        throughput_price=price,
    )


# The instance and the environment.


def test_costs_are_distances():
    for d in (1, 2, 3, 5):
        instance = random_map(d, 4, 3, d)
        for i, a in enumerate(instance.supplier_locations):
            for j, b in enumerate(instance.customer_locations):
                assert instance.costs[i, j] == pytest.approx(math.dist(a, b), rel=1e-14)
    assert (distances(np.array([[0.3, 0.1]]), np.array([[0.3, 0.1], [0.3 + 5e-14, 0.1]])) == 0).all()


def test_json_round_trip_and_network():
    instance = random_map(0, 3, 2)
    again = EuclideanMatchingInstance.from_dict(json.loads(instance.to_json()))
    assert again.sha256 == instance.sha256
    assert (again.costs == instance.costs).all()
    network = instance.network
    assert isinstance(network, MatchingQueuesInstance)
    assert (network.rewards == instance.rewards).all()
    free = dataclasses.replace(instance, throughput_price=None)
    assert free.price == free.network.price > 0


@pytest.mark.parametrize("options", [{}, {"synchronised": True, "initial_state": "stationary-unmatched"}])
def test_steps_are_those_of_the_network(options):
    """The same seed gives the same trajectory, rewards and information in MatchingQueues-v0 with the distances as costs."""
    instance = random_map(1, 4, 5)
    env = gym.make(ID, instance=instance.to_dict(), **options)
    twin = gym.make("MatchingQueues-v0", instance=instance.network.to_dict(), **options)
    (obs, info), (twin_obs, _) = env.reset(seed=3), twin.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(400):
        assert (obs == twin_obs).all()
        action = int(rng.choice(np.flatnonzero(info["action_mask"])))
        customer = int(obs[4:].argmax())
        obs, reward, _, _, info = env.step(action)
        twin_obs, twin_reward, _, _, twin_info = twin.step(action)
        assert reward == twin_reward == (0.6 - instance.costs[action, customer] if action < 4 else 0.0)
        assert all(info[key] == twin_info[key] for key in info if key != "action_mask")
    assert info["throughput"] > 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"supplier_locations": [[0.1, 1.5]]}, r"supplier_locations\[0, 1\] is 1.5"),
        ({"supplier_locations": [[0.1, -0.5]]}, "supplier_locations"),
        ({"supplier_locations": [[0.1, 0.2], [0.3, 0.4]]}, "supplier_locations"),
        ({"supplier_locations": [0.1]}, "supplier_locations"),
        ({"customer_locations": [[0.1], [0.2]]}, "customer_locations has 1 coordinate"),
        ({"customer_locations": [[0.1, 0.2]]}, "customer_locations"),
        ({"customer_locations": [[0.1, None], [0.2, 0.3]]}, "customer_locations"),
        ({"costs": [[1.0, 1.0]]}, "costs"),
        ({"supplier_rates": [0.0]}, "supplier_rates"),
        ({"throughput_target": -1.0}, "throughput_target"),
        ({"model": "matching_queues"}, "euclidean_matching"),
    ],
)
def test_bad_instances_are_refused_by_field(changes, named):
    good = {
        "model": "euclidean_matching", "name": "x", "supplier_rates": [1.0], "abandonment_rate": 1.0,
        "customer_rates": [1.0, 2.0], "supplier_locations": [[0.1, 0.2]], "customer_locations": [[0.5, 0.5], [0.0, 1.0]],
        "throughput_target": 0.1,
    }  # fmt: skip
    gym.make(ID, instance=good)
    with pytest.raises(InputError, match=named):
        gym.make(ID, instance=good | changes)


@pytest.mark.parametrize("name", ["toy", "corners", "plane-200x200"])
def test_map_has_one_shape_and_changes_with_every_match(name):
    env = gym.make(ID, instance=name, render_mode="rgb_array", initial_state="stationary-unmatched").unwrapped
    _, info = env.reset(seed=2)
    for bound in (None, 1.5):
        env.bound = bound
        frame = env.render()
        assert frame.shape == (480, 720, 3)
        assert frame.dtype == np.uint8
    while not info["action_mask"][:-1].any():
        *_, info = env.step(env.action_space.n - 1)
    before = env.render()
    env.step(int(info["action_mask"].argmax()))
    assert (env.render() != before).sum() > 100
    env.state.queue[:] = 10**6
    assert env.render().shape == (480, 720, 3)


# Bounds.


def test_toy_by_hand():
    """Everybody is worth serving: (1 - 1 / (e - 1)) (1 - 0.5); and the target 0.4 costs 0.4 x 0.5."""
    assert bounds.bound("toy").value == pytest.approx(0.5 * (1 - 1 / (math.e - 1)), abs=1e-12)
    for kind in ("dlp", "optimum", "pooled"):
        assert bounds.bound("toy", kind).value == pytest.approx(0.2, abs=1e-9)


def test_bounds_are_those_of_the_network():
    instance = MODEL.load("corners")
    for kind in [kind for kind in bounds.KINDS if kind != "dlp"]:
        found, other = bounds.bound(instance, kind), network_bounds.bound(instance.network, kind)
        assert (found.value, found.certified_value) == (other.value, other.certified_value)
        assert found.instance is instance
        assert found.verify() == found.certified_value
    with pytest.raises(InputError, match="one queue"):
        bounds.bound(instance, "dlp")
    assert bounds.bound(instance, "nlp", (0,), (6,)).report["short"] == [0]
    with pytest.raises(InputError, match="throughput_target"):
        bounds.bound(dataclasses.replace(instance, throughput_target=2.9), "optimum")


def test_moving_and_turning_the_map_changes_nothing():
    """Distances, and so all bounds, do not depend on where the map lies."""
    instance = random_map(5, 2, 3)
    mirrored = dataclasses.replace(
        instance,
        supplier_locations=1 - instance.supplier_locations[:, ::-1],
        customer_locations=1 - instance.customer_locations[:, ::-1],
    )
    for kind in ("priced", "optimum", "dlp-tilde", "fluid"):
        assert bounds.bound(mirrored, kind).value == pytest.approx(bounds.bound(instance, kind).value, abs=1e-9)
