"""The SQL part: tables, entities, the log of changes. It never imports `replica`."""
