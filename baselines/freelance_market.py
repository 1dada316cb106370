"""Policies for freelance markets: the algorithms of Chatterjee, Varshney and Vishwanath, and their competitors.

Policies with pools (`jltt-*`, `admission-jltt`, and all for class ID, whose jobs are tied to a category) act in the
environment's option `pools`, those that decline arrivals in its option `admission`; `options` names what a policy needs.
"""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines import freelance_rules as rules
from matchgym.baselines.freelance_agents import greedy_agent
from matchgym.baselines.freelance_decisions import Allocation, greedy_job, maxweight, solve_knapsack, split
from matchgym.baselines.policy import CompiledPolicy, Policy, compiled
from matchgym.envs import freelance_schemes as ways
from matchgym.envs.base import Model
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.freelance_market import MODEL, is_pooled
from matchgym.envs.freelance_requests import forget_past, programme, scratch
from matchgym.envs.freelance_schemes import NODES, Scheme, why_not
from matchgym.envs.instance import InputError, is_count, shorten
from matchgym.envs.rng import seed_words

__all__ = ["POLICIES", "Allocation", "exact_value", "greedy_job", "maxweight", "split"]

ORDERS, PREFERENCES = ("random", "index", "fifo"), ("low", "high", "random")
POOLS = {"pools": True}
MOST_NODES = 10**9


@compiled(__file__, rules.act_kernel, forget_past)
class FreelancePolicy(CompiledPolicy):
    """Base of the policies of this file: an admission, a routing and a scheme, see `freelance_rules`."""

    model: ClassVar[Model] = MODEL
    Params: ClassVar[type] = rules.Knobs
    Memory: ClassVar[type] = rules.Scratch
    instance: FreelanceMarketInstance
    params_: Any  # rules.Knobs
    admission: int = rules.ALL
    routing: int = ways.LEAST_TASKS
    scheme: int = ways.CHANCE
    nu: float = 0.0
    chance: float = 1.0
    is_capped: bool = False
    nodes: int = NODES
    order: int = ways.AT_RANDOM
    preference: int = ways.ANY

    def fit(self, instance: Any) -> Self:
        self.instance = loaded = self.model.load(instance)
        options = self.model.check_options(self.options)
        has_pools = is_pooled(loaded, options["pools"])
        why = why_not(Scheme(self.scheme, self.routing), loaded.n_categories, loaded.flexible, has_pools)
        if why is not None:
            raise InputError(f"policy {why}; choose another.")
        if not (np.isfinite(self.nu) and self.nu >= 0):
            raise InputError(f"nu must be a finite number >= 0, not {shorten(self.nu)}.")
        self.params_ = rules.Knobs(
            **programme(loaded, self.scheme, self.routing, has_pools, self.is_capped, self.nodes, self.order, self.preference),
            job_hours=loaded.job_hours,
            allowed=np.asarray(loaded.compatible),
            signature=loaded.signatures,
            sets=loaded.category_sets if loaded.flexible else np.zeros(1, np.int64),
            agent_hours=loaded.hours,
            agent_category=loaded.agent_category,
            accept={"all": 0, "common": 1, "per-type": loaded.n_types}[options.get("admission", "common")],
            nu=self.nu,
            chance=self.chance,
            n_categories=loaded.n_categories,
            is_decomposable=int(loaded.decomposable),
            is_flexible=int(loaded.flexible),
            is_pooled=int(has_pools),
            admission=self.admission,
        )
        self.action_space_ = self.model.action_space(loaded, options)
        return self

    def memory(self, batch: int) -> Any:
        loaded = self.instance
        assert self.action_space_ is not None
        queue = self.model.layout(loaded, self.model.check_options(self.options))["queue"]
        return rules.Scratch(
            **scratch(loaded, self.params_._asdict(), queue.stop - queue.start, batch),
            stream=np.zeros((batch, 4), np.uint64),
            action=np.zeros((batch, int(np.prod(self.action_space_.shape or (1,))))),
            hours=np.zeros((1, loaded.n_categories * loaded.n_skills)),
            arrivals=np.zeros((1, loaded.n_types)),
        )

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.ones((len(observation), 0), np.bool_)

    def probabilities(self, observation: Any, action_masks: Any = None) -> NDArray[np.float64]:
        raise InputError(f"{type(self).__name__} requests numbers of jobs; ask `predict` for its action.")


class Random(FreelancePolicy):
    """A random number of what waits of every entry; jobs are spread evenly over pools."""

    routing = ways.EVEN


