"""Further decoders in the idioms of public code, and others beside them that have to be refused.

As in ``dropin_zoo.py``; PUBLIC says which ``Decoder`` each one is found to be, REFUSED why it
cannot be inverted.
"""

from __future__ import annotations

import torch
from dropin_zoo import H, K, O, T, public
from torch import nn
from torch.nn import functional

REFUSED = {}


def refused(message):
    """Register a decoder that is refused, with what the error says."""

    def add(build):
        REFUSED[build.__name__] = build, message
        return build

    return add


@public(latent="first")
class CellLoop(nn.Module):
    """A loop over nn.LSTMCell, the latent its first input; a length of its own by default."""

    def __init__(self):
        super().__init__()
        self.cell, self.readout, self.seq_len = nn.LSTMCell(K, H), nn.Linear(H, O), T

    def forward(self, z, seq_len=None):
        hx = cx = z.new_zeros(len(z), H)
        x, outputs = z, []
        for _ in range(seq_len or self.seq_len):
            hx, cx = self.cell(x, (hx, cx))
            outputs.append(self.readout(hx))
            x = torch.zeros_like(z)
        return torch.stack(outputs, dim=1)


@public(latent="tanh_state", output="tanh")
class CellFedBack(nn.Module):
    """h_0 and c_0 through Linear and tanh each, the read-outs fed back, tanh over the result."""

    def __init__(self):
        super().__init__()
        self.fc_h, self.fc_c = nn.Linear(K, H), nn.Linear(K, H)
        self.cell, self.fc_out = nn.LSTMCell(O, H), nn.Linear(H, O)

    def forward(self, latent, target_len, temperature: float = 1.0):
        h, c = torch.tanh(self.fc_h(latent)), torch.tanh(self.fc_c(latent))
        y, steps = latent.new_zeros(latent.size(0), O), []
        for _ in range(target_len):
            h, c = self.cell(y, (h, c))
            y = self.fc_out(h) / temperature
            steps.append(y)
        return torch.stack(steps).tanh()


@public(latent="every", output="softplus")
class CellOfEveryStep(nn.Module):
    """Positive rates; an nn.LSTMCell without biases reads the latent at every step."""

    def __init__(self):
        super().__init__()
        self.rnn, self.rate = nn.LSTMCell(K, H, bias=False), nn.Linear(H, O, bias=False)

    def forward(self, z, num_steps):
        state, rates = None, []
        for _ in range(num_steps):
            state = self.rnn(z, state)
            rates.append(functional.softplus(self.rate(state[0])))
        return torch.stack(rates, 1)


@public(latent="every", output="sigmoid")
class RepeatVector(nn.Module):
    """As in Keras: RepeatVector, LSTM, TimeDistributed; dropout before the one nn.Linear."""

    def __init__(self, seq_len=T):
        super().__init__()
        self.seq_len = seq_len
        self.lstm = nn.LSTM(input_size=K, hidden_size=H, num_layers=1, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(H, O), nn.Sigmoid())

    def forward(self, z, n_steps=T):
        x = z.unsqueeze(1).repeat(1, n_steps, 1)
        out, (h_n, c_n) = self.lstm(x)
        flat = self.head(out.contiguous().view(-1, H))
        return flat.view(z.size(0), n_steps, O), (h_n, c_n)


@public(latent="state")
class FunctionalSteps(nn.Module):
    """The gates by hand from the parameters of an nn.LSTM, which is never called."""

    def __init__(self):
        super().__init__()
        self.init_hidden = nn.Linear(K, H)
        self.lstm, self.proj = nn.LSTM(1, H), nn.Linear(H, O)

    def step(self, h, c):
        p = self.lstm
        gates = functional.linear(h, p.weight_hh_l0, p.bias_hh_l0) + p.bias_ih_l0
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def forward(self, z, horizon):
        h, c, ys = self.init_hidden(z), z.new_zeros(len(z), H), []
        for _ in range(horizon):
            h, c = self.step(h, c)
            ys.append(self.proj(h))
        return torch.stack(ys, -2)


