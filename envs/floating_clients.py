"""Congestion-aware learning when job types are not seen: clients come, make jobs and go (Section EC.3.2 of Sun, Chai, Zhao).

In every slot a client of type i arrives with probability mu_i, i = 1..I, and stays a Geometric(nu_i) number of slots, the slot
of its arrival included. While present it makes Poisson(lambda_i) jobs a slot. The platform sees clients but not their types,
and sends all jobs of a client in a slot to one of J servers; the rest is the model of `congestion_learning`: queues are served
first come first served, one job a slot, and a completed job of a client of type i at server j reveals a reward of hidden mean
r_ij.

    mu_i -> client_arrivals[i]     nu_i -> client_departures[i]     lambda_i -> job_rates[i]     r_ij -> rewards[i, j]

Clients sit on numbered seats, a new one on the first that is free; what is known of a seat is what its client has taught. One
slot:

1. Routing. The jobs of each client join the queue of the server chosen for it, seat by seat.
2. Service. Each server completes its head job and reveals its reward. If the client is still there, its h and rbar are updated;
   else nothing is learnt, but the reward counts.
3. Clients. The clock moves on; clients leave, new ones arrive, and those present make the jobs of the next slot.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.floating_clients import CATALOGUE
from matchgym.envs.compile import Integer, Integers, IntegerTable, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.congestion_instances import FloatingClientsInstance
from matchgym.envs.congestion_learning_view import draw
from matchgym.envs.rng import poisson, uniform
from matchgym.envs.slotted_queues import batch_tables, clear_kernel, join_kernel, leave_kernel, split_kernel

GONE = 1e-12  # probability of still being present below which the past is not drawn at a stationary start


class Params(NamedTuple):
    client_arrivals: Reals  # (I,)
    client_departures: Reals  # (I,)
    job_rates: Reals  # (I,)
    rewards: RealTable  # (I, J), zeros if they are drawn
    horizon: Integer
    is_drawn: Integer
    is_expected: Integer
    is_stationary_start: Integer


class State(NamedTuple):
    stream: WordTable  # (B, 4) starts the others
    world: WordTable  # (B, 4) clients and their jobs
    revelation: WordTable  # (B, 4)
    elapsed_time: Integers  # (B,) slots completed
    seat_client: IntegerTable  # (B, C) number of the client on a seat, -1 for none
    age: IntegerTable  # (B, C) slots of the client's presence, this one included
    arrivals: IntegerTable  # (B, C) jobs of this slot
    pending: IntegerTable  # (B, C J)
    served: IntegerTable  # (B, C J)
    mean: RealTable  # (B, C J)
    client_type: IntegerTable  # (B, N) hidden
    client_seat: IntegerTable  # (B, N) -1 when gone
    n_clients: Integers  # (B,) so far
    clients_turned_away: Integers  # (B,)
    rewards: RealTable  # (B, I J) r of this episode, hidden
    total_reward: Reals  # (B,)
    expected_reward: Reals  # (B,)
    jobs: Integers  # (B,) made since the reset
    turned_away: Integers  # (B,) jobs, by invalid actions
    invalid_actions: Integers  # (B,)
    first: IntegerTable  # (B, J) see `slotted_queues`; the kind of a batch is the client's number
    last: IntegerTable  # (B, J)
    queue: IntegerTable  # (B, J)
    next: IntegerTable  # (B, T C)
    batch_kind: IntegerTable  # (B, T C)
    batch_slot: IntegerTable  # (B, T C)
    batch_size: IntegerTable  # (B, T C)
    n_batches: Integers  # (B,)


def params(instance: FloatingClientsInstance, reward: str, initial_state: str) -> Params:
    """The numbers that the kernels read."""
    given = np.zeros((instance.n_types, instance.n_servers)) if instance.rewards is None else instance.rewards
    return Params(
        client_arrivals=instance.client_arrivals,
        client_departures=instance.client_departures,
        job_rates=instance.job_rates,
        rewards=given,
        horizon=instance.horizon,
        is_drawn=int(instance.rewards is None),
        is_expected=int(reward == "expected"),
        is_stationary_start=int(initial_state == "stationary"),
    )


def state(instance: FloatingClientsInstance, batch: int) -> State:
    """Zeroed rows. At most one client per type and slot comes, and the seats at the start."""
    n, m, seats = instance.n_types, instance.n_servers, instance.n_seats
    clients = n * instance.horizon + seats
    widths = {
        "seat_client": seats, "age": seats, "arrivals": seats, "pending": seats * m, "served": seats * m,
        "client_type": clients, "client_seat": clients,
    }  # fmt: skip
    counts = ("elapsed_time", "n_clients", "clients_turned_away", "jobs", "turned_away", "invalid_actions")
    fields: dict[str, Any] = {name: np.zeros((batch, 4), np.uint64) for name in ("stream", "world", "revelation")}
    fields |= {name: np.zeros((batch, width), np.int64) for name, width in widths.items()}
    fields |= {name: np.zeros(batch, np.int64) for name in counts}
    fields |= {name: np.zeros(batch) for name in ("total_reward", "expected_reward")}
    fields |= batch_tables(batch, m, seats * instance.horizon)
    return State(**fields, mean=np.zeros((batch, seats * m)), rewards=np.zeros((batch, n * m)))


@kernel
def reset_kernel(params, state, b):
    """Empty queues and seats, hidden rewards drawn if they are not given; then the clients of the first slot."""
    n, m = params.rewards.shape
    split_kernel(state.world, b, state.stream)
    split_kernel(state.revelation, b, state.stream)
    for k in range(n * m):
        state.rewards[b, k] = uniform(state.stream, b) if params.is_drawn else params.rewards[k // m, k % m]
    clear_kernel(state, b)
    for c in range(state.seat_client.shape[1]):
        vacate_kernel(state, b, c)
    state.n_clients[b] = state.clients_turned_away[b] = state.elapsed_time[b] = 0
    state.jobs[b] = state.turned_away[b] = state.invalid_actions[b] = 0
    state.total_reward[b] = state.expected_reward[b] = 0.0
    if params.is_stationary_start:
        for i in range(n):
            chance = params.client_arrivals[i] * (1.0 - params.client_departures[i])
            while chance > GONE:  # the client of k slots ago came and is still there
                if uniform(state.world, b) < chance:
                    seat_kernel(state, b, i)
                chance *= 1.0 - params.client_departures[i]
    come_kernel(params, state, b)


@outlined_kernel
def vacate_kernel(state, b, c):
    """Free a seat and forget what its client taught."""
    m = state.queue.shape[1]
    state.seat_client[b, c] = -1
    state.age[b, c] = state.arrivals[b, c] = 0
    for j in range(m):
        state.pending[b, c * m + j] = state.served[b, c * m + j] = 0
        state.mean[b, c * m + j] = 0.0


@outlined_kernel
def seat_kernel(state, b, i):
    """A client of type i takes the first free seat, or is turned away."""
    for c in range(state.seat_client.shape[1]):
        if state.seat_client[b, c] < 0:
            client = state.n_clients[b]
            state.n_clients[b] += 1
            state.seat_client[b, c] = client
            state.client_type[b, client], state.client_seat[b, client] = i, c
            return
    state.clients_turned_away[b] += 1


@kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated). The action is a row of servers, one per seat."""
    m = params.rewards.shape[1]
    if state.elapsed_time[b] >= params.horizon:
        return 0.0, True

    # Routing.
    for c in range(state.seat_client.shape[1]):
        if state.seat_client[b, c] >= 0:
            j, count = int(action[c]), state.arrivals[b, c]
            if j < 0 or j >= m:
                state.invalid_actions[b] += 1
                state.turned_away[b] += count
            elif count > 0:
                join_kernel(state, b, j, state.seat_client[b, c], state.elapsed_time[b], count)
                state.pending[b, c * m + j] += count
        elif action[c] < 0 or action[c] >= m:
            state.invalid_actions[b] += 1

    # Service.
    reward = 0.0
    for j in range(m):
        if state.queue[b, j] > 0:
            client = state.batch_kind[b, leave_kernel(state, b, j)]
            reward += complete_kernel(params, state, b, client, j)

    # Clients.
    state.elapsed_time[b] += 1
    for c in range(state.seat_client.shape[1]):
        client = state.seat_client[b, c]
        if client >= 0 and uniform(state.world, b) < params.client_departures[state.client_type[b, client]]:
            state.client_seat[b, client] = -1
            vacate_kernel(state, b, c)
    come_kernel(params, state, b)
    return reward, state.elapsed_time[b] >= params.horizon


