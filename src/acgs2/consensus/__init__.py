"""Agreement: a register over a majority of voters, and leases on it. Nothing decides alone.

CASPaxos (Rystsov 2018): no log, no leader needed; every change prepares, adopts the highest accepted value
and has it accepted again. The same interface stands over etcd where one is run already.
"""

from acgs2.consensus.documents import KINDS, Document, Documents, digest_of
from acgs2.consensus.etcd import EtcdRegister
from acgs2.consensus.leader import Leader
from acgs2.consensus.lease import Lease, boottime_s
from acgs2.consensus.register import Acceptor, PaxosRegister, Register, Versioned
from acgs2.consensus.votes import Ballot, Vote

__all__ = [
    "KINDS",
    "Acceptor",
    "Ballot",
    "Document",
    "Documents",
    "EtcdRegister",
    "Leader",
    "Lease",
    "PaxosRegister",
    "Register",
    "Versioned",
    "Vote",
    "boottime_s",
    "digest_of",
]
