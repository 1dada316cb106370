"""Policies for data locality: JSQ(d) of Zhao, Mukherjee and Wu, its relatives among d samples, and rules that see all servers.

Policies that choose among d servers drawn act under the environment's option `action="server"`, the others under "class".
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from matchgym.baselines import locality_rules as rules
from matchgym.baselines.locality_exact import Value, chain_value, static_value
from matchgym.baselines.policy import CompiledPolicy, Policy, compiled
from matchgym.bounds.data_locality import bound
from matchgym.bounds.locality_limit import limit_of
from matchgym.bounds.locality_load import finite_load
from matchgym.envs.base import Model
from matchgym.envs.compile import pack, specialise
from matchgym.envs.data_locality import MODEL
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.locality_instances import DataLocalityInstance

LEVELS = 32  # of the classes that full-choice policies see
SERVER: Mapping[str, Any] = {"action": "server"}
CLASS: Mapping[str, Any] = {"action": "class", "levels": LEVELS}


class LocalityPolicy(CompiledPolicy):
    """Base of the policies of this file: a rule, see `locality_rules`."""

    model: ClassVar[Model] = MODEL
    Params: ClassVar[type] = rules.Knobs
    is_static: ClassVar[bool] = False  # whether it ignores queues
    instance: DataLocalityInstance
    params_: rules.Knobs
    rule: ClassVar[int]

    def table(self, instance: DataLocalityInstance) -> NDArray[np.float64]:
        """Indices of classes (M, L), for rules that are a table."""
        return np.zeros((1, 1))

    def split(self, instance: DataLocalityInstance) -> NDArray[np.float64]:
        """gamma (K, M), for laws that choose a type first."""
        return np.zeros((1, 1))

    def fit(self, instance: Any) -> Self:
        self.instance = loaded = self.model.load(instance)
        rates = loaded.service_rates
        self.params_ = rules.Knobs(
            rule=self.rule,
            choices=loaded.choices,
            n_levels=self.model.check_options(self.options)["levels"],
            n_kinds=loaded.n_dispatcher_types,
            rates=rates,
            fastest=0.5 * np.searchsorted(np.unique(-rates), -rates) / len(rates),
            table=self.table(loaded),
            split=self.split(loaded),
        )
        return self


@compiled(__file__, rules.act_kernel)
class SampledPolicy(LocalityPolicy):
    """Base of the policies that choose among d servers drawn."""

    options: ClassVar[Mapping[str, Any]] = SERVER
    is_deterministic: ClassVar[bool] = True

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        n, d = self.params_.n_kinds, self.params_.choices
        return observation[:, n + d : n + 2 * d] > 0

    def probabilities(
        self, observation: NDArray[np.float32], action_masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        actions, _ = self.predict(observation, action_masks=action_masks)
        return np.eye(self.params_.choices)[actions]


@compiled(__file__, rules.act_class_kernel)
class ClassPolicy(LocalityPolicy):
    """Base of the policies that see all compatible servers and choose a class of them."""

    Memory: ClassVar[type] = rules.Memory
    options: ClassVar[Mapping[str, Any]] = CLASS
    reads_glimpse: ClassVar[bool] = False

    def memory(self, batch: int) -> rules.Memory:
        return rules.Memory(np.zeros((batch, 4), np.uint64), np.zeros((1, self.params_.n_levels * len(self.params_.rates))))

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        n = self.params_.n_kinds
        return observation[:, n : n + self.params_.n_levels * len(self.params_.rates)] > 0

    def probabilities(
        self, observation: NDArray[np.float32], action_masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        laws = np.empty((len(observation), self.params_.n_levels * len(self.params_.rates)))
        LAW_BATCH(pack(self.params_), np.ascontiguousarray(observation, np.float32), laws)
        return laws


LAW_BATCH = specialise(rules.law_batch.py_func, "law_batch_locality", __file__, **ClassPolicy.kernels)


class JSQd(SampledPolicy):
    """JSQ(d): the shortest of the d servers drawn, the paper's policy (Section 2)."""

    rule = rules.JSQ


class SEDd(SampledPolicy):
    """SED(d): the least expected delay (x + 1) / u among the d servers drawn."""

    rule = rules.SED


class JFSQd(SampledPolicy):
    """JFSQ(d): the shortest of the d servers drawn, ties to the fastest."""

    rule = rules.JFSQ


class Random(SampledPolicy):
    """A uniform compatible server."""

    rule = rules.RANDOM
    is_static: ClassVar[bool] = True


class ClassIndex(SampledPolicy):
    """An order of the classes (type, tasks) read off the prices of the limit bound `sampled`; the best of d servers by it."""

    rule = rules.TABLE

    def table(self, instance: DataLocalityInstance) -> NDArray[np.float64]:
        """Each cut of price z says that classes at or above its thresholds are worse than those below: an index is the priced
        number of cuts that a class is at or above, sources weighted by how much a sample there matters.
        """
        found = bound(instance, "sampled")
        levels = int(found.certificate["levels"])
        index = np.tile(1e-6 * np.arange(levels), (instance.n_types, 1))
        for cut in found.certificate["cuts"]:
            for m, t in enumerate(cut["thresholds"]):
                if t is not None:
                    index[m, t:] += cut["multiplier"] / 2**48
        return index


