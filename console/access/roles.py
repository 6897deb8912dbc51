"""Roles, and the limits of a user to sites and cameras. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ingest.site.file import UNNAMED


class Role(StrEnum):
    """The rights of a user. A viewer sees, an operator also acts on alerts and configuration, and an admin also
    manages users."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Position of the role: a higher rank has all rights of the lower ranks."""
        return list(Role).index(self)

    def includes(self, other: Role) -> bool:
        """Return whether this role has all rights of ``other``."""
        return self.rank >= other.rank


@dataclass(frozen=True, slots=True)
class Limits:
    """The part of a deployment that a user may see.

    With ``everywhere``, the user may see all sites and cameras. Without ``everywhere``, the user may see the cameras
    and sensors of ``sites``, and the cameras in ``cameras``.
    """

    everywhere: bool = False
    sites: frozenset[str] = frozenset()
    cameras: frozenset[str] = frozenset()

    def sees_site(self, site: str) -> bool:
        """Return whether the user may see everything of a site. ``site`` may be empty for a site without a name."""
        return self.everywhere or (site or UNNAMED) in self.sites

    def sees_camera(self, camera: str, site: str) -> bool:
        """Return whether the user may see a camera that belongs to ``site``."""
        return self.sees_site(site) or camera in self.cameras


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of one request, and the way in which the user signed in.

    ``via`` is ``session``, or ``token NAME`` for a request with an API token. ``csrf`` is the token that the forms of
    the session contain, empty for an API token.
    """

    user_id: int
    name: str
    role: Role
    limits: Limits
    via: str
    csrf: str = ""
    must_change: bool = False

    @property
    def manages_users(self) -> bool:
        """Whether the user may manage users and read the audit trail: an admin without limits."""
        return self.role is Role.ADMIN and self.limits.everywhere
