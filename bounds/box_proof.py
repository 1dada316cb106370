"""What functions on a box of queues prove about gains, in integers of a common unit.

For every h on the box, min_Q B(h)(Q) <= g_box <= max_Q B(h)(Q), with B the right-hand side of the Bellman equation and g_box
the largest gain on the box. Losing suppliers at a cap is an admissible policy of the system without caps, so the minimum bounds
its best gain from below. Conversely, replace in its best policy the suppliers that the box loses by fictitious ones: each
spoils at most one match, so that adding sum_i lambda_i (max_j r_ij)^+ Pr[Poisson(lambda_i / mu_i) >= C_i] to the maximum bounds
it from above, with lambda_i the rate of all who may join queue i. With the actions of a fixed policy in place of the best ones,
the same extremes enclose the gain of that policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.bounds.chain import Box, Market, bellman, box_of
from matchgym.bounds.rational import CertificateError, coarsen, poisson_tail
from matchgym.envs.instance import Rates, is_count, shorten

Table = list[list[Fraction]]


@dataclass(frozen=True)
class ExactRates:
    """The rates of an instance, or of a part of one, as rational numbers."""

    supplier: list[Fraction]
    departure: list[Fraction]
    customer: list[Fraction]
    joins: list[int] | None = None  # the queue of unmatched customers; None: they are lost

    @property
    def arrivals(self) -> list[Fraction]:
        """Rates at which the queues fill if nobody is matched."""
        joining = [Fraction(0)] * len(self.supplier)
        for i, rate in zip(self.joins or (), self.customer):
            joining[i] += rate
        return [a + b for a, b in zip(self.supplier, joining)]

    def of(self, queues: Sequence[int]) -> "ExactRates":
        """The rates of some queues, with all customers."""
        return ExactRates([self.supplier[i] for i in queues], [self.departure[i] for i in queues], self.customer)


@dataclass(frozen=True)
class Bracket:
    """low <= g_box <= high; `lost` bounds what the caps cost."""

    low: Fraction
    high: Fraction
    lost: Fraction


def exact_list(values: NDArray[np.float64]) -> list[Fraction]:
    return [Fraction(value) for value in values.tolist()]


def exact_table(values: NDArray[np.float64]) -> Table:
    return [exact_list(row) for row in values]


def exact_rates(instance: Rates) -> ExactRates:
    return ExactRates(
        supplier=exact_list(instance.supplier_rates),
        departure=exact_list(instance.departure_rates),
        customer=exact_list(instance.customer_rates),
        joins=None if instance.joins is None else instance.joins.tolist(),
    )


def on_grid(h: NDArray[np.float64]) -> dict[str, Any]:
    """Any h proves a bracket; as integers times 2^-bits its numbers have about 64 bits. {"bits", "h"} of a certificate."""
    bits = max(0, 64 - int(np.frexp(np.abs(h).max())[1]))
    return {"bits": bits, "h": [round(Fraction(value) * Fraction(2) ** bits) for value in h.tolist()]}


def gain_bracket(rates: ExactRates, rewards: Table, certificate: dict[str, Any]) -> Bracket:
    """The bracket proved by the `caps`, `bits` and `h` of a certificate, for rewards (n, m) per match of either sign."""
    box = _box(rates, certificate["caps"])
    h, scales, unit = _in_one_unit(rates, rewards, box, certificate)
    gains = bellman(box, h, scales)
    lost = sum(
        (
            arrivals * max(Fraction(0), *row) * poisson_tail(coarsen(arrivals / departures), cap)
            for arrivals, departures, row, cap in zip(rates.arrivals, rates.departure, rewards, box.caps)
        ),
        Fraction(0),
    )
    return Bracket(int(gains.min()) * unit, int(gains.max()) * unit, lost)


def policy_bracket(
    rates: ExactRates, rewards: Table, caps: Any, actions: NDArray[np.int64], certificate: dict[str, Any]
) -> tuple[Fraction, Fraction]:
    """Two numbers around the gain on the box of the policy with actions (m, S), n for none; proved by `bits` and `h`."""
    box = _box(rates, caps)
    n = len(box.caps)
    if actions.shape != (len(rates.customer), box.size) or ((actions < 0) | (actions > n)).any():
        raise CertificateError(f"a certificate needs actions of shape ({len(rates.customer)}, {box.size}) from 0 to {n}.")
    h, scales, unit = _in_one_unit(rates, rewards, box, certificate)
    drift = sum(
        scales["supplier_rates"][i] * (h[box.up[i]] - h)
        + scales["departure_rates"][i] * box.queues[i].astype(object) * (h[box.down[i]] - h)
        for i in range(n)
    )
    for j, rate in enumerate(scales["customer_rates"]):
        for i in range(n):
            chosen = (actions[j] == i) & (box.queues[i] > 0)
            drift = drift + np.where(chosen, rate * (h[box.down[i]] - h + scales["rewards"][i][j]), 0)
    return int(drift.min()) * unit, int(drift.max()) * unit


def _box(rates: ExactRates, caps: Any) -> Box:
    if not isinstance(caps, list | tuple) or len(caps) != len(rates.supplier) or not all(is_count(cap, 1) for cap in caps):
        raise CertificateError(f"a certificate has caps {shorten(caps)} where {len(rates.supplier)} integers are needed.")
    n, m = len(rates.supplier), len(rates.customer)
    joins = None if rates.joins is None else np.array(rates.joins)
    return box_of(Market("certificate", np.zeros(n), np.zeros(n), np.zeros(m), np.zeros((n, m)), joins), tuple(caps))


def _in_one_unit(
    rates: ExactRates, rewards: Table, box: Box, certificate: dict[str, Any]
) -> tuple[NDArray[Any], dict[str, Any], Fraction]:
    """h and all rates and rewards as integers, and the unit of their products."""
    h, bits = certificate["h"], certificate["bits"]
    if not is_count(bits):
        raise CertificateError(f"a certificate has bits {shorten(bits)} where an integer is needed.")
    if len(h) != box.size or not all(type(value) is int for value in h):
        raise CertificateError(f"a certificate needs {box.size} integers h.")
    rate_bits = _bits([*rates.supplier, *rates.departure, *rates.customer])
    bits_used = max(bits, _bits([reward for row in rewards for reward in row]))
    scales: dict[str, Any] = {
        "supplier_rates": [_integer(rate, rate_bits) for rate in rates.supplier],
        "departure_rates": [_integer(rate, rate_bits) for rate in rates.departure],
        "customer_rates": [_integer(rate, rate_bits) for rate in rates.customer],
        "rewards": [[_integer(reward, bits_used) for reward in row] for row in rewards],
    }
    scaled = np.array(h, object) * (1 << (bits_used - bits))
    return scaled, scales, Fraction(1, 1 << (bits_used + rate_bits))


def _bits(values: list[Fraction]) -> int:
    """The least b such that all values, sums of floats, are multiples of 2^-b."""
    return max(value.denominator.bit_length() - 1 for value in values)


def _integer(value: Fraction, bits: int) -> int:
    return value.numerator * ((1 << bits) // value.denominator)
