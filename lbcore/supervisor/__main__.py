"""``python -m lbcore.supervisor CONFIG [STATE]``: what an upgrade exec()s.

STATE is the descriptor of the memory file that the earlier version wrote; it contains the text of
the configuration in force, and CONFIG is not read. The arguments are a
contract between versions: an old supervisor starts a new one with them.
"""

import sys
from pathlib import Path

from lbcore.supervisor import run

if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else -1))
