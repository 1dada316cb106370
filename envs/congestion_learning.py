"""Congestion-aware matching and learning (Sun, Chai, Zhao, "Congestion-Aware Matching and Learning for Service Platforms").

Time is slotted. In slot t, A_i(t) jobs of type i arrive, i = 1..I; each is sent irrevocably to one of J servers, which serves
its queue first come, first served, one job a slot. Completing a job of type i at server j yields a random reward of mean r_ij,
revealed then. The platform knows the types and arrival rates but not r. The objective (3) is the reward of the jobs served in
T slots from an empty start; jobs still waiting at the end earn nothing.

    lambda_i -> arrival_rates[i]     J -> n_servers     r_ij -> rewards[i, j]     m_j -> service_rates[j]     T -> horizon
    Q_j -> queue     Q_ij -> pending     h_ij -> served     rbar_ij -> mean     A_i(t) -> arrivals     t - 1 -> elapsed_time

A decision routes the jobs of a slot (with action="job", one of them). One slot:

1. Routing. The slot's jobs join the queues, type by type, in the order of their drawing within a type.
2. Service. Server j serves min(Q_j, m_j) jobs from its head, also those that have just come; each reveals its reward X, and
   h_ij and rbar_ij of its type and server are updated: h <- h + 1, rbar <- ((h - 1) rbar + X) / h.
3. Arrivals. The clock moves on, and the jobs of the next slot arrive and are observed.

Three streams are split off a row's own at the reset, so that two policies under one seed meet the same hidden rewards, arrivals
and service capacities, whatever they do (common random numbers); routing and rewards have streams of their own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.congestion_learning import CATALOGUE
from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.congestion_instances import CongestionLearningInstance, clipped_mean
from matchgym.envs.congestion_learning_view import draw
from matchgym.envs.rng import uniform
from matchgym.envs.slotted_queues import (
    arrivals_kernel,
    batch_tables,
    clear_kernel,
    join_kernel,
    leave_kernel,
    split_kernel,
)

MODES = ("server", "probabilities", "job")  # of the option `action`
SERVER, PROBABILITIES, JOB = range(len(MODES))


class Params(NamedTuple):
    arrival_rates: Reals  # (I,)
    trials: Integers  # (I,) of binomial arrivals
    rewards: RealTable  # (I, J), zeros if they are drawn
    allowed: IntegerTable  # (I, J)
    capacity: Integers  # (J,) whole jobs per slot
    extra: Reals  # (J,) probability of one more
    horizon: Integer
    law: Integer
    noise: Real
    reward_cap: Real
    most_jobs: Integer  # of an episode
    mode: Integer
    has_noise: Integer
    is_drawn: Integer
    is_expected: Integer  # whether the reward of a step is the sum of means instead of the revealed rewards
    has_known_rewards: Integer


class State(NamedTuple):
    stream: WordTable  # (B, 4) starts the others
    world: WordTable  # (B, 4) arrivals and service capacities
    routing: WordTable  # (B, 4)
    revelation: WordTable  # (B, 4)
    elapsed_time: Integers  # (B,) slots completed, t - 1
    arrivals: IntegerTable  # (B, I) jobs of this slot that are still to be routed
    queue: IntegerTable  # (B, J)
    pending: IntegerTable  # (B, I J) jobs of type i in queue j
    served: IntegerTable  # (B, I J)
    mean: RealTable  # (B, I J) of the revealed rewards
    rewards: RealTable  # (B, I J) r of this episode, hidden
    total_reward: Reals  # (B,) revealed since the reset
    expected_reward: Reals  # (B,) sum of the means of the jobs served since the reset
    waiting_time: IntegerTable  # (B, I) slots that the served jobs have waited
    queue_time: IntegerTable  # (B, J) sum of the queue lengths at the ends of the slots
    jobs: Integers  # (B,) arrived since the reset
    turned_away: Integers  # (B,) by invalid actions
    invalid_actions: Integers  # (B,)
    first: IntegerTable  # (B, J) head batch of each queue, -1 for none
    last: IntegerTable  # (B, J)
    next: IntegerTable  # (B, N) the batch behind
    batch_kind: IntegerTable  # (B, N) job type
    batch_slot: IntegerTable  # (B, N)
    batch_size: IntegerTable  # (B, N) jobs left
    n_batches: Integers  # (B,)


def params(
    instance: CongestionLearningInstance, action: str = "server", reward: str = "revealed", known_rewards: bool = False
) -> Params:
    """The numbers that the kernels read."""
    whole = np.floor(instance.capacities)
    given = np.zeros((instance.n_types, instance.n_servers)) if instance.rewards is None else instance.rewards
    return Params(
        arrival_rates=instance.arrival_rates,
        trials=instance.trials,
        rewards=given,
        allowed=np.asarray(instance.compatibility),
        capacity=whole.astype(np.int64),
        extra=instance.capacities - whole,
        horizon=instance.horizon,
        law=instance.law,
        noise=instance.noise,
        reward_cap=instance.reward_cap or 0.0,
        most_jobs=instance.most_jobs,
        mode=MODES.index(action),
        has_noise=int(instance.reward_law == "uniform_noise"),
        is_drawn=int(instance.rewards is None),
        is_expected=int(reward == "expected"),
        has_known_rewards=int(known_rewards),
    )


def state(instance: CongestionLearningInstance, batch: int) -> State:
    """Zeroed rows. A type joins a server at most once a slot as one batch, and a batch has a job at least."""
    n, m = instance.n_types, instance.n_servers
    fields: dict[str, Any] = {name: np.zeros((batch, 4), np.uint64) for name in ("stream", "world", "routing", "revelation")}
    fields |= {name: np.zeros((batch, n * m), np.int64) for name in ("pending", "served")}
    fields |= {name: np.zeros((batch, n * m)) for name in ("mean", "rewards")}
    fields |= {name: np.zeros((batch, n), np.int64) for name in ("arrivals", "waiting_time")}
    fields |= {name: np.zeros(batch, np.int64) for name in ("elapsed_time", "jobs", "turned_away", "invalid_actions")}
    fields |= {name: np.zeros(batch) for name in ("total_reward", "expected_reward")}
    fields |= batch_tables(batch, m, min(n * m * instance.horizon, instance.most_jobs))
    return State(**fields, queue_time=np.zeros((batch, m), np.int64))


@kernel
def reset_kernel(params, state, b):
    """Empty queues, nothing learnt, hidden rewards drawn if they are not given; then the first slot with a job to route."""
    n, m = params.rewards.shape
    split_kernel(state.world, b, state.stream)
    split_kernel(state.routing, b, state.stream)
    split_kernel(state.revelation, b, state.stream)
    for k in range(n * m):
        state.rewards[b, k] = uniform(state.stream, b) if params.is_drawn else params.rewards[k // m, k % m]
        state.pending[b, k] = state.served[b, k] = 0
        state.mean[b, k] = 0.0
    for i in range(n):
        state.waiting_time[b, i] = 0
    for j in range(m):
        state.queue_time[b, j] = 0
    clear_kernel(state, b)
    state.elapsed_time[b] = state.jobs[b] = state.turned_away[b] = state.invalid_actions[b] = 0
    state.total_reward[b] = state.expected_reward[b] = 0.0
    arrive_kernel(params, state, b)
    if params.mode == JOB:
        while jobs_to_route(state, b) == 0 and state.elapsed_time[b] < params.horizon:
            serve_kernel(params, state, b)


@kernel
def jobs_to_route(state, b):
    """Jobs of this slot that are not routed yet."""
    total = 0
    for i in range(state.arrivals.shape[1]):
        total += state.arrivals[b, i]
    return total


@kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated). The action is a row: I servers, I J weights, or one server."""
    n = params.rewards.shape[0]
    if state.elapsed_time[b] >= params.horizon:
        return 0.0, True

    # Routing.
    if params.mode == JOB:
        for i in range(n):
            if state.arrivals[b, i] > 0:
                route_kernel(params, state, b, i, int(action[0]), 1)
                break
    elif params.mode == SERVER:
        for i in range(n):
            route_kernel(params, state, b, i, int(action[i]), state.arrivals[b, i])
    else:
        for i in range(n):
            scatter_kernel(params, state, b, i, action)

    # Service. Arrivals.
    reward = 0.0
    if params.mode != JOB:
        reward = serve_kernel(params, state, b)
    else:
        while jobs_to_route(state, b) == 0 and state.elapsed_time[b] < params.horizon:
            reward += serve_kernel(params, state, b)
    return reward, state.elapsed_time[b] >= params.horizon


