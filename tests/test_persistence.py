"""Classifiers in files: what is kept, what is refused, pickles."""

import json
import os
import pickle

import numpy as np
import pytest
from estimators import PER_CLASS, X_NEW, C, T, X, needs_kernel, same_fit, saved, small, y
from model_files import header_of, with_header

from micfast import (
    Adam,
    BankFileError,
    GeneratorBank,
    LevenbergMarquardt,
    Loss,
    ModularInverseClassifier,
    Training,
)
from micfast.search.starts.drawn import Dirichlet, Normal
from micfast.search.starts.nearest import Nearest
from micfast.training.selections.kmeans import DTWKMeans, KMeans


@pytest.fixture(scope="module")
def fitted():
    return small().fit(X, y)


@pytest.fixture
def fresh(fitted):
    return pickle.loads(pickle.dumps(fitted))


def test_skops(fitted):
    skops_io = pytest.importorskip("skops.io")
    data = skops_io.dumps(fitted)
    untrusted = skops_io.get_untrusted_types(data=data)
    assert untrusted
    assert all(name.startswith("micfast.") for name in untrusted)
    again = skops_io.loads(data, trusted=untrusted)
    np.testing.assert_array_equal(again.predict_proba(X_NEW), fitted.predict_proba(X_NEW))
    same_fit(again, fitted)


def test_pickle(fresh, fitted):
    same_fit(fresh, fitted)
    np.testing.assert_array_equal(fresh.predict_proba(X_NEW), fitted.predict_proba(X_NEW))


@needs_kernel
@pytest.mark.parametrize("standardize", ["global", "channel", None])
def test_save_and_load(standardize, tmp_path):
    Z, Z_new = (X - 100) / 7, (X_NEW - 100) / 7
    clf = small(standardize=standardize, n_jobs=2).fit(Z, y)
    loaded = saved(clf, tmp_path / "clf.safetensors")
    same_fit(loaded, clf)
    assert os.listdir(tmp_path) == ["clf.safetensors"]
    assert loaded.get_params() == clf.get_params()
    assert loaded.temperature_ == clf.temperature_
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert (loaded.n_timesteps_in_, loaded.n_channels_in_, loaded.n_features_in_) == (T, C, T * C)
    assert [r["seconds"] for r in loaded.training_report_] == [
        r["seconds"] for r in clf.training_report_
    ]
    np.testing.assert_array_equal(loaded.predict_proba(Z_new), clf.predict_proba(Z_new))
    np.testing.assert_array_equal(loaded.reconstruct(Z_new), clf.reconstruct(Z_new))
    assert GeneratorBank.load(tmp_path / "clf.safetensors") == clf.bank_
    same_fit(loaded.add_class(Z[:5], "new"), clf.add_class(Z[:5], "new"))


@needs_kernel
def test_file_of_several_modules_and_thresholds(tmp_path):
    settings = {"n_modules_per_class": 3, "reject": 0.2, "distance": "dtw"}
    clf = small(**settings, solver=LevenbergMarquardt(start="types", tol=0.01)).fit(X, y)
    loaded = saved(clf, tmp_path / "clf")
    same_fit(loaded, clf)
    assert loaded.get_params() == clf.get_params()
    np.testing.assert_array_equal(loaded.thresholds_, clf.thresholds_)
    np.testing.assert_array_equal(loaded.predict(X_NEW), clf.predict(X_NEW))
    np.testing.assert_array_equal(loaded.transform(X_NEW), clf.transform(X_NEW))
    assert GeneratorBank.load(tmp_path / "clf") == clf.bank_
    same_fit(loaded.add_class(X[:5], "new"), clf.add_class(X[:5], "new"))


@pytest.mark.parametrize(
    "params",
    [
        {"n_types": 9, "hidden_size": 3, "n_modules_per_class": 2},
        {"solver": None, "training": None},
        {"solver": "adam", "type_selection": "first"},
        {"solver": Adam(betas=(0.5, 0.6), start=Dirichlet(n_starts=2, random_state=3))},
        {"solver": LevenbergMarquardt(constraint=None, start=Nearest(n_starts=2))},
        {"solver": Adam(2, constraint="box", bounds=(None, 1), loss=Loss([[1, 2]], 0.1, [1, 2]))},
        {"solver": Adam(2, constraint="sphere", radius=3, loss=Loss(huber=0.2))},
        {"solver": Adam(2, schedule=[1, 0.5], bias_correction=True, start=Normal(2, 1))},
        {"training": Training(noise_in=0.3, noise_out=0.1), "type_selection": KMeans("medoid")},
        {"type_selection": DTWKMeans(radius=3, stride=2), "distance": "dtw"},
        {"reject": 0.5, "reject_label": "none"},
        {"reject_label": "arch"},
        {"standardize": None, "nan_policy": "omit", "backend": "torch"},
        {"n_jobs": -1, "verbose": 0, "random_state": 2**31},
        {"random_state": np.random.RandomState(0)},
        {"n_types": np.int64(5), "reject": np.float32(0.25)},
        {"verbose": True, "n_jobs": np.int32(2)},
    ],
    ids=str,
)
def test_what_save_wrote_loads_whatever_was_changed(params, fresh, tmp_path):
    """Parameters that were changed after fit may differ from what was fitted."""
    fresh.set_params(**params)
    try:
        fresh.save(tmp_path / "clf")
    except (TypeError, ValueError):
        assert "reject_label" in params  # refused while it is being saved
        assert not (tmp_path / "clf").exists()
        return
    loaded = ModularInverseClassifier.load(tmp_path / "clf")
    same_fit(loaded, fresh)
    expected = fresh.get_params()
    if not isinstance(params.get("random_state"), np.random.RandomState):
        assert loaded.get_params() == expected
    if params.get("reject_label") != "arch":
        np.testing.assert_array_equal(loaded.predict(X_NEW), fresh.predict(X_NEW))


