"""Decoders of other structures: the kernels compute what the float64 reference defines."""

import operators
import pytest
import torch
from decoders import FEW, FEW_GRUS, FEW_LSTMS, GRUS, LSTMS, STRUCTURES, name_of, random_weights
from helpers import ISAS, assert_same_lm_searches, needs_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from micfast import (
    Adam,
    Decoder,
    Execution,
    GeneratorBank,
    LevenbergMarquardt,
    Loss,
    Training,
    Weights,
    generate,
    invert,
    train,
)
from micfast.kernels import reference
from micfast.kernels.decoder import LATENTS, OUTPUTS

# Modules, targets, steps, hidden units, inputs, outputs: one of all; more than a block of lanes and
# a rest; few targets of wide modules (units in the lanes); one target of many modules.
SIZES = [
    (1, 1, 1, 1, 1, 1),
    pytest.param((2, 17, 5, 6, 3, 2), marks=pytest.mark.slow),
    pytest.param((1, 3, 4, 37, 2, 3), marks=pytest.mark.slow),
    (19, 1, 3, 4, 5, 1),
]
CLOSE = {"rtol": 1e-8, "atol": 1e-9}
PLAIN = ("first", 0, "identity", False, "lstm")


def targets_with_gaps(N, T, O, dtype):
    targets = torch.rand(N, T, O, generator=torch.Generator().manual_seed(N), dtype=torch.float64)
    if T > 2:
        targets[0, T - 2 :] = torch.nan
    if N > 1:
        targets[-1, 0, 0] = torch.nan if O * T > 1 else 0
    return targets.to(dtype)


