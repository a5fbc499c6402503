"""Users' files: tables, .ts, NumPy and MATLAB files."""

import numpy as np
import pytest
from scipy.io import savemat

from micfast.data import load_ts, read_recordings


@pytest.fixture
def read(tmp_path):
    """Read a file of this name and text."""

    def write_and_read(name, text, **options):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_recordings(tmp_path / name, **options)

    return write_and_read


def lists(recordings):
    return [sequence.tolist() for sequence in recordings.sequences]


LONG = "id,t,x,y,label\n7,0,1,2,a\n7,1,3,4,a\n08,0,5,,b\n"


def test_long_table(read):
    found = read("long.csv", LONG, wants_labels=True)
    np.testing.assert_equal(lists(found), [[[1, 2], [3, 4]], [[5, np.nan]]])
    assert found.labels.tolist() == ["a", "b"]
    assert found.ids.tolist() == ["7", "08"]
    assert found.channels == ("x", "y")
    assert found.notes == (
        "one row per time step; id in 'id'; time in 't'; label in 'label'; values in x, y",
    )
    assert found.frames()[0].columns.tolist() == ["x", "y"]
    assert len(found) == 2
    assert read("long.csv", LONG).labels is None


def test_columns_can_be_chosen(read):
    text = "who,when,x,y,z,kind\n1,0,1,2,3,a\n1,1,4,5,6,a\n2,0,7,8,9,b\n"
    columns = {"id": "who", "time": "when", "label": "kind", "channels": ["z", "x"]}
    found = read("a.csv", text, wants_labels=True, **columns)
    assert lists(found) == [[[3, 1], [6, 4]], [[9, 7]]]
    assert found.channels == ("z", "x")
    with pytest.raises(ValueError, match=r"no column 'q' \(for time\); it has who, when"):
        read("a.csv", text, time="q")
    with pytest.raises(ValueError, match="'who' is chosen twice"):
        read("a.csv", text, id="who", channels=["who"])
    with pytest.raises(ValueError, match="columns can only be chosen in tables"):
        read("a.ts", "@classLabel false\n@data\n1,2\n", id="who")


@pytest.mark.parametrize(
    "times",
    [
        "10,9,-1.5",
        "2024-01-01T10,2024-01-01T09,2023-12-31",
        "2024-01-01 10:00Z,2024-01-01 10:00+02:00,2023-01-01 00:00Z",
    ],
)
def test_rows_are_sorted_by_time(read, times):
    rows = "".join(f"a,{time},{i}\n" for i, time in enumerate(times.split(",")))
    found = read("a.csv", "id,time,x\n" + rows + "b,0,1\n" * times.startswith("10"))
    assert lists(found)[0] == [[2], [1], [0]]
    assert "the rows of 1 sequence(s) were sorted by 'time'" in found.notes
    if times.startswith("10"):  # not as text, where 10 comes before 9
        interleaved = read("a.csv", "id,time,x\na,10,1\nb,1,2\na,9,3\nb,2,4\n")
        assert lists(interleaved) == [[[3], [1]], [[2], [4]]]


def test_layouts_without_id_or_time(read):
    assert lists(read("a.csv", "time,x\n0,1\n0.5,2\n")) == [[[1], [2]]]
    assert lists(read("a.csv", "id,x\n1,1\n1,2\n2,3\n")) == [[[1], [2]], [[3]]]
    with pytest.raises(ValueError, match=r"'time' restarts.*\(--id-column\)"):
        read("a.csv", "time,x\n0,1\n1,2\n0,1\n1,2\n")
    with pytest.raises(ValueError, match="row 4: the rows of id '1' are not next to each other"):
        read("a.csv", "id,x\n1,1\n2,2\n1,3\n")


