"""First room after config: how a runtime is read. All that knows the shape of its HTTP API stays in here.

`client` asks, `wire` decodes what arrives, `statuses` maps its wording to ideas; what leaves the room are the
frozen values of `model`.
"""
