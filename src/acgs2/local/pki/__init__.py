"""The certificate authority of a local cluster: certificates in files that proxies follow.

The folder, for whoever reads it:

- `trust.json` (Envoy's secret discovery by file, one secret "trust") names the bundle `trust-N.pem`.
- `trust.pem` is a copy of that bundle under a name that stays, for clients.
- `NAME/secret.json` (one secret "identity") names `NAME/SERIAL.pem` and `.key`. NAME is a region, or "edge".
- `authority-N.pem` and `.key` are the authorities.
"""

from acgs2.local.pki.change import Standing, Step, next_step
from acgs2.local.pki.folder import Found, advance, ensure, inspect, probe, rotate, standing
from acgs2.local.pki.issue import EDGE, LEAF_LIFE
from acgs2.local.pki.live import Endpoint, Target, change_authority, endpoints_of, rotate_leaves

__all__ = [
    "EDGE",
    "LEAF_LIFE",
    "Endpoint",
    "Found",
    "Standing",
    "Step",
    "Target",
    "advance",
    "change_authority",
    "endpoints_of",
    "ensure",
    "inspect",
    "next_step",
    "probe",
    "rotate",
    "rotate_leaves",
    "standing",
]
