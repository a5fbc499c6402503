"""Decoders as people write them: RIGHT draw as the paper's do, EXPRESSED in another structure that
micfast has, WRONG in none of them, UNKNOWN: who knows.

Each entry is a function that builds a module with K inputs, H hidden units and O outputs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

K, H, O, T = 4, 10, 2, 30
RIGHT, EXPRESSED, WRONG, UNKNOWN = {}, {}, {}, {}


def zoo(entries):
    """Register a class or function of no arguments under its name."""

    def add(build):
        assert build.__name__ not in entries
        entries[build.__name__] = build
        return build

    return add


def first_input(z: Tensor, n_steps: int, batch_first: bool = False) -> Tensor:
    x = torch.zeros(n_steps, *z.shape, dtype=z.dtype)
    x[0] = z
    return x.transpose(0, 1) if batch_first else x


class Base(nn.Module):
    """The contract: forward(z, n_steps) -> (n, T, O)."""

    batch_first = False

    def __init__(
        self, n_inputs=K, n_outputs=O, hidden=H, bias=True, lstm=nn.LSTM, linear=nn.Linear
    ):
        super().__init__()
        self.rnn = lstm(n_inputs, hidden, bias=bias, batch_first=self.batch_first)
        self.head = linear(hidden, n_outputs, bias=bias)
        with torch.no_grad():  # as after training
            for parameter in self.parameters():
                parameter *= 2

    def forward(self, z, n_steps):
        return self.head(self.hidden(z, n_steps)).transpose(0, 1)

    def hidden(self, z, n_steps):
        return self.rnn(first_input(z, n_steps))[0]


# -- right: forms of the call ----------------------------------------------------------------------

RIGHT["latents and steps"] = Base
RIGHT["without biases"] = lambda: Base(bias=False)
RIGHT["one output"] = lambda: Base(n_outputs=1)
RIGHT["one latent"] = lambda: Base(n_inputs=1)
RIGHT["equal sizes"] = lambda: Base(n_inputs=3, n_outputs=3, hidden=3)
RIGHT["one of all"] = lambda: Base(n_inputs=1, n_outputs=1, hidden=1)
RIGHT["sizes as the number of latents"] = lambda: Base(n_inputs=12, n_outputs=12, hidden=12)
RIGHT["wide"] = lambda: Base(hidden=70)
RIGHT["double"] = lambda: Base().double()
RIGHT["train mode"] = lambda: Base().train()


@zoo(RIGHT)
class BatchFirst(Base):
    batch_first = True

    def forward(self, z, n_steps):
        return self.head(self.rnn(first_input(z, n_steps, batch_first=True))[0])


@zoo(RIGHT)
class KeywordOnly(Base):
    def forward(self, z, *, seq_len):
        return super().forward(z, seq_len)


@zoo(RIGHT)
class StepsFirst(Base):
    def forward(self, n_steps, z):
        return super().forward(z, n_steps)


@zoo(RIGHT)
class StepsThird(Base):
    def forward(self, z, state=None, length=20):
        return super().forward(z, length)


@zoo(RIGHT)
class OwnNumberOfSteps(Base):
    def forward(self, z):
        return super().forward(z, T)


@zoo(RIGHT)
class DefaultNumberOfSteps(Base):
    def forward(self, z, n_steps=T):
        return super().forward(z, n_steps)


@zoo(RIGHT)
class UnnamedSecond(Base):
    def forward(self, z, how_long):
        return super().forward(z, how_long)


@zoo(RIGHT)
class OneVector(Base):
    def forward(self, z, n_steps):
        x = torch.zeros(n_steps, K)
        x[0] = z
        assert z.shape == (K,)
        return self.head(self.rnn(x)[0])


@zoo(RIGHT)
class OneRow(Base):
    def forward(self, z, n_steps):
        x = torch.cat([z.view(1, 1, K), torch.zeros(n_steps - 1, 1, K)])
        return self.head(self.rnn(x)[0])[:, 0]


@zoo(RIGHT)
class Padded(Base):
    """Right for (K,); for (n, K) it pads the wrong axis and draws something."""

    def forward(self, z, n_steps):
        return self.head(self.rnn(nn.functional.pad(z[None], (0, 0, 0, n_steps - 1)))[0])


@zoo(RIGHT)
class WithTimeAxis(Base):
    def forward(self, x0, n_steps):
        x = torch.cat([x0, x0.new_zeros(n_steps - 1, *x0.shape[1:])])
        assert x0.dim() == 3
        assert len(x0) == 1
        return self.head(self.rnn(x)[0])


@zoo(RIGHT)
class Sequences(Base):
    def forward(self, x):
        return self.head(self.rnn(x)[0])


@zoo(RIGHT)
class SequencesBatchFirst(Sequences):
    batch_first = True


@zoo(RIGHT)
class SequencesAndState(Base):
    def forward(self, x, state=None):
        h, state = self.rnn(x, state)
        return self.head(h), state


@zoo(RIGHT)
class OneSequence(Base):
    def forward(self, x):
        assert x.dim() == 2
        return self.head(self.rnn(x)[0])


@zoo(RIGHT)
class PackedInput(Base):
    batch_first = True

    def forward(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        return self.head(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


@zoo(RIGHT)
class StepByStep(Base):
    def forward(self, z, n_steps):
        x, state, drawn = z[None], None, []
        for _ in range(n_steps):
            h, state = self.rnn(x, state)
            drawn.append(self.head(h[0]))
            x = torch.zeros_like(x)
        return torch.stack(drawn, 1)


@zoo(RIGHT)
class ExplicitZeroState(Base):
    def hidden(self, z, n_steps):
        zero = torch.zeros(1, len(z), H, dtype=z.dtype)
        return self.rnn(first_input(z, n_steps), (zero, zero))[0]


# -- right: forms of the answer --------------------------------------------------------------------


@zoo(RIGHT)
class TimeFirst(Base):
    def forward(self, z, n_steps):
        return self.head(self.hidden(z, n_steps))


@zoo(RIGHT)
class ChannelsBeforeTime(Base):
    def forward(self, z, n_steps):
        return super().forward(z, n_steps).transpose(1, 2)


@zoo(RIGHT)
class Flat(Base):
    def forward(self, z, n_steps):
        return super().forward(z, n_steps).flatten(1)


@zoo(RIGHT)
class SqueezedChannel(Base):
    def __init__(self):
        super().__init__(n_outputs=1)

    def forward(self, z, n_steps):
        return super().forward(z, n_steps)[..., 0]


@zoo(RIGHT)
class AnswerAndStates(Base):
    def forward(self, z, n_steps):
        h, state = self.rnn(first_input(z, n_steps))
        return self.head(h).transpose(0, 1), h, state


@zoo(RIGHT)
class Dictionary(Base):
    def forward(self, z, n_steps):
        return {"reconstruction": super().forward(z, n_steps), "latent": z, "loss": None}


@zoo(RIGHT)
class DataClass(Base):
    @dataclass
    class Output:
        drawn: Tensor

    def forward(self, z, n_steps):
        return self.Output(super().forward(z, n_steps))


@zoo(RIGHT)
class OneMoreStepThanAsked(Base):
    def forward(self, z, n_steps):
        return super().forward(z, n_steps + 1)


# -- right: other things around --------------------------------------------------------------------


@zoo(RIGHT)
class SequentialWithSelection(nn.Sequential):
    class First(nn.Module):
        def forward(self, answer):
            return answer[0]

    def __init__(self):
        super().__init__(nn.LSTM(K, H), self.First(), nn.Linear(H, O))


@zoo(RIGHT)
class InnerDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = Base()

    def forward(self, z, n_steps):
        return self.decoder(z, n_steps)


@zoo(RIGHT)
class UnusedBuffers(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.randn(O))
        self.register_buffer("calls", torch.zeros(1, dtype=torch.long))

    def forward(self, z, n_steps):
        self.calls += 1
        return super().forward(z, n_steps)


@zoo(RIGHT)
class NoiseInTrainingOnly(Base):
    def forward(self, z, n_steps):
        drawn = super().forward(z, n_steps)
        return drawn + torch.randn_like(drawn) if self.training else drawn


@zoo(RIGHT)
class UnusedRandomNumbers(Base):
    def forward(self, z, n_steps):
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        return super().forward(z, n_steps)


@zoo(RIGHT)
class KeepsItsLastState(Base):
    """Kept for plotting, not used again."""

    def forward(self, z, n_steps):
        self.last = self.hidden(z, n_steps)
        return self.head(self.last).transpose(0, 1)


@zoo(RIGHT)
class IdentityLayers(Base):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(0.3), self.head, nn.Identity())
        self.eval()


@zoo(RIGHT)
class GradientWithin(Base):
    def forward(self, z, n_steps):
        with torch.enable_grad():
            return super().forward(z, n_steps)


@zoo(RIGHT)
def data_parallel():
    return nn.DataParallel(Base())


@zoo(RIGHT)
def recording_hook():
    module = Base()
    module.rnn.register_forward_hook(lambda m, args, answer: None)
    return module


@zoo(RIGHT)
def large_output_bias():
    module = Base()
    with torch.no_grad():
        module.head.bias += 1000
    return module


@zoo(RIGHT)
def no_weights_in_the_head():
    module = Base()
    with torch.no_grad():
        module.head.weight.zero_()
    return module


@zoo(RIGHT)
def large_weights():
    """Roundings grow until nothing is left of them: the drawings still agree, or can't be told."""
    module = Base(hidden=40)
    with torch.no_grad():
        module.rnn.weight_hh_l0 *= 3
    return module


