"""Loops over latents as people write them: constraints, priors, weights and step sizes."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import operators
import pytest
import torch
from decoders import FEW, name_of
from decoders import random_weights as random_decoder
from helpers import ISAS, assert_same_lm_searches, needs_kernel, random_weights, torch_modules
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from micfast import Adam, Execution, GeneratorBank, LevenbergMarquardt, Loss, check, invert
from micfast.kernels import calls, reference
from micfast.kernels.reference import Objective
from micfast.search.starts.drawn import Dirichlet, Normal

# -- the kernel is the reference -------------------------------------------------------------------

sizes = st.tuples(
    st.sampled_from([1, 2, 5]),  # M
    st.sampled_from([0, 1, 3, 9]),  # N
    st.sampled_from([1, 2, 5]),  # T
    st.sampled_from([1, 3, 8, 13]),  # H
    st.sampled_from([1, 2, 5]),  # K
    st.sampled_from([1, 2, 5]),  # O
)


@dataclass(frozen=True)
class Loop:
    """A loop, as a point of a table of all."""

    constraint: str | None
    weighted: bool
    prior: bool
    bias_correction: bool = False
    schedule: bool = False
    huber: bool = False

    def objective(self, T, K, O, dtype=torch.float64):
        rng = torch.Generator().manual_seed(T + 10 * K + 100 * O)

        def drawn(*shape):
            return torch.rand(shape, generator=rng, dtype=torch.float64).to(dtype)

        bounds = torch.stack([-0.6 * drawn(K), 0.2 + 0.6 * drawn(K)])
        weights = 0.1 + drawn(T, O)
        if T * O > 1:
            weights[-1, 0] = 0
        return Objective(
            bounds if self.constraint == "box" else None,
            weights if self.weighted else None,
            0.05 if self.prior else 0.0,
            drawn(K) - 0.5 if self.prior else None,
            0.7 if self.constraint == "sphere" else None,
            0.5 if self.huber else None,
        )

    def adam(self, n_iter):
        factors = torch.linspace(1, 0.1, n_iter, dtype=torch.float64)
        loop = {"simplex": self.constraint == "simplex", "bias_correction": self.bias_correction}
        return loop | ({"schedule": factors} if self.schedule else {})


constraints, flags = ["simplex", "box", None], st.booleans()
loops = st.builds(Loop, st.sampled_from([*constraints, "sphere"]), *[flags] * 5)
sums_of_squares = st.builds(Loop, st.sampled_from(constraints), flags, flags)
gaps = st.booleans()


def drawn_problem(size, omit, dtype=torch.float64):
    M, N, T, H, K, O = size
    rng = torch.Generator().manual_seed(N + T)
    targets = torch.randn(N, T, O, generator=rng, dtype=torch.float64)
    if omit and N and T > 1:
        targets[0, T - 1 :] = torch.nan
        targets[-1, 0, 0] = torch.nan
    start = torch.randn(M, N, 2, K, generator=rng, dtype=torch.float64)
    return random_weights(M, H, K, O, dtype), targets.to(dtype), start.to(dtype)


@needs_kernel
@given(size=sizes, loop=loops, omit=gaps, n_iter=st.integers(0, 4))
def test_adam_is_the_reference(isa, size, loop, omit, n_iter):
    """Clipping is continuous, as is all else far from 0, so no rounding decides anything."""
    arguments = (*drawn_problem(size, omit), n_iter, 0.1)
    run = {
        "return_history": True,
        "omit_nan": omit,
        "objective": loop.objective(size[2], *size[4:]),
    }
    kernel = operators.invert(*arguments, backend="cpu", **run, **loop.adam(n_iter))
    expected = operators.invert(*arguments, backend="torch", **run, **loop.adam(n_iter))
    for got, want in zip(kernel, expected, strict=True):
        assert_close(got, want, rtol=1e-7, atol=1e-8, equal_nan=True)


@needs_kernel
@given(size=sizes, loop=sums_of_squares, omit=gaps, n_iter=st.integers(0, 4))
def test_lm_is_the_reference(isa, size, loop, omit, n_iter):
    weights, targets, start = drawn_problem(size, False)
    objective = loop.objective(size[2], *size[4:])
    if omit and len(targets) and size[2] > 1:
        targets[0, -1, -1] = torch.nan
    simplex = loop.constraint == "simplex"
    arguments = (weights, targets, start, n_iter, 0.1, simplex, True, 0.0, True)
    kernel = operators.invert_lm(*arguments, backend="cpu", objective=objective)
    expected = operators.invert_lm(*arguments, backend="torch", objective=objective)
    assert_same_lm_searches(kernel, expected, weights, targets, True, objective)
    if objective.bounds is not None:
        z = kernel.latent_history
        assert ((z >= objective.bounds[0]) & (z <= objective.bounds[1])).all()


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("structure", FEW[::2], ids=name_of)
def test_decoders_of_other_structures(structure):
    T, H, K, O = 5, 6, 3, 2
    weights = random_decoder(structure, 2, H, K, O)
    targets = torch.rand(9, T, O, generator=torch.Generator().manual_seed(0)).double()
    start = torch.full((1, 1, 1, K), 0.3, dtype=torch.float64)
    for constraint in ("box", None, "sphere"):
        loop = Loop(constraint, True, True, True, True, huber=constraint == "sphere")
        objective = loop.objective(T, K, O)
        run = {"objective": objective, "return_history": True}
        arguments = (weights, targets, start, 3)
        kernel, expected = (
            operators.invert(*arguments, backend=backend, **run, **loop.adam(3))
            for backend in ("cpu", "torch")
        )
        assert_close(kernel.error_history, expected.error_history, rtol=1e-7, atol=1e-9)
        if loop.huber:
            continue
        kernel, expected = (
            operators.invert_lm(*arguments, backend=backend, **run, simplex=False)
            for backend in ("cpu", "torch")
        )
        assert_same_lm_searches(kernel, expected, weights, targets, objective=objective)


@needs_kernel
@pytest.mark.parametrize("isa", ISAS)
def test_bits_do_not_depend_on_the_company(isa, monkeypatch):
    monkeypatch.setenv("MICFAST_ISA", isa)
    loss = Loss(np.linspace(0, 1, 12).reshape(6, 2), 0.01, 0.1)
    box = {"constraint": "box", "bounds": (-0.3, [0.5, 0.6]), "loss": loss}
    for H, N in ((5, 21), (40, 3)):
        bank = GeneratorBank(random_weights(3, H, 2, 2))
        targets = torch.rand(N, 6, 2, generator=torch.Generator().manual_seed(N))
        targets[-1, 4:] = torch.nan
        for solver in (
            Adam(bias_correction=True, schedule="cosine", **box),
            Adam(constraint=None, loss=loss, tol=1e-3),
            Adam(constraint="sphere", radius=2, loss=loss.replace(huber=0.1)),
            LevenbergMarquardt(**box),
        ):
            run = {"solver": solver, "nan_policy": "omit"}
            together = invert(bank, targets, **run, execution=Execution("cpu", 2))
            alone = invert(bank.select(indices=1), targets[-1:], **run, execution="cpu")
            assert torch.equal(together.errors[-1:, 1:2], alone.errors)
            assert torch.equal(together.latents[-1:, 1:2], alone.latents)
            short = solver.replace(loss=solver.loss.replace(weights=loss.weights[:4]))
            cut = invert(bank, targets[-1:, :4], solver=short, execution="cpu")
            assert torch.equal(together.latents[-1:], cut.latents)


# -- the reference is what it says -----------------------------------------------------------------


def test_plain_objective_in_other_words():
    """Weights of one value, a box around all and a schedule of ones change nothing."""
    weights, targets, start = drawn_problem((2, 5, 4, 3, 2, 2), True)
    plain = reference.invert(weights, targets, start, 5, omit_nan=True, simplex=False)
    objective = Objective(
        torch.tensor([[-1e9, -1e9], [1e9, 1e9]]), torch.full((4, 2), 3.0).double(), 0.0
    )
    same = reference.invert(
        *(weights, targets, start, 5),
        omit_nan=True,
        objective=objective,
        simplex=False,
        schedule=torch.ones(5).double(),
    )
    assert_close(same.latents, plain.latents)
    assert_close(same.errors, plain.errors)


class _Searched(torch.autograd.Function):
    """Errors at latents (1, N, 1, K) and their gradient, which a step of no moments is."""

    @staticmethod
    def forward(ctx, z, search):
        ctx.search = search
        ctx.save_for_backward(z)
        return search(z, 0).errors

    @staticmethod
    def backward(ctx, d_errors):
        (z,) = ctx.saved_tensors
        step = z - ctx.search(z, 1, 1e12, beta1=0.0, eps=1e12).latents
        return d_errors[..., None] * step, None


@needs_kernel
def test_the_kernel_s_gradient_of_huber_loss(isa):
    weights, targets, start = drawn_problem((1, 3, 4, 3, 2, 2), False)
    start = start[:, :, :1].clone().requires_grad_(True)
    objective = Loop(None, True, True, huber=True).objective(4, 2, 2)
    apart = (operators.generate(weights, start.detach()[:, :, 0], 4) - targets).abs()
    assert (apart < 0.5).flatten(2).any(dim=2).all()
    assert (apart > 0.5).flatten(2).any(dim=2).all()
    run = {"backend": "cpu", "simplex": False, "objective": objective}
    search = partial(operators.invert, weights, targets, **run)
    assert torch.autograd.gradcheck(_Searched.apply, (start, search))


def test_huber_loss_is_torch_s():
    drawn, targets = torch.randn(2, 2, 5, 4, 3, dtype=torch.float64)
    weights = torch.rand(4, 3, dtype=torch.float64)
    losses = functional.huber_loss(drawn, targets, reduction="none", delta=0.7)
    z = torch.zeros(2, 5, 1)
    huber = Objective(huber=0.7)
    assert_close(huber.error(drawn, targets, z), losses.mean((-2, -1)))
    weighted = (weights * losses).sum((-2, -1)) / weights.sum()
    assert_close(huber._replace(weights=weights).error(drawn, targets, z), weighted)
    # Where every difference is small it is half the squared error.
    half = Objective().error(drawn, targets, z) / 2
    assert_close(Objective(huber=1e3).error(drawn, targets, z), half)
    targets[:, 0, 2:] = torch.nan
    known = losses[:, 0, :2].mean((-2, -1))
    assert_close(huber.error(drawn, targets, z, omit_nan=True)[:, 0], known)
    assert huber.error(drawn, targets, z)[:, 0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_latents_on_the_sphere(backend, dtype):
    """Also the start, whatever its length; zeros become equal values, NaN stays."""
    weights, targets, _ = drawn_problem((2, 6, 3, 4, 3, 2), False, dtype)
    large, small = torch.finfo(dtype).max / 9, torch.finfo(dtype).tiny
    rows = [[3.0, -4, 0], [0, 0, 0], [large] * 3, [0, -4 * small, 3 * small], [1, torch.nan, 0]]
    start = torch.tensor([*rows, [0.1, 0.2, -0.3]], dtype=dtype)[None, :, None]
    run = {"simplex": False, "objective": Objective(radius=2.0), "backend": backend}
    found = operators.invert(weights, targets, start, 0, **run).latents[0, :, 0]
    root = 2 / 3**0.5
    expected = torch.tensor([[1.2, -1.6, 0], [root] * 3, [root] * 3, [0, -1.6, 1.2]], dtype=dtype)
    assert_close(found[:4], expected)
    assert found[4].isnan().all()
    assert_close(found[5].norm(), torch.tensor(2.0, dtype=dtype))
    found = operators.invert(weights, targets, start, 20, return_history=True, **run)
    lengths = found.latent_history[..., [0, 1, 2, 3, 5], 0, :].norm(dim=-1)
    assert_close(lengths, torch.full_like(lengths, 2.0))
    assert (found.errors[:, 0] < found.error_history[0, :, 0]).all()


@pytest.mark.slow
def test_lm_ends_where_nothing_in_the_box_is_better():
    """The gradient of the objective, as autograd sees it, vanishes or points out of the box."""
    weights, targets, start = drawn_problem((1, 10, 6, 4, 3, 2), False)
    for constraint in ("box", None):
        objective = Loop(constraint, True, True).objective(6, 3, 2)
        found = reference.invert_lm(
            *(weights, targets, start, 50, 0.1, False), objective=objective, return_history=True
        )
        assert (found.error_history.diff(dim=0) <= 0).all()
        x = targets.repeat_interleave(2, dim=0)
        first, last = (
            _gradient(weights, x, z.flatten(1, 2), objective)
            for z in (found.latent_history[0], found.latents)
        )
        z = found.latents.flatten(1, 2)
        if objective.bounds is not None:
            lowest, highest = objective.bounds
            at_edge = z <= lowest + 1e-12, z >= highest - 1e-12
            assert at_edge[0].any()
            assert at_edge[1].any()
            last = torch.where(at_edge[0] & (last > 0), 0, last)
            last = torch.where(at_edge[1] & (last < 0), 0, last)
        assert last.abs().max() < 1e-2 * first.abs().max()


def _gradient(weights, targets, z, objective):
    z = z.clone().requires_grad_(True)
    drawn = reference.generate(weights, z, targets.shape[1])
    (g,) = torch.autograd.grad(objective.error(drawn, targets, z).sum(), z)
    return g


# -- a user's own loops ----------------------------------------------------------------------------

N_ITER, T, K = 20, 6, 3


def start_of(n, dtype):
    z = 0.4 * torch.randn(n, K, generator=torch.Generator().manual_seed(3))
    return z.clamp(-0.5, 0.5).to(dtype)


def optimise(module, targets, loss, after_step=None, scheduler=None, betas=(0.9, 0.999)):
    """A loop as people write it; `loss` (N,) of drawings and latents."""
    z = start_of(len(targets), targets.dtype)
    if after_step:
        after_step(z)
    z.requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=0.1, betas=betas)
    scheduler = scheduler and scheduler(optimizer)
    for _ in range(N_ITER):
        optimizer.zero_grad()
        loss(module(z, T), z).sum().backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        if after_step:
            with torch.no_grad():
                after_step(z)
    return loss(module(z, T), z).detach(), z.detach()


def gan_inversion(targets):
    """Box-clamped, as an image's code is kept in its range."""
    loss = {"loss": lambda drawn, z: (drawn - targets).square().mean((1, 2))}
    settings = {"constraint": "box", "bounds": (-0.5, 0.5)}
    return loss | {"after_step": lambda z: z.clamp_(-0.5, 0.5)}, settings


