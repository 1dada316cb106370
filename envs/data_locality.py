"""Load balancing with data locality: local JSQ(d) on a compatibility graph (Zhao, Mukherjee, Wu 2022, Section 2).

N servers of M types serve one task at a time, first come first served, in Exp(u_m) time. Tasks arrive at each of W = xi N
dispatchers of K types as a Poisson process of rate lambda, and go at once and for good to one of the servers that the graph
joins to their dispatcher. The objective is minus the mean number of tasks in the system per server.

    lambda -> arrival_rate     xi -> dispatchers_per_server     w_k -> dispatcher_fractions[k]     v_m -> server_fractions[m]
    u_m -> service_rates[m]    p_km -> compatibility[k, m]      d -> choices                       N -> n_servers

A decision is taken whenever a task arrives. One step:

1. Join. The task joins the chosen server behind x others.
2. Time passes until the next task arrives; servers work.
3. Task. The next task arrives at a uniform dispatcher, which sees its servers: d of them drawn without replacement (one, if it
   has fewer than d), or the counts of all of them by type and number of tasks.

Time passes in one of two ways with the same law. *Looks*: a server's task in service knows when it leaves; nothing is
done until the server is drawn, and then those leave whose time has come, each handing over to the next. A task touches d
servers, whatever N, and draws one service time. *Events*: departures at rate sum_j u_j, each at a server drawn in
proportion to u_j, void if it is empty (uniformisation); needed where a decision sees more than d servers, or where the reward
is the time integral. The stream `world` makes tasks, draws and events whatever the policy does: policies under one seed meet
the same ones.

The expected sojourn of a task that joins x others is (x + 1) / u_m, and by Little's law the mean number in system is the
arrival rate times its mean; so minus it is the reward.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.data_locality import CATALOGUE
from matchgym.envs.compile import (
    Integer,
    Integers,
    IntegerTable,
    Real,
    Reals,
    RealTable,
    WordTable,
    kernel,
    outlined_kernel,
    prefetch,
)
from matchgym.envs.data_locality_view import draw
from matchgym.envs.locality_classes import cell_kernel, class_kernel, events_kernel, local_kernel
from matchgym.envs.locality_instances import HASHED, RING, DataLocalityInstance, draw_graph
from matchgym.envs.locality_servers import (
    candidates_kernel,
    draw_member,
    join_kernel,
    look_kernel,
    start_kernel,
    type_kernel,
)
from matchgym.envs.rng import draw_exponential, draw_uniform, load, store, uniform
from matchgym.envs.slotted_queues import split_kernel

LONGEST_RELAXATION = 0.99  # load from which the time to settle is not estimated any higher


class Params(NamedTuple):
    total_rate: Real  # lambda W
    mean_gap: Real  # 1 / (lambda W)
    service_rates: Reals  # (M,)
    service_times: Reals  # (M,) 1 / u_m
    work_ends: Reals  # (M + 1,) cumulated |V_m| u_m
    kind: Integer  # the graph's fields, see `locality_instances.Graph`
    starts: Integers
    members: Integers
    widths: IntegerTable  # (K, M)
    levels: IntegerTable  # (K, M)
    word: WordTable  # (1, 1)
    server_ends: Integers  # (M + 1,)
    dispatcher_ends: Integers  # (K + 1,)
    initial_law: RealTable  # (M, n) cumulated law of a server's tasks at the start
    choices: Integer
    n_levels: Integer
    is_complete: Integer
    is_by_class: Integer
    is_by_look: Integer
    is_integral: Integer
    sees_local: Integer
    sees_global: Integer


class State(NamedTuple):
    stream: WordTable  # (B, 4) starts the others, and picks a server within a class
    world: WordTable  # (B, 4) tasks, draws and potential departures
    service: WordTable  # (B, 4) service times
    servers: RealTable  # (B, 2 N) for each server its tasks and when the one in service leaves, inf if none is
    sampled: IntegerTable  # (B, d) servers drawn for the waiting task
    n_sampled: Integers  # (B,) d or 1
    ahead: IntegerTable  # (B, d) servers drawn for the task after it, if looks suffice
    n_ahead: Integers  # (B,) d or 1
    gap: Reals  # (B,) time between the two
    dispatcher_ahead: Integers  # (B,)
    dispatcher: Integers  # (B,) of the waiting task
    dispatcher_type: Integers  # (B,)
    local: IntegerTable  # (B, M L) compatible servers by type and tasks, the last level open
    overall: IntegerTable  # (B, M L) the same of all servers
    is_current: Integers  # (B,) whether every server is up to date, because events are simulated
    tasks: Integers  # (B,) in the system, if events are simulated
    elapsed_time: Reals  # (B,) since the reset
    total_reward: Reals  # (B,) since the reset
    invalid_actions: Integers  # (B,) since the reset
    decisions: Integers  # (B,) since the reset


def params(instance: DataLocalityInstance, action: str, reward: str, occupancy: str, levels: int) -> Params:
    """The numbers that the kernels read; draws the graph."""
    graph = draw_graph(instance)
    law = np.ones((instance.n_types, 1)) if instance.initial_lengths is None else instance.initial_lengths
    is_by_class = action == "class"
    return Params(
        total_rate=instance.total_rate,
        mean_gap=1 / instance.total_rate,
        service_rates=instance.service_rates,
        service_times=1 / instance.service_rates,
        work_ends=np.concatenate([[0.0], np.cumsum(instance.server_counts * instance.service_rates)]),
        word=np.array([[graph.word]], np.uint64),
        initial_law=law.cumsum(1),
        choices=instance.choices,
        n_levels=levels,
        is_complete=int(graph.kind == RING and (graph.widths == instance.server_counts).all()),
        is_by_class=int(is_by_class),
        is_by_look=int(not is_by_class and reward == "sojourn" and occupancy == "none"),
        is_integral=int(reward == "integral"),
        sees_local=int(is_by_class or occupancy in ("local", "both")),
        sees_global=int(occupancy in ("global", "both")),
        **{name: value for name, value in graph._asdict().items() if name != "word"},
    )


def state(instance: DataLocalityInstance, batch: int) -> State:
    """Zeroed rows."""
    cells = instance.n_types * max(OPTIONS["levels"])
    integers = (
        "n_sampled", "n_ahead", "dispatcher", "dispatcher_ahead", "dispatcher_type", "is_current", "tasks", "invalid_actions",
        "decisions",
    )  # fmt: skip
    fields: dict[str, Any] = {name: np.zeros((batch, 4), np.uint64) for name in ("stream", "world", "service")}
    fields |= {name: np.zeros(batch, np.int64) for name in integers}
    return State(
        **fields,
        servers=np.zeros((batch, 2 * instance.n_servers)),
        sampled=np.zeros((batch, instance.choices), np.int64),
        ahead=np.zeros((batch, instance.choices), np.int64),
        gap=np.zeros(batch),
        local=np.zeros((batch, cells), np.int64),
        overall=np.zeros((batch, cells), np.int64),
        elapsed_time=np.zeros(batch),
        total_reward=np.zeros(batch),
    )


@kernel
def reset_kernel(params, state, b):
    """Independent servers, empty or with the initial law of their type; then the first task."""
    fill_kernel(params, state, b)
    next_task_kernel(params, state, b)


@outlined_kernel
def fill_kernel(params, state, b):
    """The start, with the first task drawn but not yet there."""
    split_kernel(state.world, b, state.stream)
    split_kernel(state.service, b, state.stream)
    state.elapsed_time[b] = state.total_reward[b] = 0.0
    state.invalid_actions[b] = state.decisions[b] = state.tasks[b] = 0
    state.overall[b, :] = 0
    state.is_current[b] = 1 - params.is_by_look
    for m in range(len(params.service_rates)):
        for j in range(params.server_ends[m], params.server_ends[m + 1]):
            length = length_kernel(params, state, b, m)
            start_kernel(params, state, b, j, m, length)
            state.tasks[b] += length
            state.overall[b, cell_kernel(params, m, length)] += 1
    draw_kernel(params, state, b)


@outlined_kernel
def length_kernel(params, state, b, m):
    """A number of tasks from the initial law of type m."""
    n = params.initial_law.shape[1]
    length = 0
    if n > 1:
        fraction = uniform(state.world, b)
        while length < n - 1 and fraction >= params.initial_law[m, length]:
            length += 1
    return length


@kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated); an action that is not valid leaves the choice to chance."""
    # Join.
    j = server_kernel(params, state, b, action)
    m = type_kernel(params.server_ends, j)
    length = join_kernel(params, state, b, j, m)
    reward = -length * params.service_times[m]
    if not params.is_by_look:
        state.overall[b, cell_kernel(params, m, length - 1.0)] -= 1
        state.overall[b, cell_kernel(params, m, length)] += 1
        state.tasks[b] += 1

    # Time passes. Task.
    integral = next_task_kernel(params, state, b)
    if params.is_integral:
        reward = -integral
    state.total_reward[b] += reward
    state.decisions[b] += 1
    return reward, False


