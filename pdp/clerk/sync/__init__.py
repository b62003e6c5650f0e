"""The periodic comparison of the database with Clerk's Backend API."""
