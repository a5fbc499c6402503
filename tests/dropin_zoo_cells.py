"""More of the zoo: GRUs, loops over cells, and two layers, as people write them."""

from __future__ import annotations

import torch
from dropin_zoo import RIGHT, WRONG, Base, H, K, O, first_input, public, zoo
from torch import nn


@public(cell="gru")
class Gru(Base):
    def __init__(self, **sizes):
        super().__init__(lstm=nn.GRU, **sizes)


@public(cell="gru", latent="every", output="tanh")
class GruGenerator(nn.Module):
    """The latent repeated at each step, tanh at the end; no biases."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(K, H, batch_first=True, bias=False)
        self.net = nn.Sequential(nn.Linear(H, O), nn.Tanh())

    def forward(self, noise, seq_len):
        return self.net(self.gru(noise.unsqueeze(1).repeat(1, seq_len, 1))[0])


@public(cell="gru", latent="state")
class GruVae(nn.Module):
    """h_0 = Linear(z), inputs of zeros; outputs in other units."""

    def __init__(self):
        super().__init__()
        self.to_hidden, self.gru, self.out = nn.Linear(K, H), nn.GRU(1, H), nn.Linear(H, O)
        self.register_buffer("unit", torch.tensor([3.0, 0.2]))

    def forward(self, z, n_steps):
        x = torch.zeros(n_steps, len(z), 1, dtype=z.dtype)
        return self.out(self.gru(x, self.to_hidden(z)[None])[0]) * self.unit + 1


@public(cell="gru", latent="tanh_state", output="sigmoid")
class GruTanhState(GruVae):
    def forward(self, z, n_steps):
        x = torch.zeros(n_steps, len(z), 1, dtype=z.dtype)
        return torch.sigmoid(self.out(self.gru(x, torch.tanh(self.to_hidden(z))[None])[0]))


@public(cell="gru", latent="state")
class GruFedBack(nn.Module):
    """h_0 is the latent, the first input zero, each output the next input."""

    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(O, H), nn.Linear(H, O)

    def forward(self, z, seq_len):
        x, h, drawn = torch.zeros(1, len(z), O, dtype=z.dtype), z[None], []
        for _ in range(seq_len):
            y, h = self.gru(x, h)
            x = self.out(y)
            drawn.append(x)
        return torch.cat(drawn)


@public(cell="gru", latent="tanh_state")
class GruCellFedBack(nn.Module):
    """A loop over nn.GRUCell from tanh(Linear(z)); the first input is zero."""

    def __init__(self):
        super().__init__()
        self.start, self.cell, self.out = nn.Linear(K, H), nn.GRUCell(O, H), nn.Linear(H, O)

    def first(self, h):
        return h.new_zeros(len(h), O)

    def forward(self, z, n_steps):
        h, drawn = torch.tanh(self.start(z)), []
        y = self.first(h)
        for _ in range(n_steps):
            h = self.cell(y, h)
            y = self.out(h)
            drawn.append(y)
        return torch.stack(drawn, 1)


@public(cell="gru", latent="tanh_state")
class GruCellFromItsOutput(GruCellFedBack):
    """The same, where the first input is the read-out of h_0."""

    def first(self, h):
        return self.out(h)


@public(cell="gru", latent="every")
class GruRepeatedAndFedBack(nn.Module):
    """The output before, beside the embedded latent, at each step."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(K, 6)
        self.gru, self.out = nn.GRU(6 + O, H), nn.Linear(H, O)

    def forward(self, z, n_steps):
        e, y, h, drawn = self.embed(z), z.new_zeros(len(z), O), None, []
        for _ in range(n_steps):
            states, h = self.gru(torch.cat([y, e], 1)[None], h)
            y = self.out(states[0])
            drawn.append(y)
        return torch.stack(drawn, 1)


