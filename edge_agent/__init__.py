"""What stands next to a camera: captures, gates, spools and sends."""
