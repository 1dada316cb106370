"""Instances of freelance markets.

`empty-capacity`, `prop12-*` and `section1` are the paper's (Section III-B, Proposition 12, Section I); `fractional-split`,
`inflexible-gap`, `lp-floor-loss` and `finite-2x3-*` tell apart the four classes and the two outer regions; `crowd-*` follows
the crowd scaling of Section IV, at a given share of the outer region's boundary.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Fields = dict[str, Any]


def _fields(name: str, means: Any, job_hours: Any, agents: Any, agent_hours: Any, kind: str = "FND", **others: Any) -> Fields:
    return {
        "model": "freelance_market",
        "name": name,
        "arrival_means": [float(mean) for mean in means],
        "job_hours": [[float(hours) for hours in row] for row in job_hours],
        "availability_means": [[float(mean) for mean in part] for part in agents],
        "agent_hours": [[[float(hours) for hours in row] for row in part] for part in agent_hours],
        "decomposable": kind in ("FD", "ID"),
        "flexible": kind in ("FD", "FND"),
        **others,
    }


def toy() -> Fields:
    """One type of one task of an hour, one category: three agents of an hour, two jobs per epoch, so two are completed."""
    laws = {"arrival_law": "deterministic", "availability_law": "deterministic"}
    return _fields("toy", [2], [[1]], [[3]], [[[1]]], **laws)


def empty_capacity(kind: str = "FND", mean: float = 1.0) -> Fields:
    """Section III-B: two skills that are never there together; capacity 0 if jobs may not be decomposed, 5 if they may."""
    support = [[0.5, [[0, 10]]], [0.5, [[10, 0]]]]
    return _fields(
        f"empty-capacity-{kind.lower()}", [mean], [[1, 1]], [[5, 5]], [[[1, 0], [0, 1]]], kind,
        availability_law="finite", availability_support=support,
    )  # fmt: skip


def prop12(law: str = "poisson", k: int = 20, skills: int = 4, kind: str = "FND", start: int = 0) -> Fields:
    """Proposition 12: two halves of the skills with k agents each; agents who choose for themselves complete too little."""
    half = skills // 2
    agents = [[1] * half + [0] * half, [0] * half + [1] * half]
    two_point = {"arrival_law": "finite", "arrival_support": [[39 / 40, [17]], [1 / 40, [40]]]}
    name = f"prop12-{law}" + ("" if kind == "FND" else f"-{kind.lower()}")
    return _fields(
        name, [17 * 39 / 40 + 1 if law == "two-point" else 18], [[1] * skills], [[k, k]], [agents], kind,
        availability_law="deterministic", **({"initial_jobs": [start]} if start else {}),
        **(two_point if law == "two-point" else {}),
    )  # fmt: skip


def section1() -> Fields:
    """Section I: two types, two categories of ten hours; jobs that pick the wrong category drive the others out."""
    return _fields(
        "section1", [9, 9], [[1], [1]], [[10], [10]], [[[1]], [[1]]], compatible=[[True, True], [False, True]],
        arrival_law="deterministic", availability_law="deterministic",
    )  # fmt: skip


def fractional_split() -> Fields:
    """Tasks of two hours, two categories of three: three tasks fit if one is split, two if none is."""
    return _fields("fractional-split", [2.5], [[2]], [[1], [1]], [[[3]], [[3]]], availability_law="deterministic")


def inflexible_gap(kind: str = "IND", means: tuple[float, float] = (2, 1)) -> Fields:
    """A complete graph on which one category for a whole job costs capacity."""
    hours = [[[6, 2]], [[1, 5]]]
    name = f"inflexible-gap-{kind.lower()}"
    return _fields(name, means, [[1, 1], [1, 0]], [[1], [1]], hours, kind, availability_law="deterministic")


def lp_floor_loss() -> Fields:
    """Four categories of three hours for tasks of two hours and of one: rounding each category's programme down loses much."""
    return _fields("lp-floor-loss", [2, 2], [[2], [1]], [[1]] * 4, [[[3]]] * 4, "IND", availability_law="deterministic")


def finite_2x3(kind: str) -> Fields:
    """Two types, two categories, three skills, three states: all classes and outer regions differ."""
    support = [[0.4, [[0, 3], [1, 2]]], [0.35, [[1, 0], [3, 0]]], [0.25, [[1, 1], [3, 3]]]]
    means = np.einsum("k,kli->li", [p for p, _ in support], [counts for _, counts in support])
    hours = [[[3, 2, 1], [1, 3, 1]], [[2, 0, 3], [2, 3, 3]]]
    return _fields(
        f"finite-2x3-{kind.lower()}", [0.6, 0.8], [[3, 3, 0], [1, 1, 3]], means, hours, kind,
        compatible=[[True, True], [False, True]], availability_law="finite", availability_support=support,
    )  # fmt: skip


