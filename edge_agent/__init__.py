"""The edge agent: captures frames next to the cameras, gates, redacts, spools and sends them."""
