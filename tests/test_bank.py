"""The bank of weights: equality with torch's modules, its file, its errors."""

import copy
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import header_of, with_header
from safetensors.torch import save_file
from torch import nn

import micfast
from micfast import BankFileError, Generator, GeneratorBank, Weights
from micfast.generators import files

SIZES = {"hidden_size": 3, "input_size": 4, "output_size": 2}


def random_bank(n_modules=3, seed=0, **kwargs):
    return GeneratorBank.random(n_modules, seeds=range(seed, seed + n_modules), **(SIZES | kwargs))


class OtherModule(nn.Module):
    """Another person's module: other names, other layout, perhaps no bias."""

    def __init__(self, bias=True, batch_first=True, **lstm):
        super().__init__()
        self.body = nn.LSTM(4, 3, bias=bias, batch_first=batch_first, **lstm)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2, bias=bias))


def draw_by_hand(module, latents, n_steps):
    """What the module's own LSTM and Linear make of the input, one target at a time."""
    lstm = next(m for m in module.modules() if isinstance(m, nn.LSTM))
    linear = next(m for m in module.modules() if isinstance(m, nn.Linear))
    drawn = []
    for z in latents:
        x = torch.zeros(n_steps, lstm.input_size, dtype=z.dtype)
        x[0] = z
        drawn.append(linear(lstm(x)[0]))  # without a batch axis batch_first means nothing
    return torch.stack(drawn)


# -- torch modules -------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_modules_draws_what_the_modules_draw(bias, batch_first, dtype):
    torch.manual_seed(0)
    modules = [OtherModule(bias, batch_first).to(dtype) for _ in range(3)]
    bank = GeneratorBank.from_modules(modules, classes=["a", "b", "c"])
    latents = torch.rand(5, 4, dtype=dtype)
    drawn = bank.generate(latents, 7)
    assert drawn.shape == (3, 5, 7, 2)
    assert drawn.dtype == dtype
    for m, module in enumerate(modules):
        torch.testing.assert_close(drawn[m], draw_by_hand(module, latents, 7))


def test_generate_with_own_latents_per_module_and_gradient():
    bank = random_bank(dtype=torch.float64)
    latents = torch.rand(3, 5, 4, dtype=torch.float64, requires_grad=True)
    drawn = bank.generate(latents, 6)
    modules = bank.to_modules()
    expected = torch.stack([m(z, 6) for m, z in zip(modules, latents, strict=True)])
    torch.testing.assert_close(drawn, expected)
    weight = torch.randn_like(drawn)
    (got,) = torch.autograd.grad((drawn * weight).sum(), latents)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), latents)
    torch.testing.assert_close(got, wanted)


def test_generate_takes_numpy_and_any_strides():
    bank = random_bank()
    latents = np.asfortranarray(np.random.default_rng(0).random((5, 4)))[::-1]
    expected = bank.generate(torch.tensor(latents.copy(), dtype=torch.float32), 3)
    assert torch.equal(bank.generate(latents.copy(order="F"), 3), expected)


@pytest.mark.parametrize("shape", [(4,), (5, 3), (2, 5, 4), (1, 3, 5, 4)])
def test_generate_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"generate: latents must have shape .* \[3, \*, 4\]"):
        random_bank().generate(torch.zeros(shape), 3)


def test_to_modules_and_back_is_exact():
    bank = random_bank(dtype=torch.float64)
    before = torch.random.get_rng_state()
    modules = bank.to_modules()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert GeneratorBank.from_modules(modules) == bank
    assert GeneratorBank.from_modules(nn.ModuleList(modules)) == bank
    assert GeneratorBank.from_modules(modules[1]) == bank.select(1).with_classes([0])
    latents = torch.rand(5, 4, dtype=torch.float64)
    for m, module in enumerate(modules):
        assert isinstance(module, Generator)
        assert all(p.requires_grad and p.is_leaf for p in module.parameters())
        torch.testing.assert_close(module(latents, 7), draw_by_hand(module, latents, 7))
        torch.testing.assert_close(module(latents, 7), bank.generate(latents, 7)[m])


