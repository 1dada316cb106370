"""Baselines: the papers' algorithms as policies, and the evaluation of any policy against a bound."""

from matchgym.baselines.evaluation import Evaluation, evaluate, simulate
from matchgym.baselines.policy import Policy

__all__ = ["Evaluation", "Policy", "evaluate", "simulate"]
