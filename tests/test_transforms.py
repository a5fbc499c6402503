"""``generate`` under torch's transforms: compile, torch.func, second order, forward mode.

The kernel's derivatives are held against those of the reference, which is plain PyTorch.
"""

import shutil

import pytest
import torch
from helpers import needs_kernel, random_weights
from torch import nn
from torch.autograd import forward_ad

import micfast
from micfast import Adam, Execution, GeneratorBank, LevenbergMarquardt, Weights

M, N, T, H, K, O = 2, 3, 5, 4, 3, 2
F = torch.func
LATENTS = 5  # the position of the latents among the inputs

pytestmark = needs_kernel  # without it generate is the reference


@pytest.fixture
def inputs():
    """Weights and latents."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.rand(M, N, K, dtype=torch.float64, generator=generator)
    return (*random_weights(M, H, K, O, torch.float64), latents)


def draw(backend):
    execution = Execution(backend)
    return lambda *tensors: micfast.generate(
        Weights(*tensors[:5]), tensors[5], T, execution=execution
    )


def loss(backend):
    """A number whose derivatives of every order depend on everything."""
    return lambda *tensors: draw(backend)(*tensors).pow(3).sum(dim=(-2, -1)).cos().sum()


def assert_same(of, *, rtol=1e-9):
    """What a function makes of the kernel is what it makes of the reference, and is not zero."""
    kernel, reference = of("auto"), of("torch")
    for tensor in torch.utils._pytree.tree_leaves(reference):
        assert tensor.abs().max() > 1e-6
    torch.testing.assert_close(kernel, reference, rtol=rtol, atol=1e-12)


# -- torch.func ----------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", range(6))
@pytest.mark.parametrize(
    "transform",
    [F.grad, F.jacrev, F.jacfwd, F.hessian, lambda f, i: F.jacrev(F.jacrev(f, i), i)],
    ids=["grad", "jacrev", "jacfwd", "hessian", "jacrev of jacrev"],
)
def test_derivatives(inputs, transform, argument):
    assert_same(lambda backend: transform(loss(backend), argument)(*inputs))


def test_mixed_derivatives(inputs):
    assert_same(lambda backend: F.jacfwd(F.grad(loss(backend), LATENTS), 0)(*inputs))
    assert_same(lambda backend: F.jacrev(F.grad(loss(backend), 1), LATENTS)(*inputs))


def test_third_derivatives(inputs):
    *weights, latents = inputs

    def third(backend):
        return F.jacrev(F.hessian(lambda z: loss(backend)(*weights, z)))(latents[:, :1])

    assert_same(third)


def test_jvp_and_vjp(inputs):
    tangents = tuple(tensor.flip(0) for tensor in inputs)
    assert_same(lambda backend: F.jvp(draw(backend), inputs, tangents))
    outputs = draw("torch")(*inputs)
    assert_same(lambda backend: F.vjp(draw(backend), *inputs)[1](outputs))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(
    "batched", [(LATENTS,), (0,), (1, 4), (0, 1, 2, 3, 4, LATENTS)], ids=lambda b: f"{b}"
)
def test_vmap(inputs, batched, axis):
    in_dims = tuple(axis if i in batched else None for i in range(6))
    batches = tuple(
        torch.stack([t, t.flip(0), t / 2, -t], dim=axis) if i in batched else t
        for i, t in enumerate(inputs)
    )
    assert_same(lambda backend: F.vmap(draw(backend), in_dims)(*batches))
    # Each member's own gradients, also those of what all members share.
    every = tuple(range(6))
    assert_same(lambda backend: F.vmap(F.grad(loss(backend), every), in_dims)(*batches))


def test_vmap_of_vmap(inputs):
    *weights, latents = inputs
    batches = torch.stack([latents, latents / 2, latents.flip(0)])
    both = torch.stack([weights[4], -weights[4]])

    def drawn(backend):
        def one(b_out, z):
            return draw(backend)(*weights[:4], b_out, z)

        return F.vmap(lambda b_out: F.vmap(lambda z: one(b_out, z), out_dims=2)(batches))(both)

    assert_same(drawn)


def test_vmap_warns_of_no_slow_path(inputs, capfd):
    *weights, latents = inputs
    F.vmap(F.grad(lambda z: loss("auto")(*weights, z)))(torch.stack([latents, latents]))
    assert "batching rule" not in "".join(capfd.readouterr())


# -- autograd ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [False, True])
def test_second_order_of_autograd(inputs, operator):
    inputs = [tensor.requires_grad_() for tensor in inputs]

    def second(backend):
        if operator and backend == "auto":
            drawn = torch.ops.micfast.generate(*inputs, T)
        else:
            drawn = draw(backend)(*inputs)
        first = torch.autograd.grad(drawn.pow(3).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    assert_same(second)


def test_forward_mode(inputs):
    *weights, latents = inputs

    def tangent(backend):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(latents, latents.flip(0))
            return forward_ad.unpack_dual(draw(backend)(*weights, dual)).tangent

    assert_same(tangent)
    with pytest.raises(RuntimeError, match="'cpu' has no forward-mode derivatives; use 'auto' or"):
        tangent("cpu")


def test_searches_have_no_gradient(inputs):
    *weights, _ = inputs
    targets = torch.zeros(N, T, O, dtype=torch.float64, requires_grad=True)
    start = torch.full((K,), 1 / K, dtype=torch.float64, requires_grad=True)
    bank = GeneratorBank(Weights(*(w.requires_grad_() for w in weights)))
    for solver in (Adam(2, start=start), LevenbergMarquardt(2, start=start)):
        for backend in ("auto", "torch"):
            result = micfast.invert(bank, targets, solver=solver, execution=backend)
            assert not result.errors.requires_grad
            assert not result.latents.requires_grad


# -- torch.compile -------------------------------------------------------------------------------


class Painter(nn.Module):
    """A model around the operator: from images to sequences, weights of its own."""

    def __init__(self, weights):
        super().__init__()
        self.encode = nn.Linear(4, M * K, dtype=torch.float64)
        self.weights = nn.ParameterList(nn.Parameter(w.clone()) for w in weights)
        self.mix = nn.Linear(O, 1, dtype=torch.float64)

    def forward(self, images, n_steps=T):
        latents = self.encode(images).unflatten(1, (M, K)).softmax(dim=-1).transpose(0, 1)
        drawn = micfast.generate(Weights(*self.weights), latents, n_steps)
        return self.mix(drawn).tanh()


@pytest.fixture
def painter(inputs):
    torch.manual_seed(0)
    return Painter(inputs[:5])


def assert_compiled_same(painter, compiled, images, n_steps=T):
    results = []
    for model in (painter, compiled):
        painter.zero_grad()
        drawn = model(images, n_steps)
        drawn.square().sum().backward()
        results.append((drawn.detach(), [p.grad.clone() for p in painter.parameters()]))
    assert all(gradient.abs().max() > 0 for gradient in results[0][1])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_compile(painter):
    torch.compiler.reset()
    compiled = torch.compile(painter, fullgraph=True, backend="aot_eager")
    assert_compiled_same(painter, compiled, torch.rand(7, 4, dtype=torch.float64))


@pytest.mark.slow  # a compiler runs
@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch's own compiler needs a C++ compiler at run time",
)
def test_compile_with_inductor(inputs, monkeypatch):
    from torch._inductor import config

    torch.compiler.reset()
    monkeypatch.setattr(config, "compile_threads", 1)  # no pool of processes for two small files
    *weights, latents = inputs

    def error(latents):
        return micfast.generate(Weights(*weights), latents, T).sin().square().sum()

    compiled = torch.compile(error, fullgraph=True)
    results = []
    for function in (error, compiled):
        z = latents.clone().requires_grad_()
        value = function(z)
        value.backward()
        results.append((value.detach(), z.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_compile_with_dynamic_sizes(painter):
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(painter, fullgraph=True, dynamic=True, backend=counter)
    for n_images, n_steps in ((7, 5), (3, 9), (12, 4)):
        images = torch.rand(n_images, 4, dtype=torch.float64)
        assert_compiled_same(painter, compiled, images, n_steps)
    assert counter.frame_count == 1


def test_compile_of_a_bank_and_of_the_searches(inputs):
    torch.compiler.reset()
    *weights, latents = inputs
    bank = GeneratorBank(Weights(*weights))
    targets = torch.rand(N, T, O, dtype=torch.float64)
    start = torch.full((1, 1, 1, K), 1 / K, dtype=torch.float64)

    def use(z, targets):
        drawn = bank.generate(z, T)
        adam = (0.05, 0.9, 0.99, 1e-8)
        return drawn, torch.ops.micfast.invert(
            *weights, targets, start, 3, *adam, False, False, 0.0
        )

    compiled = torch.compile(use, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(latents, targets), use(latents, targets))


@pytest.mark.slow
def test_compile_of_transforms(inputs):
    """What torch cannot trace is an error, never a wrong number."""
    torch.compiler.reset()
    *weights, latents = inputs

    def pushed(z):
        return F.jvp(lambda z: draw("auto")(*weights, z), (z,), (z,))

    compiled = torch.compile(pushed, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(latents), pushed(latents))
    gradient = F.grad(lambda z: loss("auto")(*weights, z))
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.compile(gradient, fullgraph=True, backend="eager")(latents)
    through_torch = F.grad(lambda z: loss("torch")(*weights, z))
    compiled = torch.compile(through_torch, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(latents), gradient(latents))
