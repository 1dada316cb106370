"""The Markov chain of Priority Rounding, solved exactly up to truncation.

A state holds the short queues l, long queues L_i and buffers V_ij. The short queues run by themselves (Lemma 3.2), and long
queues meet only through buffers: in the printed variant where they share a contentious type, in the simplified variant not at
all. So the chain splits into parts, each with the short queues and some long queues with their buffers, which are solved one by
one.

Long queues are cut off where Poisson(lambda_i / mu_i) rarely is, buffers where those of the simplified variant rarely are:
these depend on l only, so that their law is found first (a quasi-birth-death process), and no buffer of the printed variant is
longer, for it is emptied at least as fast. Each supplier or increment lost to a cap changes at most one match and the one in
its place.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import pdtrc

from matchgym.bounds.chain import Box, Market, box_of, stationary_law
from matchgym.envs.compile import kernel
from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import QueueNetwork

TAILS = (1e-9, 1e-7, 1e-6)  # rate of what is lost to each cap, relative to the customers' rate; the last two for large chains
LONGEST_BUFFER = 5_000
MAX_STATES = 4_000_000  # solved in some two minutes and 3 GB
MAX_SHORT_STATES = 1_000  # for the laws of buffers, which take dense matrices of that size
DIRECT_STATES = 30_000  # above, sweeps are quicker than a factorisation
BALANCED = 1e-11  # residual of the balance equations, relative to the total flow
SWEEPS, ROUNDS = 3, 1_000  # Gauss-Seidel sweeps between aggregations, and rounds of both

Axis = tuple[Any, ...]  # ("short",), ("queue", i) or ("buffer", i, j)


@dataclass(frozen=True)
class RoundedValue:
    """The exact value of Priority Rounding: `mean` within `error`."""

    mean: float
    error: float
    match_rates: NDArray[np.float64]  # (n, m)
    mean_queue: NDArray[np.float64]  # (n,)
    mean_buffer: NDArray[np.float64]  # (n, m) E[V_ij]
    empty: NDArray[np.float64]  # (n,) Pr[queue i is empty]; 0 for queues that are never used
    states: int  # of the largest part


@dataclass(frozen=True)
class Rounding:
    """What defines the policy on an instance, and the short queues' box."""

    instance: QueueNetwork
    short: tuple[int, ...]
    q: NDArray[np.float64]  # (m, S, s + 1)
    y: NDArray[np.float64]  # (n, m)
    eps: float
    is_simplified: bool
    contentious: NDArray[np.bool_]  # (m,)
    box: Box

    @staticmethod
    def of(
        instance: QueueNetwork,
        solution: dict[str, Any],
        eps: float,
        is_simplified: bool,
        contentious: NDArray[np.bool_],
    ) -> "Rounding":
        """From the solution of `matchgym.bounds.matching_queues.nlp`."""
        chosen = list(solution["short"])
        rates = instance.supplier_rates[chosen], instance.departure_rates[chosen], instance.customer_rates
        market = Market(instance.name, *rates, np.zeros((len(chosen), instance.n_customers)))
        nobody = np.zeros((0, 1), np.int64)
        box = box_of(market, tuple(solution["caps"])) if chosen else Box(market, (), nobody, nobody, nobody)
        return Rounding(instance, tuple(chosen), solution["q"], solution["y"], eps, is_simplified, contentious, box)

    def buffers(self, queues: Sequence[int]) -> list[tuple[int, int]]:
        """The pairs (i, j) of some long queues that have a buffer."""
        return [(i, int(j)) for i in queues for j in np.flatnonzero(self.contentious & (self.y[i] > 0))]

    def parts(self) -> list[list[int]]:
        """Long queues with matches, grouped as their chains hang together."""
        groups: list[list[int]] = []
        for i in np.flatnonzero(self.y.any(1)).tolist():
            shared = self.contentious & (self.y[i] > 0)
            met = [g for g in groups if not self.is_simplified and (self.y[g].any(0) & shared).any()]
            groups = [g for g in groups if g not in met] + [[*(k for g in met for k in g), i]]
        return groups

    def short_rates(self, j: int) -> NDArray[np.float64]:
        """Rate (s, S) at which customers of type j take each short queue, by short state."""
        return self.instance.customer_rates[j] * self.q[j, :, :-1].T

    def unmatched_rate(self, j: int) -> NDArray[np.float64]:
        """Rate (S,) at which customers of type j make no short match."""
        return self.instance.customer_rates[j] * self.q[j, :, -1]


