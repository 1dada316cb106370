"""Exact rational arithmetic for certificates: enclosures of e^-x and of Poisson tails, and directed rounding to floats."""

import math
from fractions import Fraction

from matchgym.envs.instance import InputError

BITS = 256  # enclosures are about 2^-BITS wide
LARGE_MEAN = 64  # above, e^-mean is enclosed too coarsely for a small tail to be 1 minus the rest
LONG_TAIL = 400  # terms of a Poisson law from which sums of exact fractions grow too long


class CertificateError(InputError):
    """A certificate is malformed, or it does not prove the value it came with."""


def exact(number: object) -> Fraction:
    """The rational value of a finite float or int of a certificate."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise CertificateError(f"a certificate holds {number!r} where a finite number is needed.")
    return Fraction(number)


def round_up(value: Fraction) -> float:
    """The smallest float >= value."""
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf) + 0.0


def round_down(value: Fraction) -> float:
    """The largest float <= value."""
    return 0.0 - round_up(-value)


def coarsen(value: Fraction) -> Fraction:
    """A number >= value, by less than 2^-BITS, whose denominator is 2^BITS: keeps long sums of ratios short."""
    return Fraction(math.ceil(value * 2**BITS), 2**BITS)


def exp_minus(x: Fraction) -> tuple[Fraction, Fraction]:
    """Rational numbers (low, high) with low <= e^-x <= high, for x >= 0.

    e^(x / 2^k) with x / 2^k <= 1/2 is summed by Taylor's series in integers of BITS + 64 bits, rounded down for one sum and up
    for the other (the rest of the series is at most the last term), inverted, and squared k times.
    """
    if x > 4 * BITS:
        return Fraction(0), Fraction(1, 2**BITS)
    halvings = max(0, math.ceil(2 * x).bit_length())
    one = 1 << (BITS + 64)
    argument = x / 2**halvings
    below, above = math.floor(argument * one), math.ceil(argument * one)
    low_sum = low_term = high_sum = high_term = one
    order = 0
    while high_term > 1:
        order += 1
        low_term = low_term * below // (one * order)
        high_term = -(-high_term * above // (one * order))
        low_sum += low_term
        high_sum += high_term
    low, high = one * one // (high_sum + high_term), -(-one * one // low_sum)
    for _ in range(halvings):
        low, high = low * low // one, -(-high * high // one)
    return Fraction(low, one), Fraction(high, one)


def poisson_tail(mean: Fraction, count: int) -> Fraction:
    """An upper bound on Pr[Poisson(mean) >= count]."""
    is_far = count > mean and (mean > LARGE_MEAN or count > LONG_TAIL)
    far = _far_tail(mean, count) if is_far else Fraction(1)
    if count > LONG_TAIL and is_far:
        return far
    term = partial = Fraction(1) if count > 0 else Fraction(0)
    for k in range(1, count):
        term = term * mean / k
        partial += term
    return min(far, max(Fraction(0), 1 - exp_minus(mean)[0] * partial))


def _far_tail(mean: Fraction, count: int) -> Fraction:
    """Pr[Poisson(mean) = count] (1 + q + q^2 + ...) with q = mean / (count + 1), factor by factor in rounded-up numbers.

    The probability is the product of mean e^(-mean / count) / k over k = 1..count.
    """
    factor = coarsen(mean * exp_minus(mean / count)[1])
    mantissa, exponent = 1, 0  # mantissa 2^exponent
    for k in range(1, count + 1):
        mantissa = -(-mantissa * factor.numerator // k)
        exponent -= factor.denominator.bit_length() - 1
        excess = mantissa.bit_length() - 2 * BITS
        if excess > 0:
            mantissa, exponent = (mantissa >> excess) + 1, exponent + excess
    probability = mantissa * Fraction(2) ** exponent
    return min(Fraction(1), coarsen(probability / (1 - mean / (count + 1))))
