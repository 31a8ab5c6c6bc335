"""Pure text rules: clauses, what may be spoken, emotions, language, the built-in phrases. No I/O."""
