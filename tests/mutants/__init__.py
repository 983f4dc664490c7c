"""Mutants: our own code with one promise broken at a time, and the tests that must notice.

`mutants.yaml` declares them; `python -m tests.mutants` (`make mutants`) proves that each is killed: its tests
pass on the code as it is, and every one of them fails by an assertion on the mutated copy.
"""
