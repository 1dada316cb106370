"""Matching queues in Euclidean space (AmaniHamedani, Aouad, Saberi, arXiv 2501.08775, Section 4 and Appendix 8).

Suppliers of type i wait at a point of the unit cube [0, 1]^d, customers of type j arrive at another, and a match costs the
distance between them. Everything else is `matchgym.envs.matching_queues`, whose kernels are used as they are.

    lambda_i -> supplier_rates[i]     mu_i -> abandonment_rate[i]     gamma_j -> customer_rates[j]
    c_ij     -> costs[i, j] = |supplier_locations[i] - customer_locations[j]|
    tau*     -> throughput_target     theta -> throughput_price

1. Match. The waiting customer takes a supplier of the chosen queue, or is lost.
2. Suppliers. They arrive and abandon until the next customer comes.
3. Customer. The next customer arrives; its type, and so its place, is observed.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from matchgym.envs import matching_queues as base
from matchgym.envs.base import Env, VectorEnv
from matchgym.envs.catalogues.euclidean_matching import CATALOGUE
from matchgym.envs.euclidean_matching_view import draw
from matchgym.envs.instance import SMALLEST, InputError, as_array
from matchgym.envs.matching_queues import MatchingQueuesInstance, QueueNetwork


@dataclass(frozen=True, kw_only=True, eq=False)
class EuclideanMatchingInstance(QueueNetwork):
    """Rates per unit of time and locations in the unit cube, of n supplier types and m customer types."""

    model: ClassVar[str] = "euclidean_matching"

    supplier_locations: NDArray[np.float64]  # (n, d) in [0, 1]
    customer_locations: NDArray[np.float64]  # (m, d) in [0, 1]

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes = {"supplier_locations": (self.n_suppliers, None), "customer_locations": (self.n_customers, None)}
        for field, shape in shapes.items():
            array = as_array(field, getattr(self, field), 2, shape, positive=False)
            if array.max() > 1:
                place = [int(k) for k in np.argwhere(array > 1)[0]]
                raise InputError(f"{field}{place} is {array.max():g}, outside [0, 1]; scale the map to the unit cube.")
            object.__setattr__(self, field, array)
        if self.supplier_locations.shape[1] != self.customer_locations.shape[1]:
            raise InputError(
                f"customer_locations has {self.customer_locations.shape[1]} coordinates where supplier_locations has "
                f"{self.supplier_locations.shape[1]}; give all places the same number."
            )

    @property
    def dimension(self) -> int:
        """d."""
        return self.supplier_locations.shape[1]

    @property
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.n_suppliers} suppliers x {self.n_customers} customers in {self.dimension}D"

    @functools.cached_property
    def costs(self) -> NDArray[np.float64]:
        """Euclidean distances (n, m), per match."""
        return distances(self.supplier_locations, self.customer_locations)

    @property
    def network(self) -> MatchingQueuesInstance:
        """The same as an instance of MatchingQueues-v0, with a table of costs."""
        return MatchingQueuesInstance(
            name=self.name,
            supplier_rates=self.supplier_rates,
            abandonment_rate=self.abandonment_rate,
            customer_rates=self.customer_rates,
            costs=self.costs,
            throughput_target=self.throughput_target,
            throughput_price=self.throughput_price,
        )


def distances(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances (n, m) between points (n, d) and others (m, d); those too small for a cost count as 0."""
    found = np.sqrt(((points[:, None, :] - others[None, :, :]) ** 2).sum(2))
    return np.where(found < SMALLEST, 0.0, found)


MODEL = dataclasses.replace(base.MODEL, instance_type=EuclideanMatchingInstance, catalogue=CATALOGUE, draw=draw)


class EuclideanMatchingEnv(Env):
    """Match impatient customers to suppliers who wait at places on a map, trading distance against the number of matches.

    ## Description
    Suppliers of n types arrive, wait at `supplier_locations[i]` and abandon their queues. Customers of m types arrive at
    `customer_locations[j]` and must be matched at once or are lost. A match costs the Euclidean distance. The paper minimises
    the cost per unit of time subject to a throughput of at least `throughput_target` matches per unit of time; the objective
    here is its Lagrangian, `theta * throughput - cost_rate` with theta the price of a unit of throughput. This is the model of
    AmaniHamedani, Aouad and Saberi (Section 4), with abandonment rates that may differ. It is MatchingQueues-v0 with costs
    that are distances.

    ## Action Space
    `Discrete(n + 1)`: action i < n matches the waiting customer to a supplier of queue i; action n lets the customer go.
    An action whose queue is empty does nothing (the customer is lost) and is counted in `info["invalid_actions"]`.

    ## Observation Space
    `Box(0, inf, (n + m,), float32)`; `env.unwrapped.observation_layout` names the slices.

    | index | meaning | min | max | unit |
    |---|---|---|---|---|
    | 0 .. n-1 | `queue`: waiting suppliers per type | 0 | inf | suppliers |
    | n .. n+m-1 | `customer`: type of the waiting customer, one-hot | 0 | 1 | - |

    The locations do not change; they are `env.unwrapped.instance.supplier_locations` and `.customer_locations`.

    ## Rewards
    `theta - distance` for a match, which may be negative, else 0. The objective is `sum(customer_rates)` times the mean reward
    per decision. theta is `throughput_price`; if that is null, it is the dual price of the bound `pooled` at
    `throughput_target`.

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
      `abandonment_rate` > 0, a number or (n,), `customer_rates` (m,) > 0, `supplier_locations` (n, d) and `customer_locations`
      (m, d), all in [0, 1], `throughput_target` >= 0 and optionally `throughput_price` >= 0 or null. Default "corners".
    - `initial_state`: "empty" (default) or "stationary-unmatched".
    - `synchronised`: as in StationaryMatching-v0: if true, two policies under one seed meet the same customers and suppliers.
      Default false.
    - `render_mode`: None, "ansi" or "rgb_array", a map of the first two coordinates.

    ## Bounds and baselines
    `matchgym.bounds.euclidean_matching` has the bounds of MatchingQueues-v0, `matchgym.baselines.euclidean_matching` the
    paper's algorithm for Euclidean networks and rules that look at distances. `matchgym reproduce euclidean-cells` draws its
    cells and matches.

    ## References
    A. AmaniHamedani, A. Aouad, A. Saberi. Adaptive Approximation Schemes for Matching Queues. arXiv:2501.08775.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "corners", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class EuclideanMatchingVectorEnv(VectorEnv):
    """`num_envs` rows of EuclideanMatching-v0; see `EuclideanMatchingEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "corners", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
