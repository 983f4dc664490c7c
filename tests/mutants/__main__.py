"""`python -m tests.mutants [NAME ...] [--json]`: exit status 1 if a mutant survives, 2 if there is none such."""

from __future__ import annotations

import argparse
import json
import sys
import time

from tests.mutants.declared import Mutant, declared
from tests.mutants.run import LIMIT_S, Run, Verdict, judge, run_tests


def main() -> int:
    """Run the mutants that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mutants; none means all")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    options = parser.parse_args()
    known = {mutant.name: mutant for mutant in declared()}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"no such mutant: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in options.names] or list(known.values())
    began_s = time.monotonic()
    # By file, so that databases which a file's tests share are made once.
    nodes = sorted({node for mutant in chosen for node in mutant.nodes}, key=lambda n: n.split("::", 1)[0])
    _say(f"{len(chosen)} mutants; {len(nodes)} tests on the code as it is ...")
    sound = run_tests(nodes, None, LIMIT_S * 3)
    _say(f"... {sum(c.outcome == 'passed' for c in sound.cases)} passed in {sound.seconds:.0f} s")
    verdicts = [_one(mutant, sound, number, len(chosen)) for number, mutant in enumerate(chosen, 1)]
    if options.json:
        print(json.dumps([_plain(v) for v in verdicts], indent=2))
    else:
        _table(verdicts)
    survivors = [v.mutant.name for v in verdicts if not v.killed]
    _say(f"{len(verdicts) - len(survivors)} of {len(verdicts)} killed in {time.monotonic() - began_s:.0f} s")
    if sound.status != 0:
        _say(sound.output)
    return 1 if survivors else 0


def _one(mutant: Mutant, sound: Run, number: int, of: int) -> Verdict:
    run = run_tests(mutant.nodes, mutant)
    verdict = judge(mutant, sound.cases, run)
    word = "killed" if verdict.killed else f"SURVIVED: {verdict.why}"
    _say(f"{number:>3}/{of} {mutant.name} {run.seconds:.0f} s {word}")
    if not verdict.killed:
        _say(run.output[-4000:])
    return verdict


def _table(verdicts: list[Verdict]) -> None:
    width = max(len(v.mutant.name) for v in verdicts)
    print(f"{'mutant':<{width}}  seconds  killed by")
    for verdict in verdicts:
        by = ", ".join(verdict.mutant.tests) if verdict.killed else f"SURVIVED: {verdict.why}"
        print(f"{verdict.mutant.name:<{width}}  {verdict.seconds:>7.1f}  {by}")


def _plain(verdict: Verdict) -> dict[str, object]:
    return {
        "name": verdict.mutant.name,
        "promise": verdict.mutant.promise,
        "killed": verdict.killed,
        "why": verdict.why,
        "tests": list(verdict.mutant.tests),
        "seconds": round(verdict.seconds, 1),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
