"""Policies for matching on a graph where everybody waits: the two reductions of arXiv 2411.08218, Appendix F, and simple rules.

Each reduction lets some nodes act only when they arrive, as customers, and the others only wait, as suppliers; then it follows
Algorithm 1 of the paper. A node that has acted in vain stays in its queue and is ignored.
"""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines import stationary_matching as bipartite
from matchgym.baselines.exact import exact_value as exact_value  # for `scoring`
from matchgym.baselines.policy import Policy, compiled
from matchgym.baselines.preference_lists import (
    MatchingPolicy,
    Preferences,
    PriorityPolicy,
    customer_kernel,
    priority_kernel,
    waiting_kernel,
)
from matchgym.baselines.stationary_matching import CorrelatedProposals, correlated_kernel, random_kernel, table_kernel
from matchgym.bounds.bound import Bound
from matchgym.bounds.general_matching import copies, optimum, tlp_joint
from matchgym.bounds.stationary_matching import tlp_online
from matchgym.envs.base import Model
from matchgym.envs.compile import IntegerTable, WordTable, kernel
from matchgym.envs.general_matching import MODEL, GeneralMatchingInstance
from matchgym.envs.instance import InputError
from matchgym.envs.rng import binomial, uniform
from matchgym.envs.stationary_matching import StationaryMatchingInstance

TIE = 1e-9  # of a margin with a price, relative to the largest reward: solvers leave as much


class GraphPolicy(MatchingPolicy):
    """Base of the policies of this file."""

    model: ClassVar[Model] = MODEL
    env_id: ClassVar[str] = "GeneralMatching-v0"
    instance: GeneralMatchingInstance  # type: ignore[assignment]


@compiled(__file__, priority_kernel)
class Greedy(GraphPolicy, PriorityPolicy):
    """The compatible waiting node of largest reward, at once."""

    def _prepare(self) -> None:
        self._follow(self.instance.rewards > 0, self.instance.rewards)


@compiled(__file__, random_kernel)
class Random(GraphPolicy, bipartite.Random):
    """A valid action, each equally likely."""


@compiled(__file__, priority_kernel)
class PatientThreshold(GraphPolicy, bipartite.StaticThreshold):
    """Greedy on the pairs with r_uv >= threshold, else wait; by default the best threshold, found when fitting."""


@compiled(__file__, priority_kernel)
class PriceGreedy(GraphPolicy, PriorityPolicy):
    """The waiting node of largest r_uv - d_u, if r_uv >= d_u + d_v; d is the price of a node, the dual of (1) of tlp-joint."""

    def _prepare(self) -> None:
        rewards = self.instance.rewards
        self.prices_ = tlp_joint(self.instance).duals["node"]
        margin = rewards - self.prices_[:, None]
        self._follow((margin >= self.prices_ - TIE * rewards.max()) & (rewards > 0), margin)


@compiled(__file__, correlated_kernel)
class PatientSide(GraphPolicy, CorrelatedProposals):
    """For bipartite graphs: one side only waits, the other acts when it arrives, by Algorithm 1 (F.1).

    The side that waits is the one whose TLP_on is larger, `side_`. Earns at least (1/2) (1 - 1/e) of tlp-sum.
    """

    def __init__(self) -> None:
        super().__init__()

    def _prepare(self) -> None:
        instance, colour = self.instance, two_colours(self.instance)
        sides = []
        for side in (np.flatnonzero(~colour), np.flatnonzero(colour)):
            others = np.setdiff1d(np.arange(instance.n_types), side)
            if not len(side) or not len(others):
                raise InputError(f"patient-side needs two sides, but no two types of {instance.name!r} are compatible.")
            waiting = StationaryMatchingInstance(
                name=instance.name,
                supplier_rates=instance.arrival_rates[side],
                departure_rates=instance.departure_rates[side],
                customer_rates=instance.arrival_rates[others],
                rewards=instance.rewards[np.ix_(side, others)],
            )
            sides.append((tlp_online(waiting), waiting, side, others))
        found, waiting, self.side_, others = max(sides, key=lambda each: each[0].value)
        self.reduced_ = CorrelatedProposals(found.solution["x"]).fit(waiting)
        lists = self.reduced_.params_
        n, k = instance.n_types, len(self.side_)
        order, length, proposal = np.zeros((n, n), np.int64), np.zeros(n, np.int64), np.zeros((n, n))
        order[others, :k], length[others], proposal[others, :k] = self.side_[lists.order], lists.length, lists.proposal
        self.params_ = Preferences(order, length, proposal)

    def equivalent(self) -> tuple[StationaryMatchingInstance, Policy]:
        """The side that waits, without those who are ignored."""
        return self.reduced_.instance, self.reduced_


