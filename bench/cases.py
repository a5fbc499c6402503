"""What is measured: cases of stable identity, and the random problems made from them.

No timing here. Letters and shapes: ``docs/conventions.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from micfast import Decoder, Weights
from micfast.generators.dropin.structures import Layers, as_one_layer
from micfast.kernels.reference_training import sample_episode

N_TYPE_SETS = 20


@dataclass(frozen=True)
class InversionCase:
    """Invert N targets in each of M modules, I iterations each."""

    id: str
    M: int
    N: int
    H: int
    K: int
    O: int
    T: int
    I: int = 50

    @property
    def unit(self) -> str:
        """What the work is counted in."""
        return "pair"

    @property
    def amount(self) -> int:
        """How many of them: pairs of a target and a module."""
        return self.M * self.N

    @property
    def flop(self) -> int:
        """Matrix work: forward, and backward to the state (of equal size)."""
        return 4 * (4 * self.H**2 + self.O * self.H) * self.T * self.I * self.amount


@dataclass(frozen=True)
class DecoderCase(InversionCase):
    """The same in decoders of another structure (see :class:`micfast.Decoder`)."""

    latent: str = "first"
    output: str = "identity"
    cell: str = "lstm"
    n_layers: int = 1

    @property
    def flop(self) -> int:
        """As of all inversions; a GRU has three gates, a second layer twice the matrices."""
        n_matrices = (3 if self.cell == "gru" else 4) * (2 * self.n_layers - 1)
        return 4 * (n_matrices * self.H**2 + self.O * self.H) * self.T * self.I * self.amount


@dataclass(frozen=True)
class TrainingCase:
    """Train a fleet of M modules for E episodes of batch size 1."""

    id: str
    M: int
    H: int
    K: int
    O: int
    T: int
    E: int
    noise_in: tuple[float, ...] = (0.0, 0.1, 0.2)
    noise_out: tuple[float, ...] = (0.0, 0.0001, 0.0002)

    @property
    def unit(self) -> str:
        """What the work is counted in."""
        return "model-episode"

    @property
    def amount(self) -> int:
        """How many of them: episodes of one module."""
        return self.M * self.E

    @property
    def flop(self) -> int:
        """Matrix work: forward, backward to the state, backward to the weights."""
        return 6 * (4 * self.H**2 + self.O * self.H) * self.T * self.amount


Case = InversionCase | TrainingCase

CHARACTERS = InversionCase("inversion-characters", M=20, N=400, H=10, K=4, O=2, T=205)
MNIST = InversionCase("inversion-mnist", M=10, N=1000, H=20, K=4, O=28, T=28)
ODD = InversionCase("inversion-odd-H13", M=20, N=400, H=13, K=7, O=3, T=100)
EVEN = InversionCase("inversion-even-H12", M=20, N=400, H=12, K=4, O=4, T=100)

CHARACTERS_FLEET = TrainingCase("training-characters-180", M=180, H=10, K=4, O=2, T=205, E=1000)
MNIST_FLEET = TrainingCase(
    "training-mnist-90", M=90, H=20, K=4, O=28, T=28, E=2000, noise_out=(0.0, 0.1, 0.25)
)

BATCHES = tuple(
    replace(CHARACTERS, id=f"latency-characters-N{n}", N=n) for n in (1, 4, 16, 64, 400, 4000)
)

_BASE = InversionCase("scaling", M=2, N=256, H=10, K=4, O=2, T=50)
SCALING = {
    "N": tuple(replace(_BASE, id=f"scaling-N{n}", N=n) for n in (1, 8, 64, 512, 4096)),
    "H": tuple(replace(_BASE, id=f"scaling-H{h}", H=h) for h in (4, 8, 16, 32, 64)),
    "T": tuple(replace(_BASE, id=f"scaling-T{t}", N=64, T=t) for t in (8, 32, 128, 512)),
}


def shrink(case: Case) -> Case:
    """The same case at toy size, for ``--quick``; its id says so."""
    if isinstance(case, TrainingCase):
        return replace(case, id=f"{case.id}-quick", M=min(case.M, 5), T=min(case.T, 6), E=6)
    return replace(
        case,
        id=f"{case.id}-quick",
        M=min(case.M, 2),
        N=min(case.N, 40),
        H=min(case.H, 24),
        T=min(case.T, 9),
        I=3,
    )


@dataclass(frozen=True, eq=False)
class InversionProblem:
    """The arrays of an :class:`InversionCase`; float32 unless converted."""

    case: InversionCase
    weights: Weights
    targets: Tensor  # (N, T, O)
    init: Tensor  # (1, 1, K)

    def part(self, n_modules: int, n_targets: int) -> InversionProblem:
        """The first modules and targets."""
        M, N = min(n_modules, self.case.M), min(n_targets, self.case.N)
        return InversionProblem(
            replace(self.case, M=M, N=N),
            self.weights[:M],
            self.targets[:N].contiguous(),
            self.init,
        )

    def double(self) -> InversionProblem:
        """In float64."""
        weights = self.weights.to(dtype=torch.float64)
        return InversionProblem(self.case, weights, self.targets.double(), self.init.double())


@dataclass(frozen=True, eq=False)
class TrainingProblem:
    """The arrays of a :class:`TrainingCase`; noise levels float64, the others float32 or int64."""

    case: TrainingCase
    weights: Weights
    type_sets: Tensor  # (S, K, V, T, O), one variant of each type
    set_index: Tensor  # (M,)
    noise_in: Tensor  # (M,)
    noise_out: Tensor  # (M,)
    seeds: Tensor  # (M,)

    def part(self, n_modules: int, n_episodes: int) -> TrainingProblem:
        """The first modules and episodes."""
        M, E = min(n_modules, self.case.M), min(n_episodes, self.case.E)
        return replace(
            self,
            case=replace(self.case, M=M, E=E),
            weights=self.weights[:M],
            set_index=self.set_index[:M],
            noise_in=self.noise_in[:M],
            noise_out=self.noise_out[:M],
            seeds=self.seeds[:M],
        )

    def double(self) -> TrainingProblem:
        """In float64."""
        weights = self.weights.to(dtype=torch.float64)
        return replace(self, weights=weights, type_sets=self.type_sets.double())

    @property
    def fleet(self) -> tuple[Tensor, ...]:
        """What the operator takes between the weights and the settings."""
        return self.type_sets, self.set_index, self.noise_in, self.noise_out, self.seeds

    def draw_episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """What micfast shows the modules: inputs (M, E, K) and targets (M, E, T, O), float64.

        Peers with generators of their own get these numbers for the equality step.
        """
        sets = self.type_sets.double().numpy()
        drawn = [
            [
                sample_episode(
                    int(self.seeds[m]),
                    episode,
                    sets[int(self.set_index[m])],
                    float(self.noise_in[m]),
                    float(self.noise_out[m]),
                )
                for episode in range(self.case.E)
            ]
            for m in range(self.case.M)
        ]
        inputs = np.array([[x for x, _ in module] for module in drawn])
        return inputs, np.array([[target for _, target in module] for module in drawn])


Problem = InversionProblem | TrainingProblem


def make_problem(case: Case) -> Problem:
    """Random weights and sequences for a case, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    # Twice as wide as torch starts them, so that a module's input matters as after training.
    bound = 2 / case.H**0.5
    M, H, K, O, T = case.M, case.H, case.K, case.O, case.T
    decoder = Decoder()
    if isinstance(case, DecoderCase):
        decoder = Decoder(case.latent, case.output, cell=case.cell, n_layers=case.n_layers)
    n_states = 1 if decoder.cell == "gru" else 2  # h_0, and c_0
    R = n_states * H if decoder.sets_state else 4 * H
    shapes = ((M, R, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O))

    def drawn(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    weights = Weights(*map(drawn, shapes), decoder=decoder)
    if decoder.cell == "gru":  # as torch's, see Weights
        weights.W_hh[:, 2 * H : 3 * H] = 0
        weights.W_ih[:, 3 * H :] = 0
    if decoder.n_layers > 1:
        weights = _with_second_layer(
            weights, [drawn(shapes[1]), drawn(shapes[1]), drawn(shapes[2])]
        )
    if isinstance(case, InversionCase):
        targets = _smooth_sequences(case.N, T, O, generator)
        return InversionProblem(case, weights, targets, torch.full((1, 1, K), 1 / K))
    n_sets = min(M, N_TYPE_SETS)
    types = _smooth_sequences(n_sets * K, T, O, generator).reshape(n_sets, K, 1, T, O)
    module = torch.arange(M)
    setting = module // n_sets % (len(case.noise_in) * len(case.noise_out))
    noise_in = torch.tensor(case.noise_in, dtype=torch.float64)
    noise_out = torch.tensor(case.noise_out, dtype=torch.float64)
    return TrainingProblem(
        case,
        weights,
        types,
        module % n_sets,
        noise_in[setting // len(case.noise_out)],
        noise_out[setting % len(case.noise_out)],
        module + 1,
    )


def _with_second_layer(weights: Weights, second: list[Tensor]) -> Weights:
    """Weights of two layers, of those of the first and W_ih, W_hh and b of the second."""
    H = weights.hidden_size
    if weights.decoder.cell == "gru":
        second[0][:, 3 * H :] = 0
        second[1][:, 2 * H : 3 * H] = 0
    joined = []
    for m in range(weights.n_modules):
        first = Layers(*(tensor[m] for tensor in weights), cell=weights.decoder.cell)
        layers = as_one_layer(first, *(tensor[m] for tensor in second))
        tensors = (tensor[None] for tensor in layers[:5])
        assert layers.b_first is not None
        joined.append(Weights(*tensors, decoder=weights.decoder, b_first=layers.b_first[None]))
    return Weights.concat(joined)


def _smooth_sequences(n: int, T: int, O: int, generator: torch.Generator) -> Tensor:
    """Sums of three slow waves (n, T, O), of variance near one."""
    time = torch.linspace(0, 1, T)[None, :, None, None]
    frequency = 2.5 * torch.rand(n, 1, O, 3, generator=generator)
    phase = torch.rand(n, 1, O, 3, generator=generator)
    waves = torch.sin(2 * torch.pi * (frequency * time + phase)).sum(dim=-1)
    return waves.mul_((2 / 3) ** 0.5).contiguous()
