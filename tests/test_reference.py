"""The reference, held against torch.nn.LSTM, nn.Linear and torch.optim.Adam."""

import numpy as np
import pytest
import torch
from helpers import random_weights, relative_difference, rounding, stacked_weights, torch_modules
from torch import nn

from micfast.kernels import reference, reference_training

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_generate_equals_nn_lstm(dtype):
    modules = torch_modules(3, K=4, H=6, O=2, dtype=dtype)
    latents = torch.rand(3, 5, 4, dtype=dtype)
    drawn = reference.generate(stacked_weights(modules), latents, 9)
    expected = torch.stack([m(z, 9) for m, z in zip(modules, latents, strict=True)])
    assert relative_difference(drawn, expected.detach()) < rounding(dtype, 9 * (6 + 4))


def original_inversion(module, target, n_iter, z):
    """The loop that micfast replaces, one target at a time, as the paper's code has it."""
    m = v = torch.zeros_like(z)
    for _ in range(n_iter):
        z = z.clamp(0, 1)
        z = (z / z.sum()).requires_grad_(True)
        loss = nn.functional.mse_loss(module(z[None], target.shape[0])[0], target)
        (g,) = torch.autograd.grad(loss, z)
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.99 * v + (1 - 0.99) * g**2
        z = z.detach() - 0.05 * m / (v.sqrt() + 1e-8)
    projected = z.clamp(0, 1)
    return z, projected / projected.sum()


def test_invert_equals_the_loop_it_replaces():
    modules = torch_modules(2, K=4, H=5, O=2)
    targets = torch.randn(3, 7, 2, dtype=torch.float64)
    init = torch.full((1, 1, 4), 0.25, dtype=torch.float64)
    for unprojected in (False, True):
        result = reference.invert(
            stacked_weights(modules), targets, init, 12, unprojected_error=unprojected
        )
        for m, module in enumerate(modules):
            for n, target in enumerate(targets):
                raw, latent = original_inversion(module, target, 12, init[0, 0])
                at = raw if unprojected else latent
                error = nn.functional.mse_loss(module(at[None], 7)[0], target)
                torch.testing.assert_close(result.latents[m, n], latent, rtol=1e-10, atol=1e-12)
                torch.testing.assert_close(result.errors[m, n], error.detach(), rtol=1e-10, atol=0)


def test_history_starts_at_the_start_and_ends_at_the_result():
    weights = stacked_weights(torch_modules(2, K=3, H=4, O=1))
    targets = torch.randn(2, 5, 1, dtype=torch.float64)
    init = torch.full((1, 1, 3), 1 / 3, dtype=torch.float64)
    result = reference.invert(weights, targets, init, 6, return_history=True)
    control = reference.invert(weights, targets, init, 0)
    assert result.error_history.shape == (7, 2, 2)
    assert result.latent_history.shape == (7, 2, 2, 3)
    torch.testing.assert_close(result.error_history[0], control.errors)
    torch.testing.assert_close(result.error_history[-1], result.errors)
    torch.testing.assert_close(result.latent_history[-1], result.latents)
    torch.testing.assert_close(
        result.latent_history.sum(-1), torch.ones(7, 2, 2, dtype=torch.float64)
    )


def test_project_falls_back_to_uniform_where_nothing_is_positive():
    z = torch.tensor([[-1.0, -2.0, 0.0, -3.0], [2.0, 0.5, -1.0, 0.5], [0.0, 0.0, 0.0, torch.nan]])
    projected = reference.project(z)
    torch.testing.assert_close(projected[0], torch.full((4,), 0.25))
    torch.testing.assert_close(projected[1], torch.tensor([0.5, 0.25, 0.0, 0.25]))
    assert projected[2].isnan().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("n_iter", [0, 3])
def test_a_target_that_is_not_finite_has_error_nan(bad, n_iter):
    weights = stacked_weights(torch_modules(2, K=3, H=4, O=2))
    targets = torch.randn(3, 5, 2, dtype=torch.float64)
    init = torch.full((1, 1, 3), 1 / 3, dtype=torch.float64)
    clean = reference.invert(weights, targets, init, n_iter)
    targets[1, 4, 0] = bad
    dirty = reference.invert(weights, targets, init, n_iter)
    assert dirty.errors[:, 1].isnan().all()
    torch.testing.assert_close(dirty.errors[:, [0, 2]], clean.errors[:, [0, 2]])


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_train_equals_torch_adam(noise):
    """Both bias vectors trained by torch.optim.Adam, the sequence of episodes the same."""
    modules = torch_modules(2, K=3, H=4, O=2)
    types = torch.randn(2, 3, 1, 6, 2, dtype=torch.float64)
    seeds = torch.tensor([5, -(2**62)])
    noise_in = torch.full((2,), noise, dtype=torch.float64)
    result = reference_training.train(
        stacked_weights(modules),
        types,
        torch.tensor([1, 0]),
        noise_in,
        noise_in / 2,
        seeds,
        25,
        n_curve=5,
    )
    for m, module in enumerate(modules):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        losses = []
        for episode in range(25):
            x, target = reference_training.sample_episode(
                int(seeds[m]), episode, types[1 - m].numpy(), noise, noise / 2
            )
            drawn = module(torch.tensor(x)[None], 6)[0]
            loss = nn.functional.mse_loss(drawn, torch.tensor(target))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        expected = stacked_weights([module])
        for got, want in zip(result[:5], expected, strict=True):
            torch.testing.assert_close(got[m : m + 1], want, rtol=1e-9, atol=1e-11)
        curve = torch.tensor(losses, dtype=torch.float64).reshape(5, 5).mean(1)
        torch.testing.assert_close(result.loss_curve[m], curve, rtol=1e-10, atol=0)