def test_names_like_the_usual_ones(read):
    text = (
        "stroke_id,user,time (ms),x,Gesture name\n7,ann,0,1,tick\n7,ann,9,2,tick\n8,bob,0,3,line\n"
    )
    found = read("a.csv", text, wants_labels=True)
    assert (lists(found), found.ids.tolist()) == ([[[1], [2]], [[3]]], ["7", "8"])
    assert found.labels.tolist() == ["tick", "line"]
    units = text.replace("time (ms)", "T [ms]").replace("stroke_id", "Stroke")
    assert lists(read("a.csv", units, wants_labels=True)) == lists(found)
    # Of two such names neither is taken; a text that never repeats names the rows.
    with pytest.raises(ValueError, match="no column looks like an id"):
        read("a.csv", text.replace("user", "user_id").replace("ann", "1").replace("bob", "1"))
    wide = read("a.csv", "name,x_1,x_2\nann,1,2\nbob,3,4\n")
    assert (wide.ids.tolist(), lists(wide)) == (["ann", "bob"], [[[1], [2]], [[3], [4]]])
    both = read("a.csv", "name,label,x_1\nann,b,2\nbob,b,4\n", wants_labels=True)
    assert (both.ids.tolist(), both.labels.tolist()) == (["ann", "bob"], ["b", "b"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,t,x,label\n1,0,1,a\n1,0,2,a\n", "rows 2 and 3 have the same id '1' and the same time"),
        ("id,t,x,label\n1,0,1,a\n1,1,2,b\n", "'label', row 3: sequence '1' has label 'b' here"),
        ("id,t,x,label\n1,0,1,a\n1,1,2,\n", "'label', row 3: the label is missing"),
        ("id,t,x,label\n1,0,1,NA\n1,1,2,NA\n", "'label', row 2: the label is missing"),
        ("id,t,x,label\n1,0,1,a\n,1,2,a\n1,2,2,a\n", "'id', row 3: the id is missing"),
        ("id,t,x,label\n1,0,1,a\n1,,2,a\n", "'t', row 3: the time is missing"),
        ("id,t,x,label\n1,0,1,a\n1,NaT,2,a\n", "'t', row 3: the time is missing"),
        (
            "id,t,x,label\n1,0,1,a\n1,noon,2,a\n",
            "'t', row 2: '0' is neither|row 3: 'noon' is neith",
        ),
        ("id,t,x,label\n1,0,1,a\n1,1,l2,a\n", "'x', row 3: 'l2' is not a finite number: correct"),
        ("id,t,x,label\n1,0,1,a\n\n1,1,inf,a\n", "'x', row 4: 'inf' is not a finite number"),
        ("id,t,x,label\n1,0,1,a\n1,1,2024-01-01,a\n", "'x', row 3: '2024-01-01' is not"),
        ("id,t,x,label\n1,0,2024-01-01,a\n1,1,2024-01-02,a\n", "no column holds numbers"),
        (
            "id,t,x\n1,0,1\n1,1,2\n",
            r"no column looks like a label among id, t, x: .*\(--label-column\)",
        ),
        ("x,x,label\n1,2,a\n", "'x' is the name of several columns"),
        ("x_1,x_2,label\n1,2,a\n1,2,3,a\n", "rows have unequal numbers of cells"),
        ("x_1,x_2,label\n1,2,a\n,,b\n", "row 3: the sequence has no values"),
        ("x_1,x_2,y_2,label\n1,2,3,a\n", "channels x, y have columns of different steps"),
        ("x,y,label\n1,2,a\n3,4,a\n", "an id or a time among x, y, label, .* sequence of 2 steps"),
        ("x_1,x_2,label\n", "no rows"),
        ("\n\n", "the file is empty"),
    ],
)
def test_tables_that_are_refused(read, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read("some.csv", text, wants_labels=True)
    assert "some.csv: " in str(caught.value)


def test_wide_tables(read):
    found = read("a.csv", "id,v0,v1,v2,label\n1,1,2,,a\n2,1,,3,b\n", wants_labels=True)
    np.testing.assert_equal(lists(found), [[[1], [2]], [[1], [np.nan], [3]]])
    assert (found.labels.tolist(), found.ids.tolist()) == (["a", "b"], ["1", "2"])
    # Numbers in names give the order, and stems the channels.
    found = read("a.csv", "x_10,x_9,y_10,y_9\n1,2,3,4\n")
    assert lists(found) == [[[2, 4], [1, 3]]]
    assert found.channels == ("x", "y")
    # Without header: text is the label; 0, 1, 2 is a header.
    assert read("a.csv", "1.5,2.5,a\n3,4,b\n", wants_labels=True).labels.tolist() == ["a", "b"]
    assert lists(read("a.csv", "0,1,2\n5,6,7\n")) == [[[5], [6], [7]]]
    # The UCR archive.
    found = read("a.tsv", "1\t0.5\t0.25\n2\t1\tNaN\n", wants_labels=True)
    assert lists(found) == [[[0.5], [0.25]], [[1]]]
    assert found.labels.tolist() == ["1", "2"]


def test_dialects(read):
    assert lists(read("a.csv", "\ufeffid;t;x\n1;0;0,5\n1;1;1,25\n")) == [[[0.5], [1.25]]]
    assert lists(read("a.csv", ",id,x,\n0,1,5,\n1,1,6,\n")) == [[[5], [6]]]
    found = read("a.csv", 'id,x,device\n1,5,"a, b"\n1,6,c\n')
    assert lists(found) == [[[5], [6]]]
    assert "ignored, as they hold text or dates: device" in found.notes
    value = 0.1234567890123456789  # read exactly
    assert lists(read("a.csv", f"id,x\n1,{value!r}\n1,3e-310\n")) == [[[value], [3e-310]]]


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "a.csv").write_bytes("id,x\n\u00e9,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8 text: save the table as UTF-8"):
        read_recordings(tmp_path / "a.csv")


