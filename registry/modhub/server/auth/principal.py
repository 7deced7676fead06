"""Principals and what they may do: all rules of authorization."""

from __future__ import annotations

from dataclasses import dataclass

from modhub.server.errors import HTTPError
from modhub.store.records import RepositoryRecord

ROLES = ("read", "write", "admin")


@dataclass(frozen=True, slots=True)
class Principal:
    """A user with the rights of a token; `name` is None without one."""

    name: str | None
    role: str
    organisations: tuple[str, ...] = ()
    token: str = ""

    @property
    def admin(self) -> bool:
        """Whether everything is allowed."""
        return self.role == "admin"

    @property
    def namespaces(self) -> frozenset[str]:
        """Namespaces this principal belongs to, in lower case."""
        names = () if self.name is None else (self.name, *self.organisations)
        return frozenset(name.lower() for name in names)

    @property
    def visible(self) -> frozenset[str] | None:
        """The namespaces whose private repositories are listed; None: all."""
        return None if self.admin else self.namespaces

    def belongs_to(self, namespace: str) -> bool:
        """Whether `namespace` is the user's or one of their organisations'; an admin belongs to all."""
        return self.admin or namespace.lower() in self.namespaces


ANONYMOUS = Principal(None, "read")


def authorize(principal: Principal, repository: RepositoryRecord, action: str) -> None:
    """Return when `principal` may do `action`; raise the `HTTPError` to answer with otherwise.

    Actions: `see` (name, tags, file names, card), `read` (the files' content; gates count), `write`
    (all changes). For those who may not see a repository the answer is that of a missing one.
    """
    settings = repository.settings
    member = principal.belongs_to(repository.id.namespace)
    if settings.private and not member:
        raise missing_repository(principal)
    if action == "see" or (action == "read" and (member or not settings.gated)):
        return
    if action == "read":
        if settings.gated == "auto" and principal.name is not None:
            return
        readers = {name.lower() for name in settings.readers}
        if principal.name is not None and principal.name.lower() in readers:
            return
        raise HTTPError(
            401 if principal.name is None else 403,
            f"Access to {repository.kind} {repository.id} is restricted and you are not in the authorized "
            "list.",
            code="GatedRepo",
        )
    authorize_namespace(principal, repository.id.namespace)


def authorize_namespace(principal: Principal, namespace: str) -> None:
    """Whether `principal` may create and change repositories below `namespace`."""
    if principal.name is None:
        raise HTTPError(401, "This requires authentication with a write token.")
    if principal.role not in ("write", "admin"):
        raise HTTPError(403, "This token is read-only.")
    if not principal.belongs_to(namespace):
        raise HTTPError(403, f"You don't have write access to the namespace '{namespace}'.")


def missing_repository(principal: Principal) -> HTTPError:
    """The answer for a repository that does not exist, and for one that the principal may not see."""
    return HTTPError(401 if principal.name is None else 404, "Repository not found", code="RepoNotFound")
