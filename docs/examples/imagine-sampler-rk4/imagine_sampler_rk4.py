"""The classical Runge-Kutta method as a sampler: four evaluations a step, fourth order."""

from itertools import pairwise

from imagine_core import hookimpl
from imagine_core.sampling import sigma_sampler


def rk4(x, sigmas, noise):  # noqa: ARG001 - a deterministic method draws none
    """Solve the probability-flow ODE dx/dsigma = (x - denoised(x, sigma)) / sigma."""
    for high, low in pairwise(sigmas):
        if low == 0:  # the slope at zero is not defined; Euler's step ends at the denoised picture
            return (yield x, high)
        step, middle = low - high, (high + low) / 2
        k1 = (x - (yield x, high)) / high
        x2 = x + k1 * step / 2
        k2 = (x2 - (yield x2, middle)) / middle
        x3 = x + k2 * step / 2
        k3 = (x3 - (yield x3, middle)) / middle
        x4 = x + k3 * step
        k4 = (x4 - (yield x4, low)) / low
        x = x + (k1 + 2 * k2 + 2 * k3 + k4) * step / 6
    return x


@hookimpl
def register_samplers(register):
    """Register "rk4"."""
    register(sigma_sampler(rk4, name="rk4", label="RK4", evaluations=4))
