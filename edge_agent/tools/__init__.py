"""Tools for whoever installs an agent: doctor, preview and cost plan."""
