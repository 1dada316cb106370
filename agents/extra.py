"""The optional packages of training, imported in one place so that a missing one is reported in one sentence."""

from matchgym.envs.instance import InputError

try:
    import torch
    from sb3_contrib import MaskablePPO
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in (
        "torch",
        "sb3_contrib",
        "stable_baselines3",
        "matplotlib",
        "pandas",
    ):
        raise
    raise InputError(f'training needs the package {error.name}; install it with: pip install "matchgym[rl]".') from None

__all__ = [
    "A2C",
    "DQN",
    "PPO",
    "BaseAlgorithm",
    "BaseCallback",
    "BaseFeaturesExtractor",
    "MaskablePPO",
    "Monitor",
    "OffPolicyAlgorithm",
    "VecEnv",
    "torch",
]
