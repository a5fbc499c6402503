"""The ways to do the same work: micfast and what one would use instead.

A peer is a class with ``id``, ``label``, :meth:`Peer.available`, :meth:`Peer.invert` and
:meth:`Peer.train`. They take the problems of ``cases.py`` and return what the equality step
compares.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

import micfast
from bench.cases import InversionProblem, Problem, TrainingProblem, Weights
from bench.machine import can_pin, pinned, torch_threads
from micfast import GeneratorBank, ops, reference
from micfast.starts import lattice

Drawn = tuple[np.ndarray, np.ndarray]

LR, BETA1, BETA2, EPS = 0.05, 0.9, 0.99, 1e-8
DAMPING = 0.1
TRAIN_LR, TRAIN_BETA1, TRAIN_BETA2 = 0.01, 0.9, 0.999
COMPILE_LIMIT_S = 120


class PeerError(RuntimeError):
    """A peer that has failed at a case; the message goes into the table."""

    status = "failed"


class NotApplicableError(PeerError):
    """A peer that isn't made for a case."""

    status = "not applicable"


class Peer:
    """One way to invert and train. Subclasses say how."""

    id: str
    label: str
    # "peer"; "isa", micfast on a lesser instruction set; "solver", micfast by another algorithm,
    # which is held against that algorithm's reference and does other work than the case counts.
    kind: str = "peer"
    # How many targets the equality step runs; None: all, for a peer that would compile once more.
    check_targets: int | None = 4

    def available(self) -> str | None:
        """Why the peer is missing here; None if it isn't."""
        return None

    def running(self, n_threads: int) -> AbstractContextManager[None]:
        """The context in which the peer runs on that many threads."""
        return torch_threads(n_threads)

    def part(self, problem: Problem, full: bool) -> Problem:
        """How much of a problem is run; times of a part are extrapolated by its amount of work.

        ``full`` asks for all of it where that takes a minute at most.
        """
        return problem

    def prepare(self, problem: Problem, n_threads: int) -> float | None:
        """Compile for the sizes of a problem; returns the seconds it took, None if nothing to do.

        Called before anything else with a problem, within :meth:`running`.

        Raises
        ------
        PeerError
            If the peer can't do this problem.
        """
        return None

    def invert(self, problem: InversionProblem) -> Tensor:
        """Invert all pairs; returns the errors (M, N)."""
        raise NotImplementedError

    def train(self, problem: TrainingProblem, drawn: Drawn | None = None) -> Tensor:
        """Train all modules.

        Parameters
        ----------
        problem : TrainingProblem
        drawn : tuple of arrays, optional
            Inputs and targets to use instead of the peer's own random numbers.

        Returns
        -------
        Tensor of shape (M, E)
            The loss of every episode; without ``drawn`` a shorter curve will do.
        """
        raise NotImplementedError

    def expect(self, problem: InversionProblem) -> Tensor:
        """What :meth:`invert` must give, by ``micfast.reference`` in float64."""
        p = problem.double()
        result = reference.invert(*p.weights, p.targets, p.init, p.case.I, LR, BETA1, BETA2, EPS)
        return result.errors

    def note(self) -> str:
        """What a reader of the table has to know."""
        return ""


class Micfast(Peer):
    """The compiled kernel, on the best instruction set or on one forced."""

    def __init__(self, isa: str | None = None) -> None:
        self.isa = isa
        self.id = f"micfast-{isa}" if isa else "micfast"
        self.kind = "isa" if isa else "peer"
        self.label = f"micfast ({isa} forced)" if isa else "micfast"

    @override
    def available(self) -> str | None:
        return micfast.config()["missing"].get("cpu")

    @override
    @contextmanager
    def running(self, n_threads: int) -> Iterator[None]:
        before = os.environ.get("MICFAST_ISA")
        with torch_threads(n_threads):
            if self.isa:
                os.environ["MICFAST_ISA"] = self.isa
            try:
                yield
            finally:
                if self.isa and before is None:
                    del os.environ["MICFAST_ISA"]
                elif self.isa and before is not None:
                    os.environ["MICFAST_ISA"] = before

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        return ops.invert(
            *problem.weights,
            problem.targets,
            problem.init,
            problem.case.I,
            LR,
            BETA1,
            BETA2,
            EPS,
            backend="cpu",
        ).errors

    @override
    def train(self, problem: TrainingProblem, drawn: Drawn | None = None) -> Tensor:
        # Its generator is the one that drew the episodes: `drawn` holds what it shows anyway.
        return ops.train(
            *problem.weights,
            problem.type_sets,
            problem.set_index,
            problem.noise_in,
            problem.noise_out,
            problem.seeds,
            problem.case.E,
            TRAIN_LR,
            TRAIN_BETA1,
            TRAIN_BETA2,
            EPS,
            n_curve=100 if drawn is None else problem.case.E,
            backend="cpu",
        ).loss_curve


