"""The CUDA kernels, held against the reference.

Every test runs twice: on an emulated device, where the CPU plays the threads of the same sources
(tests/cpp/emulated_device.h), and on a real one where there is one.
"""

from __future__ import annotations

import contextlib

import emulation
import operators
import pytest
import torch
from helpers import (
    assert_same_lm_searches,
    gradient_rounding,
    output_rounding,
    random_fleet,
    random_weights,
    relative_difference,
    with_holes,
)
from hypothesis import given
from hypothesis import strategies as st

from micfast.kernels import backend, reference, reference_training

DTYPES = [torch.float32, torch.float64]
no_gpu = backend.why_missing("cuda")
needs_gpu = pytest.mark.skipif(no_gpu is not None, reason=f"no CUDA here: {no_gpu}")

# Sizes of one, the two with registers of their own (H = 10 and 20), more units than threads, and
# odd ones.
sizes = st.tuples(
    st.sampled_from([1, 2, 3]),  # M
    st.sampled_from([0, 1, 2, 5, 13]),  # N
    st.sampled_from([1, 2, 3, 7, 9]),  # T
    st.sampled_from([1, 3, 10, 10, 20, 20, 33, 130]),  # H
    st.sampled_from([1, 2, 4, 21]),  # K
    st.sampled_from([1, 2, 5, 28]),  # O
)


class Device:
    """Where the kernels run: ``call`` takes and gives tensors on the CPU."""

    def __init__(self, kind):
        self.kind = kind
        self.backend = "cuda" if kind == "cuda" else "cpu"

    def call(self, name, weights, *arguments, **options):
        if self.kind == "cuda":
            weights = operators.as_weights(weights).to(device="cuda")
            arguments = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
        result = getattr(operators, name)(weights, *arguments, backend=self.backend, **options)
        if isinstance(result, torch.Tensor):
            return result.cpu()
        return type(result)(*(t.cpu() for t in result))


@pytest.fixture(
    params=[
        pytest.param("emulated", marks=pytest.mark.slow),  # compiled first
        pytest.param("cuda", marks=needs_gpu),
    ]
)
def device(request):
    with contextlib.ExitStack() as stack:
        if request.param == "emulated":
            module = request.getfixturevalue("emulated_module")
            stack.enter_context(emulation.emulated(module))
        yield Device(request.param)


@pytest.mark.parametrize("dtype", DTYPES)
@given(size=sizes)
def test_generate_and_its_gradients(device, dtype, size):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, dtype)
    latents, cotangent = torch.rand(M, N, K, dtype=dtype), torch.randn(M, N, T, O, dtype=dtype)

    def differentiate(generate):
        inputs = [t.clone().requires_grad_(True) for t in (*weights, latents)]
        drawn = generate(*inputs)
        return drawn.detach(), torch.autograd.grad((drawn * cotangent).sum(), inputs)

    kernel, kernel_gradients = differentiate(lambda *t: device.call("generate", t[:5], t[5], T))
    expected, expected_gradients = differentiate(lambda *t: reference.generate(t[:5], t[5], T))
    assert relative_difference(kernel, expected) < output_rounding(dtype, T, H, K)
    for got, want in zip(kernel_gradients, expected_gradients, strict=True):
        assert relative_difference(got, want) < gradient_rounding(dtype, N, T, H, K, O)


@pytest.mark.parametrize("dtype", DTYPES)
@given(size=sizes, n_iter=st.integers(0, 4), n_starts=st.integers(1, 3), data=st.data())
def test_invert(device, dtype, size, n_iter, n_starts, data):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, dtype)
    targets = torch.randn(N, T, O, dtype=dtype)
    per_module, per_target, unprojected = (data.draw(st.booleans()) for _ in range(3))
    init = torch.rand(M if per_module else 1, N if per_target else 1, n_starts, K, dtype=dtype)
    arguments = (weights, targets, init, n_iter, 0.05, 0.9, 0.99, 1e-8, unprojected, True)
    kernel, expected = device.call("invert", *arguments), reference.invert(*arguments)
    # Adam's steps of components without a gradient magnify roundings: float32 for its errors only.
    for name in kernel._fields if dtype == torch.float64 else ("errors", "n_iter_used"):
        tolerance = 1e-7 if dtype == torch.float64 else 2e-3
        assert relative_difference(getattr(kernel, name), getattr(expected, name)) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@given(size=sizes, n_iter=st.integers(0, 3), n_starts=st.integers(1, 2), data=st.data())
