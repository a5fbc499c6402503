"""Torch modules instead of a bank: what is believed, what is refused, and what stays as it was."""

import copy
import random
import re
import time
import warnings

import dropin_public
import dropin_zoo as zoo
import dropin_zoo_cells as cells
import numpy as np
import pytest
import torch
from dropin_zoo import EXPRESSED, PUBLIC, RIGHT, UNKNOWN, WRONG, Base, H, K, O, T
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import micfast
from micfast import Adam, Generator, GeneratorBank
from micfast.generators.dropin.parts import read_fleet
from micfast.kernels.reference import project

FEW = Adam(n_iter=2)
# Some of them always, the others among the slow tests.
SOME_PUBLIC = [
    pytest.param(name, marks=[pytest.mark.slow] * (i > 1)) for i, name in enumerate(PUBLIC)
]


def build(make):
    torch.manual_seed(3)
    return make()


def targets_for(module, n_targets=3, n_steps=T):
    hidden = next(m for m in module.modules() if hasattr(m, "hidden_size")).hidden_size
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    n_outputs = [m.out_features for m in linears if m.in_features == hidden][-1]
    return torch.randn(n_targets, n_steps, n_outputs, generator=torch.Generator().manual_seed(1))


def invert(modules, targets, solver=FEW, **settings):
    return micfast.invert(modules, targets, solver=solver, **settings)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def traces(module):
    """All of a module's and the random generators' state, as bytes and identities."""
    seen = []
    for name, m in module.named_modules():
        for attribute, value in vars(m).items():
            seen.append((name, attribute, id(value)))
            if isinstance(value, torch.Tensor):
                seen.append(value.detach().numpy().tobytes())
            if isinstance(value, dict | list):
                seen.append([id(v) for v in (value.values() if type(value) is not list else value)])
        seen.append((name, m.training))
    for name, p in [*module.named_parameters(), *module.named_buffers()]:
        seen.append((name, id(p), p.requires_grad, p.detach().numpy().tobytes(), p._version))
        seen.append(None if p.grad is None else p.grad.numpy().tobytes())
    seen += [torch.get_rng_state().numpy().tobytes(), random.getstate()]
    seen.append(str(np.random.get_state()))  # noqa: NPY002
    return seen


# -- the three outcomes ----------------------------------------------------------------------------


def test_the_zoo_is_large_enough():
    assert len(RIGHT) >= 45
    assert len(EXPRESSED) >= 25
    assert len(WRONG) >= 45
    assert len(UNKNOWN) >= 10
    assert len(PUBLIC) >= 18


