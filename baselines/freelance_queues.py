"""How policies read the queues of a freelance market, as they stand in an observation; and the numbers of their schemes."""

from matchgym.envs.compile import kernel

ALL, PRESSURE_CENTRAL, PRESSURE_POOLS, PRESSURE_PRINTED = range(4)  # admissions
EVEN, LEAST_TASKS, FILLING = range(3)  # routings
MAXWEIGHT, RELAXED, GREEDY_JOB, NAIVE, CHANCE, NOTHING = range(6)  # schemes; with NOTHING the environment allocates
LOW, HIGH, ANY = range(3)  # categories that a naive job prefers


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
