"""Stationary bipartite matching (AmaniHamedani, Aouad, Pollner, Saberi, arXiv 2411.08218, Section 1).

Suppliers of type i arrive as a Poisson process of rate lambda_i, wait, and each leaves on its own after an Exp(mu_i) time.
Customers of type j arrive as a Poisson process of rate gamma_j; each is matched at once to a waiting supplier or is lost. A
match of j to a supplier of type i earns r_ij and removes both. The objective is the long-run reward per unit of time.

    lambda_i -> supplier_rates[i]     mu_i -> departure_rates[i]     gamma_j -> customer_rates[j]     r_ij -> rewards[i, j]

A decision is taken whenever a customer arrives. One step:

1. Match. The waiting customer takes a supplier of the chosen type, or is lost.
2. Suppliers. They arrive and leave until the next customer comes.
3. Customer. The next customer arrives; its type is observed.

Stages 2 and 3 are run in one of two ways with the same law. *Events*: a Gillespie loop over arrivals and departures. *Jump*:
the time to the next customer is Exp(sum gamma); a supplier of type i survives it with probability exp(-mu_i dt), and
Poisson(lambda_i / mu_i (1 - exp(-mu_i dt))) new ones are waiting at its end. Jumps are used where a decision would span many
events. With the option `synchronised`, a matched supplier stays in the loop over events as a ghost until its own departure
clock rings: the law of the queues is the same, and the events no longer depend on the policy, so that two policies under one
seed meet the same customers and suppliers (common random numbers). Jumps are not synchronised.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.stationary_matching import CATALOGUE
from matchgym.envs.compile import (
    Integer,
    Integers,
    IntegerTable,
    Real,
    Reals,
    RealTable,
    WordTable,
    kernel,
    outlined_kernel,
)
from matchgym.envs.instance import InputError, Instance, Rates, as_array
from matchgym.envs.rng import (
    alias_table,
    binomial,
    draw_exponential,
    draw_uniform,
    exponential,
    load,
    pick,
    pick_cell,
    poisson,
    store,
    uniform,
)
from matchgym.envs.stationary_matching_view import draw

JUMP_ABOVE = 4.0  # events per decision and supplier type from which a jump is faster (benchmarks/jumps.py)

MOST_OFFERED = 1e9  # mean number of waiting suppliers up to which the samplers are exact to rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class StationaryMatchingInstance(Instance):
    """Rates per unit of time and rewards per match, of I supplier types and J customer types."""

    model: ClassVar[str] = "stationary_matching"
    joins: ClassVar[None] = None  # a customer who is not matched is lost
    words: ClassVar[tuple[str, str, str]] = ("supplier", "customer", "left unmatched")  # for pictures

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
        offered = checked["supplier_rates"] / checked["departure_rates"]
        if offered.max() > MOST_OFFERED:
            i = int(offered.argmax())
            raise InputError(
                f"supplier_rates[{i}] / departure_rates[{i}] is {offered[i]:.3g} waiting suppliers, above {MOST_OFFERED:.0e}; "
                "raise departure_rates or lower supplier_rates."
            )
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
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.n_suppliers} suppliers x {self.n_customers} customers"

    @property
    def objective_scale(self) -> float:
        """Decisions per unit of time: objective = objective_scale x mean reward per decision."""
        return float(self.customer_rates.sum())


class Params(NamedTuple):
    arrival_rate: Real  # sum of lambda and gamma
    cells_per_rate: Real  # (I + J) / arrival_rate
    customer_rate: Real  # sum of gamma
    departure_rates: Reals  # (I,)
    offered: Reals  # (I,)
    rewards: RealTable  # (I, J)
    threshold: Reals  # (I + J,) alias table of the arrivals: suppliers, then customers
    outcomes: IntegerTable  # (I + J, 2) the cells' own arrivals and their aliases
    customer_threshold: Reals  # (J,) alias table of the customers
    customer_alias: Integers  # (J,)
    is_jumping: Integer
    is_synchronised: Integer
    is_stationary_start: Integer


class State(NamedTuple):
    stream: WordTable  # (B, 4)
    queue: IntegerTable  # (B, I) waiting suppliers
    ghosts: IntegerTable  # (B, I) matched suppliers whose departure clock still runs (if synchronised)
    departure_rate: Reals  # (B,) sum of mu_i over waiting suppliers and ghosts
    customer: Integers  # (B,) type of the customer to be served now
    elapsed_time: Reals  # (B,) since the reset
    total_reward: Reals  # (B,) since the reset
    invalid_actions: Integers  # (B,) since the reset
    decisions: Integers  # (B,) since the reset
    last_supplier: Integers  # (B,) type matched by the last decision, -1 for none
    last_customer: Integers  # (B,) type of the customer of the last decision, -1 before the first


def params(instance: Rates, initial_state: str, synchronised: bool) -> Params:
    """The numbers that the kernels read."""
    supplier_rate, customer_rate = instance.supplier_rates.sum(), instance.customer_rates.sum()
    threshold, alias = alias_table(np.concatenate([instance.supplier_rates, instance.customer_rates]))
    customer_threshold, customer_alias = alias_table(instance.customer_rates)
    return Params(
        arrival_rate=supplier_rate + customer_rate,
        cells_per_rate=len(threshold) / (supplier_rate + customer_rate),
        customer_rate=customer_rate,
        departure_rates=instance.departure_rates,
        offered=instance.offered,
        rewards=instance.rewards,
        threshold=threshold,
        outcomes=np.column_stack([np.arange(len(alias)), alias]),
        customer_threshold=customer_threshold,
        customer_alias=customer_alias,
        is_jumping=int(2 * supplier_rate / customer_rate > JUMP_ABOVE * instance.n_suppliers),
        is_synchronised=int(synchronised),
        is_stationary_start=int(initial_state == "stationary-unmatched"),
    )


def state(instance: Rates, batch: int) -> State:
    """Zeroed rows."""
    n = instance.n_suppliers
    return State(
        stream=np.zeros((batch, 4), np.uint64),
        queue=np.zeros((batch, n), np.int64),
        ghosts=np.zeros((batch, n), np.int64),
        departure_rate=np.zeros(batch),
        customer=np.zeros(batch, np.int64),
        elapsed_time=np.zeros(batch),
        total_reward=np.zeros(batch),
        invalid_actions=np.zeros(batch, np.int64),
        decisions=np.zeros(batch, np.int64),
        last_supplier=np.zeros(batch, np.int64),
        last_customer=np.zeros(batch, np.int64),
    )


@kernel
def reset_kernel(params, state, b):
    """An empty system, or each queue Poisson(rho_i) as if no supplier had ever been matched; then the first customer."""
    state.departure_rate[b] = 0.0
    for i in range(state.queue.shape[1]):
        state.queue[b, i] = poisson(state.stream, b, params.offered[i]) if params.is_stationary_start else 0
        state.ghosts[b, i] = 0
        state.departure_rate[b] += params.departure_rates[i] * state.queue[b, i]
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
        i = np.uint64(action)  # unsigned numbers spare numba's arithmetic for negative indices
        state.queue[b, i] -= 1
        if params.is_synchronised:
            state.ghosts[b, i] += 1
        else:
            state.departure_rate[b] -= params.departure_rates[i]
        reward = params.rewards[i, np.uint64(customer)]
        state.last_supplier[b] = action
    elif action != n:
        state.invalid_actions[b] += 1
    state.total_reward[b] += reward
    state.decisions[b] += 1
    state.last_customer[b] = customer

    # Suppliers. Customer.
    next_customer_kernel(params, state, b)
    return reward, False


@kernel
def next_customer_kernel(params, state, b):
    """Run the suppliers until the next customer arrives, and draw its type."""
    if params.is_jumping:
        jump_kernel(params, state, b)
    else:
        events_kernel(params, state, b)


@outlined_kernel
def jump_kernel(params, state, b):
    """Suppliers at the next customer's arrival, drawn at once from the law of the immigration-death process."""
    stream = state.stream
    elapsed = exponential(stream, b) / params.customer_rate
    state.elapsed_time[b] += elapsed
    for i in range(state.queue.shape[1]):
        exponent = -params.departure_rates[i] * elapsed
        survivors = binomial(stream, b, state.queue[b, i], math.exp(exponent))
        state.queue[b, i] = survivors + poisson(stream, b, -params.offered[i] * math.expm1(exponent))
    state.customer[b] = pick(uniform(stream, b), params.customer_threshold, params.customer_alias)