def asymmetric() -> Fields:
    """Three types, two categories that overlap on one of them, two skills."""
    return _fields(
        "asymmetric", [3, 2, 2], [[1, 2], [2, 0], [1, 1]], [[3, 2], [4]], [[[2, 1], [1, 3]], [[2, 2]]], "IND",
        compatible=[[True, False], [True, True], [False, True]],
    )  # fmt: skip


def crowd(n: int, seed: int, categories: int = 1, kind: str = "FND", load: float = 0.9, is_complete: bool = True) -> Fields:
    """Crowd scaling: sqrt(N) skills and as many agent types, jobs of one to three tasks, at `load` of the outer region C^out.

    The categories are alike, so that C^O is C^out on a complete graph.
    """
    rng = np.random.default_rng(seed)
    skills = math.ceil(math.sqrt(n))
    hours = np.zeros((n, skills))
    for j in range(n):
        others = [s for s in range(skills) if s != j % skills]
        for s in (j % skills, *rng.choice(others, min(int(rng.integers(0, 3)), len(others)), replace=False).tolist()):
            hours[j, s] = rng.integers(1, 4)
    means = math.sqrt(n) * rng.uniform(0.5, 1.5, n)
    brought = np.zeros((skills, skills))
    for i in range(skills):
        brought[i, i] = rng.integers(2, 5)
        brought[i, (i + 1) % skills] += rng.integers(1, 4)
    agents = np.tile(rng.uniform(0.9, 1.1, skills), (categories, 1))
    allowed = np.ones((n, categories), bool)
    if not is_complete:
        allowed = rng.uniform(size=(n, categories)) < 0.6
        allowed[np.arange(n), rng.integers(categories, size=n)] = True
    supply, largest = agents @ brought, math.inf  # C^out, the subset form of Theorem 6
    for some in range(1, 2**categories):
        chosen = np.array([some >> k & 1 for k in range(categories)], bool)
        demand = means @ (hours * ~(allowed & ~chosen).any(1)[:, None])
        largest = min([largest, *(supply[chosen].sum(0)[demand > 0] / demand[demand > 0]).tolist()])
    name = (
        f"crowd-{n}" + ("" if categories == 1 else f"x{categories}") + f"-{kind.lower()}" + ("" if is_complete else "-sparse")
    )
    return _fields(
        name, load * means, hours, agents / largest, [brought] * categories, kind, compatible=allowed.astype(int).tolist()
    )


def random_market(n: int, categories: int, skills: int, seed: int, kind: str = "FND", load: float = 0.8) -> Fields:
    """A seeded market: hours 0 to 3, two agent types per category, sparse graph; `load` of what the emptiest set allows."""
    rng = np.random.default_rng(seed)
    hours = rng.integers(0, 4, (n, skills))
    hours[np.arange(n), rng.integers(skills, size=n)] += 1
    allowed = rng.uniform(size=(n, categories)) < 0.6
    allowed[np.arange(n), rng.integers(categories, size=n)] = True
    brought = rng.integers(1, 4, (categories, 2, skills))
    agents = rng.uniform(2, 5, (categories, 2))
    share = rng.uniform(0.5, 1.5, n)
    supply = np.einsum("li,lis->ls", agents, brought)
    even = allowed / allowed.sum(1, keepdims=True) * share[:, None]  # every type spread evenly over its categories
    largest = (supply / np.maximum(even.T @ hours, 1e-9)).min()
    return _fields(
        f"random-{n}x{categories}-{kind.lower()}", load * largest * share, hours, agents, brought, kind,
        compatible=allowed.astype(int).tolist(),
    )  # fmt: skip


KINDS = ("FD", "FND", "ID", "IND")
CATALOGUE: dict[str, Callable[[], Fields]] = {
    "crowd-24-fnd": partial(crowd, 24, seed=24, load=0.9),
    "toy": toy,
    "empty-capacity-fnd": empty_capacity,
    "empty-capacity-fd": partial(empty_capacity, "FD", 4.0),
    "prop12-poisson": prop12,
    "prop12-two-point": partial(prop12, "two-point"),
    "prop12-poisson-fd": partial(prop12, kind="FD"),
    "section1": section1,
    "fractional-split": fractional_split,
    **{f"inflexible-gap-{kind.lower()}": partial(inflexible_gap, kind) for kind in KINDS},
    "lp-floor-loss": lp_floor_loss,
    **{f"finite-2x3-{kind.lower()}": partial(finite_2x3, kind) for kind in KINDS},
    "asymmetric": asymmetric,
    "crowd-24-fd": partial(crowd, 24, seed=24, kind="FD", load=0.9),
    "crowd-12x3-ind": partial(crowd, 12, seed=12, categories=3, kind="IND", load=0.8),
    "crowd-12x3-fnd-sparse": partial(crowd, 12, seed=12, categories=3, load=0.8, is_complete=False),
    "random-5x3-id": partial(random_market, 5, 3, 3, seed=1, kind="ID"),
    "random-4x2-fd": partial(random_market, 4, 2, 2, seed=2, kind="FD"),
    "crowd-1000-fnd": partial(crowd, 1000, seed=0, load=0.9),
}
