"""What a scheme requests in an epoch: the records that its kernels read, and the kernel that tells rules apart."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import Integer, Integers, IntegerTable, Reals, RealTable, kernel, pasted_kernel
from matchgym.envs.freelance_blocks import blocks_of
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.freelance_maxweight import maxweight
from matchgym.envs.freelance_picking import pick_jobs
from matchgym.envs.freelance_schemes import (
    AGES,
    ANY,
    AT_RANDOM,
    CHANCE,
    MAXWEIGHT,
    NAIVE,
    NODES,
    NOTHING,
    OLDEST_FIRST,
    RELAXED,
    queue_at,
    width_of,
)
from matchgym.envs.kept_basis import LARGEST
from matchgym.envs.packing import room
from matchgym.envs.rng import uniform


class Programme(NamedTuple):
    """What kernels of schemes read besides an instance's own numbers, which are `Market`."""

    n_tasks: Reals  # (N,) d_j
    block: IntegerTable  # (P, 4) of each programme: its first entry in `rows`, first row, first column, and number of rows
    columns: IntegerTable  # (C + 1, 3) category, type and skill of each column
    row: IntegerTable  # (m + 1, 3) set, skill and queue of each row
    rows: Reals  # entries of the programmes' matrices, row by row
    sparse: IntegerTable  # (P + 1, 4) of each programme: where its `starts`, its entries, its basis and its inverse begin
    starts: Integers  # (C + P,) where columns begin among the entries of a programme; each ends with their number
    entry_row: Integers  # (.,) rows of the entries that are not 0, column by column
    entry: Reals  # (.,)
    routing: Integer
    scheme: Integer  # the number of the rule
    is_capped: Integer
    nodes: Integer  # relaxations of a MaxWeight programme
    order: Integer  # of naive jobs
    preference: Integer  # of naive jobs


class Room(NamedTuple):
    """What kernels of schemes write; what has one row is shared by all."""

    solved: Integers  # (B,) MaxWeight programmes
    unproved: Integers  # (B,) those whose search ended before its allocation was proved the best
    basis: IntegerTable  # (B, m) of each relaxation that keeps one, in turn, see `kept_basis`
    inverse: RealTable  # (B, sum of m m)
    is_kept: IntegerTable  # (B, P) whether there is one
    waiting: RealTable  # (1, D) Q + A
    spare: RealTable  # (1, R S) or (1, L S) hours
    tree: RealTable  # (1, N + 1) counts of jobs, as a Fenwick tree
    counts: RealTable  # (1, N)
    out: IntegerTable  # (1, N) types of which a job has found no hours
    fresh: IntegerTable  # (1, N) jobs that have just joined
    ages: IntegerTable  # (B, AGES N) jobs by epochs of waiting, where their order depends on them
    weight: RealTable  # (1, C)
    cap: RealTable  # (1, C)
    limit: RealTable  # (1, m)
    best: RealTable  # (1, C)
    reals: RealTable  # (1, .) see `packing.room`
    integers: IntegerTable  # (1, .)
    upper: IntegerTable  # (1, C)
    sent: IntegerTable  # (1, L) jobs to each pool