@zoo(RIGHT)
def parametrized_weight_norm():
    module = Base()
    parametrizations.weight_norm(module.head)
    parametrizations.weight_norm(module.rnn, "weight_hh_l0")
    return module


@zoo(RIGHT)
def pruned():
    module = Base()
    prune.l1_unstructured(module.rnn, "weight_hh_l0", 0.5)
    prune.random_unstructured(module.head, "weight", 0.3)
    return module


# -- right for their own length only ---------------------------------------------------------------


class FixedLengthSequences(Base):
    def forward(self, x):
        assert x.shape[0] == 200
        return self.head(self.rnn(x)[0])


# -- wrong: after the linear layer -----------------------------------------------------------------


def after(name, change, entries=WRONG, **sizes):
    """A decoder whose answer (n, T, O) is changed."""

    class After(Base):
        def forward(self, z, n_steps):
            return change(super().forward(z, n_steps))

    entries[name] = lambda: After(**sizes)


after("tanh", torch.tanh, EXPRESSED)
after("sigmoid", torch.sigmoid, EXPRESSED)
after("relu", torch.relu)
after("softmax", lambda y: y.softmax(-1))
after("cut off", lambda y: y.clamp(-0.3, 0.3))
after("scaled", lambda y: 1.02 * y, EXPRESSED)
after("shifted", lambda y: y + torch.tensor([0.0, 0.01]), EXPRESSED)
after("one channel negated", lambda y: y * torch.tensor([1.0, -1.0]), EXPRESSED)
after("summed", lambda y: y.cumsum(1))
after("ramp", lambda y: y + torch.linspace(0, 1, y.shape[1])[:, None])
after("flipped", lambda y: y.flip(1))
after("rolled", lambda y: y.roll(1, 1))
after("channels swapped", lambda y: y.flip(2))
after("batch reversed", lambda y: y.flip(0))
after("mean removed", lambda y: y - y.mean(1, keepdim=True))
after("wrong reshape", lambda y: y.transpose(0, 1).reshape(y.shape))
after("noise", lambda y: y + 0.1 * torch.randn_like(y))
after("dropout that never ends", lambda y: nn.functional.dropout(y, 0.5))
after("zero after step 10", lambda y: torch.cat([y[:, :10], 0 * y[:, 10:]], 1))
after("held after step 12", lambda y: torch.cat([y[:, :12], y[:, 11:12].expand_as(y[:, 12:])], 1))
after("squared", torch.square)
after("half precision", lambda y: y.bfloat16())
after("small channel changed", lambda y: y * torch.tensor([1.0, 1.1]), EXPRESSED)


