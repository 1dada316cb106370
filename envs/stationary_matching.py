"""Stationary bipartite matching (AmaniHamedani, Aouad, Pollner, Saberi, arXiv 2411.08218, Section 2.1).

Suppliers of type i arrive as a Poisson process of rate lambda_i, wait, and each leaves on its own after an Exp(mu_i) time.
Customers of type j arrive as a Poisson process of rate gamma_j; each is matched at once to a waiting supplier or is lost. A
match of j to a supplier of type i earns r_ij and removes both. The objective is the long-run reward per unit of time.

    lambda_i -> supplier_rates[i]     mu_i -> departure_rates[i]     gamma_j -> customer_rates[j]     r_ij -> rewards[i, j]

A decision is taken whenever a customer arrives. One step:

1. Match. The waiting customer takes a supplier of the chosen type, or is lost.
2. Suppliers. They arrive and leave until the next customer comes.
3. Customer. The next customer arrives; its type is observed.

Stage 2 is run in one of two ways with the same law. *Events*: a Gillespie loop over arrivals and departures. A matched supplier
stays in the loop as a ghost until its own departure clock rings, so that the events do not depend on the policy: two policies
under one seed meet the same customers and suppliers. *Jump*: the time to the next customer is Exp(sum gamma); a supplier of
type i survives it with probability exp(-mu_i dt), and Poisson(lambda_i / mu_i (1 - exp(-mu_i dt))) new ones are waiting at its
end. Jumps are used where a decision would span many events.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, Reals, RealTable, WordTable, kernel
from matchgym.envs.instance import Instance, as_array
from matchgym.envs.rng import alias_table, binomial, exponential, pick, poisson, uniform

JUMP_ABOVE = 4.0  # events per decision and supplier type from which a jump is faster (benchmarks/jumps.py)


@dataclass(frozen=True, kw_only=True, eq=False)
class StationaryMatchingInstance(Instance):
    """Rates per unit of time and rewards per match, of I supplier types and J customer types."""

    model: ClassVar[str] = "stationary_matching"

    supplier_rates: NDArray[np.float64]  # (I,) > 0, arrivals per unit of time
    departure_rates: NDArray[np.float64]  # (I,) > 0, per waiting supplier and unit of time
    customer_rates: NDArray[np.float64]  # (J,) > 0, arrivals per unit of time
    rewards: NDArray[np.float64]  # (I, J) >= 0, per match

    def __post_init__(self) -> None:
        super().__post_init__()
        checked = {"supplier_rates": as_array("supplier_rates", self.supplier_rates, 1, (None,), positive=True)}
        n = len(checked["supplier_rates"])
        checked["departure_rates"] = as_array("departure_rates", self.departure_rates, 1, (n,), positive=True)
        checked["customer_rates"] = as_array("customer_rates", self.customer_rates, 1, (None,), positive=True)
        m = len(checked["customer_rates"])
        checked["rewards"] = as_array("rewards", self.rewards, 2, (n, m), positive=False)
        for field, array in checked.items():
            object.__setattr__(self, field, array)

    @property
    def n_suppliers(self) -> int:
        return len(self.supplier_rates)

    @property
    def n_customers(self) -> int:
        return len(self.customer_rates)

    @property
    def offered(self) -> NDArray[np.float64]:
        """rho_i = lambda_i / mu_i (I,), the mean number of suppliers present if none is matched."""
        return self.supplier_rates / self.departure_rates

    @property
    def objective_scale(self) -> float:
        """Decisions per unit of time: objective = objective_scale x mean reward per decision."""
        return float(self.customer_rates.sum())


class Params(NamedTuple):
    supplier_rate: Real  # sum of lambda
    customer_rate: Real  # sum of gamma
    departure_rates: Reals  # (I,)
    offered: Reals  # (I,)
    rewards: RealTable  # (I, J)
    supplier_threshold: Reals  # (I,) alias table of lambda
    supplier_alias: Integers  # (I,)
    customer_threshold: Reals  # (J,) alias table of gamma
    customer_alias: Integers  # (J,)
    is_jumping: Integer
    is_stationary_start: Integer


class State(NamedTuple):
    stream: WordTable  # (B, 4)
    queue: IntegerTable  # (B, I) waiting suppliers
    ghosts: IntegerTable  # (B, I) matched suppliers whose departure clock still runs (events only)
    customer: Integers  # (B,) type of the customer to be served now
    elapsed_time: Reals  # (B,) since the reset
    total_reward: Reals  # (B,) since the reset
    invalid_actions: Integers  # (B,) since the reset
    decisions: Integers  # (B,) since the reset
    last_supplier: Integers  # (B,) type matched by the last decision, -1 for none
    last_customer: Integers  # (B,) type of the customer of the last decision, -1 before the first


def params(instance: StationaryMatchingInstance, initial_state: str) -> Params:
    """The numbers that the kernels read."""
    supplier_threshold, supplier_alias = alias_table(instance.supplier_rates)
    customer_threshold, customer_alias = alias_table(instance.customer_rates)
    supplier_rate, customer_rate = instance.supplier_rates.sum(), instance.customer_rates.sum()
    return Params(
        supplier_rate=supplier_rate,
        customer_rate=customer_rate,
        departure_rates=instance.departure_rates,
        offered=instance.offered,
        rewards=instance.rewards,
        supplier_threshold=supplier_threshold,
        supplier_alias=supplier_alias,
        customer_threshold=customer_threshold,
        customer_alias=customer_alias,
        is_jumping=int(2 * supplier_rate / customer_rate > JUMP_ABOVE * instance.n_suppliers),
        is_stationary_start=int(initial_state == "stationary-unmatched"),
    )


def state(instance: StationaryMatchingInstance, batch: int) -> State:
    """Zeroed rows."""
    n = instance.n_suppliers
    counts = {name: np.zeros(batch, np.int64) for name in State._fields}
    return State(
        **counts
        | {
            "stream": np.zeros((batch, 4), np.uint64),
            "queue": np.zeros((batch, n), np.int64),
            "ghosts": np.zeros((batch, n), np.int64),
            "elapsed_time": np.zeros(batch),
            "total_reward": np.zeros(batch),
        }
    )


@kernel
def reset_kernel(params, state, b):
    """An empty system, or each queue Poisson(rho_i) as if no supplier had ever been matched; then the first customer."""
    for i in range(state.queue.shape[1]):
        state.queue[b, i] = poisson(state.stream, b, params.offered[i]) if params.is_stationary_start else 0
        state.ghosts[b, i] = 0
    state.elapsed_time[b] = state.total_reward[b] = 0.0
    state.invalid_actions[b] = state.decisions[b] = 0
    state.last_supplier[b] = state.last_customer[b] = -1
    next_customer_kernel(params, state, b)


@kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated); action i < I matches a supplier of type i, action I lets the customer go."""
    n = state.queue.shape[1]
    customer = state.customer[b]

    # Match.
    reward = 0.0
    state.last_supplier[b] = -1
    if 0 <= action < n and state.queue[b, action] > 0:
        state.queue[b, action] -= 1
        state.ghosts[b, action] += 1
        reward = params.rewards[action, customer]
        state.last_supplier[b] = action
    elif action != n:
        state.invalid_actions[b] += 1
    state.total_reward[b] += reward
    state.decisions[b] += 1
    state.last_customer[b] = customer

    # Suppliers and customer.
    next_customer_kernel(params, state, b)
    return reward, False


