"""Logit to probability: temperature and bias, fitted on held-out episodes (arXiv 1706.04599)."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Calibration(BaseModel):
    """probability = sigmoid(logit / temperature + bias)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(1.0, gt=0)
    bias: float = 0.0


def apply(logit: NDArray[np.floating], calibration: Calibration) -> NDArray[np.float64]:
    """Calibrated probabilities in 0..1, of any shape."""
    z = np.asarray(logit, np.float64) / calibration.temperature + calibration.bias
    # Both branches of exp stay below overflow.
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))))


def negative_log_likelihood(
    logit: NDArray[np.floating], success: NDArray[np.bool_], calibration: Calibration
) -> float:
    """Mean cross-entropy of the calibrated probabilities."""
    z = np.asarray(logit, np.float64) / calibration.temperature + calibration.bias
    return float(np.mean(np.logaddexp(0, z) - z * success))


def fit(logit: NDArray[np.floating], success: NDArray[np.bool_], prior_weight: float = 1.0) -> Calibration:
    """Temperature and bias that minimise cross-entropy, by Newton's method.

    A weak Gaussian prior on log-temperature and bias (``prior_weight`` pseudo-frames) keeps both finite when
    the classes are perfectly separated, which small validation sets often are. Without both classes there is
    nothing to fit: the identity.
    """
    x, y = np.asarray(logit, np.float64), np.asarray(success, np.float64)
    if not 0 < y.sum() < len(y):
        return Calibration()

    def loss(theta: NDArray[np.float64]) -> float:
        z = x * np.exp(-theta[0]) + theta[1]
        return float(np.sum(np.logaddexp(0, z) - z * y) + prior_weight * (theta @ theta) / 2)

    theta = np.zeros(2)
    for _ in range(100):
        scaled = x * np.exp(-theta[0])
        z = scaled + theta[1]
        p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
        jacobian = np.stack([-scaled, np.ones_like(x)], axis=1)
        gradient = jacobian.T @ (p - y) + prior_weight * theta
        hessian = (jacobian * (p * (1 - p))[:, None]).T @ jacobian + prior_weight * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(theta - size * step) > loss(theta) and size > 1e-6:
            size /= 2
        theta = theta - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return Calibration(temperature=float(np.exp(np.clip(theta[0], -4, 4))), bias=float(theta[1]))