@outlined_kernel
def complete_kernel(params, state, b, client, j):
    """A job of a client is completed at server j: reveal, and learn if the client is still there."""
    m = params.rewards.shape[1]
    expected = state.rewards[b, state.client_type[b, client] * m + j]
    revealed = 1.0 if uniform(state.revelation, b) < expected else 0.0
    seat = state.client_seat[b, client]
    if seat >= 0:
        k = seat * m + j
        state.pending[b, k] -= 1
        state.served[b, k] += 1
        count = state.served[b, k]
        state.mean[b, k] = ((count - 1) * state.mean[b, k] + revealed) / count
    state.total_reward[b] += revealed
    state.expected_reward[b] += expected
    return expected if params.is_expected else revealed


@outlined_kernel
def come_kernel(params, state, b):
    """New clients come, and all who are present make their jobs of the slot; nobody does after the last."""
    is_over = state.elapsed_time[b] >= params.horizon
    for i in range(len(params.client_arrivals)):
        if not is_over and uniform(state.world, b) < params.client_arrivals[i]:
            seat_kernel(state, b, i)
    for c in range(state.seat_client.shape[1]):
        client, count = state.seat_client[b, c], 0
        if client >= 0 and not is_over:
            state.age[b, c] += 1
            count = int(poisson(state.world, b, params.job_rates[state.client_type[b, client]]))
        state.arrivals[b, c] = count
        state.jobs[b] += count


