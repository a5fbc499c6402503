"""Training with an exact read-out: both kernels against the reference, and the reference itself."""

import math

import pytest
import torch
from helpers import needs_kernel, random_fleet, random_weights, relative_difference
from hypothesis import given
from hypothesis import strategies as st

from micfast import Execution
from micfast.kernels import calls, reference
from micfast.kernels.reference_lm import Stop
from micfast.kernels.reference_projected import hidden_states, row_weights, solve_read_out

F64 = torch.float64
ADAM = (0.01, 0.9, 0.999, 1e-8)


def fleet_of(M, K, T, O, dtype=F64, missing="none", noise=0.0):
    """Fleet of `train_projected`: smooth types, with values missing where asked for."""
    types, set_index, noise_in, noise_out, seeds = random_fleet(M, K, T, O, dtype, noise=noise)
    types = (types.double().cumsum(2) / 3).to(dtype)
    if missing != "none":
        for s in range(2):
            for k in range(K):
                types[s, k, max(1, T - 2 * k - s) :] = torch.nan
    if missing == "values":
        types[0, 0, 0, 0], types[1, K - 1, T // 4, O - 1] = torch.nan, torch.nan
        types[:, :, 0, :-1] = 0.5  # every type keeps a value, unless O is 1
        types[:, :, -1, :] = torch.where(types[:, :, -1].isnan(), torch.nan, types[:, :, -1])
        if O == 1:
            types[:, :, 0, 0] = 0.5
    variances = torch.tensor([0.5, 1.5], dtype=F64)
    return types, variances, set_index, noise_in, noise_out, seeds


def projected(
    weights,
    fleet,
    n_steps=5,
    clip=1.0,
    ridge=1e-5,
    n_curve=3,
    adam=ADAM,
    backend="cpu",
    **execution,
):
    settings = (n_steps, *adam, clip, ridge, n_curve, bool(fleet[0].isnan().any()))
    return calls.train_projected(weights, fleet, settings, Execution(backend, **execution), None)


def lm_fleet(fleet, n_latents=None):
    """Fleet of `train_lm`: one-hot latents, or so many noisy ones."""
    types, variances, set_index = fleet[:3]
    M, K = len(set_index), types.shape[1]
    shown = torch.arange(n_latents or K) % K
    latents = torch.eye(K, dtype=types.dtype)[shown].expand(M, -1, -1)
    if n_latents:
        latents = (latents + 0.2 * torch.randn(M, n_latents, K, dtype=types.dtype)).clamp(0, 1)
    return types, variances, set_index, latents, shown


def lm(
    weights,
    fleet,
    n=3,
    goal=1e-6,
    damping=0.1,
    ridge=1e-5,
    acceleration=True,
    backend="cpu",
    **execution,
):
    settings = (goal, n, damping, ridge, acceleration, bool(fleet[0].isnan().any()))
    return calls.train_lm(weights, fleet, settings, Execution(backend, **execution), None)


def assert_same(kernel, expected, tolerance):
    for got, want in zip(kernel, expected, strict=True):
        assert relative_difference(got, want) < tolerance


# -- the definition --------------------------------------------------------------------------------


def drawn(weights, fleet, latents, shown):
    """Weighted residuals (M, L T O), as the definitions of both trainings have them."""
    types, variances, set_index = fleet[:3]
    targets = types[set_index][:, shown]
    weight = row_weights(targets, variances[set_index], True)[..., None, None] * ~targets.isnan()
    outputs = reference.generate(weights, latents, types.shape[2])
    return (weight.sqrt() * (outputs - targets.nan_to_num())).flatten(1)


@pytest.mark.parametrize("missing", ["none", "ends", "values"])
def test_the_read_out_is_the_best_one(missing):
    """No other read-out has a lower error: the gradient there is that of the ridge alone."""
    fleet = fleet_of(3, 2, 14, 2, missing=missing)
    weights = random_weights(3, 4, 2, 2, F64)
    ridge = 1e-3
    found = projected(weights, fleet, 0, ridge=ridge, backend="torch")
    W_out, b_out = found.W_out.requires_grad_(), found.b_out.requires_grad_()
    latents = torch.eye(2, dtype=F64).expand(3, 2, 2)
    r = drawn((*found[:3], W_out, b_out), fleet, latents, torch.arange(2))
    assert torch.allclose(r.square().sum(dim=1), found.errors, rtol=1e-12)
    loss = (r.square().sum() + ridge * W_out.square().sum()) / 2
    for gradient in torch.autograd.grad(loss, (W_out, b_out)):
        assert gradient.abs().max() < 1e-12


# -- against independent derivatives ---------------------------------------------------------------


@needs_kernel
@pytest.mark.parametrize("missing", ["none", "values"])
def test_gradient_of_the_projected_objective(isa, missing):
    """The kernel's gradient against autograd's through the solution of the read-out."""
    M, H, K, T, O = 3, 3, 2, 19, 2
    ridge = 1e-4
    weights, fleet = random_weights(M, H, K, O, F64), fleet_of(M, K, T, O, missing=missing)
    # One step without memory moves a weight by rate g / (|g| + eps): that gives back g.
    rate, eps = 0.01 * 1e3, 1e3
    moved = projected(
        weights, fleet, 1, clip=math.inf, ridge=ridge, adam=(1e3, 0.0, 0.0, eps), n_curve=1
    )
    types, variances, set_index = fleet[:3]
    targets = types[set_index]
    weight = row_weights(targets, variances[set_index], True)[..., None, None] * ~targets.isnan()
    gates = [w.clone().requires_grad_() for w in [*weights][:3]]
    h = hidden_states(gates, torch.eye(K, dtype=F64).expand(M, K, K), T)
    phi = torch.cat([h, torch.ones_like(h[..., :1])], dim=-1)
    G = torch.einsum("mlto,mltp,mltq->mopq", weight, phi, phi)
    R = torch.einsum("mlto,mltp,mlto->mop", weight, phi, targets.nan_to_num())
    diagonal = torch.tensor([ridge] * H + [0.0], dtype=F64)
    read_out = torch.linalg.solve(G + torch.diag(diagonal), R[..., None])[..., 0]
    r = torch.einsum("mltp,mop->mlto", phi, read_out) - targets.nan_to_num()
    objective = (weight * r.square()).sum() + (diagonal * read_out.square()).sum()
    for before, after, gradient in zip(
        [*weights][:3], moved[:3], torch.autograd.grad(objective, gates), strict=True
    ):
        step = before - after
        assert relative_difference(eps * step / (rate - step.abs()), gradient) < 1e-9


@needs_kernel
@pytest.mark.parametrize(("missing", "n_latents"), [("none", None), ("values", None), ("ends", 5)])
def test_a_step_solves_the_damped_normal_equations(isa, missing, n_latents):
    """Against a system in gates and read-out together, by differences of residuals."""
    M, H, K, T, O = 2, 3, 2, 21, 2
    damping, ridge = 5.0, 1e-3
    weights = random_weights(M, H, K, O, F64)
    fleet = lm_fleet(fleet_of(M, K, T, O, missing=missing), n_latents)
    step = lm(weights, fleet, 1, damping=damping, ridge=ridge, acceleration=False)
    assert step.n_jacobians.tolist() == [1, 1]
    assert (step.error_curve[:, 1] < step.error_curve[:, 0]).all()
    start = lm(weights, fleet, 0, ridge=ridge)  # with its best read-out
    shapes = [w.shape[1:] for w in weights]
    sizes = [shape.numel() for shape in shapes]
    P = sum(sizes[:3])
    types, variances, set_index, latents, shown = fleet
    for m in range(M):
        theta = torch.cat([w[m].flatten() for w in start[:5]])
        n = len(theta)
        eye = torch.eye(n, dtype=F64)
        # Central differences: one module for each weight and direction.
        moved = theta + 1e-5 * torch.cat([0 * eye[:1], eye, -eye])
        parts = [p.unflatten(1, s) for p, s in zip(moved.split(sizes, 1), shapes, strict=True)]
        own = (types, variances, set_index[m].expand(2 * n + 1))
        r, ahead, behind = drawn(parts, own, latents[m].expand(2 * n + 1, -1, -1), shown).split(
            (1, n, n)
        )
        J, r = (ahead - behind).mT / 2e-5, r[0]
        A, diagonal = J.mT @ J, torch.zeros(sum(sizes), dtype=F64)
        own = A.diagonal()[:P]
        diagonal[:P] = damping * own.clamp_min(1e-6 * own.mean())
        diagonal[P : P + O * H] = ridge
        right = -J.mT @ r
        right[P:] = 0  # the read-out is the best one already
        d = torch.linalg.solve(A + torch.diag(diagonal), right)[:P]
        found = torch.cat([w[m].flatten() for w in step[:3]]) - theta[:P]
        # Differences are good to some 1e-10; the system magnifies that by its condition.
        assert relative_difference(found, d) < 1e-4


# -- against the reference -------------------------------------------------------------------------

sizes = st.tuples(  # M, T, H, K, O
    st.integers(1, 5), st.integers(2, 24), st.integers(1, 7), st.integers(1, 5), st.integers(1, 4)
)


@needs_kernel
@given(
    size=sizes,
    n_steps=st.integers(0, 4),
    missing=st.sampled_from(["none", "ends", "values"]),
    noise=st.sampled_from([0.0, 0.2]),
)
def test_train_projected(isa, size, n_steps, missing, noise):
    M, T, H, K, O = size
    weights, fleet = random_weights(M, H, K, O, F64), fleet_of(M, K, T, O, F64, missing, noise)
    kernel = projected(weights, fleet, n_steps, clip=0.3)
    expected = projected(weights, fleet, n_steps, clip=0.3, backend="torch")
    # The read-out of nearly dependent states is determined by the ridge alone.
    for name in ("W_ih", "W_hh", "b", "loss_curve", "errors"):
        assert relative_difference(getattr(kernel, name), getattr(expected, name)) < 1e-6


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("K", [1, 4, 7, 16, 17])
def test_every_number_of_types(isa, K):
    """Fewer than the lanes, as many, and more: several modules in a block, or several blocks."""
    M, H, T, O = 5, 5, 40, 2
    weights = random_weights(M, H, K, O, F64)
    fleet = fleet_of(M, K, T, O, missing="ends", noise=0.1)
    same = projected(weights, fleet, 4, backend="torch")
    assert_same(projected(weights, fleet, 4)[:3], same[:3], 1e-8)
    same = lm(weights[:2], lm_fleet(narrow(fleet, [0, 1])), 2, backend="torch")
    assert_same(lm(weights[:2], lm_fleet(narrow(fleet, [0, 1])), 2)[:3], same[:3], 1e-5)


@needs_kernel
@pytest.mark.parametrize("K", [1, 2])
def test_constant_types_are_learned(isa, K):
    """Their errors count so much that rounding in float32 is above the read-out's ridge."""
    weights = random_weights(8, 10, K, 1, torch.float32)
    types, variances, *rest = fleet_of(8, K, 12, 1, torch.float32, noise=0.2)
    for value in (1.0, 3.0):
        constant = torch.full_like(types, value), torch.full_like(variances, 1e-3)
        found = projected(weights, (*constant, *rest), 40, ridge=1e-6)
        assert (found.errors < 1e-2).all()


@needs_kernel
@pytest.mark.slow
def test_float32_follows_float64(isa):
    M, H, K, T, O = 4, 10, 4, 120, 3
    weights, fleet = random_weights(M, H, K, O, F64), fleet_of(M, K, T, O)
    single = (fleet[0].float(), *fleet[1:])
    as_float = weights.to(dtype=torch.float32)
    a, b = projected(weights, fleet, 20), projected(as_float, single, 20)
    assert relative_difference(b.errors, a.errors) < 1e-3
    a, b = lm(weights, lm_fleet(fleet), 1), lm(as_float, lm_fleet(single), 1)
    assert relative_difference(b.errors, a.errors) < 1e-2


@needs_kernel
@given(
    size=sizes,
    missing=st.sampled_from(["none", "ends", "values"]),
    acceleration=st.booleans(),
    n_latents=st.sampled_from([None, 3, 20]),
)
@pytest.mark.slow
def test_train_lm(isa, size, missing, acceleration, n_latents):
    M, T, H, K, O = size
    weights = random_weights(M, H, K, O, F64)
    fleet = lm_fleet(fleet_of(M, K, T, O, F64, missing), n_latents)
    arguments = {"acceleration": acceleration, "n": 1, "ridge": 1e-3, "damping": 1.0}
    kernel = lm(weights, fleet, **arguments)
    expected = lm(weights, fleet, **arguments, backend="torch")
    assert kernel.stops.equal(expected.stops)
    for name in ("W_ih", "W_hh", "b", "errors", "error_curve"):
        assert relative_difference(getattr(kernel, name), getattr(expected, name)) < 1e-5


@needs_kernel
def test_lm_with_acceleration_and_gaps(isa):
    weights = random_weights(2, 5, 3, 2, F64)
    fleet = lm_fleet(fleet_of(2, 3, 20, 2, missing="values"))
    assert_same(lm(weights, fleet)[:3], lm(weights, fleet, backend="torch")[:3], 1e-6)


# -- bits ------------------------------------------------------------------------------------------


def narrow(fleet, order):
    """The fleet of some of its modules."""
    return tuple(t if i < 2 or t.shape == () else t[order] for i, t in enumerate(fleet))


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_module_s_training_does_not_depend_on_the_fleet(isa, dtype):
    """Bit for bit: threads, order and company, and so the lanes it lands in."""
    M, H, K, T, O = 11, 5, 3, 21, 2
    weights = random_weights(M, H, K, O, dtype)
    fleet = fleet_of(M, K, T, O, dtype, missing="values", noise=0.1)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))[:6]
    whole = projected(weights, fleet, 12, n_threads=2)
    part = projected(weights[order], narrow(fleet, order), 12, n_threads=1)
    for got, want in zip(part, whole, strict=True):
        assert torch.equal(got, want[order])
    types, variances, set_index, latents, shown = lm_fleet(fleet)
    whole = lm(weights, (types, variances, set_index, latents, shown), n_threads=2)
    alone = (types, variances, set_index[order], latents[order], shown)
    for got, want in zip(lm(weights[order], alone, n_threads=1), whole, strict=True):
        assert torch.equal(got, want[order])


