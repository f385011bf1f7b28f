"""The database: schema, connections, reading and writing."""
