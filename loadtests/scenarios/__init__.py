"""Load scenarios: Locust against an lbcore of their own, with stated limits and a verdict.

``python -m loadtests.scenarios steady`` runs one. What each of them does, and how to read what it
leaves behind: ``docs/guide/load-testing.md``.

A run has three parties, each in processes of its own. The *stage* (``stage.py``) is lbcore with
its echo backends (``echo.py``). The *load* is Locust with the users of ``users.py``, in the mix of
one of ``locustfiles/``. The *run* (``run.py``) starts both, disturbs the stage where the scenario
says so (``disturb.py``), and judges what was counted (``judge.py``) by the scenario's limits
(``catalog.py``).
"""