def with_prior(targets):
    def loss(drawn, z):
        return (drawn - targets).square().mean((1, 2)) + 0.02 * (z - 0.1).pow(2).sum(1)

    return {"loss": loss}, {"constraint": None, "loss": Loss(None, 0.02, 0.1)}


def weighted(targets):
    w = torch.linspace(0.2, 1, T)[:, None].to(targets) * torch.tensor([1.0, 0.0]).to(targets)

    def loss(drawn, z):
        return (w * (drawn - targets) ** 2).sum((1, 2)) / w.sum()

    return {"loss": loss}, {"constraint": None, "loss": Loss(weights=w)}


def observed_steps(targets):
    chosen = [0, 3, 4]
    w = np.isin(np.arange(T), chosen)

    def loss(drawn, z):
        return (drawn[:, chosen] - targets[:, chosen]).pow(2).mean((1, 2))

    return {"loss": loss}, {"constraint": None, "loss": Loss(weights=w)}


def cosine(targets):
    def scheduler(optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=N_ITER)

    loss = {"loss": lambda drawn, z: (drawn - targets).square().mean((1, 2))}
    return loss | {"scheduler": scheduler}, {"constraint": None, "schedule": "cosine"}


def stages(targets):
    def scheduler(optimizer):
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 15], gamma=0.3)

    factors = np.select([np.arange(N_ITER) < 5, np.arange(N_ITER) < 15], [1, 0.3], 0.09)
    loss = {"loss": lambda drawn, z: (drawn - targets).square().mean((1, 2))}
    return loss | {"scheduler": scheduler}, {"constraint": None, "schedule": factors}


