"""Bounds for matching queues: the Dynamic and Network LPs of arXiv 2501.08775, and the exact optimum when small.

c(tau*) is the least cost per unit of time of a policy with throughput at least tau* = `throughput_target`; theta =
`throughput_price` (or its default) makes the objective J = theta tau - c. The kinds of bound are

    priced     an upper bound on J; exact for one queue and for small networks, by dynamic programming; else the DLPtilde
               below at the given theta, in which queues of very many waiting suppliers count as long
    optimum    c(tau*), exactly: dynamic programming on the joint queue lengths and a walk along the hull; small networks
    dlp        the same for one queue: DLP (1), (2), (4) without a limit on the queue (Lemma 2.1)
    nlp        NLP (8), (10) - (12): short queues jointly, long ones by their arrivals only (Lemma 3.1)
    dlp-tilde  one DLP per queue, coupled by (30), (31)                                              (Appendix 6.7)
    pooled     DLP of one queue that pools all suppliers, with the cheapest of their costs
    fluid      min sum c z, sum_j z_ij <= lambda_i, sum_i z_ij <= gamma_j, sum z >= tau*

All but `priced` bound c(tau*) from below, in cost per unit of time. fluid <= dlp-tilde <= optimum, nlp <= optimum up to its
caps, and pooled <= optimum. Certificates hold multipliers and functions of the queue lengths, see `queue_proof`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.bounds.bound import Bound, certify
from matchgym.bounds.box_proof import on_grid
from matchgym.bounds.chain import Market, box_of, make_box, match_law, poisson_equation
from matchgym.bounds.queue_blocks import Block, BlockPolicy, Mixture, Prices, make_block, mix
from matchgym.bounds.queue_proof import prove_cost, prove_pooled, prove_priced
from matchgym.envs.instance import InputError, is_count, shorten, unknown
from matchgym.envs.matching_queues import MatchingQueuesInstance, QueueNetwork, load, pooled_frontier
from matchgym.envs.single_queue import MAX_LENGTH, Segment, check_target, sufficient_cap, walk_hull

KINDS = ("priced", "dlp", "optimum", "nlp", "dlp-tilde", "pooled", "fluid")  # the first is the default
EXACT = "priced"  # the kind that is the best objective, exactly, where it has a lower value too; elsewhere called "optimum"
PROVERS = dict.fromkeys(KINDS, prove_cost) | {"priced": prove_priced, "pooled": prove_pooled}

COST_UNIT = "cost per unit of time"
TRUNCATION = 1e-8  # what cutting off the queues may cost, in units of the value
PRICED_STATES = 6_000  # joint states up to which `priced` is exact
REPORTED = 20_000  # numbers of a solution that are printed with a bound
SHORT_STATES = 2_000  # joint states of the short queues that the rule for `nlp` chooses
FEASIBLE = 1e-12  # margin left to the solver by a target at the largest throughput, relative
FIRST_STEP, LAST_STEP = 1e-2, 1.0  # relative steps away from a first guess at the price
LONG_QUEUE = 20_000  # states from which `priced` counts a queue as long


def bound(instance: Any, kind: str = KINDS[0], short: Sequence[int] | None = None, caps: Sequence[int] | None = None) -> Bound:
    """A bound of one of the `KINDS`; `instance` is anything `gym.make` takes, `short` and `caps` are for `nlp`."""
    if kind not in KINDS:
        raise unknown("kind of bound", kind, KINDS)
    functions = {
        "priced": priced,
        "dlp": dlp,
        "optimum": optimum,
        "nlp": nlp,
        "dlp-tilde": dlp_tilde,
        "pooled": pooled,
        "fluid": fluid,
    }
    if short is not None or caps is not None:
        if kind != "nlp":
            raise InputError(f"short and caps belong to the kind nlp, not to {kind}.")
        return nlp(instance, short, caps)
    return functions[kind](instance)


def priced(instance: Any) -> Bound:
    """An upper bound on J = theta tau - c; `lower` too where it is exact. `solution` has the `match_rates` (n, m)."""
    instance = load(instance)
    block = joint_block(instance)
    if block is not None:
        best = block.best(instance.rewards)
        prices = Prices(0.0, np.zeros(instance.n_customers), np.zeros(instance.n_suppliers))
        solution = {"caps": block.caps, "actions": best.actions}
        return _certified("priced", instance, best.gain + 0.0, best.match_rates, prices, [block], instance.rewards, solution)
    blocks = separate_blocks(instance)
    mixture = mix(instance, blocks, instance.rewards)
    return _certified("priced", instance, mixture.value + 0.0, mixture.match_rates, mixture.prices, blocks, instance.rewards)


def joint_block(instance: QueueNetwork) -> Block | None:
    """All queues in one block, cut off finely enough for the instance's rewards; None if that leaves too many states."""
    queues = range(instance.n_suppliers)
    if len(queues) == 1 and sufficient_cap(float(instance.offered[0])) <= LONG_QUEUE:
        return make_block(instance, queues, [sufficient_cap(float(instance.offered[0]))])
    try:
        return make_block(instance, queues, _caps(instance, queues, instance.rewards, "an exact `priced`", PRICED_STATES))
    except InputError:
        return None


