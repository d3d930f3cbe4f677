"""Tags that begin an entity with `I-`: an error in BIO, the rule in IOB1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from manyheads.tasks import entity_starts


@dataclass(slots=True)
class TagStarts:
    """Counts the tags of one task in one file, which show its scheme at the end."""

    limit: int
    """The number of places that are stored."""
    inside: list[tuple[str, str]] = field(default_factory=list)
    """Places and tags of the first entities that begin with `I-`, `M-`, `E-` or `L-`."""
    inside_count: int = 0
    begin_count: int = 0
    """Entities that begin with `B-` (or `S-`, `U-`, `W-`) where IOB1 would not."""
    prefixes: set[str] = field(default_factory=set)

    def add(self, tags: Sequence[str], where: str) -> None:
        """Count one sentence's tags."""
        before = ""
        for i, (tag, (begins, kind)) in enumerate(zip(tags, entity_starts(tags), strict=True)):
            if kind:
                self.prefixes.add(tag[0])
            if begins and tag[0] in "BSUW":
                self.begin_count += kind != before
            elif begins:
                self.inside_count += 1
                if len(self.inside) < self.limit:
                    self.inside.append((where, f"tag {i}, {tag},"))
            before = kind

    @property
    def scheme(self) -> str:
        """The name of the scheme; `BIO` if the tags show no other."""
        if self.prefixes & set("ESW"):
            return "IOBES"
        if self.prefixes & set("LU"):
            return "BILOU"
        return "IOB1" if self.inside_count and not self.begin_count else "BIO"