@needs_kernel
def test_shorter_types_are_as_if_cut(isa):
    """Alone and without the padding, a module trains to the same bits."""
    M, H, K, T, O = 4, 5, 2, 27, 2
    weights, fleet = random_weights(M, H, K, O), list(fleet_of(M, K, T, O, torch.float32))
    fleet[0][1, :, 19:] = torch.nan
    cut = (fleet[0][1:, :, :19].contiguous(), fleet[1][1:], torch.zeros(1, dtype=torch.int64))
    for run, padded, whole in (
        (projected, tuple(fleet), (*cut, *(t[1:2] for t in fleet[3:]))),
        (lm, lm_fleet(fleet), (*cut, *(lm_fleet(fleet)[3][1:2], lm_fleet(fleet)[4]))),
    ):
        for got, want in zip(run(weights[1:2], whole), run(weights, padded), strict=True):
            assert torch.equal(got, want[1:2])


@needs_kernel
def test_a_bad_type_spoils_its_own_modules_alone(isa):
    weights, fleet = random_weights(4, 5, 2, 1), fleet_of(4, 2, 12, 1, torch.float32)
    clean = projected(weights, fleet), lm(weights, lm_fleet(fleet))
    fleet[0][1, 0, 3] = torch.inf
    spoilt = projected(weights, fleet), lm(weights, lm_fleet(fleet))
    for got, want in zip(spoilt, clean, strict=True):
        assert torch.equal(got.errors[::2], want.errors[::2])
        assert not torch.isfinite(got.errors[1::2]).any()
    assert (spoilt[1].stops[1::2] == Stop.NOT_FINITE).all()


