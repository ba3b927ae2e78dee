#!/usr/bin/env python3
"""Prove a certificate of a strict local minimum again, in exact rational arithmetic.

    python3 docs/prove_certificate.py certificate.json [..]

Standard library only; shares nothing with peftml. With c the centre, r the radius and H the Hessian:

1. H(c) + S - (lambda + L r) I is positive definite, by exact elimination. S lifts the normals
   C_t (e_i e_j^T - e_j e_i^T) of the slice (none for k = 1) and vanishes on its tangent space;
   L = (12/T)(max ||C_t||_F + r) bounds the third derivative. So H >= lambda on the whole ball.
2. ||grad F(c)|| < lambda r: the strictly convex function has its critical point inside the ball.
3. For k >= 2, C_t^T C_t - r ||C_t|| I is positive definite: the slice is transversal to the orbits, and
   its critical point is one of F.
4. F(c) - ||grad F(c)|| r >= objective_lower, and ||grad F(c)|| <= gradient_upper.

Exit status 0 if every file is proved. Exact elimination takes seconds up to about 100 coordinates.
"""
import json
import sys
from fractions import Fraction
from math import isqrt


def root_above(x):
    """A rational number at least sqrt(x), close to it."""
    scale = 10**60
    return Fraction(isqrt(int(x * scale * scale)) + 1, scale)


def positive_definite(matrix):
    """Whether a symmetric matrix of rationals is positive definite: leading minors by fraction-free
    elimination (Bareiss), after rounding to whole multiples of 10^-40. Rounding moves an eigenvalue by
    at most n 10^-40, which is taken off the diagonal."""
    n = len(matrix)
    scale = 10**40
    a = [[int(x * scale // 1) for x in row] for row in matrix]
    for i in range(n):
        a[i][i] -= n
    last = 1
    for j in range(n):
        pivot = a[j][j]
        if pivot <= 0:
            return False
        for i in range(j + 1, n):
            for m in range(j + 1, i + 1):
                a[i][m] = (a[i][m] * pivot - a[i][j] * a[m][j]) // last
        last = pivot
    return True


def as_three_dimensional(array):
    number = lambda text: Fraction(text)
    return [[[number(x) for x in (row if isinstance(row, list) else [row])] for row in task]
            for task in array]


def prove(certificate):
    truth = as_three_dimensional(certificate["instance"])
    centre = as_three_dimensional(certificate["centre"])
    tasks, d, k = len(truth), len(truth[0]), len(truth[0][0])
    radius, lower, objective, gradient_upper = (
        Fraction(certificate[key])
        for key in ("radius", "lambda_min_lower", "objective_lower", "gradient_upper"))
    n = tasks * d * k
    reach = radius if certificate["norm"] == "2" else radius * root_above(Fraction(n))
    assert min(radius, lower, objective) > 0, "bounds must be positive"

    product = lambda u, a, b: sum(u[a][i] * u[b][i] for i in range(k))
    errors = [[[product(truth[t], a, b) - product(centre[t], a, b) for b in range(d)]
               for a in range(d)] for t in range(tasks)]
    mean = [[sum(e[a][b] for e in errors) / tasks for b in range(d)] for a in range(d)]
    g = [[[e[a][b] - mean[a][b] for b in range(d)] for a in range(d)] for e in errors]

    value = sum(x * x for e in g for row in e for x in row) / (2 * tasks)
    gradient = [Fraction(-2, tasks) * sum(g[t][a][b] * centre[t][b][i] for b in range(d))
                for t in range(tasks) for a in range(d) for i in range(k)]
    norm = root_above(sum(x * x for x in gradient))
    stated = norm if certificate["norm"] == "2" else max(abs(x) for x in gradient)

    sizes = [root_above(sum(x * x for row in c for x in row)) for c in centre]
    third = Fraction(12, tasks) * (max(sizes) + reach)
    index = [(t, a, i) for t in range(tasks) for a in range(d) for i in range(k)]
    hessian = [[Fraction(0)] * n for _ in range(n)]
    for p, (t, a, i) in enumerate(index):
        for q, (s, b, j) in enumerate(index):
            inner = centre[t][b][i] * centre[s][a][j]
            if a == b:
                inner += sum(centre[t][row][i] * centre[s][row][j] for row in range(d))
            entry = ((t == s) - Fraction(1, tasks)) * inner
            if t == s and i == j:
                entry -= g[t][a][b]
            hessian[p][q] = Fraction(2, tasks) * entry
    for t in range(tasks):
        for i in range(k):
            for j in range(i + 1, k):
                normal = [0] * n
                for p, (s, a, column) in enumerate(index):
                    if s == t and column == j:
                        normal[p] = centre[t][a][i]
                    if s == t and column == i:
                        normal[p] = -centre[t][a][j]
                for p in range(n):
                    for q in range(n):
                        hessian[p][q] += 10 * normal[p] * normal[q]
    shifted = [[hessian[p][q] - (lower + third * reach if p == q else 0) for q in range(n)]
               for p in range(n)]

    checks = {
        "curvature on the ball": positive_definite(shifted),
        "a critical point in the ball": norm < lower * radius,
        "gradient bound": stated <= gradient_upper,
        "objective bound": value - norm * reach >= objective,
    }
    if k > 1:
        checks["slice stated"] = bool(certificate.get("slice"))
        for t in range(tasks):
            gram = [[sum(centre[t][a][i] * centre[t][a][j] for a in range(d))
                     - (sizes[t] * reach if i == j else 0) for j in range(k)] for i in range(k)]
            checks[f"slice transversal at task {t}"] = positive_definite(gram)
    return checks


def main():
    proved = True
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            checks = prove(json.load(file))
        failed = [name for name, holds in checks.items() if not holds]
        proved = proved and not failed
        print(f"{path}: {'not proved: ' + ', '.join(failed) if failed else 'proved'}")
    sys.exit(0 if proved and len(sys.argv) > 1 else 1)


if __name__ == "__main__":
    main()