@kernel
def observe_kernel(params, state, b, out):
    """The parts named by `layout`, one after the other."""
    seats, m = state.seat_client.shape[1], params.rewards.shape[1]
    for j in range(m):
        out[j] = state.queue[b, j]
    for k in range(seats * m):
        out[m + k] = state.pending[b, k]
        out[m + seats * m + k] = state.served[b, k]
        out[m + 2 * seats * m + k] = state.mean[b, k]
    start = m + 3 * seats * m
    for c in range(seats):
        out[start + c] = state.arrivals[b, c]
        out[start + seats + c] = state.age[b, c]
    out[start + 2 * seats] = state.elapsed_time[b] / params.horizon


@kernel
def mask_kernel(params, state, b, out):
    """Every server is valid for every seat; what is chosen for a free one has no effect."""
    out[:] = True


def layout(instance: FloatingClientsInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the observation, in the order of `congestion_learning` with seats in place of types."""
    seats, pairs = instance.n_seats, instance.n_seats * instance.n_servers
    sizes = {"queue": instance.n_servers, "pending": pairs, "served": pairs, "mean": pairs}
    sizes |= {"arrivals": seats, "age": seats, "time": 1}
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends)}


def action_space(instance: FloatingClientsInstance, options: Mapping[str, Any]) -> gym.spaces.MultiDiscrete:
    """One server per seat."""
    return gym.spaces.MultiDiscrete(np.full(instance.n_seats, instance.n_servers))


def drawn(instance: FloatingClientsInstance, state: State, b: int) -> FloatingClientsInstance:
    """The instance with the rewards of row b."""
    if instance.rewards is not None:
        return instance
    return replace(instance, rewards=state.rewards[b].reshape(instance.n_types, instance.n_servers).copy())


MODEL = Model(
    instance_type=FloatingClientsInstance,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    layout=layout,
    action_space=action_space,
    options={"reward": ("revealed", "expected"), "initial_state": ("empty", "stationary")},
    evaluation_options={"reward": "expected"},
    draw=partial(draw, who="client"),
    episode=lambda instance: instance.horizon,
    drawn=drawn,
    **Model.loops(
        __file__,
        info=("elapsed_time", "total_reward", "expected_reward", "clients_turned_away", "turned_away", "invalid_actions"),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=observe_kernel,
        mask_kernel=mask_kernel,
    ),
)


class FloatingClientsEnv(Env):
    """Route the jobs of clients whose types must be guessed from what their jobs earn.

    ## Description
    Clients of I hidden types come, stay for a while, make jobs and go. All jobs of a client in a slot are sent to one of J
    servers with first-come-first-served queues; each completes one job a slot, and a completed job reveals a reward whose
    hidden mean depends on the type and the server. What is learnt of a client is lost when it goes. The objective is the
    reward of the jobs completed within `horizon` slots, per slot. This is Section EC.3.2 of Sun, Chai and Zhao
    (Congestion-Aware Matching and Learning for Service Platforms).

    ## Action Space
    `MultiDiscrete([J] * C)`: a server for each of the C seats; without effect for a free seat. The mask is flat, (C J,), and
    always 1. A server out of range turns the jobs away and is counted in `info["invalid_actions"]`.

    ## Observation Space
    `Box(0, inf, (J + 3 C J + 2 C + 1,), float32)`; `env.unwrapped.observation_layout` names the slices. Pairs (seat, server)
    stand row by row. C is so large that all seats are taken with probability below 1e-9 per episode.

    | part | meaning | min | max | unit |
    |---|---|---|---|---|
    | `queue` (J) | Q_j, jobs in each queue | 0 | inf | jobs |
    | `pending` (C J) | jobs of the seat's client in queue j | 0 | inf | jobs |
    | `served` (C J) | completed jobs of the seat's client at server j | 0 | inf | jobs |
    | `mean` (C J) | their mean revealed reward, 0 if there is none | 0 | 1 | reward |
    | `arrivals` (C) | jobs of this slot that are to be routed | 0 | inf | jobs |
    | `age` (C) | slots of the client's presence, this one included; 0 for a free seat | 0 | inf | slots |
    | `time` (1) | share of the horizon that has passed | 0 | 1 | - |

    ## Rewards
    The sum of the rewards revealed in the slot; with `reward="expected"`, the sum of the means of the jobs completed.

    ## Starting State
    Empty queues; no clients before the first slot (`initial_state="empty"`) or as many as in the long run (`"stationary"`). If
    `rewards` is null, a new matrix is drawn from Unif(0, 1) at every reset.

    ## Episode End
    Terminates after `horizon` slots: jobs still waiting earn nothing. Never truncated, unless `max_episode_steps` is given.

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | slots since the reset |
    | `total_reward` | rewards revealed since the reset |
    | `expected_reward` | sum of the means of the jobs completed since the reset |
    | `clients_turned_away` | clients who found no seat |
    | `turned_away` | jobs that invalid actions have turned away |
    | `invalid_actions` | invalid parts of actions since the reset |
    | `action_mask` | int8 (C J,), all 1 |

    ## Arguments
    - `instance`: a catalogue name, the path of a JSON file, or a dict of JSON values with the fields `client_arrivals` (I,),
      `client_departures` (I,), `job_rates` (I,), `n_servers`, and optionally `rewards` (I, J) or null, `horizon`.
      Default "floating-0.1".
    - `reward`: "revealed" (default) or "expected".
    - `initial_state`: "empty" (default) or "stationary".
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.floating_clients` has the oracle's programme (EC.37), `matchgym.baselines.floating_clients` the queue rule
    that learns client by client.

    ## References
    X. Sun, S. Chai, J. Zhao. Congestion-Aware Matching and Learning for Service Platforms.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "floating-0.1", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class FloatingClientsVectorEnv(VectorEnv):
    """`num_envs` rows of FloatingClients-v0; see `FloatingClientsEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "floating-0.1", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