def two_colours(instance: GeneralMatchingInstance) -> NDArray[np.bool_]:
    """The side (V,) of each type of a bipartite graph; InputError if it is not bipartite."""
    n = instance.n_types
    colour = np.full(n, -1)
    for start in range(n):
        reached = [start] if colour[start] < 0 else []
        colour[start] = max(colour[start], 0)
        while reached:
            u = reached.pop()
            for v in np.flatnonzero(instance.rewards[u]).tolist():
                if colour[v] < 0:
                    colour[v] = 1 - colour[u]
                    reached.append(v)
                elif colour[v] == colour[u]:
                    raise InputError(
                        f"patient-side needs a bipartite graph, but types {u} and {v} of {instance.name!r} are compatible and "
                        "on the same side; use offline-copies."
                    )
    return colour == 1


class CopiesMemory(NamedTuple):
    stream: WordTable  # (B, 4)
    seen: IntegerTable  # (B, V) waiting nodes after the last decision
    offline: IntegerTable  # (B, V) of them the offline copies


@kernel
def forget_copies_kernel(memory, b):
    """Start of an episode: nobody has been seen."""
    memory.seen[b, :] = 0
    memory.offline[b, :] = 0


@kernel
def copies_kernel(lists, memory, b, obs, mask, rng):
    """Update the numbers of offline copies, toss the coin of the arriving node, and let an online copy act."""
    n = lists.order.shape[1]
    seen, offline, v = memory.seen[b], memory.offline[b], int(customer_kernel(obs, n))

    # Of the nodes that left, each is an offline copy with the share of these among those that waited.
    for u in range(n):
        now = int(waiting_kernel(obs, u))
        while seen[u] > now:
            if uniform(rng, b) * seen[u] < offline[u]:
                offline[u] -= 1
            seen[u] -= 1
        if seen[u] < now:  # nodes that wait at the start have tossed their coins
            offline[u] += binomial(rng, b, now - seen[u], 0.5)
            seen[u] = now

    if uniform(rng, b) < 0.5:
        offline[v] += 1
    else:
        level, total = uniform(rng, b), 0.0  # the first proposer, as in `correlated_kernel`
        for k in range(lists.length[v]):
            u = lists.order[v, k]
            total += offline[u] * lists.proposal[v, k]
            if level < total:
                offline[u] -= 1
                seen[u] -= 1
                return u
    seen[v] += 1
    return n


@compiled(__file__, copies_kernel, forget_copies_kernel)
class OfflineCopies(GraphPolicy):
    """Every arriving node tosses a fair coin: an offline copy waits, an online copy acts at once by Algorithm 1 (F.2).

    Earns at least (1/4) (1 - 1/e) of tlp-general. The queues do not show which nodes are offline copies; since nodes of a type
    leave independently and alike, their number is known in law from the departures, and is drawn.
    """

    Params: ClassVar[type] = Preferences
    Memory: ClassVar[type] = CopiesMemory
    params_: Preferences

    def memory(self, batch: int) -> CopiesMemory:
        n = self.instance.n_types
        return CopiesMemory(np.zeros((batch, 4), np.uint64), np.zeros((batch, n), np.int64), np.zeros((batch, n), np.int64))

    def _prepare(self) -> None:
        self.reduced_ = CorrelatedProposals().fit(copies(self.instance, 0.5))
        self.params_ = self.reduced_.params_

    def equivalent(self) -> tuple[StationaryMatchingInstance, Policy]:
        """The copies as suppliers and customers."""
        return self.reduced_.instance, self.reduced_


@compiled(__file__, table_kernel)
class Optimal(GraphPolicy, bipartite.Optimal):
    """The best policy, from average-reward dynamic programming; small instances only."""

    def _solve(self) -> Bound:
        return optimum(self.instance)


POLICIES: dict[str, type[Policy]] = {
    "greedy": Greedy,  # the anchor of scores
    "random": Random,
    "patient-threshold": PatientThreshold,
    "price-greedy": PriceGreedy,
    "patient-side": PatientSide,
    "offline-copies": OfflineCopies,
    "optimal": Optimal,
}