def test_starts_given_as_an_array_are_kept(fresh, tmp_path):
    fresh.set_params(solver=Adam(n_iter=2, start=[0.25, 0.75]))
    loaded = saved(fresh, tmp_path / "clf")
    assert loaded.solver.start.latents.tolist() == [0.25, 0.75]
    np.testing.assert_array_equal(loaded.predict_proba(X_NEW), fresh.predict_proba(X_NEW))


def test_sequences_of_data_frames_keep_their_columns(tmp_path):
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(x, columns=["a", "b"])[: T - i % 3] for i, x in enumerate(X)]
    clf = small(training__method__n_episodes=20).fit(frames, y)
    loaded = saved(clf, tmp_path / "clf")
    assert loaded.channel_names_in_ == clf.channel_names_in_ == ("a", "b")
    swapped = [frame[["b", "a"]] for frame in frames]
    np.testing.assert_array_equal(loaded.predict_proba(swapped), clf.predict_proba(frames))
    with pytest.raises(ValueError, match=r"must have the columns \['a', 'b'\] of fit"):
        loaded.predict([frame.rename(columns={"a": "c"}) for frame in frames])


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 2], dtype=np.int8),
        np.array([3.0, 1.0, 2.0], dtype=np.float32),
        np.array(["ä", "b", "a longer one"]),
        np.array(["ä", "b", "a longer one"], dtype=object),
        np.array([True, False, True]),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_file_keeps_the_labels(labels, tmp_path):
    clf = small(training__method__n_episodes=10).fit(X, np.repeat(labels, PER_CLASS))
    loaded = saved(clf, tmp_path / "clf")
    assert loaded.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(loaded.predict(X), clf.predict(X))


def test_file_of_random_state_and_numpy_parameters(tmp_path):
    clf = small(random_state=np.random.RandomState(0), n_types=np.int64(2)).fit(X, y)
    loaded = saved(clf, tmp_path / "clf")
    assert loaded.random_state is None
    assert type(loaded.n_types) is int
    same_fit(loaded.add_class(X[:5], "new"), clf.add_class(X[:5], "new"))


def test_file_keeps_feature_names(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[..., 0], columns=[f"t{i}" for i in range(T)])
    clf = small(training__method__n_episodes=10).fit(frame, y)
    loaded = saved(clf, tmp_path / "clf")
    np.testing.assert_array_equal(loaded.feature_names_in_, clf.feature_names_in_)
    np.testing.assert_array_equal(loaded.predict(frame), clf.predict(frame))


def rewrite(path, change):
    """Write the file with its estimator's part changed, and the checksum that fits."""
    header, body = header_of(path.read_bytes())
    document = json.loads(header["__metadata__"]["extra.json"])
    change(header, document)
    header["__metadata__"]["extra.json"] = json.dumps(document)
    path.write_bytes(with_header(header, body))


