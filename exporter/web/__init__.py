"""Last room: who asks. `app` has the routes, `server` the socket and the signals.

This room alone imports starlette and uvicorn (beside the simulator, which is a server of its own).
"""
