"""Base models that tests make, pinned as `tuneline pin` pins those in conf/."""

from pathlib import Path
from typing import Any

from tuneline.model.pinned import folder_digests


def pin(params: Path, folder: Path) -> None:
    """The files that lie in `folder` become those of the base in params.yaml."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.load(params)
    values.model.sha256 = dict(folder_digests(folder))
    OmegaConf.save(values, params)
