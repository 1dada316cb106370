"""Designs of the graph of a server cluster: the constructions of Zhao, Mukherjee and Wu (2022), Appendix A, and better ones.

All act in the limit of many servers: what matters of p are the shares x_km = v_m p_km / delta_k, of which `densest` gives the p
with most edges. In x the requirement lambda xi sum_k w_k x_km <= rho v_m u_m is linear.
"""

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize

from matchgym.baselines.policy import CompiledPolicy, Policy, compiled
from matchgym.bounds.locality_limit import Limit, limit_load, limit_of
from matchgym.envs.base import Model
from matchgym.envs.compile import Integer, Reals, RealTable, WordTable, kernel
from matchgym.envs.data_locality_design import DEPTH, MODEL, ROUNDS, TOLERANCE, DataLocalityDesignInstance
from matchgym.envs.instance import InputError
from matchgym.envs.mean_field import fixed_point_kernel, mean_kernel
from matchgym.envs.rng import uniform

STARTS = 6  # of the optimisation, besides the constructions
SMALLEST = 1e-9  # shares below this count as 0


class Design(NamedTuple):
    """What the kernel reads."""

    p: Reals  # (K M,)
    is_random: Integer


class Slate(NamedTuple):
    """A stream and an action for every row."""

    stream: WordTable  # (B, 4)
    action: RealTable  # (B, K M)


@kernel
def act_kernel(design, memory, b, obs, mask, rng):
    """The same p for ever, or a uniform one each time."""
    for c in range(len(design.p)):
        memory.action[b, c] = uniform(rng, b) if design.is_random else design.p[c]


@compiled(__file__, act_kernel)
class DesignPolicy(CompiledPolicy):
    """Base of the policies of this file; `design_` is p (K, M)."""

    model: ClassVar[Model] = MODEL
    Params: ClassVar[type] = Design
    Memory: ClassVar[type] = Slate
    is_deterministic: ClassVar[bool] = True
    instance: DataLocalityDesignInstance
    params_: Design
    design_: NDArray[np.float64]

    def design(self, instance: DataLocalityDesignInstance) -> NDArray[np.float64]:
        """p (K, M)."""
        raise NotImplementedError

    def fit(self, instance: Any) -> Self:
        self.instance = loaded = self.model.load(instance)
        self.action_space_ = self.model.action_space(loaded, self.model.check_options(self.options))
        self.design_ = self.design(loaded)
        self.params_ = Design(self.design_.ravel(), int(not self.is_deterministic))
        return self

    def memory(self, batch: int) -> Slate:
        return Slate(np.zeros((batch, 4), np.uint64), np.zeros((batch, len(self.params_.p))))

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.zeros((len(observation), 0), np.bool_)

    def probabilities(self, observation: Any, action_masks: Any = None) -> NDArray[np.float64]:
        raise InputError(f"{type(self).__name__} has actions that are not one of a list; ask `predict` for them.")


