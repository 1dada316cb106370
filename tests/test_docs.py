"""The documentation is current, and what README shows runs."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

from matchgym.baselines.stationary_matching import CorrelatedProposals, exact_value

ROOT = Path(__file__).parent.parent


def generator():
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs/make_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_current():
    for path, text in generator().pages().items():
        assert path.read_text() == text, f"run `python docs/make_pages.py`: {path.name} is out of date"


def test_readme_example_runs():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    bound, interval = out.getvalue().splitlines()
    assert bound.startswith("4.7142")
    mean, low, high = (float(number) for number in re.findall(r"=([\d.]+)", interval))
    exact = exact_value(CorrelatedProposals().fit("demo")).mean
    assert abs(exact - mean) < high - low  # twice the half-width of 95 %: once in 3,400 choices of seeds it fails by chance


def test_readme_states_the_score_of_the_optimum():
    from matchgym.baselines.exact import exact_value
    from matchgym.baselines.scoring import score_exactly
    from matchgym.baselines.stationary_matching import Optimal
    from matchgym.envs.registry import find

    policy = Optimal().fit("demo")
    score = score_exactly(find("StationaryMatching-v0"), policy).score
    assert f"scores {score:.3f}" in (ROOT / "README.md").read_text()
    assert exact_value(policy).mean == pytest.approx(4.161918312, rel=1e-8)


def test_commands_in_readme_exist():
    from matchgym.cli.commands import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    named = set(re.findall(r"^matchgym (\w+)", (ROOT / "README.md").read_text(), re.M))
    assert named
    assert named <= known
