"""One face for every network: pooled features, a linear classifier, and a projection head where a method needs one."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.external_resnet import resnet_units
from robustlab.models.maps import feature_maps
from robustlab.models.transformer import mlp_units
from robustlab.models.units import Units


class TwoHeads(nn.Module):
    """A trunk with a classifier and, where `proj_dim` is set, a projection head beside it.

    `trunk` maps images float [B, C, H, W] to pooled features float [B, feature_dim]. The projection is one linear
    layer with BatchNorm and no hidden layer (CrossSplit's official code); it is made last, so that trunk and
    classifier start from the same weights with and without it, and computed only when asked for.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        feature_dim: int,
        num_classes: int,
        proj_dim: int | None = None,
        classifier: nn.Linear | None = None,
    ):
        """Put the heads on `trunk`; `classifier` takes one over that has been trained already."""
        super().__init__()
        self.feature_dim = feature_dim
        self.trunk = trunk
        self.classifier = nn.Linear(feature_dim, num_classes) if classifier is None else classifier
        self.projection: nn.Sequential | None = None
        if proj_dim is not None:
            self.projection = nn.Sequential(nn.Linear(feature_dim, proj_dim), nn.BatchNorm1d(proj_dim))

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features that both heads read: float [B, feature_dim]."""
        return self.trunk(images)

    def maps(self, images: Tensor) -> Tensor:
        """Return the trunk's last feature maps before pooling: float [B, C, h, w]. Raises `ConfigError` without any."""
        return feature_maps(self.trunk, images)

    def units(self) -> Units:
        """Return the units that the trunk declares, with the heads as readers of its last features.

        Of a trunk that declares none, those of a library's residual blocks, or the hidden units of its transformer
        blocks, if there are any: see `resnet_units` and `mlp_units`.
        """
        declare = getattr(self.trunk, "units", None)
        declared = declare() if callable(declare) else resnet_units(self.trunk)
        if isinstance(declared, Units) and not declared.sets:
            declared = mlp_units(self.trunk)
        assert isinstance(declared, Units)
        heads = ["classifier"] if self.projection is None else ["classifier", "projection.0"]
        return declared.within("trunk", heads=heads)

    def forward(self, images: Tensor, project: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits [B, num_classes]; with `project`, (projection [B, proj_dim], not normalised, logits).

        Raises `ConfigError` when a projection is asked for and the network was built without one.
        """
        pooled = self.features(images)
        logits = self.classifier(pooled)
        if not project:
            return logits
        if self.projection is None:
            raise ConfigError(
                "a projection was asked of a network without a projection head; set model.proj_dim, "
                "e.g. model.proj_dim=128"
            )
        return self.projection(pooled), logits


def linear_probe(*, num_classes: int, image_shape: tuple[int, ...], proj_dim: int | None = None) -> TwoHeads:
    """Return the heads alone, on features float [B, F, 1, 1] that a frozen network has computed before."""
    return TwoHeads(nn.Flatten(), feature_dim=prod(image_shape), num_classes=num_classes, proj_dim=proj_dim)
