"""
Inverting your own nn.LSTM modules
==================================

The modules need not come from micfast. Here four modules are written and trained in plain PyTorch,
and :func:`micfast.invert` inverts the list of modules as it is.
"""

# %%
# A module draws a whole sequence from a latent, which it reads at the first step. We use one
# thread, because a loop over modules this small is slower with more.

import time

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import nn

import micfast

torch.set_num_threads(1)


class Wave(nn.Module):
    """Draws sequences of one channel from a latent of three numbers."""

    def __init__(self, hidden_size=12):
        super().__init__()
        self.lstm = nn.LSTM(3, hidden_size, batch_first=True)
        self.out = nn.Linear(hidden_size, 1)

    def forward(self, z, n_steps):
        x = torch.cat([z[:, None], z.new_zeros(len(z), n_steps - 1, 3)], dim=1)
        return self.out(self.lstm(x)[0])


# %%
# Each module learns three types of its wave, one for each corner of the simplex.

torch.manual_seed(0)
t = torch.linspace(0, 1, 50)
SHAPES = {
    "sine": lambda f: torch.sin(2 * torch.pi * f * t),
    "decay": lambda f: torch.exp(-3 * f * t),
    "rise": lambda f: torch.tanh(4 * f * t),
    "pulse": lambda f: torch.exp(-(((t - 0.3 * f) / 0.1) ** 2)),
}
FREQUENCIES = (0.8, 1.2, 1.6)
modules = []
for shape in SHAPES.values():
    module = Wave()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    types = torch.stack([shape(f) for f in FREQUENCIES])[..., None]
    for _ in range(300):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(module(torch.eye(3), len(t)), types)
        loss.backward()
        optimizer.step()
    modules.append(module)
    print(f"trained to {loss.item():.5f}")

# %%
# The targets lie between the learned types and are noisy. A hand-written loop projects the latent,
# differentiates through the LSTM and takes a step, for every module and for all targets as one
# batch.

frequencies = 0.8 + 0.8 * torch.rand(len(SHAPES), 25)
drawn = [shape(f) for shape, fs in zip(SHAPES.values(), frequencies, strict=True) for f in fs]
targets = torch.stack(drawn)[..., None]
targets = targets + 0.05 * torch.randn_like(targets)
labels = np.repeat(list(SHAPES), 25)


def project(z):
    z = z.clamp(0, 1)
    return z / z.sum(1, keepdim=True)


def invert_by_hand(module, targets, n_iter=50, lr=0.05):
    z, m, v = torch.full((len(targets), 3), 1 / 3), 0.0, 0.0
    for _ in range(n_iter):
        z = project(z).requires_grad_()
        error = (module(z, targets.shape[1]) - targets).square().mean((1, 2)).sum()
        (g,) = torch.autograd.grad(error, z)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        z = z.detach() - lr * m / (v.sqrt() + 1e-8)
    with torch.no_grad():
        return (module(project(z), targets.shape[1]) - targets).square().mean((1, 2))


start = time.perf_counter()
by_hand = torch.stack([invert_by_hand(module, targets) for module in modules], dim=1)
loop_seconds = time.perf_counter() - start

# %%
# The same in one call. A few errors may differ: when two latents reconstruct the target equally
# well, rounding decides which one Adam reaches. (The modules' weights are copied into a
# :class:`~micfast.GeneratorBank`; build one yourself if you invert often.)

bank = micfast.GeneratorBank.from_modules(modules, classes=SHAPES)
start = time.perf_counter()
found = micfast.invert(bank, targets)
micfast_seconds = time.perf_counter() - start

difference = (found.errors - by_hand).abs() / by_hand
print(f"errors that agree to 1 in 1000: {(difference < 1e-3).float().mean():.1%}")
print(f"the loop took {loop_seconds / micfast_seconds:.0f} times as long in this run")
print(f"accuracy {(found.predictions == labels).mean():.2f}")

# %%
# Each module's reconstruction of the first pulse.

_, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
first = int(np.flatnonzero(labels == "pulse")[0])
micfast.ReconstructionDisplay.from_inversion(
    targets, found, index=first, which="all", y_true=labels, ax=ax
)
plt.show()

# %%
# The Levenberg–Marquardt solver needs fewer steps and here reaches lower errors:

better = micfast.invert(bank, targets, solver="lm")
print(f"mean of the best errors, Adam   {found.errors.min(1).values.mean():.5f}")
print(f"                         LM     {better.errors.min(1).values.mean():.5f}")
