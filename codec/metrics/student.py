"""Quantiles of Student's t distribution, for intervals over few values; the standard library has the normal's alone."""

from math import exp, expm1, log, pi, sqrt, tan
from statistics import NormalDist


def student_quantile(probability: float, degrees: int) -> float:
    """Where Student's t with `degrees` of freedom, at least 1, is below with this probability, in (0, 1).

    Hill 1970 (Algorithm 396), right to 1e-5 of the value; closed forms for one degree and two.
    """
    if not 0.0 < probability < 1.0 or degrees < 1:
        raise ValueError(f"no quantile {probability} of Student's t with {degrees} degrees of freedom")
    if probability < 0.5:
        return -student_quantile(1.0 - probability, degrees)
    if degrees == 1:
        return tan(pi * (probability - 0.5))
    if degrees == 2:
        return (2.0 * probability - 1.0) / sqrt(2.0 * probability * (1.0 - probability))
    tails, n = 2.0 * (1.0 - probability), float(degrees)
    if tails == 1.0:
        return 0.0
    a = 1.0 / (n - 0.5)
    b = 48.0 / a**2
    c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36
    d = ((94.5 / (b + c) - 3.0) / b + 1.0) * sqrt(a * pi / 2.0) * n
    y = exp(2.0 / n * log(d * tails))
    if y > 0.05 + a:  # about the normal quantile
        x = NormalDist().inv_cdf(tails / 2.0)
        y = x * x
        if degrees < 5:
            c += 0.3 * (n - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x
        y = expm1(a * y * y)
    else:  # far out
        y = (
            (1.0 / (((n + 6.0) / (n * y) - 0.089 * d - 0.822) * (n + 2.0) * 3.0) + 0.5 / (n + 4.0)) * y - 1.0
        ) * (n + 1.0) / (n + 2.0) + 1.0 / y
    return sqrt(n * y)
