"""A small trained router as a LangGraph node."""
