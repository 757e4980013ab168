"""`trichrome colorize PHOTO --like FILE -o OUT`: its options and messages; the work is in pipeline/files/like.py."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from pipeline.arguments import max_pixels, placement

# torch takes more than a second to import: nothing up here may load it.

__all__ = ["run", "why_not"]

# Besides --like itself; the record says all else.
TAKES = {
    "paths", "output", "like", "weights", "rank_with", "device", "max_megapixels", "overwrite", "run", "parser",
    "arguments",
}  # fmt: skip


def why_not(options: argparse.Namespace, to_file: bool) -> str | None:
    """What does not go together with --like; None where nothing does."""
    names = {action.dest: action.option_strings[-1] for action in options.parser._actions if action.option_strings}
    given = [name for name, value in vars(options).items() if value != options.parser.get_default(name)]
    if more := sorted(names[name] for name in given if name not in TAKES):
        return f"--like takes all settings from the record; leave out {', '.join(more)}"
    if len(options.paths) > 1 or not to_file:
        return "--like makes one picture: name one photo, and with -o the file to write"
    if os.path.realpath(options.output) == os.path.realpath(options.like):
        return f"-o {options.output} is the file of --like itself, to which the picture is compared; name another"
    if options.output.exists() and not options.overwrite:
        return f"{options.output} is there already; --overwrite replaces it"
    return None


def run(options: argparse.Namespace, misuse: Callable[[str], int]) -> int:
    """Makes the picture; returns the exit code."""
    import torch

    from pipeline.color_pipeline import ColorPipeline
    from pipeline.files.like import record_to_repeat, repeat
    from pipeline.files.report import shown
    from pipeline.request import reranker
    from stages.registry import load_stage

    try:
        record = record_to_repeat(options.like, options.output)
        device = record["run"]["device"] if options.device == "auto" else options.device
        torch.set_num_threads(record["run"].get("threads", torch.get_num_threads()))
        pipe = ColorPipeline.from_pretrained(options.weights).to(*placement(device, record["run"]["dtype"]))
        judge = None if options.rank_with is None else load_stage(options.rank_with).to(pipe.device)
        rank_with = None if judge is None else reranker(judge, pipe.device)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        notes, other = repeat(
            pipe, options.paths[0], options.like, record, options.output, max_pixels(options), rank_with
        )
    except (ValueError, OSError) as error:
        return misuse(str(error))
    for note in notes:
        print(shown(f"{options.paths[0]}: note: {note}"), file=sys.stderr)
    if other is not None:
        print(shown(f"{options.output} was made by the settings of {options.like}, and its bytes are others: {other}"),
              file=sys.stderr)  # fmt: skip
        return 1
    print(shown(f"{options.output} was made as {options.like} was"))
    return 0
