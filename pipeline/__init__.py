"""Trichrome: colors black-and-white photographs. `from pipeline import ColorPipeline`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from pipeline.image_to_image import ImageToImagePipeline
    from pipeline.open_photo import OpenPhoto
    from pipeline.output import ColorPipelineOutput
    from pipeline.progress import StepBar

__all__ = ["ColorPipeline", "ColorPipelineOutput", "ImageToImagePipeline", "OpenPhoto", "StepBar"]


def __getattr__(name: str) -> Any:
    # Loaded at first use: `trichrome --help` lives in this package and must not wait for torch.
    homes = {
        "ColorPipeline": "color_pipeline", "ColorPipelineOutput": "output", "ImageToImagePipeline": "image_to_image",
        "OpenPhoto": "open_photo", "StepBar": "progress",
    }  # fmt: skip
    if name in homes:
        return getattr(importlib.import_module(f"pipeline.{homes[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