def on_a_sphere(targets):
    def after_step(z):
        z.copy_(1.5 * functional.normalize(z, dim=1))

    loss = {"loss": lambda drawn, z: (drawn - targets).square().mean((1, 2))}
    return loss | {"after_step": after_step}, {"constraint": "sphere", "radius": 1.5}


def huber(targets):
    def loss(drawn, z):
        return functional.huber_loss(drawn, targets, reduction="none", delta=0.03).mean((1, 2))

    return {"loss": loss}, {"constraint": None, "loss": Loss(huber=0.03)}


def smooth_l1(targets):
    """Huber loss in other units, in which eps and the prior are, too."""
    beta = 0.03

    def loss(drawn, z):
        losses = functional.smooth_l1_loss(drawn, targets, reduction="none", beta=beta)
        return losses.mean((1, 2)) + 0.1 * z.square().sum(1)

    ours = Loss(huber=beta, prior_weight=0.1 * beta)
    return {"loss": loss}, {"constraint": None, "loss": ours, "eps": 1e-8 * beta}


LOOPS = [gan_inversion, with_prior, weighted, observed_steps, cosine, stages]
LOOPS += [on_a_sphere, huber, smooth_l1]
UNITS = {smooth_l1: 0.03}


def users_problem(dtype):
    modules = torch_modules(2, K, 6, 2, dtype)
    wanted = torch.randn(2, 3, K, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        drawn = [module(z, T) for module, z in zip(modules, wanted, strict=True)]
    return modules, torch.cat(drawn) + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_users_loop(loop, backend):
    for dtype in (torch.float64, torch.float32):
        modules, targets = users_problem(dtype)
        arguments, settings = loop(targets)
        adam = {"n_iter": N_ITER, "learning_rate": 0.1, "betas": (0.9, 0.999)}
        start = start_of(len(targets), dtype)
        solver = Adam(**adam, start=start, bias_correction=True, **settings)
        found = invert(modules, targets, solver=solver, execution=backend)
        for m, module in enumerate(modules):
            z = found.latents[:, m]
            with torch.no_grad():
                own = arguments["loss"](module(z, T), z)
            unit = UNITS.get(loop, 1)
            assert_close(found.errors[:, m], unit * own, rtol=1e-4, atol=1e-7)
            if dtype == torch.float64:
                errors, latents = optimise(module, targets, **arguments)
                assert_close(found.errors[:, m], unit * errors, rtol=1e-5, atol=1e-9)
                assert_close(z, latents, rtol=1e-4, atol=1e-5)
        if loop in (on_a_sphere, huber, smooth_l1):
            continue
        # The other solver takes all of these but the step sizes.
        lm = {key: value for key, value in settings.items() if key != "schedule"}
        start = start.double().numpy()
        other = invert(modules, targets, solver=LevenbergMarquardt(20, start=start, **lm))
        assert other.errors.mean() <= 1.01 * found.errors.mean()


@pytest.mark.slow
def test_restarts_keep_the_lowest_objective():
    modules, targets = users_problem(torch.float64)
    loss, free = Loss(prior_weight=0.05), {"constraint": None, "n_iter": 15}
    starts = Normal(n_starts=4, random_state=0, scale=0.5)
    found = invert(modules, targets, solver=Adam(**free, loss=loss, start=starts))
    bank = GeneratorBank.from_modules(modules)
    drawn = starts.prepare(bank, len(targets), False, Execution())[1](0, targets)
    assert 0.3 < drawn.std() < 0.7
    apart = [
        invert(modules, targets, solver=Adam(**free, loss=loss, start=z)).errors
        for z in drawn.permute(2, 1, 0, 3)
    ]
    assert_close(found.errors, torch.stack(apart).amin(0))
    assert not torch.equal(found.errors, apart[0])


@pytest.mark.slow
def test_check_runs_the_same_loop():
    modules, targets = users_problem(torch.float64)
    solver = Adam(
        *(15, 0.1),
        constraint="box",
        bounds=([-0.2, -0.3, -0.4], None),
        bias_correction=True,
        schedule="cosine",
        loss=Loss(np.linspace(1, 2, T), 0.01, [0.1, 0.2, 0.3]),
        start=Dirichlet(2, 0),
    )
    report = check(modules, lambda module, z, n: module(z, n), targets, solver=solver)
    assert report.agrees
    np.testing.assert_allclose(report.loop_errors, report.errors, rtol=1e-6)
    np.testing.assert_allclose(report.loop_latents, report.latents, atol=1e-5)
    assert (report.latents >= [-0.2, -0.3, -0.4]).all()
    assert report.latents.min() < 0


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Adam(constraint="ball"), ValueError, "'box', 'sphere' or None, got 'ball'"),
        (lambda: Adam(constraint="sphere", radius=0), ValueError, "radius must be a finite .* 0, "),
        (lambda: Adam(radius=2), ValueError, "radius must be 1 unless constraint='sphere', got 2"),
        (lambda: Adam(constraint="sphere", bounds=(0, 1)), ValueError, "bounds must be None"),
        (lambda: LevenbergMarquardt(constraint="sphere"), ValueError, "'sphere', which its steps"),
        (lambda: LevenbergMarquardt(loss=Loss(huber=1)), ValueError, "no sum of squares.*Adam"),
        (lambda: Adam(constraint="box"), ValueError, "bounds must be the lowest .*, got None"),
        (lambda: Adam(constraint="box", bounds=(1, 0)), ValueError, r"bounds .* got \(1, 0\)"),
        (lambda: Adam(constraint="box", bounds=(0, math.nan)), ValueError, "bounds must be"),
        (lambda: Adam(constraint="box", bounds=3), ValueError, "bounds must be"),
        (lambda: Adam(bounds=(0, 1)), ValueError, "bounds must be None unless constraint='box'"),
        (lambda: LevenbergMarquardt(bounds=(0, 1)), ValueError, "must be None unless"),
        (lambda: Adam(bias_correction=1), TypeError, "bias_correction must be True or False"),
        (lambda: Adam(schedule="linear"), ValueError, "schedule must be None, 'cosine' or n_iter"),
        (lambda: Adam(n_iter=3, schedule=[1, 1]), ValueError, "n_iter = 3 numbers of at least 0"),
        (lambda: Adam(n_iter=1, schedule=[-1]), ValueError, "schedule must be"),
        (lambda: Adam(loss="mse"), TypeError, "loss must be a Loss, got 'mse'"),
        (lambda: LevenbergMarquardt(loss=None), TypeError, "loss must be a Loss, got None"),
        (
            lambda: Loss(weights=[0, 0]),
            ValueError,
            "weights must be numbers of at least 0, not all",
        ),
        (lambda: Loss(weights=[1, -1]), ValueError, "weights must be"),
        (lambda: Loss(weights=np.ones((1, 1, 1))), ValueError, "weights must be"),
        (lambda: Loss(weights="steps"), ValueError, "weights must be"),
        (lambda: Loss(prior_weight=-1), ValueError, "prior_weight must be a finite number"),
        (lambda: Loss(huber=0), ValueError, "huber must be a finite number above 0, got 0"),
        (lambda: Loss(huber=True), TypeError, "huber must be a finite number"),
        (lambda: Loss(prior_mean=[1, math.inf]), ValueError, "prior_mean must be a finite number"),
    ],
)
def test_settings_that_are_none(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Adam(loss=Loss(weights=[1, 2])), r"weights must have shape \(5, 2\).*got \[2, 1\]"),
        (Adam(loss=Loss(None, 1, [1, 2, 3])), r"prior_mean must have shape \(2,\)"),
        (
            LevenbergMarquardt(constraint="box", bounds=([0, 0, 0], 1)),
            r"bounds must have shape \(2,\), or 1 for a size, got \[3\]",
        ),
    ],
)
def test_settings_that_do_not_fit(solver, message):
    with pytest.raises(ValueError, match=message):
        invert(GeneratorBank(random_weights(1, 3, 2, 2)), torch.zeros(3, 5, 2), solver=solver)


