"""`python -m mhcnb`, which is also what torchrun starts."""

from mhcnb.cli import main

main()
