"""The command `trichrome export`: the stages as graphs that run without torch."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from pipeline.files.report import misuse

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["add_command"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def add_command(commands: Any) -> None:  # Any: argparse does not name its type
    """Adds `export` to the subcommands of `trichrome`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export", help="write the stages as graphs that run without torch, in a browser too",
        description="Write one ONNX file for each graph of the stages, compared with torch, and trichrome.json, which "
                    "says what lies between them.",
    )  # fmt: skip
    add = parser.add_argument
    add("-o", "--output", required=True, type=Path, metavar="FOLDER", help="folder for the files")
    add("--format", choices=["onnx"], default="onnx", help="default %(default)s")
    add("--fp16", action="store_true", help="store weights in 16 bits: half of the bytes, computed with as before")
    add("--weights", metavar="FOLDER", help="pipeline folder or hub id (default: the weights in the package)")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return misuse("export", f"it needs {', '.join(missing)}: pip install 'trichrome[export]'")

    from pipeline.color_pipeline import ColorPipeline
    from pipeline.export.folder import export_onnx
    from pipeline.export.graph_file import ExportError

    try:
        sizes = export_onnx(ColorPipeline.from_pretrained(options.weights), options.output, fp16=options.fp16)
    except ExportError as error:
        misuse("export", error)
        return 1
    except (ValueError, OSError) as error:
        return misuse("export", error)
    for name, size in sizes.items():
        print(f"{options.output / name}  {size / 1e6:.1f} MB")
    return 0
