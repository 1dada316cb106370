"""The optional packages of training, imported in one place so that a missing one is reported in one sentence."""

from matchgym.envs.instance import InputError

try:
    import torch
    from sb3_contrib import QRDQN, TQC, MaskablePPO, RecurrentPPO
    from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
    from stable_baselines3 import A2C, DQN, PPO, SAC
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import RolloutBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger, configure
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
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
    "QRDQN",
    "SAC",
    "TQC",
    "ActorCriticPolicy",
    "BaseAlgorithm",
    "BaseCallback",
    "BaseFeaturesExtractor",
    "Logger",
    "MaskableActorCriticPolicy",
    "MaskablePPO",
    "MaskableRolloutBuffer",
    "MlpExtractor",
    "Monitor",
    "OffPolicyAlgorithm",
    "RecurrentPPO",
    "RolloutBuffer",
    "VecEnv",
    "configure",
    "torch",
]
