"""The services of gRPC: messages in, messages out. Each one is a few rows of the method table."""
