"""Freelance markets in which the decision is whether to accept jobs (Section VI of Chatterjee, Varshney and Vishwanath).

The market is that of `freelance_market`; a decision accepts each job that arrives with a probability, one for all types or one
per type, and a fixed scheme does the rest. One epoch:

1. Arrivals. A(t), observed before the decision, is accepted or declined; with pools, a job joins the one with the fewest of its
   type, or, where MaxWeight allocates, the least total task (JLTT).
2. Allocation. A scheme of `freelance_schemes`, which policies for FreelanceMarket-v0 follow too, allocates what waits. Or what
   waits is granted as far as it fits, type by type (task by task if decomposable, category by category if inflexible): the
   longest queue of tasks d_j Q_j first, or in random order.
3. Split, completion and the next epoch, as in `freelance_market`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from matchgym.envs.base import Env, Model, VectorEnv
from matchgym.envs.catalogues.freelance_admission import CATALOGUE
from matchgym.envs.compile import RealTable, extend_record, outlined_kernel
from matchgym.envs.freelance_allocation import MODES, ORDERS, allocate_kernel
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.freelance_market import MODEL as MARKET
from matchgym.envs.freelance_market import Params as MarketParams
from matchgym.envs.freelance_market import State as MarketState
from matchgym.envs.freelance_market import accept_kernel, finish_kernel, is_pooled, mask_kernel, n_entries, observe_kernel
from matchgym.envs.freelance_market import params as market_params
from matchgym.envs.freelance_market import reset_kernel as market_reset
from matchgym.envs.freelance_market import state as market_state
from matchgym.envs.freelance_queues import balance_kernel, join_kernel, queue_size
from matchgym.envs.freelance_requests import Programme, Room, forget_past, programme, request_kernel, scratch
from matchgym.envs.freelance_schemes import FILLING, NOTHING, SCHEMES, Scheme, route_kernel, why_not
from matchgym.envs.instance import InputError

ACTIONS = ("common", "per-type")  # of the option `action`
OPTIONS: dict[str, tuple[Any, ...]] = {"action": ACTIONS, "scheme": (*ORDERS, *SCHEMES), "pools": (False, True)}

Params = extend_record(MarketParams, "Params", **Programme.__annotations__)
State = extend_record(MarketState, "State", **Room.__annotations__, request=RealTable)  # (1, E)


def _programme(instance: FreelanceMarketInstance, scheme: str, has_pools: bool) -> dict[str, Any]:
    """What the scheme's kernels read."""
    return programme(instance, *SCHEMES.get(scheme, Scheme(NOTHING, FILLING)), has_pools)


def params(instance: FreelanceMarketInstance, action: str = "common", scheme: str = "most-tasks", pools: bool = False) -> Any:
    """The numbers that the kernels read; where a scheme makes no request, `mode` is the order in which types are granted."""
    has_pools = is_pooled(instance, pools)
    if scheme in SCHEMES:
        why = why_not(SCHEMES[scheme], instance.n_categories, instance.flexible, has_pools)
        if why is not None:
            raise InputError(f"scheme {why}; choose another.")
    market = market_params(instance, pools=pools, admission=action)
    mode = market.mode if scheme in SCHEMES else len(MODES) + ORDERS.index(scheme)
    return Params(**market._replace(mode=mode)._asdict(), **_programme(instance, scheme, has_pools))


def state(instance: FreelanceMarketInstance, batch: int, scheme: str = "most-tasks", pools: bool = False) -> Any:
    """Zeroed rows, with room for the scheme."""
    market, given = market_state(instance, batch), _programme(instance, scheme, is_pooled(instance, pools))
    return State(
        **market._asdict(),
        **scratch(instance, given, market.queue.shape[1], batch),
        request=np.zeros((1, n_entries(instance))),
    )


@outlined_kernel
def reset_kernel(params, state, b):
    """As in `freelance_market`; nothing has been solved."""
    market_reset(params, state, b)
    state.solved[b] = state.unproved[b] = 0
    forget_past(state, b)


@outlined_kernel
def step_kernel(params, state, b, action):
    """Returns (reward, terminated). The action is one probability, or one per type."""
    before, accepted, has_request = state.backlog[b], 0, params.scheme != NOTHING

    # Arrivals.
    for d in range(queue_size(params)):
        state.waiting[0, d] = state.queue[b, d]
    for j in range(len(params.arrival_means)):
        count = accept_kernel(params, state, b, j, action)
        state.fresh[0, j] = count
        accepted += count
        if not params.is_pooled:
            state.line[0, 0] = count
        elif has_request:
            route_kernel(params, state.queue[b], state.waiting[0], params.routing, j, count, state.sent[0])
            unserved = count
            for c in range(params.n_categories):
                state.line[0, c] = state.sent[0, c]
                unserved -= state.sent[0, c]
            state.line[0, 0] += unserved  # whom no category may serve waits for ever
        else:
            balance_kernel(params, state, b, j, count)
        join_kernel(params, state, b, j)

    # Allocation.
    if has_request:
        for d in range(queue_size(params)):
            state.waiting[0, d] = state.queue[b, d]
        for e in range(state.request.shape[1]):
            state.request[0, e] = 0.0
        request_kernel(params, state, b, state.waiting[0], state.hours[b], state.request[0], state.choice)
        allocate_kernel(params, state, b, state.request[0])
    else:
        allocate_kernel(params, state, b, action)
    return finish_kernel(params, state, b, before, accepted), False


