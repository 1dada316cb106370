"""Freelance markets in which the decision is whether to accept jobs (Section VI of Chatterjee, Varshney and Vishwanath).

The market is that of `freelance_market`; a decision accepts each job that arrives with a probability, one for all types or one
per type, and a fixed scheme does the rest. One epoch:

1. Arrivals. A(t), observed before the decision, is accepted or declined; with pools, a job joins the one with the fewest of its
   type.
2. Allocation. What waits is granted as far as it fits, type by type (task by task if decomposable, category by category if
   inflexible): the longest queue of tasks d_j Q_j first, or in random order.
3. Split, completion and the next epoch, as in `freelance_market`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from matchgym.envs.base import Env, VectorEnv
from matchgym.envs.catalogues.freelance_admission import CATALOGUE
from matchgym.envs.freelance_allocation import MODES, SCHEMES
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.freelance_market import MODEL as MARKET
from matchgym.envs.freelance_market import Params
from matchgym.envs.freelance_market import params as market_params

ACTIONS = ("common", "per-type")  # of the option `action`


def params(
    instance: FreelanceMarketInstance, action: str = "common", scheme: str = "most-tasks", pools: bool = False
) -> Params:
    """The numbers that the kernels read; `mode` is the scheme."""
    return market_params(instance, pools=pools, admission=action)._replace(mode=len(MODES) + SCHEMES.index(scheme))


def action_space(instance: FreelanceMarketInstance, options: Mapping[str, Any]) -> gym.spaces.Box:
    """One probability for all types, or one for each."""
    return gym.spaces.Box(0.0, 1.0, (1 if options["action"] == "common" else instance.n_types,), np.float32)


MODEL = replace(
    MARKET,
    catalogue=CATALOGUE,
    params=params,
    action_space=action_space,
    options={"action": ACTIONS, "scheme": SCHEMES, "pools": (False, True)},
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
    | `cut`, `total_cut` | 0: nothing is requested |
    | `invalid_actions` | numbers out of range since the reset |
    | `action_mask` | int8, empty |

    ## Arguments
    - `instance`: as for FreelanceMarket-v0 (its `model` is "freelance_market"). Default "overload-24".
    - `action`: "common" (default) or "per-type".
    - `scheme`: who is allocated first: "most-tasks" (default), the type with the most waiting tasks, which are the weights of
      MaxWeight; or "random-order" of types. Exact MaxWeight with admission is FreelanceMarket-v0 with the policy
      `admission-maxweight`.
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
