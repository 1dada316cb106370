"""Wrappers for libraries that look for action masks elsewhere."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.envs.base import mask_size


class DictMask(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Observations as a dict {"observation", "action_mask"}, the form that RLlib and PettingZoo expect."""

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space = gym.spaces.Dict(
            {
                "observation": env.observation_space,
                "action_mask": gym.spaces.Box(0, 1, (mask_size(env.action_space),), np.int8),
            }
        )

    def observation(self, observation: NDArray[np.float32]) -> dict[str, Any]:
        return {
            "observation": observation,
            "action_mask": self.get_wrapper_attr("action_masks")().view(np.int8),
        }
