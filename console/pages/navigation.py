"""Links of the navigation."""

from __future__ import annotations

from dataclasses import dataclass

from console.access.roles import Identity, Role


@dataclass(frozen=True, slots=True)
class NavLink:
    """A link of the navigation, for users with a role, or only for admins without limits."""

    title: str
    path: str
    role: Role = Role.VIEWER
    manager: bool = False

    def shown_to(self, identity: Identity) -> bool:
        """Return whether a user sees the link."""
        return identity.role.includes(self.role) and (identity.manages_users or not self.manager)


NAVIGATION = (
    NavLink("Live", "/wall"),
    NavLink("Incidents", "/incidents"),
    NavLink("Events", "/events"),
    NavLink("Numbers", "/numbers"),
    NavLink("Ledger", "/ledger"),
    NavLink("System", "/system"),
    NavLink("Editor", "/editor", Role.OPERATOR),
    NavLink("Labels", "/labels", Role.OPERATOR),
    NavLink("Users", "/users", manager=True),
    NavLink("Audit", "/audit", manager=True),
    NavLink("Account", "/account"),
)
"""All links, in the order of the navigation. The start page of a user is the first page in this list that the user
may see."""


def links_of(identity: Identity) -> list[NavLink]:
    """Return the links that a user sees."""
    return [link for link in NAVIGATION if link.shown_to(identity)] if not identity.must_change else []