def rounded_value(rounding: Rounding, max_states: float = MAX_STATES) -> RoundedValue:
    """Solve the chain part by part; InputError if a part has too many states."""
    instance, box, short = rounding.instance, rounding.box, list(rounding.short)
    n, m = instance.costs.shape
    rates, buffer, queue, empty = np.zeros((n, m)), np.zeros((n, m)), instance.offered.copy(), np.zeros(n)
    law = np.ones(1)
    if short:
        match = rounding.q[:, :, :-1].transpose(0, 2, 1)
        law = stationary_law(box.generator(match)).clip(0)
        rates[short] = (instance.customer_rates[:, None] * (match @ law)).T
        queue[short] = box.queues @ law
    lost, states = 0.0, len(law)
    for queues in rounding.parts():
        part = make_part(rounding, queues, law, min(max_states, MAX_STATES))
        joint = part.solve(law)
        states = max(states, part.size)
        lost += part.lost(joint)
        for i in queues:
            rates[i] = part.match_rates(joint, i)
            marginal = part.marginal(joint, ("queue", i))
            queue[i], empty[i] = np.arange(len(marginal)) @ marginal, marginal[0]
        for i, j in rounding.buffers(queues):
            marginal = part.marginal(joint, ("buffer", i, j))
            buffer[i, j] = np.arange(len(marginal)) @ marginal
    mean, flow = float((instance.rewards * rates).sum()), float(instance.customer_rates.sum())
    error = 2 * float(np.abs(instance.rewards).max()) * (lost + BALANCED * flow)
    return RoundedValue(mean, error, rates, queue, buffer, empty, states)


def make_part(rounding: Rounding, queues: Sequence[int], law: NDArray[np.float64], max_states: float) -> "Part":
    """The part with these long queues, cut off as finely as its size allows."""
    for tail in TAILS[:-1]:
        try:
            return Part(rounding, queues, law, tail, max_states)
        except TooLarge:
            continue
    return Part(rounding, queues, law, TAILS[-1], max_states)


class TooLarge(InputError):
    """A part of the chain has too many states."""


def buffer_law(rounding: Rounding, i: int, j: int, tail: float) -> NDArray[np.float64]:
    """The law (C + 1,) of V_ij in the simplified variant, up to a length that it exceeds at a negligible rate.

    (l, V) is a quasi-birth-death process: up with short matches, down with customers left unmatched; levels above 0 have
    pi_{v+1} = pi_v R, with R from logarithmic reduction (Latouche, Ramaswami).
    """
    instance, box, y = rounding.instance, rounding.box, rounding.y
    size, total = len(rounding.q[j]), y[:, j].sum()
    if size > MAX_SHORT_STATES:
        raise InputError(
            f"the exact value of priority-rounding takes at most {MAX_SHORT_STATES} states of the short queues, not {size}: "
            "name fewer short queues or smaller caps, or use simulation."
        )
    up = np.zeros((size, size))
    wanted = (1 - rounding.eps) * y[i, j]
    for a, rate in enumerate(rounding.short_rates(j)):
        up[np.arange(size), box.down[a]] += rate * wanted
    down = np.diag(rounding.unmatched_rate(j) * (1 - (1 - rounding.eps) * total) * y[i, j] / total)
    if rounding.short:
        everything = box.generator(rounding.q[:, :, :-1].transpose(0, 2, 1)).toarray()
    else:
        everything = np.zeros((1, 1))
    law = _stationary(everything)
    if not law @ up.sum(1) < law @ down.sum(1) * (1 - 1e-9):
        raise InputError(
            f"eps: the buffer of queue {i} and customer type {j} has no steady state at eps = {rounding.eps:g}; raise eps."
        )
    # `everything` holds the moves of l without regard to the level; those that also change it move to `up` and `down`.
    same = everything - up - down
    higher, lower = np.linalg.solve(-same, up), np.linalg.solve(-same, down)
    reach, product = lower.copy(), higher.copy()
    for _ in range(100):
        both = np.eye(size) - higher @ lower - lower @ higher
        higher, lower = np.linalg.solve(both, higher @ higher), np.linalg.solve(both, lower @ lower)
        reach += product @ lower
        product = product @ higher
        if product.sum(1).max() < 1e-15:
            break
    step = up @ np.linalg.inv(-(same + up @ reach))
    level = _stationary(same + down + step @ down)
    level /= (level @ np.linalg.inv(np.eye(size) - step)).sum()
    masses: list[float] = []
    rate = up.sum(1)
    limit = tail * float(instance.customer_rates.sum())
    while len(masses) < LONGEST_BUFFER and level @ rate > limit:
        masses.append(level.sum())
        level = level @ step
    if len(masses) == LONGEST_BUFFER:
        raise InputError(
            f"eps: the buffer of queue {i} and customer type {j} is too long at eps = {rounding.eps:g}; raise eps."
        )
    return np.array([*masses, level.sum()])


def _stationary(generator: NDArray[np.float64]) -> NDArray[np.float64]:
    """The stationary law of a small dense chain."""
    system = generator.T.copy()
    system[0] = 1.0
    return np.linalg.solve(system, np.eye(len(system))[0])


