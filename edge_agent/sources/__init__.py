"""Sources of frames: RTSP, HTTP, files, devices, image folders, and simulated scenes."""
