"""The schemes by which freelance markets allocate what waits, by name and by number; how their kernels read queues.

A scheme is a *rule*, MaxWeight (Algorithm 1) exactly or relaxed and rounded down, GreedyJob (Algorithm 3) or the naive picking
of Section I, and a *routing* where categories have queues of their own: join the least total task of Algorithm 4, or its
improved form of Algorithm 5. Policies for FreelanceMarket-v0 and the environment FreelanceAdmission-v0 read this one table.
"""

from typing import NamedTuple

from matchgym.envs.compile import kernel, outlined_kernel

EVEN, LEAST_TASKS, FILLING = range(3)  # routings
MAXWEIGHT, RELAXED, GREEDY_JOB, NAIVE, CHANCE, NOTHING = range(6)  # rules; with NOTHING the environment has its own
LOW, HIGH, ANY = range(3)  # categories that a naive job prefers
AT_RANDOM, BY_INDEX, OLDEST_FIRST = range(3)  # orders of naive jobs
AGES = 256  # epochs of waiting that are told apart
NODES = 200_000  # relaxations of one MaxWeight programme, by default


class Scheme(NamedTuple):
    """Who decides what in an epoch."""

    rule: int
    routing: int  # used with pools only


# Those that FreelanceAdmission-v0 offers, and policies of the same name. With pools, `maxweight` is Algorithm 4 and
# `greedy-job` Algorithm 5.
SCHEMES = {
    "maxweight": Scheme(MAXWEIGHT, LEAST_TASKS),
    "maxweight-lp": Scheme(RELAXED, LEAST_TASKS),
    "greedy-job": Scheme(GREEDY_JOB, FILLING),
    "naive-jobs-pick": Scheme(NAIVE, LEAST_TASKS),
}


def why_not(scheme: Scheme, n_categories: int, is_flexible: bool, has_pools: bool) -> str | None:
    """Why a rule makes no sense in such a market, if it does not."""
    if scheme.rule == GREEDY_JOB and not is_flexible and not has_pools and n_categories > 1:
        return "greedy-job needs one category, a flexible market or pools"
    if scheme.rule == NAIVE and has_pools:
        return "naive-jobs-pick lets jobs choose among categories, which pools tie them to"
    return None


@kernel
def width_of(knobs):
    """Queues of a job type in a pool."""
    return knobs.job_hours.shape[1] if knobs.is_decomposable else 1


@kernel
def queue_at(knobs, c, j):
    """Where the queues of type j begin, those of category l with pools."""
    return ((c * len(knobs.n_tasks) if knobs.is_pooled else 0) + j) * width_of(knobs)


@kernel
def tasks_at(knobs, queue, c, j):
    """sum_s Q_js over the tasks of type j (in category l with pools)."""
    start, total = queue_at(knobs, c, j), 0.0
    if not knobs.is_decomposable:
        return knobs.n_tasks[j] * float(queue[start])
    for s in range(knobs.job_hours.shape[1]):
        total += float(queue[start + s])
    return total


@kernel
def jobs_at(knobs, queue, c, j):
    """Incomplete jobs of type j (in category l with pools)."""
    start, longest = queue_at(knobs, c, j), 0.0
    for s in range(width_of(knobs)):
        longest = max(longest, float(queue[start + s]))
    return longest


@kernel
def join(knobs, queue, c, j, count):
    """Jobs of type j join the queues."""
    start = queue_at(knobs, c, j)
    for s in range(width_of(knobs)):
        if not knobs.is_decomposable or knobs.job_hours[j, s] > 0.0:
            queue[start + s] += count


@outlined_kernel
def route_kernel(knobs, queue, waiting, routing, j, count, sent):
    """Write to sent (L,) how many jobs of type j join each pool, and let them join `waiting` (Q + A); `queue` is Q.

    EVEN, LEAST_TASKS: an equal share of those that may serve the type, or of those among them with the least total task; the
    rest goes to the lowest indices. FILLING: job by job where the fewest jobs of the type wait, the first among equals. Jobs
    that no category may serve join nothing here.
    """
    size = len(sent)
    for c in range(size):
        sent[c] = 0
    if routing == FILLING:
        for _ in range(int(count)):
            best = -1
            for c in range(size):
                if knobs.allowed[j, c] and (best < 0 or jobs_at(knobs, waiting, c, j) < jobs_at(knobs, waiting, best, j)):
                    best = c
            if best >= 0:
                join(knobs, waiting, best, j, 1)
                sent[best] += 1
        return
    least, tied = -1.0, 0
    for c in range(size):
        if knobs.allowed[j, c]:
            tasks = tasks_at(knobs, queue, c, j) if routing == LEAST_TASKS else 0.0
            if least < 0.0 or tasks < least:
                least, tied = tasks, 0
            tied += tasks == least
    if tied == 0:
        return
    share, rest = int(count) // tied, int(count) % tied
    for c in range(size):
        if knobs.allowed[j, c] and (routing != LEAST_TASKS or tasks_at(knobs, queue, c, j) == least):
            sent[c] = share + (rest > 0)
            rest -= 1
            join(knobs, waiting, c, j, sent[c])
