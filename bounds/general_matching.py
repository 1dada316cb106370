"""Bounds for matching on a graph where everybody waits: arXiv 2411.08218, Appendix F, a tighter programme, the exact optimum.

A match is made when one of its nodes arrives (the active one, of type v) while the other waits (the passive one, of type u).
With x_uv its rate and a_u the rate at which nodes of type u leave unmatched,

    max  sum_uv r_uv x_uv
    (1)  a_u + sum_v x_uv + sum_w x_wu = lambda_u                              for all u      (conservation)
    (2)  sum_{u in H} x_uv <= lambda_v (1 - exp(-sum_{u in H} rho_u))          for all v, H   (some node of H is present)
    (3)  x_uv / lambda_v <= a_u / mu_u                                         for all u, v   (Pr[Q_u >= 1] <= E[Q_u])
    (4)  x >= 0

bounds every policy that does not know the future: (2) holds since the nodes present, matched or not, are independent
Poisson(rho_u), and (3) since nodes see time averages when they arrive and the mean queue is a_u / mu_u. The paper has no
programme for both roles of a node at once. The kinds of bound:

    tlp-joint    the programme above (derived here)
    tlp-sum      (1) without sum_w x_wu: TLP_on with everybody in both roles. For a bipartite graph it is TLP_I + TLP_J (F.1)
    tlp-general  4 TLP_on of the graph with offline and online copies of half the rates (F.2)
    optimum      average-reward dynamic programming on a truncated state space, with a bracket around the optimum

tlp-joint <= tlp-sum since it has more constraints, and tlp-sum <= tlp-general since a quarter of any solution of the former
solves the halved programme: 1 - exp(-rho / 2) >= (1 - exp(-rho)) / 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.stationary_matching import FORMS, linear_programme, prove_linear_programme, solve_optimum
from matchgym.bounds.stationary_matching import prove_optimum as prove_optimum  # for boards
from matchgym.bounds.stationary_matching import solve as solve_programme
from matchgym.envs.general_matching import MODEL, GeneralMatchingInstance
from matchgym.envs.instance import unknown
from matchgym.envs.stationary_matching import StationaryMatchingInstance

TLP = "tlp-online"
KINDS = ("tlp-joint", "tlp-sum", "tlp-general", "optimum")  # the first is the default


def bound(instance: Any, kind: str = KINDS[0]) -> Bound:
    """A bound in reward per unit of time; `instance` is anything `gym.make` takes. InputError for an unknown kind."""
    if kind == "optimum":
        return optimum(instance)
    if kind == "tlp-joint":
        return tlp_joint(instance)
    if kind not in PROVERS:
        raise unknown("kind of bound", kind, KINDS)
    return _reduced(MODEL.load(instance), kind)


def tlp_joint(instance: Any) -> Bound:
    """The programme above. `solution` has x (V, V), passive then active type; `duals` the price of a node (V,)."""
    instance = MODEL.load(instance)
    found = solve_programme(instance, FORMS[TLP], "tlp-joint")
    certificate = {"alpha": found.alpha.tolist(), "z": found.z, "beta": found.beta}
    return certify(
        "tlp-joint",
        "upper",
        found.value,
        instance,
        PROVERS["tlp-joint"],
        certificate,
        solution={"x": found.x, "abandonment": instance.arrival_rates - found.x.sum(0) - found.x.sum(1)},
        duals={"node": found.alpha, "pasta": found.z, "subsets": found.beta},
    )


def copies(instance: GeneralMatchingInstance, share: float) -> StationaryMatchingInstance:
    """Stationary matching of suppliers and customers who both come at `share` of the rates of the nodes."""
    return StationaryMatchingInstance(
        name=instance.name,
        supplier_rates=share * instance.arrival_rates,
        departure_rates=instance.departure_rates,
        customer_rates=share * instance.arrival_rates,
        rewards=instance.rewards,
    )


def _reduced(instance: GeneralMatchingInstance, kind: str) -> Bound:
    prover = PROVERS[kind]
    assert isinstance(prover, _CopiesProver)
    found = linear_programme(copies(instance, prover.share), TLP)
    return certify(
        kind,
        "upper",
        prover.factor * found.value,
        instance,
        prover,
        {key: value for key, value in found.certificate.items() if key != "kind"},
        solution=found.solution,
        duals=found.duals,
    )


@dataclass(frozen=True)
class _CopiesProver:
    """`factor` times TLP_on of the copies."""

    share: float
    factor: int

    def __call__(self, instance: GeneralMatchingInstance, certificate: dict[str, Any]) -> Proof:
        proof = prove_linear_programme(copies(instance, self.share), certificate, FORMS[TLP])
        assert proof.upper is not None
        return Proof(upper=Fraction(self.factor) * proof.upper)


def prove_joint(instance: GeneralMatchingInstance, certificate: dict[str, Any]) -> Proof:
    """The upper bound that multipliers of (1)-(3) prove, see `prove_linear_programme`."""
    return prove_linear_programme(instance, certificate, FORMS[TLP])


PROVERS: dict[str, Callable[[Any, dict[str, Any]], Proof]] = {
    "tlp-joint": prove_joint,
    "tlp-sum": _CopiesProver(1.0, 1),
    "tlp-general": _CopiesProver(0.5, 4),
}


def optimum(instance: Any) -> Bound:
    """The gain of the best policy within a certified bracket [lower, upper]; see the `optimum` of stationary matching.

    `solution` has the bias h (one axis per type) and `actions`, one axis for the arriving type and one per queue, V for
    waiting. InputError if the state space is too large.
    """
    instance = MODEL.load(instance)
    found = solve_optimum(instance)
    actions = found.solution["actions"]
    for u, v in np.argwhere(instance.rewards == 0).tolist():  # a match that earns nothing ties with waiting at best
        actions[v][actions[v] == u] = instance.n_types
    return found