@kernel
def server_kernel(params, state, b, action):
    """The server that an action means."""
    if params.is_by_class:
        return class_kernel(params, state, b, action)
    if action < 0 or action >= state.n_sampled[b]:
        state.invalid_actions[b] += 1
        return state.sampled[b, 0]
    return state.sampled[b, action]


@kernel
def next_task_kernel(params, state, b):
    """Let time pass until the next task arrives, and show it its servers; returns the tasks' time, if events are simulated."""
    integral = 0.0
    if params.is_by_look:
        state.elapsed_time[b] += state.gap[b]
    else:
        integral = events_kernel(params, state, b)
    state.dispatcher[b], state.n_sampled[b] = state.dispatcher_ahead[b], state.n_ahead[b]
    state.dispatcher_type[b] = type_kernel(params.dispatcher_ends, state.dispatcher[b])
    for s in range(state.n_sampled[b]):
        state.sampled[b, s] = state.ahead[b, s]
    draw_kernel(params, state, b)
    if params.is_by_look:
        for s in range(state.n_sampled[b]):
            j = state.sampled[b, s]
            look_kernel(params, state, b, j, type_kernel(params.server_ends, j))
    if params.sees_local:
        local_kernel(params, state, b, state.dispatcher[b], state.dispatcher_type[b])
    return integral