class JSQ(ClassPolicy):
    """JSQ: the shortest of all compatible servers."""

    rule = rules.JSQ


class JFSQ(ClassPolicy):
    """JFSQ: the shortest of all compatible servers, ties to the fastest."""

    rule = rules.JFSQ


class SED(ClassPolicy):
    """SED: the least expected delay (x + 1) / u among all compatible servers."""

    rule = rules.SED


class JIQ(ClassPolicy):
    """JIQ: a uniform idle compatible server, or a uniform compatible one if none is idle."""

    rule = rules.JIQ


class JFIQ(ClassPolicy):
    """JFIQ: the fastest idle compatible server, or a uniform compatible one if none is idle."""

    rule = rules.JFIQ


class RateProportional(ClassPolicy):
    """A compatible server with probability in proportion to its rate, whatever its queue."""

    rule = rules.RATE_PROPORTIONAL
    is_static: ClassVar[bool] = True


class FluidStatic(ClassPolicy):
    """A server type by the fluid programme, keeping `slack` of its capacity free; then a uniform server of it."""

    rule = rules.STATIC
    is_static: ClassVar[bool] = True

    def __init__(self, slack: float | None = None) -> None:
        if slack is not None and not 0 <= slack < 1:
            raise InputError(f"slack must be in [0, 1), not {shorten(slack)}.")
        self.slack = slack

    def split(self, instance: DataLocalityInstance) -> NDArray[np.float64]:
        """The flows of `fluid` with all rates lowered; by default by half of what the load leaves."""
        slack = max(0.0, 1 - instance.load) / 2 if self.slack is None else self.slack
        fields = instance.to_dict() | {"service_rates": ((1 - slack) * instance.service_rates).tolist()}
        flows = bound(DataLocalityInstance.from_dict(fields), "fluid").solution["f"]
        return flows / flows.sum(1, keepdims=True)


class HybridSQd(ClassPolicy):
    """Hybrid SQ(d): a type by the best split of the mean field, then the shortest of d servers of that type."""

    rule = rules.HYBRID

    def split(self, instance: DataLocalityInstance) -> NDArray[np.float64]:
        """gamma that minimises sum_m v_m sum_l r_m^((d^l - 1) / (d - 1)), r_m = lambda xi sum_k w_k gamma_km / (v_m u_m)."""
        d, offered, w, v, u, _ = limit_of(instance)
        allowed = instance.compatibility > 0
        exponents = np.array([sum(d**r for r in range(level)) for level in range(1, 40) if d**level < 1e9 or d == 1], float)

        def tasks(flat: NDArray[np.float64]) -> float:
            loads = np.clip(offered * (w @ flat.reshape(allowed.shape)) / (v * u), 0, 2)
            with np.errstate(over="ignore"):  # an overloaded type has infinitely many tasks
                return float(v @ (loads[:, None] ** exponents).sum(1))

        start = bound(instance, "fluid-types").solution["f"]
        even = np.where(allowed, v * u, 0.0)
        even = even / even.sum(1, keepdims=True)
        start = 0.5 * even + 0.5 * start / start.sum(1, keepdims=True)
        rows = {"type": "eq", "fun": lambda flat: flat.reshape(allowed.shape).sum(1) - 1}
        limits = [(0.0, 1.0 if may else 0.0) for may in allowed.ravel()]
        found = minimize(tasks, start.ravel(), method="SLSQP", bounds=limits, constraints=[rows], options={"maxiter": 500})
        split = np.where(allowed, np.clip(found.x.reshape(allowed.shape), 0, 1), 0.0)
        return split / split.sum(1, keepdims=True)


class GWSQd(ClassPolicy):
    """GWSQ(d), the paper's device for proofs: a class as if any server could take the task, if the dispatcher has it."""

    rule = rules.GLOBAL
    options: ClassVar[Mapping[str, Any]] = {**CLASS, "occupancy": "global"}

    def split(self, instance: DataLocalityInstance) -> NDArray[np.float64]:
        return instance.shares


def exact_value(policy: Policy, max_states: int | None = None) -> Value:
    """Minus the stationary mean tasks per server of a fitted policy: closed form if it ignores queues, else its Markov chain.

    -inf if JSQ(d), or another rule among d samples, cannot be stable. InputError where the chain is too large.
    """
    instance: Any = policy.instance
    if getattr(policy, "is_static", False):
        return static_value(policy, instance)
    is_sampling = policy.options.get("action", "server") == "server"
    if instance.load >= 1 or (is_sampling and finite_load(instance).low >= 1):
        return Value(-np.inf, 0.0)
    return chain_value(policy, instance, max_states)


POLICIES: dict[str, type[Policy]] = {
    "jsq-d": JSQd,  # the anchor of scores
    "random": Random,
    "sed-d": SEDd,
    "jfsq-d": JFSQd,
    "class-index": ClassIndex,
    "jsq": JSQ,
    "jiq": JIQ,
    "jfiq": JFIQ,
    "jfsq": JFSQ,
    "sed": SED,
    "hybrid-sq-d": HybridSQd,
    "rate-proportional": RateProportional,
    "fluid-static": FluidStatic,
    "gwsq-d": GWSQd,
}
