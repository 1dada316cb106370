"""Designing the compatibility graph of local JSQ(d) (Zhao, Mukherjee, Wu 2022, Sections 3 and 5 and Appendix A).

The action is the matrix p of edge probabilities; who picks servers is always JSQ(d). One step is a period of time T:

1. Design. Pairs of types whose `compatibility` in the instance is 0 stay without edges, whatever p says.
2. Period. *Simulation*: the graph IRG(p) is drawn anew; tasks in the queues stay where they are; tasks arrive, each joining the
   shortest of d servers drawn among those of its dispatcher, of one if it has fewer, of all servers of allowed types if it has
   none. *Fixed point*: the limit of many servers and a long period, which knows no past.
3. What is seen: the instance's numbers, and q_ml, the share of type-m servers with at least l tasks.

The reward is minus the mean number of tasks per server: the expected sojourns of the period's tasks over N T (Little's law), or
that of the fixed point. A design without a fixed point, rho(p) >= 1, costs PENALTY rho(p), more than any with one.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.data_locality_design import CATALOGUE
from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.data_locality import length_kernel
from matchgym.envs.data_locality import settling as settling_tasks
from matchgym.envs.data_locality_design_view import draw
from matchgym.envs.locality_instances import DataLocalityInstance, ends, has_edge
from matchgym.envs.locality_servers import join_kernel, look_at_all_kernel, look_kernel, start_kernel, type_kernel
from matchgym.envs.mean_field import bottleneck_kernel, fixed_point_kernel, mean_kernel
from matchgym.envs.rng import exponential, next_word, uniform
from matchgym.envs.slotted_queues import split_kernel

SEEN = 16  # levels of q in an observation
DEPTH = 64  # levels of a fixed point; a longer tail counts as no fixed point
PENALTY = float(DEPTH)
ROUNDS, TOLERANCE, NEGLIGIBLE = 20_000, 1e-12, 1e-9  # of the fixed point
MOST_TRIES = 64  # draws per server wanted, before a dispatcher's servers are counted


class DataLocalityDesignInstance(DataLocalityInstance):
    """An instance of DataLocality-v0 whose `compatibility` only says which pairs of types may be joined: those above 0."""

    @property
    def objective_scale(self) -> float:
        """The objective is the mean reward per period."""
        return 1.0


class Params(NamedTuple):
    total_rate: Real  # lambda W
    offered: Real  # lambda xi
    dispatcher_fractions: Reals  # (K,) w
    server_fractions: Reals  # (M,) v
    service_rates: Reals  # (M,) u
    service_times: Reals  # (M,) 1 / u
    allowed: IntegerTable  # (K, M)
    server_ends: Integers  # (M + 1,)
    dispatcher_ends: Integers  # (K + 1,)
    initial_law: RealTable  # (M, n) cumulated law of a server's tasks at the start
    choices: Integer  # d
    load: Real  # rho_0
    period: Real  # T
    is_simulated: Integer


class State(NamedTuple):
    stream: WordTable  # (B, 4) starts the others
    world: WordTable  # (B, 4) graphs, tasks and draws
    service: WordTable  # (B, 4) service times
    servers: RealTable  # (B, 2 N) for each server its tasks and the time they were counted
    sampled: IntegerTable  # (B, d) servers drawn for a task
    design: RealTable  # (B, K M) p of the last period
    levels: IntegerTable  # (B, K M) p 2^53
    shares: RealTable  # (K, M) x_km: room for all rows, as the next two
    tails: RealTable  # (M, DEPTH + 1)
    births: RealTable  # (M, DEPTH)
    occupancy: RealTable  # (B, M SEEN) q_ml, l = 1..SEEN
    rho: Reals  # (B,) rho(p) of the last design
    rerouted: Integers  # (B,) tasks since the reset whose dispatcher had no server
    elapsed_time: Reals  # (B,) since the reset
    total_reward: Reals  # (B,) since the reset
    invalid_actions: Integers  # (B,) since the reset


def params(instance: DataLocalityDesignInstance, reward: str, period: float) -> Params:
    """The numbers that the kernels read."""
    law = np.ones((instance.n_types, 1)) if instance.initial_lengths is None else instance.initial_lengths
    return Params(
        total_rate=instance.total_rate,
        offered=instance.offered,
        dispatcher_fractions=instance.dispatcher_fractions / instance.dispatcher_fractions.sum(),
        server_fractions=instance.server_fractions / instance.server_fractions.sum(),
        service_rates=instance.service_rates,
        service_times=1 / instance.service_rates,
        allowed=(instance.compatibility > 0).astype(np.int64),
        server_ends=ends(instance.server_counts),
        dispatcher_ends=ends(instance.dispatcher_counts),
        initial_law=law.cumsum(1),
        choices=instance.choices,
        load=instance.load,
        period=float(period),
        is_simulated=int(reward == "simulation"),
    )


def state(instance: DataLocalityDesignInstance, batch: int) -> State:
    """Zeroed rows."""
    n_kinds, n_types = instance.compatibility.shape
    return State(
        **{name: np.zeros((batch, 4), np.uint64) for name in ("stream", "world", "service")},
        servers=np.zeros((batch, 2 * instance.n_servers)),
        sampled=np.zeros((batch, instance.choices), np.int64),
        design=np.zeros((batch, n_kinds * n_types)),
        levels=np.zeros((batch, n_kinds * n_types), np.int64),
        shares=np.zeros((n_kinds, n_types)),
        tails=np.zeros((n_types, DEPTH + 1)),
        births=np.zeros((n_types, DEPTH)),
        occupancy=np.zeros((batch, n_types * SEEN)),
        rho=np.zeros(batch),
        rerouted=np.zeros(batch, np.int64),
        elapsed_time=np.zeros(batch),
        total_reward=np.zeros(batch),
        invalid_actions=np.zeros(batch, np.int64),
    )


@kernel
def reset_kernel(params, state, b):
    """Independent servers, empty or with the initial law of their type; no design yet."""
    split_kernel(state.world, b, state.stream)
    split_kernel(state.service, b, state.stream)
    state.elapsed_time[b] = state.total_reward[b] = state.rho[b] = 0.0
    state.invalid_actions[b] = state.rerouted[b] = 0
    state.design[b, :] = 0.0
    for m in range(len(params.service_rates)):
        for j in range(params.server_ends[m], params.server_ends[m + 1]):
            start_kernel(params, state, b, j, m, length_kernel(params, state, b, m))
    count_kernel(params, state, b)


@kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated)."""
    # Design.
    read_kernel(params, state, b, action)
    state.rho[b], _ = bottleneck_kernel(
        params.choices, params.offered, params.dispatcher_fractions, params.server_fractions, params.service_rates, state.shares
    )

    # Period. What is seen.
    state.elapsed_time[b] += params.period
    reward = -period_kernel(params, state, b) if params.is_simulated else -limit_kernel(params, state, b)
    state.total_reward[b] += reward
    return reward, False