@kernel
def draw_kernel(params, state, b):
    """Draw the task after the waiting one: a uniform dispatcher and d of its servers, or one if it has fewer.

    Drawn one task early, the servers are in the cache when they are looked at; a million of them do not fit.
    """
    words = load(state.world, b)
    if params.is_by_look:
        gap, words = draw_exponential(words)
        state.gap[b] = gap * params.mean_gap
    fraction, words = draw_uniform(words)
    i = int(fraction * params.dispatcher_ends[-1])
    state.dispatcher_ahead[b] = i
    if params.is_by_class:
        store(state.world, b, words)
        return
    k, size = type_kernel(params.dispatcher_ends, i), params.choices
    if not params.is_complete or params.server_ends[-1] < size:
        has_few = params.kind != HASHED and candidates_kernel(params, i, k) < size
        size = 1 if has_few else size
    state.n_ahead[b] = size
    for s in range(size):
        is_new = False
        while not is_new:
            j, words = draw_member(params, words, i, k)
            is_new = True
            for before in range(s):
                is_new &= state.ahead[b, before] != j
        state.ahead[b, s] = j
        prefetch(state.servers, b, 2 * j)
    store(state.world, b, words)


@kernel
def observe_kernel(params, state, b, out):
    """The parts named by `layout`, one after the other."""
    n_kinds, n_types = len(params.dispatcher_ends) - 1, len(params.service_rates)
    for k in range(n_kinds):
        out[k] = k == state.dispatcher_type[b]
    at, d = n_kinds, params.choices
    if not params.is_by_class:
        for s in range(d):
            is_there = s < state.n_sampled[b]
            j = state.sampled[b, s] if is_there else 0
            m = type_kernel(params.server_ends, j) if is_there else -1
            out[at + s] = state.servers[b, 2 * np.uint64(j)] if is_there else 0.0
            out[at + d + s] = params.service_rates[m] if is_there else 0.0
            for each in range(n_types):
                out[at + 2 * d + s * n_types + each] = each == m
        at += d * (2 + n_types)
    cells = n_types * params.n_levels
    if params.sees_local:
        for c in range(cells):
            out[at + c] = state.local[b, c]
        at += cells
    if params.sees_global:
        for c in range(cells):
            out[at + c] = state.overall[b, c]


