"""Clients and servers of HTTP/2, gRPC, Connect and TLS, and the errors that they raise."""
