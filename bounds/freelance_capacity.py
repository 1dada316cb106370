"""The exact capacity region of a freelance market whose agents follow a law of finite support (Theorems 5 and 14).

With p_k the probability of state k and the blocks of `freelance_blocks`, each of which has finitely many integer points a in
state k, the largest alpha with alpha lambda in the region is

    max alpha
    alpha lambda_j <= sum of g_ka a_j                        (FND; IND, summed over categories too)
    alpha lambda_j <= sum of g_ka a_js   for each s needed   (FD)
    alpha lambda_j <= sum_l y_lj,  y_lj <= sum of g_ka a_ljs for each s needed   (ID)
    sum_a g_ka <= p_k                    for each state and block,  g >= 0.

Points are generated as columns: the best one for given row weights w is a MaxWeight allocation. Dually, for any w >= 0,

    alpha <= sum_k p_k sum_blocks max_a w.a / sum_j v_j lambda_j,

v_j being w_j, sum_s w_js, or min_l sum_s w_ljs: weights in integers are the certificate, and that no point exceeds the stated
maxima is shown by exhausting the points in integers, with multipliers of the rows to cut the search short.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.rational import CertificateError
from matchgym.envs.freelance_blocks import Block, blocks_of
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.instance import InputError, is_count
from matchgym.envs.packing import FEASIBLE, branch, relax, room

GRID = 2**32  # weights of a certificate are integers up to this
CLOSE = 1e-9  # of the gap at which columns are no longer worth adding, relative
MOST_PARTS = 5000  # blocks times states
MOST_POINTS = 2_000_000  # looked at in the proof of one block
SEARCH = 200_000  # relaxations solved for one column

Key = tuple[int, int, int]


def parts_of(instance: FreelanceMarketInstance) -> list[tuple[Fraction, Block, list[Fraction]]]:
    """Probability, block and limits b, exactly, of every block in every state; equal ones are joined.

    Hours may be exceeded by FEASIBLE, as the environment allows.
    """
    outcomes = instance.outcomes("availability")
    if outcomes is None:
        raise InputError(
            'availability_law must be "finite" or "deterministic" for the bound capacity; `load` bounds it for every law.'
        )
    blocks = blocks_of(instance)
    if len(blocks) * len(outcomes.probabilities) > MOST_PARTS:
        raise InputError(f"availability_support has too many outcomes for the bound capacity (over {MOST_PARTS} programmes).")
    category = instance.agent_category.tolist()
    exact_hours = [[Fraction(h) for h in row] for row in instance.hours.tolist()]
    probabilities = [Fraction(p) for p in outcomes.probabilities.tolist()]
    total = sum(probabilities, Fraction(0))
    joined: dict[Any, Fraction] = {}
    for p, counts in zip(probabilities, outcomes.counts.tolist()):
        hours = [[Fraction(0)] * instance.n_skills for _ in range(instance.n_categories)]
        for c, count, row in zip(category, counts, exact_hours):
            if count:
                hours[c] = [have + count * more for have, more in zip(hours[c], row)]
        for k, block in enumerate(blocks):
            limits = tuple(
                sum((hours[c][s] for c in range(len(hours)) if some >> c & 1), Fraction(0))
                for some, s in zip(block.row_set.tolist(), block.row_skill.tolist())
            )
            joined[k, limits] = joined.get((k, limits), Fraction(0)) + p / total
    slack = Fraction(FEASIBLE)
    return [(p, blocks[k], [b * (1 + slack) + slack for b in limits]) for (k, limits), p in joined.items()]


def _rows(instance: FreelanceMarketInstance) -> list[Key]:
    """The rows of the programme that points serve: (category or 0, type, skill or 0)."""
    keys = []
    for c in range(instance.n_categories if instance.kind == "ID" else 1):
        for j in np.flatnonzero(instance.arrival_means > 0).tolist():
            if instance.kind != "ID" or instance.allowed[j, c]:
                for s in np.flatnonzero(instance.needs[j]).tolist() if instance.decomposable else [0]:
                    keys.append((c, j, s))
    return keys


def _columns(instance: FreelanceMarketInstance, block: Block, row_of: dict[Key, int]) -> NDArray[np.int64]:
    """For each column of a block, the row it serves, -1 if its type never arrives."""
    is_pooled = instance.kind == "ID"
    keys = zip((block.categories if is_pooled else 0 * block.categories).tolist(), block.types.tolist(), block.skills.tolist())
    return np.array([row_of.get(key, -1) for key in keys], np.int64)


def capacity(instance: FreelanceMarketInstance) -> Bound:
    """The largest alpha with alpha lambda in the exact region. InputError where the law of the agents is not finite."""
    parts, keys = parts_of(instance), _rows(instance)
    row_of = {key: k for k, key in enumerate(keys)}
    job = float(instance.arrival_means.max())
    problem = pulp.LpProblem("capacity", pulp.LpMaximize)
    alpha = problem.add_variable("alpha", 0)
    problem += alpha
    rows = []
    if instance.kind == "ID":
        sent: dict[tuple[int, int], Any] = {}
        for c, j, _ in keys:
            if (c, j) not in sent:
                sent[c, j] = problem.add_variable(f"y_{c}_{j}", 0)
        for j in np.flatnonzero(instance.arrival_means > 0).tolist():
            terms = [(alpha, float(instance.arrival_means[j]) / job)]
            terms += [(each, -1.0) for (_, other), each in sent.items() if other == j]
            problem.addConstraint(pulp.LpAffineExpression(terms) <= 0, f"type_{j}")
        for c, j, s in keys:
            rows.append(pulp.LpAffineExpression([(sent[c, j], 1.0)]) <= 0)
            problem.addConstraint(rows[-1], f"task_{c}_{j}_{s}")
    else:
        for c, j, s in keys:
            rows.append(pulp.LpAffineExpression([(alpha, float(instance.arrival_means[j]) / job)]) <= 0)
            problem.addConstraint(rows[-1], f"task_{c}_{j}_{s}")
    shares, nothing = [], problem.add_variable("nothing", 0, 0)
    for k, (p, _, _) in enumerate(parts):
        shares.append(pulp.LpAffineExpression([(nothing, 1.0)]) <= float(p))
        problem.addConstraint(shares[-1], f"state_{k}")
    held = HeldProgramme(problem)
    served = np.array([row.index for row in rows], np.int64)
    shared = np.array([row.index for row in shares], np.int64)
    columns = [_columns(instance, block, row_of) for _, block, _ in parts]
    limits = [np.array([float(b) for b in exact_b]) for _, _, exact_b in parts]
    points: list[NDArray[np.float64]] = []
    while True:
        weights = np.maximum(held.row_multipliers[served], 0.0)
        worth, gap, points = held.row_multipliers[shared], 0.0, []
        for k, (p, block, _) in enumerate(parts):
            w = np.where(columns[k] >= 0, weights[columns[k]], 0.0)
            point, value = best_point(block.rows, limits[k], w)
            points.append(point)
            value /= job
            if value > worth[k] + 1e-12:
                gap += float(p) * (value - worth[k])
                used = np.flatnonzero((point > 0) & (columns[k] >= 0))
                held.add_column(0.0, np.append(served[columns[k][used]], shared[k]), np.append(-point[used] / job, 1.0))
        if gap <= CLOSE * max(held.value, 1e-3):
            break
        held.solve_again()
    value = held.value
    largest = float(weights.max()) if weights.any() else 0.0
    whole = [round(w / largest * GRID) if largest else 1 for w in weights.tolist()]
    multipliers = []
    for k, (_, block, _) in enumerate(parts):
        w = np.array([whole[row] if row >= 0 else 0 for row in columns[k].tolist()], float)
        multipliers.append(_multipliers(block.rows, limits[k], w))
    certificate = {"weights": whole, "points": [point.astype(int).tolist() for point in points], "multipliers": multipliers}
    return certify(
        "capacity", "upper", value + 0.0, instance, prove_capacity, certificate,
        solution={"alpha": value}, duals={"weights": weights}, unit="times the arrivals",
    )  # fmt: skip


def best_point(a: NDArray[np.float64], b: NDArray[np.float64], w: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The best integer point of a block for weights w (k,) and its value; InputError where the search is too long."""
    reals, integers = room(a.shape[1], a.shape[0])
    point = np.zeros(a.shape[1])
    value, is_proved = branch(a, b, w, np.full(a.shape[1], 1e9), SEARCH, point, reals, integers)
    if not is_proved:
        raise InputError("availability_support has states with too many allocations for the bound capacity; use load.")
    return point, float(value)


