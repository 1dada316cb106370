"""The best that N servers could do if tasks moved freely between them: birth-death and pooled lower bounds on tasks.

Let D(n) be the sum of the n largest service rates, n <= N, and D(N) beyond. Whatever a policy does, n tasks leave at rate D(n)
at most and arrive at rate Lam = lambda W, so by coupling their number dominates the birth-death process Z of these rates. With
pi_n = prod_{i<=n} Lam / D(i) and r = Lam / D(N) < 1,

    E Z = (sum_{n<=N} n pi_n + pi_N (N r / (1 - r) + r / (1 - r)^2)) / (sum_{n<=N} pi_n + pi_N r / (1 - r)).

One server of rate D(N) would have r / (1 - r) tasks, which is less. Both are computed in integers rounded in the safe
direction.
"""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from matchgym.bounds.rational import BITS
from matchgym.envs.instance import InputError

FINE = 1 << BITS


def refuse_overload(arrivals: Fraction, capacity: Fraction) -> None:
    """InputError unless the servers can keep up."""
    if arrivals >= capacity:
        raise InputError(
            f"arrival_rate brings {float(arrivals):.6g} tasks per unit of time to servers that complete {float(capacity):.6g} "
            "at most: no policy is stable; lower it."
        )


def pooled_tasks(arrivals: Fraction, rates: NDArray[np.float64], counts: NDArray[np.int64]) -> Fraction:
    """r / (1 - r): tasks in the system if all servers were one."""
    capacity = sum((Fraction(u) * int(n) for u, n in zip(rates.tolist(), counts)), Fraction(0))
    refuse_overload(arrivals, capacity)
    return arrivals / (capacity - arrivals)


def birth_death_tasks(arrivals: Fraction, rates: NDArray[np.float64], counts: NDArray[np.int64]) -> Fraction:
    """A rational number just below E Z, for `counts` (M,) servers of `rates` (M,)."""
    fastest_first = [(Fraction(rates[m]), int(counts[m])) for m in np.argsort(-rates, kind="stable") if counts[m] > 0]
    n_servers = sum(count for _, count in fastest_first)
    capacity = sum((rate * count for rate, count in fastest_first), Fraction(0))
    refuse_overload(arrivals, capacity)
    unit = math.lcm(arrivals.denominator, *(rate.denominator for rate, _ in fastest_first))
    births = int(arrivals * unit)
    blocks = [(int(rate * unit), count) for rate, count in fastest_first]

    # The likeliest state: the last n with D(n) <= Lam.
    mode, deaths = 0, 0
    for rate, count in blocks:
        steps = min(count, max(0, (births - deaths) // rate))
        mode, deaths = mode + steps, deaths + steps * rate
        if steps < count:
            break
    at_mode = deaths

    # Weights relative to the mode's, below it and above it, each rounded down and up.
    numerator = mode * FINE
    mass = FINE
    low = high = FINE
    n, deaths = mode, at_mode
    while n > 0 and high > 1:
        low, high = low * deaths // births, -(-high * deaths // births)
        deaths -= _rate_of(blocks, n)
        n -= 1
        numerator += n * low
        mass += high
    mass += n * high
    low = high = FINE
    n, deaths = mode, at_mode
    while n < n_servers and high > 1:
        n += 1
        deaths += _rate_of(blocks, n)
        low, high = low * births // deaths, -(-high * births // deaths)
        numerator += n * low
        mass += high
    mass += (n_servers - n) * high
    if n < n_servers:
        low = 0
    r = arrivals / capacity
    beyond = r / (1 - r)
    numerator_exact = numerator + low * (n_servers * beyond + beyond / (1 - r))
    return numerator_exact / (mass + high * beyond)


def _rate_of(blocks: list[tuple[int, int]], n: int) -> int:
    """The rate of the n-th fastest server, n >= 1."""
    for rate, count in blocks:
        if n <= count:
            return rate
        n -= count
    raise IndexError(n)


def transient_tasks(
    arrivals: Fraction, rates: NDArray[np.float64], counts: NDArray[np.int64], start: list[Fraction], duration: Fraction
) -> Fraction:
    """A rational number just below the mean of E Z(t) over [0, duration], from the law `start` of Z(0).

    By uniformisation at rate q = Lam + D(N): the integral is sum_k Pr[Poisson(q T) > k] / q E Z_k, Z_k the chain of jumps.
    Terms that are left out, and states beyond those within reach of rounding, only lower it.
    """
    fastest_first = [(Fraction(rates[m]), int(counts[m])) for m in np.argsort(-rates, kind="stable") if counts[m] > 0]
    capacity = sum((rate * count for rate, count in fastest_first), Fraction(0))
    total = arrivals + capacity
    mean = total * duration
    steps = math.ceil(float(mean) + 10 * math.sqrt(float(mean)) + 20)
    width = len(start) + steps
    if steps * width > 20_000_000:
        raise InputError(f"the horizon of {float(duration):.6g} units of time has {steps} events; shorten it for this bound.")
    deaths, so_far = [Fraction(0)], Fraction(0)
    for rate, count in fastest_first:
        for _ in range(count):
            so_far += rate
            deaths.append(so_far)
            if len(deaths) > width:
                break
    fine = 1 << 96
    up = int(arrivals / total * fine)
    down = [int(deaths[min(n, len(deaths) - 1)] / total * fine) for n in range(width + 1)]
    stay = [int((1 - arrivals / total - deaths[min(n, len(deaths) - 1)] / total) * fine) for n in range(width + 1)]
    tails = poisson_tails(mean, steps)
    weighted = 0
    state = np.zeros(width + 1, object)
    state[: len(start)] = [int(each * fine) for each in start]
    downs, stays, levels = np.array(down, object), np.array(stay, object), np.arange(width + 1)
    top = len(start)
    for tail in tails:
        weighted += int((state[: top + 1] * levels[: top + 1]).sum()) * tail
        top = min(top + 1, width)
        moved = state[: top + 1] * stays[: top + 1]
        moved[1:] += state[:top] * up
        moved[:-1] += state[1 : top + 1] * downs[1 : top + 1]
        state[: top + 1] = moved // fine
    return Fraction(weighted, fine * FINE) / mean


def poisson_tails(mean: Fraction, count: int) -> list[int]:
    """Lower bounds on Pr[Poisson(mean) > k] for k < count, in units of 1 / FINE: weights from the mode, over all of them."""
    mode, last = math.floor(mean), max(count, math.floor(mean) + 1)
    lows, highs = [0] * (last + 1), [0] * (last + 1)
    lows[mode] = highs[mode] = FINE
    for k in range(mode, 0, -1):
        lows[k - 1] = lows[k] * k * mean.denominator // mean.numerator
        highs[k - 1] = -(-highs[k] * k * mean.denominator // mean.numerator)
    for k in range(mode + 1, last + 1):
        lows[k] = lows[k - 1] * mean.numerator // (mean.denominator * k)
        highs[k] = -(-highs[k - 1] * mean.numerator // (mean.denominator * k))
    ratio = mean / (last + 1)
    everything = sum(highs) + math.ceil(highs[-1] * ratio / (1 - ratio))
    tails, beyond = [0] * count, 0
    for k in range(last, 0, -1):
        beyond += lows[k]
        if k - 1 < count:
            tails[k - 1] = beyond * FINE // everything
    return tails
