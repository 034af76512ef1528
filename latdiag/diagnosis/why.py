"""Every claim on one component, those that lost too: what ``diagnose --why`` is about."""

from __future__ import annotations

from dataclasses import dataclass

from latdiag.diagnosis.result import SCHEMA_VERSION, Claim, Result


@dataclass(frozen=True, slots=True)
class Why:
    """The claims of a result on ``component``."""

    result: Result
    component: str

    @property
    def claims(self) -> tuple[Claim, ...]:
        return self.result.claims.get(self.component, ())

    def to_json(self) -> dict[str, object]:
        result = self.result
        return {
            "schema": SCHEMA_VERSION,
            "verb": result.verb,
            "run": result.run,
            "runs": result.runs or (result.run,),
            "valid": result.valid,
            "invalid_because": result.invalid_because,
            "component": self.component,
            "populations": {
                population: {
                    "interval": found.interval,
                    "n": found.n,
                    "segments": found.segments,
                    "total_ns": found.total_ns,
                    "insufficient": found.insufficient,
                }
                for population, found in result.breakdowns.items()
            },
            "claims": self.claims,
        }
