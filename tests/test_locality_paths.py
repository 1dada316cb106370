"""Paths of local JSQ(d) against the mean-field limit and against a closed form."""

import dataclasses

import numpy as np
import pytest

from matchgym.baselines.locality_paths import paths
from matchgym.bounds.locality_limit import limit_of, transient
from matchgym.envs.catalogues.data_locality import paper, pooled_limit
from matchgym.envs.data_locality import MODEL

LEVEL = 4.0  # standard errors: a false alarm in 16,000


@pytest.mark.parametrize(("n_servers", "start"), [(200, "q"), (1000, "q1"), (1000, None)])
def test_paths_follow_the_ode(n_servers, start):
    """Within LEVEL standard errors and 10 / N, which E q^N(t) is away from q(t)."""
    instance = MODEL.load(paper(n_servers, start))
    times = (0.0, 0.3, 1.0, 2.5)
    queues, tasks = paths(instance, times, 40, 6, seed=3)
    limit = np.array(transient(limit_of(instance), times, instance.initial_lengths))
    allowed = LEVEL * queues.std(0, ddof=1) / np.sqrt(len(queues)) + 10 / n_servers
    assert (np.abs(queues.mean(0) - limit[:, :, :7]) <= allowed).all()
    assert (queues[:, :, :, 0] == 1).all()
    spread = LEVEL * tasks.std(0, ddof=1) / np.sqrt(len(tasks)) + 10 / n_servers
    assert (np.abs(tasks.mean(0) - limit[:, :, 1:].sum(2)) <= spread).all()


def test_one_choice_gives_independent_queues():
    """d = 1: an M/M/1 queue each, whose chance of being busy at time t is known; the start itself at t = 0."""
    instance = dataclasses.replace(
        MODEL.load(pooled_limit(400)), choices=1, initial_lengths=np.array([[0.0, 1.0]]), arrival_rate=0.5
    )
    queues, _ = paths(instance, (0.0, 1.0), 60, 1, seed=1)
    assert (queues[:, 0] == 1).all()
    # Uniformisation of the queue cut off at 40 tasks, from one task.
    law, result, weight = np.eye(41)[1], np.zeros(41), np.exp(-1.5)
    for k in range(60):
        result += weight * law
        weight *= 1.5 / (k + 1)
        law = (0.5 * np.r_[0, law[:-1]] + 1.0 * np.r_[law[1:], 0] + np.r_[law[0], np.zeros(40)]) / 1.5
    busy = queues[:, 1, 0, 1]
    assert abs(busy.mean() - (1 - result[0])) <= LEVEL * busy.std(ddof=1) / np.sqrt(len(busy))


def test_runs_are_reproducible_and_differ():
    instance = MODEL.load(paper(100, "q"))
    first, again, other = (paths(instance, (1.0,), 3, 2, seed)[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert (first[0] != first[1]).any()
