"""The HTTP scenarios: customers of the Django shop in ``loadtests/shop``, through lbcore.

``catalog.py`` says who the customers are and what must hold, ``customers.py`` what they do,
``browser.py`` how they ask, ``trouble.py`` what happens meanwhile, and ``judge.py`` what is
excused.
"""
