"""`python -m metarule` is the command line."""

from metarule.cli import main

if __name__ == "__main__":
    main()
