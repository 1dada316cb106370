"""Matching on a graph where everybody waits (AmaniHamedani, Aouad, Pollner, Saberi, arXiv 2411.08218, Appendix F).

Nodes of type v arrive as a Poisson process of rate lambda_v, wait, and each leaves on its own after an Exp(mu_v) time. An
arriving node may be matched at once with a waiting one, or wait. A match of types u and v earns r_uv = r_vu and removes both;
types with r_uv = 0 are incompatible, and u = v is allowed. The objective is the long-run reward per unit of time. A bipartite
graph, whose nodes are suppliers and customers that all wait, is the special case of Appendix F.1.

    lambda_v -> arrival_rates[v]     mu_v -> departure_rates[v]     r_uv -> rewards[u, v]

The kernels between two decisions are those of stationary matching, with every arrival in the role of a customer. One step:

1. Match. The arriving node takes a waiting node of the chosen type, or joins the queue of its own type.
2. Departures. Waiting nodes leave until the next arrival.
3. Arrival. The next node comes; its type is observed.

With the option `synchronised`, matched nodes stay in the loop over events as ghosts until their own departure clocks ring, see
`matchgym.envs.stationary_matching`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.envs import stationary_matching as base
from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.general_matching import CATALOGUE
from matchgym.envs.compile import kernel
from matchgym.envs.instance import InputError, Instance, as_array
from matchgym.envs.stationary_matching_view import draw


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneralMatchingInstance(Instance):
    """Rates per unit of time and rewards per match, of V node types."""

    model: ClassVar[str] = "general_matching"
    words: ClassVar[tuple[str, str, str]] = ("node", "node", "waits")  # for pictures

    arrival_rates: NDArray[np.float64]  # (V,) > 0, per unit of time
    departure_rates: NDArray[np.float64]  # (V,) > 0, per waiting node and unit of time
    rewards: NDArray[np.float64]  # (V, V) >= 0, symmetric, per match; 0: incompatible

    def __post_init__(self) -> None:
        super().__post_init__()
        checked = {"arrival_rates": as_array("arrival_rates", self.arrival_rates, 1, (None,), positive=True)}
        n = len(checked["arrival_rates"])
        checked["departure_rates"] = as_array("departure_rates", self.departure_rates, 1, (n,), positive=True)
        checked["rewards"] = rewards = as_array("rewards", self.rewards, 2, (n, n), positive=False)
        if (rewards != rewards.T).any():
            u, v = np.argwhere(rewards != rewards.T)[0].tolist()
            raise InputError(
                f"rewards must be symmetric, but rewards[{u}][{v}] = {rewards[u, v]:g} and rewards[{v}][{u}] = "
                f"{rewards[v, u]:g}; give every pair one reward."
            )
        offered = checked["arrival_rates"] / checked["departure_rates"]
        if offered.max() > base.MOST_OFFERED:
            v = int(offered.argmax())
            raise InputError(
                f"arrival_rates[{v}] / departure_rates[{v}] is {offered[v]:.3g} waiting nodes, above {base.MOST_OFFERED:.0e}; "
                "raise departure_rates or lower arrival_rates."
            )
        for field, array in checked.items():
            object.__setattr__(self, field, array)

    @property
    def n_types(self) -> int:
        return len(self.arrival_rates)

    @property
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.n_types} node types"

    @property
    def objective_scale(self) -> float:
        """Decisions per unit of time: objective = objective_scale x mean reward per decision."""
        return float(self.arrival_rates.sum())

    # The same in the words of `matchgym.envs.instance.Rates`: every arrival is a customer, who joins a queue if not matched.

    @property
    def supplier_rates(self) -> NDArray[np.float64]:
        """(V,) Nobody joins a queue without a decision."""
        return np.zeros(self.n_types)

    @property
    def customer_rates(self) -> NDArray[np.float64]:
        """(V,) lambda."""
        return self.arrival_rates

    @property
    def joins(self) -> NDArray[np.int64]:
        """(V,) The queue of those who wait."""
        return np.arange(self.n_types)

    @property
    def offered(self) -> NDArray[np.float64]:
        """rho_v = lambda_v / mu_v (V,), the mean number of nodes present if none is matched."""
        return self.arrival_rates / self.departure_rates

    @property
    def n_suppliers(self) -> int:
        return self.n_types

    @property
    def n_customers(self) -> int:
        return self.n_types


@kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated); action u < V matches a waiting node of type u, action V lets the arriving one wait."""
    n = state.queue.shape[1]
    arriving = state.customer[b]

    # Match.
    reward = 0.0
    state.last_supplier[b] = -1
    if 0 <= action < n and state.queue[b, action] > 0 and params.rewards[action, arriving] > 0.0:
        state.queue[b, action] -= 1
        if params.is_synchronised:
            state.ghosts[b, action] += 1
            state.ghosts[b, arriving] += 1
            state.departure_rate[b] += params.departure_rates[arriving]
        else:
            state.departure_rate[b] -= params.departure_rates[action]
        reward = params.rewards[action, arriving]
        state.last_supplier[b] = action
    else:
        if action != n:
            state.invalid_actions[b] += 1
        state.queue[b, arriving] += 1
        state.departure_rate[b] += params.departure_rates[arriving]
    state.total_reward[b] += reward
    state.decisions[b] += 1
    state.last_customer[b] = arriving

    # Departures. Arrival.
    next_customer_kernel(params, state, b)
    return reward, False


