"""``lbcore doctor``: what this machine offers, what lbcore needs of it, and what to change.

``needs`` says what a configuration asks for; ``kernel``, ``limits`` and ``sysctl`` look at the
machine and judge; ``report`` puts it together. Nothing here changes anything.
"""

from lbcore.doctor.model import Check, Level, Report
from lbcore.doctor.report import examine

__all__ = ["Check", "Level", "Report", "examine"]
