"""Preference lists: what the policies for matching customers to waiting suppliers have in common.

A *priority* policy has, for each customer type, a list of supplier types, and takes the first that is waiting. A *proposal*
policy has such a list with probabilities p_ij: every waiting supplier of type i proposes with probability p_ij, and the first
proposer of the list is matched. Lists are sorted by reward, decreasing; equal rewards go to the lowest supplier index.
"""

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.policy import CompiledPolicy
from matchgym.bounds.stationary_matching import linear_programme
from matchgym.envs.base import Model
from matchgym.envs.compile import Integers, IntegerTable, RealTable, kernel
from matchgym.envs.instance import InputError, Rates, shorten
from matchgym.envs.stationary_matching import MODEL, StationaryMatchingInstance

FEASIBILITY = 1e-6  # excess of a proposal probability over 1 up to which a given x counts as feasible
ROUNDING = 1e-9  # proposal probabilities this close to 0 or 1 are rounded


class Preferences(NamedTuple):
    """For each customer type a list of supplier types, best first, and the probability that one of them proposes."""

    order: IntegerTable  # (J, I), only the first `length[j]` entries of row j count
    length: Integers  # (J,)
    proposal: RealTable  # (J, I), aligned with `order`


def preferences(admitted: NDArray[np.bool_], value: NDArray[np.float64], proposal: NDArray[np.float64]) -> Preferences:
    """Lists of the admitted pairs (I, J), by decreasing value (I, J), ties by index, with proposal probabilities (I, J)."""
    order = np.argsort(-np.where(admitted, value, -np.inf), axis=0, kind="stable")
    return Preferences(order.T, admitted.sum(0), np.take_along_axis(proposal, order, 0).T)


@kernel
def waiting_kernel(obs, i):
    """Waiting suppliers of type i."""
    return obs[i]


@kernel
def customer_kernel(obs, n):
    """The type of the waiting customer: where the one-hot part of the observation is not 0."""
    j = 0
    while j < len(obs) - n - 1 and obs[n + j] == 0.0:
        j += 1
    return j


@kernel
def priority_kernel(lists, memory, b, obs, mask, rng):
    """The first waiting supplier type of the customer's list."""
    n = lists.order.shape[1]
    j = customer_kernel(obs, n)
    for k in range(lists.length[j]):
        if waiting_kernel(obs, lists.order[j, k]) > 0:
            return lists.order[j, k]
    return n


def implied_masks(observation: NDArray[np.float32], instance: Rates) -> NDArray[np.bool_]:
    """The masks (B, I + 1) of observations (B, I + J): a supplier type is valid when one waits, letting go always is.

    Where unmatched customers join queues, that is on a graph, only compatible pairs are valid.
    """
    n = len(instance.supplier_rates)
    valid = observation[:, :n] > 0
    if instance.joins is not None:
        valid &= (instance.rewards[:, observation[:, n:].argmax(1)] > 0).T
    return np.hstack([valid, np.ones((len(observation), 1), np.bool_)])


class MatchingPolicy(CompiledPolicy):
    """Base of the policies of this file: the instance, the observation's parts and the masks they imply."""

    model: ClassVar[Model] = MODEL
    env_id: ClassVar[str] = "StationaryMatching-v0"
    instance: StationaryMatchingInstance

    def fit(self, instance: Any) -> Self:
        self.instance = self.model.load(instance)
        self._prepare()
        return self

    def _prepare(self) -> None:
        """Set `params_` and the attributes that end in `_`."""
        raise NotImplementedError

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        return implied_masks(observation, self.instance)

    def _split(self, obs: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Queue lengths (B, I) and customer types (B,) of observations."""
        n = self.instance.n_suppliers
        return obs[:, :n].astype(float), obs[:, n:].argmax(1)


class PriorityPolicy(MatchingPolicy):
    """Base of the policies that follow a fixed list per customer type."""

    Params: ClassVar[type] = Preferences
    is_deterministic: ClassVar[bool] = True
    params_: Preferences

    def _follow(self, admitted: NDArray[np.bool_], value: NDArray[np.float64]) -> None:
        self.params_ = preferences(admitted, value, np.ones(value.shape))


class ProposalPolicy(MatchingPolicy):
    """Base of the policies in which suppliers propose with probabilities p_ij.

    `solution_` holds the x (I, J) that is followed and `proposal_` the p (I, J).
    """

    Params: ClassVar[type] = Preferences
    params_: Preferences

    def __init__(self, x: NDArray[np.float64] | None = None) -> None:
        self.x = x

    def _prepare(self) -> None:
        instance = self.instance
        self.solution_ = linear_programme(instance, "tlp-online").solution["x"] if self.x is None else self._given()
        waiting = (instance.supplier_rates - self.solution_.sum(1)) / instance.departure_rates
        self._propose(self.solution_ / instance.customer_rates / waiting[:, None])

    def _given(self) -> NDArray[np.float64]:
        try:
            x = np.asarray(self.x, float)
        except (TypeError, ValueError):
            raise InputError(f"x must be an array of numbers, not {shorten(self.x)}.") from None
        if x.shape != self.instance.rewards.shape or not (x >= 0).all():
            raise InputError(f"x must be an array {self.instance.rewards.shape} of numbers >= 0, not {shorten(self.x)}.")
        if not (x.sum(1) < self.instance.supplier_rates).all():
            raise InputError("x must leave a positive abandonment rate supplier_rates - sum_j x_ij for every supplier type.")
        return x

    def _propose(self, p: NDArray[np.float64]) -> None:
        if p.max() > 1 + FEASIBILITY:
            raise InputError(f"x is not feasible: a proposal probability would be {p.max():g}, above 1.")
        p = np.where(p > 1 - ROUNDING, 1.0, p)
        self.proposal_ = np.where(p > ROUNDING, p, 0.0)
        self.params_ = preferences(self.proposal_ > 0, self.instance.rewards, self.proposal_)

    def _cumulative(self, weights: NDArray[Any], customers: NDArray[np.int64]) -> NDArray[np.float64]:
        """From a law of 'some of the first k of the list proposes' (B, I) to a law of actions (B, I + 1)."""
        n = self.instance.n_suppliers
        law = np.zeros((len(weights), n + 1))
        np.put_along_axis(law, self.params_.order[customers], np.diff(weights, axis=1, prepend=0.0), 1)
        law[:, n] = 1.0 - weights[:, -1]
        return law

    def _listed(self, obs: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Waiting suppliers and proposal probabilities in the order of the customer's list, (B, I) each; customers (B,)."""
        queues, customers = self._split(obs)
        order = self.params_.order[customers]
        listed = np.arange(order.shape[1]) < self.params_.length[customers][:, None]
        return np.take_along_axis(queues, order, 1), np.where(listed, self.params_.proposal[customers], 0.0), customers
