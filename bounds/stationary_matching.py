"""Bounds for stationary bipartite matching: the linear programmes of arXiv 2411.08218, and the exact optimum when small.

With x_ij the rate of matches of customer type j to supplier type i and x_ia the rate at which suppliers of type i leave
unmatched, TLP_on is

    max  sum_ij r_ij x_ij
    (1)  x_ia + sum_j x_ij = lambda_i                                          for all i      (conservation)
    (2)  sum_{i in H} x_ij <= gamma_j (1 - exp(-sum_{i in H} rho_i))           for all j, H   (some supplier of H is present)
    (3)  x_ij / gamma_j <= x_ia / mu_i                                         for all i, j   (Pr[Q_i >= 1] <= E[Q_i])
    (4)  x >= 0

(2) holds for every policy because the suppliers present, matched or not, are independent Poisson(rho_i); (3) is PASTA and holds
for policies that do not know the future. The kinds of bound keep these constraints:

    tlp-online      (1) (2) (3)            on the best online policy
    tlp-offline     (1) (2)                on the best policy that knows all arrival and departure times
    fluid           (1) (3)
    flow            (1) (3) and sum_i x_ij <= gamma_j                          [Aouad, Saritac]
    singleton       (1) (3) and (2) for single types only                      [Kessel, Saberi, Shameli, Wajc]
    flow-singleton  the last two together
    optimum         average-reward dynamic programming on a truncated state space, with a bracket around OPT_on

The programmes are solved in y_ij = x_ij / gamma_j and the share s_i = x_ia / lambda_i of suppliers that leave unmatched, which
keeps the coefficients near 1 whatever the rates; pairs with r_ij = 0 are left out (x_ij = 0 loses nothing).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.box_proof import exact_rates, exact_table, gain_bracket, on_grid
from matchgym.bounds.chain import make_box, policy_iteration
from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.rational import CertificateError, coarsen, exact, exp_minus
from matchgym.bounds.subset_cuts import BY_SHARE, BY_WORTH, greedy_prefixes, violated, worst_prefixes
from matchgym.envs.instance import InputError, Rates, unknown
from matchgym.envs.stationary_matching import MODEL, StationaryMatchingInstance

GAP = 1e-10  # between an upper bound and a feasible solution, relative: ends the cutting planes
MAX_ROUNDS = 1000
FAILED_GAP = 5e-7  # more than this in the end is an error
PERTURBED_ROUND = 5  # after this round rewards are lowered by up to PERTURBATION, so that no two orders of suppliers tie
PERTURBATION, PERTURBED_GAP = 1e-7, 1e-8  # relative, and the gap that ends these rounds; the last one undoes the perturbation
MAX_COEFFICIENT = 1e10  # of customer_rates / supplier_rates in the programmes
BRACKET = 1e-8  # width of the bracket of `optimum` due to truncation, relative to the largest possible reward rate,
BRACKET_LIMIT = 2e-7  # but never more than this


@dataclass(frozen=True)
class Form:
    """Which constraints a kind keeps besides (1) and (4)."""

    pasta: bool = True  # (3)
    singletons: bool = False  # (2) for H = {i}
    subsets: bool = False  # (2) for all H
    flow: bool = False  # sum_i y_ij <= 1


FORMS = {
    "tlp-online": Form(singletons=True, subsets=True),
    "tlp-offline": Form(pasta=False, singletons=True, subsets=True),
    "fluid": Form(),
    "flow": Form(flow=True),
    "singleton": Form(singletons=True),
    "flow-singleton": Form(singletons=True, flow=True),
}
KINDS = (*FORMS, "optimum")  # the first is the default


def bound(instance: Any, kind: str = KINDS[0]) -> Bound:
    """A bound in reward per unit of time; `instance` is anything `gym.make` takes. InputError for an unknown kind."""
    if kind == "optimum":
        return optimum(instance)
    if kind not in FORMS:
        raise unknown("kind of bound", kind, KINDS)
    return linear_programme(instance, kind)


def tlp_online(instance: Any) -> Bound:
    """TLP_on: an upper bound on every policy that does not know the future (Claim 2.1)."""
    return linear_programme(instance, "tlp-online")


def tlp_offline(instance: Any) -> Bound:
    """TLP_off: an upper bound on every policy, also one that knows all times in advance (Section 4, Appendix E.1)."""
    return linear_programme(instance, "tlp-offline")


def linear_programme(instance: Any, kind: str) -> Bound:
    """Solve one of the programmes above and certify it.

    Supplier types that agree in departure rate and rewards count as one where all of (2) is kept, which changes neither the
    value nor the multipliers; their solution is shared out by arrival rate. `solution` has the match rates x (I, J) and
    abandonment (I,) = x_ia; `duals` has the price of a supplier of each type (I,), the dual of (1).
    """
    instance, form = MODEL.load(instance), FORMS[kind]
    n = instance.n_suppliers
    _check_magnitudes(instance)
    group = np.arange(n)
    if form.subsets:
        traits = np.column_stack([instance.departure_rates, instance.rewards])
        _, first, group = np.unique(traits, axis=0, return_index=True, return_inverse=True)
        group = np.argsort(np.argsort(first))[group.ravel()]  # groups in the order of their first members
    members = [np.flatnonzero(group == g).tolist() for g in range(group.max() + 1)]
    heads = [each[0] for each in members]
    merged = StationaryMatchingInstance(
        name=instance.name,
        supplier_rates=np.bincount(group, instance.supplier_rates).astype(np.float64),
        departure_rates=instance.departure_rates[heads],
        customer_rates=instance.customer_rates,
        rewards=instance.rewards[heads],
    )
    found = solve(merged, form, kind)
    x = found.x[group] * (instance.supplier_rates / merged.supplier_rates[group])[:, None]
    alpha = found.alpha[group]
    certificate = {
        "alpha": alpha.tolist(),
        "z": [[i, j, value] for g, j, value in found.z for i in members[g]],
        "beta": [[j, [i for g in subset for i in members[g]], value] for j, subset, value in found.beta],
    }
    return certify(
        kind,
        "upper",
        found.value,
        instance,
        PROVERS[kind],
        certificate,
        solution={"x": x, "abandonment": instance.supplier_rates - x.sum(1)},
        duals={"supplier": alpha, "pasta": certificate["z"], "subsets": certificate["beta"]},
    )


def _check_magnitudes(instance: StationaryMatchingInstance) -> None:
    """Refuse coefficients that no solver in floating point can tell apart."""
    ratio = float(instance.customer_rates.max() / instance.supplier_rates.min())
    if ratio > MAX_COEFFICIENT:
        raise InputError(
            f"customer_rates and supplier_rates differ by a factor of {ratio:.0e}, above {MAX_COEFFICIENT:.0e}: "
            "the linear programme is out of reach of floating point; drop or merge the rarest types."
        )


class _Solution(NamedTuple):
    """What the solver found: reward per unit of time, match rates (I, J), and multipliers in the units of (1)-(3)."""

    value: float
    x: NDArray[np.float64]
    alpha: NDArray[np.float64]  # (I,) of (1)
    z: list[list[Any]]  # [i, j, multiplier of (3)]
    beta: list[list[Any]]  # [j, H, multiplier of (2)]


def solve(instance: Rates, form: Form, kind: str) -> _Solution:
    """Solve a programme, adding rows of (2) while one is violated.

    Every master problem is a relaxation, so its value bounds the policies even before the last round. Its solution is scaled
    down until it satisfies all constraints; the best such solution is returned. Where unmatched customers join queues, those
    who are matched count in (1) of their queue, see `matchgym.bounds.general_matching`.
    """
    lam, gamma, offered, joins = arrivals(instance), instance.customer_rates, instance.offered, instance.joins
    n, m = instance.rewards.shape
    rows, columns = np.nonzero(instance.rewards)
    scale = np.minimum(1.0, offered)  # the variables are y_ij / scale_i, near 1, so that the solver's tolerances are relative
    cap = -np.expm1(-offered) if form.singletons else np.full(n, 1.0 if form.flow or form.subsets else np.inf)

    # State the first master problem.
    problem = pulp.LpProblem(kind.replace("-", "_"), pulp.LpMaximize)
    ceiling = [value if np.isfinite(value) else None for value in (cap / scale).tolist()]
    y = {(i, j): problem.add_variable(f"y_{i}_{j}", 0, ceiling[i]) for i, j in zip(rows.tolist(), columns.tolist())}
    leaving = [problem.add_variable(f"s_{i}", 0, 1) for i in range(n)]
    unit = float((gamma * instance.rewards).max()) or 1.0
    problem += pulp.LpAffineExpression([(y[i, j], gamma[j] * instance.rewards[i, j] * scale[i] / unit) for i, j in y])
    of_supplier, of_customer = defaultdict(list), defaultdict(list)
    for i, j in y:
        of_supplier[i].append(j)
        of_customer[j].append(i)
    conservation, pasta, total = [], {}, {}
    for i in range(n):
        leave = defaultdict(float, {leaving[i]: 1.0})
        for j in of_supplier[i]:
            leave[y[i, j]] += gamma[j] * scale[i] / lam[i]
        for j in () if joins is None else np.flatnonzero(joins == i).tolist():
            for u in of_customer[j]:
                leave[y[u, j]] += gamma[j] * scale[u] / lam[i]
        conservation.append(pulp.LpAffineExpression(list(leave.items())) == 1)
        problem.addConstraint(conservation[-1], f"conservation_{i}")
    if form.pasta:
        for i, j in y:
            pasta[i, j] = pulp.LpAffineExpression([(y[i, j], 1.0), (leaving[i], -offered[i] / scale[i])]) <= 0
            problem.addConstraint(pasta[i, j], f"pasta_{i}_{j}")
    if form.flow or form.subsets:
        limit = _presence(offered) if form.subsets else 1.0
        for j, present in of_customer.items():
            total[j] = pulp.LpAffineExpression([(y[i, j], scale[i] / limit) for i in present]) <= 1
            problem.addConstraint(total[j], f"total_{j}")

    # Solve, and cut.
    held = HeldProgramme(problem)
    y_columns = np.full((n, m), -1)
    y_columns[rows, columns] = held.indices(list(y.values()))
    weight = scale[rows]  # of each variable
    gain = stated = gamma * instance.rewards / unit  # (I, J) objective coefficients, the true and the stated ones
    cuts: dict[tuple[int, tuple[int, ...]], int] = {}
    feasible, best, proven = np.zeros((n, m)), -1.0, np.inf
    for turn in range(MAX_ROUNDS):
        shares = np.zeros((n, m))
        shares[rows, columns] = weight * held.values[y_columns[rows, columns]].clip(0)
        if not form.subsets:
            feasible = _leave_enough(shares, instance, form)
            break
        by_share = worst_prefixes(shares, offered)
        scaled = _leave_enough(shares / np.maximum(1.0, by_share.ratio), instance, form)
        value = float((gain * scaled).sum())
        if value > best:
            feasible, best = scaled, value
        price, waiting = _multipliers(held, conservation, pasta, lam, scale, m)
        paid = gamma * (price[:, None] + (0.0 if joins is None else price[joins])) + waiting
        by_worth, _ = greedy_prefixes(shares, offered, stated - paid)
        idle = np.maximum(0.0, waiting.sum(1) - instance.departure_rates * price)
        earned = greedy_prefixes(shares, offered, gain - paid)[1].sum()
        proven = min(proven, float(earned + lam @ price + idle @ offered))  # the bound of `prove_linear_programme`
        # The master must be tight, too: where worths tie, `proven` can owe its value to rows that the master lacks.
        allowed = (GAP if turn <= PERTURBED_ROUND else PERTURBED_GAP) * best
        if proven - best <= allowed and held.value - float((stated * scaled).sum()) <= allowed:
            break
        fresh = {}
        for j, subset in (*violated(by_share, BY_SHARE), *violated(by_worth, BY_WORTH)):
            key = (j, tuple(sorted(subset.tolist())))
            if key not in cuts and key not in fresh:
                present = subset[y_columns[subset, j] >= 0]
                fresh[key] = (y_columns[present, j], scale[present] / _presence(offered[subset]))
        if not fresh:
            break
        cuts |= zip(fresh, held.add_rows(list(fresh.values())))
        if turn == PERTURBED_ROUND:
            stated = gain * (1 - PERTURBATION * np.random.default_rng(0).uniform(size=gain.shape))
            held.set_objective(y_columns[rows, columns], weight * stated[rows, columns])
        held.solve_again()
    if turn > PERTURBED_ROUND:
        held.set_objective(y_columns[rows, columns], weight * gain[rows, columns])
        held.solve_again()
    if form.subsets and held.value - best > FAILED_GAP * best:
        raise RuntimeError(f"{kind} has a gap of {held.value - best:.0e} after {turn + 1} rounds on {instance.name!r}.")

    # Multipliers in the units of (1)-(4): reward per unit of x, and of y for (2) and (3).
    price, waiting = _multipliers(held, conservation, pasta, lam, scale, m)
    beta = [[j, list(range(n)), held.row_multipliers[row.index] / limit] for j, row in total.items()]
    beta += [
        [j, list(subset), held.row_multipliers[row] / _presence(offered[list(subset)])] for (j, subset), row in cuts.items()
    ]
    if form.singletons:
        beta += [[j, [i], held.column_multipliers[y_columns[i, j]] / scale[i]] for i, j in y]
    return _Solution(
        held.value * unit + 0.0,  # never -0.0
        feasible * gamma,
        price * unit,
        [[i, j, unit * float(waiting[i, j])] for i, j in np.argwhere(waiting).tolist()],
        [[j, subset, unit * float(value)] for j, subset, value in beta if value > 0],
    )


def _presence(offered: NDArray[np.float64]) -> float:
    """The probability that some supplier of a set of types is present if none is ever matched: the right-hand side of (2)."""
    return -float(np.expm1(-offered.sum()))


def arrivals(instance: Rates) -> NDArray[np.float64]:
    """lambda_i (I,): the rate at which the queues fill if nobody is matched."""
    joining = np.zeros(instance.n_suppliers)
    if instance.joins is not None:
        np.add.at(joining, instance.joins, instance.customer_rates)
    return instance.supplier_rates + joining


def _leave_enough(y: NDArray[np.float64], instance: Rates, form: Form) -> NDArray[np.float64]:
    """y (I, J) with the pairs of a type scaled down until (1) and (3) hold, which a solver meets to a tolerance only."""
    taken = y @ instance.customer_rates
    if instance.joins is not None:
        np.add.at(taken, instance.joins, y.sum(0) * instance.customer_rates)
    needed = taken / instance.departure_rates + (y.max(1) if form.pasta else 0.0)
    factor = instance.offered / np.maximum(needed, instance.offered)
    return y * (factor[:, None] if instance.joins is None else np.minimum(factor[:, None], factor[instance.joins]))


def _multipliers(
    held: HeldProgramme,
    conservation: list[Any],
    pasta: dict[tuple[int, int], Any],
    lam: NDArray[np.float64],
    scale: NDArray[np.float64],
    n_customers: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multipliers of (1) per supplier (I,) and of (3) per unit of y (I, J), in the unit of the programme's objective.

    None is negative: a supplier may leave unmatched, so its price is not, and what the solver's tolerance leaves is cut off.
    """
    price = np.array([held.row_multipliers[row.index] for row in conservation]) / lam
    waiting = np.zeros((len(lam), n_customers))
    if pasta:
        suppliers, customers = np.array(list(pasta)).T
        waiting[suppliers, customers] = held.row_multipliers[[row.index for row in pasta.values()]] / scale[suppliers]
    return np.maximum(price, 0.0), np.maximum(waiting, 0.0)