def check_against_reference(structure, sizes):
    M, N, T, H, K, O = sizes
    weights = random_weights(structure, M, H, K, O)
    z = torch.randn(M, N, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = operators.generate(weights, z, T, backend="cpu")
    assert_close(drawn, reference.generate(weights, z, T, weights.structure), **CLOSE)

    targets = targets_with_gaps(N, T, O, torch.float64)
    start = torch.full((1, 1, 1, K), 1 / K, dtype=torch.float64)
    run = {"n_iter": 3, "omit_nan": True, "return_history": True}

    def search(method, backend, **more):
        return method(weights, targets, start, backend=backend, **run, **more)

    found, known = (search(operators.invert, backend) for backend in ("cpu", "torch"))
    assert_close(found.error_history, known.error_history, **CLOSE)
    assert_close(found.latents, known.latents, rtol=1e-6, atol=1e-7)
    for simplex in (True, False):
        found, known = (
            search(operators.invert_lm, backend, simplex=simplex) for backend in ("cpu", "torch")
        )
        assert_same_lm_searches(found, known, weights, targets, omit_nan=True)


@needs_kernel
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("structure", FEW, ids=name_of)
def test_kernel_is_the_reference(structure, sizes):
    check_against_reference(structure, sizes)


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
@given(
    sizes=st.tuples(
        st.integers(1, 20),
        st.sampled_from([1, 2, 17, 33]),
        st.integers(1, 6),
        st.sampled_from([1, 5, 8, 20, 65]),
        st.integers(1, 6),
        st.integers(1, 5),
    ),
)
@settings(max_examples=6)
def test_kernel_is_the_reference_for_drawn_shapes(structure, sizes):
    check_against_reference(structure, sizes)


@needs_kernel
@pytest.mark.parametrize("structure", FEW, ids=name_of)
def test_float32(structure):
    sizes = (2, 17, 5, 6, 3, 2)
    M, N, T, H, K, O = sizes
    weights = random_weights(structure, M, H, K, O, torch.float32)
    z = torch.randn(M, N, K, generator=torch.Generator().manual_seed(1))
    exact = weights.to(dtype=torch.float64)
    expected = reference.generate(exact, z.double(), T, exact.structure)
    assert_close(
        operators.generate(weights, z, T, backend="cpu").double(), expected, rtol=1e-4, atol=1e-5
    )
    targets = targets_with_gaps(N, T, O, torch.float32)
    start = torch.full((1, 1, K), 1 / K)
    found = operators.invert(weights, targets, start, 5, omit_nan=True, backend="cpu")
    drawn = reference.generate(exact, found.latents.double(), T, exact.structure)
    errors = reference.mean_squared_error(drawn, targets.double(), omit_nan=True)
    assert_close(found.errors.double(), errors, rtol=1e-4, atol=1e-6)


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("structure", FEW, ids=name_of)
def test_gradients(structure):
    weights = random_weights(structure, 2, 3, 2, 2)
    names, tensors = zip(*weights.named(), strict=True)
    z = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inputs = tuple(t.clone().requires_grad_(True) for t in (*tensors, z))

    def draw(*inputs):
        given = dict(zip(names, inputs[:-1], strict=True))
        given = Weights(**given, decoder=weights.decoder)
        return generate(given, inputs[-1], 3, execution="cpu")

    assert torch.autograd.gradcheck(draw, inputs)
    assert torch.autograd.gradgradcheck(draw, inputs, fast_mode=True)
    (gradient,) = torch.autograd.grad(draw(*inputs).sum(), inputs[-1])
    assert_close(torch.func.grad(lambda z: draw(*tensors, z).sum())(z), gradient)
    batched = torch.func.vmap(lambda z: draw(*tensors, z))(torch.stack([z, 2 * z]))
    assert_close(batched[1], draw(*tensors, 2 * z))
    batched = torch.func.vmap(lambda W, z: draw(W, *tensors[1:], z), (0, None))(
        torch.stack([tensors[0], 2 * tensors[0]]), z
    )
    assert_close(batched[1], draw(2 * tensors[0], *tensors[1:], z))


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("structure", FEW_LSTMS[::3] + FEW_GRUS[3:], ids=name_of)
def test_opcheck(structure):
    weights = random_weights(structure, 2, 3, 2, 2)
    five = [w.clone().requires_grad_(True) for w in weights]
    drawn = weights.structure[:5]
    z = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    ops = torch.ops.micfast
    torch.library.opcheck(ops.generate.default, (*five, z, 3, *drawn))
    d = torch.randn(2, 3, 3, 2, dtype=torch.float64)
    torch.library.opcheck(ops.generate_backward.default, (*five, z.detach(), d, *drawn))
    x, start = torch.rand(3, 4, 2).double(), torch.full((1, 1, 1, 2), 0.5).double()
    adam = (0.05, 0.9, 0.99, 1e-8)
    arguments = (*weights, x, start, 2, *adam, False, False, 0.0, False, *weights.structure)
    torch.library.opcheck(ops.invert.default, arguments)


@needs_kernel
@pytest.mark.parametrize("structure", FEW_LSTMS, ids=name_of)
@pytest.mark.parametrize("omit_nan", [False, True])
def test_training_is_the_reference_s(structure, omit_nan):
    M, K, T, O = 3, 2, 10, 2
    weights = random_weights(structure, M, 4, K, O)
    types = torch.rand(M, K, T, O, generator=torch.Generator().manual_seed(3)).double()
    if omit_nan:
        types[0, 0, 4:] = torch.nan
    fleet = (torch.arange(M), torch.full((M,), 0.1).double(), torch.full((M,), 0.1).double())
    arguments = (weights, types, *fleet, torch.arange(M), 12)
    found = operators.train(*arguments, backend="cpu", omit_nan=omit_nan)
    known = operators.train(*arguments, backend="torch", omit_nan=omit_nan)
    for name, a, b in zip(found._fields, found, known, strict=True):
        assert_close(a, b, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
    assert bool(found.b_first.numel()) == structure[3]


def test_a_gru_is_not_trained_here():
    weights = random_weights(FEW_GRUS[0], 2, 4, 3, 2, torch.float32)
    bank, types = GeneratorBank(weights), torch.rand(2, 3, 6, 2)
    for training in (Training.paper(5), Training()):
        for backend in ("auto", "torch"):
            with pytest.raises(ValueError, match="cell 'lstm', got 'gru'; train others in PyTorch"):
                train(bank, types, training, seeds=[0, 1], execution=backend)


def test_training_keeps_the_structure():
    weights = random_weights(("tanh_state", 2, "sigmoid", True, "lstm"), 2, 4, 3, 2)
    types = torch.rand(2, 3, 6, 2).double()
    trained = train(GeneratorBank(weights), types, Training.paper(20), seeds=[0, 1]).bank
    assert trained.weights.decoder == weights.decoder
    assert not torch.equal(trained.weights.b_state, weights.b_state)
    assert torch.equal(trained.weights.scale, weights.scale)


@needs_kernel
@pytest.mark.parametrize("structure", FEW, ids=name_of)
@pytest.mark.parametrize("isa", ISAS)
def test_bits_do_not_depend_on_the_company(structure, isa, monkeypatch):
    """All three ways of dealing targets to lanes, one thread or two, alone or together."""
    monkeypatch.setenv("MICFAST_ISA", isa)
    for H, N in ((5, 21), (40, 3)):
        weights = random_weights(structure, 3, H, 2, 2, torch.float32)
        bank, targets = GeneratorBank(weights), torch.rand(N, 6, 2)
        for solver in ("adam", "lm"):
            together = invert(bank, targets, solver=solver, execution=Execution("cpu", 2))
            alone = invert(bank.select(indices=1), targets[-1:], solver=solver, execution="cpu")
            assert torch.equal(together.errors[-1:, 1:2], alone.errors)
            assert torch.equal(together.latents[-1:, 1:2], alone.latents)


# -- two layers ------------------------------------------------------------------------------------


def two_layers(cell, latent):
    """A layer of torch's with two layers, a read-out, and our weights for them, in float64."""
    torch.manual_seed(0)
    kind = nn.GRU if cell == "gru" else nn.LSTM
    rnn, out = kind(3, 5, num_layers=2).double(), nn.Linear(5, 2).double()
    module = nn.Sequential(rnn, out)
    decoder = Decoder(latent, cell=cell, n_layers=2)
    bank = GeneratorBank.from_modules(module, decoder=decoder, check=False)

    def draw(z, n_steps):
        later = z if latent == "every" else torch.zeros_like(z)
        x = torch.stack([z, *(n_steps - 1) * [later]])
        return out(rnn(x)[0]).transpose(0, 1)

    return draw, bank.weights


@pytest.mark.parametrize(
    ("cell", "latent"),
    [
        ("lstm", "first"),
        pytest.param("gru", "every", marks=pytest.mark.slow),
        pytest.param("lstm", "every", marks=pytest.mark.slow),
        pytest.param("gru", "first", marks=pytest.mark.slow),
    ],
)
def test_two_layers_are_torch_s(cell, latent):
    """Drawings and gradients; errors with gaps and weights, whatever the backend."""
    draw, weights = two_layers(cell, latent)
    z = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    d = torch.rand(4, 6, 2, dtype=torch.float64)
    (expected,) = torch.autograd.grad((d * draw(z, 6)).sum(), z)
    for backend in ("torch", "auto"):
        drawn = generate(weights, z, 6, execution=backend)[0]
        assert_close(drawn, draw(z, 6), **CLOSE)
        assert_close(torch.autograd.grad((d * drawn).sum(), z)[0], expected, **CLOSE)
    targets = targets_with_gaps(4, 6, 2, torch.float64)
    counted = torch.linspace(0, 1, 6)[:, None].double()
    for loss in (Loss(), Loss(weights=counted)):
        for solver in (Adam(2, loss=loss), LevenbergMarquardt(2, loss=loss)):
            for backend in ("auto", "torch")[: 1 if loss.weights is None else 2]:
                run = {"solver": solver, "nan_policy": "omit", "execution": backend}
                found = invert(GeneratorBank(weights), targets, **run)
                w = torch.ones(6, 2) if loss.weights is None else counted.expand(6, 2)
                w = w * ~targets.isnan()
                squares = w * (draw(found.latents[:, 0], 6) - targets).nan_to_num().square()
                own = squares.sum((1, 2)) / w.sum((1, 2))
                assert_close(found.errors[:, 0], own, **CLOSE)


def test_banks_keep_two_layers(tmp_path):
    draw, weights = two_layers("gru", "first")
    bank = GeneratorBank.concat([GeneratorBank(weights, ["a"]), GeneratorBank(weights, ["b"])])
    bank.save(tmp_path / "bank.safetensors")
    loaded = GeneratorBank.load(tmp_path / "bank.safetensors")
    assert loaded == bank
    assert loaded.weights.decoder == weights.decoder
    z = torch.rand(4, 3).double()
    assert_close(loaded.select("b").generate(z, 4)[0], draw(z, 4))


def test_two_layers_are_not_trained_here():
    _, weights = two_layers("lstm", "first")
    for training in (Training.paper(5), Training()):
        with pytest.raises(ValueError, match="modules to train must have one layer, got 2"):
            train(GeneratorBank(weights), torch.rand(1, 3, 6, 2), training, seeds=[0])


def test_a_target_that_is_not_finite_has_no_error_in_two_layers():
    _, weights = two_layers("lstm", "first")
    targets = torch.rand(2, 5, 2).double()
    targets[0, 1] = torch.nan
    start = torch.full((1, 1, 3), 1 / 3).double()
    for backend in ("torch", "auto"):
        errors = operators.invert(weights, targets, start, 2, backend=backend).errors[0]
        assert errors.isnan().tolist() == [True, False]


# -- weights and banks -----------------------------------------------------------------------------


@pytest.mark.parametrize("structure", FEW, ids=name_of)
def test_banks_keep_the_structure(structure, tmp_path):
    bank = GeneratorBank(random_weights(structure, 3, 4, 2, 2), ["a", "b", "c"])
    bank.save(tmp_path / "bank.safetensors")
    loaded = GeneratorBank.load(tmp_path / "bank.safetensors")
    assert loaded == bank
    assert loaded.weights.decoder == bank.weights.decoder
    z = torch.rand(2, 2)
    assert torch.equal(loaded.generate(z, 5), bank.generate(z, 5))
    one = bank.select("b")
    assert torch.equal(one.generate(z, 5)[0], bank.generate(z, 5)[1])
    assert GeneratorBank.concat([bank.select(["a"]), bank.select(["b", "c"])]) == bank
    assert bank.replace("a", one).weights[:1].structure[0] == structure[0]
    assert bank != GeneratorBank(
        random_weights(("first", 0, "exp", False, "lstm"), 3, 4, 2, 2), bank.classes
    )


def test_concat_fills_in_what_changes_nothing():
    plain = random_weights(PLAIN, 1, 4, 2, 2)
    more = random_weights(("first", 0, "identity", True, "lstm"), 1, 4, 2, 2, seed=1)
    both = Weights.concat([plain, more])
    z = torch.rand(2, 3, 2).double()
    drawn = reference.generate(both, z, 4, both.structure)
    for m, weights in enumerate((plain, more)):
        expected = reference.generate(weights, z[m : m + 1], 4, weights.structure)
        assert torch.equal(drawn[m : m + 1], expected)
    for latent, cell in (("every", "lstm"), ("first", "gru")):
        other = random_weights((latent, 0, "identity", False, cell), 1, 4, 2, 2)
        with pytest.raises(ValueError, match=rf"module 1 has decoder Decoder.*{latent}.*{cell}"):
            Weights.concat([plain, other])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b_first": torch.zeros(1, 7)}, r"b_first must have shape \(1, 16\), got \(1, 7\)"),
        ({"b_state": torch.zeros(1, 4)}, "b_state must be None unless the latent sets"),
        ({"scale": torch.zeros(1, 3)}, r"scale must have shape \(1, 2\)"),
        ({"decoder": Decoder("state")}, r"W_ih must have shape \(n_modules, hidden_size or"),
        (
            {"decoder": Decoder("state", cell="gru")},
            r"W_ih must have .*, hidden_size, input_size\)",
        ),
        ({"decoder": Decoder(feeds_back=True)}, "without feeds_back"),
        ({"shift": torch.zeros(1, 2).double()}, "shift must have the dtype of W_ih"),
    ],
)
def test_weights_that_do_not_fit(changes, message):
    weights = random_weights(PLAIN, 1, 4, 2, 2, torch.float32)
    with pytest.raises((TypeError, ValueError), match=message):
        Weights(*weights, **changes)


def test_decoder():
    assert {d.latent for d in map(Decoder, LATENTS)} == set(LATENTS)
    assert Decoder().replace(output="exp") == Decoder("first", "exp")
    with pytest.raises(ValueError, match=r"latent must be 'first', 'every', 'state'"):
        Decoder("last")
    with pytest.raises(ValueError, match=r"output must be 'identity', .* or 'softplus'"):
        Decoder(output="relu")
    with pytest.raises(TypeError, match="feeds_back must be True or False"):
        Decoder(feeds_back=1)
    with pytest.raises(ValueError, match="cell must be 'lstm' or 'gru', got 'rnn'"):
        Decoder(cell="rnn")
    with pytest.raises(ValueError, match="n_layers must be"):
        Decoder(n_layers=3)
    assert len({s[:3] for s in LSTMS}) == 6 * len(OUTPUTS)
    assert len({s[0] for s in GRUS}) == len(LATENTS)