@needs_kernel
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bounds": torch.zeros(2, 2)}, "bounds must be None where simplex is true"),
        ({"simplex": False, "bounds": torch.zeros(2)}, r"bounds must have shape \(2, K\)"),
        ({"simplex": False, "bounds": torch.eye(2)}, "bounds must be lowest and highest latents"),
        ({"loss_weights": torch.ones(5, 1)}, r"loss_weights must have shape \(T, O\) = \(5, 2\)"),
        ({"loss_weights": -torch.ones(5, 2)}, "loss_weights must be finite and at least 0"),
        ({"prior_weight": -1.0}, "prior_weight must be finite and >= 0"),
        ({"prior_weight": 1.0, "prior_mean": torch.zeros(3)}, r"prior_mean must have shape \(K,\)"),
        ({"radius": 1.0}, "radius must be None where simplex is true"),
        ({"simplex": False, "radius": -1.0}, "radius must be finite and above 0"),
        (
            {"simplex": False, "radius": 1.0, "bounds": torch.zeros(2, 2)},
            "bounds must be None where there is a radius",
        ),
        ({"schedule": torch.ones(2)}, r"schedule must be 2 numbers \(n_iter\), float64"),
    ],
)
def test_messages_of_the_operators(more, message):
    weights, start = random_weights(1, 3, 2, 2), torch.full((1, 1, 1, 2), 0.5)
    arguments = (*weights, torch.zeros(3, 5, 2), start, 2)
    with pytest.raises(ValueError, match=f"invert: {message}"):
        torch.ops.micfast.invert(*arguments, 0.05, 0.9, 0.99, 1e-8, False, False, 0.0, **more)
    if not {"simplex", "schedule"} & {*more}:
        with pytest.raises(ValueError, match=f"invert_lm: {message}"):
            torch.ops.micfast.invert_lm(*arguments, 0.1, True, False, 0.0, **more)
    with pytest.raises(ValueError, match="invert_lm: huber and radius must be None: Huber loss"):
        torch.ops.micfast.invert_lm(*arguments, 0.1, True, False, 0.0, huber=1.0)


