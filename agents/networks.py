"""Networks of the actors: a first layer that standardises observations, and a linear path beside the hidden layers."""

from typing import Any

import gymnasium as gym
import numpy as np

from matchgym.agents.extra import ActorCriticPolicy, BaseFeaturesExtractor, MaskableActorCriticPolicy, MlpExtractor, torch


class Standardise(BaseFeaturesExtractor):
    """First layer of every network: (observation - shift) / scale with fixed numbers.

    It is part of the saved model, so whoever holds the model feeds it raw observations.

    Parameters
    ----------
    observation_space : the Box of the environment, (obs_dim,).
    shift, scale : lists of obs_dim numbers.
    """

    def __init__(self, observation_space: gym.spaces.Box, shift: list[float], scale: list[float]) -> None:
        super().__init__(observation_space, int(np.prod(observation_space.shape)))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return (observations - self.shift) / self.scale


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


def actor_scores(policy: Any, observations: torch.Tensor) -> torch.Tensor:
    """What the actor of a PPO, MaskablePPO or A2C computes (B, n_scores): logits, or the means of an action's numbers."""
    return policy.action_net(policy.mlp_extractor.forward_actor(policy.extract_features(observations)))
