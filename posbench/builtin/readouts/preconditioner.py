"""The preconditioner of the ridge readout's conjugate gradients: an approximate inverse of its normal equations.

The covariance of the features has two parts. That of the mean image is used as it is, up to its leading directions.
That of the residuals is approximated as stationary, i.e. the same everywhere: a few leading mixtures of channels have
a covariance between neighbouring cells each, and the remaining channels of a tap share one.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F

from posbench.builtin.readouts.aligned_conv import convolve
from posbench.builtin.readouts.standardize import StandardisedFeatures

#: The leading mixtures of channels of the residuals, and the leading directions of the mean image.
RESIDUAL_DIRECTIONS, MEAN_DIRECTIONS = 128, 128
#: Rounds of subspace iteration that estimate them.
ROUNDS = 2
#: The images, and the random mixtures of a tap's remaining channels, that neighbour covariances are estimated from.
IMAGES, MIXTURES = 8, 16
#: The smallest factor by which a direction of the mean image is damped: float32 cannot represent a smaller one safely.
MIN_DAMPING = 1e-6


class Preconditioner:
    """An approximate solver for (M + D + λI), where M and D are the covariances of the mean image and the residuals.

    It is symmetric and positive definite, however inaccurate the estimates are. The cells `fitted`, bool [side, side],
    are those of the readout's map that are not masked; the penalty λ is for standardised channels.
    """

    def __init__(
        self, standardised: StandardisedFeatures, kernel: int, padding: int, fitted: torch.Tensor, penalty: float
    ) -> None:
        count = len(standardised.features)
        self._kernel, self._standardised = kernel, standardised
        images = torch.linspace(0, count - 1, min(IMAGES, count)).round().long().tolist()
        self._residuals = standardised.residuals(images)
        self._mixtures = leading_directions(standardised.residual_sample, RESIDUAL_DIRECTIONS)
        self._mixture_roots = _inverse_root(self._neighbour_covariance(self._mixtures), penalty)
        self._tap_roots = _inverse_root(self._remaining_covariance(), penalty)
        # With P⁻¹ = HH for residuals and penalty, and RRᵀ for the mean image: (P + RRᵀ)⁻¹ = H (I + HRRᵀH)⁻¹ H.
        mean = _mean_factor(standardised, kernel, padding, fitted).view(len(standardised.scale), kernel**2, -1)
        basis, triangular = torch.linalg.qr(self._apply_root(mean).flatten(0, 1))
        rotation, lengths, _ = torch.linalg.svd(triangular)
        self._mean_basis = basis @ rotation
        self._damping = (1 / (1 + lengths.square())).clamp(min=MIN_DAMPING)

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Solve for a right-hand side [C, k², targets]."""
        # Targets come first, since CPUs are slow at matrices with few columns.
        half = self._apply_root(residual).flatten(0, 1).T
        half = half - (half @ self._mean_basis * (1 - self._damping)) @ self._mean_basis.T
        return self._apply_root(half.T.reshape(residual.shape))

    def _apply_root(self, weight: torch.Tensor) -> torch.Tensor:
        """Apply H to [C, k², targets]."""
        amounts = self._to_mixtures(weight)
        channels = [tap.shape[3] for tap in self._standardised.centred_mean.taps]
        by_tap = torch.split(weight - self._from_mixtures(amounts), channels)
        others = torch.cat([root @ part for root, part in zip(self._tap_roots, by_tap, strict=True)])
        return others + self._from_mixtures(self._mixture_roots @ amounts - self._to_mixtures(others))

    def _to_mixtures(self, weight: torch.Tensor) -> torch.Tensor:
        """Project [C, k², targets] onto the leading mixtures: [mixtures, k², targets]."""
        return (self._mixtures.T @ weight.flatten(1)).view(-1, *weight.shape[1:])

    def _from_mixtures(self, amounts: torch.Tensor) -> torch.Tensor:
        return (self._mixtures @ amounts.flatten(1)).view(-1, *amounts.shape[1:])

    def _neighbour_covariance(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Return the covariance of the k² cells under the kernel, for mixtures [C, count]: [count, k², k²]."""
        maps = convolve(self._residuals, mixtures * self._standardised.scale[:, None], 1, 0)
        side = self._residuals.grid - self._kernel + 1
        offsets = product(range(self._kernel), repeat=2)
        patches = torch.stack([maps[..., y : y + side, x : x + side].flatten(1) for y, x in offsets], dim=1)
        return torch.bmm(patches, patches.mT) / patches.shape[2]

    def _remaining_covariance(self) -> torch.Tensor:
        """Return the same for a tap's channels without the leading mixtures, averaged over channels: [taps, k², k²]."""
        # Estimated from random mixtures of channels, whose covariance has that average as its expectation.
        generator = torch.Generator().manual_seed(0)
        channels = [tap.shape[3] for tap in self._residuals.taps]
        drawn = [torch.randn(count, MIXTURES, generator=generator) / count**0.5 for count in channels]
        mixtures = torch.block_diag(*drawn).to(self._mixtures)  # type: ignore[no-untyped-call]
        covariance = self._neighbour_covariance(mixtures - self._mixtures @ (self._mixtures.T @ mixtures))
        return covariance.view(len(channels), MIXTURES, *covariance.shape[1:]).mean(1)


def _inverse_root(covariances: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return (covariance + λI)^(−½) of each of [..., k², k²]."""
    values, vectors = torch.linalg.eigh(covariances)
    return torch.matmul(vectors / (values.clamp(min=0) + penalty).sqrt()[..., None, :], vectors.mT)


def leading_directions(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return about the `count` leading principal directions of uncentred rows [m, C]: orthonormal [C, ≤ count].

    Source: Halko, Martinsson & Tropp, SIAM Review 2011, algorithms 4.4 and 5.1.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(rows.shape[1], min(count, *rows.shape), generator=generator).to(rows)
    for _ in range(ROUNDS):
        basis, _ = torch.linalg.qr(rows.T @ (rows @ basis))
    projected = rows @ basis
    rotation: torch.Tensor = torch.linalg.eigh(projected.T @ projected).eigenvectors
    return basis @ rotation


def _mean_factor(standardised: StandardisedFeatures, kernel: int, padding: int, fitted: torch.Tensor) -> torch.Tensor:
    """Return R [k²C, ≤ MEAN_DIRECTIONS] such that RRᵀ approximates the mean image's covariance over fitted cells."""
    image = standardised.centred_mean.aligned()[0] * standardised.scale[:, None, None]
    channels = leading_directions(image.flatten(1).T, MEAN_DIRECTIONS)
    mixed = F.pad((channels.T @ image.flatten(1)).view(-1, *image.shape[1:]), [padding] * 4)
    patches = F.unfold(mixed[None], kernel)[0][:, fitted.flatten()]
    patches = (patches - patches.mean(1, keepdim=True)) / patches.shape[1] ** 0.5
    factor = (patches @ leading_directions(patches, MEAN_DIRECTIONS)).view(len(mixed), -1)
    return torch.mm(channels, factor).view(len(channels) * kernel**2, -1)
