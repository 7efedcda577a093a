"""Convolutions as dense matrices, built from unit images."""

import numpy as np


def dense(kernel, input_shape, strides=1, padding="circular"):
    """The matrix of the convolution with an HWIO kernel, from outputs to rows of inputs, in double precision."""
    dims, taps, channels = len(input_shape), kernel.shape[:-2], kernel.shape[-2]
    steps = (strides,) * dims if isinstance(strides, int) else strides
    if padding == "SAME":
        ends = [max(-(-n // s) * s - s + k - n, 0) for n, s, k in zip(input_shape, steps, taps, strict=True)]
        padding = [(total // 2, total - total // 2) for total in ends]
    widths = (
        {"circular": [(0, k - 1) for k in taps], "VALID": [(0, 0)] * dims}[padding]
        if isinstance(padding, str)
        else padding
    )
    inputs = np.eye(np.prod(input_shape) * channels).reshape(-1, *input_shape, channels)
    x = np.pad(inputs, [(0, 0), *widths, (0, 0)], mode="wrap" if padding == "circular" else "constant")
    sizes = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:-1], taps, steps, strict=True)]
    out = 0
    for tap in np.ndindex(*taps):
        window = tuple(slice(t, t + s * n, s) for t, s, n in zip(tap, steps, sizes, strict=True))
        image = x[(slice(None), *window)]
        out = out + image[:, *(slice(n) for n in sizes)] @ np.asarray(kernel[tap], np.complex128)
    return out.reshape(len(inputs), -1).T


def true_norm(*args, **layer):
    return np.linalg.norm(dense(*args, **layer), 2)
