"""The CUDA kernels on the emulated device: every path, orders of threads, missing barriers.

Whether the emulation would see a mistake is tested here as well: a barrier is left out.
"""

from __future__ import annotations

import contextlib

import emulation
import operators
import pytest
import torch
from emulation import ORDERS, emulated
from helpers import random_fleet, random_weights, relative_difference, with_holes
from hypothesis import given, settings
from hypothesis import strategies as st

from micfast.kernels import backend

pytestmark = pytest.mark.slow  # compiled first


def gradients(weights, latents, T):
    """Of the sum of the squares of what is drawn, in all weights and latents."""
    inputs = [t.clone().requires_grad_(True) for t in (*weights, latents)]
    drawn = operators.generate(inputs[:5], inputs[5], T, backend="cpu")
    return [drawn.detach(), *torch.autograd.grad(drawn.square().sum(), inputs)]


def jobs(H, dtype, N=17, T=7, n_iter=3):
    """Results of every kernel, one job after the other; unequal lengths and holes in some."""
    M, K, O = 2, 4, 3
    generator = torch.Generator().manual_seed(0)
    weights, init = random_weights(M, H, K, O, dtype), torch.full((1, 1, K), 1 / K, dtype=dtype)
    targets = torch.randn(N, T, O, generator=generator, dtype=torch.float64).to(dtype)
    holes = with_holes(targets)
    types, *fleet = random_fleet(M, K, T, O, dtype)
    adam = (n_iter, 0.05, 0.9, 0.99, 1e-8, False)
    cpu = {"backend": "cpu"}
    yield operators.invert(weights, targets, init, *adam, True, 0.0, **cpu)
    yield operators.invert(weights, holes, init, *adam, False, 0.1, omit_nan=True, **cpu)
    yield operators.invert_lm(weights, targets, init, n_iter, 0.1, True, True, **cpu)
    yield operators.invert_lm(weights, holes, init, n_iter, tol=0.1, omit_nan=True, **cpu)
    yield operators.train(weights, types, *fleet, 6, **cpu)
    yield operators.train(weights, with_holes(types), *fleet, 6, omit_nan=True, **cpu)
    latents = torch.rand(M, 70, K, generator=generator, dtype=torch.float64).to(dtype)
    yield gradients(weights, latents, T)


CASES = [(10, torch.float32), (20, torch.float32), (6, torch.float64)]


def everything(cases=CASES):
    return [tensor for H, dtype in cases for job in jobs(H, dtype) for tensor in job]


def same(got, want):
    return all(
        torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(got, want, strict=True)
    )


@pytest.fixture(scope="module")
def usual(emulated_module):
    """What the device gives as it is."""
    with emulated(emulated_module):
        return everything()


@pytest.mark.parametrize(
    "device",
    [
        *({"order": order, "blocks": 1} for order in ORDERS[1:]),
        {"blocks": 100},
        {"shared": 0},
        {"shared": 20000, "order": "backward"},
        {"workspace": 40000},
        {"launch_microseconds": 0},
    ],
    ids=str,
)
def test_results_do_not_depend_on_the_device_or_the_order_of_threads(
    emulated_module, usual, device
):
    with emulated(emulated_module, **device):
        assert same(everything(), usual)


@pytest.mark.skipif(backend.extension is None, reason="no CPU kernels here")
@settings(max_examples=8)
@given(
    size=st.tuples(
        st.sampled_from([5, 10, 10, 20, 20, 33]),  # H
        st.integers(1, 20),  # N
        st.integers(1, 30),  # T
        st.integers(0, 3),  # iterations
    ),
    shared=st.sampled_from([0, 20000, 227 * 1024]),  # the tape in the workspace, or on chip
    workspace=st.sampled_from([2**30, 300_000]),  # whole tapes, or parts of them
    order=st.sampled_from(ORDERS),
)
def test_every_path_gives_what_the_cpu_kernels_give(
    emulated_module, size, shared, workspace, order
):
    H, N, T, n_iter = size
    for dtype in (torch.float32, torch.float64):
        want = list(jobs(H, dtype, N, T, n_iter))
        with emulated(emulated_module, shared=shared, workspace=workspace, order=order):
            got = list(jobs(H, dtype, N, T, n_iter))
        for job, (a, b) in enumerate(zip(got, want, strict=True)):
            if dtype == torch.float64:
                if job not in (2, 3):  # the steps of LM turn at roundings
                    assert max(map(relative_difference, a, b)) < 1e-7, job
            elif job in (0, 1):  # and Adam's in float32, of components without a gradient
                assert relative_difference(a[0], b[0]) < 2e-3, job
            elif job >= 4:
                assert max(map(relative_difference, a, b)) < 2e-3, job
            if job in (2, 3):
                assert relative_difference(a[0].clamp(max=10), b[0].clamp(max=10)) < 0.1, job


def test_little_workspace_costs_time_and_no_bits(emulated_module):
    """Fewer blocks, then a tape in parts, then tiles of one pair; then what is missing."""
    H, T = 6, 23

    def results():
        return [t for job in jobs(H, torch.float32, 40, T) for t in job]

    with emulated(emulated_module, shared=0):
        expected = results()
    for kibibytes in (1024, 128, 64, 32, 24):
        with emulated(emulated_module, shared=0, workspace=kibibytes * 1024):
            assert same(results(), expected), kibibytes
    tape_of_a_pair = T * H * 20
    assert 128 // H * tape_of_a_pair > 2 * 24 * 1024  # 128 / H pairs a block: not with whole tapes
    message = r"needs \d+ bytes of workspace, but .* take 1000"
    with (
        emulated(emulated_module, shared=0, workspace=1000),
        pytest.raises(RuntimeError, match=message),
    ):
        results()