def action_space(instance: FreelanceMarketInstance, options: Mapping[str, Any]) -> gym.spaces.Box:
    """One probability for all types, or one for each."""
    return gym.spaces.Box(0.0, 1.0, (1 if options["action"] == "common" else instance.n_types,), np.float32)


MODEL = replace(
    MARKET,
    catalogue=CATALOGUE,
    params=params,
    state=state,
    action_space=action_space,
    options=OPTIONS,
    sizing=("scheme", "pools"),
    rates={**MARKET.rates, "unproved": "unproved"},
    **Model.loops(
        __file__,
        info=(*MARKET.info, "unproved"),
        Params=Params,
        State=State,
        reset_kernel=reset_kernel,
        step_kernel=step_kernel,
        observe_kernel=observe_kernel,
        mask_kernel=mask_kernel,
    ),
)


class FreelanceAdmissionEnv(Env):
    """Accept or decline jobs of a freelance market that may be asked for more than its agents can do.

    ## Description
    The market of FreelanceMarket-v0: jobs of N types arrive in every epoch and need hours of S skills from
    agents of L categories. Here the decision is which arrivals to accept; what is accepted waits until a fixed scheme allocates
    it. The objective is the number of jobs completed per epoch, less the costs of waiting and declining: outside the capacity
    region, accepting everything makes the queues grow for ever. This is Section VI of Chatterjee, Varshney and Vishwanath (Work
    Capacity of Freelance Markets).

    ## Action Space
    By the option `action`: "common" (default), `Box(0, 1, (1,))`, the probability with which each job that arrives is accepted;
    "per-type", `Box(0, 1, (N,))`, one for each type. 0 and 1 are certain. A number out of range accepts, and is counted in
    `info["invalid_actions"]`. A Box has no mask.

    ## Observation Space
    `Box(0, inf, (D + N + M + L S,), float32)` with M agent types in all; `env.unwrapped.observation_layout` names the slices.

    | part | meaning | min | max | unit |
    |---|---|---|---|---|
    | `queue` (D) | Q: (N) jobs FND, IND, (N S) tasks FD; with pools (L N) jobs IND, (L N S) tasks ID | 0 | inf | jobs, tasks |
    | `arrivals` (N) | A, jobs that arrive in this epoch | 0 | inf | jobs |
    | `agents` (M) | U, agents that are there in this epoch, category by category | 0 | inf | agents |
    | `hours` (L S) | H, their hours | 0 | inf | hours |

    ## Rewards
    Jobs completed in the epoch - `holding_cost` times the jobs waiting after it - `decline_cost` times the jobs declined.

    ## Starting State
    `initial_jobs` wait (none by default); the first epoch's arrivals and agents are drawn.

    ## Episode End
    Never terminates: the task is continuing. Truncated after `max_episode_steps` epochs (1000 by default).

    ## Information
    | key | meaning |
    |---|---|
    | `elapsed_time` | epochs since the reset |
    | `total_reward` | reward collected since the reset |
    | `completed` | jobs completed since the reset |
    | `declined` | jobs declined since the reset |
    | `backlog` | jobs waiting after the epoch; of decomposable jobs those with a task left |
    | `cut`, `total_cut` | 0: what a scheme requests is feasible |
    | `unproved` | programmes of "maxweight" since the reset whose allocation was not proved the best |
    | `invalid_actions` | numbers out of range since the reset |
    | `action_mask` | int8, empty |

    ## Arguments
    - `instance`: as for FreelanceMarket-v0 (its `model` is "freelance_market"). Default "overload-24".
    - `action`: "common" (default) or "per-type".
    - `scheme`: who is allocated first: "most-tasks" (default), the type with the most waiting tasks, which are the weights of
      MaxWeight; or "random-order" of types. Or what the policy of that name for FreelanceMarket-v0 allocates: "maxweight"
      (`maxweight-ilp`, with pools `jltt-maxweight`), within 2000 relaxations per programme; "maxweight-lp"; "greedy-job" (with
      pools `jltt-greedy-job`), for one category, a flexible market or pools; "naive-jobs-pick", without pools. With the policy
      `admission-maxweight` or `admission-jltt` and "maxweight", this is Section VI's scheme.
    - `pools`: whether categories have queues of their own; always so in class ID, never in flexible classes. Default false.
    - `render_mode`: None, "ansi" or "rgb_array".

    ## Bounds and baselines
    `matchgym.bounds.freelance_admission` has the bounds of `freelance_market`, of which `decline` is
    the least share that must be declined; `matchgym.baselines.freelance_admission` has the paper's rule (7) and plain ones.

    ## References
    A. Chatterjee, L. R. Varshney, S. Vishwanath. Work Capacity of Freelance Markets: Fundamental Limits and
    Decentralized Schemes.

    ## Version History
    - v0: first version.
    """

    model = MODEL

    def __init__(self, instance: Any = "overload-24", render_mode: str | None = None, **options: Any) -> None:
        super().__init__(instance, render_mode, **options)


class FreelanceAdmissionVectorEnv(VectorEnv):
    """`num_envs` rows of FreelanceAdmission-v0; see `FreelanceAdmissionEnv`."""

    model = MODEL

    def __init__(self, instance: Any = "overload-24", num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(instance, num_envs, **arguments)
