"""`python -m groschen` is the command `groschen`."""

from groschen.cli import main

main()