@pytest.mark.parametrize(("H", "dtype"), CASES)
def test_sums_do_not_depend_on_the_lengths_of_other_targets(emulated_module, H, dtype):
    weights, init = random_weights(1, H, 4, 3, dtype), torch.full((1, 1, 4), 0.25, dtype=dtype)
    targets = with_holes(torch.randn(23, 23, 3, dtype=dtype))
    with emulated(emulated_module):
        for name in ("invert", "invert_lm"):
            search = getattr(operators, name)
            together = search(weights, targets, init, 3, omit_nan=True, backend="cpu")
            for n in (0, 7, 12):
                alone = search(weights, targets[[n]], init, 3, omit_nan=True, backend="cpu")
                assert same([t[:, 0] for t in alone[:4]], [t[:, n] for t in together[:4]]), (
                    name,
                    n,
                )


class Watched:
    """The module; keeps what its kernels want of the workspace, in bytes."""

    def __init__(self, module):
        self.module, self.wanted = module, 0

    def __getattr__(self, kernel):
        def run(*arguments):
            self.wanted = getattr(self.module, kernel)(*arguments)
            return self.wanted

        return run


def searches_of_many(module, H, N, T, O, n_iter, **device):
    """Inversions by Adam as tiles of 256 targets allow them; and which mapping ran."""
    K, M = 3, 2
    generator = torch.Generator().manual_seed(1)
    weights = random_weights(M, H, K, O, torch.float32)
    targets = torch.randn(N, T, O, generator=generator)
    holes = with_holes(targets)
    starts = torch.rand(M, N, K, generator=generator)
    adam = (n_iter, 0.05, 0.9, 0.99, 1e-8)
    watched = Watched(module)

    def searches(targets, holes, starts, watched=watched):
        with contextlib.nullcontext() if watched is None else emulated(watched, **device):
            for values, *options, omit_nan in (
                (targets, False, True, 0.0, False),  # with a history
                (targets, True, False, 0.0, False),  # measured before the last projection
                (holes, False, False, 0.1, True),
            ):
                yield operators.invert(
                    weights, values, starts, *adam, *options, omit_nan=omit_nan, backend="cpu"
                )

    return searches, targets, holes, starts, watched


@pytest.mark.skipif(backend.extension is None, reason="no CPU kernels here")
@settings(max_examples=5)
@given(
    size=st.tuples(
        st.sampled_from([10, 20]),  # H
        st.integers(1024, 1300),  # N
        st.integers(2, 8),  # T
        st.integers(1, 7),  # O
        st.integers(0, 6),  # iterations
    ),
    order=st.sampled_from(ORDERS),
    blocks=st.sampled_from([1, 3]),
)
def test_a_thread_to_whole_targets_gives_the_bits_of_a_thread_to_a_unit(
    emulated_module, size, order, blocks
):
    """Whichever mapping the number of targets chooses: what a target gets does not depend on it."""
    H, N, T = size[:3]
    search, targets, holes, starts, watched = searches_of_many(
        emulated_module, *size, order=order, blocks=blocks
    )
    got = list(search(targets, holes, starts))
    tape = T * H * 20 * (256 if H == 10 else 128)  # of a block's targets
    assert watched.wanted > tape
    few = [0, 1, 255, 256, N // 2, N - 2, N - 1]
    by_units = list(search(targets[few], holes[few], starts[:, few]))
    assert watched.wanted < tape
    for many, one in zip(got, by_units, strict=True):
        assert same([t[:, few] for t in many[:4]], one[:4])
        histories = [(a[:, :, few], b) for a, b in zip(many[4:], one[4:], strict=True) if b.numel()]
        assert all(same([a], [b]) for a, b in histories)
    for many, cpu in zip(got, search(targets, holes, starts, None), strict=True):
        assert relative_difference(many[0], cpu[0]) < 2e-3


@pytest.mark.parametrize("barrier", emulation.barriers_of_weights())
def test_weights_that_are_used_too_early_or_too_long_show(emulated_module, barrier):
    size = (10, 1024, 3, 2, 2)
    for order in ORDERS:
        results = []
        for more in ({}, {"without": barrier}):
            search, *inputs, _ = searches_of_many(
                emulated_module, *size, order=order, blocks=1, **more
            )
            results.append([t for found in search(*inputs) for t in found])
        if not same(*results):
            return
    pytest.fail(f"the barrier at {barrier} can be left out, as far as this test can see")


# Tiles that follow one another in a block; and all arrays in the workspace.
DEVICES = ({"blocks": 1}, {"blocks": 1, "shared": 0})


@pytest.fixture(scope="module")
def expected(emulated_module):
    """What each case gives on each of the devices."""
    results = []
    for device in DEVICES:
        with emulated(emulated_module, **device):
            results += [(device, case, everything([case])) for case in CASES]
    return results


@pytest.mark.parametrize("barrier", emulation.barriers_of_steps())
def test_a_barrier_that_is_missing_shows(emulated_module, expected, barrier):
    """It is left out; in some order of the threads another result comes out."""
    for device, case, want in expected:
        for order in ORDERS:
            with emulated(emulated_module, **device, order=order, without=barrier):
                try:
                    shows = not same(everything([case]), want)
                except RuntimeError:  # threads that wait at different barriers
                    shows = True
            if shows:
                return
    pytest.fail(f"the barrier at {barrier} can be left out, as far as this test can see")