def _multipliers(a: NDArray[np.float64], b: NDArray[np.float64], w: NDArray[np.float64]) -> list[float]:
    """Multipliers (m,) of the rows of the relaxation."""
    m, k = a.shape
    reals, integers = room(k, m)
    relax(a, b, w, np.zeros(k), np.full(k, np.inf), np.zeros(k), reals, integers)
    costs, columns = reals[: (m + 1) * (k + 1)].reshape(m + 1, k + 1)[m], integers[m : m + k]
    found = np.zeros(m)
    for j in range(k):
        if columns[j] >= k:
            found[columns[j] - k] = max(0.0, costs[j])
    return found.tolist()


def prove_capacity(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The bound of any integer weights >= 0 of the rows."""
    parts, keys = parts_of(instance), _rows(instance)
    whole, points, multipliers = certificate["weights"], certificate["points"], certificate["multipliers"]
    if len(whole) != len(keys) or not all(is_count(w) for w in whole) or not len(points) == len(multipliers) == len(parts):
        raise CertificateError(f"a certificate of capacity needs {len(keys)} integers >= 0 and {len(parts)} points.")
    row_of = {key: k for k, key in enumerate(keys)}
    total = Fraction(0)
    for (p, block, limits), point, guide in zip(parts, points, multipliers):
        w = [whole[row] if row >= 0 else 0 for row in _columns(instance, block, row_of).tolist()]
        total += p * largest_value(block.rows.tolist(), limits, w, point, guide)
    paid = Fraction(0)
    sums: dict[tuple[int, int], Fraction] = {}
    for (c, j, _), w in zip(keys, whole):
        sums[c, j] = sums.get((c, j), Fraction(0)) + w
    for j in np.flatnonzero(instance.arrival_means > 0).tolist():
        offers = [value for (_, other), value in sums.items() if other == j]
        if not offers:  # no category may serve the type
            return Proof(upper=Fraction(0))
        paid += Fraction(float(instance.arrival_means[j])) * min(offers)
    if not paid:
        raise CertificateError("a certificate of capacity needs weights at which the arrivals count.")
    return Proof(upper=total / paid)


def largest_value(rows: list[list[float]], limits: list[Fraction], w: list[int], point: list[int], guide: list[float]) -> int:
    """max w.a over integers a >= 0 with rows a <= limits, or w.point if that is more: an upper bound in any case.

    Depth first over the columns, in whole numbers: what is left of the rows is worth at most y.left, y >= 0 being `guide`
    raised until y.A >= w. CertificateError beyond MOST_POINTS.
    """
    k = len(w)
    order = sorted((j for j in range(k) if w[j] > 0), key=lambda j: -w[j])
    exact_rows = [[Fraction(value) for value in row] for row in rows]
    scale = 1
    for row in exact_rows:
        for value in row:
            scale = max(scale, value.denominator)  # powers of two
    a = [[int(row[j] * scale) for row in exact_rows] for j in range(k)]  # (k, m)
    left = [int(b * scale // 1) for b in limits]
    y = [Fraction(max(0.0, value)).limit_denominator(10**9) / scale for value in guide]
    for j in order:
        short = w[j] - sum(c * price for c, price in zip(a[j], y))
        if short > 0:
            i = max(range(len(y)), key=lambda i: a[j][i])
            if a[j][i] == 0:
                raise CertificateError("a column of a capacity programme has no row; its market is malformed.")
            y[i] += Fraction(short, a[j][i])
    unit = math.lcm(*(price.denominator for price in y))
    prices = [int(price * unit) for price in y]
    best = sum(weight * int(count) for weight, count in zip(w, point))
    looked = 0

    def search(depth: int, value: int, left: list[int], worth: int) -> None:
        nonlocal best, looked
        looked += 1
        if looked > MOST_POINTS:
            raise CertificateError("a capacity programme has too many points to be exhausted.")
        best = max(best, value)
        if depth == len(order) or value * unit + worth <= best * unit:
            return
        j = order[depth]
        need = a[j]
        price = sum(c * q for c, q in zip(need, prices))
        for count in range(min(have // c for have, c in zip(left, need) if c), -1, -1):
            rest = worth - count * price
            if (value + count * w[j]) * unit + rest > best * unit:
                search(depth + 1, value + count * w[j], [have - count * c for have, c in zip(left, need)], rest)

    search(0, 0, left, sum(have * q for have, q in zip(left, prices)))
    return best