def prove_linear_programme(instance: Rates, certificate: dict[str, Any], form: Form) -> Proof:
    """The upper bound that multipliers prove, by weak duality in exact arithmetic.

    alpha_i (any sign) multiplies mu_i a_i + sum_j gamma_j y_ij = lambda_i with a_i = x_ia / mu_i, z_ij >= 0 multiplies
    y_ij <= a_i and beta_jH >= 0 multiplies y_j(H) <= 1 - exp(-rho(H)). What a column is still worth after that, if anything, is
    paid for at the largest value it can take: the price of floating-point multipliers. So

        sum_i lambda_i alpha_i + sum_jH beta_jH (1 - exp(-rho(H)))
            + sum_i (sum_j z_ij - mu_i alpha_i)^+ rho_i
            + sum_ij (gamma_j (r_ij - alpha_i) - z_ij - sum_{H with i} beta_jH)^+ max y_ij

    is an upper bound for every alpha, z, beta. Negative z and beta count as 0. A match of customers who would else join a queue
    pays that queue's alpha, too.
    """
    n, m = instance.rewards.shape
    lam = exact_rates(instance).arrivals
    mu = [Fraction(rate) for rate in instance.departure_rates.tolist()]
    gamma = [Fraction(rate) for rate in instance.customer_rates.tolist()]
    offered = [coarsen(arrival / departure) for arrival, departure in zip(lam, mu)]
    alpha = [exact(value) for value in certificate["alpha"]]
    if len(alpha) != n:
        raise CertificateError(f"a certificate has {len(alpha)} multipliers alpha where {n} are needed.")

    paid: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    z_sum = [Fraction(0)] * n
    for i, j, value in certificate["z"]:
        if not form.pasta:
            raise CertificateError("a certificate uses constraint (3), which this kind of bound does not have.")
        multiplier = max(exact(value), Fraction(0))
        paid[_index(i, n), _index(j, m)] += multiplier
        z_sum[i] += multiplier
    value = sum(arrival * price for arrival, price in zip(lam, alpha))
    for j, subset, weight in certificate["beta"]:
        members = {_index(i, n) for i in subset}
        multiplier = max(exact(weight), Fraction(0))
        if form.subsets or (form.singletons and len(members) == 1):
            right = 1 - exp_minus(sum((offered[i] for i in members), Fraction(0)))[0]
        elif form.flow:
            right = Fraction(1)
        else:
            raise CertificateError("a certificate uses constraint (2) for a set that this kind of bound does not have.")
        value += multiplier * right
        for i in members:
            paid[i, _index(j, m)] += multiplier

    value += sum(max(Fraction(0), z_sum[i] - mu[i] * alpha[i]) * offered[i] for i in range(n))
    joining = [Fraction(0)] * m if instance.joins is None else [alpha[i] for i in instance.joins.tolist()]
    for i in range(n):
        largest = [offered[i]] if form.pasta else [Fraction(1)]  # (3), or (2) for {i}
        if form.flow or form.subsets:
            largest.append(Fraction(1))
        for j, reward in enumerate(instance.rewards[i].tolist()):
            if reward > 0 or (i, j) in paid:
                left_over = gamma[j] * (Fraction(reward) - alpha[i] - joining[j]) - paid.get((i, j), Fraction(0))
            else:
                left_over = -gamma[j] * (alpha[i] + joining[j])
            if left_over > 0:
                value += left_over * min(largest)
    return Proof(upper=value)


