"""Instances for designing the graph of a server cluster: those of data locality, with all or some pairs of types allowed."""

from collections.abc import Callable
from functools import partial
from typing import Any

from matchgym.envs.catalogues.data_locality import EVERYTHING, cluster, paper, random_cluster

Fields = dict[str, Any]


def free_paper(n_servers: int = 100) -> Fields:
    """The paper's system of Section 6, every pair of types allowed."""
    return paper(n_servers) | {"name": "paper", "compatibility": EVERYTHING}


def toy() -> Fields:
    """Two server types of rates 1 and 3, one dispatcher type, d = 2: one number matters, the share of the fast type."""
    return {
        "model": "data_locality",
        "name": "toy",
        "arrival_rate": 1.2,
        "dispatchers_per_server": 1.0,
        "dispatcher_fractions": [1.0],
        "server_fractions": [0.5, 0.5],
        "service_rates": [1.0, 3.0],
        "compatibility": [[1.0, 1.0]],
        "n_servers": 20,
    }


def tied() -> Fields:
    """The paper's system where type-1 tasks find no data at the fast servers, and type-2 tasks none at the slow ones."""
    return paper(200) | {"name": "tied", "compatibility": [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]}


def free_cluster() -> Fields:
    """A computing cluster of fast, middling and slow machines, every pair allowed."""
    return cluster(200, "irg") | {"name": "cluster", "compatibility": EVERYTHING}


def heavy() -> Fields:
    """Five server types and four dispatcher types at load 0.95, every pair allowed."""
    fields = random_cluster(400, 5, 4, seed=7, load=0.95)
    return fields | {"name": "heavy", "compatibility": [[1.0] * 5] * 4}


CATALOGUE: dict[str, Callable[[], Fields]] = {
    "paper": free_paper,
    "toy": toy,
    "tied": tied,
    "cluster": free_cluster,
    "heavy": heavy,
    "random-60-3": partial(random_cluster, 60, 4, 3, seed=3),
}