class Part:
    """The chain of the short queues, some long queues and their buffers. States are the cells of an array of shape `shape`."""

    def __init__(
        self, rounding: Rounding, queues: Sequence[int], law: NDArray[np.float64], tail: float, max_states: float
    ) -> None:
        instance = rounding.instance
        self.rounding, self.queues = rounding, list(queues)
        limit = tail * float(instance.customer_rates.sum())
        axes: list[tuple[Axis, NDArray[np.float64]]] = [(("short",), law)]
        for i in queues:
            cap = 1
            while instance.supplier_rates[i] * pdtrc(cap - 1, instance.offered[i]) > limit:
                cap += 1
            axes.append((("queue", i), np.ones(cap + 1)))
        for i, j in rounding.buffers(queues):
            self._refuse([len(start) for _, start in axes], max_states)
            axes.append((("buffer", i, j), buffer_law(rounding, i, j, tail)))
        self.axes = [axis for axis, _ in axes]
        self.shape = tuple(len(start) for _, start in axes)
        self._refuse(self.shape, max_states)
        self.size = math.prod(self.shape)
        self._start = [start for _, start in axes]
        self._cells = np.unravel_index(np.arange(self.size), self.shape)
        self._strides = [math.prod(self.shape[k + 1 :]) for k in range(len(self.shape))]

    def _refuse(self, extents: Sequence[int], max_states: float) -> None:
        if math.prod(extents) > max_states:
            raise TooLarge(
                f"the exact value of priority-rounding needs more than {max_states:.0f} states for instance "
                f"{self.rounding.instance.name!r}: raise eps, name fewer short queues or smaller caps, or use simulation."
            )

    def place(self, axis: Axis) -> NDArray[np.int64]:
        """The coordinate (N,) of every state on an axis."""
        return self._cells[self.axes.index(axis)]

    def marginal(self, joint: NDArray[np.float64], axis: Axis) -> NDArray[np.float64]:
        k = self.axes.index(axis)
        return np.bincount(self._cells[k], joint, self.shape[k]).astype(np.float64)

    def surplus_rate(self, j: int) -> NDArray[np.float64]:
        """Rate (N,) at which customers of type j get to the buffers (line 20)."""
        rounding, keep = self.rounding, 1 - self.rounding.eps
        share = np.full(self.size, 1 - keep * rounding.y[:, j].sum())
        if not rounding.is_simplified:
            for i in self.queues:
                share += keep * rounding.y[i, j] * (self.place(("queue", i)) == 0)
        return share * rounding.unmatched_rate(j)[self.place(("short",))]

    def wanted_rate(self, i: int, j: int) -> NDArray[np.float64]:
        """Rate (N,) at which customers of type j without a short match ask for the long queue i (line 17)."""
        return ((1 - self.rounding.eps) * self.rounding.y[i, j] * self.rounding.unmatched_rate(j))[self.place(("short",))]

    def draw_rate(self, i: int, j: int) -> NDArray[np.float64]:
        """Rate (N,) at which customers of type j draw the buffer V_ij (line 21)."""
        return self.surplus_rate(j) * (self.rounding.y[i, j] / self.rounding.y[:, j].sum())

    def flows(self) -> Iterator[tuple[NDArray[np.float64], dict[Axis, Any]]]:
        """Every kind of transition: its rates (N,) and what it does, axis -> change of the coordinate, or new coordinates."""
        rounding, instance, box = self.rounding, self.rounding.instance, self.rounding.box
        state = self.place(("short",))
        for a, i in enumerate(rounding.short):
            arriving = np.where(box.up[a] != np.arange(box.size), instance.supplier_rates[i], 0.0)
            yield arriving[state], {("short",): box.up[a][state]}
            yield (instance.departure_rates[i] * box.queues[a])[state], {("short",): box.down[a][state]}
        for i in self.queues:
            waiting = self.place(("queue", i))
            cap = self.shape[self.axes.index(("queue", i))] - 1
            yield np.where(waiting < cap, instance.supplier_rates[i], 0.0), {("queue", i): waiting + 1}
            leaving = instance.departure_rates[i] * waiting
            for j in np.flatnonzero(rounding.y[i] > 0).tolist():
                leaving = leaving + self.wanted_rate(i, j) * (waiting > 0)
            yield leaving, {("queue", i): waiting - 1}
        buffers = rounding.buffers(self.queues)
        for j in range(instance.n_customers):
            mine = [i for i, k in buffers if k == j]
            for a, rate in enumerate(rounding.short_rates(j)):
                down, rest = box.down[a][state], np.full(self.size, 1.0)
                for i in mine:
                    full = self.place(("buffer", i, j))
                    room = full < self.shape[self.axes.index(("buffer", i, j))] - 1
                    share = (1 - rounding.eps) * rounding.y[i, j] * room
                    yield rate[state] * share, {("short",): down, ("buffer", i, j): full + 1}
                    rest -= share
                yield rate[state] * rest, {("short",): down}
            for i in mine:
                draw, full, waiting = self.draw_rate(i, j), self.place(("buffer", i, j)), self.place(("queue", i))
                both = {("buffer", i, j): full - 1, ("queue", i): waiting - 1}
                yield np.where((full > 0) & (waiting > 0), draw, 0.0), both
                yield np.where((full > 0) & (waiting == 0), draw, 0.0), {("buffer", i, j): full - 1}

    def solve(self, law: NDArray[np.float64]) -> NDArray[np.float64]:
        """The stationary law (N,): directly if small, else by Gauss-Seidel sweeps and corrections of each axis in turn.

        A correction rescales the states by their place on one axis: to the law of the short queues, which is known, or so that
        the flows up and down between neighbouring places balance, which speeds up what takes a chain long: to fill a buffer.
        """
        states = np.arange(self.size)
        parts, out = [], np.zeros(self.size)
        rising = {axis: np.zeros(self.size) for axis in self.axes[1:]}
        falling = {axis: np.zeros(self.size) for axis in self.axes[1:]}
        for rate, moves in self.flows():
            target = states.copy()
            for axis, coordinate in moves.items():
                k = self.axes.index(axis)
                target += self._strides[k] * (coordinate - self._cells[k])
                if k > 0:
                    (rising if coordinate[0] > self._cells[k][0] else falling)[axis] += rate
            moving = (rate > 0) & (target != states)
            parts.append((rate[moving], states[moving], target[moving]))
            out += np.where(moving, rate, 0.0)
        rates, sources, targets = (np.concatenate(each) for each in zip(*parts))
        incoming = sparse.csr_matrix((rates, (targets, sources)), (self.size, self.size))
        if self.size <= DIRECT_STATES:
            return stationary_law(incoming.T - sparse.diags(out)).clip(0)
        joint = np.ones(1)
        for start in self._start:
            joint = np.multiply.outer(joint, start / start.sum()).ravel()
        for _ in range(ROUNDS):
            for _ in range(SWEEPS):
                sweep_kernel(incoming.indptr, incoming.indices, incoming.data, out, joint)
            for k, axis in enumerate(self.axes):
                mass = self.marginal(joint, axis)
                if k == 0:
                    wanted = law
                else:
                    rise = np.bincount(self._cells[k], rising[axis] * joint, self.shape[k]) / np.maximum(mass, 1e-300)
                    fall = np.bincount(self._cells[k], falling[axis] * joint, self.shape[k]) / np.maximum(mass, 1e-300)
                    wanted = np.r_[1.0, np.cumprod(rise[:-1] / np.maximum(fall[1:], 1e-300))]
                factor = np.where(mass > 0, wanted / np.maximum(mass, 1e-300), 0.0)
                joint *= factor[self._cells[k]]
                joint /= joint.sum()
            residual = np.abs(incoming @ joint - out * joint).sum()
            if residual <= BALANCED * (out @ joint):
                return joint
        raise InputError(
            f"the exact value of priority-rounding on {self.rounding.instance.name!r} did not converge: raise eps, or simulate."
        )

    def match_rates(self, joint: NDArray[np.float64], i: int) -> NDArray[np.float64]:
        """Matches (m,) per unit of time of the long queue i."""
        present = joint * (self.place(("queue", i)) > 0)
        rates = np.array([self.wanted_rate(i, j) @ present for j in range(self.rounding.instance.n_customers)])
        for _, j in self.rounding.buffers([i]):
            rates[j] += self.draw_rate(i, j) @ (present * (self.place(("buffer", i, j)) > 0))
        return rates

    def lost(self, joint: NDArray[np.float64]) -> float:
        """Rate of suppliers and increments that are lost to the caps."""
        rounding, lost = self.rounding, 0.0
        for i in self.queues:
            lost += float(rounding.instance.supplier_rates[i] * self.marginal(joint, ("queue", i))[-1])
        for i, j in rounding.buffers(self.queues):
            at_cap = self.place(("buffer", i, j)) == self.shape[self.axes.index(("buffer", i, j))] - 1
            wanted = rounding.short_rates(j).sum(0)[self.place(("short",))] * (1 - rounding.eps) * rounding.y[i, j]
            lost += float(wanted @ (joint * at_cap))
        return lost


@kernel
def sweep_kernel(starts, sources, rates, out, joint):
    """A Gauss-Seidel sweep forward and one backward: each state's mass becomes its inflow over its rate out."""
    size = len(joint)
    for step in range(2 * size):
        s = step if step < size else 2 * size - 1 - step
        inflow = 0.0
        for k in range(starts[s], starts[s + 1]):
            inflow += rates[k] * joint[sources[k]]
        joint[s] = inflow / out[s]