def test_loss_curve_with_fewer_episodes_than_points():
    weights = stacked_weights(torch_modules(1, K=2, H=2, O=1))
    types = torch.randn(1, 2, 1, 3, 1, dtype=torch.float64)
    zero, index = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    result = reference_training.train(weights, types, index, zero, zero, index, 3, n_curve=100)
    assert result.loss_curve.shape == (1, 3)


# Known answers of the authors' reference implementation (Random123, kat_vectors).
PHILOX_ANSWERS = [
    ([0, 0], [0, 0, 0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 2, [0xFFFFFFFF] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0xA4093822, 0x299F31D0],
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("key", "counter", "answer"), PHILOX_ANSWERS)
def test_philox_known_answers(key, counter, answer):
    words = reference_training.philox_4x32(np.array(key, np.uint32), np.array(counter, np.uint32))
    assert words.tolist() == answer


def test_normal_numbers_are_normal():
    values = np.concatenate([reference_training.philox_normal(3, e, 2, 1001) for e in range(100)])
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02
    assert abs((np.abs(values) < 1.96).mean() - 0.95) < 0.005
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02


def test_types_are_drawn_uniformly():
    types = np.arange(3.0).reshape(3, 1, 1, 1)
    drawn = [reference_training.sample_episode(9, e, types, 0, 0)[1].item() for e in range(600)]
    # Four standard deviations.
    assert np.abs(np.bincount(np.array(drawn, dtype=int)) - 200).max() < 4 * (600 * 2 / 9) ** 0.5


def test_derivatives_are_those_of_torch_func_jvp():
    weights = random_weights(2, 5, 3, 2, torch.float64)
    latents = torch.rand(2, 4, 3, dtype=torch.float64)
    outputs, derivatives = reference.generate_with_derivatives(weights, latents, 6)
    for k in range(3):
        direction = torch.zeros_like(latents)
        direction[..., k] = 1
        value, tangent = torch.func.jvp(
            lambda z: reference.generate(weights, z, 6), (latents,), (direction,)
        )
        torch.testing.assert_close(outputs, value)
        torch.testing.assert_close(derivatives[..., k], tangent)


@pytest.mark.parametrize("simplex", [True, False])
def test_lm_never_gets_worse_and_stays_where_it_may(simplex):
    weights = random_weights(3, 6, 4, 2, torch.float64)
    targets = torch.randn(5, 9, 2, dtype=torch.float64)
    init = torch.rand(3, 5, 4, dtype=torch.float64)
    result = reference.invert_lm(weights, targets, init, 12, simplex=simplex, return_history=True)
    assert (result.error_history.diff(dim=0) <= 0).all()
    assert (result.error_history[-1] < result.error_history[0]).all()
    drawn = reference.generate(weights, result.latents, 9)
    torch.testing.assert_close(result.errors, (drawn - targets).square().mean(dim=(2, 3)))
    if simplex:
        assert (result.latents >= 0).all()
        torch.testing.assert_close(result.latents.sum(-1), torch.ones_like(result.errors))
    else:
        assert (result.latents < 0).any()


def test_lm_finds_a_drawn_sequence_again():
    weights = random_weights(1, 8, 3, 2, torch.float64)
    truth = torch.tensor([[[0.6, 0.3, 0.1], [0.0, 0.25, 0.75]]], dtype=torch.float64)
    targets = reference.generate(weights, truth, 12)[0]
    init = torch.full((1, 1, 3), 1 / 3, dtype=torch.float64)
    result = reference.invert_lm(weights, targets, init, 30)
    assert result.errors.max() < 1e-12
    torch.testing.assert_close(result.latents, truth, atol=1e-4, rtol=0)


def quadratic_problem():
    generator = torch.Generator().manual_seed(3)
    J = torch.randn(60, 6, 3, generator=generator, dtype=torch.float64)
    g = 3 * torch.randn(60, 3, generator=generator, dtype=torch.float64)
    z = reference.project(torch.rand(60, 3, generator=generator, dtype=torch.float64) - 0.3)
    return J.mT @ J, g, z, torch.full((60,), 0.5, dtype=torch.float64)


def test_free_lm_step_solves_the_normal_equations():
    A, g, z, mu = quadratic_problem()
    d = reference._damped_step(A, g, z, mu, simplex=False)
    torch.testing.assert_close((A @ d[..., None])[..., 0] + mu[:, None] * d, -g)


def test_lm_step_on_the_simplex_is_hardly_beaten_by_any_other():
    """Against a fine grid: components once fixed are not freed again, so a few steps fall short."""
    A, g, z, mu = quadratic_problem()
    d = reference._damped_step(A, g, z, mu, simplex=True)
    torch.testing.assert_close((z + d).sum(-1), torch.ones(60, dtype=torch.float64))
    assert (z + d >= -1e-12).all()

    def value(d):
        damped = (A @ d[..., None])[..., 0] + mu[:, None] * d
        return (2 * g * d + d * damped).sum(-1)

    a, b = torch.meshgrid(*2 * [torch.linspace(0, 1, 101, dtype=torch.float64)], indexing="ij")
    corners = torch.stack([a, b, 1 - a - b], dim=-1)[a + b <= 1]
    best = torch.stack([value(corner - z) for corner in corners]).amin(0)
    assert (value(d) <= best + 1e-9).double().mean() >= 0.9
    assert (value(d) <= 0).all()