class Glimpse(NamedTuple):
    """What an observation says of the servers drawn, read off the state: for compiled loops, which need not write it down."""

    servers: Reals  # (2 N,)
    sampled: Integers  # (d,)
    n_sampled: Integer
    server_ends: Integers  # (M + 1,)


@kernel
def glimpse_kernel(params, state, b, out):
    """The glimpse of row b; `out` is left alone."""
    return Glimpse(state.servers[b], state.sampled[b], state.n_sampled[b], params.server_ends)


@kernel
def glimpse_drawn_kernel(knobs, glimpse, s):
    """The type of the server drawn s-th and its tasks; type -1 if fewer were drawn."""
    if s >= glimpse.n_sampled:
        return -1, 0.0
    j = glimpse.sampled[np.uint64(s)]
    return type_kernel(glimpse.server_ends, j), glimpse.servers[2 * np.uint64(j)]


@kernel
def mask_kernel(params, state, b, out):
    """The servers drawn, or the classes that have a compatible server."""
    for a in range(len(out)):
        out[a] = state.local[b, a] > 0 if params.is_by_class else a < state.n_sampled[b]


def layout(instance: DataLocalityInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the observation."""
    d, n_types, cells = instance.choices, instance.n_types, instance.n_types * options["levels"]
    is_by_class, occupancy = options["action"] == "class", options["occupancy"]
    sizes = {"dispatcher": instance.n_dispatcher_types}
    if not is_by_class:
        sizes |= {"queue": d, "rate": d, "type": d * n_types}
    if is_by_class or occupancy in ("local", "both"):
        sizes["local"] = cells
    if occupancy in ("global", "both"):
        sizes["global"] = cells
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends)}


def action_space(instance: DataLocalityInstance, options: Mapping[str, Any]) -> gym.spaces.Discrete:
    """One of the servers drawn, or one class of servers."""
    return gym.spaces.Discrete(instance.n_types * options["levels"] if options["action"] == "class" else instance.choices)


def settling(instance: DataLocalityInstance) -> float:
    """Five relaxation times 1 / (u (1 - sqrt(rho))^2) of a slowest server at the load of the system, in tasks."""
    load = min(instance.load, LONGEST_RELAXATION)
    return 5.0 * instance.total_rate / (float(instance.service_rates.min()) * (1 - math.sqrt(load)) ** 2)


OPTIONS: dict[str, tuple[Any, ...]] = {
    "action": ("server", "class"),
    "reward": ("sojourn", "integral"),
    "occupancy": ("none", "local", "global", "both"),
    "levels": (16, 4, 8, 32, 64),
}

MODEL = Model(
    instance_type=DataLocalityInstance,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    layout=layout,
    action_space=action_space,
    options=OPTIONS,
    evaluation_options={},
    draw=draw,
    settling=settling,
    has_idle=False,
    **Model.loops(
        __file__,
        info=("elapsed_time", "total_reward", "invalid_actions", "decisions"),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=observe_kernel,
        mask_kernel=mask_kernel,
    ),
    glimpse={
        "look_kernel": glimpse_kernel,
        "drawn_kernel": glimpse_drawn_kernel,
    },
)


class DataLocalityEnv(Env):
    """Send each task to a server that has its data, among a few drawn at random or among all.

    ## Description
    N servers of M types serve queues first come first served. Tasks arrive at dispatchers of K types and go at once to one of
    the servers that a compatibility graph joins to their dispatcher. The objective is minus the mean number of tasks in the
    system per server. This is the model of Zhao, Mukherjee and Wu (Exploiting Data Locality to Improve Performance of
    Heterogeneous Server Clusters, 2022), whose own policy joins the shortest of d servers drawn at random.

    ## Action Space
    By the option `action`; the size does not depend on N.

    - "server": `Discrete(d)`, one of the d compatible servers drawn without replacement, in random order. A dispatcher with
      fewer than d servers draws one, the only valid action.
    - "class": `Discrete(M L)`, a type m and a number of tasks l = 0..L-1 (the last is open: L-1 or more), as m L + l; the task
      joins a uniform compatible server of the class. Valid are the classes that have one.

    An action that is not valid leaves the choice to chance (a uniform compatible server) and is counted in
    `info["invalid_actions"]`: the task has to go somewhere.

    ## Observation Space
    `Box(0, inf, float32)`; `env.unwrapped.observation_layout` names the slices. Sizes do not depend on N.

    | part | meaning | min | max | unit |
    |---|---|---|---|---|
    | `dispatcher` (K) | type of the task's dispatcher, one-hot | 0 | 1 | - |
    | `queue` (d) | tasks at each server drawn (action "server") | 0 | inf | tasks |
    | `rate` (d) | its service rate, 0 if there is no such server | 0 | inf | per unit of time |
    | `type` (d M) | its type, one-hot | 0 | 1 | - |
    | `local` (M L) | compatible servers by type and tasks (action "class", or option `occupancy`) | 0 | N | servers |
    | `global` (M L) | all servers by type and tasks (option `occupancy`) | 0 | N | servers |

    ## Rewards
    Minus the expected sojourn (x + 1) / u of the task just placed behind x others; with `reward="integral"`, minus the time
    integral of the number in system until the next task. Both have the same long-run mean, minus the mean response time, and
    the objective is lambda W / N times it (Little's law); the first has far less variance.

    ## Starting State
    An empty system, or independent servers with the law `initial_lengths` of their type, and a first task.

    ## Episode End
    Never terminates; truncated after `max_episode_steps` (1000) tasks.

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | time since the reset |
    | `total_reward` | rewards since the reset |
    | `invalid_actions` | actions since the reset that were not valid |
    | `decisions` | tasks placed since the reset |
    | `action_mask` | int8, 1 where the action is valid |

    ## Arguments
    - `instance`: a catalogue name, the path of a JSON file, or a dict of JSON values with the fields `arrival_rate`,
      `dispatchers_per_server`, `dispatcher_fractions` (K,), `server_fractions` (M,), `service_rates` (M,), `compatibility`
      (K, M), and optionally `choices`, `n_servers`, `graph` ("irg", "regular-random", "regular-contiguous", "complete"),
      `graph_seed` and `initial_lengths` (M, n) or null. Default "paper-100".
    - `action`: "server" (default) or "class".
    - `reward`: "sojourn" (default) or "integral".
    - `occupancy`: what else is seen: "none" (default), "local", "global" or "both". Seeing more than the servers drawn costs
      time in proportion to a dispatcher's servers.
    - `levels`: L, 16 (default), 4, 8, 32 or 64.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.data_locality` has the mean-field limit, the report of stability, and bounds for policies that choose among
    d servers drawn and for all policies; `matchgym.baselines.data_locality` has the policies.

    ## References
    Z. Zhao, D. Mukherjee, R. Wu. Exploiting Data Locality to Improve Performance of Heterogeneous Server Clusters. 2022.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "paper-100", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class DataLocalityVectorEnv(VectorEnv):
    """`num_envs` rows of DataLocality-v0; see `DataLocalityEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "paper-100", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
