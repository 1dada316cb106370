"""Freelance markets (Chatterjee, Varshney and Vishwanath, "Work Capacity of Freelance Markets").

L categories of agents bring hours of S skills; jobs of N types need some. Time passes in epochs. A job of type j consists of a
(j, s)-task for each skill s of which it needs hours. Jobs are decomposable (their tasks may be done in different epochs) or
not, and flexible (spread over categories) or not: the classes FD, FND, ID, IND of Section II.

    lambda_j -> arrival_means[j]     mu^l_i -> availability_means[l][i]     r_js -> job_hours[j, s]
    Q_j, Q_js or Q^l_js -> queue
    A_j(t) -> arrivals     U^l_i(t) -> agents     h^l_is -> agent_hours[l][i, s]     H_ls = sum_i U^l_i h^l_is -> hours

An epoch:

1. Arrivals. A(t), observed before the decision, is accepted or declined, and joins the queues; with pools, every category has
   queues of its own, and the action routes each job to one.
2. Allocation. Of Q + A and within the hours of the agents U(t), also observed before, the request of the action is granted as
   far as feasible: entry by entry in index order (or in the order of its priorities), each min(request, what waits, the most
   that fits beside what is granted). A feasible request is granted in full. The rest is cut, and reported.
3. Split. Every task's hours are found a category; within a category, agents (see `freelance_split`).
4. Completion. Tasks granted leave. Of decomposable jobs, the first to come are done first in every skill, so that max_s Q_js
   jobs are incomplete. Unused hours are lost.
5. The next epoch's arrivals and agents are drawn.

Arrivals and agents have a stream of their own, so that two policies under one seed meet the same market.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.freelance_market import CATALOGUE
from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.freelance_allocation import MODES, REQUEST, allocate_kernel
from matchgym.envs.freelance_instances import LAWS, FreelanceMarketInstance
from matchgym.envs.freelance_market_view import draw
from matchgym.envs.freelance_queues import (
    balance_kernel,
    count_kernel,
    first_category,
    join_kernel,
    queue_size,
    route_kernel,
)
from matchgym.envs.freelance_split import split_hours
from matchgym.envs.freelance_world import world_kernel
from matchgym.envs.instance import InputError
from matchgym.envs.rng import binomial
from matchgym.envs.slotted_queues import split_kernel

ADMISSIONS = ("all", "common", "per-type")  # of the option `admission`
ALL, COMMON, PER_TYPE = range(len(ADMISSIONS))
LARGEST_REQUEST = float(2**24)  # up to which 32-bit numbers count


class Params(NamedTuple):
    arrival_means: Reals  # (N,)
    arrival_trials: Integers  # (N,)
    arrival_levels: Reals  # (K,) cumulative probabilities of a finite law
    arrival_counts: IntegerTable  # (K, N)
    pattern: Reals  # (P,)
    agent_means: Reals  # (M,)
    agent_trials: Integers  # (M,)
    agent_levels: Reals  # (K',)
    agent_counts: IntegerTable  # (K', M)
    agent_category: Integers  # (M,)
    agent_hours: RealTable  # (M, S)
    job_hours: RealTable  # (N, S)
    allowed: IntegerTable  # (N, L)
    signature: Integers  # (N,) N(j) as bits
    sets: Integers  # (R,) sets of categories that limit a flexible market
    group: Integers  # (N,) types with the same N(j) are one group
    group_set: Integers  # (G,) their N(j)
    initial_jobs: Integers  # (N,)
    holding_cost: Real
    decline_cost: Real
    n_categories: Integer
    arrival_law: Integer
    agent_law: Integer
    is_decomposable: Integer
    is_flexible: Integer
    is_pooled: Integer
    mode: Integer
    admission: Integer


class State(NamedTuple):
    stream: WordTable  # (B, 4) starts the others
    world: WordTable  # (B, 4) arrivals and agents
    choice: WordTable  # (B, 4) acceptance
    elapsed_time: Integers  # (B,) epochs completed
    queue: IntegerTable  # (B, D) (N,) or (N, S), with pools (L, N) or (L, N, S)
    arrivals: IntegerTable  # (B, N)
    agents: IntegerTable  # (B, M)
    hours: RealTable  # (B, L S)
    allocation: IntegerTable  # (B, E) granted in the last epoch, entry by entry of the request
    used: RealTable  # (B, L S) hours used in the last epoch
    jobs: IntegerTable  # (B, N) waiting jobs
    backlog: Integers  # (B,) their number
    completed: Integers  # (B,) jobs since the reset
    declined: Integers  # (B,) jobs since the reset
    cut: Reals  # (B,) tasks (or jobs that are not decomposable) requested in the last epoch and not granted
    total_cut: Reals  # (B,) the same since the reset
    total_reward: Reals  # (B,)
    invalid_actions: Integers  # (B,)
    backlog_sum: Integers  # (B,) sum over epochs of the waiting jobs after the epoch
    backlog_moment: Integers  # (B,) the same, times the number of the epoch
    supply: RealTable  # (B, R S) hours of a set of categories
    granted: RealTable  # (B, R S) hours granted to the types inside a set
    demand: RealTable  # (B, G S) hours granted to a group
    place: IntegerTable  # (1, E) scratch, shared by all rows, like the following
    score: RealTable  # (1, E)
    flow: RealTable  # (1, G L)
    left: RealTable  # (1, L)
    parent: IntegerTable  # (1, L)
    mover: IntegerTable  # (1, L)
    line: IntegerTable  # (1, L)


def is_pooled(instance: FreelanceMarketInstance, pools: bool) -> bool:
    """Whether every category has queues of its own: always for ID; InputError where jobs may be spread."""
    if pools and instance.flexible:
        raise InputError("pools=True needs an inflexible market; leave it out, or set flexible to false.")
    return pools or instance.kind == "ID"


def n_entries(instance: FreelanceMarketInstance) -> int:
    """Entries of a request: (N,) FND, (N, S) FD, (L, N) IND, (L, N, S) ID."""
    per_type = instance.n_skills if instance.decomposable else 1
    return instance.n_types * per_type * (1 if instance.flexible else instance.n_categories)


def _law(instance: FreelanceMarketInstance, side: str) -> tuple[int, Any, Any]:
    """Number of the law, cumulative probabilities (K,) and outcomes (K, n) if it has any."""
    found, law = instance.outcomes(side), LAWS.index(getattr(instance, f"{side}_law"))
    if found is None:
        size = instance.n_types if side == "arrival" else len(instance.agent_category)
        return law, np.ones(1), np.zeros((1, size), np.int64)
    return law, np.cumsum(found.probabilities), found.counts


def params(instance: FreelanceMarketInstance, action: str = "request", pools: bool = False, admission: str = "all") -> Params:
    """The numbers that the kernels read."""
    arrival_law, arrival_levels, arrival_counts = _law(instance, "arrival")
    agent_law, agent_levels, agent_counts = _law(instance, "availability")
    group_set, group = np.unique(instance.signatures, return_inverse=True)
    return Params(
        arrival_means=instance.arrival_means,
        arrival_trials=instance.trials("arrival"),
        arrival_levels=arrival_levels,
        arrival_counts=arrival_counts,
        pattern=np.ones(1) if instance.arrival_pattern is None else instance.arrival_pattern,
        agent_means=np.concatenate(instance.availability_means),
        agent_trials=instance.trials("availability"),
        agent_levels=agent_levels,
        agent_counts=agent_counts,
        agent_category=instance.agent_category,
        agent_hours=instance.hours,
        job_hours=instance.job_hours,
        allowed=np.asarray(instance.compatible),
        signature=instance.signatures,
        sets=instance.category_sets if instance.flexible else np.zeros(1, np.int64),
        group=group.ravel(),
        group_set=group_set,
        initial_jobs=np.zeros(instance.n_types, np.int64)
        if instance.initial_jobs is None
        else instance.initial_jobs.astype(np.int64),
        holding_cost=instance.holding_cost,
        decline_cost=instance.decline_cost,
        n_categories=instance.n_categories,
        arrival_law=arrival_law,
        agent_law=agent_law,
        is_decomposable=int(instance.decomposable),
        is_flexible=int(instance.flexible),
        is_pooled=int(is_pooled(instance, pools)),
        mode=MODES.index(action),
        admission=ADMISSIONS.index(admission),
    )


def state(instance: FreelanceMarketInstance, batch: int) -> State:
    """Zeroed rows; the queues have room for pools wherever there may be any."""
    n, size, skills, entries = instance.n_types, instance.n_categories, instance.n_skills, n_entries(instance)
    sets, groups = len(instance.category_sets) if instance.flexible else 1, len(np.unique(instance.signatures))
    integers = {"queue": entries, "arrivals": n, "agents": len(instance.agent_category), "allocation": entries, "jobs": n}
    reals = {"hours": size * skills, "used": size * skills, "supply": sets * skills, "granted": sets * skills}
    reals["demand"] = groups * skills
    counts = ("elapsed_time", "backlog", "completed", "declined", "invalid_actions", "backlog_sum", "backlog_moment")
    fields: dict[str, Any] = {name: np.zeros((batch, 4), np.uint64) for name in ("stream", "world", "choice")}
    fields |= {name: np.zeros((batch, width), np.int64) for name, width in integers.items()}
    fields |= {name: np.zeros((batch, width)) for name, width in reals.items()}
    fields |= {name: np.zeros(batch, np.int64) for name in counts}
    fields |= {name: np.zeros(batch) for name in ("cut", "total_cut", "total_reward")}
    fields |= {name: np.zeros((1, size), np.int64) for name in ("parent", "mover", "line")}
    return State(
        **fields,
        place=np.zeros((1, entries), np.int64),
        score=np.zeros((1, entries)),
        flow=np.zeros((1, groups * size)),
        left=np.zeros((1, size)),
    )


@outlined_kernel
def reset_kernel(params, state, b):
    """The initial jobs wait (in the first pool that may serve them); then the first epoch's arrivals and agents are drawn."""
    split_kernel(state.world, b, state.stream)
    split_kernel(state.choice, b, state.stream)
    for d in range(state.queue.shape[1]):
        state.queue[b, d] = state.allocation[b, d] = 0
    for j in range(len(params.initial_jobs)):
        for c in range(params.n_categories):
            state.line[0, c] = 0
        state.line[0, first_category(params, j) if params.is_pooled else 0] = params.initial_jobs[j]
        join_kernel(params, state, b, j)
    for k in range(state.used.shape[1]):
        state.used[b, k] = 0.0
    state.elapsed_time[b] = state.completed[b] = state.declined[b] = state.invalid_actions[b] = 0
    state.backlog_sum[b] = state.backlog_moment[b] = 0
    state.cut[b] = state.total_cut[b] = state.total_reward[b] = 0.0
    count_kernel(params, state, b)
    world_kernel(params, state, b)


