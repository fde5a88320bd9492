"""`python -m jettison` is the command `jettison`."""

from jettison.cli.main import main

main()