def test_modules_share_no_memory_with_the_bank():
    bank = random_bank()
    kept = copy.deepcopy(bank)
    modules = bank.to_modules()
    again = GeneratorBank.from_modules(modules)
    with torch.no_grad():
        for module in modules:
            for p in module.parameters():
                p.zero_()
    assert bank == kept == again


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (OtherModule(num_layers=3), "num_layers of 1 or 2, got 3"),
        (OtherModule(bidirectional=True), "bidirectional=False, got True"),
        (OtherModule(proj_size=2), "proj_size=0, got 2"),
        (nn.Sequential(nn.LSTM(4, 3), nn.LSTM(3, 3), nn.Linear(3, 2)), "got 2 and 1"),
        (nn.Sequential(nn.LSTM(4, 3)), "got 1 and 0"),
        (nn.Linear(3, 2), "got 0 and 1"),
        (nn.Sequential(nn.LSTM(4, 3), nn.Linear(5, 2)), "in_features = hidden_size = 3, got 5"),
        (
            nn.Sequential(nn.LSTM(4, 3), nn.Linear(3, 2), nn.PReLU()),
            r"no parameters except .*2\.weight",
        ),
        (nn.Sequential(nn.LSTM(4, 5), nn.Linear(5, 2)), "has hidden_size 5, module 0 has 3"),
        (OtherModule().double(), "has dtype torch.float64, module 0 has torch.float32"),
    ],
)
def test_from_modules_names_the_bad_module(module, message):
    with pytest.raises(ValueError, match=f"module 1.*{message}"):
        GeneratorBank.from_modules([OtherModule(), module])


def test_from_modules_refuses_other_things():
    with pytest.raises(TypeError, match=r"module 1 must be an nn\.Module, got str"):
        GeneratorBank.from_modules([OtherModule(), "x"])
    with pytest.raises(ValueError, match="at least one module is needed"):
        GeneratorBank.from_modules([])
    with pytest.raises(TypeError, match=r"module 1: .* float32 or float64, got torch\.float16"):
        GeneratorBank.from_modules([OtherModule(), OtherModule().half()])


# -- state dicts and checkpoints -----------------------------------------------------------------


def test_state_dicts_and_checkpoints(tmp_path):
    torch.manual_seed(1)
    modules = [Generator(4, 3, 2) for _ in range(3)]
    paths = []
    for i, module in enumerate(modules):
        paths.append(tmp_path / f"{i}.pth")
        torch.save(module.state_dict(), paths[-1])
    expected = GeneratorBank.from_modules(modules, classes=["a", "b", "c"])
    assert (
        GeneratorBank.from_state_dicts([m.state_dict() for m in modules], ["a", "b", "c"])
        == expected
    )
    assert GeneratorBank.from_checkpoints(paths, ["a", "b", "c"]) == expected


def test_state_dict_errors():
    state = Generator(4, 3, 2).state_dict()
    short = {k: v for k, v in state.items() if k != "FC.bias"}
    with pytest.raises(ValueError, match=r"entry 1 .*missing: \['FC.bias'\], unknown: \[\]"):
        GeneratorBank.from_state_dicts([state, short])
    with pytest.raises(ValueError, match=r"unknown: \['lstm.weight_ih_l1'\]"):
        GeneratorBank.from_state_dicts([state | {"lstm.weight_ih_l1": torch.zeros(1)}])
    with pytest.raises(
        ValueError, match=r"lstm.bias_hh_l0 must have shape \[12\] as .*, got \[11\]"
    ):
        GeneratorBank.from_state_dicts([state | {"lstm.bias_hh_l0": torch.zeros(11)}])
    with pytest.raises(ValueError, match=r"FC\.weight must have 2 dimensions, got 1"):
        GeneratorBank.from_state_dicts([state | {"FC.weight": torch.zeros(2)}])
    with pytest.raises(TypeError, match=r"FC\.bias must be a tensor, got float"):
        GeneratorBank.from_state_dicts([state | {"FC.bias": 1.0}])
    with pytest.raises(TypeError, match="entry 0 must be a state dict, got list"):
        GeneratorBank.from_state_dicts([[1, 2]])
    with pytest.raises(ValueError, match="module 1 has hidden_size 5"):
        GeneratorBank.from_state_dicts([state, Generator(4, 5, 2).state_dict()])


