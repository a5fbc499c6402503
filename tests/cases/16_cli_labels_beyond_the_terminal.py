"""Command line: labels that the terminal's encoding lacks (Windows: cp1252 once output is redirected).

Sources: ValvePython/steamctl#67, xinjli/allosaurus#73, code42/code42cli#338.
Expected: all labels are written (UTF-8, or with \\u escapes); at least the message says what to set. Today
`predict` (and `info` and `fit`, not run here) end with "'charmap' codec can't encode", after a part of the
labels.
"""
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from micfast import ModularInverseClassifier, Training

warnings.simplefilter("ignore")
t = np.linspace(0, 1, 12)
X = np.stack([np.sin(3 * t), np.cos(5 * t)] * 3)
y = ["links", "\u4e0a"] * 3
wrong = []
with tempfile.TemporaryDirectory() as folder:
    model = ModularInverseClassifier(n_types=1, training=Training.paper(n_episodes=300, max_retries=0), n_modules_per_class=1,
                                     type_selection="first", random_state=0).fit(X, y)
    model.save(Path(folder) / "model.safetensors")
    np.save(Path(folder) / "new.npy", X)
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    for args, n_lines in ((["predict", "model.safetensors", "new.npy"], 6),):
        done = subprocess.run([sys.executable, "-m", "micfast", *args], cwd=folder, env=environment,
                              capture_output=True)
        found = len(done.stdout.splitlines())
        if done.returncode or found < n_lines:
            wrong.append(f"{args[0]}: expected exit 0 and {n_lines} lines or more, got exit {done.returncode}, "
                         f"{found} lines, {done.stderr.decode('cp1252').strip()}")
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
