"""Priority Rounding (arXiv 2501.08775, Algorithm 1): the Network LP's solution turned into a policy.

Short queues follow the solution exactly: in short state l, a customer of type j takes short queue i with probability q^l_j(i).
The match with a long queue i that the solution also wants, with probability y_ij, is kept if no short match is made. Types with
x_short,j >= eps are contentious: too many of their long matches would be lost to short ones, so each lost one is put into a
virtual buffer V_ij, from which customers left unmatched make up for it.

    1   i_s: short queue i with probability q^l_j(i), else none;   i_l: long queue i with probability (1 - eps) y_ij, else none
    2   if i_s: match with it; if j is contentious and i_l: V_{i_l, j} += 1
    3   else if i_l and queue i_l is not empty: match with it
    4   else if j is contentious (in the simplified variant: and no i_l): draw i+ with probability y_ij / sum_i y_ij;
        if V_{i+, j} > 0 and queue i+ is not empty: match with it;   V_{i+, j} = max(0, V_{i+, j} - 1)

A supplier who finds a short queue at its cap is discarded: the policy forgets that it is there.
"""

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtrc

from matchgym.baselines.policy import CompiledPolicy, compiled
from matchgym.baselines.preference_lists import customer_kernel, implied_masks
from matchgym.baselines.rounding_chain import MAX_STATES, RoundedValue, Rounding, rounded_value
from matchgym.baselines.tracked_discards import follow_discards_kernel
from matchgym.baselines.tracked_suppliers import Nodes, longest_queue, quadrature
from matchgym.bounds.matching_queues import nlp
from matchgym.envs.base import Model
from matchgym.envs.compile import Integer, Integers, IntegerTable, Reals, RealTable, WordTable, kernel
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.matching_queues import MODEL, QueueNetwork
from matchgym.envs.rng import uniform

VARIANTS = ("printed", "simplified")
UNSEEN = 1e-9  # probability of a short queue at its cap up to which nobody need be told apart
NONE, NO_TABLE = np.empty(0), np.empty((0, 0))
NO_NODES = Nodes(NONE, [], NONE, NO_TABLE, NO_TABLE, NO_TABLE, 0, NO_TABLE)


class RoundingParams(NamedTuple):
    short: Integers  # (s,) queues
    caps: Integers  # (s,)
    short_choice: RealTable  # (m S, s) row j S + l: probability that i_s is one of the first a + 1 short queues
    long_choice: RealTable  # (m, n) probability that i_l <= i
    surplus_choice: RealTable  # (m, n) probability that i+ <= i; zeros if the type has no long match
    is_contentious: Integers  # (m,)
    is_simplified: Integer
    is_tracking: Integer  # whether discarded suppliers are told apart; if not, the fields below are empty
    supplier_rates: Reals  # (n,)
    departure_rates: Reals  # (n,)
    elapsed: Reals  # (K,) and the further fields of `matchgym.baselines.tracked_suppliers.Nodes`
    log_weight: Reals
    survival: RealTable
    departure: RealTable
    newcomers: RealTable
    side: Integer
    log_likelihood: RealTable


class RoundingMemory(NamedTuple):
    stream: WordTable  # (B, 4)
    buffers: IntegerTable  # (B, m n) V_ij, by customer type
    known: IntegerTable  # (B, n) queues after the last decision
    tracked: IntegerTable  # (B, s) short queues without the discarded suppliers
    weight: RealTable  # (B, K) working space, as are the events below
    times: RealTable
    events: IntegerTable
    partners: IntegerTable
    admitted: IntegerTable


@kernel
def forget_kernel(memory, b):
    """Empty buffers, and nobody waiting."""
    for k in range(memory.buffers.shape[1]):
        memory.buffers[b, k] = 0
    for i in range(memory.known.shape[1]):
        memory.known[b, i] = 0
    for a in range(memory.tracked.shape[1]):
        memory.tracked[b, a] = 0


@kernel
def pick_kernel(rng, b, row):
    """The first place of a cumulative row above a uniform number; its length for none."""
    level = uniform(rng, b)
    for k in range(len(row)):
        if level < row[k]:
            return k
    return len(row)


@kernel
def algorithm_kernel(
    rng, b, short_choice, long_choice, surplus_choice, is_contentious, is_simplified, waiting, buffers
):  # fmt: skip
    """Algorithm 1 at an arrival, with the rows of the customer's type: cumulative laws of i_s, i_l and i+, and buffers V.

    `waiting` has the lengths of the long queues. Returns a place among the short queues, or their number plus a place among
    the long ones, the first beyond them for no match.
    """
    n_short, n_long = len(short_choice), len(long_choice)
    short = pick_kernel(rng, b, short_choice)
    long = pick_kernel(rng, b, long_choice)
    if short < n_short:
        if is_contentious and long < n_long:
            buffers[long] += 1
        return short
    if long < n_long:
        if waiting[long] > 0:
            return n_short + long
        if is_simplified:
            return n_short + n_long
    if is_contentious:
        surplus = pick_kernel(rng, b, surplus_choice)
        if surplus < n_long and buffers[surplus] > 0:
            buffers[surplus] -= 1
            if waiting[surplus] > 0:
                return n_short + surplus
    return n_short + n_long


