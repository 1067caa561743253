"""Curves of metrics.jsonl in pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes


def series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values (nan where they were not finite) of one metric."""
    points = [(line["step"], line[name]) for line in lines if name in line]
    array = np.array(points, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def draw_noisy(axes: Axes, x: np.ndarray, values: np.ndarray, label: str, color: str) -> None:
    """A curve of training: faint, its running mean over it."""
    width = max(1, len(values) // 25)
    axes.plot(x, values, color=color, alpha=0.3 if width > 1 else 1.0, linewidth=1)
    if width > 1:
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(x[width - 1 :], mean, color=color)
    axes.plot([], [], color=color, label=label)


def finish(axes: Axes, title: str, xlabel: str = "step") -> None:
    """Title, axis and grid, alike in all pictures."""
    axes.set(title=title, xlabel=xlabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
