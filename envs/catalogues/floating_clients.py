"""Instances of congestion-aware learning with clients of unseen types (Section EC.3.2 of Sun, Chai, Zhao)."""

from collections.abc import Callable
from functools import partial
from typing import Any

Fields = dict[str, Any]


def floating(probability: float, horizon: int = 1000) -> Fields:
    """The paper's setting: two types, six servers, mu = nu, one client of each type present on average."""
    return {
        "model": "floating_clients",
        "name": f"floating-{probability:g}" + ("" if horizon == 1000 else f"-{horizon}"),
        "client_arrivals": [probability] * 2,
        "client_departures": [probability] * 2,
        "job_rates": [2.0, 3.0],
        "n_servers": 6,
        "rewards": None,
        "horizon": horizon,
    }


def toy(horizon: int = 200) -> Fields:
    """One type, a server that always succeeds and one that never does: the oracle earns 0.5 per slot."""
    return {
        "model": "floating_clients",
        "name": "toy" if horizon == 200 else f"toy-{horizon}",
        "client_arrivals": [0.05],
        "client_departures": [0.1],
        "job_rates": [1.0],
        "n_servers": 2,
        "rewards": [[1.0, 0.0]],
        "horizon": horizon,
    }


def crowd() -> Fields:
    """Thirty clients of three types on average, forty servers, rewards drawn anew in every episode."""
    return {
        "model": "floating_clients",
        "name": "crowd",
        "client_arrivals": [0.5, 0.5, 0.5],
        "client_departures": [0.05, 0.05, 0.05],
        "job_rates": [0.8, 1.0, 1.2],
        "n_servers": 40,
        "rewards": None,
    }


CATALOGUE: dict[str, Callable[[], Fields]] = {
    **{f"floating-{p:g}": partial(floating, p) for p in (0.1, 0.01, 0.5)},
    "floating-0.01-5000": partial(floating, 0.01, 5000),
    "toy": toy,
    "toy-30000": partial(toy, 30_000),
    "crowd": crowd,
}
