"""One picture made again as the record of a file says: `trichrome colorize PHOTO --like FILE -o OUT`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.images.notes import collected
from pipeline.images.photo import FORMATS
from pipeline.images.read import load_photo
from pipeline.images.write import save_photo, written_as
from pipeline.known_colors import Guide
from pipeline.provenance.record import RECIPE, RecordError, checked, read_record, sealed, software, with_record
from pipeline.provenance.settings import request_from
from stages.seeds import NoiseSource

if TYPE_CHECKING:
    from pipeline.color_pipeline import ColorPipeline
    from stages.faces import Scores

__all__ = ["record_to_repeat", "repeat"]


def record_to_repeat(like: Path, output: Path) -> dict[str, Any]:
    """The record of `like`, intact and of a picture that `output` can become. Raises RecordError, ImageError."""
    record = read_record(like)
    checked(record, like)
    if record["file"]["shows"] in ("frame", "video"):
        raise RecordError(f"{like} is of a video, where colors hang on the frames around; "
                          "run trichrome video again")  # fmt: skip
    if record["file"]["shows"] != "picture":
        raise RecordError(f"{like} shows an {record['file']['shows']} map, not a picture; name the picture of it")
    if record["recipe"] != RECIPE:
        raise RecordError(f"{like} was colored by recipe {record['recipe']}; today's is {RECIPE}, which gives other "
                          f"colors. {record['software']} can repeat it")  # fmt: skip
    if FORMATS.get(output.suffix.lower()) != record["file"]["format"]:
        raise RecordError(f"{like} was written as {record['file']['format']}; give {output.name} a suffix of that")
    if record["input"] is None:
        raise RecordError(f"{like} was made of pixels in memory, not of a file: no photo can be told to be its own")
    return record


def repeat(
    pipe: ColorPipeline, source: Path, like: Path, record: Mapping[str, Any], output: Path, max_pixels: int | None,
    rank_with: Scores | None,
) -> tuple[list[str], str | None]:  # fmt: skip
    """Writes `output` as `record`, that of `like`, says; returns notes, and why its bytes are others, if they are.

    Raises RecordError where the photo, the weights or the settings are others; ImageError as reading and writing do.
    """
    notes: dict[str, None] = {}
    with collected() as told:
        photo = load_photo(source, max_pixels=max_pixels, page=record["input"].get("page"))
    notes.update(told)
    if photo.sha256 != record["input"]["sha256"]:
        raise RecordError(f"{source} is not the photo that {like} was made of: their SHA-256 differ")
    request, hints = request_from(record["settings"], rank_with)
    request.checked_for(pipe.coarse, pipe.superres)
    maker = pipe.maker(request)
    differ = {name for name in maker.weights() | record["weights"] if
              maker.weights().get(name) != record["weights"].get(name)}  # fmt: skip
    if differ:
        raise RecordError(f"{like} was made with other weights: {', '.join(sorted(differ))} differ; name its own with "
                          "--weights or --rank-with")  # fmt: skip
    guide = Guide(hints)
    noise = NoiseSource(0 if record["seed"] is None else record["seed"], record["noise_key"])
    pictures = pipe.small_photos([photo], [noise], request, [guide])[0].pictures
    if not 1 <= (record["picture"] or 0) <= len(pictures):
        raise RecordError(f"{like} is picture {record['picture']} of {len(pictures)}, by its record; no such picture")
    picture = pictures[record["picture"] - 1]
    with collected() as told:
        photo = written_as(output, photo)
        full, said = pipe.full_size(photo, picture, photo.depth, request.strength)
        fresh = maker.record(photo, picture.info, record["picture"], record["file"], guide)
        save_photo(output, full.rgb, with_record(photo, fresh), quality=record["file"].get("quality", 95))
    notes.update(dict.fromkeys(said) | told)
    other = None if output.read_bytes() == like.read_bytes() else _why_other_bytes(record, fresh)
    return list(notes), other


def _why_other_bytes(record: Mapping[str, Any], fresh: Mapping[str, Any]) -> str:
    other = [f"it was made by {record['software']}, this is {software()}"] if record["software"] != software() else []
    other += [
        f"{name} was {record['run'].get(name)}, here {fresh['run'].get(name)}"
        for name in sorted(record["run"].keys() | fresh["run"].keys())
        if record["run"].get(name) != fresh["run"].get(name)
    ]
    same_run = {**record, "software": fresh["software"], "run": fresh["run"]}
    del same_run["digest"]
    if sealed(same_run) != dict(fresh):
        other.append("another draw came first")
    return ", ".join(other) or "it was changed since, or another machine or version of a library made it"
