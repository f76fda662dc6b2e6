"""lbcore: a load balancer and reverse proxy for people who run Python services."""

__version__ = "0.1.0"
