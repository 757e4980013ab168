"""Trichrome: colors black-and-white photographs. `from pipeline import ColorPipeline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .color_pipeline import ColorPipeline, ColorPipelineOutput

__all__ = ["ColorPipeline", "ColorPipelineOutput"]


def __getattr__(name: str) -> Any:
    # Loaded at first use: `trichrome --help` lives in this package and must not wait for torch.
    if name in __all__:
        from . import color_pipeline

        return getattr(color_pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
