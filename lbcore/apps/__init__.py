"""Applications that lbcore runs as backends.

``command`` knows the application servers; ``launch`` and ``pump`` are small programs that run
beside them, with no import from lbcore; ``demo`` is the demonstration backend.
"""