class Opens:
    """Unpickling this would run code."""

    def __reduce__(self):
        return os.mkdir, ("never-made",)


def test_checkpoint_errors_name_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"no checkpoint at all")
    evil = tmp_path / "evil.pth"
    torch.save(Opens(), evil)
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, other)
    for path in (garbage, evil, other):
        with pytest.raises(BankFileError, match=path.name):
            GeneratorBank.from_checkpoints([path])
    assert not (tmp_path / "never-made").exists()
    with pytest.raises(FileNotFoundError):
        GeneratorBank.from_checkpoints([tmp_path / "absent.pth"])
    with pytest.raises(TypeError, match="sequence of paths"):
        GeneratorBank.from_checkpoints(garbage)


# -- random starts -------------------------------------------------------------------------------


def test_random_is_what_torch_starts_with():
    bank = GeneratorBank.random(2, seeds=[5, 2**64 - 1], **SIZES)
    modules = []
    for seed in (5, 2**64 - 1):
        torch.manual_seed(seed)
        modules.append(Generator(4, 3, 2))
    assert bank == GeneratorBank.from_modules(modules)


def test_random_depends_on_the_own_seed_alone():
    three = GeneratorBank.random(3, seeds=[1, 2, 3], **SIZES)
    assert GeneratorBank.random(1, seeds=[2], **SIZES) == three.select(1).with_classes([0])
    double = GeneratorBank.random(3, seeds=[1, 2, 3], dtype=torch.float64, **SIZES)
    assert torch.equal(double.weights.W_hh.float(), three.weights.W_hh)


def test_random_without_seeds_follows_torch():
    torch.manual_seed(3)
    first = GeneratorBank.random(2, **SIZES)
    assert first != GeneratorBank.random(2, **SIZES)
    torch.manual_seed(3)
    assert first == GeneratorBank.random(2, **SIZES)


def test_random_errors():
    with pytest.raises(ValueError, match="n_modules must be an integer of at least 1, got 0"):
        GeneratorBank.random(0, **SIZES)
    with pytest.raises(TypeError, match=r"hidden_size must be an integer of at least 1, got 3\.0"):
        GeneratorBank.random(1, **(SIZES | {"hidden_size": 3.0}))
    with pytest.raises(ValueError, match="seeds must have length n_modules = 2, got 1"):
        GeneratorBank.random(2, seeds=[1], **SIZES)
    with pytest.raises(ValueError, match=r"seeds must be from -2\*\*63"):
        GeneratorBank.random(1, seeds=[2**64], **SIZES)
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        GeneratorBank.random(1, dtype=torch.float16, **SIZES)


# -- the object ----------------------------------------------------------------------------------


def test_attributes():
    bank = random_bank(classes=["a", "b", "c"], metadata={"x": (1, 2)})
    assert (bank.n_modules, len(bank)) == (3, 3)
    assert (bank.hidden_size, bank.input_size, bank.output_size) == (3, 4, 2)
    assert (bank.dtype, bank.device.type) == (torch.float32, "cpu")
    assert bank.metadata == {"x": [1, 2]}
    assert [tuple(w.shape) for w in bank.weights] == [
        (3, 12, 4), (3, 12, 3), (3, 12), (3, 2, 3), (3, 2)
    ]  # fmt: skip
    assert repr(bank) == (
        "GeneratorBank(n_modules=3, hidden_size=3, input_size=4, output_size=2, "
        "classes=('a', 'b', 'c'))"
    )
    assert "float64" in repr(bank.to(dtype=torch.float64))
    assert "..., 49)" in repr(random_bank(50))


