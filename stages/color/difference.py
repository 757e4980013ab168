"""How different two colors look (CIEDE2000), and how colorful one picture is."""

from __future__ import annotations

import torch
from torch import Tensor


def ciede2000(lab1: Tensor, lab2: Tensor) -> Tensor:
    """CIEDE2000 color difference with k_L = k_C = k_H = 1: (..., 3, H, W) twice -> (..., H, W).

    Equation numbers are those of Sharma, Wu, Dalal 2005 (Color Research and Application 30, 21-30). Gradients
    are finite everywhere; between equal colors, where the formula has a kink, they are 0.
    """
    lightness1, a1, b1 = lab1.unbind(-3)
    lightness2, a2, b2 = lab2.unbind(-3)
    chroma1, chroma2 = _length(a1, b1), _length(a2, b2)  # (2)
    stretch = 1.5 - 0.5 * _saturation((chroma1 + chroma2) / 2)  # 1 + G, (4)
    chroma1, hue1 = _polar(stretch * a1, b1)  # (5) to (7)
    chroma2, hue2 = _polar(stretch * a2, b2)

    colored = (chroma1 > 0) & (chroma2 > 0)
    turn = hue2 - hue1  # (10)
    turn = turn - 360 * (turn > 180) + 360 * (turn < -180)
    turn = torch.where(colored, turn, 0)
    product = torch.where(colored, chroma1 * chroma2, 1)
    hue_step = 2 * product.sqrt() * _sin(turn / 2)  # (11)

    lightness = (lightness1 + lightness2) / 2  # (12)
    chroma = (chroma1 + chroma2) / 2  # (13)
    hue = (hue1 + turn / 2) % 360  # (14); beside a gray it does not count, since hue_step is 0
    t = (1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue)
         + 0.32 * _cos(3 * hue + 6) - 0.20 * _cos(4 * hue - 63))  # (15)
    tilt = 30 * torch.exp(-(((hue - 275) / 25) ** 2))  # (16)
    rotation = -2 * _saturation(chroma) * _sin(2 * tilt)  # (17), (21)
    square = (lightness - 50) ** 2
    l_part = (lightness2 - lightness1) / (1 + 0.015 * square / (20 + square).sqrt())  # (18)
    c_part = (chroma2 - chroma1) / (1 + 0.045 * chroma)  # (19)
    h_part = hue_step / (1 + 0.015 * chroma * t)  # (20)
    square = l_part**2 + c_part**2 + h_part**2 + rotation * c_part * h_part
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)  # (22)


def _saturation(chroma: Tensor) -> Tensor:
    """sqrt(C^7 / (C^7 + 25^7)) of (4) and (17), in a form whose gradient at 0 is finite."""
    power = (chroma / 25) ** 3.5
    return power / (1 + power**2).sqrt()


def _length(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a^2 + b^2), its gradient at 0 being 0. torch's vector_norm over channels takes a hundred times as long."""
    square = a * a + b * b
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def _polar(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Chroma and hue in degrees; below a chroma of 1e-12 both are 0, since 1 / chroma^2 would overflow."""
    chroma = _length(a, b)
    colored = chroma > 1e-12
    hue = torch.rad2deg(torch.atan2(torch.where(colored, b, 0), torch.where(colored, a, 1))) % 360
    return torch.where(colored, chroma, 0), hue


def _sin(degrees: Tensor) -> Tensor:
    return torch.sin(torch.deg2rad(degrees))


def _cos(degrees: Tensor) -> Tensor:
    return torch.cos(torch.deg2rad(degrees))


def colorfulness(rgb: Tensor) -> Tensor:
    """How colorful pictures look (Hasler and Suesstrunk 2003, M3): (..., 3, H, W) in [0, 1] -> (...).

    On the 8-bit scale, as published: 0 for gray, 15 slightly, 45 averagely, 82 highly colorful.
    """
    red, green, blue = (255 * rgb).unbind(-3)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=-3)
    deviation = torch.linalg.vector_norm(opponents.std((-2, -1), correction=0), dim=-1)
    return deviation + 0.3 * torch.linalg.vector_norm(opponents.mean((-2, -1)), dim=-1)
