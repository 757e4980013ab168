"""Trichrome: colors black-and-white photographs. `from pipeline import ColorPipeline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .color_pipeline import ColorPipeline, ColorPipelineOutput
    from .progress import StepBar

__all__ = ["ColorPipeline", "ColorPipelineOutput", "StepBar"]


def __getattr__(name: str) -> Any:
    # Loaded at first use: `trichrome --help` lives in this package and must not wait for torch.
    if name in __all__:
        from . import color_pipeline, progress

        return getattr(progress if name == "StepBar" else color_pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