def test_invert_lm(device, dtype, size, n_iter, n_starts, data):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, dtype, scale=1)
    targets = torch.randn(N, T, O, dtype=dtype)
    init = torch.rand(1, 1, n_starts, K, dtype=dtype)
    arguments = (weights, targets, init, n_iter, 0.1, data.draw(st.booleans()), True)
    kernel, expected = device.call("invert_lm", *arguments), reference.invert_lm(*arguments)
    assert torch.equal(kernel.n_iter_used, expected.n_iter_used)
    if dtype == torch.float64:
        assert_same_lm_searches(kernel, expected, weights, targets)
        return
    # In float32 the way itself turns at roundings. It never rises, and what is reported is true.
    assert (kernel.error_history.diff(dim=0) <= 0).all()
    latents = kernel.latents.double().flatten(1, 2)
    drawn = reference.generate((w.double() for w in weights), latents, T)
    wanted = targets.double().repeat_interleave(n_starts, 0)
    own = reference.mean_squared_error(drawn, wanted).reshape(kernel.errors.shape)
    # Pre-activations are rounded in proportion to the latents.
    slack = (1e-4 + 1e-6 * kernel.latents.abs().amax(-1)) * (1 + own)
    assert ((kernel.errors - own).abs() <= slack).all()


def test_invert_lm_with_missing_values_and_tol(device):
    for H, dtype in ((7, torch.float64), (10, torch.float32), (20, torch.float32)):
        weights = random_weights(2, H, 4, 3, dtype, scale=1)
        targets = with_holes(torch.randn(19, 9, 3, dtype=dtype))
        targets[4] = torch.nan  # no value at all
        init = torch.full((1, 1, 1, 4), 0.25, dtype=dtype)
        arguments = (weights, targets, init, 6, 0.1, True, False, 1e-2)
        kernel = device.call("invert_lm", *arguments, omit_nan=True)
        expected = reference.invert_lm(*arguments, omit_nan=True)
        assert kernel.errors[:, 4].isnan().all()
        known = [n for n in range(19) if n != 4]
        assert relative_difference(kernel.errors[:, known], expected.errors[:, known]) < 1e-3
        assert kernel.converged.any()


@pytest.mark.parametrize("H", [7, 10, 20])
def test_invert_many_steps(device, H):
    weights = random_weights(2, H, 4, 2, scale=1)
    targets = reference.generate(weights, torch.rand(2, 3, 4), 20)[0]
    init = torch.full((1, 1, 4), 0.25)
    kernel = device.call("invert", weights, targets, init, 50)
    expected = reference.invert((w.double() for w in weights), targets.double(), init.double(), 50)
    torch.testing.assert_close(kernel.errors.double(), expected.errors, atol=1e-4, rtol=1e-2)
    assert (kernel.errors[0] < 2e-2).all()  # the module that drew them finds them again
    torch.testing.assert_close(kernel.latents.sum(-1), torch.ones(2, 3))


def test_invert_stops_by_tol(device):
    weights = random_weights(2, 10, 4, 2, torch.float64)
    targets = reference.generate(weights, torch.rand(2, 5, 4, dtype=torch.float64), 8)[0]
    targets[3:] = torch.randn(2, 8, 2)
    init = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).expand(1, 1, 2, 4)
    for history in (False, True):
        arguments = (weights, targets, init, 40, 0.05, 0.9, 0.99, 1e-8, False, history, 0.2)
        kernel, expected = device.call("invert", *arguments), reference.invert(*arguments)
        torch.testing.assert_close(kernel.errors, expected.errors)
        assert torch.equal(kernel.n_iter_used, expected.n_iter_used)
        assert torch.equal(kernel.converged, expected.converged)
        assert kernel.converged.any()
        assert len(set(kernel.n_iter_used.flatten().tolist())) > 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_target_that_is_not_finite_has_error_nan_alone(device, value):
    weights = random_weights(2, 10, 4, 2)
    targets, init = torch.randn(14, 6, 2), torch.full((1, 1, 4), 0.25)
    clean = device.call("invert", weights, targets, init, 5)
    targets[3, 2, 1] = value
    spoilt = device.call("invert", weights, targets, init, 5)
    assert spoilt.errors[:, 3].isnan().all()
    others = [n for n in range(14) if n != 3]
    assert torch.equal(spoilt.errors[:, others], clean.errors[:, others])
    assert torch.equal(spoilt.latents[:, others], clean.latents[:, others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "n_starts"), [(7, 1), (10, 2), (20, 1)])
