"""The database: its schema, its connection, reading and writing it."""
