"""The packages that people would otherwise use, on one problem of `peftml bench`.

Minimises the LoRA-ML objective with the base eliminated,

  F(U) = min_A 1/(2T) sum_t tr((A + U_t V_t^T - Ahat_t) S_t (A + U_t V_t^T - Ahat_t)^T),

V_t = U_t where adapters are symmetric, by SciPy (`scipy/..`), pymanopt (`pymanopt/..`), PyTorch
(`torch/..`) and, in numpy, by the alternating scheme of arXiv:2410.22264 (`numpy/authors`). Objective,
gradient and Hessian product are what a user of these packages writes: numpy with products of whole
stacks of d x d matrices, derivatives by hand; PyTorch by its own autograd. One thread, float64.

Every method starts at the same point and ends at the same test, ||grad F||_2 <= --gradient-norm, or at
--max-iterations or --max-seconds. The test is applied in the package's own way where it has one in this
norm, else from its callback. A run is repeated --repetitions times; the shortest counts.

Input: an .npz with A (T,d,d) and perhaps S (T,d,d), and one with U (T,d,k) and perhaps V. Output: one JSON
object a method, and the end points as OUT/<method with "-" for "/">.npz.
"""

import argparse
import json
import os
import time

for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM", "NUMEXPR"):
    os.environ[f"{library}_NUM_THREADS" if "MAX" not in library else f"{library}_THREADS"] = "1"
import numpy as np  # noqa: E402


class Stop(Exception):
    """Raised from inside a package that has no other way to be stopped."""


class Objective:
    """Value, gradient and Hessian product in numpy; a point is an array (T,d,k) or (2,T,d,k)."""

    def __init__(self, tasks, symmetric):
        self.a = tasks["A"].astype(float)
        self.count, self.d, _ = self.a.shape
        self.symmetric = symmetric
        self.s = tasks["S"].astype(float) if "S" in tasks else None
        if self.s is not None:
            self.pooled = np.linalg.inv(self.s.sum(axis=0))

    def factors(self, x):
        return (x, x) if self.symmetric else (x[0], x[1])

    def eliminate(self, difference):
        """Residual moments G_t of the weights' differences (T,d,d), with the best base added."""
        if self.s is None:
            error = difference - difference.mean(axis=0)
            return error, error
        base = -(difference @ self.s).sum(axis=0) @ self.pooled
        error = difference + base
        return error, error @ self.s

    def contract(self, u, v, moment):
        if self.symmetric:
            return (moment + moment.transpose(0, 2, 1)) @ u / self.count
        return np.stack([moment @ v, moment.transpose(0, 2, 1) @ u]) / self.count

    def value_and_gradient(self, x):
        u, v = self.factors(x)
        error, moment = self.eliminate(u @ v.transpose(0, 2, 1) - self.a)
        return 0.5 / self.count * np.sum(error * moment), self.contract(u, v, moment)

    def value(self, x):
        u, v = self.factors(x)
        error, moment = self.eliminate(u @ v.transpose(0, 2, 1) - self.a)
        return 0.5 / self.count * np.sum(error * moment)

    def gradient(self, x):
        u, v = self.factors(x)
        return self.contract(u, v, self.eliminate(u @ v.transpose(0, 2, 1) - self.a)[1])

    def hessian_product(self, x, z):
        u, v = self.factors(x)
        zu, zv = self.factors(z)
        _, moment = self.eliminate(u @ v.transpose(0, 2, 1) - self.a)
        _, change = self.eliminate(zu @ v.transpose(0, 2, 1) + u @ zv.transpose(0, 2, 1))
        turned, changed = moment.transpose(0, 2, 1), change.transpose(0, 2, 1)
        if self.symmetric:
            return ((change + changed) @ u + (moment + turned) @ zu) / self.count
        return np.stack([change @ v + moment @ zv, changed @ u + turned @ zu]) / self.count


class Run:
    """One run of a method: clock, counts, and the value at every evaluation."""

    def __init__(self, options, max_iterations):
        self.limit = options.gradient_norm
        self.max_iterations = max_iterations
        self.max_seconds = options.max_seconds
        self.evaluations = {"gradients": 0, "hessian_products": 0}
        self.iterations = 0
        self.stop = "max_iterations"
        self.curve = []
        self.point = None
        self.begin = time.thread_time()

    def seconds(self):
        """CPU time of this thread: what other processes do to the machine does not count."""
        return time.thread_time() - self.begin

    def saw(self, value, point):
        """Counts an evaluation; `point` is where a run that is cut short ends."""
        self.evaluations["gradients"] += 1
        self.point = point
        self.curve.append((self.seconds(), value))
        if self.seconds() > self.max_seconds:
            self.stop = "max_seconds"
            raise Stop

    def arrived(self, norm):
        if norm <= self.limit:
            self.stop = "stationary"
        return norm <= self.limit


