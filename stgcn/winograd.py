"""Convolution along time in fewer products: the minimal filtering of Winograd (Arithmetic Complexity of Computations,
1980; Lavin and Gray, arXiv 1509.09308), which is Toom and Cook's multiplication of polynomials transposed.

n = m + r - 1 products give m outputs of a filter of r taps: both are seen as polynomials, multiplied at n points and
interpolated. Rounding errors grow with n, so 9 taps are never taken at once.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

# Infinity is one more, in every scheme
POINTS = (0.0, 1.0, -1.0, 2.0, -0.5, -2.0, 0.5)

Scheme = Tuple[np.ndarray, np.ndarray, np.ndarray]


def scheme(stride: int) -> Scheme:
    """`gather` (m, p), `kernels` (p, 9) and `spread` (p, window), float64: m outputs of the 9 taps g, each `stride` (1
    or 2) inputs after the last, over a window d of the inputs are gather @ ((kernels @ g) * (spread @ d)).

    Direct convolution takes 9 m products; this takes 35 for 15 outputs, with a stride of 2 13 for 3.
    """
    return _nested(_minimal(5, 3), _minimal(3, 3)) if stride == 1 else _interleaved(_minimal(3, 5), _minimal(3, 4))


def _minimal(outputs: int, taps: int) -> Scheme:
    products = outputs + taps - 1
    spread = np.linalg.inv(_powers(products, products)).T
    scale = np.abs(spread).sum(axis=1)[:, None]  # moved to the kernels, so that what is spread stays of one size
    return _powers(products, outputs).T, _powers(products, taps) * scale, spread / scale


def _powers(points: int, count: int) -> np.ndarray:
    """The powers 0..count-1 of each point, the last of which is infinity, where the highest alone counts."""
    finite = np.vander(POINTS[: points - 1], count, increasing=True)
    powers: np.ndarray = np.vstack([finite, np.eye(1, count, count - 1)])
    return powers


def _nested(outer: Scheme, inner: Scheme) -> Scheme:
    """The taps in groups, which are the outer level's taps; both levels' inputs overlap."""
    gather, kernels, spread = (np.kron(a, b) for a, b in zip(outer, inner))
    step, inputs, window = inner[1].shape[1], outer[2].shape[1], inner[2].shape[1]
    merged = np.zeros((len(spread), step * (inputs - 1) + window))
    for i in range(inputs):
        merged[:, i * step : i * step + window] += spread[:, i * window : (i + 1) * window]
    return gather, kernels, merged


def _interleaved(even: Scheme, odd: Scheme) -> Scheme:
    """Every second output: that of the even taps over the even inputs and of the odd over the odd, added."""
    kernels, spread = (np.zeros((len(even[i]) + len(odd[i]), even[i].shape[1] + odd[i].shape[1])) for i in (1, 2))
    for merged, evens, odds in ((kernels, even[1], odd[1]), (spread, even[2], odd[2])):
        merged[: len(evens), ::2], merged[len(evens) :, 1::2] = evens, odds
    return np.hstack([even[0], odd[0]]), kernels, spread
