"""The oracle's bound for clients of unseen types: programme (EC.37) of Sun, Chai and Zhao.

It is programme (4) of `congestion_learning` with mu_i lambda_i / nu_i jobs of type i per slot: the mean number of clients of
type i present is mu_i / nu_i in the long run, and at most that in every slot of an episode that starts without clients. With
"<=" in the rows of the arrivals the programme grows with them, so that no policy, also one that sees types and knows r, earns
more.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from matchgym.bounds.bound import Bound, Proof
from matchgym.bounds.congestion_learning import certified_oracle, price_bound, refuse_drawn, solve_oracle
from matchgym.envs.congestion_instances import FloatingClientsInstance
from matchgym.envs.floating_clients import MODEL
from matchgym.envs.instance import unknown

KINDS = ("oracle",)


def bound(instance: Any, kind: str = KINDS[0]) -> Bound:
    """A bound in reward per slot; `instance` is anything `gym.make` takes. InputError for an unknown kind or drawn rewards."""
    if kind not in KINDS:
        raise unknown("kind of bound", kind, KINDS)
    return oracle(instance)


def oracle(instance: Any) -> Bound:
    """R* of (EC.37). `solution` has x (I, J); `duals` has the price of a server's slot (J,) and the worth of a job (I,)."""
    instance = MODEL.load(instance)
    refuse_drawn(instance)
    rates = instance.client_arrivals * instance.job_rates / instance.client_departures
    m = instance.n_servers
    return certified_oracle(
        instance, solve_oracle(instance.rewards, rates, np.ones(m), np.ones((len(rates), m), bool)), prove_oracle
    )


def prove_oracle(instance: FloatingClientsInstance, certificate: dict[str, Any]) -> Proof:
    """The upper bound of any prices of the servers' slots."""
    refuse_drawn(instance)
    assert instance.rewards is not None
    factors = (instance.client_arrivals, instance.job_rates, instance.client_departures)
    rates = [Fraction(mu) * Fraction(lam) / Fraction(nu) for mu, lam, nu in zip(*(values.tolist() for values in factors))]
    rewards = [[Fraction(r) for r in row] for row in instance.rewards.tolist()]
    m = instance.n_servers
    return price_bound(certificate, rewards, rates, [Fraction(1)] * m, [[True] * m] * len(rates))


PROVERS = {"oracle": prove_oracle}