@public(latent="first")
def double_precision_in_the_data_s_units():
    """float64, with mean and deviation of the data as buffers."""

    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.LSTM(K, H, batch_first=True), nn.Linear(H, O)
            self.register_buffer("mean", torch.tensor([0.5, -0.1]))
            self.register_buffer("std", torch.tensor([0.2, 1.7]))

        def forward(self, z, n_steps):
            x = functional.pad(z[:, None], (0, 0, 0, n_steps - 1))
            return self.fc(self.rnn(x)[0]) * self.std + self.mean

    return Normalised().double()


@public(latent="state", output="exp")
class EncodersHiddenState(nn.Module):
    """The latent is the encoder's last hidden state, shaped by ``view``; inputs of zeros."""

    def __init__(self):
        super().__init__()
        self.rnn, self.log_scale = nn.LSTM(O, H), nn.Linear(H, O)

    def forward(self, hidden, max_len):
        h0 = hidden.view(1, -1, H)
        x = hidden.new_zeros(max_len, h0.size(1), O)
        return self.log_scale(self.rnn(x, (h0, torch.zeros_like(h0)))[0]).exp().permute(1, 0, 2)


@public(latent="every")
class WrappedDecoder(nn.Module):
    """Around the decoder proper, which puts time first."""

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.rnn, self.out = nn.Linear(K, 5), nn.LSTM(5, H), nn.Linear(H, O)

        def forward(self, code, n_steps):
            return self.out(self.rnn(self.project(code).expand(n_steps, -1, -1))[0])

    def __init__(self):
        super().__init__()
        self.decoder = self.Decoder()

    def forward(self, code, timesteps):
        return self.decoder(code[None], timesteps).transpose(0, 1)


# -- refused ---------------------------------------------------------------------------------------


@refused(r"must have no parameters except those .* got \['start'\]")
class LearnedStart(nn.Module):
    """The first input is a parameter."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, O))
        self.cell, self.out = nn.LSTMCell(O, H), nn.Linear(H, O)

    def forward(self, z, n_steps):
        h, c, y, ys = z, torch.zeros_like(z), self.start.expand(len(z), O), []
        for _ in range(n_steps):
            h, c = self.cell(y, (h, c))
            y = self.out(h)
            ys.append(y)
        return torch.stack(ys, 1)


@refused(r"one nn.Linear that reads its hidden state.* 2 x nn.Linear \('head.0', 'head.2'\)")
class MlpHead(nn.Module):
    """A hidden layer in the read-out."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(K, H)
        self.head = nn.Sequential(nn.Linear(H, 7), nn.ReLU(), nn.Linear(7, O))

    def forward(self, z, n_steps):
        return self.head(self.rnn(z.expand(n_steps, *z.shape))[0])


@refused("draws something else than")
class TanhOfTheEmbedding(nn.Module):
    """tanh between latent and first input: no weights of micfast's model say that."""

    def __init__(self):
        super().__init__()
        self.embed, self.cell, self.out = nn.Linear(K, 3), nn.LSTMCell(3, H), nn.Linear(H, O)

    def forward(self, z, n_steps):
        x, state, ys = torch.tanh(self.embed(z)), None, []
        for _ in range(n_steps):
            state = self.cell(x, state)
            ys.append(self.out(state[0]))
            x = torch.zeros_like(x)
        return torch.stack(ys, 1)


@refused(r"got 2 and 1: 2 x nn.LSTMCell \('first', 'second'\)")
class TwoCells(nn.Module):
    """Two layers, as cells."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.LSTMCell(K, H), nn.LSTMCell(H, H), nn.Linear(H, O)

    def forward(self, z, n_steps):
        a, b, ys = None, None, []
        for _ in range(n_steps):
            a = self.first(z, a)
            b = self.second(a[0], b)
            ys.append(self.out(b[0]))
        return torch.stack(ys, 1)


@refused("draws something else than")
class MappedCellFedBack(CellFedBack):
    """What is fed back has gone through tanh."""

    def forward(self, latent, target_len):
        h, c = torch.tanh(self.fc_h(latent)), torch.tanh(self.fc_c(latent))
        y, steps = latent.new_zeros(latent.size(0), O), []
        for _ in range(target_len):
            h, c = self.cell(y, (h, c))
            y = torch.tanh(self.fc_out(h))
            steps.append(y)
        return torch.stack(steps)
