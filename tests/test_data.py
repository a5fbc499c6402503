"""Loaders, preprocessing and the fetching of files."""

import gzip
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import savemat

from micfast.data import (
    Dataset,
    DownloadError,
    Standardizer,
    cumulate,
    dataset_names,
    fetch,
    images_to_rows,
    load_characters,
    load_dataset,
    load_digits_sequences,
    load_mnist,
    negligible_channels,
    pad_with_last,
    scale_pixels,
    stratified_split,
)
from micfast.data.fetch import RemoteFile, data_dir, locate
from micfast.data.sets import characters, mnist
from micfast.io import cache_dir

finite = st.floats(-1e3, 1e3)
# Neither too small for a standard deviation nor equal up to rounding.
float32 = st.floats(-1000, 1000, width=32)


@pytest.fixture
def real_data():
    folder = os.environ.get("MICFAST_DATA")
    if not folder:
        pytest.skip("real data: set MICFAST_DATA to the folder with the data files")
    return Path(folder)


@pytest.fixture
def paper(real_data):
    path = real_data / "paper_characters.npz"
    if not path.is_file():
        pytest.skip(f"the paper's arrays: {path.name} is not in MICFAST_DATA")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty download cache, no data folder set."""
    monkeypatch.delenv("MICFAST_DATA", raising=False)
    monkeypatch.delenv("MICFAST_CACHE", raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setattr("pooch.os_cache", lambda project: folder / project)
    return folder / "micfast"


# --------------------------------------------------------------------------------------------
# Preprocessing


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=finite)
)
def test_cumulate_is_undone_by_differences(velocities):
    positions = cumulate(velocities)
    np.testing.assert_allclose(
        np.diff(positions, axis=-2, prepend=0 * positions[..., :1, :]), velocities, atol=1e-9
    )


def test_cumulate_needs_time_and_channels():
    with pytest.raises(ValueError, match=r"cumulate: .* got \[3\]"):
        cumulate([1.0, 2.0, 3.0])


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_padding_positions_is_padding_velocities_with_zeros(lengths, n_channels, extra, random):
    sequences = [
        np.array([[random.uniform(-1, 1) for _ in range(n_channels)] for _ in range(length)])
        for length in lengths
    ]
    n_timesteps = max(lengths) + extra
    padded = pad_with_last([cumulate(s) for s in sequences], n_timesteps)
    with_zeros = np.zeros((len(lengths), n_timesteps, n_channels))
    for row, sequence in zip(with_zeros, sequences, strict=True):
        row[: len(sequence)] = sequence
    np.testing.assert_allclose(padded, cumulate(with_zeros), atol=1e-12)


@pytest.mark.parametrize(
    ("sequences", "n_timesteps", "message"),
    [
        ([], None, "at least one sequence"),
        ([np.zeros((0, 2))], None, r"got \[0, 2\] at place 0"),
        ([np.zeros((3, 2)), np.zeros(3)], None, r"got \[3\] at place 1"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], None, r"got \[3, 1\] at place 1"),
        ([np.zeros((3, 2))], 2, "longest length 3, got 2"),
    ],
)
def test_pad_with_last_errors(sequences, n_timesteps, message):
    with pytest.raises(ValueError, match=message):
        pad_with_last(sequences, n_timesteps)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=float32),
    st.sampled_from(["channel", "global"]),
)
def test_standardizer_round_trip(X, axis):
    standardizer = Standardizer(axis).fit(X)
    back = standardizer.inverse_transform(standardizer.transform(X))
    np.testing.assert_allclose(back, X, atol=1e-9)
    over = (0, 1) if axis == "channel" else (0, 1, 2)
    np.testing.assert_allclose(standardizer.mean_, X.mean(over), atol=1e-12)
    np.testing.assert_array_equal(
        standardizer.scale_, np.where(np.ptp(X, over) == 0, 1, np.atleast_1d(X.std(over)))
    )


def test_standardizer_gives_mean_0_and_sd_1_and_keeps_the_dtype():
    X = np.random.default_rng(0).normal(3, [1.0, 20.0], (50, 10, 2)).astype(np.float32)
    each = Standardizer().fit(X).transform(X)
    assert each.dtype == np.float32
    np.testing.assert_allclose(each.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(each.std((0, 1)), 1, atol=1e-5)
    both = Standardizer("global").fit(X).transform(X)
    assert both.mean() == pytest.approx(0, abs=1e-5)
    assert both.std() == pytest.approx(1, abs=1e-5)
    assert both[..., 0].std() < 0.2
    assert Standardizer().fit(X).transform(np.ones((1, 1, 2), dtype=int)).dtype == np.float64


@given(st.floats(-1e9, 1e9), st.integers(1, 40), st.integers(1, 3), st.booleans())
def test_a_constant_channel_has_scale_1_whatever_the_constant(constant, n, n_channels, gap):
    X = np.full((n, 50, n_channels + 1), constant)
    X[..., -1] = np.arange(50)  # varies
    if gap:
        X[0, :20, 0] = np.nan
    fitted = Standardizer().fit(X)
    np.testing.assert_array_equal(fitted.scale_[:-1], 1)
    np.testing.assert_array_equal(fitted.mean_[:-1], constant)
    assert fitted.scale_[-1] == pytest.approx(np.arange(50).std(), rel=0.1)
    assert Standardizer("global").fit(X[..., :1]).scale_ == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_up_to_rounding(dtype):
    X = np.full((8, 25, 1), 9.81, dtype)
    X[::2] = np.nextafter(X[::2], dtype(10))
    assert Standardizer().fit(X).scale_ == 1


@pytest.mark.parametrize(("offset", "amplitude"), [(1e6, 1e-6), (1e9, 1e-3), (0, 1e-100)])
def test_small_signals_on_large_offsets_are_no_constants(offset, amplitude):
    X = offset + amplitude * np.sin(np.arange(600.0)).reshape(20, 30, 1)
    assert Standardizer().fit(X).scale_ == X.std((0, 1))
    X = (101325 + 0.1 * np.sin(np.arange(600.0)).reshape(20, 30, 1)).astype(np.float32)
    assert Standardizer().fit(X).scale_ == X.astype(float).std((0, 1))


@pytest.mark.parametrize("axis", ["channel", "global"])
@pytest.mark.parametrize("caller", ["warn", "raise"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e160, "overflows, as channel 1 .* 1e"),
        (np.finfo(float).max, "overflows, as channel 1"),
        (float(np.finfo(np.float32).max), "channel 1 holds values up to 3.4e"),
        (9.96921e36, "channel 1 holds .* replace values that mean 'missing' by NaN"),
        (-1e20, "other values vanish"),
        (np.inf, "channel 1 holds infinite values"),
    ],
)
def test_fill_values_are_refused(axis, caller, value, message):
    X = np.random.default_rng(0).normal(size=(5, 10, 2))
    X[2, 3, 1] = value
    with np.errstate(all=caller), pytest.raises(ValueError, match=message):
        Standardizer(axis).fit(X)
    X[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=message):
        Standardizer(axis).fit(X)


def test_large_and_small_units_are_no_fill_values():
    X = np.random.default_rng(0).normal(size=(5, 10, 2))
    X[0] = 0
    for unit in (1e19, 1e100, 1e-19, 1e-150):
        scale = Standardizer().fit(unit * X).scale_
        np.testing.assert_allclose(scale, unit * X.std((0, 1)), rtol=1e-12)
    for unit in (1e-160, 1e-200):
        with pytest.raises(ValueError, match="channel 0 underflows"):
            Standardizer().fit(unit * X)
        with pytest.raises(ValueError, match="of X underflows"):
            Standardizer("global").fit(unit * X)


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[s]", str, complex])
def test_only_numbers_are_standardised(dtype):
    with pytest.raises(TypeError, match="must hold real numbers"):
        Standardizer().fit(np.ones((2, 3, 1)).astype(dtype))


def test_negligible_channels():
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 1, (10, 30))
    pressure = 101325 + 1e4 * rng.normal(size=(10, 1)) * np.ones(30)
    X = np.stack([signal, pressure, np.full((10, 30), 14.62)], axis=2)
    assert negligible_channels(X) == [0]
    X[0, 20:] = np.nan
    assert negligible_channels(X) == [0]
    # Two offsets far apart leave nothing of either signal.
    assert negligible_channels(np.stack([signal, 1e4 + signal], axis=2)) == [0, 1]
    assert negligible_channels(X[..., :1]) == []
    assert negligible_channels(np.stack([signal, 5 * signal + 3], axis=2)) == []
    # The first column of these images is rarely active, but then as strong as the others.
    assert negligible_channels(load_digits_sequences().X_train) == []


def test_standardizer_errors():
    with pytest.raises(ValueError, match="axis must be 'channel' or 'global', got 'time'"):
        Standardizer("time")
    with pytest.raises(RuntimeError, match="call fit first"):
        Standardizer().transform(np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match=r"not be empty, got \[0, 2, 2\]"):
        Standardizer().fit(np.zeros((0, 2, 2)))
    with pytest.raises(ValueError, match=r"n_timesteps, 2\], got \[1, 4, 3\]"):
        Standardizer().fit(np.zeros((3, 4, 2))).transform(np.zeros((1, 4, 3)))


def test_pixels_and_rows():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    scaled = scale_pixels(images)
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (0, 1)
    rows = images_to_rows(scaled[..., None])
    np.testing.assert_array_equal(rows[0, 3], np.arange(48, 64, dtype=np.float32) / 255)
    with pytest.raises(TypeError, match="must be uint8, got float32"):
        scale_pixels(scaled)
    with pytest.raises(ValueError, match=r"got \[16, 16\]"):
        images_to_rows(images[0])


@given(st.integers(0, 1000), st.sampled_from([0.2, 0.25, 0.5]))
@settings(deadline=None)  # the first call imports scikit-learn
def test_stratified_split_keeps_shares_and_samples(seed, test_size):
    y = np.repeat(["a", "b"], [40, 20])
    train, test = stratified_split(y, test_size, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(60))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    assert (y[test] == "a").sum() == pytest.approx(40 * test_size)
    again = stratified_split(y, test_size, seed)
    np.testing.assert_array_equal(train, again[0])


def test_stratified_split_checks_the_share():
    with pytest.raises(ValueError, match="above 0 and below 1, got 1"):
        stratified_split([0, 0, 1, 1], 1)


def test_dataset_checks_and_shows_itself():
    X, y = np.zeros((4, 3, 2), np.float32), np.array([0, 1, 0, 1])
    shown = repr(Dataset("toy", X, y, X[:2], y[:2], np.arange(2)))
    assert shown == (
        "Dataset('toy': 4 training and 2 test sequences of 3 steps x 2 channels, 2 classes 0 1)"
    )
    with pytest.raises(ValueError, match="X_test must have shape"):
        Dataset("toy", X, y, X[:2], y, np.arange(2))
    with pytest.raises(ValueError, match="y_train has labels that are not in classes"):
        Dataset("toy", X, y, X, y, np.arange(1))
    with pytest.raises(ValueError, match="equal steps and channels"):
        Dataset("toy", X, y, X[:, :2], y, np.arange(2))


def test_importing_the_data_package_is_cheap():
    code = (
        "import sys, types\n"
        "package = types.ModuleType('micfast'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['micfast'] = package\n"
        "import micfast.data\n"
        "heavy = 'pandas', 'pooch', 'scipy', 'sklearn', 'tqdm', 'torch'\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    folder = str(Path(fetch.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------------------------
# Where files come from


def test_folders(cache, monkeypatch, tmp_path):
    assert data_dir() == cache == cache_dir()
    monkeypatch.setenv("MICFAST_DATA", str(tmp_path / "data"))
    assert data_dir() == tmp_path / "data"
    assert data_dir(tmp_path) == tmp_path
    assert cache_dir() == cache
    monkeypatch.setenv("MICFAST_CACHE", str(tmp_path / "computed"))
    assert cache_dir() == tmp_path / "computed"


def test_a_set_folder_is_never_left(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("MICFAST_DATA", str(tmp_path))
    file = RemoteFile("sub/file.bin", "http://127.0.0.1:1/file.bin", "0" * 64)
    with pytest.raises(FileNotFoundError) as caught:
        locate(file)
    for part in ("sub/file.bin", str(tmp_path), file.url, "MICFAST_DATA"):
        assert part in str(caught.value)
    (tmp_path / "file.bin").write_bytes(b"flat")
    assert locate(file) == tmp_path / "file.bin"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.bin").write_bytes(b"nested")
    assert locate(file) == tmp_path / "sub" / "file.bin"
    assert not cache.exists()


def test_download_with_checksum(cache, server):
    folder, address = server
    (folder / "file.bin").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    path = locate(RemoteFile("sub/file.bin", f"{address}/file.bin", digest))
    assert path == cache / "sub" / "file.bin"
    assert path.read_bytes() == b"content"
    (folder / "file.bin").unlink()
    assert locate(RemoteFile("sub/file.bin", f"{address}/file.bin", digest)) == path


def test_download_with_wrong_checksum_leaves_nothing(cache, server):
    folder, address = server
    (folder / "file.bin").write_bytes(b"other")
    file = RemoteFile("file.bin", f"{address}/file.bin", hashlib.sha256(b"content").hexdigest())
    with pytest.raises(DownloadError, match="SHA256") as caught:
        locate(file)
    assert file.url in str(caught.value)
    assert list(cache.iterdir()) == []


def test_offline_error_tells_what_to_do(cache):
    file = RemoteFile("file.bin", "http://127.0.0.1:1/file.bin", "0" * 64)
    with pytest.raises(DownloadError) as caught:
        locate(file)
    for part in ("file.bin", file.url, str(cache / "file.bin"), "MICFAST_DATA"):
        assert part in str(caught.value)
    assert isinstance(caught.value, OSError)


def pack(folder, content, member="data.mat"):
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)


def accept_good(path):
    if not path.read_bytes().startswith(b"good"):
        raise ValueError("bad content")


def test_trust_on_first_use(cache, server):
    folder, address = server
    file = RemoteFile("data.mat", f"{address}/archive.zip", in_archive=True)

    pack(folder, b"bad")
    with pytest.raises(DownloadError, match="bad content"):
        locate(file, verify=accept_good)
    assert list(cache.iterdir()) == []

    pack(folder, b"good 1")
    path = locate(file, verify=accept_good)
    record = cache / "data.mat.sha256"
    assert record.read_text().strip() == hashlib.sha256(b"good 1").hexdigest()

    # From now on another file is refused, good as it may look, be it in the cache or on the net.
    pack(folder, b"good 2")
    assert locate(file, verify=accept_good).read_bytes() == b"good 1"
    path.write_bytes(b"good 2")
    with pytest.raises(DownloadError, match="SHA256"):
        locate(file, verify=accept_good)
    pack(folder, b"good 1")
    assert locate(file, verify=accept_good).read_bytes() == b"good 1"

    record.write_text("no checksum")
    with pytest.raises(DownloadError, match="delete it to trust"):
        locate(file, verify=accept_good)


def test_a_file_put_into_the_cache_by_hand_is_checked_but_not_deleted(cache):
    file = RemoteFile("data.mat", "http://127.0.0.1:1/archive.zip", in_archive=True)
    cache.mkdir(parents=True)
    (cache / "data.mat").write_bytes(b"bad")
    with pytest.raises(DownloadError, match="bad content"):
        locate(file, verify=accept_good)
    assert (cache / "data.mat").read_bytes() == b"bad"
    (cache / "data.mat").write_bytes(b"good")
    assert locate(file, verify=accept_good) == cache / "data.mat"


def test_bad_archives(cache, server, monkeypatch):
    folder, address = server
    file = RemoteFile("data.mat", f"{address}/archive.zip", in_archive=True)
    (folder / "archive.zip").write_bytes(b"<html>log in first</html>")
    with pytest.raises(DownloadError, match="not a zip file"):
        locate(file)
    pack(folder, b"nested", member="folder/data.mat")
    assert locate(file).read_bytes() == b"nested"
    for path in cache.iterdir():
        path.unlink()
    pack(folder, b"x", member="other.mat")
    with pytest.raises(DownloadError, match=r"does not contain data\.mat"):
        locate(file)
    monkeypatch.setattr(fetch, "MAX_MEMBER_BYTES", 1000)
    pack(folder, bytes(1001))
    with pytest.raises(DownloadError, match="unpacks to 1001 bytes"):
        locate(file)
    assert list(cache.iterdir()) == []


# --------------------------------------------------------------------------------------------
# MNIST


def idx(array, magic=None):
    header = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return header + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def write_mnist(folder, **changed):
    """Small files in MNIST's format; `changed` replaces a file's content before gzip."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 30), ("t10k", 20)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        for kind, array in (("images", images), ("labels", (np.arange(n) % 10).astype(np.uint8))):
            name = f"{part}-{kind}-idx{array.ndim}-ubyte.gz"
            content = changed.get(f"{part}_{kind}", idx(array))
            (folder / name).write_bytes(gzip.compress(content))
    return images


