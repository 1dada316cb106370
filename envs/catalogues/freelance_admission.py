"""Instances of freelance markets that are asked for more than they can do, for decisions on admission."""

from collections.abc import Callable
from functools import partial
from typing import Any

from matchgym.envs.catalogues.freelance_market import crowd, empty_capacity

Fields = dict[str, Any]


def toy() -> Fields:
    """One type, two jobs and one agent of an hour per epoch: one job is completed, and half must be declined."""
    return {
        "model": "freelance_market",
        "name": "toy",
        "arrival_means": [2.0],
        "job_hours": [[1.0]],
        "availability_means": [[1.0]],
        "agent_hours": [[[1.0]]],
        "arrival_law": "deterministic",
        "availability_law": "deterministic",
        "holding_cost": 0.01,
    }


def overload(n: int, load: float = 1.25, categories: int = 1, kind: str = "FND") -> Fields:
    """Crowd scaling beyond the outer region; waiting costs a thousandth of a job per epoch."""
    name = f"overload-{n}" + ("" if categories == 1 else f"x{categories}-{kind.lower()}")
    return crowd(n, n, categories, kind, load) | {"name": name, "holding_cost": 0.001}


def inside(n: int, load: float = 0.8) -> Fields:
    """Crowd scaling well inside the outer region: nothing need be declined."""
    return crowd(n, n, load=load) | {"name": f"inside-{n}", "holding_cost": 0.001}


def step(n: int, period: int = 400) -> Fields:
    """Arrivals alternate between 0.8 and 1.6 of the outer region, every few hundred epochs."""
    pattern = [2 / 3] * period + [4 / 3] * period
    return crowd(n, n, load=1.2) | {"name": f"step-{n}", "holding_cost": 0.001, "arrival_pattern": pattern}


def never() -> Fields:
    """Section III-B with jobs that cannot be decomposed: the capacity is 0, whatever arrives must be declined."""
    return empty_capacity() | {"name": "empty-capacity", "holding_cost": 0.001}


CATALOGUE: dict[str, Callable[[], Fields]] = {
    "overload-24": partial(overload, 24),
    "toy": toy,
    "inside-24": partial(inside, 24),
    "step-24": partial(step, 24),
    "overload-12x3-ind": partial(overload, 12, 1.25, 3, "IND"),
    "empty-capacity": never,
    "overload-200": partial(overload, 200),
}
