"""A module on the meta device (load_state_dict not yet done).

Today: NotImplementedError 'Cannot copy out of meta tensor; no data!' after the whole search has run on meta tensors through PyTorch (some 10 s here for 30 steps).
Right: TypeError or ValueError: module 0 is on the meta device, it holds no weights.
Run from any folder but the source folder: python 23_meta_device_message.py
Exit status 0 when right, 1 when not.
"""
import sys, warnings
import torch
from torch import nn
import torch.nn.functional as F
import micfast
torch.set_num_threads(1); torch.manual_seed(7)
K, H, O, T, N = 4, 10, 2, 30, 6
t_ = torch.linspace(0, 1, T)[None, :, None]
TARGETS = 0.6 * torch.sin((torch.rand(N, 1, O) * 6 + 1) * t_ + 6 * torch.rand(N, 1, O))


def zeros_after(z, t):  # (n,K) -> (t,n,K)
    return torch.cat([z[None], z.new_zeros(t - 1, *z.shape)])


class Decoder(nn.Module):
    """What micfast promises to invert: forward(z (n,K), t) -> (n,t,O)."""

    def __init__(self, k=K, lstm=nn.LSTM, linear=nn.Linear):
        super().__init__()
        self.lstm, self.out = lstm(k, H), linear(H, O)
        for p in self.parameters(): p.data.mul_(2)  # as after training: not all small

    def forward(self, z, t):
        return self.out(self.lstm(zeros_after(z, t))[0]).transpose(0, 1)


def own_errors(module, z, targets):
    with torch.no_grad():
        return ((module(z, targets.shape[1]) - targets) ** 2).mean((1, 2))


def honest(module, targets=TARGETS, **kw):
    """Refused with a reason, warned of, or: the errors are those of the module's own drawings."""
    module.eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = micfast.invert(module, targets, **kw)
        except (TypeError, ValueError) as error:
            print("refused:", error); return True
    if caught:
        print("warned:", caught[0].message); return True
    z = found.latents[:, 0]
    try:
        own = own_errors(module, z, targets)
    except Exception as error:
        print(f"micfast's latents {tuple(z.shape)} don't even go into the module ({type(error).__name__}); no word of it"); return False
    ratio = (found.errors[:, 0] - own).abs() / own
    print(f"micfast says {found.errors[:, 0].mean():.4g}, the module itself at these latents {own.mean():.4g}, largest difference {ratio.max():.2%}")
    return bool(ratio.max() < 1e-3)


def says(call, *words):
    """Refused, and the message has one of the words that would help."""
    try:
        call()
    except Exception as error:
        text = str(error); print(f"{type(error).__name__}: {text[:300]}")
        return any(w.lower() in text.lower() for w in words)
    print("accepted"); return True


with torch.device("meta"): m = nn.Sequential(nn.LSTM(K, H, bias=False), nn.Linear(H, O))
sys.exit(not says(lambda: micfast.invert(m, TARGETS[:1, :3], solver=micfast.Adam(n_iter=1)), "meta device", "module 0"))
