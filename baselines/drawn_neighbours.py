"""Suppliers who draw on arrival the customer types that they will serve, in the manner of Aouad and Saritac.

The set that a supplier draws is hidden from the observation; `matchgym.baselines.tracked_suppliers` says how the policy keeps
it. Of several suppliers of the best type who will serve a customer, each is taken with the same probability.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.policy import Policy, compiled
from matchgym.baselines.preference_lists import customer_kernel, preferences
from matchgym.baselines.tracked_suppliers import TrackedPolicy, follow_kernel, forget_kernel, take_kernel, tracked_params
from matchgym.envs.compile import kernel
from matchgym.envs.instance import InputError
from matchgym.envs.rng import uniform
from matchgym.envs.stationary_matching import StationaryMatchingInstance

MAX_SPLIT_TYPES = 12  # of an equivalent instance


@kernel
def coin_kernel(name, j):
    """A uniform number in [0, 1) that belongs to the supplier of this name and customer type j (splitmix64 finaliser)."""
    z = name + np.uint64(j + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel
def drawn_kernel(params, memory, b, obs, mask, rng):
    """One of the suppliers who drew this customer type when they arrived, of the first type of the list that has any."""
    follow_kernel(params, memory, b, obs, rng)
    n = memory.known.shape[1]
    j = customer_kernel(obs, n)
    for k in range(params.length[j]):
        i = params.order[j, k]
        willing, chosen = 0, -1
        for place in range(memory.known[b, i]):
            if coin_kernel(memory.names[b, params.offset[i] + place], j) < params.proposal[j, k]:
                willing += 1
                # The order of the names says something about their marks, so the first would not do.
                if willing == 1 or uniform(rng, b) * willing < 1.0:
                    chosen = place
        if chosen >= 0:
            return take_kernel(params, memory, b, i, chosen)
    return n


@compiled(__file__, drawn_kernel, forget_kernel)
class DrawnNeighbours(TrackedPolicy):
    """Each supplier draws on arrival, once, the customer types it will serve: j with probability p_ij, independently.

    A customer takes a waiting supplier of largest reward that will serve it, each of the best type equally likely. The reading
    adopted of the scheme of Aouad and Saritac, with Algorithm 1's p.
    """

    def _propose(self, p: NDArray[np.float64]) -> None:
        super()._propose(p)
        self.lists_ = preferences(self.proposal_ > 0, self.instance.rewards, self.proposal_)
        self.params_ = tracked_params(self.instance, self.lists_)

    def equivalent(self) -> tuple[StationaryMatchingInstance, "DrawnSets"]:
        """One supplier type for each set of customer types that can be drawn."""
        instance, p = self.instance, self.proposal_
        types: list[tuple[int, float, tuple[int, ...]]] = []
        for i in range(instance.n_suppliers):
            drawn = np.nonzero((p[i] > 0) & (p[i] < 1))[0].tolist()
            certain = np.nonzero(p[i] >= 1)[0].tolist()
            if len(types) + 2 ** len(drawn) > MAX_SPLIT_TYPES + 1:
                raise InputError(
                    f"the exact value of drawn-neighbours needs more than {MAX_SPLIT_TYPES} supplier types on "
                    f"{instance.name!r}: use simulation."
                )
            for coins in itertools.product((0, 1), repeat=len(drawn)):
                chance = math.prod(p[i, j] if coin else 1 - p[i, j] for j, coin in zip(drawn, coins))
                served = (*certain, *(j for j, coin in zip(drawn, coins) if coin))
                if served:  # a supplier that serves nobody changes nothing
                    types.append((i, chance, served))
        types = types or [(i, 1.0, ()) for i in range(instance.n_suppliers)]
        origin = np.array([i for i, _, _ in types])
        split = StationaryMatchingInstance(
            name=f"{instance.name[:80]} with drawn sets",
            supplier_rates=instance.supplier_rates[origin] * [chance for _, chance, _ in types],
            departure_rates=instance.departure_rates[origin],
            customer_rates=instance.customer_rates,
            rewards=instance.rewards[origin],
        )
        serves = np.array([[j in served for j in range(instance.n_customers)] for _, _, served in types])
        order = [row[:length].tolist() for row, length in zip(self.lists_.order, self.lists_.length)]
        return split, DrawnSets(origin, serves, order)


class DrawnSets(Policy):
    """`DrawnNeighbours` where the sets are seen: its law given the queue of each set, and nothing else of a policy.

    `origin` (n,) is the supplier type that drew set k, `serves` (n, J) the set, and `order[j]` the supplier types that customer
    type j goes through.
    """

    def __init__(self, origin: NDArray[np.int64], serves: NDArray[np.bool_], order: list[list[int]]) -> None:
        self.origin, self.serves, self.order = origin, serves, order

    def probabilities(
        self, observation: NDArray[np.float32], action_masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        n = len(self.origin)
        queue, customer = observation[:, :n].astype(np.float64), observation[:, n:].argmax(1)
        law = np.zeros((len(queue), n + 1))
        for j, order in enumerate(self.order):
            free = customer == j
            for i in order:
                willing = queue * (self.serves[:, j] & (self.origin == i))
                total = willing.sum(1)
                taken = free & (total > 0)
                law[taken, :n] = willing[taken] / total[taken, None]
                free &= ~taken
            law[free, n] = 1.0
        return law
