"""The HTTP server: `app` has the routes, `auth` TLS and authentication, `server` the socket and the signals.

Only this package imports starlette and uvicorn, apart from the simulator, which is a separate server.
"""
