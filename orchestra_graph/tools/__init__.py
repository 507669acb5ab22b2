"""What the router can call: experts, code, search, graphs. Any LangChain tool or function is a tool as it is."""