@kernel
def events_kernel(params, state, b):
    """Arrivals and departures one by one, up to the arrival of a customer."""
    queue, ghosts, n = state.queue[b], state.ghosts[b], np.uint64(state.queue.shape[1])
    elapsed, departure_rate, words = state.elapsed_time[b], state.departure_rate[b], load(state.stream, b)
    while True:
        total = params.arrival_rate + departure_rate
        clock, words = draw_exponential(words)
        level, words = draw_uniform(words)
        level *= total
        arrival = pick_cell(level * params.cells_per_rate, params.threshold, params.outcomes)
        elapsed += clock / total
        if level < params.arrival_rate:
            if arrival >= n:
                state.customer[b] = arrival - n
                break
            queue[arrival] += 1
            departure_rate += params.departure_rates[arrival]
            continue
        level -= params.arrival_rate
        for i in range(len(queue)):  # rounding may leave `level` beyond the last type: then nobody departs
            rate = params.departure_rates[i]
            present = queue[i] + ghosts[i]
            if level < rate * present:
                if level < rate * queue[i]:
                    queue[i] -= 1
                else:
                    ghosts[i] -= 1
                departure_rate -= rate
                break
            level -= rate * present
    state.elapsed_time[b], state.departure_rate[b] = elapsed, departure_rate
    store(state.stream, b, words)


@kernel
def observe_kernel(params, state, b, out):
    """Queue lengths (I), then the type of the waiting customer, one-hot (J)."""
    n = state.queue.shape[1]
    for i in range(n):
        out[i] = state.queue[b, i]
    out[n:] = 0.0
    out[n + state.customer[b]] = 1.0


