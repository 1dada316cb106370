"""Policies for stationary bipartite matching: the algorithms of arXiv 2411.08218 and the baselines they are compared with."""

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.drawn_neighbours import DrawnNeighbours
from matchgym.baselines.exact import best_of
from matchgym.baselines.exact import exact_value as exact_value  # for `scoring`
from matchgym.baselines.policy import Nothing, Policy, compiled
from matchgym.baselines.preference_lists import (
    MatchingPolicy,
    PriorityPolicy,
    ProposalPolicy,
    customer_kernel,
    priority_kernel,
    waiting_kernel,
)
from matchgym.baselines.tracked_suppliers import BalancedGreedy
from matchgym.bounds.bound import Bound
from matchgym.bounds.stationary_matching import linear_programme, optimum
from matchgym.envs.compile import Integers, IntegerTable, kernel
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.rng import uniform

SUPPORT = 1e-9  # x_ij below this share of the largest counts as 0
MAX_LEVELS = 24  # thresholds tried by StaticThreshold


@kernel
def correlated_kernel(lists, memory, b, obs, mask, rng):
    """First proposer under pivotal sampling, with one uniform number.

    The sampler's property Pr[some of the first k entries is chosen] = min(1, x_1 + ... + x_k) fixes the law of the first.
    """
    n = lists.order.shape[1]
    j = customer_kernel(obs, n)
    level, total = uniform(rng, b), 0.0
    for k in range(lists.length[j]):
        total += waiting_kernel(obs, lists.order[j, k]) * lists.proposal[j, k]
        if level < total:
            return lists.order[j, k]
    return n


@kernel
def pivotal_kernel(lists, memory, b, obs, mask, rng):
    """First proposer under in-order pivotal sampling of all waiting suppliers, as Algorithm 1 is printed.

    One entry is undecided at a time, with current probability `held`; each new entry of probability x fights with it.
    """
    n = lists.order.shape[1]
    j = customer_kernel(obs, n)
    first, undecided, held = n, n, 0.0  # places in the list; n stands for none
    for k in range(lists.length[j]):
        x = lists.proposal[j, k]
        if x <= 0.0:
            continue
        for _ in range(int(waiting_kernel(obs, lists.order[j, k]))):
            if x >= 1.0:
                first = min(first, k)
            elif held + x < 1.0:
                if uniform(rng, b) * (held + x) < x:
                    undecided = k
                held += x
            elif uniform(rng, b) * (2.0 - held - x) < 1.0 - x:
                first, undecided = min(first, undecided), k
                held += x - 1.0
            else:
                first = min(first, k)
                held += x - 1.0
    if undecided < n and uniform(rng, b) < held:
        first = min(first, undecided)
    return lists.order[j, first] if first < n else n


@kernel
def independent_kernel(lists, memory, b, obs, mask, rng):
    """First proposer when every waiting supplier proposes independently."""
    n = lists.order.shape[1]
    j = customer_kernel(obs, n)
    for k in range(lists.length[j]):
        waiting, p = waiting_kernel(obs, lists.order[j, k]), lists.proposal[j, k]
        if waiting > 0 and p > 0.0 and uniform(rng, b) < 1.0 - (1.0 - p) ** waiting:
            return lists.order[j, k]
    return n


@kernel
def random_kernel(nothing, memory, b, obs, mask, rng):
    """A valid action, each equally likely."""
    left = int(uniform(rng, b) * mask.sum())
    for action in range(len(mask)):
        if mask[action]:
            if left == 0:
                return action
            left -= 1
    return len(mask) - 1


class TableParams(NamedTuple):
    actions: IntegerTable  # (J, S) action of each customer type in each state of the box
    caps: Integers  # (I,) longest queue of the box


@kernel
def table_kernel(table, memory, b, obs, mask, rng):
    """The tabulated action at min(queue, caps); rows of the table are in row-major order of the queues."""
    n = len(table.caps)
    state = 0
    for i in range(n):
        state = state * (table.caps[i] + 1) + min(int(waiting_kernel(obs, i)), table.caps[i])
    return table.actions[customer_kernel(obs, n), state]


@compiled(__file__, priority_kernel)
class Greedy(PriorityPolicy):
    """The waiting supplier of largest reward r_ij > 0."""

    def _prepare(self) -> None:
        self._follow(self.instance.rewards > 0, self.instance.rewards)


@compiled(__file__, priority_kernel)
class LPSupportGreedy(PriorityPolicy):
    """Greedy on the pairs that the solution of TLP_on uses, x_ij > 0."""

    def _prepare(self) -> None:
        x = linear_programme(self.instance, "tlp-online").solution["x"]
        self._follow((x > SUPPORT * x.max()) & (self.instance.rewards > 0), self.instance.rewards)


@compiled(__file__, priority_kernel)
class PriceGreedy(PriorityPolicy):
    """The waiting supplier of largest r_ij - d_i > 0, d_i the price of a supplier: the dual of constraint (1) of TLP_on."""

    def _prepare(self) -> None:
        self.prices_ = linear_programme(self.instance, "tlp-online").duals["supplier"]
        margin = self.instance.rewards - self.prices_[:, None]
        self._follow((margin > 0) & (self.instance.rewards > 0), margin)


@compiled(__file__, priority_kernel)
class StaticThreshold(PriorityPolicy):
    """Greedy on the pairs with r_ij >= threshold; by default the best threshold, found when fitting."""

    threshold_: float

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold

    def _prepare(self) -> None:
        rewards = self.instance.rewards
        if self.threshold is None:
            levels = np.unique(rewards[rewards > 0])
            if len(levels) > MAX_LEVELS:
                levels = np.quantile(levels, np.linspace(0, 1, MAX_LEVELS), method="nearest")
            rules = [type(self)(float(level)).fit(self.instance) for level in [0.0, *levels]]
            self.threshold_ = best_of(rules, self.env_id).threshold_
        else:
            self.threshold_ = float(self.threshold)
        self._follow((rewards >= self.threshold_) & (rewards > 0), rewards)