def scipy_method(name):
    def solve(objective, start, run):
        from scipy.optimize import minimize

        shape, last = start.shape, {}

        def function(flat):
            value, gradient = objective.value_and_gradient(flat.reshape(shape))
            last["norm"] = np.linalg.norm(gradient)
            run.saw(value, flat.reshape(shape))
            return value, gradient.ravel()

        def product(flat, direction):
            run.evaluations["hessian_products"] += 1
            return objective.hessian_product(flat.reshape(shape), direction.reshape(shape)).ravel()

        def callback(_):
            if run.arrived(last["norm"]):
                raise StopIteration

        n = run.max_iterations
        choices = {
            # Its own test is in the largest entry: the callback stops it.
            "lbfgs": ("L-BFGS-B", {"maxiter": n, "maxfun": 10 * n, "ftol": 0.0, "gtol": 0.0}),
            "trust-ncg": ("trust-ncg", {"maxiter": n, "gtol": run.limit}),
        }
        method, options = choices[name]
        found = minimize(
            function,
            start.ravel(),
            jac=True,
            method=method,
            hessp=product if name == "trust-ncg" else None,
            callback=callback,
            options=options,
        )
        run.iterations = int(found.nit)
        if run.stop == "max_iterations" and run.iterations < n:
            run.stop = "stationary" if last["norm"] <= run.limit else "stagnated"
        return found.x.reshape(shape)

    return solve


def pymanopt_method(optimiser, geometry):
    def solve(objective, start, run):
        import pymanopt
        from pymanopt.manifolds import Euclidean, PSDFixedRank, Product
        from pymanopt.optimizers import ConjugateGradient, TrustRegions

        d, k = start.shape[-2:]
        parts = start.reshape(-1, d, k)
        factor = PSDFixedRank(d, k) if geometry == "psd" else Euclidean(d, k)
        manifold = Product([factor] * len(parts))
        shape = start.shape

        def stacked(blocks):
            return np.stack(blocks).reshape(shape)

        @pymanopt.function.numpy(manifold)
        def cost(*blocks):
            point = stacked(blocks)
            value = objective.value(point)
            run.saw(value, point)
            return value

        @pymanopt.function.numpy(manifold)
        def gradient(*blocks):
            run.evaluations["gradients"] += 1
            return list(objective.gradient(stacked(blocks)).reshape(-1, d, k))

        @pymanopt.function.numpy(manifold)
        def product(*blocks):
            point, direction = blocks[: len(parts)], blocks[len(parts) :]
            run.evaluations["hessian_products"] += 1
            image = objective.hessian_product(stacked(point), stacked(direction))
            return list(image.reshape(-1, d, k))

        problem = pymanopt.Problem(
            manifold, cost, euclidean_gradient=gradient, euclidean_hessian=product
        )
        kind = TrustRegions if optimiser == "trust-region" else ConjugateGradient
        method = kind(
            max_time=run.max_seconds,
            max_iterations=run.max_iterations,
            min_gradient_norm=run.limit,
            min_step_size=0.0,
            max_cost_evaluations=10**9,
            verbosity=0,
        )
        found = method.run(problem, initial_point=[block.copy() for block in parts])
        run.iterations = int(found.iterations)
        end = stacked(list(found.point))
        if run.stop == "max_iterations" and not run.arrived(
            np.linalg.norm(objective.value_and_gradient(end)[1])
        ):
            run.stop = "max_iterations" if run.iterations >= run.max_iterations else "stagnated"
        return end

    return solve


def torch_objective(objective):
    import torch

    torch.set_num_threads(1)
    a = torch.from_numpy(objective.a)
    s = None if objective.s is None else torch.from_numpy(objective.s)
    pooled = None if s is None else torch.from_numpy(objective.pooled)

    def value(x):
        u, v = (x, x) if objective.symmetric else (x[0], x[1])
        difference = u @ v.mT - a
        if s is None:
            error = difference - difference.mean(dim=0)
            return 0.5 / len(a) * (error * error).sum()
        error = difference - (difference @ s).sum(dim=0) @ pooled
        return 0.5 / len(a) * (error * (error @ s)).sum()

    return torch, value


def torch_lbfgs(objective, start, run):
    torch, value = torch_objective(objective)
    x = torch.from_numpy(start.copy()).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [x],
        lr=1.0,
        max_iter=run.max_iterations,
        max_eval=10 * run.max_iterations,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        loss = value(x)
        loss.backward()
        run.saw(loss.item(), x.detach().numpy())
        if run.arrived(x.grad.norm().item()):
            # The trial point that passes the test is where x stands.
            raise Stop
        return loss

    try:
        optimiser.step(closure)
        if optimiser.state[x]["n_iter"] < run.max_iterations:
            run.stop = "stagnated"
    finally:
        run.iterations = optimiser.state[x]["n_iter"]
    return x.detach().numpy()


