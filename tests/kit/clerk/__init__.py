"""Clerk as seen from outside: its Backend API, its webhooks, accounts and their databases."""