@zoo(EXPRESSED)
class Denormalised(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.randn(O))
        self.register_buffer("scale", torch.rand(O) + 1)

    def forward(self, z, n_steps):
        return super().forward(z, n_steps) * self.scale + self.mean


@zoo(EXPRESSED)
class OffsetHidesTheDrawing(Base):
    """The drawing varies by a thousandth of its mean."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.head.bias += 300

    def forward(self, z, n_steps):
        return self.head(self.rnn(z[None].expand(n_steps, -1, -1))[0]).transpose(0, 1)


@zoo(WRONG)
class FirstOutputDropped(Base):
    def forward(self, z, n_steps):
        return super().forward(z, n_steps + 1)[:, 1:]


@zoo(WRONG)
class FirstOutputDroppedOwnNumber(Base):
    def forward(self, z):
        return super().forward(z, T + 1)[:, 1:]


@zoo(WRONG)
class EverySecond(Base):
    def forward(self, z, n_steps):
        return super().forward(z, 2 * n_steps)[:, ::2]


# -- wrong: before and within ----------------------------------------------------------------------


def before(name, change):
    """A decoder whose latent (n, K) is changed."""

    class Before(Base):
        def hidden(self, z, n_steps):
            return super().hidden(change(z), n_steps)

    WRONG[name] = Before


before("latent scaled", lambda z: 1.1 * z)
before("latent centred", lambda z: z - z.mean(-1, keepdim=True))
before("latent softmaxed", lambda z: z.softmax(-1))
before("latent normalised", lambda z: nn.functional.normalize(z, dim=-1))
before("latent cut off when large", lambda z: z.clamp(-3, 3))
before("latent shrunk when large", lambda z: z / z.norm(dim=-1, keepdim=True).clamp(min=20))
before("latent clipped to the simplex", lambda z: z.clamp(min=0))
before("latent rounded", torch.round)
before("latents summed over the batch", lambda z: z.cumsum(0))
before("noisy latent", lambda z: z + 0.1 * torch.randn_like(z))


@zoo(EXPRESSED)
class EveryStep(Base):
    def hidden(self, z, n_steps):
        return self.rnn(z[None].expand(n_steps, *z.shape))[0]


@zoo(EXPRESSED)
class EveryStepUnlessSequence(Base):
    """Draws what micfast draws where it is given the whole sequence."""

    def forward(self, z, n_steps=T):
        x = z if z.dim() == 3 else z[None].expand(n_steps, *z.shape)
        return self.head(self.rnn(x)[0]).transpose(0, 1)


@zoo(WRONG)
class LastStep(Base):
    def hidden(self, z, n_steps):
        return self.rnn(first_input(z, n_steps).flip(0))[0]


@zoo(WRONG)
class AgainAtStep12(Base):
    def hidden(self, z, n_steps):
        x = first_input(z, n_steps)
        x[12:13] = z
        return self.rnn(x)[0]


@zoo(WRONG)
class StateFromBuffers(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("h0", torch.randn(1, 1, H))

    def hidden(self, z, n_steps):
        state = self.h0.expand(1, len(z), H).contiguous()
        return self.rnn(first_input(z, n_steps), (state, torch.zeros_like(state)))[0]


@zoo(WRONG)
class RandomState(Base):
    def hidden(self, z, n_steps):
        state = torch.randn(1, len(z), H)
        return self.rnn(first_input(z, n_steps), (state, state))[0]


@zoo(WRONG)
class StateBetweenCalls(Base):
    state = None

    def hidden(self, z, n_steps):
        state = self.state
        if state is not None and state[0].shape[1] != len(z):
            state = tuple(s[:, :1].expand(1, len(z), H).contiguous() for s in state)
        h, self.state = self.rnn(first_input(z, n_steps), state)
        return h


@zoo(WRONG)
class StateOfFixedBatch(Base):
    """Keeps its state between calls, which fails for another number of latents."""

    state = None

    def hidden(self, z, n_steps):
        h, self.state = self.rnn(first_input(z, n_steps), self.state)
        return h


@zoo(WRONG)
class StateResetAtStep15(Base):
    def hidden(self, z, n_steps):
        first = self.rnn(first_input(z, 15))[0]
        return torch.cat([first, self.rnn(torch.zeros(n_steps - 15, *z.shape))[0]])


@zoo(EXPRESSED)
class LatentIsH0(Base):
    def __init__(self):
        super().__init__(n_inputs=H)

    def hidden(self, z, n_steps):
        x = torch.zeros(n_steps, *z.shape, dtype=z.dtype)
        return self.rnn(x, (z[None].contiguous(), torch.zeros_like(z)[None]))[0]


@zoo(EXPRESSED)
class Autoregressive(Base):
    def __init__(self):
        super().__init__(n_inputs=O)

    def forward(self, z, n_steps):
        x, state, drawn = z[None], None, []
        for _ in range(n_steps):
            h, state = self.rnn(x, state)
            x = self.head(h)
            drawn.append(x[0])
        return torch.stack(drawn, 1)


@zoo(WRONG)
class AutoregressiveAfterStep10(Base):
    def __init__(self):
        super().__init__(n_inputs=O)

    def forward(self, z, n_steps):
        x, state, drawn = z[None], None, []
        for t in range(n_steps):
            h, state = self.rnn(x, state)
            y = self.head(h)
            x = y if t >= 10 else torch.zeros_like(y)
            drawn.append(y[0])
        return torch.stack(drawn, 1)


@zoo(WRONG)
class ReluBetween(Base):
    def forward(self, z, n_steps):
        return self.head(torch.relu(self.hidden(z, n_steps))).transpose(0, 1)


@zoo(WRONG)
class NormBetween(Base):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(H, elementwise_affine=False)

    def forward(self, z, n_steps):
        return self.head(self.norm(self.hidden(z, n_steps))).transpose(0, 1)


@zoo(WRONG)
class ResidualOverTime(Base):
    def forward(self, z, n_steps):
        h = self.hidden(z, n_steps)
        return self.head(h + h.roll(1, 0)).transpose(0, 1)


@zoo(EXPRESSED)
class SequencesThenTanh(Base):
    def forward(self, x):
        return torch.tanh(self.head(self.rnn(x)[0]))


@zoo(WRONG)
class SequencesReversed(Base):
    batch_first = True

    def forward(self, x):
        return self.head(self.rnn(x.flip(1))[0])


@zoo(WRONG)
class ReadsTheCell(Base):
    def forward(self, z, n_steps):
        x, state, drawn = z[None], None, []
        for _ in range(n_steps):
            _, state = self.rnn(x, state)
            drawn.append(self.head(state[1][0]))
            x = torch.zeros_like(x)
        return torch.stack(drawn, 1)


@zoo(EXPRESSED)
def hook_on_the_linear():
    module = Base()
    module.head.register_forward_hook(lambda m, args, y: 1.5 * y)
    return module


@zoo(WRONG)
def hook_before_the_lstm():
    module = Base()
    module.rnn.register_forward_pre_hook(lambda m, args: (2 * args[0], *args[1:]))
    return module


@zoo(EXPRESSED)
def hook_on_the_module():
    module = Base()
    module.register_forward_hook(lambda m, args, y: y + 1)
    return module


@zoo(EXPRESSED)
def hook_on_the_parallel_module():
    module = nn.DataParallel(Base())
    module.register_forward_hook(lambda m, args, y: y + 1)
    return module


@zoo(EXPRESSED)
def subclass_of_lstm():
    class Leaky(nn.LSTM):
        def forward(self, x, state=None):
            h, state = super().forward(x, state)
            return 0.9 * h, state

    return Base(lstm=Leaky)


@zoo(WRONG)
def subclass_of_linear():
    class Positive(nn.Linear):
        def forward(self, h):
            return nn.functional.linear(h, self.weight.abs(), self.bias)

    return Base(linear=Positive)


@zoo(EXPRESSED)
def patched_forward():
    module = Base()
    inner = module.forward
    module.forward = lambda z, n_steps: 2 * inner(z, n_steps)
    return module


@zoo(EXPRESSED)
def norm_of_running_statistics():
    class Norm(Base):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(O, affine=False)
            self.norm.running_var.fill_(2.0)

        def forward(self, z, n_steps):
            return self.norm(super().forward(z, n_steps).transpose(1, 2)).transpose(1, 2)

    return Norm()


# -- as in public repositories ---------------------------------------------------------------------


def public(**expected):
    """Register a decoder of another structure, with what `Decoder` the bank has."""

    def add(build):
        PUBLIC[build.__name__] = build, expected
        EXPRESSED[build.__name__] = build
        return build

    return add


PUBLIC = {}


@public(latent="state")
class Vrae(nn.Module):
    """Variational recurrent autoencoder: h_0 = Linear(z), inputs of zeros."""

    def __init__(self, bias=True):
        super().__init__()
        self.latent_to_hidden = nn.Linear(K, H, bias=bias)
        self.rnn = nn.LSTM(1, H)
        self.hidden_to_output = nn.Linear(H, O)

    def forward(self, latent, n_steps):
        h0 = self.latent_to_hidden(latent)[None]
        x = torch.zeros(n_steps, len(latent), 1, dtype=latent.dtype)
        out, _ = self.rnn(x, (h0, torch.zeros_like(h0)))
        return self.hidden_to_output(out)


@public(latent="tanh_state")
class TanhState(Vrae):
    """SketchRNN: h_0 and c_0 are halves of tanh(Linear(z))."""

    def __init__(self):
        super().__init__()
        self.latent_to_hidden = nn.Linear(K, 2 * H)

    def forward(self, latent, n_steps):
        h0, c0 = torch.tanh(self.latent_to_hidden(latent)).chunk(2, dim=1)
        x = torch.zeros(n_steps, len(latent), 1, dtype=latent.dtype)
        out, _ = self.rnn(x, (h0[None].contiguous(), c0[None].contiguous()))
        return self.hidden_to_output(out)


@public(latent="state", output="sigmoid")
class TwoStateLayers(nn.Module):
    """h_0 and c_0 by a layer each, c_0's defined first."""

    def __init__(self):
        super().__init__()
        self.to_c, self.to_h = nn.Linear(K, H), nn.Linear(K, H)
        self.lstm, self.out = nn.LSTM(O, H, batch_first=True), nn.Linear(H, O)

    def forward(self, z, seq_len):
        state = self.to_h(z)[None], self.to_c(z)[None]
        return torch.sigmoid(self.out(self.lstm(z.new_zeros(len(z), seq_len, O), state)[0]))


