"""Instances of load balancing with data locality.

`paper` instances are Section 6 of Zhao, Mukherjee and Wu: three server types of rates 1, 5, 10, two dispatcher types, d = 2,
load 3/4, starting from the law Q, Q1 or Q2. Their graph IRG(p1) is stable; on the complete graph the slow servers take too many
tasks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Fields = dict[str, Any]

P1 = [[0.05, 0.6, 1.0], [0.1, 0.7, 1.0]]
EVERYTHING = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
# Rows: laws of 0, 1, 2, 3 tasks at servers of each type.
STARTS = {
    "q": [[0.0, 0.2, 0.5, 0.3], [0.0, 0.5, 0.0, 0.5], [0.0, 0.9, 0.1, 0.0]],
    "q1": [[0.0, 0.4, 0.3, 0.3], [0.0, 0.1, 0.8, 0.1], [0.0, 0.3, 0.6, 0.1]],
    "q2": [[0.0, 0.6, 0.3, 0.1], [0.0, 0.8, 0.1, 0.1], [0.0, 0.7, 0.2, 0.1]],
}


def paper(n_servers: int, start: str | None = None, graph_seed: int = 0) -> Fields:
    """The paper's system on the graph IRG(p1) that makes it stable."""
    name = f"paper-{n_servers}" + ("" if start is None else f"-{start}")
    return {
        "model": "data_locality",
        "name": name,
        "arrival_rate": 3.0,
        "dispatchers_per_server": 1.0,
        "dispatcher_fractions": [0.2, 0.8],
        "server_fractions": [0.5, 0.3, 0.2],
        "service_rates": [1.0, 5.0, 10.0],
        "compatibility": P1,
        "choices": 2,
        "n_servers": n_servers,
        "graph": "irg",
        "graph_seed": graph_seed,
        "initial_lengths": None if start is None else STARTS[start],
    }


def paper_complete(n_servers: int, start: str | None = None) -> Fields:
    """The paper's system on the complete graph, where JSQ(2) is unstable: rho = 1.5."""
    fields = paper(n_servers, start)
    name = f"paper-complete-{n_servers}" + ("" if start is None else f"-{start}")
    return fields | {"name": name, "compatibility": EVERYTHING, "graph": "complete"}


def toy() -> Fields:
    """One dispatcher, two servers of rate 1, load 1/2: no policy beats an M/M/2 queue, so -2/3 tasks per server, by hand."""
    return {
        "model": "data_locality",
        "name": "toy",
        "arrival_rate": 1.0,
        "dispatchers_per_server": 0.5,
        "dispatcher_fractions": [1.0],
        "server_fractions": [1.0],
        "service_rates": [1.0],
        "compatibility": [[1.0]],
        "n_servers": 2,
        "graph": "complete",
    }


def small() -> Fields:
    """Three servers of rates 1, 1, 2 on a ring: small enough for `--exact`, load 0.6."""
    return {
        "model": "data_locality",
        "name": "small",
        "arrival_rate": 0.8,
        "dispatchers_per_server": 1.0,
        "dispatcher_fractions": [2 / 3, 1 / 3],
        "server_fractions": [2 / 3, 1 / 3],
        "service_rates": [1.0, 2.0],
        "compatibility": [[0.5, 1.0], [1.0, 1.0]],
        "n_servers": 3,
        "graph": "regular-contiguous",
    }


def cluster(n_servers: int, graph: str) -> Fields:
    """A computing cluster of fast, middling and slow machines whose dispatchers keep data on one in five of them."""
    return {
        "model": "data_locality",
        "name": f"cluster-{n_servers}-{graph}",
        "arrival_rate": 0.42,
        "dispatchers_per_server": 2.0,
        "dispatcher_fractions": [0.5, 0.5],
        "server_fractions": [0.4, 0.4, 0.2],
        "service_rates": [0.6, 1.0, 2.0],
        "compatibility": [[0.1, 0.2, 0.4], [0.2, 0.2, 0.2]],
        "choices": 2,
        "n_servers": n_servers,
        "graph": graph,
        "graph_seed": 1,
    }


def pooled_limit(n_servers: int) -> Fields:
    """One type of each, complete graph, load 0.9: Mitzenmacher's and Vvedenskaya's power of two choices."""
    return toy() | {
        "name": f"two-choices-{n_servers}",
        "arrival_rate": 0.9,
        "dispatchers_per_server": 1.0,
        "choices": 2,
        "n_servers": n_servers,
    }


def random_cluster(n_servers: int, n_types: int, n_kinds: int, seed: int, load: float = 0.7) -> Fields:
    """Random rates, fractions and compatibility, the last in proportion to service rates so that d choices are stable."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.5, 3.0, n_types)
    v, w = rng.dirichlet(np.full(n_types, 5.0)), rng.dirichlet(np.full(n_kinds, 5.0))
    p = np.minimum(1.0, rates / rates.max() * rng.uniform(0.8, 1.0, (n_kinds, n_types)))
    return {
        "model": "data_locality",
        "name": f"random-{n_servers}-{seed}",
        "arrival_rate": float(load * (v @ rates)),
        "dispatchers_per_server": 1.0,
        "dispatcher_fractions": (w / w.sum()).tolist(),
        "server_fractions": (v / v.sum()).tolist(),
        "service_rates": rates.tolist(),
        "compatibility": p.tolist(),
        "n_servers": n_servers,
        "graph_seed": seed,
    }


CATALOGUE: dict[str, Callable[[], Fields]] = {
    "paper-100": partial(paper, 100),
    "toy": toy,
    "small": small,
    "paper-500": partial(paper, 500),
    "paper-1000": partial(paper, 1000),
    "paper-complete-100": partial(paper_complete, 100),
    **{f"paper-1000-{start}": partial(paper, 1000, start) for start in STARTS},
    "paper-complete-1000-q": partial(paper_complete, 1000, "q"),
    "cluster-200-irg": partial(cluster, 200, "irg"),
    "cluster-200-regular-random": partial(cluster, 200, "regular-random"),
    "two-choices-1000": partial(pooled_limit, 1000),
    "two-choices-1000000": partial(pooled_limit, 1_000_000),
    "paper-1000000": partial(paper, 1_000_000),
    "random-60-3": partial(random_cluster, 60, 4, 3, seed=3),
}
