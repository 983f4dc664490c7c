"""The audit log: a Merkle tree per life of a region, signed checkpoints, witnesses, proofs.

Acts insert leaves by `acgs.audit(...)` in their own transactions. `sequencer` gives them their order; `tree`,
`tiles`, `note`, `checkpoint` and `cosignature` are the formats, pure, and what `verify` judges exports with.
"""