def densest(x: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """The p (K, M) with most edges whose shares are x (K, M)."""
    ratio = x / v
    return ratio / ratio.max(1, keepdims=True)


def design_value(limit: Limit) -> float:
    """Mean tasks per server at the fixed point; inf if there is none."""
    if limit_load(limit)[0] >= 1:
        return np.inf
    q = np.zeros((len(limit.v), DEPTH + 1))
    q[:, 0] = 1.0
    move = fixed_point_kernel(*limit, ROUNDS, TOLERANCE, q, np.empty((len(limit.v), DEPTH)))
    return float(mean_kernel(limit.v, q)) if move <= TOLERANCE else np.inf


class Proportional(DesignPolicy):
    """p_km in proportion to u_m: every type is loaded alike, the least rho there is where all pairs are allowed."""

    def design(self, instance: DataLocalityDesignInstance) -> NDArray[np.float64]:
        rates = np.where(instance.compatibility > 0, instance.service_rates, 0.0)
        return rates / rates.max(1, keepdims=True)


class AllOnes(DesignPolicy):
    """Every edge that is allowed: the complete graph, where slow servers may take too many tasks."""

    def design(self, instance: DataLocalityDesignInstance) -> NDArray[np.float64]:
        return (instance.compatibility > 0).astype(float)


class Random(DesignPolicy):
    """Edge probabilities drawn uniformly each period."""

    is_deterministic: ClassVar[bool] = False

    def design(self, instance: DataLocalityDesignInstance) -> NDArray[np.float64]:
        return np.zeros(instance.compatibility.shape)


class NorthWest(DesignPolicy):
    """The construction of Proposition 3.3: dispatcher types fill server types in turn, each up to rho_0 (Appendix A)."""

    def design(self, instance: DataLocalityDesignInstance) -> NDArray[np.float64]:
        if (instance.compatibility == 0).any():
            raise InputError("north-west needs every pair of types allowed, and compatibility has zeros; use least-load.")
        return densest(north_west(limit_of(instance)), instance.server_fractions)


def north_west(limit: Limit) -> NDArray[np.float64]:
    """x (K, M) with every type's load rho_0; capacities left over by one dispatcher type are the next one's."""
    left = limit.offered / (limit.v @ limit.u) * limit.v * limit.u
    x = np.zeros((len(limit.w), len(left)))
    for k, need in enumerate(limit.offered * limit.w):
        for m in range(len(left)):
            taken = min(left[m], need)
            x[k, m], left[m], need = taken, left[m] - taken, need - taken
        x[k] /= x[k].sum()
    return x


class LeastLoad(DesignPolicy):
    """The linear programme (A.13): least largest load of a server type under random routing, on the pairs allowed."""

    def design(self, instance: DataLocalityDesignInstance) -> NDArray[np.float64]:
        return densest(least_load(instance)[0], instance.server_fractions)


def least_load(instance: DataLocalityDesignInstance) -> tuple[NDArray[np.float64], float]:
    """x (K, M) and rho of min rho, lambda xi sum_k w_k x_km <= rho v_m u_m, sum_m x_km = 1, x >= 0, on the pairs allowed."""
    limit = limit_of(instance)
    n_kinds, n_types = instance.compatibility.shape
    cost = np.append(np.zeros(n_kinds * n_types), 1.0)
    loads = np.hstack([limit.offered * np.kron(limit.w, np.eye(n_types)), -(limit.v * limit.u)[:, None]])
    rows = np.hstack([np.kron(np.eye(n_kinds), np.ones(n_types)), np.zeros((n_kinds, 1))])
    ceilings = [(0.0, None if is_allowed else 0.0) for is_allowed in (instance.compatibility > 0).ravel()]
    found = linprog(cost, loads, np.zeros(n_types), rows, np.ones(n_kinds), [*ceilings, (0.0, None)], method="highs")
    if found.status != 0:
        raise RuntimeError(f"the programme of the least load could not be solved: {found.message}")
    x = np.where(found.x[:-1] < SMALLEST, 0.0, found.x[:-1]).reshape(n_kinds, n_types)
    return x / x.sum(1, keepdims=True), float(found.x[-1])


class DelayOptimised(DesignPolicy):
    """The design of least mean tasks found in the limit: a smooth problem that is not convex, from several starts.

    Parameters
    ----------
    starts : random starts, besides the constructions of this file.
    seed : of the random starts.

    `value_` is its mean number of tasks per server in the limit.
    """

    def __init__(self, starts: int = STARTS, seed: int = 0) -> None:
        if starts < 0:
            raise InputError(f"starts must be >= 0, not {starts}.")
        self.starts, self.seed = starts, seed

    def design(self, instance: DataLocalityDesignInstance) -> NDArray[np.float64]:
        allowed, limit = instance.compatibility > 0, limit_of(instance)
        rng = np.random.default_rng(self.seed)
        weights = np.where(allowed, limit.v * limit.u, 0.0)
        guesses = [weights / weights.sum(1, keepdims=True), least_load(instance)[0]]
        guesses += [np.where(allowed, weights * rng.gamma(2.0, size=weights.shape), 0.0) for _ in range(self.starts)]

        def shares(free: NDArray[np.float64]) -> NDArray[np.float64]:
            scores = np.full(allowed.shape, -np.inf)
            scores[allowed] = free
            powers = np.exp(scores - scores.max(1, keepdims=True))
            return powers / powers.sum(1, keepdims=True)

        def tasks(free: NDArray[np.float64]) -> float:
            value = design_value(limit._replace(x=shares(free)))
            return min(value, float(DEPTH))

        best, self.value_ = guesses[0], np.inf
        for guess in guesses:
            free = np.log(np.maximum(guess / guess.sum(1, keepdims=True), 1e-6))[allowed]
            found = minimize(tasks, free, method="L-BFGS-B", options={"maxiter": 200})
            if found.fun < self.value_:
                best, self.value_ = shares(found.x), float(found.fun)
        return densest(np.where(best < SMALLEST, 0.0, best), instance.server_fractions)


def exact_value(policy: Policy, max_states: int | None = None) -> Any:
    """Not known for finitely many servers; in the limit see `design_value`."""
    raise InputError("a design has no exact value for finitely many servers; leave out --exact to simulate it.")


POLICIES: dict[str, type[Policy]] = {
    "proportional": Proportional,  # the anchor of scores
    "all-ones": AllOnes,
    "random": Random,
    "north-west": NorthWest,
    "least-load": LeastLoad,
    "delay-optimised": DelayOptimised,
}