class Glimpse(NamedTuple):
    """What an observation says, read off the state: for compiled loops, which need not write it down."""

    queue: Integers  # (I,)
    customer: Integer


@kernel
def glimpse_kernel(params, state, b, out):
    """The glimpse of row b; `out` is left alone."""
    return Glimpse(state.queue[b], state.customer[b])


@kernel
def glimpse_waiting_kernel(glimpse, i):
    """Waiting suppliers of type i."""
    return glimpse.queue[np.uint64(i)]


@kernel
def glimpse_customer_kernel(glimpse, n):
    """The type of the waiting customer."""
    return np.uint64(glimpse.customer)


@kernel
def mask_kernel(params, state, b, out):
    """A supplier type is valid when one waits; letting the customer go always is."""
    n = state.queue.shape[1]
    for i in range(n):
        out[i] = state.queue[b, i] > 0
    out[n] = True


def layout(instance: StationaryMatchingInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the observation."""
    n, m = instance.n_suppliers, instance.n_customers
    return {"queue": slice(0, n), "customer": slice(n, n + m)}


def action_space(instance: StationaryMatchingInstance, options: Mapping[str, Any]) -> gym.spaces.Discrete:
    """One action per supplier type, and the last for letting the customer go."""
    return gym.spaces.Discrete(instance.n_suppliers + 1)


def settling(instance: Any) -> float:
    """Ten of the longest mean stays of a supplier, in decisions: the queues forget at the rate of the least departure rate."""
    return 10.0 * float(instance.customer_rates.sum() / instance.departure_rates.min())


MODEL = Model(
    instance_type=StationaryMatchingInstance,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    layout=layout,
    action_space=action_space,
    options={"initial_state": ("empty", "stationary-unmatched"), "synchronised": (False, True)},
    evaluation_options={"synchronised": True},
    draw=draw,
    settling=settling,
    **Model.loops(
        __file__,
        info=("elapsed_time", "total_reward", "invalid_actions"),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=observe_kernel,
        mask_kernel=mask_kernel,
    ),
    glimpse={
        "look_kernel": glimpse_kernel,
        "waiting_kernel": glimpse_waiting_kernel,
        "customer_kernel": glimpse_customer_kernel,
    },
)


class StationaryMatchingEnv(Env):
    """Match impatient customers to waiting suppliers.

    ## Description
    Suppliers of I types arrive, wait and leave on their own. Customers of J types arrive and must be matched at once or are
    lost. Matching a customer of type j to a supplier of type i earns `rewards[i, j]`. The objective is the long-run reward per
    unit of time. This is the model of AmaniHamedani, Aouad, Pollner and Saberi (arXiv 2411.08218, Section 1).

    ## Action Space
    `Discrete(I + 1)`: action i < I matches the waiting customer to a supplier of type i; action I lets the customer go.
    An action whose queue is empty does nothing (the customer is lost) and is counted in `info["invalid_actions"]`.

    ## Observation Space
    `Box(0, inf, (I + J,), float32)`; `env.unwrapped.observation_layout` names the slices.

    | index | meaning | min | max | unit |
    |---|---|---|---|---|
    | 0 .. I-1 | `queue`: waiting suppliers per type | 0 | inf | suppliers |
    | I .. I+J-1 | `customer`: type of the waiting customer, one-hot | 0 | 1 | - |

    ## Rewards
    `rewards[i, j]` for a match, else 0. The objective is `sum(customer_rates)` times the mean reward per decision.

    ## Starting State
    No supplier waits (`initial_state="empty"`), or queue i is Poisson(`supplier_rates[i] / departure_rates[i]`), the law of
    the system without matching (`"stationary-unmatched"`). Then the first customer arrives.

    ## Episode End
    Never terminates: the task is continuing. Truncated after `max_episode_steps` decisions (1000 by default).

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | time since the reset |
    | `total_reward` | reward collected since the reset |
    | `invalid_actions` | forbidden actions taken since the reset |
    | `action_mask` | int8 (I + 1,), 1 where the action is valid |

    ## Arguments
    - `instance`: a catalogue name, the path of a JSON file, or a dict of JSON values with the fields `supplier_rates` (I,),
      `departure_rates` (I,), `customer_rates` (J,), all > 0, and `rewards` (I, J) >= 0. Default "demo".
    - `initial_state`: "empty" (default) or "stationary-unmatched".
    - `synchronised`: if true, two policies under one seed meet the same customers and suppliers (common random numbers), at a
      cost of about a third in speed; evaluation uses it. It has no effect where customers are so rare that the kernel jumps
      from one to the next (more than 4 events per decision and supplier type, as in "b1-10"). Default false.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.stationary_matching` has the paper's linear programmes and the exact optimum of small instances,
    `matchgym.baselines.stationary_matching` its algorithms.

    ## References
    A. AmaniHamedani, A. Aouad, T. Pollner, A. Saberi. Improved Approximations for Stationary Bipartite Matching: Beyond
    Probabilistic Independence. arXiv:2411.08218.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "demo", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class StationaryMatchingVectorEnv(VectorEnv):
    """`num_envs` rows of StationaryMatching-v0; see `StationaryMatchingEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "demo", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
