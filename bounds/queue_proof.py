"""What multipliers prove about matching queues, in exact arithmetic.

A certificate has multipliers theta, beta_j, u_i and, for each block of queues, a function h on a box of queue lengths. By weak
duality they prove that for every policy

    sum_ij (r_ij + theta) x_ij  <=  sum_j gamma_j beta_j + sum_{i long} lambda_i u_i
        + sum_blocks (max B(h) + lost) + sum_{i long, j} gamma_j (r_ij + theta - beta_j - u_i)^+

with B the Bellman operator at rewards r_ij + theta - beta_j and `lost` the price of cutting off the queues (see `box_proof`);
r is -c_ij for a cost, and the reward theta - c_ij, with the multiplier theta at 0, for the objective. Negative multipliers
count as 0.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from matchgym.bounds.bound import Proof
from matchgym.bounds.box_proof import ExactRates, Table, exact_rates, exact_table, gain_bracket, policy_bracket
from matchgym.bounds.rational import CertificateError, exact
from matchgym.envs.instance import is_count, shorten
from matchgym.envs.matching_queues import QueueNetwork


def _prove(rates: ExactRates, rewards: Table, certificate: dict[str, Any]) -> tuple[Fraction, Fraction, Fraction | None]:
    """(upper, truncation, lower): what multipliers prove of sum_ij (r_ij + theta) x_ij.

    `lower` is that of the block, if there is one block of all queues and beta = 0.
    """
    n, m = len(rates.supplier), len(rates.customer)
    theta = max(Fraction(0), exact(certificate["theta"]))
    beta = [max(Fraction(0), exact(value)) for value in certificate["beta"]]
    u = [max(Fraction(0), exact(value)) for value in certificate["u"]]
    if len(beta) != m or len(u) != n:
        raise CertificateError(f"a certificate needs {m} multipliers beta and {n} multipliers u.")
    reduced = [[reward + theta - price for reward, price in zip(row, beta)] for row in rewards]
    upper = sum((rate * price for rate, price in zip(rates.customer, beta)), Fraction(0))
    long, truncation, lower = set(range(n)), Fraction(0), None
    for block in certificate["blocks"]:
        queues = block["queues"]
        if not queues or not all(is_count(i) for i in queues) or len(set(queues)) != len(queues) or not set(queues) <= long:
            raise CertificateError(f"a certificate has a block of queues {shorten(queues)}; blocks must be disjoint.")
        long -= set(queues)
        bracket = gain_bracket(rates.of(queues), [reduced[i] for i in queues], block)
        upper += bracket.high + bracket.lost
        truncation += bracket.lost
        lower = bracket.low if len(queues) == n and not any(beta) else None
    for i in long:
        upper += rates.supplier[i] * u[i]
        upper += sum((rate * max(Fraction(0), value - u[i]) for rate, value in zip(rates.customer, reduced[i])), Fraction(0))
    return upper, truncation, lower


def prove_priced(instance: QueueNetwork, certificate: dict[str, Any]) -> Proof:
    """An upper bound on J, and a lower bound on the best J where one block holds all queues."""
    if exact(certificate["theta"]) != 0:
        raise CertificateError("a certificate of priced has no target, so its theta must be 0.")
    upper, truncation, lower = _prove(exact_rates(instance), exact_table(instance.rewards), certificate)
    return Proof(lower=lower, upper=upper, truncation=truncation)


def prove_cost(instance: QueueNetwork, certificate: dict[str, Any]) -> Proof:
    """A lower bound on c(tau*), and an upper bound if the certificate has policies.

    Each policy has throughput at least tau_k and cost at most c_k; by mixing two of them at the start, c(tau*) is at most the
    value at tau* of the line through (tau_k, c_k) and (tau_l, c_l), tau_k <= tau* <= tau_l.
    """
    rates, target = exact_rates(instance), Fraction(instance.throughput_target)
    costs = exact_table(instance.costs)
    upper, truncation, _ = _prove(rates, [[-cost for cost in row] for row in costs], certificate)
    lower = max(Fraction(0), max(Fraction(0), exact(certificate["theta"])) * target - upper)
    if "policies" not in certificate:
        return Proof(lower=lower, truncation=truncation)
    caps, ones = certificate["blocks"][0]["caps"], [[Fraction(1)] * len(row) for row in costs]
    points = [(Fraction(0), Fraction(0))]
    for policy in certificate["policies"]:
        actions = np.array(policy["actions"], np.int64)
        throughput, _ = policy_bracket(rates, ones, caps, actions, policy["throughput"])
        _, cost = policy_bracket(rates, costs, caps, actions, policy["cost"])
        points.append((throughput, max(Fraction(0), cost)))
    found = [
        cost + (target - left) / (right - left) * (more - cost) if right > left else min(cost, more)
        for left, cost in points
        for right, more in points
        if left <= target <= right
    ]
    return Proof(lower=lower, upper=min(found) if found else None, truncation=truncation)


def prove_pooled(instance: QueueNetwork, certificate: dict[str, Any]) -> Proof:
    """As `prove_cost`, of the pooled queue."""
    own = exact_rates(instance)
    rates = ExactRates([sum(own.supplier, Fraction(0))], [min(own.departure)], own.customer)
    cheapest = [min(column) for column in zip(*exact_table(instance.costs))]
    upper, truncation, _ = _prove(rates, [[-cost for cost in cheapest]], certificate)
    theta = max(Fraction(0), exact(certificate["theta"]))
    return Proof(lower=max(Fraction(0), theta * Fraction(instance.throughput_target) - upper), truncation=truncation)
