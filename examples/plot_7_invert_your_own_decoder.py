"""
Invert your own decoder
=======================

Six decoders as people write them, each beside the loop that searches for its latents by hand: a
loop with an ``nn.LSTM`` or ``nn.GRU`` and :class:`torch.optim.Adam`, and the same in one call of
:func:`micfast.invert`.
"""

# %%
# The decoders
# ------------
# They differ in where the latent enters and in what follows the read-out. All have 16 hidden units
# and random weights. We use one thread, because loops over modules this small are slower with more.

import time

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import nn

import micfast
from micfast.search.starts.drawn import Normal

torch.set_num_threads(1)
K, H, O, T, N_TARGETS, N_ITER = 3, 16, 2, 60, 40, 60


class Decoder(nn.Module):
    """Draws sequences (n, n_steps, O) from latents (n, K)."""

    def __init__(self, n_inputs=O, layer=nn.LSTM):
        super().__init__()
        self.rnn, self.out = layer(n_inputs, H, batch_first=True), nn.Linear(H, O)


class FirstInput(Decoder):
    """The latent is the first input, zeros follow."""

    def __init__(self):
        super().__init__(n_inputs=K)

    def forward(self, z, n_steps):
        x = torch.cat([z[:, None], z.new_zeros(len(z), n_steps - 1, K)], dim=1)
        return self.out(self.rnn(x)[0])


class EveryStep(Decoder):
    """A GRU; the latent is the input of every step; tanh."""

    def __init__(self):
        super().__init__(n_inputs=K, layer=nn.GRU)

    def forward(self, z, n_steps):
        return torch.tanh(self.out(self.rnn(z[:, None].repeat(1, n_steps, 1))[0]))


class InitialState(Decoder):
    """A layer and tanh make h_0 and c_0 of the latent."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(K, 2 * H)

    def forward(self, z, n_steps):
        h, c = torch.tanh(self.start(z))[None].chunk(2, dim=-1)
        inputs = z.new_zeros(len(z), n_steps, O)
        return self.out(self.rnn(inputs, (h.contiguous(), c.contiguous()))[0])


class FedBack(Decoder):
    """Each output is the next input; a layer makes h_0 of the latent."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(K, H)

    def forward(self, z, n_steps):
        h = self.start(z)[None]
        y, state, drawn = z.new_zeros(len(z), 1, O), (h, torch.zeros_like(h)), []
        for _ in range(n_steps):
            output, state = self.rnn(y, state)
            y = self.out(output)
            drawn.append(y)
        return torch.cat(drawn, dim=1)


class Embedded(Decoder):
    """The latent is embedded; positive outputs in units of their own."""

    def __init__(self):
        super().__init__(n_inputs=5)
        self.embed = nn.Linear(K, 5)
        self.register_buffer("unit", torch.tensor([2.0, 0.5]))

    def forward(self, z, n_steps):
        x = torch.cat([self.embed(z)[:, None], z.new_zeros(len(z), n_steps - 1, 5)], dim=1)
        return self.unit * nn.functional.softplus(self.out(self.rnn(x)[0]))


class TwoStates(Decoder):
    """A layer each makes h_0 and c_0; sigmoid."""

    def __init__(self):
        super().__init__()
        self.to_h, self.to_c = nn.Linear(K, H), nn.Linear(K, H)

    def forward(self, z, n_steps):
        state = self.to_h(z)[None], self.to_c(z)[None]
        return torch.sigmoid(self.out(self.rnn(z.new_zeros(len(z), n_steps, O), state)[0]))


# %%
# The loops
# ---------
# The hand-written loop is the same for all but for what each does after a step, its loss, its
# schedule and its starts.


def squared(drawn, targets, z):
    return (drawn - targets).square().mean((1, 2))


def invert_by_hand(module, targets, start, loss=squared, after_step=None, cosine=False):
    z = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N_ITER)
    for _ in range(N_ITER):
        optimizer.zero_grad()
        loss(module(z, T), targets, z).sum().backward()
        optimizer.step()
        if cosine:
            scheduler.step()
        if after_step is not None:
            with torch.no_grad():
                after_step(z)
    with torch.no_grad():
        return loss(module(z, T), targets, z)


