"""An approximate inverse of the ridge readout's normal equations, by which conjugate gradients take few steps.

All images are to be answered with the same maps. What is alike in them, their mean image, is what a readout draws from:
it is taken as it is. What departs from it, the images' content, is what the readout has to be proof against: it is
taken to be alike everywhere, with a few leading mixtures of channels that each vary in their own way from cell to cell,
and with channels beyond these that vary as their tap does.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F

from posbench.builtin.readouts.aligned_conv import convolve
from posbench.builtin.readouts.standardize import Standardised

#: Mixtures of channels whose content is told apart, and what of the mean image is: more cost more and help less.
CONTENT, MEAN = 128, 128
#: Rounds of subspace iteration in which they are found.
ROUNDS = 2
#: Images that tell how neighbouring cells vary together, and mixtures of a tap's other channels that do.
IMAGES, MIXTURES = 8, 16
#: The least that is left of a direction of the mean image: below, float32 would not tell it from nothing, or less.
LEAST = 1e-6


class Preconditioner:
    """Solves, about, with (M + D + λI) in place of the true XᵀX/N + λI, where M is of the mean image and D of the
    departures from it. Symmetric and positive definite, whatever it is estimated from.

    Args:
        found: the features of the training images, told apart.
        kernel, padding: of the readout.
        asked: of which cells of its map something is asked, bool [side, side].
        penalty: λ, of standardised channels.
    """

    def __init__(self, found: Standardised, kernel: int, padding: int, asked: torch.Tensor, penalty: float) -> None:
        count = len(found.features)
        self._kernel, self._found = kernel, found
        self._some = found.departures_of(torch.linspace(0, count - 1, min(IMAGES, count)).round().long().tolist())
        self._leading = leading(found.sample, CONTENT)
        self._of_leading = _inverse_root(self._neighbours(self._leading), penalty)
        self._of_tap = _inverse_root(self._others(), penalty)
        # With P⁻¹ = HH for the content and λ, and RRᵀ for the mean image, (P + RRᵀ)⁻¹ = H (I + HRRᵀH)⁻¹ H.
        mean = _mean_part(found, kernel, padding, asked).view(len(found.scale), kernel**2, -1)
        basis, small = torch.linalg.qr(self._halved(mean).flatten(0, 1))
        turned, lengths, _ = torch.linalg.svd(small)
        self._mean = basis @ turned
        self._share = (1 / (1 + lengths.square())).clamp(min=LEAST)

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Solve for [C, k², targets]."""
        # With the few targets first, since processors are slow at matrices of a few columns.
        halved = self._halved(residual).flatten(0, 1).T
        halved = halved - (halved @ self._mean * (1 - self._share)) @ self._mean.T
        return self._halved(halved.T.reshape(residual.shape))

    def _halved(self, weight: torch.Tensor) -> torch.Tensor:
        """H applied to [C, k², targets]."""
        inside = self._along(weight)
        by_channel = torch.split(weight - self._back(inside), [tap.shape[3] for tap in self._found.image.taps])
        others = torch.cat([root @ part for root, part in zip(self._of_tap, by_channel, strict=True)])
        return others + self._back(self._of_leading @ inside - self._along(others))

    def _along(self, weight: torch.Tensor) -> torch.Tensor:
        """From [C, k², targets], how much of each leading mixture there is: [mixtures, k², targets]."""
        return (self._leading.T @ weight.flatten(1)).view(-1, *weight.shape[1:])

    def _back(self, amounts: torch.Tensor) -> torch.Tensor:
        """The adjoint of `_along`."""
        return (self._leading @ amounts.flatten(1)).view(-1, *amounts.shape[1:])

    def _neighbours(self, mixtures: torch.Tensor) -> torch.Tensor:
        """How the k² cells under the kernel vary together in mixtures [C, count] of channels: [count, k², k²]."""
        maps = convolve(self._some, mixtures * self._found.scale[:, None], 1, 0)
        side = self._some.grid - self._kernel + 1
        offsets = product(range(self._kernel), repeat=2)
        patches = torch.stack([maps[..., y : y + side, x : x + side].flatten(1) for y, x in offsets], dim=1)
        return torch.bmm(patches, patches.mT) / patches.shape[2]

    def _others(self) -> torch.Tensor:
        """The same of a tap's channels beyond the leading mixtures, averaged over them: [taps, k², k²].

        Measured on random mixtures, whose covariance is that average in expectation.
        """
        generator = torch.Generator().manual_seed(0)
        channels = [tap.shape[3] for tap in self._some.taps]
        drawn = [torch.randn(count, MIXTURES, generator=generator) / count**0.5 for count in channels]
        mixtures = torch.block_diag(*drawn).to(self._leading)  # type: ignore[no-untyped-call]
        found = self._neighbours(mixtures - self._leading @ (self._leading.T @ mixtures))
        return found.view(len(channels), MIXTURES, *found.shape[1:]).mean(1)


def _inverse_root(covariances: torch.Tensor, penalty: float) -> torch.Tensor:
    """(covariance + λI)^(−½) of each of [..., k², k²]."""
    values, vectors = torch.linalg.eigh(covariances)
    return torch.matmul(vectors / (values.clamp(min=0) + penalty).sqrt()[..., None, :], vectors.mT)


def leading(rows: torch.Tensor, count: int) -> torch.Tensor:
    """About the `count` leading principal directions of rows [m, C] that are not centred: orthonormal [C, ≤ count].

    Source: Halko, Martinsson & Tropp, SIAM Review 2011, algorithms 4.4 and 5.1.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(rows.shape[1], min(count, *rows.shape), generator=generator).to(rows)
    for _ in range(ROUNDS):
        basis, _ = torch.linalg.qr(rows.T @ (rows @ basis))
    seen = rows @ basis
    turned: torch.Tensor = torch.linalg.eigh(seen.T @ seen).eigenvectors
    return basis @ turned


def _mean_part(found: Standardised, kernel: int, padding: int, asked: torch.Tensor) -> torch.Tensor:
    """A factor R [k²C, ≤ MEAN] with RRᵀ about MᵀM over its rows: the leading part of what the mean image adds."""
    image = found.image.aligned()[0] * found.scale[:, None, None]
    channels = leading(image.flatten(1).T, MEAN)
    mixed = F.pad((channels.T @ image.flatten(1)).view(-1, *image.shape[1:]), [padding] * 4)
    patches = F.unfold(mixed[None], kernel)[0][:, asked.flatten()]
    patches = (patches - patches.mean(1, keepdim=True)) / patches.shape[1] ** 0.5
    factor = (patches @ leading(patches, MEAN)).view(len(mixed), -1)
    return torch.mm(channels, factor).view(len(channels) * kernel**2, -1)
