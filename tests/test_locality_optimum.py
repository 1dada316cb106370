"""The optimum of few servers: against plain value iteration, the theorem of Winston, every rule, and certificates gone bad."""

import copy

import numpy as np
import pytest

from matchgym.baselines.data_locality import POLICIES, exact_value
from matchgym.bounds.data_locality import bound
from matchgym.bounds.rational import CertificateError
from matchgym.envs.data_locality import MODEL
from matchgym.envs.instance import InputError


def system(arrival_rate, server_fractions=(1.0,), service_rates=(1.0,), n_servers=2, **fields):
    """A complete graph unless the fields say otherwise."""
    return MODEL.load(
        {
            "name": "few-servers",
            "model": "data_locality",
            "arrival_rate": arrival_rate,
            "dispatchers_per_server": 1.0,
            "dispatcher_fractions": [1.0],
            "server_fractions": list(server_fractions),
            "service_rates": list(service_rates),
            "compatibility": [[1.0] * len(service_rates)],
            "n_servers": n_servers,
        }
        | fields
    )


def by_value_iteration(arrivals: float, rates: list[float], size: int = 60, tolerance: float = 1e-10) -> float:
    """Least mean tasks of two servers, tasks being lost where the box ends: uniformisation and brute force."""
    x, y = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    total = arrivals + sum(rates)
    h = np.zeros((size, size))
    while True:
        right = np.vstack([h[1:], np.full((1, size), np.inf)])
        up = np.hstack([h[:, 1:], np.full((size, 1), np.inf)])
        more = np.where(np.isinf(np.minimum(right, up)), h, np.minimum(right, up))
        left, down = np.vstack([h[:1], h[:-1]]), np.hstack([h[:, :1], h[:, :-1]])
        new = (x + y + arrivals * more + rates[0] * left + rates[1] * down) / total
        change = (new - h) * total
        h = new - new[0, 0]
        if np.ptp(change) < tolerance:
            return float(change.mean())


@pytest.mark.parametrize(("arrival_rate", "rates"), [(0.5, (1.0, 1.0)), (0.7, (1.0, 2.0)), (0.9, (0.3, 3.0))])
def test_two_servers_agree_with_value_iteration(arrival_rate, rates):
    found = bound(system(arrival_rate, (0.5, 0.5), rates), "optimum")
    truth = -by_value_iteration(2 * arrival_rate, list(rates)) / 2
    assert found.lower - 1e-8 <= truth <= found.upper + 1e-8
    assert found.upper - found.lower <= 1e-6
    found.verify()


@pytest.mark.parametrize("n_servers", [2, 3, 4])
def test_the_shortest_queue_is_optimal_among_equal_servers(n_servers):
    """W. Winston, Journal of Applied Probability 14 (1977)."""
    instance = system(0.4, n_servers=n_servers)
    found, value = bound(instance, "optimum"), exact_value(POLICIES["jsq"]().fit(instance))
    assert found.lower - value.error <= value.mean <= found.upper + value.error
    assert found.upper - found.lower <= 1e-7


def test_no_rule_beats_the_optimum_on_a_ring_and_edges_only_help():
    """Three servers of two speeds, two for each dispatcher."""
    ring = MODEL.load("small")
    found = bound(ring, "optimum")
    for name in ("jsq", "sed", "jsq-d", "sed-d", "random", "jiq"):
        value = exact_value(POLICIES[name]().fit(ring))
        assert value.mean <= found.upper + value.error
    for kind in ("birth-death", "fluid-graph"):
        assert found.upper <= bound(ring, kind).upper
    complete = bound(
        ring.to_dict() | {"graph": "complete", "compatibility": np.ones(ring.compatibility.shape).tolist()}, "optimum"
    )
    assert complete.upper > found.upper


def test_an_altered_certificate_proves_a_wider_bracket_or_nothing():
    found = bound(system(0.5, (0.5, 0.5), (1.0, 2.0)), "optimum")
    rng = np.random.default_rng(0)
    for part in ("below", "above"):
        for _ in range(20):
            certificate = copy.deepcopy(found.certificate)
            h = certificate[part]["h"]
            place = int(rng.integers(len(h)))
            h[place] += int(rng.integers(-(2**60), 2**60))
            try:
                proof = found.prove(found.instance, certificate)
            except CertificateError:
                continue  # a function above its continuation
            assert float(proof.lower) <= found.lower
            assert float(proof.upper) >= found.upper
    for change in (
        {"most": 0},
        {"most": 10**6},
        {"constant": float("nan")},
        {"constant": -1e9},
        {"split": [[1.0, 0.0]]},
        {"split": []},
        {"below": {"bits": 3, "h": [0, 1]}},
        {"above": {"bits": -1, "h": found.certificate["above"]["h"]}},
    ):
        with pytest.raises(CertificateError):
            found.prove(found.instance, found.certificate | change)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"arrival_rate": 0.5, "n_servers": 100}, "above 60000"),
        ({"arrival_rate": 1.0}, "no policy is stable"),
        ({"arrival_rate": 0.999}, "above 60000"),
        ({"arrival_rate": 1.2, "server_fractions": [0.5, 0.5], "service_rates": [1.0, 2.0], "compatibility": [[1.0, 0.0]],
          "graph": "regular-contiguous"}, "cannot keep up"),
    ],
)  # fmt: skip
def test_what_has_no_optimum_is_refused_in_one_sentence(fields, said):
    with pytest.raises(InputError, match=said):
        bound(system(**fields), "optimum")