def separate_blocks(instance: QueueNetwork) -> list[Block]:
    """One block per queue, without the queues that are too long for it."""
    caps = [sufficient_cap(float(offered)) for offered in instance.offered]
    return [make_block(instance, [i], [cap]) for i, cap in enumerate(caps) if cap <= LONG_QUEUE]


def dlp(instance: Any) -> Bound:
    """c(tau*) of one queue; see `optimum`. InputError for a network."""
    instance = load(instance)
    if instance.n_suppliers != 1:
        raise InputError(
            f"dlp is the programme of one queue, and instance {instance.name!r} has {instance.n_suppliers} supplier types: "
            "use optimum, nlp or dlp-tilde."
        )
    return _exact("dlp", instance)


def optimum(instance: Any) -> Bound:
    """c(tau*), within a certified bracket [lower, upper], by policy iteration on queues cut off at caps and a walk along the
    hull.

    `solution` has `policies`, the two deterministic policies between which the optimum lies, each with throughput, cost,
    law (S,) and actions (m, S), on the box `caps` in row-major order; `weight` of the second; and `match_rates` (n, m). `duals`
    has the price of throughput. Raises InputError for a network that is too large and for a target that cannot be attained.
    """
    return _exact("optimum", load(instance))


def _caps(
    instance: QueueNetwork,
    queues: Sequence[int],
    rewards: NDArray[np.float64],
    purpose: str,
    limit: int | None = None,
    share: float = 1.0,
) -> tuple[int, ...]:
    """Caps that cost at most share TRUNCATION at these rewards; InputError if they leave more than `limit` states."""
    chosen = list(queues)
    market = Market(
        instance.name,
        instance.supplier_rates[chosen],
        instance.departure_rates[chosen],
        instance.customer_rates,
        rewards[chosen],
    )
    worth = market.supplier_rates * rewards[chosen].max(1).clip(0)
    tail = share * TRUNCATION * min(1.0, float(worth.sum()) or 1.0)
    return make_box(market, tail, worth, purpose, limit).caps


