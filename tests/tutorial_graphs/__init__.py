"""Three graphs of LangGraph's documentation, rebuilt with scripted models: what somebody has before there is a router.

Nothing here knows of the router; `tests/test_add_router_tutorials.py` adds it and runs the same tests on both.
"""
