"""Where a region agrees with the others: over the voters' databases, or over an etcd that is run already."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from acgs2.consensus import Acceptor, EtcdRegister, PaxosRegister, Register
from acgs2.errors import RuntimeFault
from acgs2.topology import EtcdAgreement, Topology

__all__ = ["register_for"]


def register_for(topology: Topology, region: str, voters: Mapping[str, Acceptor]) -> Register:
    """Return the register that a topology names, as a region uses it.

    Args:
        topology: says which.
        region: the name under which it proposes.
        voters: every region's database that may vote and can be reached from here.

    Raises:
        RuntimeFault: a file that is named for TLS cannot be used (`etcd-tls`).
    """
    declared = topology.agreement
    if isinstance(declared, EtcdAgreement):
        return EtcdRegister(declared.endpoints, f"acgs2/{topology.name}", tls=_tls(declared))
    names = [name for name, each in topology.regions.items() if each.voter]
    return PaxosRegister(voters, region, names=names)


def _tls(declared: EtcdAgreement) -> ssl.SSLContext | None:
    if declared.ca is None and declared.certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=declared.ca)
        if declared.certificate is not None:
            context.load_cert_chain(declared.certificate, declared.key)
    except OSError as error:  # an SSLError is one as well
        raise RuntimeFault(
            "etcd-tls",
            f"The files that the topology names for etcd cannot be used: {error}.",
            hint="See agreement.ca, certificate and key in the topology; they are PEM.",
        ) from error
    return context