def test_immutable():
    bank = random_bank(metadata={"x": [1]})
    with pytest.raises(AttributeError, match="GeneratorBank is immutable: classes"):
        bank.classes = (1, 2, 3)
    with pytest.raises(AttributeError, match="immutable"):
        bank.new = 1
    with pytest.raises(AttributeError, match="immutable"):
        del bank.weights
    bank.metadata["x"].append(2)
    assert bank.metadata == {"x": [1]}
    weights = [w.clone().requires_grad_() for w in bank.weights]
    other = GeneratorBank(Weights(*weights), metadata={"x": [1]})
    with torch.no_grad():
        weights[0].zero_()
    assert other == bank
    assert not any(w.requires_grad for w in other.weights)


def test_equality():
    bank = random_bank(classes=[0, 1, 2])
    assert bank == random_bank(classes=[0, 1, 2])
    assert bank != random_bank(seed=1)
    assert bank != bank.with_classes([0.0, 1.0, 2.0])
    assert bank != bank.with_metadata({"a": 1})
    assert bank != bank.to(dtype=torch.float64)
    assert bank != "bank"
    weights = list(bank.weights)
    weights[3] = torch.full_like(weights[3], torch.nan)
    assert GeneratorBank(Weights(*weights)) == GeneratorBank(Weights(*weights))
    with pytest.raises(TypeError, match="unhashable"):
        hash(bank)


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))]
)
def test_copies_and_pickle(again):
    bank = random_bank(classes=["a", 1, 2.5], metadata={"x": {"y": None}})
    assert again(bank) == bank
    assert again(BankFileError("p", "r")).args == BankFileError("p", "r").args


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_hold_no_torch(protocol):
    bank = random_bank(classes=["a", 1, 2.5], dtype=torch.float64)
    data = pickle.dumps(bank, protocol)
    assert b"torch." not in data
    again = pickle.loads(data)
    assert again == bank
    assert again.weights.W_ih.data_ptr() != bank.weights.W_ih.data_ptr()


def test_file_needs_neither_torch_nor_micfast(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    bank = random_bank(classes=["a", "b", "c"], metadata={"x": 1})
    bank.save(tmp_path / "bank")
    arrays = load_file(tmp_path / "bank")
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, getattr(bank.weights, name))
    with safe_open(tmp_path / "bank", framework="np") as file:
        assert file.metadata()["micfast_version"] == micfast.__version__


def wrong_weights():
    good = dict(zip(("W_ih", "W_hh", "b", "W_out", "b_out"), random_bank().weights, strict=True))
    yield good | {"b": [1.0]}, TypeError, "b must be a tensor, got list"
    yield good | {"W_hh": torch.zeros(3, 12)}, ValueError, "must have 3 dimensions"
    yield good | {"W_ih": torch.zeros(3, 11, 4)}, ValueError, r"W_ih must have .* = \(3, 12, 4\)"
    yield (
        good | {"W_hh": torch.zeros(3, 8, 3)},
        ValueError,
        r"W_hh must .* = \(3, 12, 3\), got \(3, 8",
    )
    yield (
        good | {"b_out": torch.zeros(2, 2)},
        ValueError,
        r"b_out must have .* = \(3, 2\), got \(2, 2\)",
    )
    yield (
        good | {"b": torch.zeros(3, 12).double()},
        TypeError,
        "b must have the dtype of W_ih, torch.float32, got torch.float64",
    )
    yield {k: w.half() for k, w in good.items()}, TypeError, "W_ih must be float32 or float64"
    yield {k: w[:0] for k, w in good.items()}, ValueError, "must be at least 1, got 0, 3, 4 and 2"


@pytest.mark.parametrize(("weights", "error", "message"), list(wrong_weights()))
def test_weights_check_themselves(weights, error, message):
    with pytest.raises(error, match=message):
        Weights(**weights)


