"""The oracle's bound for congestion-aware learning: programme (4) of Sun, Chai and Zhao.

With x_ij = lambda_i p_ij the jobs of type i sent to server j per slot,

    R* = max  sum_ij r_ij x_ij
         sum_j x_ij <= lambda_i                 for all i        (arrivals)
         sum_i x_ij <= m_j                      for all j        (server j completes m_j jobs per slot)
         x >= 0, and x_ij = 0 for pairs that are not compatible

No policy earns more than R* T in T slots in expectation, also one that knows r: the jobs completed satisfy both constraints on
average. The paper has "=" in the first; as rewards are not negative, "<=" has the same value where both are feasible (Lemma 1 for
all pairs compatible), and it bounds overloaded platforms too. r_ij is the mean of the revealed reward, after clipping.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pulp

from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.rational import CertificateError, exact
from matchgym.envs.congestion_learning import MODEL, CongestionLearningInstance, clipped_mean
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
    if instance.rewards is None:
        raise InputError(
            "rewards are drawn anew in every episode, each with its own R*; give a matrix `rewards`, or use `matchgym evaluate`."
        )
    rewards, lam, capacities = instance.mean_rewards, instance.arrival_rates, instance.capacities
    unit = float(rewards.max()) or 1.0
    problem = pulp.LpProblem("oracle", pulp.LpMaximize)
    pairs = [(i, j) for i, j in np.argwhere(instance.allowed).tolist() if lam[i] > 0]
    x = {pair: problem.add_variable(f"x_{pair[0]}_{pair[1]}", 0) for pair in pairs}
    problem += pulp.LpAffineExpression([(x[pair], rewards[pair] / unit) for pair in pairs])
    arrivals, service = {}, {}
    for i in sorted({i for i, _ in pairs}):
        arrivals[i] = pulp.LpAffineExpression([(x[k, j], 1.0) for k, j in pairs if k == i]) <= lam[i]
        problem.addConstraint(arrivals[i], f"arrivals_{i}")
    for j in sorted({j for _, j in pairs}):
        service[j] = pulp.LpAffineExpression([(x[i, k], 1.0) for i, k in pairs if k == j]) <= capacities[j]
        problem.addConstraint(service[j], f"service_{j}")
    held = HeldProgramme(problem)
    flows, alpha, beta = np.zeros(rewards.shape), np.zeros(len(capacities)), np.zeros(len(lam))
    for pair, column in zip(pairs, held.indices(list(x.values())).tolist()):
        flows[pair] = max(0.0, held.values[column])
    for j, row in service.items():
        alpha[j] = max(0.0, held.row_multipliers[row.index]) * unit
    for i, row in arrivals.items():
        beta[i] = max(0.0, held.row_multipliers[row.index]) * unit
    return certify(
        "oracle",
        "upper",
        held.value * unit + 0.0,
        instance,
        prove_oracle,
        {"alpha": alpha.tolist()},
        solution={"x": flows},
        duals={"server": alpha, "job": beta},
    )


def prove_oracle(instance: CongestionLearningInstance, certificate: dict[str, Any]) -> Proof:
    """The upper bound sum_j m_j alpha_j + sum_i lambda_i max_j (r_ij - alpha_j)^+, for any alpha >= 0 (weak duality)."""
    alpha = [max(Fraction(0), exact(value)) for value in certificate["alpha"]]
    if len(alpha) != instance.n_servers:
        raise CertificateError(f"a certificate has {len(alpha)} multipliers alpha where {instance.n_servers} are needed.")
    if instance.rewards is None:
        raise CertificateError("a certificate belongs to an instance with given rewards.")
    value = sum((Fraction(m) * price for m, price in zip(instance.capacities.tolist(), alpha)), Fraction(0))
    noise, cap = Fraction(instance.noise), Fraction(instance.reward_cap or 0)
    for rate, row, allowed in zip(instance.arrival_rates.tolist(), instance.rewards.tolist(), instance.allowed.tolist()):
        margins = [
            clipped_mean.py_func(Fraction(r), noise, cap) - price for r, price, is_allowed in zip(row, alpha, allowed) if is_allowed
        ]
        value += Fraction(rate) * max(Fraction(0), *margins)
    return Proof(upper=value)