@outlined_kernel
def read_kernel(params, state, b, action):
    """p and x_km = v_m p_km / delta_k; numbers outside [0, 1] are cut to it, a row of zeros means all allowed types."""
    n_kinds, n_types = params.allowed.shape
    is_valid = True
    for k in range(n_kinds):
        total = 0.0
        for m in range(n_types):
            wanted = action[k * n_types + m]
            is_valid &= 0.0 <= wanted <= 1.0  # false for NaN
            p = min(max(wanted, 0.0), 1.0) if wanted == wanted else 0.0
            p *= params.allowed[k, m]
            state.design[b, k * n_types + m] = p
            total += p * params.server_fractions[m]
        if total <= 0.0:
            is_valid = False
            total = 0.0
            for m in range(n_types):
                state.design[b, k * n_types + m] = params.allowed[k, m]
                total += params.allowed[k, m] * params.server_fractions[m]
        for m in range(n_types):
            p = state.design[b, k * n_types + m]
            state.shares[k, m] = params.server_fractions[m] * p / total
            state.levels[b, k * n_types + m] = np.int64(p * 9007199254740992.0)
    state.invalid_actions[b] += not is_valid


@outlined_kernel
def limit_kernel(params, state, b):
    """Mean tasks per server at the fixed point, or the penalty; writes q."""
    w, v, u, x = params.dispatcher_fractions, params.server_fractions, params.service_rates, state.shares
    state.tails[:, :] = 0.0
    for m in range(len(v)):
        state.tails[m, 0] = 1.0
    is_stable = state.rho[b] < 1.0
    if is_stable:
        last_move = fixed_point_kernel(params.choices, params.offered, w, v, u, x, ROUNDS, TOLERANCE, state.tails, state.births)
        is_stable = last_move <= TOLERANCE
        for m in range(len(v)):
            is_stable &= state.tails[m, DEPTH] <= NEGLIGIBLE
    for m in range(len(v)):
        for level in range(SEEN):
            state.occupancy[b, m * SEEN + level] = state.tails[m, level + 1] if is_stable else 1.0
    return mean_kernel(v, state.tails) if is_stable else PENALTY * max(1.0, state.rho[b])


