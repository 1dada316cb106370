"""Slotted queues of jobs: how many jobs a slot brings, and first-come-first-served queues of whole batches.

A batch is the jobs of one kind that join one queue in one slot. Batches are numbered in the order in which they are made, and
never taken back: a row holds as many as an episode can need (`largest_total`), and each queue is a list linked through `next`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import outlined_kernel
from matchgym.envs.rng import binomial, logarithm, next_word, poisson, uniform

LAWS = ("poisson", "geometric", "shifted-geometric", "binomial")
POISSON, GEOMETRIC, SHIFTED, BINOMIAL = range(len(LAWS))
NEVER = 1e-18  # probability that an episode brings more jobs than a row can hold; the jobs beyond do not come


def trials_of(means: NDArray[np.float64], success: float) -> NDArray[np.int64]:
    """Trials (I,) of binomial arrivals: the fewest whose success probability is at most `success`."""
    return np.maximum(1, np.ceil(means / success - 1e-9)).astype(np.int64)


def pmf(law: int, mean: float, trials: int, tail: float) -> NDArray[np.float64]:
    """Law (n,) of the number of jobs in a slot, up to the first n with less than `tail` beyond."""
    if law == BINOMIAL:
        p = mean / trials
        logs = [
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * math.log(p)
            + ((trials - k) * math.log1p(-p) if k < trials else 0.0)
            for k in range(trials + 1)
        ]  # fmt: skip
        return np.exp(logs) if mean > 0 else np.ones(1)
    if mean == 0:
        return np.ones(1)
    if law == POISSON:
        n = int(mean + 12 * math.sqrt(mean) + 40)
        return _cut(np.exp([k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(n)]), tail)
    shift = 1 if law == SHIFTED else 0
    failure = (mean - shift) / (mean - shift + 1)
    n = 1 if failure == 0 else int(math.log(tail) / math.log(failure)) + 2
    return np.concatenate([np.zeros(shift), (1 - failure) * failure ** np.arange(n)])


def _cut(masses: NDArray[np.float64], tail: float) -> NDArray[np.float64]:
    beyond = masses[::-1].cumsum()[::-1]
    return masses[: max(1, int((beyond >= tail).sum()))]


def largest_total(law: int, means: NDArray[np.float64], trials: NDArray[np.int64], slots: int) -> int:
    """A number of jobs that `slots` slots exceed with probability below NEVER, by Chernoff's bound."""
    best = math.inf
    for s in np.geomspace(1e-4, 20, 400).tolist():
        logs = 0.0
        for mean, n in zip(means.tolist(), trials.tolist()):
            shift = 1 if law == SHIFTED else 0
            if law == POISSON:
                logs += mean * math.expm1(s)
            elif law == BINOMIAL:
                logs += n * math.log1p(mean / n * math.expm1(s))
            else:  # of the number of failures, whose mean is mean - shift
                rest = 1 - (mean - shift) * math.expm1(s)
                logs += shift * s - math.log(rest) if rest > 0 else math.inf
        best = min(best, (slots * logs - math.log(NEVER)) / s)
    return math.ceil(best)


@outlined_kernel
def arrivals_kernel(stream, b, law, mean, trials):
    """The number of jobs of one type in a slot."""
    if mean <= 0.0:
        return 0
    if law == POISSON:
        return int(poisson(stream, b, mean))
    if law == BINOMIAL:
        return int(binomial(stream, b, trials, mean / trials))
    extra = mean - (law == SHIFTED)
    if extra <= 0.0:
        return 1
    return int(logarithm(1.0 - uniform(stream, b)) / logarithm(extra / (1.0 + extra))) + (law == SHIFTED)


@outlined_kernel
def clear_kernel(state, b):
    """Empty every queue of row b."""
    state.n_batches[b] = 0
    for j in range(state.first.shape[1]):
        state.first[b, j] = state.last[b, j] = -1
        state.queue[b, j] = 0


@outlined_kernel
def join_kernel(state, b, j, kind, slot, count):
    """`count` >= 1 jobs of a kind join queue j, behind all others."""
    last = state.last[b, j]
    state.queue[b, j] += count
    if last >= 0 and state.batch_kind[b, last] == kind and state.batch_slot[b, last] == slot and state.batch_size[b, last] > 0:
        state.batch_size[b, last] += count
        return
    new = state.n_batches[b]
    state.n_batches[b] += 1
    state.batch_kind[b, new], state.batch_slot[b, new], state.batch_size[b, new] = kind, slot, count
    state.next[b, new] = -1
    if state.first[b, j] < 0:
        state.first[b, j] = new
    else:
        state.next[b, last] = new
    state.last[b, j] = new


@outlined_kernel
def leave_kernel(state, b, j):
    """The head job of a queue that is not empty leaves it; returns the number of its batch."""
    head = state.first[b, j]
    state.queue[b, j] -= 1
    state.batch_size[b, head] -= 1
    if state.batch_size[b, head] == 0:
        state.first[b, j] = state.next[b, head]
        if state.first[b, j] < 0:
            state.last[b, j] = -1
    return head


@outlined_kernel
def split_kernel(stream, b, source):
    """Four words of `source` start the row's `stream`: streams that do not depend on how the others are used."""
    for k in range(4):
        stream[b, k] = next_word(source, b)


def batch_tables(batch: int, n_queues: int, n_batches: int) -> dict[str, Any]:
    """Zeroed fields of a state that holds queues of batches."""
    integers = {name: np.zeros((batch, n_batches), np.int64) for name in ("next", "batch_kind", "batch_slot", "batch_size")}
    ends = {name: np.zeros((batch, n_queues), np.int64) for name in ("first", "last", "queue")}
    return {**integers, **ends, "n_batches": np.zeros(batch, np.int64)}