def _index(number: Any, size: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < size:
        raise CertificateError(f"a certificate names type {number!r} where 0 to {size - 1} are meant.")
    return number


@dataclass(frozen=True)
class _FormProver:
    form: Form

    def __call__(self, instance: Any, certificate: dict[str, Any]) -> Proof:
        return prove_linear_programme(instance, certificate, self.form)


PROVERS: dict[str, Callable[[Any, dict[str, Any]], Proof]] = {kind: _FormProver(form) for kind, form in FORMS.items()}


def optimum(instance: Any) -> Bound:
    """OPT_on, the gain of the best policy, within a certified bracket [lower, upper] (Bellman equation).

    Policy iteration on queues cut off at caps gives a bias h; `solution` has it as h (one axis per supplier type), with
    `actions`, one axis for the customer type and one per supplier type (I = no match). Raises InputError if too large.
    """
    return solve_optimum(MODEL.load(instance))


def solve_optimum(instance: Any) -> Bound:
    """The `optimum` of an instance, of this model or of another with the same chain."""
    worth = arrivals(instance) * instance.rewards.max(1)
    scale = min(float(worth.sum()), float(instance.customer_rates @ instance.rewards.max(0)))
    box = make_box(instance, min(BRACKET * (scale or 1.0), BRACKET_LIMIT), worth, "optimum")
    found = policy_iteration(box)
    shape = tuple(cap + 1 for cap in box.caps)
    certificate = {"caps": list(box.caps), **on_grid(found.bias)}
    return certify(
        "optimum",
        "upper",
        found.gain + 0.0,
        instance,
        prove_optimum,
        certificate,
        solution={"h": found.bias.reshape(shape), "actions": found.actions.reshape(-1, *shape), "caps": box.caps},
        duals={},
    )


def prove_optimum(instance: Rates, certificate: dict[str, Any]) -> Proof:
    """The bracket around OPT_on that any function h on the box proves, see `matchgym.bounds.box_proof`."""
    rates = exact_rates(instance)
    bracket = gain_bracket(rates, exact_table(instance.rewards), certificate)
    return Proof(lower=bracket.low, upper=bracket.high + bracket.lost)
