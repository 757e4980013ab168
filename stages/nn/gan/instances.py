"""Style of instances, as pix2pixHD has it (arXiv 1711.11585, sections 3.3 and 3.4), where a map says which is which.

    boundary_map      where instances meet: one more channel of a generator's input
    FeatureEncoder    three numbers for each instance of a picture, learned with the generator and given to it
    cluster_centers   what these numbers are like over many pictures: at use one center is the style of an instance

Colorization has no such map; these are for conditions that have one.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from stages.nn.gan.layers import initialize
from stages.nn.gan.pix2pixhd import Answer, Trunk

__all__ = ["FeatureEncoder", "boundary_map", "cluster_centers", "instance_means"]


def boundary_map(instances: Tensor) -> Tensor:
    """1 where one of the four neighbors belongs to another instance: (B, 1, H, W) of ids -> (B, 1, H, W) float32."""
    edge = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[..., 1:] != instances[..., :-1]
    edge[..., 1:] |= across
    edge[..., :-1] |= across
    down = instances[..., 1:, :] != instances[..., :-1, :]
    edge[..., 1:, :] |= down
    edge[..., :-1, :] |= down
    return edge.float()


def instance_means(features: Tensor, instances: Tensor) -> Tensor:
    """Features averaged over each instance of each picture, at all of its pixels.

    features: (B, C, H, W); instances: (B, 1, H, W) of ids, of any integers -> (B, C, H, W)
    """
    if instances.shape != (len(features), 1, *features.shape[2:]):
        shape = (len(features), 1, *features.shape[2:])
        raise ValueError(f"instances must be {shape} like the features; got {tuple(instances.shape)}")
    ids = instances.long()
    picture = torch.arange(len(ids), device=ids.device).view(-1, 1, 1, 1).expand_as(ids)
    _, numbers = torch.unique(torch.stack([picture, ids]).flatten(1), dim=1, return_inverse=True)
    rows = features.movedim(1, -1).flatten(0, 2)
    count = int(numbers.max()) + 1
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, numbers, rows)
    means = sums / torch.bincount(numbers, minlength=count).to(rows)[:, None]
    return means[numbers].unflatten(0, ids[:, 0].shape).movedim(-1, 1)


class FeatureEncoder(nn.Module):
    """Picture (B, inputs, H, W), instances (B, 1, H, W) -> features (B, outputs, H, W) in [-1, 1].

    The same at all pixels of an instance. The global generator's form without residual blocks.
    """

    def __init__(self, inputs: int = 3, outputs: int = 3, channels: int = 16, halvings: int = 4) -> None:
        super().__init__()
        self.trunk = Trunk(inputs, channels, halvings, 0, "instance")
        self.write = Answer(channels, outputs)
        initialize(self)

    def forward(self, x: Tensor, instances: Tensor) -> Tensor:
        return instance_means(self.write(self.trunk(x)), instances)


def cluster_centers(
    features: Tensor, clusters: int = 10, generator: Generator | None = None, rounds: int = 100
) -> Tensor:
    """K-means (Lloyd 1982) of the features of a class's instances: (N, C) -> (clusters, C).

    The first centers are drawn as in k-means++ (Arthur and Vassilvitskii 2007). Raises ValueError for fewer different
    features than clusters.
    """
    different = len(features.unique(dim=0)) if features.ndim == 2 else 0
    if not 1 <= clusters <= different:
        raise ValueError(f"clusters must be from 1 to the {different} different features; got {clusters}")
    centers = features[torch.randint(len(features), (1,), generator=generator)]
    while len(centers) < clusters:
        nearest = torch.cdist(features, centers).amin(1).square()
        centers = torch.cat([centers, features[torch.multinomial(nearest, 1, generator=generator)]])
    for _ in range(rounds):
        member = torch.cdist(features, centers).argmin(1)
        moved = torch.stack([
            features[member == number].mean(0) if (member == number).any() else center
            for number, center in enumerate(centers)
        ])  # fmt: skip
        if torch.equal(moved, centers):
            break
        centers = moved
    return centers
