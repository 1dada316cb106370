"""What may be allocated in one epoch, as packing programmes in integers a: A a <= b.

Flexible classes have, for each set K of categories that matters and each skill s, the row

    sum of r_js a_js over types with N(j) within K  <=  H_s(K)        (Hall's condition)

with a_js = a_j for all s in FND; FD splits into one block per skill. Inflexible classes have the rows sum_j r_js z_ljs <= H_ls,
in a block per category (IND, one z_lj for all skills) or per category and skill (ID). Where no more may be allocated than waits
in a queue that categories share, these are joined by the rows sum_l z_ljs <= Q_js.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.freelance_instances import FreelanceMarketInstance

HOURS = -1  # in `row_queue`


class Block(NamedTuple):
    """Columns that share rows. A column is a type, with the category and the skill of its tasks where these matter (else 0)."""

    rows: NDArray[np.float64]  # (m, k) A
    categories: NDArray[np.int64]  # (k,)
    types: NDArray[np.int64]  # (k,)
    skills: NDArray[np.int64]  # (k,)
    row_set: NDArray[np.int64]  # (m,) the set of categories, as bits, whose hours bound a row
    row_skill: NDArray[np.int64]  # (m,)
    row_queue: NDArray[np.int64]  # (m,) the type whose queue (of the column's skill) bounds the row instead; else HOURS

    def limits(self, hours: NDArray[np.float64]) -> NDArray[np.float64]:
        """b (m,) for the hours H (L, S) of an epoch, of rows of hours."""
        members = (self.row_set[:, None] >> np.arange(len(hours)) & 1).astype(float)  # (m, L)
        return (members @ hours)[np.arange(len(members)), self.row_skill]


def blocks_of(instance: FreelanceMarketInstance, is_shared: bool = False) -> list[Block]:
    """The blocks of a market's class; `is_shared` adds the rows of queues that the categories of an inflexible one share."""
    skills = [[s] for s in range(instance.n_skills)] if instance.decomposable else [list(range(instance.n_skills))]
    found = []
    for some in skills:
        if instance.flexible:
            found.append(_block(instance, some, instance.category_sets.tolist(), None))
        else:
            apart = [_block(instance, some, [1 << c], c) for c in range(instance.n_categories)]
            found += [_joined(apart)] if is_shared and len(apart) > 1 else apart
    return [block for block in found if len(block.types)]


def _block(instance: FreelanceMarketInstance, skills: list[int], sets: list[int], category: int | None) -> Block:
    may = np.ones(instance.n_types, bool) if category is None else instance.allowed[:, category]
    types = np.flatnonzero(may & instance.needs[:, skills].any(1))
    rows, row_set, row_skill = [], [], []
    for each in sets:
        inside = (instance.signatures[types] & ~each) == 0 if category is None else np.ones(len(types), bool)
        for s in skills:
            row = instance.job_hours[types, s] * inside
            if row.any():
                rows.append(row)
                row_set.append(each)
                row_skill.append(s)
    zeros = np.zeros(len(types), np.int64)
    return Block(
        np.ascontiguousarray(rows).reshape(len(rows), len(types)),
        zeros + (category or 0),
        types,
        zeros + (skills[0] if instance.decomposable else 0),
        np.array(row_set, np.int64),
        np.array(row_skill, np.int64),
        np.full(len(rows), HOURS),
    )


def _joined(parts: list[Block]) -> Block:
    """Blocks of several categories side by side, with a row for every queue."""
    categories, types, skills = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("categories", "types", "skills")
    )
    queues = np.unique(types)
    rows = np.zeros((sum(len(part.rows) for part in parts) + len(queues), len(types)))
    top = left = 0
    for part in parts:
        m, k = part.rows.shape
        rows[top : top + m, left : left + k] = part.rows
        top, left = top + m, left + k
    rows[top:] = queues[:, None] == types
    none = np.zeros(len(queues), np.int64)
    return Block(
        rows,
        categories,
        types,
        skills,
        np.concatenate([*(part.row_set for part in parts), none]),
        np.concatenate([*(part.row_skill for part in parts), none]),
        np.concatenate([np.full(top, HOURS), queues]),
    )
