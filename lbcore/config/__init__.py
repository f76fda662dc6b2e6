"""lb.toml -> Config -> Plan.

``load`` reads and checks a file, ``to_plan`` says what it means; whatever is wrong comes as one
``ConfigError`` with every ``Problem`` in it.
"""

from lbcore.config.compile import admin_address, default_admin_address, to_plan
from lbcore.config.load import Loaded, load, load_file, parse
from lbcore.config.models import Config
from lbcore.config.plan import Plan
from lbcore.config.problems import ConfigError, Problem

__all__ = [
    "Config",
    "ConfigError",
    "Loaded",
    "Plan",
    "Problem",
    "admin_address",
    "default_admin_address",
    "load",
    "load_file",
    "parse",
    "to_plan",
]
