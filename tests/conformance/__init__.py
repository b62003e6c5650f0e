"""The servers for the tests of the guards of every language: clients/conformance/README.md."""
