"""What shall be done, decided over plain values: where traffic goes, and how it leaves and returns."""

from acgs2.plan.failback import Measured, Standing, failback, gate, readmit
from acgs2.plan.failover import Circumstances, choose, due, failover, retarget
from acgs2.plan.observations import Judged, Observation, fold, judge
from acgs2.plan.rights import Rights, known_in, rights_of
from acgs2.plan.steps import Agreed, Choice, Note, Plan, Shares, Step, StepKind, agreed_of, document_of
from acgs2.plan.traffic import Kind, Routing, Target, kind_of, route

__all__ = [
    "Agreed",
    "Choice",
    "Circumstances",
    "Judged",
    "Kind",
    "Measured",
    "Note",
    "Observation",
    "Plan",
    "Rights",
    "Routing",
    "Shares",
    "Standing",
    "Step",
    "StepKind",
    "Target",
    "agreed_of",
    "choose",
    "document_of",
    "due",
    "failback",
    "failover",
    "fold",
    "gate",
    "judge",
    "kind_of",
    "known_in",
    "readmit",
    "retarget",
    "rights_of",
    "route",
]
