"""Trained networks as policies of this package."""

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from matchgym.agents.extra import A2C, DQN, PPO, QRDQN, SAC, TQC, BaseAlgorithm, MaskablePPO, RecurrentPPO, torch
from matchgym.agents.networks import actor_scores
from matchgym.baselines.policy import Policy, best_actions
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.registry import find

CLASSES: dict[str, type[BaseAlgorithm]] = {
    "maskable_ppo": MaskablePPO,
    "ppo": PPO,
    "recurrent_ppo": RecurrentPPO,
    "a2c": A2C,
    "dqn": DQN,
    "qrdqn": QRDQN,
    "sac": SAC,
    "tqc": TQC,
}


class AgentPolicy(Policy):
    """A Stable-Baselines3 model with the interface of a policy.

    Parameters
    ----------
    model : a trained model of one of the algorithms of `CLASSES`.
    env_id : the environment it was trained for.
    options : the options of that environment, such as `{"action": "priority"}`.
    """

    def __init__(self, model: BaseAlgorithm, env_id: str, options: Mapping[str, Any] | None = None) -> None:
        self.model, self.env_id, self.options = model, env_id, dict(options or {})  # type: ignore[misc]

    @classmethod
    def load(cls, folder: str | Path, torch_threads: int = 1) -> Self:
        """The policy that `train` left in `folder` (config.json and model.zip).

        `torch_threads` is set for the whole process: with small networks more than one thread slows
        everything down. Load only what you trust: a Stable-Baselines3 file can run code.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
            kind, env_id, options = CLASSES[config["algo"]], config["id"], config["options"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{shorten(str(folder))} holds no trained agent; give a folder written by train.") from None
        if not (folder / "model.zip").is_file():
            raise InputError(f"{shorten(str(folder))} holds no model.zip; train it, or resume its training, first.")
        torch.set_num_threads(torch_threads)
        try:
            model = kind.load(folder / "model.zip", device="cpu")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError):
            raise InputError(f"model.zip in {shorten(str(folder))} cannot be read; train the agent anew.") from None
        return cls(model, env_id, options)

    @property
    def heeds_masks(self) -> bool:
        """Whether its decisions depend on the mask."""
        return isinstance(self.model, MaskablePPO)

    def fit(self, instance: Any) -> Self:
        """Check that the network fits the instance; it has been trained already."""
        model = find(self.env_id).model
        self.instance = model.load(instance)
        wanted, found = model.observation_space(self.instance, self.options).shape, self.model.observation_space.shape
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
        masks = action_masks if self.heeds_masks else None
        if deterministic and type(self.model) in (MaskablePPO, PPO, A2C):  # the same decision without a distribution around it
            with torch.no_grad():
                scores = actor_scores(self.model.policy, torch.as_tensor(np.atleast_2d(observation))).numpy()
            actions = best_actions(scores, self.model.action_space, masks)
            return (actions if np.ndim(observation) == 2 else actions[0]), state
        further = {} if masks is None else {"action_masks": masks}
        return self.model.predict(observation, state, episode_start, deterministic, **further)
