#!/bin/sh
# Says what to paste into the browser's console to be somebody for an hour: npm run cookie user_ivan
set -eu
token=$("${PDP:-../../.venv/bin/pdp}" token mint --user "$1" --organization org_school --seconds 3600)
echo "document.cookie = \"__session=$token; path=/; samesite=lax\""