def test_load_mnist_small(tmp_path):
    images = write_mnist(tmp_path)
    data = load_mnist(n_test=15, data_dir=tmp_path)
    assert (data.X_train.shape, data.X_train.dtype) == ((30, 28, 28), np.float32)
    np.testing.assert_array_equal(data.X_test, images[:15].astype(np.float32) / 255)
    np.testing.assert_array_equal(data.y_test, np.arange(15) % 10)
    assert len(load_mnist(n_test=None, data_dir=tmp_path).y_test) == 20
    with pytest.raises(ValueError, match=r"n_test must be 1 to 20, .* got 21"):
        load_mnist(n_test=21, data_dir=tmp_path)
    with pytest.raises(ValueError, match="got 0"):
        load_mnist(n_test=0, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"t10k_images": b"PNG and more bytes"}, "t10k-images.* is not an idx file"),
        ({"t10k_images": b""}, "t10k-images.* is not an idx file"),
        ({"t10k_labels": idx(np.zeros((2, 2), np.uint8))}, "t10k-labels.* is not an idx file"),
        (
            {"t10k_images": idx(np.zeros((2, 3, 4), np.uint8), bytes([0, 0, 13, 3]))},
            "it starts with 00000d03",
        ),
        ({"t10k_images": idx(np.zeros((2, 32, 32), np.uint8))}, r"28, 28\], got \[2, 32, 32\]"),
        ({"t10k_images": bytes([0, 0, 8, 3]) + b"\xff" * 12}, "got .4294967295"),
        ({"t10k_images": bytes([0, 0, 8, 3]) + bytes(12)}, r"got \[0, 0, 0\]"),
        (
            {"t10k_images": idx(np.zeros((20, 28, 28), np.uint8))[:-1]},
            "announces 15680 bytes, the file has 15679",
        ),
        ({"t10k_images": idx(np.zeros((20, 28, 28), np.uint8)) + b"x"}, "the file has more"),
        ({"t10k_labels": idx(np.zeros(19, np.uint8))}, "20 images, but .* 19 labels"),
        ({"t10k_labels": idx(np.full(20, 10, np.uint8))}, "labels must be 0 to 9, got 10"),
    ],
)
def test_foreign_mnist_files(tmp_path, changed, message):
    write_mnist(tmp_path, **changed)
    with pytest.raises(ValueError, match=message):
        load_mnist(data_dir=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"no gzip at all",
        lambda content: content[:2000] + bytes(50) + content[2050:],
        lambda content: content[:-8] + bytes(8),
    ],
    ids=["truncated", "empty", "foreign", "overwritten", "checksum"],
)
def test_damaged_mnist_files(tmp_path, damage):
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="train-images"):
        load_mnist(data_dir=tmp_path)


