"""The HTTP server: `app` has the routes, `auth` TLS and authentication, `server` the protocol and the signals.

`browsers` protects from web pages of other sites. `connections` and `passwords` limit what a client can hold and how
much work it can cause.

Only this package imports starlette and uvicorn, apart from the simulator, which is a separate server.
"""