def test_constructor_wants_weights():
    with pytest.raises(TypeError, match="weights must be Weights, got list"):
        GeneratorBank(list(random_bank().weights))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (["a", "b"], ValueError, "must have length n_modules = 3, got 2"),
        (["a", "b", "a"], ValueError, "must be unique, got 'a' twice"),
        ([0, 1, True], ValueError, "must be unique, got True twice"),
        (["a", "b", None], TypeError, "a label must be .* got NoneType"),
        (["a", "b", float("nan")], ValueError, "a label must be finite"),
        ("abc", TypeError, "must be a sequence of labels, got the str 'abc'"),
    ],
)
def test_constructor_checks_classes(classes, error, message):
    with pytest.raises(error, match=message):
        random_bank(classes=classes)


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({1: 2}, TypeError, "keys of metadata must be str, got 1"),
        ({"a": [{"b": {1}}]}, TypeError, r"metadata\['a'\]\[0\]\['b'\] must be made of .* got set"),
        ({"a": float("inf")}, ValueError, r"metadata\['a'\] must be finite"),
        ([1], TypeError, "metadata must be a dict, got list"),
    ],
)
def test_constructor_checks_metadata(metadata, error, message):
    with pytest.raises(error, match=message):
        random_bank(metadata=metadata)


def test_numpy_labels_become_pythons():
    bank = random_bank(classes=[np.str_("a"), np.int32(3), np.float32(0.5)])
    assert list(map(type, bank.classes)) == [str, int, float]
    assert bank.index(np.int64(3)) == 1
    assert bank.select(np.str_("a")).classes == ("a",)
    assert random_bank(2, classes=np.array([False, True])).classes == (False, True)


# -- new banks from old ones ---------------------------------------------------------------------


def test_select():
    bank = random_bank(4, classes=[3, 2, 1, 0], metadata={"x": 1})
    by_label, by_index = bank.select([0, 3]), bank.select(indices=[3, 0])
    assert by_label == by_index
    assert by_label.classes == (0, 3)
    assert by_label.metadata == {"x": 1}
    assert torch.equal(by_label.weights.W_hh, bank.weights.W_hh[[3, 0]])
    assert bank.select(indices=slice(1, 3)).classes == (2, 1)
    assert bank.select(indices=-1) == bank.select(0)
    assert bank.select(indices=np.array([1])) == bank.select(2)


def test_select_errors():
    bank = random_bank(classes=["a", "b", "c"])
    with pytest.raises(KeyError, match=r"label must be one of \('a', 'b', 'c'\), got 'd'"):
        bank.select(["a", "d"])
    with pytest.raises(IndexError):
        bank.select(indices=[3])
    with pytest.raises(TypeError, match="indices must be integers, got bool"):
        bank.select(indices=[True, False, True])
    with pytest.raises(ValueError, match="at least one module"):
        bank.select([])
    with pytest.raises(ValueError, match="at least one module"):
        bank.select(indices=[])
    with pytest.raises(ValueError, match="unique"):
        bank.select(["a", "a"])
    for arguments in ({}, {"classes": ["a"], "indices": [0]}):
        with pytest.raises(ValueError, match="either classes or indices"):
            bank.select(**arguments)


def test_with_module_without_replace_concat():
    bank, one = random_bank(classes=["a", "b", "c"], metadata={"x": 1}), random_bank(1, seed=9)
    grown = bank.with_module("d", one)
    assert grown.classes == ("a", "b", "c", "d")
    assert grown.without("d") == bank
    assert grown.select("d").with_classes([0]).with_metadata({}) == one
    replaced = bank.replace("b", one)
    assert replaced.without("b") == bank.without("b")
    assert replaced.select("b") == grown.select("d").with_classes(["b"])
    joined = GeneratorBank.concat([bank.select("a"), bank.select(["b", "c"])])
    assert joined == bank.with_metadata({})
    assert GeneratorBank.concat([bank], metadata={"x": 1}) == bank


