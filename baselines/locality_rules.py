"""The kernels behind the policies for data locality: one index for every class of servers, and laws that are not an index.

An index rule sends a task to a server of least index among those it may choose from, ties uniform. The index depends on the
type m, the rate u_m and the tasks x of a server:

    random 0     jsq x     jfsq x, then the fastest     sed (x + 1) / u_m     jiq 1{x > 0}     jfiq 1{x > 0}, then the fastest
    table: any order of the classes (m, x)

Among d servers drawn in random order the first of least index is a uniform one. Other laws, over classes seen with their
counts:

    rate-proportional  a server with probability in proportion to u_m
    static             type m with probability gamma_km, then a uniform server of it
    hybrid             type m with probability gamma_km, then the shortest of d uniform servers of it
    global             GWSQ(d): a class by d draws from the law x_km (q_ml - q_m,l+1) of all servers, whatever the edges
"""

from typing import NamedTuple

from matchgym.envs.compile import Integer, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.mean_field import power
from matchgym.envs.rng import uniform

RANDOM, JSQ, JFSQ, SED, JIQ, JFIQ, TABLE = range(7)  # indices
RATE_PROPORTIONAL, STATIC, HYBRID, GLOBAL = range(7, 11)  # laws
LAST = 1e9  # index of what is not there


class Knobs(NamedTuple):
    """What the kernels read."""

    rule: Integer
    choices: Integer  # d
    n_levels: Integer
    n_kinds: Integer  # K
    rates: Reals  # (M,)
    fastest: Reals  # (M,) in [0, 1/2), larger for slower types: breaks ties
    table: RealTable  # (M, L) indices, for TABLE
    split: RealTable  # (K, M) gamma, or x for GLOBAL


class Memory(NamedTuple):
    """A stream for every row, and room for a law, shared by all."""

    stream: WordTable  # (B, 4)
    law: RealTable  # (1, n_actions)


@kernel
def index_kernel(knobs, m, tasks):
    """The index of a server of type m with so many tasks."""
    rule = knobs.rule
    if rule == JSQ:
        return tasks
    if rule == JFSQ:
        return tasks + knobs.fastest[m]
    if rule == SED:
        return (tasks + 1.0) / knobs.rates[m]
    if rule == JIQ:
        return 1.0 * (tasks > 0)
    if rule == JFIQ:
        return 1.0 if tasks > 0 else knobs.fastest[m]
    if rule == TABLE:
        last = knobs.table.shape[1] - 1
        return knobs.table[m, min(int(tasks), last)] + max(0.0, tasks - last)
    return 0.0


@kernel
def kind_kernel(knobs, obs):
    """The type of the task's dispatcher."""
    k = 0
    for each in range(1, knobs.n_kinds):
        if obs[each] > 0.5:
            k = each
    return k


@kernel
def drawn_kernel(knobs, obs, s):
    """The type of the server drawn s-th and its tasks; type -1 if fewer were drawn."""
    d, n_types, at = knobs.choices, len(knobs.rates), knobs.n_kinds
    if obs[at + d + s] <= 0.0:
        return -1, 0.0
    m = 0
    for each in range(1, n_types):
        if obs[at + 2 * d + s * n_types + each] > 0.5:
            m = each
    return m, float(obs[at + s])


@kernel
def act_kernel(knobs, memory, b, obs, mask, rng):
    """The first server drawn of least index."""
    best, least = 0, LAST
    for s in range(knobs.choices):
        m, tasks = drawn_kernel(knobs, obs, s)
        if m >= 0:
            index = index_kernel(knobs, m, tasks)
            if index < least:
                best, least = s, index
    return best


@kernel
def chosen_kernel(d, n, beyond, behind):
    """Probability that the shortest of d of n servers stands among `beyond` but not all d among `behind` of them."""
    first = second = 1.0
    for r in range(d):
        first *= max(beyond - r, 0.0) / (n - r)
        second *= max(behind - r, 0.0) / (n - r)
    return first - second


@outlined_kernel
def law_kernel(knobs, obs, law):
    """The law (M L,) of the class that is chosen, not normalised."""
    levels, n_types, at = knobs.n_levels, len(knobs.rates), knobs.n_kinds
    rule, cells = knobs.rule, knobs.n_levels * len(knobs.rates)
    k = kind_kernel(knobs, obs)
    least = LAST
    for m in range(n_types):
        count = 0.0
        for level in range(levels):
            c = m * levels + level
            here = float(obs[at + c])
            count += here
            law[c] = 0.0
            if here > 0.0 and rule <= TABLE:
                least = min(least, index_kernel(knobs, m, float(level)))
        if count == 0.0:
            continue
        beyond = count
        for level in range(levels):
            c = m * levels + level
            here = float(obs[at + c])
            if rule == RATE_PROPORTIONAL:
                law[c] = here * knobs.rates[m]
            elif rule == STATIC:
                law[c] = here / count * knobs.split[k, m]
            elif rule == HYBRID and here > 0.0:
                d = min(knobs.choices, int(count))
                law[c] = knobs.split[k, m] * chosen_kernel(d, count, beyond, beyond - here)
            beyond -= here
    if rule <= TABLE:
        for c in range(cells):
            if obs[at + c] > 0.0 and index_kernel(knobs, c // levels, float(c % levels)) <= least:
                law[c] = obs[at + c]
    elif rule == GLOBAL:
        global_kernel(knobs, obs, k, law)
    total = 0.0
    for c in range(cells):
        total += law[c]
    if total <= 0.0:  # the law wants what the dispatcher has not: any of its servers
        for c in range(cells):
            law[c] = obs[at + c]


@outlined_kernel
def global_kernel(knobs, obs, k, law):
    """GWSQ(d), from the occupancy of all servers, cut to classes that the dispatcher has."""
    levels, n_types = knobs.n_levels, len(knobs.rates)
    local, at = knobs.n_kinds, knobs.n_kinds + knobs.n_levels * len(knobs.rates)
    behind, before = 0.0, 0.0
    for level in range(levels - 1, -1, -1):
        mass = 0.0
        for m in range(n_types):
            count = 0.0
            for each in range(levels):
                count += obs[at + m * levels + each]
            if count > 0.0:
                law[m * levels + level] = knobs.split[k, m] * obs[at + m * levels + level] / count
                mass += law[m * levels + level]
        before = behind + mass
        chance = power(before, knobs.choices) - power(behind, knobs.choices)
        for m in range(n_types):
            c = m * levels + level
            law[c] = law[c] / mass * chance if mass > 0.0 and obs[local + c] > 0.0 else 0.0
        behind = before


@kernel
def act_class_kernel(knobs, memory, b, obs, mask, rng):
    """A class, drawn by its law."""
    law, cells = memory.law[0], knobs.n_levels * len(knobs.rates)
    law_kernel(knobs, obs, law)
    total = 0.0
    for c in range(cells):
        total += law[c]
    left, last = uniform(rng, b) * total, 0
    for c in range(cells):
        if law[c] > 0.0:
            last = c
            left -= law[c]
            if left < 0.0:
                break
    return last


@outlined_kernel
def law_batch(knobs_buffer, obs, laws):
    """The laws (B, n_actions) of classes at observations (B, obs_dim)."""
    knobs = open_policy(knobs_buffer)  # noqa: F821  (bound by `specialise`)
    for b in range(len(obs)):
        law_kernel(knobs, obs[b], laws[b])
        total = 0.0
        for c in range(laws.shape[1]):
            total += laws[b, c]
        for c in range(laws.shape[1]):
            laws[b, c] /= total