class MaxWeightILP(FreelancePolicy):
    """Algorithm 1 (MWTA), exact within `nodes` relaxations (what is not is counted); capped=false: weights Q, as printed.

    Flexible markets and pools are mostly solved within a few relaxations, but not always in overload. Where categories share
    the queues of an inflexible market, the capped programme of an epoch may take tens of thousands; the best allocation found
    is used, and a warning tells how many were not proved the best. `matchgym.baselines.freelance_market.maxweight` is exact at
    any state. Class ID is routed by JLTT.
    """

    scheme, routing = ways.SCHEMES["maxweight"]

    def __init__(self, capped: bool = True, nodes: int = NODES) -> None:
        self.is_capped, self.nodes = capped, checked_nodes(nodes)

    def review(self, memory: Any) -> None:
        """Warn of allocations that were not proved the best."""
        solved, unproved = int(memory.solved.sum()), int(memory.unproved.sum())
        if unproved:
            warnings.warn(
                f"{unproved} of {solved} MaxWeight programmes were not proved the best within nodes={self.nodes} relaxations.",
                stacklevel=2,
            )


def checked_nodes(nodes: int) -> int:
    """InputError unless it is a count of relaxations."""
    if not is_count(nodes, 1) or nodes > MOST_NODES:
        raise InputError(f"nodes must be an integer from 1 to {MOST_NODES}, not {shorten(nodes)}.")
    return nodes


class MaxWeightLP(FreelancePolicy):
    """Programme (10): the relaxation of Algorithm 1, rounded down; solved from the basis of the epoch before.

    Where several solutions are the best, which one is rounded may depend on that basis.
    """

    scheme, routing = ways.SCHEMES["maxweight-lp"]

    def __init__(self, capped: bool = True) -> None:
        self.is_capped = capped


class GreedyJob(FreelancePolicy):
    """Algorithm 3: jobs win in random order and take all their hours, or nothing in this epoch."""

    scheme, routing = ways.SCHEMES["greedy-job"]


class JLTTMaxWeight(MaxWeightILP):
    """Algorithm 4: arrivals join the pools with the least total task, MaxWeight in each; exact=false: relaxed, rounded down."""

    options: ClassVar[Mapping[str, Any]] = POOLS

    def __init__(self, capped: bool = True, exact: bool = True, nodes: int = NODES) -> None:
        super().__init__(capped, nodes)
        self.scheme = ways.MAXWEIGHT if exact else ways.RELAXED


class JLTTGreedyJob(FreelancePolicy):
    """Algorithm 5 (improvised JLTT): every job joins the pool with the fewest of its type, GreedyJob in each."""

    options: ClassVar[Mapping[str, Any]] = POOLS
    scheme, routing = ways.SCHEMES["greedy-job"]


class NaiveJobsPick(FreelancePolicy):
    """Section I: jobs pick agents of any category they may use; order=random|index|fifo of jobs, prefer=low|high|random.

    The paper says no more than that jobs choose "randomly or greedily". With fifo, those that have waited longest come first,
    those of the same age at random; 256 epochs of waiting are told apart.
    """

    scheme, routing = ways.SCHEMES["naive-jobs-pick"]

    def __init__(self, order: str = "random", prefer: str = "random") -> None:
        for name, value, known in (("order", order, ORDERS), ("prefer", prefer, PREFERENCES)):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, not {shorten(value)}.")
        self.order = (ways.AT_RANDOM, ways.BY_INDEX, ways.OLDEST_FIRST)[ORDERS.index(order)]
        self.preference = (ways.LOW, ways.HIGH, ways.ANY)[PREFERENCES.index(prefer)]


class AdmissionMaxWeight(MaxWeightILP):
    """Rule (7)-I: decline an epoch's arrivals if nu sum_j A_j sum_s Q_js exceeds their number; MaxWeight allocates."""

    options: ClassVar[Mapping[str, Any]] = {"admission": "common"}
    admission = rules.PRESSURE_CENTRAL

    def __init__(self, nu: float = 0.01, capped: bool = True, nodes: int = NODES) -> None:
        super().__init__(capped, nodes)
        self.nu = nu


class AdmissionJLTT(MaxWeightILP):
    """Rule (7)-II with the pool of the least total task; JLTT-MaxWeight allocates. printed=true: the sum of minima."""

    options: ClassVar[Mapping[str, Any]] = POOLS | {"admission": "common"}
    admission = rules.PRESSURE_POOLS

    def __init__(self, nu: float = 0.01, capped: bool = True, printed: bool = False, nodes: int = NODES) -> None:
        super().__init__(capped, nodes)
        self.nu = nu
        self.admission = rules.PRESSURE_PRINTED if printed else rules.PRESSURE_POOLS