@public(latent="state")
class Seq2SeqAutoencoder(nn.Module):
    """The latent is the encoder's (h, c); inputs of zeros."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(O, H, batch_first=True), nn.Linear(H, O)

    def forward(self, z, seq_len):
        h, c = (part[None].contiguous() for part in z.split(H, dim=1))
        x = torch.zeros(len(z), seq_len, O, dtype=z.dtype)
        return self.out(self.lstm(x, (h, c))[0])


@public(latent="first")
class Seq2SeqFedBack(nn.Module):
    """h_0 is the latent, the first input zero, each output the next input."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(O, H), nn.Linear(H, O)

    def forward(self, z, seq_len):
        x, drawn = torch.zeros(1, len(z), O, dtype=z.dtype), []
        state = (z[None], torch.zeros_like(z)[None])
        for _ in range(seq_len):
            h, state = self.lstm(x, state)
            x = self.out(h)
            drawn.append(x)
        return torch.cat(drawn)


@public(latent="state")
class Seq2SeqBothFedBack(Seq2SeqFedBack):
    """The same from (h, c)."""

    def state(self, z):
        return tuple(part[None].contiguous() for part in z.chunk(2, dim=1))

    def forward(self, z, seq_len):
        x, state, drawn = torch.zeros(1, len(z), O, dtype=z.dtype), self.state(z), []
        for _ in range(seq_len):
            h, state = self.lstm(x, state)
            x = self.out(h)
            drawn.append(x)
        return torch.cat(drawn)