@kernel
def mask_kernel(params, state, b, out):
    """A type is valid when one waits that is compatible with the arriving node; waiting always is."""
    n = state.queue.shape[1]
    for u in range(n):
        out[u] = state.queue[b, u] > 0 and params.rewards[u, state.customer[b]] > 0.0
    out[n] = True


next_customer_kernel = base.next_customer_kernel


def action_space(instance: GeneralMatchingInstance, options: Mapping[str, Any]) -> gym.spaces.Discrete:
    """One action per node type, and the last for waiting."""
    return gym.spaces.Discrete(instance.n_types + 1)


def layout(instance: GeneralMatchingInstance, options: Mapping[str, Any]) -> dict[str, slice]:
    """Named slices of the observation."""
    n = instance.n_types
    return {"queue": slice(0, n), "arriving": slice(n, 2 * n)}


MODEL = Model(
    instance_type=GeneralMatchingInstance,
    catalogue=CATALOGUE,
    params=base.params,
    state=base.state,
    layout=layout,
    action_space=action_space,
    options=base.MODEL.options,
    evaluation_options=base.MODEL.evaluation_options,
    draw=draw,
    settling=base.settling,
    **Model.loops(
        __file__,
        info=("elapsed_time", "total_reward", "invalid_actions"),
        Params=base.Params,
        State=base.State,
        reset_kernel=base.reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=base.observe_kernel,
        mask_kernel=mask_kernel,
    ),
    glimpse=base.MODEL.glimpse,
)


class GeneralMatchingEnv(Env):
    """Match an arriving node with a waiting one, or let it wait.

    ## Description
    Nodes of V types arrive, wait and leave on their own, as patient-donor pairs do in kidney exchange. An arriving node may be
    matched at once with a waiting node of a compatible type, or wait for a better partner. A match earns the reward of the pair
    of types and removes both. The objective is the long-run reward per unit of time. This is the model with non-bipartite
    graphs of AmaniHamedani, Aouad, Pollner and Saberi (Appendix F); a bipartite graph whose two sides wait is a special case.

    ## Action Space
    `Discrete(V + 1)`: action u < V matches the arriving node with a waiting node of type u; action V lets it wait. An action
    whose queue is empty, or whose type is incompatible, makes the node wait and is counted in `info["invalid_actions"]`.

    ## Observation Space
    `Box(0, inf, (2 V,), float32)`; `env.unwrapped.observation_layout` names the slices.

    | index | meaning | min | max | unit |
    |---|---|---|---|---|
    | 0 .. V-1 | `queue`: waiting nodes per type, without the arriving one | 0 | inf | nodes |
    | V .. 2V-1 | `arriving`: type of the arriving node, one-hot | 0 | 1 | - |

    ## Rewards
    `rewards[u, v]` for a match, else 0. The objective is `sum(arrival_rates)` times the mean reward per decision.

    ## Starting State
    Nobody waits (`initial_state="empty"`), or queue v is Poisson(`arrival_rates[v] / departure_rates[v]`), the law of the
    system without matching (`"stationary-unmatched"`). Then the first node arrives.

    ## Episode End
    Never terminates: the task is continuing. Truncated after `max_episode_steps` decisions (1000 by default).

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | time since the reset |
    | `total_reward` | reward collected since the reset |
    | `invalid_actions` | forbidden actions taken since the reset |
    | `action_mask` | int8 (V + 1,), 1 where the action is valid |

    ## Arguments
    - `instance`: a catalogue name, the path of a JSON file, or a dict of JSON values with the fields `arrival_rates` (V,),
      `departure_rates` (V,), all > 0, and `rewards` (V, V) >= 0, symmetric, 0 for incompatible types. Default "demo".
    - `initial_state`: "empty" (default) or "stationary-unmatched".
    - `synchronised`: as in StationaryMatching-v0: if true, two policies under one seed meet the same nodes. Default false.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.general_matching` has linear programmes and the exact optimum of small instances,
    `matchgym.baselines.general_matching` the paper's two reductions to one patient side, and greedy rules.

    ## References
    A. AmaniHamedani, A. Aouad, T. Pollner, A. Saberi. Improved Approximations for Stationary Bipartite Matching: Beyond
    Probabilistic Independence. arXiv:2411.08218.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "demo", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class GeneralMatchingVectorEnv(VectorEnv):
    """`num_envs` rows of GeneralMatching-v0; see `GeneralMatchingEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "demo", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
