"""From a pile of raw problems to trainable data: one module a step of `ringrl data`, and the shards they work on."""