def set_in(*keys, value):
    def change(_, document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def remove(key):
    return lambda _, document: document.pop(key)


def rename_tensor(header, _):
    header["extra.other"] = header.pop("extra.types")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in("kind", value="other"), "holds a bank but no estimator"),
        (remove("params"), "inconsistent .KeyError: 'params'"),
        (set_in("params", value=[1]), "inconsistent .AttributeError"),
        (set_in("params", "unheard_of", value=1), "inconsistent .*unheard_of"),
        (
            set_in("params", "training", value={"settings": "training", "goal": -1}),
            "inconsistent .*goal must be",
        ),
        (
            set_in("params", "training", value={"settings": "nothing"}),
            "inconsistent .*unknown settings 'nothing'",
        ),
        (set_in("params", "solver", value={}), "inconsistent .KeyError: 'settings'"),
        (set_in("params", "solver", value={"settings": [1]}), "inconsistent"),
        (set_in("params", "solver", value="sgd"), "solver must be"),
        (set_in("n_timesteps_in", value=9), "inconsistent .*must have shapes"),
        (set_in("n_timesteps_in", value=10.0), "inconsistent .*must have shapes"),
        (set_in("class_dtype", value="int64"), "inconsistent"),
        (set_in("class_dtype", value="U1000000000"), "class_dtype must be a NumPy type"),
        (set_in("class_dtype", value=[]), "inconsistent .TypeError"),
        (set_in("temperature", value=0), "temperature must be finite and above 0"),
        (set_in("temperature", value=None), "inconsistent .TypeError"),
        (set_in("entropy", value=[1, 2]), "entropy must be 4 numbers"),
        (set_in("entropy", value=[-1, 2, 3, 2**40]), "inconsistent .OverflowError"),
        (set_in("type_info", value=[]), "type_info must have 3 entries"),
        (set_in("type_info", 0, value=3), "inconsistent .TypeError"),
        (set_in("training_report", value=[]), "inconsistent .ValueError"),
        (set_in("training_report", 1, "seeds", value=None), "inconsistent .TypeError"),
        (set_in("standardizer_axis", value="other"), "inconsistent .*axis must be"),
        (remove("standardizer_axis"), "inconsistent .*must have shapes"),
        (set_in("feature_names_in", value=["a"]), "feature_names_in must be one str per feature"),
        (set_in("channel_names_in", value=["a"]), "channel_names_in must be one str per channel"),
        (rename_tensor, "inconsistent .*must have shapes"),
        (remove("calibration"), "inconsistent .KeyError: 'calibration'"),
        (set_in("calibration", value=[]), "calibration must have 3 entries"),
        (set_in("calibration", 0, value={"types": [0, 0]}), "inconsistent .KeyError: 'samples'"),
        (set_in("calibration", 0, "types", value=[0.1]), "calibration must hold 2 finite errors"),
        (set_in("calibration", 0, "samples", value=[]), "errors of at least 0 on samples"),
        (set_in("calibration", 0, "samples", value=[-1]), "errors of at least 0 on samples"),
        (set_in("calibration", 0, "samples", value=[1e999]), "is not valid JSON|finite errors"),
        (set_in("n_banks", value=2), "inconsistent .KeyError: 'bank1.W_ih'"),
        (set_in("n_banks", value=10**9), "inconsistent"),
        (set_in("n_banks", value=None), "inconsistent .TypeError"),
    ],
)
def test_damaged_estimator_files(fitted, tmp_path, change, message):
    path = tmp_path / "clf"
    fitted.save(path)
    rewrite(path, change)
    with pytest.raises(BankFileError, match=message) as caught:
        ModularInverseClassifier.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_files(fitted, tmp_path):
    fitted.bank_.save(tmp_path / "bank")
    with pytest.raises(BankFileError, match=r"no estimator: read it with GeneratorBank\.load"):
        ModularInverseClassifier.load(tmp_path / "bank")
    (tmp_path / "text").write_text("text")
    with pytest.raises(BankFileError, match="not a safetensors file"):
        ModularInverseClassifier.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        ModularInverseClassifier.load(tmp_path / "absent")
    broken = pickle.loads(pickle.dumps(fitted))
    broken.types_[0, 0] = np.nan
    broken.save(tmp_path / "nan")
    with pytest.raises(BankFileError, match=r"types contains NaN: types\[0\] has no other value"):
        ModularInverseClassifier.load(tmp_path / "nan")


def test_a_file_of_an_older_format_is_refused_with_the_cure(fitted, tmp_path):
    path = tmp_path / "clf"
    fitted.save(path)
    header, body = header_of(path.read_bytes())
    header["__metadata__"]["format_version"] = "2"
    path.write_bytes(with_header(header, body))
    with pytest.raises(BankFileError, match=r"in format 2, .* fit the model again \(`micfast fit"):
        ModularInverseClassifier.load(path)


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def believed(path, data, bits):
    """Those of the flipped bits after which the file is still read."""
    read = []
    for bit in bits:
        path.write_bytes(flipped(data, int(bit)))
        try:
            ModularInverseClassifier.load(path)
        except BankFileError:
            continue
        read.append(bit)
    return read


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "clf"
    small(n_types=1, hidden_size=1, training__method__n_episodes=5).fit(X[:, :3], y).save(path)
    return path.read_bytes()


def test_a_flipped_bit_is_never_believed(model_bytes, tmp_path):
    """In the checksum, the length of the header, and anywhere."""
    place = 8 * model_bytes.index(b'"checksum":"')
    rng = np.random.default_rng(0)
    bits = [
        *range(64),
        *range(place, place + 8 * 78),
        *rng.integers(8 * len(model_bytes), size=1500),
    ]
    assert believed(tmp_path / "clf", model_bytes, bits) == []


@pytest.mark.slow
def test_ten_thousand_flipped_bits_are_never_believed(model_bytes, tmp_path):
    bits = np.random.default_rng(1).choice(8 * len(model_bytes), 10_000, replace=False)
    assert believed(tmp_path / "clf", model_bytes, bits) == []
