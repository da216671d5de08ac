"""Where two engines may name another best token: only where rounding, as it is elsewhere, decides."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tuneline.export.divergence import LogitsNV


@dataclass
class BestTokens:
    """Of each position: by how much the reference prefers its best token to the other's, or how far logits differ."""

    margins: list[float] = field(default_factory=list)  # where the best tokens are two
    differences: list[float] = field(default_factory=list)  # the largest, where they are one

    def add(self, reference_NV: "LogitsNV", other_NV: "LogitsNV") -> None:
        for ours, theirs in zip(reference_NV, other_NV, strict=True):
            best, others_best = int(ours.argmax()), int(theirs.argmax())
            if best == others_best:
                self.differences.append(float(np.abs(ours - theirs).max()))
            else:
                self.margins.append(float(ours[best] - ours[others_best]))

    def check(self) -> None:
        """Where the best tokens are two, the reference's logits of both lie closer than logits differ elsewhere.

        The difference at the position itself is not asked: it would explain any disagreement.
        """
        explained = max(self.differences)
        assert all(margin <= explained for margin in self.margins), f"{max(self.margins)} > {explained}"