def test_a_decompression_bomb_is_not_unpacked(tmp_path, monkeypatch):
    write_mnist(tmp_path, train_labels=idx(np.zeros(30, np.uint8)) + bytes(50_000_000))
    most = 0
    read = gzip.GzipFile.read

    def counting(self, size=-1):
        nonlocal most
        content = read(self, size)
        most = max(most, len(content))
        return content

    monkeypatch.setattr(gzip.GzipFile, "read", counting)
    with pytest.raises(ValueError, match="the file has more"):
        load_mnist(data_dir=tmp_path)
    assert most <= 30 * 28 * 28 + 1


def test_real_mnist(real_data):
    data = load_mnist(data_dir=real_data)
    assert data.X_train.shape == (60000, 28, 28)
    assert data.X_test.shape == (1000, 28, 28)
    assert data.X_train.dtype == np.float32
    assert (data.X_train.min(), data.X_train.max()) == (0, 1)
    # Published statistics of the training pixels.
    assert 255 * data.X_train.mean(dtype=np.float64) == pytest.approx(33.3184, abs=1e-3)
    assert np.bincount(data.y_test).tolist() == [85, 126, 116, 107, 110, 87, 87, 99, 89, 94]
    assert np.bincount(data.y_train)[:3].tolist() == [5923, 6742, 5958]


