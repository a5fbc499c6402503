"""The projected Adam of ``Training(method="projected")`` in JAX: what a user would write."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import pinned
from micfast.training.errors import variance
from micfast.training.initializations.matched import Matched

__all__ = ["jax_projected"]

_RATE, _BETA1, _BETA2, _EPS, _RIDGE, _NOISE = 0.01, 0.9, 0.999, 1e-8, 1e-6, 0.2


def jax_projected(
    types: NDArray[Any], hidden_size: int, n_steps: int, n_threads: int
) -> tuple[float, float] | None:
    """Train modules on types (M, K, T, O) without missing values; seconds to compile and to run.

    From the matched initialization, with input noise; ``jit(vmap(scan))`` over modules. float32
    throughout, the read-out's system too. None if JAX is not installed.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    H, (M, K, T, _) = hidden_size, types.shape
    start = Matched().weights(types.astype(np.float32), H, range(M)).numpy()
    weights = tuple(jnp.asarray(start[name]) for name in ("W_ih", "W_hh", "b"))
    ridge = jnp.diag(jnp.append(jnp.full(H, _RIDGE), 1e-12))

    def states(W: Any, x: Any) -> Any:
        """Hidden states (K, T, H)."""
        W_ih, W_hh, b = W

        def step(carry: Any, drive: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(drive + h @ W_hh.T + b, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        drive = jnp.zeros((T, K, 4 * H)).at[0].set(x @ W_ih.T)
        zeros = jnp.zeros((K, H))
        return jax.lax.scan(step, (zeros, zeros), drive)[1].swapaxes(0, 1)

    def loss(W: Any, x: Any, y: Any, scale: Any) -> Any:
        phi = jnp.concatenate([h := states(W, x), jnp.ones((*h.shape[:2], 1))], axis=-1)
        flat, target = jax.lax.stop_gradient(phi).reshape(K * T, -1), y.reshape(K * T, -1)
        w = 1 / (K * T * y.shape[-1] * scale)
        gram, right = w * flat.T @ flat + ridge, w * flat.T @ target
        read_out = jax.scipy.linalg.solve(gram, right, assume_a="pos")
        return w * jnp.square(phi @ read_out - y).sum()

    def train(W: Any, key: Any, y: Any, scale: Any) -> Any:
        def step(carry: Any, s: Any) -> Any:
            W, m, v = carry
            noise = _NOISE * jax.random.normal(jax.random.fold_in(key, s), (K, K))
            g = jax.grad(loss)(W, jnp.clip(jnp.eye(K) + noise, 0, 1), y, scale)
            norm = jnp.sqrt(sum(jnp.square(one).sum() for one in g))
            g = [one / jnp.maximum(norm, 1) for one in g]
            m = [_BETA1 * a + (1 - _BETA1) * one for a, one in zip(m, g, strict=True)]
            v = [_BETA2 * a + (1 - _BETA2) * one**2 for a, one in zip(v, g, strict=True)]
            rate = _RATE * jnp.minimum(1, s / 100 + 0.01) * (1 + jnp.cos(jnp.pi * s / n_steps)) / 2
            c1, c2 = 1 - _BETA1 ** (s + 1), 1 - _BETA2 ** (s + 1)
            W = tuple(
                w - rate / c1 * a / (jnp.sqrt(b / c2) + _EPS)
                for w, a, b in zip(W, m, v, strict=True)
            )
            return (W, m, v), 0.0

        zeros = [jnp.zeros_like(w) for w in W]
        return jax.lax.scan(step, (W, zeros, zeros), jnp.arange(n_steps))[0][0]

    arguments = (
        weights,
        jax.vmap(jax.random.key)(jnp.arange(M)),
        jnp.asarray(types, dtype=jnp.float32),
        jnp.asarray(variance(types), dtype=jnp.float32),
    )
    with pinned(n_threads):
        begin = time.perf_counter()
        program = jax.jit(jax.vmap(train)).lower(*arguments).compile()
        compiled = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        return compiled - begin, time.perf_counter() - compiled
