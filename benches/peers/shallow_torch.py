"""PyTorch beside `peftml`: one LoRA-ML retraining epoch and one fine-tuning step of the shallow study.

The same algorithm in the library that most people would use, written for its speed: one thread, f32
(PyTorch's default; `--dtype f64` for ours), all tensors made outside the timer, best of many repeats,
each too short for other processes to lengthen them all.

  python benches/peers/shallow_torch.py [--dimension 10] [--tasks 3] [--samples 1000] [--fresh 100]

prints one JSON object: microseconds an epoch and a step, for the fused optimiser and the plain one.
"""

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch  # noqa: E402


def best(step, inner, repeats):
    """Smallest mean time of `inner` calls, in microseconds."""
    for _ in range(max(inner, 20)):
        step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(inner):
            step()
        times.append((time.perf_counter() - start) / inner)
    return 1e6 * min(times)


def retraining_epoch(d, tasks, samples, rank, optimiser_options):
    """Gradient summed over tasks, then one AdamW step on base, head and adapters."""
    base = torch.nn.Linear(d, d, bias=False)
    head = torch.nn.Linear(d, 1, bias=False)
    down = [torch.nn.Linear(d, rank, bias=False) for _ in range(tasks)]
    up = [torch.nn.Linear(rank, d, bias=False) for _ in range(tasks)]
    for layer in up:
        torch.nn.init.zeros_(layer.weight)
    x = [torch.randn(samples, d) for _ in range(tasks)]
    y = [torch.randn(samples, 1) for _ in range(tasks)]
    layers = [base, head, *down, *up]
    optimiser = torch.optim.AdamW([layer.weight for layer in layers], lr=1e-3, **optimiser_options)
    loss_function = torch.nn.MSELoss()

    def step():
        optimiser.zero_grad()
        loss = 0.0
        for t in range(tasks):
            hidden = torch.sigmoid(base(x[t]) + up[t](down[t](x[t])))
            loss = loss + loss_function(head(hidden), y[t])
        loss.backward()
        optimiser.step()

    return step


def fine_tuning_step(d, fresh, rank, optimiser_options):
    """One AdamW step on a fresh adapter, base and head frozen, the base's product made once."""
    base = torch.randn(d, d)
    head = torch.randn(d, 1)
    down = torch.nn.Linear(d, rank, bias=False)
    up = torch.nn.Linear(rank, d, bias=False)
    torch.nn.init.zeros_(up.weight)
    x = torch.randn(fresh, d)
    y = torch.randn(fresh, 1)
    fixed = x @ base.T
    optimiser = torch.optim.AdamW([down.weight, up.weight], lr=1e-3, **optimiser_options)
    loss_function = torch.nn.MSELoss()

    def step():
        optimiser.zero_grad()
        loss = loss_function(torch.sigmoid(fixed + up(down(x))) @ head, y)
        loss.backward()
        optimiser.step()

    return step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dimension", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--fresh", type=int, default=100)
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--dtype", choices=["f32", "f64"], default="f32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32 if options.dtype == "f32" else torch.float64)
    torch.manual_seed(0)
    out = {"torch": torch.__version__, "dtype": options.dtype, "threads": torch.get_num_threads()}
    for name, choice in (("plain", {}), ("fused", {"fused": True})):
        epoch = retraining_epoch(
            options.dimension, options.tasks, options.samples, options.rank, choice
        )
        step = fine_tuning_step(options.dimension, options.fresh, options.rank, choice)
        out[f"retraining_epoch_us_{name}"] = round(best(epoch, 1, options.repeats), 1)
        out[f"fine_tuning_step_us_{name}"] = round(best(step, 4, options.repeats), 1)
    for key in ("retraining_epoch_us", "fine_tuning_step_us"):
        out[key] = min(out[f"{key}_plain"], out[f"{key}_fused"])
    print(json.dumps(out))


if __name__ == "__main__":
    main()
