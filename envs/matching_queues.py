"""Matching queues (AmaniHamedani, Aouad, Saberi, Adaptive Approximation Schemes for Matching Queues, Section 2).

Suppliers of type i arrive as a Poisson process of rate lambda_i, wait in queue i, and each abandons it after an Exp(mu_i) time.
Customers of type j arrive as a Poisson process of rate gamma_j; each is matched at once to a waiting supplier or is lost. A
match of j to a supplier of queue i costs c_ij and removes both. The paper asks for the least cost per unit of time c(tau*) at a
throughput (matches per unit of time) of at least tau*. Its Lagrangian is the objective here: with theta the price of a unit of
throughput, theta tau - c, so that a match earns theta - c_ij, which may be negative.

    lambda_i -> supplier_rates[i]     mu_i -> abandonment_rate[i]     gamma_j -> customer_rates[j]     c_ij -> costs[i, j]
    tau*     -> throughput_target     theta -> throughput_price

The dynamics are those of stationary matching with rewards theta - c_ij, step by step, and so are the kernels: see
`matchgym.envs.stationary_matching`. Added here is the account of matches and costs.

1. Match. The waiting customer takes a supplier of the chosen queue, or is lost.
2. Suppliers. They arrive and abandon until the next customer comes.
3. Customer. The next customer arrives; its type is observed.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from matchgym.envs import stationary_matching as base
from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.matching_queues import CATALOGUE
from matchgym.envs.compile import Integers, Real, Reals, extend_record, kernel
from matchgym.envs.instance import InputError, Instance, as_array, as_number
from matchgym.envs.single_queue import Segment, queue_frontier
from matchgym.envs.stationary_matching_view import draw


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchingQueuesInstance(Instance):
    """Rates per unit of time and costs per match, of n supplier types and m customer types."""

    model: ClassVar[str] = "matching_queues"
    joins: ClassVar[None] = None  # a customer who is not matched is lost
    words: ClassVar[tuple[str, str, str]] = ("supplier", "customer", "left unmatched")  # for pictures

    supplier_rates: NDArray[np.float64]  # (n,) > 0, arrivals per unit of time
    abandonment_rate: float | NDArray[np.float64]  # one for all or (n,), > 0, per waiting supplier and unit of time
    customer_rates: NDArray[np.float64]  # (m,) > 0, arrivals per unit of time
    costs: NDArray[np.float64]  # (n, m) >= 0, per match
    throughput_target: float  # >= 0, matches per unit of time
    throughput_price: float | None = None  # theta >= 0, per match; None: the price at the target, see `price`

    def __post_init__(self) -> None:
        super().__post_init__()
        checked: dict[str, Any] = {"supplier_rates": as_array("supplier_rates", self.supplier_rates, 1, (None,), positive=True)}
        n = len(checked["supplier_rates"])
        rate = self.abandonment_rate
        if isinstance(rate, list | tuple | np.ndarray):
            checked["abandonment_rate"] = as_array("abandonment_rate", rate, 1, (n,), positive=True)
        else:
            checked["abandonment_rate"] = as_number("abandonment_rate", rate, positive=True)
        checked["customer_rates"] = as_array("customer_rates", self.customer_rates, 1, (None,), positive=True)
        checked["costs"] = as_array("costs", self.costs, 2, (n, len(checked["customer_rates"])), positive=False)
        checked["throughput_target"] = as_number("throughput_target", self.throughput_target, positive=False)
        if self.throughput_price is not None:
            checked["throughput_price"] = as_number("throughput_price", self.throughput_price, positive=False)
        for field, value in checked.items():
            object.__setattr__(self, field, value)
        offered = self.offered
        if offered.max() > base.MOST_OFFERED:
            raise InputError(
                f"supplier_rates[{offered.argmax()}] / abandonment_rate is {offered.max():.3g} waiting suppliers, above "
                f"{base.MOST_OFFERED:.0e}; raise abandonment_rate or lower supplier_rates."
            )

    @property
    def n_suppliers(self) -> int:
        return len(self.supplier_rates)

    @property
    def n_customers(self) -> int:
        return len(self.customer_rates)

    @property
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.n_suppliers} suppliers x {self.n_customers} customers"

    @property
    def departure_rates(self) -> NDArray[np.float64]:
        """mu_i (n,)."""
        return np.broadcast_to(np.asarray(self.abandonment_rate, np.float64), self.supplier_rates.shape)

    @property
    def offered(self) -> NDArray[np.float64]:
        """lambda_i / mu_i (n,), the mean number of suppliers present if none is matched."""
        return self.supplier_rates / self.departure_rates

    @functools.cached_property
    def price(self) -> float:
        """theta: `throughput_price`, or else the dual of the pooled bound at `throughput_target`.

        The pooled bound is exact for one queue, where the price is c'(tau*), from the left at a kink. InputError if the target
        exceeds what even the pooled queue can attain.
        """
        return pooled_frontier(self).price if self.throughput_price is None else self.throughput_price

    @functools.cached_property
    def rewards(self) -> NDArray[np.float64]:
        """theta - c_ij (n, m), per match."""
        return self.price - self.costs

    @property
    def objective_scale(self) -> float:
        """Decisions per unit of time: objective = objective_scale x mean reward per decision."""
        return float(self.customer_rates.sum())

    def measures(self, match_rates: NDArray[np.float64]) -> dict[str, float]:
        """Throughput and cost per unit of time of match rates (n, m)."""
        return {"throughput": float(match_rates.sum()), "cost_rate": float((self.costs * match_rates).sum())}


def pooled_frontier(instance: MatchingQueuesInstance) -> Segment:
    """The Pareto frontier at the target of one queue that pools all suppliers; a lower bound on c(tau*).

    It has arrivals sum_i lambda_i, abandonment min_i mu_i and costs min_i c_ij. Whatever a policy does with the n queues, it
    can do with their total, dropping suppliers that abandon sooner, at no higher cost. With one queue the bound is exact; with
    a common mu it attains the same throughputs as the network, for any waiting supplier can serve any customer.
    """
    return queue_frontier(
        float(instance.supplier_rates.sum()),
        float(instance.departure_rates.min()),
        instance.customer_rates,
        instance.costs.min(0),
        instance.throughput_target,
    )


Params = extend_record(base.Params, "Params", price=Real)

State = extend_record(
    base.State,
    "State",
    matches=Integers,  # (B,) since the reset
    total_cost=Reals,  # (B,) since the reset
    throughput=Reals,  # (B,) matches per unit of time since the reset, 0 at time 0
    cost_rate=Reals,  # (B,) cost per unit of time since the reset, 0 at time 0
)


def params(instance: MatchingQueuesInstance, initial_state: str, synchronised: bool) -> Any:
    """The numbers that the kernels read."""
    return Params(*base.params(instance, initial_state, synchronised), price=instance.price)


def state(instance: MatchingQueuesInstance, batch: int) -> Any:
    """Zeroed rows."""
    matches, total_cost, throughput, cost_rate = np.zeros(batch, np.int64), np.zeros(batch), np.zeros(batch), np.zeros(batch)
    return State(*base.state(instance, batch), matches, total_cost, throughput, cost_rate)


@kernel
def reset_kernel(params, state, b):
    """As in stationary matching: an empty system, or the one without matching in steady state; then the first customer."""
    state.matches[b] = 0
    state.total_cost[b] = state.throughput[b] = state.cost_rate[b] = 0.0
    base_reset_kernel(params, state, b)


@kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated); action i < n matches a supplier of queue i, action n lets the customer go."""
    reward, terminated = base_step_kernel(params, state, b, action)
    if state.last_supplier[b] >= 0:
        state.matches[b] += 1
        state.total_cost[b] += params.price - reward
    state.throughput[b] = state.matches[b] / state.elapsed_time[b]
    state.cost_rate[b] = state.total_cost[b] / state.elapsed_time[b]
    return reward, terminated


