"""The network that all supplier types share: what it must not see, where it starts, and that training helps."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")

import matchgym  # noqa: F401
from matchgym.agents.equivariant import Describe, EquivariantPolicy, Scores, random_markets, train_equivariant
from matchgym.agents.extra import torch
from matchgym.agents.sb3 import make_native
from matchgym.baselines import evaluate
from matchgym.baselines.stationary_matching import POLICIES
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find

ID = "StationaryMatching-v0"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small networks are slower with more."""
    torch.set_num_threads(1)


def states(instance: dict, rows: int = 64) -> np.ndarray:
    """Observations after some random decisions."""
    native = make_native(ID, instance, rows)
    obs, _ = native.reset(seed=1)
    for _ in range(40):
        obs, *_ = native.step(native.action_space.sample())
    return obs


def test_a_permutation_of_the_types_permutes_the_scores() -> None:
    """Suppliers and customers of a market in another order: the same scores in that order, the same score of idling."""
    market = random_markets(1, 6, 5, 3)[0]
    suppliers, customers = np.random.default_rng(0).permutation(6), np.random.default_rng(1).permutation(5)
    moved = market | {
        "supplier_rates": np.array(market["supplier_rates"])[suppliers].tolist(),
        "departure_rates": np.array(market["departure_rates"])[suppliers].tolist(),
        "customer_rates": np.array(market["customer_rates"])[customers].tolist(),
        "rewards": np.array(market["rewards"])[suppliers][:, customers].tolist(),
    }
    torch.manual_seed(0)
    network, load = Scores(), find(ID).model.load
    obs = states(market)
    other = np.concatenate([obs[:, :6][:, suppliers], obs[:, 6:][:, customers]], axis=1)
    with torch.no_grad():
        scores = network(torch.as_tensor(Describe(load(market))(obs)))[0].numpy()
        permuted = network(torch.as_tensor(Describe(load(moved))(other)))[0].numpy()
    np.testing.assert_allclose(permuted[:, :6], scores[:, :6][:, suppliers], atol=1e-4)
    np.testing.assert_allclose(permuted[:, 6], scores[:, 6], atol=1e-4)
    assert scores[:, :6].std() > 0.01


@pytest.mark.parametrize("instance", ["demo", "random-40x40", "ride-hailing-5x5"])
def test_it_starts_from_price_greedy_in_markets_of_any_size(instance: str) -> None:
    network = Scores()
    network.start()
    policy, teacher = EquivariantPolicy(network).fit(instance), POLICIES["price-greedy"]().fit(instance)
    native = make_native(ID, instance, 32)
    obs, _ = native.reset(seed=0)
    alike = []
    for _ in range(100):
        masks = native.unwrapped.action_masks()
        mine, _ = policy.predict(obs, deterministic=True)
        theirs, _ = teacher.predict(obs, deterministic=True, action_masks=masks)
        alike.append((mine == theirs).mean())
        obs, *_ = native.step(theirs)
    assert np.mean(alike) > 0.97


def test_what_is_learnt_in_small_markets_holds_in_larger_ones(tmp_path: Path) -> None:
    """After a short training on 6 x 6 markets it earns more than greedy on an unseen market of 15 x 15; and it can be saved."""
    policy = train_equivariant(random_markets(4, 6, 6, 100), 60_000)
    policy.save(tmp_path / "weights.npz")
    again = EquivariantPolicy.load(tmp_path / "weights.npz")
    unseen = random_markets(1, 15, 15, 900)[0]
    mine = evaluate(again.fit(unseen), ID, unseen, 16, 500, 1000, 0)
    theirs = evaluate(POLICIES["greedy"]().fit(unseen), ID, unseen, 16, 500, 1000, 0)
    assert (mine.values - theirs.values).mean() > 0  # common random numbers
    obs = states(unseen)
    np.testing.assert_array_equal(again.predict(obs)[0], policy.fit(unseen).predict(obs)[0])


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one number of supplier types"):
        train_equivariant(["demo", "random-10x10"])
    (tmp_path / "weights.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no weights"):
        EquivariantPolicy.load(tmp_path / "weights.npz")