@outlined_kernel
def period_kernel(params, state, b):
    """Simulate a period; returns the expected sojourns of its tasks over N T, and writes q."""
    world, n, end = state.world, params.server_ends[-1], state.elapsed_time[b]
    word, sojourns = next_word(world, b), 0.0
    now = end - params.period
    while True:
        now += exponential(world, b) / params.total_rate
        if now >= end:
            break
        i = int(uniform(world, b) * params.dispatcher_ends[-1])
        k = type_kernel(params.dispatcher_ends, i)
        size = sample_kernel(params, state, b, word, i, k)
        state.elapsed_time[b] = now
        best, least, kind = 0, np.inf, 0
        for s in range(size):
            j = state.sampled[b, s]
            m = type_kernel(params.server_ends, j)
            look_kernel(params, state, b, j, m)
            if state.servers[b, 2 * j] < least:  # drawn in random order: a uniform one of the shortest
                best, least, kind = j, state.servers[b, 2 * j], m
        sojourns += join_kernel(params, state, b, best, kind) * params.service_times[kind]
    state.elapsed_time[b] = end
    look_at_all_kernel(params, state, b)
    count_kernel(params, state, b)
    return sojourns / (n * params.period)


@kernel
def edge_kernel(params, state, b, word, i, k, j):
    """Whether dispatcher i of type k has server j in this period's graph."""
    n_types = len(params.service_rates)
    level = state.levels[b, k * n_types + type_kernel(params.server_ends, j)]
    return has_edge(word, params.server_ends[-1], i, j, level)


@outlined_kernel
def sample_kernel(params, state, b, word, i, k):
    """Draw d different servers of dispatcher i; one if it has fewer, of all allowed ones if it has none. Returns how many."""
    world, n, d = state.world, params.server_ends[-1], params.choices
    found, tries, is_counted = 0, 0, False
    while found < d:
        if not is_counted and tries >= MOST_TRIES * d:
            count = 0
            for j in range(n):
                count += edge_kernel(params, state, b, word, i, k, j)
            if count < d:
                return alone_kernel(params, state, b, word, i, k, count)
            is_counted = True
        tries += 1
        j = int(uniform(world, b) * n)
        is_new = edge_kernel(params, state, b, word, i, k, j)
        for before in range(found):
            is_new &= state.sampled[b, before] != j
        if is_new:
            state.sampled[b, found] = j
            found += 1
    return d


@outlined_kernel
def alone_kernel(params, state, b, word, i, k, count):
    """Draw the only server of a task whose dispatcher has `count` < d; returns 1."""
    if count > 0:
        left, j = int(uniform(state.world, b) * count), -1
        while left >= 0:
            j += 1
            left -= edge_kernel(params, state, b, word, i, k, j)
        state.sampled[b, 0] = j
        return 1
    state.rerouted[b] += 1
    while True:
        j = int(uniform(state.world, b) * params.server_ends[-1])
        if params.allowed[k, type_kernel(params.server_ends, j)]:
            state.sampled[b, 0] = j
            return 1


@outlined_kernel
def count_kernel(params, state, b):
    """q of the servers as they are."""
    state.occupancy[b, :] = 0.0
    for j in range(params.server_ends[-1]):
        m = type_kernel(params.server_ends, j)
        share = 1.0 / (params.server_ends[m + 1] - params.server_ends[m])
        for level in range(min(int(state.servers[b, 2 * j]), SEEN)):
            state.occupancy[b, m * SEEN + level] += share


@kernel
def observe_kernel(params, state, b, out):
    """The parts named by `layout`, one after the other."""
    n_kinds, n_types = params.allowed.shape
    for k in range(n_kinds):
        out[k] = params.dispatcher_fractions[k]
    for m in range(n_types):
        out[n_kinds + m] = params.server_fractions[m]
        out[n_kinds + n_types + m] = params.service_rates[m]
    at = n_kinds + 2 * n_types
    out[at], out[at + 1], out[at + 2] = params.choices, params.offered, params.load
    for c in range(n_types * SEEN):
        out[at + 3 + c] = state.occupancy[b, c]


@kernel
def mask_kernel(params, state, b, out):
    """A Box has no mask."""


