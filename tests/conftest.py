"""Every registered id as a fixture."""

import pytest

import matchgym  # noqa: F401  (registers the ids)
from matchgym.envs.registry import ENTRIES


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.id)
def entry(request):
    return request.param
