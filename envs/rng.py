"""The random stream of a row and the samplers drawn from it.

A stream is four 64-bit words, row `b` of an array (B, 4), advanced by the SFC64 generator of C. Doty-Humphrey, bit for bit as
`numpy.random.SFC64` does it. Every sampler takes `(stream, b)` first; those called `draw_` take the words of a row and return
the words after them. Laws are exact up to rounding; the methods are inversion (Poisson and binomial with small mean), Vose's
alias tables (fixed laws), Marsaglia and Tsang's ziggurat (exponential; Journal of Statistical Software 5(8), 2000), Hörmann's
transformed rejection: PTRS for Poisson (Insurance: Mathematics and Economics 12, 1993) and BTRS for binomial (Journal of
Statistical Computation and Simulation 46, 1993), and Marsaglia and Tsang's for gamma (ACM Transactions on Mathematical
Software 26, 2000).
"""

import math
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matchgym.envs.compile import kernel, outlined_kernel

INVERSION_LIMIT = 10.0  # mean above which rejection beats inversion; PTRS and BTRS are valid from 10 on
RESOLUTION = 1e-17  # below the spacing of uniform numbers: the tail of an inversion ends here

SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)  # of sqrt(1/2) as a float64
TAIL_START = "7.69711747013104972"  # of the ziggurat of 256 layers under exp(-x)
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # their sum is ln 2, the first has 21 trailing zero bits


def seed_words(seed: int | tuple[int, ...]) -> NDArray[np.uint64]:
    """The four words (4,) of a stream seeded through `numpy.random.SeedSequence`."""
    return np.random.SFC64(np.random.SeedSequence(seed)).state["state"]["state"]