def layout(instance: DataLocalityDesignInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the observation."""
    n_kinds, n_types = instance.compatibility.shape
    sizes = {
        "dispatchers": n_kinds,
        "servers": n_types,
        "rates": n_types,
        "choices": 1,
        "offered": 1,
        "load": 1,
        "occupancy": n_types * SEEN,
    }
    stops = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(stop - size, stop) for (name, size), stop in zip(sizes.items(), stops)}


def action_space(instance: DataLocalityDesignInstance, options: Mapping[str, Any]) -> gym.spaces.Box:
    """p (K, M)."""
    return gym.spaces.Box(0.0, 1.0, instance.compatibility.shape, np.float32)


def settling(instance: DataLocalityDesignInstance) -> float:
    """Periods of the default length after which a start is forgotten."""
    return math.ceil(settling_tasks(instance) / instance.total_rate / OPTIONS["period"][0])


OPTIONS: dict[str, tuple[Any, ...]] = {"reward": ("simulation", "fixed-point"), "period": (1.0, 5.0, 20.0, 100.0)}

MODEL = Model(
    instance_type=DataLocalityDesignInstance,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    layout=layout,
    action_space=action_space,
    options=OPTIONS,
    evaluation_options={},
    draw=draw,
    settling=settling,
    run=(50, 500),
    **Model.loops(
        __file__,
        info=("elapsed_time", "total_reward", "invalid_actions", "rho", "rerouted"),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=observe_kernel,
        mask_kernel=mask_kernel,
    ),
)


class DataLocalityDesignEnv(Env):
    """Design the compatibility graph of a server cluster whose tasks join the shortest of d queues drawn at random.

    ## Description
    N servers of M types serve tasks that arrive at dispatchers of K types. Servers and dispatchers are joined at random, with
    probability p_km for a pair of types k and m, and a task joins the shortest of d servers drawn among its dispatcher's. This
    is JSQ(d) on the graph IRG(p) of Zhao, Mukherjee and Wu (2022). The agent chooses p once a period. Too many edges to slow
    servers make the cluster unstable; the objective is minus the mean number of tasks in the system per server.

    ## Action Space
    `Box(0, 1, (K, M))`: p. Pairs of types whose `compatibility` in the instance is 0 have no edges, whatever p says. Numbers
    outside [0, 1] are cut to it, and a row of zeros means all allowed types; both count in `info["invalid_actions"]`.

    ## Observation Space
    `Box(0, inf, (K + 2 M + 3 + 16 M,), float32)`; `env.unwrapped.observation_layout` names the slices. No N.

    | part | meaning | min | max | unit |
    |---|---|---|---|---|
    | `dispatchers` (K) | w_k, fractions of dispatchers by type | 0 | 1 | - |
    | `servers` (M) | v_m, fractions of servers by type | 0 | 1 | - |
    | `rates` (M) | u_m, service rates | 0 | inf | per unit of time |
    | `choices` (1) | d | 1 | inf | servers |
    | `offered` (1) | lambda xi, tasks per server | 0 | inf | per unit of time |
    | `load` (1) | rho_0 = lambda xi / sum v u | 0 | inf | - |
    | `occupancy` (16 M) | q_ml, share of type-m servers with at least l = 1..16 tasks, as 16 m + l - 1 | 0 | 1 | - |

    ## Rewards
    Minus the mean number of tasks per server: with `reward="simulation"` the expected sojourns of the tasks that arrive in the
    period over N times its length (Little's law); with `reward="fixed-point"` that of the fixed point of the mean-field limit
    (3.8), and minus 64 rho(p) where there is none because rho(p) >= 1.

    ## Starting State
    An empty system, or independent servers with the law `initial_lengths` of their type.

    ## Episode End
    Never terminates; truncated after `max_episode_steps` (20) periods. With `reward="fixed-point"` a period does not depend on
    those before it: a bandit.

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | time since the reset |
    | `total_reward` | rewards since the reset |
    | `invalid_actions` | actions since the reset with numbers outside [0, 1] or a row of zeros |
    | `rho` | rho(p) of the last design, below 1 if it is stable in the limit |
    | `rerouted` | tasks since the reset whose dispatcher had no server, and which any server of an allowed type took |
    | `action_mask` | int8, empty |

    ## Arguments
    - `instance`: an instance of DataLocality-v0: a catalogue name, the path of a JSON file, or a dict of JSON values. Of
      `compatibility` only zeros matter; `graph` and `graph_seed` do not. Default "paper".
    - `reward`: "simulation" (default) or "fixed-point".
    - `period`: 1 (default), 5, 20 or 100 units of time.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.data_locality_design` bounds what any design can reach; `matchgym.baselines.data_locality_design` has the
    constructions of the paper and a design optimised in the limit.

    ## References
    Z. Zhao, D. Mukherjee, R. Wu. Exploiting Data Locality to Improve Performance of Heterogeneous Server Clusters. 2022.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "paper", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class DataLocalityDesignVectorEnv(VectorEnv):
    """`num_envs` rows of DataLocalityDesign-v0; see `DataLocalityDesignEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "paper", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
