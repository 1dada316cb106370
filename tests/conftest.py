"""Every registered id as a fixture, and every kind of action."""

import pytest

import matchgym  # noqa: F401  (registers the ids)
from matchgym.envs.registry import ENTRIES

VARIANTS = [
    (entry, {} if action is None else {"action": action})
    for entry in ENTRIES
    for action in entry.model.options.get("action", (None,))
]


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.id)
def entry(request):
    return request.param


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([variant[0].id, *variant[1].values()]))
def variant(request):
    """Every id with every kind of action it has: (entry, options)."""
    return request.param
