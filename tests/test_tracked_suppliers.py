"""The exact conditional law of who has left, given the queues at two decisions."""

import itertools
import math

import numpy as np
import pytest
from cases import random_instance
from scipy import integrate, stats

from matchgym.baselines.stationary_matching import BalancedGreedy
from matchgym.baselines.tracked_suppliers import TrackedMemory, TrackedParams, follow_kernel
from matchgym.envs.compile import kernel, opener, pack, views
from matchgym.envs.rng import seed_words

open_params, open_memory = opener(TrackedParams), opener(TrackedMemory)


@kernel
def follow(params_buffer, memory_buffer, obs):
    params, memory = open_params(params_buffer), open_memory(memory_buffer)
    for b in range(len(memory.known)):
        follow_kernel(params, memory, b, obs, memory.stream)


def joint_law(instance, queue, now):
    """Pr[S = s | Q, Q'] for all s, by adaptive quadrature over the elapsed time."""
    gamma = instance.customer_rates.sum()

    def weight(t, survivors):
        value = gamma * math.exp(-gamma * t)
        for i, s in enumerate(survivors):
            p = math.exp(-instance.departure_rates[i] * t)
            value *= stats.binom.pmf(s, queue[i], p) * stats.poisson.pmf(now[i] - s, instance.offered[i] * (1 - p))
        return value

    support = list(itertools.product(*(range(min(a, b) + 1) for a, b in zip(queue, now))))
    mass = np.array([integrate.quad(weight, 0, np.inf, args=(s,), epsabs=1e-14, epsrel=1e-10)[0] for s in support])
    return support, mass / mass.sum()


@pytest.mark.parametrize(
    ("queue", "now"),
    [([2, 1], [2, 1]), ([3, 0], [1, 2]), ([0, 0], [1, 0]), ([1, 4], [3, 2]), ([5, 2], [0, 2]), ([2, 2], [6, 5])],
)
@pytest.mark.parametrize("side", ["table", "no table"])
def test_survivors_have_the_conditional_law(queue, now, side):
    instance, rows = random_instance(6, n=2, m=2, zeros=0.0), 40_000
    policy = BalancedGreedy(transform=False).fit(instance)
    params = policy.params_ if side == "table" else policy.params_._replace(side=0)
    buffer = pack(policy.memory(rows))
    memory = views(TrackedMemory, buffer)
    for b in range(rows):
        memory.stream[b] = seed_words((b, 9))
    memory.known[:] = queue
    memory.names[:] = 0
    follow(pack(params), buffer, np.array([*now, 1, 0], np.float32))
    assert (memory.known == now).all()
    survivors = np.stack(
        [
            (memory.names[:, params.offset[i] : params.offset[i] + now[i]] == 0).sum(1)  # a new name is 0 with chance 2^-64
            for i in range(2)
        ],
        axis=1,
    )
    support, law = joint_law(instance, queue, now)
    counts = np.array([(survivors == s).all(1).sum() for s in support])
    assert counts.sum() == rows
    big = law * rows >= 10
    observed = np.append(counts[big], counts[~big].sum())
    expected = np.append(law[big], law[~big].sum()) * rows
    keep = expected > 1
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9))[keep].sum()
    assert keep.sum() < 2 or stats.chi2.sf(statistic, keep.sum() - 1) > 1e-4


def test_every_survivor_is_equally_likely():
    instance, rows = random_instance(6, n=2, m=2, zeros=0.0), 40_000
    policy = BalancedGreedy(transform=False).fit(instance)
    buffer = pack(policy.memory(rows))
    memory = views(TrackedMemory, buffer)
    for b in range(rows):
        memory.stream[b] = seed_words((b, 10))
    memory.known[:] = [4, 0]
    memory.names[:, :4] = [1, 2, 3, 4]
    follow(pack(policy.params_), buffer, np.array([2, 0, 1, 0], np.float32))
    names = memory.names[:, :2]
    counts = np.array([(names == k).sum() for k in (1, 2, 3, 4)])
    assert stats.chisquare(counts).pvalue > 1e-4
    assert counts.sum() > rows  # most are survivors


def test_a_queue_beyond_its_space_is_an_error():
    instance = random_instance(6, n=2, m=2)
    policy = BalancedGreedy(transform=False).fit(instance)
    with pytest.raises(OverflowError, match="queue"):
        policy.predict(np.array([1e6, 0, 1, 0], np.float32))