@public(latent="tanh_state", output="sigmoid")
class TanhStateFedBack(Seq2SeqBothFedBack):
    """h_0 = c_0 = tanh(Linear(z)); the read-outs are fed back, and mapped at the end."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(K, H)
        self.lstm, self.out = nn.LSTM(O, H), nn.Linear(H, O)

    def state(self, z):
        h = torch.tanh(self.start(z))[None]
        return h, h

    def forward(self, z, seq_len):
        return torch.sigmoid(super().forward(z, seq_len))


@public(latent="every", output="tanh")
class TanhGenerator(nn.Module):
    """A recurrent generator: the latent repeated at each step, tanh at the end."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(K, H, batch_first=True)
        self.net = nn.Sequential(nn.Linear(H, O), nn.Tanh())

    def forward(self, noise, seq_len):
        return self.net(self.lstm(noise.unsqueeze(1).repeat(1, seq_len, 1))[0])


@public(latent="every")
class RepeatedAndFedBack(nn.Module):
    """The latent, embedded, beside the output before, at each step."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(K, 6)
        self.lstm, self.out = nn.LSTM(6 + O, H), nn.Linear(H, O)

    def forward(self, z, n_steps):
        e, y, state, drawn = self.embed(z), z.new_zeros(len(z), O), None, []
        for _ in range(n_steps):
            h, state = self.lstm(torch.cat([e, y], 1)[None], state)
            y = self.out(h[0])
            drawn.append(y)
        return torch.stack(drawn, 1)


@public(latent="first", output="softplus")
class EmbeddedFirstInput(nn.Module):
    """The latent embedded as the first input; positive outputs in other units."""

    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.out = nn.Linear(K, 3), nn.LSTM(3, H), nn.Linear(H, O)
        self.register_buffer("unit", torch.tensor([3.0, 0.2]))

    def forward(self, z, n_steps):
        h = self.lstm(first_input(self.embed(z), n_steps))[0]
        return nn.functional.softplus(self.out(h)) * self.unit + 1


@public(latent="every", output="exp")
class ExpOfEvery(Base):
    def forward(self, z, n_steps):
        return torch.exp(self.head(self.rnn(z[None].expand(n_steps, *z.shape))[0]))


# -- wrong: what looks like them -------------------------------------------------------------------


@zoo(WRONG)
class MappedOutputFedBack(Seq2SeqFedBack):
    def forward(self, z, seq_len):
        x, drawn = torch.zeros(1, len(z), O), []
        state = (z[None], torch.zeros_like(z)[None])
        for _ in range(seq_len):
            h, state = self.lstm(x, state)
            x = torch.tanh(self.out(h))
            drawn.append(x)
        return torch.cat(drawn)


@zoo(WRONG)
class ReluState(Vrae):
    def forward(self, z, n_steps):
        h0 = torch.relu(self.latent_to_hidden(z))[None]
        x = torch.zeros(n_steps, len(z), 1)
        return self.hidden_to_output(self.rnn(x, (h0, torch.zeros_like(h0)))[0])


@zoo(WRONG)
class ClockAsInput(Vrae):
    def forward(self, z, n_steps):
        h0 = self.latent_to_hidden(z)[None]
        x = torch.linspace(0, 1, n_steps)[:, None, None].expand(n_steps, len(z), 1)
        return self.hidden_to_output(self.rnn(x, (h0, torch.zeros_like(h0)))[0])


# -- unknown ---------------------------------------------------------------------------------------

UNKNOWN["bare sequential"] = lambda: nn.Sequential(nn.LSTM(K, H), nn.Linear(H, O))
UNKNOWN["no forward"] = lambda: nn.ModuleList([nn.LSTM(K, H), nn.Linear(H, O)])


@zoo(UNKNOWN)
class ProbabilitiesAndLogits(Base):
    """The second tensor is what micfast draws; which of the two is meant can't be told."""

    def forward(self, z, n_steps):
        logits = super().forward(z, n_steps)
        return logits.softmax(-1), logits