def test_cuda_kernels_refuse(monkeypatch):
    monkeypatch.setattr(calls, "resolve_backend", lambda backend, device: "cuda")
    bank, targets = GeneratorBank(random_weights(1, 3, 2, 2)), torch.zeros(3, 5, 2)
    for solver in (
        Adam(constraint=None),
        Adam(bias_correction=True),
        Adam(loss=Loss(prior_weight=1)),
        Adam(constraint="sphere"),
        Adam(loss=Loss(huber=1)),
        LevenbergMarquardt(constraint="box", bounds=(0, 1)),
    ):
        with pytest.raises(RuntimeError, match=r"plain mean squared.*'auto' others run on"):
            solver.search(
                *(bank.weights, targets, torch.full((1, 1, 1, 2), 0.5)),
                history=False,
                omit_nan=False,
                execution=Execution("cuda"),
                report=None,
            )


@needs_kernel
@pytest.mark.slow
def test_opcheck():
    weights, targets, start = drawn_problem((2, 4, 3, 2, 2, 2), False)
    objective = Loop("box", True, True).objective(3, 2, 2)
    more = ("first", "identity", "lstm", None, None, None, None, *objective)
    schedule = torch.ones(2, dtype=torch.float64)
    adam = (0.05, 0.9, 0.99, 1e-8, False, True, 0.0, False)
    ops, arguments = torch.ops.micfast, (*weights, targets, start, 2)
    torch.library.opcheck(ops.invert.default, (*arguments, *adam, *more, False, True, schedule))
    torch.library.opcheck(ops.invert_lm.default, (*arguments, 0.1, False, True, 0.0, False, *more))
    more = (*more[:7], *Loop("sphere", True, True, huber=True).objective(3, 2, 2))
    torch.library.opcheck(ops.invert.default, (*arguments, *adam, *more, False, True, schedule))