class _Correlated(ProposalPolicy):
    def probabilities(self, observation: NDArray[np.float32], action_masks: Any = None) -> NDArray[np.float64]:
        waiting, p, customers = self._listed(observation)
        return self._cumulative(np.minimum(1.0, (waiting * p).cumsum(1)), customers)


@compiled(__file__, correlated_kernel)
class CorrelatedProposals(_Correlated):
    """Algorithm 1: p_ij = (x_ij / gamma_j) / (x_ia / mu_i) from TLP_on, proposers by pivotal sampling.

    This is the form with one uniform number per customer, which has the same law as `PivotalProposals`. Earns at least
    (1 - 1/e) sum_ij r_ij x_ij (Section 2.2), also when another feasible x (I, J) is given.
    """


@compiled(__file__, pivotal_kernel)
class PivotalProposals(_Correlated):
    """Algorithm 1 as printed: pivotal sampling over the list of all waiting suppliers."""


@compiled(__file__, correlated_kernel)
class OfflineProposals(_Correlated):
    """Algorithm 3: p_ij = (x_ij / gamma_j) / (1 - exp(-rho_i)) from TLP_off, earns (1 - 1/sqrt(e)) TLP_off (Appendix E.1)."""

    def _prepare(self) -> None:
        self.solution_ = linear_programme(self.instance, "tlp-offline").solution["x"] if self.x is None else self._given()
        self._propose(self.solution_ / self.instance.customer_rates / -np.expm1(-self.instance.offered)[:, None])


@compiled(__file__, independent_kernel)
class IndependentProposals(ProposalPolicy):
    """As Algorithm 1, but waiting suppliers propose independently of each other [Aouad, Saritac]."""

    def probabilities(self, observation: NDArray[np.float32], action_masks: Any = None) -> NDArray[np.float64]:
        waiting, p, customers = self._listed(observation)
        return self._cumulative(1.0 - np.cumprod((1.0 - p) ** waiting, axis=1), customers)


@compiled(__file__, random_kernel)
class Random(MatchingPolicy):
    """A valid action, each equally likely."""

    reads_mask: ClassVar[bool] = True

    def _prepare(self) -> None:
        self.params_ = Nothing(np.zeros((1, 1), np.uint64))

    def probabilities(self, observation: NDArray[np.float32], action_masks: Any = None) -> NDArray[np.float64]:
        masks = self.masks(observation) if action_masks is None else action_masks
        return masks / masks.sum(1, keepdims=True)


@compiled(__file__, table_kernel)
class Optimal(MatchingPolicy):
    """The best policy, from average-reward dynamic programming; small instances only."""

    Params = TableParams
    is_deterministic: ClassVar[bool] = True

    def _solve(self) -> Bound:
        return optimum(self.instance)

    def _prepare(self) -> None:
        solution = self._solve().solution
        actions = solution["actions"]
        self.params_ = TableParams(actions.reshape(len(actions), -1), np.array(solution["caps"]))


class Combined(Policy):
    """Algorithm 1 or Algorithm 2, whichever suits the instance (proof of Theorem 1.1).

    rule "paper": Algorithm 2 if the instance is vertex-weighted and hard for eps and eps_prime, else Algorithm 1.
    rule "best" (default): the better of Algorithm 1 and Algorithm 2 with several eps, with and without its first step, by exact
    value on small instances and by simulation under common random numbers otherwise. `chosen_` is the policy followed; x (I, J)
    are feasible match rates to follow in place of the solution of TLP_on.
    """

    def __init__(
        self, rule: str = "best", eps: float = 0.1, eps_prime: float = 0.1, x: NDArray[np.float64] | None = None
    ) -> None:
        if rule not in ("best", "paper"):
            raise InputError(f"rule must be best or paper, not {shorten(rule)}.")
        self.rule, self.eps, self.eps_prime, self.x = rule, eps, eps_prime, x

    def fit(self, instance: Any) -> Self:
        first = CorrelatedProposals(self.x).fit(instance)
        self.instance = first.instance
        second = BalancedGreedy(self.eps, self.eps_prime, x=self.x).fit(instance)
        if self.rule == "paper":
            self.chosen_: MatchingPolicy = second if second.is_hard_ else first
        else:
            knobs = [(eps, eps_prime, True) for eps in (0.05, 0.1, 0.3) for eps_prime in (0.1, 0.3)] + [(0.1, 0.1, False)]
            candidates = {
                tuple(map(tuple, p.kept_)): p for p in (BalancedGreedy(*knob, x=self.x).fit(instance) for knob in knobs)
            }
            self.chosen_ = best_of([first, *candidates.values()])
        return self

    @property
    def acting(self) -> Policy:
        return self.chosen_


POLICIES: dict[str, type[Policy]] = {
    "greedy": Greedy,  # the anchor of scores
    "random": Random,
    "lp-support-greedy": LPSupportGreedy,
    "price-greedy": PriceGreedy,
    "static-threshold": StaticThreshold,
    "independent-proposals": IndependentProposals,
    "correlated-proposals": CorrelatedProposals,
    "pivotal-proposals": PivotalProposals,
    "offline-proposals": OfflineProposals,
    "balanced-greedy": BalancedGreedy,
    "combined": Combined,
    "drawn-neighbours": DrawnNeighbours,
    "optimal": Optimal,
}