class OneCategoryPolicy(Policy):
    """Base of the policies of one category that are compiled apart: `decide` allocates tasks (N, S) of a row."""

    instance: FreelanceMarketInstance
    name: ClassVar[str]

    def fit(self, instance: Any) -> Self:
        self.instance = loaded = MODEL.load(instance)
        if loaded.n_categories != 1 or loaded.kind == "ID":
            raise InputError(f"policy {self.name} needs a market of one category that is not of class ID.")
        return self

    def start(self, batch: int, seed: int) -> NDArray[np.uint64]:
        return np.array([seed_words((seed + b, 1)) for b in range(batch)])

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[NDArray[np.float64], Any]:
        if not hasattr(self, "instance"):
            raise InputError(f"{type(self).__name__} must be fitted to an instance first; call fit(instance).")
        obs, loaded = np.atleast_2d(np.asarray(observation, np.float32)), self.instance
        parts = MODEL.layout(loaded, MODEL.check_options({}))
        if obs.shape[1:] != (parts["hours"].stop,) or np.isnan(obs).any():
            raise InputError(
                f"observation must be numbers of shape (B, {parts['hours'].stop}), not {shorten(obs.shape)} or NaN."
            )
        stream = self.start(len(obs), int(np.random.SeedSequence().entropy) % 2**62) if state is None else state.copy()  # type: ignore[arg-type]
        width = loaded.n_skills if loaded.decomposable else 1
        needs = loaded.needs if loaded.decomposable else np.ones((loaded.n_types, 1), bool)
        actions = np.empty((len(obs), loaded.n_types * width))
        for b, row in enumerate(obs):
            queue = row[parts["queue"]].astype(np.int64).reshape(-1, width)
            waiting = queue + row[parts["arrivals"]].astype(np.int64)[:, None] * needs
            actions[b] = self.decide(queue, waiting, row[parts["agents"]].astype(np.int64), stream, b).ravel()
        return (actions if np.ndim(observation) == 2 else actions[0]), stream

    def decide(
        self,
        queue: NDArray[np.int64],
        waiting: NDArray[np.int64],
        agents: NDArray[np.int64],
        stream: NDArray[np.uint64],
        b: int,
    ) -> NDArray[np.int64]:
        """The request, (N, S) if decomposable, else (N, 1); `queue` is Q, `waiting` Q + A."""
        raise NotImplementedError

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.ones((len(observation), 0), np.bool_)


class GreedyAgent(OneCategoryPolicy):
    """Algorithm 2: agents choose jobs for themselves in random orders; one category."""

    name = "greedy-agent"

    def decide(self, queue: Any, waiting: Any, agents: Any, stream: Any, b: int) -> NDArray[np.int64]:
        loaded = self.instance
        tasks = waiting * loaded.needs
        done = greedy_agent(loaded.job_hours, loaded.hours, agents, tasks, loaded.decomposable, stream, b)
        return done if loaded.decomposable else done[:, :1]


class MaxWeightKnapsack(OneCategoryPolicy):
    """Algorithm 1 for one category and decomposable jobs: a knapsack per skill, exactly (eps=0) or up to a factor 1 - eps."""

    name = "maxweight-knapsack"

    def __init__(self, eps: float = 0.0, capped: bool = True) -> None:
        if not (np.isfinite(eps) and 0 <= eps < 1):
            raise InputError(f"eps must lie in [0, 1), not {shorten(eps)}.")
        self.eps, self.is_capped = eps, capped

    def fit(self, instance: Any) -> Self:
        super().fit(instance)
        if not self.instance.decomposable:
            raise InputError("policy maxweight-knapsack needs decomposable jobs; choose maxweight-ilp.")
        hours = self.instance.job_hours
        if not self.eps and (hours != np.floor(hours)).any():
            raise InputError("policy maxweight-knapsack needs whole job_hours with eps 0; give eps > 0.")
        return self

    def decide(self, queue: Any, waiting: Any, agents: Any, stream: Any, b: int) -> NDArray[np.int64]:
        loaded, hours = self.instance, agents @ self.instance.hours
        weights = waiting if self.is_capped else queue
        found = np.zeros(loaded.job_hours.shape, np.int64)
        for s in range(loaded.n_skills):
            types = np.flatnonzero((weights[:, s] > 0) & loaded.needs[:, s])
            if len(types) == 0:
                continue
            sizes, room_ = loaded.job_hours[types, s], float(hours[s])
            caps = waiting[types, s] if self.is_capped else np.full(len(types), int(room_ / sizes.min() + 1))
            found[types, s] = solve_knapsack(weights[types, s].astype(float), sizes, room_, caps, self.eps)[1]
        return found


def exact_value(policy: Policy, max_states: int | None = None) -> Any:
    """Refused: queues are unbounded in as many dimensions as there are job types."""
    raise InputError("policies of freelance markets have no exact value; leave out --exact to simulate them.")


POLICIES: dict[str, type[Policy]] = {
    "random": Random,  # the anchor of scores
    "maxweight-ilp": MaxWeightILP,
    "maxweight-lp": MaxWeightLP,
    "maxweight-knapsack": MaxWeightKnapsack,
    "greedy-agent": GreedyAgent,
    "greedy-job": GreedyJob,
    "jltt-maxweight": JLTTMaxWeight,
    "jltt-greedy-job": JLTTGreedyJob,
    "naive-jobs-pick": NaiveJobsPick,
    "admission-maxweight": AdmissionMaxWeight,
    "admission-jltt": AdmissionJLTT,
}
