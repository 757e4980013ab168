"""A page of HTML with photographs before and after, which needs nothing beside it: `--sheet FILE.html`."""

from __future__ import annotations

import base64
import glob
import html
import os
import secrets
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyvips  # type: ignore[import-untyped]

from pipeline.files.report import Outcome, shown
from pipeline.images.alone import together
from pipeline.images.notes import collected
from pipeline.images.photo import ImageError
from pipeline.images.read import load_photo
from pipeline.images.vips import _vips

__all__ = ["Sheet"]

SIDE, QUALITY = 360, 80  # of a thumbnail: its longer side in pixels, its JPEG
_BEHIND = 8  # photos whose thumbnails may be under way
_MARK = "<!-- trichrome sheet -->"
_HEAD = f"""<!doctype html>
<html lang="en">
{_MARK}
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Before and after</title>
<style>
  :root {{ --paper: #f6f5f2; --card: #fff; --ink: #22211f; --quiet: #6d6a64; --line: #e2dfd8; }}
  @media (prefers-color-scheme: dark) {{
    :root {{ --paper: #171614; --card: #211f1d; --ink: #e8e5df; --quiet: #99948b; --line: #35322e; }}
  }}
  body {{ margin: 0; padding: 2.5rem max(1rem, 4vw); background: var(--paper); color: var(--ink);
         font: 15px/1.45 system-ui, sans-serif; }}
  h1 {{ margin: 0; font-size: 1.35rem; font-weight: 600; }}
  header p {{ margin: .25rem 0 2rem; color: var(--quiet); }}
  main {{ display: grid; gap: 1.5rem; align-items: start;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }}
  figure {{ margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }}
  .pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; align-items: start; }}
  img {{ display: block; width: 100%; height: auto; border-radius: .3rem; }}
  figcaption {{ margin-top: .6rem; overflow-wrap: anywhere; }}
  small {{ display: block; color: var(--quiet); }}
  a {{ color: inherit; }}
</style>
<header>
<h1>Before and after</h1>
<p>Left the photograph, right the same with colors that a model has guessed. They are no record of what was there.</p>
</header>
<main>
"""
_TAIL = "</main>\n</html>\n"


class Sheet:
    """Grows as photos are colored; gets its name when it is closed. Raises ValueError where it must not be written.

    Of several pictures of a photo it shows the first; of one that failed, the reason. Thumbnails are made in a thread
    of their own. What a killed run has left of the same page goes.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--sheet {path}: a sheet is a page; name a file that ends in .html")
        if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace")[:200]:
            raise ValueError(f"--sheet {path}: there is a file that is no sheet; name a new one")
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
            left.unlink(missing_ok=True)
        self.path = path
        self._fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self._file = self._fresh.open("x", encoding="utf-8")
        self._file.write(_HEAD)
        self.photos = 0
        self._maker = ThreadPoolExecutor(1)
        self._figures: deque[Future[str]] = deque()

    def each(self, outcome: Outcome) -> None:
        if outcome.status in ("ignored", "planned"):
            return
        self.photos += 1
        self._figures.append(self._maker.submit(self._figure_of, outcome))
        self._write(_BEHIND)

    def close(self) -> None:
        """Puts the page in its place; one without a photo is dropped."""
        self._write(0)
        self._maker.shutdown()
        self._file.write(_TAIL)
        self._file.close()
        if self.photos:
            os.replace(self._fresh, self.path)
        else:
            self._fresh.unlink()

    def give_up(self) -> None:
        self._maker.shutdown(cancel_futures=True)
        with suppress(OSError):
            self._file.close()
        self._fresh.unlink(missing_ok=True)

    def _write(self, behind: int) -> None:
        """Figures that are done, and as many more that no more than `behind` are under way."""
        while self._figures and (len(self._figures) > behind or self._figures[0].done()):
            self._file.write(self._figures.popleft().result())

    def _figure_of(self, outcome: Outcome) -> str:
        page = "" if outcome.page is None else f", page {outcome.page}"
        name = html.escape(shown(f"{outcome.input.name}{page}"))
        if outcome.status == "failed":
            return _figure("", name, html.escape(shown(outcome.reason or "")))
        output = outcome.outputs[0]
        try:
            before = _thumbnail_of_gray(outcome.input, outcome.page)
            after = _thumbnail(output)
        except (pyvips.Error, ImageError, OSError) as error:
            return _figure("", name, html.escape(shown(f"can not be shown: {error}")))
        pair = f'<div class="pair">{_image(before, "before")}{_image(after, "after")}</div>'
        target = html.escape(_address(output, self.path.parent))
        return _figure(pair, name, f'<a href="{target}">{html.escape(shown(output.name))}</a>')


def _figure(pair: str, name: str, small: str) -> str:
    return f"<figure>{pair}<figcaption>{name}<small>{small}</small></figcaption></figure>\n"


def _image(jpeg: bytes, what: str) -> str:
    return f'<img loading="lazy" alt="{what}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def _thumbnail(path: Path) -> bytes:
    with open(path, "rb") as file:  # by descriptor: libvips takes names as UTF-8 only, and caches by them
        with together():
            source = pyvips.Source.new_from_descriptor(file.fileno())
            return _jpeg(pyvips.Image.thumbnail_source(source, SIDE, height=SIDE))


def _thumbnail_of_gray(path: Path, page: int | None) -> bytes:
    """As the stages see the photo."""
    with collected():  # its notes were told when it was colored, and its size was judged
        gray = load_photo(path, page=page, max_pixels=1 << 40).gray
    levels = (gray * 255 + 0.5).astype("uint8")
    with together():
        return _jpeg(_vips(levels[..., None]).thumbnail_image(SIDE, height=SIDE))


def _jpeg(image: pyvips.Image) -> bytes:
    if image.hasalpha():
        image = image.flatten(background=255)
    return bytes(image.cast("uchar").jpegsave_buffer(Q=QUALITY, keep="none"))


def _address(path: Path, folder: Path) -> str:
    """A link from a page in the folder to the file."""
    from urllib.parse import quote

    return quote(Path(os.path.relpath(path, folder)).as_posix(), errors="surrogateescape")
