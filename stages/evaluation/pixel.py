"""Pictures beside their originals, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from stages.color import difference
from stages.color.spaces import gray_from_rgb, lab_from_rgb

PictureList = Tensor | Sequence[Tensor]  # (N, 3, H, W) uint8, or N pictures (3, H, W) uint8 of any sizes


class MetricsError(ValueError):
    """What was measured does not fit the metric; the message says what to change."""


SSIM_WINDOW = 11  # pixels of its side
CHUNK_PIXELS = 1 << 20  # pixels worked on at once: bounds the memory of every metric


def picture_from_rgb(rgb: Tensor) -> Tensor:
    """The 8-bit picture that would be saved: (..., 3, H, W) float in [0, 1] -> uint8, rounded to nearest."""
    return (rgb.float() * 255).round().clamp(0, 255).to(torch.uint8)


def ciede2000(outputs: PictureList, originals: PictureList) -> Tensor:
    """CIEDE2000 against the original, mean over pixels: -> (N,) float64."""
    return _per_picture(
        lambda a, b: difference.ciede2000(lab_from_rgb(_unit(a)), lab_from_rgb(_unit(b))).flatten(1),
        outputs,
        originals,
    )


def psnr(outputs: PictureList, originals: PictureList) -> Tensor:
    """Peak signal-to-noise ratio over pixels and channels in dB, infinite when equal: -> (N,) float64."""
    error = _per_picture(lambda a, b: (a.double() - b.double()).square().flatten(1), outputs, originals)
    return 10 * torch.log10(255**2 / error)


def ssim(outputs: PictureList, originals: PictureList) -> Tensor:
    """Structural similarity, mean over pixels and channels, with the Gaussian window of the paper: -> (N,) float64.

    Wang et al. 2004 (IEEE TIP 13), as scikit-image has it. Raises MetricsError where that is not installed, and for
    sides under 11, the window's.
    """
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise MetricsError("SSIM needs scikit-image: pip install 'trichrome[evaluate]'") from error
    values: list[float] = []
    for a, b in _pairs(outputs, originals):
        if min(a.shape[-2:]) < SSIM_WINDOW:
            raise MetricsError(f"SSIM needs sides of at least {SSIM_WINDOW}; got {_size(a[0])}")
        values += [
            structural_similarity(
                one.numpy(), other.numpy(), channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
            for one, other in zip(a, b, strict=True)
        ]  # fmt: skip
    return torch.tensor(values, dtype=torch.float64)


def luma_error(outputs: PictureList, gray: PictureList) -> Tensor:
    """Largest |luma of the output - gray| of each picture, in 8-bit levels: -> (N,) float64.

    gray: (N, 1, H, W) uint8 or N of (1, H, W), the gray that was colored
    """
    worst = []
    for a, b in _pairs(outputs, gray):
        luma = gray_from_rgb(a.double())
        worst.append((luma - b.double()).abs().flatten(1).amax(1))
    return torch.cat(worst)


def colorfulness(pictures: PictureList) -> Tensor:
    """Colorfulness of Hasler and Suesstrunk on the 8-bit scale: -> (N,) float64."""
    return torch.cat([difference.colorfulness(_unit(batch)).double() for batch in same_size_batches(pictures)])


def _unit(pictures: Tensor) -> Tensor:
    return pictures.float() / 255


def _per_picture(
    measure: Callable[[Tensor, Tensor], Tensor], outputs: PictureList, originals: PictureList
) -> Tensor:
    return torch.cat([measure(a, b).double().mean(1) for a, b in _pairs(outputs, originals)])


def _pairs(outputs: PictureList, originals: PictureList) -> Iterator[tuple[Tensor, Tensor]]:
    if len(outputs) != len(originals):
        raise MetricsError(f"{len(outputs)} outputs for {len(originals)} originals: one each is needed")
    for a, b in zip(outputs, originals, strict=True):
        if a.shape[-2:] != b.shape[-2:]:
            raise MetricsError(f"an output is {_size(a)}, its original {_size(b)}: sizes must be equal")
    return zip(same_size_batches(outputs), same_size_batches(originals), strict=True)


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"


def same_size_batches(pictures: PictureList) -> Iterator[Tensor]:
    """Neighbors of one size, stacked: uint8 (B, C, H, W). The same sizes always give the same batches."""
    batch: list[Tensor] = []
    for picture in pictures:
        if picture.dtype != torch.uint8 or picture.ndim != 3:
            raise MetricsError(
                f"metrics take uint8 pictures (3, H, W), got {picture.dtype} {tuple(picture.shape)}; "
                "picture_from_rgb makes them from float rgb"
            )
        pixels = picture.shape[-1] * picture.shape[-2]
        if batch and (batch[0].shape != picture.shape or (len(batch) + 1) * pixels > CHUNK_PIXELS):
            yield torch.stack(batch)
            batch = []
        batch.append(picture)
    if batch:
        yield torch.stack(batch)