class OtherSolver(Micfast):
    """micfast by Levenberg and Marquardt's method, as a user calls it: :func:`micfast.invert`."""

    def __init__(self, init: str, n_steps: int) -> None:
        super().__init__()
        self.kind = "solver"
        self.init, self.n_steps = init, n_steps
        name = "lm" if init == "uniform" else f"{init}-lm"
        self.id = f"micfast-{name}-{n_steps}"
        self.label = f"micfast, another algorithm: LM from {init}, {n_steps} steps"
        # A bank remembers the drawings among which "nearest" chooses.
        self._banks: WeakKeyDictionary[InversionProblem, GeneratorBank] = WeakKeyDictionary()

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        if problem not in self._banks:
            self._banks[problem] = GeneratorBank(*problem.weights)
        found = micfast.invert(
            self._banks[problem],
            problem.targets,
            solver="lm",
            n_iter=self.n_steps,
            damping=DAMPING,
            init=self.init,
            backend="cpu",
        )
        return found.errors.mT

    @override
    def expect(self, problem: InversionProblem) -> Tensor:
        p = problem.double()
        starts = plain_starts(p.weights, p.targets, self.init, 1)
        result = reference.invert_lm(*p.weights, p.targets, starts, self.n_steps, DAMPING)
        return result.errors[:, :, 0]

    @override
    def note(self) -> str:
        note = "not Adam's errors: held against its own reference"
        if self.init == "nearest":
            note += "; the drawings to choose among are made once, not counted"
        return note


def plain_starts(weights: Weights, targets: Tensor, init: str, n_starts: int) -> Tensor:
    """Starts (M or 1, N or 1, S, K) that :func:`micfast.invert` documents, found plainly."""
    W_ih, W_hh, b, W_out, b_out = weights
    M, _, K = W_ih.shape
    even = torch.full((1, 1, 1, K), 1 / K, dtype=targets.dtype)
    if init == "uniform":
        return even
    if init == "types":
        return torch.cat([even, torch.eye(K, dtype=targets.dtype)[None, None]], dim=2)
    if init != "nearest":
        raise ValueError(f"init must be uniform, types or nearest, got {init!r}")
    candidates = lattice(K).to(targets.dtype)
    latents = candidates.expand(M, -1, -1)
    drawn = reference.generate(W_ih, W_hh, b, W_out, b_out, latents, targets.shape[1])
    distance = (drawn[:, None] - targets[None, :, None]).square().sum(dim=(-2, -1))
    return candidates[distance.topk(n_starts, dim=2, largest=False).indices]


class _TorchModule(nn.Module):
    """What a user of PyTorch writes."""

    def __init__(self, weights: Weights, module: int) -> None:
        super().__init__()
        W_ih, W_hh, b, W_out, b_out = (w[module] for w in weights)
        self.lstm = nn.LSTM(W_ih.shape[1], W_hh.shape[1])
        self.FC = nn.Linear(W_out.shape[1], W_out.shape[0])
        values = {
            "lstm.weight_ih_l0": W_ih,
            "lstm.weight_hh_l0": W_hh,
            "lstm.bias_ih_l0": b,
            "lstm.bias_hh_l0": torch.zeros_like(b),
            "FC.weight": W_out,
            "FC.bias": b_out,
        }
        self.load_state_dict(values)

    def forward(self, z: Tensor, n_steps: int) -> Tensor:
        x = torch.cat([z[None], z.new_zeros(n_steps - 1, *z.shape)])
        return self.FC(self.lstm(x)[0]).transpose(0, 1)