@kernel
def next_customer_kernel(params, state, b):
    """Run the suppliers until the next customer arrives, and draw its type."""
    if params.is_jumping:
        jump_kernel(params, state, b)
        fraction = uniform(state.stream, b)
    else:
        fraction = events_kernel(params, state, b)
    state.customer[b] = pick(fraction, params.customer_threshold, params.customer_alias)


@kernel
def jump_kernel(params, state, b):
    """Suppliers at the next customer's arrival, drawn at once from the law of the immigration-death process."""
    stream = state.stream
    elapsed = exponential(stream, b) / params.customer_rate
    state.elapsed_time[b] += elapsed
    for i in range(state.queue.shape[1]):
        survival = np.exp(-params.departure_rates[i] * elapsed)
        survivors = binomial(stream, b, state.queue[b, i], survival)
        state.queue[b, i] = survivors + poisson(stream, b, -params.offered[i] * np.expm1(-params.departure_rates[i] * elapsed))


@kernel
def events_kernel(params, state, b):
    """Suppliers event by event until the next customer; returns a uniform number left over for the customer's type.

    The clocks of matched suppliers (ghosts) run on, which keeps the sequence of events independent of the policy.
    """
    stream, n = state.stream, state.queue.shape[1]
    departure_rate = 0.0
    for i in range(n):
        departure_rate += params.departure_rates[i] * (state.queue[b, i] + state.ghosts[b, i])
    arrival_rate = params.customer_rate + params.supplier_rate
    elapsed = state.elapsed_time[b]
    while True:
        total = arrival_rate + departure_rate
        elapsed += exponential(stream, b) / total
        level = uniform(stream, b) * total
        if level < params.customer_rate:
            state.elapsed_time[b] = elapsed
            return level / params.customer_rate
        level -= params.customer_rate
        if level < params.supplier_rate:
            i = pick(level / params.supplier_rate, params.supplier_threshold, params.supplier_alias)
            state.queue[b, i] += 1
            departure_rate += params.departure_rates[i]
            continue
        level -= params.supplier_rate
        for i in range(n):
            rate = params.departure_rates[i]
            present = state.queue[b, i] + state.ghosts[b, i]
            if level < rate * present:
                if level < rate * state.queue[b, i]:
                    state.queue[b, i] -= 1
                else:
                    state.ghosts[b, i] -= 1
                departure_rate -= rate
                break
            level -= rate * present


@kernel
def observe_kernel(params, state, b, out):
    """Queue lengths (I), then the type of the waiting customer, one-hot (J)."""
    n = state.queue.shape[1]
    for i in range(n):
        out[i] = state.queue[b, i]
    out[n:] = 0.0
    out[n + state.customer[b]] = 1.0


@kernel
def mask_kernel(params, state, b, out):
    """A supplier type is valid when one waits; letting the customer go always is."""
    n = state.queue.shape[1]
    for i in range(n):
        out[i] = state.queue[b, i] > 0
    out[n] = True