def test_with_module_errors():
    bank, one = random_bank(classes=["a", "b", "c"]), random_bank(1)
    with pytest.raises(ValueError, match="label 'a' exists already"):
        bank.with_module("a", one)
    with pytest.raises(KeyError, match="got 'x'"):
        bank.replace("x", one)
    with pytest.raises(KeyError, match="got 'x'"):
        bank.without("x")
    with pytest.raises(ValueError, match="the last module"):
        one.without(0)
    with pytest.raises(ValueError, match="bank of one, got 3"):
        bank.with_module("d", bank)
    with pytest.raises(TypeError, match="must be a GeneratorBank, got Generator"):
        bank.with_module("d", one.to_modules()[0])
    with pytest.raises(ValueError, match="must have hidden_size 3, got 5"):
        bank.with_module("d", random_bank(1, hidden_size=5))
    with pytest.raises(
        ValueError, match=r"concat: .*module 3 has dtype torch.float64, module 0 has torch.float32"
    ):
        GeneratorBank.concat([bank, one.to(dtype=torch.float64)])
    with pytest.raises(ValueError, match="unique"):
        GeneratorBank.concat([bank, bank])
    with pytest.raises(ValueError, match="at least one module is needed, got none"):
        GeneratorBank.concat([])


def test_to():
    bank = random_bank(metadata={"x": 1})
    assert bank.to() is bank
    assert bank.to(dtype=torch.float32, device="cpu") is bank
    double = bank.to(dtype=torch.float64)
    assert double.dtype == torch.float64
    assert double.to(dtype=torch.float32) == bank


