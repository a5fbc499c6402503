"""Writes everything that micfast writes to a folder that is full, read-only or forbidden.

A program, not a test: ``test_faults.py`` starts it in a mount namespace of its own, where the
folder is a small file system that goes with the process. Prints what happened as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import micfast
from micfast import LevenbergMarquardt, Training, cli
from micfast.data import fetch
from micfast.experiments.paper import results
from micfast.experiments.paper.figures import draw_figures
from micfast.io import check_output_path
from micfast.plotting.drawing import save_figure
from micfast.training.selections.kmeans import DTWKMeans
from micfast.training.types import select_types_per_class

NOBODY = 65534
# A bank that only its owner may read.
PRIVATE = "private.safetensors"


def bank(n: int) -> micfast.GeneratorBank:
    return micfast.GeneratorBank.random(
        n, hidden_size=20, input_size=4, output_size=2, seeds=range(n)
    )


def sequences(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 40, 2)).astype(np.float32)


def picture() -> Figure:
    fig = Figure()
    fig.subplots().plot(np.random.default_rng(0).standard_normal(3000))
    return fig


class Cases:
    """Each method writes one file: `version` 0 at first, then a larger one in its place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        X = np.repeat(sequences(2), 4, axis=0)
        self.model = micfast.ModularInverseClassifier(
            training=Training.paper(n_episodes=1, max_retries=0),
            views="raw",
            pose=None,
            hull=False,
            solver=LevenbergMarquardt(n_iter=1),
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(X, np.repeat([0, 1], 4))
        # What the command line and the figures read; it lies elsewhere.
        self.elsewhere = folder.parent
        for version, n in enumerate((2, 12)):
            raw = self.elsewhere / f"raw{version}"
            raw.mkdir()
            errors = np.random.default_rng(0).random((n, n))
            labels = np.arange(n).astype(str)
            np.savez(raw / "cross-mnist.npz", labels=labels, train=errors, test=errors)
        self.model.save(self.elsewhere / "model.safetensors")
        np.save(self.elsewhere / "few.npy", sequences(3))
        np.save(self.elsewhere / "many.npy", sequences(3000))

    def bank(self, version: int) -> None:
        bank(1 + 9 * version).save(self.folder / "bank.safetensors")

    def estimator(self, version: int) -> None:
        if version:
            self.model.feature_names_in_ = np.array(["name" * 1000] * 80)
        self.model.save(self.folder / "estimator.safetensors")

    def figure(self, version: int) -> None:
        fig = picture() if version else Figure()
        save_figure(fig, self.folder / "figure.png")

    def paper_figure(self, version: int) -> None:
        draw_figures(self.elsewhere / f"raw{version}", self.folder, only=["figure7"])

    def results(self, version: int) -> None:
        out = self.folder / "results"
        if not version:
            out.mkdir()
            results.prepare(out)
        content = {"numbers": list(range(1 + 50_000 * version))}
        results.write(out / "raw" / "units" / "unit.json", content)

    def arrays(self, version: int) -> None:
        path = self.folder / "results" / "raw" / "cross.npz"
        results.write(path, {"X": np.zeros(1 + 50_000 * version)})

    def predict(self, version: int, suffix: str = "csv") -> None:
        argv = ["predict", str(self.elsewhere / "model.safetensors")]
        argv += [str(self.elsewhere / ("many.npy" if version else "few.npy"))]
        argv += ["-o", str(self.folder / f"predicted.{suffix}")]
        messages = io.StringIO()
        with contextlib.redirect_stderr(messages):
            code = cli.main(argv)
        if code:
            assert code == 1, code
            text = messages.getvalue()
            assert text.count("\n") == 1, text
            # Back from the one line that the user sees.
            raise OSError(text)

    def predict_npz(self, version: int) -> None:
        self.predict(version, "npz")

    ALL = (
        "bank",
        "estimator",
        "figure",
        "paper_figure",
        "results",
        "arrays",
        "predict",
        "predict_npz",
    )


def types_in_cache(folder: Path, seed: int) -> np.ndarray:
    os.environ["MICFAST_CACHE"] = str(folder / "cache")
    X = sequences(60)
    return select_types_per_class(
        X, np.arange(60) % 2, 4, selection=DTWKMeans(n_init=1), random_state=seed
    )[0]


class Server(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(bytes(1_000_000))

    def log_message(self, *args: object) -> None:
        pass


def download(folder: Path) -> None:
    """Fetch a file into the folder as into the download cache."""
    os.environ.pop("MICFAST_DATA", None)
    fetch.download_dir = lambda: folder / "downloads"
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/new.bin"
        try:
            fetch.locate(fetch.RemoteFile("new.bin", address, "0" * 64))
        finally:
            server.shutdown()


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def attempt(function: object, *args: object) -> dict[str, object]:
    try:
        function(*args)
    except OSError as error:
        return {"errno": error.errno, "message": str(error)}
    return {"errno": None, "message": ""}


@contextlib.contextmanager
def made(kind: str, folder: Path) -> Iterator[None]:
    """Let the folder be of that kind, while it lasts."""
    if kind == "full":
        filler = folder / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
        filler.unlink()
    elif kind == "readonly":
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield
    else:
        for path in [folder, *folder.rglob("*")]:
            if path.name != PRIVATE:
                path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:  # root may do anything
            os.setgroups([])
            os.setegid(NOBODY)
            os.setresuid(NOBODY, NOBODY, 0)  # the real one too: os.access asks it
            yield
            os.setresuid(0, 0, 0)
        else:
            yield
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


def main(kind: str, folder: Path) -> None:
    os.umask(0o022)
    cases = Cases(folder)
    for name in Cases.ALL:
        getattr(cases, name)(0)
    types_in_cache(folder, 0)
    expected = types_in_cache(folder, 0)  # read back
    private = folder / PRIVATE
    bank(1).save(private)
    check_output_path(folder / "new")
    # Refused for its content. Also imports what it needs: later on, Python may be out of reach.
    assert "SHA256" in str(attempt(download, folder)["message"])
    before = content(folder)
    private.chmod(0)
    result: dict[str, object] = {}
    with made(kind, folder):
        result["effective_user"] = os.geteuid()
        for name in Cases.ALL:
            result[name] = attempt(getattr(cases, name), 1)
        result["check_output_path"] = attempt(check_output_path, folder / "new")
        result["download"] = attempt(download, folder)
        result["private"] = attempt(micfast.GeneratorBank.load, private)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            again, other = types_in_cache(folder, 0), types_in_cache(folder, 1)
        result["cache"] = {
            "equal": bool(np.array_equal(expected, again)),
            "finite": bool(np.isfinite(other).all()),
            "warnings": [str(warning.message) for warning in caught],
        }
    after = content(folder)
    result["changed"] = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    result["n_files"] = len(after)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
