"""Freelance markets from outside: bounds of unseen instances against programmes written anew, slopes of the backlog by load."""

import json

import numpy as np
import pytest
from cases_freelance import CLASSES, capacity_by_enumeration, random_market
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from matchgym.baselines import evaluate
from matchgym.baselines.freelance_market import POLICIES, maxweight
from matchgym.baselines.freelance_market_experiments import EXPERIMENTS
from matchgym.cli import main
from matchgym.envs.catalogues.freelance_market import crowd
from matchgym.envs.freelance_market import MODEL

ID = "FreelanceMarket-v0"


def run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--json"])
    out = capsys.readouterr()
    assert not caught.value.code, out.err
    return json.loads(out.out)


def outer(market, is_load):
    """`load` or `throughput` of Section 4 as one dense programme in (t or x, hours or jobs by category), by scipy."""
    lam, hours, may = market.arrival_means, market.job_hours, market.allowed
    n, skills, size = len(lam), hours.shape[1], may.shape[1]
    head = 1 if is_load else n
    edges = [(j, c, s) for j in range(n) for c in range(size) if may[j, c] for s in (range(skills) if market.flexible else [0])]
    width = head + len(edges)
    served, limits = [], []
    for j in range(n):
        for s in range(skills) if market.flexible else [0]:
            row = np.zeros(width)
            row[0 if is_load else j] = -(lam[j] if is_load else 1.0) * (hours[j, s] if market.flexible else 1.0)
            row[head:] = [edge[0] == j and edge[2] == s for edge in edges]
            served.append(row)
    for c in range(size):
        for s in range(skills):
            row = np.zeros(width)
            for k, (j, where, which) in enumerate(edges):
                if where == c and (which == s or not market.flexible):
                    row[head + k] = 1.0 if market.flexible else hours[j, s]
            limits.append(row)
    goal = np.zeros(width)
    goal[:head] = -1
    caps = [(0, None)] if is_load else [(0, each) for each in lam]
    found = linprog(
        goal,
        np.array(limits),
        market.mean_hours.ravel(),
        np.array(served),
        np.zeros(len(served)),
        caps + [(0, None)] * len(edges),
    )
    assert found.status == 0
    return -found.fun


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(6))
def test_bounds_of_unseen_instances(seed, kind, capsys, tmp_path):
    market = random_market(900 + seed, kind, n=2 if seed < 3 else 4, categories=1 + seed % 3, skills=2, whole=seed % 2 == 0)
    path = tmp_path / "unseen.json"
    path.write_text(market.to_json())
    alpha = outer(market, is_load=True)
    expected = {"load": alpha, "decline": 1 - min(1, alpha), "throughput": outer(market, is_load=False)}
    if seed < 3 and seed % 2 == 0:
        expected["capacity"] = capacity_by_enumeration(market)
    for name, value in expected.items():
        record = run(capsys, "bound", ID, "--instance", str(path), "--kind", name)
        assert set(record) >= {"id", "instance", "sha256", "kind", "sense", "value", "certified_value", "seconds"}
        assert record["value"] == pytest.approx(value, rel=1e-7, abs=1e-7)
        assert record["certified_value"] == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert run(capsys, "stability", ID, "--instance", str(path))["load"] == pytest.approx(alpha, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "categories"),
    [
        ("maxweight-ilp", "FND", 1), ("maxweight-lp", "FND", 1), ("greedy-job", "FND", 1), ("maxweight-ilp", "FD", 1),
        ("greedy-job", "FND", 2), ("jltt-maxweight", "IND", 2), ("jltt-greedy-job", "IND", 2), ("jltt-maxweight", "ID", 2),
    ],
)  # fmt: skip
def test_slopes_of_the_backlog_by_load(name, kind, categories):
    """At 0.8 and 0.95 of the outer region the backlog does not grow, at 1.05 it grows at least as hours are short."""
    slopes = []
    for load in (0.8, 0.95, 1.05):
        market = MODEL.load(crowd(24, 24, categories, kind, load))
        found = evaluate(POLICIES[name]().fit(market), ID, replications=6, warmup=300, decisions=600)
        slopes.append(found.trends["backlog_slope"])
    assert abs(slopes[0].mean) < 0.01
    assert abs(slopes[1].mean) < 0.1
    demand, supply = market.arrival_means @ market.job_hours, market.mean_hours.sum(0)
    assert slopes[2].low > 0
    assert slopes[2].high > ((demand - supply) / market.job_hours.max(0)).max()


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(4))
def test_maxweight_is_that_of_a_mixed_integer_programme(seed, kind):
    """Markets too large to enumerate, with the split z among categories written out, real in flexible classes."""
    market = random_market(950 + seed, kind, n=6, categories=3, skills=3, law="poisson")
    rng = np.random.default_rng(seed)
    n, skills, size, needs = 6, 3, 3, market.needs
    queue = rng.integers(0, 9, (n, skills)) * needs if market.decomposable else rng.integers(0, 9, n)
    agents = [rng.integers(0, 9, len(each)).tolist() for each in market.availability_means]
    hours = np.array([np.array(count) @ brought for count, brought in zip(agents, market.agent_hours)])
    weights = queue if market.decomposable else (queue[:, None] * needs)
    delta = np.eye(n * skills).reshape(n, skills, -1)  # Delta_js as rows over the variables (Delta, z)
    pad = np.zeros((n * skills, size * n * skills))
    z = np.eye(size * n * skills).reshape(size, n, skills, -1)
    rows, low, high = [], [], []

    def constrain(row, least, most):
        rows.append(row)
        low.append(least)
        high.append(most)

    for j in range(n):
        for s in range(skills):
            constrain(np.r_[-delta[j, s], z[:, j, s].sum(0)], 0, 0)
        if not market.decomposable:
            first = int(needs[j].argmax())
            for s in np.flatnonzero(needs[j]):
                constrain(np.r_[delta[j, s] - delta[j, first], pad[0]], 0, 0)
                if not market.flexible:
                    for c in range(size):
                        constrain(np.r_[0 * delta[j, s], z[c, j, s] - z[c, j, first]], 0, 0)
    for c in range(size):
        for s in range(skills):
            constrain(np.r_[0 * delta[0, 0], market.job_hours[:, s] @ z[c, :, s]], 0, hours[c, s])
    most = np.r_[np.where(needs, 1e4, 0).ravel(), (np.where(needs, 1e4, 0)[None] * market.allowed.T[:, :, None]).ravel()]
    whole = np.r_[np.ones(n * skills), np.full(size * n * skills, 0 if market.flexible else 1)]
    goal = -np.r_[weights.ravel(), pad[0]].astype(float)
    exact = milp(
        goal, constraints=LinearConstraint(np.array(rows), low, high), bounds=Bounds(0, most), integrality=whole,
        options={"mip_rel_gap": 0},
    )  # fmt: skip
    assert exact.status == 0
    assert maxweight(market, queue.tolist(), [0] * n, agents).objective == round(-exact.fun)