Loss = Callable[[_TorchModule, Tensor, Tensor], Tensor]


def _loss(module: _TorchModule, z: Tensor, targets: Tensor) -> Tensor:
    return (module(z, targets.shape[1]) - targets).square().mean(dim=(-2, -1))


def _project(z: Tensor) -> Tensor:
    z = z.clamp(0, 1)
    return z / z.sum(dim=-1, keepdim=True)


def _invert_batch(
    module: _TorchModule, targets: Tensor, init: Tensor, n_iter: int, loss_of: Loss
) -> Tensor:
    """Errors (N,) of one module, with torch's autograd."""
    z = init[0].expand(len(targets), -1).clone()
    m, v = torch.zeros_like(z), torch.zeros_like(z)
    for _ in range(n_iter):
        z = _project(z).requires_grad_(True)
        (g,) = torch.autograd.grad(loss_of(module, z, targets).sum(), z)
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g.square()
        z = z.detach() - LR * m / (v.sqrt() + EPS)
    with torch.no_grad():
        return _loss(module, _project(z), targets)


class NnLstm(Peer):
    """``nn.LSTM`` and autograd, all targets of a module as one batch."""

    id = "nn_lstm"
    label = "torch nn.LSTM, batched"
    loss_of: Loss = staticmethod(_loss)

    def __init__(self) -> None:
        self.n_threads: int | None = None  # fewer than allowed, where that is faster

    @override
    def running(self, n_threads: int) -> AbstractContextManager[None]:
        return torch_threads(min(n_threads, self.n_threads or n_threads))

    @override
    def part(self, problem: Problem, full: bool) -> Problem:
        if full or isinstance(problem, TrainingProblem):
            return problem
        return problem.part(2, problem.case.N)

    @override
    def prepare(self, problem: Problem, n_threads: int) -> float | None:
        if isinstance(problem, TrainingProblem):
            raise NotApplicableError("batch size 1, and each module has weights of its own")
        self._choose_threads(problem, n_threads)
        return None

    def _choose_threads(self, problem: Problem, n_threads: int) -> None:
        """Take one thread where that is faster: at small batches torch's threads only wait."""

        def seconds(n: int) -> float:
            with torch_threads(n):
                times = []
                for _ in range(3):
                    start = time.perf_counter()
                    self._try(problem)
                    times.append(time.perf_counter() - start)
            return min(times)

        self.n_threads = 1 if n_threads > 1 and seconds(1) < seconds(n_threads) else None

    def _try(self, problem: Problem) -> None:
        """A short piece of the work."""
        assert isinstance(problem, InversionProblem)
        one = problem.part(1, problem.case.N)
        module = _TorchModule(one.weights, 0).requires_grad_(False)
        _invert_batch(module, one.targets, one.init, 1, self.loss_of)

    @override
    def note(self) -> str:
        return "1 thread, the faster choice" if self.n_threads == 1 else ""

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        modules = [_TorchModule(problem.weights, m) for m in range(problem.case.M)]
        return torch.stack(
            [
                _invert_batch(
                    m.requires_grad_(False),
                    problem.targets,
                    problem.init,
                    problem.case.I,
                    self.loss_of,
                )
                for m in modules
            ]
        )


