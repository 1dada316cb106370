"""One network for markets of every size: StationaryMatching-v0 by weights that all supplier types share.

What concerns a supplier type (how many wait, its rates, its price in the linear programme, what its matches are worth, and what
this match is worth) goes through the same hidden layer for every type; the mean over the types describes the market; a second
layer scores each type from its own description and the market's, and idling from the market's alone. So a permutation of the
types permutes the scores, nothing is learnt about a type by its number, and the same weights decide in markets with any number
of types, also ones never seen. Training starts from price-greedy.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.agents.extra import MaskableActorCriticPolicy, MaskablePPO, VecEnv, torch
from matchgym.agents.files import write_whole
from matchgym.agents.imitation import demonstrate
from matchgym.agents.learner import LinearDecay, spread_seed
from matchgym.agents.networks import Scored
from matchgym.agents.sb3 import SB3VecEnv, make_native
from matchgym.baselines.policy import Policy, best_actions
from matchgym.bounds.stationary_matching import linear_programme
from matchgym.envs.catalogues.stationary_matching import random_market
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.registry import find
from matchgym.envs.stationary_matching import StationaryMatchingInstance

ID = "StationaryMatching-v0"
LEVELS = (0.25, 0.5, 0.75, 0.9)  # quantiles of a supplier type's rewards over the customers who arrive
N_FEATURES = 11 + len(LEVELS)
MARGIN = 0  # the feature that price-greedy decides by
WIDTH = 32
SHARPNESS, TIE = 20.0, 1e-3  # of the first scores, per unit of the largest reward; what is worth its price is not matched
ROWS, STEPS, EPOCHS, RATE, GAMMA, LAMBDA = 32, 64, 4, 1e-3, 0.99, 0.9


class Describe:
    """Observations (B, I + J) of an instance as features (B, I, N_FEATURES) of its supplier types."""

    def __init__(self, instance: StationaryMatchingInstance) -> None:
        self.n = instance.n_suppliers
        self.offered = instance.offered.astype(np.float32)
        share = instance.customer_rates / instance.customer_rates.sum()
        self.worth_unit = max(float(instance.rewards.max()), 1e-12)
        self.worth = (instance.rewards / self.worth_unit).astype(np.float32)  # (I, J)
        self.prices = linear_programme(instance, "tlp-online").duals["supplier"].astype(np.float32) / self.worth_unit
        mean, supply = self.worth @ share, instance.supplier_rates / instance.customer_rates.sum()
        patience = np.log(instance.customer_rates.sum() / instance.departure_rates)
        quantiles = np.stack([_quantiles(row, share) for row in self.worth])
        self.fixed = np.column_stack([self.prices, np.log(instance.offered), patience, np.log(supply), mean, quantiles]).astype(
            np.float32
        )

    def __call__(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        waiting, arriving = observations[:, : self.n], observations[:, self.n :]
        worth = arriving @ self.worth.T  # (B, I)
        best = np.where(waiting > 0, worth, 0.0).max(axis=1, keepdims=True)
        moving = [
            worth - self.prices,
            np.minimum(waiting, 1.0),
            np.log1p(waiting),
            waiting / (1.0 + self.offered),
            worth,
            worth - best,
        ]
        fixed = np.broadcast_to(self.fixed, (len(observations), *self.fixed.shape))
        return np.concatenate([np.stack(moving, axis=2), fixed], axis=2).astype(np.float32)


def _quantiles(values: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Quantiles at LEVELS of a law on `values`."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return values[order][np.minimum(np.searchsorted(reached, np.array(LEVELS) - 1e-12), len(values) - 1)]


class Scores(torch.nn.Module):
    """Features (B, I, N_FEATURES) to scores (B, I + 1), idling last, and the market's description (B, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.own = torch.nn.Linear(N_FEATURES, WIDTH)
        self.both = torch.nn.Linear(2 * WIDTH, WIDTH)
        self.score = torch.nn.Linear(WIDTH, 1)
        self.linear = torch.nn.Linear(N_FEATURES, 1)  # past the hidden layers
        self.idle = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 1))

    def start(self) -> None:
        """Set the weights so that the scores are those of price-greedy: what a match is worth above the supplier's price."""
        with torch.no_grad():
            for layer in (self.score, self.idle[2], self.linear):
                layer.weight.zero_()
                layer.bias.zero_()
            self.linear.weight[0, MARGIN] = SHARPNESS
            self.idle[2].bias += TIE

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own = torch.tanh(self.own(features))
        market = own.mean(dim=1)
        both = torch.tanh(self.both(torch.cat([own, market[:, None].expand_as(own)], dim=2)))
        scores = (self.score(both) + self.linear(features))[:, :, 0]
        return torch.cat([scores, self.idle(market)], dim=1), market


