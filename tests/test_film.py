import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages.color.spaces import gray_from_rgb
from stages.corruptions.film import BLUE_FILM, blurred, film_degraded


def photographs(count: int = 400) -> torch.Tensor:
    return torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 16, 16).contiguous()


def test_a_share_of_pictures_ages_and_the_others_stay():
    rgb = photographs()
    gray = gray_from_rgb(rgb)
    assert torch.equal(film_degraded(rgb, 0.0), gray)
    torch.manual_seed(0)
    aged = film_degraded(rgb, 0.3)
    changed = (aged != gray).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.06)
    assert torch.equal(aged[~changed], gray[~changed])
    assert aged.shape == gray.shape and aged.min() >= 0 and aged.max() <= 1


def test_half_precision_makes_no_difference():
    made = []
    for on in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            made.append(film_degraded(photographs(), 1.0))
    assert torch.equal(*made) and made[0].dtype == torch.float32


def test_the_same_generator_draws_the_same_prints():
    torch.manual_seed(5)
    first = film_degraded(photographs(), 1.0)
    assert not torch.equal(first, film_degraded(photographs(), 1.0))
    torch.manual_seed(5)
    assert torch.equal(first, film_degraded(photographs(), 1.0))


def test_old_film_sees_red_as_dark_and_blue_as_light():
    """Of equal luma, over many prints; a gray scene has no color for film to miss."""
    assert sum(BLUE_FILM) == pytest.approx(1)
    red, blue = torch.tensor([0.8, 0.2, 0.2]), torch.tensor([0.2, 0.3, 0.9])
    means = []
    for color in (red, blue):
        torch.manual_seed(1)
        rgb = color.view(1, 3, 1, 1).expand(2000, 3, 8, 8)
        means.append(film_degraded(rgb, 1.0).mean() - gray_from_rgb(rgb).mean())
    assert means[0] < means[1] - 0.02


def test_the_blur_is_gaussian_and_each_pictures_own():
    picture = torch.rand(3, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    widths = [1e-9, 0.7, 1.4]
    ours = blurred(picture, torch.tensor(widths))
    assert torch.equal(ours[0], picture[0])
    for number in (1, 2):
        expected = gaussian_filter(picture[number, 0].numpy(), widths[number], mode="nearest", radius=3)
        torch.testing.assert_close(ours[number, 0], torch.from_numpy(expected), atol=1e-6, rtol=0)