def _exact(kind: str, instance: QueueNetwork) -> Bound:
    """The hull walk on all queues jointly."""
    queues = range(instance.n_suppliers)
    target = instance.throughput_target
    guess = dlp_tilde(instance).duals["throughput"] if len(queues) > 1 else 0.0
    ceiling = max(guess, pooled_frontier(instance).price, float(instance.costs.max()) or 1.0)
    for _ in range(4):
        caps = _caps(instance, queues, np.full(instance.costs.shape, ceiling), kind, share=0.1)
        block = make_block(instance, queues, caps)
        segment, most = _walk(block, instance.costs, target, guess)
        if segment.price <= 2 * ceiling:
            break
        ceiling = 2 * segment.price  # the price is known now: cut off the queues as finely as it asks for
    policies = [policy for policy in (segment.left, segment.right, most) if isinstance(policy, BlockPolicy)]
    rates = segment.weight * segment.right.match_rates
    if isinstance(segment.left, BlockPolicy):
        rates = rates + (1 - segment.weight) * segment.left.match_rates
    prices = Prices(segment.price, np.zeros(instance.n_customers), np.zeros(instance.n_suppliers))
    return _certified(
        kind, instance, segment.cost, rates, prices, [block], -instance.costs, target=target, primal=policies, segment=segment
    )


def _walk(block: Block, costs: NDArray[np.float64], target: float, guess: float = 0.0) -> tuple[Segment, BlockPolicy]:
    """The hull at the target, sought around a guess at the price, and a policy of largest throughput."""
    most = block.best(np.ones(costs.shape))
    target = check_target(target, most.throughput)
    left, right = (None, most) if guess <= 0 else _near(block, costs, target, guess, most)
    return walk_hull(lambda price: block.best(price - costs), right, target, left), most


def _near(
    block: Block, costs: NDArray[np.float64], target: float, price: float, most: BlockPolicy
) -> tuple[BlockPolicy | None, BlockPolicy]:
    """Policies on the hull on both sides of the target, sought around a price that is about right."""
    left, right, step = None, most, FIRST_STEP
    found = block.best(price - costs)
    is_rising = found.throughput < target
    while step < LAST_STEP:
        if found.throughput < target:
            left = found
        else:
            right = found
        if (found.throughput < target) != is_rising:
            break
        price *= 1 + step if is_rising else 1 / (1 + step)
        found = block.best(price - costs)
        step *= 4
    return left, right


def nlp(instance: Any, short: Sequence[int] | None = None, caps: Sequence[int] | None = None) -> Bound:
    """NLP(caps; tau*): the queues `short` jointly, cut off at `caps` (in the same order), the others long.

    By default the queues with the fewest waiting suppliers are short, as many as leave at most SHORT_STATES joint states,
    with caps that cost nothing visible. `value` is that of the programme; what is certified is a bound on c(tau*) without
    caps, below it by theta eta(caps) at most.

    `solution` has `match_rates` (n, m), `short`, `caps`, the law p (S,) of the short queues in row-major order, the law
    q (m, S, |short| + 1) of the short queue that an arriving customer takes, none being last, and the probability y (n, m)
    that a customer of type j is matched to the long queue i. There may be several optima with the same match rates, and
    Priority Rounding follows this one; JSON records hold y, and p and q if q has no more than REPORTED numbers.
    """
    instance = load(instance)
    short, caps = short_queues(instance, short, caps)
    blocks = [make_block(instance, short, caps)] if short else []
    mixture = _at_target(instance, blocks)
    solution = programme_solution(instance, short, caps, mixture)
    found = _certified("nlp", instance, -mixture.value, mixture.match_rates, mixture.prices, blocks, -instance.costs, solution)
    found.report.update(short=list(short), caps=list(caps), y=solution["y"].tolist())
    if solution["q"].size <= REPORTED:
        found.report.update(p=solution["p"].tolist(), q=solution["q"].tolist())
    return found


def programme_solution(
    instance: QueueNetwork, short: Sequence[int], caps: Sequence[int], mixture: Mixture
) -> dict[str, Any]:  # fmt: skip
    """What Priority Rounding reads off a solution of the programme with one block of the queues `short`; see `nlp`."""
    y = mixture.match_rates / instance.customer_rates
    y[list(short)] = 0.0
    solution: dict[str, Any] = {"short": tuple(short), "caps": tuple(caps), "y": y, "match_rates": mixture.match_rates}
    if short:
        solution["p"], solution["q"] = _lift(mixture.policies[0], len(short))
    else:
        solution["p"], solution["q"] = np.ones(1), np.ones((instance.n_customers, 1, 1))
    return solution


