"""Filtering in fewer products: the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from stgcn.winograd import scheme


@pytest.mark.parametrize(("stride", "outputs", "products"), [(1, 15, 35), (2, 3, 13)])
def test_it_is_the_convolution_in_fewer_products(stride: int, outputs: int, products: int) -> None:
    gather, kernels, spread = scheme(stride)
    window = stride * (outputs - 1) + 9
    assert (gather.shape, kernels.shape, spread.shape) == ((outputs, products), (products, 9), (products, window))
    random = np.random.RandomState(0)
    taps, inputs = random.normal(size=9), random.normal(size=window)
    direct = [taps @ inputs[stride * i : stride * i + 9] for i in range(outputs)]
    assert np.allclose(gather @ ((kernels @ taps) * (spread @ inputs)), direct, rtol=0, atol=1e-12)