@outlined_kernel
def route_kernel(params, state, b, i, j, count):
    """Send `count` jobs of type i to server j; a server that may not take them turns them away."""
    m = params.rewards.shape[1]
    state.arrivals[b, i] -= count
    if j < 0 or j >= m or not params.allowed[i, j]:
        state.invalid_actions[b] += 1
        state.turned_away[b] += count
    elif count > 0:
        join_kernel(state, b, j, i, state.elapsed_time[b], count)
        state.pending[b, i * m + j] += count


@outlined_kernel
def scatter_kernel(params, state, b, i, weights):
    """Send each job of type i to a server drawn in proportion to its weights; turn them away if these are no weights."""
    m = params.rewards.shape[1]
    total, last, is_valid = 0.0, 0, True
    for j in range(m):
        weight = float(weights[i * m + j])
        is_valid = is_valid and weight >= 0.0
        if params.allowed[i, j] and weight > 0.0:
            total += weight
            last = j
    if not (is_valid and 0.0 < total < np.inf):
        route_kernel(params, state, b, i, -1, state.arrivals[b, i])
        return
    for _ in range(state.arrivals[b, i]):
        level = uniform(state.routing, b) * total
        chosen = last  # also where rounding leaves `level` beyond the last
        for j in range(last):
            if params.allowed[i, j]:
                level -= float(weights[i * m + j])
                if level < 0.0:
                    chosen = j
                    break
        route_kernel(params, state, b, i, chosen, 1)