def columns_of(rows: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Where columns start (k + 1,), and rows and values of their entries."""
    columns, places = np.nonzero(rows.T)
    starts = np.searchsorted(columns, np.arange(rows.shape[1] + 1)).astype(np.int64)
    return starts, places.astype(np.int64), rows[places, columns]


def programme(
    instance: FreelanceMarketInstance,
    rule: int,
    routing: int,
    has_pools: bool,
    is_capped: bool = True,
    nodes: int = NODES,
    order: int = AT_RANDOM,
    preference: int = ANY,
) -> dict[str, Any]:
    """The fields of `Programme`."""
    blocks = blocks_of(instance, is_capped and not has_pools) if rule in (MAXWEIGHT, RELAXED) else []
    sizes = [(block.rows.size, len(block.rows), len(block.types)) for block in blocks]
    begins = np.cumsum([(0, 0, 0), *sizes], 0)[: len(blocks)].tolist()
    columns = [np.column_stack([block.categories, block.types, block.skills]) for block in blocks]
    rows = [np.column_stack([block.row_set, block.row_skill, block.row_queue]) for block in blocks]
    parts = [columns_of(block.rows) for block in blocks] if rule == RELAXED else []
    kept = [len(block.rows) if len(block.rows) <= LARGEST else 0 for block in blocks[: len(parts)]]
    lengths = [(len(part[0]), len(part[1]), m, m * m) for part, m in zip(parts, kept)]
    end, empty = np.zeros((1, 3), np.int64), np.zeros(1, np.int64)
    return {
        "n_tasks": instance.needs.sum(1),
        "block": np.array([[*begin, size[1]] for begin, size in zip(begins, sizes)], np.int64).reshape(-1, 4),
        "columns": np.concatenate([*columns, end]),
        "row": np.concatenate([*rows, end]),
        "rows": np.concatenate([*(block.rows.ravel() for block in blocks), np.zeros(1)]),
        "sparse": np.cumsum([(0, 0, 0, 0), *lengths], 0),
        "starts": np.concatenate([*(part[0] for part in parts), empty]),
        "entry_row": np.concatenate([*(part[1] for part in parts), empty]),
        "entry": np.concatenate([*(part[2] for part in parts), np.zeros(1)]),
        "routing": routing,
        "scheme": rule,
        "is_capped": int(is_capped),
        "nodes": nodes,
        "order": order,
        "preference": preference,
    }


def scratch(instance: FreelanceMarketInstance, given: dict[str, Any], n_queues: int, batch: int) -> dict[str, Any]:
    """The fields of `Room` for the fields `given` of `Programme`."""
    block, columns, sparse = given["block"], given["columns"], given["sparse"]
    k = int(np.diff(block[:, 2], append=len(columns) - 1).max(initial=1))
    m = int(block[:, 3].max(initial=1))
    reals, integers = room(k, m)
    sets = len(instance.category_sets) if instance.flexible else 1
    return {
        "solved": np.zeros(batch, np.int64),
        "unproved": np.zeros(batch, np.int64),
        "basis": np.zeros((batch, int(sparse[-1, 2])), np.int64),
        "inverse": np.zeros((batch, int(sparse[-1, 3]))),
        "is_kept": np.zeros((batch, len(sparse) - 1), np.int64),
        "waiting": np.zeros((1, n_queues)),
        "spare": np.zeros((1, max(instance.n_categories, sets) * instance.n_skills)),
        "tree": np.zeros((1, instance.n_types + 1)),
        "counts": np.zeros((1, instance.n_types)),
        "out": np.zeros((1, instance.n_types), np.int64),
        "fresh": np.zeros((1, instance.n_types), np.int64),
        "ages": np.zeros((batch, instance.n_types * (AGES if given["order"] == OLDEST_FIRST else 0)), np.int64),
        "weight": np.zeros((1, k)),
        "cap": np.zeros((1, k)),
        "limit": np.zeros((1, m)),
        "best": np.zeros((1, k)),
        "reals": reals[None],
        "integers": integers[None],
        "upper": np.zeros((1, k), np.int64),
        "sent": np.zeros((1, instance.n_categories), np.int64),
    }


@kernel
def forget_past(memory, b):
    """An episode starts without a basis, and nobody has waited."""
    for k in range(memory.ages.shape[1]):
        memory.ages[b, k] = 0
    for p in range(memory.is_kept.shape[1]):
        memory.is_kept[b, p] = 0


@pasted_kernel
def request_kernel(knobs, memory, b, queue, hours, request, rng):
    """Add to request (E,), which is 0, what the scheme allocates of memory.waiting within hours (L S); `queue` is Q."""
    n, size, width = len(knobs.n_tasks), knobs.n_categories, width_of(knobs)
    if knobs.scheme == MAXWEIGHT or knobs.scheme == RELAXED:
        maxweight(knobs, memory, b, queue, hours, request)
    elif knobs.scheme == CHANCE:
        for e in range(len(request)):
            c, j, s = e // (width * n), e // width % n, e % width
            request[e] = np.floor(uniform(rng, b) * (memory.waiting[0, queue_at(knobs, c, j) + s] + 1.0))
    elif knobs.scheme != NOTHING:
        for pool in range(size if knobs.is_pooled else 1):
            is_alone = knobs.is_pooled or not (size > 1 or knobs.is_flexible or knobs.scheme == NAIVE)
            pick_jobs(knobs, memory, b, pool if is_alone else -1, hours, request, rng)
