"""How fast the OTLP receiver is."""
