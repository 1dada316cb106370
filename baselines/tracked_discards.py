"""Which suppliers of a queue with a cap were discarded, drawn from what the observations say.

A policy that discards suppliers who find l_i = cap_i forgets them, but they go on waiting, and no observation tells them from
the others, nor in which order suppliers came and went since the last one. This file draws both from their exact law given the
observations, so that l_i, the suppliers not discarded, follows the law of the queue with a cap. Given the elapsed time t and
the number of survivors S among the Q suppliers that were there (see `tracked_suppliers`), everything else is independent:

* the times at which the Q - S others left, truncated exponentials on [0, t]; each is equally likely to be any of those left;
* the times at which the N = Q' - S newcomers came, t minus truncated exponentials;
* suppliers who came and left in between, Poisson(lambda t - rho (1 - exp(-mu t))) of them: they came at s with density
  proportional to 1 - exp(-mu (t - s)), and stayed for an exponential time truncated at t - s.

Played in the order of their times, they give l_i now.
"""

import math

from matchgym.baselines.tracked_suppliers import elapsed_kernel, survivors_kernel
from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.rng import poisson, uniform

LEAVES, COMES, PASSES, PASSED = (
    0,
    1,
    2,
    3,
)  # kinds of events: an old one leaves, a newcomer, one that will leave, and its leaving


@kernel
def truncated_kernel(rng, b, rate, limit):
    """An exponential time of this rate, given that it is at most `limit`."""
    return -math.log1p(uniform(rng, b) * math.expm1(-rate * limit)) / rate


@kernel
def passage_kernel(rng, b, rate, limit):
    """A number w in [0, limit] with density proportional to 1 - exp(-rate w), by rejection."""
    while True:
        if rate * limit < 2.0:
            w = limit * math.sqrt(uniform(rng, b))
            if uniform(rng, b) * rate * w <= -math.expm1(-rate * w):
                return w
        else:
            w = limit * uniform(rng, b)
            if uniform(rng, b) <= -math.expm1(-rate * w):
                return w


@kernel
def insert_kernel(memory, b, count, time, event, partner):
    """Put an event into its place by time; returns the number of events."""
    if count >= memory.times.shape[1]:
        raise OverflowError("more suppliers came and went between two customers than has a probability above 1e-15")
    k = count
    while k > 0 and memory.times[b, k - 1] > time:
        memory.times[b, k] = memory.times[b, k - 1]
        memory.events[b, k] = memory.events[b, k - 1]
        memory.partners[b, k] = memory.partners[b, k - 1]
        k -= 1
    memory.times[b, k], memory.events[b, k], memory.partners[b, k] = time, event, partner
    return count + 1


@outlined_kernel
def follow_discards_kernel(params, memory, b, obs, rng):
    """Bring memory.tracked (B, s), the lengths of the short queues without the discarded, up to date with the observation."""
    node = elapsed_kernel(params, memory, b, obs, rng)
    elapsed = params.elapsed[node]
    for a in range(len(params.short)):
        i, cap = params.short[a], params.caps[a]
        rate, queue, now = params.departure_rates[i], memory.known[b, i], int(obs[i])
        survivors = min(queue, now)
        if survivors > 0:
            survivors = survivors_kernel(
                rng, b, queue, now, params.survival[i, node], params.departure[i, node], params.newcomers[i, node]
            )

        # Events in the order of their times.
        count = 0
        for _ in range(queue - survivors):
            count = insert_kernel(memory, b, count, truncated_kernel(rng, b, rate, elapsed), LEAVES, 0)
        for _ in range(now - survivors):
            count = insert_kernel(memory, b, count, elapsed - truncated_kernel(rng, b, rate, elapsed), COMES, 0)
        passing = poisson(rng, b, max(0.0, params.supplier_rates[i] * elapsed - params.newcomers[i, node]))
        for k in range(passing):
            left = passage_kernel(rng, b, rate, elapsed)
            stay = truncated_kernel(rng, b, rate, left)
            count = insert_kernel(memory, b, count, elapsed - left, PASSES, k)
            count = insert_kernel(memory, b, count, elapsed - left + stay, PASSED, k)

        # Play them.
        old, old_tracked, tracked = queue, memory.tracked[b, a], memory.tracked[b, a]
        for k in range(count):
            event = memory.events[b, k]
            if event == LEAVES:
                if uniform(rng, b) * old < old_tracked:
                    old_tracked -= 1
                    tracked -= 1
                old -= 1
            elif event == COMES:
                tracked += tracked < cap
            elif event == PASSES:
                memory.admitted[b, memory.partners[b, k]] = tracked < cap
                tracked += tracked < cap
            else:
                tracked -= memory.admitted[b, memory.partners[b, k]]
        memory.tracked[b, a] = tracked
    for i in range(memory.known.shape[1]):
        memory.known[b, i] = int(obs[i])