# -- .ts -----------------------------------------------------------------------------------------

HEADER = "# about\n@problemName toy\n@timeStamps false\n@classLabel true Up down\n@data\n"


def test_ts(read, tmp_path):
    found = read("a.ts", HEADER + "1,2,?:4,5,6:up\n\n7:8:down\n", wants_labels=True)
    np.testing.assert_equal(lists(found), [[[1, 4], [2, 5], [np.nan, 6]], [[7, 8]]])
    assert found.labels.tolist() == ["Up", "down"]
    assert lists(read("a.ts", "@classLabel false\n@data\n1,2\n3,4:\n")) == [[[1], [2]], [[3], [4]]]
    assert load_ts(tmp_path / "a.ts")[1] is None
    with pytest.raises(ValueError, match="has no labels"):
        read_recordings(tmp_path / "a.ts", wants_labels=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + "1,2:left\n",
            r"line 6: label 'left' is not declared by @classLabel \(Up, down\)",
        ),
        (HEADER + "1,2:1:up\n", r"line 6: channels must have equal lengths, got \[2, 1\]"),
        (HEADER + "1,x:up\n", "line 6: values must be numbers"),
        (HEADER + "1,inf:up\n", "line 6: values must be finite"),
        (HEADER + "1,2:up\n1,2:1,2:up\n", "line 7: expected 1 channels, got 2"),
        ("@equalLength true\n" + HEADER + "1,2:up\n1:up\n", "line 8: expected 2 steps, got 1"),
        (HEADER, "no sequence follows @data"),
        ("@timeStamps true\n@classLabel false\n@data\n", "line 3: the file has timestamps"),
        ("@univariate true\n@data\n1,2\n", "line 2: the header lacks @classLabel"),
        ("@colour red\n", "line 1: unknown header @colour"),
        ("hello\n", "no @data"),
    ],
)
def test_ts_files_that_are_refused(read, text, message):
    with pytest.raises(ValueError, match=message):
        read("some.ts", text)


# -- NumPy and MATLAB ----------------------------------------------------------------------------

X = np.arange(12.0).reshape(3, 2, 2)
Y = np.array(["a", "b", "a"])


