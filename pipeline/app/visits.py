"""The pictures of one visitor: seen by nobody else, and deleted when the visit ends.

A visit begins with a secret that the page then shows with every request. Uploads are files without a name in the
temporary folder, which the system deletes even where the server is killed. A few photos are kept decoded, with what the
networks have made of them (`OpenPhoto`); the others are read again when they are needed.
"""

from __future__ import annotations

import secrets
import threading
import time
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import IO

from pipeline.app.limits import Limits
from pipeline.app.problems import Problem
from pipeline.images import ImageError, load_photo
from pipeline.open_photo import OpenPhoto

__all__ = ["Upload", "Visit", "Visits"]

OVER = "this visit is over and its pictures are deleted; open them again"


@dataclass(eq=False)
class Upload:
    """A file that somebody sent: its name, without folders, and its content, which is deleted with it."""

    name: str
    file: IO[bytes]
    size: int

    def content(self) -> bytes:
        """Raises Problem where the visit has ended meanwhile."""
        try:
            self.file.seek(0)
            return self.file.read()
        except ValueError as error:  # the file is closed
            raise Problem("gone", OVER) from error


@dataclass(eq=False)
class Visit:
    """uploads: by their secret names; seen: when the last request came, of a clock that only goes forward"""

    uploads: dict[str, Upload] = field(default_factory=dict)
    seen: float = field(default_factory=time.monotonic)

    def upload(self, key: str) -> Upload:
        if key not in self.uploads:
            raise Problem("not_found", "this visit has no such picture; open it again")
        return self.uploads[key]

    @property
    def size(self) -> int:
        return sum(upload.size for upload in self.uploads.values())

    def close(self) -> None:
        for upload in self.uploads.values():
            upload.file.close()
        self.uploads.clear()


class Visits:
    """All visits, by their secrets, and the photos that are decoded."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._visits: dict[str, Visit] = {}
        self._opened: OrderedDict[Upload, OpenPhoto] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self) -> str:
        """A new visit: its secret. Raises Problem where there are as many as the server takes."""
        self.tidy()
        with self._lock:
            if len(self._visits) >= self.limits.visits:
                raise Problem("busy", f"{len(self._visits)} people are here, as many as this server takes; try again "
                                      "later", {"Retry-After": "60"})  # fmt: skip
            self._visits[secret := secrets.token_urlsafe(24)] = Visit()
        return secret

    def visit(self, secret: str) -> Visit:
        """Raises Problem where it is over."""
        visit = self._visits.get(secret)
        if visit is None:
            raise Problem("gone", OVER)
        visit.seen = time.monotonic()
        return visit

    def end(self, secret: str) -> None:
        """Deletes what the visitor has sent; a visit that is not there has ended already."""
        with self._lock:
            if visit := self._visits.pop(secret, None):
                for upload in visit.uploads.values():
                    self._opened.pop(upload, None)
                visit.close()

    def tidy(self) -> None:
        """Ends the visits of whom nothing was heard for too long."""
        oldest = time.monotonic() - 60 * self.limits.visit_minutes
        for secret in [secret for secret, visit in list(self._visits.items()) if visit.seen < oldest]:
            self.end(secret)

    def close(self) -> None:
        for secret in list(self._visits):
            self.end(secret)

    def add(self, visit: Visit, name: str, file: IO[bytes]) -> tuple[str, OpenPhoto]:
        """Takes a picture into the visit: its secret name, and the photo. Raises Problem, and closes the file then."""
        upload = Upload(name, file, file.tell())
        try:
            if len(visit.uploads) >= self.limits.photos:
                raise Problem("too_large", f"a visit may have {self.limits.photos} pictures; remove some first")
            if visit.size + upload.size > self.limits.visit_megabytes * 1_000_000:
                raise Problem("too_large", f"the pictures of a visit may have {self.limits.visit_megabytes} megabytes "
                                           "together; remove some first")  # fmt: skip
            photo = self.opened(upload)
        except BaseException:
            file.close()
            raise
        visit.uploads[key := secrets.token_urlsafe(12)] = upload
        return key, photo

    def remove(self, visit: Visit, key: str) -> None:
        upload = visit.upload(key)
        with self._lock:
            self._opened.pop(upload, None)
        del visit.uploads[key]
        upload.file.close()

    def opened(self, upload: Upload, keep_rgb: bool = False) -> OpenPhoto:
        """The photo of an upload, decoded again where others have taken its place; keep_rgb: with its colors.

        Raises Problem with the reason where it can not be read.
        """
        with self._lock:
            photo = self._opened.get(upload)
            if photo is not None and (photo.rgb is not None or not keep_rgb):
                self._opened.move_to_end(upload)
                return photo
        photo = _read(upload, self.limits, keep_rgb)
        with self._lock:
            self._opened[upload] = photo
            self._opened.move_to_end(upload)
            planes = sum(map(_planes, self._opened.values()))
            while planes > self.limits.open_megapixels * 1_000_000 and len(self._opened) > 1:
                planes -= _planes(self._opened.popitem(last=False)[1])
        return photo


def _planes(photo: OpenPhoto) -> int:
    """Values that a photo keeps."""
    return photo.gray.size + (0 if photo.rgb is None else photo.rgb.size)


def _read(upload: Upload, limits: Limits, keep_rgb: bool) -> OpenPhoto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are the photo's notes
        try:
            return OpenPhoto.of(load_photo(upload.content(), max_pixels=limits.pixels, keep_rgb=keep_rgb))
        except ImageError as error:
            reason = str(error).replace("the bytes given", upload.name)
            raise Problem("bad_picture", reason) from error
