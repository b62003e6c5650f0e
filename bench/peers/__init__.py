"""Who is asked the same question. One file for each; `table.py` lists them."""