def test_experiments_are_listed_and_their_claims_hold():
    assert {"stability", "prop12", "empty-capacity", "crowd", "admission", "section1"} == {
        name.removeprefix("freelance-") for name in EXPERIMENTS
    }
    for name in ("section1", "empty-capacity"):
        data = EXPERIMENTS[f"freelance-{name}"].run(lambda share: None, 20, 0)
        json.dumps(data)
        assert all(each["holds"] for each in data["claims"]), data["claims"]


def test_keys_of_an_evaluation(capsys):
    record = run(
        capsys, "evaluate", ID, "--policy", "greedy-job", "--replications", "3", "--warmup", "20", "--decisions", "50"
    )  # fmt: skip
    assert set(record) >= {"id", "policy", "instance", "objective", "bound", "score", "ratio", "seconds", "backlog_slope"}
    assert set(record["objective"]) >= {"mean", "low", "high", "replications"}
    assert set(record["backlog_slope"]) >= {"mean", "low", "high"}


def test_mean_backlog_of_one_type_is_lindleys():
    """Q <- (Q + A - 5)^+ with Poisson(4) arrivals: the stationary mean of the chain, for policies that waste nothing."""
    levels = 200
    law = np.exp(-4 + np.arange(levels) * np.log(4) - np.cumsum(np.log(np.maximum(np.arange(levels), 1))))
    chain = np.zeros((levels, levels))
    for q in range(levels):
        for a, p in enumerate(law):
            chain[q, min(max(q + a - 5, 0), levels - 1)] += p
    stationary = np.linalg.lstsq(np.vstack([chain.T - np.eye(levels), np.ones(levels)]), np.eye(levels + 1)[levels])[0]
    exact = stationary @ np.arange(levels)
    market = {
        "model": "freelance_market", "name": "lindley", "arrival_means": [4], "job_hours": [[2, 1]],
        "availability_means": [[5]], "agent_hours": [[[2, 1]]], "availability_law": "deterministic",
    }  # fmt: skip
    for name in ("maxweight-ilp", "greedy-job", "maxweight-lp"):
        found = evaluate(POLICIES[name]().fit(market), ID, replications=40, warmup=200, decisions=4000)
        backlog = found.rates["backlog"]
        assert abs(backlog.mean - exact) < 2.5 * (backlog.high - backlog.mean)  # five standard errors
        assert backlog.high - backlog.mean < 0.05 * exact


def test_programmes_that_are_not_solved_are_counted():
    """Categories that share queues are hard: a search cut short is told, one that is long enough is silent."""
    market = crowd(12, 12, 3, "IND", 1.1)
    with pytest.warns(UserWarning, match="not proved the best within nodes=3"):
        evaluate(POLICIES["maxweight-ilp"](nodes=3).fit(market), ID, replications=2, warmup=0, decisions=30)
