"""`python -m cli` in a bare checkout, `python -m k710_cli` when installed."""

from .main import main

if __name__ == "__main__":
    main()
