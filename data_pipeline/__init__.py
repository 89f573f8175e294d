"""Raw text to token shards: sources, extraction, cleaning, filters, deduplication, corpus, tokenizer, shards."""