# -- the search's end, and the operators' contract -------------------------------------------------


@needs_kernel
@pytest.mark.parametrize("backend", ["cpu", pytest.param("torch", marks=pytest.mark.slow)])
def test_why_a_search_stops(backend):
    weights = random_weights(1, 3, 2, 1, F64)
    fleet = lm_fleet(fleet_of(1, 2, 12, 1))
    start = float(lm(weights, fleet, 0, backend=backend).errors)
    goal = lm(weights, fleet, 30, goal=0.9 * start, backend=backend)
    assert goal.stops.item() == Stop.GOAL
    assert goal.errors.item() <= 0.9 * start
    assert 0 < goal.n_jacobians.item() < 30
    assert (goal.error_curve[0, goal.n_jacobians.item() :] == goal.errors).all()
    assert lm(weights, fleet, 1, backend=backend).stops.item() == Stop.JACOBIANS
    assert lm(weights, fleet, 3, damping=9e99, backend=backend).stops.item() == Stop.NO_STEP


@needs_kernel
def test_a_search_that_gains_nothing_more_stops():
    """One unit cannot draw noise: the search ends in a minimum, long before its last Jacobian."""
    weights = random_weights(3, 1, 1, 1, F64)
    types = torch.randn(1, 1, 60, 1, dtype=F64)
    fleet = lm_fleet((types, torch.ones(1, dtype=F64), torch.zeros(3, dtype=torch.int64)))
    ended = lm(weights, fleet, 500, goal=0.0)
    assert (ended.n_jacobians < 500).all()
    assert all(stop in (Stop.STALLED, Stop.NO_STEP) for stop in ended.stops.tolist())