@outlined_kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated). The action is a row of numbers, see `action_layout`."""
    n, before = len(params.arrival_means), state.backlog[b]

    # Arrivals.
    start, accepted = 0, 0
    if params.admission != ALL:
        start = 1 if params.admission == COMMON else n
    routes = params.n_categories * n if params.is_pooled and params.mode == REQUEST else 0
    for j in range(n):
        count = accept_kernel(params, state, b, j, action)
        accepted += count
        if not params.is_pooled:
            state.line[0, 0] = count
        elif params.mode == REQUEST:
            route = action[start : start + routes]
            state.invalid_actions[b] += route_kernel(params.allowed, j, count, route, state.left[0], state.line[0])
        else:
            balance_kernel(params, state, b, j, count)
        join_kernel(params, state, b, j)

    # Allocation.
    allocate_kernel(params, state, b, action[start + routes :])
    return finish_kernel(params, state, b, before, accepted), False


@outlined_kernel
def finish_kernel(params, state, b, before, accepted):
    """What follows an allocation; returns the reward. `before` jobs waited before `accepted` ones joined."""
    n = len(params.arrival_means)

    # Split.
    if params.is_flexible:
        for s in range(params.job_hours.shape[1]):
            if not split_hours(
                params.group_set, s, state.demand[b], state.hours[b], state.used[b], state.flow[0], state.left[0],
                state.parent[0], state.mover[0], state.line[0],
            ):  # fmt: skip
                raise RuntimeError("a granted allocation has no split among the categories; please report this")

    # Completion.
    count_kernel(params, state, b)
    completed = before + accepted - state.backlog[b]
    state.completed[b] += completed
    state.backlog_sum[b] += state.backlog[b]
    state.backlog_moment[b] += state.backlog[b] * state.elapsed_time[b]
    offered = 0
    for j in range(n):
        offered += state.arrivals[b, j]
    declined = offered - accepted
    state.declined[b] += declined
    reward = completed - params.holding_cost * state.backlog[b] - params.decline_cost * declined
    state.total_reward[b] += reward

    # The next epoch.
    state.elapsed_time[b] += 1
    world_kernel(params, state, b)
    return reward


@kernel
def accept_kernel(params, state, b, j, action):
    """Arrivals of type j that are accepted: each with the probability that the action gives."""
    count = state.arrivals[b, j]
    if params.admission == ALL:
        return count
    p = float(action[0 if params.admission == COMMON else j])
    if not 0.0 <= p <= 1.0:
        if j == 0 or params.admission == PER_TYPE:
            state.invalid_actions[b] += 1
        return count
    if p == 0.0 or p == 1.0:
        return count if p == 1.0 else 0
    return int(binomial(state.choice, b, count, p))


@outlined_kernel
def observe_kernel(params, state, b, out):
    """The parts named by `layout`, one after the other."""
    size, start = queue_size(params), 0
    for d in range(size):
        out[d] = state.queue[b, d]
    start = size
    for j in range(state.arrivals.shape[1]):
        out[start + j] = state.arrivals[b, j]
    start += state.arrivals.shape[1]
    for i in range(state.agents.shape[1]):
        out[start + i] = state.agents[b, i]
    start += state.agents.shape[1]
    for k in range(state.hours.shape[1]):
        out[start + k] = state.hours[b, k]


@kernel
def mask_kernel(params, state, b, out):
    """Every rank is valid for every entry; a Box has no mask."""
    for k in range(len(out)):
        out[k] = True


def layout(instance: FreelanceMarketInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the observation."""
    pools = instance.n_categories if is_pooled(instance, options["pools"]) else 1
    width = instance.n_skills if instance.decomposable else 1
    sizes = {
        "queue": pools * instance.n_types * width,
        "arrivals": instance.n_types,
        "agents": len(instance.agent_category),
        "hours": instance.n_categories * instance.n_skills,
    }
    return _slices(sizes)


