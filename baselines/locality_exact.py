"""Exact values of policies for data locality, from their laws of action at every state and every dispatcher's view of it."""

import math
from collections import Counter
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.policy import Policy
from matchgym.bounds.locality_chain import MAX_STATES, TAIL, make_chain, solve_chain
from matchgym.envs.data_locality import MODEL
from matchgym.envs.instance import InputError
from matchgym.envs.locality_instances import DataLocalityInstance, draw_graph, neighbours

CHUNK = 2**22  # numbers in the observations of one call of a policy
FIRST_TAIL = 1e-8  # of a pooled queue, beyond which states are left out at first
MOST_DRAWS = 100_000  # ordered samples of d servers


class Value(NamedTuple):
    """Minus the stationary mean of tasks per server, within `error` of `mean`."""

    mean: float
    error: float


def views(instance: DataLocalityInstance) -> dict[tuple[int, tuple[int, ...]], float]:
    """(type of dispatcher, its servers) -> the rate of tasks that see these."""
    graph = draw_graph(instance)
    kinds = np.repeat(np.arange(instance.n_dispatcher_types), instance.dispatcher_counts)
    found = Counter((int(k), tuple(neighbours(graph, i).tolist())) for i, k in enumerate(kinds))
    return {view: instance.arrival_rate * count for view, count in found.items()}


def arrival_rates(policy: Policy, instance: DataLocalityInstance, states: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rates (S, N) at which a policy sends tasks to each server, at states (S, N)."""
    options = MODEL.check_options(policy.options)
    rates = np.zeros(states.shape)
    size = max(part.stop for part in MODEL.layout(instance, options).values())
    chunk = max(1, CHUNK // size)
    for first in range(0, len(states), chunk):
        part = slice(first, first + chunk)
        for (kind, servers), rate in views(instance).items():
            see = _by_class if options["action"] == "class" else _by_samples
            see(policy, instance, options, kind, servers, rate, states[part], rates[part])
    return rates


def _by_samples(
    policy: Policy,
    instance: DataLocalityInstance,
    options: dict[str, Any],
    kind: int,
    servers: tuple[int, ...],
    rate: float,
    states: NDArray[np.int64],
    rates: NDArray[np.float64],
) -> None:
    """Add what a view sends, over all ordered samples."""
    size = instance.choices if len(servers) >= instance.choices else 1
    if math.perm(len(servers), size) > MOST_DRAWS:
        raise InputError(f"n_servers {instance.n_servers} leaves too many samples of {size} for an exact value.")
    layout = MODEL.layout(instance, options)
    types = np.repeat(np.arange(instance.n_types), instance.server_counts)
    obs = np.zeros((len(states), max(part.stop for part in layout.values())), np.float32)
    obs[:, layout["dispatcher"].start + kind] = 1
    each = rate / math.perm(len(servers), size)
    masks = np.zeros((len(states), instance.choices), np.bool_)
    masks[:, :size] = True
    for drawn in permutations(servers, size):
        chosen = list(drawn)
        obs[:, layout["queue"].start : layout["queue"].start + size] = states[:, chosen]
        obs[:, layout["rate"].start : layout["rate"].start + size] = instance.service_rates[types[chosen]]
        onehot = np.eye(instance.n_types)[types[chosen]].ravel()
        obs[:, layout["type"].start : layout["type"].start + len(onehot)] = onehot
        _add_occupancy(instance, options, layout, servers, states, obs)
        law = policy.probabilities(obs, masks)
        for slot, j in enumerate(drawn):
            rates[:, j] += each * law[:, slot]


def _add_occupancy(
    instance: DataLocalityInstance,
    options: dict[str, Any],
    layout: dict[str, slice],
    servers: tuple[int, ...],
    states: NDArray[np.int64],
    obs: NDArray[np.float32],
) -> None:
    """Write the counts of servers by class that the options show."""
    levels, types = options["levels"], np.repeat(np.arange(instance.n_types), instance.server_counts)
    for name, members in (("local", servers), ("global", range(instance.n_servers))):
        if name in layout:
            obs[:, layout[name]] = 0
            for j in members:
                cell = types[j] * levels + np.minimum(states[:, j], levels - 1)
                obs[np.arange(len(states)), layout[name].start + cell] += 1


def _by_class(
    policy: Policy,
    instance: DataLocalityInstance,
    options: dict[str, Any],
    kind: int,
    servers: tuple[int, ...],
    rate: float,
    states: NDArray[np.int64],
    rates: NDArray[np.float64],
) -> None:
    """Add what a view sends: a class, then a uniform server of it."""
    layout, levels = MODEL.layout(instance, options), options["levels"]
    types, rows = np.repeat(np.arange(instance.n_types), instance.server_counts), np.arange(len(states))
    obs = np.zeros((len(states), max(part.stop for part in layout.values())), np.float32)
    obs[:, layout["dispatcher"].start + kind] = 1
    _add_occupancy(instance, options, layout, servers, states, obs)
    local = obs[:, layout["local"]]
    law = policy.probabilities(obs, local > 0)
    for j in servers:
        cell = types[j] * levels + np.minimum(states[:, j], levels - 1)
        rates[:, j] += rate * law[rows, cell] / local[rows, cell]


def static_value(policy: Policy, instance: DataLocalityInstance) -> Value:
    """Independent M/M/1 queues: -sum_j r_j / (1 - r_j) / N; -inf if one of them is overloaded."""
    if policy.options.get("action", "server") == "server":  # uniform
        loads = np.zeros(instance.n_servers)
        for (_, servers), rate in views(instance).items():
            loads[list(servers)] += rate / len(servers)
    else:
        loads = arrival_rates(policy, instance, np.zeros((1, instance.n_servers), np.int64))[0]
    loads = loads / instance.rates
    return Value(-float((loads / (1 - loads)).sum()) / instance.n_servers if loads.max() < 1 else -math.inf, 0.0)


def chain_value(policy: Policy, instance: DataLocalityInstance, max_states: int | None = None) -> Value:
    """By the chain of the servers' numbers of tasks, cut off at a total that costs nothing visible."""
    limit = MAX_STATES if max_states is None else max_states
    most = max(12, math.ceil(math.log(FIRST_TAIL) / math.log(instance.total_rate / instance.rates.sum())))
    while True:
        chain = make_chain(instance.n_servers, most, limit)
        found = solve_chain(chain, arrival_rates(policy, instance, chain.states), instance.rates)
        ratio = min(found.totals[-1] / found.totals[-2], 0.999)
        if found.totals[-1] * most / (1 - ratio) ** 2 < TAIL * max(1.0, found.mean) * 1e3:
            return Value(-found.mean / instance.n_servers, found.error / instance.n_servers)
        most = math.ceil(1.4 * most)
