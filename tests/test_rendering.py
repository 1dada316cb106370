"""Pictures and texts: constant shapes, legible at every size, and no trace left in the environment."""

from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import matchgym  # noqa: F401
from matchgym.envs import rendering
from matchgym.envs.rendering import BLUE, CARD, INK, Canvas
from matchgym.envs.stationary_matching_view import scene

ID = "StationaryMatching-v0"
INSTANCES = ["toy", "demo", "random-10x10", "random-40x40", "random-200x200", "organ-abo", "ride-hailing-5x5"]
WHITE = (255, 255, 255)


def play(instance, render_mode, decisions=25, seed=3):
    """An environment after some valid decisions, every other one a match if there is a choice."""
    env = gym.make(ID, instance=instance, render_mode=render_mode, disable_env_checker=True).unwrapped
    _, info = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for k in range(decisions):
        valid = np.flatnonzero(info["action_mask"])
        *_, info = env.step(rng.choice(valid) if k % 2 else valid[-1])
    return env


def fill_queues(env, length):
    env.state.queue[:] = length


@pytest.mark.parametrize("instance", INSTANCES)
def test_picture_has_one_shape_for_all_states(instance):
    env = play(instance, "rgb_array", decisions=0)
    frames = [env.render()]
    for length in (0, 1, 37, 100_000, 2_000_000_000):
        fill_queues(env, length)
        frames.append(env.render())
    assert {(frame.shape, frame.dtype) for frame in frames} == {((480, 720, 3), np.dtype(np.uint8))}
    assert all(frame.flags.c_contiguous for frame in frames)


@pytest.mark.parametrize("instance", INSTANCES)
@pytest.mark.parametrize("bound", [None, 1e-9, 1.5, 1e9])
def test_text_stays_within_80_columns(instance, bound):
    env = play(instance, "ansi")
    env.bound = bound
    texts = [env.render()]
    fill_queues(env, 100_000)
    env.state.elapsed_time[:], env.state.total_reward[:], env.state.decisions[:] = 123456.789, 9.9e9, 10**9
    texts.append(env.render())
    for text in texts:
        assert max(map(len, text.split("\n"))) <= 80
        assert len(text.split("\n")) <= 24
        assert ("of bound" in text) == (bound is not None)


def test_text_tells_the_state():
    env = gym.make(ID, instance="demo", render_mode="ansi").unwrapped
    env.reset(seed=0)
    assert "last decision: none yet" in env.render()
    env.state.queue[0], env.state.customer[0] = [4, 0], 2
    rows = env.render().split("\n")
    assert [row.split("│")[2].split() for row in rows if "│" in row] == [
        ["4", "8.000", "◀", "best"],
        ["0", "4.000"],
    ]
    env.step(0)
    assert "last decision: supplier 0 → customer 2, reward 8.000" in env.render()
    env.step(2)
    assert f"last decision: customer {env.state.last_customer[0]} left unmatched" in env.render()
    env.state.elapsed_time[0], env.state.total_reward[0], env.bound = 10.0, 25.0, 5.0
    assert "reward/time 2.500 = 50.0% of bound 5.000" in env.render()


@pytest.mark.parametrize(("render_mode", "limit"), [("ansi", 16), ("rgb_array", 10)])
def test_large_instance_shows_the_largest_queues_and_the_best_offer(render_mode, limit):
    env = play("random-200x200", render_mode)
    env.state.queue[0] = 1
    env.state.queue[0, 150:155] = 9
    shown = scene(env.instance, env.state, None)
    kept, hidden = shown.rows(limit)
    assert len(kept) == limit - 1
    assert {shown.best, 150, 151, 152, 153, 154} <= set(kept)
    assert hidden.startswith(f"{201 - limit} more types")
    env.render()


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("instance", ["toy", "demo", "random-40x40"])
def test_each_step_changes_the_frame(instance, render_mode):
    env = play(instance, render_mode)
    frames = [env.render()]
    for _ in range(5):
        env.step(env.action_space.n - 1)
        frames.append(env.render())
    assert all(not np.array_equal(a, b) for a, b in pairwise(frames))


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_rendering_leaves_no_trace(render_mode):
    env = play("random-10x10", render_mode)
    before, generator = [array.copy() for array in env.state], str(env.np_random.bit_generator.state)
    first, second = env.render(), env.render()
    assert np.array_equal(first, second)
    assert all(np.array_equal(a, b) for a, b in zip(before, env.state))
    assert str(env.np_random.bit_generator.state) == generator
    watched, blind = play("demo", render_mode), play("demo", None)
    for _ in range(20):
        watched.render()
        assert np.array_equal(watched.step(2)[0], blind.step(2)[0])