def alias_table(rates: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vose's alias table of the law proportional to `rates` (n,): acceptance thresholds (n,) and aliases (n,)."""
    rates = np.asarray(rates, np.float64)
    threshold = rates / rates.sum() * len(rates)
    alias = np.arange(len(rates))
    small = [i for i in alias if threshold[i] < 1]
    large = [i for i in alias if threshold[i] >= 1]
    while small and large:
        poor, rich = small.pop(), large[-1]
        alias[poor] = rich
        threshold[rich] -= 1 - threshold[poor]
        if threshold[rich] < 1:
            small.append(large.pop())
    threshold[small + large] = 1.0  # what is left differs from 1 by rounding only
    return threshold, alias


def ziggurat() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """The 256 layers of equal area of Marsaglia and Tsang's ziggurat under exp(-x).

    Layer i spans [0, x_i] and the heights from exp(-x_i) to exp(-x_i-1); layer 0 is the lowest, with the tail. Returns
    x_i 2^-53, x_i-1 / x_i in units of 2^-53, below which a number needs no comparison, and exp(-x_i), each (256,).
    """
    with localcontext() as context:
        context.prec = 30  # from the tail up, the layers lose three digits
        end = Decimal(TAIL_START)
        area = (end + 1) * (-end).exp()
        x = [area * end.exp(), *[end] * 255]
        for i in range(254, 0, -1):
            x[i] = -(area / x[i + 1] + (-x[i + 1]).exp()).ln()
        below = [end, Decimal(0), *x[1:-1]]
        limits = [int(inner / outer * 2**53) for inner, outer in zip(below, x)]
    edges = np.array(x, np.float64)
    heights = np.exp(-edges)
    heights[0] = 1.0
    return edges * 2.0**-53, np.array(limits), heights


TAIL = float(TAIL_START)
WIDTHS, LIMITS, HEIGHTS = ziggurat()


@kernel
def load(stream, b):
    """The words of row b, for a loop that keeps them out of memory with `draw_uniform` and puts them back with `store`."""
    return stream[b, 0], stream[b, 1], stream[b, 2], stream[b, 3]


@kernel
def store(stream, b, words):
    """Put the words of row b back."""
    stream[b, 0], stream[b, 1], stream[b, 2], stream[b, 3] = words


@kernel
def advance(words):
    """The next 64 random bits and the words after them."""
    first, second, third, count = words
    word = first + second + count
    rotated = (third << np.uint64(24)) | (third >> np.uint64(40))
    return word, (
        second ^ (second >> np.uint64(11)),
        third + (third << np.uint64(3)),
        rotated + word,
        count + np.uint64(1),
    )


@kernel
def next_word(stream, b):
    """The next 64 random bits."""
    word, words = advance(load(stream, b))
    store(stream, b, words)
    return word


@kernel
def draw_uniform(words):
    """A uniform number on the multiples of 2^-53 in [0, 1) and the words after it."""
    word, words = advance(words)
    return np.int64(word >> np.uint64(11)) * (1.0 / 9007199254740992.0), words


@kernel
def uniform(stream, b):
    """Uniform on the multiples of 2^-53 in [0, 1), as `numpy.random.Generator.random`."""
    fraction, words = draw_uniform(load(stream, b))
    store(stream, b, words)
    return fraction


@kernel
def logarithm(x):
    """Natural logarithm of a normal number x > 0, within one unit in the last place: the method of fdlibm's e_log.c.

    A call of the C library would make the loops it stands in save all their registers.
    """
    bits = np.float64(x).view(np.int64)
    exponent = (bits - SQRT_HALF_BITS) >> np.int64(52)  # x = 2^exponent (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
    f = np.int64(bits - (exponent << np.int64(52))).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (0.3999999999940942 + w * (0.22222198432149784 + w * 0.15313837699209373))
    odd = z * (0.6666666666666735 + w * (0.2857142874366239 + w * (0.1818357216161805 + w * 0.14798198605116586)))
    half = 0.5 * f * f
    return exponent * LN2_HIGH - (half - (s * (half + even + odd) + exponent * LN2_LOW) - f)


@kernel
def draw_exponential(words):
    """Exponential with mean 1 and the words after it, as `numpy.random.Generator.standard_exponential`."""
    word, words = advance(words)
    layer, place = (word >> np.uint64(3)) & np.uint64(255), np.int64(word >> np.uint64(11))
    x = place * WIDTHS[layer]
    if place < LIMITS[layer]:  # 99 of 100
        return x, words
    return _above_limit(words, layer, x)


@outlined_kernel
def _above_limit(words, layer, x):
    """Accept x in its layer if it is under the curve, or draw anew."""
    while True:
        fraction, words = draw_uniform(words)
        if layer == 0:
            return TAIL - math.log1p(-fraction), words
        if (HEIGHTS[layer - np.uint64(1)] - HEIGHTS[layer]) * fraction + HEIGHTS[layer] < math.exp(-x):
            return x, words
        word, words = advance(words)
        layer, place = (word >> np.uint64(3)) & np.uint64(255), np.int64(word >> np.uint64(11))
        x = place * WIDTHS[layer]
        if place < LIMITS[layer]:
            return x, words


@kernel
def exponential(stream, b):
    """Exponential with mean 1, as `numpy.random.Generator.standard_exponential`."""
    x, words = draw_exponential(load(stream, b))
    store(stream, b, words)
    return x


@kernel
def pick(fraction, threshold, alias):
    """The index that an alias table assigns to a uniform number `fraction` in [0, 1)."""
    scaled = fraction * len(threshold)
    i = min(int(scaled), len(threshold) - 1)
    return i if scaled - i < threshold[i] else alias[i]


@kernel
def pick_cell(cell, threshold, outcomes):
    """As `pick`, of a uniform number `cell` in [0, n); outcomes (n, 2) holds an index and its alias side by side.

    Made for inner loops: the two columns spare a branch that no processor can foresee, and the unsigned numbers numba's
    arithmetic for negative indices.
    """
    i = min(np.uint64(int(cell)), np.uint64(len(threshold) - 1))
    return np.uint64(outcomes[i, np.uint64(cell - np.int64(i) >= threshold[i])])


@outlined_kernel
def poisson(stream, b, mean):
    """Poisson with the given mean >= 0."""
    if mean < INVERSION_LIMIT:
        u = uniform(stream, b)
        k, mass = 0, math.exp(-mean)
        while u >= mass and mass > RESOLUTION:
            u -= mass
            k += 1
            mass *= mean / k
        return k
    spread = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * spread
    inverse_alpha = 1.1239 + 1.1328 / (spread - 3.4)
    accept = 0.9277 - 3.6224 / (spread - 2.0)
    while True:
        u, v = uniform(stream, b) - 0.5, 1.0 - uniform(stream, b)
        tail = 0.5 - abs(u)
        if tail <= 0.0:
            continue
        k = math.floor((2.0 * a / tail + spread) * u + mean + 0.43)
        if tail >= 0.07 and v <= accept:
            return int(k)
        if k < 0 or (tail < 0.013 and v > tail):
            continue
        height = math.log(v * inverse_alpha / (a / (tail * tail) + spread))
        if height <= k * math.log(mean) - mean - math.lgamma(k + 1.0):
            return int(k)


@kernel
def binomial(stream, b, n, p):
    """Binomial with n >= 0 trials of probability p in [0, 1]."""
    if p > 0.5:
        return n - _binomial_half(stream, b, n, 1.0 - p)
    return _binomial_half(stream, b, n, p)


@outlined_kernel
def _binomial_half(stream, b, n, p):
    if n == 0 or p <= 0.0:
        return 0
    odds = p / (1.0 - p)
    if n * p < INVERSION_LIMIT:
        u = uniform(stream, b)
        k, mass = 0, math.exp(n * math.log1p(-p))
        while u >= mass and mass > RESOLUTION and k < n:
            u -= mass
            k += 1
            mass *= odds * (n - k + 1) / k
        return k
    deviation = math.sqrt(n * p * (1.0 - p))
    spread = 1.15 + 2.53 * deviation
    a = -0.0873 + 0.0248 * spread + 0.01 * p
    alpha = (2.83 + 5.1 / spread) * deviation
    accept = 0.92 - 4.2 / spread
    mode = math.floor((n + 1) * p)
    mode_height = math.lgamma(mode + 1.0) + math.lgamma(n - mode + 1.0)
    while True:
        u, v = uniform(stream, b) - 0.5, 1.0 - uniform(stream, b)
        tail = 0.5 - abs(u)
        if tail <= 0.0:
            continue
        k = math.floor((2.0 * a / tail + spread) * u + n * p + 0.5)
        if tail >= 0.07 and v <= accept:
            return int(k)
        if k < 0 or k > n:
            continue
        height = math.log(v * alpha / (a / (tail * tail) + spread))
        if height <= mode_height - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0) + (k - mode) * math.log(odds):
            return int(k)


@kernel
def normal(stream, b):
    """Standard normal, by Box and Muller's method."""
    radius = math.sqrt(-2.0 * logarithm(1.0 - uniform(stream, b)))
    return radius * math.cos(2.0 * math.pi * uniform(stream, b))


@outlined_kernel
def gamma(stream, b, shape):
    """Gamma with the given shape >= 1 and scale 1, by Marsaglia and Tsang's rejection."""
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = normal(stream, b)
        root = 1.0 + c * x
        if root <= 0.0:
            continue
        v = root * root * root
        if logarithm(1.0 - uniform(stream, b)) < 0.5 * x * x + d - d * v + d * logarithm(v):
            return d * v


@kernel
def beta(stream, b, first, second):
    """Beta with parameters >= 1."""
    x = gamma(stream, b, first)
    return x / (x + gamma(stream, b, second))
