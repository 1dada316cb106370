"""Pictures of a matching system: waiting suppliers, the arriving customer, the last match and the running score."""

from typing import Any


def draw(instance: Any, state: Any, render_mode: str) -> Any:
    """A text (ansi) or a picture (rgb_array)."""
    raise NotImplementedError