@outlined_kernel
def serve_kernel(params, state, b):
    """Every server serves; the next slot begins. Returns the reward of the slot."""
    m = params.rewards.shape[1]
    reward = 0.0
    for j in range(m):
        extra = params.extra[j] > 0.0 and uniform(state.world, b) < params.extra[j]
        for _ in range(min(state.queue[b, j], params.capacity[j] + extra)):
            head = leave_kernel(state, b, j)
            i = state.batch_kind[b, head]
            reward += complete_kernel(params, state, b, i, j)
            state.waiting_time[b, i] += state.elapsed_time[b] - state.batch_slot[b, head]
        state.queue_time[b, j] += state.queue[b, j]
    state.elapsed_time[b] += 1
    arrive_kernel(params, state, b)
    return reward


@outlined_kernel
def complete_kernel(params, state, b, i, j):
    """A job of type i is completed at server j: reveal and learn."""
    k = i * params.rewards.shape[1] + j
    r, level = state.rewards[b, k], uniform(state.revelation, b)
    expected = clipped_mean(r, params.noise, params.reward_cap)
    if params.has_noise:
        revealed = min(max(r + params.noise * (2.0 * level - 1.0), 0.0), params.reward_cap)
    else:
        revealed = 1.0 if level < r else 0.0
    state.pending[b, k] -= 1
    state.served[b, k] += 1
    count = state.served[b, k]
    state.mean[b, k] = ((count - 1) * state.mean[b, k] + revealed) / count
    state.total_reward[b] += revealed
    state.expected_reward[b] += expected
    return expected if params.is_expected else revealed


