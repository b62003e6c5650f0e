"""The SQL half of the room: tables, entities, the log of changes. It never imports `replica`."""