@zoo(RIGHT)
class LstmCell(nn.Module):
    """A loop over nn.LSTMCell: the paper's decoder."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(K, H), nn.Linear(H, O)

    def forward(self, z, n_steps):
        x, state, drawn = z, None, []
        for _ in range(n_steps):
            state = self.cell(x, state)
            x = torch.zeros_like(z)
            drawn.append(self.head(state[0]))
        return torch.stack(drawn, 1)


@public(latent="every")
class LstmCellOfEvery(LstmCell):
    def forward(self, z, n_steps):
        state, drawn = None, []
        for _ in range(n_steps):
            state = self.cell(z, state)
            drawn.append(self.head(state[0]))
        return torch.stack(drawn, 1)


# -- two layers ------------------------------------------------------------------------------------


@public(n_layers=2)
class TwoLayers(Base):
    def __init__(self):
        super().__init__(lstm=lambda *sizes, **more: nn.LSTM(*sizes, num_layers=2, **more))


@public(n_layers=2, latent="every", output="sigmoid")
class TwoLayerGenerator(nn.Module):
    """The latent embedded, and repeated at each step."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(K, 5)
        self.rnn = nn.LSTM(5, H, num_layers=2, batch_first=True)
        self.out = nn.Linear(H, O)

    def forward(self, z, seq_len):
        x = self.embed(z).unsqueeze(1).expand(-1, seq_len, -1)
        return torch.sigmoid(self.out(self.rnn(x)[0]))


@public(n_layers=2, cell="gru", latent="first")
class TwoGruLayers(nn.Module):
    """The latent embedded as the first input; outputs in other units, no biases."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(K, 3)
        self.gru = nn.GRU(3, H, num_layers=2, bias=False)
        self.out = nn.Linear(H, O)

    def forward(self, z, n_steps):
        return 3 * self.out(self.gru(first_input(self.embed(z), n_steps))[0]) + 1


@public(n_layers=2, cell="gru", latent="tanh_state")
class TwoGruStates(nn.Module):
    """Both initial states by a layer and tanh."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(K, 2 * H)
        self.gru, self.out = nn.GRU(1, H, num_layers=2), nn.Linear(H, O)

    def forward(self, z, n_steps):
        states = torch.tanh(self.start(z)).view(-1, 2, H).transpose(0, 1).contiguous()
        return self.out(self.gru(z.new_zeros(n_steps, len(z), 1), states)[0])


@public(n_layers=2, cell="gru", latent="state")
class OneStateForBothGrus(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(1, H, num_layers=2), nn.Linear(H, O)

    def forward(self, z, n_steps):
        return self.out(self.gru(z.new_zeros(n_steps, len(z), 1), z.repeat(2, 1, 1))[0])


# -- wrong -----------------------------------------------------------------------------------------


@zoo(WRONG)
class GruReluBetween(Gru):
    def forward(self, z, n_steps):
        return self.head(torch.relu(self.hidden(z, n_steps)))


@zoo(WRONG)
class TwoLayersFromAState(nn.Module):
    """An LSTM's second layer can't keep its h_0 for a step."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(K, K, num_layers=2), nn.Linear(K, O)

    def forward(self, z, n_steps):
        h = z.repeat(2, 1, 1)
        x = z.new_zeros(n_steps, len(z), K)
        return self.out(self.rnn(x, (h, torch.zeros_like(h)))[0])


class TwoLayersFromALinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(K, H)
        self.rnn, self.out = nn.LSTM(1, H, num_layers=2), nn.Linear(H, O)


@zoo(WRONG)
class GruMappedOutputFedBack(GruCellFedBack):
    def forward(self, z, n_steps):
        h, drawn = torch.tanh(self.start(z)), []
        y = self.first(h)
        for _ in range(n_steps):
            h = self.cell(y, h)
            y = torch.tanh(self.out(h))
            drawn.append(y)
        return torch.stack(drawn, 1)


@zoo(WRONG)
class GruStateMixed(Gru):
    """A cell of one's own: the gates of nn.GRU, but the state is what the update gate leaves."""

    def forward(self, z, n_steps):
        W_ih, W_hh, b_ih, b_hh = self.rnn._flat_weights
        h, drawn = z.new_zeros(len(z), H), []
        for x in first_input(z, n_steps):
            (r, u, n), (s, v, m) = (
                (p @ W.T + b).chunk(3, -1) for p, W, b in ((x, W_ih, b_ih), (h, W_hh, b_hh))
            )
            u = torch.sigmoid(u + v)
            h = u * torch.tanh(n + torch.sigmoid(r + s) * m) + (1 - u) * h
            drawn.append(self.head(h))
        return torch.stack(drawn)