def onto_simplex(z):
    z.clamp_(0, 1)
    z /= z.sum(1, keepdim=True)


def with_prior(drawn, targets, z):
    return squared(drawn, targets, z) + 0.001 * z.square().sum(1)


weights = torch.linspace(1, 0.1, T)[:, None]  # later steps count less


def weighted(drawn, targets, z):
    squares = (weights * (drawn - targets) ** 2).mean(2)
    return squares.sum(1) / weights.sum()


# %%
# In micfast each is a few arguments of :class:`~micfast.Adam`:

CASES = [
    (FirstInput, {"after_step": onto_simplex}, {"constraint": "simplex"}),
    (
        EveryStep,
        {"after_step": lambda z: z.clamp_(-1, 1)},
        {"constraint": "box", "bounds": (-1, 1)},
    ),
    (InitialState, {"loss": with_prior}, {"loss": micfast.Loss(prior_weight=0.001)}),
    (FedBack, {"loss": weighted}, {"loss": micfast.Loss(weights=weights)}),
    (Embedded, {"cosine": True}, {"schedule": "cosine"}),
    (TwoStates, {}, {"start": Normal(n_starts=4, random_state=0)}),
]

# %%
# The targets of each decoder are drawn by itself, from latents that are then forgotten, with noise.
# ``micfast.invert`` takes the module itself and finds out how it draws; here that is done before
# the clock starts, by :meth:`micfast.GeneratorBank.from_modules`, as one does to invert often.
# Restarts, in the last row, are runs of the hand-written loop of which the best is kept.

found = []
print(f"{'decoder':>13}{'error by hand':>15}{'micfast':>10}{'times as fast':>15}")
for i, (build, by_hand, settings) in enumerate(CASES):
    torch.manual_seed(i)
    module = build()
    with torch.no_grad():
        for weight in module.parameters():
            weight *= 2
        z = torch.rand(N_TARGETS, K)
        z = z / z.sum(1, keepdim=True)
        targets = module(z, T)
        targets += 0.05 * targets.std() * torch.randn_like(targets)

    start = torch.full((N_TARGETS, K), 1 / K)
    solver = {"constraint": None, "start": start} | settings
    solver = micfast.Adam(N_ITER, 0.05, (0.9, 0.999), bias_correction=True, **solver)
    bank = micfast.GeneratorBank.from_modules(module)
    began = time.perf_counter()
    result = micfast.invert(bank, targets, solver=solver)
    seconds = time.perf_counter() - began

    starts = [start] if "start" not in settings else torch.randn(4, N_TARGETS, K)
    began = time.perf_counter()
    runs = [invert_by_hand(module, targets, start, **by_hand) for start in starts]
    errors = torch.stack(runs).amin(0)
    ratio = (time.perf_counter() - began) / seconds
    ours = result.errors.mean().item()
    print(f"{build.__name__:>13}{errors.mean().item():>15.5f}{ours:>10.5f}{ratio:>15.0f}")
    found.append((build.__name__, targets, result))

# %%
# Reported errors are those of the module itself: its loss at micfast's latent. The first target of
# each decoder, and its reconstruction.

_, axes = plt.subplots(2, 3, figsize=(8, 3.6), layout="constrained", sharex=True)
for ax, (name, targets, result) in zip(axes.flat, found, strict=True):
    ax.plot(targets[0].numpy(), color="0.7")
    ax.plot(np.asarray(result.reconstructions()[0]), lw=1)
    ax.set_title(name)
plt.show()

# %%
# If the minimum matters and not the way, :class:`~micfast.LevenbergMarquardt` takes the same
# constraints and losses, and needs a few iterations:

name, targets, result = found[2]
solver = micfast.LevenbergMarquardt(
    15, constraint=None, start=[1 / K] * K, loss=micfast.Loss(prior_weight=0.001)
)
better = micfast.invert(result.bank, targets, solver=solver)
print(f"{name}: Adam {result.errors.mean():.5f}, Levenberg-Marquardt {better.errors.mean():.5f}")