def action_layout(instance: FreelanceMarketInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the action."""
    sizes = {} if options["admission"] == "all" else {"accept": 1 if options["admission"] == "common" else instance.n_types}
    if options["action"] == "request" and is_pooled(instance, options["pools"]):
        sizes["route"] = instance.n_categories * instance.n_types
    return _slices(sizes | {options["action"]: n_entries(instance)})


def _slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends)}


def action_space(instance: FreelanceMarketInstance, options: Mapping[str, Any]) -> gym.Space[Any]:
    """A row of numbers, or of ranks."""
    parts = action_layout(instance, options)
    if options["action"] == "order":
        if "accept" in parts:
            raise InputError('admission needs action "request" or "priority"; ranks have no place for a probability.')
        return gym.spaces.MultiDiscrete(np.full(n_entries(instance), n_entries(instance)))
    size = max(part.stop for part in parts.values())
    low, high = np.zeros(size, np.float32), np.full(size, LARGEST_REQUEST, np.float32)
    if "accept" in parts:
        high[parts["accept"]] = 1.0
    if options["action"] == "priority":
        low[parts["priority"]], high[parts["priority"]] = -1.0, 1.0
    return gym.spaces.Box(low, high, dtype=np.float32)


MODEL = Model(
    instance_type=FreelanceMarketInstance,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    layout=layout,
    action_space=action_space,
    options={"action": MODES, "pools": (False, True), "admission": ADMISSIONS},
    evaluation_options={},
    draw=draw,
    rates={"completed": "completed", "declined": "declined", "backlog": "backlog_sum", "cut": "total_cut"},
    takes_reals=True,
    run=(0, 20_000),  # without warm-up: a policy that lets jobs wait for the epochs that count would gain by it
    trends={"backlog_slope": ("backlog_sum", "backlog_moment")},
    **Model.loops(
        __file__,
        info=(
            "elapsed_time", "total_reward", "completed", "declined", "backlog", "cut", "total_cut", "invalid_actions",
        ),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=observe_kernel,
        mask_kernel=mask_kernel,
    ),
)  # fmt: skip


class FreelanceMarketEnv(Env):
    """Allocate the hours of freelance agents to jobs whose tasks need several skills.

    ## Description
    In every epoch jobs of N types arrive and agents of L categories are there for the epoch, with hours of S
    skills. Jobs wait until their tasks are allocated; unused hours are lost. Whether tasks of a job may be done in different
    epochs (`decomposable`) and a job spread over categories (`flexible`) makes the four classes FD, FND, ID and IND. The
    objective is the number of jobs completed per epoch, less costs of waiting and declining. This is the model of Chatterjee,
    Varshney and Vishwanath (Work Capacity of Freelance Markets).

    ## Action Space
    By the option `action`:

    - "request" (default): a flat `Box` of numbers >= 0, whose parts `matchgym.envs.freelance_market.action_layout` names:
      `accept`, only with the option `admission`; `route` (L N), only with pools: how many of the accepted jobs of each type
      join each category, used as they are if integers that add up, else as weights; `request`, the allocation: (N,) jobs in
      class FND, (N, S) tasks in FD, (L, N) jobs in IND, (L, N, S) tasks in ID, row by row. Numbers are rounded down. It is
      granted in index order, each entry as far as jobs wait and hours are left; a feasible request is granted in full, the rest
      is cut.
    - "priority": `accept`, then a score in [-1, 1] for each entry of a request: everything waiting is granted as far as it
      fits, the highest score first. Work-conserving, good for learning. With pools, a job joins the pool with the fewest of its
      type.
    - "order": `MultiDiscrete`, a rank for each entry, the lowest first; the rest as with "priority". The mask is always 1.

    Numbers that are negative, infinite or NaN, and scores, ranks and probabilities out of their range, are ignored and counted
    in `info["invalid_actions"]`; what is requested beyond what waits is cut. A Box has no mask.

    ## Observation Space
    `Box(0, inf, (D + N + M + L S,), float32)` with M agent types in all; `env.unwrapped.observation_layout` names the slices.

    | part | meaning | min | max | unit |
    |---|---|---|---|---|
    | `queue` (D) | Q: (N) jobs FND, IND, (N S) tasks FD; with pools (L N) jobs IND, (L N S) tasks ID | 0 | inf | jobs, tasks |
    | `arrivals` (N) | A, jobs that arrive in this epoch | 0 | inf | jobs |
    | `agents` (M) | U, agents that are there in this epoch, category by category | 0 | inf | agents |
    | `hours` (L S) | H, their hours | 0 | inf | hours |

    ## Rewards
    Jobs completed in the epoch - `holding_cost` times the jobs waiting after it - `decline_cost` times the jobs declined. A
    decomposable job is completed with its last task, the first to come first in every skill.

    ## Starting State
    `initial_jobs` wait (none by default); the first epoch's arrivals and agents are drawn.

    ## Episode End
    Never terminates: the task is continuing. Truncated after `max_episode_steps` epochs (1000 by default).

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | epochs since the reset |
    | `total_reward` | reward collected since the reset |
    | `completed` | jobs completed since the reset |
    | `declined` | jobs declined since the reset |
    | `backlog` | jobs waiting after the epoch; of decomposable jobs those with a task left |
    | `cut` | tasks (of jobs that are not decomposable: jobs) requested in the last epoch and not granted |
    | `total_cut` | the same since the reset |
    | `invalid_actions` | numbers out of range since the reset |
    | `action_mask` | int8, empty for a Box, 1 for every rank |

    `env.unwrapped.state` has more: `allocation`, what was granted, and `used`, the hours that were used of each category and
    skill.

    ## Arguments
    - `instance`: a catalogue name, the path of a JSON file, or a dict of JSON values with the fields `arrival_means` (N,),
      `job_hours` (N, S), `availability_means` (per category (M_l,)), `agent_hours` (per category (M_l, S)), and optionally
      `compatible` (N, L) booleans, `decomposable` (false), `flexible` (true), `arrival_law` and `availability_law` ("poisson",
      "binomial" with `arrival_success` and `availability_success`, "deterministic", or "finite" with `arrival_support` and
      `availability_support`), `arrival_pattern` (factors of the means, epoch by epoch, of mean 1), `initial_jobs` (N,),
      `holding_cost`, `decline_cost`. `matchgym.envs.freelance_instances.with_data` makes laws of CSV files. Default
      "crowd-24-fnd".
    - `action`: "request" (default), "priority" or "order".
    - `pools`: whether categories have queues of their own, to which jobs are routed on arrival; always so in class ID, never in
      flexible classes. Default false.
    - `admission`: "all" (default), "common" or "per-type": whether the action starts with a probability of accepting each job
      that arrives, one for all or one per type.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.freelance_market` has the outer regions C^out and C^O as linear programmes and the
    exact capacity region for finite laws; `matchgym.baselines.freelance_market` has the paper's algorithms.

    ## References
    A. Chatterjee, L. R. Varshney, S. Vishwanath. Work Capacity of Freelance Markets: Fundamental Limits and
    Decentralized Schemes.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "crowd-24-fnd", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class FreelanceMarketVectorEnv(VectorEnv):
    """`num_envs` rows of FreelanceMarket-v0; see `FreelanceMarketEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "crowd-24-fnd", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
