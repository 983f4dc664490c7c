"""What a consumer is given to say that it has done with a message: a claim, good for one generation."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from acgs2.errors import ConflictError, InputError

__all__ = ["ClaimId", "of_generation"]

_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ClaimId:
    """A claim's name: the generation that made it, whose message it is, and what nobody can guess."""

    generation: int
    message: UUID
    nonce: UUID

    def __str__(self) -> str:
        return f"{self.generation}.{self.message.hex}.{self.nonce.hex}"

    @classmethod
    def parse(cls, text: str) -> ClaimId:
        """Return the claim of a name.

        Raises:
            InputError: it is none (`claim-malformed`).
        """
        parts = text.split(".")
        try:
            number, message, nonce = parts
            if not (number.isascii() and number.isdecimal() and int(number) <= _MOST):
                raise ValueError(number)
            found = cls(int(number), UUID(hex=message), UUID(hex=nonce))
        except ValueError:
            found = None
        if found is None or str(found) != text:
            raise InputError(
                "claim-malformed", "This is no claim.", hint="Send claims as they were given, unchanged."
            )
        return found


def of_generation(claims: list[ClaimId], generation: int) -> None:
    """Refuse claims of another generation than the one that is served.

    Raises:
        ConflictError: some are older (`generation-old`); none is honoured.
    """
    old = [str(claim) for claim in claims if claim.generation != generation]
    if old:
        raise ConflictError(
            "generation-old",
            f"{len(old)} of {len(claims)} claims were made in another generation of this inbox.",
            hint="Claim again: what was not acknowledged in time is delivered again.",
            generation=generation,
            claims=old,
        )
