"""Figures and tables of the papers as experiments: data first, then a picture of the data.

A model's experiments live in `matchgym.baselines.<stem>_experiments` as `EXPERIMENTS`, name -> Experiment.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from matchgym.envs.registry import ENTRIES, Entry

Progress = Callable[[float], None]  # called with the share done, 0 to 1


@dataclass(frozen=True)
class Experiment:
    """What reproduces a figure or table."""

    summary: str  # one line
    run: Callable[[Progress, int, int], dict[str, Any]]  # (progress, replications, seed) -> JSON values
    draw: Callable[[Any, dict[str, Any]], None]  # (empty matplotlib figure, what `run` returned)
    replications: int  # by default


def experiments_of(entry: Entry) -> ModuleType | None:
    """The module of a model's experiments, if it has one."""
    name = f"matchgym.baselines.{entry.stem}_experiments"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def all_experiments() -> dict[str, Experiment]:
    """The experiments of all models, by name."""
    modules = {entry.stem: experiments_of(entry) for entry in ENTRIES}
    return {name: each for module in modules.values() if module for name, each in module.EXPERIMENTS.items()}
