"""Training for the mean reward per decision itself, without a discount.

The value of a state is what it earns beyond the average from then on: a differential value (Puterman, Markov Decision
Processes, Section 8.2; for actor and critic Ma, Tang, Xia, Yang and Zhao, Average-Reward Reinforcement Learning with Trust
Region Methods, IJCAI 2021). So the mean of a rollout is subtracted from its rewards and nothing is discounted. Such values are
known up to a constant, which is taken out of what the critic learns, else it would drift.
"""

from typing import Any

import numpy as np

from matchgym.agents.extra import MaskableRolloutBuffer, RolloutBuffer, torch


class AverageReward:
    """Puts differential values into a rollout buffer of Stable-Baselines3; gamma must be 1 and no episode may end."""

    rewards: np.ndarray
    returns: np.ndarray

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        self.rewards -= self.rewards.mean()
        computing: Any = super()
        computing.compute_returns_and_advantage(last_values, dones)
        self.returns -= self.returns.mean()


class AverageRewardBuffer(AverageReward, RolloutBuffer):
    """The buffer of PPO and A2C."""


class AverageRewardMaskableBuffer(AverageReward, MaskableRolloutBuffer):
    """The buffer of MaskablePPO."""
