"""Audio mechanisms: PCM types, Opus, resampling and streamed decoding, all through PyAV."""
