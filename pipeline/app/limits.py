"""What a server takes on before it says no."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """megabytes: of one request (10^6 bytes); megapixels: of one picture; files: of one request
    queue: jobs that wait while another runs; seconds: a request waits for its answer, its turn included
    visits: at a time; photos and visit_megabytes: of one visit; visit_minutes: without a request until a visit ends
    open_megapixels: of photos that are kept decoded, of all visits together
    """

    megabytes: int = 200
    megapixels: int = 100
    files: int = 50
    queue: int = 16
    seconds: float = 300.0
    visits: int = 50
    photos: int = 200
    visit_megabytes: int = 2000
    visit_minutes: float = 30.0
    open_megapixels: int = 150

    @property
    def bytes(self) -> int:
        return self.megabytes * 1_000_000

    @property
    def pixels(self) -> int:
        return self.megapixels * 1_000_000