def test_invert_with_missing_values(device, dtype, H, n_starts):
    weights = random_weights(2, H, 4, 3, dtype)
    targets = with_holes(torch.randn(19, 9, 3, dtype=dtype))
    targets[4] = torch.nan  # no value at all
    targets[6, 0, 0] = torch.inf
    init = torch.rand(1, 1, n_starts, 4, dtype=dtype)
    arguments = (weights, targets, init, 4)
    kernel = device.call("invert", *arguments, omit_nan=True)
    expected = reference.invert(*arguments, omit_nan=True)
    assert kernel.errors[:, [4, 6]].isnan().all()
    known = [n for n in range(19) if n not in (4, 6)]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    for got, want in ((kernel.errors, expected.errors), (kernel.latents, expected.latents)):
        assert relative_difference(got[:, known], want[:, known]) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("H", [5, 10])
def test_train_with_missing_values(device, dtype, H):
    weights = random_weights(3, H, 4, 2, dtype)
    types, *fleet = random_fleet(3, 4, 6, 2, dtype)
    arguments = (weights, with_holes(types.unsqueeze(2)), *fleet, 20, 0.01, 0.9, 0.999, 1e-8, 3)
    kernel = device.call("train", *arguments, omit_nan=True)
    expected = reference_training.train(*arguments, omit_nan=True)
    for got, want in zip(kernel, expected, strict=True):
        assert relative_difference(got, want) < (1e-8 if dtype == torch.float64 else 2e-3)


@pytest.mark.parametrize("H", [7, 10, 20])
def test_a_result_does_not_depend_on_the_targets_around_it(device, H):
    weights = random_weights(3, H, 4, 3)
    targets, init = torch.randn(40, 6, 3), torch.full((1, 1, 4), 0.25)
    together = device.call("invert", weights, targets, init, 6)
    for module, n in ((0, 0), (1, 17), (2, 39)):
        one = tuple(w[module : module + 1] for w in weights)
        alone = device.call("invert", one, targets[n : n + 1], init, 6)
        assert torch.equal(alone.errors[0, 0], together.errors[module, n])
        assert torch.equal(alone.latents[0, 0], together.latents[module, n])
    together = device.call("invert_lm", weights, targets, init, 4)
    one = tuple(w[2:] for w in weights)
    alone = device.call("invert_lm", one, targets[17:18], init, 4)
    assert torch.equal(alone.latents[0, 0], together.latents[2, 17])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "n_variants", "n_episodes"), [(5, 1, 12), (10, 2, 12), (20, 1, 70)])
def test_train(device, dtype, H, n_variants, n_episodes):
    M, K, T, O = 4, 3, 6, 5
    weights = random_weights(M, H, K, O, dtype)
    types, *fleet = random_fleet(M, K, T, O, dtype)
    variants = torch.stack([types + 0.1 * v for v in range(n_variants)], dim=2)
    arguments = (weights, variants, *fleet, n_episodes, 0.01, 0.9, 0.999, 1e-8, 5)
    kernel, expected = device.call("train", *arguments), reference_training.train(*arguments)
    for got, want in zip(kernel, expected, strict=True):
        tolerance = 1e-7 if dtype == torch.float64 else 2e-3
        assert relative_difference(got, want) < tolerance


def test_train_without_episodes_gives_the_weights_back(device):
    weights = random_weights(2, 10, 3, 2)
    types, *fleet = random_fleet(2, 3, 4, 2, torch.float32)
    result = device.call("train", weights, types, *fleet, 0)
    for got, want in zip(result, weights, strict=False):
        assert torch.equal(got, want)


def test_a_module_without_valid_values_is_refused_on_the_gpu(device, monkeypatch):
    """Where a look at the values would wait for the GPU; the others are trained as ever."""
    weights = random_weights(4, 10, 3, 2)
    types, sets, noise_in, noise_out, seeds = random_fleet(4, 3, 4, 2, torch.float32)
    expected = device.call("train", weights, types, sets, noise_in, noise_out, seeds, 5)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    sets[1], noise_in[2], noise_out[3] = 2**40, torch.nan, -1
    result = device.call("train", weights, types, sets, noise_in, noise_out, seeds, 5)
    for got, want in zip(result, expected, strict=True):
        assert torch.equal(got[0], want[0])
        assert got[1:].isnan().all()


def test_training_noise_is_that_of_the_cpu(device):
    """With one episode, the loss shows noise in input and target to the last bits."""
    weights = random_weights(3, 10, 4, 2, torch.float32)
    types, sets, *_ = random_fleet(3, 4, 30, 2, torch.float32)
    noise = torch.full((3,), 0.3, dtype=torch.float64)
    seeds = torch.tensor([0, 7, -(2**62)])
    arguments = (weights, types.unsqueeze(2), sets, noise, noise, seeds, 1)
    kernel, expected = device.call("train", *arguments), reference_training.train(*arguments)
    torch.testing.assert_close(kernel.loss_curve, expected.loss_curve, rtol=2e-6, atol=0)


