"""The algorithms of freelance markets at a given state, in one epoch: what MaxWeight and GreedyJob allocate, who does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, milp

from matchgym.baselines.freelance_agents import knapsack, near_knapsack
from matchgym.envs.freelance_blocks import blocks_of
from matchgym.envs.freelance_instances import FreelanceMarketInstance, as_counts
from matchgym.envs.freelance_market import MODEL
from matchgym.envs.freelance_maxweight import solve_relaxed
from matchgym.envs.freelance_split import split_tasks
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.packing import FEASIBLE, branch, room

SEARCH = 20_000  # relaxations before `maxweight` turns to the mixed-integer solver
MOST_CELLS = 10**8  # of the table of a knapsack


@dataclass(frozen=True)
class Allocation:
    """What MaxWeight allocates in one epoch."""

    objective: float  # sum of weights times `allocation`
    allocation: NDArray[np.int64]  # Delta: (N, S) tasks if decomposable, else (N,) jobs
    split: NDArray[np.int64] | None  # z of inflexible classes: (L, N, S) or (L, N); None: any split of the tasks


def maxweight(
    instance: Any, queue: Any, arrivals: Any, availability: Any, exact: bool = True, capped: bool = False
) -> Allocation:
    """Algorithm 1 at a state: max sum_js Q_js Delta_js over Delta in C(U).

    Parameters
    ----------
    instance : anything that gym.make takes.
    queue : Q, waiting tasks (N, S) if decomposable, else waiting jobs (N,), whose weight is their number of tasks.
    arrivals : A (N,); only the capped form looks at them.
    availability : U, per category the number of agents of each type (M_l,).
    exact : whether to find the best integers; else programme (10), its relaxation rounded down.
    capped : whether weights are Q + A and Delta <= Q + A; else weights are Q and Delta is unlimited, as printed. A surplus is
        to be cut afterwards: D = min(Delta, Q + A).
    """
    loaded = MODEL.load(instance)
    n, skills, width = loaded.n_types, loaded.n_skills, loaded.n_skills if loaded.decomposable else 1
    waiting = as_counts("queue", queue, (n, skills) if loaded.decomposable else (n,)).reshape(n, width)
    arriving = as_counts("arrivals", arrivals, (n,))
    hours = hours_of(loaded, availability)
    if capped:
        waiting = waiting + arriving[:, None] * (loaded.needs if loaded.decomposable else 1)
    weights = waiting * (1 if loaded.decomposable else loaded.needs.sum(1)[:, None])
    shape = (1 if loaded.flexible else loaded.n_categories, n, width)
    found = np.zeros(shape, np.int64)
    for block in blocks_of(loaded, is_shared=capped):
        w = weights[block.types, block.skills].astype(float)
        cap = waiting[block.types, block.skills].astype(float) if capped else np.full(len(w), np.inf)
        limits = block.limits(hours)
        is_queue = block.row_queue >= 0
        limits[is_queue] = waiting[block.row_queue[is_queue], block.skills[0]]
        x = solve_packing(block.rows, limits, w, cap, exact)
        found[block.categories, block.types, block.skills] = x
    total = found.sum(0)
    objective = float((weights * total).sum())
    if not loaded.decomposable:
        found, total = found[..., 0], total[:, 0]
    return Allocation(objective, total, None if loaded.flexible else found)


def solve_packing(
    a: NDArray[np.float64], b: NDArray[np.float64], w: NDArray[np.float64], cap: NDArray[np.float64], exact: bool
) -> NDArray[np.int64]:
    """The best integers (k,) of max w.x with A x <= b, x <= cap, or the relaxation rounded down; 0 where w is 0."""
    reals, integers = room(a.shape[1], a.shape[0])
    x = np.zeros(a.shape[1])
    cap = np.where(w > 0, cap, 0.0)
    if not exact:
        solve_relaxed(a, b, w, cap, x, reals, integers)
    elif not branch(a, b, w, cap, SEARCH, x, reals, integers)[1]:
        most = np.where(np.isfinite(cap), cap, np.floor(b.max() / a.max(0) + 1))
        limit = LinearConstraint(a, -np.inf, b * (1 + FEASIBLE) + FEASIBLE)
        done = milp(-w, constraints=limit, integrality=np.ones(len(w)), bounds=(0, most), options={"mip_rel_gap": 0})
        if done.x is None or done.status != 0:
            raise RuntimeError(f"HiGHS ended with {done.message!r} on a MaxWeight programme.")
        x = np.rint(done.x)
    return x.astype(np.int64)


def hours_of(instance: FreelanceMarketInstance, availability: Any) -> NDArray[np.float64]:
    """H (L, S) of the agents that are there; InputError unless `availability` has counts (M_l,) for every category."""
    sizes = [len(each) for each in instance.availability_means]
    if not isinstance(availability, list | tuple | np.ndarray) or len(availability) != len(sizes):
        raise InputError(f"availability must be a list of counts for each of the {len(sizes)} categories.")
    counts = [as_counts(f"availability[{c}]", each, (size,)) for c, (each, size) in enumerate(zip(availability, sizes))]
    return np.array([count @ brought for count, brought in zip(counts, instance.agent_hours)])


def split(instance: Any, allocation: Any, availability: Any) -> NDArray[np.float64]:
    """z (L, N, S) of an allocation in a flexible market: how many tasks of each type and skill every category takes.

    allocation : (N, S) tasks if decomposable, else (N,) jobs. InputError if it is not feasible. `freelance_split.realise` goes
    on to the agents.
    """
    loaded = MODEL.load(instance)
    n, skills = loaded.n_types, loaded.n_skills
    given = as_counts("allocation", allocation, (n, skills) if loaded.decomposable else (n,))
    tasks = given * loaded.needs if loaded.decomposable else given[:, None] * loaded.needs
    return split_tasks(loaded, tasks, hours_of(loaded, availability))


def greedy_job(instance: Any, jobs_in_order: Sequence[int], availability: Any) -> NDArray[np.int64]:
    """Algorithm 3 at a given order of contention, one category: the number granted per job type (N,).

    jobs_in_order : job types from 0, the first to contend first. A job takes all its hours if they are left, else nothing.
    """
    loaded = MODEL.load(instance)
    if loaded.n_categories != 1:
        raise InputError(f"availability has {loaded.n_categories} categories; greedy_job takes one, a pool at a time.")
    left = hours_of(loaded, availability)[0]
    left = left * (1 + FEASIBLE) + FEASIBLE
    granted = np.zeros(loaded.n_types, np.int64)
    if not isinstance(jobs_in_order, Sequence | np.ndarray) or isinstance(jobs_in_order, str):
        raise InputError(f"jobs_in_order must be a list of job types, not {shorten(jobs_in_order)}.")
    for job in jobs_in_order:
        if isinstance(job, bool) or not isinstance(job, int | np.integer) or not 0 <= job < loaded.n_types:
            raise InputError(f"jobs_in_order must hold job types from 0 to {loaded.n_types - 1}, not {shorten(job)}.")
        if loaded.allowed[job, 0] and (loaded.job_hours[job] <= left).all():
            left = left - loaded.job_hours[job]
            granted[job] += 1
    return granted


def solve_knapsack(
    profits: NDArray[np.float64], sizes: NDArray[np.float64], capacity: float, caps: NDArray[np.int64], eps: float = 0.0
) -> tuple[float, NDArray[np.int64]]:
    """Value and units (n,) of a knapsack: the best for eps = 0, which needs whole sizes, else at least 1 - eps of it."""
    if eps > 0:
        return near_knapsack(profits, sizes, capacity, caps, eps)
    whole = int(np.floor(capacity * (1 + FEASIBLE) + FEASIBLE))
    if whole * len(sizes) > MOST_CELLS:
        raise InputError(f"availability brings {whole} hours, too many for an exact knapsack; give eps > 0.")
    return knapsack(profits, sizes.astype(np.int64), whole, caps)
