"""LoRA-ML by the authors' scheme on samples, in numpy: the peer of `first_order::authors`.

The algorithm of the reference code of arXiv:2410.22264, in our own words: every step passes over the
samples. Symmetric adapters, W_t = A + U_t U_t^T, residual Y'_t = W_t X_t - Y_t:

  inner step   U_t -= (s/N) (X_t Y'_t^T + Y'_t X_t^T) U_t      all tasks from the same A
  outer step   A   -= r/(N T) sum_t Y'_t X_t^T
  SR step      A   -= r/(N T) sum_t (A X_t - Y_t) X_t^T

Products are ordered so that each is cheap (X (Y'^T U), never (X Y'^T) U on d x N halves), residuals are
written in place, and the caller sets one thread and an allocator that keeps its memory, so that the
peer is at its best. Input: raw little-endian doubles, X_0, Y_0, X_1, .. (each d x N, row by row), then
the starts U_t (d x k, row by row). Output: one JSON object.
"""

import argparse
import json
import sys
import time

import numpy as np


def clock():
    """CPU seconds of this process: what other processes do to the machine does not count."""
    return time.process_time()


def residual(weights, x, y, out):
    np.matmul(weights, x, out=out)
    out -= y
    return out


def inner_step(a, us, xs, ys, step, out):
    for t, (x, y) in enumerate(zip(xs, ys)):
        u = us[t]
        r = residual(a + u @ u.T, x, y, out)
        us[t] = u - (step / x.shape[1]) * (x @ (r.T @ u) + r @ (x.T @ u))


def outer_step(a, us, xs, ys, step, out):
    gradient = np.zeros_like(a)
    for u, x, y in zip(us, xs, ys):
        gradient += residual(a + u @ u.T, x, y, out) @ x.T
    return a - (step / (xs[0].shape[1] * len(xs))) * gradient


def standard_step(a, xs, ys, step, out):
    gradient = np.zeros_like(a)
    for x, y in zip(xs, ys):
        gradient += residual(a, x, y, out) @ x.T
    return a - (step / (xs[0].shape[1] * len(xs))) * gradient


def best_seconds(work, calls, batches=60):
    """Least mean time of a call over batches: the time without disturbance."""
    best = float("inf")
    for _ in range(batches):
        begin = clock()
        for _ in range(calls):
            work()
        best = min(best, (clock() - begin) / calls)
    return best


def read(path, d, k, tasks, samples):
    raw = np.fromfile(path, dtype="<f8")
    block = d * samples
    expected = tasks * (2 * block + d * k)
    if raw.size != expected:
        sys.exit(f"{path}: {raw.size} numbers, expected {expected}")
    matrix = lambda begin, cols: raw[begin : begin + d * cols].reshape(d, cols).copy()
    xs = [matrix(2 * t * block, samples) for t in range(tasks)]
    ys = [matrix((2 * t + 1) * block, samples) for t in range(tasks)]
    us = [matrix(2 * tasks * block + t * d * k, k) for t in range(tasks)]
    return xs, ys, us


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    for name, default in [("--d", 10), ("--k", 1), ("--tasks", 3), ("--samples", 5000)]:
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--inner-steps", type=int, default=10)
    parser.add_argument("--inner-step-size", type=float, default=0.003)
    parser.add_argument("--outer-step-size", type=float, default=0.03)
    args = parser.parse_args()
    xs, ys, us = read(args.data, args.d, args.k, args.tasks, args.samples)
    out = np.empty((args.d, args.samples))
    a = np.zeros((args.d, args.d))

    trial = [u.copy() for u in us]
    steps = {
        "inner_step_seconds": best_seconds(
            lambda: inner_step(a, trial, xs, ys, args.inner_step_size, out), 20
        ),
        "outer_step_seconds": best_seconds(
            lambda: outer_step(a, us, xs, ys, args.outer_step_size, out), 20
        ),
        "standard_step_seconds": best_seconds(
            lambda: standard_step(a, xs, ys, args.outer_step_size, out), 20
        ),
    }

    wall, cpu = time.perf_counter(), clock()
    for _ in range(args.rounds):
        for _ in range(args.inner_steps):
            inner_step(a, us, xs, ys, args.inner_step_size, out)
        a = outer_step(a, us, xs, ys, args.outer_step_size, out)
    cpu, wall = clock() - cpu, time.perf_counter() - wall

    loss = 0.0
    for u, x, y in zip(us, xs, ys):
        loss += np.sum(residual(a + u @ u.T, x, y, out) ** 2) / (2 * args.samples * args.tasks)
    print(
        json.dumps(
            {
                "numpy": np.__version__,
                "python": sys.version.split()[0],
                **steps,
                "rounds": args.rounds,
                "retraining_cpu_seconds": cpu,
                "retraining_wall_seconds": wall,
                "loss_with_residual": loss,
                "base": a.ravel().tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