def short_queues(
    instance: QueueNetwork, short: Sequence[int] | None, caps: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The short queues and their caps, as given or by the rule."""
    n = instance.n_suppliers
    if short is None:
        if caps is not None:
            raise InputError("caps are given without short; name the short queues they belong to.")
        fewest_first = np.argsort(instance.offered, kind="stable").tolist()
        # A queue longer than that is long in any case.
        lengths = [_short_cap(instance, i) if instance.offered[i] < SHORT_STATES else SHORT_STATES for i in fewest_first]
        sizes = np.cumprod([float(cap + 1) for cap in lengths])
        count = int((sizes <= SHORT_STATES).sum())
        chosen = sorted(range(count), key=lambda k: fewest_first[k])
        return tuple(fewest_first[k] for k in chosen), tuple(lengths[k] for k in chosen)
    if not all(is_count(i) and i < n for i in short) or len(set(short)) != len(short):
        raise InputError(f"short must name different queues from 0 to {n - 1}, not {shorten(list(short))}.")
    if caps is None:
        return tuple(short), tuple(_short_cap(instance, i) for i in short)
    if len(caps) != len(short) or not all(is_count(cap, 1) for cap in caps):
        raise InputError(f"caps must be {len(short)} integers >= 1, one for each queue of short, not {shorten(list(caps))}.")
    if max(caps, default=0) > MAX_LENGTH:
        raise InputError(f"caps must be at most {MAX_LENGTH}, not {max(caps)}.")
    return tuple(short), tuple(caps)


def _short_cap(instance: QueueNetwork, i: int) -> int:
    return _caps(instance, [i], np.full(instance.costs.shape, float(instance.costs.max()) or 1.0), "nlp")[0]


def _lift(policies: list[tuple[float, BlockPolicy]], n_short: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p (S,) and q (m, S, |short| + 1) of a mixture: in each state the policies count by their share of its mass.

    States of no mass follow the heaviest policy, which in steady state makes no difference.
    """
    masses = np.array([weight * policy.law for weight, policy in policies])
    p = masses.sum(0)
    shares = np.where(p > 0, masses / np.where(p > 0, p, 1.0), np.eye(len(masses))[0][:, None])
    chosen = np.array([policy.actions[..., None] == np.arange(n_short + 1) for _, policy in policies])
    return p / p.sum(), np.einsum("ks,kjsa->jsa", shares, chosen.astype(float))


def dlp_tilde(instance: Any) -> Bound:
    """DLPtilde: one DLP per queue, coupled by the target (30) and the customers (31); a lower bound on c(tau*)."""
    instance = load(instance)
    blocks = [make_block(instance, [i], [sufficient_cap(offered)]) for i, offered in enumerate(instance.offered)]
    mixture = _at_target(instance, blocks)
    return _certified("dlp-tilde", instance, -mixture.value, mixture.match_rates, mixture.prices, blocks, -instance.costs)


def fluid(instance: Any) -> Bound:
    """The fluid LP; a lower bound on c(tau*) that ignores abandonment."""
    instance = load(instance)
    mixture = _at_target(instance, [])
    return _certified("fluid", instance, -mixture.value, mixture.match_rates, mixture.prices, [], -instance.costs)


def _at_target(instance: QueueNetwork, blocks: Sequence[Block]) -> Mixture:
    """The programme of some blocks at the target, by two phases: the largest throughput, then the least cost."""
    pooled_frontier(instance)  # refuses a target that no policy attains
    target = instance.throughput_target
    most = mix(instance, blocks, np.ones(instance.costs.shape))
    target = min(check_target(target, most.value), most.value * (1 - FEASIBLE))
    return mix(instance, blocks, -instance.costs, target, most.found)


def pooled(instance: Any) -> Bound:
    """DLP of the pooled queue (`matchgym.envs.matching_queues.pooled_frontier`); its dual is the default throughput price."""
    instance = load(instance)
    segment = pooled_frontier(instance)
    offered = float(instance.supplier_rates.sum() / instance.departure_rates.min())
    one = MatchingQueuesInstance(
        name=instance.name,
        supplier_rates=instance.supplier_rates.sum(keepdims=True),
        abandonment_rate=float(instance.departure_rates.min()),
        customer_rates=instance.customer_rates,
        costs=instance.costs.min(0, keepdims=True),
        throughput_target=instance.throughput_target,
        throughput_price=segment.price,
    )
    block = make_block(one, [0], [sufficient_cap(offered)])
    certificate = _multipliers(Prices(segment.price, np.zeros(one.n_customers), np.zeros(1)), [block], one.rewards)
    return certify(
        "pooled",
        "lower",
        segment.cost,
        instance,
        PROVERS["pooled"],
        certificate,
        solution={},
        duals={"throughput": segment.price},
        unit=COST_UNIT,
        report={"throughput_price": segment.price},
    )


def _multipliers(prices: Prices, blocks: Sequence[Block], reduced: NDArray[np.float64]) -> dict[str, Any]:
    """The dual part of a certificate; `reduced` are the rewards r_ij + theta - beta_j."""
    boxes = [{"queues": list(block.queues), "caps": list(block.caps), **on_grid(block.best(reduced).bias)} for block in blocks]
    return {
        "theta": prices.throughput,
        "beta": prices.customers.tolist(),
        "u": prices.suppliers.tolist(),
        "blocks": boxes,
    }


def _certified(
    kind: str,
    instance: QueueNetwork,
    value: float,
    rates: NDArray[np.float64],
    prices: Prices,
    blocks: Sequence[Block],
    rewards: NDArray[np.float64],
    solution: dict[str, Any] | None = None,
    target: float | None = None,
    primal: Sequence[BlockPolicy] = (),
    segment: Segment | None = None,
) -> Bound:
    """The bound that multipliers prove, together with policies that prove the other side, if there are any."""
    certificate = _multipliers(prices, blocks, rewards + prices.throughput - prices.customers)
    if segment is not None:
        certificate["policies"] = [_policy_certificate(instance, blocks[0], policy) for policy in primal]
        ends = [policy for policy in (segment.left, segment.right) if isinstance(policy, BlockPolicy)]
        solution = {"caps": blocks[0].caps, "policies": ends, "weight": segment.weight}
    price = instance.price if kind == "priced" else prices.throughput
    return certify(
        kind,
        "upper" if kind == "priced" else "lower",
        value,
        instance,
        PROVERS[kind],
        certificate,
        solution={**(solution or {}), "match_rates": rates},
        duals={"throughput": price, "customers": prices.customers, "suppliers": prices.suppliers},
        unit="reward per unit of time" if kind == "priced" else COST_UNIT,
        report={
            "throughput_target": instance.throughput_target,
            "throughput_price": price,
            "throughput": float(rates.sum()),
            "cost_rate": float((instance.costs * rates).sum()),
            "match_rates": rates.tolist(),
        },
    )


def _policy_certificate(instance: QueueNetwork, block: Block, policy: BlockPolicy) -> dict[str, Any]:
    """Functions that enclose the throughput and the cost of a policy."""
    market = Market(
        instance.name, instance.supplier_rates, instance.departure_rates, instance.customer_rates, np.ones(instance.costs.shape)
    )
    box, match = box_of(market, block.caps), None
    match = match_law(box, policy.actions)
    generator = box.generator(match)
    throughput = poisson_equation(generator, box.reward_rate(match))[1]
    costs = np.einsum("ji,jis->s", instance.customer_rates[:, None] * instance.costs.T, match)
    cost = poisson_equation(generator, costs)[1]
    return {"actions": policy.actions.tolist(), "throughput": on_grid(throughput), "cost": on_grid(cost)}