def test_real_mnist_checksums(real_data):
    for name, file in mnist.FILES.items():
        path = locate(file, real_data)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == mnist.SHA256[name]


# --------------------------------------------------------------------------------------------
# Characters

COUNTS = characters.CLASS_COUNTS


def write_characters(path, cells=None, numbers=None, key=None):
    """A file in the UCI file's structure with made-up strokes."""
    if numbers is None:
        numbers = np.repeat(np.arange(1, 21), list(COUNTS.values()))
    if cells is None:
        rng = np.random.default_rng(0)
        cells = [rng.normal(0, 1, (3, 109 + i % 97)) for i in range(2858)]
    mixout = np.empty((1, len(cells)), dtype=object)
    for i, cell in enumerate(cells):
        mixout[0, i] = cell
    letters = np.empty((1, 20), dtype=object)
    letters[0, :] = list(COUNTS) if key is None else key
    consts = {"charlabels": np.atleast_2d(numbers).astype(float), "key": letters}
    savemat(path, {"mixout": mixout, "consts": consts})
    return cells


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("characters")
    return folder, write_characters(folder / "mixoutALL_shifted.mat")


def test_load_characters_made_up(made_up):
    folder, cells = made_up
    data = load_characters(standardize=None, data_dir=folder)
    assert data.standardizer is None
    assert (data.X_train.shape, data.X_test.shape) == ((2286, 205, 2), (572, 205, 2))
    assert data.X_train.dtype == np.float32
    assert data.classes.tolist() == list(COUNTS)
    positions = np.cumsum(cells[0][:2], axis=1).T
    padded = np.concatenate([positions, np.repeat(positions[-1:], 205 - 109, axis=0)])
    rows = np.concatenate([data.X_train, data.X_test])
    assert (rows == padded.astype(np.float32)).all(axis=(1, 2)).sum() == 1
    shares = np.array([(data.y_test == c).sum() / n for c, n in COUNTS.items()])
    np.testing.assert_allclose(shares, 0.2, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["channel", "global"])