def test_picture_shows_the_bound():
    env = play("demo", "rgb_array")
    without = env.render()
    env.bound = 5.0
    changed = np.argwhere((env.render() != without).any(axis=2))
    assert len(changed) > 200
    assert changed.min(axis=0)[0] >= 38
    assert changed.max(axis=0)[0] < 100
    assert changed.min(axis=0)[1] >= 541


def test_before_any_time_has_passed():
    env = play("toy", "ansi", decisions=0)
    env.state.elapsed_time[:] = 0.0
    assert "reward/time 0.000" in env.render()


def test_text_pixels():
    canvas = Canvas(40, 120, WHITE)
    canvas.text(10, 20, "Time 12.5", INK)
    dark = (canvas.image() < 128).all(axis=2)
    rows, columns = np.nonzero(dark)
    assert dark.sum() > 50
    assert 10 <= columns.min() <= 13
    assert columns.max() < 10 + rendering.text_width("Time 12.5")
    assert abs((rows.min() + rows.max()) / 2 - 20) < 3
    greys = np.unique(canvas.image())
    assert len(greys) > 10, "text is anti-aliased"


def test_text_alignment_and_unknown_characters():
    pictures = []
    for text in ("\N{SNOWMAN}", "?"):
        canvas = Canvas(30, 60, WHITE)
        canvas.text(50, 15, text, align="right")
        pictures.append(canvas.image())
    assert np.array_equal(*pictures)
    assert np.nonzero(pictures[0].min(axis=(0, 2)) < 128)[0].max() < 50


def test_cut_fits():
    assert rendering.cut("short", 500) == "short"
    long = rendering.cut("w" * 100, 200)
    assert long.endswith("…")
    assert rendering.text_width(long) <= 200


@pytest.mark.parametrize(
    ("draw", "area"),
    [
        (lambda canvas: canvas.rectangle(10, 10, 30, 20, BLUE), 600),
        (lambda canvas: canvas.rectangle(10.5, 10.25, 30, 20, BLUE), 600),
        (lambda canvas: canvas.rectangle(10, 10, 30, 20, BLUE, 6), 600 - (4 - np.pi) * 36),
        (lambda canvas: canvas.circle(30, 30, 12, BLUE), np.pi * 144),
        (lambda canvas: canvas.line(10, 12, 50, 42, 4, BLUE), 200 + np.pi * 4),
        (lambda canvas: canvas.link(10, 20, 50, 20, 3, BLUE), 120),
        (lambda canvas: canvas.rectangle(-10, -10, 20, 30, BLUE), 200),
        (lambda canvas: canvas.circle(60, 60, 12, BLUE), np.pi * 36),
        (lambda canvas: canvas.circle(-40, 90, 12, BLUE), 0),
        (lambda canvas: canvas.rectangle(10, 10, 0, 20, BLUE), 0),
    ],
)
def test_shapes_cover_their_area(draw, area):
    canvas = Canvas(60, 60, CARD)
    draw(canvas)
    cover = (CARD[0] - canvas.image()[:, :, 0].astype(float)) / (CARD[0] - BLUE[0])
    assert cover.sum() == pytest.approx(area, rel=0.03, abs=1)


def test_numbers_are_short():
    values = [0.0, 1e-12, 5e-4, 0.05, 3.14159, 9.9999, 99.999, 999.99, 1234.5, 999_999.9, 1e6, 1e12, -2.5e-7]
    assert max(len(rendering.number(value)) for value in values) <= 9
    assert rendering.number(1234.5) in ("1,234", "1,235")
    assert rendering.count(100_000) == "100,000"
    assert len(rendering.count(10**15)) <= 9


def test_bars():
    assert [rendering.scale_for(n) for n in (0, 10, 11, 50, 51, 100_000, 100_001)] == [
        10, 10, 20, 50, 100, 100_000, 200_000,
    ]  # fmt: skip
    assert rendering.text_bar(0, 8) == " " * 8
    assert rendering.text_bar(1e-9, 8) == "▏" + " " * 7
    assert rendering.text_bar(2, 8) == "█" * 8
    assert rendering.text_bar(0.5, 8) == "████    "


def test_font_file_is_small_and_read_only_when_needed(monkeypatch):
    path = Path(rendering.__file__).parent / "data" / "font.npz"
    assert path.stat().st_size < 60_000
    with np.load(path) as file:
        assert "Bitstream Vera" in str(file["licence"])
    monkeypatch.setattr(rendering.np, "load", lambda *_: pytest.fail("an ansi text needs no font"))
    rendering.load_font.cache_clear()
    play("demo", "ansi").render()
