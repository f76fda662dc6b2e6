"""Where a pool's backends come from when no file of lbcore's names them.

``answers`` understands what files and callables say, ``ask`` calls a callable again and again,
``child`` is the process in which lbcore runs one. The supervisor watches them
(``lbcore/supervisor/discovery.py``); ``lbcore.Balancer`` asks callables of its own program.
Standard library only.
"""

from lbcore.discovery.answers import BadAnswer, backends_of, read_file
from lbcore.discovery.ask import ask

__all__ = ["BadAnswer", "ask", "backends_of", "read_file"]