def test_numpy_files(tmp_path):
    padded = X.copy()
    padded[0, 1] = np.nan
    others = {"junk": np.array([None]), "D": X.astype("M8[s]")}
    np.savez(tmp_path / "a.npz", X=padded, y=Y, ids=[5, 6, 7], **others)
    found = read_recordings(tmp_path / "a.npz", wants_labels=True)
    np.testing.assert_equal(found.sequences, padded)
    assert (found.labels.tolist(), found.ids.tolist()) == (Y.tolist(), [5, 6, 7])
    with pytest.raises(ValueError, match=r"a\.npz: array 'junk': it holds Python objects"):
        read_recordings(tmp_path / "a.npz", X_key="junk")
    with pytest.raises(ValueError, match="array 'D' must hold real numbers, got dates"):
        read_recordings(tmp_path / "a.npz", X_key="D")
    with pytest.raises(ValueError, match="no array 'q'; it has X, y, ids, junk, D"):
        read_recordings(tmp_path / "a.npz", y_key="q", wants_labels=True)

    np.savez(tmp_path / "b.npz", X=X, ids=np.array([None, "a", "b"]))
    found = read_recordings(tmp_path / "b.npz")
    assert found.ids is None
    assert "no ids, as they cannot be read" in found.notes[0]

    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", Y)
    both = read_recordings(tmp_path / "X.npy", labels_path=tmp_path / "y.npy", wants_labels=True)
    assert both.labels.tolist() == Y.tolist()
    with pytest.raises(ValueError, match=r"a \.npy file has no labels"):
        read_recordings(tmp_path / "X.npy", wants_labels=True)


@pytest.mark.parametrize(
    "labels",
    [[1.0, np.nan, 2.0], ["a", "", "b"], ["a", "nan", "b"], np.array([0, "NaT", 1], "m8[s]")],
)
def test_missing_labels(tmp_path, labels):
    np.savez(tmp_path / "a.npz", X=X, y=labels)
    with pytest.raises(ValueError, match="1 of 3 labels are missing, first that of sequence 1"):
        read_recordings(tmp_path / "a.npz", wants_labels=True)
    assert read_recordings(tmp_path / "a.npz").labels is None


def cells(*items):
    array = np.empty((1, len(items)), dtype=object)
    array[0] = [np.asarray(item) for item in items]
    return array


def test_matlab_files(tmp_path):
    path = tmp_path / "a.mat"
    sequences = cells(np.ones((4, 2)), np.ones((5, 2)), np.ones((1, 2)).repeat(3, 0))
    content = {"X": sequences, "y": cells(*Y), "n": [[1.0, 2, 3]], "c": np.array(["ab", "c", "d"])}
    savemat(
        path, content | {"T": cells(np.ones((3, 8)), np.ones((3, 9))), "A": X, "ids": [4, 5, 6]}
    )
    found = read_recordings(path, wants_labels=True)
    assert [sequence.shape for sequence in found.sequences] == [(4, 2), (5, 2), (3, 2)]
    assert (found.labels.tolist(), found.ids.tolist()) == (Y.tolist(), [4, 5, 6])
    assert read_recordings(path, y_key="n", wants_labels=True).labels.tolist() == [1, 2, 3]
    assert read_recordings(path, y_key="c", wants_labels=True).labels.tolist() == ["ab", "c", "d"]
    np.testing.assert_array_equal(read_recordings(path, X_key="A").sequences, X)
    with pytest.raises(ValueError, match="transpose them: T = cellfun"):
        read_recordings(path, X_key="T")
    with pytest.raises(ValueError, match="no variable 'q'; it has X, y"):
        read_recordings(path, X_key="q")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"a\.mat: not a readable MATLAB file"):
        read_recordings(path)


def test_a_row_of_numbers_in_a_cell_is_one_channel(tmp_path):
    savemat(tmp_path / "a.mat", {"X": cells(np.ones((1, 9)), np.ones((5, 1)))})
    found = read_recordings(tmp_path / "a.mat")
    assert [sequence.shape for sequence in found.sequences] == [(9, 1), (5, 1)]


def test_other_files(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04[Content_Types].xml")
    with pytest.raises(ValueError, match=r"a\.xlsx: cannot read files of this kind; give \.csv"):
        read_recordings(tmp_path / "a.xlsx")
    for name in ("a.csv", "a.ts", "a.npz", "a.mat", "a"):
        with pytest.raises(FileNotFoundError):
            read_recordings(tmp_path / name)
