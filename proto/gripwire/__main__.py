"""`python -m gripwire` is the `gripwire` command."""

from gripwire.cli import main

main()
