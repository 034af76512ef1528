"""Spans as OpenTelemetry sends them (OTLP): received, bounded, reduced to an allow list, kept."""
