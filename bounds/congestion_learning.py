"""The oracle's bound for congestion-aware learning: programme (4) of Sun, Chai and Zhao.

With x_ij = lambda_i p_ij the jobs of type i sent to server j per slot,

    R* = max  sum_ij r_ij x_ij
         sum_j x_ij <= lambda_i                 for all i        (arrivals)
         sum_i x_ij <= m_j                      for all j        (server j completes m_j jobs per slot)
         x >= 0, and x_ij = 0 for pairs that are not compatible

No policy earns more than R* T in T slots in expectation, also one that knows r: the jobs completed satisfy both constraints on
average. The paper has "=" in the first; as rewards are not negative, "<=" has the same value where both are feasible (Lemma 1
for all pairs compatible), and it bounds overloaded platforms too. r_ij is the mean of the revealed reward, after clipping.
"""

from collections import defaultdict
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.bound import Bound, Proof, Prover, certify
from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.rational import CertificateError, exact
from matchgym.envs.congestion_instances import CongestionLearningInstance, clipped_mean
from matchgym.envs.congestion_learning import MODEL
from matchgym.envs.instance import InputError, unknown

KINDS = ("oracle",)


def bound(instance: Any, kind: str = KINDS[0]) -> Bound:
    """A bound in reward per slot; `instance` is anything `gym.make` takes. InputError for an unknown kind or drawn rewards."""
    if kind not in KINDS:
        raise unknown("kind of bound", kind, KINDS)
    return oracle(instance)


def oracle(instance: Any) -> Bound:
    """R*. `solution` has x (I, J); `duals` has the price of a server's slot (J,) and the worth of a job (I,)."""
    instance = MODEL.load(instance)
    refuse_drawn(instance)
    found = solve_oracle(instance.mean_rewards, instance.arrival_rates, instance.capacities, instance.allowed)
    return certified_oracle(instance, found, prove_oracle)


def refuse_drawn(instance: Any) -> None:
    """There is no R* of an instance whose rewards are drawn in every episode."""
    if instance.rewards is None:
        raise InputError(
            "rewards are drawn in every episode, each with its own R*; give a matrix `rewards`, or use `matchgym evaluate`."
        )


class OracleSolution(NamedTuple):
    """Value and solution of programme (4), and the multipliers of its rows."""

    value: float
    x: NDArray[np.float64]  # (I, J)
    alpha: NDArray[np.float64]  # (J,) of service
    beta: NDArray[np.float64]  # (I,) of arrivals


def solve_oracle(
    rewards: NDArray[np.float64], rates: NDArray[np.float64], capacities: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> OracleSolution:
    """Solve programme (4)."""
    unit = float(rewards.max()) or 1.0
    problem = pulp.LpProblem("oracle", pulp.LpMaximize)
    pairs = [(i, j) for i, j in np.argwhere(allowed).tolist() if rates[i] > 0]
    x = {pair: problem.add_variable(f"x_{pair[0]}_{pair[1]}", 0) for pair in pairs}
    problem += pulp.LpAffineExpression([(x[pair], rewards[pair] / unit) for pair in pairs])
    of_type, of_server = defaultdict(list), defaultdict(list)
    for i, j in pairs:
        of_type[i].append(x[i, j])
        of_server[j].append(x[i, j])
    arrivals, service = {}, {}
    for i, sent in of_type.items():
        arrivals[i] = pulp.LpAffineExpression([(each, 1.0) for each in sent]) <= rates[i]
        problem.addConstraint(arrivals[i], f"arrivals_{i}")
    for j, received in of_server.items():
        service[j] = pulp.LpAffineExpression([(each, 1.0) for each in received]) <= capacities[j]
        problem.addConstraint(service[j], f"service_{j}")
    held = HeldProgramme(problem)
    flows, alpha, beta = np.zeros(rewards.shape), np.zeros(len(capacities)), np.zeros(len(rates))
    for pair, column in zip(pairs, held.indices(list(x.values())).tolist()):
        flows[pair] = max(0.0, held.values[column])
    for multipliers, rows in ((alpha, service), (beta, arrivals)):
        for k, row in rows.items():
            multipliers[k] = max(0.0, held.row_multipliers[row.index]) * unit
    return OracleSolution(held.value * unit + 0.0, flows, alpha, beta)


def certified_oracle(instance: Any, found: OracleSolution, prove: Prover) -> Bound:
    """The bound that the multipliers of a solution prove."""
    return certify(
        "oracle",
        "upper",
        found.value,
        instance,
        prove,
        {"alpha": found.alpha.tolist()},
        solution={"x": found.x},
        duals={"server": found.alpha, "job": found.beta},
    )


def prove_oracle(instance: CongestionLearningInstance, certificate: dict[str, Any]) -> Proof:
    """The upper bound of any prices of the servers' slots, with the mean rewards computed exactly."""
    refuse_drawn(instance)
    assert instance.rewards is not None
    noise, cap = Fraction(instance.noise), Fraction(instance.reward_cap or 0)
    rewards = [[clipped_mean.py_func(Fraction(r), noise, cap) for r in row] for row in instance.rewards.tolist()]
    rates, capacities = (
        [Fraction(rate) for rate in values.tolist()] for values in (instance.arrival_rates, instance.capacities)
    )
    return price_bound(certificate, rewards, rates, capacities, instance.allowed.tolist())


def price_bound(
    certificate: dict[str, Any],
    rewards: list[list[Fraction]],
    rates: list[Fraction],
    capacities: list[Fraction],
    allowed: list[list[bool]],
) -> Proof:
    """sum_j m_j alpha_j + sum_i lambda_i max_j (r_ij - alpha_j)^+ bounds programme (4) for any alpha >= 0 (weak duality)."""
    alpha = [max(Fraction(0), exact(value)) for value in certificate["alpha"]]
    if len(alpha) != len(capacities):
        raise CertificateError(f"a certificate has {len(alpha)} multipliers alpha where {len(capacities)} are needed.")
    value = sum((capacity * price for capacity, price in zip(capacities, alpha)), Fraction(0))
    for rate, row, may in zip(rates, rewards, allowed):
        value += rate * max(Fraction(0), *(r - price for r, price, is_allowed in zip(row, alpha, may) if is_allowed))
    return Proof(upper=value)


PROVERS = {"oracle": prove_oracle}
