"""backend="torch" (what a build without compiler, so the Windows wheel, uses) in torch.inference_mode().

Sources: replicate/cog#1681, ubc-vision/sonic#2 (a host program sets the mode for everybody).
Expected: invert and predict need no gradient of the caller and work, as in torch.no_grad() and as with
the compiled kernels. Today: RuntimeError "element 0 of tensors does not require grad".
"""
import sys
import warnings

import numpy as np
import torch

import micfast
from micfast import Adam, LevenbergMarquardt, ModularInverseClassifier, Training

warnings.simplefilter("ignore")
rng, t = np.random.default_rng(0), np.linspace(0, 1, 10)
X = np.concatenate([np.stack([f + 0.05 * rng.standard_normal(10) for _ in range(4)])
                    for f in (np.sin(3 * t), np.cos(5 * t))])[..., None]
y = np.repeat(["arch", "wave"], 4)
quick = dict(n_types=1, hidden_size=4, n_modules_per_class=1, random_state=0,
             type_selection="first")
model = ModularInverseClassifier(training=Training.paper(n_episodes=500, max_retries=0), **quick).fit(X, y)
adam = ModularInverseClassifier(training=Training.paper(n_episodes=500, max_retries=0), solver=Adam(n_iter=3, start="uniform"), **quick).fit(X, y)
adam.set_params(backend="torch")
jobs = {
    "invert, kernels": lambda: micfast.invert(model.bank_, X, solver=Adam(n_iter=3)),
    "invert, torch, lm": lambda: micfast.invert(model.bank_, X[:2], solver=LevenbergMarquardt(n_iter=2, start="uniform"), execution="torch"),
    "invert, torch, adam": lambda: micfast.invert(model.bank_, X[:2], solver=Adam(n_iter=3), execution="torch"),
    "predict, torch, adam": lambda: adam.predict(X[:2]),
    "fit, torch": lambda: ModularInverseClassifier(training=Training.paper(n_episodes=2, max_retries=0), backend="torch", **quick).fit(X, y),
}
wrong = []
for what, job in jobs.items():
    with torch.no_grad():
        job()
    try:
        with torch.inference_mode():
            job()
    except Exception as error:
        wrong.append(f"{what}: expected the result of torch.no_grad(), got {type(error).__name__}: {error}")
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