# -- the file ------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
labels = st.one_of(st.text(), st.integers(), st.booleans(), finite)
json_values = st.recursive(
    st.one_of(st.none(), st.text(), st.integers(), st.booleans(), finite),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(
    classes=st.lists(labels, min_size=1, max_size=4, unique=True),
    metadata=st.dictionaries(st.text(), json_values, max_size=3),
    double=st.booleans(),
)
def test_file_keeps_everything(tmp_path_factory, classes, metadata, double):
    path = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    dtype = torch.float64 if double else torch.float32
    bank = random_bank(len(classes), classes=classes, metadata=metadata, dtype=dtype)
    bank.save(path)
    loaded = GeneratorBank.load(path)
    assert loaded == bank
    assert list(map(type, loaded.classes)) == list(map(type, classes))
    assert loaded.metadata == metadata


def test_file_keeps_nan_weights_and_skips_extras(tmp_path):
    weights = list(random_bank().weights)
    weights[0] = torch.full_like(weights[0], torch.nan)
    bank = GeneratorBank(Weights(*weights))
    path = tmp_path / "bank"
    parts = (bank.weights, bank.classes, bank.metadata, {"types": torch.ones(2)}, {"a": 1})
    files.write_parts(path, *parts)
    assert GeneratorBank.load(path) == bank
    *_, tensors, extra = files.read_parts(path)
    assert torch.equal(tensors["types"], torch.ones(2))
    assert extra == {"a": 1}


def test_save_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "bank.safetensors"
    bank = random_bank()
    bank.save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        random_bank(seed=5).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def damaged_files(data):
    header, body = header_of(data)
    meta = header["__metadata__"]

    def change(**entries):
        return with_header(header | {"__metadata__": meta | entries}, body)

    def without(key):
        return with_header({k: v for k, v in header.items() if k != key}, body)

    yield b"", "empty"
    yield b"\x00", "safetensors"
    yield b"\x80\x04pickle, not safetensors", "safetensors"
    yield data[:-1], "safetensors"
    yield data[:100], "safetensors"
    yield data + b"x", "safetensors"
    yield struct.pack("<Q", 2**63) + data[8:], "safetensors"
    yield (
        with_header({k: v for k, v in header.items() if k != "__metadata__"}, body),
        "another format",
    )
    yield change(format="other"), "another format: 'other'"
    yield (
        change(format_version="5"),
        r"written by micfast .* in format 5, while this one, .*, reads formats 3 and 4: update",
    )
    yield change(format_version="2"), "in format 2, .* reads formats 3 and 4: fit the model again"
    yield change(format_version="x" * 500), "format_version must be a positive integer"
    yield change(format_version="9" * 5000), "format_version must be a positive integer"
    yield change(format_version="0"), "format_version must be a positive integer"
    yield (
        with_header(header | {"__metadata__": meta | {"metadata": "1"}}, body, sign=False),
        "damaged",
    )
    yield change(checksum="0" * 64)[:-1] + b"x", "its checksum does not match"
    yield change(checksum="x"), "damaged: its checksum does not match"
    yield change(classes="[0, 1"), "'classes' in the header is not valid JSON"
    yield change(classes="[" * 100_000), "'classes' in the header is not valid JSON"
    yield change(classes="[0, 1, NaN]"), "'classes' in the header is not valid JSON"
    yield change(classes="{}"), "classes must be a JSON list"
    yield change(classes="[0, 1]"), "inconsistent: .*length n_modules = 3, got 2"
    yield change(classes="[0, 1, 1]"), "inconsistent: .*unique"
    yield change(classes="[0, 1, [2]]"), "inconsistent: .*label must be"
    yield change(metadata="[]"), "metadata a JSON object"
    yield change(metadata='{"a": Infinity}'), "'metadata' in the header is not valid JSON"
    short = {k: v for k, v in meta.items() if k != "classes"}
    yield with_header(header | {"__metadata__": short}, body), "the header has no 'classes'"
    wrong = header["W_hh"] | {"shape": [3, 3, 12]}
    yield with_header(header | {"W_hh": wrong}, body), "inconsistent"
    wrong = header["b"] | {"dtype": "I32"}
    yield (
        with_header(header | {"b": wrong}, body),
        "tensor 'b' must be float32 or float64, got int32",
    )
    wrong = header["b"] | {"data_offsets": [0, 10**12]}
    yield with_header(header | {"b": wrong}, body), "safetensors"
    yield without("b_out"), "safetensors"


def test_damaged_files_give_bank_file_error(tmp_path):
    good = tmp_path / "good.safetensors"
    random_bank().save(good)
    path = tmp_path / "damaged.safetensors"
    for data, message in damaged_files(good.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(BankFileError, match=message) as caught:
            GeneratorBank.load(path)
        assert str(caught.value).startswith(f"{path}: "), message
        assert len(str(caught.value)) < 1000


def test_foreign_and_incomplete_safetensors(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"model.weight": torch.zeros(2)}, path)
    with pytest.raises(BankFileError, match="another format: None"):
        GeneratorBank.load(path)
    meta = {"format": "micfast-bank", "format_version": "3", "checksum": "0" * 64}
    meta |= {"classes": "[0]", "metadata": "{}"}
    weights = dict(random_bank(1).weights.named())
    for tensors, message in (
        ({"W_ih": weights["W_ih"]}, "the weights are inconsistent: 'W_hh'"),
        (weights | {"x": torch.zeros(1)}, r"unknown tensors \['x'\]"),
    ):
        save_file(tensors, path, metadata=meta)
        path.write_bytes(with_header(*header_of(path.read_bytes())))
        with pytest.raises(BankFileError, match=message):
            GeneratorBank.load(path)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    random_bank(1, hidden_size=1).save(folder / "good")
    good = (folder / "good").read_bytes()
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    (folder / "changed").write_bytes(content)
    if content == good:
        return
    with pytest.raises(BankFileError):
        GeneratorBank.load(folder / "changed")


def test_load_of_missing_file_or_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        GeneratorBank.load(tmp_path / "absent")
    with pytest.raises(OSError, match="directory"):
        GeneratorBank.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        random_bank().save(tmp_path / "no" / "bank")