@outlined_kernel
def arrive_kernel(params, state, b):
    """The jobs of the slot that begins; none after the last."""
    for i in range(len(params.arrival_rates)):
        count = 0
        if state.elapsed_time[b] < params.horizon:
            count = arrivals_kernel(state.world, b, params.law, params.arrival_rates[i], params.trials[i])
            count = min(count, params.most_jobs - state.jobs[b])
        state.arrivals[b, i] = count
        state.jobs[b] += count


@kernel
def observe_kernel(params, state, b, out):
    """The parts named by `layout`, one after the other."""
    n, m = params.rewards.shape
    for j in range(m):
        out[j] = state.queue[b, j]
    for k in range(n * m):
        out[m + k] = state.pending[b, k]
        out[m + n * m + k] = state.served[b, k]
        out[m + 2 * n * m + k] = state.mean[b, k]
    start = m + 3 * n * m
    for i in range(n):
        out[start + i] = state.arrivals[b, i]
        out[start + n + i] = params.arrival_rates[i]
    out[start + 2 * n] = state.elapsed_time[b] / params.horizon
    if params.has_known_rewards:
        for k in range(n * m):
            out[start + 2 * n + 1 + k] = clipped_mean(state.rewards[b, k], params.noise, params.reward_cap)


@kernel
def mask_kernel(params, state, b, out):
    """The servers that may take a type: of every type in turn, or of the type of the job to be routed."""
    n, m = params.rewards.shape
    if params.mode == SERVER:
        for k in range(n * m):
            out[k] = params.allowed[k // m, k % m]
    elif params.mode == JOB:
        waiting = 0
        while waiting < n - 1 and state.arrivals[b, waiting] == 0:
            waiting += 1
        for j in range(m):
            out[j] = params.allowed[waiting, j]


def layout(instance: CongestionLearningInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the observation."""
    n, m = instance.n_types, instance.n_servers
    sizes = {"queue": m, "pending": n * m, "served": n * m, "mean": n * m, "arrivals": n, "arrival_rates": n, "time": 1}
    if options["known_rewards"]:
        sizes["rewards"] = n * m
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends)}


def action_space(instance: CongestionLearningInstance, options: Mapping[str, Any]) -> gym.Space[Any]:
    """One server per type, a matrix of weights, or one server."""
    n, m = instance.n_types, instance.n_servers
    if options["action"] == "server":
        return gym.spaces.MultiDiscrete(np.full(n, m))
    return gym.spaces.Box(0.0, 1.0, (n, m), np.float32) if options["action"] == "probabilities" else gym.spaces.Discrete(m)


def drawn(instance: CongestionLearningInstance, state: State, b: int) -> CongestionLearningInstance:
    """The instance with the rewards of row b."""
    if instance.rewards is not None:
        return instance
    return replace(instance, rewards=state.rewards[b].reshape(instance.n_types, instance.n_servers).copy())


MODEL = Model(
    instance_type=CongestionLearningInstance,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    layout=layout,
    action_space=action_space,
    options={"action": MODES, "reward": ("revealed", "expected"), "known_rewards": (False, True)},
    evaluation_options={"reward": "expected"},
    draw=draw,
    takes_rows=True,
    episode=lambda instance: instance.horizon,
    drawn=drawn,
    **Model.loops(
        __file__,
        info=("elapsed_time", "total_reward", "expected_reward", "turned_away", "invalid_actions"),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=observe_kernel,
        mask_kernel=mask_kernel,
    ),
)


class CongestionLearningEnv(Env):
    """Route jobs to servers whose rewards are learnt only as jobs leave their queues.

    ## Description
    In every slot jobs of I types arrive and must be sent at once to one of J servers with first-come-first-served queues. A
    server completes one job a slot (`service_rates` of them), and a completed job of type i at server j reveals a reward of
    hidden mean `rewards[i, j]`. Good servers must be found, and not be drowned. The objective is the reward of the jobs
    completed within `horizon` slots, per slot. This is the model of Sun, Chai and Zhao (Congestion-Aware Matching and Learning
    for Service Platforms).

    ## Action Space
    By the option `action`:

    - "server": `MultiDiscrete([J] * I)`, one server for all jobs of a type in this slot. The mask is flat, (I J,).
    - "probabilities": `Box(0, 1, (I, J))`, weights by which every job of type i is sent to a server; rows are normalised over
      the servers that may take the type. A Box has no mask: `action_masks()` and `info["action_mask"]` are empty.
    - "job": `Discrete(J)`, a server for the next job of the slot, type by type; queues grow within the slot, and slots without
      jobs pass by themselves. The mask has the servers that may take the job.

    A server that may not take the type, or a row of weights that are negative or all 0, turns the jobs away; this is counted
    in `info["invalid_actions"]`.

    ## Observation Space
    `Box(0, inf, (J + 3 I J + 2 I + 1,), float32)`; `env.unwrapped.observation_layout` names the slices. Pairs (i, j) stand
    row by row.

    | part | meaning | min | max | unit |
    |---|---|---|---|---|
    | `queue` (J) | Q_j, jobs in each queue | 0 | inf | jobs |
    | `pending` (I J) | jobs of type i in queue j: rewards to come | 0 | inf | jobs |
    | `served` (I J) | h_ij, completed jobs | 0 | inf | jobs |
    | `mean` (I J) | their mean revealed reward, 0 if there is none | 0 | reward_cap | reward |
    | `arrivals` (I) | jobs of this slot that are to be routed | 0 | inf | jobs |
    | `arrival_rates` (I) | lambda_i | 0 | inf | jobs per slot |
    | `time` (1) | share of the horizon that has passed | 0 | 1 | - |
    | `rewards` (I J) | the hidden means, only with the option `known_rewards` | 0 | reward_cap | reward |

    ## Rewards
    The sum of the rewards revealed in the slot; with `reward="expected"`, the sum of the means of the jobs completed, which
    has the same expectation and less variance.

    ## Starting State
    Empty queues and nothing learnt. If `rewards` is null, a new matrix is drawn from Unif(0, 1) at every reset.

    ## Episode End
    Terminates after `horizon` slots: jobs still waiting earn nothing. Never truncated, unless `max_episode_steps` is given.

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | slots since the reset |
    | `total_reward` | rewards revealed since the reset |
    | `expected_reward` | sum of the means of the jobs completed since the reset |
    | `turned_away` | jobs that invalid actions have turned away |
    | `invalid_actions` | invalid parts of actions since the reset |
    | `action_mask` | int8, 1 where the action is valid, see Action Space |

    ## Arguments
    - `instance`: a catalogue name, the path of a JSON file, or a dict of JSON values with the fields `arrival_rates` (I,),
      `n_servers`, and optionally `rewards` (I, J) or null, `service_rates` (J,), `compatibility` (I, J), `arrival_law`
      ("poisson", "geometric" on 0, 1, ..., "shifted-geometric" on 1, 2, ..., "binomial" with `arrival_success`),
      `reward_law` ("bernoulli" or "uniform_noise" with `noise`, clipped to [0, `reward_cap`]), `horizon`, and `job_features`
      (I, p) with `server_features` (J, q), which the environment does not use and policies may. Default "base".
    - `action`: "server" (default), "probabilities" or "job".
    - `reward`: "revealed" (default) or "expected".
    - `known_rewards`: if true, the hidden means are observed, for rules that know them. Default false.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.congestion_learning` has the oracle's linear programme, which no policy beats in expectation;
    `matchgym.baselines.congestion_learning` has the paper's algorithms and the solver of its programme (7).

    ## References
    X. Sun, S. Chai, J. Zhao. Congestion-Aware Matching and Learning for Service Platforms.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "base", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class CongestionLearningVectorEnv(VectorEnv):
    """`num_envs` rows of CongestionLearning-v0; see `CongestionLearningEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "base", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
