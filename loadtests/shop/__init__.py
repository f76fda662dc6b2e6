"""A small shop on Django, which the HTTP load scenarios have customers in.

It runs as ASGI application, ``uvicorn loadtests.shop.asgi:application``, one process an instance.
What a customer has (who he is, his basket, who else is in the chat) lives in the memory of the
instance he logged in at: on another one he is a stranger. So whether sessions stick shows.

``asgi.py`` is the door: what belongs to the instance (its name in every answer, its health, the
faults it is told to have) in ``instance.py``, the chat in ``chat.py``, everything else is Django's.
"""
