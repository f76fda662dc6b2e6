"""Measures lbcore against HAProxy, nginx and Envoy on the same work.

``python -m loadtests.compare`` runs the comparison, ``python -m loadtests.compare.syscalls``
counts system calls and ``python -m loadtests.compare.reloads`` reloads each of them under
connections that stay. How and why it measures the way it does: ``docs/internals/measuring.md``.
"""