class _Extractor(torch.nn.Module):
    """What Stable-Baselines3 asks of the middle of an actor-critic: the scores themselves, and what the critic reads."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = size // N_FEATURES + 1, WIDTH
        self.actor, self.critic = Scores(), Scores()

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return self.actor(features.reshape(len(features), -1, N_FEATURES))[0]

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return self.critic(features.reshape(len(features), -1, N_FEATURES))[1]


class _Network(Scored, MaskableActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = _Extractor(self.features_dim)


class Markets(VecEnv):
    """Rows of several markets of one size, which show features in place of observations."""

    def __init__(self, instances: Sequence[StationaryMatchingInstance], rows: int, seed: int) -> None:
        self.describe = [Describe(instance) for instance in instances]
        self.markets: list[SB3VecEnv] = []
        for k, instance in enumerate(instances):
            native = make_native(ID, instance.to_dict(), rows, -1)
            shown = demonstrate(native, None, spread_seed(seed, 100 + k), 100, 100)
            self.markets.append(SB3VecEnv(native, float(shown.rewards.mean()), float(shown.rewards.std()) or 1.0))
        size = instances[0].n_suppliers
        space = gym.spaces.Box(-np.inf, np.inf, (size * N_FEATURES,), np.float32)
        super().__init__(rows * len(instances), space, gym.spaces.Discrete(size + 1))
        self.parts = [slice(k * rows, (k + 1) * rows) for k in range(len(instances))]

    def _shown(self, observations: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([show(obs).reshape(len(obs), -1) for show, obs in zip(self.describe, observations)])

    def reset(self) -> NDArray[np.float32]:
        for k, market in enumerate(self.markets):
            market.seed(None if self._seeds[0] is None else self._seeds[0] + 1000 * k)
        return self._shown([market.reset() for market in self.markets])

    def step_async(self, actions: NDArray[Any]) -> None:
        for part, market in zip(self.parts, self.markets):
            market.step_async(actions[part])

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        observations, rewards, dones, infos = zip(*(market.step_wait() for market in self.markets))
        listed = [info for each in infos for info in each]  # endless rows: none has ended
        return self._shown(observations), np.concatenate(rewards), np.concatenate(dones), listed

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **further: Any) -> list[Any]:
        return [row for market in self.markets for row in market.env_method(method_name, *arguments, **further)]

    def has_attr(self, attr_name: str) -> bool:
        return self.markets[0].has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [value for market in self.markets for value in market.get_attr(attr_name)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        for market in self.markets:
            market.set_attr(attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        return [found for market in self.markets for found in market.env_is_wrapped(wrapper_class)]

    def close(self) -> None:
        for market in self.markets:
            market.close()


class EquivariantPolicy(Policy):
    """The shared network as a policy of any StationaryMatching-v0 instance.

    Parameters
    ----------
    scores : the trained network, as `train_equivariant` returns it or `load` reads it.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores = scores

    def fit(self, instance: Any) -> Self:
        """Describe the instance's types; nothing is learnt."""
        loaded = find(ID).model.load(instance)
        self.instance, self.describe_ = loaded, Describe(loaded)
        return self

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        obs = np.atleast_2d(observation)
        with torch.no_grad():
            scores = self.scores(torch.as_tensor(self.describe_(obs)))[0].numpy()
        masks = self.masks(obs) if action_masks is None else action_masks
        actions = best_actions(scores, gym.spaces.Discrete(scores.shape[1]), masks)
        return (actions if np.ndim(observation) == 2 else actions[0]), state

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        """A type may be matched if somebody of it waits; idling always."""
        waiting = np.atleast_2d(observation)[:, : self.describe_.n] > 0
        return np.column_stack([waiting, np.ones(len(waiting), bool)])

    def save(self, path: str | Path) -> None:
        """Write the weights, as plain arrays."""
        data = io.BytesIO()
        np.savez(data, **{name: tensor.numpy() for name, tensor in self.scores.state_dict().items()})
        write_whole(Path(path), data.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read weights; InputError if the file holds others."""
        scores = Scores()
        try:
            with np.load(path, allow_pickle=False) as arrays:
                scores.load_state_dict({name: torch.as_tensor(arrays[name]) for name in arrays.files})
        except (OSError, ValueError, RuntimeError, EOFError):
            raise InputError(f"{shorten(str(path))} holds no weights of an equivariant policy.") from None
        return cls(scores)


def train_equivariant(
    instances: Sequence[Any], timesteps: int = 1_000_000, seed: int = 0, torch_threads: int = 1
) -> EquivariantPolicy:
    """Train the shared network by MaskablePPO on several markets at once.

    Parameters
    ----------
    instances : catalogue names, paths or dicts of StationaryMatching-v0 instances with one number of supplier types.
    timesteps : environment steps in all.
    """
    loaded = [find(ID).model.load(instance) for instance in instances]
    sizes = {instance.n_suppliers for instance in loaded}
    if len(sizes) != 1:
        raise InputError(f"instances must have one number of supplier types, not {shorten(sorted(sizes))}.")
    torch.set_num_threads(torch_threads)
    markets = Markets(loaded, ROWS, seed)
    model = MaskablePPO(
        _Network, markets, learning_rate=LinearDecay(RATE, 0.02), n_steps=STEPS, n_epochs=EPOCHS, gamma=GAMMA,
        batch_size=max(256, ROWS * len(loaded) * STEPS // 8), gae_lambda=LAMBDA, seed=seed, device="cpu",
    )  # fmt: skip
    model.learn(timesteps)
    extractor: Any = model.policy.mlp_extractor
    return EquivariantPolicy(extractor.actor)


def random_markets(count: int, n_suppliers: int, n_customers: int, seed: int, density: float = 0.7) -> list[dict[str, Any]]:
    """Instances of the catalogue's generator, for training and for trying a policy on what it has not seen."""
    return [random_market(n_suppliers, n_customers, seed + k, density) for k in range(count)]
