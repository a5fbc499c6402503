"""The definition of training in plain PyTorch, with its random numbers.

Like ``reference.py``, which it builds on; E episodes, S type sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from micfast.kernels.reference import Structure, generate, mean_squared_error

__all__ = [
    "INPUT_STREAM",
    "TARGET_STREAM",
    "TrainResult",
    "philox_4x32",
    "philox_normal",
    "sample_episode",
    "train",
]

_TYPE_STREAM, INPUT_STREAM, TARGET_STREAM = 0, 1, 2


class TrainResult(NamedTuple):
    """What :func:`train` returns: the trained weights and the training loss over time.

    Examples
    --------
    >>> from micfast.kernels.reference_training import TrainResult
    >>> TrainResult._fields[:6]
    ('W_ih', 'W_hh', 'b', 'W_out', 'b_out', 'loss_curve')
    """

    W_ih: Tensor  # (M, 4H, K)
    W_hh: Tensor  # (M, 4H, H)
    b: Tensor  # (M, 4H)
    W_out: Tensor  # (M, O, H)
    b_out: Tensor  # (M, O)
    loss_curve: Tensor  # (M, n_curve), mean loss of consecutive runs of episodes
    b_first: Tensor  # (M, 4H) and (M, R), or (M, 0)
    b_state: Tensor


def philox_4x32(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Philox4x32-10 (Salmon et al., SC 2011): four random words for a key and a counter.

    Parameters
    ----------
    key : uint32 array of shape (..., 2)
    counter : uint32 array of shape (..., 4)

    Returns
    -------
    uint32 array of shape (..., 4)
    """
    k = [key[..., j].astype(np.uint64) for j in range(2)]
    x = [counter[..., j].astype(np.uint64) for j in range(4)]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [
            (p1 >> np.uint64(32)) ^ x[1] ^ k[0],
            p1 & low,
            (p0 >> np.uint64(32)) ^ x[3] ^ k[1],
            p0 & low,
        ]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.stack(np.broadcast_arrays(*x), axis=-1).astype(np.uint32)


