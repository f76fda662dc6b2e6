"""``python -m lbcore`` is the same command as ``lbcore``."""

from lbcore.cli import main

if __name__ == "__main__":
    main()
