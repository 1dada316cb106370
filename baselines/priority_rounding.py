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
from matchgym.baselines.preference_lists import customer_kernel, implied_masks, waiting_kernel
from matchgym.baselines.rounding_chain import MAX_STATES, RoundedValue, Rounding, rounded_value
from matchgym.bounds.matching_queues import nlp
from matchgym.envs.compile import Integer, Integers, IntegerTable, RealTable, WordTable, kernel
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.matching_queues import MODEL, MatchingQueuesInstance
from matchgym.envs.rng import uniform

VARIANTS = ("printed", "simplified")
UNSEEN = 1e-5  # probability of a short queue at its cap from which discards can no longer be ignored


class RoundingParams(NamedTuple):
    short: Integers  # (s,) queues
    caps: Integers  # (s,)
    short_choice: RealTable  # (m S, s) row j S + l: probability that i_s is one of the first a + 1 short queues
    long_choice: RealTable  # (m, n) probability that i_l <= i
    surplus_choice: RealTable  # (m, n) probability that i+ <= i; zeros if the type has no long match
    is_contentious: Integers  # (m,)
    is_simplified: Integer


class RoundingMemory(NamedTuple):
    stream: WordTable  # (B, 4)
    buffers: IntegerTable  # (B, n m) V_ij


@kernel
def forget_kernel(memory, b):
    """Empty buffers."""
    for k in range(memory.buffers.shape[1]):
        memory.buffers[b, k] = 0


@kernel
def pick_kernel(rng, b, row):
    """The first place of a cumulative row above a uniform number; its length for none."""
    level = uniform(rng, b)
    for k in range(len(row)):
        if level < row[k]:
            return k
    return len(row)


@kernel
def rounding_kernel(params, memory, b, obs, mask, rng):
    """One customer of Algorithm 1."""
    m, n = params.long_choice.shape
    j = customer_kernel(obs, n)
    state = 0
    for k in range(len(params.short)):
        state = state * (params.caps[k] + 1) + min(int(waiting_kernel(obs, params.short[k])), params.caps[k])
    row = j * (len(params.short_choice) // m) + state

    short = pick_kernel(rng, b, params.short_choice[row])
    long = pick_kernel(rng, b, params.long_choice[j])
    if short < len(params.short):
        if params.is_contentious[j] and long < n:
            memory.buffers[b, long * m + j] += 1
        return params.short[short]
    if long < n:
        if waiting_kernel(obs, long) > 0:
            return long
        if params.is_simplified:
            return n
    if params.is_contentious[j]:
        surplus = pick_kernel(rng, b, params.surplus_choice[j])
        if surplus < n and memory.buffers[b, surplus * m + j] > 0:
            memory.buffers[b, surplus * m + j] -= 1
            if waiting_kernel(obs, surplus) > 0:
                return surplus
    return n


@compiled(__file__, rounding_kernel, forget_kernel)
class PriorityRounding(CompiledPolicy):
    """Algorithm 1: short queues as the Network LP has them, long queues at a discount, virtual buffers for contentious types.

    Parameters
    ----------
    eps : discount of the long matches, and share of short matches from which a type is contentious; in [0, 1).
    variant : "printed", or "simplified" as in the proofs: a customer whose long queue is empty does not look into the buffers.
    short, caps : short queues and their caps; by default as `matchgym.bounds.matching_queues.nlp` chooses them.

    `solution_` is that of `nlp`, `contentious_` (m,) names the types. A queue that is rarely at its cap is simulated as if
    nobody were ever discarded; with smaller caps the discarded suppliers, whom no observation shows, call for the exact value.
    """

    Params: ClassVar[type] = RoundingParams
    Memory: ClassVar[type] = RoundingMemory
    params_: RoundingParams
    instance: MatchingQueuesInstance

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
        self.instance = MODEL.load(instance)
        self.solution_ = solution = nlp(self.instance, self.short, self.caps).solution
        q, y = solution["q"], solution["y"]
        self.short_share_ = ((1.0 - q[:, :, -1]) * solution["p"]).sum(1)
        self.contentious_ = self.short_share_ >= self.eps
        totals = y.sum(0)
        surplus = np.where(totals > 0, y / np.where(totals > 0, totals, 1.0), 0.0)
        self.params_ = RoundingParams(
            short=np.array(solution["short"], np.int64),
            caps=np.array(solution["caps"], np.int64),
            short_choice=_rounded_up(q[:, :, :-1].cumsum(2).reshape(len(q) * q.shape[1], len(solution["short"]))),
            long_choice=((1 - self.eps) * y.T).cumsum(1),
            surplus_choice=_rounded_up(surplus.T.cumsum(1)),
            is_contentious=self.contentious_.astype(np.int64),
            is_simplified=int(self.variant == "simplified"),
        )
        return self

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        return implied_masks(observation, self.instance.n_suppliers)

    def memory(self, batch: int) -> RoundingMemory:
        for i, cap in zip(self.solution_["short"], self.solution_["caps"]):
            if pdtrc(cap - 1, self.instance.offered[i]) > UNSEEN:
                raise InputError(
                    f"caps: queue {i} reaches its cap {cap} too often for a simulation, in which discarded suppliers are not "
                    "seen; raise caps or use --exact."
                )
        return RoundingMemory(
            stream=np.zeros((batch, 4), np.uint64),
            buffers=np.zeros((batch, self.instance.n_suppliers * self.instance.n_customers), np.int64),
        )

    def own_value(self, max_states: int | None) -> RoundedValue:
        is_simplified = self.variant == "simplified"
        rounding = Rounding.of(self.instance, self.solution_, self.eps, is_simplified, self.contentious_)
        return rounded_value(rounding, MAX_STATES if max_states is None else max_states)


def _rounded_up(cumulative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative probabilities (rows, k) with totals that miss 1 by rounding set to 1."""
    return np.where(cumulative > 1 - 1e-12, 1.0, cumulative)