@pytest.mark.parametrize("name", RIGHT)
def test_right_modules_are_silent(name):
    module = build(RIGHT[name])
    training = any(m.training for m in module.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if name == "NoiseInTrainingOnly":
            module.eval()
        bank = GeneratorBank.from_modules(module, check="raise")
        found = invert(module, targets_for(module), check="raise")
    assert found.bank == bank
    assert any(m.training for m in module.modules()) == (training and name != "NoiseInTrainingOnly")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_modules_are_never_believed(name):
    module = build(WRONG[name])
    with pytest.raises(ValueError, match=r"module 0 .* draws something else .* check=False"):
        invert([module], targets_for(module))
    with pytest.raises(ValueError, match=r"module 0 .* draws something else"):
        GeneratorBank.from_modules(module)


def drawing_of(module, z, n_steps):
    """The module's own drawing (n, n_steps, O), differentiable."""
    try:
        drawn = module(z, n_steps)
    except TypeError:  # takes the inputs of all steps
        drawn = module(zoo.first_input(z, n_steps))
    drawn = drawn[0] if isinstance(drawn, tuple) else drawn
    return drawn if drawn.shape[:2] == (len(z), n_steps) else drawn.transpose(0, 1)


@pytest.mark.parametrize("name", EXPRESSED)
def test_modules_of_other_structures_are_inverted_right(name):
    """Our error is that of the module's own drawing from our latent."""
    module = build(EXPRESSED[name]).eval()
    targets = 0.5 + 0.3 * targets_for(module, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {s: invert(module, targets, solver=s, check="raise") for s in ("adam", "lm")}
        found["auto"] = invert([module, module], [targets[0], targets[1, :9]])
    if name in PUBLIC:
        decoder = found["adam"].bank.weights.decoder
        assert decoder == micfast.Decoder(**PUBLIC[name][1])
    for kind, result in found.items():
        for n in range(len(result.errors)):
            known = targets[n, : 9 if kind == "auto" and n == 1 else None]
            with torch.no_grad():
                drawn = drawing_of(module, torch.as_tensor(result.latents[n, -1:]), len(known))
            own = (drawn[0] - known).square().mean()
            torch.testing.assert_close(
                torch.as_tensor(result.errors[n, -1]), own, rtol=1e-4, atol=1e-7
            )


@pytest.mark.parametrize("name", ["tanh", "EveryStep", "LatentIsH0", *SOME_PUBLIC])
def test_searches_end_where_the_hand_written_loop_ends(name):
    """In float64; a few may fork, as two roundings can make them."""
    module = build(EXPRESSED[name]).double().eval()
    targets = (0.5 + 0.3 * targets_for(build(EXPRESSED[name]), 20)).double()
    found = invert(module, targets, solver=Adam(n_iter=30), check="raise")
    z = torch.full((20, found.latents.shape[-1]), 1 / found.latents.shape[-1]).double()
    m, v = torch.zeros_like(z), torch.zeros_like(z)

    def errors(z):
        return (drawing_of(module, z, T) - targets).square().mean((1, 2))

    for _ in range(30):
        z = project(z).requires_grad_(True)
        (g,) = torch.autograd.grad(errors(z).sum(), z)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g.square()
        z = (z - 0.05 * m / (v.sqrt() + 1e-8)).detach()
    with torch.no_grad():
        own = errors(project(z))
    same = torch.isclose(torch.as_tensor(found.errors[:, 0]), own, rtol=1e-6, atol=1e-12)
    assert same.double().mean() >= 0.9


@pytest.mark.parametrize("name", SOME_PUBLIC)
def test_a_declared_structure_is_tried_alone(name):
    module, targets = build(EXPRESSED[name]), targets_for(build(EXPRESSED[name]))
    expected = GeneratorBank.from_modules(module)
    options = {s.decoder for s in read_fleet(module, "test").parts[0].structures}
    agreeing = []
    for decoder in options:
        try:
            bank = GeneratorBank.from_modules(module, decoder=decoder, check="raise")
        except ValueError:
            continue
        agreeing.append(decoder)
        own = invert(module, targets, decoder=decoder).bank.weights
        for (_, a), (_, b) in zip(own.named(), bank.weights.named(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert len(agreeing) == 1
    assert agreeing[0].output == expected.weights.decoder.output
    if name == "Seq2SeqAutoencoder":  # a first guess that needs no probe
        unchecked = GeneratorBank.from_modules(module, decoder=agreeing[0], check=False)
        assert unchecked.weights.decoder == agreeing[0]


@pytest.mark.parametrize("name", dropin_public.REFUSED)
def test_public_modules_that_are_refused_with_the_reason(name):
    make, message = dropin_public.REFUSED[name]
    module = build(make)
    with pytest.raises(ValueError, match=message):
        invert(module, targets_for(module))


def test_a_module_list_of_classes():
    """Cells, LSTMs and steps by hand beside one another, as far as the structure is the same."""
    kinds = [zoo.Vrae, dropin_public.FunctionalSteps, zoo.Vrae]
    modules = nn.ModuleList(build(kind) for kind in kinds)
    targets = targets_for(modules[0], 5)
    found = invert(modules, targets, check="raise")
    for m, module in enumerate(modules):
        with torch.no_grad():
            drawn = drawing_of(module, found.latents[:, m], T)
        own = (drawn - targets).square().mean((1, 2))
        torch.testing.assert_close(found.errors[:, m], own, rtol=1e-4, atol=1e-7)


def test_structures_that_cannot_be():
    with pytest.raises(ValueError, match=r"module 0: Decoder\(latent='first'.*needs other layers"):
        invert(build(zoo.Vrae), targets_for(build(Base)), decoder=micfast.Decoder())
    with pytest.raises(
        ValueError, match=r"has 2 nn\.Linear: with check=False its structure must be"
    ):
        invert(build(zoo.Vrae), targets_for(build(Base)), check=False)
    with pytest.raises(TypeError, match=r"decoder must be a micfast\.Decoder or None, got str"):
        invert(build(Base), targets_for(build(Base)), decoder="every")
    with pytest.raises(ValueError, match=r"module 1 has decoder .*tanh.*one call per structure"):
        invert([build(Base), build(EXPRESSED["tanh"])], targets_for(build(Base)))
    bank = GeneratorBank.from_modules(build(zoo.EveryStep))
    with pytest.raises(ValueError, match=r"decoder must be that of the bank"):
        invert(bank, targets_for(build(Base)), decoder=micfast.Decoder())
    with pytest.raises(ValueError, match=r"to_modules: .*Generator"):
        bank.to_modules()


def test_check_finds_the_structure():
    module = build(zoo.TanhGenerator)
    report = micfast.check(module, drawing_of, 0.3 * targets_for(module))
    assert report.agrees


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_modules_give_one_warning(name):
    modules = [build(UNKNOWN[name]) for _ in range(3)]
    if any(m.training and isinstance(m, nn.Dropout) for m in modules[0].modules()):
        modules[0].eval()
    with pytest.warns(
        UserWarning, match=r"could not check .*2 more: 1, 2.* micfast\.check"
    ) as seen:
        found = invert(modules, targets_for(modules[0]))
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert found.errors.shape == (3, 3)
    with pytest.raises(ValueError, match="could not check"):
        invert(modules, targets_for(modules[0]), check="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        invert(modules, targets_for(modules[0]), check=False)


@pytest.mark.parametrize("name", [*RIGHT, *EXPRESSED, *WRONG, *UNKNOWN])
def test_nothing_is_left_behind(name):
    module = build((RIGHT | EXPRESSED | WRONG | UNKNOWN)[name])
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
        parameter.requires_grad_(False)
        break
    for i, m in enumerate(module.modules()):
        m.training = i % 2 == 0
    before = traces(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for check in ("warn", False)[
            : 1 if len(read_fleet([module], "").parts[0].layers) > 2 else 2
        ]:
            GeneratorBank.from_modules([module], check=check)
            assert traces(module) == before


def test_a_pending_backward_pass_survives():
    module = build(zoo.UnusedBuffers)
    expected = torch.autograd.grad(module(torch.ones(1, K), 5).sum(), [*module.parameters()])
    loss = module(torch.ones(1, K), 5).sum()
    GeneratorBank.from_modules(module)
    for got, wanted in zip(
        torch.autograd.grad(loss, [*module.parameters()]), expected, strict=True
    ):
        assert torch.equal(got, wanted)


def test_own_generators_and_parameters_changed_in_forward_are_put_back():
    class Own(Base):
        def __init__(self):
            super().__init__()
            self.generators = None
            self.torch, self.numpy = torch.Generator(), np.random.default_rng(0)
            self.python, self.calls = random.Random(0), [torch.zeros(2)]

        def forward(self, z, n_steps):
            torch.rand(1, generator=self.torch), self.numpy.random(), self.python.random()
            self.calls.append(n_steps)
            self.calls[0].add_(1)
            self.rnn.weight_hh_l0.data.clamp_(-0.2, 0.2)  # kept small, as in WGANs
            return super().forward(z, n_steps)

    module = build(Own)
    before = copy.deepcopy(module)
    bank = GeneratorBank.from_modules(module, check="raise")
    assert torch.equal(module.rnn.weight_hh_l0, before.rnn.weight_hh_l0)
    assert torch.equal(bank.weights.W_hh[0], before.rnn.weight_hh_l0.clamp(-0.2, 0.2))
    assert torch.equal(module.torch.get_state(), before.torch.get_state())
    assert module.numpy.random() == before.numpy.random()
    assert module.python.random() == before.python.random()
    assert len(module.calls) == 1
    assert not module.calls[0].any()


def test_contradictions_name_the_module_the_call_and_the_cause():
    module = build(WRONG["relu"])
    with pytest.raises(ValueError, match=r"invert: module 1 'b' \(After\)") as caught:
        invert({"a": Base(), "b": module}, targets_for(module))
    message = str(caught.value)
    assert re.search(r"module\(latents of shape \(\d+, 4\), n_steps=30\) differs", message)
    assert re.search(r"from step 1 on, by up to [\d.]+ of the largest value", message)
    assert "relu after nn.Linear" in message
    assert "micfast.check" in message
    with pytest.warns(UserWarning, match="module 1 'b'"):
        found = invert({"a": Base(), "b": module}, targets_for(module), check="warn")
    assert found.classes == ("a", "b")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("softmax", "softmax over the channels"),
        ("cut off", "cut off"),
        ("summed", "added up over time"),
        ("flipped", "reverse order"),
        ("noise", "noise"),
        ("FirstOutputDropped", "first output left out"),
        ("EverySecond", "every second"),
        ("StateBetweenCalls", "state kept"),
        ("latent softmaxed", "softmax of the latent"),
    ],
)
def test_causes_are_told(name, cause):
    module = build(WRONG[name])
    with pytest.raises(ValueError, match=f"looks like .*{cause}"):
        invert(module, targets_for(module))


def test_difference_starts_at_the_step_where_it_does():
    with pytest.raises(ValueError, match="from step 11 on"):
        GeneratorBank.from_modules(build(WRONG["zero after step 10"]))
    with pytest.raises(ValueError, match="from step 13 on"):
        GeneratorBank.from_modules(build(WRONG["AgainAtStep12"]))


def test_late_differences_are_seen_where_the_targets_are_long():
    class Late(Base):
        def forward(self, z, n_steps):
            drawn = super().forward(z, n_steps)
            return torch.cat([drawn[:, :80], 0 * drawn[:, 80:]], 1)

    module = build(Late)
    GeneratorBank.from_modules(module, check="raise")  # draws 24 steps
    invert(module, targets_for(module, n_steps=80), check="raise")
    with pytest.raises(ValueError, match="from step 81 on"):
        invert(module, targets_for(module, n_steps=100))
    with pytest.raises(ValueError, match="from step 81 on"):
        GeneratorBank.from_modules(module, n_steps=100)


def test_fixed_lengths():
    module = build(zoo.FixedLengthSequences)
    invert(module, targets_for(module, n_steps=200), check="raise")
    module = build(zoo.OwnNumberOfSteps)
    with pytest.warns(UserWarning, match="returned 30 steps, while the targets have 40"):
        invert(module, targets_for(module, n_steps=40))


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["latents and steps", "Sequences", "SequencesBatchFirst"])
def test_short_targets(name, n_steps):
    module = build(RIGHT[name])
    invert(module, targets_for(module, n_steps=n_steps), check="raise")


def test_chaotic_modules_are_not_contradicted():
    class Rows(Base):
        """Other matrix products, and so other roundings."""

        def hidden(self, z, n_steps):
            return torch.cat([super(Rows, self).hidden(row, n_steps) for row in z.split(1)], 1)

    class RowsEveryStep(Base):
        def hidden(self, z, n_steps):
            return self.rnn(z[None].expand(n_steps, *z.shape))[0]

    def chaotic(kind):
        module = build(lambda: kind(hidden=100))
        with torch.no_grad():
            module.rnn.weight_hh_l0 *= 8
            module.head.weight *= 5
        return module

    module = chaotic(Rows)
    invert(module, targets_for(module, n_steps=4), check="raise")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        invert(module, targets_for(module, n_steps=128))
    assert all("depend so strongly on roundings" in str(w.message) for w in caught)
    with pytest.raises(ValueError, match="from step 2 on"):
        invert(chaotic(RowsEveryStep), targets_for(module, n_steps=128))


def test_modules_of_one_class_are_compared_one_by_one():
    class Switch(Base):
        saturates = False

        def forward(self, z, n_steps):
            drawn = super().forward(z, n_steps)
            return drawn.tanh() if self.saturates else drawn

    modules = [Switch() for _ in range(6)]
    GeneratorBank.from_modules(modules, check="raise")
    modules[4].saturates = True
    with pytest.raises(ValueError, match="module 4 "):
        GeneratorBank.from_modules(modules)


def test_in_inference_mode_and_under_autocast():
    module = build(Base)
    with torch.inference_mode():
        first = invert(module, targets_for(module), check="raise")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        second = invert(module, targets_for(module), check="raise")
    assert torch.equal(first.errors, second.errors)
    invert(module, targets_for(module), check="raise")


@pytest.mark.slow
def test_compiled_modules_are_not_compiled_for_the_check():
    module = build(Base)
    bank = GeneratorBank.from_modules(module)
    start = time.perf_counter()
    compiled = torch.compile(copy.deepcopy(module))
    assert GeneratorBank.from_modules(compiled, check="raise") == bank
    module.compile()
    assert GeneratorBank.from_modules(module, check="raise") == bank
    assert module._compiled_call_impl is not None
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("check", [True, None, "always", 0, 1])
def test_check_is_one_of_four(check):
    with pytest.raises(ValueError, match="check must be 'auto', 'raise', 'warn' or False"):
        GeneratorBank.from_modules(Base(), check=check)
    with pytest.raises(ValueError, match="invert: check must be"):
        invert(GeneratorBank.from_modules(Base()), targets_for(Base()), check=check)


# -- training mode ---------------------------------------------------------------------------------


@pytest.mark.parametrize("check", ["auto", "raise"])
def test_dropout_in_training_mode_warns(check):
    class Drops(Base):
        def forward(self, z, n_steps):
            h = nn.functional.dropout(self.hidden(z, n_steps), 0.5, self.training)
            return self.head(h).transpose(0, 1)

    modules = [build(Drops), build(Drops).eval(), build(Drops)]
    with pytest.warns(UserWarning, match=r"modules 0, 2 are in training mode.*module\.eval"):
        found = invert(modules, targets_for(modules[0]), check=check)
    assert torch.equal(found.errors[:, 0], found.errors[:, 1])
    assert [m.training for m in modules] == [True, False, True]
    bare = nn.Sequential(nn.LSTM(K, H), nn.Dropout(0.1), nn.Linear(H, O))
    with pytest.warns(UserWarning, match="training mode"):
        invert(bare, targets_for(bare))


# -- fresh weights ---------------------------------------------------------------------------------


def normed(kind):
    """A function that applies a norm or mask to both layers of a module."""

    def apply(module):
        for layer, name in ((module.rnn, "weight_hh_l0"), (module.head, "weight")):
            if kind == "weight norm":
                weight_norm(layer, name)
            elif kind == "spectral norm":
                spectral_norm(layer, name)
            elif kind == "pruning":
                prune.l1_unstructured(layer, name, 0.4)
            elif kind == "pruning twice":
                prune.l1_unstructured(layer, name, 0.2)
                prune.random_unstructured(layer, name, 0.2)
            elif kind == "parametrized weight norm":
                parametrizations.weight_norm(layer, name)
            elif kind == "parametrized spectral norm":
                parametrizations.spectral_norm(layer, name)
        return module

    return apply


KINDS = [
    "weight norm",
    "spectral norm",
    "pruning",
    "pruning twice",
    "parametrized weight norm",
    "parametrized spectral norm",
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("check", ["raise", False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", ["load_state_dict", "optimiser step"])
def test_weights_are_those_of_now(kind, event, check):
    torch.manual_seed(5)
    module, other = normed(kind)(Base()), normed(kind)(Base())
    for m in (module, other):
        m.train()
        m(torch.rand(3, K), T)
    if event == "load_state_dict":
        module.load_state_dict(other.state_dict())
    else:
        module(torch.rand(3, K), T).square().mean().backward()
        torch.optim.SGD(module.parameters(), 0.1).step()
    module.eval()
    before = traces(module)
    bank = GeneratorBank.from_modules(module, check=check)
    assert traces(module) == before
    z = torch.randn(5, K)
    with torch.no_grad():
        expected = module(z, T)
    torch.testing.assert_close(bank.generate(z, T)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_reading_changes_nothing_in_training_mode(kind):
    module = normed(kind)(build(Base)).train()
    module(torch.rand(3, K), T)
    before = traces(module)
    for check in ("auto", False):
        GeneratorBank.from_modules(module, check=check)
        assert traces(module) == before


def test_other_derived_weights_are_refreshed_by_the_forward():
    module = build(Base)
    module.head.raw = nn.Parameter(torch.randn(O, H))
    del module.head.weight
    module.head.weight = torch.zeros(O, H)
    module.head.register_forward_pre_hook(lambda m, args: setattr(m, "weight", m.raw.tanh()))
    bank = GeneratorBank.from_modules(module, check="raise")
    assert torch.equal(bank.weights.W_out[0], module.head.raw.tanh())
    assert not module.head.weight.any()


# -- shapes ----------------------------------------------------------------------------------------


def test_one_target_of_one_channel():
    module = build(lambda: Base(n_outputs=1))
    target = targets_for(module, 1)
    expected = invert(module, target)
    for given in (target[0], target[0].numpy(), np.ma.masked_array(target[0].numpy())):
        found = invert(module, given)
        assert found.errors.shape == (1, 1)
        np.testing.assert_array_equal(found.errors, expected.errors)
    bank = GeneratorBank.from_modules(module)
    assert invert(bank, target[0]).errors.shape == (1, 1)
    assert invert(bank, target[..., 0].expand(4, T)).errors.shape == (4, 1)
    assert invert(bank, target[0, :1]).n_steps == 1
    assert invert(bank, [target[0], target[0, :5]]).errors.shape == (2, 1)
    frame = pytest.importorskip("pandas").DataFrame({"y": target[0, :, 0]})
    np.testing.assert_array_equal(invert(module, frame).errors, expected.errors)
    with pytest.raises(ValueError, match="a single sequence is"):
        invert(build(Base), targets_for(build(Base), 1)[0])


@pytest.mark.parametrize("make", [zoo.OwnNumberOfSteps, zoo.DefaultNumberOfSteps])
def test_time_first_is_noticed_where_modules_have_a_length(make):
    module = build(make)
    targets = targets_for(module, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        invert(module, targets)
        invert(module, [*targets.transpose(0, 1)], check=False)
    with pytest.warns(UserWarning, match=r"30 sequences of 7 steps.*transpose\(0, 1\)"):
        invert(module, targets.transpose(0, 1))


def test_names_of_a_module_dict_are_the_classes():
    modules = {"left": build(Base), "right": Base()}
    for given in (modules, nn.ModuleDict(modules)):
        found = invert(given, targets_for(Base()))
        assert found.classes == ("left", "right")
        assert GeneratorBank.from_modules(given).classes == ("left", "right")
        assert GeneratorBank.from_modules(given, classes=[5, 6]).classes == (5, 6)
    assert invert(nn.ModuleDict({"only": Base()}), targets_for(Base())).classes == ("only",)


# -- refusals --------------------------------------------------------------------------------------


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(O, H), Base()


class ToScript(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(K, H), nn.Linear(H, O)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.ao.nn.quantized.dynamic.LSTM(K, H)
        self.head = torch.ao.nn.quantized.dynamic.Linear(H, O)


def on_meta():
    with torch.device("meta"):
        return Base()


def lazy():
    module = Base()
    module.head = nn.LazyLinear(O)
    return module


def mixed():
    module = Base()
    module.head.double()
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cells.Gru, "has cell gru, module 0 has lstm; make one call per cell"),
        (cells.TwoLayers, "has num_layers 2, module 0 has 1; make one call per number of layers"),
        (cells.TwoLayersFromALinear, r"num_layers=2: of an nn\.LSTM its input alone"),
        (lambda: Base(lstm=nn.RNN), r"nn\.RNN 'rnn'.*only the LSTM and the GRU"),
        (Autoencoder, r"2 x nn\.LSTM \('encoder', 'decoder.rnn'\).*pass module\.decoder"),
        (lambda: torch.jit.script(ToScript()), "TorchScript"),
        (Quantized, "quantized LSTM 'rnn'.*before it was quantized"),
        (lambda: nn.ModuleList([Base(), Base()]), "not be nested: pass one flat list"),
        (lambda: [Base()], "got list; pass one flat list"),
        (lambda: nn.LSTM(K, H), r"nn\.LSTM ''.*holds both layers"),
        (lambda: nn.Conv1d(2, 2, 2), "a Conv1d without recurrent layer"),
        (lambda: Base, "the class Base; pass an instance"),
        (lambda: Base().forward, "the method forward of a Base; pass the nn.Module itself"),
        (lambda: len, "pass the nn.Module that it calls"),
        (lambda: None, "got None"),
        (lambda: "model.pth", "from_checkpoints"),
        (lambda: Base().state_dict(), "from_state_dicts"),
        (lambda: {"epoch": 1, "state_dict": {}}, "from_state_dicts"),
        (lambda: GeneratorBank.from_modules(Base()), r"GeneratorBank\.concat"),
        (on_meta, "meta device, it holds no weights"),
        (lambda: Base().half(), r"float16.*module\.float\(\)"),
        (lambda: Base().bfloat16(), r"bfloat16.*module\.float\(\)"),
        (mixed, r"one dtype, got torch.float32 .* and torch.float64 .*module\.float\(\)"),
        (lazy, r"not initialised yet"),
        (lambda: Base(hidden=7), "has hidden_size 7, module 0 has 10; make one call per size"),
        (lambda: Base(n_inputs=7), "has input_size 7"),
        (lambda: Base(n_outputs=7), "has output_size 7"),
        (lambda: Base().double(), "has dtype torch.float64"),
    ],
)
def test_refusals_say_what_is_there_and_what_to_do(make, message):
    wrong, ran = make(), []
    good = Base()
    good.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises((TypeError, ValueError), match=rf"invert: .*module 1.*{message}"):
        invert([good, wrong], targets_for(good))
    assert not ran


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "modules must be an nn.Module .* got None"),
        (Base, "pass an instance"),
        ("bank.safetensors", r"GeneratorBank\.load"),
        (Base().state_dict(), "from_state_dicts"),
        (Base().forward, "pass the nn.Module itself"),
        (3, "got int"),
    ],
)
def test_refusals_in_the_place_of_all_modules(given, message):
    with pytest.raises(TypeError, match=message):
        invert(given, torch.zeros(1, T, O))


# -- state dicts -----------------------------------------------------------------------------------


def test_state_dicts_of_other_names():
    torch.manual_seed(2)
    generator, module, plain = Generator(K, H, O), Base(), Base(bias=False)
    inner = nn.ModuleDict({"model": nn.ModuleDict({"decoder": module})})
    for state, expected in (
        (module.state_dict(), module),
        (plain.state_dict(), plain),
        (inner.state_dict(), module),
        (nn.DataParallel(module).state_dict(), module),
        ({f"module._orig_mod.{k}": v for k, v in generator.state_dict().items()}, generator),
        ({f"_orig_mod.module.{k}": v for k, v in module.state_dict().items()}, module),
        ({"epoch": 3, "model_state_dict": module.state_dict()}, module),
        ({"state_dict": {"state_dict": generator.state_dict()}}, generator),
    ):
        bank = GeneratorBank.from_state_dicts([state])
        assert bank == GeneratorBank.from_modules(expected)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (Autoencoder().state_dict(), "one nn.LSTM, got 2: 'encoder', 'decoder.rnn'"),
        (cells.LstmCell().state_dict(), "nn.LSTMCell"),
        (cells.Gru().state_dict(), r"nn\.GRU; load it .*from_modules"),
        (
            nn.ModuleList([nn.LSTM(K, H), nn.Linear(H, O), nn.Linear(O, O)]).state_dict(),
            "load_state_dict",
        ),
        (parametrizations.weight_norm(Base().head).state_dict(), "derived from others"),
        (Base().half().state_dict(), r"float16; convert with .*tensor\.float\(\)"),
        (on_meta().state_dict(), "meta device"),
        (Base(), r"got Base; use GeneratorBank\.from_modules"),
        ("a.pth", "from_checkpoints"),
    ],
)
def test_state_dicts_that_are_refused(state, message):
    good = Generator(K, H, O).state_dict()
    with pytest.raises((TypeError, ValueError), match=f"entry 1.*{message}"):
        GeneratorBank.from_state_dicts([good, state])
    with pytest.raises(TypeError, match="list of state dicts, got a single one"):
        GeneratorBank.from_state_dicts(good)


def test_checkpoints_of_other_names(tmp_path):
    module = Base()
    torch.save({"epoch": 1, "model_state_dict": module.state_dict()}, tmp_path / "a.pth")
    bank = GeneratorBank.from_checkpoints([tmp_path / "a.pth"])
    assert bank == GeneratorBank.from_modules(module)


# -- micfast.check ---------------------------------------------------------------------------------


def draw(module, z, n_steps):
    return module(z, n_steps)


def test_check_agrees_with_the_loop_of_a_right_module():
    modules = {"a": build(Base), "b": Base()}
    targets = 0.3 * targets_for(modules["a"], 5)
    before = traces(modules["a"])
    report = micfast.check(modules, draw, targets.double().numpy())
    assert traces(modules["a"]) == before
    assert report.agrees
    assert report.differences.shape == (2,)
    assert report.differences.max() < 1e-5
    expected = micfast.invert(modules, targets)
    np.testing.assert_allclose(report.errors, expected.errors[:3], rtol=1e-5)
    np.testing.assert_allclose(report.own_errors, report.errors, rtol=1e-4)
    np.testing.assert_allclose(report.loop_errors, report.errors, rtol=1e-3)
    np.testing.assert_allclose(report.loop_latents, report.latents, atol=1e-2)
    text = str(report)
    assert text.startswith("micfast agrees with your drawing function")
    assert len(text.splitlines()) == 5 + 6


@pytest.mark.parametrize("solver", ["lm", Adam(n_iter=3, start=np.eye(K)[None, None].repeat(2, 0))])
def test_check_with_other_solvers(solver):
    report = micfast.check(build(Base), draw, targets_for(Base(), 2), solver=solver)
    assert report.agrees
    assert (report.loop_errors is None) == (solver == "lm")
    assert ("plain loop" in str(report)) == (solver != "lm")


def test_check_sees_what_the_loop_feeds():
    module = build(zoo.Sequences)
    targets = targets_for(module, 2)
    invert(module, targets, check="raise")

    def first(module, z, n_steps):
        return module(zoo.first_input(z, n_steps)).transpose(0, 1)

    def every(module, z, n_steps):
        return module(z[None].expand(n_steps, *z.shape)).transpose(0, 1)

    assert micfast.check(module, first, targets).agrees
    report = micfast.check(module, every, targets)
    assert not report.agrees
    assert report.differences[0] > 0.1
    assert str(report).startswith("micfast DIFFERS from")
    bare = nn.Sequential(nn.LSTM(K, H), nn.Linear(H, O))
    assert micfast.check(
        bare, lambda m, z, n: m[1](m[0](zoo.first_input(z, n))[0]).transpose(0, 1), targets
    ).agrees


def test_check_with_gaps_and_unequal_lengths():
    module = build(Base)
    targets = targets_for(module, 3)
    targets[1, 20:] = torch.nan
    assert micfast.check(module, draw, targets, nan_policy="omit").agrees
    report = micfast.check(module, draw, [targets[0], targets[1, :20]])
    assert report.agrees
    assert report.errors.shape == (2, 1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, z, n: m(z, n).detach().numpy(), "must return a tensor, got ndarray"),
        (lambda m, z, n: m(z, n).transpose(0, 1), r"must return the shape .*got \(30, "),
        (lambda m, z, n: m(z, n).detach(), "differentiable"),
        ("draw", "draw must be callable"),
    ],
)
def test_check_refuses_other_drawing_functions(function, message):
    with pytest.raises((TypeError, ValueError), match=f"check: .*{message}"):
        micfast.check(Base(), function, targets_for(Base()))
