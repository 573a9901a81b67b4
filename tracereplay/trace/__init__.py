"""The trace store: schema, writer, reader, validation, and the capture that fills it."""
