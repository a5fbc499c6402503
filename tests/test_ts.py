"""Files of the `.ts` format, and the archives' data sets by name."""

import doctest
import gzip
import os
import pickle
import re
import sys
import time
import tracemalloc
import warnings
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import micfast.data.ts as ts
from micfast.data import DownloadError, TsError, load_ts, load_ucr, save_ts

# As aeon's files look.
UNIVARIATE = """#Electricity demand of two days
whose description goes on without a sign
# Three lines of comment; "ü" is UTF-8
#
@problemName ItalyPowerDemand
@timeStamps false
@missing false
@univariate true
@equalLength true
@seriesLength 4
@classLabel true 1 2
@data
-0.71051757,-1.1833204,1e-3,-.5:1
0.99300935,-1.4267865,-1.5798848,3:2
"""
MULTIVARIATE = """@problemName BasicMotions
@timestamps False
@MISSING true
@univariate false
@dimensions 3
@equallength true
@serieslength 2
@classLabel true Standing Running

@data
0.1,0.2:1,?:-1,-2:Running
 0.3 , NaN : 3, 4 : nan,-4 : standing

# a remark
0.5,0.6:5,6:-5,-6:Standing
"""
UNEQUAL = """@problemName JapaneseVowels
@problemName Vowels
@timeStamps false
@univariate false
@dimension 2
@equalLength false
@classLabel true a b
@data
1,2,3:4,5,6:a
7:8:b
"""
REGRESSION = """@problemName Covid3Month
@timestamps false
@missing false
@univariate true
@equallength true
@targetlabel true
@data
0.0,2.0,0.0:0.0055
1.0,2.0,5.0:-1e3
"""
# aeon ends the sequences of an unlabelled file with a colon.
UNLABELLED = """@problemName data
@timestamps false
@missing True
@univariate false
@dimension 2
@equalLength true
@seriesLength 2
@targetlabel false
@data
1.0,2.0:NaN,4.0:
5.0,6.0:7.0,8.0:
"""
EXAMPLES = [UNIVARIATE, MULTIVARIATE, UNEQUAL, REGRESSION, UNLABELLED]
nan = np.nan


