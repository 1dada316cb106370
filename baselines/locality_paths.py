"""Paths of local JSQ(d) from a given start: the servers of each type by queue length at given times."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import kernel, opener, pack, specialise, views
from matchgym.envs.data_locality import Params, State, fill_kernel, next_task_kernel, params, state
from matchgym.envs.locality_instances import DataLocalityInstance
from matchgym.envs.locality_servers import join_kernel, look_at_all_kernel, type_kernel
from matchgym.envs.rng import seed_words


@kernel
def shortest_kernel(state, b):
    """The shortest of the servers drawn; they stand in random order, so that the first of several is a uniform one."""
    best = state.sampled[b, 0]
    for s in range(1, state.n_sampled[b]):
        j = state.sampled[b, s]
        if state.servers[b, 2 * j] < state.servers[b, 2 * best]:
            best = j
    return best


@kernel
def count_kernel(params, state, b, queues, tasks):
    """Servers with at least l tasks in queues (M, L + 1), all tasks in `tasks` (M,), by type."""
    queues[:] = 0.0
    tasks[:] = 0.0
    for j in range(params.server_ends[-1]):
        m = type_kernel(params.server_ends, j)
        length = int(state.servers[b, 2 * j])
        tasks[m] += length
        for level in range(min(length, queues.shape[1] - 1) + 1):
            queues[m, level] += 1.0


def _path(params_buffer, state_buffer, times, queues, tasks):
    params, state = open_params(params_buffer), open_state(state_buffer)  # noqa: F821
    fill_kernel(params, state, 0)
    done = 0
    while True:
        arrival = state.elapsed_time[0] + state.gap[0]
        while times[done] < arrival:
            state.elapsed_time[0] = times[done]
            look_at_all_kernel(params, state, 0)
            count_kernel(params, state, 0, queues[done], tasks[done])
            done += 1
            if done == len(times):
                return
        state.gap[0] = arrival - state.elapsed_time[0]
        next_task_kernel(params, state, 0)
        j = shortest_kernel(state, 0)
        join_kernel(params, state, 0, j, type_kernel(params.server_ends, j))


_path_of = specialise(_path, "locality_path", __file__, open_params=opener(Params), open_state=opener(State))


def paths(
    instance: DataLocalityInstance, times: Sequence[float], runs: int, levels: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Runs of JSQ(d), each with its own graph and start.

    Parameters
    ----------
    times : (T,) increasing, >= 0.
    runs : R; run r draws its graph with `graph_seed + r`.
    levels : L.
    seed : of the runs' streams.

    Returns
    -------
    The fraction of type-m servers with at least l tasks (R, T, M, L + 1), and the mean tasks of a type-m server (R, T, M).
    """
    grid, n = np.array(times, float), instance.n_types
    queues, tasks = np.empty((runs, len(grid), n, levels + 1)), np.empty((runs, len(grid), n))
    for r in range(runs):
        drawn = dataclasses.replace(instance, graph_seed=instance.graph_seed + r)
        rows = pack(state(drawn, 1))
        views(State, rows).stream[0] = seed_words((seed, r))
        _path_of(pack(params(drawn, "server", "sojourn", "none", 4)), rows, grid, queues[r], tasks[r])
    counts = instance.server_counts
    return queues / counts[:, None], tasks / counts
