"""Checks of a deployment: settings, database, issuers, clock, Clerk, and one token."""
