"""The kernel behind the policies for freelance markets: admission, routing to pools, and the request of an epoch.

Every policy is an *admission* (all, or rule (7) of Section VI with pressure I or II) and a scheme of `freelance_schemes`, or
chance. All are numbers among a policy's parameters, so that all policies are one kernel and are compiled once.
"""

import numpy as np

from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, RealTable, WordTable, extend_record, outlined_kernel
from matchgym.envs.freelance_requests import Programme, Room, request_kernel
from matchgym.envs.freelance_schemes import NOTHING, join, queue_at, route_kernel, tasks_at

ALL, PRESSURE_CENTRAL, PRESSURE_POOLS, PRESSURE_PRINTED = range(4)  # admissions

# What the kernels read: the market's data and the policy's parameters.
Knobs = extend_record(
    Programme,
    "Knobs",
    job_hours=RealTable,  # (N, S)
    allowed=IntegerTable,  # (N, L)
    signature=Integers,  # (N,)
    sets=Integers,  # (R,)
    agent_hours=RealTable,  # (M, S)
    agent_category=Integers,  # (M,)
    accept=Integer,  # numbers for admission at the front of an action
    nu=Real,
    chance=Real,  # of acceptance in an epoch that is not declined
    n_categories=Integer,
    is_decomposable=Integer,
    is_flexible=Integer,
    is_pooled=Integer,
    admission=Integer,
)

# Memory of a policy: its random stream, the action, and room for its scheme.
Scratch = extend_record(
    Room,
    "Scratch",
    stream=WordTable,  # (B, 4)
    action=RealTable,  # (B, k)
    hours=RealTable,  # (1, L S)
    arrivals=RealTable,  # (1, N)
)


@outlined_kernel
def pressure(knobs, obs, arrivals):
    """P of rule (7): sum_j A_j times the tasks of type j that wait; with pools, of its emptiest category.

    As printed, II adds up the emptiest category of each skill.
    """
    total, skills = 0.0, knobs.job_hours.shape[1]
    for j in range(len(knobs.n_tasks)):
        if arrivals[j] <= 0.0:
            continue
        tasks = 0.0
        if not knobs.is_pooled:
            tasks = tasks_at(knobs, obs, 0, j)
        elif knobs.admission == PRESSURE_PRINTED:
            for s in range(skills):
                if knobs.job_hours[j, s] > 0.0:
                    least = np.inf
                    for c in range(knobs.n_categories):
                        if knobs.allowed[j, c]:
                            place = queue_at(knobs, c, j) + (s if knobs.is_decomposable else 0)
                            least = min(least, float(obs[place]))
                    tasks += least if least < np.inf else 0.0
        else:
            least = np.inf
            for c in range(knobs.n_categories):
                if knobs.allowed[j, c]:
                    least = min(least, tasks_at(knobs, obs, c, j))
            tasks = least if least < np.inf else 0.0
        total += arrivals[j] * tasks
    return total


@outlined_kernel
def set_hours(knobs, memory, obs, agents_at):
    """H (L S) from the agents."""
    skills, hours = knobs.job_hours.shape[1], memory.hours[0]
    for k in range(knobs.n_categories * skills):
        hours[k] = 0.0
    for i in range(len(knobs.agent_category)):
        count = float(obs[agents_at + i])
        if count > 0.0:
            for s in range(skills):
                hours[knobs.agent_category[i] * skills + s] += count * knobs.agent_hours[i, s]


@outlined_kernel
def act_kernel(knobs, memory, b, obs, mask, rng):
    """Write the action of row b; every policy of this model."""
    n, size = len(knobs.n_tasks), knobs.n_categories
    queues, waiting = memory.waiting.shape[1], memory.waiting[0]
    for k in range(memory.action.shape[1]):
        memory.action[b, k] = 0.0
    for d in range(queues):
        waiting[d] = obs[d]
    arrivals = memory.arrivals[0]
    offered = 0.0
    for j in range(n):
        arrivals[j] = obs[queues + j]
        offered += arrivals[j]
    set_hours(knobs, memory, obs, queues + n)

    # Admission.
    start = knobs.accept
    is_accepted = knobs.admission == ALL or not knobs.nu * pressure(knobs, obs, arrivals) > offered
    for k in range(start):
        memory.action[b, k] = knobs.chance if is_accepted else 0.0
    if not is_accepted:
        for j in range(n):
            arrivals[j] = 0.0

    if knobs.scheme == NOTHING:
        return

    # Routing.
    for j in range(n):
        memory.fresh[0, j] = int(arrivals[j])
        if not knobs.is_pooled:
            join(knobs, waiting, 0, j, arrivals[j])
            continue
        route_kernel(knobs, obs, waiting, knobs.routing, j, arrivals[j], memory.sent[0])
        for c in range(size):
            memory.action[b, start + c * n + j] = memory.sent[0, c]
    if knobs.is_pooled:
        start += size * n

    # Request.
    request_kernel(knobs, memory, b, obs, memory.hours[0], memory.action[b, start:], rng)
