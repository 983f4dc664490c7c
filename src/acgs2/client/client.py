"""The client: one pool of connections to a cluster, and the resources over it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack
from uuid import UUID
from weakref import WeakSet

import httpx

import acgs2
from acgs2.client.bus import CONSTITUTION, Deliberations, InboxCalls, Messages
from acgs2.client.calls import Caller
from acgs2.client.inbox import Inbox
from acgs2.client.places import AUTO, Trust, base_url, is_loopback
from acgs2.client.requests import Defaults, ReadOptions
from acgs2.client.resources import Agents, AuditEvents, Configs, Subscriptions, Tenants, Users
from acgs2.client.tokens import Tokens, TokenSource
from acgs2.errors import InputError

__all__ = ["Client"]


class Client:
    """A client of ACGS-2, used as `async with Client(...) as client`.

    Calls are repeated while that is safe and their deadline has not passed, follow what is not lawful where
    it was asked, and raise only errors of `acgs2.errors`, and what the token's callable raises.

    Args:
        url: where the edge or a region is reached; of several, the next one is tried where one fails.
        zone: whose data it is, unless a call names another.
        token: a bearer token, or a function, plain or async, that returns a fresh one.
        region: `auto`, or the only region that may be asked.
        ca: the certificate of a private authority, a PEM file.
        domain: the domain that all regions' hosts are under; the token is sent there and to the hosts of
            `url`, and nowhere else.
        timeout_s: how long a call takes at most, with all attempts and waits.
        constitution: the constitutional hash that messages name; where another one is in force they are
            refused, and it is for you to decide anew.

    Raises:
        InputError: an argument cannot be used.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        zone: str | None = None,
        token: TokenSource,
        region: str = AUTO,
        ca: str | Path | None = None,
        domain: str | None = None,
        timeout_s: float = 30.0,
        constitution: str = CONSTITUTION,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise InputError("url-missing", "There is no URL.", hint="Give one base URL, or several.")
        trust = Trust(tuple(dict.fromkeys(base_url(each) for each in urls)), domain)
        defaults = Defaults(zone, region, timeout_s).with_options({})
        self._ca = ca
        self._local = all(is_loopback(each) for each in trust.homes)
        self._caller = Caller(trust, Tokens(token))
        self.tenants = Tenants(self._caller, defaults)
        self.users = Users(self._caller, defaults)
        self.agents = Agents(self._caller, defaults)
        self.configs = Configs(self._caller, defaults)
        self.subscriptions = Subscriptions(self._caller, defaults)
        self.audit_events = AuditEvents(self._caller, defaults)
        self.messages = Messages(self._caller, defaults, constitution)
        self.deliberations = Deliberations(self._caller, defaults)
        self.send = self.messages.send
        self.approve = self.deliberations.approve
        self.deny = self.deliberations.deny
        self.wait_for_verdict = self.deliberations.wait
        self._inbox_calls = InboxCalls(self._caller, defaults)
        self._inboxes: WeakSet[Inbox] = WeakSet()

    def inbox(
        self,
        agent: UUID | str,
        *,
        limit: int = 10,
        hold_s: float = 30.0,
        wait_s: float = 20.0,
        remember: int = 10_000,
        **options: Unpack[ReadOptions],
    ) -> Inbox:
        """Return an agent's inbox, to be iterated over; see Inbox.

        Args:
            agent: its id; the token is its own, or that of a service of its tenant.
            limit: how many messages are claimed at once, 1 to 100.
            hold_s: how long one may be worked on before it is given to somebody else too.
            wait_s: how long one claim waits for something to come.
            remember: how many messages that are done with are told when they come again.
            options: see ReadOptions.
        """
        made = Inbox(
            self._inbox_calls,
            self.messages,
            agent,
            limit=limit,
            hold_s=hold_s,
            wait_s=wait_s,
            remember=remember,
            options=options,
        )
        self._inboxes.add(made)
        return made

    async def __aenter__(self) -> Self:
        """Open the client.

        Raises:
            InputError: the file of `ca` cannot be read (`ca-invalid`).
        """
        http = httpx.AsyncClient(
            verify=_verification(self._ca, self._local),
            trust_env=not self._local,
            follow_redirects=False,
            headers={"user-agent": f"acgs2/{acgs2.__version__}"},
        )
        await self._caller.open(http)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what inboxes hold, and close all connections."""
        for inbox in list(self._inboxes):
            await inbox.close()
        await self._caller.close(kind, error, trace)


def _verification(ca: str | Path | None, local: bool) -> ssl.SSLContext:
    """Return how servers' certificates are checked; loopback without `ca` trusts none and reads no file."""
    if ca is None:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if local else httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "ca-invalid", f"No certificates could be read from {ca}.", hint="Give a PEM file.", path=str(ca)
        ) from error