def torch_adamw(objective, start, run):
    torch, value = torch_objective(objective)
    x = torch.from_numpy(start.copy()).requires_grad_()
    optimiser = torch.optim.AdamW([x], lr=0.01, weight_decay=0.0)
    for _ in range(run.max_iterations):
        optimiser.zero_grad()
        loss = value(x)
        loss.backward()
        run.saw(loss.item(), x.detach().numpy())
        if run.arrived(x.grad.norm().item()):
            break
        optimiser.step()
        run.iterations += 1
    return x.detach().numpy()


def numpy_authors(objective, start, run, inner_steps=10, inner_step=0.003, outer_step=0.03):
    """Ten inner steps on the adapters, then one on the base, which starts at 0."""
    x = start.copy()
    count, weights = objective.count, objective.a
    base = np.zeros(weights.shape[1:])

    def moments():
        u, v = objective.factors(x)
        error = base + u @ v.transpose(0, 2, 1) - weights
        return error if objective.s is None else error @ objective.s

    for iteration in range(run.max_iterations):
        if iteration % 20 == 0:
            # What the methods are compared by; the scheme itself does not look at it.
            before = run.seconds()
            value, gradient = objective.value_and_gradient(x)
            run.begin += run.seconds() - before
            run.saw(value, x)
            if run.arrived(np.linalg.norm(gradient)) or not np.isfinite(value):
                break
        for _ in range(inner_steps):
            moment = moments()
            turned = moment.transpose(0, 2, 1)
            if objective.symmetric:
                x = x - inner_step * ((moment + turned) @ x)
            else:
                x = x - inner_step * np.stack([moment @ x[1], turned @ x[0]])
        base = base - outer_step / count * moments().sum(axis=0)
        run.iterations += 1
    return x


METHODS = {
    "scipy/lbfgs": scipy_method("lbfgs"),
    "scipy/trust-ncg": scipy_method("trust-ncg"),
    "pymanopt/trust-region": pymanopt_method("trust-region", "euclidean"),
    "pymanopt/conjugate-gradient": pymanopt_method("conjugate-gradient", "euclidean"),
    "pymanopt/psd-trust-region": pymanopt_method("trust-region", "psd"),
    "pymanopt/psd-conjugate-gradient": pymanopt_method("conjugate-gradient", "psd"),
    "torch/lbfgs": torch_lbfgs,
    "torch/adamw": torch_adamw,
    "numpy/authors": numpy_authors,
}


def measure(name, objective, start, options):
    best, spent = None, 0.0
    # A short run first: imports and what a package sets up on first use are no part of its time.
    for repetition in range(-1, options.repetitions):
        warming = repetition < 0
        run = Run(options, min(2, options.max_iterations) if warming else options.max_iterations)
        try:
            end = METHODS[name](objective, start, run)
        except Stop:
            end = run.point
        if warming:
            continue
        seconds = run.seconds()
        spent += seconds
        if best is None or seconds < best[0]:
            best = (seconds, run, end)
        if spent > options.max_seconds:
            break
    return best


def thinned(curve, most=200):
    """The running minimum, at most `most` of its points, the last one included."""
    best, points = float("inf"), []
    for seconds, value in curve:
        if value < best:
            best = value
            points.append((seconds, value))
    if len(points) > most:
        keep = np.unique(np.geomspace(1, len(points), most).astype(int)) - 1
        points = [points[i] for i in keep]
    return points


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks")
    parser.add_argument("start")
    parser.add_argument("--methods", required=True, help="names with commas between")
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--gradient-norm", type=float, required=True)
    parser.add_argument("--max-iterations", type=int, default=10000)
    parser.add_argument("--max-seconds", type=float, default=60.0)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out")
    options = parser.parse_args()
    with np.load(options.tasks) as tasks:
        objective = Objective({name: tasks[name] for name in tasks.files}, options.symmetric)
    with np.load(options.start) as file:
        u = file["U"].astype(float)
        start = u if options.symmetric else np.stack([u, file["V"].astype(float)])
    for name in options.methods.split(","):
        seconds, run, end = measure(name, objective, start, options)
        value, gradient = objective.value_and_gradient(end)
        if options.out:
            u, v = objective.factors(end)
            arrays = {"U": u} if options.symmetric else {"U": u, "V": v}
            path = os.path.join(options.out, name.replace("/", "-") + ".npz")
            np.savez(path, A=np.zeros(objective.a.shape[1:]), **arrays)
        result = {
            "method": name,
            "seconds": seconds,
            "iterations": run.iterations,
            "loss": value,
            "gradient_norm": float(np.linalg.norm(gradient)),
            "stop_reason": run.stop,
            **run.evaluations,
            "curve": thinned(run.curve),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