class Original(NnLstm):
    """The original's loop: ``nn.LSTM`` and autograd, one target and one module at a time."""

    id = "original"
    label = "the original's loop"

    @override
    def part(self, problem: Problem, full: bool) -> Problem:
        if isinstance(problem, TrainingProblem):
            return problem.part(2, 100)
        return problem.part(4, 4)

    @override
    def prepare(self, problem: Problem, n_threads: int) -> float | None:
        self._choose_threads(problem, n_threads)
        return None

    @override
    def _try(self, problem: Problem) -> None:
        if isinstance(problem, TrainingProblem):
            self.train(problem.part(1, 5))
        else:
            super()._try(problem.part(1, 1))

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        modules = [_TorchModule(problem.weights, m) for m in range(problem.case.M)]
        errors = [
            _invert_batch(
                m.requires_grad_(False), target[None], problem.init, problem.case.I, self.loss_of
            )
            for m in modules
            for target in problem.targets
        ]
        return torch.cat(errors).reshape(problem.case.M, problem.case.N)

    @override
    def train(self, problem: TrainingProblem, drawn: Drawn | None = None) -> Tensor:
        return torch.stack([self._train_one(problem, m, drawn) for m in range(problem.case.M)])

    @staticmethod
    def _train_one(problem: TrainingProblem, m: int, drawn: Drawn | None) -> Tensor:
        module = _TorchModule(problem.weights, m)
        optimizer = torch.optim.Adam(module.parameters(), TRAIN_LR, (TRAIN_BETA1, TRAIN_BETA2), EPS)
        types = problem.type_sets[problem.set_index[m]]
        noise_in, noise_out = float(problem.noise_in[m]), float(problem.noise_out[m])
        one_hot = torch.eye(len(types))
        losses = []
        for episode in range(problem.case.E):
            if drawn is None:
                index = int(torch.randint(len(types), ()))
                x = (one_hot[index] + noise_in * torch.randn(len(types))).clamp(0, 1)
                target = types[index] + noise_out * torch.randn_like(types[index])
            else:
                x, target = (torch.from_numpy(d[m, episode]).to(types.dtype) for d in drawn)
            optimizer.zero_grad()
            loss = _loss(module, x[None], target[None]).sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)


class Compiled(NnLstm):
    """The batched loop through ``torch.compile`` as it comes."""

    id = "compile"
    label = "torch.compile"
    how = "does not trace nn.LSTM: the recurrence runs eagerly"
    allow_rnn = False
    max_steps: float = float("inf")
    check_targets = None

    @override
    def available(self) -> str | None:
        if not hasattr(torch, "compile"):
            return "this torch has no torch.compile"
        return None

    @override
    def part(self, problem: Problem, full: bool) -> Problem:
        if isinstance(problem, TrainingProblem):
            return problem
        return problem.part(2, problem.case.N)

    @override
    @contextmanager
    def running(self, n_threads: int) -> Iterator[None]:
        import torch._dynamo.config

        allow_rnn = torch._dynamo.config.patch(allow_rnn=self.allow_rnn)
        with super().running(n_threads), allow_rnn:
            yield

    @override
    def prepare(self, problem: Problem, n_threads: int) -> float | None:
        if isinstance(problem, TrainingProblem):
            return super().prepare(problem, n_threads)
        if self.max_steps < problem.case.T:
            raise PeerError(f"more than {self.max_steps} steps take too long to compile")
        # One compilation at a time: a later case must not be taken for a variant of this one.
        torch._dynamo.reset()
        self.loss_of = torch.compile(_loss, dynamic=False)
        start = time.perf_counter()
        try:
            with _time_limit(COMPILE_LIMIT_S):
                self._try(problem)
        except _TimeLimitError:
            self.max_steps = problem.case.T - 1
            raise PeerError(f"compilation stopped after {COMPILE_LIMIT_S} s") from None
        except Exception as error:
            first_line = str(error).strip().splitlines()[0][:120]
            raise PeerError(f"compilation failed: {type(error).__name__}: {first_line}") from error
        seconds = time.perf_counter() - start
        self._choose_threads(problem, n_threads)
        return seconds

    @override
    def note(self) -> str:
        return "; ".join(filter(None, (self.how, super().note())))


class Unrolled(Compiled):
    """``torch.compile`` told to trace ``nn.LSTM``, which unrolls every step into one graph."""

    id = "unrolled"
    label = "torch.compile, allow_rnn"
    how = "torch._dynamo.config.allow_rnn: all steps unrolled"
    allow_rnn = True
    max_steps = 64