@kernel
def decide_kernel(params, memory, b, obs, rng):
    """The queue that Algorithm 1 takes at an arrival, n for none."""
    m, n = params.long_choice.shape
    n_short = len(params.short)
    j = customer_kernel(obs, n)
    state = 0
    for a in range(n_short):
        state = state * (params.caps[a] + 1) + memory.tracked[b, a]
    row = j * (len(params.short_choice) // m) + state
    chosen = algorithm_kernel(
        rng, b, params.short_choice[row], params.long_choice[j], params.surplus_choice[j], params.is_contentious[j],
        params.is_simplified, obs, memory.buffers[b, j * n : (j + 1) * n],
    )  # fmt: skip
    return params.short[chosen] if chosen < n_short else chosen - n_short


@kernel
def rounding_kernel(params, memory, b, obs, mask, rng):
    """One customer, and the account of who waits after the decision."""
    n = params.long_choice.shape[1]
    if params.is_tracking:
        follow_discards_kernel(params, memory, b, obs, rng)
    else:
        for a in range(len(params.short)):
            memory.tracked[b, a] = min(int(obs[params.short[a]]), params.caps[a])
    action = decide_kernel(params, memory, b, obs, rng)
    if action < n:
        memory.known[b, action] -= 1
        for a in range(len(params.short)):
            if params.short[a] == action:
                memory.tracked[b, a] -= 1
    return action


@compiled(__file__, rounding_kernel, forget_kernel)
class PriorityRounding(CompiledPolicy):
    """Algorithm 1: short queues as the Network LP has them, long queues at a discount, virtual buffers for contentious types.

    Parameters
    ----------
    eps : discount of the long matches, and share of short matches from which a type is contentious; in [0, 1).
    variant : "printed", or "simplified" as in the proofs: a customer whose long queue is empty does not look into the buffers.
    short, caps : short queues and their caps; by default as `matchgym.bounds.matching_queues.nlp` chooses them.

    `solution_` is that of `nlp`, `contentious_` (m,) names the types. Where a short queue is often at its cap, who has been
    discarded, which no observation shows, is drawn from its exact law; see `matchgym.baselines.tracked_discards`.
    """

    model: ClassVar[Model] = MODEL
    reads_glimpse: ClassVar[bool] = False
    Params: ClassVar[type] = RoundingParams
    Memory: ClassVar[type] = RoundingMemory
    params_: RoundingParams
    instance: QueueNetwork

    def __init__(
        self,
        eps: float = 0.1,
        variant: str = "printed",
        short: tuple[int, ...] | None = None,
        caps: tuple[int, ...] | None = None,
    ) -> None:
        if not 0 <= eps < 1:
            raise InputError(f"eps must lie in [0, 1), not {eps:g}.")
        if variant not in VARIANTS:
            raise InputError(f"variant must be printed or simplified, not {shorten(variant)}.")
        self.eps, self.variant, self.short, self.caps = eps, variant, short, caps

    def fit(self, instance: Any) -> Self:
        self.instance = self.model.load(instance)
        self.solution_ = solution = nlp(self.instance, self.short, self.caps).solution
        q, y = solution["q"], solution["y"]
        self.short_share_ = ((1.0 - q[:, :, -1]) * solution["p"]).sum(1)
        self.contentious_ = self.short_share_ >= self.eps
        totals = y.sum(0)
        surplus = np.where(totals > 0, y / np.where(totals > 0, totals, 1.0), 0.0)
        reached = pdtrc(np.array(solution["caps"], float) - 1, self.instance.offered[list(solution["short"])])
        is_tracking = bool((reached > UNSEEN).any())
        nodes = quadrature(self.instance) if is_tracking else NO_NODES
        self.params_ = RoundingParams(
            short=np.array(solution["short"], np.int64),
            caps=np.array(solution["caps"], np.int64),
            short_choice=rounded_up(q[:, :, :-1].cumsum(2).reshape(len(q) * q.shape[1], len(solution["short"]))),
            long_choice=((1 - self.eps) * y.T).cumsum(1),
            surplus_choice=rounded_up(surplus.T.cumsum(1)),
            is_contentious=self.contentious_.astype(np.int64),
            is_simplified=int(self.variant == "simplified"),
            is_tracking=int(is_tracking),
            supplier_rates=self.instance.supplier_rates,
            departure_rates=self.instance.departure_rates,
            elapsed=nodes.elapsed,
            log_weight=nodes.log_weight,
            survival=nodes.survival,
            departure=nodes.departure,
            newcomers=nodes.newcomers,
            side=nodes.side,
            log_likelihood=nodes.log_likelihood,
        )
        return self

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        return implied_masks(observation, self.instance)

    def memory(self, batch: int) -> RoundingMemory:
        n, m = self.instance.costs.shape
        size = 0
        if self.params_.is_tracking:  # space for what can happen between two customers: leaving, coming, and passing
            busiest = float(self.instance.supplier_rates[list(self.solution_["short"])].max())
            size = 2 * max(map(longest_queue, self.instance.offered)) + 2 * longest_queue(busiest * self.params_.elapsed.max())
        return RoundingMemory(
            stream=np.zeros((batch, 4), np.uint64),
            buffers=np.zeros((batch, n * m), np.int64),
            known=np.zeros((batch, n), np.int64),
            tracked=np.zeros((batch, len(self.params_.short)), np.int64),
            weight=np.zeros((batch, len(self.params_.elapsed))),
            times=np.zeros((batch, size)),
            events=np.zeros((batch, size), np.int64),
            partners=np.zeros((batch, size), np.int64),
            admitted=np.zeros((batch, size), np.int64),
        )

    def own_value(self, max_states: int | None) -> RoundedValue:
        is_simplified = self.variant == "simplified"
        rounding = Rounding.of(self.instance, self.solution_, self.eps, is_simplified, self.contentious_)
        return rounded_value(rounding, MAX_STATES if max_states is None else max_states)


def rounded_up(cumulative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative probabilities (rows, k) with totals that miss 1 by rounding set to 1."""
    return np.where(cumulative > 1 - 1e-12, 1.0, cumulative)
