"""Networks of the actors: what they are shown, and what there is beside plain hidden layers.

`Standardise` is the first layer of every network. `WidePolicy` has a linear path past the hidden layers. `SharedPolicy` scores
every pair of a row and a column (a type of job and a server, a client and a server) by the same weights.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.agents.extra import ActorCriticPolicy, BaseFeaturesExtractor, MaskableActorCriticPolicy, MlpExtractor, torch
from matchgym.envs.instance import InputError


class Standardise(BaseFeaturesExtractor):
    """First layer of every network: (observation - shift) / scale with fixed numbers.

    It is part of the saved model, so whoever holds the model feeds it raw observations.

    Parameters
    ----------
    observation_space : the Box of the environment, (obs_dim,).
    shift, scale : lists of obs_dim numbers.
    saturate : for every number c of it, x / (x + c) of each observed x (0 if negative) follows, so that the difference between
        none and one is not lost where counts may be large: (1 + len(saturate)) obs_dim features in all.
    """

    def __init__(
        self, observation_space: gym.spaces.Box, shift: list[float], scale: list[float], saturate: list[int] | None = None
    ) -> None:
        self.saturate = list(saturate or [])
        super().__init__(observation_space, int(np.prod(observation_space.shape)) * (1 + len(self.saturate)))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        standard = (observations - self.shift) / self.scale
        if not self.saturate:
            return standard
        counts = observations.relu()
        return torch.cat([standard, *(counts / (counts + c) for c in self.saturate)], dim=1)


class WideExtractor(MlpExtractor):
    """Hidden layers whose output for the actor is followed by what went in.

    The scores are then a network plus a linear function of the observation. Observations name the arriving customer by a one,
    so the linear part is a table with a score for every pair of customer and action: what a matching is worth need not be
    squeezed through the hidden layers, which are left with the effect of the queues.
    """

    def __init__(self, feature_dim: int, **arguments: Any) -> None:
        super().__init__(feature_dim, **arguments)
        self.latent_dim_pi += feature_dim

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.policy_net(features), features], dim=1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)


class Wide:
    """Puts a `WideExtractor` into an actor-critic policy of Stable-Baselines3."""

    features_dim: int
    net_arch: Any
    activation_fn: Any
    device: Any

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = WideExtractor(
            self.features_dim, net_arch=self.net_arch, activation_fn=self.activation_fn, device=self.device
        )


class WidePolicy(Wide, ActorCriticPolicy):
    """The policy class of PPO and A2C."""


class WideMaskablePolicy(Wide, MaskableActorCriticPolicy):
    """The policy class of MaskablePPO."""


class Pairs(NamedTuple):
    """Which features describe which pair of a row and a column, row by row."""

    rows: int
    columns: int
    members: list[list[int]]  # for each property of a pair, the feature that holds it: (n_properties, rows * columns)

    def alike(self, obs_dim: int) -> list[NDArray[np.int64]]:
        """The observations that tell the same of different rows, a list for each property and column."""
        found = [np.reshape(which, (self.rows, self.columns)).T for which in self.members if max(which) < obs_dim]
        return [np.unique(of_column) for which in found for of_column in which]


PAIRED = ("CongestionLearning-v0", "FloatingClients-v0")
SEATED = ("FloatingClients-v0",)  # those whose rows are seats, one like the other
# How the named parts of their observations go with the scores, one for each pair of a row and a column.
PARTS = {
    "queue": "column",
    "pending": "pair",
    "served": "pair",
    "mean": "pair",
    "rewards": "pair",
    "arrivals": "row",
    "arrival_rates": "row",
    "age": "row",
    "time": "all",
}


def pairs_of(env_id: str, layout: Mapping[str, slice], action_space: gym.Space[Any], copies: int) -> Pairs:
    """The pairs of an environment whose actions are a column, or weights of all columns, for every row.

    `copies` of the observation are features, one behind the other. Raises InputError for other environments and actions.
    """
    if isinstance(action_space, gym.spaces.MultiDiscrete):
        rows, columns = len(action_space.nvec), int(action_space.nvec[0])
    elif isinstance(action_space, gym.spaces.Box) and len(action_space.shape) == 2:
        rows, columns = action_space.shape
    else:
        rows = columns = 0
    if env_id not in PAIRED or not columns:
        raise InputError(
            f"shared networks are for a server, or weights of servers, per row of {' and '.join(PAIRED)}; set shared to 0."
        )
    obs_dim = max(part.stop for part in layout.values())
    row, column = np.divmod(np.arange(rows * columns), columns)
    places = {"row": row, "column": column, "pair": np.arange(rows * columns), "all": np.zeros(rows * columns, int)}
    members = [
        (copy * obs_dim + part.start + places[PARTS[name]]).tolist() for copy in range(copies) for name, part in layout.items()
    ]
    return Pairs(rows, columns, members)


class SharedScores(torch.nn.Module):
    """Properties (B, rows, columns, F) of pairs to a score for every pair (B, rows, columns), and a summary (B, width).

    A hidden layer that all pairs share describes each; the means over a pair's row and over its column describe its
    surroundings; a second layer scores it from its own description and its surroundings', and a linear path leads past both. So
    a permutation of rows or columns permutes the scores, nothing is learnt about a pair by its number, and what is learnt about
    one is known about all.
    """

    def __init__(self, n_properties: int, width: int) -> None:
        super().__init__()
        self.own = torch.nn.Linear(n_properties, width)
        self.both = torch.nn.Linear(3 * width, width)
        self.score = torch.nn.Linear(width, 1)
        self.linear = torch.nn.Linear(n_properties, 1)

    def start(self) -> None:
        """Scores of almost zero, so that the first decisions are random."""
        with torch.no_grad():
            for layer in (self.score, self.linear):
                layer.weight.mul_(0.01)
                layer.bias.zero_()

    def forward(self, properties: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own = torch.tanh(self.own(properties))
        of_row, of_column = (own.mean(dim=axis, keepdim=True).expand_as(own) for axis in (2, 1))
        both = torch.tanh(self.both(torch.cat([own, of_row, of_column], dim=3)))
        return (self.score(both) + self.linear(properties))[..., 0], both.mean(dim=(1, 2))


class SharedExtractor(torch.nn.Module):
    """The middle of an actor-critic: the scores themselves, and hidden layers on a summary of the pairs for the critic."""

    def __init__(self, pairs: Pairs, width: int, net_arch: list[int], activation: type[torch.nn.Module]) -> None:
        super().__init__()
        self.pairs = pairs
        self.register_buffer("members", torch.tensor(pairs.members).T, persistent=False)  # (rows * columns, n_properties)
        self.actor, self.critic = (SharedScores(len(pairs.members), width) for _ in range(2))
        layers, last = [], width
        for size in net_arch:
            layers += [torch.nn.Linear(last, size), activation()]
            last = size
        self.value_net = torch.nn.Sequential(*layers)
        self.latent_dim_pi, self.latent_dim_vf = pairs.rows * pairs.columns, last

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return self.actor(self._properties(features))[0].flatten(1)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return self.value_net(self.critic(self._properties(features))[1])

    def _properties(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, self.members].unflatten(1, (self.pairs.rows, self.pairs.columns))


class Scored:
    """For policies of Stable-Baselines3 whose extractor makes the scores itself, in an `actor` that `start` sets."""

    mlp_extractor: Any

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        self.action_net = torch.nn.Identity()
        self.mlp_extractor.actor.start()
        policy: Any = self
        self.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)


class Shared(Scored):
    """Puts a `SharedExtractor` into an actor-critic policy of Stable-Baselines3."""

    net_arch: Any
    activation_fn: Any

    def __init__(self, *arguments: Any, shared: Mapping[str, Any], **further: Any) -> None:
        self.pairs = Pairs(shared["rows"], shared["columns"], shared["members"])
        self.width = shared["width"]
        super().__init__(*arguments, **further)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = SharedExtractor(self.pairs, self.width, self.net_arch, self.activation_fn)


class SharedPolicy(Shared, ActorCriticPolicy):
    """The policy class of PPO and A2C."""


class SharedMaskablePolicy(Shared, MaskableActorCriticPolicy):
    """The policy class of MaskablePPO."""


def actor_scores(policy: Any, observations: torch.Tensor) -> torch.Tensor:
    """What the actor of a PPO, MaskablePPO or A2C computes (B, n_scores): logits, or the means of an action's numbers."""
    return policy.action_net(policy.mlp_extractor.forward_actor(policy.extract_features(observations)))