class _TimeLimitError(BaseException):
    """No Exception: torch's compiler catches those."""


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise :class:`_TimeLimitError` after that time, on systems that have SIGALRM."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TimeLimitError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        errors = self._invert_program(problem)[0](*self._invert_arguments(problem))
        return torch.from_numpy(np.array(errors))

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
        types = problem.type_sets[problem.set_index].numpy()
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
        one = _jax_inversion(case.I)
        over_targets = jax.vmap(one, in_axes=(None, 0, None))
        over_modules = jax.vmap(over_targets, in_axes=(0, None, None))
        key = ("invert", case.M, case.N, case.H, case.K, case.O, case.T, case.I)
        return self._compiled(key, over_modules, self._invert_arguments(problem))

    def _train_program(self, problem: TrainingProblem, drawn: Drawn | None) -> _Program:
        import jax

        case = problem.case
        one = _jax_training(case.E) if drawn is None else _jax_training_of_drawn
        key = ("train", drawn is None, case.M, case.H, case.K, case.O, case.T, case.E)
        return self._compiled(key, jax.vmap(one), self._train_arguments(problem, drawn))

    @override
    def note(self) -> str:
        return "" if can_pin() else "threads are XLA's choice here"


def _jax_loss(weights: tuple[Any, ...], z: Any, target: Any) -> Any:
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


def _jax_inversion(n_iter: int) -> Callable[..., Any]:
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
            g = jax.grad(_jax_loss, argnums=1)(weights, z, target)
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * jnp.square(g)
            return (z - LR * m / (jnp.sqrt(v) + EPS), m, v), None

        zero = jnp.zeros_like(init)
        (z, _, _), _ = jax.lax.scan(iterate, (init, zero, zero), None, length=n_iter)
        return _jax_loss(weights, project(z), target)

    return invert


def _jax_adam_step(state: Any, episode: Any, x: Any, target: Any) -> tuple[Any, Any]:
    """One training episode of one module: the new state, and the loss."""
    import jax
    import jax.numpy as jnp

    weights, m, v = state
    loss, gradients = jax.value_and_grad(_jax_loss)(weights, x, target)
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


def _jax_start(weights: tuple[Any, ...]) -> Any:
    import jax.numpy as jnp

    zeros = tuple(jnp.zeros_like(w) for w in weights)
    return weights, zeros, zeros


def _jax_training(n_episodes: int) -> Callable[..., Any]:
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
            return _jax_adam_step(state, episode, jnp.clip(x, 0, 1), types[index] + noise)

        return jax.lax.scan(run, _jax_start(weights), jnp.arange(n_episodes))

    return train


def _jax_training_of_drawn(weights: Any, inputs: Any, targets: Any) -> Any:
    """The loop over episodes for one module, with given inputs and targets."""
    import jax
    import jax.numpy as jnp

    def run(state: Any, episode: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        return _jax_adam_step(state, *episode)

    episodes = jnp.arange(inputs.shape[0]), inputs, targets
    return jax.lax.scan(run, _jax_start(weights), episodes)


PEERS: dict[str, Callable[[], Peer]] = {
    "micfast": Micfast,
    "jax": Jax,
    "nn_lstm": NnLstm,
    "compile": Compiled,
    "unrolled": Unrolled,
    "original": Original,
}
# Without "unrolled", which compiles for minutes.
DEFAULT_PEERS = ("micfast", "jax", "nn_lstm", "compile", "original")


def make_peers(wanted: list[str] | None = None) -> list[Peer]:
    """The peers by id, micfast first; by default :data:`DEFAULT_PEERS`.

    Naming ``micfast`` includes its rows on the other instruction sets of this machine, and those
    by other algorithms; a suite takes the kinds that it is about.

    Raises
    ------
    ValueError
        For an unknown id.
    """
    wanted = list(DEFAULT_PEERS if wanted is None else wanted)
    unknown = sorted(set(wanted) - set(PEERS))
    if unknown:
        raise ValueError(f"peers must be among {', '.join(PEERS)}, got {', '.join(unknown)}")
    peers: list[Peer] = []
    for id_ in sorted(set(wanted), key=list(PEERS).index):
        peers.append(PEERS[id_]())
        if id_ == "micfast":
            config = micfast.config()
            peers += [Micfast(isa) for isa in config.get("isas", []) if isa != config["isa"]]
            peers += [OtherSolver("uniform", 8), OtherSolver("nearest", 2)]
    return peers
