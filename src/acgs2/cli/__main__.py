"""`python -m acgs2.cli`."""

from acgs2.cli import main

main()
