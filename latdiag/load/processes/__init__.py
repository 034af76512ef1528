"""The processes that make a load: a parent, readers, a writer."""
