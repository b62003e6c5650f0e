"""What the guards of every language are tested against: clients/conformance/README.md."""