def test_train_reports_progress(device):
    weights = random_weights(1, 3, 3, 2)
    types, *fleet = random_fleet(1, 3, 4, 2, torch.float32)
    seen = []
    device.call("train", weights, types, *fleet, 100, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) > 10


@needs_gpu
def test_opcheck_on_the_gpu():
    weights = [w.cuda() for w in random_weights(2, 10, 4, 2)]
    latents = torch.rand(2, 5, 4, device="cuda", requires_grad=True)
    trainable = [w.clone().requires_grad_(True) for w in weights]
    torch.library.opcheck(torch.ops.micfast.generate.default, (*trainable, latents, 6))
    starts = torch.full((1, 1, 2, 4), 0.25, device="cuda")
    targets = torch.randn(5, 6, 2, device="cuda")
    torch.library.opcheck(
        torch.ops.micfast.invert.default,
        (*weights, targets, starts, 3, 0.05, 0.9, 0.99, 1e-8, False, True, 0.0),
    )


@needs_gpu
def test_a_launch_can_be_captured_in_a_graph():
    weights = [w.cuda() for w in random_weights(2, 10, 4, 2)]
    targets, init = torch.randn(5, 6, 2, device="cuda"), torch.full((1, 1, 4), 0.25, device="cuda")
    expected = operators.invert(weights, targets, init, 5, backend="cuda")  # loads the kernels, too
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = operators.invert(weights, targets, init, 5, backend="cuda")
    graph.replay()
    assert torch.equal(captured.errors, expected.errors)
    targets.copy_(torch.randn_like(targets))
    graph.replay()
    assert torch.equal(captured.errors, operators.invert(weights, targets, init, 5).errors)


@needs_gpu
@pytest.mark.parametrize("omit_nan", [False, True])
def test_training_can_be_captured_in_a_graph(omit_nan):
    weights = [w.cuda() for w in random_weights(2, 10, 4, 2)]
    fleet = [t.cuda() for t in random_fleet(2, 4, 6, 2, torch.float32)]
    expected = operators.train(weights, *fleet, 70, omit_nan=omit_nan, backend="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = operators.train(weights, *fleet, 70, omit_nan=omit_nan, backend="cuda")
    graph.replay()
    assert all(map(torch.equal, captured, expected))


@needs_gpu
def test_a_launch_goes_to_the_current_stream():
    weights = [w.cuda() for w in random_weights(2, 10, 4, 2)]
    targets, init = torch.randn(5, 6, 2, device="cuda"), torch.full((1, 1, 4), 0.25, device="cuda")
    expected = operators.invert(weights, targets, init, 5)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = targets * 1  # ready only after the sleep
        result = operators.invert(weights, late, init, 5)
    stream.synchronize()
    assert torch.equal(result.errors, expected.errors)


def test_backend_cuda_says_why_it_is_missing_or_what_it_needs():
    weights = random_weights(1, 10, 4, 2)
    if no_gpu is not None:
        with pytest.raises(RuntimeError, match="backend 'cuda' is not available: ") as error:
            operators.generate(weights, torch.rand(1, 2, 4), 3, backend="cuda")
        assert no_gpu in str(error.value)
    else:
        with pytest.raises(ValueError, match="backend 'cuda' needs tensors on a CUDA device"):
            operators.generate(weights, torch.rand(1, 2, 4), 3, backend="cuda")


def test_auto_falls_back_once_warned_where_a_gpu_is_too_old(monkeypatch):
    """A GPU or driver that the kernels were not built for, played by the extension's answer."""

    class Extension:
        def __init__(self):
            self.probes = []

        def prepare(self, index):
            self.probes.append(index)
            if index == 1:
                raise RuntimeError("CUDA: the kernels do not run on this GPU: no kernel image")

    extension = Extension()
    monkeypatch.setattr(backend, "_load_cuda", lambda: (extension, None))
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    for cached in (backend._why_not_on_gpu, backend._warn_of_fallback):
        cached.cache_clear()
    try:
        assert backend.resolve_backend("auto", "cuda:0") == "cuda"
        with pytest.warns(
            RuntimeWarning, match=r"cuda:1, so PyTorch .*no kernel image.*7\.5"
        ) as seen:
            assert [backend.resolve_backend("auto", "cuda:1") for _ in range(3)] == ["torch"] * 3
        assert len(seen) == 1
        with pytest.raises(RuntimeError, match=r"'cuda' is not available: .*no kernel image"):
            backend.resolve_backend("cuda", "cuda:1")
        with pytest.raises(RuntimeError, match="Old GPU"):
            backend.cuda_extension()
        assert extension.probes == [0, 1]
    finally:
        for cached in (backend._why_not_on_gpu, backend._warn_of_fallback):
            cached.cache_clear()
