"""Reinforcement-learning environments for stochastic matching and queueing.

Importing the package registers every environment id with gymnasium.
"""

from matchgym.envs.registry import register_all

__version__ = "0.1.0"

register_all()
