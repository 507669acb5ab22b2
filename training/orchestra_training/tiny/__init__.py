"""The tiny router: a small Qwen3 that speaks the protocol `scan`, made and taught from scratch."""