base_reset_kernel, base_step_kernel = base.reset_kernel, base.step_kernel

MODEL = Model(
    instance_type=MatchingQueuesInstance,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    layout=base.layout,
    action_space=base.action_space,
    options=base.MODEL.options,
    evaluation_options=base.MODEL.evaluation_options,
    draw=draw,
    settling=base.settling,
    rates={"throughput": "matches", "cost_rate": "total_cost"},
    **Model.loops(
        __file__,
        info=("elapsed_time", "total_reward", "throughput", "cost_rate", "invalid_actions"),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=base.observe_kernel,
        mask_kernel=base.mask_kernel,
    ),
    glimpse=base.MODEL.glimpse,
)


class MatchingQueuesEnv(Env):
    """Match impatient customers to waiting suppliers, trading the cost of matches against their number.

    ## Description
    Suppliers of n types arrive, wait in queues and abandon them. Customers of m types arrive and must be matched at once or are
    lost. Matching a customer of type j to a supplier of queue i costs `costs[i, j]`. The paper minimises the cost per unit of
    time subject to a throughput of at least `throughput_target` matches per unit of time; the objective here is its Lagrangian,
    `theta * throughput - cost_rate` with theta the price of a unit of throughput. This is the model of AmaniHamedani, Aouad and
    Saberi (Section 2), with abandonment rates that may differ.

    ## Action Space
    `Discrete(n + 1)`: action i < n matches the waiting customer to a supplier of queue i; action n lets the customer go.
    An action whose queue is empty does nothing (the customer is lost) and is counted in `info["invalid_actions"]`.

    ## Observation Space
    `Box(0, inf, (n + m,), float32)`; `env.unwrapped.observation_layout` names the slices.

    | index | meaning | min | max | unit |
    |---|---|---|---|---|
    | 0 .. n-1 | `queue`: waiting suppliers per type | 0 | inf | suppliers |
    | n .. n+m-1 | `customer`: type of the waiting customer, one-hot | 0 | 1 | - |

    ## Rewards
    `theta - costs[i, j]` for a match, which may be negative, else 0. The objective is `sum(customer_rates)` times the mean
    reward per decision. theta is `throughput_price`; if that is null, it is the dual price of the bound `pooled` at
    `throughput_target`, which for one queue is the exact price c'(tau*), the slope of the cost of throughput.

    ## Starting State
    No supplier waits (`initial_state="empty"`), or queue i is Poisson(`supplier_rates[i] / abandonment_rate[i]`), the law of
    the system without matching (`"stationary-unmatched"`). Then the first customer arrives.

    ## Episode End
    Never terminates: the task is continuing. Truncated after `max_episode_steps` decisions (1000 by default).

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | time since the reset |
    | `total_reward` | reward collected since the reset |
    | `throughput` | matches per unit of time since the reset (0 at the reset) |
    | `cost_rate` | cost per unit of time since the reset (0 at the reset) |
    | `invalid_actions` | forbidden actions taken since the reset |
    | `action_mask` | int8 (n + 1,), 1 where the action is valid |

    ## Arguments
    - `instance`: a catalogue name, the path of a JSON file, or a dict of JSON values with the fields `supplier_rates` (n,) > 0,
      `abandonment_rate` > 0, a number or (n,), `customer_rates` (m,) > 0, `costs` (n, m) >= 0, `throughput_target` >= 0 and
      optionally `throughput_price` >= 0 or null. Default "hard-0.9".
    - `initial_state`: "empty" (default) or "stationary-unmatched".
    - `synchronised`: as in StationaryMatching-v0: if true, two policies under one seed meet the same customers and suppliers.
      Default false.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.matching_queues` has the paper's Dynamic and Network LPs and the exact optimum of small instances,
    `matchgym.baselines.matching_queues` its algorithms. `matchgym frontier MatchingQueues-v0` draws cost against throughput.

    ## References
    A. AmaniHamedani, A. Aouad, A. Saberi. Adaptive Approximation Schemes for Matching Queues. arXiv:2501.08775.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "hard-0.9", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class MatchingQueuesVectorEnv(VectorEnv):
    """`num_envs` rows of MatchingQueues-v0; see `MatchingQueuesEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "hard-0.9", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
