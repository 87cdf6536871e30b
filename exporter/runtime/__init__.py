"""Reads a runtime's HTTP API. Imports `config`, `status` and `errors`; nothing outside knows the API's format.

`client` sends requests through `http_client` and `connections`, `decoder` decodes the responses, `statuses` maps status
labels. Other packages get the frozen values of `model`.
"""
