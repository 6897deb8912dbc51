"""Sources of readings: MQTT, commands, serial lines, Modbus, the agent's host, and a simulated sensor."""
