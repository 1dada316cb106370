"""Who does what: requested allocations cut to what is feasible, and the split of every task among categories and agents.

An allocation `a` of a flexible market is feasible if and only if for each skill and each set K of categories the types inside
K, N(j) within K, need no more hours than K has (Hall's condition; `FreelanceMarketInstance.category_sets` are the K that
matter). An inflexible one has its own hours in each category. Inside a category the tasks of a skill are laid end to end, and
so are the hours of the agents: each agent does what lies opposite (the north-west corner), which fits because only the number
of tasks is integral.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.instance import InputError
from matchgym.envs.packing import FEASIBLE, most

TINY = 1e-3  # of what hours may be exceeded by: less is not worth moving


@kernel
def room_kernel(params, state, b, j, s):
    """The most (j, s)-tasks that still fit into a flexible market, beside those granted."""
    skills, free = params.job_hours.shape[1], np.inf
    for k in range(len(params.sets)):
        if params.signature[j] & ~params.sets[k] == 0:
            place = k * skills + s
            free = min(free, most(state.supply[b, place], params.job_hours[j, s], state.granted[b, place]))
    return free


@kernel
def take_kernel(params, state, b, j, s, count):
    """Grant (j, s)-tasks in a flexible market."""
    skills = params.job_hours.shape[1]
    for k in range(len(params.sets)):
        if params.signature[j] & ~params.sets[k] == 0:
            state.granted[b, k * skills + s] += count * params.job_hours[j, s]


@outlined_kernel
def split_hours(group_set, s, demand, hours, used, flow, left, parent, mover, line):
    """Split the granted hours of skill s among the categories; returns whether all of them found a place.

    Types with the same N(j) are one group. Hours go to the group's first category with hours left; when there is none, along a
    shortest path of categories on which other groups make room.

    Parameters
    ----------
    group_set : (G,) N(j) of the groups, as bits. demand : (G S) hours of every group. hours : (L S) H.
    used : (L S), written. flow : (G L), written. left : (L,) reals; parent, mover, line : (L,) integers, scratch.
    """
    size, groups = len(left), len(group_set)
    skills = len(hours) // size
    slack = FEASIBLE
    for c in range(size):
        left[c] = hours[c * skills + s]
        slack += FEASIBLE * left[c]
    for k in range(groups * size):
        flow[k] = 0.0
    for g in range(groups):
        need = demand[g * skills + s]
        while need > slack:
            # Breadth first over categories, from those of the group to one with hours left.
            head = tail = 0
            end = -1
            for c in range(size):
                parent[c] = -2
                if group_set[g] >> c & 1:
                    parent[c], mover[c] = -1, g
                    line[tail] = c
                    tail += 1
            while head < tail and end < 0:
                c = line[head]
                head += 1
                if left[c] > TINY * slack:
                    end = c
                    break
                for other in range(groups):
                    if flow[other * size + c] > TINY * slack:
                        for into in range(size):
                            if parent[into] == -2 and group_set[other] >> into & 1:
                                parent[into], mover[into] = c, other
                                line[tail] = into
                                tail += 1
            if end < 0:
                return need <= 4.0 * slack
            amount, c = min(need, left[end]), end
            while parent[c] >= 0:
                amount = min(amount, flow[mover[c] * size + parent[c]])
                c = parent[c]
            left[end] -= amount
            c = end
            while True:
                flow[mover[c] * size + c] += amount
                if parent[c] < 0:
                    break
                flow[mover[c] * size + parent[c]] -= amount
                c = parent[c]
            need -= amount
    for c in range(size):
        used[c * skills + s] = max(0.0, hours[c * skills + s] - left[c])
    return True


def split_tasks(instance: FreelanceMarketInstance, tasks: NDArray[Any], hours: NDArray[np.float64]) -> NDArray[np.float64]:
    """z (L, N, S) of tasks (N, S) in a flexible market with hours H (L, S): the environment's split, type by type.

    Within a group, types take consecutive parts of its hours. InputError where the tasks do not fit.
    """
    size, n, skills = instance.n_categories, instance.n_types, instance.n_skills
    group_set, group = np.unique(instance.signatures, return_inverse=True)
    needs, groups = tasks * instance.job_hours, len(group_set)
    demand = np.zeros((groups, skills))
    np.add.at(demand, group.ravel(), needs)
    flow, used, left = np.zeros(groups * size), np.zeros(size * skills), np.zeros(size)
    scratch = [np.zeros(size, np.int64) for _ in range(3)]
    there, z = np.ascontiguousarray(hours.ravel(), np.float64), np.zeros((size, n, skills))
    for s in range(skills):
        if not split_hours(group_set, s, demand.ravel(), there, used, flow, left, *scratch):
            raise InputError(f"allocation needs more hours of skill {s} than the agents have; ask for less.")
        for g in range(groups):
            types = np.flatnonzero((group.ravel() == g) & (needs[:, s] > 0))
            ends = np.cumsum(needs[types, s])
            borders = np.append(0.0, np.cumsum(flow.reshape(groups, size)[g]))
            for j, start, end in zip(types.tolist(), np.append(0.0, ends[:-1]), ends):
                parts = np.minimum(borders[1:], end) - np.maximum(borders[:-1], start)
                z[:, j, s] = np.maximum(parts, 0.0) / instance.job_hours[j, s]
    return z


class Work(NamedTuple):
    """A part of a task, done by one agent."""

    category: int
    agent_type: int  # within its category
    agent: int  # from 0, among those of its type that are there
    job_type: int
    task: int  # from 0, among the tasks of this type and skill that are granted
    skill: int
    hours: float


def realise(instance: FreelanceMarketInstance, split: NDArray[np.float64], availability: Any) -> list[Work]:
    """The work of every agent.

    Parameters
    ----------
    instance : the market.
    split : z (L, N, S), the number of tasks, also fractional, of each type and skill that each category takes.
    availability : per category, the number of agents of each type (M_l,).

    Raises
    ------
    ValueError if a category is given more hours than it has.
    """
    work: list[Work] = []
    size, n, skills = split.shape
    done = np.zeros((n, skills))  # the line of tasks of a type and skill that earlier categories have taken
    for c in range(size):
        agents = [(i, k) for i, count in enumerate(availability[c]) for k in range(int(count))]
        for s in range(skills):
            place, left = 0, instance.agent_hours[c][agents[0][0], s] if agents else 0.0
            for j in range(n):
                need, r = split[c, j, s] * instance.job_hours[j, s], instance.job_hours[j, s]
                while need > FEASIBLE * (1 + r):
                    while place < len(agents) and left <= FEASIBLE:
                        place += 1
                        left = instance.agent_hours[c][agents[place][0], s] if place < len(agents) else 0.0
                    if place >= len(agents):
                        raise ValueError(f"category {c} is given more hours of skill {s} than it has, by {need:g}.")
                    task = int(np.floor(done[j, s] + FEASIBLE))
                    part = min(need, left, (task + 1 - done[j, s]) * r)
                    work.append(Work(c, *agents[place], j, task, s, float(part)))
                    need, left, done[j, s] = need - part, left - part, done[j, s] + part / r
    return work
