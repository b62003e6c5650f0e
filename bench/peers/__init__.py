"""The servers that answer the same question. One file for each; `table.py` lists them."""
