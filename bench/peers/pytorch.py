"""PyTorch's ways: ``nn.LSTM`` in batches, one target at a time, and compiled."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

import torch
from torch import Tensor, nn
from typing_extensions import override

from bench.cases import InversionProblem, Problem, TrainingProblem
from bench.machine import torch_threads
from bench.peers.base import (
    BETA1,
    BETA2,
    EPS,
    LR,
    TRAIN_BETA1,
    TRAIN_BETA2,
    TRAIN_LR,
    Drawn,
    NotApplicableError,
    Peer,
    PeerError,
)
from micfast import Weights

COMPILE_LIMIT_S = 120


class TorchModule(nn.Module):
    """What a user of PyTorch writes."""

    def __init__(self, weights: Weights, module: int) -> None:
        super().__init__()
        W_ih, W_hh, b, W_out, b_out = (w[module] for w in weights)
        self.decoder = weights.decoder
        n_inputs = 1 if self.decoder.sets_state else W_ih.shape[1]
        n_layers = self.decoder.n_layers
        H = W_hh.shape[1] // n_layers
        kind = nn.GRU if self.decoder.cell == "gru" else nn.LSTM
        self.rnn = kind(n_inputs, H, num_layers=n_layers)
        W_out = W_out[:, -H:]
        self.FC = nn.Linear(H, W_out.shape[0])
        values = {"FC.weight": W_out, "FC.bias": b_out}
        if self.decoder.sets_state:
            self.to_state = nn.Linear(W_ih.shape[1], W_ih.shape[0], bias=False)
            values["to_state.weight"] = W_ih
            W_ih = torch.zeros(len(b), 1)
        # The second layer's units follow the first one's in each block of rows.
        from_state = W_hh.view(4, n_layers, H, n_layers, H)
        for i in range(n_layers):
            W_x = W_ih.view(4, n_layers, H, -1)[:, 0] if i == 0 else from_state[:, 1, :, 0]
            W_h, b_i = from_state[:, i, :, i], b.view(4, n_layers, H)[:, i]
            b_h = torch.zeros_like(b_i)
            if kind is nn.GRU:  # n's two blocks are one of each tensor
                W_x, W_h, b_h[3] = W_x[:3], W_h[[0, 1, 3]], b_i[3]
                b_i, b_h = b_i[:3], b_h[[0, 1, 3]]
            tensors = {"weight_ih": W_x, "weight_hh": W_h, "bias_ih": b_i, "bias_hh": b_h}
            values |= {f"rnn.{n}_l{i}": tensor.flatten(0, 1) for n, tensor in tensors.items()}
        self.load_state_dict(values)

    def forward(self, z: Tensor, n_steps: int) -> Tensor:
        """Draw (N, T, O) from latents (N, K)."""
        state = None
        if self.decoder.sets_state:
            start = self.to_state(z)
            start = torch.tanh(start) if self.decoder.latent == "tanh_state" else start
            if self.decoder.cell == "gru":
                state = start[None]
            else:
                state = tuple(part[None].contiguous() for part in start.chunk(2, dim=1))
            x = z.new_zeros(n_steps, len(z), 1)
        elif self.decoder.latent == "every":
            x = z[None].expand(n_steps, *z.shape)
        else:
            x = torch.cat([z[None], z.new_zeros(n_steps - 1, *z.shape)])
        drawn = self.FC(self.rnn(x, state)[0]).transpose(0, 1)
        output = self.decoder.output
        if output == "identity":
            return drawn
        return (
            nn.functional.softplus(drawn) if output == "softplus" else getattr(torch, output)(drawn)
        )


Loss = Callable[[TorchModule, Tensor, Tensor], Tensor]


def squared_error(module: TorchModule, z: Tensor, targets: Tensor) -> Tensor:
    return (module(z, targets.shape[1]) - targets).square().mean(dim=(-2, -1))


def _project(z: Tensor) -> Tensor:
    z = z.clamp(0, 1)
    return z / z.sum(dim=-1, keepdim=True)


def invert_batch(
    module: TorchModule, targets: Tensor, init: Tensor, n_iter: int, loss_of: Loss
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
        return squared_error(module, _project(z), targets)


class NnLstm(Peer):
    """``nn.LSTM`` and autograd, all targets of a module as one batch."""

    id = "nn_lstm"
    label = "torch nn.LSTM, batched"
    loss_of: Loss = staticmethod(squared_error)

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
        module = TorchModule(one.weights, 0).requires_grad_(False)
        invert_batch(module, one.targets, one.init, 1, self.loss_of)

    @override
    def note(self) -> str:
        return "1 thread, the faster choice" if self.n_threads == 1 else ""

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        modules = [TorchModule(problem.weights, m) for m in range(problem.case.M)]
        return torch.stack(
            [
                invert_batch(
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
        modules = [TorchModule(problem.weights, m) for m in range(problem.case.M)]
        errors = [
            invert_batch(
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
        module = TorchModule(problem.weights, m)
        optimizer = torch.optim.Adam(module.parameters(), TRAIN_LR, (TRAIN_BETA1, TRAIN_BETA2), EPS)
        types = problem.type_sets[problem.set_index[m], :, 0]
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
            loss = squared_error(module, x[None], target[None]).sum()
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
        self.loss_of = torch.compile(squared_error, dynamic=False)
        start = time.perf_counter()
        try:
            with _time_limit(COMPILE_LIMIT_S):
                self._try(problem)
        except TimeLimitError:
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


class TimeLimitError(BaseException):
    """No Exception: torch's compiler catches those."""


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise :class:`TimeLimitError` after that time, on systems that have SIGALRM."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
