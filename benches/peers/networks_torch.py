"""PyTorch beside `peftml-bench-networks`: training steps of the mixer and of an encoder.

The same networks in the library that most people would use, written for its speed: float32, two threads,
fused layer norm, GELU and scaled-dot-product attention, one fused-kernel Adam, gradients set to none; the
caller sets an allocator that keeps its memory. Inputs are made outside the timer.

  python benches/peers/networks_torch.py CASE STEPS

CASE: mixer, lora-ml, lora, encoder, encoder-lora, encoder-evaluation. Prints one JSON object: least seconds
of a step, processor seconds a step, peak bytes.
"""

import json
import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class Lora(nn.Module):
    """A frozen or trained linear map with one low-rank addition a task."""

    def __init__(self, inputs, outputs, rank, tasks):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.task = 0
        a = [nn.Parameter(torch.empty(rank, inputs).uniform_(-1, 1) / inputs**0.5) for _ in range(tasks)]
        self.a = nn.ParameterList(a)
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(outputs, rank)) for _ in range(tasks))

    def forward(self, x):
        through = functional.linear(functional.linear(x, self.a[self.task]), self.b[self.task])
        return self.linear(x) + through


def linear(inputs, outputs, rank, tasks):
    return Lora(inputs, outputs, rank, tasks) if rank else nn.Linear(inputs, outputs)


class Half(nn.Module):
    def __init__(self, width, hidden, rank, tasks):
        super().__init__()
        self.up = linear(width, hidden, rank, tasks)
        self.down = linear(hidden, width, rank, tasks)

    def forward(self, x):
        hidden = functional.dropout(functional.gelu(self.up(x)), 0.1, self.training)
        return functional.dropout(self.down(hidden), 0.1, self.training)


class Mixer(nn.Module):
    def __init__(self, rank, tasks):
        super().__init__()
        self.embed = linear(48, 512, rank, tasks)
        self.token_norm, self.channel_norm, self.norm = (nn.LayerNorm(512) for _ in range(3))
        self.token = Half(64, 256, rank, tasks)
        self.channel = Half(512, 256, rank, tasks)
        self.head = linear(512, 2, rank, tasks)

    def forward(self, images):
        n = images.shape[0]
        x = images.reshape(n, 3, 8, 4, 8, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, 64, 48)
        x = self.embed(x)
        x = x + self.token(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channel(self.channel_norm(x))
        return self.head(self.norm(x).mean(1))


class Layer(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.q, self.k, self.v, self.out = (linear(384, 384, rank, 1) for _ in range(4))
        self.up, self.down = linear(384, 1536, rank, 1), linear(1536, 384, rank, 1)
        self.norm1, self.norm2 = nn.LayerNorm(384, eps=1e-12), nn.LayerNorm(384, eps=1e-12)

    def forward(self, x, mask):
        n, length, width = x.shape
        cut = lambda t: t.reshape(n, length, 12, width // 12).transpose(1, 2)
        drop = 0.1 if self.training else 0.0
        q, k, v = cut(self.q(x)), cut(self.k(x)), cut(self.v(x))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        y = self.out(y.transpose(1, 2).reshape(n, length, width))
        x = self.norm1(x + functional.dropout(y, 0.1, self.training))
        y = self.down(functional.gelu(self.up(x)))
        return self.norm2(x + functional.dropout(y, 0.1, self.training))


class Encoder(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.words, self.positions = nn.Embedding(30522, 384), nn.Embedding(512, 384)
        self.segments = nn.Embedding(2, 384)
        self.norm = nn.LayerNorm(384, eps=1e-12)
        self.layers = nn.ModuleList(Layer(rank) for _ in range(6))
        self.pooler, self.head = linear(384, 384, rank, 1), linear(384, 2, rank, 1)

    def forward(self, ids):
        n, length = ids.shape
        mask = torch.zeros(n, 1, 1, length)
        x = self.words(ids) + self.positions(torch.arange(length)) + self.segments(torch.zeros_like(ids))
        x = functional.dropout(self.norm(x), 0.1, self.training)
        for layer in self.layers:
            x = layer(x, mask)
        pooled = torch.tanh(self.pooler(x[:, 0]))
        return self.head(functional.dropout(pooled, 0.1, self.training))


def main():
    case, steps = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(2)
    torch.manual_seed(0)
    encoder = case.startswith("encoder")
    rank = 0 if case in ("mixer", "encoder", "encoder-evaluation") else 8 if encoder else 1
    tasks = 4 if case == "lora-ml" else 1
    network = Encoder(rank) if encoder else Mixer(rank, tasks)
    if case in ("lora", "encoder-lora"):
        for name, parameter in network.named_parameters():
            parameter.requires_grad = ".a." in name or ".b." in name
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-4, weight_decay=1e-5, fused=True)
    count = 32 if encoder else 256
    inputs = torch.randint(0, 30522, (32, 64)) if encoder else torch.randn(256, 3, 32, 32)
    classes = torch.randint(0, 2, (count,))
    adapters = [m for m in network.modules() if isinstance(m, Lora)]

    def step():
        optimiser.zero_grad(set_to_none=True)
        share = count // tasks
        for task in range(tasks):
            for adapter in adapters:
                adapter.task = task
            own = slice(task * share, (task + 1) * share)
            loss = functional.cross_entropy(network(inputs[own]), classes[own])
            (loss / tasks).backward()
        optimiser.step()

    def evaluation():
        with torch.inference_mode():
            network(inputs)

    work = step
    if case == "encoder-evaluation":
        network.eval()
        work = evaluation
    work()
    best, cpu = float("inf"), time.process_time()
    for _ in range(steps):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    cpu = (time.process_time() - cpu) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": best, "processor_seconds": cpu, "peak_bytes": peak, "version": torch.__version__}))


if __name__ == "__main__":
    main()
