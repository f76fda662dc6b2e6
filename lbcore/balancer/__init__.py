"""``lbcore.Balancer``: an lbcore that a Python program runs for itself.

``balancer`` is what programs see; ``prepare`` makes a file of what they configure, ``ports`` holds
the ports that are chosen for them, ``process`` starts lbcore and listens to it, ``keeper`` is the
process between the two that leaves nothing behind, ``feed`` asks their callables for backends.
"""

from lbcore.balancer.balancer import AsyncBalancer, Balancer
from lbcore.balancer.process import BalancerError

__all__ = ["AsyncBalancer", "Balancer", "BalancerError"]
