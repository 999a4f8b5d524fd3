"""What the store says to its database. Imported in the store's own threads alone: SQLAlchemy takes half a second."""