@pytest.fixture
def write(tmp_path):
    def write(content, name="toy.ts"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def same_bits(a, b):
    """Equal shape, type and bits, but for the bits of NaN."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(
        np.where(np.isnan(a), 0, a).view(np.int64), np.where(np.isnan(b), 0, b).view(np.int64)
    )


# --------------------------------------------------------------------------------------------
# Reading


def test_univariate(write):
    X, y = load_ts(write(UNIVARIATE))
    assert X.dtype == np.float64
    assert X.flags.c_contiguous
    assert X.flags.writeable
    np.testing.assert_array_equal(
        X[..., 0],
        [[-0.71051757, -1.1833204, 1e-3, -0.5], [0.99300935, -1.4267865, -1.5798848, 3]],
    )
    assert y.tolist() == ["1", "2"]
    assert load_ts(write(UNIVARIATE), return_labels=False)[1] is None


def test_multivariate_with_missing_values_and_loose_spelling(write):
    X, y = load_ts(write(MULTIVARIATE))
    np.testing.assert_array_equal(
        X,
        [
            [[0.1, 1, -1], [0.2, nan, -2]],
            [[0.3, 3, nan], [nan, 4, -4]],
            [[0.5, 5, -5], [0.6, 6, -6]],
        ],
    )
    assert y.tolist() == ["Running", "Standing", "Standing"]


def test_unequal_lengths_only_when_padded(write):
    path = write(UNEQUAL)
    X, y = load_ts(path, pad=True)
    np.testing.assert_array_equal(X, [[[1, 4], [2, 5], [3, 6]], [[7, 8], [nan, nan], [nan, nan]]])
    assert y.tolist() == ["a", "b"]
    with pytest.raises(TsError, match=r"line 10: .* 1 steps, that of line 9 has 3: .*pad=True"):
        load_ts(path)


def test_padding_is_tslearns(write):
    from tslearn.utils import to_time_series_dataset

    X, _ = load_ts(write(UNEQUAL), pad=True)
    peer = to_time_series_dataset([[[1, 4], [2, 5], [3, 6]], [[7, 8]]])
    np.testing.assert_array_equal(X, peer)


def test_regression_and_no_labels(write):
    X, y = load_ts(write(REGRESSION))
    assert X.shape == (2, 3, 1)
    assert y.dtype == np.float64
    assert y.tolist() == [0.0055, -1000]
    X, y = load_ts(write(UNLABELLED))
    np.testing.assert_array_equal(X, [[[1, nan], [2, 4]], [[5, 7], [6, 8]]])
    assert y is None


def test_labels_that_differ_only_by_case_stay_apart(write):
    text = UNIVARIATE.replace("true 1 2", "true A a").replace(":1", ":a").replace(":2", ":A")
    assert load_ts(write(text))[1].tolist() == ["a", "A"]


@pytest.mark.parametrize("text", EXAMPLES)
def test_bytes_around_the_text_do_not_matter(write, text):
    X, y = load_ts(write(text), pad=True)
    data = text.encode()
    for other in (
        gzip.compress(data),
        gzip.compress(data[:50]) + gzip.compress(data[50:]),
        b"\xef\xbb\xbf" + data,
        data.replace(b"\n", b"\r\n"),
        data.rstrip(),
    ):
        X_other, y_other = load_ts(write(other, "toy.ts.gz"), pad=True)
        same_bits(X, X_other)
        np.testing.assert_array_equal(y, y_other)


HEAD = "@problemName x\n@univariate true\n@classLabel true a b\n@data\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: the file ends without @data"),
        ("# nothing\n@problemName x\n", "line 2: the file ends without @data"),
        (HEAD, "line 4: no sequence follows @data"),
        ("1,2:a\n", "line 1: the file ends without @data"),
        ("@missing false\n1,2:a\n", "line 2: '1,2:a' stands in the header; .* with @ or #"),
        ("@colour red\n@data\n", "line 1: '@colour' is no header; allowed are @problemName, "),
        ("@data now\n", "line 1: @data must stand alone"),
        ("@data\n1:a\n", "line 1: .* neither @classLabel nor @targetLabel"),
        ("#\n@timeStamps true\n", "line 2: the file has timestamps, .* only @timeStamps false"),
        ("@missing maybe\n", "line 1: @missing must be true or false, got 'maybe'"),
        ("@missing\n", "line 1: @missing must be true or false, got ''"),
        ("@missing true\n@Missing true\n", "line 2: '@Missing' stands in line 1 already"),
        ("@dimension 2\n@dimensions 2\n", "line 2: .* only once"),
        ("@dimensions 0\n", "line 1: @dimensions must be one whole number above 0, got '0'"),
        ("@dimensions 1" + "0" * 5000, "line 1: @dimensions must be one whole number"),
        ("@seriesLength -1\n", "line 1: @seriesLength must be one whole number"),
        ("@univariate true\n@dimensions 2\n@classLabel false\n@data\n", "line 4: .* must then be"),
        ("@classLabel true\n", "line 1: @classLabel must be false alone, or true and then"),
        ("@classLabel false a\n", "line 1: @classLabel must be false alone"),
        ("@classLabel true a:b\n", "line 1: the label 'a:b' has a colon or NUL"),
        ("@classLabel true a\0\n", r"line 1: the label 'a\\x00' has a colon or NUL"),
        ("@classLabel true a\n@targetLabel true\n@data\n", "line 3: .* only one of them"),
        ("@problemName " + "x" * 2**20, "line 1: a header line has 1048589 characters; at most"),
        (HEAD + "1,2\n", "line 5: the line has no label"),
        (HEAD + "1,2:c\n", "line 5: the label 'c' is not declared .* allowed are 'a, b'"),
        (HEAD + "1,2:\n", "line 5: the label '' is not declared"),
        (HEAD + "1,2:1,2:a\n", r"line 5: the sequence has 2 dimension\(s\) .*; 1 must be there"),
        (HEAD + "1,,2:a\n", "line 5: value 2 of dimension 1 is ''; only finite numbers, . and NaN"),
        (HEAD + "1,2,:a\n", "line 5: value 3 of dimension 1 is ''"),
        (HEAD + ":a\n", "line 5: value 1 of dimension 1 is ''"),
        (HEAD + "1,2:a\n1,x:a\n", "line 6: value 2 of dimension 1 is 'x'"),
        (HEAD + "1,1_0:a\n", "line 5: value 2 of dimension 1 is '1_0'"),
        (HEAD + "1.\x1c,2:a\n", "line 5: value 1 of dimension 1 is '"),
        (HEAD + "1,\u0663:a\n", "line 5: value 2 of dimension 1 is '\u0663'"),
        (HEAD + "1,-?:a\n", "line 5: value 2 of dimension 1 is '-\\?'"),
        (HEAD + "1,1e999:a\n", "line 5: value 2 of dimension 1 is '1e999'"),
        (HEAD + "1,-inf:a\n", "line 5: value 2 of dimension 1 is '-inf'"),
        (HEAD + "1 2:a\n", "line 5: value 1 of dimension 1 is '1 2'"),
        (HEAD + "(2008-09-09,1.0):a\n", r"line 5: value 1 of dimension 1 is '\(2008-09-09'"),
        (HEAD + "1," + "x" * 10**5 + ":a\n", r"line 5: value 2 of dimension 1 is 'x{77}\.\.\.'"),
        (UNIVARIATE.replace("1e-3,", ""), "line 13: the sequence has 3 steps; 4 must be there"),
        (REGRESSION.replace(",5.0", ""), "line 9: the sequence has 2 steps; 3 must be there"),
        (REGRESSION.replace(":-1e3", ":much"), "line 9: the target is 'much'; only a finite"),
        (MULTIVARIATE.replace("1,?", "1"), "line 11: dimension 2 has 1 values, dimension 1 has 2"),
        (MULTIVARIATE.replace(":5,6", ""), r"line 15: the sequence has 2 dimension\(s\)"),
        (UNIVARIATE.encode("latin-1"), "line 3: byte 28 of the line is 0xfc, which is not UTF-8"),
        (UNIVARIATE.encode("utf-16"), "line 1: byte 1 of the line is 0xff, which is not UTF-8"),
        (gzip.compress(UNIVARIATE.encode())[:-9], "line 14: the gzipped file is damaged or trunc"),
        (gzip.compress(UNIVARIATE.encode()) + b"x", "line 14: the gzipped file is damaged"),
        (b"\x1f\x8b", "line 1: the gzipped file is damaged"),
    ],
)
def test_errors_name_file_line_fault_and_what_is_allowed(write, content, message):
    path = write(content)
    with pytest.raises(TsError, match=re.escape(f"{path}, ") + message) as caught:
        load_ts(path, pad=True)
    assert len(str(caught.value)) < 1000
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_ts(tmp_path / "none.ts")
    with pytest.raises(IsADirectoryError):
        load_ts(tmp_path)
    with pytest.raises(ValueError, match="max_bytes must be at least 1, got 0"):
        load_ts(tmp_path / "none.ts", max_bytes=0)


# --------------------------------------------------------------------------------------------
# Limits


def peak_bytes(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_max_bytes_is_exact(write):
    size = len(UNIVARIATE.encode())
    for content in (UNIVARIATE.encode(), gzip.compress(UNIVARIATE.encode())):
        path = write(content)
        load_ts(path, max_bytes=size)
        with pytest.raises(TsError, match=rf"longer than max_bytes={size - 1} allows; a larger"):
            load_ts(path, max_bytes=size - 1)


@pytest.mark.parametrize("filler", [b"\0", b"\n", b"1,", b"1:", b"# "])
def test_gzip_bombs_stay_within_their_limit(write, filler):
    # 64 MiB of text in a file of less than 1 MiB.
    path = write(gzip.compress(HEAD.encode() + filler * (2**26 // len(filler)), 1), "bomb.ts.gz")
    assert path.stat().st_size < 2**20

    def read():
        with pytest.raises(TsError, match="longer than max_bytes=1048576 allows"):
            load_ts(path, max_bytes=2**20)

    assert peak_bytes(read) < 16 * 2**20


def test_padding_can_not_blow_up(write):
    path = write(HEAD + "1" + ",1" * 10**5 + ":a\n" + "1:a\n" * 10**5)

    def read():
        with pytest.raises(TsError, match=r"would take 80\d+ bytes; max_bytes=52756448 are"):
            load_ts(path, pad=True)

    assert peak_bytes(read) < 32 * path.stat().st_size


def test_long_labels_can_not_blow_up(write):
    long = "b" * 10**5
    head = HEAD.replace("a b", f"a {long}")
    path = write(head + f"1:{long}\n" + "1:a\n" * 10**4)
    with pytest.raises(TsError, match=r"the labels would take 4\d+ bytes as an array; max_bytes"):
        load_ts(path)


@pytest.mark.parametrize(
    "body",
    [
        "1," * 3 * 10**5 + "1:a\n",
        "1:" * 2 * 10**5 + "a\n",
        "1:a\n" * 2 * 10**5,
        "12.5,?," * 3 * 10**5 + "1:a\n",
        "1." + "3" * 2 * 10**6 + ":a\n",
        "0." + "0" * 2 * 10**6 + "1:a\n",
        "1" * 2 * 10**6 + "e-2000000:a\n",
        "\n" * 4 * 10**5 + "1:a\n",
        "#\n" * 4 * 10**5 + "1:a\n",
    ],
    ids=[
        "one long sequence",
        "many dimensions",
        "many sequences",
        "many missing values",
        "long number",
        "long small number",
        "long large number",
        "blank lines",
        "comments",
    ],
)
def test_memory_and_time_are_of_the_files_size(write, body):
    path = write(HEAD.replace("@univariate true\n", "") + body)
    start = time.perf_counter()
    load_ts(path)
    # Quadratic time would be many minutes.
    assert time.perf_counter() - start < 30
    assert peak_bytes(lambda: load_ts(path)) < 20 * path.stat().st_size + 2**24


# --------------------------------------------------------------------------------------------
# Fuzzing

SNIPPETS = [
    *(b"@data", b"@classLabel", b"@targetLabel true", b"@dimensions 3", b"@univariate true"),
    *(b"@seriesLength 2", b"@equalLength true", b"true", b"false", b":", b",", b"?", b"\n", b"@"),
    *(b"#", b" ", b"\t", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1f\x8b", b"nan", b"inf"),
    *(b"\x1c", b"\x1f", b"\x0b", b"1e400", b"-", b"+", b".", b"_", b"0x1"),
    *(b"9" * 400, "\u0663".encode(), b"\xc2\x85"),
]


@st.composite
def mutated_files(draw):
    data = draw(st.sampled_from(EXAMPLES)).encode()
    packed = draw(st.integers(0, 5)) == 0
    if packed and draw(st.booleans()):
        data = gzip.compress(data, mtime=0)
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["cut", "insert", "swap", "repeat", "end"]))
        # Most changes of the header end there: two of three go behind it.
        body = draw(st.sampled_from([True, True, False])) and data.find(b"@data") + 5
        start = draw(st.integers(min(body, len(data)), len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        if kind == "cut":
            data = data[:start] + data[end:]
        elif kind == "insert":
            data = data[:start] + draw(st.sampled_from(SNIPPETS)) + data[start:]
        elif kind == "swap":
            other = draw(st.binary(min_size=1, max_size=3))
            data = data[:start] + other + data[start + len(other) :]
        elif kind == "repeat":
            data = data[:end] + data[start:end] * draw(st.integers(1, 3)) + data[end:]
        elif draw(st.integers(0, 3)) == 0:
            data = data[:start]
    return gzip.compress(data, mtime=0) if packed and draw(st.booleans()) else data


N_FUZZ = int(os.environ.get("MICFAST_FUZZ", "3000"))


@given(mutated_files(), st.booleans(), st.sampled_from([2**30, 2**30, 500]))
@settings(
    max_examples=N_FUZZ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_mutated_file_ends_in_a_result_or_the_error(tmp_path, data, pad, max_bytes):
    path = tmp_path / "fuzz.ts"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            X, y = load_ts(path, pad=pad, max_bytes=max_bytes)
        except TsError as error:
            assert re.match(re.escape(str(path)) + r", line [1-9][0-9]*: .", str(error), re.DOTALL)  # noqa: PT017
            assert len(str(error)) < 1000  # noqa: PT017
            return
        assert X.ndim == 3
        assert X.dtype == np.float64
        assert X.size > 0
        assert not np.isinf(X).any()
        assert y is None or y.shape == X.shape[:1]
        # What could be read can be written and read again.
        save_ts(path, X, y)
        again, y_again = load_ts(path)
    same_bits(X, again)
    np.testing.assert_array_equal(y, y_again)


# --------------------------------------------------------------------------------------------
# Writing

numbers = st.floats(allow_infinity=False, allow_nan=True, width=64)
words = st.text(
    st.characters(exclude_categories=["Cs", "Z"], exclude_characters=":\0"), min_size=1, max_size=5
).filter(lambda word: word.split() == [word])


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=numbers),
    st.data(),
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_round_trip_is_exact(tmp_path, X, data):
    n = len(X)
    kind = data.draw(st.sampled_from(["none", "class", "target"]))
    if kind == "none":
        y = None
    elif kind == "class":
        y = np.array(data.draw(st.lists(words, min_size=n, max_size=n)))
    else:
        y = data.draw(hnp.arrays(np.float64, n, elements=numbers))
    path = tmp_path / data.draw(st.sampled_from(["a.ts", "a.ts.gz"]))
    comment = data.draw(st.none() | st.text(st.characters(codec="utf-8"), max_size=20))
    save_ts(path, X, y, comment=comment, problem_name=data.draw(words))
    again, y_again = load_ts(path)
    same_bits(X, again)
    if kind == "target":
        same_bits(y, y_again)
    else:
        np.testing.assert_array_equal(y, y_again)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_trimmed_round_trip_is_exact(tmp_path, lengths, n_channels, seed):
    random = np.random.default_rng(seed)
    X = np.full((len(lengths), max(lengths), n_channels), nan)
    for sequence, length in zip(X, lengths, strict=True):
        sequence[:length] = random.normal(size=(length, n_channels))
    path = tmp_path / "a.ts"
    save_ts(path, X, trim=True)
    same_bits(load_ts(path, pad=True)[0], X)
    assert ("@equalLength true" in path.read_text()) == (len(set(lengths)) == 1)
    body = path.read_text().split("@data\n")[1]
    assert [line.split(":")[0].count(",") + 1 for line in body.splitlines()] == lengths


def test_trim_keeps_inner_gaps_and_one_step(tmp_path):
    X = np.array([[[1, nan], [nan, nan], [nan, 2], [nan, nan]], np.full((4, 2), nan)])
    path = tmp_path / "a.ts"
    save_ts(path, X, trim=True)
    assert path.read_text().endswith("@data\n1.0,?,?:?,?,2.0\n?:?\n")
    same_bits(load_ts(path, pad=True)[0], X[:, :3])


def test_the_written_text(tmp_path):
    path = tmp_path / "a.ts"
    save_ts(
        path,
        [[[1, -0.0], [0.1, nan]]],
        [9],
        problem_name="toy",
        classes=[9, 10],
        comment="first\nsecond",
    )
    assert path.read_bytes().decode() == (
        "# first\n# second\n@problemName toy\n@timeStamps false\n@missing true\n"
        "@univariate false\n@dimensions 2\n@equalLength true\n@seriesLength 2\n"
        "@classLabel true 9 10\n@data\n1.0,0.1:-0.0,?:9\n"
    )
    save_ts(path, [[1.5], [2.5]], [10, 9])
    assert "@univariate true\n@equalLength true\n@seriesLength 1\n@classLabel true 9 10\n" in (
        path.read_text()
    )
    save_ts(path, [[1.5]], [2], label_type="regression")
    assert path.read_text().endswith("@targetLabel true\n@data\n1.5:2.0\n")
    save_ts(path, [[1.5]], [2.0], label_type="classification")
    assert path.read_text().endswith("@classLabel true 2.0\n@data\n1.5:2.0\n")
    save_ts(path, [[1.5], [1.5]], np.array(["b", 1], dtype=object))
    assert path.read_text().endswith("@classLabel true 1 b\n@data\n1.5:b\n1.5:1\n")


def test_gzipped_files_are_equal_bytes(tmp_path):
    for name in ("a.ts.gz", "b.ts.gz"):
        save_ts(tmp_path / name, [[1.0, 2.0]], ["a"])
    assert (tmp_path / "a.ts.gz").read_bytes() == (tmp_path / "b.ts.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.ts.gz").read_bytes()).endswith(b"1.0,2.0:a\n")


def test_float32_is_kept(tmp_path):
    X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    save_ts(tmp_path / "a.ts", X)
    np.testing.assert_array_equal(load_ts(tmp_path / "a.ts")[0].astype(np.float32), X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": [1.0, 2.0]}, r"X must have shape \[n, T, C\] or \[n, T\] .* got \[2\]"),
        ({"X": np.zeros((0, 2, 1))}, r"not be empty, got \[0, 2, 1\]"),
        ({"X": [["a"]]}, "X must be of real numbers, got dtype <U1"),
        ({"X": [[1j]]}, "X must be of real numbers"),
        ({"X": [[np.inf]]}, "X must be finite or NaN"),
        ({"y": ["a"]}, r"y must have shape \[2\], got \[1\]"),
        ({"y": ["a", "b c"]}, "a label must be a word .* got 'b c'"),
        ({"y": ["a", ""]}, "a label must be a word .* got ''"),
        ({"y": ["a", "b:c"]}, "a label must be a word"),
        ({"y": ["a", "b\u2028"]}, "a label must be a word"),
        ({"y": ["a", "\ud800"]}, "a label must be a word"),
        ({"y": [b"a", b"b"]}, "labels must be strings or numbers, got"),
        ({"y": np.array(["a", None], dtype=object)}, "labels must be strings or numbers"),
        ({"y": ["a", "b"], "classes": ["a"]}, "not in classes, such as 'b'"),
        ({"y": ["a", "b"], "classes": ["a", "b", "b"]}, "classes must differ"),
        ({"y": ["a", "b"], "classes": ["a", "b", "c d"]}, "a label must be a word"),
        ({"y": ["a", "b" * 2**20]}, "the labels take 1048595 characters in the header"),
        ({"classes": ["a"]}, "classes and label_type need y"),
        ({"label_type": "regression"}, "classes and label_type need y"),
        ({"y": [1.0, np.inf]}, "targets must be finite or NaN"),
        ({"y": ["a", "b"], "label_type": "regression"}, "targets must be real numbers"),
        ({"y": [1.0, 2.0], "classes": [1.0, 2.0]}, "classes must be None for regression"),
        ({"y": [1, 2], "label_type": "class"}, "label_type must be 'classification', "),
        ({"problem_name": "two words"}, "problem_name must be a word"),
        ({"problem_name": ""}, "problem_name must be a word"),
    ],
)
def test_what_can_not_be_written_leaves_no_file(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        save_ts(tmp_path / "a.ts", **{"X": [[1.0], [2.0]], **arguments})
    assert list(tmp_path.iterdir()) == []


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.ts"
    save_ts(path, [[1.0]])
    before = path.read_bytes()

    def broken(value):
        raise KeyboardInterrupt

    monkeypatch.setattr(ts, "_shown", broken)
    with pytest.raises(KeyboardInterrupt):
        save_ts(path, [[2.0]])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="folder doesn't exist"):
        save_ts(tmp_path / "none" / "a.ts", [[1.0]])


# --------------------------------------------------------------------------------------------
# The archives, without a network


def stand_in(monkeypatch, load):
    """Put `load(name)` in the place of tslearn's loader; gives the list of what it was asked."""
    asked = []

    class StandIn:
        def __init__(self, use_cache=True, root_dir=None):
            asked.append(root_dir)

        def load_dataset(self, name):
            asked.append(name)
            return load(name)

    monkeypatch.setattr("tslearn.datasets.UCR_UEA_datasets", StandIn)
    return asked


def test_load_ucr(monkeypatch, tmp_path):
    train, test = np.arange(12.0).reshape(2, 3, 2), np.zeros((1, 3, 2), np.float32)
    parts = train, np.array([1, 2]), test, np.array(["a"])
    asked = stand_in(monkeypatch, lambda name: parts)
    X, y = load_ucr("PenDigits", data_dir=tmp_path)
    np.testing.assert_array_equal(X, train)
    assert y.tolist() == [1, 2]
    assert asked == [tmp_path, "PenDigits"]
    X, y = load_ucr("PenDigits", split="test")
    assert X.dtype == np.float64
    assert X.shape == (1, 3, 2)
    assert y.tolist() == ["a"]
    assert asked[2:] == [None, "PenDigits"]


def test_load_ucr_says_why_it_has_nothing(monkeypatch):
    def warn(name):
        warnings.warn(f"{name} could not be downloaded", RuntimeWarning, stacklevel=2)
        return None, None, None, None

    def fail(name):
        raise URLError("no network")

    for load, message in (
        (warn, r"GunPoint could not be had through tslearn \(GunPoint could not be downloaded\)"),
        (fail, r"\(URLError: .*no network.*\).* is there a network\? .*load_ts"),
        (lambda name: None, "TypeError"),
        (lambda name: (None,) * 4, "tslearn gave nothing"),
    ):
        stand_in(monkeypatch, load)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DownloadError, match=message):
                load_ucr("GunPoint")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp", "a.b", "-", "GunPoint\n", None, 3])