def _philox_words(seed: int, episode: int, stream: int, n_blocks: int) -> np.ndarray:
    """Random words (n_blocks, 4) of one stream of one episode of one module."""
    seed, episode = seed % 2**64, episode % 2**64
    key = np.array([seed % 2**32, seed // 2**32], dtype=np.uint32)
    counter = np.empty((n_blocks, 4), dtype=np.uint32)
    counter[:, 0] = np.arange(n_blocks)
    counter[:, 1] = stream
    counter[:, 2], counter[:, 3] = episode % 2**32, episode // 2**32
    return philox_4x32(key, counter)


def philox_normal(seed: int, episode: int, stream: int, n: int) -> np.ndarray:
    """The first ``n`` standard normal numbers (float64) of a stream (Box-Muller transform)."""
    words = _philox_words(seed, episode, stream, -(-n // 4)).reshape(-1, 2)
    u = (words >> 8).astype(np.float64)
    radius = np.sqrt(-2 * np.log((u[:, 0] + 1) * 2.0**-24))
    angle = 2 * np.pi * u[:, 1] * 2.0**-24
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).ravel()[:n]


def sample_episode(
    seed: int, episode: int, types: np.ndarray, noise_in: float, noise_out: float
) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of one training episode.

    A pure function of its arguments: a counter-based generator keeps a module's training
    independent of every other module and of the order of the work.

    Parameters
    ----------
    seed : int
        The module's seed, 64 bits.
    episode : int
        Episode number, from 0.
    types : array of shape (K, V, T, O)
        V variants of each type.
    noise_in, noise_out : float
        Standard deviations of the noise on the input (then clipped to [0, 1]) and the target.

    Returns
    -------
    x : float64 array of shape (K,)
    target : float64 array of shape (T, O)
    """
    n_types = types.shape[0]
    words = _philox_words(seed, episode, _TYPE_STREAM, 1)[0]
    index = (int(words[0]) * n_types) >> 32
    drawn = types[index, (int(words[1]) * types.shape[1]) >> 32]
    x = np.zeros(n_types)
    x[index] = 1.0
    x = np.clip(x + noise_in * philox_normal(seed, episode, INPUT_STREAM, n_types), 0, 1)
    noise = philox_normal(seed, episode, TARGET_STREAM, drawn.size)
    return x, drawn + noise_out * noise.reshape(drawn.shape)


def train(
    weights: Iterable[Tensor],
    type_sets: Tensor,
    set_index: Tensor,
    noise_in: Tensor,
    noise_out: Tensor,
    seeds: Tensor,
    n_episodes: int,
    lr: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    n_curve: int = 100,
    progress: Callable[[int], None] | None = None,
    omit_nan: bool = False,
    structure: Structure | None = None,
) -> TrainResult:
    """Train a fleet of M modules, each on its own types, with batch size 1.

    An episode draws one of the K types; its one-hot code (plus noise, clipped to [0, 1]) is the
    input, its sequence (plus noise) the target; one Adam step (with bias correction, as
    ``torch.optim.Adam``) on the mean squared error over T and O. The last weights are kept.

    Parameters
    ----------
    weights : five Tensors
        Initial weights, as in :func:`generate`; left unchanged.
    type_sets : Tensor of shape (S, K, V, T, O)
        S sets of types; V variants of every type, of which an episode shows one.
    set_index : int64 Tensor of shape (M,)
        Which type set a module learns.
    noise_in, noise_out : Tensor of shape (M,)
        Standard deviations, see :func:`sample_episode`.
    seeds : int64 Tensor of shape (M,)
    n_episodes : int
    lr, beta1, beta2, eps : float
        Adam's settings.
    n_curve : int
        Length of the loss curve; at most ``n_episodes`` points are returned.
    progress : callable, optional
        Called with the number of episodes done, after each one.
    omit_nan : bool
        Treat NaN in ``type_sets`` as missing values: an episode's error is the mean over the
        others. A shorter type is one that ends in NaN.
    structure : Structure, optional
        As in :func:`generate`; ``b_first`` and ``b_state`` are trained, too.

    Returns
    -------
    TrainResult

    Examples
    --------
    >>> import torch
    >>> from micfast import GeneratorBank
    >>> from micfast.kernels import reference_training
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> types = torch.ones(1, 3, 1, 8, 1)  # one set of three types
    >>> which, noise = torch.zeros(2, dtype=torch.int64), torch.zeros(2)
    >>> found = reference_training.train(
    ...     bank.weights, types, which, noise, noise, torch.tensor([2, 3]), n_episodes=10
    ... )
    >>> found.W_out.shape, found.loss_curve.shape
    (torch.Size([2, 1, 5]), torch.Size([2, 10]))
    """
    structure = Structure() if structure is None else structure
    more = [name for name in ("b_first", "b_state") if getattr(structure, name) is not None]
    initial = [*weights, *(getattr(structure, name) for name in more)]
    weights = [w.detach().clone().requires_grad_(True) for w in initial]
    trained_too: dict[str, Any] = dict(zip(more, weights[5:], strict=True))
    structure = structure._replace(**trained_too)
    dtype, device = weights[0].dtype, weights[0].device
    # torch trains two bias vectors with equal gradients: their sum moves twice as far.
    step_scale = (1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0)
    m = [torch.zeros_like(w) for w in weights]
    v = [torch.zeros_like(w) for w in weights]
    n_curve = min(n_curve, n_episodes)
    curve = torch.zeros(len(weights[0]), n_curve, dtype=torch.float64, device="cpu")
    counts = torch.zeros(n_curve, dtype=torch.float64, device="cpu")
    sets = type_sets.detach().double().cpu().numpy()
    per_module = list(
        zip(set_index.tolist(), noise_in.tolist(), noise_out.tolist(), seeds.tolist(), strict=True)
    )
    for episode in range(n_episodes):
        drawn = [
            sample_episode(seed, episode, sets[s], n_in, n_out)
            for s, n_in, n_out, seed in per_module
        ]
        x = torch.as_tensor(np.stack([d[0] for d in drawn]), dtype=dtype, device=device)
        target = torch.as_tensor(np.stack([d[1] for d in drawn]), dtype=dtype, device=device)
        with torch.enable_grad():
            output = generate(weights[:5], x[:, None, :], target.shape[1], structure)[:, 0]
            if omit_nan:
                loss = mean_squared_error(output, target, omit_nan=True)
            else:
                loss = (output - target).square().mean(dim=(-2, -1))
            gradients = torch.autograd.grad(loss.sum(), weights)
        with torch.no_grad():
            correction1, correction2 = 1 - beta1 ** (episode + 1), 1 - beta2 ** (episode + 1)
            for j, g in enumerate(gradients):
                m[j] = beta1 * m[j] + (1 - beta1) * g
                v[j] = beta2 * v[j] + (1 - beta2) * g.square()
                denominator = v[j].sqrt() / correction2**0.5 + eps
                weights[j] -= step_scale[j] * lr / correction1 * m[j] / denominator
        point = episode * n_curve // n_episodes
        curve[:, point] += loss.detach().double().cpu()
        counts[point] += 1
        if progress is not None:
            progress(episode + 1)
    curve = (curve / counts).to(dtype=dtype, device=device)
    trained = [w.detach() for w in weights]
    rest = dict.fromkeys(("b_first", "b_state"), curve.new_empty(len(curve), 0))
    rest |= dict(zip(more, trained[5:], strict=True))
    return TrainResult(
        trained[0],
        trained[1],
        trained[2],
        trained[3],
        trained[4],
        curve,
        rest["b_first"],
        rest["b_state"],
    )
