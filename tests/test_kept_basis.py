"""Relaxations from a kept basis: the same optimum as from nothing, and as HiGHS's; what is not proved is said not to be."""

import numpy as np
import pytest
from cases_freelance import CLASSES, random_market
from scipy.optimize import linprog

from matchgym.baselines.freelance_market import POLICIES
from matchgym.envs.catalogues.freelance_market import crowd
from matchgym.envs.freelance_blocks import blocks_of
from matchgym.envs.freelance_market import MODEL, FreelanceMarketEnv
from matchgym.envs.freelance_requests import columns_of
from matchgym.envs.kept_basis import resume
from matchgym.envs.packing import relax, room


class Kept:
    """A programme's matrix and the basis that is kept for it."""

    def __init__(self, rows):
        self.rows = np.ascontiguousarray(rows, float)
        m, n = rows.shape
        self.columns = columns_of(self.rows)
        self.basis, self.upper, self.inverse = np.zeros(m, np.int64), np.zeros(n, np.int64), np.zeros((m, m))
        self.scratch, self.x, self.is_kept = room(n, m), np.zeros(n), False

    def resume(self, b, w, u):
        """The value, proved."""
        value, self.is_kept = resume(
            *self.columns, b, w, u, self.x, self.basis, self.upper, self.inverse, self.is_kept, *self.scratch
        )
        assert self.is_kept
        return value

    def anew(self, b, w, u):
        """The same by the tableau, from x = 0."""
        return relax(self.rows, b, w, np.zeros(len(w)), u, np.zeros(len(w)), *room(len(w), len(b)))


def check(kept, b, w, u, by_highs):
    value = kept.resume(b, w, u)
    assert value == pytest.approx(kept.anew(b, w, u), rel=1e-9, abs=1e-9)
    assert (kept.x >= 0).all()
    assert (kept.x <= u).all()
    assert (kept.rows @ kept.x <= b * (1 + 1e-9) + 1e-9).all()
    if by_highs:
        exact = linprog(-w, kept.rows, b, bounds=np.column_stack([np.zeros(len(u)), u]))
        assert value == pytest.approx(-exact.fun, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_random_programmes_in_a_row(seed):
    """40 programmes with one matrix, of small integers, so that ties and degenerate bases abound; some without upper bounds."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(1, 9)), int(rng.integers(1, 25))
    rows = rng.integers(0, 4, (m, n)) * (rng.uniform(size=(m, n)) < 0.5)
    rows[rng.integers(m, size=n), np.arange(n)] += 1
    kept, has_caps = Kept(rows * (1.0 if seed % 2 else rng.uniform(0.3, 3))), seed % 3
    for k in range(40):
        b = rng.integers(0, 30, m).astype(float) if seed % 5 else rng.uniform(0, 30, m)
        w = rng.integers(0, 6, n).astype(float)
        u = rng.integers(0, 8, n).astype(float) if has_caps else np.full(n, np.inf)
        check(kept, b, w, np.where(w > 0, u, 0.0), k % 8 == 0)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("capped", [True, False])
def test_states_of_a_market_in_a_row(kind, capped):
    """Hours and queues of random epochs of every class."""
    market = random_market(1300, kind, n=12, categories=3, skills=4, law="poisson")
    rng = np.random.default_rng(0)
    programmes = [(block, Kept(block.rows)) for block in blocks_of(market, is_shared=capped)]
    for k in range(25):
        hours = rng.poisson(12, (3, 4)).astype(float)
        waiting = rng.integers(0, 6, (market.n_types, market.n_skills)).astype(float)
        for block, kept in programmes:
            b, w = block.limits(hours), waiting[block.types, block.skills]
            b = np.where(block.row_queue >= 0, waiting[np.maximum(block.row_queue, 0), block.skills[0]], b)
            check(kept, b, w, w if capped else np.where(w > 0, np.inf, 0.0), k % 8 == 0)


@pytest.mark.parametrize("load", [0.9, 1.2])
def test_a_policy_keeps_its_basis(load):
    """In a run of `maxweight-lp` every programme is proved from a basis, and is worth what a policy without a past gets.

    Rows do not see each other, and an episode forgets.
    """
    market = MODEL.load(crowd(48, 48, load=load))
    policy = POLICIES["maxweight-lp"]().fit(market)
    env = FreelanceMarketEnv(market)
    obs, _ = env.reset(seed=3)
    memory = policy.start(2, 0)
    needs = market.needs.sum(1)
    for k in range(60):
        pair = np.array([obs, obs * (k % 2)])  # another past
        actions, memory = policy.predict(pair, memory)
        alone, _ = policy.predict(obs[None], policy.start(1, 0))
        parts = {name: obs[part].astype(float) for name, part in env.observation_layout.items()}
        waiting = parts["queue"] + parts["arrivals"]
        weight = needs * waiting
        assert (actions[0] <= waiting).all()
        assert abs(weight @ actions[0] - weight @ alone[0]) <= weight.max() * len(market.job_hours[0])
        again, _ = policy.predict(pair, memory, np.array([True, True]))
        assert (again[0] == alone[0]).all()
        obs, *_, info = env.step(actions[0])
        assert info["cut"] == 0


def test_what_is_not_proved_is_said():
    """A basis that is none, or an inverse that is not: the value is not claimed."""
    kept = Kept(np.array([[1.0, 2.0], [2.0, 1.0]]))
    b, w, u = np.array([4.0, 4.0]), np.array([3.0, 2.0]), np.array([9.0, 9.0])
    assert kept.resume(b, w, u) == pytest.approx(20 / 3)
    kept.inverse *= 1.5
    found = resume(*kept.columns, b, w, u, kept.x, kept.basis, kept.upper, kept.inverse, True, *kept.scratch)
    assert not found[1]
