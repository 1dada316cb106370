"""Trained networks as policies of this package."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.agents.extra import A2C, DQN, PPO, BaseAlgorithm, BaseFeaturesExtractor, MaskablePPO, torch
from matchgym.baselines.policy import Policy
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.registry import find

CLASSES: dict[str, type[BaseAlgorithm]] = {"maskable_ppo": MaskablePPO, "ppo": PPO, "a2c": A2C, "dqn": DQN}


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


class AgentPolicy(Policy):
    """A Stable-Baselines3 model with the interface of a policy.

    Parameters
    ----------
    model : a trained MaskablePPO, PPO, A2C or DQN.
    env_id : the environment it was trained for.
    """

    def __init__(self, model: BaseAlgorithm, env_id: str) -> None:
        self.model, self.env_id = model, env_id

    @classmethod
    def load(cls, folder: str | Path, torch_threads: int = 1) -> Self:
        """The policy that `train` left in `folder` (config.json and model.zip).

        `torch_threads` is set for the whole process: with small networks more than one thread slows
        everything down. Load only what you trust: a Stable-Baselines3 file can run code.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
            kind, env_id = CLASSES[config["algo"]], config["id"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{shorten(str(folder))} holds no trained agent; give a folder written by train.") from None
        if not (folder / "model.zip").is_file():
            raise InputError(f"{shorten(str(folder))} holds no model.zip; train it, or resume its training, first.")
        torch.set_num_threads(torch_threads)
        try:
            model = kind.load(folder / "model.zip", device="cpu")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError):
            raise InputError(f"model.zip in {shorten(str(folder))} cannot be read; train the agent anew.") from None
        return cls(model, env_id)

    @property
    def heeds_masks(self) -> bool:
        """Whether its decisions depend on the mask."""
        return isinstance(self.model, MaskablePPO)

    def fit(self, instance: Any) -> Self:
        """Check that the network fits the instance; it has been trained already."""
        model = find(self.env_id).model
        self.instance = model.load(instance)
        wanted, found = model.observation_space(self.instance).shape, self.model.observation_space.shape
        if wanted != found:
            raise InputError(f"the agent reads observations {found}, but instance {self.instance.name!r} has {wanted}.")
        return self

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Actions for a batch of observations (B, obs_dim), or for one (obs_dim,).

        Evaluate with `deterministic=True`: the network's best action instead of a draw. Only a MaskablePPO
        heeds `action_masks` (B, n_actions); what the others choose against the mask, the environment takes
        for doing nothing.
        """
        if self.heeds_masks:
            return self.model.predict(observation, state, episode_start, deterministic, action_masks=action_masks)
        return self.model.predict(observation, state, episode_start, deterministic)