def test_characters_standardisation_takes_the_training_part_only(made_up, axis):
    folder, _ = made_up
    raw = load_characters(standardize=None, data_dir=folder)
    over = (0, 1) if axis == "channel" else None
    train = load_characters(axis=axis, data_dir=folder)
    np.testing.assert_allclose(
        train.standardizer.mean_, raw.X_train.mean(over, dtype=np.float64), atol=1e-5
    )
    everything = load_characters(standardize="all", axis=axis, data_dir=folder)
    pooled = np.concatenate([raw.X_train, raw.X_test])
    np.testing.assert_allclose(
        everything.standardizer.scale_, pooled.std(over, dtype=np.float64), rtol=1e-5
    )
    assert not np.array_equal(train.standardizer.mean_, everything.standardizer.mean_)


@pytest.mark.slow
def test_characters_split_and_draw_follow_the_seed(made_up):
    folder, _ = made_up
    first = load_characters(n_test=400, data_dir=folder)
    again = load_characters(n_test=400, data_dir=folder)
    fewer = load_characters(n_test=100, data_dir=folder)
    other = load_characters(n_test=400, random_state=1, data_dir=folder)
    np.testing.assert_array_equal(first.X_test, again.X_test)
    assert not np.array_equal(first.X_test, other.X_test)
    of_first = {row.tobytes() for row in first.X_test}
    assert len(of_first) == 400
    assert {row.tobytes() for row in fewer.X_test} < of_first
    assert of_first.isdisjoint({row.tobytes() for row in first.X_train})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"standardize": "test"}, "'train', 'all' or None, got 'test'"),
        ({"axis": "time"}, "axis must be 'channel' or 'global'"),
        ({"test_size": 0}, "above 0 and below 1, got 0"),
        ({"n_test": 573}, "n_test must be 1 to 572, .* got 573"),
        ({"n_test": 0}, "got 0"),
    ],
)
def test_load_characters_arguments(made_up, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_characters(data_dir=made_up[0], **arguments)


def bad_cell(cells, cell):
    return [*cells[:7], cell, *cells[8:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"cells": c[:-1]}, "expected 2858 samples and labels, got 2857 and 2858"),
        (lambda c: {"numbers": np.zeros(2858)}, "charlabels must be 1 to 20"),
        (lambda c: {"numbers": np.full(2858, 3)}, "expected samples per class"),
        (lambda c: {"key": list("abcdefghijklmnopqrst")}, "expected samples per class"),
        (lambda c: {"cells": bad_cell(c, c[7][:2])}, r"sample 7 .* got float64 \[2, 116\]"),
        (lambda c: {"cells": bad_cell(c, c[7][:, :50])}, r"sample 7 .* got float64 \[3, 50\]"),
        (lambda c: {"cells": bad_cell(c, c[7] * np.nan)}, "sample 7 must be finite"),
        (lambda c: {"cells": bad_cell(c, "text")}, "sample 7 must be finite numbers"),
    ],
)
def test_foreign_characters_files(made_up, tmp_path, change, message):
    write_characters(
        tmp_path / "mixoutALL_shifted.mat", **{"cells": made_up[1]} | change(made_up[1])
    )
    with pytest.raises(ValueError, match=message):
        load_characters(data_dir=tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no mat file", bytes(4096), None], ids=["empty", "text", "zeros", "truncated"]
)
def test_damaged_characters_files(made_up, tmp_path, content):
    if content is None:
        content = (made_up[0] / "mixoutALL_shifted.mat").read_bytes()[:100_000]
    (tmp_path / "mixoutALL_shifted.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"mixoutALL_shifted\.mat is not a readable MATLAB file"):
        load_characters(data_dir=tmp_path)


def test_mat_file_without_the_fields(tmp_path):
    savemat(tmp_path / "mixoutALL_shifted.mat", {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="KeyError: 'consts'"):
        load_characters(data_dir=tmp_path)


@pytest.mark.slow
def test_characters_through_a_download(made_up, cache, server, monkeypatch):
    folder, address = server
    file = RemoteFile(characters.FILE.name, f"{address}/archive.zip", in_archive=True)
    monkeypatch.setattr(characters, "FILE", file)
    pack(folder, b"no mat file", member=file.name)
    with pytest.raises(DownloadError, match="not a readable MATLAB file"):
        load_characters()
    pack(folder, (made_up[0] / file.name).read_bytes(), member=file.name)
    assert load_characters().X_train.shape == (2286, 205, 2)
    assert (cache / f"{file.name}.sha256").is_file()


def test_real_characters_standardise_as_the_papers_arrays(real_data, paper):
    data = load_characters(standardize="all", axis="channel", data_dir=real_data)
    np.testing.assert_allclose(data.standardizer.mean_, paper["standardise_mean"], atol=1e-8)
    np.testing.assert_allclose(data.standardizer.scale_, paper["standardise_std"], atol=1e-8)
    X = np.concatenate([data.X_train, data.X_test])
    y = np.concatenate([data.y_train, data.y_test])
    for label, samples in zip(paper["classes"], paper["handpicked4"], strict=True):
        for sample in samples:
            off = np.abs(X - sample).max(axis=(1, 2))
            assert off.min() < 1e-6
            assert y[off.argmin()] == label


def test_real_characters_defaults(real_data):
    data = load_characters(n_test=400, data_dir=real_data)
    assert (data.X_train.shape, data.X_test.shape) == ((2286, 205, 2), (400, 205, 2))
    np.testing.assert_allclose(data.X_train.mean((0, 1), dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(data.X_train.std((0, 1), dtype=np.float64), 1, atol=1e-6)


# --------------------------------------------------------------------------------------------
# Digits


def test_data_sets_by_name():
    assert dataset_names() == ["characters", "digits", "mnist"]
    data = load_dataset("digits", test_size=0.2)
    np.testing.assert_array_equal(data.X_test, load_digits_sequences(test_size=0.2).X_test)
    with pytest.raises(ValueError, match="data set must be one of 'characters', 'digits', 'mnist'"):
        load_dataset("letters")


def test_digits():
    data = load_digits_sequences()
    assert (data.X_train.shape, data.X_test.shape) == ((898, 8, 8), (899, 8, 8))
    assert data.X_train.dtype == np.float32
    assert (data.X_train.min(), data.X_train.max()) == (0, 1)
    assert data.classes.tolist() == list(range(10))
    assert np.abs(np.bincount(data.y_train) - np.bincount(data.y_test)).max() <= 1
    assert len(load_digits_sequences(test_size=0.2).y_test) == 360
    np.testing.assert_array_equal(data.X_train, load_digits_sequences().X_train)
    assert not np.array_equal(data.X_train, load_digits_sequences(random_state=1).X_train)