@needs_kernel
def test_projected_adam_lowers_the_error():
    weights, fleet = random_weights(4, 6, 3, 2, scale=1), fleet_of(4, 3, 30, 2, torch.float32)
    trained = projected(weights, fleet, 300, n_curve=10)
    assert (trained.errors < 0.6 * projected(weights, fleet, 0).errors).all()
    assert (trained.loss_curve[:, -1] < trained.loss_curve[:, 0]).all()


@needs_kernel
@pytest.mark.slow
def test_opcheck():
    weights = random_weights(2, 3, 2, 1, F64)
    fleet = fleet_of(2, 2, 6, 1)
    torch.library.opcheck(
        torch.ops.micfast.train_projected.default, (*weights, *fleet, 3, *ADAM, 1.0, 1e-6, 2)
    )
    torch.library.opcheck(
        torch.ops.micfast.train_lm.default,
        (*weights, *(t.contiguous() for t in lm_fleet(fleet)), 1e-2, 2, 0.1, 1e-7, True),
    )


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=needs_kernel)])
def test_messages(backend):
    weights, fleet = random_weights(2, 3, 2, 1, F64), fleet_of(2, 2, 6, 1)

    def fails(run, match, fleet, **settings):
        with pytest.raises(ValueError, match=match):
            run(weights, fleet, backend=backend, **settings)

    def replaced(fleet, index, value):
        return tuple(value if i == index else t for i, t in enumerate(fleet))

    fails(projected, "train_projected: type_sets must have", replaced(fleet, 0, fleet[0][:, :1]))
    fails(projected, "variances must be above 0", replaced(fleet, 1, torch.zeros(2, dtype=F64)))
    fails(projected, "set_index must be from 0 to 1", replaced(fleet, 2, torch.tensor([0, 2])))
    fails(projected, "noise_in must be finite", replaced(fleet, 3, -torch.ones(2, dtype=F64)))
    fails(projected, "clip_norm must be above 0", fleet, clip=0.0)
    fails(projected, "ridge must be finite", fleet, ridge=-1.0)
    fails(projected, "n_steps must be at least 0", fleet, n_steps=-1)
    latents = lm_fleet(fleet)
    fails(lm, r"train_lm: latents must have shape \(M, L, K\)", replaced(latents, 3, fleet[0]))
    fails(lm, "shown must be from 0 to 1", replaced(latents, 4, torch.tensor([0, 2])))
    fails(lm, "damping must be finite and above 0", latents, damping=0.0)
    fails(lm, "max_jacobians must be at least 0", latents, n=-1)
    nothing = fleet[0].clone()
    nothing[0, 0] = torch.nan
    fails(projected, "every type .* must hold a value", replaced(fleet, 0, nothing))


def test_progress_of_the_reference():
    weights, fleet, seen = random_weights(1, 2, 2, 1, F64), fleet_of(1, 2, 4, 1), []
    settings = (4, *ADAM, 1.0, 1e-6, 2, False)
    calls.train_projected(weights, fleet, settings, Execution("torch"), seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]


def test_read_outs_ignore_channels_without_values():
    h = torch.randn(1, 2, 9, 3, dtype=F64)
    targets = torch.randn(1, 2, 9, 2, dtype=F64)
    targets[..., 1] = torch.nan
    weight = row_weights(targets, torch.ones(1, dtype=F64), True)
    found = solve_read_out(h, targets, weight, 1e-6, True)
    alone = solve_read_out(h, targets[..., :1], weight, 1e-6, True)
    assert torch.equal(found.W_out[:, 1], torch.zeros(1, 3, dtype=F64))
    assert torch.allclose(found.W_out[:, 0], alone.W_out[:, 0], rtol=1e-12)
