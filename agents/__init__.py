"""Agents: the Stable-Baselines3 adapter, training, hyperparameters and trained networks as policies.

The names below are imported when they are first used, so that importing this package needs neither torch nor
the extra `rl`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matchgym.agents.curve import CurvePoint, draw_curve, measure
    from matchgym.agents.hyperparameters import ALGORITHMS, default_timesteps, hyperparameters_for
    from matchgym.agents.policy import AgentPolicy
    from matchgym.agents.recording import Measurement, TrainingResult
    from matchgym.agents.sb3 import SB3VecEnv, make_native
    from matchgym.agents.training import train
    from matchgym.agents.tuning import tune

_HOMES = {
    "ALGORITHMS": "hyperparameters",
    "AgentPolicy": "policy",
    "CurvePoint": "curve",
    "Measurement": "recording",
    "SB3VecEnv": "sb3",
    "TrainingResult": "recording",
    "default_timesteps": "hyperparameters",
    "draw_curve": "curve",
    "hyperparameters_for": "hyperparameters",
    "make_native": "sb3",
    "measure": "curve",
    "train": "training",
    "tune": "tuning",
}

__all__ = [
    "ALGORITHMS",
    "AgentPolicy",
    "CurvePoint",
    "Measurement",
    "SB3VecEnv",
    "TrainingResult",
    "default_timesteps",
    "draw_curve",
    "hyperparameters_for",
    "make_native",
    "measure",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