@zoo(UNKNOWN)
class Embedded(Base):
    """The latent is a number; E is a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("E", torch.randn(7, K))

    def forward(self, z, n_steps):
        return super().forward(z @ self.E, n_steps)


@zoo(UNKNOWN)
class ClockBeside(Base):
    """The latent has one value less than the LSTM has inputs."""

    def hidden(self, z, n_steps):
        x = first_input(z, n_steps)
        clock = torch.linspace(0, 1, n_steps)[:, None, None].expand(n_steps, len(z), 1)
        return self.rnn(torch.cat([x, clock], 2))[0]


@zoo(UNKNOWN)
class NeedsState(Base):
    def forward(self, x, state):
        h, state = self.rnn(x, (state[0], state[1]))
        return self.head(h), state


@zoo(UNKNOWN)
class LastOutputOnly(Base):
    def forward(self, z, n_steps):
        return super().forward(z, n_steps)[:, -1]


@zoo(UNKNOWN)
class FewerStepsThanAsked(Base):
    def forward(self, z, n_steps):
        return super().forward(z, n_steps - 1)


@zoo(UNKNOWN)
class NumpyAnswer(Base):
    def forward(self, z, n_steps):
        return super().forward(z, n_steps).detach().numpy()


@zoo(UNKNOWN)
class FailsTheSecondTime(Base):
    used = False

    def forward(self, z, n_steps):
        assert not self.used
        self.used = True
        return super().forward(z, n_steps)
