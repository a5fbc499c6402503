"""JAX: the whole loop compiled by XLA."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from bench.cases import InversionProblem, Problem, TrainingProblem
from bench.machine import can_pin, pinned
from bench.peers.base import (
    BETA1,
    BETA2,
    EPS,
    LR,
    TRAIN_BETA1,
    TRAIN_BETA2,
    TRAIN_LR,
    Drawn,
    Peer,
)

_Program = tuple[Callable[..., Any], float]  # and the seconds its compilation took


class Jax(Peer):
    """``jit(vmap(lax.scan))``: the whole loop compiled by XLA, vmapped over modules and targets."""

    id = "jax"
    label = "JAX jit(vmap(scan))"

    def __init__(self) -> None:
        self._programs: dict[Any, _Program] = {}

    @override
    def available(self) -> str | None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        try:
            importlib.import_module("jax")
        except ImportError as error:
            return f"not installed ({error})"
        return None

    @override
    def running(self, n_threads: int) -> AbstractContextManager[None]:
        return pinned(n_threads)

    @override
    def part(self, problem: Problem, full: bool) -> Problem:
        if isinstance(problem, TrainingProblem):
            return problem.part(problem.case.M, 100)
        return problem

    @override
    def prepare(self, problem: Problem, n_threads: int) -> float | None:
        if isinstance(problem, TrainingProblem):
            return self._train_program(problem, None)[1]
        return self._invert_program(problem)[1]

    def inversion(self, problem: InversionProblem) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The compiled program, and what to call it with."""
        return self._invert_program(problem)[0], self._invert_arguments(problem)

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        program, arguments = self.inversion(problem)
        return torch.from_numpy(np.array(program(*arguments)))

    @override
    def train(self, problem: TrainingProblem, drawn: Drawn | None = None) -> Tensor:
        program, _ = self._train_program(problem, drawn)
        _, losses = program(*self._train_arguments(problem, drawn))
        return torch.from_numpy(np.array(losses))

    @staticmethod
    def _invert_arguments(problem: InversionProblem) -> tuple[Any, ...]:
        weights = tuple(w.numpy() for w in problem.weights)
        return weights, problem.targets.numpy(), problem.init[0, 0].numpy()

    @staticmethod
    def _train_arguments(problem: TrainingProblem, drawn: Drawn | None) -> tuple[Any, ...]:
        import jax

        weights = tuple(w.numpy() for w in problem.weights)
        if drawn is not None:
            return weights, *(d.astype(np.float32) for d in drawn)
        keys = jax.vmap(jax.random.key)(problem.seeds.numpy().astype(np.uint32))
        types = problem.type_sets[problem.set_index, :, 0].numpy()
        noise = (x.float().numpy() for x in (problem.noise_in, problem.noise_out))
        return weights, keys, types, *noise

    def _compiled(
        self, key: Any, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> _Program:
        import jax

        if key not in self._programs:
            start = time.perf_counter()
            program = jax.jit(function).lower(*arguments).compile()
            self._programs[key] = program, time.perf_counter() - start
        return self._programs[key]

    def _invert_program(self, problem: InversionProblem) -> _Program:
        import jax

        case = problem.case
        one = _inversion(case.I)
        over_targets = jax.vmap(one, in_axes=(None, 0, None))
        over_modules = jax.vmap(over_targets, in_axes=(0, None, None))
        key = ("invert", case.M, case.N, case.H, case.K, case.O, case.T, case.I)
        return self._compiled(key, over_modules, self._invert_arguments(problem))

    def _train_program(self, problem: TrainingProblem, drawn: Drawn | None) -> _Program:
        import jax

        case = problem.case
        one = _training(case.E) if drawn is None else _training_of_drawn
        key = ("train", drawn is None, case.M, case.H, case.K, case.O, case.T, case.E)
        return self._compiled(key, jax.vmap(one), self._train_arguments(problem, drawn))

    @override
    def note(self) -> str:
        return "" if can_pin() else "threads are XLA's choice here"


def _loss(weights: tuple[Any, ...], z: Any, target: Any) -> Any:
    """Mean squared error of one module's drawing of one target."""
    import jax
    import jax.numpy as jnp

    W_ih, W_hh, b, W_out, b_out = weights

    def cell(c: Any, a: Any) -> tuple[Any, Any]:
        a_i, a_f, a_g, a_o = jnp.split(a, 4)
        c = jax.nn.sigmoid(a_f) * c + jax.nn.sigmoid(a_i) * jnp.tanh(a_g)
        return jax.nn.sigmoid(a_o) * jnp.tanh(c), c

    def error(h: Any, y: Any) -> Any:
        return jnp.square(W_out @ h + b_out - y).mean()

    def step(state: tuple[Any, Any], y: Any) -> tuple[tuple[Any, Any], Any]:
        h, c = state
        h, c = cell(c, W_hh @ h + b)
        return (h, c), error(h, y)

    h, c = cell(jnp.zeros(W_hh.shape[1]), W_ih @ z + b)
    _, errors = jax.lax.scan(step, (h, c), target[1:])
    return (error(h, target[0]) + errors.sum()) / target.shape[0]


def _inversion(n_iter: int) -> Callable[..., Any]:
    """The loop over iterations for one module and target; returns the error."""
    import jax
    import jax.numpy as jnp

    def project(z: Any) -> Any:
        z = jnp.clip(z, 0, 1)
        total = z.sum()
        return jnp.where(total == 0, 1 / z.shape[0], z / total)

    def invert(weights: tuple[Any, ...], target: Any, init: Any) -> Any:
        def iterate(state: tuple[Any, Any, Any], _: None) -> tuple[tuple[Any, Any, Any], None]:
            z, m, v = state
            z = project(z)
            g = jax.grad(_loss, argnums=1)(weights, z, target)
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * jnp.square(g)
            return (z - LR * m / (jnp.sqrt(v) + EPS), m, v), None

        zero = jnp.zeros_like(init)
        (z, _, _), _ = jax.lax.scan(iterate, (init, zero, zero), None, length=n_iter)
        return _loss(weights, project(z), target)

    return invert


def _adam_step(state: Any, episode: Any, x: Any, target: Any) -> tuple[Any, Any]:
    """One training episode of one module: the new state, and the loss."""
    import jax
    import jax.numpy as jnp

    weights, m, v = state
    loss, gradients = jax.value_and_grad(_loss)(weights, x, target)
    n = episode.astype(jnp.float32) + 1
    correction1, correction2 = 1 - TRAIN_BETA1**n, 1 - TRAIN_BETA2**n
    m = tuple(TRAIN_BETA1 * a + (1 - TRAIN_BETA1) * g for a, g in zip(m, gradients, strict=True))
    v = tuple(
        TRAIN_BETA2 * a + (1 - TRAIN_BETA2) * jnp.square(g)
        for a, g in zip(v, gradients, strict=True)
    )
    # b is the sum of torch's two bias vectors: it moves by twice Adam's step.
    scales = (1.0, 1.0, 2.0, 1.0, 1.0)
    weights = tuple(
        w - scale * TRAIN_LR / correction1 * a / (jnp.sqrt(q / correction2) + EPS)
        for w, a, q, scale in zip(weights, m, v, scales, strict=True)
    )
    return (weights, m, v), loss


def _start(weights: tuple[Any, ...]) -> Any:
    import jax.numpy as jnp

    zeros = tuple(jnp.zeros_like(w) for w in weights)
    return weights, zeros, zeros


def _training(n_episodes: int) -> Callable[..., Any]:
    """The loop over episodes for one module, with JAX's own random numbers."""
    import jax
    import jax.numpy as jnp

    def train(weights: Any, key: Any, types: Any, noise_in: Any, noise_out: Any) -> Any:
        K = types.shape[0]

        def run(state: Any, episode: Any) -> tuple[Any, Any]:
            keys = jax.random.split(jax.random.fold_in(key, episode), 3)
            index = jax.random.randint(keys[0], (), 0, K)
            x = jax.nn.one_hot(index, K) + noise_in * jax.random.normal(keys[1], (K,))
            noise = noise_out * jax.random.normal(keys[2], types.shape[1:])
            return _adam_step(state, episode, jnp.clip(x, 0, 1), types[index] + noise)

        return jax.lax.scan(run, _start(weights), jnp.arange(n_episodes))

    return train


def _training_of_drawn(weights: Any, inputs: Any, targets: Any) -> Any:
    """The loop over episodes for one module, with given inputs and targets."""
    import jax
    import jax.numpy as jnp

    def run(state: Any, episode: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        return _adam_step(state, *episode)

    episodes = jnp.arange(inputs.shape[0]), inputs, targets
    return jax.lax.scan(run, _start(weights), episodes)
