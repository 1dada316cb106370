"""Exact enumeration of congestion-aware learning on tiny platforms, written apart from the kernels.

A state is (queues, h, w): the job types waiting at each server, and for each pair the jobs served and the rewards received.
The law of the state is carried forward slot by slot over all arrivals, routings and Bernoulli rewards.
"""

import itertools
import math
from collections import defaultdict

import numpy as np
from scipy.stats import binom


def arrival_laws(instance):
    """Binomial arrivals of each type as lists of (count, probability)."""
    assert instance.arrival_law == "binomial"
    return [
        [(k, float(binom.pmf(k, n, rate / n))) for k in range(n + 1)]
        for rate, n in zip(instance.arrival_rates.tolist(), instance.trials.tolist())
    ]


def upper_bounds(instance, slot, h, w):
    """(6) in slot t = `slot`, with the mean as the observation has it, in 32 bits."""
    r = np.ones(instance.allowed.shape)
    for i, j in np.argwhere(h > 0):
        mean = float(np.float32(w[i, j] / h[i, j]))
        r[i, j] = min(mean + math.sqrt(2 * math.log(max(slot - 1, 1)) / h[i, j]), 1.0)
    return r


def best_servers(r, lengths, eps):
    """Rule (9)."""
    return [max(range(r.shape[1]), key=lambda j: (r[i, j] - eps * lengths[j], -j)) for i in range(len(r))]


def one_hot(servers, m):
    return (np.array(servers)[:, None] == np.arange(m)).astype(float)


def expected_reward(instance, decide, is_learning=True):
    """E R(T) when each job of type i goes to server j with probability decide(t, lengths, h, w)[i, j].

    decide may return one-hot rows as well. With is_learning false, h and w are left out of the state.
    """
    n, m = instance.allowed.shape
    means, laws = instance.mean_rewards, arrival_laws(instance)
    zeros = (0,) * (n * m)
    law = {(((),) * m, zeros, zeros): 1.0}
    total = 0.0
    for slot in range(1, instance.horizon + 1):
        after = defaultdict(float)
        for (queues, h, w), mass in law.items():
            lengths = [len(queue) for queue in queues]
            p = decide(slot, lengths, np.array(h).reshape(n, m), np.array(w).reshape(n, m))
            for arrivals in itertools.product(*laws):
                chance = mass * math.prod(q for _, q in arrivals)
                kinds = [i for i, (count, _) in enumerate(arrivals) for _ in range(count)]
                for servers in itertools.product(range(m), repeat=len(kinds)):
                    routed = chance * math.prod(p[i, j] for i, j in zip(kinds, servers))
                    if routed == 0:
                        continue
                    joined = [list(queue) for queue in queues]
                    for i, j in zip(kinds, servers):
                        joined[j].append(i)
                    heads = [(queue[0], j) for j, queue in enumerate(joined) if queue]
                    left = tuple(tuple(queue[1:]) for queue in joined)
                    total += routed * sum(means[i, j] for i, j in heads)
                    if not is_learning:
                        after[left, h, w] += routed
                        continue
                    for outcomes in itertools.product((0, 1), repeat=len(heads)):
                        found, new_h, new_w = routed, list(h), list(w)
                        for (i, j), x in zip(heads, outcomes):
                            found *= means[i, j] if x else 1 - means[i, j]
                            new_h[i * m + j] += 1
                            new_w[i * m + j] += x
                        after[left, tuple(new_h), tuple(new_w)] += found
        law = after
    assert abs(sum(law.values()) - 1) < 1e-9
    return total