def test_load_ucr_refuses_what_is_no_name(monkeypatch, name):
    asked = stand_in(monkeypatch, lambda name: None)
    with pytest.raises(ValueError, match="name must be the archive's name of a data set"):
        load_ucr(name)
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'TRAIN'"):
        load_ucr("GunPoint", split="TRAIN")
    assert asked == []


def test_load_ucr_through_tslearn_itself(monkeypatch, tmp_path):
    """From tslearn's cache when there is no network, and the error when it isn't there."""

    def no_network(*args, **kwargs):
        raise URLError("no network")

    import tslearn.datasets

    for module in [m for n, m in sys.modules.items() if n.startswith("tslearn.datasets")]:
        if hasattr(module, "urlretrieve"):
            monkeypatch.setattr(module, "urlretrieve", no_network)
    assert tslearn.datasets.UCR_UEA_datasets.__module__ == "tslearn.datasets.ucr_uea"
    folder = tmp_path / "UCR_UEA" / "Toy"
    folder.mkdir(parents=True)
    (folder / "Toy_TRAIN.txt").write_text("1 0.5 0.25\n2 1.5 1.25\n")
    (folder / "Toy_TEST.txt").write_text("2 2.5 2.25\n1 3.5 3.25\n")
    X, y = load_ucr("Toy", data_dir=tmp_path)
    np.testing.assert_array_equal(X[..., 0], [[0.5, 0.25], [1.5, 1.25]])
    assert y.tolist() == [1, 2]
    with pytest.raises(DownloadError, match="Absent could not be had through tslearn"):
        load_ucr("Absent", data_dir=tmp_path)


# --------------------------------------------------------------------------------------------


def test_examples_in_the_docstrings():
    result = doctest.testmod(ts)
    assert result.attempted > 10
    assert result.failed == 0
