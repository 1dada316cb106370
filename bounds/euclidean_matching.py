"""Bounds for Euclidean matching: those of matching queues, with distances for costs.

c(tau*) is the least cost per unit of time of a policy with throughput at least tau* = `throughput_target`; theta =
`throughput_price` (or its default) makes the objective J = theta tau - c. The kinds of bound are

    priced     an upper bound on J; exact for one queue and for small networks, else DLPtilde at the given theta
    dlp        c(tau*) of one queue, exactly
    optimum    c(tau*), exactly: dynamic programming on the joint queue lengths and a walk along the hull; small networks
    nlp        NLP: short queues jointly, long ones by their arrivals only
    dlp-tilde  one DLP per queue, coupled by the target and the customers
    pooled     DLP of one queue that pools all suppliers, each customer at the distance of the nearest
    fluid      min sum c z, sum_j z_ij <= lambda_i, sum_i z_ij <= gamma_j, sum z >= tau*

All but `priced` bound c(tau*) from below, in cost per unit of time. See `matchgym.bounds.matching_queues` for the programmes.
"""

from collections.abc import Sequence
from typing import Any

from matchgym.bounds import matching_queues as base
from matchgym.bounds.bound import Bound
from matchgym.envs.euclidean_matching import MODEL

KINDS, EXACT, PROVERS = base.KINDS, base.EXACT, base.PROVERS


def bound(instance: Any, kind: str = KINDS[0], short: Sequence[int] | None = None, caps: Sequence[int] | None = None) -> Bound:
    """A bound of one of the `KINDS`; `instance` is anything `gym.make` takes, `short` and `caps` are for `nlp`."""
    return base.bound(MODEL.load(instance), kind, short, caps)
