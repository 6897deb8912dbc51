"""Sources of readings: MQTT, commands, serial lines, Modbus, the host, and a simulated one."""
